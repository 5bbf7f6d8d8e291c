//! RTP and RTCP with content that can be checked: every packet says who speaks and which one it is.
//!
//! One idea: a voice is known by its SSRC, and sequence, timestamp and payload follow from SSRC and index. So the
//! receiver knows every byte that may come, and whatever else comes is a fault: another call's media, a packet
//! twice, a packet from another endpoint than the SDP named.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::sdp::Offer;
use super::stop::Stop;

/// RTP packets that each side of a call sends.
pub(super) const PACKETS: u16 = 50;
/// RTCP reports that each side sends: one before and one behind its RTP.
pub(super) const REPORTS: u16 = 2;

const INTERVAL: Duration = Duration::from_millis(20);
/// How long the side that listens first waits before it speaks all the same. The other one speaks when it has the ACK, which
/// takes seconds on a machine that is emulated and busy with other things.
const PATIENCE: Duration = Duration::from_secs(5);
/// A side that has said everything hears out the other as long as no gap is longer. It outlasts the other's patience.
const GAP: Duration = Duration::from_millis(6500);
const SAMPLES: u16 = 160;
const PCMA: u8 = 8;
const SENDER_REPORT: u8 = 200;

/// The two ports of a stream.
#[derive(Debug)]
pub(super) struct Ports {
    rtp: UdpSocket,
    rtcp: UdpSocket,
}

impl Ports {
    /// Binds an even port and the next one.
    pub(super) fn bind(rtp: SocketAddr) -> io::Result<Self> {
        let mut rtcp = rtp;
        rtcp.set_port(rtp.port().saturating_add(1));
        Ok(Self { rtp: UdpSocket::bind(rtp)?, rtcp: UdpSocket::bind(rtcp)? })
    }

    /// The RTP port's own endpoint.
    pub(super) fn endpoint(&self) -> io::Result<SocketAddr> {
        self.rtp.local_addr()
    }
}

/// One direction of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Voice(pub(super) u32);

impl Voice {
    /// The packet of this index.
    fn rtp(self, index: u16) -> Vec<u8> {
        let mut packet = vec![0x80, PCMA | if index == 0 { 0x80 } else { 0 }];
        packet.extend(self.first_sequence().wrapping_add(index).to_be_bytes());
        packet
            .extend(self.first_timestamp().wrapping_add(u32::from(index) * u32::from(SAMPLES)).to_be_bytes());
        packet.extend(self.0.to_be_bytes());
        let mut state = self.0 ^ u32::from(index).wrapping_mul(0x9e37_79b9) | 1;
        packet.extend((0..SAMPLES).map(|_| {
            // xorshift32
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[0]
        }));
        packet
    }

    /// A sender report that tells its index by the count of packets.
    fn report(self, index: u16) -> Vec<u8> {
        let mut packet = vec![0x80, SENDER_REPORT, 0, 6];
        packet.extend(self.0.to_be_bytes());
        packet.extend([0; 12]);
        packet.extend(u32::from(index).to_be_bytes());
        packet.extend((u32::from(index) * u32::from(SAMPLES)).to_be_bytes());
        packet
    }

    /// Which packet of this voice it is, if it is one to the last bit.
    fn recognise(self, packet: &[u8]) -> Option<u16> {
        let sequence = u16::from_be_bytes(packet.get(2..4)?.try_into().ok()?);
        let index = sequence.wrapping_sub(self.first_sequence());
        (index < PACKETS && packet == self.rtp(index)).then_some(index)
    }

    /// Close to the end, so that it wraps around as it does in long calls.
    fn first_sequence(self) -> u16 {
        u16::MAX - 20 + (self.0 % 8) as u16
    }

    fn first_timestamp(self) -> u32 {
        self.0.wrapping_mul(0x0101_0101)
    }
}

/// What one side has to say and to hear.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// What the other side's SDP says: media goes there and must come from there.
    pub(super) peer: Offer,
    pub(super) own: Voice,
    pub(super) other: Voice,
    /// Whether it speaks before it has heard anything.
    pub(super) first: bool,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Talk {
    /// RTP packets sent.
    pub(super) sent: u16,
    /// Different RTP packets received, each checked to the last bit.
    pub(super) heard: u16,
    /// RTCP reports received.
    pub(super) reports: u16,
    /// What should not have been.
    pub(super) faults: Vec<String>,
}

impl Talk {
    /// Whether all came that should.
    pub(super) fn is_complete(&self) -> bool {
        self.heard == PACKETS && self.reports == REPORTS
    }
}

/// Talks and listens until all is said and heard, or nothing comes any more.
pub(super) fn talk(ports: &Ports, part: Part, stop: &Stop) -> Talk {
    let mut ear = Ear { part, seen: vec![false; usize::from(PACKETS)], talk: Talk::default() };
    let began = Instant::now();
    let mut last_news = began;
    let mut next_packet = part.first.then_some(began);
    let _ = ports.rtcp.set_nonblocking(true);
    while !stop.is_raised() {
        let now = Instant::now();
        if next_packet.is_none() && (ear.talk.heard > 0 || now - began > PATIENCE) {
            if ear.talk.heard == 0 {
                ear.fault("heard nothing from the far end, which speaks first".to_owned());
            }
            next_packet = Some(now);
        }
        while ear.talk.sent < PACKETS && next_packet.is_some_and(|at| at <= now) {
            if ear.talk.sent == 0 {
                let _ = ports.rtcp.send_to(&part.own.report(0), part.peer.rtcp);
            }
            let _ = ports.rtp.send_to(&part.own.rtp(ear.talk.sent), part.peer.rtp);
            ear.talk.sent += 1;
            next_packet = next_packet.map(|at| at + INTERVAL);
            last_news = now;
            if ear.talk.sent == PACKETS {
                let _ = ports.rtcp.send_to(&part.own.report(1), part.peer.rtcp);
            }
        }
        let all_said = ear.talk.sent == PACKETS;
        if all_said && (ear.talk.is_complete() || now - last_news > GAP) {
            break;
        }
        let wait = match next_packet.filter(|_| !all_said) {
            Some(at) => at.saturating_duration_since(now),
            None => INTERVAL,
        };
        if ear.listen(ports, wait.clamp(Duration::from_millis(1), INTERVAL)) {
            last_news = Instant::now();
        }
    }
    let _ = ports.rtcp.set_nonblocking(false);
    ear.talk
}

/// The listening side.
struct Ear {
    part: Part,
    seen: Vec<bool>,
    talk: Talk,
}

impl Ear {
    /// Takes what comes within `wait`; whether that was news.
    fn listen(&mut self, ports: &Ports, wait: Duration) -> bool {
        let mut packet = [0; 2048];
        let mut news = false;
        while let Ok((length, source)) = ports.rtcp.recv_from(&mut packet) {
            self.take_report(packet.get(..length).unwrap_or_default(), source);
            news = true;
        }
        let _ = ports.rtp.set_read_timeout(Some(wait));
        if let Ok((length, source)) = ports.rtp.recv_from(&mut packet) {
            self.take(packet.get(..length).unwrap_or_default(), source);
            news = true;
        }
        news
    }

    fn take(&mut self, packet: &[u8], source: SocketAddr) {
        let Some(index) = self.part.other.recognise(packet) else {
            return self.fault(format!("RTP that is none of this call's came from {source}"));
        };
        if source != self.part.peer.rtp {
            self.fault(format!("RTP came from {source}, the SDP said {}", self.part.peer.rtp));
        }
        match self.seen.get_mut(usize::from(index)) {
            Some(seen) if !*seen => {
                *seen = true;
                self.talk.heard += 1;
            }
            _ => self.fault(format!("RTP packet {index} came twice")),
        }
    }

    fn take_report(&mut self, packet: &[u8], source: SocketAddr) {
        if packet != self.part.other.report(self.talk.reports) {
            return self.fault(format!("RTCP that is none of this call's came from {source}"));
        }
        if source != self.part.peer.rtcp {
            self.fault(format!("RTCP came from {source}, the SDP said {}", self.part.peer.rtcp));
        }
        self.talk.reports += 1;
    }

    /// Says each fault once.
    fn fault(&mut self, fault: String) {
        if !self.talk.faults.contains(&fault) {
            self.talk.faults.push(fault);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::thread;

    const A: Voice = Voice(0x1001);
    const B: Voice = Voice(0x2002);

    fn pair() -> (Ports, Ports) {
        let any = || loop {
            let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port() & !1;
            if let Ok(ports) = Ports::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))) {
                break ports;
            }
        };
        (any(), any())
    }

    fn offer(ports: &Ports) -> Offer {
        let (rtp, rtcp) = (ports.rtp.local_addr().unwrap(), ports.rtcp.local_addr().unwrap());
        Offer { origin: Ipv4Addr::LOCALHOST, rtp, rtcp }
    }

    #[test]
    fn two_sides_hear_each_other_out() {
        let (a, b) = pair();
        let (to_a, to_b) = (offer(&a), offer(&b));
        let stop = Stop::default();
        let (of_a, of_b) = thread::scope(|scope| {
            let a = scope.spawn(|| talk(&a, Part { peer: to_b, own: A, other: B, first: true }, &stop));
            let b = scope.spawn(|| talk(&b, Part { peer: to_a, own: B, other: A, first: false }, &stop));
            (a.join().unwrap(), b.join().unwrap())
        });
        assert!(of_a.is_complete() && of_b.is_complete(), "{of_a:?} {of_b:?}");
        assert_eq!((of_a.sent, of_b.sent), (PACKETS, PACKETS));
        assert_eq!((of_a.faults, of_b.faults), (vec![], vec![]));
    }

    #[test]
    fn what_is_not_this_calls_media_is_a_fault() {
        let (a, b) = pair();
        let part = Part { peer: offer(&b), own: A, other: B, first: false };
        let mut ear = Ear { part, seen: vec![false; usize::from(PACKETS)], talk: Talk::default() };
        let from = offer(&b).rtp;
        ear.take(&B.rtp(3), from);
        assert_eq!((ear.talk.heard, ear.talk.faults.len()), (1, 0));
        ear.take(&B.rtp(3), from);
        let mut flipped = B.rtp(4);
        flipped[100] ^= 1;
        ear.take(&flipped, from);
        ear.take(&A.rtp(4), offer(&a).rtp);
        ear.take(&B.rtp(5), offer(&a).rtp);
        ear.take_report(&B.report(1), offer(&b).rtcp);
        assert_eq!(ear.talk.faults.len(), 5, "{:?}", ear.talk.faults);
        assert_eq!((ear.talk.heard, ear.talk.reports), (2, 0));
    }
}
