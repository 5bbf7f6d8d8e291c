//! One TCP segment in its IP packet.
//!
//! Reads what a translator of sequence numbers has to know, and writes the same segment with other numbers, other bytes
//! and fewer options. An option that is taken out becomes NOPs, so that the header keeps its length; nothing is ever
//! put in. It knows no connection and no stream.
//!
//! Read first: RFC 9293 section 3.1; RFC 2018 (SACK), RFC 7323 (timestamps, window scale), RFC 6691 (what an MSS counts).

use std::net::SocketAddr;

use arrayvec::ArrayVec;
use etherparse::TcpSlice;
use pnet_packet::tcp::{MutableTcpPacket, TcpFlags};

use super::ip::IpPacket;
use super::{Identity, Refusal, TooLarge, checksum};

const TCP: u8 = 6;
const HEADER: usize = 20;

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;
const MD5: u8 = 19;
const AO: u8 = 29;
const MPTCP: u8 = 30;

/// A validated IPv4 or IPv6 packet that carries one whole TCP segment.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    ip: IpPacket<'a>,
    /// Length of the TCP header with its options.
    header: usize,
    source_port: u16,
    destination_port: u16,
    sequence: u32,
    acknowledgment: u32,
    window: u16,
    flags: u8,
}

/// What a segment says besides its numbers, in its options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Largest segment that the sender takes, in bytes of payload without options.
    pub mss: Option<u16>,
    /// By how many bits its windows are to be shifted; at most 14 (RFC 7323 section 2.3).
    pub window_scale: Option<u8>,
    /// Whether it knows selective acknowledgments.
    pub sack_permitted: bool,
    /// Whether something in it vouches for every byte and number, or maps them on its own: TCP-MD5 (RFC 2385), TCP-AO
    /// (RFC 5925), multipath (RFC 8684).
    pub untouchable: bool,
}

/// What to change in a segment; everything else stays as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// The sequence number.
    pub sequence: u32,
    /// The acknowledgment number; only written if the segment has one.
    pub acknowledgment: u32,
    /// The window, as it is written; `None`: as it was.
    pub window: Option<u16>,
    /// The timestamp value (TSval); only written if the segment has one.
    pub stamp: Option<u32>,
    /// Whether PSH and FIN, which belong to the last byte, stay.
    pub keep_end: bool,
}

impl<'a> Segment<'a> {
    /// Validates `bytes`, which begin with an IP header. What lies behind the length that this header announces is
    /// left out.
    ///
    /// # Errors
    /// [`Refusal`] says why the packet must pass as it is.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let ip = IpPacket::parse(bytes).map_err(|refusal| match refusal {
            Refusal::NotUdp => Refusal::NotTcp,
            other => other,
        })?;
        if ip.protocol != TCP {
            return Err(Refusal::NotTcp);
        }
        let transport = ip.bytes.get(ip.transport..).unwrap_or_default();
        let tcp = TcpSlice::from_slice(transport).map_err(|_| Refusal::Broken)?;
        Ok(Self {
            ip,
            header: tcp.header_slice().len(),
            source_port: tcp.source_port(),
            destination_port: tcp.destination_port(),
            sequence: tcp.sequence_number(),
            acknowledgment: tcp.acknowledgment_number(),
            window: tcp.window_size(),
            flags: transport.get(13).copied().unwrap_or_default(),
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

    /// The payload.
    pub fn payload(&self) -> &'a [u8] {
        self.ip.bytes.get(self.headers()..).unwrap_or_default()
    }

    /// Length of the IP and TCP headers together, in bytes.
    pub fn headers(&self) -> usize {
        self.ip.transport + self.header
    }

    /// Length of the TCP options, in bytes.
    pub fn options_length(&self) -> usize {
        self.header - HEADER
    }

    /// The IPv4 identification or the IPv6 flow label.
    pub fn identity(&self) -> u32 {
        self.ip.identity()
    }

    /// The sequence number: that of the first byte of the payload, or of the SYN.
    pub fn sequence(&self) -> u32 {
        self.sequence
    }

    /// The acknowledgment number, if there is one.
    pub fn acknowledgment(&self) -> Option<u32> {
        self.has(TcpFlags::ACK).then_some(self.acknowledgment)
    }

    /// Whether it brings nothing of its sender's stream.
    pub fn is_bare(&self) -> bool {
        self.payload().is_empty() && !self.fin()
    }

    /// The window as it is written, not yet shifted.
    pub fn window(&self) -> u16 {
        self.window
    }

    /// Whether it has a SYN.
    pub fn syn(&self) -> bool {
        self.has(TcpFlags::SYN)
    }

    /// Whether it has a FIN.
    pub fn fin(&self) -> bool {
        self.has(TcpFlags::FIN)
    }

    /// Whether it has a RST.
    pub fn rst(&self) -> bool {
        self.has(TcpFlags::RST)
    }

    /// Whether it asks for its bytes to be handed to the application.
    pub fn psh(&self) -> bool {
        self.has(TcpFlags::PSH)
    }

    /// Whether it has urgent data.
    pub fn urg(&self) -> bool {
        self.has(TcpFlags::URG)
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether the checksum is right.
    pub fn is_sound(&self) -> bool {
        let transport = self.ip.bytes.get(self.ip.transport..).unwrap_or_default();
        checksum::fold(self.ip.pseudo_sum(transport.len()) + checksum::sum(transport)) == 0xffff
    }

    /// What the options say. What makes no sense in them says nothing.
    pub fn options(&self) -> Options {
        let mut found = Options::default();
        each_option(self.option_bytes(), |kind, _, body| match (kind, body) {
            (MSS, [high, low]) => found.mss = Some(u16::from_be_bytes([*high, *low])),
            (WINDOW_SCALE, [shift]) => found.window_scale = Some((*shift).min(14)),
            (SACK_PERMITTED, []) => found.sack_permitted = true,
            (MD5 | AO | MPTCP, _) => found.untouchable = true,
            _ => {}
        });
        found
    }

    /// Its sender's timestamp (TSval).
    pub fn stamp(&self) -> Option<u32> {
        let mut found = None;
        each_option(self.option_bytes(), |kind, _, body| {
            if let (TIMESTAMPS, [a, b, c, d, ..]) = (kind, body) {
                found = Some(u32::from_be_bytes([*a, *b, *c, *d]));
            }
        });
        found
    }

    fn option_bytes(&self) -> &'a [u8] {
        self.ip.bytes.get(self.ip.transport + HEADER..self.headers()).unwrap_or_default()
    }

    /// Writes this segment into `out` (cleared first) with other numbers and another payload, which `write` appends.
    /// `edge` translates each edge of selective acknowledgments; if it is `None`, they are taken out. The checksum comes
    /// out right, whatever it was.
    ///
    /// Does not allocate if `out` has room.
    ///
    /// # Errors
    /// [`TooLarge`]; the content of `out` is then of no use.
    pub fn rebuild(
        &self,
        numbers: Numbers,
        edge: Option<&mut dyn FnMut(u32) -> u32>,
        write: impl FnOnce(&mut Vec<u8>),
        out: &mut Vec<u8>,
    ) -> Result<(), TooLarge> {
        out.clear();
        out.extend_from_slice(self.ip.bytes.get(..self.headers()).unwrap_or_default());
        write(out);
        if let Some(mut tcp) = self.header_of(out) {
            tcp.set_sequence(numbers.sequence);
            if self.has(TcpFlags::ACK) {
                tcp.set_acknowledgement(numbers.acknowledgment);
            }
            if let Some(window) = numbers.window {
                tcp.set_window(window);
            }
            if !numbers.keep_end {
                tcp.set_flags(self.flags & !(TcpFlags::FIN | TcpFlags::PSH));
            }
        }
        self.translate_sack(edge, out);
        if let Some(stamp) = numbers.stamp {
            self.write_stamp(stamp, out);
        }
        self.finish(None, out)
    }

    fn write_stamp(&self, stamp: u32, out: &mut [u8]) {
        let options = self.ip.transport + HEADER;
        each_option(self.option_bytes(), |kind, at, body| {
            let value = out.get_mut(options + at + 2..options + at + 6).filter(|_| body.len() == 8);
            if let (TIMESTAMPS, Some(value)) = (kind, value) {
                value.copy_from_slice(&stamp.to_be_bytes());
            }
        });
    }

    /// Writes this segment into `out` (cleared first), the same but for its identity, if one is given, and its MSS,
    /// which is lowered to `mss` if it is larger.
    ///
    /// # Errors
    /// [`TooLarge`], never for a segment that was valid.
    pub fn relabel(
        &self,
        identity: Option<u32>,
        mss: Option<u16>,
        out: &mut Vec<u8>,
    ) -> Result<(), TooLarge> {
        out.clear();
        out.extend_from_slice(self.ip.bytes);
        if let Some(mss) = mss {
            let options = self.ip.transport + HEADER;
            each_option(self.option_bytes(), |kind, at, body| {
                let Some([high, low]) = out.get_mut(options + at + 2..options + at + 4) else { return };
                if kind == MSS && body.len() == 2 && u16::from_be_bytes([*high, *low]) > mss {
                    [*high, *low] = mss.to_be_bytes();
                }
            });
        }
        self.finish(identity, out)
    }

    fn translate_sack(&self, mut edge: Option<&mut dyn FnMut(u32) -> u32>, out: &mut [u8]) {
        let options = self.ip.transport + HEADER;
        each_option(self.option_bytes(), |kind, at, body| {
            if kind != SACK {
                return;
            }
            let start = options + at;
            let Some(option) = out.get_mut(start..start + 2 + body.len()) else { return };
            match edge.as_mut() {
                None => option.fill(NOP),
                Some(edge) => {
                    let (words, _) = option.get_mut(2..).unwrap_or_default().as_chunks_mut::<4>();
                    for word in words {
                        *word = edge(u32::from_be_bytes(*word)).to_be_bytes();
                    }
                }
            }
        });
    }

    fn header_of<'b>(&self, out: &'b mut [u8]) -> Option<MutableTcpPacket<'b>> {
        MutableTcpPacket::new(out.get_mut(self.ip.transport..)?)
    }

    fn finish(&self, identity: Option<u32>, out: &mut [u8]) -> Result<(), TooLarge> {
        // A segment is cut to fit, never fragmented.
        self.ip.finish(out, Identity { set: identity, spare: 0 }, usize::MAX)?;
        let Some(mut tcp) = self.header_of(out) else { return Ok(()) };
        tcp.set_checksum(0);
        let transport = out.get(self.ip.transport..).unwrap_or_default();
        let sum = checksum::finish(self.ip.pseudo_sum(transport.len()) + checksum::sum(transport));
        if let Some(mut tcp) = self.header_of(out) {
            tcp.set_checksum(sum);
        }
        Ok(())
    }

    /// The blocks of selective acknowledgments, as written.
    pub fn sack(&self) -> ArrayVec<(u32, u32), 4> {
        let mut blocks = ArrayVec::new();
        each_option(self.option_bytes(), |kind, _, body| {
            if kind == SACK {
                let word = |bytes: &[u8; 4]| u32::from_be_bytes(*bytes);
                let (words, _) = body.as_chunks::<4>();
                for pair in words.chunks_exact(2) {
                    if let [left, right] = pair {
                        let _ = blocks.try_push((word(left), word(right)));
                    }
                }
            }
        });
        blocks
    }
}

/// Calls `each` with kind, offset and body of every option up to the first that makes no sense.
fn each_option(options: &[u8], mut each: impl FnMut(u8, usize, &[u8])) {
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        match kind {
            END => return,
            NOP => at += 1,
            _ => {
                let Some(length) = options.get(at + 1).map(|length| usize::from(*length)) else { return };
                let Some(body) = options.get(at + 2..at + length) else { return };
                each(kind, at, body);
                at += length;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 192.0.2.1:5060 > 198.51.100.2:5062, seq 0x01020304, ack 0x0a0b0c0d, PSH ACK, window 512; NOP NOP timestamps;
    /// "abc".
    const V4: [u8; 55] = [
        0x45, 0, 0, 55, 0x12, 0x34, 0x40, 0, 0x40, 6, 0x3c, 0x56, 192, 0, 2, 1, 198, 51, 100, 2, //
        0x13, 0xc4, 0x13, 0xc6, 1, 2, 3, 4, 10, 11, 12, 13, 0x80, 0x18, 2, 0, 0, 0, 0, 0, //
        1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9, b'a', b'b', b'c',
    ];

    fn summed(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Segment::parse(bytes).unwrap().relabel(None, None, &mut out).unwrap();
        out
    }

    fn with_options(options: &[u8], flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = [&V4[..40], options, payload].concat();
        bytes[3] = bytes.len() as u8;
        bytes[32] = (((20 + options.len()) / 4) << 4) as u8;
        bytes[33] = flags;
        summed(&bytes)
    }

    #[test]
    fn numbers_flags_and_payload_are_read() {
        let bytes = summed(&V4);
        let segment = Segment::parse(&bytes).unwrap();
        assert_eq!(segment.source(), "192.0.2.1:5060".parse().unwrap());
        assert_eq!(segment.destination(), "198.51.100.2:5062".parse().unwrap());
        assert_eq!((segment.sequence(), segment.acknowledgment()), (0x0102_0304, Some(0x0a0b_0c0d)));
        assert_eq!((segment.window(), segment.payload(), segment.identity()), (512, &b"abc"[..], 0x1234));
        assert!(segment.psh() && !segment.syn() && !segment.fin() && !segment.rst() && !segment.urg());
        assert_eq!((segment.headers(), segment.options_length()), (52, 12));
        assert!(segment.is_sound() && !Segment::parse(&V4).unwrap().is_sound());
        assert_eq!(segment.options(), Options::default());
    }

    #[test]
    fn the_checksum_is_that_of_another_implementation() {
        let bytes = summed(&V4);
        let tcp = TcpSlice::from_slice(&bytes[20..]).unwrap();
        let sum = tcp.calc_checksum_ipv4([192, 0, 2, 1], [198, 51, 100, 2]).unwrap();
        assert_eq!(tcp.checksum(), sum);
        assert_ne!(sum, 0);
    }

    #[test]
    fn other_numbers_and_bytes_change_nothing_else() {
        let bytes = summed(&V4);
        let mut out = vec![7; 9];
        let numbers = Numbers { sequence: 5, acknowledgment: 6, window: None, stamp: None, keep_end: true };
        let segment = Segment::parse(&bytes).unwrap();
        segment.rebuild(numbers, None, |out| out.extend(b"abcde"), &mut out).unwrap();
        let back = Segment::parse(&out).unwrap();
        assert!(back.is_sound() && back.psh());
        assert_eq!((back.sequence(), back.acknowledgment(), back.payload()), (5, Some(6), &b"abcde"[..]));
        assert_eq!((out.len(), out[3], &out[40..52]), (57, 57, &V4[40..52]));
        assert_eq!(checksum::finish(checksum::sum(&out[..20])), 0);
        let same = Numbers {
            sequence: 0x0102_0304,
            acknowledgment: 0x0a0b_0c0d,
            window: None,
            stamp: None,
            keep_end: true,
        };
        segment.rebuild(same, None, |out| out.extend(b"abc"), &mut out).unwrap();
        assert_eq!(out, bytes);
    }

    #[test]
    fn a_cut_segment_has_no_end() {
        let bytes = with_options(&[], 0x19, b"abc");
        let segment = Segment::parse(&bytes).unwrap();
        let mut out = Vec::new();
        let numbers = Numbers { sequence: 1, acknowledgment: 2, window: None, stamp: None, keep_end: false };
        segment.rebuild(numbers, None, |out| out.extend(b"a"), &mut out).unwrap();
        let back = Segment::parse(&out).unwrap();
        assert!(!back.fin() && !back.psh() && back.acknowledgment() == Some(2));
    }

    #[test]
    fn selective_acknowledgments_are_translated_or_taken_out() {
        let options = [1, 1, 5, 18, 0, 0, 0, 10, 0, 0, 0, 20, 0, 0, 0, 30, 0, 0, 0, 40];
        let bytes = with_options(&options, 0x10, b"");
        let segment = Segment::parse(&bytes).unwrap();
        assert_eq!(segment.sack().to_vec(), [(10, 20), (30, 40)]);
        let (mut out, numbers) = (
            Vec::new(),
            Numbers { sequence: 1, acknowledgment: 2, window: None, stamp: None, keep_end: true },
        );
        segment.rebuild(numbers, Some(&mut |edge| edge + 100), |_| {}, &mut out).unwrap();
        assert_eq!(Segment::parse(&out).unwrap().sack().to_vec(), [(110, 120), (130, 140)]);
        assert!(Segment::parse(&out).unwrap().is_sound());
        segment.rebuild(numbers, None, |_| {}, &mut out).unwrap();
        assert_eq!(out[40..], [1; 20]);
        assert!(Segment::parse(&out).unwrap().is_sound());
    }

    #[test]
    fn what_a_syn_offers_is_read_and_its_mss_lowered() {
        let options = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];
        let bytes = with_options(&options, 2, b"");
        let segment = Segment::parse(&bytes).unwrap();
        let expected =
            Options { mss: Some(1460), window_scale: Some(7), sack_permitted: true, untouchable: false };
        assert_eq!((segment.options(), segment.syn(), segment.acknowledgment()), (expected, true, None));
        let mut out = Vec::new();
        segment.relabel(Some(9), Some(1332), &mut out).unwrap();
        let back = Segment::parse(&out).unwrap();
        assert_eq!((back.options().mss, back.identity(), back.is_sound()), (Some(1332), 9, true));
        segment.relabel(None, Some(1461), &mut out).unwrap();
        assert_eq!(out, bytes);
        crate::packet::restamp(&bytes, 9, &mut out).unwrap();
        let mut expected = Vec::new();
        segment.relabel(Some(9), None, &mut expected).unwrap();
        assert_eq!(out, expected);
    }

    #[test]
    fn what_vouches_for_every_byte_is_told() {
        for option in [&[19, 18][..], &[29, 4], &[30, 12]] {
            let mut options = option.to_vec();
            options.resize(usize::from(option[1]).next_multiple_of(4), 0);
            let bytes = with_options(&options, 2, b"");
            assert!(Segment::parse(&bytes).unwrap().options().untouchable, "{option:?}");
        }
    }

    #[test]
    fn options_that_make_no_sense_say_nothing() {
        for options in
            [[2, 4, 5, 0], [2, 9, 5, 180], [2, 0, 5, 180], [2, 1, 5, 180], [1, 1, 1, 2], [5, 2, 0, 0]]
        {
            let bytes = with_options(&options, 0x10, b"x");
            let segment = Segment::parse(&bytes).unwrap();
            let expected = if options == [2, 4, 5, 0] { Some(0x500) } else { None };
            assert_eq!((segment.options().mss, segment.sack().len()), (expected, 0), "{options:?}");
            let mut out = Vec::new();
            let numbers = Numbers {
                sequence: 0x0102_0304,
                acknowledgment: 0x0a0b_0c0d,
                window: None,
                stamp: None,
                keep_end: true,
            };
            segment.rebuild(numbers, Some(&mut |edge| edge), |out| out.extend(b"x"), &mut out).unwrap();
            assert_eq!(out, bytes, "{options:?}");
        }
    }

    #[test]
    fn what_is_no_whole_segment_is_refused() {
        let refusal = |bytes: &[u8]| Segment::parse(bytes).map(|_| ()).unwrap_err();
        let patched = |at: usize, byte| {
            let mut bytes = V4;
            bytes[at] = byte;
            bytes
        };
        assert_eq!(refusal(&patched(9, 17)), Refusal::NotTcp);
        assert_eq!(refusal(&patched(6, 0x20)), Refusal::Fragment);
        assert_eq!(refusal(&patched(32, 0x40)), Refusal::Broken, "a header shorter than itself");
        assert_eq!(refusal(&patched(32, 0xf0)), Refusal::Broken, "a header longer than the packet");
        assert_eq!(refusal(&patched(3, 39)), Refusal::Broken, "no room for the header");
        assert_eq!(refusal(&V4[..54]), Refusal::Truncated);
    }

    #[test]
    fn a_segment_that_no_length_field_can_hold_is_refused() {
        let bytes = summed(&V4);
        let segment = Segment::parse(&bytes).unwrap();
        let numbers = Numbers { sequence: 1, acknowledgment: 2, window: None, stamp: None, keep_end: true };
        let attempt =
            |size: usize| segment.rebuild(numbers, None, |out| out.resize(size, b'x'), &mut Vec::new());
        assert_eq!((attempt(65_535), attempt(65_536)), (Ok(()), Err(TooLarge)));
    }
}
