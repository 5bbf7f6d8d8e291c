//! What a message carries: the extent of its body, and the SDP in it (RFC 3261 sections 7.4 and 20.11 to 20.15; RFC
//! 2046 section 5.1 for multiparts; RFC 5621 for their use in SIP).
//!
//! The type decides, not the look: a body that begins with `v=0` but has no Content-Type is nobody's SDP (section
//! 20.15 demands the header). A body that is signed, encrypted or compressed is [`Body::Protected`]. Parts are only
//! located: reading them is the matter of [`sdp`](crate::sdp), and adjusting Content-Length that of the editor.

use super::content_type::ContentType;
use super::lines::{HeaderLines, Line};
use super::text::{number, trim};
use super::{HeaderName, Message};
use crate::span::Span;
use memchr::memchr;

/// What a message carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing that anybody here reads.
    Opaque,
    /// Signed, encrypted or compressed: must not be changed (also when an `Identity` header covers it). SDP that is
    /// in the clear all the same is listed, for reading only.
    Protected,
    /// Has SDP; spans come from [`descriptions`].
    Sdp,
}

/// Most parts that [`descriptions`] lists.
pub const MAX_PARTS: usize = 16;

/// How deep multiparts may be nested; deeper ones are opaque.
const MAX_DEPTH: usize = 4;

/// Fills `parts` with the spans of every `application/sdp` body or part, nested multiparts included (at most
/// [`MAX_PARTS`]), in order. The body ends where Content-Length says if that lies within the bytes, otherwise at the
/// end of the bytes. A part with a Content-Encoding, or with a Content-Transfer-Encoding that changes bytes, is left
/// out, and so is a signed or encrypted part.
pub fn descriptions(bytes: &[u8], message: &Message, parts: &mut Vec<Span>) -> Body {
    parts.clear();
    let body = extent(bytes, message);
    let Some(header) = message.first(HeaderName::ContentType) else { return Body::Opaque };
    if body.is_empty() {
        return Body::Opaque;
    }
    if message.all(HeaderName::ContentEncoding).any(|h| is_encoded(bytes, h.value)) {
        return Body::Protected;
    }
    let Some(kind) = ContentType::parse(bytes, header.value) else { return Body::Opaque };
    let mut walk = Walk { bytes, parts, protected: false };
    if kind.is(bytes, "multipart", "signed") {
        walk.multipart(&kind, body, 0);
        return Body::Protected;
    }
    walk.entity(&kind, body, 0);
    let Walk { protected, .. } = walk;
    if message.first(HeaderName::Identity).is_some() || (protected && parts.is_empty()) {
        return Body::Protected;
    }
    if parts.is_empty() { Body::Opaque } else { Body::Sdp }
}

/// The body by Content-Length: its first bytes if there are more (trailing bytes are not part of the message), all
/// that there is if it is short, absent or no number.
pub fn extent(bytes: &[u8], message: &Message) -> Span {
    let all = message.body();
    let length = content_length(bytes, message)
        .and_then(|(_, length)| usize::try_from(length).ok())
        .map_or(all.len(), |length| length.min(all.len()));
    Span::new(all.start as usize, all.start as usize + length)
}

/// The digits of Content-Length with their number: the only header that an edit of the body changes. `None`: absent,
/// or not a number, or several that disagree. Of several that agree this is the first; an edit must change
/// [all of them](content_lengths).
pub fn content_length(bytes: &[u8], message: &Message) -> Option<(Span, u64)> {
    let mut all = message.all(HeaderName::ContentLength).map(|h| Some((h.value, number(h.value.of(bytes))?)));
    let first = all.next()??;
    all.all(|other| other.is_some_and(|(_, length)| length == first.1)).then_some(first)
}

/// The digits of every Content-Length header with their number.
pub fn content_lengths(bytes: &[u8], message: &Message) -> impl Iterator<Item = (Span, u64)> {
    message.all(HeaderName::ContentLength).filter_map(|h| Some((h.value, number(h.value.of(bytes))?)))
}

/// Content-Encoding: anything but `identity` and nothing.
fn is_encoded(bytes: &[u8], value: Span) -> bool {
    !value.is_empty() && !value.of(bytes).eq_ignore_ascii_case(b"identity")
}

struct Walk<'a> {
    bytes: &'a [u8],
    parts: &'a mut Vec<Span>,
    /// Something signed, encrypted or compressed was passed over.
    protected: bool,
}

impl Walk<'_> {
    /// Takes in a body or part of type `kind`.
    fn entity(&mut self, kind: &ContentType, body: Span, depth: usize) {
        let is = |main, subtype| kind.is(self.bytes, main, subtype);
        if is("application", "sdp") {
            if self.parts.len() < MAX_PARTS {
                self.parts.push(body);
            }
        } else if is("multipart", "signed")
            || is("multipart", "encrypted")
            || is("application", "pkcs7-mime")
            || is("application", "x-pkcs7-mime")
        {
            self.protected = true;
        } else if depth < MAX_DEPTH {
            self.multipart(kind, body, depth);
        }
    }

    /// Takes in the parts of a multipart body; nothing if it is none. The line end before a delimiter belongs to the
    /// delimiter; a missing last delimiter is borne.
    fn multipart(&mut self, kind: &ContentType, body: Span, depth: usize) {
        let Some(boundary) = kind.boundary(self.bytes).map(|span| span.of(self.bytes)) else { return };
        let Some(text) = self.bytes.get(..body.end as usize) else { return };
        let mut at = body.start as usize;
        let mut part = None;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let length = memchr(b'\n', rest).map_or(rest.len(), |i| i + 1);
            let delimiter = rest.get(..length).and_then(|line| delimiter(line, boundary));
            if let Some(delimiter) = delimiter {
                if let Some(start) = part {
                    self.part(Span::new(start, before_line_end(text, start, at)), depth);
                }
                part = Some(at + length);
                if delimiter == Delimiter::Last {
                    return;
                }
            }
            at += length;
        }
        if let Some(start) = part {
            self.part(Span::new(start, text.len()), depth);
        }
    }

    /// Takes in one part with its own headers.
    fn part(&mut self, part: Span, depth: usize) {
        let Some(bytes) = self.bytes.get(..part.end as usize) else { return };
        let mut lines = HeaderLines { bytes, at: part.start as usize };
        let mut kind = None;
        let mut readable = true;
        loop {
            match lines.next() {
                None => return,
                Some(Line::Odd) => {}
                Some(Line::End) => break,
                Some(Line::Header(header)) => match header.name {
                    HeaderName::ContentType => {
                        kind = kind.or_else(|| ContentType::parse(bytes, header.value))
                    }
                    HeaderName::ContentEncoding if is_encoded(bytes, header.value) => {
                        self.protected = true;
                        readable = false;
                    }
                    HeaderName::Other if is_transfer_encoding(header.name_span.of(bytes)) => {
                        readable &= is_plain(trim(bytes, header.value).of(bytes));
                    }
                    _ => {}
                },
            }
        }
        if let Some(kind) = kind.filter(|_| readable) {
            self.entity(&kind, Span::new(lines.at, part.end as usize), depth + 1);
        }
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

    /// What [`descriptions`] says of a message with these headers (LF stands for CRLF) and this body.
    fn read(headers: &str, body: &str) -> (Body, Vec<String>) {
        let text = format!("INVITE sip:h SIP/2.0\r\n{}\r\n\r\n{body}", headers.replace('\n', "\r\n"));
        let mut message = Message::default();
        message.parse(text.as_bytes()).unwrap();
        let mut parts = vec![Span::new(0, 1)];
        let found = descriptions(text.as_bytes(), &message, &mut parts);
        (found, parts.iter().map(|s| String::from_utf8_lossy(s.of(text.as_bytes())).into_owned()).collect())
    }

    fn sdp(parts: &[&str]) -> (Body, Vec<String>) {
        (Body::Sdp, parts.iter().map(|s| (*s).to_string()).collect())
    }

    #[test]
    fn the_type_decides_what_a_body_is() {
        for headers in
            ["Content-Type: application/sdp", "c:Application / SDP;charset=x", "C :\n application/sdp"]
        {
            assert_eq!(read(headers, "v=0\r\n"), sdp(&["v=0\r\n"]), "{headers}");
        }
        for headers in
            ["To: a", "c: text/plain", "c: application/sdpfoo", "c:", "c: nonsense", "c: message/sip"]
        {
            assert_eq!(read(headers, "v=0\r\n"), (Body::Opaque, vec![]), "{headers}");
        }
        assert_eq!(read("c: application/sdp", ""), (Body::Opaque, vec![]));
        assert_eq!(read("c: application/sdp\nl: 0", "v=0\r\n"), (Body::Opaque, vec![]));
    }

    #[test]
    fn bodies_that_must_not_change_are_protected() {
        for headers in [
            "c: application/pkcs7-mime; smime-type=enveloped-data",
            "c: multipart/encrypted;boundary=b",
            "c: application/sdp\ne: gzip",
            "c: application/sdp\nContent-Encoding: deflate",
        ] {
            assert_eq!(
                read(headers, "--b\r\nc:application/sdp\r\n\r\nv=0\r\n--b--"),
                (Body::Protected, vec![]),
                "{headers}"
            );
        }
        for headers in ["c: application/sdp\ne: Identity", "c: application/sdp\nContent-Encoding:"] {
            assert_eq!(read(headers, "v=0"), sdp(&["v=0"]), "{headers}");
        }
    }

    #[test]
    fn protected_text_in_the_clear_is_listed_for_reading() {
        let signed = "--b\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n\r\n--b\r\nContent-Type: application/pkcs7-signature\r\n\r\n\0\r\n--b--";
        assert_eq!(
            read("c: multipart/signed;boundary=b", signed),
            (Body::Protected, vec!["v=0\r\n".to_string()])
        );
        for name in ["Identity", "y"] {
            let headers = format!("{name}: x.y.z;info=<https://h/c>\nc: application/sdp");
            assert_eq!(read(&headers, "v=0"), (Body::Protected, vec!["v=0".to_string()]));
        }
    }

    #[test]
    fn sdp_is_found_first_last_and_several_times() {
        let isup = "Content-Type: application/isup;version=itu-t92+\r\n\r\n\u{1}\0\n--B\0--B--";
        let part =
            |n: u8| format!("c : application/sdp\r\nContent-Disposition: session\r\n\r\nv={n}\r\ns=-\r\n");
        let mixed = "Content-Type: multipart/mixed;\n boundary=\"B\"";
        let join = |parts: &[&str]| {
            format!(
                "preamble\r\n--B\r\n{}\r\n--B--\r\nc:application/sdp\r\n\r\nv=9",
                parts.join("\r\n--B \t\r\n")
            )
        };
        for (parts, expected) in [
            (vec![part(0), isup.into()], vec!["v=0\r\ns=-\r\n"]),
            (vec![isup.into(), part(1)], vec!["v=1\r\ns=-\r\n"]),
            (vec![part(0), isup.into(), part(2)], vec!["v=0\r\ns=-\r\n", "v=2\r\ns=-\r\n"]),
        ] {
            let body = join(&parts.iter().map(String::as_str).collect::<Vec<_>>());
            assert_eq!(read(mixed, &body), sdp(&expected), "{body:?}");
            let bare = body.replace("\r\n", "\n");
            let expected: Vec<_> = expected.iter().map(|text| text.replace("\r\n", "\n")).collect();
            assert_eq!(read(mixed, &bare), (Body::Sdp, expected), "{bare:?}");
        }
        assert_eq!(read(mixed, &join(&[isup])), (Body::Opaque, vec![]));
    }

    #[test]
    fn multiparts_may_be_nested_four_deep() {
        let nest = |depth: usize| {
            let mut text = "Content-Type: application/sdp\r\n\r\nv=0".to_string();
            for level in (0..depth).rev() {
                text = format!(
                    "Content-Type: multipart/alternative;boundary=b{level}\r\n\r\n--b{level}\r\n{text}\r\n--b{level}--\r\n"
                );
            }
            let (headers, body) = text.split_once("\r\n\r\n").unwrap();
            read(headers, body)
        };
        assert_eq!(nest(1), sdp(&["v=0"]));
        assert_eq!(nest(4), sdp(&["v=0"]));
        assert_eq!(nest(5), (Body::Opaque, vec![]));
    }

    #[test]
    fn a_boundary_that_begins_another_one_is_told_apart() {
        let body = "--b\r\nc: multipart/mixed;boundary=b2\r\n\r\n--b2\r\nc: application/sdp\r\n\r\nv=1\r\n--b2--\r\n--b\r\nc:application/sdp\r\n\r\nv=2\r\n--bx\r\n--b--";
        assert_eq!(read("c: multipart/mixed;boundary=b", body), sdp(&["v=1", "v=2\r\n--bx"]));
    }

    #[test]
    fn parts_with_an_encoding_are_left_out() {
        let part = |headers: &str| {
            read(
                "c: multipart/mixed;boundary=b",
                &format!("--b\r\nc: application/sdp\r\n{headers}\r\nv=0\r\n--b--"),
            )
        };
        for plain in ["7bit", "8BIT", "binary"] {
            assert_eq!(part(&format!("Content-Transfer-Encoding: {plain}\r\n")), sdp(&["v=0"]), "{plain}");
        }
        assert_eq!(part("Content-Transfer-Encoding : base64\r\n"), (Body::Opaque, vec![]));
        assert_eq!(part("content-transfer-encoding: quoted-printable\r\n"), (Body::Opaque, vec![]));
        assert_eq!(part("Content-Encoding: gzip\r\n"), (Body::Protected, vec![]));
    }

    #[test]
    fn broken_multiparts_are_read_as_far_as_they_go() {
        let mixed = "c: multipart/mixed;boundary=b";
        assert_eq!(
            read(mixed, "--b\r\nc: application/sdp\r\n\r\nv=0\r\n"),
            sdp(&["v=0\r\n"]),
            "no last delimiter"
        );
        for body in [
            "",
            "v=0",
            "--b",
            "--b\r\n",
            "--b\r\n--b--",
            "--b\r\nc: application/sdp\r\n--b--",
            "--b\r\n\r\nv=0\r\n--b--",
            "--c\r\nc:application/sdp\r\n\r\nv=0",
        ] {
            assert_eq!(read(mixed, body), (Body::Opaque, vec![]), "{body:?}");
        }
        assert_eq!(read("c: multipart/mixed", "--\r\nc: application/sdp\r\n\r\nv=0"), (Body::Opaque, vec![]));
        let many = "--b\r\nc: application/sdp\r\n\r\nv=0\r\n".repeat(40);
        assert_eq!(read(mixed, &many), sdp(&["v=0"; MAX_PARTS]));
    }

    #[test]
    fn the_body_ends_where_content_length_says() {
        for (length, expected) in [
            ("l: 3", "v=0"),
            ("L :\n 5", "v=0\r\n"),
            ("To: a", "v=0\r\nmore"),
            ("l: 99999", "v=0\r\nmore"),
            ("l: -1", "v=0\r\nmore"),
            ("l: 3\nl: 4", "v=0\r\nmore"),
            ("l: 3\nContent-Length: 003", "v=0"),
        ] {
            assert_eq!(
                read(&format!("c: application/sdp\n{length}"), "v=0\r\nmore"),
                sdp(&[expected]),
                "{length}"
            );
        }
    }

    #[test]
    fn content_length_is_one_number_or_none() {
        for (headers, expected) in [
            ("Content-Length: 12", Some(("12", 12))),
            ("l :\r\n  0012 ", Some(("0012", 12))),
            ("To: a", None),
            ("l: ", None),
            ("l: 1 2", None),
            ("l: +12", None),
            ("l: 99999999999999999999", None),
            ("l: 12\r\nCONTENT-LENGTH: 12", Some(("12", 12))),
            ("l: 12\r\nl: 13", None),
            ("l: 12\r\nl: x", None),
        ] {
            let text = format!("BYE sip:h SIP/2.0\r\n{headers}\r\n\r\n");
            let mut message = Message::default();
            message.parse(text.as_bytes()).unwrap();
            let found = content_length(text.as_bytes(), &message);
            assert_eq!(
                found.map(|(s, n)| (s.of(text.as_bytes()), n)),
                expected.map(|(s, n)| (s.as_bytes(), n)),
                "{headers}"
            );
        }
        let text = b"BYE sip:h SIP/2.0\r\nl: 1\r\nl: x\r\nl: 2\r\n\r\n";
        let mut message = Message::default();
        message.parse(text).unwrap();
        assert_eq!(content_lengths(text, &message).map(|(_, n)| n).collect::<Vec<_>>(), [1, 2]);
    }
}
