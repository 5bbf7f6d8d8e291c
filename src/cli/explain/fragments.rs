//! Puts IP fragments together, as the kernel does before it queues.

use std::time::Duration;

use etherparse::defrag::IpDefragPool;
use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv6Header, NetSlice, SlicedPacket};

use crate::packet::{Datagram, Refusal};

/// What is not complete after this time never will be; the kernel's own limit.
const PATIENCE: Duration = Duration::from_secs(30);

/// Fragments that wait for others.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    pool: IpDefragPool<Duration, ()>,
}

/// What a packet turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Not a fragment.
    Whole,
    /// A fragment; others are missing.
    Missing,
    /// The last fragment that was missing: this is the packet.
    Complete(Vec<u8>),
}

impl Fragments {
    /// Takes one packet in, seen at `time`.
    pub(super) fn take(&mut self, packet: &[u8], time: Duration) -> Part {
        if !matches!(Datagram::parse(packet), Err(Refusal::Fragment)) {
            return Part::Whole;
        }
        self.pool.retain(|begun| time.saturating_sub(*begun) < PATIENCE);
        let complete = SlicedPacket::from_ip(packet).ok().and_then(|sliced| {
            let done = self.pool.process_sliced_packet(&sliced, time, ()).ok()??;
            under_header(&sliced, done.ip_number, &done.payload)
        });
        complete.map_or(Part::Missing, Part::Complete)
    }
}

/// The whole packet, under the header of its last fragment.
fn under_header(last: &SlicedPacket<'_>, protocol: IpNumber, payload: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(payload.len() + 60);
    match &last.net {
        Some(NetSlice::Ipv4(slice)) => {
            let mut header: Ipv4Header = slice.header().to_header();
            header.more_fragments = false;
            header.fragment_offset = IpFragOffset::ZERO;
            header.set_payload_len(payload.len()).ok()?;
            header.write(&mut out).ok()?;
        }
        Some(NetSlice::Ipv6(slice)) => {
            let mut header: Ipv6Header = slice.header().to_header();
            header.next_header = protocol;
            header.set_payload_length(payload.len()).ok()?;
            header.write(&mut out).ok()?;
        }
        _ => return None,
    }
    out.extend_from_slice(payload);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::explain::wire;

    /// Cuts an IPv4 packet without options behind `at` bytes of its payload.
    fn cut(whole: &[u8], at: usize) -> [Vec<u8>; 2] {
        let piece = |from: usize, to: usize| {
            let mut header = Ipv4Header::from_slice(whole).unwrap().0;
            header.dont_fragment = false;
            header.identification = 7;
            header.more_fragments = to < whole.len() - 20;
            header.fragment_offset = IpFragOffset::try_new((from / 8) as u16).unwrap();
            header.set_payload_len(to - from).unwrap();
            let mut out = Vec::new();
            header.write(&mut out).unwrap();
            out.extend_from_slice(&whole[20 + from..20 + to]);
            out
        };
        [piece(0, at), piece(at, whole.len() - 20)]
    }

    #[test]
    fn fragments_become_the_datagram_in_any_order() {
        let payload: Vec<u8> = (0..3000_u32).map(|n| n as u8).collect();
        let (from, to) = ("192.168.1.10:5060".parse().unwrap(), "198.51.100.1:5060".parse().unwrap());
        let whole = wire::packet(from, to, &payload).unwrap();
        let [first, second] = cut(&whole, 1480);
        for order in [[&first, &second], [&second, &first]] {
            let mut fragments = Fragments::default();
            assert_eq!(fragments.take(order[0], Duration::ZERO), Part::Missing);
            let Part::Complete(packet) = fragments.take(order[1], Duration::ZERO) else {
                panic!("not complete")
            };
            let it = wire::carried(&packet).unwrap();
            assert_eq!((it.source, it.destination, it.payload), (from, to, &payload[..]));
        }
    }

    #[test]
    fn half_a_packet_is_forgotten() {
        let whole =
            wire::packet("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap(), &[9; 2000]).unwrap();
        let [first, second] = cut(&whole, 1480);
        let mut fragments = Fragments::default();
        assert_eq!(fragments.take(&whole, Duration::ZERO), Part::Whole);
        assert_eq!(fragments.take(&first, Duration::ZERO), Part::Missing);
        assert_eq!(fragments.take(&second, Duration::from_secs(31)), Part::Missing);
    }
}
