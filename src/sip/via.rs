//! Via values (RFC 3261 sections 20.42 and 25.1; `rport` of RFC 3581).
//!
//! White space is allowed around every separator, so `SIP / 2.0 / UDP host : 5060 ; branch = x` is one value with
//! all its parts. Protocol name and version are not judged: a Via is only ever compared by its sent-by.

use super::host::host_port;
use super::params::params;
use super::text::{TOKEN, is_lws, trim};
use crate::search;
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
    /// `;params`, from the first `;`; empty if none.
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

impl Via {
    /// sent-by: host, and port if written (with what stands between).
    pub fn host_port(&self) -> Span {
        self.port.map_or(self.host, |p| self.host.to(p))
    }

    /// The sent-by port as a number; `None` when absent or no u16.
    pub fn port_number(&self, bytes: &[u8]) -> Option<u16> {
        super::uri::port_number(bytes, self.port?)
    }
}

/// Reads one value; `LWS` is allowed wherever the grammar has it (`SIP / 2.0 / UDP host : 5060 ; branch = x`). The
/// first parameter of a name that has a value counts, and an empty value is no value: `;rport;rport=5060` is what a
/// sender makes of it that adds its own.
pub fn parse(bytes: &[u8], value: Span) -> Option<Via> {
    let value = trim(bytes, value);
    let text = value.of(bytes);
    let base = value.start as usize;
    let (_, after) = token(text, 0)?;
    let (_, after) = token(text, slash(text, after)?)?;
    let (transport, after) = token(text, slash(text, after)?)?;
    if !text.get(after).is_some_and(|&b| is_lws(b)) {
        return None;
    }
    let semicolon = search::find(text, [b';']).unwrap_or(text.len());
    let (host, port) = host_port(bytes, Span::new(base + after, base + semicolon))?;
    let mut via = Via {
        transport: Span::new(base + transport, base + after),
        host,
        port,
        params: Span::new(base + semicolon, base + text.len()),
        branch: None,
        received: None,
        rport: None,
        maddr: None,
    };
    for param in params(bytes, via.params) {
        let name = param.name.of(bytes);
        let field = match name.len() {
            6 if name.eq_ignore_ascii_case(b"branch") => &mut via.branch,
            8 if name.eq_ignore_ascii_case(b"received") => &mut via.received,
            5 if name.eq_ignore_ascii_case(b"rport") => &mut via.rport,
            5 if name.eq_ignore_ascii_case(b"maddr") => &mut via.maddr,
            _ => continue,
        };
        *field = field.or(param.value.filter(|value| !value.is_empty()));
    }
    Some(via)
}

/// The token at `at`: where it begins and ends.
fn token(text: &[u8], at: usize) -> Option<(usize, usize)> {
    let rest = text.get(at..)?;
    let length = rest.iter().position(|&b| !TOKEN.has(b)).unwrap_or(rest.len());
    (length > 0).then_some((at, at + length))
}

/// The offset after a `/` at `at` with white space around it.
fn slash(text: &[u8], at: usize) -> Option<usize> {
    let at = skip_lws(text, at);
    (text.get(at) == Some(&b'/')).then(|| skip_lws(text, at + 1))
}

fn skip_lws(text: &[u8], at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    at + rest.iter().position(|&b| !is_lws(b)).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// transport, host, port, branch, received, rport, maddr; `-` for `None`
    fn show(text: &str) -> Option<String> {
        let bytes = text.as_bytes();
        let via = parse(bytes, Span::new(0, bytes.len()))?;
        let show = |s: Span| String::from_utf8_lossy(s.of(bytes)).into_owned();
        let optional = |s: Option<Span>| s.map_or("-".to_string(), show);
        let rest = [via.port, via.branch, via.received, via.rport, via.maddr].map(optional).join(" ");
        Some(format!("{} {} {rest}", show(via.transport), show(via.host)))
    }

    #[test]
    fn vias_fall_into_their_parts() {
        for (text, expected) in [
            ("SIP/2.0/UDP h", "UDP h - - - - -"),
            ("SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1;rport", "UDP 192.0.2.1 5060 z9hG4bK1 - - -"),
            ("SIP / 2.0 / UDP host : 5060 ; branch = x", "UDP host 5060 x - - -"),
            (
                "SIP/2.0/TCP h;rport=5062;received=192.0.2.7;maddr=239.0.0.1;branch=b;branch=c",
                "TCP h - b 192.0.2.7 5062 239.0.0.1",
            ),
            (
                "SIP\t/\r\n 2.0 /TLS\r\n [2001:db8::1] :5061;\r\n Branch\r\n =\r\n z;received=[2001:db8::2]",
                "TLS [2001:db8::1] 5061 z [2001:db8::2] - -",
            ),
            ("SIP/2.0/UDP 2001:db8::1;received=2001:db8::2", "UDP 2001:db8::1 - - 2001:db8::2 - -"),
            ("SIP/2.0/UDP h;rport=;x=\"a;branch=no\";branch=yes", "UDP h - yes - - -"),
            ("SIP/2.0/UDP h;rport;rport=5062;rport=1", "UDP h - - - 5062 -"),
            ("SIP/2.0/TLS-SCTP h;hidden", "TLS-SCTP h - - - - -"),
            ("sip/9/x h ;alias", "x h - - - - -"),
        ] {
            assert_eq!(show(text).as_deref(), Some(expected), "{text:?}");
        }
    }

    #[test]
    fn other_things_are_no_via() {
        for text in [
            "",
            "SIP",
            "SIP/2.0",
            "SIP/2.0/UDP",
            "SIP/2.0/UDP ",
            "SIP/2.0/UDP ;branch=x",
            "SIP/2.0 UDP h",
            "SIP/2.0/UDP/h",
            "SIP/2.0/UDP;branch=x h",
            "SIP/2.0/UDP h:",
            "SIP/2.0/UDP a b;branch=x",
            "/2.0/UDP h",
        ] {
            assert_eq!(show(text), None, "{text:?}");
        }
    }

    #[test]
    fn sent_by_is_host_and_port_with_what_stands_between() {
        let bytes = b"SIP/2.0/UDP h : 5060;x";
        let via = parse(bytes, Span::new(0, bytes.len())).unwrap();
        assert_eq!(via.host_port().of(bytes), b"h : 5060");
        assert_eq!(via.port_number(bytes), Some(5060));
        assert_eq!(via.params.of(bytes), b";x");
    }
}
