//! Addresses in SDP lines, and how their text is read.

use crate::span::Span;
use crate::{ip_text, search};
use std::net::IpAddr;

/// An address in a line, with what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address text alone (without `/ttl`, without `[]`), in offsets of the buffer given to
    /// [`Description::parse`](super::Description::parse).
    pub span: Span,
    /// The span of `IP4` or `IP6`; empty (before the address) where the line names no family.
    pub family: Span,
    /// The address, if it is one and of the family that the line names; `None` for names.
    pub ip: Option<IpAddr>,
}

impl Address {
    /// `IP4 192.0.2.1` or `IP6 2001:db8::1`, with or without `/ttl/count` behind.
    #[inline(always)]
    pub(super) fn named(bytes: &[u8], family: Span, text: Span) -> Self {
        let end = search::find(text.of(bytes), [b'/']).map_or(text.end as usize, |i| text.start as usize + i);
        let span = Span::new(text.start as usize, end);
        let name = family.of(bytes);
        let ip = if name.eq_ignore_ascii_case(b"IP4") {
            v4(span.of(bytes))
        } else if name.eq_ignore_ascii_case(b"IP6") {
            v6(span.of(bytes))
        } else {
            None
        };
        Self { span, family, ip }
    }

    /// An address that tells its family by itself.
    pub(super) fn bare(bytes: &[u8], span: Span) -> Self {
        let text = span.of(bytes);
        let ip = v4(text).or_else(|| v6(text));
        Self { span, family: Span::new(span.start as usize, span.start as usize), ip }
    }

    /// `nettype addrtype address`, the tail of `c=`, `o=` and `a=rtcp`.
    #[inline(always)]
    pub(super) fn from_fields(bytes: &[u8], fields: &mut impl Iterator<Item = Span>) -> Option<Self> {
        let _network = fields.next()?;
        let (family, text) = (fields.next()?, fields.next()?);
        Some(Self::named(bytes, family, text))
    }
}

fn v4(text: &[u8]) -> Option<IpAddr> {
    ip_text::v4(text).map(IpAddr::V4)
}

fn v6(text: &[u8]) -> Option<IpAddr> {
    ip_text::v6(text).map(IpAddr::V6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sdp::text::Fields;

    #[test]
    fn addresses_are_read_by_the_family_that_the_line_names() {
        for (text, address, ip) in [
            ("IN IP4 192.0.2.1", "192.0.2.1", Some("192.0.2.1")),
            ("IN IP4 224.2.1.1/127/3", "224.2.1.1", Some("224.2.1.1")),
            ("IN IP6 FF15::101/3", "FF15::101", Some("ff15::101")),
            ("IN  ip6   ::", "::", Some("::")),
            ("IN IP4 phone.example.com", "phone.example.com", None),
            ("IN IP4 2001:db8::1", "2001:db8::1", None),
            ("IN IP6 192.0.2.1", "192.0.2.1", None),
            ("IN IP4 192.0.2.01", "192.0.2.01", None),
            ("IN IP6 [2001:db8::1]", "[2001:db8::1]", None),
            ("ATM NSAP 47.0091", "47.0091", None),
        ] {
            let bytes = text.as_bytes();
            let read =
                Address::from_fields(bytes, &mut Fields::new(bytes, Span::new(0, bytes.len()))).unwrap();
            assert_eq!(read.span.of(bytes), address.as_bytes(), "{text}");
            assert_eq!(read.ip, ip.map(|ip| ip.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn bare_addresses_tell_their_family() {
        for (text, ip) in [
            ("192.0.2.1", Some("192.0.2.1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("9b36eaac-bb2e-49bb-bb78-21c41c499900.local", None),
            ("host.example", None),
            ("", None),
        ] {
            let read = Address::bare(text.as_bytes(), Span::new(0, text.len()));
            assert_eq!(read.ip, ip.map(|ip| ip.parse().unwrap()), "{text}");
            assert!(read.family.is_empty());
        }
    }
}
