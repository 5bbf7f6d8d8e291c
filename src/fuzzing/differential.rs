//! Our readers beside those of others, on what both accept.
//!
//! sipx-sip and rsip for messages, sdp-types for descriptions. They share nothing with ours and little with each other.
//! Where they differ from ours on purpose, the text is left out by a rule that stands here with its reason.

use std::net::IpAddr;

use bytes::Bytes;
use sipx_sip::{Address as Other, Host, Limits, Via as OtherVia};

use super::all;
use crate::sdp::{self, Description};
use crate::sip::name_addr::{self, NameAddr};
use crate::sip::uri::Uri;
use crate::sip::{HeaderName, Message, StartLine, body, cseq, host, list, via};
use crate::span::Span;

/// Reads `data` with our readers and with others.
///
/// # Panics
/// If both understand it and read something else in it.
pub fn differential(data: &[u8]) {
    let mut message = Message::default();
    if message.parse(data).is_ok() {
        with_sipx(data, &message);
        with_rsip(data, &message);
        let body = message.body();
        with_sdp_types(body.of(data));
    }
    with_sdp_types(data);
}

// ---- sipx-sip ----

fn with_sipx(bytes: &[u8], message: &Message) {
    // A line end without its other half is a line end to us, and a byte to others.
    if has_lone_line_ends(bytes.get(..message.body().start as usize).unwrap_or_default()) {
        return;
    }
    let limits =
        Limits { max_headers: Message::MAX_HEADERS, max_header_bytes: 1 << 16, ..Limits::datagram() };
    let Ok(theirs) = sipx_sip::parse_datagram(Bytes::copy_from_slice(bytes), &limits) else { return };
    let (headers, body) = match (&theirs, message.start()) {
        (sipx_sip::Message::Request(it), StartLine::Request { method, uri }) => {
            assert_eq!(method.of(bytes), it.method.as_bytes());
            same_uri(bytes, uri, &it.uri);
            (&it.headers, it.body())
        }
        (sipx_sip::Message::Response(it), StartLine::Status { code }) => {
            assert_eq!(code, it.status.code());
            (&it.headers, it.body())
        }
        (theirs, ours) => panic!("{theirs:?} is {ours:?} to us"),
    };
    assert_eq!(body::extent(bytes, message).of(bytes), &body[..]);
    let values: Vec<_> = headers.iter().map(|header| unfolded(header.raw_value())).collect();
    let ours: Vec<_> = message.headers().iter().map(|header| unfolded(header.value.of(bytes))).collect();
    assert_eq!(ours, values);
    for (ours, theirs) in message.headers().iter().zip(headers.iter()) {
        match ours.name {
            HeaderName::Via => vias(bytes, ours.value, &theirs.value()),
            HeaderName::Contact | HeaderName::Route | HeaderName::RecordRoute | HeaderName::From => {
                addresses(bytes, ours.value, &theirs.value());
            }
            _ => {}
        }
    }
}

fn vias(bytes: &[u8], value: Span, text: &[u8]) {
    let Ok(theirs) = OtherVia::parse_list(text) else { return };
    if !has_plain_brackets(text) {
        return;
    }
    let ours: Vec<_> = list::values(bytes, value).collect();
    assert_eq!(ours.len(), theirs.len(), "{}", String::from_utf8_lossy(text));
    for (ours, theirs) in ours.into_iter().zip(theirs) {
        // A protocol that is no token does not make it less of a Via to them.
        let is_token = |text: &[u8]| text.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'.');
        let Some(ours) = via::parse(bytes, ours) else {
            assert!(
                ![&theirs.protocol, &theirs.version, &theirs.transport].iter().all(|it| is_token(it)),
                "{theirs:?} is no Via to us"
            );
            continue;
        };
        assert_eq!(ours.transport.of(bytes), theirs.transport.as_slice());
        same_host(bytes, ours.host, &theirs.host);
        assert_eq!(ours.port_number(bytes), theirs.port);
        // No name may stand twice (RFC 3261 section 7.3.1); if one does, the first that has a value is meant.
        let some = |name| {
            let values = theirs.params.iter().filter(|it| it.is(name)).filter_map(|it| it.value.clone());
            values.into_iter().find(|value| !value.is_empty())
        };
        let text = |span: Option<Span>| span.map(|span| unfolded(span.of(bytes)));
        // A quoted value is given with its quotes by us, and without by them.
        let plain = |value: &Option<Vec<u8>>| value.as_ref().is_none_or(|value| !value.contains(&b'"'));
        for (ours, theirs) in [
            (text(ours.branch), some("branch")),
            (text(ours.received), some("received")),
            (text(ours.maddr), some("maddr")),
            (text(ours.rport), some("rport")),
        ] {
            assert!(!plain(&ours) || ours == theirs, "{ours:?} {theirs:?}");
        }
    }
}

fn addresses(bytes: &[u8], value: Span, text: &[u8]) {
    let Ok(theirs) = Other::parse_list(text, "any") else { return };
    if !has_plain_brackets(text) {
        return;
    }
    let ours: Vec<_> = list::values(bytes, value).collect();
    assert_eq!(ours.len(), theirs.len(), "{}", String::from_utf8_lossy(text));
    for (ours, theirs) in ours.into_iter().zip(theirs) {
        let Some(NameAddr::Address { uri, .. }) = name_addr::parse(bytes, ours) else {
            // Other schemes may begin with a digit for them; RFC 3986 section 3.1 has a letter.
            assert!(theirs.uri.host().is_none(), "{theirs:?} is no address to us");
            continue;
        };
        same_uri(bytes, uri, &theirs.uri);
        let tag = name_addr::tag(bytes, ours).map(|tag| unfolded(tag.of(bytes)));
        let theirs = theirs.tag().filter(|tag| !tag.is_empty()).map(<[u8]>::to_vec);
        assert!(tag.as_ref().is_some_and(|tag| tag.contains(&b'"')) || tag == theirs, "{tag:?} {theirs:?}");
    }
}

/// Whether commas are told from one another by everybody in the same way. Others pass over comments, which Via,
/// Contact and their like cannot have (RFC 3261 section 25.1), while a user part may hold a lone parenthesis; and they
/// look for quotes and brackets within `<>`, where no URI has any.
fn has_plain_brackets(text: &[u8]) -> bool {
    if !text.contains(&b',') {
        return true;
    }
    let (mut is_quoted, mut is_bracketed) = (false, false);
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' if is_quoted => drop(bytes.next()),
            b'"' if is_bracketed => return false,
            b'"' => is_quoted = !is_quoted,
            _ if is_quoted => {}
            b'(' | b')' => return false,
            b'<' if is_bracketed => return false,
            b'<' => is_bracketed = true,
            b'>' => is_bracketed = false,
            _ => {}
        }
    }
    true
}

fn same_uri(bytes: &[u8], span: Span, theirs: &sipx_sip::Uri) {
    let Some(their_host) = theirs.host() else { return };
    let ours = Uri::parse(bytes, span).unwrap_or_else(|| panic!("{theirs:?} is no URI to us"));
    assert_eq!(ours.secure, theirs.scheme().is_secure());
    same_host(bytes, ours.host, their_host);
    assert_eq!(ours.port_number(bytes), theirs.port());
    let user = ours.user.map(|user| user.of(bytes).split(|byte| *byte == b':').next().unwrap_or_default());
    assert_eq!(user, theirs.user());
}

fn same_host(bytes: &[u8], span: Span, theirs: &Host) {
    match theirs {
        Host::Ip(ip) => assert_eq!(host::address(span.of(bytes)), Some(*ip)),
        Host::Name(name) => assert_eq!(span.of(bytes), name.as_bytes()),
    }
}

/// Folds and other runs of white space as one blank, none at the ends.
fn unfolded(text: &[u8]) -> Vec<u8> {
    let words = text.split(|byte| b" \t\r\n".contains(byte)).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(&b' ')
}

fn has_lone_line_ends(head: &[u8]) -> bool {
    let count = |byte| head.iter().filter(|it| **it == byte).count();
    let pairs = head.windows(2).filter(|pair| pair == b"\r\n").count();
    count(b'\r') != pairs || count(b'\n') != pairs
}

// ---- rsip ----

/// rsip reads plain messages only: long names, no folds, one value in each header.
fn with_rsip(bytes: &[u8], message: &Message) {
    use rsip::prelude::*;
    let head = bytes.get(..message.body().start as usize).unwrap_or_default();
    let folded = head.windows(2).any(|pair| pair == b"\n " || pair == b"\n\t");
    if folded || has_lone_line_ends(head) || !head.is_ascii() {
        return;
    }
    let StartLine::Request { method, uri } = message.start() else { return };
    let Ok(theirs) = rsip::Request::try_from(bytes.to_vec()) else { return };
    assert_eq!(method.of(bytes).to_ascii_uppercase(), theirs.method().to_string().into_bytes());
    rsip_uri(bytes, uri, theirs.uri());
    let first = |name| message.headers().iter().find(|it| it.name == name && it.name_span.len() > 1);
    if let (Some(ours), Ok(theirs)) = (first(HeaderName::From), theirs.from_header())
        && let (Ok(theirs), Some(NameAddr::Address { uri, .. })) =
            (theirs.typed(), name_addr::parse(bytes, ours.value))
    {
        rsip_uri(bytes, uri, &theirs.uri);
    }
    if let (Some(ours), Ok(theirs)) = (first(HeaderName::CSeq), theirs.cseq_header())
        && let (Ok(theirs), Some(ours)) = (theirs.typed(), cseq::parse(bytes, ours.value))
    {
        assert_eq!(ours.number, theirs.seq);
    }
}

fn rsip_uri(bytes: &[u8], span: Span, theirs: &rsip::Uri) {
    // What it does not write as it came it has not read whole; and theirs may hold what no host has, the `@` before it
    // and the `?` behind it too.
    let text = span.of(bytes);
    let is_host =
        |host: &str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte));
    let whole = theirs.to_string().as_bytes() == text && is_host(&theirs.host().to_string());
    if !whole || text.iter().filter(|byte| **byte == b'@').count() > 1 {
        return;
    }
    let Some(ours) = Uri::parse(bytes, span) else { return };
    let text = |span: Span| String::from_utf8_lossy(span.of(bytes)).into_owned();
    assert_eq!(text(ours.host), theirs.host().to_string());
    assert_eq!(ours.port_number(bytes), theirs.port().map(|port| *port.value()));
}

// ---- sdp-types ----

fn with_sdp_types(bytes: &[u8]) {
    // A lone CR ends a line for us; blanks that are doubled or at an end are fields for others.
    let odd = |pair: &&[u8]| matches!(pair, [b'\r', next] if *next != b'\n');
    if bytes.windows(2).any(|pair| odd(&pair)) || bytes.last() == Some(&b'\r') {
        return;
    }
    let mut ours = Description::default();
    if ours.parse(bytes, all(bytes)).is_err() || has_odd_blanks(bytes) {
        return;
    }
    let Ok(theirs) = sdp_types::Session::parse(bytes) else { return };
    let origin = ours.origin.as_ref().map(|origin| our_address(bytes, origin));
    let their_origin = their_address(&theirs.origin.addrtype, &theirs.origin.unicast_address);
    // Without an o= line before the first medium they make one up.
    let mut session_lines = bytes.split(|byte| *byte == b'\n').take_while(|line| !line.starts_with(b"m="));
    let has_origin = session_lines.any(|line| line.starts_with(b"o="));
    assert!(!has_origin || origin == Some(their_origin));
    // A number has no sign in SDP; others read one all the same.
    let is_signed = |text: &[u8]| text.starts_with(b"+");
    let version = ours.version.map(|version| String::from_utf8_lossy(version.of(bytes)).into_owned());
    assert!(!has_origin || version.is_none_or(|it| it.parse() == Ok(theirs.origin.sess_version)));
    let session: Vec<_> = ours.connections.iter().take(ours.session_connections.into()).collect();
    let session: Vec<_> = session.into_iter().map(|address| our_address(bytes, address)).collect();
    let expected: Vec<_> =
        theirs.connection.iter().map(|c| their_address(&c.addrtype, &c.connection_address)).collect();
    assert_eq!(session, expected);
    assert_eq!(ours.media.len(), theirs.medias.len());
    for (media, other) in ours.media.iter().zip(&theirs.medias) {
        assert_eq!(media.kind.of(bytes), other.media.as_bytes());
        let ports = bytes.get(media.port.start as usize..media.proto.start as usize).unwrap_or_default();
        if !ports.split(|byte| *byte == b'/').any(is_signed) {
            assert_eq!((media.number, media.count), (other.port, other.num_ports.unwrap_or(1)));
        }
        assert_eq!(media.proto.of(bytes), other.proto.as_bytes());
        let own: Vec<_> = ours.connections_of(media).iter().map(|it| our_address(bytes, it)).collect();
        let expected: Vec<_> =
            other.connections.iter().map(|c| their_address(&c.addrtype, &c.connection_address)).collect();
        assert_eq!(&own, if expected.is_empty() { &session } else { &expected });
        let has = |name: &str| other.attributes.iter().any(|it| it.attribute == name && it.value.is_none());
        assert!(!(has("rtcp-mux") || has("rtcp-mux-only")) || media.rtcp_mux);
    }
}

fn has_odd_blanks(bytes: &[u8]) -> bool {
    bytes.split(|byte| b"\r\n".contains(byte)).any(|line| {
        let odd = |pair: &[u8]| pair.iter().all(|byte| b" \t".contains(byte));
        line.contains(&b'\t')
            || line.windows(2).any(odd)
            || line.ends_with(b" ")
            || line.get(2) == Some(&b' ')
    })
}

/// Family in capitals, address without ttl, and what it stands for.
fn our_address(bytes: &[u8], address: &sdp::Address) -> (String, String, Option<IpAddr>) {
    let text = |span: Span| String::from_utf8_lossy(span.of(bytes)).into_owned();
    (text(address.family).to_ascii_uppercase(), text(address.span), address.ip)
}

fn their_address(family: &sdp_types::AddrType, address: &str) -> (String, String, Option<IpAddr>) {
    let address = address.split('/').next().unwrap_or_default();
    let family = family.as_str().to_ascii_uppercase();
    let fits = |ip: &IpAddr| match ip {
        IpAddr::V4(_) => family == "IP4",
        IpAddr::V6(_) => family == "IP6",
    };
    let ip = address.parse().ok().filter(fits);
    (family, address.to_string(), ip)
}
