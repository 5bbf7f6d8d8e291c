//! One SIP message: its start line, a table of its headers, and where its body begins (RFC 3261 section 7).
//!
//! The one idea: positions only. The start line is checked strictly, because everything that begins like SIP is
//! taken for SIP later on; the headers are read as tolerantly as possible, because a line that nobody needs can't
//! fail a message. Header values are not looked at here, and the body's extent is [`body`](super::body)'s matter.

use super::HeaderName;
use super::lines::{HeaderLines, Line};
use super::text::{is_token, number};
use crate::span::Span;
use memchr::{memchr, memchr2};

/// A message's structure. Made once, filled by [`Message::parse`] again and again without allocating.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    start: StartLine,
    headers: Vec<Header>,
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
        self.headers.iter().filter(move |h| h.name == name)
    }

    /// The first header called `name`.
    pub fn first(&self, name: HeaderName) -> Option<&Header> {
        self.headers.iter().find(|h| h.name == name)
    }

    /// From after the empty line to the end of the bytes. [`body::extent`](super::body::extent) has the part of it
    /// that Content-Length covers.
    pub fn body(&self) -> Span {
        self.body
    }

    fn clear(&mut self) {
        self.start = StartLine::default();
        self.headers.clear();
        self.body = Span::default();
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        let start = bytes.iter().position(|b| !matches!(b, b'\r' | b'\n')).ok_or(Malformed::NotSip)?;
        let rest = bytes.get(start..).unwrap_or_default();
        let line = rest.get(..memchr(b'\n', rest).ok_or(Malformed::NotSip)?).unwrap_or_default();
        let next = start + line.len() + 1;
        self.start = start_line(line.strip_suffix(b"\r").unwrap_or(line), start).ok_or(Malformed::NotSip)?;
        let mut lines = HeaderLines { bytes, at: next };
        loop {
            match lines.next().ok_or(Malformed::Endless)? {
                Line::Header(_) if self.headers.len() == Self::MAX_HEADERS => {
                    return Err(Malformed::TooManyHeaders);
                }
                Line::Header(header) => self.headers.push(header),
                Line::Odd => {}
                Line::End => break,
            }
        }
        self.body = Span::new(lines.at, bytes.len());
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
    let method = memchr(b' ', line)?;
    let uri_end = line.len().checked_sub(VERSION + 1)?;
    let uri = line.get(method + 1..uri_end)?;
    let fits = is_version(line.get(uri_end + 1..)?)
        && line.get(uri_end) == Some(&b' ')
        && method > 0
        && line.get(..method)?.iter().all(|&b| is_token(b))
        && super::uri::scheme(uri).is_some()
        && memchr2(b' ', b'\t', uri).is_none();
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
