//! Positions in a byte buffer.
//!
//! A [`Span`] is a half-open range of byte offsets. It carries no reference, so that a parsed message can be
//! kept apart from its bytes and re-used for the next one. It does not know what the bytes mean, and it never
//! indexes: [`Span::of`] answers with an empty slice when the span does not fit its buffer.

use std::ops::Range;

/// A half-open range `start..end` of byte offsets into some buffer of less than 4 GiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Offset after the last byte; never before `start`.
    pub end: u32,
}

impl Span {
    /// The span `start..end`; empty at `start` when `end` lies before it. Offsets past 4 GiB saturate.
    pub fn new(start: usize, end: usize) -> Self {
        let start = u32::try_from(start).unwrap_or(u32::MAX);
        let end = u32::try_from(end).unwrap_or(u32::MAX);
        Self { start, end: end.max(start) }
    }

    /// The bytes of `buffer` that this span names; empty if the span does not fit.
    pub fn of(self, buffer: &[u8]) -> &[u8] {
        buffer.get(self.range()).unwrap_or_default()
    }

    /// The span as a range of `usize`.
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// Number of bytes.
    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether the span names no byte at all.
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// The same bytes seen from a buffer that begins `offset` bytes earlier.
    #[must_use]
    pub fn shifted(self, offset: usize) -> Self {
        Self::new(self.start as usize + offset, self.end as usize + offset)
    }

    /// The smallest span that holds both.
    #[must_use]
    pub fn to(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_outside_its_buffer_is_empty_bytes() {
        assert_eq!(Span::new(2, 4).of(b"abcdef"), b"cd");
        assert_eq!(Span::new(4, 9).of(b"abcdef"), b"");
        assert_eq!(Span::new(5, 2), Span { start: 5, end: 5 });
    }

    #[test]
    fn shifting_and_joining() {
        assert_eq!(Span::new(1, 3).shifted(10), Span::new(11, 13));
        assert_eq!(Span::new(1, 3).to(Span::new(7, 9)), Span::new(1, 9));
    }
}
