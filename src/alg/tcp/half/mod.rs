//! One direction of a connection: from its sender's bytes to its receiver's.
//!
//! The sender counts in *original* positions, the receiver in those of the *wire*; [`EditMap`] leads from one to the
//! other up to `decided`. What lies behind that belongs to a message that is not complete: nobody can say yet how long it
//! will be, so the segments that carry it are held.
//!
//! Holding alone would be a deadlock: a sender that lost a later segment sends the first one again and again, and
//! nothing else, until that is acknowledged. So a segment that carries nothing new is turned into a probe, which the
//! receiver must answer, and in that answer what is here is acknowledged: those bytes are *owned*. The sender has
//! forgotten them then, so the receiver gets them from here, in the place of something that the sender repeats.
//!
//! Three marks are to be kept apart, all originals: `sent`, up to which bytes have really gone to the receiver, and which
//! stands at the cut of a segment that was cut; `owned`; and what the receiver has acknowledged. Bytes between `sent` and
//! `owned` go before anything else, because nobody but us can send them. (Taking the end of a cut segment for `sent` loses
//! its tail for good if the tail was owned.) The last bytes of a message are never owned before it is complete, so that
//! the sender always has something to repeat.
//!
//! What is owned is acknowledged beyond the receiver's word, so the window that goes with it keeps the receiver's edge: what
//! lies past it would be lost. A verdict is one packet, so nothing can be sent that the sender did not send. The bytes of a
//! segment that became a probe lag behind; they go along with others, in the margin that was left for growth, eleven
//! segments for one, or take the place of what comes later: of a bare acknowledgment, or of a segment of a message that is
//! not complete, whose bytes lag behind in turn ([`Half::makes_way`]). So nothing is sent before what stands before it.
//! Those segments are not owned for that, so at the end of everything its sender repeats what is still to be carried.
//!
//! What is owned may be lost behind us, and its sender would never know. It is sent again in the place of whatever passes
//! as soon as the receiver tells of a gap, once for each; after that whenever the sender repeats something. A sender that
//! repeats while others go in its place is told of a part of it, or it would wait twice as long each time.
//!
//! | module | what |
//! |---|---|
//! | [`holding`] | what waits, and what is acknowledged meanwhile |
//! | [`sending`] | what goes to the receiver in a segment's place |
//!
//! Nothing here reads SIP or builds a packet; of times only those are kept since when something waits.

mod holding;
mod sending;

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::buffer::Buffer;
use super::frame::LONGEST;
use super::map::{EditMap, FIRST, Position};
use crate::alg::io::PacketId;

/// Decided bytes that the receiver has not acknowledged are kept so far, to be compared with what is sent again.
const COMPARED: usize = LONGEST;
/// So often in a row a receiver that does not say what it has behind a gap says the same where something is lost, and not
/// only late (RFC 5681 section 3.2).
const DUPLICATES: u8 = 3;

/// One direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Half {
    /// Number of the SYN; the same in both forms.
    isn: u32,
    map: EditMap,
    /// What has come without a gap, as far as it is still needed.
    buffer: Buffer,
    /// Up to here the map is final. [`Position::MAX`]: everywhere, for nothing will be edited any more.
    decided: Position,
    /// Up to here bytes have gone to the receiver.
    sent: Position,
    /// Up to here we have acknowledged to the sender.
    owned: Position,
    /// Up to here the sender has sent, or was told that it may.
    top: Position,
    /// Where its FIN is, once it has gone to the receiver.
    fin: Option<Position>,
    /// What the receiver has acknowledged, on the wire.
    acked: Position,
    /// The last byte that the receiver has acknowledged, if it is known.
    #[serde(default)]
    last: Option<u8>,
    /// How far the receiver lets the sender go, on the wire.
    edge: Position,
    /// The receiver said again what it had said: something is missing.
    lacking: bool,
    /// How often in a row.
    #[serde(skip)]
    said_again: u8,
    /// Where the first thing begins that the receiver has behind what it lacks, as an original position.
    #[serde(skip)]
    gap: Position,
    /// How far what it lacks was sent again.
    #[serde(skip)]
    resent: Position,
    /// What had been sent when it was clear that something is lost. An acknowledgment of less tells of the next loss.
    #[serde(skip)]
    recovery: Position,
    /// By how many bits the receiver's windows are shifted.
    shift: u8,
    /// Largest payload that the receiver takes.
    room: usize,
    /// What went again last, and how often.
    repeated: (Position, u8),
    /// The latest timestamp that went to the receiver.
    stamp: Option<u32>,
    #[serde(skip)]
    held: Vec<Held>,
    /// So many undecided bytes are needed before there can be anything new to read.
    #[serde(skip)]
    pub needed: usize,
    /// How many segments have come of the next message.
    #[serde(skip)]
    pieces: usize,
    /// How many of them were acknowledged ahead of time.
    #[serde(skip)]
    spent: usize,
    /// A held segment that is to be spent when it is handed in again.
    #[serde(skip)]
    to_spend: Option<PacketId>,
    /// It is being watched whether the sender has stopped in the middle of a message.
    #[serde(skip)]
    pub watched: bool,
    /// It is being watched whether it has stopped for good, as far as patience goes.
    #[serde(skip)]
    pub stuck: bool,
    /// The next message is complete, and waits for the kernel.
    #[serde(skip)]
    pub waits: bool,
    /// The next message is complete, and the kernel refused what it needs: it is to pass as it came.
    #[serde(skip)]
    pub refused: bool,
    /// Since when segments are held without anything having been decided.
    #[serde(skip)]
    pub(super) stalled: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    packet: PacketId,
    from: Position,
    to: Position,
    since: Instant,
    /// It has been asked for.
    asked: bool,
}

/// A segment's place in the stream, in original positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its first byte.
    pub from: Position,
    /// Behind its last byte.
    pub to: Position,
    /// Whether a FIN follows.
    pub fin: bool,
}

/// What a segment brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Bytes, or a FIN, that are new and follow what was there.
    New,
    /// Nothing that was not there, or nothing at all.
    Old,
    /// Something is missing before it.
    Gap,
    /// More than the receiver has room for; or nothing that could be from its sender.
    Outside,
    /// Other bytes than the first time.
    Conflict,
}

/// What goes to the receiver in a segment's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// First byte, as an original position.
    pub from: Position,
    /// Behind the last one.
    pub to: Position,
    /// Whether the segment's own end is in it.
    pub whole: bool,
}

impl Half {
    /// A direction whose sender began with this number. The receiver takes segments of `room` bytes and, at first, a
    /// window of `window`; later ones are shifted by `shift` bits.
    pub fn new(isn: u32, room: usize, window: u16, shift: u8) -> Self {
        Self {
            isn,
            map: EditMap::default(),
            buffer: Buffer::new(FIRST),
            decided: FIRST,
            sent: FIRST,
            owned: FIRST,
            top: FIRST,
            fin: None,
            acked: FIRST,
            last: None,
            edge: FIRST + u64::from(window),
            lacking: false,
            said_again: 0,
            gap: FIRST,
            resent: FIRST,
            recovery: FIRST,
            shift,
            room,
            repeated: (FIRST, 0),
            stamp: None,
            held: Vec::new(),
            needed: 0,
            pieces: 0,
            spent: 0,
            to_spend: None,
            watched: false,
            stuck: false,
            waits: false,
            refused: false,
            stalled: None,
        }
    }

    /// Number of the SYN.
    pub fn isn(&self) -> u32 {
        self.isn
    }

    /// The place of a segment with this number.
    pub fn extent(&self, sequence: u32, length: usize, fin: bool) -> Extent {
        let from = unwrap(sequence, self.number(self.top), self.top);
        Extent { from, to: from + length as u64, fin }
    }

    /// The number of a position, in either form.
    pub fn number(&self, at: Position) -> u32 {
        self.isn.wrapping_add(1).wrapping_add((at.wrapping_sub(FIRST)) as u32)
    }

    /// Whether nothing of the stream has been decided.
    pub fn is_at_start(&self) -> bool {
        self.decided == FIRST
    }

    /// Whether messages are looked for.
    pub fn is_inspected(&self) -> bool {
        self.decided != Position::MAX
    }

    /// Whether nothing was changed, and nothing is to come from here.
    pub fn is_untouched(&self) -> bool {
        self.map.is_identity() && !self.owes()
    }

    /// Whether the sender keeps to the window that its receiver gives. It may have been told of a wider one, for a message
    /// that was waited for; what it says from beyond its receiver would not heed.
    pub fn is_within_window(&self) -> bool {
        self.map.wire(self.top) <= self.edge
    }

    /// Bytes that are kept.
    pub fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Takes in a segment's bytes. Only while messages are looked for.
    pub fn receive(&mut self, extent: Extent, bytes: &[u8]) -> News {
        let Extent { from, to, fin } = extent;
        let end = self.buffer.end();
        if from == to && !fin {
            return News::Old;
        }
        if to > end && to > self.limit() {
            return News::Outside;
        }
        if from > end {
            return News::Gap;
        }
        // What is kept of it from before must be the same.
        let known = self.buffer.get(from, to.min(end));
        let skip = self.buffer.start().saturating_sub(from) as usize;
        let again = bytes.get(skip..skip + known.len()).unwrap_or_default();
        if !known.is_empty() && known != again {
            return News::Conflict;
        }
        self.top = self.top.max(to);
        if to > end {
            self.pieces += 1;
            self.buffer.append(bytes.get((end - from) as usize..).unwrap_or_default());
            return News::New;
        }
        if fin && to == end && self.fin.is_none() { News::New } else { News::Old }
    }

    /// The furthest that the sender may send to, by what the receiver has told it.
    fn limit(&self) -> Position {
        let window = self.edge - self.acked;
        self.map.original(self.edge).max(self.owned + window)
    }

    /// The bytes whose form is not decided.
    pub fn undecided(&self) -> &[u8] {
        self.buffer.get(self.decided, self.buffer.end())
    }

    /// The next `length` of these bytes become what `edits` say: offset, length and new text of each, in order.
    pub fn decide<'a>(&mut self, length: usize, edits: impl Iterator<Item = (usize, usize, &'a [u8])>) {
        for (offset, len, text) in edits {
            self.map.push(self.decided + offset as u64, len, text);
        }
        self.decided += length as u64;
        (self.pieces, self.spent, self.to_spend, self.stalled) = (0, 0, None, None);
        self.tidy();
    }

    /// Looks for messages no longer.
    pub fn let_go(&mut self) {
        if self.is_inspected() {
            self.top = self.top.max(self.decided + self.needed as u64);
        }
        self.decided = Position::MAX;
    }

    /// Where what is decided ends.
    pub fn decided(&self) -> Position {
        self.decided
    }

    /// Whether a segment could go on: it is known what it becomes, and nothing is missing before it.
    pub fn is_decided(&self, extent: Extent) -> bool {
        extent.to <= self.decided && (extent.to <= self.buffer.end() || !self.is_inspected())
    }

    /// Where what has come ends.
    pub fn end(&self) -> Position {
        self.buffer.end()
    }

    /// What the receiver has, as an original position.
    fn una(&self) -> Position {
        self.map.original(self.acked)
    }

    /// Takes in what the receiver acknowledges, and its window. `bare`: the segment brings nothing else. `gap`: by so much
    /// what it has behind a gap begins later.
    pub fn acknowledge(&mut self, number: u32, window: u16, bare: bool, gap: Option<u32>) {
        let at = unwrap(number, self.number(self.acked), self.acked);
        let furthest = self.map.wire(self.sent) + u64::from(self.fin.is_some());
        if at < self.acked || at > furthest {
            return;
        }
        if at == self.acked {
            self.lacking |= bare && self.una() < self.owned.min(self.sent);
            self.said_again = self.said_again.saturating_add(u8::from(bare && gap.is_none()));
        } else {
            (self.lacking, self.said_again) = (false, 0);
            let fin = self.fin.is_some_and(|fin| at > self.map.wire(fin));
            let byte = self.map.at(at - 1 - u64::from(fin));
            self.last = byte.map_or_else(|at| self.buffer.get(at, at + 1).first().copied(), Some);
        }
        self.acked = at;
        // Without its word on what it has, by RFC 6582.
        let is_lost = match self.said_again {
            0 => self.una() < self.recovery,
            DUPLICATES => {
                self.recovery = self.sent;
                true
            }
            _ => false,
        };
        if let Some(gap) = gap.map(u64::from).or(is_lost.then_some(self.room as u64)) {
            self.gap = self.map.original(at + gap);
        }
        self.edge = self.edge.max(at + (u64::from(window) << self.shift));
        self.tidy();
    }

    /// The number that the sender gets to see for an acknowledgment; and, if it says more than the segment did, the window
    /// that belongs to it, as it is written. `carries`: the segment does not only acknowledge.
    ///
    /// A segment that was held says what others have overtaken, and a receiver drops bytes that come with a number too old
    /// (RFC 5961 section 5.2).
    pub fn acknowledgment(&self, number: u32, carries: bool) -> (u32, Option<u16>) {
        let said = unwrap(number, self.number(self.acked), self.acked);
        let at = if carries { said.max(self.acked) } else { said };
        let original = self.map.original(at);
        // An old one stays old.
        if original < self.owned && at >= self.acked {
            (self.number(self.owned), Some(self.raised_window()))
        } else {
            let open = (self.edge - self.acked) >> self.shift;
            let window = (at > said).then(|| u16::try_from(open).unwrap_or(u16::MAX));
            (self.number(original), window)
        }
    }

    /// The window that the sender gets to see where more was acknowledged than the receiver did, as it is written. Its edge
    /// stays, for what goes past it would be lost; but a message that is waited for has room here, and must come to its end.
    fn raised_window(&self) -> u16 {
        let incomplete = self.is_inspected() && self.needed > self.undecided().len();
        let rest =
            if incomplete { (self.decided + self.needed as u64).saturating_sub(self.owned) } else { 0 };
        let open = self.map.original(self.edge).saturating_sub(self.owned) >> self.shift;
        u16::try_from(open.max(rest.div_ceil(1 << self.shift))).unwrap_or(u16::MAX)
    }

    /// The number that the sender gets to see for an edge of a selective acknowledgment. A left edge goes behind a byte
    /// that has only arrived in part.
    pub fn edge(&self, number: u32, is_left: bool) -> u32 {
        let at = unwrap(number, self.number(self.acked), self.acked);
        let original = self.map.original(at);
        let partly = is_left && self.map.wire(original) < at;
        self.number(original + u64::from(partly))
    }

    /// Whether a number lies where the receiver would believe a RST.
    pub fn is_in_window(&self, extent: Extent) -> bool {
        extent.from >= self.una().min(self.sent) && extent.from <= self.limit()
    }

    /// Whether all that was sent has been acknowledged, the FIN included.
    pub fn is_finished(&self) -> bool {
        self.fin.is_some_and(|fin| self.acked > self.map.wire(fin))
    }

    /// Whether nothing of a message is here that is not complete.
    pub fn is_between_messages(&self) -> bool {
        self.decided >= self.buffer.end()
    }

    /// Forgets what is held, and the bytes in it, which the sender sends again; but not what is owned.
    pub fn rest(&mut self) {
        self.buffer.truncate(self.owned.max(self.decided));
        self.held.clear();
        (self.needed, self.waits, self.refused, self.stalled) = (0, false, false, None);
        (self.pieces, self.spent, self.to_spend) = (0, 0, None);
        (self.watched, self.stuck) = (false, false);
    }

    /// Notes how far the sender has gone, where it is not received.
    pub fn note_top(&mut self, to: Position) {
        self.top = self.top.max(to);
    }

    fn tidy(&mut self) {
        self.map.forget(self.acked);
        let una = self.una();
        let end = self.buffer.end();
        if !self.is_inspected() && !self.owes() {
            return self.buffer.trim(end);
        }
        let mut keep = una.min(self.decided);
        if !self.owes() {
            // Only to be compared with what comes again.
            let undecided = end.saturating_sub(self.decided.min(end));
            keep = keep.max(end.saturating_sub(undecided + COMPARED as u64)).min(self.decided);
        }
        self.buffer.trim(keep);
    }
}

/// The position near `reference`, whose number is `base`, that has this number.
fn unwrap(number: u32, base: u32, reference: Position) -> Position {
    reference.wrapping_add_signed(i64::from(number.wrapping_sub(base) as i32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_kept_is_not_owned() {
        // The receiver has room for a megabyte, and has acknowledged nothing of what is longer than what is kept.
        let mut half = Half::new(0, 1460, 1, 14);
        half.acknowledge(1, 64, false, None);
        let piece = vec![b'x'; 1000];
        let mut at = FIRST;
        let mut come = |half: &mut Half| {
            let extent = Extent { from: at, to: at + 1000, fin: false };
            at = extent.to;
            assert_eq!(half.receive(extent, &piece), News::New);
            extent
        };
        for _ in 0..100 {
            let extent = come(&mut half);
            half.decide(1000, std::iter::empty());
            assert!(half.load(extent, 0, 1460).is_some_and(|load| load.whole));
        }
        for number in 0..20 {
            let extent = come(&mut half);
            assert!(!half.spends());
            half.hold(PacketId(number), extent, None, Instant::now());
        }
        half.own();
        assert!(half.spend_held(false).is_none() && !half.owes());
        // Once the receiver has told of so much that the rest is here:
        half.acknowledge(1 + 90_000, 64, false, None);
        assert_eq!(half.spend_held(false), Some(PacketId(19)));
        half.own();
        assert!(half.owes());
    }
}
