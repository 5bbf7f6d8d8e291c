//! How a connection begins: its SYN on its two trips, and the SYN/ACK.
//!
//! A SYN that source NAT changes begins inside, and its mapping is seen at once. Any other begins outside, or is routed: it
//! is kept until the SYN/ACK passes, when conntrack knows. Nothing that vouches for its own bytes is taken up.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::super::super::command::{CommandId, Failure, FlowKey, Line, Op};
use super::super::super::endpoint::Outside;
use super::super::super::flow::{Direction, Mapping};
use super::super::super::guard;
use super::super::super::io::{PacketId, PacketIn};
use super::super::super::learning::Learner;
use super::super::super::tcp::connection::{Following, reverse};
use super::super::super::tcp::{Connection, Opening, Stage};
use super::super::super::verdict::Reason;
use super::super::commands::Inflight;
use super::super::{Engine, Queued};
use super::FOLLOWED;
use super::{key_of, opening_of, tcp_key};
use crate::packet::{Segment, TooLarge};

/// A SYN that nobody answers is over.
const OPENING: Duration = Duration::from_secs(120);
const SYN_DOMAIN: u8 = b's';

impl Engine {
    /// A SYN before the NAT: it gets a token and goes on.
    pub(super) fn new_connection(&mut self, now: Instant, packet: &PacketIn<'_>, segment: &Segment<'_>) {
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
    pub(super) fn learn_connection(&mut self, now: Instant, packet: &PacketIn<'_>, segment: &Segment<'_>) {
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
    pub(super) fn is_served(&self, far: SocketAddr) -> bool {
        guard::is_allowed_server(&self.policy, far.ip()) && !guard::is_hands_off(&self.policy, far.ip())
    }

    /// A connection begins, or its SYN is repeated. `None`: there is no room.
    pub(super) fn begin(
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
    pub(in super::super) fn followed(&mut self, id: CommandId, key: FlowKey, failure: Option<Failure>) {
        let Some(connection) = self.connections.table.get_mut(&key) else { return };
        if connection.following != Following::Asked(id) {
            return;
        }
        connection.following = Following::Yes;
        if failure.is_some() {
            self.take_connection(&key, false);
        }
    }

    /// A SYN of an entry that conntrack knows and we do not: repeated, or of a phone that lost its power.
    pub(super) fn stray_syn(
        &mut self,
        now: Instant,
        packet: &PacketIn<'_>,
        segment: &Segment<'_>,
        opening: Opening,
    ) {
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
    pub(super) fn first_answer(
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
                Some(Mapping::Unknown | Mapping::Moved(_)) | None => continue,
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

    /// A SYN or SYN/ACK of a known connection.
    pub(super) fn synchronise(
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
    pub(super) fn answered(
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

    /// Lets a SYN go on with its identity given back and its MSS lowered.
    pub(super) fn relabel(
        &mut self,
        packet: PacketId,
        segment: &Segment<'_>,
        identity: Option<u32>,
        opening: &Opening,
    ) {
        let mut bytes = self.spare_bytes();
        match segment.relabel(identity, opening.lowered(), &mut bytes) {
            Ok(()) => {
                self.stats.count(Reason::Segment);
                self.outputs.push_back(Queued::Replace { packet, bytes, reason: Reason::Segment });
            }
            Err(TooLarge) => self.accept(packet, identity, Reason::EditFailed),
        }
    }
}
