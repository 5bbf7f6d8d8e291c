//! The short way for media: a software flowtable of our own (`media.offload`).
//!
//! A flow that a flowtable carries goes from interface to interface where packets come in: past conntrack, all rules and
//! queues. One rule adds to it what is established and has one of our public endpoints on its outer side; SIP has none,
//! and a flow with a helper is never taken by the kernel.
//!
//! What that does to the rest:
//! - The conntrack entry lives for as long as packets flow: the kernel gives an offloaded one a day, and its usual two
//!   minutes when the flowtable has seen nothing for 30 s. So who asks conntrack whether a call still has media
//!   ([`Op::Lookup`](crate::alg::Op::Lookup)) gets the right answer, and an entry that dies tells of real silence.
//! - With `counter`, packets are counted in the entry, offloaded or not.
//! - Deleting the entry ends the short way with the next packet, so media that moves, and calls that end, need nothing
//!   else ([`super::conntrack`] knows of kernels that don't delete such an entry).
//!
//! All interfaces take part, those that come later (a new PPPoE session has a new one) with their first address.

use std::io;

use super::rules;
use super::socket::NetlinkSocket;
use crate::netlink::Attributes;

/// `struct ifinfomsg`
const IFINFO: usize = 16;

/// The rules of chain `short_way` and their flowtable. Without interfaces there is nothing to do.
pub(super) fn rules() -> io::Result<String> {
    let mut text = flowtable()?;
    if text.is_empty() {
        return Ok(text);
    }
    for (family, owned) in [("ip", "owned4"), ("ip6", "owned6")] {
        for direction in ["reply", "original"] {
            text.push_str(&format!(
                "add rule inet sipalg short_way meta l4proto udp ct state established meta l4proto . ct {direction} {family} daddr . \
                 ct {direction} proto-dst @{owned} flow add @media\n"
            ));
        }
    }
    Ok(text)
}

/// The flowtable with all interfaces that there are now; those that it has stay.
pub(super) fn flowtable() -> io::Result<String> {
    let devices: Vec<String> = interfaces()?.into_iter().map(|it| format!("\"{}\"", it.name)).collect();
    if devices.is_empty() {
        return Ok(String::new());
    }
    let devices = devices.join(", ");
    Ok(format!(
        "add flowtable inet sipalg media {{ hook ingress priority filter; devices = {{ {devices} }}; counter; }}\n"
    ))
}

/// What a kernel must take.
pub(super) const PROBE: &str = "table inet sipalg_probe {\n flowtable f { hook ingress priority filter; devices = { lo }; counter; }\n \
     chain c { type filter hook forward priority filter; flow add @f; }\n}\n";

/// An interface; one that is gone and back has another index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    index: u32,
    name: String,
}

/// All interfaces but the loopback one.
pub(super) fn interfaces() -> io::Result<Vec<Interface>> {
    let mut socket = NetlinkSocket::route()?;
    let mut all = Vec::new();
    socket.call(&dump(), |message| {
        let is_link = message.number == libc::RTM_NEWLINK;
        let Some(info) = message.body.get(..IFINFO).filter(|_| is_link) else { return };
        let word = |at: usize| {
            info.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes)
        };
        let (index, flags) = (word(4), word(8));
        let attributes = Attributes(message.body.get(IFINFO..).unwrap_or_default());
        if flags & libc::IFF_LOOPBACK as u32 == 0
            && let Some(name) = attributes.bytes(libc::IFLA_IFNAME)
        {
            all.push(Interface { index, name: rules::text(name) });
        }
    })?;
    Ok(all)
}

/// `nlmsghdr` and `ifinfomsg`: all interfaces.
fn dump() -> Vec<u8> {
    let length = (size_of::<libc::nlmsghdr>() + IFINFO) as u32;
    let mut bytes = Vec::with_capacity(length as usize);
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&libc::RTM_GETLINK.to_ne_bytes());
    bytes.extend_from_slice(&((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
    bytes.extend_from_slice(&1u32.to_ne_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&[0; IFINFO]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_takes_no_part() {
        assert!(interfaces().unwrap().iter().all(|it| it.name != "lo" && it.index > 1));
    }
}
