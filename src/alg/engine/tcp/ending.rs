//! How a connection ends: reset, finished, forgotten by conntrack, silent for too long; and what a restart makes of it.

use std::mem;
use std::time::{Duration, Instant};

use super::super::super::command::{FlowKey, Line, Op};
use super::super::super::flow::Direction;
use super::super::super::io::{PacketId, PacketIn, Tuples};
use super::super::super::tcp::connection::Load;
use super::super::super::tcp::map::Position;
use super::super::super::tcp::{Connection, Extent, Stage};
use super::super::super::verdict::Reason;
use super::super::flows::orient;
use super::super::{Engine, Queued};
use super::{FOLLOWED, Moments};
use crate::packet::Segment;

/// How long late segments of a finished connection are translated (2 × MSL, as conntrack has it).
const LINGER: Duration = Duration::from_secs(120);
/// The same after a reset.
const RESET: Duration = Duration::from_secs(10);

impl Engine {
    /// A RST goes on; if its receiver may believe it, all is over.
    pub(super) fn reset(
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

    pub(super) fn finish(&mut self, now: Instant, key: FlowKey, linger: Duration) {
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
    pub(super) fn check_end(&mut self, now: Instant, key: FlowKey) {
        let Some(connection) = self.connections.table.get(&key) else { return };
        match connection.stage {
            Stage::Open if connection.is_needless() => drop(self.take_connection(&key, true)),
            Stage::Open if connection.is_finished() => self.finish(now, key, LINGER),
            // One end has not heard that it is over.
            Stage::Closed if connection.is_finished() => {
                self.connections.table.set_deadline(&key, now + LINGER);
            }
            Stage::Opening(_) | Stage::Open | Stage::Closed => {}
        }
    }

    /// Forgets a connection. Its held segments come again as those of one that is not known.
    pub(super) fn take_connection(&mut self, key: &FlowKey, unfollow: bool) -> Option<Connection> {
        let mut connection = self.connections.table.remove(key)?;
        self.connections.count(key, connection.counted, Load::default());
        for direction in [Direction::Outbound, Direction::Inbound] {
            self.outputs.extend(connection.half_mut(direction).drop_held().map(Queued::Again));
            self.connections.holding.remove(&(*key, direction));
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
    pub(in super::super) fn reconcile_connections(&mut self, followed: &[Line]) {
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

    /// A connection's conntrack entry is gone, and with it what its NAT was. If both ends still speak by numbers that are
    /// not each other's, nothing of it may pass: the NAT may well choose the same port again.
    pub(in super::super) fn connection_destroyed(&mut self, tuples: &Tuples) {
        let (key, public) = orient(tuples);
        let Some(connection) = self.connections.table.get(&key).filter(|it| it.public == public) else {
            return;
        };
        if connection.is_translated() {
            self.cut_connection(&key);
        } else {
            self.take_connection(&key, true);
        }
    }

    /// Nobody can carry it on: both ends get a reset.
    pub(in super::super) fn cut_connection(&mut self, key: &FlowKey) {
        let line = self.take_connection(key, false).and_then(|it| it.line(key));
        if let Some(line) = line {
            self.background(Op::Reset { line }, "reset");
        }
    }

    pub(in super::super) fn expire_connections(&mut self, now: Instant) {
        while self.connections.openings.pop_expired(now).is_some() {}
        while let Some(((key, direction), ())) = self.connections.holding.pop_expired(now) {
            self.impatient(now, key, direction);
        }
        while let Some((key, direction, end)) = pop_due(&mut self.connections.watched, now) {
            self.look_again(now, key, direction, end);
        }
        while let Some((key, direction, end)) = pop_due(&mut self.connections.stuck, now) {
            self.look_once_more(now, key, direction, end);
        }
        while let Some(key) = self.connections.table.peek_expired(now) {
            let Some(connection) = self.connections.table.get_mut(&key) else { break };
            let is_alive = connection.stage == Stage::Open && mem::take(&mut connection.active);
            let line = connection.line(&key);
            self.connections.table.set_deadline(&key, now + FOLLOWED / 2);
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
}

fn pop_due(moments: &mut Moments, now: Instant) -> Option<(FlowKey, Direction, Position)> {
    moments.front().filter(|(due, ..)| *due <= now)?;
    moments.pop_front().map(|(_, key, direction, at)| (key, direction, at))
}
