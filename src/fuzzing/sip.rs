//! The SIP readers: positions in order and in bounds, and the header table that a naive line reader makes.

use super::{all, assert_ordered};
use crate::sip::content_type::ContentType;
use crate::sip::name_addr::{self, NameAddr};
use crate::sip::uri::Uri;
use crate::sip::{HeaderName, Malformed, Message, StartLine, body, cseq, host, list, params, via};
use crate::span::Span;

/// Reads `data` as a message, and every header value as everything that a value can be.
///
/// # Panics
/// If positions overlap or leave their bounds, if memory that was used before changes an answer, or if the headers are
/// not those that a line reader finds.
pub fn sip(data: &[u8]) {
    let mut message = Message::default();
    let outcome = message.parse(data);
    // What the memory held before makes no difference.
    let mut used = Message::default();
    let _ = used.parse(b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h\r\nTo: a\r\n\r\nbody");
    assert_eq!(used.parse(data), outcome);
    assert_eq!(used, message);
    match outcome {
        Ok(()) => read(data, &message),
        Err(error) => {
            assert_eq!(message, Message::default());
            assert!(error != Malformed::Endless || naive_headers(data).is_none(), "the headers end");
        }
    }
    value(data, all(data));
}

fn read(bytes: &[u8], message: &Message) {
    let mut spans = match message.start() {
        StartLine::Request { method, uri } => {
            one_uri(bytes, uri);
            vec![method, uri]
        }
        StartLine::Status { code } => {
            assert!((100..700).contains(&code));
            vec![]
        }
    };
    spans.extend(message.headers().iter().flat_map(|h| [h.name_span, h.value]));
    spans.push(message.body());
    assert_ordered(&spans, all(bytes));

    let (naive, body) = naive_headers(bytes).expect("a message that was read has an end of its headers");
    let ours: Vec<_> = message.headers().iter().map(|h| (h.name_span.of(bytes), h.value.of(bytes))).collect();
    assert_eq!(ours, naive);
    assert_eq!(message.body().of(bytes), body);
    for header in message.headers() {
        assert_eq!(header.name, HeaderName::of(header.name_span.of(bytes)));
        value(bytes, header.value);
    }
    bodies(bytes, message);
}

type NameAndValue<'a> = (&'a [u8], &'a [u8]);

/// Names and values of the headers, and the body, as whoever splits at line ends finds them. `None`: no empty line.
fn naive_headers(bytes: &[u8]) -> Option<(Vec<NameAndValue<'_>>, &[u8])> {
    let begin = bytes.iter().position(|byte| !b"\r\n".contains(byte))?;
    let mut lines = Vec::new();
    let mut at = begin;
    let body = loop {
        let end = at + bytes.get(at..)?.iter().position(|byte| *byte == b'\n')?;
        let line = bytes.get(at..end)?;
        let next = end + 1;
        if lines.len() > 1 || at != begin {
            if line.is_empty() || line == b"\r" {
                break bytes.get(next..)?;
            }
            if b" \t".iter().any(|blank| line.first() == Some(blank))
                && let Some((_, end_of_last)) = lines.last_mut()
            {
                *end_of_last = end;
                at = next;
                continue;
            }
        }
        lines.push((at, end));
        at = next;
    };
    let headers = lines.iter().skip(1).filter_map(|&(start, end)| {
        let line = bytes.get(start..end)?;
        let first = line.split(|byte| *byte == b'\n').next()?;
        let colon = first.iter().position(|byte| *byte == b':')?;
        let (name, value) = (line.get(..colon)?, line.get(colon + 1..)?);
        if name.is_empty() || b" \t".contains(name.first()?) {
            return None;
        }
        let end = name.iter().rposition(|byte| !b" \t".contains(byte))? + 1;
        Some((name.get(..end)?, trimmed(value)))
    });
    Some((headers.collect(), body))
}

fn trimmed(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t' | b'\r' | b'\n'] = text {
        text = rest;
    }
    text
}

fn bodies(bytes: &[u8], message: &Message) {
    let extent = body::extent(bytes, message);
    assert_ordered(&[extent], message.body());
    assert_eq!(extent.start, message.body().start);
    let lengths: Vec<_> = body::content_lengths(bytes, message).collect();
    for (span, number) in &lengths {
        let text = std::str::from_utf8(span.of(bytes)).expect("digits");
        assert_eq!(text.parse(), Ok(*number));
    }
    if let Some(first) = body::content_length(bytes, message) {
        assert!(lengths.iter().all(|(_, number)| *number == first.1));
        assert_eq!(lengths.len(), message.all(HeaderName::ContentLength).count());
    }
    let mut parts = vec![all(bytes); 3];
    for search in [body::fragments, body::descriptions] {
        let found = search(bytes, message, &mut parts);
        assert_ordered(&parts, extent);
        assert!(parts.len() <= body::MAX_PARTS);
        assert!((found == body::Body::Sdp) <= !parts.is_empty());
        assert!((found == body::Body::Opaque) <= parts.is_empty());
    }
    let mut lengths = Vec::new();
    for part in parts {
        lengths.clear();
        body::part_lengths(bytes, message, part, &mut lengths);
        // From outside to inside, and before what they speak of.
        let spans: Vec<Span> = lengths.iter().map(|length| length.digits).chain([part]).collect();
        assert_ordered(&spans, extent);
    }
}

/// Reads `value` as everything that a header value can be.
fn value(bytes: &[u8], value: Span) {
    let elements: Vec<Span> = list::values(bytes, value).collect();
    assert_ordered(&elements, value);
    assert!(elements.iter().all(|element| !element.is_empty()));
    for element in elements.into_iter().chain([value]) {
        if let Some(NameAddr::Address { uri, params }) = name_addr::parse(bytes, element) {
            assert_ordered(&[uri, params], element);
            one_uri(bytes, uri);
            parameters(bytes, params);
        }
        one_uri(bytes, element);
        if let Some(tag) = name_addr::tag(bytes, element) {
            assert_ordered(&[tag], element);
        }
        if let Some(via) = via::parse(bytes, element) {
            one_via(bytes, element, &via);
        }
        if let Some(cseq) = cseq::parse(bytes, element) {
            assert_ordered(&[cseq.digits, cseq.method], element);
            let text = std::str::from_utf8(cseq.digits.of(bytes)).expect("digits");
            assert_eq!(text.parse(), Ok(cseq.number));
        }
        if let Some(kind) = ContentType::parse(bytes, element) {
            assert_ordered(&[kind.kind, kind.subtype, kind.params], element);
        }
        let _ = host::address(element.of(bytes));
    }
}

fn one_via(bytes: &[u8], element: Span, via: &via::Via) {
    let mut spans = vec![via.transport, via.host];
    spans.extend(via.port);
    spans.push(via.params);
    assert_ordered(&spans, element);
    for span in [via.branch, via.received, via.rport, via.maddr].into_iter().flatten() {
        assert!(!span.is_empty());
        assert_ordered(&[span], via.params);
    }
    parameters(bytes, via.params);
}

fn one_uri(bytes: &[u8], span: Span) {
    let Some(uri) = Uri::parse(bytes, span) else { return };
    let mut spans: Vec<Span> = uri.user.into_iter().chain([uri.host]).chain(uri.port).collect();
    spans.extend([uri.params, uri.headers]);
    assert_ordered(&spans, span);
    assert!(!uri.host.is_empty());
    parameters(bytes, uri.params);
    if let Some(port) = uri.port_number(bytes) {
        let digits = uri.port.map(|port| String::from_utf8_lossy(port.of(bytes)).into_owned());
        assert_eq!(digits.and_then(|digits| digits.parse().ok()), Some(port));
    }
    // The host reads the same from a text that is nothing but this URI.
    let text = span.of(bytes).to_vec();
    let alone = Uri::parse(&text, all(&text)).expect("the same bytes");
    assert_eq!(alone.host.of(&text), uri.host.of(bytes));
}

fn parameters(bytes: &[u8], span: Span) {
    let mut spans = Vec::new();
    for param in params::params(bytes, span) {
        assert!(!param.name.is_empty());
        spans.push(param.name);
        spans.extend(param.value);
        let inner = param.unquoted(bytes).unwrap_or_default();
        assert!(inner.len() <= param.value.unwrap_or_default().len());
    }
    assert_ordered(&spans, span);
}
