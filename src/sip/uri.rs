//! stub
use crate::span::Span;
/// A `sip:` or `sips:` URI (RFC 3261 section 19.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uri {
    /// `sips:`?
    pub secure: bool,
    /// User part with password, without `@`.
    pub user: Option<Span>,
    /// Host as written, `[]` of IPv6 included.
    pub host: Span,
    /// Port digits.
    pub port: Option<Span>,
    /// `;params`, from the first `;`; empty if none.
    pub params: Span,
    /// `?headers`, from the `?`; empty if none.
    pub headers: Span,
}
impl Uri {
    /// Reads the URI that is exactly `span` (folds and escapes as they are). `None`: another scheme, or no host.
    pub fn parse(bytes: &[u8], span: Span) -> Option<Self> {
        let _ = (bytes, span);
        todo!()
    }
    /// host, and port if written (with what stands between).
    pub fn host_port(&self) -> Span {
        self.port.map_or(self.host, |p| self.host.to(p))
    }
    /// The port as a number; `None` when absent or no u16.
    pub fn port_number(&self, bytes: &[u8]) -> Option<u16> {
        let _ = bytes;
        todo!()
    }
}
