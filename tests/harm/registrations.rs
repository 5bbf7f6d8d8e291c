//! Registrations: the phone gets back its own words, and stays reachable for as long as the registrar says.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::common::messages::{Dialog, PHONE, PROXY, answer, message, request, response, sdp};
use crate::common::{Bench, LAN, Passed, WAN, at, packet, with_source};
use crate::{PUBLIC, hang_up};
use sipalg::alg::{Event, QueuePoint, Reason};
use sipalg::packet::Datagram;

/// A REGISTER with these lines, sent from `host`; `n` tells attempts apart.
fn register(host: &str, n: u32, lines: &str) -> String {
    message(
        &format!(
            "REGISTER sip:provider.example SIP/2.0\nVia: SIP/2.0/UDP {host};branch=z9hG4bK-r{n};rport\n\
             Max-Forwards: 70\nFrom: <sip:alice@provider.example>;tag=r\nTo: <sip:alice@provider.example>\n\
             Call-ID: reg\nCSeq: {n} REGISTER\n{lines}"
        ),
        "",
    )
}

/// What the phone gets when the registrar answers what it got with these lines.
fn registrar(bench: &mut Bench, sent: &Passed, status: &str, lines: &str) -> String {
    bench.inn(PROXY, PHONE, answer(&sent.text(), status, at(PUBLIC), lines, "")).text()
}

/// The longest lifetime that the flow's entry was last given.
fn sustained(bench: &Bench) -> Duration {
    bench.kernel.sustained.last().expect("it was never set").1
}

#[test]
fn f12_the_flow_lives_as_long_as_the_registration() {
    // Behind an ALG the registrar sees no NAT and sends no keep-alives; so the flow must live by itself.
    let mut bench = Bench::default();
    let contact = "Contact: <sip:alice@192.168.1.10:5060>\nExpires: 7200\n";
    let sent = bench.out(PHONE, PROXY, register(PHONE, 1, contact));
    // What tells the registrar of a NAT is still there, and what it says to that comes back.
    assert!(sent.text().contains(";rport\r\n"));
    let granted = format!("Contact: <sip:alice@{PUBLIC}>;expires=7200\n");
    let got = registrar(&mut bench, &sent, "200 OK", &granted);
    assert!(got.contains(";rport=5060;received=192.168.1.10\r\n"), "{got}");
    assert!(sustained(&bench) >= Duration::from_secs(7200));
    // An entry that is not answered within its first two seconds would keep its short lifetime: set once more.
    let before = bench.kernel.sustained.len();
    bench.advance(Duration::from_secs(3));
    assert!(bench.kernel.sustained.len() > before);
    assert!(sustained(&bench) >= Duration::from_secs(7190));
    // Each packet makes the ruleset's own lifetime hold again, which is shorter than this lease.
    bench.advance(Duration::from_secs(60));
    let before = bench.kernel.sustained.len();
    bench.out(PHONE, PROXY, request("OPTIONS", PHONE, 2, Dialog::default(), false, ""));
    assert!(bench.kernel.sustained.len() > before);
    // An incoming call just before the end of it.
    bench.advance(Duration::from_secs(7000));
    let invite = |uri: &str| {
        request("INVITE", "22.33.44.20:5060", 1, Dialog::default(), false, "").replacen(
            "sip:bob@provider.example",
            uri,
            1,
        )
    };
    let got = bench.inn(PROXY, PHONE, invite("sip:alice@22.33.44.55:17375"));
    assert_eq!(got.text(), invite("sip:alice@192.168.1.10:5060"));
}

#[test]
fn f13_a_registration_with_a_challenge() {
    let mut bench = Bench::default();
    let contact = |host: &str| {
        format!("Contact: \"Al\" <sip:alice@{host};line=x>;q=0.7;+sip.instance=\"<urn:uuid:1>\";expires=300")
    };
    let sent = bench.out(PHONE, PROXY, register(PHONE, 1, &contact("192.168.1.10")));
    assert_eq!(sent.text(), register(PUBLIC, 1, &contact(PUBLIC)));
    let challenge = "WWW-Authenticate: Digest realm=\"x\", nonce=\"1\", opaque=\"22.33.44.55:17375\"\n";
    let got = registrar(&mut bench, &sent, "401 Unauthorized", challenge);
    assert!(got.contains(&challenge.replace('\n', "\r\n")), "{got}");
    assert_eq!(bench.engine.sizes().registrations, 0);

    let digest = "Authorization: Digest username=\"alice\", uri=\"sip:provider.example\", response=\"0\"";
    let lines = |host: &str| format!("{}\n{digest}", contact(host));
    let sent = bench.out(PHONE, PROXY, register(PHONE, 2, &lines("192.168.1.10")));
    assert_eq!(sent.text(), register(PUBLIC, 2, &lines(PUBLIC)));
    let got = registrar(&mut bench, &sent, "200 OK", &format!("{}\n", contact(PUBLIC)));
    assert!(got.contains(&format!("\r\n{}\r\n", contact("192.168.1.10"))), "{got}");
    assert_eq!(bench.engine.sizes().registrations, 1);
}

#[test]
fn f13_several_contacts_come_back_in_their_order() {
    let mut bench = Bench::default();
    let ours = "<sip:alice@192.168.1.10:5060>;expires=60, <sip:desk@192.168.1.10>;q=0.1";
    let sent = bench.out(PHONE, PROXY, register(PHONE, 1, &format!("m: {ours}")));
    let mapped = "<sip:alice@22.33.44.55:17375>;expires=60, <sip:desk@22.33.44.55:17375>;q=0.1";
    assert_eq!(sent.text(), register(PUBLIC, 1, &format!("m: {mapped}")));
    // The registrar lists other places too, where somebody else's public endpoint looks like ours but for the port.
    let others = "<sip:alice@22.33.44.55:17376>;expires=5, <sip:alice@phone.example>";
    let lines = format!("Contact: {others}, {mapped}\nm: <sip:alice@22.33.44.55>;expires=9\n");
    let got = registrar(&mut bench, &sent, "200 OK", &lines);
    let expected = format!("\r\nContact: {others}, {ours}\r\nm: <sip:alice@22.33.44.55>;expires=9\r\n");
    assert!(got.contains(&expected), "{got}");
}

#[test]
fn f13_contacts_of_several_transports_come_back_each_as_it_was() {
    let mut bench = Bench::default();
    let contacts = |plain: &str, tls: &str, bare: &str| {
        format!("<sip:alice@{plain}>;q=1, <sip:alice@{tls};transport=TLS>, <sips:alice@{bare}>;q=0.1")
    };
    let ours = contacts("192.168.1.10:5060", "192.168.1.10:5061", "192.168.1.10");
    let sent = bench.out(PHONE, PROXY, register(PHONE, 1, &format!("m: {ours}")));
    let mapped = contacts(PUBLIC, PUBLIC, PUBLIC);
    assert_eq!(sent.text(), register(PUBLIC, 1, &format!("m: {mapped}")));
    // Others write parameters as they like.
    let mapped = mapped.replace("TLS", "tls");
    let got = registrar(&mut bench, &sent, "200 OK", &format!("Contact: {mapped}\n"));
    assert!(got.contains(&format!("\r\nContact: {}\r\n", ours.replace("TLS", "tls"))), "{got}");
}

#[test]
fn f13_the_lifetime_is_what_the_registrar_grants() {
    for (asked, granted, seconds) in [
        ("Expires: 3600", "Contact: <sip:alice@22.33.44.55:17375>;expires=60\n", 60),
        ("", "Contact: <sip:alice@22.33.44.55:17375>;expires=90\nExpires: 5\n", 90),
        ("", "Expires: 120\nContact: <sip:alice@22.33.44.55:17375>\n", 120),
        ("Expires: 240", "Contact: <sip:alice@22.33.44.55:17375>\n", 240),
        ("", "Contact: <sip:alice@22.33.44.99>;expires=60, <sip:alice@22.33.44.55:17375>;expires=75\n", 75),
    ] {
        let mut bench = Bench::default();
        let lines = format!("Contact: <sip:alice@192.168.1.10:5060>\n{asked}");
        let sent = bench.out(PHONE, PROXY, register(PHONE, 1, &lines));
        registrar(&mut bench, &sent, "200 OK", granted);
        let lifetimes: Vec<_> = bench
            .events
            .iter()
            .filter_map(|event| match event {
                Event::Registered { lifetime, .. } => Some(lifetime.as_secs()),
                _ => None,
            })
            .collect();
        assert_eq!(lifetimes, [seconds], "{granted}");
        bench.advance(Duration::from_secs(seconds + 31));
        assert_eq!(bench.engine.sizes().registrations, 1, "{granted}");
        bench.advance(Duration::from_secs(2));
        assert_eq!(bench.engine.sizes().registrations, 0, "{granted}");
    }
}

#[test]
fn f13_a_phone_that_unregisters_is_gone() {
    for (n, lines, granted) in [
        (2, "Contact: *\nExpires: 0", ""),
        (
            3,
            "Contact: <sip:alice@192.168.1.10:5060>;expires=0",
            "Contact: <sip:alice@22.33.44.99>;expires=60\n",
        ),
        (
            4,
            "Contact: <sip:alice@192.168.1.10:5060>\nExpires: 0",
            "Contact: <sip:alice@22.33.44.55:17375>;expires=0\n",
        ),
    ] {
        let mut bench = Bench::default();
        let sent =
            bench.out(PHONE, PROXY, register(PHONE, 1, "Contact: <sip:alice@192.168.1.10:5060>;expires=600"));
        registrar(&mut bench, &sent, "200 OK", "Contact: <sip:alice@22.33.44.55:17375>;expires=600\n");
        assert_eq!(bench.engine.sizes().registrations, 1);
        let sent = bench.out(PHONE, PROXY, register(PHONE, n, lines));
        assert_eq!(sent.text(), register(PUBLIC, n, &lines.replace(PHONE, PUBLIC)));
        registrar(&mut bench, &sent, "200 OK", granted);
        assert_eq!(bench.engine.sizes().registrations, 0, "{lines}");
        let last = bench.events.last();
        assert!(matches!(last, Some(Event::Unregistered { why: "unregistered", .. })), "{last:?}");
    }
}

#[test]
fn f13_a_refusal_changes_nothing() {
    let mut bench = Bench::default();
    let contact = "Contact: <sip:alice@192.168.1.10:5060>;expires=600";
    let granted = "Contact: <sip:alice@22.33.44.55:17375>;expires=600\n";
    let sent = bench.out(PHONE, PROXY, register(PHONE, 1, contact));
    registrar(&mut bench, &sent, "200 OK", granted);
    for (n, status) in [(2, "401 Unauthorized"), (3, "403 Forbidden"), (4, "503 Service Unavailable")] {
        let sent = bench.out(PHONE, PROXY, register(PHONE, n, contact));
        registrar(&mut bench, &sent, status, "");
        assert_eq!(bench.engine.sizes().registrations, 1, "{status}");
    }
}

#[test]
fn f14_fifty_phones_have_the_same_port() {
    // Others assume 5060 outside, or send all calls to whoever registered last.
    let mut bench = Bench::default();
    let mut publics = BTreeSet::new();
    for n in 10..60 {
        let (phone, user) = (format!("192.168.1.{n}:5060"), format!("user{n}"));
        let text =
            |host: &str| register(host, 1, &format!("Contact: <sip:{user}@{host}>")).replace("alice", &user);
        let sent = bench.out(&phone, PROXY, text(&phone));
        let public = bench.public(&phone, PROXY).to_string();
        assert_eq!(sent.text(), text(&public));
        let granted = format!("Contact: <sip:{user}@{public}>;expires=600\n");
        bench.inn(PROXY, &phone, answer(&sent.text(), "200 OK", at(&public), &granted, ""));
        publics.insert(public);
    }
    assert_eq!((publics.len(), bench.engine.sizes().registrations), (50, 50));
    for n in 10..60 {
        let (phone, user) = (format!("192.168.1.{n}:5060"), format!("user{n}"));
        let public = bench.public(&phone, PROXY).to_string();
        let invite = |to: &str| {
            request("INVITE", "22.33.44.20:5060", 1, Dialog::default(), false, "").replacen(
                "sip:bob@provider.example",
                &format!("sip:{user}@{to}"),
                1,
            )
        };
        assert_eq!(bench.inn(PROXY, &phone, invite(&public)).text(), invite(&phone));
    }
}

#[test]
fn f15_after_a_new_public_address_everything_has_it() {
    let mut bench = Bench::default();
    let contact = "Contact: <sip:alice@192.168.1.10:5060>;expires=600";
    let sent = bench.out(PHONE, PROXY, register(PHONE, 1, contact));
    registrar(&mut bench, &sent, "200 OK", &format!("Contact: <sip:alice@{PUBLIC}>;expires=600\n"));
    let offer = sdp("192.168.1.10", 40000);
    crate::call(&mut bench, Dialog::default(), &offer, &sdp("22.33.44.22", 30000));

    bench.move_to("22.33.44.66");
    let sent = bench.out(PHONE, PROXY, register(PHONE, 2, contact)).text();
    let public = bench.public(PHONE, PROXY).to_string();
    assert!(public.starts_with("22.33.44.66:"));
    assert_eq!(sent, register(&public, 2, &contact.replace(PHONE, &public)));
    // The old call was never hung up; the new one uses the same media port, on the new address.
    let dialog = Dialog { call_id: "new", branch: "z9hG4bK-new", ..Dialog::default() };
    let sent = bench.out(PHONE, PROXY, request("INVITE", PHONE, 1, dialog, false, &offer));
    let media = bench.binding("192.168.1.10:40000");
    assert_eq!(media.ip().to_string(), "22.33.44.66");
    assert_eq!(sent.text(), request("INVITE", &public, 1, dialog, false, &sdp("22.33.44.66", media.port())));
    bench.inn(PROXY, PHONE, response("200 OK", "INVITE", &public, 1, dialog, &sdp("22.33.44.22", 31000)));
    bench.assert_pinned("192.168.1.10:40000", "22.33.44.22:31000");
    assert!(bench.kernel.pinholes.keys().all(|it| it.ip() == media.ip()), "{:?}", bench.kernel.pinholes);
    // The phone gives the old call up at last: that is nothing to the new one.
    hang_up(&mut bench, Dialog::default());
    let old =
        response("200 OK", "BYE", &public, 7, Dialog { branch: "z9hG4bK-1-bye", ..Dialog::default() }, "");
    bench.inn(PROXY, PHONE, old);
    bench.assert_pinned("192.168.1.10:40000", "22.33.44.22:31000");
    assert_eq!(bench.kernel.peers.len(), 2);
    let bye = Dialog { branch: "z9hG4bK-bye", ..dialog };
    bench.out(PHONE, PROXY, request("BYE", PHONE, 7, bye, true, ""));
    bench.inn(PROXY, PHONE, response("200 OK", "BYE", &public, 7, bye, ""));
    bench.assert_all_closed();
}

#[test]
fn f15_a_flow_that_conntrack_forgot_is_learned_again() {
    let mut bench = Bench::default();
    let contact = "Contact: <sip:alice@192.168.1.10:5060>";
    bench.out(PHONE, PROXY, register(PHONE, 1, contact));
    bench.destroy(PHONE, PROXY);
    let sent = bench.out(PHONE, PROXY, register(PHONE, 2, contact)).text();
    let public = bench.public(PHONE, PROXY).to_string();
    assert_ne!(public, PUBLIC);
    assert_eq!(sent, register(&public, 2, &contact.replace(PHONE, &public)));
}

#[test]
fn f15_two_ports_for_one_flow_at_the_same_moment() {
    // Under random NAT two packets of a new flow race: each gets a port, and that of the second dies with its entry.
    let mut bench = Bench::default();
    let contact = "Contact: <sip:alice@192.168.1.10:5060>";
    let texts = [1, 2].map(|n| register(PHONE, n, contact));
    let marked = texts.each_ref().map(|text| {
        let first = packet(at(PHONE), at(PROXY), text.as_bytes());
        let (passed, out) = bench.pass(QueuePoint::NewFlow, LAN, WAN, &first);
        assert_eq!(passed.reason, Reason::Learning);
        out
    });
    let publics = [PUBLIC, "22.33.44.55:40404"];
    let [first, second] = [0, 1].map(|n| {
        let datagram = Datagram::parse(&marked[n]).expect("only its identity was set");
        let natted = with_source(&datagram, at(publics[n]), texts[n].as_bytes());
        bench.pass(QueuePoint::Learn, 0, WAN, &natted).0
    });
    assert_eq!(
        (first.reason, first.text()),
        (Reason::Rewritten, register(PUBLIC, 1, &contact.replace(PHONE, PUBLIC)))
    );
    assert_eq!((second.reason, second.payload), (Reason::NatClash, None), "the only packet that is dropped");
    // The phone repeats it, by the port that lives.
    let again = packet(at(PHONE), at(PROXY), texts[1].as_bytes());
    let sent = bench.pass(QueuePoint::Signalling, LAN, WAN, &again).0;
    assert_eq!(sent.text(), register(PUBLIC, 2, &contact.replace(PHONE, PUBLIC)));
    assert_eq!(bench.count(Reason::NatClash), 1);
}
