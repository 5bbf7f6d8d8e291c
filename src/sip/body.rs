//! What a message carries: the extent of its body, and the SDP in it (RFC 3261 sections 7.4 and 20.11 to 20.15; RFC
//! 5621 for multiparts in SIP).
//!
//! The type decides, not the look: a body that begins with `v=0` but has no Content-Type is nobody's SDP (section
//! 20.15 demands the header). A body that is signed, encrypted or compressed is [`Body::Protected`]. Parts are only
//! located: reading them is the matter of [`sdp`](crate::sdp), and adjusting Content-Length that of the editor.
//!
//! `Identity` comes in two kinds. That of RFC 8224, which carriers put on every call today, signs who calls whom and
//! when, and of the body at most the key fingerprints (`mky`): addresses and ports are not in it, so its SDP may change
//! and has to, or such calls would be silent. That of RFC 4474, a quoted string, signs the whole body: protected.

use super::content_type::ContentType;
use super::multipart::{Part, is_encoded, parts};
use super::text::number;
use super::{HeaderName, Message};
use crate::span::Span;

/// What a message carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing that anybody here reads.
    Opaque,
    /// Signed, encrypted or compressed: must not be changed. SDP that is in the clear all the same is listed, for
    /// reading only.
    Protected,
    /// Has SDP; spans come from [`descriptions`] or [`fragments`].
    Sdp,
}

/// Most parts that [`descriptions`] lists.
pub const MAX_PARTS: usize = 16;

/// How deep multiparts may be nested; deeper ones are opaque.
const MAX_DEPTH: usize = 4;

/// Fills `found` with the spans of every `application/sdp` body or part, nested multiparts included (at most
/// [`MAX_PARTS`]), in order. The body ends where Content-Length says if that lies within the bytes, otherwise at the
/// end of the bytes. A part with a Content-Encoding, or with a Content-Transfer-Encoding that changes bytes, is left
/// out, and so is a signed or encrypted part.
pub fn descriptions(bytes: &[u8], message: &Message, found: &mut Vec<Span>) -> Body {
    search(bytes, message, "sdp", found)
}

/// The same for `application/trickle-ice-sdpfrag` (RFC 8840), which
/// [`Description::parse_fragment`](crate::sdp::Description::parse_fragment) reads.
pub fn fragments(bytes: &[u8], message: &Message, found: &mut Vec<Span>) -> Body {
    search(bytes, message, "trickle-ice-sdpfrag", found)
}

/// Whether the headers alone tell that nobody here reads the body, let alone changes it: [`descriptions`] and
/// [`fragments`] would find nothing, whatever stands in it.
pub fn is_opaque(bytes: &[u8], message: &Message) -> bool {
    let Some(header) = message.first(HeaderName::ContentType) else { return true };
    let is_encoded = message.all(HeaderName::ContentEncoding).any(|h| is_encoded(bytes, h.value));
    is_encoded
        || ContentType::parse(bytes, header.value).is_none_or(|kind| {
            let is_sdp = |subtype| kind.is(bytes, "application", subtype);
            !(is_sdp("sdp") || is_sdp("trickle-ice-sdpfrag") || kind.boundary(bytes).is_some())
        })
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

/// The digits of every Content-Length header of the message with their number.
pub fn content_lengths(bytes: &[u8], message: &Message) -> impl Iterator<Item = (Span, u64)> {
    message.all(HeaderName::ContentLength).filter_map(|h| Some((h.value, number(h.value.of(bytes))?)))
}

/// A Content-Length among the headers of a MIME part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartLength {
    /// Its digits.
    pub digits: Span,
    /// Their number.
    pub number: u64,
    /// The part's body, which it is the length of.
    pub body: Span,
}

/// Adds to `lengths` the Content-Lengths that the MIME parts around `description` (a span that [`descriptions`] gave)
/// have among their own headers, from outside to inside. Few writers give any; what they give has to stay true when the
/// description is edited.
pub fn part_lengths(bytes: &[u8], message: &Message, description: Span, lengths: &mut Vec<PartLength>) {
    if description.start == message.body().start {
        return; // the whole body; a part has its delimiter before it
    }
    let mut body = extent(bytes, message);
    let mut kind = message.first(HeaderName::ContentType).and_then(|h| ContentType::parse(bytes, h.value));
    for _ in 0..MAX_DEPTH {
        let Some(multipart) = kind else { return };
        let holds = |part: &Span| part.start <= description.start && description.end <= part.end;
        let Some(part) = parts(bytes, &multipart, body).find(holds).and_then(|span| Part::read(bytes, span))
        else {
            return;
        };
        lengths.extend(part.length.map(|(digits, number)| PartLength { digits, number, body: part.body }));
        (kind, body) = (part.kind, part.body);
    }
}

fn search(bytes: &[u8], message: &Message, subtype: &str, found: &mut Vec<Span>) -> Body {
    found.clear();
    let body = extent(bytes, message);
    let Some(header) = message.first(HeaderName::ContentType) else { return Body::Opaque };
    if body.is_empty() {
        return Body::Opaque;
    }
    if message.all(HeaderName::ContentEncoding).any(|h| is_encoded(bytes, h.value)) {
        return Body::Protected;
    }
    let Some(kind) = ContentType::parse(bytes, header.value) else { return Body::Opaque };
    let mut search = Search { bytes, subtype, found, protected: false };
    if kind.is(bytes, "multipart", "signed") {
        search.multipart(&kind, body, 0);
        return Body::Protected;
    }
    search.entity(&kind, body, 0);
    let protected = search.protected && found.is_empty();
    if protected || message.all(HeaderName::Identity).any(|h| signs_body(bytes, h.value)) {
        return Body::Protected;
    }
    if found.is_empty() { Body::Opaque } else { Body::Sdp }
}

/// Whether an `Identity` is of the kind that covers the body: RFC 4474's quoted string, and not RFC 8224's token.
fn signs_body(bytes: &[u8], identity: Span) -> bool {
    identity.of(bytes).first() == Some(&b'"')
}

struct Search<'a> {
    bytes: &'a [u8],
    /// Bodies of type `application` with this subtype are wanted.
    subtype: &'a str,
    found: &'a mut Vec<Span>,
    /// Something signed, encrypted or compressed was passed over.
    protected: bool,
}

impl Search<'_> {
    /// Takes in a body or part of type `kind`.
    fn entity(&mut self, kind: &ContentType, body: Span, depth: usize) {
        let is = |main, subtype| kind.is(self.bytes, main, subtype);
        if is("application", self.subtype) {
            if self.found.len() < MAX_PARTS {
                self.found.push(body);
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

    /// Takes in the parts of a multipart body; nothing if it is none.
    fn multipart(&mut self, kind: &ContentType, body: Span, depth: usize) {
        for part in parts(self.bytes, kind, body).filter_map(|span| Part::read(self.bytes, span)) {
            self.protected |= part.encoded;
            if let Some(kind) = part.kind.filter(|_| part.plain && !part.encoded) {
                self.entity(&kind, part.body, depth + 1);
            }
        }
    }
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
    fn what_is_opaque_by_its_headers_is_so_whatever_stands_in_it() {
        let part = "--b\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n--b--";
        let told = |headers: &str| {
            let text = format!("INVITE sip:h SIP/2.0\r\n{}\r\n\r\n", headers.replace('\n', "\r\n"));
            let mut message = Message::default();
            message.parse(text.as_bytes()).unwrap();
            is_opaque(text.as_bytes(), &message)
        };
        for headers in [
            "To: a",
            "c: text/plain",
            "c:",
            "c: message/sip",
            "c: multipart/mixed",
            "c: application/sdp\ne: gzip",
        ] {
            assert!(told(headers), "{headers}");
            assert_eq!(read(headers, part).1, [""; 0], "{headers}");
        }
        for headers in [
            "c: application/sdp",
            "Content-Type: Application / SDP;x",
            "c: application/trickle-ice-sdpfrag",
            "c: multipart/signed;boundary=b",
            "c: multipart/mixed;boundary=b\nContent-Encoding: identity",
        ] {
            assert!(!told(headers), "{headers}");
        }
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
            let headers = format!("{name}: \"c2lnbmVk\"\nIdentity-Info: <https://h/c>\nc: application/sdp");
            assert_eq!(read(&headers, "v=0"), (Body::Protected, vec!["v=0".to_string()]));
        }
    }

    #[test]
    fn an_identity_that_signs_no_addresses_protects_none() {
        for value in ["x.y.z;info=<https://h/c>", "..z;info=<https://h/c>;alg=ES256;ppt=shaken"] {
            let headers = format!("Identity: {value}\nc: application/sdp");
            assert_eq!(read(&headers, "v=0"), sdp(&["v=0"]));
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

    #[test]
    fn parts_with_lengths_of_their_own_are_told() {
        let lengths = |headers: &str, body: &str| {
            let text = format!("INVITE sip:h SIP/2.0\r\n{headers}\r\n\r\n{body}");
            let mut message = Message::default();
            message.parse(text.as_bytes()).unwrap();
            let (mut found, mut lengths) = (Vec::new(), Vec::new());
            descriptions(text.as_bytes(), &message, &mut found);
            part_lengths(text.as_bytes(), &message, *found.last().unwrap(), &mut lengths);
            lengths
                .iter()
                .map(|it| (String::from_utf8_lossy(it.digits.of(text.as_bytes())).into_owned(), it.number))
                .collect::<Vec<_>>()
        };
        let inner = "--b\r\nc: text/plain\r\nl: 2\r\n\r\nhi\r\n--b\r\nContent-Length: 03\r\nc: application/sdp\r\n\r\nv=0\r\n--b--";
        assert_eq!(lengths("c: multipart/mixed;boundary=b\r\nl: 999", inner), [("03".to_string(), 3)]);
        let outer = format!("--a\r\nc: multipart/mixed;boundary=b\r\nl:77\r\n\r\n{inner}\r\n--a--");
        assert_eq!(
            lengths("c: multipart/mixed;boundary=a", &outer),
            [("77".to_string(), 77), ("03".to_string(), 3)]
        );
        assert_eq!(lengths("c: application/sdp\r\nl: 3", "v=0"), []);
    }

    #[test]
    fn fragments_of_trickling_are_found_apart_from_descriptions() {
        let text = b"INFO sip:h SIP/2.0\r\nc: application/trickle-ice-sdpfrag\r\n\r\na=mid:0\r\n";
        let mut message = Message::default();
        message.parse(text).unwrap();
        let mut found = Vec::new();
        assert_eq!(descriptions(text, &message, &mut found), Body::Opaque);
        assert_eq!(fragments(text, &message, &mut found), Body::Sdp);
        assert_eq!(found, [message.body()]);
    }
}
