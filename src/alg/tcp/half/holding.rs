//! What is held, and what of it is owned: acknowledged before its receiver has it.
//!
//! It is only told here which segments wait and when their time has come; what goes on in their place is for
//! [`sending`](super::sending).

use std::time::{Duration, Instant};

use super::super::map::Position;
use super::{Extent, Half, Held};
use crate::alg::io::PacketId;

/// Most segments that are held.
const MOST_HELD: usize = 160;
/// Segments that a sender sends before anything is acknowledged (RFC 6928).
const WINDOW: usize = 10;

impl Half {
    /// Segments that are held.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether segments are held because their message is not complete.
    pub fn holds_a_part(&self) -> bool {
        self.is_inspected() && !self.held.is_empty() && !self.is_between_messages()
    }

    /// Takes a segment out of those that are held; since when it was.
    pub fn take_held(&mut self, packet: PacketId) -> Option<Instant> {
        let place = self.held.iter().position(|held| held.packet == packet)?;
        Some(self.held.remove(place).since)
    }

    /// Keeps a segment from going on; `since`: it goes on doing so. `false`: too many are held.
    pub fn hold(&mut self, packet: PacketId, extent: Extent, since: Option<Instant>, now: Instant) -> bool {
        if self.held.len() >= MOST_HELD {
            return false;
        }
        if self.held.is_empty() && since.is_none() {
            self.stalled = None;
        }
        let (Extent { from, to, .. }, since) = (extent, since.unwrap_or(now));
        self.held.push(Held { packet, from, to, since, asked: false });
        true
    }

    /// When patience with what is held, and has not been asked for, comes to its end; `None`: there is nothing. It lasts
    /// twice as long for a segment as it does for the next bytes to be decided.
    pub fn watch(&mut self, now: Instant, patience: Duration) -> Option<Instant> {
        let oldest = self.held.iter().filter(|held| !held.asked).map(|held| held.since).min()?;
        Some((*self.stalled.get_or_insert(now) + patience).min(oldest + 2 * patience))
    }

    /// Whether segments have been held for all of `patience` without anything having been decided.
    pub fn is_stalled(&self, now: Instant, patience: Duration) -> bool {
        let is_over = |since| now.saturating_duration_since(since) >= patience;
        !self.held.is_empty() && self.stalled.is_some_and(is_over)
    }

    /// The segments that have been held for twice as long as that, though others were decided meanwhile. They are not held
    /// any longer.
    pub fn drop_overdue(&mut self, now: Instant, patience: Duration) -> Vec<PacketId> {
        let is_over = |held: &mut Held| now.saturating_duration_since(held.since) >= 2 * patience;
        self.held.extract_if(.., |held| !held.asked && is_over(held)).map(|held| held.packet).collect()
    }

    /// Whether a segment must wait because others, which are held or have been asked for, go before it.
    pub fn goes_after_others(&self, extent: Extent) -> bool {
        self.held.iter().any(|held| held.from < extent.from && self.is_due(held))
    }

    /// Whether all of a segment is held already, behind a gap.
    pub fn is_held(&self, extent: Extent) -> bool {
        self.held.iter().any(|held| held.from <= extent.from && extent.to <= held.to)
    }

    pub(super) fn is_due(&self, held: &Held) -> bool {
        let follows = held.from <= self.buffer.end();
        !self.is_inspected() || (follows && (held.to <= self.decided || held.to > self.buffer.end()))
    }

    /// The held segments whose time has come, in the order of the stream; each is named once.
    pub fn release(&mut self, out: &mut Vec<PacketId>) {
        self.held.sort_by_key(|held| (held.from, held.to));
        for index in 0..self.held.len() {
            let Some(held) = self.held.get(index).copied() else { break };
            if !held.asked && self.is_due(&held) {
                out.push(held.packet);
                if let Some(held) = self.held.get_mut(index) {
                    held.asked = true;
                }
            }
        }
    }

    /// All held segments that have not been asked for, in the order of the stream. None is held any longer.
    pub fn drop_held(&mut self) -> impl Iterator<Item = PacketId> {
        self.held.sort_by_key(|held| (held.from, held.to));
        std::mem::take(&mut self.held).into_iter().filter(|held| !held.asked).map(|held| held.packet)
    }

    /// Whether a new segment of a message that is not complete should not be held, but owned and spent for a probe: so many
    /// are held by now that the sender's window may be full, and only an acknowledgment, or a timeout, makes it go on. The
    /// bytes of what is spent go along with others, which have room to grow; so it is done as rarely as possible.
    pub fn spends(&mut self) -> bool {
        // A sender that begins doubles its window with each acknowledgment of a full one.
        let windows = (1usize << (self.spent + 1).min(16)) - 1;
        let is_time = !self.waits && self.held.len() + 1 >= WINDOW * windows && self.can_own();
        self.spent += usize::from(is_time);
        is_time
    }

    /// The sender has stopped in the middle of a message: the held segment that is to be spent for an acknowledgment, so
    /// that it goes on before its timeout. Only as often as the others have room for the bytes; or if it is to be done
    /// `anyway`, because the timeout is too far away.
    pub fn spend_held(&mut self, anyway: bool) -> Option<PacketId> {
        let (end, decided) = (self.buffer.end(), self.decided);
        let may = !self.waits
            && end > decided
            && self.owned < end
            && (anyway || self.has_gap() || self.pieces >= WINDOW * (self.spent + 1))
            && self.can_own();
        let last = self.held.iter().filter(|held| !held.asked && held.to > decided && held.to <= end);
        let packet = last.filter(|_| may).max_by_key(|held| held.to)?.packet;
        self.spent += 1;
        self.to_spend = Some(packet);
        self.to_spend
    }

    /// Whether something is missing before a segment that is held: its sender has lost it, and repeats what follows, too.
    fn has_gap(&self) -> bool {
        self.held.iter().any(|held| held.from > self.buffer.end())
    }

    /// Whether this segment is the one that is to be spent. It is so once.
    pub fn is_to_spend(&mut self, packet: PacketId) -> bool {
        self.to_spend.take_if(|it| *it == packet).is_some()
    }

    /// Acknowledges to the sender all that has come. Not for a message that is complete; and not while something that the
    /// receiver has not acknowledged is not here any more, for then only the sender can send that again.
    pub fn own(&mut self) {
        if self.can_own() {
            self.owned = self.owned.max(self.buffer.end());
        }
    }

    /// Acknowledges a part of what the sender repeats while others go in its place, for if it were told of nothing new, it
    /// would wait twice as long each time: so much that it comes as often as it is needed.
    pub(super) fn own_carrier(&mut self, to: Position) {
        if !self.waits && to <= self.buffer.end() && self.can_own() {
            let needed = (self.owned - self.una()) / self.room as u64 + 2;
            let part = ((to - self.owned) / needed).max(1);
            self.owned = (self.owned + part).min(to - 1).max(self.owned);
        }
    }

    fn can_own(&self) -> bool {
        self.buffer.start() <= self.una()
    }

    /// Whether bytes that only we have are still to arrive.
    pub fn owes(&self) -> bool {
        self.owned > self.una()
    }
}
