//! The last bytes of a stream, by position.
//!
//! Contiguous, so that a message in it is a slice. It decides nothing about what is kept; see [`super::half`].

use serde::{Deserialize, Serialize};

use super::map::Position;

/// Bytes from [`Buffer::start`] to [`Buffer::end`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buffer {
    start: Position,
    /// How many at the front are no longer part of it.
    gone: usize,
    bytes: Vec<u8>,
}

impl Buffer {
    /// An empty one that goes on at `start`.
    pub fn new(start: Position) -> Self {
        Self { start, gone: 0, bytes: Vec::new() }
    }

    /// Position of the first byte.
    pub fn start(&self) -> Position {
        self.start
    }

    /// Position behind the last byte.
    pub fn end(&self) -> Position {
        self.start + self.len() as u64
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.gone
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of a range, as far as they are here.
    pub fn get(&self, from: Position, to: Position) -> &[u8] {
        let offset = |at: Position| at.clamp(self.start, self.end()).saturating_sub(self.start) as usize;
        self.bytes.get(self.gone + offset(from)..self.gone + offset(to)).unwrap_or_default()
    }

    /// Puts bytes behind the last one.
    pub fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Forgets all before `at`.
    pub fn trim(&mut self, at: Position) {
        let count = at.clamp(self.start, self.end()).saturating_sub(self.start) as usize;
        self.start += count as u64;
        self.gone += count;
        if self.gone == self.bytes.len() {
            self.bytes = Vec::new();
            self.gone = 0;
        } else if self.gone > self.bytes.len() / 2 {
            self.bytes.drain(..self.gone);
            self.gone = 0;
        }
    }

    /// Forgets all from `at` on.
    pub fn truncate(&mut self, at: Position) {
        let keep = at.clamp(self.start, self.end()).saturating_sub(self.start) as usize;
        self.bytes.truncate(self.gone + keep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_found_by_their_position() {
        let mut buffer = Buffer::new(100);
        buffer.append(b"abcdef");
        assert_eq!((buffer.start(), buffer.end(), buffer.get(101, 103)), (100, 106, &b"bc"[..]));
        assert_eq!((buffer.get(0, 102), buffer.get(105, 999)), (&b"ab"[..], &b"f"[..]));
        for at in [101, 102, 105] {
            buffer.trim(at);
            assert_eq!((buffer.start(), buffer.get(0, 999)), (at, &b"abcdef"[(at - 100) as usize..]));
        }
        buffer.append(b"gh");
        buffer.truncate(107);
        assert_eq!((buffer.len(), buffer.get(0, 999)), (2, &b"fg"[..]));
        buffer.trim(107);
        assert!(buffer.is_empty() && buffer.end() == 107);
        buffer.trim(7);
        buffer.truncate(9);
        assert_eq!((buffer.start(), buffer.end()), (107, 107));
    }
}
