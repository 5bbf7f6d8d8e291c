//! SIP messages as spans over their bytes (RFC 3261 sections 7.3 and 25).
//!
//! Tolerant when reading: LF line ends, folding, compact names, any case, any linear white space, 8-bit bytes and
//! unknown everything are accepted, because a header that nobody needs to touch cannot fail a message. Nothing is
//! copied, un-escaped or re-created, and nothing here knows what an IP packet is.
//!
//! Every reader takes the whole buffer and a [`Span`](crate::span::Span) of it, and answers with spans of the same
//! buffer. Work is linear in the span, and what cannot be understood is `None`: the caller leaves such text alone.
//!
//! | module | what it reads |
//! |---|---|
//! | [`message`] | start line, header table, where the body begins |
//! | [`header`] | header names, long and compact |
//! | [`list`] | comma lists, quoting-aware |
//! | [`name_addr`] | `"Name" <uri>;params`, bare URIs, `*` |
//! | [`uri`] | `sip:` and `sips:` URIs: user, host, port, parameters, headers |
//! | [`via`] | Via values |
//! | [`cseq`] | CSeq values |
//! | [`params`] | `;name=value` lists |
//! | [`host`] | host text to [`std::net::IpAddr`] |
//! | [`content_type`] | media types with their parameters |
//! | [`body`] | Content-Length, and the spans of `application/sdp` bodies and parts |

pub mod body;
pub mod content_type;
pub mod cseq;
pub mod header;
pub mod host;
pub mod list;
pub mod message;
pub mod name_addr;
pub mod params;
pub mod uri;
pub mod via;

mod lines;
mod multipart;
mod text;
#[cfg(test)]
mod torture;

pub use header::HeaderName;
pub use message::{Header, Malformed, Message, StartLine};
