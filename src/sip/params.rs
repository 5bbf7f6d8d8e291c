//! stub
use crate::span::Span;
/// One `;name[=value]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param {
    /// the name
    pub name: Span,
    /// the value, quotes included; `None` for a flag
    pub value: Option<Span>,
}
/// The parameters in `text` (which starts at a `;` or is empty).
pub fn params(bytes: &[u8], text: Span) -> impl Iterator<Item = Param> {
    let _ = (bytes, text);
    std::iter::empty()
}
/// The parameter called `name` (any case).
pub fn find(bytes: &[u8], text: Span, name: &str) -> Option<Param> {
    let _ = (bytes, text, name);
    todo!()
}
