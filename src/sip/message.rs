//! stub
use super::HeaderName;
use crate::span::Span;

/// A message's structure. Made once, filled by [`Message::parse`] again and again without allocating.
#[derive(Debug, Default)]
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

    /// Reads `bytes` (leading CRLFs skipped).
    pub fn parse(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        let _ = bytes;
        todo!()
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
    /// From after the empty line to the end of the bytes.
    pub fn body(&self) -> Span {
        self.body
    }
}
