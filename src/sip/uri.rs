//! `sip:` and `sips:` URIs (RFC 3261 sections 19.1 and 25.1).
//!
//! **Where the host begins.** A user part may hold `;`, `?`, `&`, `=`, `+`, `$`, `,` and `/`, while `@` must be
//! escaped everywhere: in a URI that obeys the grammar the only `@` ends the user part, whatever stands before it.
//! Writers that forget to escape are met half-way: the text from the first `@` to the next `;` or `?` is the
//! host, and if it holds further `@`s, the host begins after the last of them. So
//! `sip:alice;x=y@host;param?header=a@b` and `sip:alice@example.com@host` are both at `host`.
//!
//! **White space.** No URI contains any, but `< sip:… >` and folds beside the host do occur: white space around the
//! URI, the host and the port is borne and belongs to none of them; in the scheme or the user part it makes the text
//! no URI. Parameters and URI headers are not looked into.
//!
//! Escapes are not undone: nobody compares URIs here, and host and port cannot be escaped.

use super::host::host_port;
use super::text::{Class, number, trim};
use crate::search;
use crate::span::Span;

const SCHEME: Class = Class::alphanumeric_and(b"+-.");
/// Anything that doesn't show the text to be something else than a user part.
const USER: Class = Class::printable_but(b"<>\"");

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
    /// Reads the URI that is exactly `span` (folds and escapes as they are). `None`: another scheme, or no host, or
    /// a port that is no number.
    pub fn parse(bytes: &[u8], span: Span) -> Option<Self> {
        let span = trim(bytes, span);
        let text = span.of(bytes);
        let base = span.start as usize;
        let scheme = scheme(text)?;
        let secure = scheme.eq_ignore_ascii_case(b"sips");
        if !secure && !scheme.eq_ignore_ascii_case(b"sip") {
            return None;
        }
        let begin = scheme.len() + 1;
        let first_at = text.get(begin..).and_then(|rest| search::find(rest, [b'@'])).map(|i| begin + i);
        let search = first_at.map_or(begin, |at| at + 1);
        let rest = text.get(search..)?;
        let end = search + search::find(rest, [b';', b'?']).unwrap_or(rest.len());
        let last_at =
            text.get(search..end).and_then(|host| host.iter().rposition(|&b| b == b'@')).map(|i| search + i);
        let at = last_at.or(first_at);
        if let Some(at) = at
            && !USER.holds(text.get(begin..at)?)
        {
            return None;
        }
        let host_start = at.map_or(begin, |at| at + 1);
        let (host, port) = host_port(bytes, Span::new(base + host_start, base + end))?;
        let question =
            text.get(end..).and_then(|rest| search::find(rest, [b'?'])).map_or(text.len(), |i| end + i);
        Some(Self {
            secure,
            user: at.map(|at| Span::new(base + begin, base + at)),
            host,
            port,
            params: Span::new(base + end, base + question),
            headers: Span::new(base + question, base + text.len()),
        })
    }

    /// Host, and port if written (with what stands between).
    pub fn host_port(&self) -> Span {
        self.port.map_or(self.host, |p| self.host.to(p))
    }

    /// The port as a number; `None` when absent or no u16.
    pub fn port_number(&self, bytes: &[u8]) -> Option<u16> {
        port_number(bytes, self.port?)
    }
}

/// The number of a span of port digits; `None` if it is no u16.
pub fn port_number(bytes: &[u8], digits: Span) -> Option<u16> {
    u16::try_from(number(digits.of(bytes))?).ok()
}

/// The scheme of a URI: what stands before the first `:`, if a scheme can be written so (RFC 3986 section 3.1).
pub(super) fn scheme(text: &[u8]) -> Option<&[u8]> {
    let end = text.iter().position(|&b| !SCHEME.has(b)).filter(|&end| text.get(end) == Some(&b':'))?;
    text.get(..end).filter(|scheme| scheme.first().is_some_and(u8::is_ascii_alphabetic))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// user, host, port, params, headers as text; `-` for `None`
    fn show(text: &str) -> Option<String> {
        let padded = format!("<<{text}>>");
        let bytes = padded.as_bytes();
        let uri = Uri::parse(bytes, Span::new(2, 2 + text.len()))?;
        let text = |s: Span| String::from_utf8_lossy(s.of(bytes)).into_owned();
        let optional = |s: Option<Span>| s.map_or("-".to_string(), text);
        let scheme = if uri.secure { "sips" } else { "sip" };
        Some(format!(
            "{scheme} {} {} {} [{}] [{}]",
            optional(uri.user),
            text(uri.host),
            optional(uri.port),
            text(uri.params),
            text(uri.headers)
        ))
    }

    #[test]
    fn uris_fall_into_their_parts() {
        for (text, expected) in [
            ("sip:h", "sip - h - [] []"),
            ("SIPS:a@h:5061", "sips a h 5061 [] []"),
            ("sip:alice:secret@192.0.2.1", "sip alice:secret 192.0.2.1 - [] []"),
            ("sip:alice;x=y@host;param?header=a@b", "sip alice;x=y host - [;param] [?header=a@b]"),
            ("sip:a?b/c&d=e+f$,g@h;lr", "sip a?b/c&d=e+f$,g h - [;lr] []"),
            ("sip:alice@example.com@h:5070;ob", "sip alice@example.com h 5070 [;ob] []"),
            ("sip:a@h;p=x@y", "sip a h - [;p=x@y] []"),
            ("sip:h?Replaces=1%40h%3Bto-tag=2", "sip - h - [] [?Replaces=1%40h%3Bto-tag=2]"),
            ("sip:h:5060?x=y;z", "sip - h 5060 [] [?x=y;z]"),
            ("sip:a@[2001:db8::1]:5060;transport=tcp", "sip a [2001:db8::1] 5060 [;transport=tcp] []"),
            ("sip:[2001:db8::1]", "sip - [2001:db8::1] - [] []"),
            ("sip:a@2001:db8::1", "sip a 2001:db8::1 - [] []"),
            ("sip:%61lice%40x@h;maddr=192.0.2.9", "sip %61lice%40x h - [;maddr=192.0.2.9] []"),
            (
                "sip:+15551234;ext=5;phone-context=x@h;user=phone",
                "sip +15551234;ext=5;phone-context=x h - [;user=phone] []",
            ),
            ("sip:@h", "sip  h - [] []"),
            ("sip:a@h:99999", "sip a h 99999 [] []"),
            (" sip:a@h\r\n :5060 ", "sip a h 5060 [] []"),
        ] {
            assert_eq!(show(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn other_things_are_no_sip_uri() {
        for text in [
            "",
            "sip",
            "sip:",
            "sip:a@",
            "sip:;x",
            "sip:a@;x",
            "tel:+1",
            "urn:service:sos",
            "sipx:a@h",
            " :h",
            "1sip:h",
            "sip:a@h:",
            "sip:a@h:x",
            "sip:a@b c",
            "sip:a b@h",
            "sip:a@b, <sip:c@d",
            "sip:a@1:2:3",
            "s ip:h",
            "@",
            "mailto:a@h",
        ] {
            assert_eq!(show(text), None, "{text}");
        }
    }

    #[test]
    fn ports_are_numbers_that_fit() {
        let read = |text: &str| {
            let uri = Uri::parse(text.as_bytes(), Span::new(0, text.len())).unwrap();
            (uri.port_number(text.as_bytes()), uri.host_port())
        };
        assert_eq!(read("sip:h:05060"), (Some(5060), Span::new(4, 11)));
        assert_eq!(read("sip:h : 5060"), (Some(5060), Span::new(4, 12)));
        assert_eq!(read("sip:h:65536"), (None, Span::new(4, 11)));
        assert_eq!(read("sip:h"), (None, Span::new(4, 5)));
    }
}
