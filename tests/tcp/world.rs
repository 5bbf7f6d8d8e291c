//! Two endpoints, a router with a NAT and the engine between them, and wires that lose, repeat and reorder.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sipalg::alg::{
    Action, Command, Engine, Event, Failure, Input, Inside, Line, Op, Outcome, Output, Outside, PacketId,
    PacketIn, Policy, QueuePoint, Reason, Reply, Transport, Tuples,
};
use sipalg::packet::{Numbers, Segment};

use crate::endpoint::{Dice, Endpoint};

pub const PHONE: &str = "192.168.1.10:43210";
pub const SERVER: &str = "22.33.44.20:5060";
pub const PUBLIC: &str = "22.33.44.55:17375";
pub const LAN: u32 = 2;
pub const WAN: u32 = 3;

pub fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// What the wires do, in percent and milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Wires {
    /// Lost between an endpoint and the router.
    pub before: u64,
    /// Lost between the router and an endpoint.
    pub behind: u64,
    pub doubled: u64,
    pub delay: u64,
    pub jitter: u64,
}

impl Default for Wires {
    fn default() -> Self {
        Self { before: 0, behind: 0, doubled: 0, delay: 5, jitter: 0 }
    }
}

#[derive(Clone, Debug)]
enum Arrival {
    Router(Vec<u8>),
    Phone(Vec<u8>),
    Server(Vec<u8>),
    /// A command is done.
    Done(Command),
}

/// A packet without a verdict.
#[derive(Clone, Debug)]
struct Pending {
    point: QueuePoint,
    bytes: Vec<u8>,
    came: Instant,
}

pub struct World {
    pub engine: Engine,
    pub now: Instant,
    pub start: Instant,
    pub phone: Endpoint,
    pub server: Endpoint,
    pub wires: Wires,
    pub dice: Dice,
    events: BTreeMap<(Instant, u64), Arrival>,
    serial: u64,
    pending: BTreeMap<PacketId, Pending>,
    again: VecDeque<PacketId>,
    /// What conntrack knows; `None`: not confirmed.
    confirmed: bool,
    pub nated: bool,
    /// What the NAT makes of a second packet that comes before conntrack knows the first.
    pub second: Option<SocketAddr>,
    /// Packets of a new connection on their way through the NAT.
    unconfirmed: u32,
    /// The server began.
    pub from_outside: bool,
    /// The interface by which the phone's segments leave, and the one whose own the public address is.
    pub uplink: u32,
    pub owner: Option<u32>,
    pub followed: BTreeSet<Line>,
    pub resets: Vec<Line>,
    pub pinholes: BTreeMap<SocketAddr, SocketAddr>,
    pub log: Vec<Event>,
    pub reasons: BTreeMap<Reason, usize>,
    /// How long commands take.
    pub slow: Duration,
    pub failures: VecDeque<(&'static str, Failure)>,
    pub most_held: usize,
    /// For how long a packet has waited for its verdict.
    pub longest_held: Duration,
    pub commands: Vec<Op>,
    /// Packets as they went on, by direction: `true` is outbound.
    pub tape: Vec<(bool, Vec<u8>)>,
    pub taping: bool,
}

impl World {
    pub fn new(policy: Policy, phone: Endpoint, server: Endpoint, seed: u64) -> Self {
        let now = Instant::now();
        let mut engine = Engine::new(policy);
        for interface in [LAN, WAN] {
            engine.handle(now, Input::Mtu { interface, mtu: 1500 });
        }
        Self {
            engine,
            now,
            start: now,
            phone,
            server,
            wires: Wires::default(),
            dice: Dice(seed),
            events: BTreeMap::new(),
            serial: 0,
            pending: BTreeMap::new(),
            again: VecDeque::new(),
            confirmed: false,
            nated: true,
            second: None,
            unconfirmed: 0,
            from_outside: false,
            uplink: WAN,
            owner: Some(WAN),
            followed: BTreeSet::new(),
            resets: Vec::new(),
            pinholes: BTreeMap::new(),
            log: Vec::new(),
            reasons: BTreeMap::new(),
            slow: Duration::from_millis(1),
            failures: VecDeque::new(),
            most_held: 0,
            longest_held: Duration::ZERO,
            commands: Vec::new(),
            tape: Vec::new(),
            taping: false,
        }
    }

    fn later(&mut self, delay: Duration, arrival: Arrival) {
        self.serial += 1;
        self.events.insert((self.now + delay, self.serial), arrival);
    }

    fn wire(&mut self, loss: u64, arrival: Arrival) {
        if self.dice.percent(loss) {
            return;
        }
        let copies = 1 + u64::from(self.dice.percent(self.wires.doubled));
        for _ in 0..copies {
            let delay = self.wires.delay + self.dice.below(self.wires.jitter + 1);
            self.later(Duration::from_millis(delay), arrival.clone());
        }
    }

    fn flush_endpoints(&mut self) {
        while let Some(bytes) = self.phone.outgoing() {
            self.wire(self.wires.before, Arrival::Router(bytes));
        }
        while let Some(bytes) = self.server.outgoing() {
            self.wire(self.wires.before, Arrival::Router(bytes));
        }
    }

    /// Runs until `until` says so. Panics if nothing happens any more, or for too long.
    pub fn run(&mut self, limit: Duration, mut until: impl FnMut(&mut Self) -> bool) {
        for _ in 0..2_000_000 {
            self.phone.pump(self.now);
            self.server.pump(self.now);
            self.flush_endpoints();
            if until(self) {
                return;
            }
            let event = self.events.first_key_value().map(|((due, _), _)| *due);
            let timers = [event, self.phone.due(), self.server.due(), self.engine.poll_timeout()];
            let Some(next) = timers.into_iter().flatten().min() else {
                panic!("nothing happens any more\n{}", self.show())
            };
            self.now = self.now.max(next);
            assert!(self.now - self.start < limit, "too long\n{}", self.show());
            if self.engine.poll_timeout().is_some_and(|due| due <= self.now) {
                self.engine.handle(self.now, Input::Timeout);
                self.drain();
            }
            if event.is_some_and(|due| due <= self.now) {
                let (_, arrival) = self.events.pop_first().expect("it was there");
                self.happen(arrival);
            }
            for end in [&mut self.phone, &mut self.server] {
                if end.due().is_some_and(|due| due <= self.now) {
                    end.wake(self.now);
                }
            }
        }
        panic!("no end\n{}", self.show());
    }

    /// Lets time pass.
    pub fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.phone.pump(self.now);
            self.server.pump(self.now);
            self.flush_endpoints();
            let event = self.events.first_key_value().map(|((due, _), _)| *due);
            let timers = [event, self.phone.due(), self.server.due(), self.engine.poll_timeout()];
            let Some(next) = timers.into_iter().flatten().min().filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            if self.engine.poll_timeout().is_some_and(|due| due <= self.now) {
                self.engine.handle(self.now, Input::Timeout);
                self.drain();
            }
            if event.is_some_and(|due| due <= self.now) {
                let (_, arrival) = self.events.pop_first().expect("it was there");
                self.happen(arrival);
            }
            for end in [&mut self.phone, &mut self.server] {
                if end.due().is_some_and(|due| due <= self.now) {
                    end.wake(self.now);
                }
            }
        }
        self.now = end;
    }

    pub fn show(&self) -> String {
        let end = |end: &Endpoint| {
            format!(
                "{}: {} of {} acknowledged, {} received, fin {}, due {:?}\n",
                end.name,
                end.una,
                end.stream.len(),
                end.received.len(),
                end.fin_received,
                end.due().map(|due| due.saturating_duration_since(self.now)),
            )
        };
        let state = self.engine.export(self.now);
        let held = self.pending.len();
        format!(
            "{}{}{held} held, {:?}, {:?}\n{:?}",
            end(&self.phone),
            end(&self.server),
            self.log,
            self.reasons,
            state.connections
        )
    }

    fn happen(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Phone(bytes) => self.phone.arrive(self.now, &bytes),
            Arrival::Server(bytes) => self.server.arrive(self.now, &bytes),
            Arrival::Router(bytes) => self.route(bytes),
            Arrival::Done(command) => {
                let outcome = self.execute(&command.op);
                self.engine.handle(self.now, Input::CommandDone { id: command.id, outcome });
                self.drain();
            }
        }
    }

    /// A packet at the router, from either side.
    pub fn route(&mut self, bytes: Vec<u8>) {
        let segment = Segment::parse(&bytes).unwrap();
        if segment.source() == self.phone.at {
            let new = !self.confirmed && segment.syn();
            self.queue(if new { QueuePoint::NewFlow } else { QueuePoint::Signalling }, bytes);
        } else if self.nated {
            let line = Line { inside: Inside(at(PHONE)), far: at(SERVER), public: Outside(at(PUBLIC)) };
            if self.followed.contains(&line) {
                self.queue(QueuePoint::BeforeConntrack, bytes);
            } else {
                self.unnat(bytes);
            }
        } else {
            self.unnat(bytes);
        }
    }

    /// From PREROUTING to FORWARD.
    fn unnat(&mut self, bytes: Vec<u8>) {
        let bytes = readdressed(&bytes, None, Some(at(PHONE)));
        let segment = Segment::parse(&bytes).unwrap();
        let new = !self.confirmed && segment.syn();
        self.queue(if new { QueuePoint::NewFlow } else { QueuePoint::Signalling }, bytes);
    }

    fn queue(&mut self, point: QueuePoint, bytes: Vec<u8>) {
        self.serial += 1;
        let id = PacketId(self.serial);
        self.pending.insert(id, Pending { point, bytes, came: self.now });
        self.hand_in(id);
        self.drain();
    }

    fn hand_in(&mut self, id: PacketId) {
        let Some(Pending { point, bytes, .. }) = self.pending.get(&id).cloned() else { return };
        let outbound = Segment::parse(&bytes).unwrap().source().ip() == self.phone.at.ip();
        let (indev, outdev) = match (point, outbound) {
            (QueuePoint::BeforeConntrack, _) => (WAN, 0),
            (QueuePoint::Learn, _) => (0, if self.from_outside { LAN } else { WAN }),
            (_, true) => (LAN, self.uplink),
            (_, false) => (WAN, LAN),
        };
        self.engine.handle(self.now, Input::Packet(PacketIn { id, point, indev, outdev, bytes: &bytes }));
    }

    pub fn drain(&mut self) {
        loop {
            let mut verdicts = Vec::new();
            let mut commands = Vec::new();
            while let Some(output) = self.engine.poll_output() {
                match output {
                    Output::Command(command) => commands.push(command),
                    Output::Event(event) => self.log.push(event),
                    Output::Again(id) => self.again.push_back(id),
                    Output::Verdict(verdict) => {
                        *self.reasons.entry(verdict.reason).or_default() += 1;
                        let fate = match verdict.action {
                            Action::Accept { identity: None } => Some(None),
                            Action::Accept { identity: Some(identity) } => {
                                let bytes = &self.pending[&verdict.packet].bytes;
                                let mut out = Vec::new();
                                Segment::parse(bytes)
                                    .unwrap()
                                    .relabel(Some(identity), None, &mut out)
                                    .unwrap();
                                Some(Some(out))
                            }
                            Action::Replace { packet } => Some(Some(packet.to_vec())),
                            Action::Drop => None,
                            Action::Rewrite { .. } => panic!("TCP is replaced"),
                        };
                        verdicts.push((verdict.packet, fate));
                    }
                }
            }
            for command in commands {
                self.later(self.slow, Arrival::Done(command));
            }
            for (id, fate) in verdicts {
                let pending = self.pending.remove(&id).expect("one verdict for each packet");
                self.longest_held = self.longest_held.max(self.now - pending.came);
                if let Some(changed) = fate {
                    self.go_on(pending.point, changed.unwrap_or(pending.bytes));
                }
            }
            self.most_held = self.most_held.max(self.pending.len());
            let Some(id) = self.again.pop_front() else { return };
            assert!(self.pending.contains_key(&id), "asked for a packet that has gone");
            self.hand_in(id);
        }
    }

    fn go_on(&mut self, point: QueuePoint, bytes: Vec<u8>) {
        let segment = Segment::parse(&bytes).unwrap();
        assert!(segment.is_sound(), "a wrong checksum");
        match point {
            QueuePoint::BeforeConntrack => {
                let bytes = readdressed(&bytes, None, Some(at(PHONE)));
                self.leave(false, bytes);
            }
            QueuePoint::NewFlow => {
                let outbound = segment.source() == self.phone.at;
                self.unconfirmed += 1;
                let public = self.second.filter(|_| self.unconfirmed > 1).unwrap_or_else(|| at(PUBLIC));
                let bytes =
                    if outbound && self.nated { readdressed(&bytes, Some(public), None) } else { bytes };
                self.queue(QueuePoint::Learn, bytes);
            }
            // conntrack drops it: the phone's side of the entry is another one's by now.
            QueuePoint::Learn if self.confirmed && self.second == Some(segment.source()) => {}
            QueuePoint::Learn => {
                self.confirmed = true;
                let outbound = segment.source() != self.server.at;
                self.leave(outbound, bytes);
            }
            QueuePoint::Signalling => {
                let outbound = segment.source() == self.phone.at;
                let bytes =
                    if outbound && self.nated { readdressed(&bytes, Some(at(PUBLIC)), None) } else { bytes };
                self.leave(outbound, bytes);
            }
            QueuePoint::Latch => unreachable!(),
        }
    }

    fn leave(&mut self, outbound: bool, bytes: Vec<u8>) {
        assert!(bytes.len() <= 1500, "a packet of {} bytes", bytes.len());
        if self.taping {
            self.tape.push((outbound, bytes.clone()));
        }
        let arrival = if outbound { Arrival::Server(bytes) } else { Arrival::Phone(bytes) };
        self.wire(self.wires.behind, arrival);
    }

    /// Every byte that left the router on the tape, sent for the first time or again, is the one that belongs there.
    pub fn assert_true_bytes(&self, out: &[u8], inn: &[u8]) {
        for (outbound, bytes) in &self.tape {
            let segment = Segment::parse(bytes).unwrap();
            let (isn, stream) =
                if *outbound { (self.phone.habits.isn, out) } else { (self.server.habits.isn, inn) };
            let at = segment.sequence().wrapping_sub(isn.wrapping_add(1)) as usize;
            if !segment.syn() && !segment.payload().is_empty() {
                let right = stream.get(at..at + segment.payload().len()).unwrap_or_default();
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                assert_eq!(text(segment.payload()), text(right), "outbound: {outbound}, byte {at}");
            }
        }
    }

    fn execute(&mut self, op: &Op) -> Outcome {
        self.commands.push(op.clone());
        if let Some((what, failure)) = self.failures.front().copied() {
            let hit = matches!(
                (what, op),
                ("open", Op::Open { .. }) | ("follow", Op::Follow { .. }) | ("pin", Op::Pin { .. })
            );
            if hit {
                self.failures.pop_front();
                return Err(failure);
            }
        }
        match op {
            Op::Follow { line, .. } => {
                self.followed.insert(*line);
            }
            Op::Unfollow { line } => {
                self.followed.remove(line);
            }
            Op::Reset { line } => self.resets.push(*line),
            Op::Reroute { from, to, .. } if self.owner != Some(*from) || self.owner == Some(*to) => {
                return Err(Failure::NotFound);
            }
            Op::Open { pinholes, .. } => {
                self.pinholes.extend(pinholes.iter().map(|it| (it.inside.0, it.public.0)));
            }
            Op::Lookup { transport, .. } => {
                let (phone, server, public) = (at(PHONE), self.server.at, at(PUBLIC));
                let public = if self.nated { public } else { phone };
                let (orig_source, orig_destination, reply_source, reply_destination) = if self.from_outside {
                    (server, public, phone, server)
                } else {
                    (phone, server, server, public)
                };
                let tuples = Tuples {
                    transport: *transport,
                    orig_source,
                    orig_destination,
                    reply_source,
                    reply_destination,
                };
                return Ok(Reply::Found((*transport == Transport::Tcp).then_some(tuples)));
            }
            _ => {}
        }
        Ok(Reply::Done)
    }

    /// Nothing is on its way any more.
    pub fn forget_wires(&mut self) {
        self.events.retain(|_, arrival| matches!(arrival, Arrival::Done(_)));
    }

    /// The phone's first datagram from its SIP port, which the NAT makes `public`; what leaves.
    pub fn datagram(&mut self, public: &str, payload: &str) -> String {
        let source = at("192.168.1.10:5060");
        let build = |from: SocketAddr, id: u32| {
            let (std::net::IpAddr::V4(a), std::net::IpAddr::V4(b)) = (from.ip(), at(SERVER).ip()) else {
                unreachable!()
            };
            let mut bytes = Vec::new();
            let builder = etherparse::PacketBuilder::ipv4(a.octets(), b.octets(), 64).udp(from.port(), 5060);
            builder.write(&mut bytes, payload.as_bytes()).unwrap();
            let mut out = Vec::new();
            sipalg::packet::restamp(&bytes, id, &mut out).unwrap();
            out
        };
        let mut pass = |point, bytes: &[u8]| {
            self.serial += 1;
            let id = PacketId(self.serial);
            self.engine
                .handle(self.now, Input::Packet(PacketIn { id, point, indev: LAN, outdev: WAN, bytes }));
            let mut fate = (0, String::new());
            while let Some(output) = self.engine.poll_output() {
                match output {
                    Output::Verdict(verdict) => match verdict.action {
                        Action::Accept { identity } => {
                            fate = (identity.unwrap_or_default(), payload.to_owned())
                        }
                        Action::Rewrite { edits, .. } => {
                            let mut out = Vec::new();
                            edits.apply(payload.as_bytes(), &mut out);
                            fate = (0, String::from_utf8(out).unwrap());
                        }
                        other => panic!("{other:?}"),
                    },
                    Output::Command(_) | Output::Event(_) => {}
                    Output::Again(_) => panic!("nothing to wait for"),
                }
            }
            fate
        };
        let (token, _) = pass(QueuePoint::NewFlow, &build(source, 9));
        pass(QueuePoint::Learn, &build(at(public), token)).1
    }

    /// conntrack's entry dies.
    pub fn destroy(&mut self) {
        let (phone, server, public) = (at(PHONE), at(SERVER), at(PUBLIC));
        self.engine.handle(
            self.now,
            Input::FlowDestroyed(Tuples {
                transport: Transport::Tcp,
                orig_source: phone,
                orig_destination: server,
                reply_source: server,
                reply_destination: public,
            }),
        );
        self.drain();
    }

    /// Another process takes over. What was held is dropped.
    pub fn restart(&mut self, policy: Policy) {
        let state = self.engine.export(self.now);
        let text = serde_json::to_string(&state).unwrap();
        let state = serde_json::from_str(&text).unwrap();
        self.pending.clear();
        self.again.clear();
        self.events.retain(|_, arrival| !matches!(arrival, Arrival::Done(_)));
        self.engine = Engine::new(policy);
        self.engine.import(self.now, Duration::ZERO, state);
        let held =
            sipalg::alg::Held { followed: self.followed.iter().copied().collect(), ..Default::default() };
        self.engine.reconcile(self.now, &held);
        self.drain();
    }
}

/// A packet with another source or destination.
pub fn readdressed(bytes: &[u8], source: Option<SocketAddr>, destination: Option<SocketAddr>) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut set = |end: Option<SocketAddr>, ip: usize, port: usize| {
        if let Some(SocketAddr::V4(end)) = end {
            bytes[ip..ip + 4].copy_from_slice(&end.ip().octets());
            bytes[20 + port..22 + port].copy_from_slice(&end.port().to_be_bytes());
        }
    };
    set(source, 12, 0);
    set(destination, 16, 2);
    let segment = Segment::parse(&bytes).unwrap();
    let mut out = Vec::new();
    segment.relabel(Some(segment.identity()), None, &mut out).unwrap();
    out
}

/// A segment with other numbers.
pub fn renumbered(bytes: &[u8], sequence: u32, payload: &[u8]) -> Vec<u8> {
    let segment = Segment::parse(bytes).unwrap();
    let numbers = Numbers {
        sequence,
        acknowledgment: segment.acknowledgment().unwrap_or_default(),
        window: None,
        stamp: None,
        keep_end: true,
    };
    let mut out = Vec::new();
    segment.rebuild(numbers, Some(&mut |edge| edge), |out| out.extend(payload), &mut out).unwrap();
    out
}
