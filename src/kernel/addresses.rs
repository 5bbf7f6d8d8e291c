//! Addresses of this machine that go away: a new lease, a new PPPoE session, an uplink that was taken down.
//!
//! conntrack forgets by itself what masquerade made; entries that we made, or that our maps made, would go on to send from an
//! address that nobody has. So somebody has to hear of it. An address that is gone and back at once (renewed by taking
//! it away and adding it again) has not gone: what counts is whether it is there when the messages have been read.
//! Link states and routes are not looked at: a link that comes back with its address goes on as before.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use super::socket::NetlinkSocket;
use crate::netlink::{self, Attributes, Message};

const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV6_IFADDR: u32 = 9;
/// `struct ifaddrmsg`
const IFADDR: usize = 8;

/// The socket that hears of addresses.
#[derive(Debug)]
pub(super) struct Addresses {
    heard: NetlinkSocket,
    asking: NetlinkSocket,
}

impl Addresses {
    /// Subscribes.
    pub(super) fn open() -> io::Result<Self> {
        let heard = NetlinkSocket::route()?;
        heard.join(RTNLGRP_IPV4_IFADDR)?;
        heard.join(RTNLGRP_IPV6_IFADDR)?;
        Ok(Self { heard, asking: NetlinkSocket::route()? })
    }

    /// Hands over the addresses that this machine does not have any more, and answers whether others came; never blocks.
    pub(super) fn drain(&mut self, sink: &mut dyn FnMut(IpAddr)) -> io::Result<bool> {
        let mut gone: Vec<IpAddr> = Vec::new();
        let mut came = false;
        while let Some(datagram) = self.heard.receive()? {
            for message in netlink::messages(datagram) {
                came |= message.number == libc::RTM_NEWADDR;
                if let Some(address) = parse(&message).filter(|_| message.number == libc::RTM_DELADDR)
                    && !gone.contains(&address)
                {
                    gone.push(address);
                }
            }
        }
        if gone.is_empty() {
            return Ok(came);
        }
        let mut held = Vec::new();
        self.asking.call(&question(), |message| held.extend(parse(message)))?;
        gone.into_iter().filter(|address| !held.contains(address)).for_each(sink);
        Ok(came)
    }
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

    #[test]
    fn the_loopback_address_is_there_and_has_not_gone() {
        let mut addresses = Addresses::open().unwrap();
        let mut held = Vec::new();
        addresses.asking.call(&question(), |message| held.extend(parse(message))).unwrap();
        assert!(held.contains(&IpAddr::from([127, 0, 0, 1])), "{held:?}");
        addresses.drain(&mut |gone| panic!("{gone} went")).unwrap();
    }
}
