//! The few lexical rules that all readers share: white space, tokens, quoted strings, numbers.

use crate::search;
use crate::span::Span;

/// Linear white space, line ends of folds included (RFC 3261 section 25.1, `LWS`).
#[inline]
pub(super) fn is_lws(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// The bytes of a lexical class, as a table: one look-up for each byte instead of a chain of comparisons.
pub(super) struct Class([bool; 256]);

/// A byte of a `token` (RFC 3261 section 25.1).
pub(super) const TOKEN: Class = Class::alphanumeric_and(b"-.!%*_+`'~");

impl Class {
    /// Letters, digits and `others`.
    pub(super) const fn alphanumeric_and(others: &[u8]) -> Self {
        let mut table = [false; 256];
        let mut byte = 0u8;
        while byte < 128 {
            table[byte as usize] = byte.is_ascii_alphanumeric();
            byte += 1;
        }
        Self(table).with(others, true)
    }

    /// Everything, 8-bit bytes too, but controls, white space and `others`.
    pub(super) const fn printable_but(others: &[u8]) -> Self {
        let mut table = [true; 256];
        let mut byte = 0u8;
        while byte < 128 {
            table[byte as usize] = byte.is_ascii_graphic();
            byte += 1;
        }
        Self(table).with(others, false)
    }

    /// Whether all of `text` is of this class.
    #[inline]
    pub(super) fn holds(&self, text: &[u8]) -> bool {
        text.iter().all(|byte| self.has(*byte))
    }

    /// Whether `byte` is of this class.
    #[inline]
    pub(super) fn has(&self, byte: u8) -> bool {
        self.0.get(usize::from(byte)).copied().unwrap_or_default()
    }

    const fn with(mut self, bytes: &[u8], value: bool) -> Self {
        let mut at = 0;
        while at < bytes.len() {
            self.0[bytes[at] as usize] = value;
            at += 1;
        }
        self
    }
}

/// `span` without the white space at both ends. A span that does not fit its buffer becomes empty.
#[inline]
pub(super) fn trim(bytes: &[u8], span: Span) -> Span {
    let (mut text, mut start) = (span.of(bytes), span.start as usize);
    while let [rest @ .., last] = text
        && is_lws(*last)
    {
        text = rest;
    }
    while let [first, rest @ ..] = text
        && is_lws(*first)
    {
        text = rest;
        start += 1;
    }
    Span::new(start, start + text.len())
}

/// The offset after the quoted string that opens at `open`; the end of `text` if it never closes, so that a stray
/// quote costs one pass and not one for each quote.
pub(super) fn quoted_end(text: &[u8], open: usize) -> usize {
    let mut at = open + 1;
    while let Some(found) = text.get(at..).and_then(|rest| search::find(rest, [b'"', b'\\'])) {
        at += found;
        if text.get(at) == Some(&b'"') {
            return at + 1;
        }
        at += 2;
    }
    text.len()
}

/// The number that `digits` spell: digits only, at least one, and it fits.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, &b| {
        if !b.is_ascii_digit() {
            return None;
        }
        sum.checked_mul(10)?.checked_add(u64::from(b - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_is_cut_at_both_ends_only() {
        let text = b" \r\n\ta b\t\r\n ";
        assert_eq!(trim(text, Span::new(0, text.len())), Span::new(4, 7));
        assert_eq!(trim(b"   ", Span::new(0, 3)), Span::new(0, 0));
        assert!(trim(b"ab", Span::new(1, 9)).is_empty());
    }

    #[test]
    fn quoted_strings_end_at_the_quote_that_is_not_escaped() {
        for (text, end) in [
            (r#""a"b"#, 3),
            (r#""a\"b"c"#, 6),
            (r#""\\"c"#, 4),
            (r#""abc"#, 4),
            (r#""ab\"#, 4),
            (r#"""x"#, 2),
        ] {
            assert_eq!(quoted_end(text.as_bytes(), 0), end, "{text}");
        }
    }

    #[test]
    fn numbers_are_digits_that_fit() {
        assert_eq!(number(b"00360"), Some(360));
        assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
        for text in ["", "-1", "+1", "1 ", "18446744073709551616", "1x"] {
            assert_eq!(number(text.as_bytes()), None, "{text}");
        }
    }
}
