//! One SIP message: its start line, a table of its headers, and where its body begins (RFC 3261 section 7).
//!
//! The one idea: positions only. The start line is checked strictly, because everything that begins like SIP is
//! taken for SIP later on; the headers are read as tolerantly as possible, because a line that nobody needs can't
//! fail a message. Header values are not looked at here, and the body's extent is [`body`](super::body)'s matter.

use super::HeaderName;
use super::lines::read_headers;
use super::text::{TOKEN, number};
use crate::search;
use crate::span::Span;

/// A message's structure. Made once, filled by [`Message::parse`] again and again without allocating.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    start: StartLine,
    headers: Vec<Header>,
    /// One bit for each name that occurs: most questions are for headers that are not there.
    names: u32,
    body: Span,
}

/// The first line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartLine {
    /// `METHOD SP Request-URI SP SIP/2.0`
    Request {
        /// The method token.
        method: Span,
        /// The Request-URI.
        uri: Span,
    },
    /// `SIP/2.0 SP code SP reason`
    Status {
        /// 100 to 699.
        code: u16,
    },
}

impl Default for StartLine {
    /// What a message that was never parsed has: a status that does not exist.
    fn default() -> Self {
        Self::Status { code: 0 }
    }
}

/// One header line with its folds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which header, by either spelling.
    pub name: HeaderName,
    /// The name as written.
    pub name_span: Span,
    /// The value without surrounding white space, folds inside.
    pub value: Span,
}

/// Why bytes are not a SIP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The first line is no SIP start line.
    #[error("the first line is no SIP start line")]
    NotSip,
    /// No empty line ends the headers.
    #[error("the headers do not end")]
    Endless,
    /// More headers than [`Message::MAX_HEADERS`].
    #[error("too many headers")]
    TooManyHeaders,
}

impl Message {
    /// Past this many headers a message passes untouched.
    pub const MAX_HEADERS: usize = 1024;

    /// Reads `bytes`. Leading CR and LF are skipped (RFC 3261 section 7.5); the rest must be a start line with
    /// exactly one blank between its elements, header lines that end in CRLF or LF, and an empty line. A line
    /// without a colon, or one that begins with white space and follows no header, is passed over.
    ///
    /// # Errors
    /// Says why it is no SIP message; the table is then empty.
    pub fn parse(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        self.clear();
        let outcome = self.read(bytes);
        if outcome.is_err() {
            self.clear();
        }
        outcome
    }

    /// The first line.
    pub fn start(&self) -> StartLine {
        self.start
    }

    /// All headers in order.
    pub fn headers(&self) -> &[Header] {
        &self.headers
    }

    /// The headers called `name`, in order.
    pub fn all(&self, name: HeaderName) -> impl Iterator<Item = &Header> {
        self.called(name).iter().filter(move |h| h.name == name)
    }

    /// The first header called `name`.
    pub fn first(&self, name: HeaderName) -> Option<&Header> {
        self.called(name).iter().find(|h| h.name == name)
    }

    /// All headers if one is called `name`, otherwise none.
    #[inline]
    fn called(&self, name: HeaderName) -> &[Header] {
        if self.names & name.bit() != 0 { &self.headers } else { &[] }
    }

    /// From after the empty line to the end of the bytes. [`body::extent`](super::body::extent) has the part of it
    /// that Content-Length covers.
    pub fn body(&self) -> Span {
        self.body
    }

    /// Makes it one of the first `length` bytes only, which reach beyond the headers: what follows is another's.
    pub fn end_at(&mut self, length: usize) {
        let end = u32::try_from(length).unwrap_or(u32::MAX);
        self.body.end = self.body.end.min(end).max(self.body.start);
    }

    fn clear(&mut self) {
        self.start = StartLine::default();
        self.headers.clear();
        self.names = 0;
        self.body = Span::default();
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        let start = bytes.iter().position(|b| !matches!(b, b'\r' | b'\n')).ok_or(Malformed::NotSip)?;
        let rest = bytes.get(start..).unwrap_or_default();
        let line = rest.get(..search::find(rest, [b'\n']).ok_or(Malformed::NotSip)?).unwrap_or_default();
        let next = start + line.len() + 1;
        self.start = start_line(line.strip_suffix(b"\r").unwrap_or(line), start).ok_or(Malformed::NotSip)?;
        let mut full = false;
        let body = read_headers(bytes, next, |header| {
            full = self.headers.len() == Self::MAX_HEADERS;
            if !full {
                self.names |= header.name.bit();
                self.headers.push(header);
            }
            !full
        });
        if full {
            return Err(Malformed::TooManyHeaders);
        }
        self.body = Span::new(body.ok_or(Malformed::Endless)?, bytes.len());
        Ok(())
    }
}

/// Reads `line`, which begins at `base` in the buffer.
fn start_line(line: &[u8], base: usize) -> Option<StartLine> {
    const VERSION: usize = "SIP/2.0".len();
    let is_version = |text: &[u8]| text.eq_ignore_ascii_case(b"SIP/2.0");
    if line.get(..VERSION).is_some_and(is_version) {
        return status(line.get(VERSION..)?);
    }
    let method = search::find(line, [b' '])?;
    let uri_end = line.len().checked_sub(VERSION + 1)?;
    let uri = line.get(method + 1..uri_end)?;
    let fits = is_version(line.get(uri_end + 1..)?)
        && line.get(uri_end) == Some(&b' ')
        && method > 0
        && TOKEN.holds(line.get(..method)?)
        && super::uri::scheme(uri).is_some()
        && search::find(uri, [b' ', b'\t']).is_none();
    fits.then(|| StartLine::Request {
        method: Span::new(base, base + method),
        uri: Span::new(base + method + 1, base + uri_end),
    })
}

/// ` 200 OK`, ` 200 ` or ` 200`
fn status(rest: &[u8]) -> Option<StartLine> {
    let code = number(rest.strip_prefix(b" ")?.get(..3)?)?;
    let ends = matches!(rest.get(4), None | Some(b' '));
    (ends && (100..700).contains(&code)).then_some(StartLine::Status { code: code as u16 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &[u8]) -> Result<Message, Malformed> {
        let mut message = Message::default();
        message.parse(text).map(|()| message)
    }

    /// Start line, headers and body as text.
    fn show(text: &str) -> (String, Vec<(HeaderName, &str, &str)>, &str) {
        let message = parse(text.as_bytes()).unwrap_or_else(|e| panic!("{e}: {text}"));
        let show = |span: Span| std::str::from_utf8(span.of(text.as_bytes())).unwrap();
        let start = match message.start() {
            StartLine::Request { method, uri } => format!("{}|{}", show(method), show(uri)),
            StartLine::Status { code } => code.to_string(),
        };
        let headers = message.headers().iter().map(|h| (h.name, show(h.name_span), show(h.value))).collect();
        (start, headers, show(message.body()))
    }

    #[test]
    fn start_line_headers_and_body_are_found() {
        let text =
            "INVITE sip:bob@h SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nm:<sip:a@h>\r\nX-Odd: 1\r\n\r\nbody\r\n";
        let expected = vec![
            (HeaderName::Via, "Via", "SIP/2.0/UDP h"),
            (HeaderName::Contact, "m", "<sip:a@h>"),
            (HeaderName::Other, "X-Odd", "1"),
        ];
        assert_eq!(show(text), ("INVITE|sip:bob@h".into(), expected.clone(), "body\r\n"));
        let bare = text.replace("\r\n", "\n");
        assert_eq!(show(&bare), ("INVITE|sip:bob@h".into(), expected.clone(), "body\n"));
        let late = format!("\r\n\n\r\n{text}");
        assert_eq!(show(&late), ("INVITE|sip:bob@h".into(), expected, "body\r\n"));
    }

    #[test]
    fn header_lines_of_every_shape_are_read() {
        for (lines, expected) in [
            ("", vec![]),
            ("VIA \t :  a \t\r\n", vec![(HeaderName::Via, "VIA", "a")]),
            (
                "Via: a\r\n b\r\n\t c\r\nt:d\r\n",
                vec![(HeaderName::Via, "Via", "a\r\n b\r\n\t c"), (HeaderName::To, "t", "d")],
            ),
            ("Via:\r\n a\r\n", vec![(HeaderName::Via, "Via", "a")]),
            ("Subject:\r\n", vec![(HeaderName::Subject, "Subject", "")]),
            ("Subject: \r\n \r\n", vec![(HeaderName::Subject, "Subject", "")]),
            ("no colon here\r\n folded: too\r\nTo: a\r\n", vec![(HeaderName::To, "To", "a")]),
            (" leading: blank\r\nTo: a\r\n", vec![(HeaderName::To, "To", "a")]),
            (": nameless\r\n:\r\nTo: a\r\n", vec![(HeaderName::To, "To", "a")]),
            ("Via\r\n : folded before the colon\r\nTo: a\r\n", vec![(HeaderName::To, "To", "a")]),
            ("A B: c:d\r\n", vec![(HeaderName::Other, "A B", "c:d")]),
            ("To: a\rb\r\n", vec![(HeaderName::To, "To", "a\rb")]),
        ] {
            let text = format!("SIP/2.0 200 OK\r\n{lines}\r\n");
            assert_eq!(show(&text).1, expected, "{lines:?}");
        }
    }

    #[test]
    fn headers_are_found_by_name_in_order() {
        let text = b"BYE sip:h SIP/2.0\r\nv: 1\r\nTo: 2\r\nVIA: 3\r\n\r\n";
        let message = parse(text).unwrap();
        let vias: Vec<_> = message.all(HeaderName::Via).map(|h| h.value.of(text)).collect();
        assert_eq!(vias, [b"1", b"3"]);
        assert_eq!(message.first(HeaderName::Via).unwrap().value.of(text), b"1");
        assert_eq!(message.first(HeaderName::From), None);
        assert!(message.body().is_empty());
    }

    #[test]
    fn start_lines_are_strict() {
        for (line, expected) in [
            ("INVITE sip:a@h SIP/2.0", "INVITE|sip:a@h"),
            ("options tel:+1;x=y sip/2.0", "options|tel:+1;x=y"),
            ("!int-M0_*+`.%i'~ urn:service:sos SIP/2.0", "!int-M0_*+`.%i'~|urn:service:sos"),
            ("SIP/2.0 200 OK", "200"),
            ("sip/2.0 100 ", "100"),
            ("SIP/2.0 699", "699"),
            ("SIP/2.0 404  Two  Blanks", "404"),
        ] {
            assert_eq!(show(&format!("{line}\r\n\r\n")).0, expected, "{line}");
        }
        for line in [
            "",
            "INVITE",
            "INVITE sip:h",
            "INVITE  sip:h SIP/2.0",
            "INVITE sip:h  SIP/2.0",
            "INVITE sip:h SIP/2.0 ",
            " INVITE sip:h SIP/2.0",
            "INVITE\tsip:h\tSIP/2.0",
            "INVITE <sip:h> SIP/2.0",
            "INVITE sip:a b@h SIP/2.0",
            "INVITE h SIP/2.0",
            "INVITE :h SIP/2.0",
            "IN(VITE sip:h SIP/2.0",
            "INVITE sip:h SIP/7.0",
            "INVITE sip:h HTTP/1.1",
            " sip:h SIP/2.0",
            "INVITE sip:hSIP/2.0",
            "INVITE SIP/2.0",
            "SIP/2.0",
            "SIP/2.0 ",
            "SIP/2.0 20",
            "SIP/2.0 2000",
            "SIP/2.0  200 OK",
            "SIP/2.0 099 x",
            "SIP/2.0 700 x",
            "SIP/2.0 2x0 OK",
            "SIP/2.0 200\tOK",
            "SIP/2.1 200 OK",
            "SIP/2.0200 OK",
            "GET / HTTP/1.1",
            "\0\0\0\0",
            "\u{16}\u{3}\u{1}",
        ] {
            assert_eq!(parse(format!("{line}\r\n\r\n").as_bytes()), Err(Malformed::NotSip), "{line:?}");
        }
        for bytes in [&b""[..], b"\r\n\r\n", b"\r\n", b"INVITE sip:h SIP/2.0", b"\0\0\0\0"] {
            assert_eq!(parse(bytes), Err(Malformed::NotSip), "{bytes:?}");
        }
    }

    #[test]
    fn headers_must_end() {
        for rest in ["", "To: a\r\n", "To: a", "To: a\r\n ", "To: a\r\n b\r\n \r\n"] {
            let text = format!("SIP/2.0 200 OK\r\n{rest}");
            assert_eq!(parse(text.as_bytes()), Err(Malformed::Endless), "{rest:?}");
        }
    }

    #[test]
    fn headers_are_limited_and_a_failure_leaves_nothing_behind() {
        let text = |headers| format!("SIP/2.0 200 OK\r\n{}\r\nbody", "a:b\r\n".repeat(headers));
        let mut message = Message::default();
        message.parse(text(Message::MAX_HEADERS).as_bytes()).unwrap();
        assert_eq!(message.headers().len(), Message::MAX_HEADERS);
        for headers in [Message::MAX_HEADERS + 1, 10_000] {
            assert_eq!(message.parse(text(headers).as_bytes()), Err(Malformed::TooManyHeaders));
            assert_eq!(message, Message::default());
        }
    }

    #[test]
    fn parsing_again_keeps_the_memory() {
        let text = format!("SIP/2.0 200 OK\r\n{}\r\n", "a:b\r\n".repeat(40));
        let mut message = Message::default();
        message.parse(text.as_bytes()).unwrap();
        let before = (message.headers.as_ptr(), message.headers.capacity());
        message.parse(b"SIP/2.0 200 OK\r\n\r\n").unwrap();
        message.parse(text.as_bytes()).unwrap();
        assert_eq!((message.headers.as_ptr(), message.headers.capacity()), before);
    }
}
