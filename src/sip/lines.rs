//! Header lines, one logical line at a time: physical lines joined with their folds (RFC 3261 section 7.3.1).
//!
//! Serves messages and MIME parts alike. It does not collect anything: the caller decides what it keeps.

use super::header::HeaderName;
use super::message::Header;
use super::text::trim;
use crate::span::Span;
use memchr::memchr;

/// One logical line.
pub(super) enum Line {
    /// `name: value`
    Header(Header),
    /// A line without a name: nobody can need it, so it is passed over.
    Odd,
    /// The empty line; the body begins at [`HeaderLines::at`].
    End,
}

/// Reads logical lines from [`HeaderLines::at`] on.
pub(super) struct HeaderLines<'a> {
    pub(super) bytes: &'a [u8],
    /// Offset of the next line.
    pub(super) at: usize,
}

impl Iterator for HeaderLines<'_> {
    type Item = Line;

    /// The next line; `None` when no line end follows.
    fn next(&mut self) -> Option<Line> {
        let start = self.at;
        let rest = self.bytes.get(start..)?;
        let first = memchr(b'\n', rest)?;
        if matches!(rest.get(..first), Some(b"" | b"\r")) {
            self.at = start + first + 1;
            return Some(Line::End);
        }
        let mut end = first;
        while matches!(rest.get(end + 1), Some(b' ' | b'\t')) {
            end += 1 + memchr(b'\n', rest.get(end + 1..)?)?;
        }
        self.at = start + end + 1;
        Some(header(self.bytes, start, first, end).map_or(Line::Odd, Line::Header))
    }
}

/// The header at `start` whose first physical line has `first` bytes, and `end` bytes with its folds. The colon
/// belongs on the first line: `HCOLON` allows blanks before it, but no fold.
fn header(bytes: &[u8], start: usize, first: usize, end: usize) -> Option<Header> {
    let line = bytes.get(start..start + first)?;
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return None;
    }
    let colon = line.iter().position(|&b| b == b':')?;
    let name = line.get(..colon)?;
    let name = name.get(..name.iter().rposition(|&b| !matches!(b, b' ' | b'\t'))? + 1)?;
    Some(Header {
        name: HeaderName::of(name),
        name_span: Span::new(start, start + name.len()),
        value: trim(bytes, Span::new(start + colon + 1, start + end)),
    })
}
