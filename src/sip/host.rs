//! Host text: which address it stands for, and where its port is (RFC 3261 section 25.1, `hostport`, `sent-by`).
//!
//! Names are never resolved: they are `None`, and what is `None` stays as it is.

use super::text::{Class, trim};
use crate::span::Span;
use crate::{ip_text, search};
use memchr::memmem;
use std::net::{IpAddr, Ipv6Addr};

/// Anything but what ends or cannot be in a host. Underscores and 8-bit names are seen in the wild.
const HOST: Class = Class::printable_but(b"<>\",;@?/");

/// The address that a host text stands for: dotted quad, or IPv6 with or without `[]`. Names give `None`, and so do
/// dotted quads with leading zeros (octal or not?) and IPv6 addresses with a zone.
pub fn address(text: &[u8]) -> Option<IpAddr> {
    let first = *text.first()?;
    if first == b'[' {
        return v6(text.strip_prefix(b"[")?.strip_suffix(b"]")?).map(IpAddr::V6);
    }
    if let Some(ip) = ip_text::v4(text) {
        return Some(IpAddr::V4(ip));
    }
    if first == b':' || first.is_ascii_hexdigit() { v6(text).map(IpAddr::V6) } else { None }
}

/// The host and the port digits of `host [":" port]`, with white space around each. `None`: no host, a host with
/// bytes that no host has, or a colon without a number (it may be longer than a port can be).
///
/// IPv6 without `[]` is taken as a whole: what looks like its port may be its last group (RFC 5118 section 4.3).
pub(super) fn host_port(bytes: &[u8], span: Span) -> Option<(Span, Option<Span>)> {
    let span = trim(bytes, span);
    let text = span.of(bytes);
    let base = span.start as usize;
    let (host_end, colon) = if text.first() == Some(&b'[') {
        let close = search::find(text, [b']'])? + 1;
        let after = trim(bytes, Span::new(base + close, base + text.len()));
        match after.of(bytes).first() {
            None => (close, None),
            Some(b':') => (close, Some(after.start as usize)),
            Some(_) => return None,
        }
    } else {
        match search::find(text, [b':']) {
            None => (text.len(), None),
            Some(first) if text.get(first + 1..).is_some_and(|rest| search::find(rest, [b':']).is_some()) => {
                v6(text)?;
                (text.len(), None)
            }
            Some(first) => (first, Some(base + first)),
        }
    };
    let host = trim(bytes, Span::new(base, base + host_end));
    if host.is_empty() || !HOST.holds(host.of(bytes)) {
        return None;
    }
    let Some(colon) = colon else { return Some((host, None)) };
    let port = trim(bytes, Span::new(colon + 1, base + text.len()));
    let digits = !port.is_empty() && port.of(bytes).iter().all(u8::is_ascii_digit);
    digits.then_some((host, Some(port)))
}

fn v6(text: &[u8]) -> Option<Ipv6Addr> {
    ip_text::v6(text).or_else(|| three_colons(text))
}

/// RFC 3261's grammar lets a writer put three colons before a dotted quad, and RFC 5118 section 4.10 asks readers to
/// bear it.
fn three_colons(text: &[u8]) -> Option<Ipv6Addr> {
    const LONGEST: usize = 46;
    let at = memmem::find(text, b":::")?;
    let (before, quad) = (text.get(..at + 2)?, text.get(at + 3..)?);
    ip_text::v4(quad)?;
    let mut joined = [0u8; LONGEST];
    let length = before.len() + quad.len();
    joined.get_mut(..before.len())?.copy_from_slice(before);
    joined.get_mut(before.len()..length)?.copy_from_slice(quad);
    ip_text::v6(joined.get(..length)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_names() {
        for (text, expected) in [
            ("192.168.1.10", Some("192.168.1.10")),
            ("0.0.0.0", Some("0.0.0.0")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("2001:DB8::1", Some("2001:db8::1")),
            ("::", Some("::")),
            ("[::ffff:192.0.2.1]", Some("::ffff:192.0.2.1")),
            ("[2001:db8:::192.0.2.1]", Some("2001:db8::192.0.2.1")),
            ("2001:db8:::192.0.2.1", Some("2001:db8::192.0.2.1")),
        ] {
            assert_eq!(address(text.as_bytes()), expected.map(|a| a.parse().unwrap()), "{text}");
        }
        for text in [
            "",
            "example.com",
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.256",
            "192.168.001.010",
            "1.2.3.4 ",
            "[1.2.3.4]",
            "[::1",
            "::1]",
            "[]",
            "[fe80::1%eth0]",
            "2001:db8:::1",
            ":::",
            "4.example",
            "face.example",
            "1.2.3.4:5060",
            "cafe",
            "2001:db8:0000000000000000000000000000000000000000:::192.0.2.1",
        ] {
            assert_eq!(address(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn the_port_is_found_behind_every_kind_of_host() {
        for (text, host, port) in [
            ("h", "h", None),
            (" h \r\n : \t5060 ", "h", Some("5060")),
            ("192.0.2.1:99999", "192.0.2.1", Some("99999")),
            ("[::1]", "[::1]", None),
            ("[::1] : 5060", "[::1]", Some("5060")),
            ("2001:db8::9:5060", "2001:db8::9:5060", None),
            ("my_host-1.example", "my_host-1.example", None),
        ] {
            let bytes = text.as_bytes();
            let (found, digits) = host_port(bytes, Span::new(0, bytes.len())).unwrap();
            assert_eq!(found.of(bytes), host.as_bytes(), "{text}");
            assert_eq!(digits.map(|s| s.of(bytes)), port.map(str::as_bytes), "{text}");
        }
        for text in [
            "", " ", ":5060", "h:", "h:x", "h:5060x", "[::1", "[::1]x", "a b", "a:b:c", "h:50 60", "<h>",
            "\"h\"",
        ] {
            assert_eq!(host_port(text.as_bytes(), Span::new(0, text.len())), None, "{text}");
        }
    }
}
