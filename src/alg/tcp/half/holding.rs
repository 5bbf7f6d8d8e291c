//! What is held, and what of it is owned: acknowledged before its receiver has it.
//!
//! It is only told here which segments wait and when their time has come; what goes on in their place is for
//! [`sending`](super::sending).

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

    /// Takes a segment out of those that are held; whether it was one.
    pub fn take_held(&mut self, packet: PacketId) -> bool {
        let before = self.held.len();
        self.held.retain(|held| held.packet != packet);
        self.held.len() < before
    }

    /// Keeps a segment from going on; `false`: too many are held.
    pub fn hold(&mut self, packet: PacketId, extent: Extent) -> bool {
        if self.held.len() >= MOST_HELD {
            return false;
        }
        self.held.push(Held { packet, from: extent.from, to: extent.to, asked: false });
        true
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
            && (anyway || self.pieces >= WINDOW * (self.spent + 1))
            && self.can_own();
        let last = self.held.iter().filter(|held| !held.asked && held.to > decided && held.to <= end);
        let packet = last.filter(|_| may).max_by_key(|held| held.to)?.packet;
        self.spent += 1;
        self.to_spend = Some(packet);
        self.to_spend
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
