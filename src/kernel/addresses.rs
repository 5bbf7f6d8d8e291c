//! Addresses of this machine that go away: a new lease, a new PPPoE session, an uplink that was taken down.
//!
//! conntrack forgets by itself what masquerade made; entries that we made, or that our maps made, would go on to send from an
//! address that nobody has. So somebody has to hear of it. An address that is gone and back at once (renewed by taking
//! it away and adding it again) has not gone: what counts is whether it is there when the messages have been read.
//! The queue of messages may overrun; then that is all the more what counts.
//! Link states and routes are not looked at: a link that comes back with its address goes on as before, and a flow that
//! takes another way is noticed by its next packet ([`Op::Reroute`](crate::alg::Op::Reroute)).

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use super::socket::NetlinkSocket;
use crate::netlink::{self, Attributes, Message};

const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV6_IFADDR: u32 = 9;
/// `struct ifaddrmsg`
const IFADDR: usize = 8;

/// A dump that is torn by changes is asked for again so many times. Each change is heard of too, and leads to the next one.
const TRIES: usize = 8;

/// The socket that hears of addresses.
#[derive(Debug)]
pub(super) struct Addresses {
    heard: NetlinkSocket,
    asking: NetlinkSocket,
    /// Those that were there when they were listed last.
    known: BTreeSet<IpAddr>,
    /// Something has happened since.
    unsure: bool,
}

/// The addresses of this machine, in this network namespace.
///
/// # Errors
/// What the system says.
pub fn held() -> io::Result<BTreeSet<IpAddr>> {
    list(&mut NetlinkSocket::route()?)
}

/// The interfaces of this machine that have this address.
///
/// # Errors
/// What the system says.
pub(super) fn holders(address: IpAddr) -> io::Result<Vec<u32>> {
    let mut holders = Vec::new();
    dump(&mut NetlinkSocket::route()?, &mut |message| {
        if parse(message) == Some(address) {
            holders.extend(interface(message));
        }
    })?;
    Ok(holders)
}

impl Addresses {
    /// Subscribes.
    pub(super) fn open() -> io::Result<Self> {
        let heard = NetlinkSocket::route()?;
        heard.join(RTNLGRP_IPV4_IFADDR)?;
        heard.join(RTNLGRP_IPV6_IFADDR)?;
        let mut asking = NetlinkSocket::route()?;
        let known = list(&mut asking)?;
        Ok(Self { heard, asking, known, unsure: false })
    }

    /// Hands over the addresses that this machine does not have any more, and answers whether others came; never blocks.
    ///
    /// What was not heard, because the queue overran, is seen all the same: what is there is compared with what was.
    pub(super) fn drain(&mut self, sink: &mut dyn FnMut(IpAddr)) -> io::Result<bool> {
        let mut came = false;
        loop {
            match self.heard.receive() {
                Ok(None) => break,
                Ok(Some(datagram)) => {
                    for message in netlink::messages(datagram) {
                        came |= message.number == libc::RTM_NEWADDR;
                        if let Some(address) = parse(&message) {
                            // It was there, be it for a moment.
                            self.known.insert(address);
                            self.unsure = true;
                        }
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    came = true;
                    self.unsure = true;
                }
                Err(error) => return Err(error),
            }
        }
        if self.unsure {
            let held = list(&mut self.asking)?;
            self.known.difference(&held).copied().for_each(sink);
            (self.known, self.unsure) = (held, false);
        }
        Ok(came)
    }
}

/// All addresses of all families, from one moment.
fn list(socket: &mut NetlinkSocket) -> io::Result<BTreeSet<IpAddr>> {
    for _ in 0..TRIES {
        let mut held = BTreeSet::new();
        if dump(socket, &mut |message| held.extend(parse(message)))? {
            return Ok(held);
        }
    }
    Err(io::ErrorKind::Interrupted.into())
}

/// Hands over what there is; `false`: it changed meanwhile, and is not of one moment.
fn dump(socket: &mut NetlinkSocket, sink: &mut dyn FnMut(&Message<'_>)) -> io::Result<bool> {
    let (mut torn, mut failed) = (false, None);
    socket.exchange(&question(), |message| {
        torn |= message.is_torn();
        failed = failed.or(message.error().filter(|code| *code != 0));
        sink(message);
    })?;
    failed.map_or(Ok(!torn), |code| Err(io::Error::from_raw_os_error(code)))
}

impl AsFd for Addresses {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.heard.as_fd()
    }
}

/// `nlmsghdr` and `ifaddrmsg`: all addresses of all families.
fn question() -> Vec<u8> {
    let length = (size_of::<libc::nlmsghdr>() + IFADDR) as u32;
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    let mut bytes = Vec::with_capacity(length as usize);
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&libc::RTM_GETADDR.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&1u32.to_ne_bytes());
    bytes.extend_from_slice(&[0; 4 + IFADDR]);
    bytes
}

/// The interface that a message is about: `ifa_index`.
fn interface(message: &Message<'_>) -> Option<u32> {
    message.body.get(4..IFADDR)?.try_into().ok().map(u32::from_ne_bytes)
}

/// The address of this machine that a message is about. On a point-to-point link IFA_ADDRESS is the other end's.
fn parse(message: &Message<'_>) -> Option<IpAddr> {
    if ![libc::RTM_NEWADDR, libc::RTM_DELADDR].contains(&message.number) {
        return None;
    }
    let attributes = Attributes(message.body.get(IFADDR..)?);
    let bytes = attributes.bytes(libc::IFA_LOCAL).or_else(|| attributes.bytes(libc::IFA_ADDRESS))?;
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn the_loopback_address_is_there_and_has_not_gone() {
        let mut addresses = Addresses::open().unwrap();
        assert!(held().unwrap().contains(&LOOPBACK), "{addresses:?}");
        addresses.unsure = true;
        addresses.drain(&mut |gone| panic!("{gone} went")).unwrap();
    }

    #[test]
    fn what_was_there_and_is_not_listed_any_more_has_gone_though_nobody_said_so() {
        let mut addresses = Addresses::open().unwrap();
        let lost = IpAddr::from([192, 0, 2, 77]);
        addresses.known.insert(lost);
        addresses.unsure = true;
        let mut gone = Vec::new();
        addresses.drain(&mut |address| gone.push(address)).unwrap();
        assert_eq!(gone, [lost]);
        assert_eq!(addresses.known, held().unwrap());
    }
}
