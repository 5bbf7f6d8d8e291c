//! TCP: which connection a segment belongs to, and what becomes of it.
//!
//! A connection is known from its SYN or not at all. The SYN teaches its NAT mapping as the first datagram of a flow does;
//! the kernel is told to hand over what comes from outside ([`Op::Follow`]) before the SYN's last verdict, or that of the
//! SYN/ACK where a connection begins outside. From then on each segment goes through its [`Half`]: what it brings is read,
//! message by message, by the same code that reads datagrams, and it goes on, is held, or is turned into a probe.
//!
//! A held segment has no verdict; it is asked for with [`Output::Again`](super::super::io::Output) and handled as if it
//! had just come. If nothing of its stream has been decided for [`Policy::tcp_patience`](super::super::policy::Policy), the
//! connection is let go, which means that from there on only its numbers are translated. What lies behind a gap so long is
//! dropped, and so is what has been held for twice as long while others went on: its sender sends it again.
//!
//! | module | what |
//! |---|---|
//! | [`opening`] | SYN and SYN/ACK |
//! | [`stream`] | what a segment brings: read, held, let go |
//! | [`sending`] | how it goes on |
//! | [`ending`] | resets, ends, silence, restarts |
//!
//! [`Op::Follow`]: super::super::command::Op::Follow

mod ending;
mod opening;
mod sending;
mod stream;

use std::mem;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::collections::VecDeque;

use super::super::command::{CommandId, FlowKey, Transport};
use super::super::endpoint::Inside;
use super::super::flow::Direction;
use super::super::io::{PacketIn, QueuePoint};
use super::super::parking::Parking;
use super::super::policy::Limits;
use super::super::shares::Host;
use super::super::tcp::connection::Load;
use super::super::tcp::map::Position;
use super::super::tcp::{Connection, Half, Opening, Stage};
use super::super::verdict::Reason;
use super::Engine;
use crate::expiring::ExpiringMap;
use crate::packet::Segment;

/// Longer than conntrack's five days for an established connection; renewed after half of it.
const FOLLOWED: Duration = Duration::from_secs(12 * 24 * 3600);
/// SYNs of connections that perhaps begin outside.
const OPENINGS: usize = 4096;
/// Interfaces whose MTU is remembered.
const INTERFACES: usize = 1024;

/// When a direction is to be looked at again, and how far it had come; by time.
type Moments = VecDeque<(Instant, FlowKey, Direction, Position)>;

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
    /// The directions in which segments are held, until the patience with the first of them ends. No more than two for each
    /// connection.
    holding: ExpiringMap<(FlowKey, Direction), (), FixedState>,
    /// When it is looked whether a sender has stopped, which, and how far it had come; by time.
    watched: Moments,
    /// The same, of those that have.
    stuck: Moments,
    mtus: HashMap<u32, u32, FixedState>,
    /// Bytes kept and segments held, by inside host, and in all.
    hosts: HashMap<Host, Load, FixedState>,
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
            holding: ExpiringMap::new(usize::MAX, hasher.clone()),
            watched: VecDeque::new(),
            stuck: VecDeque::new(),
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
        let moments = [&self.watched, &self.stuck];
        let first = moments.into_iter().filter_map(|all| all.front().map(|(due, ..)| *due)).min();
        let tables = [self.table.poll_timeout(), self.openings.poll_timeout(), self.holding.poll_timeout()];
        tables.into_iter().chain([first]).flatten().min()
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
        let host = self.hosts.entry(Host::of(key.inside.0.ip())).or_default();
        for load in [&mut *host, &mut self.load] {
            load.bytes = (load.bytes + after.bytes).saturating_sub(before.bytes);
            load.held = (load.held + after.held).saturating_sub(before.held);
        }
        if *host == Load::default() {
            self.hosts.remove(&Host::of(key.inside.0.ip()));
        }
    }

    fn host(&self, key: &FlowKey) -> Load {
        self.hosts.get(&Host::of(key.inside.0.ip())).copied().unwrap_or_default()
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
            if direction == Direction::Outbound {
                self.ask_for_another_connection(key, uplink);
            }
            self.note_interfaces(&key, lan, uplink);
            return self.segment(now, packet, segment, key, direction);
        }
        match (opening_of(segment), segment.acknowledgment()) {
            (Some(opening), None) => self.stray_syn(now, packet, segment, opening),
            (Some(answer), Some(number)) => self.first_answer(now, packet, segment, answer, number),
            (None, _) => self.accept(packet.id, None, Reason::NotInspected),
        }
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
        let since = connection.half_mut(direction).take_held(packet.id);
        connection.acknowledge(segment, direction);
        if segment.rst() {
            return self.reset(now, packet, segment, key, direction);
        }
        if segment.urg() {
            self.let_go(key, "S2", "urgent data, of which nobody knows where it belongs");
        }
        self.carry(now, packet, segment, key, direction, since);
        self.check_end(now, key);
        self.connections.recount(&key);
    }

    fn half_of(&mut self, key: FlowKey, direction: Direction) -> Option<&mut Half> {
        self.connections.table.get_mut(&key).map(|connection| connection.half_mut(direction))
    }
}
