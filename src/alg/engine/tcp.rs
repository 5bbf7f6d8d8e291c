//! TCP: which connection a segment belongs to, and what becomes of it.
//!
//! A connection is known from its SYN or not at all. The SYN teaches its NAT mapping as the first datagram of a flow does;
//! the kernel is told to hand over what comes from outside ([`Op::Follow`]) before the SYN's last verdict, or that of the
//! SYN/ACK where a connection begins outside. From then on each segment goes through its [`Half`]: what it brings is read,
//! message by message, by the same code that reads datagrams, and it goes on, is held, or is turned into a probe.
//!
//! A held segment has no verdict; it is asked for with [`Output::Again`](super::super::io::Output) and handled as if it
//! had just come. Nothing is ever held for longer than [`Policy::tcp_patience`](super::super::policy::Policy): then the
//! connection is let go, which means that from there on only its numbers are translated.

use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::collections::VecDeque;

use super::super::command::{CommandId, Failure, FlowKey, Line, Op, Transport};
use super::super::endpoint::{Inside, Outside};
use super::super::event::Event;
use super::super::flow::{Direction, Mapping};
use super::super::guard;
use super::super::io::{PacketId, PacketIn, QueuePoint, Tuples};
use super::super::learning::Learner;
use super::super::parking::Parking;
use super::super::policy::{Limits, OnFailure};
use super::super::tcp::connection::{Following, Load, reverse};
use super::super::tcp::frame::{self, Foreign, Frame};
use super::super::tcp::map::Position;
use super::super::tcp::{Connection, Extent, Half, News, Opening, Stage};
use super::super::verdict::Reason;
use super::commands::Inflight;
use super::flows::orient;
use super::message::Outcome;
use super::{Engine, Queued};
use crate::expiring::ExpiringMap;
use crate::packet::{Segment, TooLarge};

/// Longer than conntrack's five days for an established connection; renewed after half of it.
const FOLLOWED: Duration = Duration::from_secs(12 * 24 * 3600);
/// A SYN that nobody answers is over.
const OPENING: Duration = Duration::from_secs(120);
/// How long late segments of a finished connection are translated (2 × MSL, as conntrack has it).
const LINGER: Duration = Duration::from_secs(120);
/// The same after a reset.
const RESET: Duration = Duration::from_secs(10);
/// SYNs of connections that perhaps begin outside.
const OPENINGS: usize = 4096;
/// Interfaces whose MTU is remembered.
const INTERFACES: usize = 1024;
const SYN_DOMAIN: u8 = b's';

/// All connections, and what waits for them.
#[derive(Debug)]
pub(super) struct Connections {
    table: ExpiringMap<FlowKey, Connection, FixedState>,
    /// By far end and public endpoint.
    lines: HashMap<(SocketAddr, SocketAddr), FlowKey, FixedState>,
    /// SYNs that no source NAT changed, by source and destination.
    openings: ExpiringMap<(SocketAddr, SocketAddr), Opening, FixedState>,
    /// Messages that wait for commands.
    stalled: Parking<(FlowKey, Direction)>,
    /// When holding ends, for whom, and what was decided when it began; by time.
    holding: VecDeque<(Instant, FlowKey, Direction, Position)>,
    mtus: HashMap<u32, u32, FixedState>,
    /// Bytes kept and segments held, by inside host, and in all.
    hosts: HashMap<IpAddr, Load, FixedState>,
    load: Load,
    /// Memory for the message at hand.
    text: Vec<u8>,
}

impl Connections {
    pub(super) fn new(limits: &Limits, hasher: &FixedState) -> Self {
        let map = || HashMap::with_hasher(hasher.clone());
        Self {
            table: ExpiringMap::new(limits.connections, hasher.clone()),
            lines: HashMap::with_hasher(hasher.clone()),
            openings: ExpiringMap::new(OPENINGS, hasher.clone()),
            stalled: Parking::new(limits.parked, hasher.clone()),
            holding: VecDeque::new(),
            mtus: HashMap::with_hasher(hasher.clone()),
            hosts: map(),
            load: Load::default(),
            text: Vec::new(),
        }
    }

    pub(super) fn set_limits(&mut self, limits: &Limits) {
        self.table.set_limit(limits.connections);
        self.stalled.set_limit(limits.parked);
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn load(&self) -> Load {
        self.load
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let holding = self.holding.front().map(|(due, ..)| *due);
        [self.table.poll_timeout(), self.openings.poll_timeout(), holding].into_iter().flatten().min()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&FlowKey, &Connection, Instant)> {
        self.table.with_deadlines()
    }

    /// Takes over a connection of another process. What has no room is let be reset.
    pub(super) fn import(&mut self, key: FlowKey, connection: Connection, deadline: Instant) {
        if let Some(line) = connection.line(&key) {
            self.lines.insert((line.far, line.public.0), key);
        }
        if self.table.insert(key, connection, deadline).is_err() {
            self.lines.retain(|_, known| *known != key);
        }
        self.recount(&key);
    }

    /// Who waited for one command waits for another.
    pub(super) fn replace(&mut self, old: CommandId, new: CommandId) {
        self.stalled.replace(old, new);
    }

    /// Brings the accounts up to date after a connection has changed.
    fn recount(&mut self, key: &FlowKey) {
        let Some(connection) = self.table.get_mut(key) else { return };
        let after = connection.load();
        let before = mem::replace(&mut connection.counted, after);
        self.count(key, before, after);
    }

    fn count(&mut self, key: &FlowKey, before: Load, after: Load) {
        if before == after {
            return;
        }
        let host = self.hosts.entry(key.inside.0.ip()).or_default();
        for load in [&mut *host, &mut self.load] {
            load.bytes = (load.bytes + after.bytes).saturating_sub(before.bytes);
            load.held = (load.held + after.held).saturating_sub(before.held);
        }
        if *host == Load::default() {
            self.hosts.remove(&key.inside.0.ip());
        }
    }

    fn host(&self, key: &FlowKey) -> Load {
        self.hosts.get(&key.inside.0.ip()).copied().unwrap_or_default()
    }
}

fn tcp_key(inside: SocketAddr, far: SocketAddr) -> FlowKey {
    FlowKey { transport: Transport::Tcp, inside: Inside(inside), far }
}

fn key_of(segment: &Segment<'_>, direction: Direction) -> FlowKey {
    match direction {
        Direction::Outbound => tcp_key(segment.source(), segment.destination()),
        Direction::Inbound => tcp_key(segment.destination(), segment.source()),
    }
}

/// Whether a SYN begins a connection that can be inspected: nothing in it vouches for its bytes, and it brings none
/// (RFC 7413: those would not be at the stream's beginning for who did not keep the cookie).
fn opening_of(segment: &Segment<'_>) -> Option<Opening> {
    let options = segment.options();
    let plain = segment.syn() && !segment.fin() && !segment.rst() && !segment.urg();
    (plain && segment.payload().is_empty() && !options.untouchable).then(|| Opening::new(segment, &options))
}

impl Engine {
    pub(super) fn handle_segment(&mut self, now: Instant, packet: &PacketIn<'_>, segment: &Segment<'_>) {
        match packet.point {
            QueuePoint::Latch => self.accept(packet.id, None, Reason::NotUdp),
            QueuePoint::NewFlow => self.new_connection(now, packet, segment),
            QueuePoint::Learn => self.learn_connection(now, packet, segment),
            QueuePoint::Signalling => self.forwarded(now, packet, segment),
            QueuePoint::BeforeConntrack => self.inbound_segment(now, packet, segment),
        }
    }

    /// An MTU is known.
    pub(super) fn note_mtu(&mut self, interface: u32, mtu: u32) {
        if self.connections.mtus.len() < INTERFACES || self.connections.mtus.contains_key(&interface) {
            self.connections.mtus.insert(interface, mtu);
        }
    }

    /// A SYN before the NAT: it gets a token and goes on.
    fn new_connection(&mut self, now: Instant, packet: &PacketIn<'_>, segment: &Segment<'_>) {
        if opening_of(segment).is_none() || segment.acknowledgment().is_some() {
            return self.accept(packet.id, None, Reason::NotInspected);
        }
        let learner = Learner {
            source: segment.source(),
            destination: segment.destination(),
            payload: self.keyer.digest(SYN_DOMAIN, &segment.sequence().to_be_bytes()),
            identity: segment.identity(),
            indev: packet.indev,
            outdev: packet.outdev,
        };
        match self.learning.send(now, learner) {
            Some(token) => self.accept(packet.id, Some(token), Reason::Learning),
            None => self.accept(packet.id, None, Reason::TableFull),
        }
    }

    /// The same SYN after the NAT.
    fn learn_connection(&mut self, now: Instant, packet: &PacketIn<'_>, segment: &Segment<'_>) {
        let token = segment.identity();
        let digest = self.keyer.digest(SYN_DOMAIN, &segment.sequence().to_be_bytes());
        let Some(learner) = self.learning.recognise(token, segment.destination(), digest) else {
            return self.accept(packet.id, None, Reason::NotOurs);
        };
        let identity = Some(learner.identity);
        let Some(opening) = opening_of(segment) else {
            self.learning.arrived(token);
            return self.accept(packet.id, identity, Reason::NotInspected);
        };
        if segment.source() == learner.source {
            // No source NAT: it is routed, or it begins outside. The SYN/ACK will show which of the two.
            self.learning.arrived(token);
            let ends = (learner.source, learner.destination);
            let _ = self.connections.openings.insert(ends, opening, now + OPENING);
            return self.relabel(packet.id, segment, identity, &opening);
        }
        let key = tcp_key(learner.source, learner.destination);
        let public = Outside(segment.source());
        if !self.is_served(key.far) || !self.map_flow(now, key, Some(public)) {
            self.learning.arrived(token);
            return self.accept(packet.id, identity, Reason::NotInspected);
        }
        self.note_interfaces(&key, learner.indev, learner.outdev);
        match self.begin(now, key, Direction::Outbound, opening, Some(public)) {
            None => {
                self.learning.arrived(token);
                self.accept(packet.id, identity, Reason::TableFull);
            }
            Some(Following::Asked(id)) => self.park(packet.id, identity, &[id]),
            Some(_) => {
                self.learning.arrived(token);
                self.relabel(packet.id, segment, identity, &opening);
            }
        }
    }

    /// S6: whether messages to and from this server are touched at all.
    fn is_served(&self, far: SocketAddr) -> bool {
        guard::is_allowed_server(&self.policy, far.ip()) && !guard::is_hands_off(&self.policy, far.ip())
    }

    /// A connection begins, or its SYN is repeated. `None`: there is no room.
    fn begin(
        &mut self,
        now: Instant,
        key: FlowKey,
        direction: Direction,
        opening: Opening,
        public: Option<Outside>,
    ) -> Option<Following> {
        if let Some(known) = self.connections.table.get_mut(&key)
            && known.public == public
        {
            let same = match known.stage {
                Stage::Opening(first) => first.isn == opening.isn,
                Stage::Open | Stage::Closed => known.half(known.begun).isn() == opening.isn,
            };
            if known.begun == direction && same {
                return Some(known.following);
            }
            if known.stage == Stage::Open {
                // As conntrack does: the old connection lives until the other end answers this one.
                known.reopening = Some((direction, opening));
                return Some(known.following);
            }
        }
        let mut fresh = Connection::begun(direction, opening, public);
        let moved = self.connections.table.get(&key).is_some_and(|old| old.public != public);
        let old = self.take_connection(&key, moved);
        let is_followed = old.is_some_and(|old| old.public == public && old.following == Following::Yes);
        if is_followed {
            fresh.following = Following::Yes;
        }
        if let Some(line) = fresh.line(&key) {
            if !is_followed {
                let follow = Op::Follow { line, lifetime: FOLLOWED };
                fresh.following = Following::Asked(self.command(follow, Inflight::Follow { flow: key }));
            }
            self.connections.lines.insert((line.far, line.public.0), key);
        }
        let following = fresh.following;
        if self.connections.table.insert(key, fresh, now + OPENING).is_err() {
            self.connections.lines.retain(|_, known| *known != key);
            if let Some(public) = public {
                let line = Line { inside: key.inside, far: key.far, public };
                self.background(Op::Unfollow { line }, "unfollow");
            }
            return None;
        }
        Some(following)
    }

    /// The kernel follows a connection, or does not.
    pub(super) fn followed(&mut self, id: CommandId, key: FlowKey, failure: Option<Failure>) {
        let Some(connection) = self.connections.table.get_mut(&key) else { return };
        if connection.following != Following::Asked(id) {
            return;
        }
        connection.following = Following::Yes;
        if failure.is_some() {
            self.take_connection(&key, false);
        }
    }

    /// A segment at FORWARD.
    fn forwarded(&mut self, now: Instant, packet: &PacketIn<'_>, segment: &Segment<'_>) {
        for direction in [Direction::Outbound, Direction::Inbound] {
            let key = key_of(segment, direction);
            let Some(connection) = self.connections.table.get(&key) else { continue };
            if direction == Direction::Inbound && connection.public.is_some() {
                // It was here before conntrack.
                return self.accept(packet.id, None, Reason::Segment);
            }
            let (lan, uplink) = match direction {
                Direction::Outbound => (packet.indev, packet.outdev),
                Direction::Inbound => (packet.outdev, packet.indev),
            };
            self.note_interfaces(&key, lan, uplink);
            return self.segment(now, packet, segment, key, direction);
        }
        match (opening_of(segment), segment.acknowledgment()) {
            (Some(opening), None) => self.stray_syn(now, packet, segment, opening),
            (Some(answer), Some(number)) => self.first_answer(now, packet, segment, answer, number),
            (None, _) => self.accept(packet.id, None, Reason::NotInspected),
        }
    }

    /// A SYN of an entry that conntrack knows and we do not: repeated, or of a phone that lost its power.
    fn stray_syn(&mut self, now: Instant, packet: &PacketIn<'_>, segment: &Segment<'_>, opening: Opening) {
        let ends = (segment.source(), segment.destination());
        if self.connections.openings.get(&ends).is_some() {
            let _ = self.connections.openings.insert(ends, opening, now + OPENING);
            return self.relabel(packet.id, segment, None, &opening);
        }
        for direction in [Direction::Outbound, Direction::Inbound] {
            let key = key_of(segment, direction);
            let Some(public) = self.flows.get(&key).and_then(|flow| Some(flow.public()?.endpoint)) else {
                continue;
            };
            if !self.is_served(key.far) {
                break;
            }
            return match self.begin(now, key, direction, opening, Some(public)) {
                None => self.accept(packet.id, None, Reason::TableFull),
                Some(Following::Asked(id)) => self.park(packet.id, None, &[id]),
                Some(_) => self.relabel(packet.id, segment, None, &opening),
            };
        }
        self.accept(packet.id, None, Reason::NotInspected);
    }

    /// The SYN/ACK of a connection that no source NAT changed: conntrack tells which end is inside.
    fn first_answer(
        &mut self,
        now: Instant,
        packet: &PacketIn<'_>,
        segment: &Segment<'_>,
        answer: Opening,
        number: u32,
    ) {
        let ends = (segment.destination(), segment.source());
        let Some(opening) = self.connections.openings.get(&ends).copied() else {
            return self.accept(packet.id, None, Reason::NotInspected);
        };
        if number != opening.isn.wrapping_add(1) {
            return self.accept(packet.id, None, Reason::NotInspected);
        }
        for direction in [Direction::Outbound, Direction::Inbound] {
            let key = key_of(segment, direction);
            let public = match self.flows.get(&key).map(|flow| &flow.mapping) {
                Some(Mapping::Public(side)) => Some(side.endpoint),
                Some(Mapping::NotNated) => None,
                Some(Mapping::Asked(id)) => {
                    let id = *id;
                    return self.park(packet.id, None, &[id]);
                }
                Some(Mapping::Missing) => return self.accept(packet.id, None, Reason::UnknownFlow),
                Some(Mapping::Unknown) | None => continue,
            };
            if !self.is_served(key.far) {
                return self.accept(packet.id, None, Reason::PeerNotAllowed);
            }
            return match self.begin(now, key, reverse(direction), opening, public) {
                None => self.accept(packet.id, None, Reason::TableFull),
                Some(Following::Asked(id)) => self.park(packet.id, None, &[id]),
                Some(_) => {
                    self.connections.openings.remove(&ends);
                    self.answered(now, packet, segment, key, direction, answer, number);
                }
            };
        }
        self.ask(now, packet, key_of(segment, Direction::Outbound), segment.source(), segment.destination());
    }

    /// A segment from outside, before conntrack has seen it.
    fn inbound_segment(&mut self, now: Instant, packet: &PacketIn<'_>, segment: &Segment<'_>) {
        let Some(key) = self.connections.lines.get(&(segment.source(), segment.destination())).copied()
        else {
            return self.accept(packet.id, None, Reason::NotInspected);
        };
        if !segment.is_sound() {
            // Nobody has looked at its checksum yet, and a new one would make its bytes believed.
            return self.drop_packet(packet.id, Reason::BrokenPacket);
        }
        self.segment(now, packet, segment, key, Direction::Inbound);
    }

    /// A segment of a known connection.
    fn segment(
        &mut self,
        now: Instant,
        packet: &PacketIn<'_>,
        segment: &Segment<'_>,
        key: FlowKey,
        direction: Direction,
    ) {
        if segment.syn() {
            return self.synchronise(now, packet, segment, key, direction);
        }
        let Some(connection) = self.connections.table.get_mut(&key) else { return };
        if matches!(connection.stage, Stage::Opening(_)) {
            // Nothing is translated yet: a refusal, or what is left of an older connection.
            return self.accept(packet.id, None, Reason::Segment);
        }
        connection.active = true;
        let was_held = connection.half_mut(direction).take_held(packet.id);
        connection.acknowledge(segment, direction);
        if segment.rst() {
            return self.reset(now, packet, segment, key, direction);
        }
        if segment.urg() {
            self.let_go(key, "S2", "urgent data, of which nobody knows where it belongs");
        }
        self.carry(now, packet, segment, key, direction, was_held);
        self.check_end(now, key);
        self.connections.recount(&key);
    }

    fn carry(
        &mut self,
        now: Instant,
        packet: &PacketIn<'_>,
        segment: &Segment<'_>,
        key: FlowKey,
        direction: Direction,
        was_held: bool,
    ) {
        let Some(connection) = self.connections.table.get_mut(&key) else {
            return self.outputs.push_back(Queued::Again(packet.id));
        };
        let extent = connection.extent(segment, direction);
        let half = connection.half_mut(direction);
        if !half.is_inspected() || (extent.from == extent.to && !extent.fin) {
            half.note_top(extent.to);
            return self.pass(packet, segment, key, extent, direction);
        }
        let news = half.receive(extent, segment.payload());
        match news {
            News::Outside if half.is_decided(extent) => {}
            News::Outside => return self.probe(packet, segment, key, direction),
            News::Gap if !was_held && half.is_held(extent) => {
                return self.probe(packet, segment, key, direction);
            }
            News::Gap => return self.hold(now, packet, key, extent, direction),
            News::Conflict => {
                self.let_go(key, "S2", "a byte of a TCP stream was sent twice, and not the same")
            }
            News::New => {
                self.read_stream(now, key, direction);
                self.check_share(&key);
                if extent.fin {
                    self.finish_stream(key, direction);
                }
            }
            News::Old => {}
        }
        let Some(half) = self.connections.table.get_mut(&key).map(|it| it.half_mut(direction)) else {
            // It was forgotten, and those that were held go first.
            return self.outputs.push_back(Queued::Again(packet.id));
        };
        if half.is_decided(extent) {
            if half.goes_after_others(extent) {
                self.hold(now, packet, key, extent, direction);
            } else {
                self.pass(packet, segment, key, extent, direction);
            }
        } else if news == News::New && !was_held && !extent.fin && half.spends() {
            half.own();
            self.probe(packet, segment, key, direction);
        } else if was_held || news == News::New {
            self.hold(now, packet, key, extent, direction);
        } else {
            // What is held comes again: its sender waits for an acknowledgment, and gets one.
            let begins = half.decided() > extent.from && half.has_unsent();
            if !half.waits {
                // Of a message that only waits for the kernel nothing is owned: its sender would have nothing to repeat.
                half.own();
            }
            if begins {
                self.pass(packet, segment, key, extent, direction);
            } else {
                self.probe(packet, segment, key, direction);
            }
        }
        self.let_due_go(key, direction);
    }

    /// Reads what has come, as far as it is complete.
    fn read_stream(&mut self, now: Instant, key: FlowKey, direction: Direction) {
        let Some(connection) = self.connections.table.get(&key) else { return };
        let public = connection.public;
        let half = connection.half(direction);
        if half.waits || half.undecided().len() < half.needed {
            return;
        }
        let mut text = mem::take(&mut self.connections.text);
        text.clear();
        text.extend_from_slice(half.undecided());
        if self.flows.get(&key).is_none() {
            self.map_flow(now, key, public);
        }
        let mut scratch = self.scratch.take().unwrap_or_default();
        let mut rest = text.as_slice();
        let mut foreign = None;
        loop {
            let found = frame::next(rest, &mut scratch.message);
            scratch.edits.clear();
            scratch.needs.clear();
            let (length, outcome) = match found {
                Frame::KeepAlive(length) => (length, Outcome::Accept(Reason::KeepAlive)),
                Frame::Message(length) => {
                    let message = rest.get(..length).unwrap_or_default();
                    let refused =
                        self.half_of(key, direction).is_some_and(|half| mem::take(&mut half.refused));
                    let outcome = if refused {
                        Outcome::Accept(Reason::CommandFailed)
                    } else if scratch.message.parse(message).is_err() {
                        Outcome::Accept(Reason::Unparsable)
                    } else {
                        self.translate(now, &mut scratch, message, key, direction, public.is_none())
                    };
                    (length, outcome)
                }
                Frame::Incomplete(needed) => {
                    if let Some(half) = self.half_of(key, direction) {
                        half.needed = needed;
                    }
                    break;
                }
                Frame::Foreign(why) => {
                    foreign = Some(why);
                    break;
                }
            };
            let reason = match outcome {
                Outcome::Accept(reason) => reason,
                Outcome::Rewrite => Reason::Rewritten,
                Outcome::Park if self.connections.stalled.is_full() => Reason::TableFull,
                Outcome::Park => {
                    self.connections.stalled.park((key, direction), None, &scratch.needs);
                    if let Some(half) = self.half_of(key, direction) {
                        half.waits = true;
                    }
                    break;
                }
            };
            if !matches!(outcome, Outcome::Rewrite) {
                scratch.edits.clear();
            }
            self.stats.count(reason);
            if let Some(half) = self.half_of(key, direction) {
                let edits = scratch
                    .edits
                    .iter()
                    .map(|edit| (edit.span.start as usize, edit.span.len(), scratch.edits.text(edit)));
                half.decide(length, edits);
                half.needed = 0;
            }
            rest = rest.get(length..).unwrap_or_default();
        }
        self.scratch = Some(scratch);
        self.connections.text = text;
        self.connections.recount(&key);
        if let Some(why) = foreign {
            self.leave_stream(key, direction, why);
        }
    }

    /// S11: nobody keeps more bytes here than his share.
    fn check_share(&mut self, key: &FlowKey) {
        self.connections.recount(key);
        let (host, all, limits) = (self.connections.host(key), self.connections.load, self.policy.limits);
        if host.bytes > limits.tcp_bytes_per_host || all.bytes > limits.tcp_bytes {
            self.let_go(*key, "S11", "too many bytes of incomplete messages");
        }
    }

    fn half_of(&mut self, key: FlowKey, direction: Direction) -> Option<&mut Half> {
        self.connections.table.get_mut(&key).map(|connection| connection.half_mut(direction))
    }

    /// A stream says something that is not SIP.
    fn leave_stream(&mut self, key: FlowKey, direction: Direction, why: Foreign) {
        let is_first = self.half_of(key, direction).is_some_and(|half| half.is_at_start());
        match why {
            Foreign::NotSip if is_first => self.let_go(key, "", ""),
            Foreign::NotSip => self.let_go(key, "S1", "a TCP stream goes on with something that is not SIP"),
            Foreign::NoLength => self.let_go(key, "S2", "a message in a TCP stream does not tell its length"),
            Foreign::TooLong => self.let_go(key, "S2", "a message in a TCP stream is too long to wait for"),
            Foreign::TooManyHeaders => {
                self.let_go(key, "S2", "a message in a TCP stream has too many headers")
            }
        }
    }

    /// A FIN: an incomplete message will never be complete.
    fn finish_stream(&mut self, key: FlowKey, direction: Direction) {
        if self.half_of(key, direction).is_some_and(|half| !half.waits && !half.is_between_messages()) {
            self.let_go(key, "", "");
        }
    }

    /// From now on only the connection's numbers are translated. If they need not be, it is forgotten with the last held
    /// segment.
    fn let_go(&mut self, key: FlowKey, rule: &'static str, why: &'static str) {
        let Some(connection) = self.connections.table.get_mut(&key) else { return };
        let was_inspected = connection.half(Direction::Outbound).is_inspected();
        for direction in [Direction::Outbound, Direction::Inbound] {
            connection.half_mut(direction).let_go();
        }
        if was_inspected && !rule.is_empty() {
            self.event(Event::Refused { rule, inside: key.inside.0, why });
        }
        for direction in [Direction::Outbound, Direction::Inbound] {
            self.let_due_go(key, direction);
        }
    }

    /// Asks for the held segments whose time has come.
    fn let_due_go(&mut self, key: FlowKey, direction: Direction) {
        let mut due = Vec::new();
        if let Some(half) = self.half_of(key, direction) {
            half.release(&mut due);
        }
        self.outputs.extend(due.into_iter().map(Queued::Again));
    }

    /// Holds a segment if there is room; if not it is dropped, and sent again.
    fn hold(
        &mut self,
        now: Instant,
        packet: &PacketIn<'_>,
        key: FlowKey,
        extent: Extent,
        direction: Direction,
    ) {
        let limits = self.policy.limits;
        let (host, all) = (self.connections.host(&key).held, self.connections.load.held);
        let full = host >= limits.tcp_held_per_host || all >= limits.tcp_held;
        let Some(half) = self.half_of(key, direction) else {
            return self.accept(packet.id, None, Reason::NotInspected);
        };
        if full || !half.hold(packet.id, extent) {
            return self.drop_packet(packet.id, Reason::TableFull);
        }
        let decided = half.decided();
        let is_first = half.waiting_since.replace(decided) != Some(decided);
        self.connections.recount(&key);
        if is_first {
            let due = now + self.policy.tcp_patience;
            self.connections.holding.push_back((due, key, direction, decided));
        }
    }

    fn room(
        &self,
        packet: &PacketIn<'_>,
        segment: &Segment<'_>,
        key: &FlowKey,
        direction: Direction,
    ) -> usize {
        let interface = match direction {
            Direction::Outbound => packet.outdev,
            Direction::Inbound => self.flows.get(key).map_or(0, |flow| flow.lan),
        };
        let mtu = self.connections.mtus.get(&interface);
        mtu.map_or(usize::MAX, |mtu| (*mtu as usize).saturating_sub(segment.headers()))
    }

    /// Lets a segment go on in its wire form.
    fn pass(
        &mut self,
        packet: &PacketIn<'_>,
        segment: &Segment<'_>,
        key: FlowKey,
        extent: Extent,
        direction: Direction,
    ) {
        let room = self.room(packet, segment, &key, direction);
        let mut bytes = self.spare_bytes();
        let Some(connection) = self.connections.table.get_mut(&key) else {
            return self.accept(packet.id, None, Reason::NotInspected);
        };
        let outcome = connection.forward(segment, extent, direction, room, &mut bytes).map(|_| ());
        self.send(packet, outcome, bytes);
    }

    /// Lets something go on in a segment's place that its receiver must answer.
    fn probe(&mut self, packet: &PacketIn<'_>, segment: &Segment<'_>, key: FlowKey, direction: Direction) {
        let mut bytes = self.spare_bytes();
        let Some(connection) = self.connections.table.get_mut(&key) else {
            return self.accept(packet.id, None, Reason::NotInspected);
        };
        let outcome = connection.probe(segment, direction, &mut bytes);
        self.send(packet, outcome, bytes);
    }

    fn send(&mut self, packet: &PacketIn<'_>, outcome: Result<(), TooLarge>, bytes: Vec<u8>) {
        match outcome {
            Ok(()) if bytes == packet.bytes => self.accept(packet.id, None, Reason::Segment),
            Ok(()) => {
                self.stats.count(Reason::Segment);
                self.outputs.push_back(Queued::Replace { packet: packet.id, bytes, reason: Reason::Segment });
            }
            Err(TooLarge) => self.drop_packet(packet.id, Reason::EditFailed),
        }
    }

    /// Lets a SYN go on with its identity given back and its MSS lowered.
    fn relabel(&mut self, packet: PacketId, segment: &Segment<'_>, identity: Option<u32>, opening: &Opening) {
        let mut bytes = self.spare_bytes();
        match segment.relabel(identity, opening.lowered(), &mut bytes) {
            Ok(()) => {
                self.stats.count(Reason::Segment);
                self.outputs.push_back(Queued::Replace { packet, bytes, reason: Reason::Segment });
            }
            Err(TooLarge) => self.accept(packet, identity, Reason::EditFailed),
        }
    }

    fn spare_bytes(&mut self) -> Vec<u8> {
        mem::take(&mut self.replaced)
    }

    /// A SYN or SYN/ACK of a known connection.
    fn synchronise(
        &mut self,
        now: Instant,
        packet: &PacketIn<'_>,
        segment: &Segment<'_>,
        key: FlowKey,
        direction: Direction,
    ) {
        let Some(opening) = opening_of(segment) else {
            // What it begins is not for us. What was here may still live.
            return self.accept(packet.id, None, Reason::NotInspected);
        };
        let public = self.connections.table.get(&key).and_then(|it| it.public);
        match segment.acknowledgment() {
            Some(number) => self.answered(now, packet, segment, key, direction, opening, number),
            None => match self.begin(now, key, direction, opening, public) {
                None => self.accept(packet.id, None, Reason::TableFull),
                Some(Following::Asked(id)) => self.park(packet.id, None, &[id]),
                Some(_) => self.relabel(packet.id, segment, None, &opening),
            },
        }
    }

    /// A SYN/ACK: if it answers the SYN that we know, there is a connection.
    #[allow(clippy::too_many_arguments)]
    fn answered(
        &mut self,
        now: Instant,
        packet: &PacketIn<'_>,
        segment: &Segment<'_>,
        key: FlowKey,
        direction: Direction,
        answer: Opening,
        number: u32,
    ) {
        let Some(connection) = self.connections.table.get_mut(&key) else {
            return self.accept(packet.id, None, Reason::NotInspected);
        };
        let fits = |opening: &Opening| number == opening.isn.wrapping_add(1);
        if let Some((begun, opening)) = connection.reopening
            && begun == reverse(direction)
            && fits(&opening)
        {
            let (public, following, counted) = (connection.public, connection.following, connection.counted);
            let mut dropped: Vec<PacketId> = connection.half_mut(direction).drop_held().collect();
            dropped.extend(connection.half_mut(begun).drop_held());
            *connection = Connection::begun(begun, opening, public);
            connection.following = following;
            connection.counted = counted;
            for id in dropped {
                self.drop_packet(id, Reason::Segment);
            }
        }
        let Some(connection) = self.connections.table.get_mut(&key) else { return };
        match connection.stage {
            Stage::Opening(opening) if connection.begun == reverse(direction) && fits(&opening) => {
                connection.answered(answer);
                self.connections.table.set_deadline(&key, now + FOLLOWED / 2);
                self.outlast(key, now + FOLLOWED);
                self.relabel(packet.id, segment, None, &answer);
            }
            Stage::Open | Stage::Closed if connection.half(direction).isn() == answer.isn => {
                self.relabel(packet.id, segment, None, &answer);
            }
            Stage::Opening(_) | Stage::Open | Stage::Closed => {
                self.accept(packet.id, None, Reason::Segment);
            }
        }
    }

    /// A RST goes on; if its receiver may believe it, all is over.
    fn reset(
        &mut self,
        now: Instant,
        packet: &PacketIn<'_>,
        segment: &Segment<'_>,
        key: FlowKey,
        direction: Direction,
    ) {
        let Some(connection) = self.connections.table.get_mut(&key) else { return };
        let extent = connection.extent(segment, direction);
        let is_believed = connection.half(direction).is_in_window(extent);
        let bare = Extent { to: extent.from, fin: false, ..extent };
        self.pass(packet, segment, key, bare, direction);
        if is_believed {
            self.finish(now, key, RESET);
        }
    }

    fn finish(&mut self, now: Instant, key: FlowKey, linger: Duration) {
        let Some(connection) = self.connections.table.get_mut(&key) else { return };
        connection.stage = Stage::Closed;
        let mut dropped: Vec<PacketId> = Vec::new();
        for direction in [Direction::Outbound, Direction::Inbound] {
            dropped.extend(connection.half_mut(direction).drop_held());
        }
        self.connections.table.set_deadline(&key, now + linger);
        self.connections.recount(&key);
        for id in dropped {
            self.drop_packet(id, Reason::Segment);
        }
    }

    /// Both ends have finished, or nobody needs us any more.
    fn check_end(&mut self, now: Instant, key: FlowKey) {
        let Some(connection) = self.connections.table.get(&key) else { return };
        if connection.stage != Stage::Open {
            return;
        }
        if connection.is_needless() {
            self.take_connection(&key, true);
        } else if connection.is_finished() {
            self.finish(now, key, LINGER);
        }
    }

    /// Forgets a connection. Its held segments come again as those of one that is not known.
    fn take_connection(&mut self, key: &FlowKey, unfollow: bool) -> Option<Connection> {
        let mut connection = self.connections.table.remove(key)?;
        self.connections.count(key, connection.counted, Load::default());
        for direction in [Direction::Outbound, Direction::Inbound] {
            self.outputs.extend(connection.half_mut(direction).drop_held().map(Queued::Again));
        }
        if let Some(line) = connection.line(key) {
            let ends = (line.far, line.public.0);
            if self.connections.lines.get(&ends) == Some(key) {
                self.connections.lines.remove(&ends);
            }
            if unfollow {
                self.background(Op::Unfollow { line }, "unfollow");
            }
        }
        Some(connection)
    }

    /// Compares the connections with those that the kernel follows. One that only the kernel knows cannot be translated by
    /// anybody: it is reset.
    pub(super) fn reconcile_connections(&mut self, followed: &[Line]) {
        let known: Vec<Line> =
            self.connections.table.iter().filter_map(|(key, connection)| connection.line(key)).collect();
        for line in followed.iter().filter(|line| !known.contains(line)) {
            self.background(Op::Reset { line: *line }, "reset");
        }
        // Segments may have passed without us, or it is another connection by now.
        let is_lost = |(key, it): (&FlowKey, &Connection)| {
            it.line(key).filter(|line| !followed.contains(line)).map(|_| *key)
        };
        let lost: Vec<FlowKey> = self.connections.table.iter().filter_map(is_lost).collect();
        for key in lost {
            self.take_connection(&key, false);
        }
    }

    /// A connection's conntrack entry is gone.
    pub(super) fn connection_destroyed(&mut self, tuples: &Tuples) {
        let (key, public) = orient(tuples);
        if self.connections.table.get(&key).is_some_and(|it| it.public == public) {
            self.take_connection(&key, true);
        }
    }

    /// A command is done: messages that waited for nothing else are read.
    pub(super) fn resume_all(&mut self, now: Instant, id: CommandId, failure: Option<Failure>) {
        let mut released = Vec::new();
        self.connections.stalled.done(id, failure, |it| released.push(it));
        for it in released {
            let (key, direction) = it.packet;
            self.resume(now, key, direction, it.failure);
        }
    }

    /// What a message waited for is done.
    fn resume(&mut self, now: Instant, key: FlowKey, direction: Direction, failure: Option<Failure>) {
        let Some(half) = self.half_of(key, direction) else { return };
        half.waits = false;
        half.needed = 0;
        half.refused = failure.is_some();
        if half.is_inspected() {
            // Bytes of a stream cannot be dropped, so `on-failure = "drop"` lets the message pass, too.
            debug_assert!(matches!(self.policy.on_failure, OnFailure::Pass | OnFailure::Drop));
            self.read_stream(now, key, direction);
            self.let_due_go(key, direction);
        }
    }

    pub(super) fn expire_connections(&mut self, now: Instant) {
        while self.connections.openings.pop_expired(now).is_some() {}
        while let Some(&(due, key, direction, decided)) = self.connections.holding.front()
            && due <= now
        {
            self.connections.holding.pop_front();
            self.impatient(key, direction, decided);
        }
        while let Some((key, mut connection)) = self.connections.table.pop_expired(now) {
            let is_alive = connection.stage == Stage::Open && mem::take(&mut connection.active);
            let line = connection.line(&key);
            // The map gave it away; it goes back before anything else is done with it.
            let kept = self.connections.table.insert(key, connection, now + FOLLOWED / 2);
            debug_assert!(kept.is_ok(), "it was there a moment ago");
            if !is_alive {
                self.take_connection(&key, true);
            } else {
                self.outlast(key, now + FOLLOWED);
                if let Some(line) = line {
                    self.background(Op::Follow { line, lifetime: FOLLOWED }, "follow");
                }
            }
        }
    }

    /// A segment has been held for as long as may be.
    fn impatient(&mut self, key: FlowKey, direction: Direction, decided: Position) {
        let Some(half) = self.half_of(key, direction) else { return };
        if half.waiting_since == Some(decided) {
            half.waiting_since = None;
        }
        if half.held() == 0 || half.decided() != decided || !half.is_inspected() {
            return;
        }
        if half.is_between_messages() {
            // Only what lies behind a gap is held. Its sender has it still.
            let dropped: Vec<PacketId> = half.drop_held().collect();
            self.connections.recount(&key);
            for id in dropped {
                self.drop_packet(id, Reason::Segment);
            }
        } else {
            self.let_go(key, "S2", "a message in a TCP stream was not complete in time");
        }
    }
}
