//! Media types: `type/subtype;params` (RFC 3261 section 20.15).

use super::params;
use super::text::trim;
use crate::search;
use crate::span::Span;

/// One Content-Type value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentType {
    /// `application`, `multipart`, …
    pub kind: Span,
    /// `sdp`, `mixed`, …
    pub subtype: Span,
    /// `;params`, from the first `;`; empty if none.
    pub params: Span,
}

impl ContentType {
    /// Reads a value; white space around `/` and `;` is borne.
    pub fn parse(bytes: &[u8], value: Span) -> Option<Self> {
        let value = trim(bytes, value);
        let text = value.of(bytes);
        let base = value.start as usize;
        let end = search::find(text, [b';']).unwrap_or(text.len());
        let slash = search::find(text.get(..end)?, [b'/'])?;
        let kind = trim(bytes, Span::new(base, base + slash));
        let subtype = trim(bytes, Span::new(base + slash + 1, base + end));
        (!kind.is_empty() && !subtype.is_empty()).then(|| Self {
            kind,
            subtype,
            params: Span::new(base + end, base + text.len()),
        })
    }

    /// Whether it is `kind/subtype`, in any case.
    pub fn is(&self, bytes: &[u8], kind: &str, subtype: &str) -> bool {
        self.kind.of(bytes).eq_ignore_ascii_case(kind.as_bytes())
            && self.subtype.of(bytes).eq_ignore_ascii_case(subtype.as_bytes())
    }

    /// The `boundary` of a multipart type, without quotes; `None` for other types and for an empty one.
    pub fn boundary(&self, bytes: &[u8]) -> Option<Span> {
        if !self.kind.of(bytes).eq_ignore_ascii_case(b"multipart") {
            return None;
        }
        params::find(bytes, self.params, "boundary")?.unquoted(bytes).filter(|text| !text.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_boundaries_are_read_in_any_dialect() {
        for (text, kind, subtype, boundary) in [
            ("application/sdp", "application", "sdp", None),
            ("Application / SDP ; charset=utf-8", "Application", "SDP", None),
            ("multipart/mixed;boundary=a1", "multipart", "mixed", Some("a1")),
            (
                "Multipart/Related ;\r\n type=\"x;boundary=no\" ;\r\n Boundary = \"a; b:1\"",
                "Multipart",
                "Related",
                Some("a; b:1"),
            ),
            ("multipart/mixed;boundary=\"\"", "multipart", "mixed", None),
            ("text/plain;boundary=x", "text", "plain", None),
        ] {
            let bytes = text.as_bytes();
            let read = ContentType::parse(bytes, Span::new(0, bytes.len())).unwrap();
            assert!(read.is(bytes, kind, subtype), "{text}");
            assert_eq!(read.kind.of(bytes), kind.as_bytes());
            assert_eq!(read.subtype.of(bytes), subtype.as_bytes());
            assert_eq!(read.boundary(bytes).map(|s| s.of(bytes)), boundary.map(str::as_bytes), "{text}");
        }
        for text in ["", "application", "/sdp", "application/", "x;a/b"] {
            assert_eq!(ContentType::parse(text.as_bytes(), Span::new(0, text.len())), None, "{text}");
        }
    }
}
