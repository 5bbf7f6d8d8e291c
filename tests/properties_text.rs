//! Properties of the SIP and SDP readers: whatever the bytes, no panic, spans that lie in order within the buffer,
//! and the same answer from memory that was used before; on well-formed text, the same answer as rsip and sdp-types.

use proptest::prelude::*;
use rsip::prelude::*;
use sipalg::sdp::{self, Description};
use sipalg::sip::content_type::ContentType;
use sipalg::sip::name_addr::NameAddr;
use sipalg::sip::uri::Uri;
use sipalg::sip::{
    HeaderName, Malformed, Message, StartLine, body, cseq, host, list, name_addr, params, via,
};
use sipalg::span::Span;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[path = "common/cases.rs"]
mod cases;

use cases::cases;

// ---- spans ----

/// Asserts that `spans` lie within `within`, one after the other.
fn assert_ordered(spans: &[Span], within: Span) {
    let mut at = within.start;
    for span in spans {
        assert!(
            at <= span.start && span.start <= span.end && span.end <= within.end,
            "{spans:?} in {within:?}"
        );
        at = span.end;
    }
}

fn assert_uri(bytes: &[u8], span: Span) {
    let Some(uri) = Uri::parse(bytes, span) else { return };
    let mut spans: Vec<Span> = uri.user.into_iter().chain([uri.host]).chain(uri.port).collect();
    spans.extend([uri.params, uri.headers]);
    assert_ordered(&spans, span);
    assert!(!uri.host.is_empty());
    assert_params(bytes, uri.params);
    let _ = (uri.port_number(bytes), host::address(uri.host.of(bytes)));
    // The host reads the same from a text that is nothing but this URI.
    let text = span.of(bytes).to_vec();
    let alone = Uri::parse(&text, Span::new(0, text.len())).expect("the same bytes");
    assert_eq!(alone.host.of(&text), uri.host.of(bytes));
}

fn assert_params(bytes: &[u8], span: Span) {
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

/// Reads `value` as everything that a header value can be.
fn assert_value(bytes: &[u8], value: Span) {
    let elements: Vec<Span> = list::values(bytes, value).collect();
    assert_ordered(&elements, value);
    assert!(elements.iter().all(|element| !element.is_empty()));
    for element in elements.into_iter().chain([value]) {
        if let Some(NameAddr::Address { uri, params }) = name_addr::parse(bytes, element) {
            assert_ordered(&[uri, params], element);
            assert_uri(bytes, uri);
            assert_params(bytes, params);
        }
        assert_uri(bytes, element);
        if let Some(tag) = name_addr::tag(bytes, element) {
            assert_ordered(&[tag], element);
        }
        if let Some(via) = via::parse(bytes, element) {
            let mut spans = vec![via.transport, via.host];
            spans.extend(via.port);
            spans.push(via.params);
            assert_ordered(&spans, element);
            for span in [via.branch, via.received, via.rport, via.maddr].into_iter().flatten() {
                assert!(!span.is_empty());
                assert_ordered(&[span], via.params);
            }
            assert_params(bytes, via.params);
        }
        if let Some(cseq) = cseq::parse(bytes, element) {
            assert_ordered(&[cseq.digits, cseq.method], element);
        }
        if let Some(kind) = ContentType::parse(bytes, element) {
            assert_ordered(&[kind.kind, kind.subtype, kind.params], element);
        }
        let _ = host::address(element.of(bytes));
    }
}

fn assert_description(bytes: &[u8], within: Span, used: &mut Description) {
    let mut fresh = Description::default();
    let outcome = fresh.parse(bytes, within);
    assert_eq!(used.parse(bytes, within), outcome);
    assert_eq!(*used, fresh);
    if outcome.is_err() {
        assert_eq!(fresh, Description::default());
    }
    let addresses = |list: &[sdp::Address]| list.iter().flat_map(|a| [a.family, a.span]).collect::<Vec<_>>();
    assert_ordered(&addresses(&fresh.connections), within);
    assert_ordered(&addresses(fresh.origin.as_slice()), within);
    assert_ordered(fresh.version.as_slice(), within);
    assert!(usize::from(fresh.session_connections) <= fresh.connections.len());
    let mut connections = fresh.session_connections;
    let mut lines = Vec::new();
    for media in &fresh.media {
        lines.extend([media.kind, media.port, media.proto]);
        assert_eq!(media.connections.0, connections, "no connection is skipped or shared");
        connections = media.connections.1;
        let expected = usize::from(media.connections.1 - media.connections.0);
        let held = fresh.connections_of(media).len();
        assert_eq!(held, if expected == 0 { usize::from(fresh.session_connections) } else { expected });
        if let Some(rtcp) = media.rtcp {
            lines.push(rtcp.port);
            lines.extend(rtcp.address.iter().flat_map(|a| [a.family, a.span]));
        }
    }
    assert_eq!(usize::from(connections), fresh.connections.len());
    assert_ordered(&lines, within);
    let of = |spans: Vec<Span>| assert_ordered(&spans, within);
    of(fresh.candidates.iter().flat_map(|c| [c.address.family, c.address.span, c.port]).collect());
    of(fresh.remote_candidates.iter().flat_map(|c| [c.address.family, c.address.span, c.port]).collect());
    of(fresh.paths.iter().flat_map(|p| [p.host.family, p.host.span, p.port]).collect());
    let media = fresh.media.len();
    assert!(fresh.candidates.iter().all(|c| c.media < media) && fresh.paths.iter().all(|p| p.media < media));
    for (digits, number) in fresh.media.iter().map(|m| (m.port, m.number)) {
        let text = std::str::from_utf8(digits.of(bytes)).unwrap_or("x");
        let expected = if text.starts_with('+') { 0 } else { text.parse().unwrap_or(0) };
        assert_eq!(number, expected, "{text}");
    }
}

/// Reads `bytes` with everything there is, into memory that was used before and into fresh memory.
fn assert_message(bytes: &[u8], used: &mut Message, description: &mut Description) {
    let all = Span::new(0, bytes.len());
    let mut fresh = Message::default();
    let outcome = fresh.parse(bytes);
    assert_eq!(used.parse(bytes), outcome);
    assert_eq!(*used, fresh);
    if outcome.is_err() {
        assert_eq!(fresh, Message::default());
    }
    let mut spans = match fresh.start() {
        StartLine::Request { method, uri } => {
            assert_uri(bytes, uri);
            vec![method, uri]
        }
        StartLine::Status { code } => {
            assert!(outcome.is_err() || (100..700).contains(&code));
            vec![]
        }
    };
    spans.extend(fresh.headers().iter().flat_map(|h| [h.name_span, h.value]));
    spans.push(fresh.body());
    if outcome.is_ok() {
        assert_ordered(&spans, all);
    }
    for header in fresh.headers() {
        assert_eq!(header.name, HeaderName::of(header.name_span.of(bytes)));
        assert_value(bytes, header.value);
    }
    assert_ordered(&[body::extent(bytes, &fresh)], fresh.body());
    let mut parts = vec![all; 3];
    let found = body::descriptions(bytes, &fresh, &mut parts);
    assert_ordered(&parts, body::extent(bytes, &fresh));
    assert!(parts.len() <= body::MAX_PARTS);
    assert!((found == body::Body::Sdp) <= !parts.is_empty());
    assert!((found == body::Body::Opaque) <= parts.is_empty());
    for part in parts.into_iter().chain([fresh.body(), all]) {
        assert_description(bytes, part, description);
    }
}

// ---- any bytes ----

const MESSAGES: [&str; 4] = [
    "INVITE sip:bob;x=y@provider.example:5070;lr?Subject=a@b SIP/2.0\r\nVia: SIP/2.0/UDP 192.168.1.10:5060;branch=z9hG4bK776;rport, SIP / 2.0 / TCP [2001:db8::1] : 5061 ; received = 192.0.2.1\r\nMax-Forwards: 70\r\nRoute: <sip:p1.example;lr>,<sip:p2.example;lr>\r\nTo: \"B \\\" <ob>\" <sip:bob@provider.example>\r\nf: sip:alice@provider.example ; tag=1928301774\r\nCall-ID: a84b4c76e66710@192.168.1.10\r\nCSeq: 314159\r\n INVITE\r\nm: \"A, B\" <sip:alice@192.168.1.10:5060;ob>;+sip.instance=\"<urn:uuid:1,2>\";q=0.7, <tel:+1>, *\r\nContent-Type: application/sdp\r\nl: 240\r\n\r\nv=0\r\no=alice 2890844526 2890844527 IN IP4 192.168.1.10\r\ns=-\r\nc=IN IP4 192.168.1.10\r\nt=0 0\r\nm=audio 40000/2 RTP/AVP 0 8\r\na=rtcp:40001 IN IP4 192.168.1.10\r\na=sendonly\r\nm=video 0 RTP/SAVPF 96\r\nc=IN IP6 ff15::101/3\r\na=rtcp-mux\r\n",
    "SIP/2.0 200 OK\nv: SIP/2.0/UDP h;maddr=239.1.1.1;rport=5060\nt: <sip:a@h>;tag=1\nc: multipart/mixed ;boundary=\"b 1\"\nIdentity: \"x\"\n\npre\n--b 1\nContent-Type: application/sdp\n\nv=0\nm=audio 1 x y\na=candidate:1 1 UDP 2130706431 10.0.1.1 8998 typ host\na=candidate:2 1 tcp 1 h.local 9 typ srflx raddr 10.0.1.1 rport 9\na=remote-candidates:1 192.0.2.3 45664 2 ::1 45665\n\n--b 1\nc: multipart/alternative;boundary=b\n\n--b\nc: application/sdp\nContent-Transfer-Encoding: binary\n\nv=0\rm=message 7 TCP/MSRP *\ra=path:msrp://u@[::1]:7394/s;tcp msrps://1.2.3.4:5/s;tcp\n--b--\n--b 1--\n",
    "REGISTER tel:+1;x SIP/2.0\r\nContact: *\r\nContent-Length: 5\r\nContent-Length: 5\r\nContent-Encoding: identity\r\nExpires:\r\n 0\r\nno colon\r\n\r\nhello, world",
    "NOTIFY sips:a@h SIP/2.0\r\nc: multipart/signed;boundary=b\r\nr: <sip:c@192.168.1.10?Replaces=1%40h%3Bto-tag=2>\r\n\r\n--b\r\nc: application/sdp\r\n\r\nv=0\r\nc=IN IP4 224.2.1.1/127/3\r\n--b--",
];

#[derive(Clone, Debug)]
enum Mutation {
    Set(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
    Copy(prop::sample::Index, usize, prop::sample::Index),
    Cut(prop::sample::Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let index = any::<prop::sample::Index>;
    let special = prop::sample::select(b" \t\r\n,;:\"\\<>@=?/[]()*-%.0\0\xff".to_vec());
    let text = prop_oneof![
        prop::collection::vec(special.clone(), 1..6),
        prop::sample::select(
            [
                "\r\n\r\n",
                "\r\n ",
                "--b\r\n",
                "m=x 1 y z\r\n",
                "a=rtcp:9\r\n",
                "c=IN IP6 ::1\r\n",
                "Via: SIP/2.0/UDP h\r\n"
            ]
            .map(|text| text.as_bytes().to_vec())
            .to_vec()
        ),
    ];
    prop_oneof![
        4 => (index(), prop_oneof![special, any::<u8>()]).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        4 => (index(), text).prop_map(|(at, text)| Mutation::Insert(at, text)),
        2 => (index(), 1..20usize).prop_map(|(at, length)| Mutation::Remove(at, length)),
        2 => (index(), 1..80usize, index()).prop_map(|(from, length, to)| Mutation::Copy(from, length, to)),
        1 => index().prop_map(Mutation::Cut),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    let at = |index: &prop::sample::Index| index.index(bytes.len() + 1);
    match mutation {
        Mutation::Set(index, byte) => {
            let at = at(index);
            if let Some(target) = bytes.get_mut(at) {
                *target = *byte;
            }
        }
        Mutation::Insert(index, text) => {
            let at = at(index);
            bytes.splice(at..at, text.iter().copied());
        }
        Mutation::Remove(index, length) => {
            let at = at(index);
            bytes.drain(at..(at + length).min(bytes.len()));
        }
        Mutation::Copy(from, length, to) => {
            let (from, to) = (at(from), at(to));
            let text = bytes[from..(from + length).min(bytes.len())].to_vec();
            bytes.splice(to..to, text);
        }
        Mutation::Cut(index) => bytes.truncate(at(index)),
    }
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn mutated_messages_never_panic_and_keep_their_order(
        list in prop::collection::vec((0..MESSAGES.len(), prop::collection::vec(mutation(), 0..12)), 1..4)
    ) {
        let (mut message, mut description) = (Message::default(), Description::default());
        for (index, mutations) in list {
            let mut bytes = MESSAGES[index].as_bytes().to_vec();
            mutations.iter().for_each(|mutation| mutate(&mut bytes, mutation));
            assert_message(&bytes, &mut message, &mut description);
        }
    }

    #[test]
    fn any_bytes_never_panic(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..300),
            prop::collection::vec(prop::sample::select(b" \t\r\n,;:\"\\<>@=?/[]*-.ab0siSI2/".to_vec()), 0..300),
        ],
        start in 0..400usize,
        length in 0..400usize,
    ) {
        assert_message(&bytes, &mut Message::default(), &mut Description::default());
        let all = Span::new(0, bytes.len());
        assert_value(&bytes, all);
        assert_params(&bytes, all);
        let span = Span::new(start, start + length);
        if start + length <= bytes.len() {
            assert_value(&bytes, span);
        } else {
            prop_assert_eq!(list::values(&bytes, span).count(), 0);
            prop_assert_eq!(Uri::parse(&bytes, span), None);
            prop_assert_eq!(via::parse(&bytes, span), None);
            prop_assert_eq!(Description::default().parse(&bytes, span), Err(sdp::Malformed::NotSdp));
        }
        let text = [&b"SIP/2.0 200 OK\r\nm: "[..], &bytes].concat();
        assert_message(&text, &mut Message::default(), &mut Description::default());
        let text = [&b"v=0\r\nm=audio 1 x y\r\na="[..], &bytes].concat();
        assert_description(&text, Span::new(0, text.len()), &mut Description::default());
    }

    #[test]
    fn addresses_are_read_as_the_standard_library_reads_them(text in "[0-9.]{0,16}|[0-9a-f:.]{0,40}", v4: [u8; 4], v6: [u8; 16]) {
        let expected = text.parse::<IpAddr>().ok();
        if !text.contains(":::") {
            prop_assert_eq!(host::address(text.as_bytes()), expected);
        }
        for ip in [IpAddr::V4(Ipv4Addr::from(v4)), IpAddr::V6(Ipv6Addr::from(v6))] {
            prop_assert_eq!(host::address(ip.to_string().as_bytes()), Some(ip));
        }
        let bracketed = format!("[{}]", Ipv6Addr::from(v6));
        prop_assert_eq!(host::address(bracketed.as_bytes()), Some(IpAddr::V6(Ipv6Addr::from(v6))));
    }
}

#[test]
fn the_messages_that_are_mutated_are_read() {
    for text in MESSAGES {
        assert_message(text.as_bytes(), &mut Message::default(), &mut Description::default());
        Message::default().parse(text.as_bytes()).unwrap_or_else(|e| panic!("{e}: {text}"));
    }
}

#[test]
fn every_cut_of_a_message_is_endless_until_its_headers_end() {
    for text in MESSAGES {
        let end = text.find("\r\n\r\n").map(|i| i + 4).or_else(|| text.find("\n\n").map(|i| i + 2)).unwrap();
        let first = text.find('\n').unwrap();
        for length in 0..text.len() {
            let outcome = Message::default().parse(&text.as_bytes()[..length]);
            let expected = match length {
                _ if length <= first => Err(Malformed::NotSip),
                _ if length < end => Err(Malformed::Endless),
                _ => Ok(()),
            };
            assert_eq!(outcome, expected, "{length} of {text}");
        }
    }
}

#[test]
fn long_inputs_of_every_bad_kind_are_read_to_the_end() {
    const SIZE: usize = 60_000;
    for unit in [
        ",",
        ",<",
        "<",
        "\"",
        "\"\\",
        "\\\"",
        ";",
        ";a=\"",
        ";=",
        "@",
        ":",
        "[",
        "sip:",
        ", ",
        "\r\n ",
        " ",
        "<sip:a@h>,",
        "=",
    ] {
        for head in
            ["m: ", "Via: SIP/2.0/UDP h", "m: <sip:a@h>", "m: sip:", "c: multipart/mixed;boundary=b\r\n\r\n"]
        {
            let text = format!("SIP/2.0 200 OK\r\n{head}{}\r\n\r\n", unit.repeat(SIZE / unit.len()));
            let mut message = Message::default();
            message.parse(text.as_bytes()).unwrap_or_else(|e| panic!("{e}: {head}{unit}"));
            for header in message.headers() {
                for value in list::values(text.as_bytes(), header.value) {
                    if let Some(NameAddr::Address { uri, params }) = name_addr::parse(text.as_bytes(), value)
                    {
                        let _ = Uri::parse(text.as_bytes(), uri);
                        assert_eq!(params::find(text.as_bytes(), params, "tag"), None);
                    }
                    let _ = via::parse(text.as_bytes(), value);
                }
            }
            body::descriptions(text.as_bytes(), &message, &mut Vec::new());
        }
    }
    for unit in [
        "--b\r\n",
        "--b\r\nc:multipart/mixed;boundary=b\r\n\r\n",
        "a=candidate: ",
        "c=IN ",
        "m",
        "\r",
        "a=path:msrp://",
        "v=0\r\n",
    ] {
        let body = format!("v=0\r\nm=a 1 x y\r\n{}", unit.repeat(SIZE / unit.len()));
        let text = format!("SIP/2.0 200 OK\r\nc:multipart/mixed;boundary=b\r\n\r\n{body}");
        let mut message = Message::default();
        message.parse(text.as_bytes()).unwrap();
        body::descriptions(text.as_bytes(), &message, &mut Vec::new());
        let _ = Description::default().parse(text.as_bytes(), message.body());
    }
}

// ---- compared with other readers ----

fn host_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|ip| Ipv4Addr::from(ip).to_string()),
        "[a-z]{1,8}(\\.[a-z]{2,5}){1,2}"
    ]
}

#[derive(Clone, Debug)]
struct Address {
    display: String,
    user: Option<String>,
    host: String,
    port: Option<u16>,
    tag: String,
}

fn address() -> impl Strategy<Value = Address> {
    let display = prop_oneof![Just(String::new()), Just("\"A B C\" ".to_string()), "[A-Z][a-z]{2,6} "];
    let user = prop::option::of("[a-zA-Z0-9]{1,8}");
    (display, user, host_text(), prop::option::of(1..u16::MAX), "[a-z0-9]{4,12}")
        .prop_map(|(display, user, host, port, tag)| Address { display, user, host, port, tag })
}

impl Address {
    fn uri(&self) -> String {
        let user = self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("sip:{user}{}{port};transport=udp", self.host)
    }
}

/// user, host and port of a URI as we read it.
fn ours(bytes: &[u8], span: Span) -> (Option<String>, String, Option<u16>) {
    let uri = Uri::parse(bytes, span).expect("a SIP URI");
    let text = |span: Span| String::from_utf8(span.of(bytes).to_vec()).expect("ASCII");
    (uri.user.map(text), text(uri.host), uri.port_number(bytes))
}

/// The same as rsip reads it.
fn theirs(uri: &rsip::Uri) -> (Option<String>, String, Option<u16>) {
    (uri.user().map(str::to_string), uri.host().to_string(), uri.port().map(|port| *port.value()))
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn rsip_reads_well_formed_requests_the_same(
        (target, from, to, contact) in (address(), address(), address(), address()),
        (via_host, via_port, branch) in (host_text(), prop::option::of(1..u16::MAX), "z9hG4bK[a-z0-9]{1,16}"),
        (number, method) in (0..1u32 << 31, prop::sample::select(vec!["INVITE", "BYE", "OPTIONS", "REGISTER"])),
        body in "[a-z \r\n]{0,40}",
    ) {
        let via_port = via_port.map(|port| format!(":{port}")).unwrap_or_default();
        let text = format!(
            "{method} {} SIP/2.0\r\nVia: SIP/2.0/UDP {via_host}{via_port};rport;branch={branch};received=192.0.2.7\r\nMax-Forwards: 70\r\nFrom: {}<{}>;tag={}\r\nTo: {}<{}>;tag={}\r\nCall-ID: {branch}@h\r\nCSeq: {number} {method}\r\nContact: {}<{}>;expires=60\r\nContent-Length: {}\r\n\r\n{body}",
            target.uri(), from.display, from.uri(), from.tag, to.display, to.uri(), to.tag, contact.display, contact.uri(), body.len()
        );
        let bytes = text.as_bytes();
        let theirs_all = rsip::Request::try_from(bytes.to_vec()).expect("rsip reads it");
        let mut message = Message::default();
        message.parse(bytes).expect("we read it");
        let StartLine::Request { method: method_span, uri } = message.start() else { panic!("a request") };
        prop_assert_eq!(method_span.of(bytes), theirs_all.method().to_string().into_bytes());
        prop_assert_eq!(ours(bytes, uri), theirs(theirs_all.uri()));

        let value = |name| message.first(name).expect("it is there").value;
        let address = |name| {
            let Some(NameAddr::Address { uri, .. }) = name_addr::parse(bytes, value(name)) else { panic!("an address") };
            (ours(bytes, uri), name_addr::tag(bytes, value(name)).map(|tag| String::from_utf8_lossy(tag.of(bytes)).into_owned()))
        };
        let from = theirs_all.from_header().unwrap().typed().unwrap();
        prop_assert_eq!(address(HeaderName::From), (theirs(&from.uri), from.tag().map(ToString::to_string)));
        let to = theirs_all.to_header().unwrap().typed().unwrap();
        prop_assert_eq!(address(HeaderName::To), (theirs(&to.uri), to.tag().map(ToString::to_string)));
        let contact = theirs_all.contact_header().unwrap().typed().unwrap();
        prop_assert_eq!(address(HeaderName::Contact), (theirs(&contact.uri), None));

        let their_via = theirs_all.via_header().unwrap().typed().unwrap();
        let via = via::parse(bytes, value(HeaderName::Via)).expect("a Via");
        prop_assert_eq!(via.transport.of(bytes), their_via.transport.to_string().into_bytes());
        prop_assert_eq!(via.host.of(bytes), their_via.uri.host().to_string().into_bytes());
        prop_assert_eq!(via.port_number(bytes), their_via.uri.port().map(|port| *port.value()));
        prop_assert_eq!(via.branch.map(|b| b.of(bytes)), their_via.branch().map(|b| b.value().as_bytes()));
        prop_assert_eq!(via.received.and_then(|r| host::address(r.of(bytes))), their_via.received().unwrap());

        let their_cseq = theirs_all.cseq_header().unwrap().typed().unwrap();
        let cseq = cseq::parse(bytes, value(HeaderName::CSeq)).expect("a CSeq");
        prop_assert_eq!(cseq.number, their_cseq.seq);
        prop_assert_eq!(cseq.method.of(bytes), their_cseq.method.to_string().into_bytes());
        prop_assert_eq!(body::extent(bytes, &message).of(bytes), theirs_all.body().as_slice());
        prop_assert_eq!(message.headers().len(), theirs_all.headers().iter().count());
    }
}

#[derive(Clone, Debug)]
struct Stream {
    kind: &'static str,
    port: u16,
    count: Option<u16>,
    proto: &'static str,
    connections: Vec<String>,
    attributes: Vec<String>,
}

fn connection() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|ip| format!("IN IP4 {}", Ipv4Addr::from(ip))),
        any::<[u8; 4]>().prop_map(|ip| format!("IN IP4 {}/127", Ipv4Addr::from(ip))),
        any::<[u8; 16]>().prop_map(|ip| format!("IN IP6 {}", Ipv6Addr::from(ip))),
        "[a-z]{1,8}\\.example".prop_map(|name| format!("IN IP4 {name}")),
    ]
}

fn stream() -> impl Strategy<Value = Stream> {
    let attribute = prop_oneof![
        prop::sample::select(vec!["sendrecv", "sendonly", "recvonly", "inactive", "rtcp-mux", "ice-lite"])
            .prop_map(str::to_string),
        any::<u16>().prop_map(|port| format!("rtcp:{port}")),
        (any::<u16>(), connection()).prop_map(|(port, address)| format!("rtcp:{port} {address}")),
        "[a-z]{1,6}:[ -~]{1,20}",
    ];
    (
        prop::sample::select(vec!["audio", "video", "image", "message", "application"]),
        any::<u16>(),
        prop::option::of(1..9u16),
        prop::sample::select(vec!["RTP/AVP", "udptl", "TCP/MSRP", "UDP/TLS/RTP/SAVPF"]),
        prop::collection::vec(connection(), 0..3),
        prop::collection::vec(attribute, 0..5),
    )
        .prop_map(|(kind, port, count, proto, connections, attributes)| Stream {
            kind,
            port,
            count,
            proto,
            connections,
            attributes,
        })
}

/// family, address without ttl, IP of an address as we read it.
fn our_address(bytes: &[u8], address: &sdp::Address) -> (String, String, Option<IpAddr>) {
    let text = |span: Span| String::from_utf8_lossy(span.of(bytes)).into_owned();
    (text(address.family), text(address.span), address.ip)
}

/// The same of what sdp-types says.
fn their_address(family: &sdp_types::AddrType, address: &str) -> (String, String, Option<IpAddr>) {
    let address = address.split('/').next().unwrap_or_default();
    (family.as_str().to_string(), address.to_string(), address.parse().ok())
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn sdp_types_reads_well_formed_descriptions_the_same(
        (origin, version) in (connection().prop_filter("no ttl in o=", |text| !text.contains('/')), any::<u64>()),
        session in prop::option::of(connection()),
        direction in prop::option::of(prop::sample::select(vec!["sendonly", "inactive"])),
        streams in prop::collection::vec(stream(), 0..6),
        line_end in prop::sample::select(vec!["\r\n", "\n"]),
    ) {
        let mut text = format!("v=0\no=- 7 {version} {origin}\ns=-\n");
        text.extend(session.iter().map(|c| format!("c={c}\n")));
        text += "t=0 0\n";
        text.extend(direction.iter().map(|direction| format!("a={direction}\n")));
        for stream in &streams {
            let count = stream.count.map(|count| format!("/{count}")).unwrap_or_default();
            text += &format!("m={} {}{count} {} 0 8\n", stream.kind, stream.port, stream.proto);
            text.extend(stream.connections.iter().map(|c| format!("c={c}\n")));
            text.extend(stream.attributes.iter().map(|a| format!("a={a}\n")));
        }
        let text = text.replace('\n', line_end);
        let bytes = text.as_bytes();
        let theirs = sdp_types::Session::parse(bytes).expect("sdp-types reads it");
        let mut ours = Description::default();
        ours.parse(bytes, Span::new(0, bytes.len())).expect("we read it");

        let origin = ours.origin.as_ref().map(|origin| our_address(bytes, origin));
        prop_assert_eq!(origin, Some(their_address(&theirs.origin.addrtype, &theirs.origin.unicast_address)));
        prop_assert_eq!(ours.version.map(|v| v.of(bytes).to_vec()), Some(theirs.origin.sess_version.to_string().into_bytes()));
        let session: Vec<_> = ours.connections[..usize::from(ours.session_connections)].iter().map(|a| our_address(bytes, a)).collect();
        let expected: Vec<_> = theirs.connection.iter().map(|c| their_address(&c.addrtype, &c.connection_address)).collect();
        prop_assert_eq!(&session, &expected);
        prop_assert_eq!(ours.media.len(), theirs.medias.len());
        for (media, other) in ours.media.iter().zip(&theirs.medias) {
            prop_assert_eq!(media.kind.of(bytes), other.media.as_bytes());
            prop_assert_eq!((media.number, media.count), (other.port, other.num_ports.unwrap_or(1)));
            prop_assert_eq!(media.proto.of(bytes), other.proto.as_bytes());
            let own: Vec<_> = ours.connections_of(media).iter().map(|a| our_address(bytes, a)).collect();
            let expected: Vec<_> = other.connections.iter().map(|c| their_address(&c.addrtype, &c.connection_address)).collect();
            prop_assert_eq!(&own, if expected.is_empty() { &session } else { &expected });
            let has = |name: &str| other.attributes.iter().any(|a| a.attribute == name);
            prop_assert_eq!(media.rtcp_mux, has("rtcp-mux") || has("rtcp-mux-only"));
            prop_assert_eq!(media.rtcp_mux_only, has("rtcp-mux-only"));
            let rtcp = other.attributes.iter().find(|a| a.attribute == "rtcp").and_then(|a| a.value.clone());
            let port = rtcp.as_ref().and_then(|value| value.split(' ').next()?.parse().ok());
            prop_assert_eq!(media.rtcp.map(|r| r.number), port);
            let address = media.rtcp.and_then(|r| r.address).map(|a| our_address(bytes, &a).1);
            let expected = rtcp.and_then(|value| Some(value.split(' ').nth(3)?.split('/').next()?.to_string()));
            prop_assert_eq!(address, expected);
            let names = ["sendrecv", "sendonly", "recvonly", "inactive"];
            let own = other.attributes.iter().rev().find_map(|a| names.iter().position(|name| *name == a.attribute));
            let session = direction.and_then(|direction| names.iter().position(|name| *name == direction));
            let directions = [sdp::Direction::SendRecv, sdp::Direction::SendOnly, sdp::Direction::RecvOnly, sdp::Direction::Inactive];
            prop_assert_eq!(media.direction, directions[own.or(session).unwrap_or(0)]);
        }
    }
}
