//! What a place in a message is, and why an address there is not mapped.
//!
//! Asks the same parsers as the rules do, so that it speaks of what they saw.

use std::net::IpAddr;

use super::{Place, Why};
use crate::alg::flow::Direction;
use crate::alg::rewrite::headers;
use crate::sdp::Description;
use crate::sip::body::{self, Body};
use crate::sip::name_addr::{self, NameAddr};
use crate::sip::uri::Uri;
use crate::sip::{Header, HeaderName, Message, StartLine, list, via};
use crate::span::Span;

/// A message, and where in it what is.
pub(super) struct Places<'a> {
    bytes: &'a [u8],
    message: &'a Message,
    direction: Direction,
    /// The flow's inside address.
    own: IpAddr,
    kind: Body,
    descriptions: Vec<(Span, Description)>,
}

impl<'a> Places<'a> {
    pub(super) fn new(bytes: &'a [u8], message: &'a Message, direction: Direction, own: IpAddr) -> Self {
        let mut parts = Vec::new();
        let mut kind = body::descriptions(bytes, message, &mut parts);
        let mut fragments = Vec::new();
        if kind == Body::Opaque {
            kind = body::fragments(bytes, message, &mut fragments);
        }
        let read = |part: &Span| {
            let mut description = Description::default();
            description.parse_fragment(bytes, *part).ok().map(|()| (*part, description))
        };
        let descriptions = parts.iter().chain(&fragments).filter_map(read).collect();
        Self { bytes, message, direction, own, kind, descriptions }
    }

    /// The place of `span`, where `ip` stands, and the reason.
    pub(super) fn of(&self, span: Span, ip: IpAddr) -> (Place, Why) {
        let body = self.message.body();
        if body.start <= span.start {
            return self.in_body(span, ip);
        }
        let header = self.message.headers().iter().find(|header| holds(header.value, span));
        match header {
            Some(header) => (Place::Header(header.name_span), self.in_header(header, span, ip)),
            None => (Place::StartLine, self.in_start_line(span, ip)),
        }
    }

    fn in_start_line(&self, span: Span, ip: IpAddr) -> Why {
        match self.message.start() {
            StartLine::Request { uri, .. } if holds(uri, span) => self.in_uri(uri, span, ip),
            StartLine::Request { .. } | StartLine::Status { .. } => Why::NotAnAddress,
        }
    }

    fn in_header(&self, header: &Header, span: Span, ip: IpAddr) -> Why {
        match header.name {
            HeaderName::From | HeaderName::To | HeaderName::CallId | HeaderName::CSeq => Why::NeverTouched,
            HeaderName::Via => self.in_via(header, span, ip),
            name if headers::is_mapped(name) => self.in_addresses(header, span, ip),
            _ => Why::HeaderNotTouched,
        }
    }

    fn in_via(&self, header: &Header, span: Span, ip: IpAddr) -> Why {
        let top = self.message.first(HeaderName::Via);
        let value = list::values(self.bytes, header.value).next().filter(|value| holds(*value, span));
        let Some(value) = value.filter(|_| top == Some(header)) else { return Why::LowerVia };
        match via::parse(self.bytes, value) {
            Some(via) if holds(via.host, span) => self.of_host(via.host, span, ip),
            Some(via) if [via.received, via.maddr].into_iter().flatten().any(|it| holds(it, span)) => {
                Why::OtherWay
            }
            Some(_) | None => Why::NotAnAddress,
        }
    }

    fn in_addresses(&self, header: &Header, span: Span, ip: IpAddr) -> Why {
        let value = list::values(self.bytes, header.value).find(|value| holds(*value, span));
        match value.and_then(|value| name_addr::parse(self.bytes, value)) {
            Some(NameAddr::Address { uri, .. }) if holds(uri, span) => match self.in_uri(uri, span, ip) {
                Why::OtherWay if self.direction == Direction::Outbound => Why::Indistinct,
                why => why,
            },
            Some(_) | None => Why::NotAnAddress,
        }
    }

    fn in_uri(&self, uri: Span, span: Span, ip: IpAddr) -> Why {
        match Uri::parse(self.bytes, uri) {
            Some(uri) if holds(uri.host, span) => self.of_host(uri.host, span, ip),
            Some(_) => Why::NotTheHost,
            None => Why::OtherScheme,
        }
    }

    /// Why the host `host` was left, which is `ip` at `span`, or a name with it.
    fn of_host(&self, host: Span, span: Span, ip: IpAddr) -> Why {
        let bare = Span::new(span.start.saturating_sub(1) as usize, span.end as usize + 1);
        if host != span && host != bare {
            Why::HostName
        } else if ip != self.own {
            Why::OtherHost
        } else {
            Why::OtherWay
        }
    }

    fn in_body(&self, span: Span, ip: IpAddr) -> (Place, Why) {
        let extent = body::extent(self.bytes, self.message);
        if span.end > extent.end {
            return (Place::Body, Why::BehindBody);
        }
        let Some((part, description)) = self.descriptions.iter().find(|(part, _)| holds(*part, span)) else {
            let protected = self.kind == Body::Protected;
            return (Place::Body, if protected { Why::ProtectedBody } else { Why::OtherBody });
        };
        let line = line(self.bytes, *part, span);
        let why = if self.kind == Body::Protected {
            Why::ProtectedBody
        } else {
            self.in_line(description, line, span, ip)
        };
        (Place::Sdp(line_name(self.bytes, line)), why)
    }

    fn in_line(&self, it: &Description, line: Span, span: Span, ip: IpAddr) -> Why {
        let candidate = it.candidates.iter().find(|candidate| holds(line, candidate.port));
        if let Some(candidate) = candidate {
            return match candidate.address.span {
                address if address != span => Why::RelatedAddress,
                _ if !candidate.udp => Why::TcpCandidate,
                _ if !candidate.host => Why::NotHostCandidate,
                _ => self.of_endpoint(ip),
            };
        }
        let rtcp = it.media.iter().filter_map(|media| media.rtcp?.address);
        let mut addresses = it.origin.iter().chain(&it.connections).copied().chain(rtcp);
        let remote = it.remote_candidates.iter().map(|candidate| candidate.address);
        let mut all = remote.chain(it.paths.iter().map(|path| path.host));
        if let Some(address) = addresses.find(|address| holds(address.span, span)) {
            return if address.span == span { self.of_endpoint(ip) } else { Why::HostName };
        }
        if all.any(|address| address.span == span) { self.of_endpoint(ip) } else { Why::NotAnAddress }
    }

    fn of_endpoint(&self, ip: IpAddr) -> Why {
        match self.direction {
            Direction::Outbound if ip != self.own => Why::OtherHost,
            Direction::Outbound => Why::NothingOpened,
            Direction::Inbound => Why::OtherWay,
        }
    }
}

/// Whether `inner` lies in `outer`.
fn holds(outer: Span, inner: Span) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

/// The line of `part` around `span`.
fn line(bytes: &[u8], part: Span, span: Span) -> Span {
    let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let before = Span::new(part.start as usize, span.start as usize);
    let behind = Span::new(span.end as usize, part.end as usize);
    let start = before.of(bytes).iter().rposition(is_end).map_or(0, |at| at + 1);
    let end = behind.of(bytes).iter().position(is_end).unwrap_or(behind.len());
    Span::new(before.start as usize + start, behind.start as usize + end)
}

/// `o=`, `c=`, `a=candidate`: the type, and of an attribute its name.
fn line_name(bytes: &[u8], line: Span) -> Span {
    let text = line.of(bytes);
    let length = match text {
        [b'a', b'=', ..] => text.iter().position(|byte| matches!(byte, b':' | b' ')).unwrap_or(text.len()),
        _ => text.len().min(2),
    };
    Span::new(line.start as usize, line.start as usize + length)
}
