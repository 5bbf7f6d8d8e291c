//! stub
use crate::span::Span;
/// One Via value (RFC 3261 section 20.42).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Via {
    /// `UDP`, `TCP`, …
    pub transport: Span,
    /// sent-by host, `[]` included.
    pub host: Span,
    /// sent-by port digits.
    pub port: Option<Span>,
    /// `;params`.
    pub params: Span,
    /// Value of `branch`.
    pub branch: Option<Span>,
    /// Value of `received`.
    pub received: Option<Span>,
    /// Value of `rport` if it has one.
    pub rport: Option<Span>,
    /// Value of `maddr`.
    pub maddr: Option<Span>,
}
/// Reads one value; `LWS` is allowed wherever the grammar has it (`SIP / 2.0 / UDP host : 5060 ; branch = x`).
pub fn parse(bytes: &[u8], value: Span) -> Option<Via> {
    let _ = (bytes, value);
    todo!()
}
