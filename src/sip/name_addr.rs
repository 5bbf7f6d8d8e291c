//! stub
use crate::span::Span;
/// One value of Contact, From, To, Route and their like (RFC 3261 section 20.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameAddr {
    /// `*`
    Star,
    /// An address.
    Address {
        /// The URI, `<>` not included.
        uri: Span,
        /// Header parameters from the first `;`, empty if none.
        params: Span,
    },
}
/// Reads one value (no comma list; see [`super::list`]). `None`: not an address.
pub fn parse(bytes: &[u8], value: Span) -> Option<NameAddr> {
    let _ = (bytes, value);
    todo!()
}
