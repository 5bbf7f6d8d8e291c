//! Every packet that waits for a verdict, and what each verdict does to its bytes.
//!
//! The gate owns the queue. It knows which packets of the batch are still open, keeps those that outlast it
//! ([`Held`]), and turns an [`Action`] into a packet: edits become a new payload, lengths and checksums follow
//! ([`Datagram`]). It decides nothing; what cannot be carried out passes as it came, for doing no harm is the rule that
//! is left. A segment of TCP is dropped then: as it came it may be a wrong one, and it is sent again.

use std::time::Instant;
use std::{fmt, io};

use tracing::{Level, debug, enabled, trace};

use super::held::{Held, Kind};
use crate::alg::{Action, Edits, PacketId, PacketIn, Tuples, Verdict};
use crate::packet::{Datagram, Identity, TooLarge};
use crate::queue::{Counters, PacketQueue};

/// The queue, and the packets in it that have no verdict.
#[derive(Debug)]
pub struct Gate<Q> {
    queue: Q,
    /// Packets of the last batch without a verdict, and their places in it.
    open: Vec<(PacketId, usize)>,
    held: Held,
    buffer: Vec<u8>,
    mishaps: Mishaps,
}

/// What should not happen, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mishaps {
    /// Edited packets that would have been too large; they passed as they came. (This, and the following: those of TCP
    /// were dropped.)
    pub too_large: u64,
    /// Edited packets of IPv6 that no longer fit the way out. Only the sender may cut them into fragments: if it had not done
    /// so already, the kernel drops them, however often they are repeated.
    pub outgrown: u64,
    /// Packets that passed as they came because too many others were waiting.
    pub held_full: u64,
    /// Packets that passed as they came because no verdict ever came.
    pub forgotten: u64,
    /// Verdicts for packets that were not waiting.
    pub stray: u64,
}

/// An edited packet of IPv6 that fitted the way out before, and does not now. Sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgrown {
    /// As it came.
    pub was: usize,
    /// As it leaves.
    pub is: usize,
    /// What the way out takes.
    pub mtu: usize,
}

impl fmt::Display for Outgrown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { was, is, mtu } = self;
        write!(
            f,
            "{was} bytes became {is}, and the way out takes {mtu}: unless it came in fragments it is lost; announce \
             a smaller MTU to the phones, by router advertisements, as 1280"
        )
    }
}

/// What becomes of a packet, with its new bytes, if any.
enum Way<'a> {
    AsItCame,
    Changed(&'a [u8]),
    TooLarge,
    Gone,
}

impl<Q: PacketQueue> Gate<Q> {
    /// A gate in front of `queue`.
    pub fn new(queue: Q) -> Self {
        let (open, buffer) = (Vec::new(), Vec::new());
        Self { queue, open, held: Held::default(), buffer, mishaps: Mishaps::default() }
    }

    /// Takes in the next batch and says how many packets it has. The last one must have been put aside.
    ///
    /// # Errors
    /// As [`PacketQueue::receive`].
    pub fn receive(&mut self) -> io::Result<usize> {
        debug_assert!(self.open.is_empty(), "packets of the last batch would be lost");
        self.queue.receive()
    }

    /// A look at the packet at this place of the batch.
    pub fn glance(&self, index: usize) -> Option<Glance> {
        let packet = self.queue.packet(index)?;
        Some(Glance { kind: Kind::of(&packet), interfaces: [packet.indev, packet.outdev] })
    }

    /// Drops the packet at this place of the batch unseen.
    pub fn turn_away(&mut self, index: usize) {
        if let Some(id) = self.queue.packet(index).map(|packet| packet.id) {
            self.queue.discard(id);
        }
    }

    /// The packet at this place of the batch, which waits for its verdict from now on.
    pub fn admit(&mut self, index: usize) -> Option<PacketIn<'_>> {
        let packet = self.queue.packet(index)?;
        self.open.push((packet.id, index));
        Some(packet)
    }

    /// What conntrack told of the packet at this place of the batch, before it is admitted.
    pub fn entry(&self, index: usize) -> Option<(PacketId, Tuples)> {
        Some((self.queue.packet(index)?.id, self.queue.entry(index)?))
    }

    /// A packet that waits.
    pub fn packet(&self, id: PacketId) -> Option<PacketIn<'_>> {
        waiting(&self.queue, &self.open, &self.held, id)
    }

    /// Carries out a verdict; `mtu` tells that of an interface by its index. Answers what somebody should be told.
    pub fn carry_out(&mut self, verdict: &Verdict<'_>, mtu: impl FnOnce(u32) -> usize) -> Option<Outgrown> {
        let id = verdict.packet;
        let Some(packet) = waiting(&self.queue, &self.open, &self.held, id) else {
            self.mishaps.stray += 1;
            return None;
        };
        let mut outgrown = None;
        trace!(packet = id.0, point = ?packet.point, reason = verdict.reason.name(), "verdict");
        let way = match verdict.action {
            Action::Accept { identity } => match (verdict.port, identity) {
                (Some(port), _) => redirect(&packet, port, identity, &mut self.buffer),
                (None, Some(identity)) => restamp(&packet, identity, &mut self.buffer),
                (None, None) => Way::AsItCame,
            },
            Action::Rewrite { edits, identity, spare_identity } => {
                let identity = Identity { set: identity, spare: spare_identity };
                let mtu = mtu(packet.outdev);
                let way = rewrite(&packet, edits, verdict.port, identity, mtu, &mut self.buffer);
                let was = packet.bytes.len();
                let is_ipv6 = packet.bytes.first().is_some_and(|byte| byte >> 4 == 6);
                if let Way::Changed(bytes) = way
                    && is_ipv6
                    && was <= mtu
                    && bytes.len() > mtu
                {
                    self.mishaps.outgrown += 1;
                    outgrown = Some(Outgrown { was, is: bytes.len(), mtu });
                }
                way
            }
            Action::Replace { packet } => Way::Changed(packet),
            Action::Drop => Way::Gone,
        };
        let is_carried_out = match way {
            Way::Changed(bytes) => self.queue.replace(id, bytes).is_ok(),
            Way::AsItCame => {
                self.queue.accept(id);
                true
            }
            Way::Gone => {
                self.queue.discard(id);
                true
            }
            Way::TooLarge => false,
        };
        if !is_carried_out {
            self.mishaps.too_large += 1;
            let kind = self.packet(id).map(|packet| Kind::of(&packet));
            give_up(&mut self.queue, id, kind.unwrap_or(Kind::Segment));
        }
        self.open.retain(|(open, _)| *open != id);
        self.held.remove(id);
        outgrown
    }

    /// Ends the batch: packets still open are held, or pass if they cannot be.
    pub fn put_aside(&mut self, now: Instant) {
        for (id, index) in self.open.drain(..) {
            let Some(packet) = self.queue.packet(index) else { continue };
            let kind = Kind::of(&packet);
            if self.held.insert(&packet, now).is_err() {
                self.mishaps.held_full += 1;
                give_up(&mut self.queue, id, kind);
            }
        }
    }

    /// Lets packets pass for which no verdict came in all the time that there was; how many.
    pub fn release_forgotten(&mut self, now: Instant) -> usize {
        let mut count = 0;
        while let Some((id, kind)) = self.held.pop_overdue(now) {
            give_up(&mut self.queue, id, kind);
            count += 1;
        }
        self.mishaps.forgotten += count as u64;
        count
    }

    /// Lets every packet pass that waits; the last batch has been put aside.
    pub fn release_all(&mut self) {
        for (id, kind) in self.held.ids() {
            self.held.remove(id);
            give_up(&mut self.queue, id, kind);
        }
    }

    /// Sends the verdicts.
    ///
    /// # Errors
    /// As [`PacketQueue::flush`]: to be called again.
    pub fn flush(&mut self) -> io::Result<()> {
        self.queue.flush()
    }

    /// The queue, for its descriptor.
    pub fn queue(&self) -> &Q {
        &self.queue
    }

    #[cfg(test)]
    pub(super) fn queue_mut(&mut self) -> &mut Q {
        &mut self.queue
    }

    /// When [`Gate::release_forgotten`] is worth a call.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.held.poll_timeout()
    }

    /// Packets held over from earlier batches.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// What the queue has counted.
    pub fn counters(&self) -> Counters {
        self.queue.counters()
    }

    /// What should not have happened.
    pub fn mishaps(&self) -> Mishaps {
        self.mishaps
    }
}

/// What may be seen of a packet without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance {
    /// What may become of it without a verdict.
    pub kind: Kind,
    /// Indices of the interfaces that it came in by and will leave by; 0 when not known.
    pub interfaces: [u32; 2],
}

/// The verdict for a packet for which there is none.
fn give_up<Q: PacketQueue>(queue: &mut Q, id: PacketId, kind: Kind) {
    match kind {
        Kind::Datagram => queue.accept(id),
        Kind::Segment => queue.discard(id),
    }
}

fn waiting<'a, Q: PacketQueue>(
    queue: &'a Q,
    open: &[(PacketId, usize)],
    held: &'a Held,
    id: PacketId,
) -> Option<PacketIn<'a>> {
    match open.iter().find(|(open, _)| *open == id) {
        Some((_, index)) => queue.packet(*index),
        None => held.get(id),
    }
}

fn restamp<'b>(packet: &PacketIn<'_>, identity: u32, buffer: &'b mut Vec<u8>) -> Way<'b> {
    match crate::packet::restamp(packet.bytes, identity, buffer) {
        Ok(()) => Way::Changed(buffer),
        Err(_) => Way::AsItCame,
    }
}

/// The packet to another port, with the payload that it has.
fn redirect<'b>(packet: &PacketIn<'_>, port: u16, identity: Option<u32>, buffer: &'b mut Vec<u8>) -> Way<'b> {
    let Ok(datagram) = Datagram::parse(packet.bytes) else { return Way::AsItCame };
    let copy = |payload: &[u8], out: &mut Vec<u8>| out.extend_from_slice(payload);
    // It does not grow: neither the MTU nor another identification matters.
    let identity = Identity { set: identity, spare: 1 };
    match datagram.to_port(port).rebuild(copy, identity, usize::MAX, buffer) {
        Ok(()) => Way::Changed(buffer),
        Err(TooLarge) => Way::TooLarge,
    }
}

fn rewrite<'b>(
    packet: &PacketIn<'_>,
    edits: &Edits,
    port: Option<u16>,
    identity: Identity,
    mtu: usize,
    buffer: &'b mut Vec<u8>,
) -> Way<'b> {
    let Ok(datagram) = Datagram::parse(packet.bytes) else { return Way::AsItCame };
    if enabled!(Level::DEBUG) {
        log_edits(packet.id, datagram.payload(), edits);
    }
    let datagram = port.map_or(datagram, |port| datagram.to_port(port));
    match datagram.rebuild(|payload, out| edits.apply(payload, out), identity, mtu, buffer) {
        Ok(()) => Way::Changed(buffer),
        Err(TooLarge) => Way::TooLarge,
    }
}

fn log_edits(packet: PacketId, payload: &[u8], edits: &Edits) {
    for edit in edits.iter() {
        debug!(
            packet = packet.0,
            offset = edit.span.start,
            old = &*String::from_utf8_lossy(edit.span.of(payload)),
            new = &*String::from_utf8_lossy(edits.text(edit)),
            rule = edit.rule.name(),
            "rewrite"
        );
    }
}
