//! The packet layer: whatever is accepted can be rebuilt, and nothing else in it changes.

use std::net::IpAddr;

use crate::packet::{Datagram, Identity};

const MTU: usize = 1500;

/// Takes `data` for an IP packet; if it is a datagram, gives it other payloads and identities.
///
/// # Panics
/// If a byte changes that has no reason to, or a length or checksum is wrong.
pub fn packet(data: &[u8]) {
    let Ok(datagram) = Datagram::parse(data) else { return };
    let old = datagram.payload().to_vec();
    let shorter = old.get(..old.len() / 2).unwrap_or_default();
    let longer = [old.as_slice(), &[0xa5; 37]].concat();
    for payload in [old.as_slice(), shorter, &longer, b""] {
        for (mtu, set) in [(MTU, None), (usize::MAX, Some(0x000f_1234)), (0, Some(0)), (0, None)] {
            let identity = Identity { set, spare: 0xbeef };
            let mut out = vec![0xee; 3];
            let write = |was: &[u8], out: &mut Vec<u8>| {
                assert_eq!(was, old);
                out.extend_from_slice(payload);
            };
            if datagram.rebuild(write, identity, mtu, &mut out).is_ok() {
                assert_rebuilt(data, &datagram, &out, payload, identity);
            } else {
                assert!(data.len() - old.len() + payload.len() > 65_535, "it would have fitted");
            }
        }
    }
    let mut out = Vec::new();
    datagram.restamp(0x000a_bcde, &mut out);
    assert_eq!(out.len(), datagram_length(data, &datagram));
    let again = Datagram::parse(&out).expect("only its identity changed");
    let mask = if datagram.source().is_ipv4() { 0xffff } else { 0xf_ffff };
    assert_eq!(again.identity(), 0x000a_bcde & mask);
    datagram.restamp(datagram.identity(), &mut out);
    assert_eq!(Some(out.as_slice()), data.get(..out.len()));
}

/// How long the packet is without what lies behind it, by its own header.
fn datagram_length(data: &[u8], datagram: &Datagram<'_>) -> usize {
    match datagram.source() {
        it if it.is_ipv4() => usize::from(word(data, 2)),
        _ => 40 + usize::from(word(data, 4)),
    }
}

/// Checks `out`, which is `data` with another payload.
pub(super) fn assert_rebuilt(
    data: &[u8],
    datagram: &Datagram<'_>,
    out: &[u8],
    payload: &[u8],
    identity: Identity,
) {
    let transport = datagram_length(data, datagram) - datagram.payload().len() - 8;
    assert_eq!(out.get(transport + 8..), Some(payload));
    let mut may_change = vec![transport + 4, transport + 5, transport + 6, transport + 7];
    let length = out.len() - transport;
    assert_eq!(usize::from(word(out, transport + 4)), length, "UDP length");
    let addresses = match datagram.source().ip() {
        IpAddr::V4(_) => {
            assert_eq!(usize::from(word(out, 2)), out.len(), "total length");
            let header = usize::from(data.first().copied().unwrap_or_default() & 15) * 4;
            assert_eq!(naive_sum(out.get(..header).unwrap_or_default()), 0xffff, "header checksum");
            may_change.extend([2, 3, 10, 11]);
            let lost_df = (byte(data, 6) ^ byte(out, 6)) == 0x40;
            if lost_df {
                assert!(byte(data, 6) & 0x40 != 0 && payload.len() > datagram.payload().len());
                assert_ne!(word(out, 4), 0, "a packet that may be fragmented has an identification");
                may_change.push(6);
            }
            match identity.set {
                Some(id) if !(lost_df && id as u16 == 0) => assert_eq!(word(out, 4), id as u16),
                _ if lost_df => assert_eq!(word(out, 4), identity.spare),
                _ => assert_eq!(word(out, 4), word(data, 4)),
            }
            may_change.extend([4, 5]);
            out.get(12..20)
        }
        IpAddr::V6(_) => {
            assert_eq!(usize::from(word(out, 4)), out.len() - 40, "payload length");
            may_change.extend([4, 5]);
            if let Some(label) = identity.set {
                assert_eq!(u32::from(byte(out, 1) & 15) << 16 | u32::from(word(out, 2)), label & 0xf_ffff);
                assert_eq!(byte(out, 1) >> 4, byte(data, 1) >> 4, "traffic class");
                may_change.extend([1, 2, 3]);
            }
            out.get(8..40)
        }
    };
    for at in (0..transport + 8).filter(|at| !may_change.contains(at)) {
        assert_eq!(byte(out, at), byte(data, at), "header byte {at} changed");
    }
    let unsummed = datagram.source().is_ipv4() && word(data, transport + 6) == 0;
    if unsummed {
        assert_eq!(word(out, transport + 6), 0, "a checksum that the sender left out stays out");
        return;
    }
    assert_ne!(word(out, transport + 6), 0, "zero would mean that there is no checksum");
    let mut summed = addresses.unwrap_or_default().to_vec();
    summed.extend([0, 17]);
    summed.extend((length as u32).to_be_bytes());
    summed.extend_from_slice(out.get(transport..).unwrap_or_default());
    assert_eq!(naive_sum(&summed), 0xffff, "UDP checksum");
}

fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or_default()
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([byte(bytes, at), byte(bytes, at + 1)])
}

/// RFC 1071 word by word, each carry added at once.
fn naive_sum(bytes: &[u8]) -> u16 {
    (0..bytes.len()).step_by(2).fold(0u16, |sum, at| {
        let (sum, carry) = sum.overflowing_add(word(bytes, at));
        sum + u16::from(carry)
    })
}
