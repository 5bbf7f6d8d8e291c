//! The attributes that carry addresses or ports: `a=rtcp`, `a=candidate`, `a=remote-candidates`, `a=path`.
//!
//! All others are left to their owners. An attribute that does not read as its RFC has it is as good as absent.

use super::address::Address;
use super::text::{Fields, number};
use crate::span::Span;
use memchr::{memchr, memrchr};

/// `a=rtcp:port [IN IP4 address]` (RFC 3605).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rtcp {
    /// The port digits.
    pub port: Span,
    /// Their number.
    pub number: u16,
    /// The address, if written.
    pub address: Option<Address>,
}

/// `a=candidate` (RFC 8839 section 5.1, and RFC 5245 section 15.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// 1 = RTP, 2 = RTCP.
    pub component: u16,
    /// Whether the transport is UDP.
    pub udp: bool,
    /// Whether it is `typ host`.
    pub host: bool,
    /// The connection-address (family: empty span); the related address is not read.
    pub address: Address,
    /// The port digits.
    pub port: Span,
    /// Their number.
    pub number: u16,
    /// Index of the `m=` line it belongs to.
    pub media: usize,
}

/// One component of `a=remote-candidates` (RFC 8839 section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteCandidate {
    /// 1 = RTP, 2 = RTCP.
    pub component: u16,
    /// The address (family: empty span).
    pub address: Address,
    /// The port digits.
    pub port: Span,
    /// Their number.
    pub number: u16,
    /// Index of the `m=` line it belongs to.
    pub media: usize,
}

/// One MSRP URI of `a=path` (RFC 4975 section 8.2), as far as it has host and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Index of the `m=` line it belongs to.
    pub media: usize,
    /// Whether it is the first of its path: the one that is connected to.
    pub first: bool,
    /// The host without `[]` (family: empty span).
    pub host: Address,
    /// The port digits.
    pub port: Span,
    /// Their number.
    pub number: u16,
}

/// Reads what follows `a=rtcp:`.
pub(super) fn rtcp(bytes: &[u8], value: Span) -> Option<Rtcp> {
    let mut fields = Fields::new(bytes, value);
    let port = fields.next()?;
    Some(Rtcp { port, number: number(port.of(bytes))?, address: Address::from_fields(bytes, &mut fields) })
}

/// Reads what follows `a=candidate:`: `foundation component transport priority address port typ type …`.
pub(super) fn candidate(bytes: &[u8], value: Span, media: usize) -> Option<Candidate> {
    let mut fields = Fields::new(bytes, value);
    let _foundation = fields.next()?;
    let component = number(fields.next()?.of(bytes))?;
    let transport = fields.next()?;
    let _priority = fields.next()?;
    let address = fields.next()?;
    let port = fields.next()?;
    let host = fields.next()?.of(bytes).eq_ignore_ascii_case(b"typ")
        && fields.next()?.of(bytes).eq_ignore_ascii_case(b"host");
    Some(Candidate {
        component,
        udp: transport.of(bytes).eq_ignore_ascii_case(b"UDP"),
        host,
        address: Address::bare(bytes, address),
        port,
        number: number(port.of(bytes))?,
        media,
    })
}

/// Reads what follows `a=remote-candidates:`, three fields for each component; ends at what does not read.
pub(super) fn remote_candidates(
    bytes: &[u8],
    value: Span,
    media: usize,
) -> impl Iterator<Item = RemoteCandidate> + '_ {
    let mut fields = Fields::new(bytes, value);
    std::iter::from_fn(move || {
        let (component, address, port) = (fields.next()?, fields.next()?, fields.next()?);
        Some(RemoteCandidate {
            component: number(component.of(bytes))?,
            address: Address::bare(bytes, address),
            port,
            number: number(port.of(bytes))?,
            media,
        })
    })
}

/// Reads what follows `a=path:`; URIs without an explicit port (which section 8.2 demands) are left out.
pub(super) fn paths(bytes: &[u8], value: Span, media: usize) -> impl Iterator<Item = Path> + '_ {
    let uris = Fields::new(bytes, value).enumerate();
    uris.filter_map(move |(at, uri)| path(bytes, uri, media, at == 0))
}

/// `msrp://[user@]host:port[/session];tcp`, `msrps:` likewise.
fn path(bytes: &[u8], uri: Span, media: usize, first: bool) -> Option<Path> {
    let text = uri.of(bytes);
    let colon = memchr(b':', text)?;
    let scheme = text.get(..colon)?;
    if !(scheme.eq_ignore_ascii_case(b"msrp") || scheme.eq_ignore_ascii_case(b"msrps")) {
        return None;
    }
    let rest = text.get(colon..)?.strip_prefix(b"://")?;
    let end = rest.iter().position(|b| matches!(b, b'/' | b';' | b'?')).unwrap_or(rest.len());
    let authority = rest.get(..end)?;
    let at = memrchr(b'@', authority).map_or(0, |i| i + 1);
    let host_port = authority.get(at..)?;
    let port_at = memrchr(b':', host_port)?;
    let base = uri.start as usize + colon + "://".len() + at;
    let port = Span::new(base + port_at + 1, base + host_port.len());
    let number = number(port.of(bytes))?;
    let host = Span::new(base, base + port_at);
    let host = match host.of(bytes).strip_prefix(b"[").and_then(|h| h.strip_suffix(b"]")) {
        Some(inner) => Span::new(base + 1, base + 1 + inner.len()),
        None if memchr(b':', host.of(bytes)).is_some() => return None,
        None => host,
    };
    (!host.is_empty()).then(|| Path { media, first, host: Address::bare(bytes, host), port, number })
}
