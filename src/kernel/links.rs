//! Network interfaces: MTU and name by index.
//!
//! Asked of the kernel (rtnetlink) when first needed and again when the answer is old; a packet that grew by a few bytes
//! needs the MTU of its way out at once. Routes with an MTU of their own are not looked at.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use super::rules;
use super::socket::NetlinkSocket;
use crate::netlink::{Attributes, Message};

/// How old an answer may be. An administrator changes an MTU rarely, and then packets are in flight anyway.
const FRESH: Duration = Duration::from_secs(10);
/// More interfaces than a router has at one time; old answers are forgotten then.
const LIMIT: usize = 4096;

const RTM_GETLINK: u16 = libc::RTM_GETLINK;
const RTM_NEWLINK: u16 = libc::RTM_NEWLINK;
/// `struct ifinfomsg`
const IFINFO: usize = 16;

/// What is known of the network interfaces of one network namespace.
#[derive(Debug, Default)]
pub struct Links {
    socket: Option<NetlinkSocket>,
    known: HashMap<u32, (Instant, Option<Link>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Link {
    name: String,
    mtu: u32,
}

impl Links {
    /// Nothing asked yet. The namespace is that of the thread that asks first.
    pub fn new() -> Self {
        Self::default()
    }

    /// The MTU of an interface in bytes; `None` if there is no such interface.
    pub fn mtu(&mut self, index: u32) -> Option<u32> {
        self.link(index).map(|link| link.mtu)
    }

    /// The name of an interface; `#7` if there is none.
    pub fn name(&mut self, index: u32) -> String {
        self.link(index).map_or_else(|| format!("#{index}"), |link| link.name.clone())
    }

    fn link(&mut self, index: u32) -> Option<&Link> {
        let now = Instant::now();
        let is_fresh = |(asked, _): &(Instant, Option<Link>)| now.saturating_duration_since(*asked) < FRESH;
        if !self.known.get(&index).is_some_and(is_fresh) {
            let answer = self.ask(index).unwrap_or_else(|error| {
                tracing::warn!(%error, index, "an interface could not be asked for");
                None
            });
            if self.known.len() >= LIMIT {
                self.known.clear();
            }
            self.known.insert(index, (now, answer));
        }
        self.known.get(&index).and_then(|(_, link)| link.as_ref())
    }

    fn ask(&mut self, index: u32) -> io::Result<Option<Link>> {
        // The kernel takes an index as a signed number and refuses 0.
        let Ok(signed @ 1..) = i32::try_from(index) else { return Ok(None) };
        let socket = match &mut self.socket {
            Some(socket) => socket,
            none => none.insert(NetlinkSocket::route()?),
        };
        let mut link = None;
        match socket.call(&request(signed), |message| link = link.take().or(parse(message))) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            result => result.map(|()| link),
        }
    }
}

/// `nlmsghdr` and `ifinfomsg`: this interface. rtnetlink has a header of its own, so nfnetlink's writer is of no use.
fn request(index: i32) -> Vec<u8> {
    let length = (size_of::<libc::nlmsghdr>() + IFINFO) as u32;
    let mut bytes = Vec::with_capacity(length as usize);
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&RTM_GETLINK.to_ne_bytes());
    bytes.extend_from_slice(&(libc::NLM_F_REQUEST as u16).to_ne_bytes());
    bytes.extend_from_slice(&1u32.to_ne_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&[0; 4]); // family, padding, device type
    bytes.extend_from_slice(&index.to_ne_bytes());
    bytes.extend_from_slice(&[0; 8]); // flags, change mask
    bytes
}

fn parse(message: &Message<'_>) -> Option<Link> {
    if message.number != RTM_NEWLINK {
        return None;
    }
    let attributes = Attributes(message.body.get(IFINFO..)?);
    let mtu = attributes.bytes(libc::IFLA_MTU)?.try_into().ok().map(u32::from_ne_bytes)?;
    Some(Link { name: rules::text(attributes.bytes(libc::IFLA_IFNAME)?), mtu })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_known() {
        let mut links = Links::new();
        assert_eq!(links.name(1), "lo");
        assert!(links.mtu(1).is_some_and(|mtu| mtu >= 1500));
    }

    #[test]
    fn an_interface_that_is_not_there_is_no_error() {
        let mut links = Links::new();
        assert_eq!(links.mtu(0), None);
        assert_eq!(links.mtu(u32::MAX), None);
        assert_eq!(links.name(1_999_999_999), "#1999999999");
    }
}
