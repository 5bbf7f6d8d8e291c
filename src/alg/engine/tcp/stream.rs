//! What a segment brings: read, held, let go.
//!
//! The order matters: first what is new is read, as far as messages are complete; then it is known whether the segment may
//! go on, and what of the held ones goes before it.

use std::mem;
use std::time::{Duration, Instant};

use super::super::super::command::{CommandId, Failure, FlowKey};
use super::super::super::event::Event;
use super::super::super::flow::Direction;
use super::super::super::io::PacketIn;
use super::super::super::policy::OnFailure;
use super::super::super::tcp::frame::{self, Foreign, Frame};
use super::super::super::tcp::map::Position;
use super::super::super::tcp::{Extent, News};
use super::super::super::verdict::Reason;
use super::super::message::Outcome;
use super::super::{Engine, Queued};
use crate::packet::Segment;

/// A sender from which nothing more has come for so long waits for an acknowledgment: less than any retransmission timeout.
const STOPPED: Duration = Duration::from_millis(30);
/// Longer than the timeout of a sender that has not lost several segments in a row.
const BACKED_OFF: Duration = Duration::from_secs(3);

impl Engine {
    pub(super) fn carry(
        &mut self,
        now: Instant,
        packet: &PacketIn<'_>,
        segment: &Segment<'_>,
        key: FlowKey,
        direction: Direction,
        since: Option<Instant>,
    ) {
        let Some(connection) = self.connections.table.get_mut(&key) else {
            return self.outputs.push_back(Queued::Again(packet.id));
        };
        let was_held = since.is_some();
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
            News::Gap => return self.hold(now, packet, key, extent, direction, since),
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
        let is_to_spend = half.is_to_spend(packet.id);
        if half.is_decided(extent) {
            if half.goes_after_others(extent) {
                self.hold(now, packet, key, extent, direction, since);
            } else {
                self.pass(packet, segment, key, extent, direction);
            }
        } else if news == News::New && !was_held && !extent.fin && half.makes_way() {
            self.pass(packet, segment, key, extent, direction);
        } else if is_to_spend || (news == News::New && !was_held && !extent.fin && half.spends()) {
            half.own();
            self.probe(packet, segment, key, direction);
        } else if was_held || news == News::New {
            self.hold(now, packet, key, extent, direction, since);
            self.look_later(now, key, direction);
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

    /// Holds a segment if there is room, or goes on doing so; if not it is dropped, and sent again.
    fn hold(
        &mut self,
        now: Instant,
        packet: &PacketIn<'_>,
        key: FlowKey,
        extent: Extent,
        direction: Direction,
        since: Option<Instant>,
    ) {
        let limits = self.policy.limits;
        let (host, all) = (self.connections.host(&key).held, self.connections.load.held);
        let full = host >= limits.tcp_held_per_host || all >= limits.tcp_held;
        let Some(half) = self.half_of(key, direction) else {
            return self.accept(packet.id, None, Reason::NotInspected);
        };
        if full || !half.hold(packet.id, extent, since, now) {
            return self.drop_packet(packet.id, Reason::TableFull);
        }
        self.connections.recount(&key);
        self.watch(now, key, direction);
    }

    /// Sees to it that nothing is held for ever.
    fn watch(&mut self, now: Instant, key: FlowKey, direction: Direction) {
        let patience = self.policy.tcp_patience;
        let due = self.half_of(key, direction).and_then(|half| half.watch(now, patience));
        if let Some(due) = due.filter(|_| self.connections.holding.get(&(key, direction)).is_none()) {
            let _ = self.connections.holding.insert((key, direction), (), due);
        }
    }

    /// Reads what has come, as far as it is complete.
    pub(super) fn read_stream(&mut self, now: Instant, key: FlowKey, direction: Direction) {
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
                Frame::Message(length) | Frame::Begun(length) => {
                    let message = rest.get(..length).unwrap_or(rest);
                    let refused =
                        self.half_of(key, direction).is_some_and(|half| mem::take(&mut half.refused));
                    let outcome = if refused {
                        Outcome::Accept(Reason::CommandFailed)
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
        match foreign {
            Some(why) => self.leave_stream(key, direction, why),
            None => self.watch(now, key, direction),
        }
    }

    /// S11: nobody keeps more bytes here than his share.
    pub(super) fn check_share(&mut self, key: &FlowKey) {
        self.connections.recount(key);
        let (host, all, limits) = (self.connections.host(key), self.connections.load, self.policy.limits);
        if host.bytes > limits.tcp_bytes_per_host || all.bytes > limits.tcp_bytes {
            self.let_go(*key, "S11", "too many bytes of incomplete messages");
        }
    }

    /// A stream says something that is not SIP.
    pub(super) fn leave_stream(&mut self, key: FlowKey, direction: Direction, why: Foreign) {
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
    pub(super) fn finish_stream(&mut self, key: FlowKey, direction: Direction) {
        if self.half_of(key, direction).is_some_and(|half| !half.waits && !half.is_between_messages()) {
            self.let_go(key, "", "");
        }
    }

    /// From now on only the connection's numbers are translated. If they need not be, it is forgotten with the last held
    /// segment.
    pub(super) fn let_go(&mut self, key: FlowKey, rule: &'static str, why: &'static str) {
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
    pub(super) fn let_due_go(&mut self, key: FlowKey, direction: Direction) {
        let mut due = Vec::new();
        if let Some(half) = self.half_of(key, direction) {
            half.release(&mut due);
        }
        self.outputs.extend(due.into_iter().map(Queued::Again));
    }

    /// A command is done: messages that waited for nothing else are read.
    pub(in super::super) fn resume_all(&mut self, now: Instant, id: CommandId, failure: Option<Failure>) {
        let mut released = Vec::new();
        self.connections.stalled.done(id, failure, |it| released.push(it));
        for it in released {
            let (key, direction) = it.packet;
            self.resume(now, key, direction, it.failure);
        }
    }

    /// What a message waited for is done.
    pub(super) fn resume(
        &mut self,
        now: Instant,
        key: FlowKey,
        direction: Direction,
        failure: Option<Failure>,
    ) {
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

    /// Looks in a moment whether a sender has stopped in the middle of a message.
    pub(super) fn look_later(&mut self, now: Instant, key: FlowKey, direction: Direction) {
        let Some(half) = self.half_of(key, direction) else { return };
        if !mem::replace(&mut half.watched, true) {
            let end = half.end();
            self.connections.watched.push_back((now + STOPPED, key, direction, end));
        }
    }

    /// The moment is over. A sender that waits for an acknowledgment gets one.
    pub(super) fn look_again(&mut self, now: Instant, key: FlowKey, direction: Direction, end: Position) {
        let Some(half) = self.half_of(key, direction) else { return };
        half.watched = false;
        if !half.holds_a_part() {
            return;
        }
        if half.end() != end {
            self.look_later(now, key, direction);
        } else if let Some(packet) = half.spend_held(false) {
            self.outputs.push_back(Queued::Again(packet));
        } else if !mem::replace(&mut half.stuck, true) {
            self.connections.stuck.push_back((now + BACKED_OFF, key, direction, end));
        }
    }

    /// The sender has not even repeated anything for long: its timeout has grown in an outage, perhaps beyond all patience.
    pub(super) fn look_once_more(&mut self, now: Instant, key: FlowKey, direction: Direction, end: Position) {
        let Some(half) = self.half_of(key, direction) else { return };
        let came = half.end();
        half.stuck = half.holds_a_part() && came != end;
        if half.stuck {
            self.connections.stuck.push_back((now + BACKED_OFF, key, direction, came));
        } else if half.holds_a_part()
            && let Some(packet) = half.spend_held(true)
        {
            self.outputs.push_back(Queued::Again(packet));
        }
    }

    /// Something may have been held for as long as may be.
    pub(super) fn impatient(&mut self, now: Instant, key: FlowKey, direction: Direction) {
        let patience = self.policy.tcp_patience;
        let Some(half) = self.half_of(key, direction) else { return };
        // What is dropped its sender has still: it comes again.
        let dropped = if !half.is_stalled(now, patience) {
            half.drop_overdue(now, patience)
        } else if half.is_between_messages() {
            // Only what lies behind a gap is held.
            half.drop_held().collect()
        } else {
            return self.let_go(key, "S2", "a message in a TCP stream was not complete in time");
        };
        self.connections.recount(&key);
        for id in dropped {
            self.drop_packet(id, Reason::Segment);
        }
        self.watch(now, key, direction);
    }
}
