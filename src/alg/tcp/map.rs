//! Where each byte of an edited stream is on the wire.
//!
//! A stream has two forms: what its sender wrote, and what its receiver gets. Edits, in order, say where they differ;
//! [`EditMap::wire`] and [`EditMap::original`] lead from positions of one to positions of the other. Both are monotone,
//! and neither ever changes for a position that has been asked for, so that a retransmission, however cut, becomes the
//! same bytes.
//!
//! Inside an edit the bytes go side by side for as long as both forms have some; the last byte of the shorter form stands
//! for the rest of the longer one. So no original byte is acknowledged before all that stands for it is, and the position
//! before the last one is never mapped behind it: a keep-alive stays one.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// A position in a stream, in bytes. The first byte behind the SYN is at [`FIRST`], so that what lies before it is a
/// number too.
pub type Position = u64;

/// The position of a stream's first byte.
pub const FIRST: Position = 1 << 32;

/// The edits of one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EditMap {
    /// What the edits that have been forgotten add up to.
    base: i64,
    /// By position, disjoint.
    edits: VecDeque<Edit>,
    /// Where the last edit that has been forgotten ended, in the original.
    #[serde(default)]
    settled: Position,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Edit {
    /// Position and length in the original.
    at: Position,
    len: u64,
    /// Position on the wire.
    new_at: Position,
    text: Box<[u8]>,
}

impl Edit {
    fn end(&self) -> Position {
        self.at + self.len
    }

    fn new_len(&self) -> u64 {
        self.text.len() as u64
    }

    fn new_end(&self) -> Position {
        self.new_at + self.new_len()
    }

    /// How many bytes of the text stand before the byte `k` of the original.
    fn before(&self, k: u64) -> u64 {
        if k < self.len { k.min(self.new_len().saturating_sub(1)) } else { self.new_len() }
    }
}

impl EditMap {
    /// Notes that `len` bytes at `at` become `text`: behind all edits so far. Neither may be empty.
    pub fn push(&mut self, at: Position, len: usize, text: &[u8]) {
        debug_assert!(self.edits.back().is_none_or(|last| last.end() <= at), "edits go in order");
        debug_assert!(len > 0 && !text.is_empty(), "bytes become other bytes");
        let new_at = self.wire(at);
        self.edits.push_back(Edit { at, len: len as u64, new_at, text: text.into() });
    }

    /// Where the original position `at` is on the wire.
    pub fn wire(&self, at: Position) -> Position {
        let index = self.edits.partition_point(|edit| edit.at <= at);
        match index.checked_sub(1).and_then(|index| self.edits.get(index)) {
            None => at.wrapping_add_signed(self.base),
            Some(edit) if at < edit.end() => edit.new_at + edit.before(at - edit.at),
            Some(edit) => edit.new_end() + (at - edit.end()),
        }
    }

    /// The original position that the wire position `at` stands for.
    pub fn original(&self, at: Position) -> Position {
        let index = self.edits.partition_point(|edit| edit.new_at <= at);
        match index.checked_sub(1).and_then(|index| self.edits.get(index)) {
            None => at.wrapping_sub(self.base as u64),
            Some(edit) if at < edit.new_end() => edit.at + (at - edit.new_at).min(edit.len.saturating_sub(1)),
            Some(edit) => edit.end() + (at - edit.new_end()),
        }
    }

    /// Forgets the edits that end at or before the wire position `acknowledged`. What is older than that is old for the
    /// receiver too, and stays so.
    pub fn forget(&mut self, acknowledged: Position) {
        while let Some(edit) = self.edits.front()
            && edit.new_end() <= acknowledged
        {
            self.base += edit.new_len() as i64 - edit.len as i64;
            self.settled = edit.end();
            self.edits.pop_front();
        }
    }

    /// Before this original position nobody can tell any more what the wire form is; its receiver has it all.
    pub fn settled(&self) -> Position {
        self.settled
    }

    /// What stands at a wire position: a byte of a text, or that of an original position.
    pub fn at(&self, at: Position) -> Result<u8, Position> {
        let index = self.edits.partition_point(|edit| edit.new_at <= at);
        let edit = index.checked_sub(1).and_then(|index| self.edits.get(index));
        let offset = |edit: &Edit| usize::try_from(at - edit.new_at).ok();
        match edit.and_then(|edit| edit.text.get(offset(edit)?)) {
            Some(byte) => Ok(*byte),
            None => Err(self.original(at)),
        }
    }

    /// Whether both forms are the same everywhere.
    pub fn is_identity(&self) -> bool {
        self.base == 0 && self.edits.is_empty()
    }

    /// The first position at or behind `at` where the wire form has gone on since `from`: the end of a stretch that is
    /// shorter on the wire.
    pub fn past(&self, from: Position, at: Position) -> Position {
        if self.wire(at) > self.wire(from) {
            return at;
        }
        let index = self.edits.partition_point(|edit| edit.at <= from);
        match index.checked_sub(1).and_then(|index| self.edits.get(index)) {
            Some(edit) if from < edit.end() => edit.end().max(at),
            Some(_) | None => at,
        }
    }

    /// The last position behind `from`, and not behind `to`, up to which no more than `room` bytes are on the wire; but at
    /// least one original byte, for what is less is never acknowledged.
    pub fn fitting(&self, from: Position, to: Position, room: usize) -> Position {
        let limit = self.wire(from) + room as u64;
        if self.wire(to) <= limit {
            return to;
        }
        // `original` may answer with a byte that has only begun to fit; the one after it is too much then.
        let cut = self.original(limit);
        let cut = if self.wire(cut) > limit { cut - 1 } else { cut };
        self.past(from, cut.max(from + 1)).min(to)
    }

    /// Appends the wire form of `[from, to)` to `out`; `source` gives original bytes of a range outside of all edits.
    pub fn image(
        &self,
        from: Position,
        to: Position,
        mut source: impl FnMut(Position, Position, &mut Vec<u8>),
        out: &mut Vec<u8>,
    ) {
        let mut at = from;
        let first = self.edits.partition_point(|edit| edit.end() <= from);
        for edit in self.edits.range(first..) {
            if edit.at >= to {
                break;
            }
            if at < edit.at {
                source(at, edit.at, out);
                at = edit.at;
            }
            let end = to.min(edit.end());
            let range = edit.before(at - edit.at) as usize..edit.before(end - edit.at) as usize;
            out.extend_from_slice(edit.text.get(range).unwrap_or_default());
            at = end;
        }
        if at < to {
            source(at, to, out);
        }
    }

    /// Number of edits that are remembered.
    pub fn len(&self) -> usize {
        self.edits.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"aaaaBBBccccDDDDDDeeeeFF";

    /// BBB becomes 1234567, DDDDDD becomes 89, FF becomes 0.
    fn map() -> EditMap {
        let mut map = EditMap::default();
        map.push(FIRST + 4, 3, b"1234567");
        map.push(FIRST + 11, 6, b"89");
        map.push(FIRST + 21, 2, b"0");
        map
    }

    fn image(map: &EditMap, from: u64, to: u64) -> String {
        let mut out = Vec::new();
        let source = |from: u64, to: u64, out: &mut Vec<u8>| {
            out.extend(&STREAM[(from - FIRST) as usize..(to - FIRST) as usize]);
        };
        map.image(FIRST + from, FIRST + to, source, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn positions_go_both_ways() {
        let map = map();
        let wire: Vec<u64> = (0..=23).map(|at| map.wire(FIRST + at) - FIRST).collect();
        let expected =
            [0, 1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 16, 16, 16, 16, 16, 17, 18, 19, 20, 21, 21, 22];
        assert_eq!(wire, expected);
        let original: Vec<u64> = (0..=22).map(|at| map.original(FIRST + at) - FIRST).collect();
        let expected = [0, 1, 2, 3, 4, 5, 6, 6, 6, 6, 6, 7, 8, 9, 10, 11, 12, 17, 18, 19, 20, 21, 23];
        assert_eq!(original, expected);
    }

    #[test]
    fn every_cut_gives_the_same_stream() {
        let map = map();
        let whole = "aaaa1234567cccc89eeee0";
        assert_eq!(image(&map, 0, 23), whole);
        for first in 0..=23 {
            for second in first..=23 {
                let parts = image(&map, 0, first) + &image(&map, first, second) + &image(&map, second, 23);
                assert_eq!(parts, whole, "{first} {second}");
                let length = map.wire(FIRST + second) - map.wire(FIRST + first);
                assert_eq!(image(&map, first, second).len() as u64, length);
            }
        }
    }

    #[test]
    fn no_byte_is_acknowledged_before_all_that_stands_for_it() {
        let map = map();
        for at in 0..=22 {
            assert!(map.wire(map.original(FIRST + at)) <= FIRST + at, "{at}");
        }
    }

    #[test]
    fn the_position_before_an_acknowledged_one_stays_before_it() {
        let map = map();
        for at in 0..=22 {
            let next = map.original(FIRST + at);
            assert!(map.wire(next - 1) < FIRST + at || at == 0, "{at}");
        }
    }

    #[test]
    fn what_is_forgotten_leaves_its_difference() {
        let mut small = map();
        small.forget(FIRST + 10);
        assert_eq!(small.len(), 3);
        small.forget(FIRST + 11);
        assert_eq!(small.len(), 2);
        for at in 7..=23 {
            assert_eq!(small.wire(FIRST + at), map().wire(FIRST + at));
        }
        for at in 0..7 {
            assert!(small.wire(FIRST + at) < FIRST + 11, "old is old");
        }
        small.forget(FIRST + 22);
        assert!(small.is_empty() && !small.is_identity());
        assert_eq!((small.wire(FIRST + 30), small.original(FIRST + 29)), (FIRST + 29, FIRST + 30));
    }

    #[test]
    fn what_stands_at_a_wire_position_is_told_as_long_as_its_form_is_known() {
        let mut map = map();
        let stands = |map: &EditMap, at| match map.at(FIRST + at) {
            Ok(byte) => byte,
            Err(at) => STREAM[(at - FIRST) as usize],
        };
        let wire: Vec<u8> = (0..22).map(|at| stands(&map, at)).collect();
        assert_eq!(String::from_utf8(wire).unwrap(), "aaaa1234567cccc89eeee0");
        assert_eq!(map.settled(), 0);
        map.forget(FIRST + 17);
        assert_eq!(map.settled(), FIRST + 17);
        assert_eq!(stands(&map, 17), b'e');
    }

    #[test]
    fn a_cut_fits_and_always_brings_something_that_can_be_acknowledged() {
        let map = map();
        for from in 0..23 {
            for to in from + 1..=23 {
                for room in 0..25 {
                    let cut = map.fitting(FIRST + from, FIRST + to, room);
                    assert!(cut > FIRST + from && cut <= FIRST + to);
                    let length = map.wire(cut) - map.wire(FIRST + from);
                    let least = map.past(FIRST + from, FIRST + from + 1).min(FIRST + to);
                    assert!(length <= room as u64 || cut == least, "{from} {to} {room}");
                }
            }
        }
        // All that fits, to the byte.
        assert_eq!(map.fitting(FIRST, FIRST + 23, 13), FIRST + 9);
        assert_eq!(map.fitting(FIRST, FIRST + 23, 10), FIRST + 6);
        assert_eq!(map.fitting(FIRST + 6, FIRST + 23, 1), FIRST + 7);
    }

    #[test]
    fn a_range_that_is_nothing_on_the_wire_is_widened() {
        let map = map();
        assert_eq!(map.past(FIRST + 13, FIRST + 15), FIRST + 17);
        assert_eq!(map.past(FIRST + 13, FIRST + 18), FIRST + 18);
        assert_eq!(map.past(FIRST + 1, FIRST + 2), FIRST + 2);
    }
}
