//! What stands around the engine while it is fuzzed: phones, servers, a NAT, a kernel, a clock, and the oracles.
//!
//! The engine's contract is kept to the letter: one input, then all outputs. Commands are answered in order, at once or
//! when the script says so. Every verdict is checked where it falls; [`World::end`] checks what must be gone.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use etherparse::{IpHeaders, IpNumber, Ipv4Header, Ipv6Header, PacketBuilder, PacketBuilderStep};

use super::packet::assert_rebuilt;
use crate::alg::{
    Action, Command, Edits, Engine, Failure, Input, Op, Outcome, Output, PacketId, PacketIn, Peer,
    PinnedFlow, Policy, QueuePoint, Reason, Reply, Transport, Tuples, guard,
};
use crate::packet::{Datagram, Identity, Segment};
use crate::sip::{HeaderName, Message, body};

/// Interface index of the LAN.
const LAN: u32 = 2;
/// Interface index of the uplink.
const UPLINK: u32 = 3;
const MTU: usize = 1500;
/// The phone knows what the NAT makes of ports from here on, which are never of our pool.
const STUN_PORTS: u16 = 40_000;
/// How often one packet may be asked for: a port that is taken is tried 16 times, and each stage waits once.
const MOST_AGAINS: u32 = 64;

/// The engine and its surroundings.
pub(super) struct World {
    engine: Engine,
    policy: Policy,
    pub(super) now: Instant,
    kernel: Kernel,
    /// The NAT: inside and far end to public.
    nat: BTreeMap<(SocketAddr, SocketAddr), SocketAddr>,
    has_nat: bool,
    next_port: u16,
    /// Packets without a verdict.
    pending: BTreeMap<PacketId, Pending>,
    waiting: VecDeque<Command>,
    again: VecDeque<PacketId>,
    /// Whether commands are answered at once.
    pub(super) answers: bool,
    /// What becomes of the next commands, one each; when it is used up all goes well.
    pub(super) fates: VecDeque<Option<Failure>>,
    /// Whether something ever failed, or died of old age in the kernel.
    troubled: bool,
    last_packet: u64,
    /// Packets that have their verdict, by the name of the first one on their way.
    passed: BTreeMap<PacketId, Passed>,
    transcript: DefaultHasher,
}

/// The same instant in every run, that two runs of a fuzzer may be compared: nothing else here depends on the clock.
pub(super) fn first_instant() -> Instant {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let earliest = || {
        let mut at = Instant::now();
        let steps = (0..64).rev().map(|bit| Duration::from_secs(1 << bit));
        for step in steps.chain((0..30).rev().map(|bit| Duration::from_nanos(1 << bit))) {
            at = at.checked_sub(step).unwrap_or(at);
        }
        // Far from the end of what can be told.
        at + Duration::from_secs(1 << 62)
    };
    *FIRST.get_or_init(earliest)
}

/// A packet that has its verdict.
#[derive(Clone, Debug)]
pub(super) struct Passed {
    pub(super) reason: Reason,
    /// The payload that went on; `None`: dropped.
    pub(super) payload: Option<Vec<u8>>,
}

#[derive(Clone)]
struct Pending {
    point: QueuePoint,
    devices: (u32, u32),
    bytes: Vec<u8>,
    /// The packet that came; behind the NAT it has another name.
    root: PacketId,
    /// The public source that the NAT will give it, if it is the first of its flow.
    public: Option<SocketAddr>,
    agains: u32,
}

/// What the simulated kernel has.
#[derive(Default)]
struct Kernel {
    pinholes: BTreeMap<SocketAddr, (Transport, Instant)>,
    peers: BTreeMap<Peer, Instant>,
    pins: BTreeSet<(SocketAddr, SocketAddr, SocketAddr)>,
    media_is_dead: bool,
}

impl World {
    /// Empty tables, and a NAT if `has_nat`.
    pub(super) fn new(policy: Policy, has_nat: bool) -> Self {
        Self {
            engine: Engine::new(policy.clone()),
            policy,
            now: first_instant(),
            kernel: Kernel::default(),
            nat: BTreeMap::new(),
            has_nat,
            next_port: 17_000,
            pending: BTreeMap::new(),
            waiting: VecDeque::new(),
            again: VecDeque::new(),
            answers: true,
            fates: VecDeque::new(),
            troubled: false,
            last_packet: 0,
            passed: BTreeMap::new(),
            transcript: DefaultHasher::new(),
        }
    }

    /// A phone sends to a server. The answer is what became of it, unless it has to wait.
    pub(super) fn send(&mut self, inside: SocketAddr, far: SocketAddr, payload: &[u8]) -> Option<Passed> {
        let first = !self.nat.contains_key(&(inside, far));
        let public = if self.has_nat {
            self.next_port += u16::from(first);
            let ip = if inside.is_ipv4() { "22.33.44.55" } else { "2001:db8:ffff::55" };
            SocketAddr::new(ip.parse().expect("a literal"), self.next_port)
        } else {
            inside
        };
        let public = *self.nat.entry((inside, far)).or_insert(public);
        let point = if first { QueuePoint::NewFlow } else { QueuePoint::Signalling };
        let id = self.queue(point, (LAN, UPLINK), datagram(inside, far, payload)?, first.then_some(public));
        self.passed.remove(&id)
    }

    /// A server sends to a phone by a flow that the phone opened.
    pub(super) fn receive(&mut self, inside: SocketAddr, far: SocketAddr, payload: &[u8]) -> Option<Passed> {
        let id = self.queue(QueuePoint::Signalling, (UPLINK, LAN), datagram(far, inside, payload)?, None);
        self.passed.remove(&id)
    }

    /// Any packet at any point.
    pub(super) fn packet(&mut self, point: QueuePoint, devices: (u32, u32), bytes: &[u8]) {
        if Segment::parse(bytes).is_ok() {
            return; // TCP has a target of its own
        }
        self.queue(point, devices, bytes.to_vec(), None);
    }

    /// Media comes from `far` to the `index`-th endpoint that is open, or to one that is not ours.
    pub(super) fn media(&mut self, far: SocketAddr, index: usize) {
        let stranger = SocketAddr::new([22, 33, 44, 55].into(), 16_384);
        let count = self.kernel.pinholes.len().max(1);
        let open = self.kernel.pinholes.iter().nth(index % count).map(|(public, (it, _))| (*public, *it));
        let (public, transport) = open.unwrap_or((stranger, Transport::Udp));
        let packet = match transport {
            Transport::Udp => datagram(far, public, b"\x80\0rtp"),
            Transport::Tcp => first_segment(far, public),
        };
        if let Some(bytes) = packet {
            self.queue(QueuePoint::Latch, (UPLINK, 0), bytes, None);
        }
    }

    /// conntrack forgets a flow.
    pub(super) fn destroy(&mut self, inside: SocketAddr, far: SocketAddr) {
        if let Some(public) = self.nat.remove(&(inside, far)) {
            self.input(Input::FlowDestroyed(tuples(inside, far, public)));
            self.settle();
        }
    }

    /// The administrator flushes all rulesets.
    pub(super) fn reload(&mut self) {
        self.input(Input::RulesetReloaded);
        self.settle();
    }

    /// Time passes; what falls due happens when it is due.
    pub(super) fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        while let Some(due) = self.engine.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.tick();
            let next = self.engine.poll_timeout();
            assert!(next.is_none_or(|next| next > self.now), "a deadline that does not move");
        }
        self.now = end;
        self.tick();
    }

    fn tick(&mut self) {
        self.input(Input::Timeout);
        self.settle();
        let now = self.now;
        let before = (self.kernel.pinholes.len(), self.kernel.peers.len());
        self.kernel.pinholes.retain(|_, (_, until)| *until > now);
        self.kernel.peers.retain(|_, until| *until > now);
        if before != (self.kernel.pinholes.len(), self.kernel.peers.len()) {
            // A renewal that waits for its answer is no fault of the engine.
            self.troubled |= !self.waiting.is_empty();
            assert!(self.troubled, "the kernel closed what the engine still holds");
        }
    }

    /// Answers the oldest command that waits.
    pub(super) fn answer(&mut self) {
        if let Some(command) = self.waiting.pop_front() {
            let outcome = self.execute(&command.op);
            self.input(Input::CommandDone { id: command.id, outcome });
            self.hand_in_again();
        }
    }

    /// The public endpoint of a flow, if it has one.
    pub(super) fn public(&self, inside: SocketAddr, far: SocketAddr) -> Option<SocketAddr> {
        self.nat.get(&(inside, far)).copied()
    }

    /// Whether nothing waits and nothing ever went wrong.
    pub(super) fn is_calm(&self) -> bool {
        self.answers && !self.troubled && self.pending.is_empty() && self.waiting.is_empty()
    }

    /// All is answered, all media has stopped, and much time passes: nothing may be left. The answer stands for all
    /// outputs there were.
    pub(super) fn end(mut self) -> u64 {
        self.answers = true;
        self.fates.clear();
        self.kernel.media_is_dead = true;
        self.settle();
        assert!(self.pending.is_empty(), "packets without a verdict");
        for _ in 0..30 {
            self.advance(Duration::from_secs(24 * 3600));
        }
        let sizes = self.engine.sizes();
        assert_eq!(sizes, Default::default(), "something lives for ever");
        if !self.troubled {
            assert!(self.kernel.pinholes.is_empty() && self.kernel.peers.is_empty());
            assert_eq!(self.kernel.pins, BTreeSet::new(), "a pinned flow that nobody took back");
        }
        self.transcript.finish()
    }

    fn queue(
        &mut self,
        point: QueuePoint,
        devices: (u32, u32),
        bytes: Vec<u8>,
        public: Option<SocketAddr>,
    ) -> PacketId {
        let id = PacketId(self.last_packet + 1);
        self.queue_as(id, point, devices, bytes, public);
        self.settle();
        id
    }

    fn queue_as(
        &mut self,
        root: PacketId,
        point: QueuePoint,
        devices: (u32, u32),
        bytes: Vec<u8>,
        public: Option<SocketAddr>,
    ) {
        self.last_packet += 1;
        let id = PacketId(self.last_packet);
        self.pending.insert(id, Pending { point, devices, bytes, root, public, agains: 0 });
        self.hand_in(id);
    }

    fn hand_in(&mut self, id: PacketId) {
        let Pending { point, devices: (indev, outdev), bytes, .. } =
            self.pending.get(&id).expect("only packets without a verdict are asked for").clone();
        self.input(Input::Packet(PacketIn { id, point, indev, outdev, bytes: &bytes }));
    }

    fn hand_in_again(&mut self) {
        while let Some(id) = self.again.pop_front() {
            let pending = self.pending.get_mut(&id).expect("it has no verdict yet");
            pending.agains += 1;
            assert!(pending.agains < MOST_AGAINS, "a packet is asked for again and again");
            self.hand_in(id);
        }
    }

    fn settle(&mut self) {
        self.hand_in_again();
        while self.answers && !self.waiting.is_empty() {
            self.answer();
        }
        let (sizes, limits) = (self.engine.sizes(), self.policy.limits);
        assert!(sizes.flows <= limits.flows && sizes.calls <= limits.calls, "{sizes:?}");
        assert!(sizes.bindings <= limits.bindings && sizes.parked <= limits.parked, "{sizes:?}");
        assert!(sizes.transactions <= limits.transactions && sizes.registrations <= limits.registrations);
        assert!(!self.answers || sizes.parked == 0, "a packet waits for nothing");
    }

    /// One input, then all outputs.
    fn input(&mut self, input: Input<'_>) {
        self.engine.handle(self.now, input);
        let mut verdicts = Vec::new();
        while let Some(output) = self.engine.poll_output() {
            self.transcript.write(format!("{output:?}").as_bytes());
            match output {
                Output::Command(command) => self.waiting.push_back(command),
                Output::Again(id) => self.again.push_back(id),
                Output::Event(_) => {}
                Output::Verdict(verdict) => {
                    let action = match verdict.action {
                        Action::Accept { identity } => Decision::Accept(identity),
                        Action::Drop | Action::Replace { .. } => Decision::Drop,
                        Action::Rewrite { edits, identity, spare_identity } => {
                            let identity = Identity { set: identity, spare: spare_identity };
                            Decision::Rewrite(edits.clone(), identity)
                        }
                    };
                    verdicts.push((verdict.packet, verdict.reason, action));
                }
            }
        }
        for (id, reason, decision) in verdicts {
            self.decided(id, reason, &decision);
        }
    }

    fn decided(&mut self, id: PacketId, reason: Reason, decision: &Decision) {
        let pending = self.pending.remove(&id).expect("one verdict for each packet");
        let datagram = Datagram::parse(&pending.bytes);
        let payload = match (decision, &datagram) {
            (Decision::Drop, _) => None,
            (Decision::Accept(_), Ok(datagram)) => Some(datagram.payload().to_vec()),
            (Decision::Accept(identity), Err(_)) => {
                assert_eq!(*identity, None, "what is not understood passes as it is");
                None
            }
            (Decision::Rewrite(edits, identity), Ok(datagram)) => {
                assert_ne!(pending.point, QueuePoint::NewFlow);
                assert_eq!(reason, Reason::Rewritten);
                Some(rewritten(&pending.bytes, datagram, edits, *identity))
            }
            (Decision::Rewrite(..), Err(_)) => panic!("what is not understood is not rewritten"),
        };
        if reason == Reason::Learning
            && let (Decision::Accept(Some(token)), Some(public), Ok(datagram)) =
                (decision, pending.public, &datagram)
        {
            let bytes = after_nat(datagram, public, *token);
            self.queue_as(pending.root, QueuePoint::Learn, (0, pending.devices.1), bytes, None);
            return;
        }
        self.passed.insert(pending.root, Passed { reason, payload });
    }

    fn execute(&mut self, op: &Op) -> Outcome {
        if let Some(Some(failure)) = self.fates.pop_front() {
            self.troubled = true;
            return Err(failure);
        }
        let (now, calm) = (self.now, !self.troubled);
        let kernel = &mut self.kernel;
        match op {
            Op::Follow { .. } | Op::Unfollow { .. } | Op::Reset { .. } => {}
            Op::Open { pinholes, lifetime } => {
                for it in pinholes {
                    let old = kernel.pinholes.insert(it.public.0, (it.transport, now + *lifetime));
                    assert!(guard::may_open(&self.policy, it.inside.0), "{} gets a pinhole", it.inside);
                    assert!(old.is_none() || !calm, "{} is given to two", it.public);
                }
            }
            Op::Close { pinholes, peers, .. } => {
                for it in pinholes {
                    let gone = kernel.pinholes.remove(&it.public.0);
                    assert!(gone.is_some() || !calm, "{} was not open", it.public);
                }
                for peer in peers {
                    kernel.peers.remove(peer);
                }
            }
            Op::Admit { peers, lifetime } => {
                for peer in peers {
                    assert!(kernel.pinholes.contains_key(&peer.public.0) || !calm, "admitted to nothing");
                    assert!(peer.transport == Transport::Udp || peer.far.is_some(), "anybody may connect");
                    kernel.peers.insert(*peer, now + *lifetime);
                }
            }
            Op::Dismiss { peers } => peers.iter().for_each(|peer| {
                kernel.peers.remove(peer);
            }),
            Op::Pin { flow, .. } => {
                // Where there is no NAT, the phone's endpoint needs no pinhole to be the public one.
                let is_routed = !self.has_nat && flow.public.0 == flow.inside.0;
                let is_known = self.has_nat
                    && flow.public.0.port() == flow.inside.0.port()
                    && flow.public.0.port() >= STUN_PORTS;
                let is_open = kernel.pinholes.contains_key(&flow.public.0);
                assert!(is_routed || is_known || is_open || !calm, "pinned to nothing");
                kernel.pins.insert(ends(flow));
            }
            Op::Unpin { flow } => {
                if !kernel.pins.remove(&ends(flow)) {
                    return Err(Failure::NotFound);
                }
            }
            Op::Renew { pinholes, peers, lifetime } => {
                for it in pinholes {
                    kernel.pinholes.insert(it.public.0, (it.transport, now + *lifetime));
                }
                kernel.peers.extend(peers.iter().map(|peer| (*peer, now + *lifetime)));
            }
            Op::Reroute { .. } => return Err(Failure::NotFound),
            Op::Sustain { .. } | Op::Purge { .. } | Op::Expect { .. } | Op::Unexpect { .. } => {}
            Op::Recognise { public, host } => {
                return Ok(Reply::Found(self.recognise(public.0, *host)));
            }
            Op::Lookup { source, destination, .. } => {
                return Ok(Reply::Found(self.lookup(*source, *destination)));
            }
        }
        Ok(Reply::Done)
    }

    /// A phone asked a STUN server from every port from 40000 on, and got it outside as well.
    fn recognise(&self, public: SocketAddr, host: IpAddr) -> Option<Tuples> {
        let known = self.has_nat && public.port() >= STUN_PORTS && public.is_ipv4() == host.is_ipv4();
        let server = SocketAddr::new([22, 33, 44, 23].into(), 3478);
        known.then(|| tuples(SocketAddr::new(host, public.port()), server, public))
    }

    fn lookup(&self, source: SocketAddr, destination: SocketAddr) -> Option<Tuples> {
        let flow = [(source, destination), (destination, source)]
            .into_iter()
            .find_map(|(inside, far)| Some(tuples(inside, far, *self.nat.get(&(inside, far))?)));
        let alive = self.kernel.pins.iter().filter(|_| !self.kernel.media_is_dead);
        flow.or_else(|| {
            let mut pins = alive.filter(|(inside, far, _)| (*inside, *far) == (source, destination));
            pins.next().map(|(inside, far, public)| tuples(*inside, *far, *public))
        })
    }
}

/// A verdict's action that has left the engine.
enum Decision {
    Accept(Option<u32>),
    Drop,
    Rewrite(Edits, Identity),
}

/// The payload after `edits`, of which everything is checked that can be told from the two texts.
fn rewritten(bytes: &[u8], datagram: &Datagram<'_>, edits: &Edits, identity: Identity) -> Vec<u8> {
    let old = datagram.payload();
    let mut out = Vec::new();
    datagram.rebuild(|old, out| edits.apply(old, out), identity, MTU, &mut out).expect("it fits");
    let new = Datagram::parse(&out).expect("a datagram again").payload().to_vec();
    assert_rebuilt(bytes, datagram, &out, &new, identity);
    assert_ne!(new, old, "a rewrite that changes nothing");

    // What no edit names is there, in order, and between it stands what the edits say.
    let (mut at, mut seen) = (0, 0);
    for edit in edits.iter() {
        let range = edit.span.range();
        let kept = old.get(at..range.start).expect("edits are in order and in bounds");
        assert_eq!(new.get(seen..seen + kept.len()), Some(kept));
        let text = edits.text(edit);
        assert_eq!(new.get(seen + kept.len()..seen + kept.len() + text.len()), Some(text));
        (at, seen) = (range.end, seen + kept.len() + text.len());
    }
    assert_eq!(new.get(seen..), old.get(at..));

    let read = |bytes: &[u8]| {
        let mut message = Message::default();
        message.parse(bytes).expect("only messages are rewritten, into messages");
        message
    };
    let (before, after) = (read(old), read(&new));
    let names = |it: &Message| it.headers().iter().map(|header| header.name).collect::<Vec<_>>();
    assert_eq!(names(&before), names(&after));
    for (was, is) in before.headers().iter().zip(after.headers()) {
        use HeaderName::{CSeq, CallId, From, Identity, MaxForwards, To};
        if matches!(was.name, From | To | CallId | CSeq | MaxForwards | Identity) {
            assert_eq!(was.value.of(old), is.value.of(&new), "{:?} is never touched", was.name);
        }
    }
    // What Content-Length leaves over of the datagram stays left over.
    assert_eq!(
        before.body().len() - body::extent(old, &before).len(),
        after.body().len() - body::extent(&new, &after).len()
    );
    new
}

fn ends(flow: &PinnedFlow) -> (SocketAddr, SocketAddr, SocketAddr) {
    (flow.inside.0, flow.far, flow.public.0)
}

fn tuples(inside: SocketAddr, far: SocketAddr, public: SocketAddr) -> Tuples {
    Tuples {
        transport: Transport::Udp,
        orig_source: inside,
        orig_destination: far,
        reply_source: far,
        reply_destination: public,
    }
}

/// A UDP packet; `None`: too long, or two families.
fn datagram(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Option<Vec<u8>> {
    let builder = between(source, destination)?;
    let mut bytes = Vec::new();
    builder.udp(source.port(), destination.port()).write(&mut bytes, payload).ok()?;
    Some(bytes)
}

/// The segment that opens a connection.
fn first_segment(source: SocketAddr, destination: SocketAddr) -> Option<Vec<u8>> {
    let builder = between(source, destination)?.tcp(source.port(), destination.port(), 1000, 65_535);
    let mut bytes = Vec::new();
    builder.syn().write(&mut bytes, &[]).ok()?;
    Some(bytes)
}

fn between(source: SocketAddr, destination: SocketAddr) -> Option<PacketBuilderStep<IpHeaders>> {
    Some(match (source, destination) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => {
            let mut header =
                Ipv4Header::new(0, 64, IpNumber::UDP, from.ip().octets(), to.ip().octets()).ok()?;
            header.identification = 0x5a5a;
            header.dont_fragment = true;
            PacketBuilder::ip(IpHeaders::Ipv4(header, Default::default()))
        }
        (SocketAddr::V6(from), SocketAddr::V6(to)) => {
            let header = Ipv6Header {
                hop_limit: 64,
                next_header: IpNumber::UDP,
                source: from.ip().octets(),
                destination: to.ip().octets(),
                ..Default::default()
            };
            PacketBuilder::ip(IpHeaders::Ipv6(header, Default::default()))
        }
        _ => return None,
    })
}

/// What source NAT makes of a packet that has been given a token.
fn after_nat(packet: &Datagram<'_>, public: SocketAddr, token: u32) -> Vec<u8> {
    let fresh = datagram(public, packet.destination(), packet.payload()).expect("as long as before");
    let mut bytes = Vec::new();
    Datagram::parse(&fresh).expect("just made").restamp(token, &mut bytes);
    bytes
}
