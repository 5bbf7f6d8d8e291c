//! TCP: scripts of segments, acknowledgments, times and disasters, on one connection at a time.
//!
//! The bytes are a script, read with `arbitrary`. Both ends append to streams, send any part of them at any time, in any
//! order and as often as they like, acknowledge anything, and now and then do what no TCP may.
//!
//! What must hold, for every script:
//!
//! 1. Every packet gets at most one verdict. What is held is asked for, or dropped, within twice the engine's patience,
//!    however far the rest of its stream comes meanwhile; and none is asked for without end.
//! 2. Every packet that goes on is a segment of the same ends with right sums.
//! 3. As long as nobody sends a byte twice and not the same, nobody gets one twice and not the same, unless he had
//!    acknowledged it.
//! 4. An end is never told that something has arrived which it did not send.
//! 5. Nothing grows without bound, and after enough time nothing is left.
//! 6. The same script gives the same outputs.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Unstructured};
use etherparse::{PacketBuilder, TcpOptionElement};

use crate::alg::{
    Action, Command, Engine, Failure, Input, Limits, Line, Op, Outcome, Output, PacketId, PacketIn, Policy,
    QueuePoint, Reply, Transport, Tuples,
};
use crate::packet::Segment;

use super::world::first_instant;

const MOST_STEPS: usize = 96;
const MOST_AGAINS: u32 = 12;
/// Longest stream of an end.
const LONGEST: usize = 100_000;

/// Runs the script in `data`.
///
/// # Panics
/// If one of the things at the top of this module does not hold.
pub fn tcp(data: &[u8]) {
    let first = Script::new(data).run();
    assert_eq!(Script::new(data).run(), first, "the same script, other outputs");
}

#[derive(Default)]
struct End {
    isn: u32,
    stream: Vec<u8>,
    /// How much of it was ever sent.
    sent: usize,
    /// What it was told has arrived.
    told: u32,
    /// The highest number that it has acknowledged, as an offset on the wire.
    acked: u32,
    /// What it got, by offset on the wire.
    got: BTreeMap<u32, u8>,
    fin: bool,
}

struct Packet {
    point: QueuePoint,
    outbound: bool,
    bytes: Vec<u8>,
    came: Instant,
    agains: u32,
}

struct Script<'a> {
    steps: Unstructured<'a>,
    engine: Engine,
    policy: Policy,
    now: Instant,
    ends: [End; 2],
    pending: BTreeMap<PacketId, Packet>,
    again: VecDeque<PacketId>,
    waiting: VecDeque<Command>,
    followed: Vec<Line>,
    answers: bool,
    fates: u16,
    last: u64,
    confirmed: bool,
    /// Nobody has done what no TCP may.
    honest: bool,
    transcript: Vec<String>,
}

fn at(text: &str) -> SocketAddr {
    text.parse().expect("a literal endpoint")
}

fn ends() -> [SocketAddr; 3] {
    [at("192.168.1.10:43210"), at("22.33.44.20:5060"), at("22.33.44.55:17375")]
}

impl<'a> Script<'a> {
    fn new(data: &'a [u8]) -> Self {
        let mut steps = Unstructured::new(data);
        let settings = u8::arbitrary(&mut steps).unwrap_or_default();
        let mut policy = Policy::default();
        if settings & 1 != 0 {
            policy.limits = Limits {
                tcp_held_per_host: 3,
                tcp_held: 4,
                tcp_bytes_per_host: 3000,
                parked: 1,
                ..policy.limits
            };
        }
        if settings & 2 != 0 {
            policy.tcp_patience = Duration::from_secs(1);
        }
        let isn = if settings & 4 != 0 { u32::MAX - 200 } else { 1000 };
        let end = |isn| End { isn, ..End::default() };
        Self {
            steps,
            engine: Engine::new(policy.clone()),
            policy,
            now: first_instant(),
            ends: [end(isn), end(isn.wrapping_add(77))],
            pending: BTreeMap::new(),
            again: VecDeque::new(),
            waiting: VecDeque::new(),
            followed: Vec::new(),
            answers: true,
            fates: 0,
            last: 0,
            confirmed: false,
            honest: true,
            transcript: Vec::new(),
        }
    }

    fn run(mut self) -> Vec<String> {
        for interface in [2, 3] {
            self.engine.handle(self.now, Input::Mtu { interface, mtu: 1500 });
        }
        self.handshake();
        for _ in 0..MOST_STEPS {
            if self.steps.is_empty() || self.step().is_err() {
                break;
            }
        }
        self.answers = true;
        while let Some(command) = self.waiting.pop_front() {
            self.answer(&command);
        }
        self.pass_time(self.policy.tcp_patience * 2);
        let sizes = self.engine.sizes();
        assert_eq!((sizes.held_segments, self.pending.len()), (0, 0), "held for ever");
        for _ in 0..4 {
            self.pass_time(Duration::from_secs(13 * 24 * 3600));
        }
        let sizes = self.engine.sizes();
        assert_eq!((sizes.connections, sizes.stream_bytes, sizes.held_segments), (0, 0, 0));
        self.transcript
    }

    fn handshake(&mut self) {
        for (outbound, flags) in [(true, 2), (false, 0x12), (true, 0x10)] {
            self.send(outbound, -1 + i64::from(flags == 0x10), &[], flags, 65_535, None, None);
        }
    }

    fn step(&mut self) -> arbitrary::Result<()> {
        let kind = u8::arbitrary(&mut self.steps)?;
        let outbound = kind & 0x80 == 0;
        let from = usize::from(!outbound);
        match kind & 0x0f {
            0 => {
                let length = usize::from(u8::arbitrary(&mut self.steps)?).min(self.steps.len());
                let text = self.steps.bytes(length)?;
                self.append(from, text);
            }
            1 | 2 => {
                let (number, length) = <(u8, u16)>::arbitrary(&mut self.steps)?;
                let text = message(outbound, number, usize::from(length % 4000));
                self.append(from, text.as_bytes());
            }
            // Any part of the stream: new if it begins at 0, or anything that was there.
            3..=7 => {
                let (back, length) = <(u16, u16)>::arbitrary(&mut self.steps)?;
                let sent = self.ends[from].sent;
                let start = sent.saturating_sub(usize::from(back) % 3000);
                let skip = if kind & 0x40 != 0 { usize::from(length % 997) } else { 0 };
                let start = (start + skip).min(self.ends[from].stream.len());
                let end = (start + usize::from(length) % 1460).min(self.ends[from].stream.len());
                self.ends[from].sent = sent.max(end);
                let fin = kind & 0x20 != 0 && end == self.ends[from].stream.len();
                self.ends[from].fin |= fin;
                let payload = self.ends[from].stream[start..end].to_vec();
                let flags = 0x10 | u8::from(fin);
                self.send(outbound, start as i64, &payload, flags, 65_535, None, None);
            }
            8 => {
                // An acknowledgment of part or all of what has come.
                let (part, window) = <(u8, u16)>::arbitrary(&mut self.steps)?;
                let contiguous = self.contiguous(from);
                let ack = (u64::from(contiguous) * u64::from(part) / 255) as u32;
                let sack = (kind & 0x40 != 0).then_some((ack, contiguous));
                let start = self.ends[from].sent as i64;
                self.send(outbound, start, &[], 0x10, window, Some(ack), sack);
            }
            9 => {
                let time = u16::arbitrary(&mut self.steps)?;
                self.pass_time(Duration::from_millis(u64::from(time % 500) * 10));
            }
            10 => {
                // What no TCP may: other bytes, from anywhere, with any flags.
                self.honest = false;
                let (start, flags, ack) = <(i16, u8, u16)>::arbitrary(&mut self.steps)?;
                let length = usize::from(u8::arbitrary(&mut self.steps)?).min(self.steps.len());
                let payload = self.steps.bytes(length)?;
                let start = self.ends[from].sent as i64 + i64::from(start) * 7;
                self.send(outbound, start, payload, flags, ack, Some(ack.into()), None);
            }
            11 => self.answers = !self.answers,
            12 => self.fates = u16::arbitrary(&mut self.steps)?,
            13 => {
                if let Some(command) = self.waiting.pop_front() {
                    self.answer(&command);
                }
            }
            14 => {
                // What is told from here on may belong to another connection.
                self.honest = false;
                let [orig_source, orig_destination, reply_destination] = ends();
                let tuples = Tuples {
                    transport: Transport::Tcp,
                    orig_source,
                    orig_destination,
                    reply_source: orig_destination,
                    reply_destination,
                };
                self.input(Input::FlowDestroyed(tuples));
            }
            _ => self.restart(),
        }
        Ok(())
    }

    fn append(&mut self, end: usize, text: &[u8]) {
        let stream = &mut self.ends[end].stream;
        if stream.len() + text.len() <= LONGEST && !self.ends[end].fin {
            self.ends[end].stream.extend_from_slice(text);
        }
    }

    /// How much of the wire an end has without a gap.
    fn contiguous(&self, end: usize) -> u32 {
        let mut next = 0;
        for at in self.ends[end].got.keys() {
            if *at > next {
                break;
            }
            next = at + 1;
        }
        next
    }

    #[allow(clippy::too_many_arguments)]
    fn send(
        &mut self,
        outbound: bool,
        start: i64,
        payload: &[u8],
        flags: u8,
        window: u16,
        ack: Option<u32>,
        sack: Option<(u32, u32)>,
    ) {
        let [phone, server, public] = ends();
        let (from, to) = if outbound { (phone, server) } else { (server, public) };
        let (own, peer) = (usize::from(!outbound), usize::from(outbound));
        let contiguous = if flags & 2 != 0 { 0 } else { self.contiguous(own) };
        let ack = ack.unwrap_or(contiguous);
        if self.honest {
            self.ends[own].acked = self.ends[own].acked.max(ack);
        }
        let sequence = self.ends[own].isn.wrapping_add(1).wrapping_add(start as u32);
        let peer_isn = self.ends[peer].isn.wrapping_add(1);
        let (SocketAddr::V4(a), SocketAddr::V4(b)) = (from, to) else { return };
        let mut builder = PacketBuilder::ipv4(a.ip().octets(), b.ip().octets(), 64).tcp(
            from.port(),
            to.port(),
            sequence,
            window,
        );
        let mut options = Vec::new();
        if flags & 2 != 0 {
            options.push(TcpOptionElement::MaximumSegmentSize(1460));
            builder = builder.syn();
        }
        if flags & 1 != 0 {
            builder = builder.fin();
        }
        if flags & 4 != 0 {
            builder = builder.rst();
        }
        if flags & 0x20 != 0 {
            builder = builder.urg(1);
        }
        if flags & 0x10 != 0 {
            builder = builder.ack(peer_isn.wrapping_add(ack));
        }
        if let Some((left, right)) = sack {
            let block = (peer_isn.wrapping_add(left), peer_isn.wrapping_add(right));
            options.push(TcpOptionElement::SelectiveAcknowledgement(block, [None; 3]));
        }
        let Ok(builder) = builder.options(&options) else { return };
        let mut bytes = Vec::new();
        builder.write(&mut bytes, payload).expect("a buffer takes everything");
        let point = match (outbound, flags & 2 != 0 && !self.confirmed) {
            (true, true) => QueuePoint::NewFlow,
            (false, _) if !self.followed.is_empty() => QueuePoint::BeforeConntrack,
            (false, _) => {
                let bytes = natted(&bytes, None, Some(phone));
                return self.queue(QueuePoint::Signalling, false, bytes);
            }
            (true, false) => QueuePoint::Signalling,
        };
        self.queue(point, outbound, bytes);
    }

    fn queue(&mut self, point: QueuePoint, outbound: bool, bytes: Vec<u8>) {
        self.last += 1;
        let id = PacketId(self.last);
        self.pending.insert(id, Packet { point, outbound, bytes, came: self.now, agains: 0 });
        self.hand_in(id);
        self.settle();
    }

    fn hand_in(&mut self, id: PacketId) {
        let Some(packet) = self.pending.get(&id) else { panic!("a packet that is gone is asked for") };
        let (point, bytes) = (packet.point, packet.bytes.clone());
        let (indev, outdev) = if packet.outbound { (2, 3) } else { (3, 0) };
        self.input(Input::Packet(PacketIn { id, point, indev, outdev, bytes: &bytes }));
    }

    fn settle(&mut self) {
        loop {
            while let Some(id) = self.again.pop_front() {
                let packet = self.pending.get_mut(&id).expect("it has no verdict yet");
                packet.agains += 1;
                assert!(packet.agains < MOST_AGAINS, "a packet is asked for again and again");
                self.hand_in(id);
            }
            if !self.answers {
                break;
            }
            let Some(command) = self.waiting.pop_front() else { break };
            self.answer(&command);
        }
        // One that waits for the kernel waits for as long as that takes.
        if self.waiting.is_empty() {
            let (now, most) = (self.now, self.policy.tcp_patience * 2);
            let is_forgotten = |packet: &Packet| now.saturating_duration_since(packet.came) > most;
            assert!(!self.pending.values().any(is_forgotten), "held for longer than may be");
        }
        let (sizes, limits) = (self.engine.sizes(), self.policy.limits);
        assert!(sizes.held_segments <= limits.tcp_held && sizes.connections <= limits.connections);
        assert!(sizes.stream_bytes <= limits.tcp_bytes_per_host + LONGEST);
    }

    fn answer(&mut self, command: &Command) {
        let fate = self.fates & 3;
        self.fates >>= 2;
        let outcome: Outcome = match &command.op {
            _ if fate == 3 => Err(Failure::Full),
            Op::Follow { line, .. } => {
                self.followed.push(*line);
                Ok(Reply::Done)
            }
            Op::Unfollow { .. } => {
                self.followed.clear();
                Ok(Reply::Done)
            }
            Op::Lookup { .. } => Ok(Reply::Found(None)),
            _ => Ok(Reply::Done),
        };
        self.input(Input::CommandDone { id: command.id, outcome });
        while let Some(id) = self.again.pop_front() {
            self.hand_in(id);
        }
    }

    fn pass_time(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.engine.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.input(Input::Timeout);
            self.settle();
        }
        self.now = end;
        self.input(Input::Timeout);
        self.settle();
    }

    fn restart(&mut self) {
        let state = self.engine.export(self.now);
        self.pending.clear();
        self.again.clear();
        self.waiting.clear();
        self.engine = Engine::new(self.policy.clone());
        self.engine.import(self.now, Duration::ZERO, state);
        let held = crate::alg::Held { followed: self.followed.clone(), ..Default::default() };
        self.engine.reconcile(self.now, &held);
        self.input(Input::Timeout);
        self.settle();
    }

    fn input(&mut self, input: Input<'_>) {
        self.engine.handle(self.now, input);
        let mut verdicts = Vec::new();
        while let Some(output) = self.engine.poll_output() {
            self.transcript.push(format!("{output:?}"));
            match output {
                Output::Command(command) => self.waiting.push_back(command),
                Output::Again(id) => self.again.push_back(id),
                Output::Event(_) => {}
                Output::Verdict(verdict) => {
                    let fate = match verdict.action {
                        Action::Accept { identity } => Some((None, identity)),
                        Action::Replace { packet } => Some((Some(packet.to_vec()), None)),
                        Action::Drop => None,
                        Action::Rewrite { .. } => panic!("TCP is replaced"),
                    };
                    verdicts.push((verdict.packet, fate));
                }
            }
        }
        for (id, fate) in verdicts {
            let packet = self.pending.remove(&id).expect("one verdict for each packet");
            let Some((changed, identity)) = fate else { continue };
            let bytes = changed.unwrap_or(packet.bytes);
            self.went_on(packet.point, packet.outbound, bytes, identity);
        }
    }

    fn went_on(&mut self, point: QueuePoint, outbound: bool, bytes: Vec<u8>, identity: Option<u32>) {
        let segment = Segment::parse(&bytes).expect("it went in as a segment");
        assert!(segment.is_sound(), "a wrong checksum");
        let [_, server, public] = ends();
        if point == QueuePoint::NewFlow {
            let mut out = Vec::new();
            segment.relabel(identity, None, &mut out).expect("it fits");
            return self.queue(QueuePoint::Learn, outbound, natted(&out, Some(public), None));
        }
        self.confirmed = true;
        let (from, to) = (usize::from(!outbound), usize::from(outbound));
        assert!(!outbound || segment.destination() == server);
        let offset = |number: u32, isn: u32| number.wrapping_sub(isn.wrapping_add(1));
        if !self.honest {
            return;
        }
        let start = offset(segment.sequence(), self.ends[from].isn);
        let end = &mut self.ends[to];
        for (at, byte) in (0..).map(|at: u32| start.wrapping_add(at)).zip(segment.payload()) {
            // What was acknowledged is thrown away unseen, and so is what lies before the stream.
            if (at as i32) < end.acked as i32 {
                continue;
            }
            let old = end.got.insert(at, *byte);
            assert!(
                old.is_none_or(|old| old == *byte),
                "byte {at} of {} has changed",
                if outbound { "out" } else { "in" }
            );
        }
        if let Some(number) = segment.acknowledgment() {
            let told = offset(number, end.isn);
            let sent = end.sent as u32 + u32::from(end.fin);
            assert!(told <= sent || told as i32 <= 0, "{told} acknowledged, {sent} sent");
            end.told = end.told.max(told);
        }
    }
}

fn natted(bytes: &[u8], source: Option<SocketAddr>, destination: Option<SocketAddr>) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (end, ip, port) in [(source, 12, 20), (destination, 16, 22)] {
        if let Some(SocketAddr::V4(end)) = end {
            bytes[ip..ip + 4].copy_from_slice(&end.ip().octets());
            bytes[port..port + 2].copy_from_slice(&end.port().to_be_bytes());
        }
    }
    let segment = Segment::parse(&bytes).expect("only its ends changed");
    let mut out = Vec::new();
    segment.relabel(Some(segment.identity()), None, &mut out).expect("it fits");
    out
}

/// A message of a phone or of a server: text, or a description, or a keep-alive.
fn message(outbound: bool, number: u8, length: usize) -> String {
    if number.is_multiple_of(8) {
        return "\r\n\r\n".to_owned();
    }
    let host = if outbound { "192.168.1.10" } else { "22.33.44.55:17375" };
    let (kind, body) = if number % 8 < 3 {
        let port = 40_000 + u32::from(number) * 2;
        let address = host.split(':').next().unwrap_or_default();
        let body = format!(
            "v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n"
        );
        ("application/sdp", body)
    } else {
        ("text/plain", "x".repeat(length))
    };
    let method = if number % 8 < 3 { "INVITE" } else { "MESSAGE" };
    let target = if outbound { "bob@example.com" } else { "alice@22.33.44.55:17375" };
    format!(
        "{method} sip:{target} SIP/2.0\r\nVia: SIP/2.0/TCP {host};branch=z9hG4bK{number}\r\nFrom: <sip:a@h>;tag={number}\r\n\
         To: <sip:b@h>\r\nCall-ID: {number}\r\nCSeq: 1 {method}\r\nContact: <sip:alice@{host};transport=tcp>\r\n\
         Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
