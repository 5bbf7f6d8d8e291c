//! Any packet, any payload: what comes out is checked by a second, naive reading of the RFCs.
#![allow(missing_docs, clippy::unwrap_used)] // a failed step is a failed test

use std::net::SocketAddr;

use etherparse::{IpHeaders, IpNumber, Ipv4Options, Ipv6RawExtHeader, PacketBuilder};
use proptest::collection::vec;
use proptest::prelude::*;
use sipalg::packet::{Datagram, Identity, Refusal};

/// A packet and what was put into it.
#[derive(Debug, Clone)]
struct Sample {
    bytes: Vec<u8>,
    payload: Vec<u8>,
    source: SocketAddr,
    destination: SocketAddr,
    identity: u32,
    df: bool,
}

/// Ones' complement checksum, word by word as in RFC 1071 section 4.1.
fn naive_checksum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) * 256 + pair.get(1).map_or(0, |low| u32::from(*low));
        if sum > 0xffff {
            sum -= 0xffff;
        }
    }
    !(sum as u16)
}

/// Where the UDP header begins, by a walk of its own.
fn udp_offset(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 {
        return usize::from(packet[0] & 0x0f) * 4;
    }
    let (mut next, mut at) = (packet[6], 40);
    while next != 17 {
        (next, at) = (packet[at], at + 8 + usize::from(packet[at + 1]) * 8);
    }
    at
}

/// Both lengths and both checksums, from the bytes alone.
fn assert_consistent(packet: &[u8], unsummed: bool) -> Result<(), TestCaseError> {
    let at = udp_offset(packet);
    let udp = &packet[at..];
    let be = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    prop_assert_eq!(be(at + 4), udp.len(), "UDP length");
    let length = (udp.len() as u16).to_be_bytes();
    let pseudo = if packet[0] >> 4 == 4 {
        prop_assert_eq!(be(2), packet.len(), "total length");
        prop_assert_eq!(naive_checksum(&[&packet[..at]]), 0, "header checksum");
        [&packet[12..20], &[0, 17], &length].concat()
    } else {
        prop_assert_eq!(be(4) + 40, packet.len(), "payload length");
        [&packet[8..40], &[0, 0], &length, &[0, 0, 0, 17]].concat()
    };
    if unsummed {
        prop_assert_eq!(&udp[6..8], &[0, 0]);
    } else {
        prop_assert_ne!(&udp[6..8], &[0, 0]);
        prop_assert_eq!(naive_checksum(&[&pseudo, udp]), 0, "UDP checksum");
    }
    Ok(())
}

prop_compose! {
    fn ipv4()(
        source in any::<[u8; 4]>(),
        destination in any::<[u8; 4]>(),
        ports in any::<[u16; 2]>(),
        id in any::<u16>(),
        df in any::<bool>(),
        ttl in any::<u8>(),
        options in (0usize..=10).prop_flat_map(|words| vec(any::<u8>(), words * 4)),
        payload in vec(any::<u8>(), 0..1700),
    ) -> Sample {
        let options = Ipv4Options::try_from(options.as_slice()).unwrap();
        let header = etherparse::Ipv4Header {
            identification: id,
            dont_fragment: df,
            time_to_live: ttl,
            protocol: IpNumber::UDP,
            source,
            destination,
            options,
            ..Default::default()
        };
        let mut bytes = Vec::new();
        PacketBuilder::ip(IpHeaders::Ipv4(header, Default::default()))
            .udp(ports[0], ports[1])
            .write(&mut bytes, &payload)
            .unwrap();
        Sample {
            bytes,
            payload,
            source: (source, ports[0]).into(),
            destination: (destination, ports[1]).into(),
            identity: id.into(),
            df,
        }
    }
}

prop_compose! {
    fn ipv6()(
        source in any::<[u8; 16]>(),
        destination in any::<[u8; 16]>(),
        ports in any::<[u16; 2]>(),
        label in 0u32..0x10_0000,
        hop_by_hop in prop::option::of(0usize..4),
        destination_options in prop::option::of(0usize..4),
        payload in vec(any::<u8>(), 0..1700),
    ) -> Sample {
        let extension = |units: usize| {
            // One PadN option that fills the header.
            let mut body = vec![1, (4 + units * 8) as u8];
            body.resize(6 + units * 8, 0);
            Ipv6RawExtHeader::new_raw(IpNumber::UDP, &body).unwrap()
        };
        let extensions = etherparse::Ipv6Extensions {
            hop_by_hop_options: hop_by_hop.map(extension),
            destination_options: destination_options.map(extension),
            ..Default::default()
        };
        let header = etherparse::Ipv6Header {
            flow_label: label.try_into().unwrap(),
            hop_limit: 64,
            source,
            destination,
            ..Default::default()
        };
        let mut bytes = Vec::new();
        PacketBuilder::ip(IpHeaders::Ipv6(header, extensions))
            .udp(ports[0], ports[1])
            .write(&mut bytes, &payload)
            .unwrap();
        Sample {
            bytes,
            payload,
            source: (source, ports[0]).into(),
            destination: (destination, ports[1]).into(),
            identity: label,
            df: false,
        }
    }
}

fn sample() -> impl Strategy<Value = Sample> {
    prop_oneof![ipv4(), ipv6()]
}

fn rebuild(bytes: &[u8], payload: &[u8], identity: Identity, mtu: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let datagram = Datagram::parse(bytes).unwrap();
    datagram.rebuild(|_, out| out.extend_from_slice(payload), identity, mtu, &mut out).unwrap();
    out
}

proptest! {
    #[test]
    fn what_was_put_in_is_read(sample in sample(), padding in vec(any::<u8>(), 0..20)) {
        let bytes = [sample.bytes.as_slice(), &padding].concat();
        let datagram = Datagram::parse(&bytes).unwrap();
        prop_assert_eq!(datagram.source(), sample.source);
        prop_assert_eq!(datagram.destination(), sample.destination);
        prop_assert_eq!(datagram.payload(), sample.payload);
        prop_assert_eq!(datagram.identity(), sample.identity);
    }

    #[test]
    fn the_same_payload_gives_the_same_bytes(sample in sample(), mtu in 0usize..3000) {
        let identity = Identity { set: None, spare: 1 };
        prop_assert_eq!(rebuild(&sample.bytes, &sample.payload, identity, mtu), sample.bytes);
    }

    #[test]
    fn a_new_payload_is_read_back_and_all_else_fits(
        sample in sample(),
        payload in vec(any::<u8>(), 0..2000),
        set in prop::option::of(any::<u32>()),
        spare in 1u16..,
        mtu in 576usize..2000,
    ) {
        let out = rebuild(&sample.bytes, &payload, Identity { set, spare }, mtu);
        assert_consistent(&out, false)?;
        let again = Datagram::parse(&out).unwrap();
        prop_assert_eq!(again.payload(), payload);
        prop_assert_eq!(again.source(), sample.source);
        prop_assert_eq!(again.destination(), sample.destination);

        let at = udp_offset(&sample.bytes);
        if sample.source.is_ipv4() {
            let split = sample.df && out.len() > sample.bytes.len() && out.len() > mtu;
            prop_assert_eq!(out[6] & 0x40 != 0, sample.df && !split, "DF");
            let id = set.map(|id| id & 0xffff);
            let expected = match id {
                Some(id) if id != 0 || !split => id,
                None if !split => sample.identity,
                _ => spare.into(),
            };
            prop_assert_eq!(again.identity(), expected);
            prop_assert_eq!(&out[7..10], &sample.bytes[7..10], "fragment offset, TTL, protocol");
            prop_assert_eq!(&out[12..at], &sample.bytes[12..at], "addresses and options");
        } else {
            prop_assert_eq!(again.identity(), set.map_or(sample.identity, |label| label & 0xf_ffff));
            prop_assert_eq!(&out[6..at], &sample.bytes[6..at], "from the next header on");
        }
    }

    #[test]
    fn a_checksum_left_out_stays_out_over_ipv4(mut sample in ipv4(), payload in vec(any::<u8>(), 0..100)) {
        let at = udp_offset(&sample.bytes);
        sample.bytes[at + 6..at + 8].fill(0);
        let out = rebuild(&sample.bytes, &payload, Identity { set: None, spare: 1 }, 1500);
        assert_consistent(&out, true)?;
    }

    #[test]
    fn a_new_identity_changes_nothing_else(sample in sample(), identity in any::<u32>()) {
        let mut out = Vec::new();
        let datagram = Datagram::parse(&sample.bytes).unwrap();
        datagram.restamp(identity, &mut out);
        assert_consistent(&out, false)?;
        let by_rebuild = Identity { set: Some(identity), spare: 1 };
        prop_assert_eq!(&out, &rebuild(&sample.bytes, &sample.payload, by_rebuild, 1));
        let mut back = Vec::new();
        Datagram::parse(&out).unwrap().restamp(sample.identity, &mut back);
        prop_assert_eq!(back, sample.bytes);
    }

    #[test]
    fn a_copy_cut_short_is_never_taken_for_whole(sample in sample(), cut in any::<prop::sample::Index>()) {
        let cut = cut.index(sample.bytes.len());
        prop_assert_eq!(Datagram::parse(&sample.bytes[..cut]).map(|_| ()), Err(Refusal::Truncated));
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..200)) {
        survive(&bytes);
    }

    #[test]
    fn no_damaged_packet_panics(
        mut sample in sample(),
        damage in vec((0usize..120, any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        for (at, byte) in damage {
            if let Some(to) = sample.bytes.get_mut(at) {
                *to = byte;
            }
        }
        survive(&sample.bytes);
        survive(&sample.bytes[..cut.index(sample.bytes.len())]);
    }
}

/// Everything that can be asked of `bytes`.
fn survive(bytes: &[u8]) {
    let Ok(datagram) = Datagram::parse(bytes) else { return };
    let mut out = Vec::new();
    let identity = Identity { set: Some(datagram.identity()), spare: 1 };
    let _ = datagram.rebuild(|old, out| out.extend_from_slice(old), identity, 100, &mut out);
    let _ = datagram.rebuild(|_, out| out.truncate(3), identity, 100, &mut out);
    datagram.restamp(7, &mut out);
    assert!(Datagram::parse(&out).is_ok());
}
