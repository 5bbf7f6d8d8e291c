//! IP packets for the engine: made around a message, taken apart, and sent through a NAT that does not exist.

use std::net::{IpAddr, SocketAddr};

use etherparse::PacketBuilder;

use crate::packet::{Datagram, Identity};

/// What a packet carries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Carried<'a> {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) payload: &'a [u8],
}

/// The longest UDP payload in an IPv4 packet; IPv6 could carry 20 bytes more.
pub(super) const LONGEST: usize = 65_535 - 20 - 8;

/// Takes a packet apart; `None` if it is not a whole UDP datagram.
pub(super) fn carried(packet: &[u8]) -> Option<Carried<'_>> {
    let datagram = Datagram::parse(packet).ok()?;
    Some(Carried {
        source: datagram.source(),
        destination: datagram.destination(),
        payload: datagram.payload(),
    })
}

/// A UDP packet with `payload`; `None` if that is too long, or if the families differ.
pub(super) fn packet(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Option<Vec<u8>> {
    const HOPS: u8 = 64;
    let builder = match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), HOPS),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), HOPS),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    let builder = builder.udp(source.port(), destination.port());
    if payload.len() > LONGEST {
        return None;
    }
    let mut bytes = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut bytes, payload).ok()?;
    Some(bytes)
}

/// The packet after a source NAT to `source`, with the identity that the engine gave it.
pub(super) fn translated(original: &[u8], identity: u32, source: SocketAddr) -> Vec<u8> {
    let made = carried(original).and_then(|it| packet(source, it.destination, it.payload));
    let made = made.unwrap_or_else(|| original.to_vec());
    let mut out = Vec::with_capacity(made.len());
    match Datagram::parse(&made) {
        Ok(datagram) => {
            datagram.restamp(identity, &mut out);
            out
        }
        Err(_) => made,
    }
}

/// The packet with another payload; `None` if it does not fit.
pub(super) fn with_payload(original: &[u8], payload: &[u8]) -> Option<Vec<u8>> {
    let datagram = Datagram::parse(original).ok()?;
    let mut out = Vec::with_capacity(original.len() + payload.len());
    let write = |_: &[u8], out: &mut Vec<u8>| out.extend_from_slice(payload);
    datagram.rebuild(write, Identity::default(), usize::MAX, &mut out).ok()?;
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_of_both_families() {
        for (from, to) in
            [("192.168.1.10:5060", "198.51.100.1:5070"), ("[fd00::1]:5060", "[2001:db8::1]:5070")]
        {
            let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
            let made = packet(from, to, b"hello").unwrap();
            let it = carried(&made).unwrap();
            assert_eq!((it.source, it.destination, it.payload), (from, to, &b"hello"[..]));
            let grown = with_payload(&made, b"hello, world").unwrap();
            assert_eq!(carried(&grown).unwrap().payload, b"hello, world");
        }
    }

    #[test]
    fn the_nat_changes_the_source_and_keeps_the_token() {
        let made =
            packet("192.168.1.10:5060".parse().unwrap(), "198.51.100.1:5060".parse().unwrap(), b"x").unwrap();
        let out = translated(&made, 0x1234, "203.0.113.1:1024".parse().unwrap());
        let datagram = Datagram::parse(&out).unwrap();
        assert_eq!(datagram.source(), "203.0.113.1:1024".parse().unwrap());
        assert_eq!((datagram.identity(), datagram.payload()), (0x1234, &b"x"[..]));
    }

    #[test]
    fn what_cannot_be_a_packet_is_none() {
        let v4 = "192.0.2.1:1".parse().unwrap();
        assert!(packet(v4, "[::1]:1".parse().unwrap(), b"").is_none());
        assert!(packet(v4, v4, &vec![0; LONGEST + 1]).is_none());
        assert!(packet(v4, v4, &vec![0; LONGEST]).is_some());
    }
}
