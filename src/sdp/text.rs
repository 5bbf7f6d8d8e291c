//! Lines, blank-separated fields and numbers: all the lexis that SDP has (RFC 8866 section 9).

use crate::span::Span;
use memchr::memchr2;

/// The lines of `bytes` from `at` on, without line ends; empty ones are passed over. CRLF, CR and LF end a line, and
/// so does the end of the bytes.
pub(super) struct Lines<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl Iterator for Lines<'_> {
    type Item = Span;

    fn next(&mut self) -> Option<Span> {
        let rest = self.bytes.get(self.at..)?;
        let start = self.at + rest.iter().position(|b| !matches!(b, b'\r' | b'\n'))?;
        let line = self.bytes.get(start..)?;
        let end = start + memchr2(b'\r', b'\n', line).unwrap_or(line.len());
        self.at = end;
        Some(Span::new(start, end))
    }
}

/// The fields of a line, separated by any number of blanks (one is legal, more are seen).
#[derive(Clone)]
pub(super) struct Fields<'a> {
    bytes: &'a [u8],
    rest: Span,
}

impl<'a> Fields<'a> {
    /// The fields of `line`.
    pub(super) fn new(bytes: &'a [u8], line: Span) -> Self {
        Self { bytes, rest: line }
    }
}

impl Iterator for Fields<'_> {
    type Item = Span;

    fn next(&mut self) -> Option<Span> {
        let is_blank = |b: &u8| matches!(b, b' ' | b'\t');
        let rest = self.rest.of(self.bytes);
        let first = rest.iter().position(|b| !is_blank(b))?;
        let field = rest.get(first..)?;
        let start = self.rest.start as usize + first;
        let end = start + field.iter().position(is_blank).unwrap_or(field.len());
        self.rest = Span::new(end, self.rest.end as usize);
        Some(Span::new(start, end))
    }
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
        let lines: Vec<_> = Lines { bytes, at: 0 }.map(|s| s.of(bytes)).collect();
        assert_eq!(lines, [&b"v=0"[..], b"o=x", b"s=-", b"t=0 0"]);
        assert_eq!(Lines { bytes: b"\r\n\n\r", at: 0 }.count(), 0);
        assert_eq!(Lines { bytes: b"", at: 3 }.count(), 0);
    }

    #[test]
    fn blanks_of_any_number_separate_fields() {
        let bytes = b"xx  a \tbc d  yy";
        let fields: Vec<_> = Fields::new(bytes, Span::new(2, 13)).map(|s| s.of(bytes)).collect();
        assert_eq!(fields, [&b"a"[..], b"bc", b"d"]);
    }

    #[test]
    fn numbers_are_digits_up_to_a_port() {
        assert_eq!(number(b"065535"), Some(65535));
        for text in ["", "65536", "-1", "1 ", "99999999999999999999"] {
            assert_eq!(number(text.as_bytes()), None, "{text}");
        }
    }
}
