//! stub: SDP as spans (RFC 8866)
use crate::span::Span;
use std::net::IpAddr;

/// An address in a line, with what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address text alone (without `/ttl`), in offsets of the buffer given to [`Description::parse`].
    pub span: Span,
    /// The span of `IP4` or `IP6`.
    pub family: Span,
    /// The address, if it is one and of the family that the line names; `None` for names.
    pub ip: Option<IpAddr>,
}
/// `a=rtcp:port [IN IP4 address]` (RFC 3605).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rtcp {
    /// digits
    pub port: Span,
    /// their number
    pub number: u16,
    /// the address, if written
    pub address: Option<Address>,
}
/// `a=candidate` (RFC 8839).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// 1 = RTP, 2 = RTCP
    pub component: u16,
    /// UDP?
    pub udp: bool,
    /// typ host?
    pub host: bool,
    /// connection-address
    pub address: Address,
    /// port digits
    pub port: Span,
    /// their number
    pub number: u16,
    /// index of the m= line it belongs to
    pub media: usize,
}
/// One component of `a=remote-candidates`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteCandidate {
    /// component id
    pub component: u16,
    /// address (family: empty span)
    pub address: Address,
    /// port digits
    pub port: Span,
    /// number
    pub number: u16,
    /// index of the m= line
    pub media: usize,
}
/// sendrecv, sendonly, recvonly, inactive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Direction {
    #[default]
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}
/// One `m=` line and what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Media {
    /// `audio`, `video`, …
    pub kind: Span,
    /// Port digits.
    pub port: Span,
    /// Their number; 0 also when it is no u16.
    pub number: u16,
    /// `/count`, 1 if absent.
    pub count: u16,
    /// `RTP/AVP`, `udptl`, `TCP/MSRP`, …
    pub proto: Span,
    /// Index range in [`Description::connections`] of this media's own `c=` lines; empty: the session's holds.
    pub connections: (u16, u16),
    /// `a=rtcp`
    pub rtcp: Option<Rtcp>,
    /// `a=rtcp-mux` or `a=rtcp-mux-only`
    pub rtcp_mux: bool,
    /// own direction attribute, or the session's, or sendrecv
    pub direction: Direction,
}
/// A session description. Made once, filled again and again.
#[derive(Debug, Default)]
pub struct Description {
    /// The address of `o=`.
    pub origin: Option<Address>,
    /// sess-version digits of `o=`.
    pub version: Option<Span>,
    /// All `c=` addresses in order; session level ones first.
    pub connections: Vec<Address>,
    /// How many of `connections` are at session level.
    pub session_connections: u16,
    /// The media in order.
    pub media: Vec<Media>,
    /// All host/other candidates, in order.
    pub candidates: Vec<Candidate>,
    /// All remote candidates, in order.
    pub remote_candidates: Vec<RemoteCandidate>,
}
/// Why it is not SDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// does not begin with v=
    #[error("the body does not begin with v=")]
    NotSdp,
    /// more of something than the limits allow
    #[error("too many lines of one kind")]
    TooMany,
}
impl Description {
    /// Most `m=` lines; `c=` lines; candidates.
    pub const MAX_MEDIA: usize = 64;
    /// Reads the description that is `within` (offsets stay those of `bytes`). CRLF, LF and CR line ends, no final
    /// line end needed; unknown lines and odd order are skipped.
    pub fn parse(&mut self, bytes: &[u8], within: Span) -> Result<(), Malformed> {
        let _ = (bytes, within);
        todo!()
    }
    /// The `c=` addresses that hold for `media`: its own, or the session's.
    pub fn connections_of(&self, media: &Media) -> &[Address] {
        let _ = media;
        todo!()
    }
}
