//! What goes to the receiver in a segment's place: its own bytes, what lags behind, or what was lost.
//!
//! The order is always that of the stream: first what the receiver lacks and only we have, then what it has not been sent,
//! then the segment's own. What the segment is written with, its number and its timestamp, is told here too.

use super::super::map::Position;
use super::{Extent, Half, Load};

/// By so much a timestamp may lie behind another: for a minute, if its clock ticks in microseconds. What seems to lie
/// further behind is further ahead.
const CLOCK: u32 = 1 << 26;
/// A segment that was sent again so often has never arrived: it is not made longer than its sender made it.
const TRIES: u8 = 2;
/// What fits through any path (RFC 1122 section 4.2.2.6).
const ANYWHERE: usize = 536;

impl Half {
    /// What goes in the place of a segment with `options` bytes of TCP options, whose path takes `room` bytes of payload.
    /// `None`: its receiver has had all of it for so long that its form has been forgotten. It is to be told again that it
    /// has arrived; as it came it would be another text than the one that was sent.
    pub fn load(&mut self, extent: Extent, options: usize, room: usize) -> Option<Load> {
        let Extent { from, to, fin } = extent;
        let own = (to - from) as usize;
        let mut room = room.min(self.room.saturating_sub(options)).max(own).max(1);
        let to = to.min(self.decided).max(from);
        // What is here, with the segment's own bytes if they follow.
        let kept = self.buffer.end().min(self.decided);
        let here = if from <= kept { kept.max(to) } else { kept };
        let (una, passed) = (self.una(), self.owned.min(self.sent));
        let is_again = from < to && to <= self.sent;
        let lost = self.lost();
        let (start, end) = if let Some(range) = lost {
            // The receiver keeps what it has behind that from everybody.
            range
        } else if self.lags_behind(from) {
            // Its receiver has not got what stands before it: bytes that only we have, or the end of what was cut.
            (self.sent, if self.sent == from && from < to { to } else { here })
        } else if una < passed && (is_again || (from == to && self.lacking)) {
            // They were sent, and seem to be lost.
            self.lacking = false;
            (una, here.min(self.sent))
        } else if self.map.settled().max(from) < to {
            (self.map.settled().max(from), to)
        } else if from < to && !fin {
            return None;
        } else {
            // For the receiver nothing behind what went to it has been sent.
            let at = to.min(self.sent + u64::from(self.fin.is_some()));
            return Some(Load { from: at, to: at, whole: self.fits_whole(extent, at) });
        };
        if from < to && start < self.sent {
            let count = if self.repeated.0 == start { self.repeated.1.saturating_add(1) } else { 1 };
            self.repeated = (start, count);
            if count > TRIES {
                // The path may be narrower than both ends say; what the sender makes fits, by its own experience.
                room = if start == from { own } else { own.max(ANYWHERE) };
            }
        }
        let cut = self.map.fitting(start, self.map.past(start, end), room);
        if start < passed {
            self.resent = self.resent.max(cut.min(passed));
        }
        if (from..to).contains(&self.owned) && cut <= from {
            self.own_carrier(to);
        }
        self.sent = self.sent.max(cut);
        Some(Load { from: start, to: cut, whole: self.fits_whole(extent, cut) })
    }

    /// Whether a new segment of a message that is not complete should go to the receiver in the place of what lags behind.
    /// The sender has more to send, and what the segment brings goes with that.
    pub fn makes_way(&self) -> bool {
        let is_on_its_way = self.held.iter().any(|held| self.is_due(held));
        !self.waits && !is_on_its_way && (self.lags_behind(Position::MAX) || self.lost().is_some())
    }

    /// Whether there is something decided that has not been sent.
    pub fn has_unsent(&self) -> bool {
        self.sent < self.decided.min(self.buffer.end())
    }

    /// What only we have, was sent, and is lost by what the receiver says: as far as it was not sent again since.
    fn lost(&self) -> Option<(Position, Position)> {
        let (from, to) = (self.una().max(self.resent), self.gap.min(self.owned).min(self.sent));
        (from < to && self.buffer.start() <= from).then_some((from, to))
    }

    /// Whether bytes that are here go to the receiver before those at `from`.
    fn lags_behind(&self, from: Position) -> bool {
        let first = self.owned.max(from).min(self.decided).min(self.buffer.end());
        self.sent < first && self.buffer.start() <= self.sent
    }

    /// Whether a load that ends at `end` has the segment's own end, and so its FIN, which is noted.
    fn fits_whole(&mut self, extent: Extent, end: Position) -> bool {
        if !extent.fin {
            return end == extent.to;
        }
        let fits = end == extent.to && self.sent >= extent.to;
        if fits {
            self.fin = Some(extent.to);
        }
        fits
    }

    /// The timestamp that goes to the receiver with a segment that has this one. A segment that was held goes after others
    /// that came later; with the older timestamp its receiver would drop it (PAWS, RFC 7323 section 5).
    pub fn restamp(&mut self, stamp: Option<u32>) -> Option<u32> {
        let newest = match (stamp, self.stamp) {
            (Some(new), Some(last)) if (1..CLOCK).contains(&last.wrapping_sub(new)) => last,
            (new, _) => new?,
        };
        self.stamp = Some(newest);
        self.stamp
    }

    /// Number on the wire of a load's first byte, or of its FIN. One with neither keeps within the receiver's window:
    /// growth may have gone past it.
    pub fn wire_number(&self, load: Load, fin: bool) -> u32 {
        let at = self.map.wire(load.from);
        let is_bare = load.from == load.to && !(fin && load.whole);
        self.number(if is_bare && self.acked < at { at.min(self.edge.max(self.acked)) } else { at })
    }

    /// How many bytes a load is on the wire.
    pub fn wire_length(&self, load: Load) -> usize {
        (self.map.wire(load.to) - self.map.wire(load.from)) as usize
    }

    /// Appends the wire form of a load; `own` are the segment's own bytes.
    pub fn image(&self, load: Load, extent: Extent, own: &[u8], out: &mut Vec<u8>) {
        let source = |from: Position, to: Position, out: &mut Vec<u8>| {
            let kept = if from >= self.buffer.start() { self.buffer.get(from, to) } else { &[] };
            out.extend_from_slice(kept);
            let from = from + kept.len() as u64;
            let offset = |at: Position| at.saturating_sub(extent.from) as usize;
            out.extend_from_slice(own.get(offset(from)..offset(to)).unwrap_or_default());
        };
        self.map.image(load.from, load.to, source, out);
    }

    /// Number of the last byte that the receiver has acknowledged, and the byte, if it is known: what a probe repeats.
    pub fn probe(&self) -> (u32, Option<u8>) {
        (self.number(self.acked - 1 - u64::from(self.is_finished())), self.last)
    }
}
