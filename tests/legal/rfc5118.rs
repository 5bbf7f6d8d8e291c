//! Own messages for the sections of RFC 5118: SIP with IPv6, as it is meant and as it is often got wrong.

use super::torture::marked;
use crate::body_of;
use crate::common::messages::{message, sdp};
use crate::common::{Bench, at};

const PHONE: &str = "[2001:db8::10]:5060";
const PROXY: &str = "[2001:db8:1::20]:5060";
const PUBLIC: &str = "[2001:db8:2::55]:17375";

/// A router that translates prefixes (RFC 6296).
fn bench() -> Bench {
    let mut bench = Bench::default();
    bench.nat(PHONE, PROXY, PUBLIC);
    bench
}

fn request(uri: &str, via: &str, lines: &str) -> String {
    format!(
        "REGISTER {uri} SIP/2.0\nVia: SIP/2.0/UDP {via};branch=z9hG4bKas3-111\nFrom: sip:user@[2001:db8::10];tag=81x2\n\
         To: sip:user@example.com\nMax-Forwards: 70\nCall-ID: SSG9559905523997077@hlau_4100\nCSeq: 98176 REGISTER\n\
         {lines}Content-Length: 0\n\n"
    )
}

/// What stands in guillemets becomes the public endpoint; the answer brings it back.
#[track_caller]
fn assert_mapped(text: &str) -> Bench {
    let mut bench = bench();
    let (inside, outside) = marked(text);
    let outside = String::from_utf8(outside).unwrap().replace("22.33.44.55:17375", PUBLIC);
    let inside = String::from_utf8(inside).unwrap();
    assert_eq!(bench.out(PHONE, PROXY, &inside).text(), outside);
    let answer = |text: &str| format!("SIP/2.0 200 OK{}", &text[text.find("\r\n").unwrap()..]);
    assert_eq!(bench.inn(PROXY, PHONE, answer(&outside)).text(), answer(&inside), "the way back");
    bench
}

#[test]
fn f37_rfc5118_4_1_a_reference_in_the_request_uri() {
    assert_mapped(&request(
        "sip:[2001:db8::10]",
        "«[2001:db8::10]»",
        "Contact: \"Caller\" <sip:caller@«[2001:db8::10]»>\n",
    ));
}

#[test]
fn f37_rfc5118_4_2_an_address_without_brackets_has_no_port() {
    // Not what the grammar says, but there is one way to read it: as an address from its first digit to its last.
    assert_mapped(&request(
        "sip:2001:db8::10",
        "«2001:db8::10»",
        "Contact: <sip:caller@«2001:db8::10»>, <sip:caller@2001:db8::10:5060>, <sip:other@«[2001:db8::10]»>\n",
    ));
}

#[test]
fn f37_rfc5118_4_3_and_4_4_a_port_is_a_port_only_behind_the_bracket() {
    // `[2001:db8::10:5070]` is one address, and another one.
    assert_mapped(&request(
        "sip:[2001:db8::10:5070]",
        "«[2001:db8::10]»",
        "Contact: <sip:caller@[2001:db8::10:5060]>, <sip:caller@«[2001:db8::10]:5070»>\n",
    ));
    assert_mapped(&request(
        "sip:[2001:db8::10]:5070",
        "«[2001:db8::10]:5060»",
        "Contact: <sip:caller@«[2001:db8::10]:5060»>\n",
    ));
}

#[test]
fn f37_rfc5118_4_5_received_with_brackets_and_without() {
    for (outside, inside) in [
        ("[2001:db8:2::55]", "[2001:db8::10]"),
        ("2001:db8:2::55", "2001:db8::10"),
        ("2001:db8:9::255", "2001:db8:9::255"),
    ] {
        let mut bench = bench();
        let text = request("sip:[2001:db8:1::20]", "[2001:db8::10]:5060", "").replace('\n', "\r\n");
        bench.out(PHONE, PROXY, &text);
        let ok = |host: &str, received: &str| {
            let start = text.find("\r\n").unwrap();
            format!("SIP/2.0 200 OK{}", &text[start..]).replacen(
                "UDP [2001:db8::10]:5060",
                &format!("UDP {host};received={received}"),
                1,
            )
        };
        assert_eq!(bench.inn(PROXY, PHONE, ok(PUBLIC, outside)).text(), ok(PHONE, inside));
    }
}

/// A body as the phone's offer, and as its answer; where the phone is the one of these, and its public port that one.
#[track_caller]
fn assert_described(body: impl Fn(&str, u16) -> String, port: u16) {
    let head = |start: &str, via: &str, tag: &str| {
        format!(
            "{start}\nVia: SIP/2.0/UDP {via};branch=z9hG4bK-d\nFrom: <sip:a@example.com>;tag=1\n\
             To: <sip:b@example.com>{tag}\nCall-ID: d\nCSeq: 1 INVITE\nContent-Type: application/sdp"
        )
    };
    let mut bench = bench();
    let invite = |via: &str, body: &str| message(&head("INVITE sip:b@example.com SIP/2.0", via, ""), body);
    let sent = bench.out(PHONE, PROXY, invite(PHONE, &body("2001:db8::10", port))).text();
    let public = bench.binding(&format!("[2001:db8::10]:{port}"));
    assert_eq!(sent, invite(PUBLIC, &body("2001:db8:2::55", public.port())));
    let far = sdp("2001:db8:1::22", 30000).replace("IP4", "IP6");
    let ok = |via: &str| message(&head("SIP/2.0 200 OK", via, ";tag=2"), &far);
    assert_eq!(bench.inn(PROXY, PHONE, ok(PUBLIC)).text(), ok(PHONE));
    bench.assert_pinned(&format!("[2001:db8::10]:{port}"), "[2001:db8:1::22]:30000");

    let mut bench = self::bench();
    bench.track(PHONE, PROXY);
    let asked = message(&head("INVITE sip:b@example.com SIP/2.0", "[2001:db8:1::20]", ""), &far);
    assert_eq!(bench.inn(PROXY, PHONE, &asked).text(), asked);
    let ok = |body: &str| message(&head("SIP/2.0 200 OK", "[2001:db8:1::20]", ";tag=2"), body);
    let sent = bench.out(PHONE, PROXY, ok(&body("2001:db8::10", port))).text();
    let public = bench.binding(&format!("[2001:db8::10]:{port}"));
    assert_eq!(sent, ok(&body("2001:db8:2::55", public.port())));
    assert_eq!(public.ip(), at(PUBLIC).ip());
}

#[test]
fn f37_rfc5118_4_6_and_4_8_descriptions_of_one_family_and_of_both() {
    assert_described(|ip, port| sdp(ip, port).replace("IP4", "IP6"), 6000);
    // 4.8: several addresses in one description; each line is of its own family.
    assert_described(
        |ip, port| {
            format!(
                "v=0\no=bob 280744730 28977631 IN IP4 host.example.com\ns=\nt=0 0\nm=audio {port} RTP/AVP 0\nc=IN IP6 {ip}\n\
                 m=video 6024 RTP/AVP 107\nc=IN IP6 2001:db8:9::1\nm=audio 22334 RTP/AVP 0\nc=IN IP4 192.168.1.10\n"
            )
        },
        22334,
    );
}

#[test]
fn f37_rfc5118_4_7_addresses_of_both_families_in_one_message() {
    assert_mapped(&request(
        "sip:user@example.com",
        "«[2001:db8::10]:5060»",
        "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKjhja8781hjuaij65144\nVia: SIP/2.0/TCP [2001:db8::10]:5060;branch=z9hG4bK451jj;received=192.0.2.200\n\
         Contact: <sip:a@192.168.1.10>, <sip:user@«[2001:db8::10]:5060»;transport=tcp>\nRoute: <sip:192.0.2.9;lr>\n",
    ));
}

#[test]
fn f37_rfc5118_4_9_an_address_of_ipv4_in_one_of_ipv6_is_of_neither_phone() {
    let text = request(
        "sip:user@example.com",
        "«[2001:db8::10]:5060»",
        "Contact: \"Display\" <sip:user@[::ffff:192.168.1.10]>\n",
    );
    assert_mapped(&text);
    let body = |ip: &str, port: u16| {
        format!(
            "v=0\no=bob 1 1 IN IP6 ::ffff:192.0.2.2\ns=-\nc=IN IP6 ::ffff:192.0.2.2\nt=0 0\nm=audio 3456 RTP/AVP 0\n\
             m=video {port} RTP/AVP 99\nc=IN IP6 {ip}\n"
        )
    };
    let mut bench = bench();
    let invite = |via: &str, body: &str| {
        message(
            &format!(
                "INVITE sip:b@example.com SIP/2.0\nVia: SIP/2.0/UDP {via};branch=z9hG4bK-m\nFrom: <sip:a@example.com>;tag=1\n\
                 To: <sip:b@example.com>\nCall-ID: m\nCSeq: 1 INVITE\nContent-Type: application/sdp"
            ),
            body,
        )
    };
    let sent = bench.out(PHONE, PROXY, invite(PHONE, &body("2001:db8::10", 40000))).text();
    let port = bench.binding("[2001:db8::10]:40000").port();
    assert_eq!(body_of(&sent), body("2001:db8:2::55", port));
}

#[test]
fn f37_rfc5118_4_10_three_colons_are_no_address() {
    // What the grammar of RFC 3261 allowed by mistake.
    assert_mapped(&request(
        "sip:user@[2001:db8:::192.0.2.1]",
        "«[2001:db8::10]:5060»",
        "Contact: <sip:user@[2001:db8:::10]>, <sip:user@«[2001:db8::10]»>\n",
    ));
}
