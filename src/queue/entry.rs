//! The conntrack entry that some kernels hand out with a queued packet (`NFQA_CT`).
//!
//! Only the endpoints of both directions are read; the rest of such entries is read elsewhere. A queue
//! neither asks conntrack nor changes it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::alg::{Transport, Tuples};
use crate::netlink::Attributes;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

/// Both directions of the entry in an `NFQA_CT` attribute, which is one of UDP: nobody looks at those of segments. `None`
/// if it is not of a protocol with ports.
pub(super) fn tuples(entry: &[u8]) -> Option<Tuples> {
    let (orig_source, orig_destination) = ends(Attributes(entry).nested(CTA_TUPLE_ORIG))?;
    let (reply_source, reply_destination) = ends(Attributes(entry).nested(CTA_TUPLE_REPLY))?;
    Some(Tuples { transport: Transport::Udp, orig_source, orig_destination, reply_source, reply_destination })
}

fn ends(tuple: Attributes<'_>) -> Option<(SocketAddr, SocketAddr)> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Writer;

    fn put(w: &mut Writer, kind: u16, [source, destination]: [SocketAddr; 2]) {
        w.nest(kind, |w| {
            w.nest(CTA_TUPLE_IP, |w| {
                for (ip, v4, v6) in [
                    (source.ip(), CTA_IP_V4_SRC, CTA_IP_V6_SRC),
                    (destination.ip(), CTA_IP_V4_DST, CTA_IP_V6_DST),
                ] {
                    match ip {
                        IpAddr::V4(ip) => w.put(v4, &ip.octets()),
                        IpAddr::V6(ip) => w.put(v6, &ip.octets()),
                    }
                }
            });
            w.nest(CTA_TUPLE_PROTO, |w| {
                w.put(1, &[17]);
                w.put_u16(CTA_PROTO_SRC_PORT, source.port());
                w.put_u16(CTA_PROTO_DST_PORT, destination.port());
            });
        });
    }

    #[test]
    fn both_directions_are_read_in_both_families() {
        for all in [
            ["192.168.1.10:5060", "22.33.44.20:5060", "22.33.44.20:5060", "22.33.44.55:17375"],
            ["[fd00::10]:5060", "[2001:db8::9]:5060", "[2001:db8::9]:5060", "[2001:db8::1]:17375"],
        ] {
            let [a, b, c, d] = all.map(|it| it.parse().unwrap());
            let mut writer = Writer::new();
            put(&mut writer, CTA_TUPLE_ORIG, [a, b]);
            assert_eq!(tuples(writer.bytes()), None, "half of it");
            put(&mut writer, CTA_TUPLE_REPLY, [c, d]);
            let expected = Tuples {
                transport: Transport::Udp,
                orig_source: a,
                orig_destination: b,
                reply_source: c,
                reply_destination: d,
            };
            assert_eq!(tuples(writer.bytes()), Some(expected));
        }
    }
}
