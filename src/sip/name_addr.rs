//! `"Display" <uri>;params`, `uri;params` and `*`: one value of Contact, From, To, Route and their like (RFC 3261
//! sections 20.10 and 25.1).
//!
//! The display name is passed over, and the URI is not read: see [`uri`](super::uri). Without `<>` everything from
//! the first `;` on belongs to the header and not to the URI (section 20).

use super::params;
use super::text::{quoted_end, trim};
use super::uri::scheme;
use crate::search;
use crate::span::Span;

/// One value of Contact, From, To, Route and their like (RFC 3261 section 20.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameAddr {
    /// `*`
    Star,
    /// An address.
    Address {
        /// The URI, `<>` and white space around it not included.
        uri: Span,
        /// Header parameters from the first `;`, empty if none.
        params: Span,
    },
}

/// Reads one value (no comma list; see [`super::list`]). `None`: not an address, that is, nothing with a scheme.
pub fn parse(bytes: &[u8], value: Span) -> Option<NameAddr> {
    let value = trim(bytes, value);
    let text = value.of(bytes);
    let base = value.start as usize;
    if text == b"*" {
        return Some(NameAddr::Star);
    }
    let (uri, after) = match opening(text) {
        Some(open) => {
            let close = open + search::find(text.get(open..)?, [b'>'])?;
            (Span::new(base + open + 1, base + close), close + 1)
        }
        None => {
            let end = search::find(text, [b';']).unwrap_or(text.len());
            (Span::new(base, base + end), end)
        }
    };
    let uri = trim(bytes, uri);
    scheme(uri.of(bytes))?;
    let rest = text.get(after..).unwrap_or_default();
    let semicolon = after + search::find(rest, [b';']).unwrap_or(rest.len());
    Some(NameAddr::Address { uri, params: Span::new(base + semicolon, base + text.len()) })
}

/// The value of the `tag` parameter of a From or To value.
pub fn tag(bytes: &[u8], value: Span) -> Option<Span> {
    let NameAddr::Address { params, .. } = parse(bytes, value)? else { return None };
    params::find(bytes, params, "tag")?.value.filter(|tag| !tag.is_empty())
}

/// The offset of the `<`, if there is one outside of quoted strings: a bare URI may have
/// `;+sip.instance="<urn:uuid:…>"` behind it.
fn opening(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(found) = text.get(at..).and_then(|rest| search::find(rest, [b'<', b'"'])) {
        at += found;
        if text.get(at) == Some(&b'<') {
            return Some(at);
        }
        at = quoted_end(text, at);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &str) -> Option<(&str, &str)> {
        let bytes = text.as_bytes();
        let show = |s: Span| std::str::from_utf8(s.of(bytes)).unwrap();
        match parse(bytes, Span::new(0, bytes.len()))? {
            NameAddr::Star => Some(("*", "")),
            NameAddr::Address { uri, params } => Some((show(uri), show(params))),
        }
    }

    #[test]
    fn uri_and_parameters_are_found_in_every_form() {
        for (text, expected) in [
            ("*", ("*", "")),
            (" * ", ("*", "")),
            ("<sip:a@h>", ("sip:a@h", "")),
            ("<sip:a@h;lr>;tag=1", ("sip:a@h;lr", ";tag=1")),
            ("< sip:a@h >\r\n ; tag = 1", ("sip:a@h", "; tag = 1")),
            ("Alice Cooper <sip:a@h>;tag=1", ("sip:a@h", ";tag=1")),
            ("caller<sip:a@h>", ("sip:a@h", "")),
            (r#""A \"<sip:x@y>\" ;B" <sip:a@h>;q=0.1"#, ("sip:a@h", ";q=0.1")),
            (r#"""<tel:+1>"#, ("tel:+1", "")),
            ("sip:a@h;tag=1", ("sip:a@h", ";tag=1")),
            ("sip:a@h ;tag=1", ("sip:a@h", ";tag=1")),
            (r#"sip:a@h;+sip.instance="<urn:uuid:1>""#, ("sip:a@h", r#";+sip.instance="<urn:uuid:1>""#)),
            ("<sip:a@h> junk ;tag=1", ("sip:a@h", ";tag=1")),
            ("urn:service:sos", ("urn:service:sos", "")),
        ] {
            assert_eq!(show(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_has_no_uri_is_no_address() {
        for text in
            ["", " ", "<>", "<alice>", "alice", "<sip:a@h", "\"<sip:a@h>", "**", "*;x", "\"x\" sip:a@h"]
        {
            assert_eq!(show(text), None, "{text}");
        }
    }

    #[test]
    fn the_tag_is_that_of_the_header_and_not_of_the_uri() {
        let read = |text: &'static str| {
            tag(text.as_bytes(), Span::new(0, text.len())).map(|s| s.of(text.as_bytes()))
        };
        assert_eq!(read("<sip:a@h;tag=no>;x;Tag = yes"), Some(&b"yes"[..]));
        assert_eq!(read("sip:a@h;tag=1928301774"), Some(&b"1928301774"[..]));
        assert_eq!(read("<sip:a@h;tag=no>"), None);
        assert_eq!(read("<sip:a@h>;tag="), None);
        assert_eq!(read("*"), None);
    }
}
