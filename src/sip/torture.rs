//! Messages that are hard on a reader: own ones for the sections of RFC 4475 (SIP torture tests) and RFC 5118 (IPv6
//! in SIP), each with what must be found, or with why it must be left alone.

use super::*;
use crate::span::Span;
use list::values;
use name_addr::NameAddr;
use uri::Uri;

/// A parsed message with its bytes.
struct Read {
    bytes: Vec<u8>,
    message: Message,
}

/// Parses `text`; LF stands for CRLF.
fn read(text: &str) -> Result<Read, Malformed> {
    read_bytes(text.replace('\n', "\r\n").into_bytes())
}

fn read_bytes(bytes: Vec<u8>) -> Result<Read, Malformed> {
    let mut message = Message::default();
    message.parse(&bytes).map(|()| Read { bytes, message })
}

impl Read {
    fn text(&self, span: Span) -> String {
        String::from_utf8_lossy(span.of(&self.bytes)).into_owned()
    }

    fn start(&self) -> String {
        match self.message.start() {
            StartLine::Request { method, uri } => format!("{} {}", self.text(method), self.text(uri)),
            StartLine::Status { code } => code.to_string(),
        }
    }

    /// `transport host port branch` of every Via value.
    fn vias(&self) -> Vec<String> {
        let values = self.message.all(HeaderName::Via).flat_map(|h| values(&self.bytes, h.value));
        values
            .map(|value| {
                via::parse(&self.bytes, value).map_or("none".into(), |via| {
                    let optional = |span: Option<Span>| span.map_or("-".into(), |span| self.text(span));
                    let (port, branch) = (optional(via.port), optional(via.branch));
                    format!("{} {} {port} {branch}", self.text(via.transport), self.text(via.host))
                })
            })
            .collect()
    }

    /// `uri` of every value of a header, `*`, or `none`.
    fn addresses(&self, name: HeaderName) -> Vec<String> {
        let values = self.message.all(name).flat_map(|h| values(&self.bytes, h.value));
        values
            .map(|value| match name_addr::parse(&self.bytes, value) {
                Some(NameAddr::Star) => "*".into(),
                Some(NameAddr::Address { uri, .. }) => self.text(uri),
                None => "none".into(),
            })
            .collect()
    }

    /// `user host port` of every SIP URI in a header.
    fn uris(&self, name: HeaderName) -> Vec<String> {
        let values = self.message.all(name).flat_map(|h| values(&self.bytes, h.value));
        values
            .map(|value| {
                let Some(NameAddr::Address { uri, .. }) = name_addr::parse(&self.bytes, value) else {
                    return "none".into();
                };
                self.uri(uri)
            })
            .collect()
    }

    fn uri(&self, span: Span) -> String {
        Uri::parse(&self.bytes, span).map_or("none".into(), |uri| {
            let optional = |span: Option<Span>| span.map_or("-".into(), |span| self.text(span));
            format!("{} {} {}", optional(uri.user), self.text(uri.host), optional(uri.port))
        })
    }

    fn request_uri(&self) -> String {
        let StartLine::Request { uri, .. } = self.message.start() else { return "none".into() };
        self.uri(uri)
    }

    fn tag(&self, name: HeaderName) -> Option<String> {
        let header = self.message.first(name)?;
        name_addr::tag(&self.bytes, header.value).map(|span| self.text(span))
    }

    fn cseq(&self) -> Option<(u32, String)> {
        let header = self.message.first(HeaderName::CSeq)?;
        cseq::parse(&self.bytes, header.value).map(|cseq| (cseq.number, self.text(cseq.method)))
    }

    fn descriptions(&self) -> (body::Body, Vec<String>) {
        let mut parts = Vec::new();
        let found = body::descriptions(&self.bytes, &self.message, &mut parts);
        (found, parts.into_iter().map(|span| self.text(span)).collect())
    }
}

#[test]
fn rfc4475_3_1_1_1_white_space_and_folds_wherever_they_may_be() {
    let read = read(
        "INVITE sip:carol@rooms.example;way=unknown SIP/2.0\nTO :\n sip:carol@rooms.example ;   tag    = 1817n\nfrom   : \"A. Dent \\\\\\\"\"       <sip:dent@earth.example>\n  ;\n  tag = 42q\nMaX-fOrWaRdS: 0068\nCall-ID: weird.0ha@h\nContent-Length   : 12\ncseq: 0009\n  INVITE\nVia  : SIP  /   2.0\n /UDP\n    192.0.2.2;branch=one\ns :\nX-New-Header:   is\n here, \"and \\\"quoted\" ; too\nv:  SIP  / 2.0  / TCP     relay.example   ;\n  branch  =   z9hG4bKtwo  ,\n SIP  /    2.0   / UDP  192.168.255.111   ; branch=\n z9hG4bKthree\nm:\"Quoted \\\"\\\"\" <sip:dent@earth.example> ; newparam =\n      newvalue ;\n  second ; q = 0.33\nc: text/plain\n\nabcdefghijkl",
    )
    .unwrap();
    assert_eq!(read.start(), "INVITE sip:carol@rooms.example;way=unknown");
    assert_eq!(
        read.vias(),
        ["UDP 192.0.2.2 - one", "TCP relay.example - z9hG4bKtwo", "UDP 192.168.255.111 - z9hG4bKthree"]
    );
    assert_eq!(read.tag(HeaderName::To).as_deref(), Some("1817n"));
    assert_eq!(read.tag(HeaderName::From).as_deref(), Some("42q"));
    assert_eq!(read.cseq(), Some((9, "INVITE".into())));
    assert_eq!(read.uris(HeaderName::Contact), ["dent earth.example -"]);
    assert_eq!(body::extent(&read.bytes, &read.message).len(), 12);
    assert_eq!(read.message.headers().len(), 12);
}

#[test]
fn rfc4475_3_1_1_2_every_character_that_tokens_may_have() {
    let read = read(
        "!odd-Method01_*+`.%indeed'~ sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com SIP/2.0\nVia: SIP/2.0/T-X_!%*+`'~ h1.example;branch=z9hG4bK-.!%66*_+`'~\nTo: \"BEL:\u{7} NUL:\0 DEL:\u{7f}\" <sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*@example.com>\nFrom: token1~` token2'+_ token3*%!.- <sip:mundane@example.com>;fromParam''~+*_!.-%=\"\u{440}\u{430}\";tag=_token~1'+`*%!-.\nCSeq: 139122385 !odd-Method01_*+`.%indeed'~\nextensionHeader-!.%*+_`'~: \u{fffd}\n\n",
    )
    .unwrap();
    assert_eq!(
        read.request_uri(),
        "1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it) example.com -"
    );
    assert_eq!(read.vias(), ["T-X_!%*+`'~ h1.example - z9hG4bK-.!%66*_+`'~"]);
    assert_eq!(read.uris(HeaderName::To), ["1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;* example.com -"]);
    assert_eq!(read.tag(HeaderName::From).as_deref(), Some("_token~1'+`*%!-."));
    assert_eq!(read.cseq(), Some((139_122_385, "!odd-Method01_*+`.%indeed'~".into())));
}

#[test]
fn rfc4475_3_1_1_3_and_4_escapes_stay_as_they_are() {
    let read = read(
        "RE%47IST%45R sip:sips%3Auser%40example.com@example.net SIP/2.0\nTo: sip:%75se%72@example.com\nFrom: <sip:I%20have%20spaces@example.net>;tag=938\nContact: <sip:cal%6Cer@h5252.example.net;%6C%72;n%61me=v%61lue%25%34%31>, <sip:null-%00-null@example.com>\n\n",
    )
    .unwrap();
    assert_eq!(read.start(), "RE%47IST%45R sip:sips%3Auser%40example.com@example.net");
    assert_eq!(read.request_uri(), "sips%3Auser%40example.com example.net -");
    assert_eq!(read.uris(HeaderName::From), ["I%20have%20spaces example.net -"]);
    assert_eq!(
        read.uris(HeaderName::Contact),
        ["cal%6Cer h5252.example.net -", "null-%00-null example.com -"]
    );
}

#[test]
fn rfc4475_3_1_1_5_to_8_no_blank_before_the_bracket_long_values_and_many() {
    let long = "x".repeat(5000);
    let vias: String =
        (0..40).map(|n| format!("Via: SIP/2.0/TCP sip{n}.example;branch=z9hG4bK{n}\n")).collect();
    let text = format!(
        "INVITE sip:user@example.com SIP/2.0\nTo: \"{long}\"<sip:user@example.com>\nF: caller<sip:caller@example.net>;tag=323\nUnknown{long}: {long}\n{vias}Contact: <sip:amazingly{long}@h.example>\n\n"
    );
    let read = read(&text).unwrap();
    assert_eq!(read.uris(HeaderName::To), ["user example.com -"]);
    assert_eq!(read.uris(HeaderName::From), ["caller example.net -"]);
    assert_eq!(read.tag(HeaderName::From).as_deref(), Some("323"));
    assert_eq!(read.vias().len(), 40);
    assert_eq!(read.vias()[39], "TCP sip39.example - z9hG4bK39");
    assert_eq!(read.uris(HeaderName::Contact), [format!("amazingly{long} h.example -")]);
}

#[test]
fn rfc4475_3_1_1_9_semicolons_in_the_user_part_belong_to_it() {
    let read = read(
        "OPTIONS sip:user;par=u%40example.net@example.com SIP/2.0\nTo: sip:user@example.com\nAccept: a/b\n\n",
    )
    .unwrap();
    assert_eq!(read.request_uri(), "user;par=u%40example.net example.com -");
}

#[test]
fn rfc4475_3_1_1_10_unknown_transports() {
    let read = read("OPTIONS sip:user@example.com SIP/2.0\nVia: SIP/2.0/UDP t1.example.com;branch=z9hG4bKa\nVia: SIP/2.0/UNKNOWN t2.example.com;branch=z9hG4bKb\nVia: SIP/2.0/TLS-SCTP t3.example.com;branch=z9hG4bKc\n\n").unwrap();
    assert_eq!(
        read.vias(),
        [
            "UDP t1.example.com - z9hG4bKa",
            "UNKNOWN t2.example.com - z9hG4bKb",
            "TLS-SCTP t3.example.com - z9hG4bKc"
        ]
    );
}

#[test]
fn rfc4475_3_1_1_11_a_body_of_several_parts_and_binary_ones() {
    let mut bytes =
        b"MESSAGE sip:kumiko@example.org SIP/2.0\r\nContent-Type: multipart/mixed;boundary=7a9\r\nl: "
            .to_vec();
    let body = b"--7a9\r\nContent-Type: text/plain\r\n\r\nhi\r\n--7a9\r\nContent-Type: application/octet-stream\r\n\r\n\0\xff\n--7a9\r\0\r\n--7a9\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n--7a9--\r\n";
    bytes.extend_from_slice(format!("{}\r\n\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(body);
    let read = read_bytes(bytes).unwrap();
    assert_eq!(read.descriptions(), (body::Body::Sdp, vec!["v=0".into()]));
}

#[test]
fn rfc4475_3_1_1_12_and_13_unusual_and_absent_reasons() {
    let unusual = read("SIP/2.0 200 = 2**3 * 5**2 \u{43d}\u{43e} \u{441}\u{442}\u{43e}\nTo: a\n\n").unwrap();
    assert_eq!(unusual.start(), "200");
    assert_eq!(read("SIP/2.0 100 \nTo: a\n\n").unwrap().start(), "100");
    assert_eq!(read("SIP/2.0 100\nTo: a\n\n").unwrap().start(), "100");
}

#[test]
fn rfc4475_3_1_2_1_to_6_broken_headers_do_not_fail_a_message() {
    let read = read(
        "INVITE sip:user@example.com SIP/2.0\nContact: \"Joe\" <sip:joe@example.org>;;;;,,\nVia: SIP/2.0/UDP 192.0.2.15;;,;,,\nContent-Length: -999\nTo: \"Mr. J. User <sip:j.user@example.com>\nFrom: Bell, Alexander <sip:a.g.bell@example.com>;tag=433423\nCSeq: 36893488147419103232 REGISTER\nMax-Forwards: 300\nExpires: 10000000000000000000000000000000000000\n\nv=0",
    )
    .unwrap();
    assert_eq!(read.uris(HeaderName::Contact), ["joe example.org -"]);
    assert_eq!(read.vias(), ["UDP 192.0.2.15 - -", "none"]);
    assert_eq!(body::content_length(&read.bytes, &read.message), None);
    assert_eq!(read.addresses(HeaderName::To), ["none"]);
    assert_eq!(read.tag(HeaderName::From).as_deref(), Some("433423"));
    assert_eq!(read.cseq(), None);
}

#[test]
fn rfc4475_3_1_2_7_to_19_start_lines_that_are_none() {
    for line in [
        "INVITE <sip:user@example.com> SIP/2.0",
        "INVITE sip:user@example.com; lr SIP/2.0",
        "INVITE  sip:user@example.com  SIP/2.0",
        "OPTIONS sip:remote@example.com SIP/2.0  ",
        "INVITE sip:user@example.com?Route=%3Csip:x SIP/7.0",
        "SIP/2.0 4294967301 better not break the receiver",
    ] {
        assert_eq!(read(&format!("{line}\nTo: a\n\n")).err(), Some(Malformed::NotSip), "{line}");
    }
    let read = read("INVITE sip:user@example.com?Route=%3Csip:example.com%3E SIP/2.0\nTo: a\n\n").unwrap();
    assert_eq!(read.request_uri(), "user example.com -");
}

#[test]
fn rfc4475_3_1_2_11_and_14_escapes_and_blanks_that_may_not_be() {
    let read = read("OPTIONS sip:t.watson@example.org SIP/2.0\nContact: sip:user@example.com?Route=%3Csip:h%3E\nTo: \"Watson, Thomas\" < sip:t.watson@example.org >\nRefer-To: <sip:a b@example.org>\n\n").unwrap();
    assert_eq!(read.uris(HeaderName::Contact), ["user example.com -"]);
    assert_eq!(read.uris(HeaderName::To), ["t.watson example.org -"]);
    assert_eq!(read.uris(HeaderName::ReferTo), ["none"]);
}

#[test]
fn rfc4475_3_3_2_to_7_schemes_that_are_not_sip() {
    for uri in [
        "nobodyKnowsThisScheme:totallyopaquecontent",
        "tel:+1-201-555-0123;ext=5",
        "urn:service:sos",
        "http://h.example/x",
        "isbn:2983792873",
        "soap.beep://192.0.2.103:3002",
    ] {
        let read =
            read(&format!("OPTIONS {uri} SIP/2.0\nTo: <{uri}>;tag=1\nContact: \"x\" <{uri}>,<sip:a@h>\n\n"))
                .unwrap();
        assert_eq!(read.start(), format!("OPTIONS {uri}"));
        assert_eq!(read.request_uri(), "none");
        assert_eq!(read.addresses(HeaderName::Contact), [uri, "sip:a@h"]);
        assert_eq!(read.uris(HeaderName::Contact), ["none", "a h -"]);
        assert_eq!(read.tag(HeaderName::To).as_deref(), Some("1"));
    }
}

#[test]
fn rfc4475_3_3_8_to_15_doubled_headers_stars_and_lengths() {
    let read = read(
        "REGISTER sip:example.com SIP/2.0\nCSeq: 5 REGISTER\nCSeq: 59 INVITE\nContact: *\nContact: sip:user@example.com;unknown=yes;q=0.1\nContact: <sip:user@example.org;unknown>\nContent-Length: 13\nContent-Length: 5\nExpires: 0\n\nThere is more",
    )
    .unwrap();
    assert_eq!(read.cseq(), Some((5, "REGISTER".into())));
    assert_eq!(
        read.addresses(HeaderName::Contact),
        ["*", "sip:user@example.com", "sip:user@example.org;unknown"]
    );
    assert_eq!(body::content_length(&read.bytes, &read.message), None);
    assert_eq!(body::extent(&read.bytes, &read.message).len(), 13);
}

#[test]
fn rfc4475_3_4_1_rfc2543_messages() {
    let read = read("INVITE sip:UserB@example.com SIP/2.0\nVia: SIP/2.0/UDP iftgw.example.com\nFrom: <sip:+13035551111@ift.example.net;user=phone>\nRecord-Route: UserB@example.com;maddr=ss1.example.com\nTo: sip:+16505552222@ss1.example.net;user=phone\n\n").unwrap();
    assert_eq!(read.vias(), ["UDP iftgw.example.com - -"]);
    assert_eq!(read.addresses(HeaderName::RecordRoute), ["none"]);
    assert_eq!(read.uris(HeaderName::From), ["+13035551111 ift.example.net -"]);
    assert_eq!(read.uris(HeaderName::To), ["+16505552222 ss1.example.net -"]);
    assert_eq!(read.tag(HeaderName::From), None);
}

#[test]
fn rfc5118_4_1_to_4_references_with_and_without_brackets_and_ports() {
    let read = read(
        "REGISTER sip:[2001:db8::10] SIP/2.0\nVia: SIP/2.0/UDP [2001:db8::9:1]:5060;branch=z9hG4bKa;received=[2001:db8::9:255]\nVia: SIP/2.0/UDP 2001:db8::9:2;received=2001:db8::9:255;branch=z9hG4bKb\nTo: sip:user@example.com\nContact: \"Caller\" <sip:caller@[2001:db8::1]>, <sip:caller@[2001:db8::10:5070]>, <sip:caller@[2001:db8::10]:5070>, <sip:caller@2001:db8::10>\n\n",
    )
    .unwrap();
    assert_eq!(read.request_uri(), "- [2001:db8::10] -");
    assert_eq!(read.vias(), ["UDP [2001:db8::9:1] 5060 z9hG4bKa", "UDP 2001:db8::9:2 - z9hG4bKb"]);
    assert_eq!(
        read.uris(HeaderName::Contact),
        [
            "caller [2001:db8::1] -",
            "caller [2001:db8::10:5070] -",
            "caller [2001:db8::10] 5070",
            "caller 2001:db8::10 -"
        ]
    );
    let received: Vec<_> = read
        .message
        .all(HeaderName::Via)
        .map(|h| host::address(via::parse(&read.bytes, h.value).unwrap().received.unwrap().of(&read.bytes)))
        .collect();
    assert_eq!(received, [Some("2001:db8::9:255".parse().unwrap()); 2]);
}

#[test]
fn rfc5118_4_7_to_10_mixed_families_and_three_colons() {
    let read = read("INVITE sip:user@[2001:db8:::192.0.2.1] SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=a\nVia: SIP/2.0/UDP [::ffff:192.0.2.10]:19823;branch=b\nContact: <sip:user@[2001:DB8::A]>\nContact: sip:user@192.0.2.1\n\n").unwrap();
    let hosts: Vec<_> = read
        .message
        .all(HeaderName::Via)
        .map(|h| {
            host::address(via::parse(&read.bytes, h.value).unwrap().host.of(&read.bytes)).unwrap().to_string()
        })
        .collect();
    assert_eq!(hosts, ["192.0.2.1", "::ffff:192.0.2.10"]);
    let StartLine::Request { uri, .. } = read.message.start() else { panic!("a request") };
    let uri = Uri::parse(&read.bytes, uri).unwrap();
    assert_eq!(host::address(uri.host.of(&read.bytes)), Some("2001:db8::192.0.2.1".parse().unwrap()));
    assert_eq!(read.uris(HeaderName::Contact), ["user [2001:DB8::A] -", "user 192.0.2.1 -"]);
}

#[test]
fn contacts_as_phones_write_them() {
    let read = read(
        "REGISTER sip:h SIP/2.0\nContact: <sip:line-1@192.168.1.10:5060;transport=UDP;ob>;reg-id=1;+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-000A95A0E128>\";expires=3600,\n \"Desk, 2nd\" <sips:192.168.1.11>;q=1.0 , sip:bob@192.168.1.12:5062;+sip.instance=\"<urn:uuid:1,2>\"\nm: <sip:gr@h;gr=urn:uuid:f81d4fae>;pub-gruu=\"sip:x@h;gr=u\"\n\n",
    )
    .unwrap();
    assert_eq!(
        read.uris(HeaderName::Contact),
        ["line-1 192.168.1.10 5060", "- 192.168.1.11 -", "bob 192.168.1.12 5062", "gr h -"]
    );
    assert_eq!(
        read.addresses(HeaderName::Contact)[2],
        "sip:bob@192.168.1.12:5062",
        "parameters behind a bare URI belong to the header"
    );
}

#[test]
fn refer_to_keeps_its_replaces_apart_from_its_host() {
    let read = read("REFER sip:h SIP/2.0\nRefer-To: <sip:carol@192.168.1.10:5062?Replaces=12345%40192.168.1.10%3Bto-tag%3D1%3Bfrom-tag%3D2&Require=replaces>\nr: <sip:d@192.168.1.11?Replaces=1@192.168.1.11;to-tag=2>\nb: <sip:a@h>;cid=\"<x@y>\"\n\n").unwrap();
    assert_eq!(read.uris(HeaderName::ReferTo), ["carol 192.168.1.10 5062", "d 192.168.1.11 -"]);
    assert_eq!(read.uris(HeaderName::ReferredBy), ["a h -"]);
}
