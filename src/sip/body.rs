//! stub
use super::Message;
use crate::span::Span;
/// What a message carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing that anybody here reads.
    Opaque,
    /// Signed, encrypted or compressed: must not be changed (also when an `Identity` header covers it).
    Protected,
    /// Has SDP; spans come from [`descriptions`].
    Sdp,
}
/// Fills `parts` with the spans of every `application/sdp` body or part, nested multiparts included (at most 16).
/// The body ends where Content-Length says if that lies within the bytes, otherwise at the end of the bytes.
pub fn descriptions(bytes: &[u8], message: &Message, parts: &mut Vec<Span>) -> Body {
    let _ = (bytes, message, parts);
    todo!()
}
/// The digits of Content-Length with their number: the only header that an edit of the body changes. `None`: absent
/// or not a number.
pub fn content_length(bytes: &[u8], message: &Message) -> Option<(Span, u64)> {
    let _ = (bytes, message);
    todo!()
}
