//! Multipart bodies: where their parts are, and what the parts' headers say (RFC 2046 section 5.1).
//!
//! Parts are found line by line, so that the work is linear whatever the boundary. The line end before a delimiter
//! belongs to the delimiter, preamble and epilogue to nobody, and a missing last delimiter is borne. What a part
//! means is not known here; see [`body`](super::body).

use super::HeaderName;
use super::content_type::ContentType;
use super::lines::read_headers;
use super::text::number;
use crate::span::Span;
use memchr::memchr;

/// One part.
pub(super) struct Part {
    /// Its media type; `None` if it has none that reads (then it is plain text, section 5.1).
    pub(super) kind: Option<ContentType>,
    /// What stands after its headers.
    pub(super) body: Span,
    /// Whether it is compressed or encrypted by a Content-Encoding.
    pub(super) encoded: bool,
    /// Whether its bytes stand for themselves: no Content-Transfer-Encoding that changes them.
    pub(super) plain: bool,
    /// The digits of its own Content-Length with their number, which few writers give.
    pub(super) length: Option<(Span, u64)>,
}

impl Part {
    /// Reads the headers of the part that is `span`. `None`: they do not end.
    pub(super) fn read(bytes: &[u8], span: Span) -> Option<Self> {
        let bytes = bytes.get(..span.end as usize)?;
        let mut part = Self { kind: None, body: span, encoded: false, plain: true, length: None };
        let body = read_headers(bytes, span.start as usize, |header| {
            match header.name {
                HeaderName::ContentType => {
                    part.kind = part.kind.or_else(|| ContentType::parse(bytes, header.value))
                }
                HeaderName::ContentEncoding => part.encoded |= is_encoded(bytes, header.value),
                HeaderName::ContentLength => {
                    part.length = Some(header.value).zip(number(header.value.of(bytes)))
                }
                HeaderName::Other if is_transfer_encoding(header.name_span.of(bytes)) => {
                    part.plain &= is_plain(header.value.of(bytes));
                }
                _ => {}
            }
            true
        });
        part.body = Span::new(body?, span.end as usize);
        Some(part)
    }
}

/// Whether a Content-Encoding is anything but `identity` and nothing.
pub(super) fn is_encoded(bytes: &[u8], value: Span) -> bool {
    !value.is_empty() && !value.of(bytes).eq_ignore_ascii_case(b"identity")
}

/// The parts of a body of type `kind`, headers included, in order; none if it is no multipart.
pub(super) fn parts<'a>(bytes: &'a [u8], kind: &ContentType, body: Span) -> Parts<'a> {
    let boundary = kind.boundary(bytes).map(|span| span.of(bytes));
    let text = bytes.get(..body.end as usize).filter(|_| boundary.is_some()).unwrap_or_default();
    Parts { text, boundary: boundary.unwrap_or_default(), at: body.start as usize, open: None }
}

/// See [`parts`].
pub(super) struct Parts<'a> {
    text: &'a [u8],
    boundary: &'a [u8],
    at: usize,
    /// Where the part begins whose end is not found yet.
    open: Option<usize>,
}

impl Iterator for Parts<'_> {
    type Item = Span;

    fn next(&mut self) -> Option<Span> {
        while let Some(rest) = self.text.get(self.at..).filter(|rest| !rest.is_empty()) {
            let start = self.at;
            let length = memchr(b'\n', rest).map_or(rest.len(), |i| i + 1);
            self.at += length;
            let Some(delimiter) = rest.get(..length).and_then(|line| delimiter(line, self.boundary)) else {
                continue;
            };
            let next = (delimiter == Delimiter::Between).then_some(self.at);
            if next.is_none() {
                self.at = self.text.len();
            }
            if let Some(begin) = std::mem::replace(&mut self.open, next) {
                return Some(Span::new(begin, before_line_end(self.text, begin, start)));
            }
        }
        self.open.take().map(|begin| Span::new(begin, self.text.len()))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Delimiter {
    Between,
    Last,
}

/// Whether `line` (with its line end) is `--boundary` or `--boundary--`. Blanks may follow; anything else makes it
/// another boundary that begins with the same text.
fn delimiter(line: &[u8], boundary: &[u8]) -> Option<Delimiter> {
    let rest = line.strip_prefix(b"--")?.strip_prefix(boundary)?;
    let (rest, which) =
        rest.strip_prefix(b"--").map_or((rest, Delimiter::Between), |rest| (rest, Delimiter::Last));
    rest.iter().all(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n')).then_some(which)
}

/// `end` without the CRLF or LF before it, but not before `start`.
fn before_line_end(text: &[u8], start: usize, end: usize) -> usize {
    let text = text.get(start..end).unwrap_or_default();
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    start + text.strip_suffix(b"\r").unwrap_or(text).len()
}

fn is_transfer_encoding(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"Content-Transfer-Encoding")
}

/// Transfer encodings that leave the bytes as they are (RFC 2045 section 6).
fn is_plain(encoding: &[u8]) -> bool {
    [&b"7bit"[..], b"8bit", b"binary"].iter().any(|plain| encoding.eq_ignore_ascii_case(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(body: &str) -> Vec<String> {
        let head = "multipart/mixed;boundary=b ";
        let text = format!("{head}{body}");
        let bytes = text.as_bytes();
        let kind = ContentType::parse(bytes, Span::new(0, head.len())).unwrap();
        let parts = parts(bytes, &kind, Span::new(head.len(), bytes.len()));
        parts.map(|part| String::from_utf8_lossy(part.of(bytes)).into_owned()).collect()
    }

    #[test]
    fn delimiters_end_and_begin_parts() {
        for (body, expected) in [
            ("", vec![]),
            ("pre\n--bx\n--c\n", vec![]),
            ("--b", vec![""]),
            ("--b--", vec![]),
            ("--b\r\n1\r\n--b--\r\n--b\r\n2", vec!["1"]),
            ("pre\r\n--b\r\n1\r\n\r\n--b \t\r\n2\r\n--b--post", vec!["1\r\n", "2\r\n--b--post"]),
            ("--b\n1\n--b\n\n--b\n--b--", vec!["1", "", ""]),
            ("--b\r\n1 --b\r\n--bb\r\n", vec!["1 --b\r\n--bb\r\n"]),
            ("--b \r\n1\r\n --b\r\n", vec!["1\r\n --b\r\n"]),
        ] {
            assert_eq!(split(body), expected, "{body:?}");
        }
    }

    #[test]
    fn the_headers_of_a_part_say_how_it_is_written() {
        let read = |text: &str| {
            Part::read(text.as_bytes(), Span::new(0, text.len())).map(|part| {
                (part.kind.is_some(), part.encoded, part.plain, part.length.map(|(_, n)| n), part.body.start)
            })
        };
        assert_eq!(read("\nx"), Some((false, false, true, None, 1)));
        assert_eq!(
            read("Content-Type: a/b\r\nContent-Length: 7\r\n\r\nx"),
            Some((true, false, true, Some(7), 40))
        );
        assert_eq!(read("content-transfer-encoding : BASE64\n\n"), Some((false, false, false, None, 36)));
        assert_eq!(read("e: gzip\n\n"), Some((false, true, true, None, 9)));
        assert_eq!(read("Content-Type: a/b"), None);
    }
}
