//! Expectations: conntrack is told of media before it comes.
//!
//! An expectation belongs to the signalling flow's entry, which must have our helper ([`super::cthelper`]). It says: a flow
//! from such a source to this public endpoint is related to that one. It admits and does no more: nothing is said of NAT in
//! it, because the maps translate the flow like any other to that endpoint. The first packet uses it up.
//!
//! What has come by it is an entry that nobody pinned. So whoever takes an expectation back and finds it used up deletes
//! that entry too: from then on only who was negotiated gets through.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use super::conntrack::Conntrack;
use super::ctmessage::{Tuple, put_tuple};
use crate::alg::{FlowKey, MediaClass, Outside, Transport};
use crate::netlink::{MessageType, NLM_F_ACK, NLM_F_CREATE, Writer};

const CTNETLINK_EXP: u8 = 2;
const EXP_NEW: u8 = 0;
const EXP_DELETE: u8 = 2;

const CTA_EXPECT_MASTER: u16 = 1;
const CTA_EXPECT_TUPLE: u16 = 2;
const CTA_EXPECT_MASK: u16 = 3;
const CTA_EXPECT_TIMEOUT: u16 = 4;
const CTA_EXPECT_ZONE: u16 = 7;
const CTA_EXPECT_CLASS: u16 = 9;

/// How long a packet may take through the router.
const ON_ITS_WAY: Duration = Duration::from_millis(2);

/// What the expectations of one stream have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected<'a> {
    /// From whom; `None`: from anybody.
    pub(super) source: Option<IpAddr>,
    pub(super) class: MediaClass,
    /// Whose media it is.
    pub(super) signalling: &'a FlowKey,
}

/// Expects media at public endpoints. One that is expected already gets a new lifetime.
///
/// # Errors
/// ENOENT: conntrack does not know the signalling flow (yet). EOPNOTSUPP: it has no helper.
pub(super) fn create(
    conntrack: &mut Conntrack,
    expected: &Expected<'_>,
    public: impl Iterator<Item = SocketAddr>,
    seconds: u32,
) -> io::Result<()> {
    let FlowKey { transport, inside, far } = *expected.signalling;
    let unknown = || io::Error::from_raw_os_error(libc::ENOENT);
    let master = conntrack.find(Tuple::new(transport, inside.0, far))?.ok_or_else(unknown)?;
    let (zone, master) = (master.zone, master.original);
    for public in public {
        conntrack.call(|w| write_new(w, expected, master, zone, public, seconds, NLM_F_CREATE))?;
        // What is made has the lifetime of its helper's policy; only what is there can be given another. If media has used
        // it up by now, it has had what it was for.
        let renewed = conntrack.call(|w| write_new(w, expected, master, zone, public, seconds, 0));
        match renewed {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => (),
            result => result?,
        }
    }
    Ok(())
}

/// Expects nothing at these endpoints any more. Answers at which of them media has come by it, or nothing was expected.
pub(super) fn remove(
    conntrack: &mut Conntrack,
    signalling: &FlowKey,
    public: &[Outside],
) -> io::Result<Vec<SocketAddr>> {
    let mut used = Vec::new();
    for &Outside(endpoint) in public {
        let is_gone = |error: &io::Error| error.raw_os_error() == Some(libc::ENOENT);
        for zone in conntrack.zones().to_vec() {
            match conntrack.call(|w| write_delete(w, signalling.far.ip(), endpoint, zone)) {
                Ok(()) => used.retain(|it| *it != endpoint),
                Err(error) if is_gone(&error) && used.contains(&endpoint) => (),
                Err(error) if is_gone(&error) => used.push(endpoint),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(used)
}

/// Deletes the entries that media has made at these endpoints. A packet that has used an expectation up has no entry as long
/// as it is on its way through the router: that is waited for, for a moment.
pub(super) fn clear(conntrack: &mut Conntrack, used: &[SocketAddr]) -> io::Result<()> {
    let mut missing = used.to_vec();
    for _ in 0..3 {
        if missing.is_empty() {
            break;
        }
        let mut early = Vec::new();
        conntrack.dump(|entry| {
            let Tuple { transport, destination, .. } = entry.original;
            if transport == Transport::Udp && used.contains(&destination) {
                early.push(entry);
            }
        })?;
        missing.retain(|endpoint| early.iter().all(|entry| entry.original.destination != *endpoint));
        early.iter().try_for_each(|entry| conntrack.delete(entry))?;
        if !missing.is_empty() {
            thread::sleep(ON_ITS_WAY);
        }
    }
    Ok(())
}

fn write_new(
    writer: &mut Writer,
    expected: &Expected<'_>,
    master: Tuple,
    zone: u16,
    public: SocketAddr,
    seconds: u32,
    create: u16,
) {
    let (any, exact) = match public {
        SocketAddr::V4(_) => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::BROADCAST)),
        SocketAddr::V6(_) => (IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::from_bits(u128::MAX))),
    };
    let source = expected.source.filter(|it| it.is_ipv4() == public.is_ipv4());
    let source_mask = if source.is_some() { exact } else { any };
    request(writer, EXP_NEW, NLM_F_ACK | create, public, |w| {
        put_tuple(w, CTA_EXPECT_MASTER, master);
        let from = SocketAddr::new(source.unwrap_or(any), 0);
        put_tuple(w, CTA_EXPECT_TUPLE, Tuple::udp(from, public));
        let mask = Tuple::udp(SocketAddr::new(source_mask, 0), SocketAddr::new(exact, u16::MAX));
        put_tuple(w, CTA_EXPECT_MASK, mask);
        w.put_u32(CTA_EXPECT_TIMEOUT, seconds);
        put_expect_zone(w, zone);
        w.put_u32(CTA_EXPECT_CLASS, expected.class as u32);
    });
}

fn write_delete(writer: &mut Writer, source: IpAddr, public: SocketAddr, zone: u16) {
    request(writer, EXP_DELETE, NLM_F_ACK, public, |w| {
        // Any source that its mask lets in finds it.
        put_tuple(w, CTA_EXPECT_TUPLE, Tuple::udp(SocketAddr::new(source, 0), public));
        put_expect_zone(w, zone);
    });
}

fn put_expect_zone(w: &mut Writer, zone: u16) {
    if zone != 0 {
        w.put_u16(CTA_EXPECT_ZONE, zone);
    }
}

fn request(
    writer: &mut Writer,
    message: u8,
    flags: u16,
    public: SocketAddr,
    attributes: impl FnOnce(&mut Writer),
) {
    let family = if public.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    writer.message(MessageType { subsystem: CTNETLINK_EXP, message }, flags, 1, family as u8, 0, attributes);
}
