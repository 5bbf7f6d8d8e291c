//! The text of IP addresses, as SIP and SDP have it.
//!
//! Strict: what could mean two things is no address. It knows no brackets, ports or names; those belong to the
//! grammars that use it.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The address that a dotted quad spells: four decimal numbers without leading zeros (which some readers take for
/// octal).
pub fn v4(text: &[u8]) -> Option<Ipv4Addr> {
    const LONGEST: usize = "255.255.255.255".len();
    if text.len() > LONGEST {
        return None;
    }
    let mut octets = [0u8; 4];
    let mut rest = text;
    for (octet, left) in octets.iter_mut().zip((0..4).rev()) {
        (*octet, rest) = match *rest {
            [a, b, c, ref rest @ ..] if c.is_ascii_digit() && b.is_ascii_digit() => {
                let hundreds = digit(a).filter(|hundreds| matches!(hundreds, 1 | 2))? * 100;
                (hundreds.checked_add(digit(b)? * 10 + digit(c)?)?, rest)
            }
            [a, b, ref rest @ ..] if b.is_ascii_digit() => {
                (digit(a).filter(|tens| *tens != 0)? * 10 + digit(b)?, rest)
            }
            [a, ref rest @ ..] => (digit(a)?, rest),
            [] => return None,
        };
        if left > 0 {
            rest = rest.strip_prefix(b".")?;
        }
    }
    rest.is_empty().then(|| Ipv4Addr::from(octets))
}

/// The address that an IPv6 text spells (RFC 4291 section 2.2), without zone and brackets.
pub fn v6(text: &[u8]) -> Option<Ipv6Addr> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn digit(byte: u8) -> Option<u8> {
    byte.is_ascii_digit().then(|| byte - b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dotted_quads_are_what_the_standard_library_takes_for_one() {
        for text in [
            "0.0.0.0",
            "255.255.255.255",
            "192.168.1.10",
            "1.20.200.99",
            "256.1.1.1",
            "1.1.1.260",
            "300.1.1.1",
            "01.1.1.1",
            "1.1.1.00",
            "1.1.1",
            "1.1.1.1.",
            ".1.1.1.1",
            "1..1.1",
            "1.1.1.1.1",
            "",
            "...",
            "1.1.1.a",
            "a.b.c.d",
            " 1.1.1.1",
            "1.1.1.1 ",
            "1111.1.1.1",
            "+1.1.1.1",
            "199.1.1.1",
            "1.1.1.1111111111",
        ] {
            assert_eq!(v4(text.as_bytes()), text.parse().ok(), "{text}");
        }
        for n in 0..=299u16 {
            let text = format!("9.{n}.{n}.7");
            assert_eq!(v4(text.as_bytes()), text.parse().ok(), "{text}");
        }
    }

    #[test]
    fn ipv6_is_what_the_standard_library_takes_for_it() {
        assert_eq!(v6(b"2001:DB8::1"), Some("2001:db8::1".parse().unwrap()));
        assert_eq!(v6(b"::ffff:192.0.2.1"), Some("::ffff:192.0.2.1".parse().unwrap()));
        for text in [&b"[::1]"[..], b"fe80::1%eth0", b"1.2.3.4", b"\xff::1", b""] {
            assert_eq!(v6(text), None);
        }
    }
}
