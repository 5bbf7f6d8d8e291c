//! Pinned flows: conntrack entries that we make ourselves.
//!
//! Once both ends of a stream are known, its entry is made as if the stream were already running, so that the far end's
//! media passes a firewall that lets only established flows in, before the phone has sent anything. An entry that is there
//! before ours wins for ever: a stray packet's (it has another public port, and the phone's media would be dropped at its
//! confirmation), or the right one, made by the phone's own media or by the far end's. So a pin that meets an entry looks
//! at it, deletes it unless it is right, and tries again. Packets race with us; three tries are enough for any that are
//! not a flood.
//!
//! A flow whose public endpoint the NAT gave the phone may meet an entry of another phone that was given the same one
//! towards the same far end: that one stays, and the pin is not made.
//!
//! A connection over TCP is the far end's: it has sent the first segment, which is dropped, and will send it again. The
//! entry waits for that, as if it had seen it, and conntrack follows the connection from there as any other.
//!
//! A flow whose public endpoint is the inside one has no NAT: its entry is made without a translation, and one that is
//! there already is left alone, for its media flows by it.

use std::io;

use super::conntrack::Conntrack;
use super::ctmessage::{Entry, NewEntry, Tuple};
use crate::alg::{FlowKey, Inside, Outside, PinnedFlow, Transport};

const TRIES: usize = 3;

/// Makes sure that there is exactly this entry, with the zone and mark of the signalling flow: the user's rules route
/// and shape by them. If conntrack does not know the signalling flow, it gets neither.
///
/// # Errors
/// EEXIST: entries in its way come faster than they are deleted. Else what the kernel says.
pub(super) fn pin(
    conntrack: &mut Conntrack,
    flow: &PinnedFlow,
    signalling: &FlowKey,
    timeout: u32,
    is_ours: impl Fn() -> bool,
) -> io::Result<()> {
    let model = conntrack.find(Tuple::new(signalling.transport, signalling.inside.0, signalling.far))?;
    let (mark, zone) = model.map_or((0, 0), |entry| (entry.mark, entry.zone));
    let there = directions(flow);
    let Inside(inside) = flow.inside;
    let (original, nat_source, nat_destination) = match flow.transport {
        Transport::Udp => {
            let source = is_translated(flow).then_some(flow.public.0);
            (there.0, source, flow.hairpin.map(|Inside(far)| far))
        }
        // The far end opens the connection.
        Transport::Tcp => (there.1, None, Some(inside)),
    };
    let entry = NewEntry { original, nat_source, nat_destination, timeout, mark, zone };
    for _ in 0..TRIES {
        match conntrack.create(&entry) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => (),
            result => return result,
        }
        if !is_translated(flow) {
            return Ok(());
        }
        if clear_the_way(conntrack, there, zone, spared(flow, &is_ours))? {
            return Ok(());
        }
    }
    Err(io::Error::from_raw_os_error(libc::EEXIST))
}

/// Deletes what is in the way of the flow, and makes nothing.
pub(super) fn make_way(
    conntrack: &mut Conntrack,
    flow: &PinnedFlow,
    signalling: &FlowKey,
    is_ours: impl Fn() -> bool,
) -> io::Result<()> {
    if is_translated(flow) {
        let tuple = Tuple::new(signalling.transport, signalling.inside.0, signalling.far);
        let zone = conntrack.find(tuple)?.map_or(0, |entry| entry.zone);
        clear_the_way(conntrack, directions(flow), zone, spared(flow, is_ours))?;
    }
    Ok(())
}

/// Deletes the flow's entry in whichever zone it is.
pub(super) fn unpin(conntrack: &mut Conntrack, flow: &PinnedFlow) -> io::Result<()> {
    let (out, back) = directions(flow);
    for zone in conntrack.zones().to_vec() {
        if let Some(entry) = conntrack.get(out, zone)?
            && (is_translated(flow) || is_right(&entry, out, back))
        {
            conntrack.delete(&entry)?;
        }
    }
    Ok(())
}

/// A public endpoint that is not one of ours is the NAT's, who may give it to several hosts: then only this host's entries
/// are in the way.
fn spared(flow: &PinnedFlow, is_ours: impl Fn() -> bool) -> Option<Inside> {
    (!is_ours()).then_some(flow.inside)
}

fn is_translated(flow: &PinnedFlow) -> bool {
    flow.public.0 != flow.inside.0 || flow.hairpin.is_some()
}

/// Deletes what has one of the tuples; `true` if it is what we want. With `only` an endpoint, what another one inside has
/// at the public endpoint stays, and there is nothing to be done.
fn clear_the_way(
    conntrack: &mut Conntrack,
    (out, back): (Tuple, Tuple),
    zone: u16,
    only: Option<Inside>,
) -> io::Result<bool> {
    for tuple in [out, back] {
        let Some(entry) = conntrack.get(tuple, zone)? else { continue };
        let is_others = only.is_some_and(|inside| is_others(&entry, back, inside));
        if is_others || is_right(&entry, out, back) {
            return Ok(true);
        }
        tracing::debug!(?entry, "deleting a conntrack entry that is in the way of a pinned flow");
        conntrack.delete(&entry)?;
    }
    Ok(false)
}

/// Whether an entry is another's than `inside`'s. The far end's stray packet, which came before anybody inside had sent
/// and so ended at the router, is nobody's.
fn is_others(entry: &Entry, back: Tuple, inside: Inside) -> bool {
    let (holder, is_stray) = if entry.original == back {
        (entry.reply.source, entry.reply.source == back.destination)
    } else {
        (entry.original.source, false)
    };
    holder != inside.0 && !is_stray
}

/// Either end may have been first.
fn is_right(entry: &Entry, out: Tuple, back: Tuple) -> bool {
    (entry.original, entry.reply) == (out, back) || (entry.original, entry.reply) == (back, out)
}

/// Both directions of the flow as they come in: the phone's, and the far end's as the outside addresses it.
pub(super) fn directions(flow: &PinnedFlow) -> (Tuple, Tuple) {
    let (Inside(inside), Outside(public)) = (flow.inside, flow.public);
    let far_sends_from = flow.hairpin.map_or(flow.far, |Inside(far)| far);
    let tuple = |source, destination| Tuple::new(flow.transport, source, destination);
    (tuple(inside, flow.far), tuple(far_sends_from, public))
}
