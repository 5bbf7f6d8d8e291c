//! Parameters: `;name=value` lists of headers, URIs and media types (RFC 3261 sections 7.3.1 and 25.1).
//!
//! White space around `;` and `=` belongs to nobody. Values stay as written: quoted ones with their quotes,
//! escapes as they are. A quote that never closes runs to the end.

use super::text::{quoted_end, trim};
use crate::search;
use crate::span::Span;

/// One `;name[=value]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param {
    /// The name, never empty.
    pub name: Span,
    /// The value, quotes included; empty for `;name=`, `None` for a flag.
    pub value: Option<Span>,
}

impl Param {
    /// The value without its quotes; `None` for a flag.
    pub fn unquoted(&self, bytes: &[u8]) -> Option<Span> {
        let value = self.value?;
        let text = value.of(bytes);
        if text.len() >= 2 && text.first() == Some(&b'"') && text.last() == Some(&b'"') {
            return Some(Span::new(value.start as usize + 1, value.end as usize - 1));
        }
        Some(value)
    }
}

/// The parameters in `text` (which starts at a `;` or is empty). Nameless ones (`;;`) are left out.
pub fn params(bytes: &[u8], text: Span) -> impl Iterator<Item = Param> + Clone {
    Params { bytes, text, at: 0 }
}

/// The first parameter called `name` (any case).
pub fn find(bytes: &[u8], text: Span, name: &str) -> Option<Param> {
    params(bytes, text).find(|param| param.name.of(bytes).eq_ignore_ascii_case(name.as_bytes()))
}

#[derive(Clone)]
struct Params<'a> {
    bytes: &'a [u8],
    text: Span,
    /// Offset in `text` of the `;` that begins the next parameter.
    at: usize,
}

impl Iterator for Params<'_> {
    type Item = Param;

    fn next(&mut self) -> Option<Param> {
        let text = self.text.of(self.bytes);
        let base = self.text.start as usize;
        while self.at < text.len() {
            let start = self.at + usize::from(text.get(self.at) == Some(&b';'));
            let (equals, end) = extent(text, start);
            self.at = end;
            let name = trim(self.bytes, Span::new(base + start, base + equals.unwrap_or(end)));
            if !name.is_empty() {
                let value = equals.map(|at| value(self.bytes, Span::new(base + at + 1, base + end)));
                return Some(Param { name, value });
            }
        }
        None
    }
}

/// What stands after a `=`, without what follows a quoted string.
fn value(bytes: &[u8], after_equals: Span) -> Span {
    let value = trim(bytes, after_equals);
    let text = value.of(bytes);
    if text.first() == Some(&b'"') {
        return Span::new(value.start as usize, value.start as usize + quoted_end(text, 0));
    }
    value
}

/// The offsets of the `=`, if it has one, and of the end of the parameter at `start`.
fn extent(text: &[u8], start: usize) -> (Option<usize>, usize) {
    let found = text.get(start..).and_then(|rest| search::find(rest, [b'=', b';', b'"'])).map(|i| start + i);
    match found.map(|at| (at, text.get(at))) {
        None => (None, text.len()),
        Some((at, Some(b'='))) => (Some(at), param_end(text, at + 1)),
        Some((at, Some(b';'))) => (None, at),
        Some((at, _)) => {
            let end = param_end(text, at);
            (text.get(start..end).and_then(|param| search::find(param, [b'='])).map(|i| start + i), end)
        }
    }
}

/// The offset of the `;` that ends the parameter at `at`, or the end of `text`.
fn param_end(text: &[u8], mut at: usize) -> usize {
    while let Some(found) = text.get(at..).and_then(|rest| search::find(rest, [b';', b'"'])) {
        at += found;
        if text.get(at) == Some(&b';') {
            return at;
        }
        at = quoted_end(text, at);
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<(&str, Option<&str>)> {
        let bytes = text.as_bytes();
        let show = |span: Span| std::str::from_utf8(span.of(bytes)).unwrap();
        params(bytes, Span::new(0, text.len())).map(|p| (show(p.name), p.value.map(show))).collect()
    }

    #[test]
    fn parameters_are_found_with_any_white_space() {
        for (text, expected) in [
            ("", vec![]),
            (";", vec![]),
            (";lr", vec![("lr", None)]),
            (";a=1;b;c=", vec![("a", Some("1")), ("b", None), ("c", Some(""))]),
            ("; a = 1\r\n ;\tb ;; =x; c=2 ", vec![("a", Some("1")), ("b", None), ("c", Some("2"))]),
            (";q=\"a;b=\\\"c\";d", vec![("q", Some("\"a;b=\\\"c\"")), ("d", None)]),
            (";q=\"a\" junk;d", vec![("q", Some("\"a\"")), ("d", None)]),
            (";q=\"a;d", vec![("q", Some("\"a;d"))]),
            (";x=a=b", vec![("x", Some("a=b"))]),
            (";received=[2001:db8::1]", vec![("received", Some("[2001:db8::1]"))]),
        ] {
            assert_eq!(all(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_first_of_a_name_is_found_in_any_case() {
        let bytes = b";Tag=1;tag=2;ob;s=\"x\";e=\"\";h=\"";
        let find = |name| find(bytes, Span::new(0, bytes.len()), name);
        assert_eq!(find("TAG").unwrap().value.unwrap().of(bytes), b"1");
        assert_eq!(find("ob").unwrap().value, None);
        assert_eq!(find("x"), None);
        assert_eq!(find("s").unwrap().unquoted(bytes).unwrap().of(bytes), b"x");
        assert_eq!(find("e").unwrap().unquoted(bytes).unwrap().of(bytes), b"");
        assert_eq!(find("h").unwrap().unquoted(bytes).unwrap().of(bytes), b"\"");
        assert_eq!(find("tag").unwrap().unquoted(bytes).unwrap().of(bytes), b"1");
    }
}
