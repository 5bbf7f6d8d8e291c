//! From a captured frame to the IP packet in it.
//!
//! Ethernet with VLAN tags and PPPoE sessions, Linux "cooked" captures of both versions, BSD loopback, raw IP. Nothing
//! of the IP packet is checked beyond its version.

use pcap_file::DataLink;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const PPPOE_SESSION: u16 = 0x8864;
const VLAN_TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
const PPP_IPV4: u16 = 0x0021;
const PPP_IPV6: u16 = 0x0057;

/// The IP packet in `frame` (perhaps with link padding behind it) and the index of the interface that it was seen on,
/// 0 when the capture does not say.
pub(super) fn ip_packet(link: DataLink, frame: &[u8]) -> Option<(u32, &[u8])> {
    let (interface, packet) = match link {
        DataLink::ETHERNET => (0, behind_ether_type(frame, 12)?),
        DataLink::LINUX_SLL => (0, behind_ether_type(frame, 14)?),
        DataLink::LINUX_SLL2 => {
            let interface = frame.get(4..8)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))?;
            let inner = behind_protocol(be16(frame, 0)?, frame.get(20..)?)?;
            (interface, inner)
        }
        DataLink::NULL | DataLink::LOOP => (0, frame.get(4..)?),
        DataLink::RAW | DataLink::IPV4 | DataLink::IPV6 | DataLink::Unknown(12 | 14) => (0, frame),
        _ => return None,
    };
    matches!(packet.first()? >> 4, 4 | 6).then_some((interface, packet))
}

fn behind_ether_type(frame: &[u8], at: usize) -> Option<&[u8]> {
    behind_protocol(be16(frame, at)?, frame.get(at + 2..)?)
}

fn behind_protocol(mut protocol: u16, mut rest: &[u8]) -> Option<&[u8]> {
    while VLAN_TAGS.contains(&protocol) {
        protocol = be16(rest, 2)?;
        rest = rest.get(4..)?;
    }
    match protocol {
        IPV4 | IPV6 => Some(rest),
        PPPOE_SESSION if matches!(be16(rest, 6)?, PPP_IPV4 | PPP_IPV6) => rest.get(8..),
        _ => None,
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &[u8] = &[0x45, 0, 0, 20];
    const V6: &[u8] = &[0x60, 0, 0, 0];

    fn found(link: DataLink, parts: &[&[u8]]) -> Option<(u32, Vec<u8>)> {
        let frame = parts.concat();
        // Cut anywhere, it must not panic.
        assert!((0..14).all(|cut| {
            ip_packet(link, frame.get(..cut).unwrap_or_default()).is_none_or(|(_, p)| p.len() < 14)
        }));
        ip_packet(link, &frame).map(|(interface, packet)| (interface, packet.to_vec()))
    }

    #[test]
    fn each_link_layer_gives_up_its_packet() {
        let v4 = Some((0, V4.to_vec()));
        let v6 = Some((0, V6.to_vec()));
        let addresses = &[9; 12][..];
        assert_eq!(found(DataLink::ETHERNET, &[addresses, &[0x08, 0], V4]), v4);
        assert_eq!(found(DataLink::ETHERNET, &[addresses, &[0x86, 0xdd], V6]), v6);
        let tags = &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 8, 0x08, 0][..];
        assert_eq!(found(DataLink::ETHERNET, &[addresses, tags, V4]), v4, "two VLAN tags");
        let session = &[0x88, 0x64, 0x11, 0, 0, 1, 0, 6, 0, 0x21][..];
        assert_eq!(found(DataLink::ETHERNET, &[addresses, session, V4]), v4, "PPPoE");
        assert_eq!(found(DataLink::LINUX_SLL, &[&[9; 14], &[0x08, 0], V4]), v4);
        let cooked = &[0x86, 0xdd, 0, 0, 0, 0, 0, 3, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0][..];
        assert_eq!(found(DataLink::LINUX_SLL2, &[cooked, V6]), Some((3, V6.to_vec())));
        assert_eq!(found(DataLink::NULL, &[&[2, 0, 0, 0], V4]), v4);
        for link in [DataLink::RAW, DataLink::IPV4, DataLink::IPV6, DataLink::Unknown(12)] {
            assert_eq!(found(link, &[V4]), v4);
        }
    }

    #[test]
    fn what_holds_no_ip_gives_none() {
        let addresses = &[9; 12][..];
        assert_eq!(found(DataLink::ETHERNET, &[addresses, &[0x08, 0x06], V4]), None, "ARP");
        assert_eq!(
            found(DataLink::ETHERNET, &[addresses, &[0x88, 0x64, 0x11, 0, 0, 1, 0, 6, 0xc0, 0x21], V4]),
            None
        );
        assert_eq!(found(DataLink::RAW, &[&[0x55, 0]]), None, "version 5");
        assert_eq!(found(DataLink::USB_LINUX, &[V4]), None);
    }
}
