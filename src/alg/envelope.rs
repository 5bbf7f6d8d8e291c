//! Who is talking: the headers that name a transaction and a dialog, checked strictly.
//!
//! This is rule S4: a message that opens anything must be SIP beyond doubt, with all the mandatory headers that a
//! line of somebody's web form would not have. What fails here passes untouched (S13). Addresses are not looked at.

use crate::sip::via::{self, Via};
use crate::sip::{HeaderName, Message, StartLine, cseq, name_addr, params};
use crate::span::Span;
use serde::{Deserialize, Serialize};

/// The methods that mean something here; all others are `Other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs)] // RFC 3261, 3262, 3903, 6665
pub enum Method {
    Invite,
    Ack,
    Bye,
    Cancel,
    Register,
    Prack,
    Subscribe,
    Publish,
    Options,
    Update,
    Other,
}

impl Method {
    /// Methods are case-sensitive (RFC 3261 section 7.1).
    pub fn of(token: &[u8]) -> Self {
        match token {
            b"INVITE" => Self::Invite,
            b"ACK" => Self::Ack,
            b"BYE" => Self::Bye,
            b"CANCEL" => Self::Cancel,
            b"REGISTER" => Self::Register,
            b"PRACK" => Self::Prack,
            b"SUBSCRIBE" => Self::Subscribe,
            b"PUBLISH" => Self::Publish,
            b"OPTIONS" => Self::Options,
            b"UPDATE" => Self::Update,
            _ => Self::Other,
        }
    }
}

/// What a message says of its transaction and dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The status code of a response; `None` for a request.
    pub status: Option<u16>,
    /// The number of CSeq.
    pub cseq: u32,
    /// The method, from CSeq.
    pub method: Method,
    /// The method's token in CSeq.
    pub method_span: Span,
    /// The Request-URI of a request; empty for a response.
    pub request_uri: Span,
    /// Call-ID.
    pub call_id: Span,
    /// The URI of From.
    pub from: Span,
    /// The tag of From.
    pub from_tag: Span,
    /// The URI of To.
    pub to: Span,
    /// The tag of To.
    pub to_tag: Option<Span>,
    /// The topmost Via.
    pub via: Via,
    /// Its branch.
    pub branch: Span,
}

/// Why a message is not believed (S4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// A mandatory header is missing or makes no sense.
    #[error("Via, From, To, Call-ID or CSeq is missing or malformed")]
    MandatoryHeader,
    /// From has no tag.
    #[error("From has no tag")]
    FromTag,
    /// The topmost Via has no branch of RFC 3261.
    #[error("the Via branch does not begin with z9hG4bK")]
    Branch,
    /// CSeq names another method than the request line.
    #[error("CSeq and the request line name different methods")]
    CSeqMethod,
    /// A mandatory header that may occur only once occurs again.
    #[error("Call-ID, CSeq, From or To occurs twice")]
    Repeated,
}

impl Envelope {
    /// Reads and checks the envelope of `message`.
    ///
    /// # Errors
    /// A [`Doubt`]: the message must pass untouched.
    pub fn read(bytes: &[u8], message: &Message) -> Result<Self, Doubt> {
        let [mut via, mut from, mut to, mut call_id, mut cseq] = [None::<Span>; 5];
        for header in message.headers() {
            let slot = match header.name {
                HeaderName::Via => {
                    via.get_or_insert(header.value);
                    continue;
                }
                HeaderName::From => &mut from,
                HeaderName::To => &mut to,
                HeaderName::CallId => &mut call_id,
                HeaderName::CSeq => &mut cseq,
                _ => continue,
            };
            if slot.replace(header.value).is_some() {
                return Err(Doubt::Repeated);
            }
        }
        let (Some(via), Some(from), Some(to), Some(call_id), Some(cseq)) = (via, from, to, call_id, cseq)
        else {
            return Err(Doubt::MandatoryHeader);
        };
        let (from, from_params) = address(bytes, from)?;
        let (to, to_params) = address(bytes, to)?;
        let top = crate::sip::list::values(bytes, via).next().ok_or(Doubt::MandatoryHeader)?;
        let top = via::parse(bytes, top).ok_or(Doubt::MandatoryHeader)?;
        let branch = top.branch.ok_or(Doubt::Branch)?;
        if !branch.of(bytes).get(..7).is_some_and(|cookie| cookie.eq_ignore_ascii_case(b"z9hG4bK")) {
            return Err(Doubt::Branch);
        }
        let cseq = cseq::parse(bytes, cseq).ok_or(Doubt::MandatoryHeader)?;
        let (status, request_uri) = match message.start() {
            StartLine::Status { code } => (Some(code), Span::default()),
            StartLine::Request { method, uri } if method.of(bytes) == cseq.method.of(bytes) => (None, uri),
            StartLine::Request { .. } => return Err(Doubt::CSeqMethod),
        };
        if call_id.is_empty() {
            return Err(Doubt::MandatoryHeader);
        }
        Ok(Self {
            status,
            cseq: cseq.number,
            method: Method::of(cseq.method.of(bytes)),
            method_span: cseq.method,
            request_uri,
            call_id,
            from,
            from_tag: tag(bytes, from_params).ok_or(Doubt::FromTag)?,
            to,
            to_tag: tag(bytes, to_params),
            via: top,
            branch,
        })
    }
}

fn address(bytes: &[u8], value: Span) -> Result<(Span, Span), Doubt> {
    match name_addr::parse(bytes, value) {
        Some(name_addr::NameAddr::Address { uri, params }) => Ok((uri, params)),
        Some(name_addr::NameAddr::Star) | None => Err(Doubt::MandatoryHeader),
    }
}

fn tag(bytes: &[u8], text: Span) -> Option<Span> {
    params::find(bytes, text, "tag").and_then(|param| param.value).filter(|tag| !tag.is_empty())
}
