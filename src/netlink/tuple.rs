//! The endpoints in a conntrack entry (`CTA_TUPLE_*`), which ctnetlink tells, and some kernels with a queued packet.
//!
//! Addresses, ports and the number of the protocol; what an entry says beside them is read where it is asked for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Attributes, Writer};

/// Nests the tuple of the direction in which the entry began.
pub const CTA_TUPLE_ORIG: u16 = 1;
/// Nests that of the other direction.
pub const CTA_TUPLE_REPLY: u16 = 2;
/// In a tuple: nests its addresses.
pub const CTA_TUPLE_IP: u16 = 1;
/// In a tuple: nests its protocol and ports.
pub const CTA_TUPLE_PROTO: u16 = 2;
/// Destination address of a tuple, IPv4.
pub const CTA_IP_V4_DST: u16 = 2;
/// Destination address of a tuple, IPv6.
pub const CTA_IP_V6_DST: u16 = 4;
/// Number of the protocol, one byte.
pub const CTA_PROTO_NUM: u16 = 1;
/// Destination port of a tuple.
pub const CTA_PROTO_DST_PORT: u16 = 3;

const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_PROTO_SRC_PORT: u16 = 2;

/// Source and destination of a tuple; `None` if it has not both.
pub fn ends(tuple: Attributes<'_>) -> Option<(SocketAddr, SocketAddr)> {
    let (addresses, ports) = (tuple.nested(CTA_TUPLE_IP), tuple.nested(CTA_TUPLE_PROTO));
    let address = |v4, v6| {
        let four = addresses.bytes(v4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
        let six = addresses.bytes(v6).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
        four.map(|bytes| IpAddr::from(Ipv4Addr::from(bytes)))
            .or(six.map(|bytes| IpAddr::from(Ipv6Addr::from(bytes))))
    };
    Some((
        SocketAddr::new(address(CTA_IP_V4_SRC, CTA_IP_V6_SRC)?, ports.u16(CTA_PROTO_SRC_PORT)?),
        SocketAddr::new(address(CTA_IP_V4_DST, CTA_IP_V6_DST)?, ports.u16(CTA_PROTO_DST_PORT)?),
    ))
}

/// The number of a tuple's protocol.
pub fn protocol(tuple: Attributes<'_>) -> Option<u8> {
    tuple.nested(CTA_TUPLE_PROTO).bytes(CTA_PROTO_NUM)?.first().copied()
}

/// Writes a tuple as attribute `kind`.
pub fn put(w: &mut Writer, kind: u16, protocol: u8, source: SocketAddr, destination: SocketAddr) {
    w.nest(kind, |w| {
        w.nest(CTA_TUPLE_IP, |w| {
            put_address(w, source.ip(), CTA_IP_V4_SRC, CTA_IP_V6_SRC);
            put_address(w, destination.ip(), CTA_IP_V4_DST, CTA_IP_V6_DST);
        });
        w.nest(CTA_TUPLE_PROTO, |w| {
            w.put(CTA_PROTO_NUM, &[protocol]);
            w.put_u16(CTA_PROTO_SRC_PORT, source.port());
            w.put_u16(CTA_PROTO_DST_PORT, destination.port());
        });
    });
}

/// Writes an address as the attribute of its family.
pub fn put_address(w: &mut Writer, address: IpAddr, kind_v4: u16, kind_v6: u16) {
    match address {
        IpAddr::V4(v4) => w.put(kind_v4, &v4.octets()),
        IpAddr::V6(v6) => w.put(kind_v6, &v6.octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_in_both_families_and_half_of_it_is_nothing() {
        for ends_of in [["192.168.1.10:5060", "22.33.44.20:5061"], ["[fd00::10]:5060", "[2001:db8::9]:5061"]]
        {
            let [source, destination] = ends_of.map(|it| it.parse().unwrap());
            let mut writer = Writer::new();
            put(&mut writer, CTA_TUPLE_REPLY, 17, source, destination);
            let tuple = Attributes(writer.bytes()).nested(CTA_TUPLE_REPLY);
            assert_eq!((protocol(tuple), ends(tuple)), (Some(17), Some((source, destination))));
            assert_eq!(ends(Attributes(writer.bytes()).nested(CTA_TUPLE_ORIG)), None);
            assert_eq!(ends(Attributes(tuple.nested(CTA_TUPLE_IP).0)), None);
        }
    }
}
