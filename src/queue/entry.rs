//! The conntrack entry that some kernels hand out with a queued packet (`NFQA_CT`).
//!
//! Only the endpoints of both directions are read; the rest of such entries is read elsewhere. A queue
//! neither asks conntrack nor changes it.

use crate::alg::{Transport, Tuples};
use crate::netlink::Attributes;
use crate::netlink::tuple::{CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, ends};

/// Both directions of the entry in an `NFQA_CT` attribute, which is one of UDP: nobody looks at those of segments. `None`
/// if it is not of a protocol with ports.
pub(super) fn tuples(entry: &[u8]) -> Option<Tuples> {
    let (orig_source, orig_destination) = ends(Attributes(entry).nested(CTA_TUPLE_ORIG))?;
    let (reply_source, reply_destination) = ends(Attributes(entry).nested(CTA_TUPLE_REPLY))?;
    Some(Tuples { transport: Transport::Udp, orig_source, orig_destination, reply_source, reply_destination })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{Writer, tuple};

    #[test]
    fn both_directions_are_read_in_both_families() {
        for all in [
            ["192.168.1.10:5060", "22.33.44.20:5060", "22.33.44.20:5060", "22.33.44.55:17375"],
            ["[fd00::10]:5060", "[2001:db8::9]:5060", "[2001:db8::9]:5060", "[2001:db8::1]:17375"],
        ] {
            let [a, b, c, d] = all.map(|it| it.parse().unwrap());
            let mut writer = Writer::new();
            tuple::put(&mut writer, CTA_TUPLE_ORIG, 17, a, b);
            assert_eq!(tuples(writer.bytes()), None, "half of it");
            tuple::put(&mut writer, CTA_TUPLE_REPLY, 17, c, d);
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
