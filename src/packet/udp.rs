//! One whole UDP datagram in its IP packet.
//!
//! Read first: RFC 768; RFC 8200 section 8.1 for UDP over IPv6.

use std::net::{IpAddr, SocketAddr};

use etherparse::UdpSlice;
use pnet_packet::udp::MutableUdpPacket;

use super::ip::IpPacket;
use super::{Identity, Refusal, TooLarge, checksum};

const UDP: u8 = 17;
const HEADER: usize = 8;

/// A validated IPv4 or IPv6 packet that carries one whole UDP datagram.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    ip: IpPacket<'a>,
    source_port: u16,
    destination_port: u16,
    /// Whether the sender left the checksum out, which only IPv4 allows.
    unsummed: bool,
}

impl<'a> Datagram<'a> {
    /// Validates `bytes`, which begin with an IP header. What lies behind the length that this header announces is
    /// not part of the packet and is left out.
    ///
    /// # Errors
    /// [`Refusal`] says why the packet must pass as it is.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let ip = IpPacket::parse(bytes)?;
        if ip.protocol != UDP {
            return Err(Refusal::NotUdp);
        }
        let transport = ip.bytes.get(ip.transport..).unwrap_or_default();
        let udp = UdpSlice::from_slice(transport).map_err(|_| Refusal::Broken)?;
        if usize::from(udp.length()) != transport.len() {
            return Err(Refusal::Broken);
        }
        Ok(Self {
            ip,
            source_port: udp.source_port(),
            destination_port: udp.destination_port(),
            unsummed: udp.checksum() == 0 && matches!(ip.source, IpAddr::V4(_)),
        })
    }

    /// Source address and port. (IPv6: scope and flow information are 0.)
    pub fn source(&self) -> SocketAddr {
        SocketAddr::new(self.ip.source, self.source_port)
    }

    /// Destination address and port. (IPv6: scope and flow information are 0.)
    pub fn destination(&self) -> SocketAddr {
        SocketAddr::new(self.ip.destination, self.destination_port)
    }

    /// The UDP payload.
    pub fn payload(&self) -> &'a [u8] {
        self.ip.bytes.get(self.ip.transport + HEADER..).unwrap_or_default()
    }

    /// The IPv4 identification or the IPv6 flow label.
    pub fn identity(&self) -> u32 {
        self.ip.identity()
    }

    /// The same datagram to another port: [`Datagram::rebuild`] writes it.
    pub fn to_port(self, port: u16) -> Self {
        Self { destination_port: port, ..self }
    }

    /// Writes this packet into `out` (cleared first) with another payload: `write` gets the old one and appends the
    /// new one to the buffer. Lengths and checksums come out right; a checksum that the sender left out stays out.
    ///
    /// `mtu` is that of the interface by which the packet will leave, `usize::MAX` if not known. An IPv4 packet that
    /// has grown and is longer loses its DF bit and, unless `identity.set` gives it another, has `identity.spare` as
    /// its identification. An IPv6 packet keeps its length whatever the MTU.
    ///
    /// Does not allocate if `out` has room.
    ///
    /// # Errors
    /// [`TooLarge`]; the content of `out` is then of no use.
    pub fn rebuild(
        &self,
        write: impl FnOnce(&[u8], &mut Vec<u8>),
        identity: Identity,
        mtu: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), TooLarge> {
        out.clear();
        out.extend_from_slice(self.ip.bytes.get(..self.ip.transport + HEADER).unwrap_or_default());
        write(self.payload(), out);
        self.ip.finish(out, identity, mtu)?;
        self.finish(out.get_mut(self.ip.transport..).unwrap_or_default());
        Ok(())
    }

    /// Writes this packet into `out` (cleared first), the same but for its identity.
    pub fn restamp(&self, identity: u32, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(self.ip.bytes);
        self.ip.restamp(identity, out);
    }

    /// Destination port, length and checksum of the datagram in `transport`.
    fn finish(&self, transport: &mut [u8]) {
        let length = transport.len();
        let Some(mut udp) = MutableUdpPacket::new(transport) else { return };
        udp.set_destination(self.destination_port);
        udp.set_length(u16::try_from(length).unwrap_or(u16::MAX));
        if self.unsummed {
            return;
        }
        udp.set_checksum(0);
        let sum = self.ip.pseudo_sum(length) + checksum::sum(transport);
        if let Some(mut udp) = MutableUdpPacket::new(transport) {
            udp.set_checksum(match checksum::finish(sum) {
                0 => 0xffff, // zero stands for "no checksum"; both are zero in ones' complement
                sum => sum,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MTU: usize = 1500;
    const AS_IT_IS: Identity = Identity { set: None, spare: 0xbeef };

    /// 192.0.2.1:5060 > 198.51.100.2:5062, ID 0x1234, DF, TTL 64, payload "abc".
    const V4: [u8; 31] = [
        0x45, 0x00, 0x00, 0x1f, 0x12, 0x34, 0x40, 0x00, 0x40, 0x11, 0x3c, 0x63, 192, 0, 2, 1, 198, 51, 100,
        2, 0x13, 0xc4, 0x13, 0xc6, 0x00, 0x0b, 0x27, 0xb4, b'a', b'b', b'c',
    ];

    /// 2001:db8::1 port 5060 > 2001:db8::2 port 5062, flow label 0x54321, hop limit 64, payload "abc".
    const V6: [u8; 51] = [
        0x60, 0x05, 0x43, 0x21, 0x00, 0x0b, 0x11, 0x40, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 1, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0x13, 0xc4, 0x13, 0xc6, 0x00, 0x0b,
        0xb8, 0x76, b'a', b'b', b'c',
    ];

    fn rebuilt(bytes: &[u8], payload: &[u8], identity: Identity, mtu: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let datagram = Datagram::parse(bytes).unwrap();
        datagram.rebuild(|_, out| out.extend_from_slice(payload), identity, mtu, &mut out).unwrap();
        out
    }

    fn patched(bytes: &[u8], changes: &[(usize, u8)]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for (at, byte) in changes {
            bytes[*at] = *byte;
        }
        bytes
    }

    #[test]
    fn endpoints_payload_and_identity_are_read() {
        let v4 = Datagram::parse(&V4).unwrap();
        assert_eq!(v4.source(), "192.0.2.1:5060".parse().unwrap());
        assert_eq!(v4.destination(), "198.51.100.2:5062".parse().unwrap());
        assert_eq!((v4.payload(), v4.identity()), (&b"abc"[..], 0x1234));
        let v6 = Datagram::parse(&V6).unwrap();
        assert_eq!(v6.source(), "[2001:db8::1]:5060".parse().unwrap());
        assert_eq!(v6.destination(), "[2001:db8::2]:5062".parse().unwrap());
        assert_eq!((v6.payload(), v6.identity()), (&b"abc"[..], 0x54321));
    }

    #[test]
    fn the_same_payload_gives_the_same_bytes() {
        assert_eq!(rebuilt(&V4, b"abc", AS_IT_IS, MTU), V4);
        assert_eq!(rebuilt(&V6, b"abc", AS_IT_IS, MTU), V6);
    }

    #[test]
    fn another_payload_changes_lengths_and_sums_only() {
        let changes = [(3, 0x20), (11, 0x62), (25, 0x0c), (27, 0x4e)];
        assert_eq!(rebuilt(&V4, b"abcd", AS_IT_IS, MTU), [patched(&V4, &changes).as_slice(), b"d"].concat());
        let changes = [(5, 0x0c), (45, 0x0c), (46, 0xb8), (47, 0x10)];
        assert_eq!(rebuilt(&V6, b"abcd", AS_IT_IS, MTU), [patched(&V6, &changes).as_slice(), b"d"].concat());
        assert_eq!(rebuilt(&V4, b"", AS_IT_IS, MTU)[20..], [0x13, 0xc4, 0x13, 0xc6, 0, 8, 0xec, 0x1c]);
    }

    #[test]
    fn another_port_changes_it_and_the_sum_only() {
        let moved = |bytes: &[u8], port| {
            let mut out = Vec::new();
            let copy = |old: &[u8], out: &mut Vec<u8>| out.extend_from_slice(old);
            let datagram = Datagram::parse(bytes).unwrap().to_port(port);
            datagram.rebuild(copy, AS_IT_IS, MTU, &mut out).unwrap();
            out
        };
        // 5062 to 5070: the sum falls by eight.
        assert_eq!(moved(&V4, 5070), patched(&V4, &[(23, 0xce), (27, 0xac)]));
        assert_eq!(moved(&V6, 5070), patched(&V6, &[(43, 0xce), (47, 0x6e)]));
        let unsummed = patched(&V4, &[(26, 0), (27, 0)]);
        assert_eq!(moved(&unsummed, 5070), patched(&unsummed, &[(23, 0xce)]), "zero stays zero");
        assert_eq!(Datagram::parse(&moved(&V4, 5070)).unwrap().destination().port(), 5070);
    }

    #[test]
    fn a_checksum_left_out_stays_out_over_ipv4_and_is_made_over_ipv6() {
        let unsummed = patched(&V4, &[(26, 0), (27, 0)]);
        assert_eq!(rebuilt(&unsummed, b"abcdef", AS_IT_IS, MTU)[26..28], [0, 0]);
        let unsummed = patched(&V6, &[(46, 0), (47, 0)]);
        assert_eq!(rebuilt(&unsummed, b"abc", AS_IT_IS, MTU), V6);
    }

    #[test]
    fn a_computed_zero_is_all_ones() {
        // The sum of pseudo header and header with two bytes of payload, made up to all ones by these two bytes.
        let zero = rebuilt(&V4, &[0, 0], AS_IT_IS, MTU);
        let missing = [zero[26], zero[27]];
        assert_eq!(rebuilt(&V4, &missing, AS_IT_IS, MTU)[26..28], [0xff, 0xff]);
    }

    #[test]
    fn options_and_extension_headers_stay() {
        let options = [0x94, 4, 0, 0, 7, 3, 4, 0];
        let mut bytes = [&V4[..20], &options, &V4[20..]].concat();
        bytes[0] = 0x47;
        bytes[3] = 39;
        let out = rebuilt(&bytes, b"hello", AS_IT_IS, MTU);
        assert_eq!((out[20..28].to_vec(), out[3]), (options.to_vec(), 41));
        assert_eq!(checksum::finish(checksum::sum(&out[..28])), 0);

        let hop_by_hop = [17, 0, 5, 2, 0, 0, 1, 0];
        let mut bytes = [&V6[..40], &hop_by_hop, &V6[40..]].concat();
        bytes[6] = 0;
        bytes[5] = 19;
        assert_eq!(Datagram::parse(&bytes).unwrap().payload(), b"abc");
        let out = rebuilt(&bytes, b"abcd", AS_IT_IS, MTU);
        assert_eq!((out[40..48].to_vec(), out[5]), (hop_by_hop.to_vec(), 20));
        assert_eq!(out[54..56], [0xb8, 0x10]);
    }

    #[test]
    fn identity_is_set_with_its_checksum() {
        let set = Identity { set: Some(0x1235), spare: 1 };
        let expected = patched(&V4, &[(5, 0x35), (11, 0x62)]);
        assert_eq!(rebuilt(&V4, b"abc", set, MTU), expected);
        let mut out = vec![9; 99];
        Datagram::parse(&V4).unwrap().restamp(0x1235, &mut out);
        assert_eq!(out, expected);

        let set = Identity { set: Some(0xfff_abcde), spare: 1 };
        let expected = patched(&V6, &[(1, 0x0a), (2, 0xbc), (3, 0xde)]);
        assert_eq!(rebuilt(&V6, b"abc", set, MTU), expected);
        Datagram::parse(&V6).unwrap().restamp(0xfff_abcde, &mut out);
        assert_eq!(out, expected);
    }

    #[test]
    fn df_falls_only_for_what_has_grown_past_the_mtu() {
        let flags_and_id = |bytes: &[u8], payload: &[u8], set, mtu| {
            let out = rebuilt(bytes, payload, Identity { set, spare: 0xbeef }, mtu);
            assert_eq!(checksum::finish(checksum::sum(&out[..20])), 0);
            (out[6], u16::from_be_bytes([out[4], out[5]]))
        };
        assert_eq!(flags_and_id(&V4, b"abcd", None, 32), (0x40, 0x1234), "fits");
        assert_eq!(flags_and_id(&V4, b"abc", None, 30), (0x40, 0x1234), "has not grown");
        assert_eq!(flags_and_id(&V4, b"abcd", None, 31), (0x00, 0xbeef));
        assert_eq!(flags_and_id(&V4, b"abcd", Some(0x77), 31), (0x00, 0x77));
        assert_eq!(flags_and_id(&V4, b"abcd", Some(0), 31), (0x00, 0xbeef), "0 is no identity for fragments");
        assert_eq!(flags_and_id(&V4, b"abcd", Some(0), 32), (0x40, 0));
        let fragmentable = patched(&V4, &[(6, 0)]);
        assert_eq!(flags_and_id(&fragmentable, b"abcd", None, 31), (0x00, 0x1234), "the sender's own");
    }

    #[test]
    fn link_padding_is_left_out() {
        let padded = [&V4[..], &[0; 15]].concat();
        assert_eq!(Datagram::parse(&padded).unwrap().payload(), b"abc");
        assert_eq!(rebuilt(&padded, b"abc", AS_IT_IS, MTU), V4);
        let padded = [&V6[..], &[0; 9]].concat();
        assert_eq!(rebuilt(&padded, b"abc", AS_IT_IS, MTU), V6);
    }

    #[test]
    fn what_must_not_be_changed_is_refused() {
        let refusal = |bytes: &[u8]| Datagram::parse(bytes).map(|_| ()).unwrap_err();
        assert_eq!(refusal(&patched(&V4, &[(9, 6)])), Refusal::NotUdp);
        assert_eq!(refusal(&patched(&V6, &[(6, 58)])), Refusal::NotUdp);
        assert_eq!(refusal(&patched(&V4, &[(6, 0x20)])), Refusal::Fragment, "more fragments");
        assert_eq!(refusal(&patched(&V4, &[(7, 1)])), Refusal::Fragment, "offset");
        assert_eq!(refusal(&V4[..30]), Refusal::Truncated);
        assert_eq!(refusal(&V6[..50]), Refusal::Truncated);
        assert_eq!(refusal(&V4[..9]), Refusal::Truncated);
        assert_eq!(refusal(&[]), Refusal::Truncated);
        for (bytes, at, byte, why) in [
            (&V4[..], 0, 0x44, "header length below 20"),
            (&V4[..], 0, 0x48, "header longer than the packet"),
            (&V4[..], 0, 0x55, "version 5"),
            (&V4[..], 3, 19, "total length below the header's"),
            (&V4[..], 3, 27, "no room for the UDP header"),
            (&V4[..], 25, 10, "UDP length leaves a byte behind"),
            (&V4[..], 25, 12, "UDP length past the packet"),
            (&V4[..], 25, 7, "UDP length below its header's"),
            (&V4[..], 25, 0, "no UDP length"),
            (&V6[..], 5, 0, "no payload length"),
            (&V6[..], 45, 10, "UDP length leaves a byte behind"),
            (&V6[..], 6, 0, "hop-by-hop options that are none"),
        ] {
            let found = refusal(&patched(bytes, &[(at, byte)]));
            let short = why.starts_with("header longer"); // the bytes end before what the header says of itself
            assert_eq!(found, if short { Refusal::Truncated } else { Refusal::Broken }, "{why}");
        }
    }

    #[test]
    fn authenticated_and_travelling_packets_are_refused() {
        let with_extension = |number: u8, extension: &[u8]| {
            let mut bytes = [&V6[..40], extension, &V6[40..]].concat();
            bytes[6] = number;
            bytes[5] += extension.len() as u8;
            bytes
        };
        let refusal = |bytes: &[u8]| Datagram::parse(bytes).map(|_| ()).err();
        let authentication = [17, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0xde, 0xad, 0xbe, 0xef];
        assert_eq!(refusal(&with_extension(51, &authentication)), Some(Refusal::NotUdp));
        let mut v4 = [&V4[..20], &authentication, &V4[20..]].concat();
        v4[9] = 51;
        v4[3] += 16;
        assert_eq!(refusal(&v4), Some(Refusal::NotUdp));

        let routing = |left| [17, 0, 4, left, 0, 0, 0, 0];
        assert_eq!(refusal(&with_extension(43, &routing(1))), Some(Refusal::Broken));
        assert_eq!(refusal(&with_extension(43, &routing(0))), None);

        let fragment = |low| [17, 0, 0, low, 0, 0, 0, 7];
        assert_eq!(refusal(&with_extension(44, &fragment(1))), Some(Refusal::Fragment));
        assert_eq!(refusal(&with_extension(44, &fragment(8))), Some(Refusal::Fragment));
        assert_eq!(refusal(&with_extension(44, &fragment(0))), None, "an atomic fragment is whole");
    }

    #[test]
    fn a_packet_that_no_length_field_can_hold_is_refused() {
        let mut out = Vec::new();
        for (bytes, headers) in [(&V4[..], 28), (&V6[..], 48)] {
            let datagram = Datagram::parse(bytes).unwrap();
            let mut attempt = |payload: usize| {
                datagram.rebuild(|_, out| out.resize(headers + payload, b'x'), AS_IT_IS, MTU, &mut out)
            };
            assert_eq!(attempt(65_535 - headers), Ok(()));
            assert_eq!(attempt(65_536 - headers), Err(TooLarge));
        }
    }

    #[test]
    fn a_buffer_with_room_is_not_moved() {
        let mut out = Vec::with_capacity(2000);
        let before = out.as_ptr();
        let datagram = Datagram::parse(&V4).unwrap();
        datagram.rebuild(|_, out| out.resize(1900, b'x'), AS_IT_IS, MTU, &mut out).unwrap();
        assert_eq!(out.as_ptr(), before);
    }
}
