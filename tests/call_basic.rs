//! A registration and a call, message by message: read this first.

mod common;

use std::time::Duration;

use common::messages::{Dialog, MEDIA, PHONE, PROXY, message, request, response, sdp};
use common::{Bench, kind};
use sipalg::alg::{Event, Reason};

fn register(expires: &str) -> String {
    message(
        &format!(
            "REGISTER sip:provider.example SIP/2.0\n\
             Via: SIP/2.0/UDP 192.168.1.10;branch=z9hG4bK-r;rport\n\
             From: <sip:alice@provider.example>;tag=a\n\
             To: <sip:alice@provider.example>\n\
             Call-ID: reg-1\nCSeq: 1 REGISTER\n\
             Contact: <sip:alice@192.168.1.10;line=7>;+sip.instance=\"<urn:uuid:1>\"{expires}"
        ),
        "",
    )
}

#[test]
fn a_phone_registers_and_gets_its_own_contact_back() {
    let mut bench = Bench::default();
    let sent = bench.out(PHONE, PROXY, register(";expires=600"));
    assert_eq!(sent.reason, Reason::Rewritten);
    assert_eq!(sent.rules, ["via", "contact"]);
    let expected = register(";expires=600").replace("192.168.1.10", "22.33.44.55:17375");
    assert_eq!(sent.text(), expected);

    let answer = expected
        .replace("REGISTER sip:provider.example SIP/2.0", "SIP/2.0 200 OK")
        .replace(";rport", ";rport=17375;received=22.33.44.55");
    let got = bench.inn(PROXY, PHONE, &answer);
    assert_eq!(got.rules, ["via", "via-parameter", "via-parameter", "contact"]);
    let restored = register(";expires=600")
        .replace("REGISTER sip:provider.example SIP/2.0", "SIP/2.0 200 OK")
        .replace(";rport", ";rport=5060;received=192.168.1.10");
    assert_eq!(got.text(), restored);
    assert_eq!(bench.engine.sizes().registrations, 1);
    assert!(bench.events.iter().any(|event| matches!(event, Event::Registered { .. })), "{:?}", bench.events);
    let (flow, lifetime) = bench.kernel.sustained.last().unwrap();
    assert_eq!(flow.inside.0, common::at(PHONE));
    assert!(*lifetime >= Duration::from_secs(600));

    bench.advance(Duration::from_secs(700));
    assert_eq!(bench.engine.sizes().registrations, 0);
}

#[test]
fn a_phone_calls_talks_and_hangs_up() {
    let mut bench = Bench::default();
    let dialog = Dialog::default();
    let offer = sdp("192.168.1.10", 40000);
    let invite = request("INVITE", PHONE, 1, dialog, false, &offer);
    let sent = bench.out(PHONE, PROXY, &invite);
    let rules = ["via", "contact", "content-length", "sdp-origin", "sdp-connection", "sdp-media-port"];
    assert_eq!(sent.rules, rules);
    let public = bench.binding("192.168.1.10:40000");
    let rtcp = bench.binding("192.168.1.10:40001");
    assert_eq!((public.port() % 2, rtcp.port()), (0, public.port() + 1));
    let offered = sdp("22.33.44.55", public.port());
    let expected = request("INVITE", "22.33.44.55:17375", 1, dialog, false, &offered)
        .replace("call-1@22.33.44.55:17375", "call-1@192.168.1.10");
    assert_eq!(sent.text(), expected);
    assert_eq!(bench.kernel.peers.len(), 0, "nobody was negotiated yet");

    // A retransmission has the same bytes and asks for nothing.
    let asked = bench.commands.len();
    assert_eq!(bench.out(PHONE, PROXY, &invite), sent);
    assert_eq!(bench.commands.len(), asked);

    bench.inn(PROXY, PHONE, response("100 Trying", "INVITE", "22.33.44.55:17375", 1, dialog, ""));
    let answer = sdp("22.33.44.22", 30000);
    let ok = response("200 OK", "INVITE", "22.33.44.55:17375", 1, dialog, &answer);
    let got = bench.inn(PROXY, PHONE, &ok);
    assert_eq!(got.rules, ["via", "via-parameter", "via-parameter"]);
    bench.assert_pinned("192.168.1.10:40000", MEDIA);
    bench.assert_pinned("192.168.1.10:40001", "22.33.44.22:30001");
    assert_eq!(bench.kernel.peers.len(), 2);
    assert_eq!(bench.inn(PROXY, PHONE, &ok), got);

    let ack = Dialog { branch: "z9hG4bK-2", ..dialog };
    bench.out(PHONE, PROXY, request("ACK", PHONE, 1, ack, true, ""));
    let bye = Dialog { branch: "z9hG4bK-3", ..dialog };
    bench.out(PHONE, PROXY, request("BYE", PHONE, 2, bye, true, ""));
    bench.assert_pinned("192.168.1.10:40000", MEDIA);
    bench.inn(PROXY, PHONE, response("200 OK", "BYE", "22.33.44.55:17375", 2, bye, ""));
    bench.assert_all_closed();
    assert!(bench.events.iter().any(|event| matches!(event, Event::CallEnded { why: "bye", .. })));
    let kinds: Vec<_> = bench.commands.iter().map(kind).collect();
    assert_eq!(kinds, ["open", "admit", "admit", "pin", "pin", "close", "unpin", "unpin"]);
}

#[test]
fn nobody_answers_and_the_doors_close_after_32_seconds() {
    let mut bench = Bench::default();
    bench.out(
        PHONE,
        PROXY,
        request("INVITE", PHONE, 1, Dialog::default(), false, &sdp("192.168.1.10", 40000)),
    );
    bench.advance(Duration::from_secs(31));
    bench.binding("192.168.1.10:40000");
    bench.advance(Duration::from_secs(2));
    bench.assert_all_closed();
    assert_eq!(bench.engine.sizes().ports, 2, "the ports rest");
    bench.advance(Duration::from_secs(64));
    assert_eq!(bench.engine.sizes().ports, 0);
}

#[test]
fn a_call_comes_in_to_a_registered_phone() {
    let mut bench = Bench::default();
    bench.out(PHONE, PROXY, register(""));
    let invite = |uri: &str| {
        message(
            &format!(
                "INVITE {uri} SIP/2.0\n\
                 Via: SIP/2.0/UDP 22.33.44.20;branch=z9hG4bK-in\n\
                 From: <sip:bob@provider.example>;tag=b\nTo: <sip:alice@provider.example>\n\
                 Call-ID: in-1\nCSeq: 1 INVITE\nContact: <sip:bob@22.33.44.21>\nContent-Type: application/sdp"
            ),
            &sdp("22.33.44.22", 30000),
        )
    };
    let got = bench.inn(PROXY, PHONE, invite("sip:alice@22.33.44.55:17375;line=7"));
    assert_eq!(got.rules, ["request-uri"]);
    assert_eq!(got.text(), invite("sip:alice@192.168.1.10;line=7"));
    assert!(bench.kernel.pinholes.is_empty(), "the phone has not answered");

    let ok = message(
        "SIP/2.0 200 OK\nVia: SIP/2.0/UDP 22.33.44.20;branch=z9hG4bK-in\n\
         From: <sip:bob@provider.example>;tag=b\nTo: <sip:alice@provider.example>;tag=a\n\
         Call-ID: in-1\nCSeq: 1 INVITE\nContact: <sip:alice@192.168.1.10:5060>\nContent-Type: application/sdp",
        &sdp("192.168.1.10", 40000),
    );
    let sent = bench.out(PHONE, PROXY, ok);
    assert!(!sent.text().contains("192.168."), "{}", sent.text());
    bench.assert_pinned("192.168.1.10:40000", MEDIA);
}

#[test]
fn a_flow_whose_lifetime_rule_is_gone_is_kept_alive_by_us() {
    let mut bench = Bench::default();
    bench.out(PHONE, PROXY, register(";expires=600"));
    let answer = register(";expires=600")
        .replace("192.168.1.10", "22.33.44.55:17375")
        .replace("REGISTER sip:provider.example SIP/2.0", "SIP/2.0 200 OK");
    bench.inn(PROXY, PHONE, &answer);
    let before = bench.kernel.sustained.len();
    bench.advance(Duration::from_secs(10));
    bench.inn(PROXY, PHONE, &answer);
    assert_eq!(bench.kernel.sustained.len(), before + 1, "once the flow has settled, and never for a packet");

    bench.reload();
    assert_eq!(bench.kernel.sustained.len(), before + 2);
    bench.advance(Duration::from_secs(10));
    bench.inn(PROXY, PHONE, &answer);
    assert_eq!(bench.kernel.sustained.len(), before + 3, "a packet takes the lifetime back to two minutes");
    bench.inn(PROXY, PHONE, &answer);
    assert_eq!(bench.kernel.sustained.len(), before + 3, "at most once a second");
}
