//! A bench for the engine: a simulated kernel, a NAT and a clock that only moves when told.
//!
//! Messages go in as the phone or the server sends them and come out as the other side gets them. The kernel is a list
//! of what has been opened, so a test can say what must be there, and [`Bench::assert_all_closed`] what must not.

#![allow(dead_code, unreachable_pub)] // each test file uses its own part

pub mod cases;
pub mod messages;
pub mod naive;
pub mod restart;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, Instant};

use sipalg::alg::{
    Action, Command, Engine, Event, Failure, FlowKey, Input, Inside, Op, Outcome, Output, Outside, PacketId,
    PacketIn, Peer, Pinhole, PinnedFlow, Policy, QueuePoint, Reason, Reply, Transport, Tuples, Verdict,
};
use sipalg::packet::{Datagram, Identity};

/// Interface index of the LAN.
pub const LAN: u32 = 2;
/// Interface index of the uplink.
pub const WAN: u32 = 3;

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// The payload that went on; `None`: dropped.
    pub payload: Option<Vec<u8>>,
    /// Why.
    pub reason: Reason,
    /// The rules of its edits, by position.
    pub rules: Vec<&'static str>,
    /// Its edits, by position: what was replaced, by what.
    pub edits: Vec<(Range<usize>, Vec<u8>)>,
}

impl Passed {
    /// The payload as text.
    #[track_caller]
    pub fn text(&self) -> String {
        String::from_utf8(self.payload.clone().expect("the packet was dropped")).expect("not text")
    }
}

/// What the simulated kernel has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    pub pinholes: BTreeMap<SocketAddr, Inside>,
    /// Those of them that are for TCP.
    pub tcp: BTreeSet<SocketAddr>,
    pub peers: BTreeSet<Peer>,
    pub pins: Vec<PinnedFlow>,
    /// Public endpoints where media is expected.
    pub expected: BTreeSet<SocketAddr>,
    pub sustained: Vec<(FlowKey, Duration)>,
    /// When the kernel would close what is open by itself.
    pub until: BTreeMap<Opened, Instant>,
}

/// Something with a lifetime in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Opened {
    Pinhole(SocketAddr),
    Peer(Peer),
}

pub struct Bench {
    pub engine: Engine,
    pub now: Instant,
    pub kernel: Kernel,
    pub events: Vec<Event>,
    pub commands: Vec<Op>,
    /// Failures to give to the next commands of a kind (see [`kind`]).
    pub failures: VecDeque<(&'static str, Failure)>,
    /// Whether `events`, `commands` and what was sustained are kept, and every packet is read a second time.
    pub keeps_records: bool,
    /// Fates of the next commands that open something, one each; when it is used up all goes well.
    pub dice: VecDeque<Option<Failure>>,
    /// Interface index of the uplink that packets leave by.
    pub uplink: u32,
    /// Interfaces of phones that are not in the LAN.
    pub lans: BTreeMap<IpAddr, u32>,
    /// Whether the kernel may have lost what is renewed.
    pub forgets: bool,
    /// No media flows: who asks for it finds nothing. What was pinned stands until it is taken back.
    pub mute: bool,
    /// Whether commands are answered at once. If not, they pile up in `waiting`.
    pub answers: bool,
    pub waiting: VecDeque<Command>,
    /// Whether first packets are queued behind the NAT only, with what conntrack says of them. Off, unless the
    /// environment has SIPALG_TRIPS=1: then whatever a test program holds must hold that way too.
    pub one_trip: bool,
    /// What phones have learned of the NAT: inside and public endpoint.
    pub stun: Vec<(Inside, Outside)>,
    /// Which interface has which address.
    pub addresses: Vec<(u32, IpAddr)>,
    /// The NAT: inside and far end to public.
    nat: BTreeMap<(SocketAddr, SocketAddr), SocketAddr>,
    /// Public endpoints that were asked for in vain; closing them is no error.
    never_open: BTreeSet<SocketAddr>,
    never_admitted: BTreeSet<Peer>,
    /// Flows that conntrack has.
    tracked: BTreeSet<(SocketAddr, SocketAddr)>,
    public: IpAddr,
    next_port: u16,
    next_packet: u64,
}

/// The kind of a command, for [`Bench::failures`].
pub fn kind(op: &Op) -> &'static str {
    match op {
        Op::Open { .. } => "open",
        Op::Renew { .. } => "renew",
        Op::Close { .. } => "close",
        Op::Admit { .. } => "admit",
        Op::Dismiss { .. } => "dismiss",
        Op::Pin { .. } => "pin",
        Op::Unpin { .. } => "unpin",
        Op::Lookup { .. } => "lookup",
        Op::Recognise { .. } => "recognise",
        Op::Sustain { .. } => "sustain",
        Op::Follow { .. } => "follow",
        Op::Unfollow { .. } => "unfollow",
        Op::Reset { .. } => "reset",
        Op::Purge { .. } => "purge",
        Op::Reroute { .. } => "reroute",
        Op::Expect { .. } => "expect",
        Op::Unexpect { .. } => "unexpect",
    }
}

pub fn at(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is no endpoint"))
}

impl Default for Bench {
    fn default() -> Self {
        Self::new(Policy::default())
    }
}

impl Bench {
    pub fn new(policy: Policy) -> Self {
        Self {
            engine: Engine::new(policy),
            now: Instant::now(),
            kernel: Kernel::default(),
            events: Vec::new(),
            commands: Vec::new(),
            failures: VecDeque::new(),
            keeps_records: true,
            dice: VecDeque::new(),
            uplink: WAN,
            lans: BTreeMap::new(),
            forgets: false,
            mute: false,
            answers: true,
            waiting: VecDeque::new(),
            one_trip: std::env::var("SIPALG_TRIPS").is_ok_and(|trips| trips == "1"),
            stun: Vec::new(),
            addresses: Vec::new(),
            nat: BTreeMap::new(),
            never_open: BTreeSet::new(),
            never_admitted: BTreeSet::new(),
            tracked: BTreeSet::new(),
            public: IpAddr::from([22, 33, 44, 55]),
            next_port: 17375,
            next_packet: 0,
        }
    }

    /// The NAT will give this flow that public endpoint; without it, ports are given from 17375 on.
    pub fn nat(&mut self, inside: &str, far: &str, public: &str) -> &mut Self {
        self.nat.insert((at(inside), at(far)), at(public));
        self
    }

    /// The public endpoint of a flow.
    pub fn public(&self, inside: &str, far: &str) -> SocketAddr {
        self.nat[&(at(inside), at(far))]
    }

    /// The flow was there before the engine.
    pub fn track(&mut self, inside: &str, far: &str) -> &mut Self {
        self.map(at(inside), at(far));
        self.tracked.insert((at(inside), at(far)));
        self
    }

    fn map(&mut self, inside: SocketAddr, far: SocketAddr) -> SocketAddr {
        let (public, port) = (self.public, self.next_port);
        *self.nat.entry((inside, far)).or_insert_with(|| {
            self.next_port += 1;
            SocketAddr::new(public, port)
        })
    }

    fn lan(&self, inside: SocketAddr) -> u32 {
        self.lans.get(&inside.ip()).copied().unwrap_or(LAN)
    }

    /// A phone sends; the answer is what goes out.
    pub fn out(&mut self, inside: &str, far: &str, payload: impl AsRef<[u8]>) -> Passed {
        let (inside, far) = (at(inside), at(far));
        let public = self.map(inside, far);
        if !self.tracked.insert((inside, far)) {
            let packet = packet(inside, far, payload.as_ref());
            return self.pass(QueuePoint::Signalling, self.lan(inside), self.uplink, &packet).0;
        }
        let first = packet(inside, far, payload.as_ref());
        if self.one_trip {
            let natted = with_source(&Datagram::parse(&first).expect("a packet"), public, payload.as_ref());
            let tuples = Tuples {
                transport: Transport::Udp,
                orig_source: inside,
                orig_destination: far,
                reply_source: far,
                reply_destination: public,
            };
            return self.behind_nat(tuples, self.lan(inside), self.uplink, &natted);
        }
        let (passed, bytes) = self.pass(QueuePoint::NewFlow, self.lan(inside), self.uplink, &first);
        if passed.reason != Reason::Learning {
            return passed;
        }
        // What source NAT does to the packet on its way to POSTROUTING.
        let marked = Datagram::parse(&bytes).expect("the engine only set the identity");
        let natted = with_source(&marked, public, payload.as_ref());
        let (passed, bytes) = self.pass(QueuePoint::Learn, 0, self.uplink, &natted);
        if passed.payload.is_some() {
            let identity = Datagram::parse(&bytes).expect("it went on").identity();
            assert_eq!(identity, IDENTITY, "the sender's identification comes back");
        }
        passed
    }

    /// A first packet behind the NAT, of which conntrack says this.
    pub fn behind_nat(&mut self, tuples: Tuples, indev: u32, outdev: u32, bytes: &[u8]) -> Passed {
        self.behind_nat_bytes(tuples, indev, outdev, bytes).0
    }

    /// As [`Bench::behind_nat`], with the packet's bytes as they went on.
    pub fn behind_nat_bytes(
        &mut self,
        tuples: Tuples,
        indev: u32,
        outdev: u32,
        bytes: &[u8],
    ) -> (Passed, Vec<u8>) {
        let next = PacketId(self.next_packet + 1);
        self.engine.handle(self.now, Input::Translated { packet: next, tuples });
        self.drain(next, bytes, &mut None);
        self.pass(QueuePoint::Learn, indev, outdev, bytes)
    }

    /// A server sends to a phone by a flow that the phone opened; the answer is what the phone gets.
    pub fn inn(&mut self, far: &str, inside: &str, payload: impl AsRef<[u8]>) -> Passed {
        let packet = packet(at(far), at(inside), payload.as_ref());
        self.pass(QueuePoint::Signalling, self.uplink, self.lan(at(inside)), &packet).0
    }

    /// Media arrives at a public endpoint from a source that conntrack does not know.
    pub fn latch(&mut self, far: &str, public: SocketAddr) -> Passed {
        let packet = packet(at(far), public, b"\x80\0rtp");
        self.pass(QueuePoint::Latch, self.uplink, 0, &packet).0
    }

    /// A segment of a connection to a public endpoint arrives from a source that conntrack does not know; `flags` are those
    /// of TCP's header (2: SYN, 16: ACK).
    pub fn connect(&mut self, far: &str, public: SocketAddr, flags: u8) -> Passed {
        let packet = segment(at(far), public, flags);
        self.pass(QueuePoint::Latch, self.uplink, 0, &packet).0
    }

    /// Any packet at any point; the answer is its fate, and its bytes as they went on.
    pub fn pass(&mut self, point: QueuePoint, indev: u32, outdev: u32, bytes: &[u8]) -> (Passed, Vec<u8>) {
        self.next_packet += 1;
        let id = PacketId(self.next_packet);
        let mut verdict = None;
        let mut agains = 0;
        loop {
            self.engine.handle(self.now, Input::Packet(PacketIn { id, point, indev, outdev, bytes }));
            let mut again = self.drain(id, bytes, &mut verdict);
            while verdict.is_none() && !again {
                let Some(command) = self.waiting.pop_front() else {
                    panic!("packet {id:?} has neither a verdict nor anything to wait for")
                };
                again = self.answer(&command, id, bytes, &mut verdict);
            }
            if let Some(verdict) = verdict {
                while let Some(command) = self.waiting.pop_front() {
                    self.answer(&command, id, bytes, &mut None);
                }
                return verdict;
            }
            agains += 1;
            assert!(agains < 8, "packet {id:?} is asked for again and again");
        }
    }

    fn answer(
        &mut self,
        command: &Command,
        packet: PacketId,
        bytes: &[u8],
        verdict: &mut Option<(Passed, Vec<u8>)>,
    ) -> bool {
        let outcome = self.execute(&command.op);
        self.engine.handle(self.now, Input::CommandDone { id: command.id, outcome });
        self.drain(packet, bytes, verdict)
    }

    /// Takes all outputs; `true` if the packet is asked for again.
    fn drain(&mut self, packet: PacketId, bytes: &[u8], verdict: &mut Option<(Passed, Vec<u8>)>) -> bool {
        let mut again = false;
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Command(command) => {
                    if self.keeps_records {
                        self.commands.push(command.op.clone());
                    }
                    self.waiting.push_back(command);
                }
                Output::Again(id) => {
                    assert_eq!(id, packet);
                    again = true;
                }
                Output::Event(event) if self.keeps_records => self.events.push(event),
                Output::Event(_) => {}
                Output::Verdict(it) => {
                    assert_eq!(it.packet, packet, "a verdict for a packet that is not there");
                    assert!(verdict.is_none(), "a second verdict");
                    *verdict = Some(applied(bytes, &it, self.keeps_records));
                }
            }
        }
        again
    }

    fn execute(&mut self, op: &Op) -> Outcome {
        let outcome = self.carry_out(op);
        if let (Op::Open { pinholes, .. }, Err(_)) = (op, &outcome) {
            self.never_open.extend(pinholes.iter().map(|it| it.public.0));
        }
        if let (Op::Admit { peers, .. }, Err(_)) = (op, &outcome) {
            self.never_admitted.extend(peers);
        }
        outcome
    }

    fn carry_out(&mut self, op: &Op) -> Outcome {
        if let Some((what, failure)) = self.failures.front()
            && *what == kind(op)
        {
            let failure = *failure;
            self.failures.pop_front();
            return Err(failure);
        }
        let opens = matches!(
            op,
            Op::Open { .. } | Op::Renew { .. } | Op::Admit { .. } | Op::Pin { .. } | Op::Sustain { .. }
        );
        if opens && let Some(Some(failure)) = self.dice.pop_front() {
            return Err(failure);
        }
        let (kernel, never_open, now) = (&mut self.kernel, &mut self.never_open, self.now);
        let never_admitted = &mut self.never_admitted;
        match op {
            Op::Open { pinholes, lifetime } => {
                for Pinhole { transport, inside, public, .. } in pinholes {
                    if *transport == Transport::Tcp {
                        kernel.tcp.insert(public.0);
                    }
                    kernel.until.insert(Opened::Pinhole(public.0), now + *lifetime);
                    let old = kernel.pinholes.insert(public.0, *inside);
                    assert_eq!(old, None, "{public} is given to two");
                }
            }
            Op::Close { pinholes, peers, .. } => {
                for pinhole in pinholes {
                    let gone = kernel.pinholes.remove(&pinhole.public.0);
                    assert_eq!(kernel.tcp.remove(&pinhole.public.0), pinhole.transport == Transport::Tcp);
                    if gone.is_none() && never_open.remove(&pinhole.public.0) {
                        continue;
                    }
                    assert_eq!(gone, Some(pinhole.inside), "{} was not open", pinhole.public);
                    kernel.until.remove(&Opened::Pinhole(pinhole.public.0));
                }
                for peer in peers {
                    let gone = kernel.peers.remove(peer) || never_admitted.remove(peer);
                    assert!(gone, "{peer:?} was not admitted");
                    kernel.until.remove(&Opened::Peer(*peer));
                }
            }
            Op::Admit { peers, lifetime } => {
                for peer in peers {
                    kernel.until.insert(Opened::Peer(*peer), now + *lifetime);
                    assert!(kernel.pinholes.contains_key(&peer.public.0), "{peer:?} is admitted to nothing");
                    assert_eq!(kernel.tcp.contains(&peer.public.0), peer.transport == Transport::Tcp);
                    assert!(kernel.peers.insert(*peer), "{peer:?} is admitted twice");
                }
            }
            Op::Dismiss { peers } => {
                for peer in peers {
                    let gone = kernel.peers.remove(peer) || never_admitted.remove(peer);
                    assert!(gone, "{peer:?} was not admitted");
                    kernel.until.remove(&Opened::Peer(*peer));
                }
            }
            Op::Pin { flow, .. } => {
                let routed = flow.public.0 == flow.inside.0;
                let learned = self.stun.contains(&(flow.inside, flow.public));
                let known = routed || learned || kernel.pinholes.contains_key(&flow.public.0);
                assert!(known, "{flow:?} is pinned to nothing");
                if !kernel.pins.contains(flow) {
                    kernel.pins.push(*flow);
                }
            }
            Op::Unpin { flow } => {
                let Some(index) = kernel.pins.iter().position(|pin| pin == flow) else {
                    return Err(Failure::NotFound);
                };
                kernel.pins.remove(index);
            }
            Op::Renew { pinholes, peers, lifetime } => {
                if self.forgets {
                    kernel.pinholes.extend(pinholes.iter().map(|it| (it.public.0, it.inside)));
                    kernel.peers.extend(peers);
                }
                assert!(pinholes.iter().all(|it| kernel.pinholes.contains_key(&it.public.0)));
                assert!(peers.iter().all(|it| kernel.peers.contains(it)));
                let pinholes = pinholes.iter().map(|it| Opened::Pinhole(it.public.0));
                let renewed = pinholes.chain(peers.iter().copied().map(Opened::Peer));
                kernel.until.extend(renewed.map(|it| (it, now + *lifetime)));
            }
            Op::Expect { public, .. } => {
                for it in public {
                    assert!(kernel.pinholes.contains_key(&it.0), "{it:?} is expected at nothing");
                    kernel.expected.insert(it.0);
                }
            }
            Op::Unexpect { public, .. } => {
                for it in public {
                    assert!(kernel.expected.remove(&it.0), "{it:?} was not expected");
                }
            }
            Op::Follow { .. } | Op::Unfollow { .. } | Op::Reset { .. } => {}
            Op::Purge { address } => {
                let ours = |it: &PinnedFlow| it.public.0.ip() == *address;
                assert!(!kernel.pins.iter().any(ours), "what is known is taken back one by one");
            }
            Op::Reroute { flow, public, from, to } => {
                let holds = |interface: &u32| self.addresses.contains(&(*interface, public.0.ip()));
                if !holds(from) || holds(to) {
                    return Err(Failure::NotFound);
                }
                assert_eq!(self.nat.remove(&(flow.inside.0, flow.far)), Some(public.0));
                self.tracked.remove(&(flow.inside.0, flow.far));
            }
            Op::Sustain { flow, lifetime } if self.keeps_records => kernel.sustained.push((*flow, *lifetime)),
            Op::Sustain { .. } => {}
            Op::Recognise { public, host } => {
                let mut stun =
                    self.stun.iter().filter(|(inside, it)| *it == *public && inside.0.ip() == *host);
                let found = stun.next().map(|(inside, public)| Tuples {
                    transport: Transport::Udp,
                    orig_source: inside.0,
                    orig_destination: at("22.33.44.23:3478"),
                    reply_source: at("22.33.44.23:3478"),
                    reply_destination: public.0,
                });
                return Ok(Reply::Found(found));
            }
            Op::Lookup { source, destination, .. } => {
                let found = self.lookup(*source, *destination).or_else(|| self.pinned(*source, *destination));
                return Ok(Reply::Found(found));
            }
        }
        Ok(Reply::Done)
    }

    fn lookup(&self, source: SocketAddr, destination: SocketAddr) -> Option<Tuples> {
        [(source, destination), (destination, source)].into_iter().find_map(|(inside, far)| {
            self.tracked.contains(&(inside, far)).then(|| Tuples {
                transport: Transport::Udp,
                orig_source: inside,
                orig_destination: far,
                reply_source: far,
                reply_destination: self.nat[&(inside, far)],
            })
        })
    }

    fn pinned(&self, source: SocketAddr, destination: SocketAddr) -> Option<Tuples> {
        let is_asked = |pin: &&PinnedFlow| !self.mute && pin.inside.0 == source && pin.far == destination;
        let pin = self.kernel.pins.iter().find(is_asked)?;
        Some(Tuples {
            transport: Transport::Udp,
            orig_source: source,
            orig_destination: destination,
            reply_source: destination,
            reply_destination: pin.public.0,
        })
    }

    /// Time passes; what falls due happens when it is due.
    pub fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        while let Some(due) = self.engine.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.tick();
        }
        self.now = end;
        self.tick();
    }

    fn tick(&mut self) {
        self.engine.handle(self.now, Input::Timeout);
        self.settle();
    }

    /// Carries out what the engine asks for, until it asks for nothing more.
    fn settle(&mut self) {
        let nobody = PacketId(0);
        loop {
            assert!(!self.drain(nobody, &[], &mut None));
            let Some(command) = self.waiting.pop_front() else { break };
            let outcome = self.execute(&command.op);
            self.engine.handle(self.now, Input::CommandDone { id: command.id, outcome });
        }
    }

    /// The ruleset was flushed and is in place again.
    pub fn reload(&mut self) {
        self.engine.handle(self.now, Input::RulesetReloaded);
        self.tick();
    }

    /// conntrack forgets a flow.
    pub fn destroy(&mut self, inside: &str, far: &str) {
        let (inside, far) = (at(inside), at(far));
        let reply_destination = self.nat.remove(&(inside, far)).expect("the flow was never there");
        self.tracked.remove(&(inside, far));
        let tuples = Tuples {
            transport: Transport::Udp,
            orig_source: inside,
            orig_destination: far,
            reply_source: far,
            reply_destination,
        };
        self.engine.handle(self.now, Input::FlowDestroyed(tuples));
        self.drain(PacketId(0), &[], &mut None);
    }

    /// The public endpoint of a flow, if it has one.
    pub fn nat_of(&self, inside: &str, far: &str) -> Option<SocketAddr> {
        self.nat.get(&(at(inside), at(far))).copied()
    }

    /// conntrack forgets a flow, if it has it.
    pub fn forget(&mut self, inside: &str, far: &str) {
        if self.tracked.contains(&(at(inside), at(far))) {
            self.destroy(inside, far);
        }
    }

    /// Something happens that is no packet.
    pub fn input(&mut self, input: Input<'_>) {
        self.engine.handle(self.now, input);
        self.tick();
    }

    /// How many packets there have been; one may be seen at two points.
    pub fn packets_seen(&self) -> u64 {
        self.next_packet
    }

    /// All flows get another public address, as when the provider gives the router a new one.
    pub fn move_to(&mut self, public: &str) {
        self.public = public.parse().expect("an address");
        for (inside, far) in self.tracked.clone() {
            self.destroy(&inside.to_string(), &far.to_string());
        }
        self.nat.clear();
    }

    /// The router loses an address; conntrack forgets what masquerade made of it, by itself.
    pub fn lose(&mut self, address: &str) {
        let address: IpAddr = address.parse().expect("an address");
        self.engine.handle(self.now, Input::AddressGone(address));
        self.settle();
        let gone: Vec<_> =
            self.nat.iter().filter(|(_, public)| public.ip() == address).map(|(it, _)| *it).collect();
        for (inside, far) in gone {
            self.destroy(&inside.to_string(), &far.to_string());
        }
    }

    /// The router has another address from now on.
    pub fn renumber(&mut self, address: &str) {
        self.public = address.parse().expect("an address");
    }

    /// The public endpoint of an inside media endpoint.
    #[track_caller]
    pub fn binding(&self, inside: &str) -> SocketAddr {
        let inside = Inside(at(inside));
        let mut all = self.kernel.pinholes.iter().filter(|(_, it)| **it == inside);
        let (public, _) = all.next().unwrap_or_else(|| panic!("{inside} has no binding: {:?}", self.kernel));
        assert_eq!(all.next(), None, "{inside} has two bindings");
        *public
    }

    /// The pinned flow `inside` → `far` stands.
    #[track_caller]
    pub fn assert_pinned(&self, inside: &str, far: &str) {
        let (inside, far) = (Inside(at(inside)), at(far));
        let pin = self.kernel.pins.iter().find(|pin| pin.inside == inside && pin.far == far);
        let pin = pin.unwrap_or_else(|| panic!("{inside} → {far} is not pinned: {:?}", self.kernel.pins));
        assert_eq!(self.kernel.pinholes.get(&pin.public.0), Some(&inside));
    }

    /// [`Bench::assert_pinned`], on a condition.
    #[track_caller]
    pub fn assert_pinned_if(&self, condition: bool, inside: &str, far: &str) {
        if condition {
            self.assert_pinned(inside, far);
        }
    }

    /// A media flow falls silent for so long that conntrack forgets it.
    #[track_caller]
    pub fn media_dies(&mut self, inside: &str, far: &str) {
        let (inside, far) = (Inside(at(inside)), at(far));
        let index = self.kernel.pins.iter().position(|pin| pin.inside == inside && pin.far == far);
        let pin = self.kernel.pins.remove(index.expect("it is pinned"));
        let tuples = Tuples {
            transport: Transport::Udp,
            orig_source: inside.0,
            orig_destination: far,
            reply_source: far,
            reply_destination: pin.public.0,
        };
        self.engine.handle(self.now, Input::FlowDestroyed(tuples));
        self.drain(PacketId(0), &[], &mut None);
    }

    /// What is open has not been closed by the kernel itself.
    #[track_caller]
    pub fn assert_renewed(&self) {
        for (what, until) in &self.kernel.until {
            assert!(*until > self.now, "{what:?} died of old age {:?} ago", self.now - *until);
        }
    }

    /// Nothing is open, now.
    #[track_caller]
    pub fn assert_all_closed(&self) {
        assert!(self.kernel.expected.is_empty(), "{:?}", self.kernel.expected);
        assert_eq!(self.kernel.pinholes, BTreeMap::new());
        assert_eq!(self.kernel.tcp, BTreeSet::new());
        assert_eq!(self.kernel.peers, BTreeSet::new());
        assert_eq!(self.kernel.pins, []);
        let sizes = self.engine.sizes();
        assert_eq!((sizes.calls, sizes.bindings, sizes.parked), (0, 0, 0), "{sizes:?}");
    }

    /// How often a reason was given.
    pub fn count(&self, reason: Reason) -> u64 {
        self.engine.stats().verdicts(reason)
    }
}

/// The identification of every packet that [`packet`] makes.
pub const IDENTITY: u32 = 0x5a5a;

/// A UDP packet.
pub fn packet(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    use etherparse::{IpHeaders, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, PacketBuilder};
    let builder = match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header =
                Ipv4Header::new(0, 64, IpNumber::UDP, from.octets(), to.octets()).expect("small");
            header.identification = IDENTITY as u16;
            header.dont_fragment = true;
            PacketBuilder::ip(IpHeaders::Ipv4(header, Default::default()))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header = Ipv6Header {
                flow_label: Ipv6FlowLabel::try_new(IDENTITY).expect("20 bits"),
                hop_limit: 64,
                next_header: IpNumber::UDP,
                source: from.octets(),
                destination: to.octets(),
                ..Default::default()
            };
            PacketBuilder::ip(IpHeaders::Ipv6(header, Default::default()))
        }
        _ => panic!("{source} and {destination} are of two families"),
    };
    let builder = builder.udp(source.port(), destination.port());
    let mut bytes = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut bytes, payload).expect("fits");
    bytes
}

/// An empty TCP segment with these flags.
pub fn segment(source: SocketAddr, destination: SocketAddr, flags: u8) -> Vec<u8> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (source.ip(), destination.ip()) else { panic!("IPv4 only") };
    let builder = etherparse::PacketBuilder::ipv4(from.octets(), to.octets(), 64).tcp(
        source.port(),
        destination.port(),
        1000,
        65_535,
    );
    let builder = if flags & 2 != 0 { builder.syn() } else { builder };
    let builder = if flags & 16 != 0 { builder.ack(1) } else { builder };
    let mut bytes = Vec::new();
    builder.write(&mut bytes, &[]).expect("fits");
    bytes
}

/// The same packet with another source, as source NAT makes it; its identity stays.
pub fn with_source(datagram: &Datagram<'_>, source: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let fresh = packet(source, datagram.destination(), payload);
    let identity = Identity { set: Some(datagram.identity()), spare: 1 };
    let mut bytes = Vec::new();
    let copy = |old: &[u8], out: &mut Vec<u8>| out.extend_from_slice(old);
    let fresh = Datagram::parse(&fresh).expect("just made");
    fresh.rebuild(copy, identity, 65535, &mut bytes).expect("same size");
    bytes
}

fn applied(bytes: &[u8], verdict: &Verdict<'_>, checks: bool) -> (Passed, Vec<u8>) {
    let Verdict { action, port, reason, .. } = verdict;
    let reason = *reason;
    let passed = |payload| Passed { payload, reason, rules: Vec::new(), edits: Vec::new() };
    let Ok(datagram) = Datagram::parse(bytes) else {
        if *action == Action::Drop {
            return (passed(None), Vec::new());
        }
        assert_eq!(action, &Action::Accept { identity: None }, "what is not understood passes");
        return (passed(None), bytes.to_vec());
    };
    let datagram = port.map_or(datagram, |port| datagram.to_port(port));
    let mut out = Vec::new();
    match action {
        Action::Replace { .. } => panic!("only TCP is replaced"),
        Action::Drop => (passed(None), Vec::new()),
        Action::Accept { identity } => {
            let identity = Identity { set: *identity, spare: 1 };
            let copy = |old: &[u8], out: &mut Vec<u8>| out.extend_from_slice(old);
            datagram.rebuild(copy, identity, 1500, &mut out).expect("same size");
            (passed(Some(datagram.payload().to_vec())), out)
        }
        Action::Rewrite { edits, identity, spare_identity } => {
            let identity = Identity { set: *identity, spare: *spare_identity };
            datagram.rebuild(|old, out| edits.apply(old, out), identity, 1500, &mut out).expect("fits");
            if checks {
                naive::assert_packet(&out);
            }
            let payload = Datagram::parse(&out).expect("valid").payload().to_vec();
            assert_ne!(payload, datagram.payload(), "a rewrite that changes nothing");
            let range = |span: sipalg::span::Span| span.start as usize..span.end as usize;
            let listed: Vec<_> =
                edits.iter().map(|edit| (range(edit.span), edits.text(edit).to_vec())).collect();
            if checks {
                naive::assert_untouched_outside(datagram.payload(), &listed, &payload);
                naive::assert_length_kept(datagram.payload(), &payload);
            }
            let rules = edits.iter().map(|edit| edit.rule.name()).collect();
            (Passed { payload: Some(payload), reason, rules, edits: listed }, out)
        }
    }
}

/// The endpoint of a flow key, for short.
pub fn outside(text: &str) -> Outside {
    Outside(at(text))
}
