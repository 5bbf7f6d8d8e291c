//! Endpoints that know of the NAT: nothing is mapped twice.

use crate::common::messages::{Dialog, PHONE, PROXY, answer, message, request, response, sdp};
use crate::common::{Bench, at};
use crate::{INSIDE, OUTSIDE, PUBLIC, body_of, offer};
use sipalg::alg::{Policy, Prefix, Reason};

fn register(host: &str, contact: &str) -> String {
    message(
        &format!(
            "REGISTER sip:provider.example SIP/2.0\nVia: SIP/2.0/UDP {host};branch=z9hG4bK-r;rport\n\
             From: <sip:alice@provider.example>;tag=a\nTo: <sip:alice@provider.example>\nCall-ID: reg\n\
             CSeq: 1 REGISTER\nContact: {contact}"
        ),
        "",
    )
}

fn options(uri: &str) -> String {
    message(
        &format!(
            "OPTIONS {uri} SIP/2.0\nVia: SIP/2.0/UDP 22.33.44.20;branch=z9hG4bK-o\nFrom: <sip:x@provider.example>;tag=x\n\
             To: <sip:alice@provider.example>\nCall-ID: o\nCSeq: 1 OPTIONS"
        ),
        "",
    )
}

#[test]
fn f29_a_phone_that_writes_its_public_contact_gets_it_back() {
    // Others map it once more on the way back; the phone then does not find its own Contact in the 200.
    for via in [PHONE, PUBLIC, "phone.lan", "22.33.44.55:50000"] {
        for contact in [
            "<sip:alice@22.33.44.55:17375>;expires=60",
            "<sip:alice@22.33.44.55:17375;transport=udp;ob>;+sip.instance=\"<urn:uuid:1>\"",
            "<sip:alice@22.33.44.55:50000>",
        ] {
            let mut bench = Bench::default();
            let sent = bench.out(PHONE, PROXY, register(via, contact)).text();
            let expected = if via == PHONE { PUBLIC } else { via };
            assert_eq!(sent, register(expected, contact));
            let ok = answer(&sent, "200 OK", at(PUBLIC), &format!("Contact: {contact}\n"), "");
            let got = bench.inn(PROXY, PHONE, &ok).text();
            assert!(got.contains(&format!("\r\nContact: {contact}\r\n")), "{got}");
            if via.starts_with(OUTSIDE) {
                assert_eq!(got, ok, "what the phone asked its server by `rport`, it is told");
            }
            // And a call to it.
            let uri = contact.split(['<', '>']).nth(1).unwrap();
            assert_eq!(bench.inn(PROXY, PHONE, options(uri)).text(), options(uri));
        }
    }
}

#[test]
fn f29_a_phone_that_learns_its_public_address_later_is_believed() {
    let mut bench = Bench::default();
    bench.out(PHONE, PROXY, register(PHONE, "<sip:alice@192.168.1.10:5060>"));
    assert_eq!(
        bench.inn(PROXY, PHONE, options("sip:alice@22.33.44.55:17375")).text(),
        options("sip:alice@192.168.1.10:5060")
    );
    bench.out(PHONE, PROXY, register(PHONE, "<sip:alice@22.33.44.55:17375>"));
    let got = bench.inn(PROXY, PHONE, options("sip:alice@22.33.44.55:17375"));
    assert_eq!(got.text(), options("sip:alice@22.33.44.55:17375"));
    bench.out(PHONE, PROXY, register(PHONE, "<sip:alice@192.168.1.10>"));
    assert_eq!(
        bench.inn(PROXY, PHONE, options("sip:alice@22.33.44.55:17375")).text(),
        options("sip:alice@192.168.1.10")
    );
}

#[test]
fn f29_a_public_port_of_the_phones_own_is_understood() {
    // It asked a STUN server from the port of its last call, whose door still stands, and writes what it learned.
    let mut bench = Bench::default();
    offer(&mut bench, &sdp(INSIDE, 40000));
    let public = bench.binding("192.168.1.10:40000");
    let dialog = Dialog { call_id: "second", branch: "z9hG4bK-s", ..Dialog::default() };
    let text = request("INVITE", PUBLIC, 1, dialog, false, &sdp(OUTSIDE, public.port()));
    let asked = bench.commands.len();
    let sent = bench.out(PHONE, PROXY, &text);
    assert_eq!((sent.text(), sent.reason), (text, Reason::Unchanged));
    assert_eq!(bench.commands.len(), asked, "nothing more is opened");
    let seen = response("200 OK", "INVITE", PUBLIC, 1, dialog, &sdp("22.33.44.22", 30000));
    assert_eq!(bench.inn(PROXY, PHONE, &seen).text(), seen);
    bench.assert_pinned("192.168.1.10:40000", "22.33.44.22:30000");
    // The first call never rings; the door stays for the second.
    bench.advance(std::time::Duration::from_secs(40));
    assert_eq!(bench.binding("192.168.1.10:40000"), public);
    bench.assert_pinned("192.168.1.10:40000", "22.33.44.22:30000");
}

#[test]
fn f29_a_public_port_of_somebody_else_opens_nothing() {
    let mut bench = Bench::default();
    offer(&mut bench, &sdp(INSIDE, 40000));
    let public = bench.binding("192.168.1.10:40000");
    let (doors, other) = (bench.kernel.pinholes.clone(), "192.168.1.66:5060");
    for port in [public.port(), public.port() + 100, 5060, 22] {
        let branch = format!("z9hG4bK-{port}");
        let call_id = format!("evil-{port}");
        let dialog = Dialog { call_id: &call_id, branch: &branch, ..Dialog::default() };
        let text = request("INVITE", "evil.lan", 1, dialog, false, &sdp(OUTSIDE, port));
        assert_eq!(bench.out(other, PROXY, &text).text(), text);
        bench.inn(
            PROXY,
            other,
            response("200 OK", "INVITE", "evil.lan:1", 1, dialog, &sdp("22.33.44.99", 30000)),
        );
        assert_eq!(bench.kernel.pinholes, doors);
        assert!(bench.kernel.pins.is_empty(), "{:?}", bench.kernel.pins);
    }
}

#[test]
fn f08_a_proxy_inside_speaks_for_the_phones_behind_it() {
    let inside_hosts = vec![Prefix { address: "192.168.1.0".parse().unwrap(), bits: 25 }];
    let mut bench = Bench::new(Policy { inside_hosts, ..Policy::default() });
    let proxy = "192.168.1.5:5060";
    // The phone's REGISTER, by the proxy: Path, a Via of each, the phone's Contact.
    let text = |top: &str, path: &str, contact: &str| {
        message(
            &format!(
                "REGISTER sip:provider.example SIP/2.0\nVia: SIP/2.0/UDP {top};branch=z9hG4bK-p\n\
                 Via: SIP/2.0/UDP 192.168.1.20:5062;branch=z9hG4bK-u;received=192.168.1.20\n\
                 Path: <sip:{path};lr>\nFrom: <sip:ext20@provider.example>;tag=a\nTo: <sip:ext20@provider.example>\n\
                 Call-ID: reg\nCSeq: 1 REGISTER\n\
                 Contact: <sip:ext20@{contact};ob>;q=1, <sip:ext20@192.168.7.7>, <sip:ext20@pbx.lan>"
            ),
            "",
        )
    };
    let inside = text(proxy, "192.168.1.5", "192.168.1.20:5062");
    let sent = bench.out(proxy, PROXY, &inside).text();
    assert_eq!(sent, text(PUBLIC, PUBLIC, PUBLIC));
    // What the registrar echoes comes back to the letter.
    let back = |text: &str| text.replacen("REGISTER sip:provider.example SIP/2.0", "SIP/2.0 200 OK", 1);
    assert_eq!(bench.inn(PROXY, proxy, back(&sent)).text(), back(&inside));
    // A call to the phone: by the Path, to the Contact.
    let call = |uri: &str, route: &str| {
        options(&format!("sip:ext20@{uri};ob")).replacen(
            "From:",
            &format!("Route: <sip:{route};lr>\r\nFrom:"),
            1,
        )
    };
    assert_eq!(
        bench.inn(PROXY, proxy, call(PUBLIC, PUBLIC)).text(),
        call("192.168.1.20:5062", "192.168.1.5")
    );
    // Its media is the phone's.
    let dialog = Dialog { call_id: "by-proxy", ..Dialog::default() };
    let invite = request("INVITE", proxy, 1, dialog, false, &sdp("192.168.1.20", 40000));
    let sent = bench.out(proxy, PROXY, invite).text();
    let public = bench.binding("192.168.1.20:40000");
    assert_eq!(body_of(&sent), sdp(OUTSIDE, public.port()));
}
