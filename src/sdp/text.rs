//! Lines, blank-separated fields and numbers: all the lexis that SDP has (RFC 8866 section 9).

use crate::search;
use crate::span::Span;
use memchr::memrchr2;

/// The lines of a text, without line ends, and where they begin; empty ones are passed over. CRLF, CR and LF end a line,
/// and so does the end of the text.
pub(super) struct Lines<'a> {
    rest: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    /// The lines of `text`.
    pub(super) fn new(bytes: &'a [u8], text: Span) -> Self {
        Self { rest: text.of(bytes), at: text.start as usize }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = (usize, &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<(usize, &'a [u8])> {
        while !self.rest.is_empty() {
            let length = search::find(self.rest, [b'\r', b'\n']).unwrap_or(self.rest.len());
            let (line, behind) = self.rest.split_at_checked(length)?;
            let (rest, end) = match behind {
                [b'\r', b'\n', rest @ ..] => (rest, 2),
                [_, rest @ ..] => (rest, 1),
                [] => (behind, 0),
            };
            let start = self.at;
            self.rest = rest;
            self.at += length + end;
            if !line.is_empty() {
                return Some((start, line));
            }
        }
        None
    }
}

/// The fields of a line, separated by any number of blanks (one is legal, more are seen).
#[derive(Clone)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    /// The fields of `line`.
    pub(super) fn new(bytes: &'a [u8], line: Span) -> Self {
        Self { rest: line.of(bytes), at: line.start as usize }
    }
}

impl DoubleEndedIterator for Fields<'_> {
    fn next_back(&mut self) -> Option<Span> {
        let last = self.rest.iter().rposition(|b| !is_blank(b))?;
        let line = self.rest.get(..=last)?;
        let start = memrchr2(b' ', b'\t', line).map_or(0, |blank| blank + 1);
        self.rest = line.get(..start)?;
        Some(Span::new(self.at + start, self.at + last + 1))
    }
}

impl Iterator for Fields<'_> {
    type Item = Span;

    #[inline]
    fn next(&mut self) -> Option<Span> {
        while let [b' ' | b'\t', rest @ ..] = self.rest {
            self.rest = rest;
            self.at += 1;
        }
        if self.rest.is_empty() {
            return None;
        }
        let length = search::find(self.rest, [b' ', b'\t']).unwrap_or(self.rest.len());
        let start = self.at;
        self.rest = self.rest.get(length..)?;
        self.at += length;
        Some(Span::new(start, self.at))
    }
}

fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// The number that `digits` spell: digits only, at least one, no more than 65535.
pub(super) fn number(digits: &[u8]) -> Option<u16> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u16, |sum, &b| {
        if !b.is_ascii_digit() {
            return None;
        }
        sum.checked_mul(10)?.checked_add(u16::from(b - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_end_ends_a_line() {
        let bytes = b"\r\nv=0\r\no=x\n\ns=-\rt=0 0";
        let lines: Vec<_> = Lines::new(bytes, Span::new(0, bytes.len())).collect();
        assert_eq!(lines, [(2, &b"v=0"[..]), (7, b"o=x"), (12, b"s=-"), (16, b"t=0 0")]);
        assert_eq!(Lines::new(b"\r\n\n\r", Span::new(0, 4)).count(), 0);
        assert_eq!(Lines::new(b"", Span::new(0, 3)).count(), 0);
    }

    #[test]
    fn blanks_of_any_number_separate_fields() {
        let bytes = b"xx  a \tbc d  yy";
        let fields: Vec<_> = Fields::new(bytes, Span::new(2, 13)).map(|s| s.of(bytes)).collect();
        assert_eq!(fields, [&b"a"[..], b"bc", b"d"]);
        let fields: Vec<_> = Fields::new(bytes, Span::new(2, 13)).rev().map(|s| s.of(bytes)).collect();
        assert_eq!(fields, [&b"d"[..], b"bc", b"a"]);
    }

    #[test]
    fn numbers_are_digits_up_to_a_port() {
        assert_eq!(number(b"065535"), Some(65535));
        for text in ["", "65536", "-1", "1 ", "99999999999999999999"] {
            assert_eq!(number(text.as_bytes()), None, "{text}");
        }
    }
}
