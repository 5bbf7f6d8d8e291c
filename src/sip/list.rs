//! Comma lists: the values of headers that may be written in one line or in many (RFC 3261 section 7.3.1).
//!
//! Only the commas are found here; what a value means is for [`name_addr`](super::name_addr) and
//! [`via`](super::via). A quote or a `<` that never closes runs to the end of the header, which keeps the work
//! linear and leaves broken headers in one piece.

use super::text::{quoted_end, trim};
use crate::search;
use crate::span::Span;

/// The comma-separated values of `value`, without surrounding white space, in order. Commas in quoted strings and
/// in `<>` do not separate. Empty elements are left out.
pub fn values(bytes: &[u8], value: Span) -> impl Iterator<Item = Span> + Clone {
    Values { bytes, value, at: 0 }
}

#[derive(Clone)]
struct Values<'a> {
    bytes: &'a [u8],
    value: Span,
    /// Where the next element begins, counted from the start of `value`.
    at: usize,
}

impl Iterator for Values<'_> {
    type Item = Span;

    fn next(&mut self) -> Option<Span> {
        let text = self.value.of(self.bytes);
        let base = self.value.start as usize;
        // Most lists have one element, and that needs no look at its quotes and brackets.
        if self.at == 0 && search::find(text, [b',']).is_none() {
            self.at = text.len();
            return Some(trim(self.bytes, self.value)).filter(|element| !element.is_empty());
        }
        while self.at < text.len() {
            let end = element_end(text, self.at);
            let element = trim(self.bytes, Span::new(base + self.at, base + end));
            self.at = end + 1;
            if !element.is_empty() {
                return Some(element);
            }
        }
        None
    }
}

/// The offset of the comma that ends the element at `at`, or the end of `text`.
fn element_end(text: &[u8], mut at: usize) -> usize {
    while let Some(found) = text.get(at..).and_then(|rest| search::find(rest, [b',', b'"', b'<'])) {
        at += found;
        at = match text.get(at) {
            Some(b'"') => quoted_end(text, at),
            Some(b'<') => match text.get(at..).and_then(|rest| search::find(rest, [b'>'])) {
                Some(close) => at + close + 1,
                None => return text.len(),
            },
            _ => return at,
        };
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_separate_only_outside_quotes_and_brackets() {
        for (text, expected) in [
            ("", vec![]),
            (" , ,\r\n ,", vec![]),
            ("a", vec!["a"]),
            ("a,b", vec!["a", "b"]),
            (" a ,\r\n\tb , ", vec!["a", "b"]),
            ("<sip:a,b@h>,<sip:c@h>;x=\"1,2\"", vec!["<sip:a,b@h>", "<sip:c@h>;x=\"1,2\""]),
            (r#""Doe, \"J, <" <sip:d@h>,*"#, vec![r#""Doe, \"J, <" <sip:d@h>"#, "*"]),
            (r#"a;x="1,2"#, vec![r#"a;x="1,2"#]),
            ("<sip:a@h, <sip:b@h", vec!["<sip:a@h, <sip:b@h"]),
        ] {
            let bytes = text.as_bytes();
            let found: Vec<_> = values(bytes, Span::new(0, bytes.len())).map(|s| s.of(bytes)).collect();
            assert_eq!(found, expected.iter().map(|s| s.as_bytes()).collect::<Vec<_>>(), "{text}");
        }
    }

    #[test]
    fn only_the_span_is_read() {
        let found: Vec<_> = values(b"a,b,c,d", Span::new(2, 5)).collect();
        assert_eq!(found, [Span::new(2, 3), Span::new(4, 5)]);
        assert_eq!(values(b"a,b", Span::new(2, 50)).count(), 0);
    }
}
