//! F43: nobody opens a door by making somebody's browser send text that looks like SIP (rules S3 to S13).

use std::time::Duration;

use crate::common::messages::{Dialog, MEDIA, PHONE, PROXY, message, request, response, sdp};
use crate::common::{Bench, LAN, Passed, WAN, at, packet};
use crate::{PUBLIC, answered, call, invite};
use sipalg::alg::{Event, Limits, Policy, Prefix, QueuePoint, Reason};

fn offer() -> String {
    sdp("192.168.1.10", 40000)
}

/// It passed to the letter, for this reason, and nothing is open.
#[track_caller]
fn assert_untouched(bench: &Bench, passed: &Passed, text: &str, reason: Reason) {
    assert_eq!((passed.payload.as_deref(), passed.reason), (Some(text.as_bytes()), reason), "{text}");
    assert_eq!(bench.count(reason), 1, "{text}");
    assert!(bench.commands.is_empty(), "{text}: {:?}", bench.commands);
    bench.assert_all_closed();
}

#[test]
fn f43_s3_fragments_are_not_read() {
    let text = request("INVITE", PHONE, 1, Dialog::default(), false, &offer());
    for (offset, more) in [(0u16, true), (185, false), (185, true)] {
        let mut bytes = packet(at(PHONE), at(PROXY), text.as_bytes());
        bytes[6..8].copy_from_slice(&(offset | if more { 0x2000 } else { 0 }).to_be_bytes());
        bytes[10..12].fill(0);
        for point in QueuePoint::ALL {
            let mut bench = Bench::default();
            let (passed, out) = bench.pass(point, LAN, WAN, &bytes);
            assert_eq!((passed.reason, &out), (Reason::BrokenPacket, &bytes), "{point:?}");
            assert!(bench.commands.is_empty());
        }
    }
}

#[test]
fn f43_s3_text_that_begins_elsewhere_is_not_read() {
    let text = request("INVITE", PHONE, 1, Dialog::default(), false, &offer());
    for (before, reason) in [
        ("POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n", Reason::NotSip),
        (" ", Reason::NotSip),
        ("\0", Reason::NotSip),
        ("\u{feff}", Reason::NotSip),
        // A method of that name is possible, but then CSeq must name it too.
        ("x", Reason::Suspicious),
    ] {
        let text = format!("{before}{text}");
        let mut bench = Bench::default();
        let passed = bench.out(PHONE, PROXY, &text);
        assert_untouched(&bench, &passed, &text, reason);
    }
    // A STUN message with SIP in an attribute.
    let stun = format!("\0\u{1}\0\0\u{21}\u{12}{text}");
    let mut bytes = stun.into_bytes();
    bytes.splice(6..6, [0xa4, 0x42]);
    let mut bench = Bench::default();
    let passed = bench.out(PHONE, PROXY, &bytes);
    assert_eq!((passed.payload.as_ref(), passed.reason), (Some(&bytes), Reason::Stun));
}

#[test]
fn f43_s4_a_message_without_what_every_message_has_is_not_believed() {
    let good = request("INVITE", PHONE, 1, Dialog::default(), false, &offer());
    let mut spoiled = Vec::new();
    for header in ["Via", "From", "To", "Call-ID", "CSeq"] {
        let start = good.find(&format!("\r\n{header}:")).unwrap() + 2;
        let end = start + good[start..].find("\r\n").unwrap() + 2;
        spoiled.push(good.replacen(&good[start..end], "", 1));
        spoiled.push(good.replacen(&good[start..end], &format!("{header}:\r\n"), 1));
        if header != "Via" {
            spoiled.push(good.replacen(&good[start..end], &good[start..end].repeat(2), 1));
        }
    }
    for (old, new) in [
        ("CSeq: 1 INVITE", "CSeq: 1 REGISTER"),
        ("CSeq: 1 INVITE", "CSeq: 1 invite"),
        ("CSeq: 1 INVITE", "CSeq: INVITE"),
        ("CSeq: 1 INVITE", "CSeq: 1"),
        (";branch=z9hG4bK-1", ";branch=1"),
        (";branch=z9hG4bK-1", ""),
        (";tag=alice-1", ""),
        (";tag=alice-1", ";tag="),
        ("SIP/2.0/UDP 192", "UDP 192"),
        ("<sip:bob@provider.example>\r\n", "bob\r\n"),
    ] {
        assert!(good.contains(old), "{old}");
        spoiled.push(good.replacen(old, new, 1));
    }
    for text in spoiled {
        let mut bench = Bench::default();
        let passed = bench.out(PHONE, PROXY, &text);
        assert_untouched(&bench, &passed, &text, Reason::Suspicious);
        assert!(bench.events.iter().any(|event| matches!(event, Event::Refused { rule: "S4", .. })));
        // Not from outside either.
        let mut bench = Bench::default();
        bench.track(PHONE, PROXY);
        let text = text.replace("192.168.1.10:5060", PUBLIC);
        let got = bench.inn(PROXY, PHONE, &text);
        assert_eq!(
            (got.payload.as_deref(), got.reason),
            (Some(text.as_bytes()), Reason::Suspicious),
            "{text}"
        );
    }
    for line in [
        "INVITE sip:bob@provider.example SIP/3.0",
        "INVITE  sip:bob@provider.example SIP/2.0",
        "INVITE bob SIP/2.0",
    ] {
        let text = good.replacen("INVITE sip:bob@provider.example SIP/2.0", line, 1);
        let mut bench = Bench::default();
        let passed = bench.out(PHONE, PROXY, &text);
        assert_untouched(&bench, &passed, &text, Reason::NotSip);
    }
}

#[test]
fn f43_s5_only_the_right_answer_opens() {
    let dialog = Dialog::default();
    let right = response("200 OK", "INVITE", PUBLIC, 1, dialog, &sdp("22.33.44.22", 30000));
    let wrong = [
        ("branch", right.replacen("branch=z9hG4bK-1", "branch=z9hG4bK-x", 1)),
        ("method", right.replacen("1 INVITE", "1 UPDATE", 1)),
        ("Call-ID", right.replacen("call-1@", "call-x@", 1)),
        ("From tag", right.replacen("alice-1", "alice-x", 1)),
    ];
    for (what, text) in wrong {
        let mut bench = Bench::default();
        invite(&mut bench, dialog, &offer());
        bench.inn(PROXY, PHONE, text);
        assert!(bench.kernel.peers.is_empty() && bench.kernel.pins.is_empty(), "{what}: {:?}", bench.kernel);
        bench.advance(Duration::from_secs(33));
        bench.assert_all_closed();
    }
    // Another flow of the same phone: whoever is at its other end cannot answer for the proxy.
    let mut bench = Bench::default();
    invite(&mut bench, dialog, &offer());
    let stranger = "6.6.6.6:5060";
    bench.out(
        PHONE,
        stranger,
        request("OPTIONS", PHONE, 1, Dialog { branch: "z9hG4bK-o", ..dialog }, false, ""),
    );
    let seen = bench.public(PHONE, stranger).to_string();
    bench.inn(stranger, PHONE, response("200 OK", "INVITE", &seen, 1, dialog, &sdp("6.6.6.6", 30000)));
    assert!(bench.kernel.peers.is_empty() && bench.kernel.pins.is_empty(), "{:?}", bench.kernel);
    // And nobody answers without having been asked.
    let mut bench = Bench::default();
    bench.track(PHONE, PROXY);
    bench.inn(PROXY, PHONE, &right);
    assert_eq!(bench.kernel, Default::default());
    assert_eq!(bench.engine.sizes().calls, 0);
    // The right one does.
    let mut bench = Bench::default();
    invite(&mut bench, dialog, &offer());
    bench.inn(PROXY, PHONE, &right);
    bench.assert_pinned("192.168.1.10:40000", MEDIA);
}

#[test]
fn f43_s5_a_registration_counts_when_the_registrar_says_so() {
    let register = message(
        "REGISTER sip:provider.example SIP/2.0\nVia: SIP/2.0/UDP 192.168.1.10;branch=z9hG4bK-r;rport\n\
         From: <sip:alice@provider.example>;tag=a\nTo: <sip:alice@provider.example>\nCall-ID: reg-1\n\
         CSeq: 1 REGISTER\nContact: <sip:alice@192.168.1.10>",
        "",
    );
    let mut bench = Bench::default();
    let sent = bench.out(PHONE, PROXY, register).text();
    let ok = sent.replacen("REGISTER sip:provider.example SIP/2.0", "SIP/2.0 200 OK", 1);
    for wrong in [
        ok.replacen("bK-r", "bK-x", 1),
        ok.replacen("reg-1", "reg-2", 1),
        ok.replacen("1 REGISTER", "1 OPTIONS", 1),
    ] {
        bench.inn(PROXY, PHONE, wrong);
        assert_eq!(bench.engine.sizes().registrations, 0);
    }
    bench.inn(PROXY, PHONE, ok);
    assert_eq!(bench.engine.sizes().registrations, 1);
}

#[test]
fn f43_s6_servers_that_are_not_on_the_list_get_nothing() {
    let servers = vec![Prefix { address: "22.33.44.16".parse().unwrap(), bits: 28 }];
    let policy = Policy { servers, ..Policy::default() };
    let text = request("INVITE", PHONE, 1, Dialog::default(), false, &offer());
    let mut bench = Bench::new(policy.clone());
    let passed = bench.out(PHONE, "6.6.6.6:5060", &text);
    assert_untouched(&bench, &passed, &text, Reason::PeerNotAllowed);
    let mut bench = Bench::new(policy);
    assert_eq!(bench.out(PHONE, PROXY, &text).reason, Reason::Rewritten);
}

#[test]
fn f43_s8_nobody_speaks_for_another_host() {
    // NAT slipstreaming's second version leads to any host inside.
    for other in [
        "192.168.1.11",
        "192.168.1.1",
        "127.0.0.1",
        "192.168.1.255",
        "239.1.1.1",
        "255.255.255.255",
        "22.33.44.55",
    ] {
        let mut bench = Bench::default();
        let dialog = Dialog { call_id: "x", ..Dialog::default() };
        let text = request("INVITE", PHONE, 1, dialog, false, &sdp(other, 40000)).replacen(
            "Contact: <sip:alice@192.168.1.10:5060>",
            &format!("Contact: <sip:alice@{other}:3306>"),
            1,
        );
        let sent = bench.out(PHONE, PROXY, &text);
        assert_eq!(sent.text(), text.replacen(PHONE, PUBLIC, 1), "only the Via is ours");
        assert!(bench.kernel.pinholes.is_empty(), "{other}");
        bench.inn(PROXY, PHONE, response("200 OK", "INVITE", PUBLIC, 1, dialog, &sdp("22.33.44.22", 30000)));
        assert!(bench.kernel.pinholes.is_empty() && bench.kernel.pins.is_empty(), "{other}");
    }
    // Unless the administrator says so.
    let inside_hosts = vec![Prefix { address: "192.168.1.11".parse().unwrap(), bits: 32 }];
    let mut bench = Bench::new(Policy { inside_hosts, ..Policy::default() });
    invite(&mut bench, Dialog::default(), &sdp("192.168.1.11", 40000));
    bench.binding("192.168.1.11:40000");
}

#[test]
fn f43_s8_the_port_of_what_another_host_has_open_stays_too() {
    let mut bench = Bench::default();
    let [first, second] = ["192.168.1.11:5060", PHONE];
    bench.nat(first, PROXY, "22.33.44.55:17376");
    let mine = Dialog { call_id: "mine", branch: "z9hG4bK-mine", ..Dialog::default() };
    bench.out(first, PROXY, request("INVITE", first, 1, mine, false, &sdp("192.168.1.11", 40000)));
    let public = bench.binding("192.168.1.11:40000").port();
    assert_ne!(public, 40000);
    let text = request("INVITE", second, 1, Dialog::default(), false, &sdp("192.168.1.11", 40000));
    let sent = bench.out(second, PROXY, &text);
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(sent.text().ends_with(body), "{}", sent.text());
}

#[test]
fn f43_s8_media_is_never_led_to_the_router() {
    let mut bench = Bench::default();
    call(&mut bench, Dialog::default(), &offer(), &sdp("22.33.44.55", 22));
    assert!(bench.kernel.pins.is_empty() && bench.kernel.peers.is_empty(), "{:?}", bench.kernel);
}

#[test]
fn f43_s8_media_is_never_led_into_a_network_behind_the_firewall() {
    // The router's address in the LAN, another network behind it, a link's own, a carrier's.
    for other in ["192.168.1.1", "10.2.0.5", "172.16.0.1", "169.254.1.1", "100.64.0.1"] {
        let mut bench = Bench::default();
        call(&mut bench, Dialog::default(), &offer(), &sdp(other, 30000));
        assert!(bench.kernel.pins.is_empty() && bench.kernel.peers.is_empty(), "{other}: {:?}", bench.kernel);
        assert!(
            bench.events.iter().any(|event| matches!(event, Event::Refused { rule: "S8", .. })),
            "{other}"
        );
    }
    // A provider that is private itself may name what is.
    let mut bench = Bench::default();
    let server = "10.1.0.1:5060";
    bench.out(PHONE, server, request("INVITE", PHONE, 1, Dialog::default(), false, &offer()));
    let public = bench.public(PHONE, server).to_string();
    let answer = response("200 OK", "INVITE", &public, 1, Dialog::default(), &sdp("10.2.0.5", 30000));
    bench.inn(server, PHONE, answer);
    bench.assert_pinned("192.168.1.10:40000", "10.2.0.5:30000");
}

#[test]
fn f18_f43_s9_rtp_beside_the_port_of_a_service_has_no_rtcp_and_all_else() {
    for port in [11210, 27016, 6378] {
        let mut bench = Bench::default();
        call(&mut bench, Dialog::default(), &sdp("192.168.1.10", port), &sdp("22.33.44.22", 30000));
        let rtp = format!("192.168.1.10:{port}");
        bench.assert_pinned(&rtp, "22.33.44.22:30000");
        let doors: Vec<String> = bench.kernel.pinholes.values().map(|inside| inside.0.to_string()).collect();
        assert_eq!(doors, [rtp]);
    }
}

#[test]
fn f43_s9_services_are_not_media() {
    for port in [22, 80, 443, 1023, 1433, 1900, 3306, 3389, 5060, 5061, 5353, 5432, 6379, 11211, 27017] {
        let text = request("INVITE", PHONE, 1, Dialog::default(), false, &sdp("192.168.1.10", port));
        let mut bench = Bench::default();
        let passed = bench.out(PHONE, PROXY, &text);
        assert_untouched(&bench, &passed, &text, Reason::Refused);
        assert!(bench.events.iter().any(|event| matches!(event, Event::Refused { rule: "S9", .. })));
    }
    // Not by RTCP, not behind a harmless stream, and not by a Contact, which gets the flow's own port.
    for body in [
        format!("{}a=rtcp:3306\n", offer()),
        format!("{}m=video 5432 RTP/AVP 31\n", offer()),
        offer().replace("audio 40000", "audio 1898/2"),
    ] {
        let text = request("INVITE", PHONE, 1, Dialog::default(), false, &body);
        let mut bench = Bench::default();
        let passed = bench.out(PHONE, PROXY, &text);
        assert_untouched(&bench, &passed, &text, Reason::Refused);
    }
    let text = request("OPTIONS", PHONE, 1, Dialog::default(), false, "");
    let sent = Bench::default().out(
        PHONE,
        PROXY,
        text.replacen("alice@192.168.1.10:5060", "alice@192.168.1.10:3306", 1),
    );
    assert!(sent.text().contains(&format!("Contact: <sip:alice@{PUBLIC}>")));
}

#[test]
fn f43_s9_public_ports_are_our_own() {
    let mut bench = Bench::new(Policy { ports: 20000..=20099, ..Policy::default() });
    for n in 0..50u16 {
        let (call_id, branch) = (format!("{n}"), format!("z9hG4bK-{n}"));
        let dialog = Dialog { call_id: &call_id, branch: &branch, ..Dialog::default() };
        // Whatever the phone asks for, inside of the range and outside of it.
        invite(&mut bench, dialog, &sdp("192.168.1.10", 20000 + 2 * n + 1000 * (n % 3)));
    }
    assert!(bench.kernel.pinholes.len() >= 66);
    assert!(bench.kernel.pinholes.keys().all(|it| (20000..=20099).contains(&it.port())));
}

#[test]
fn f43_s10_messages_from_outside_open_nothing() {
    let mut bench = Bench::default();
    bench.track(PHONE, PROXY);
    let from = "22.33.44.20:5060";
    for (n, method) in (1..).zip(["INVITE", "UPDATE", "PRACK", "ACK", "REGISTER", "MESSAGE", "BYE"]) {
        let branch = format!("z9hG4bK-s10-{n}");
        let dialog = Dialog { branch: &branch, ..Dialog::default() };
        for body in [sdp("22.33.44.22", 30000), sdp("192.168.1.10", 40000), sdp("22.33.44.55", 20000)] {
            bench.inn(PROXY, PHONE, request(method, from, n, dialog, false, &body));
        }
        bench.inn(PROXY, PHONE, response("200 OK", method, from, n, dialog, &sdp("22.33.44.22", 30000)));
    }
    assert_eq!(bench.kernel, Default::default());
    assert_eq!(bench.engine.sizes().registrations, 0);
    bench.advance(Duration::from_secs(33));
    assert_eq!(bench.engine.sizes().calls, 0);
}

#[test]
fn f43_s11_a_host_has_a_quota_and_half_open_doors_close() {
    let limits = Limits { openings_per_minute: 6, ..Limits::default() };
    let mut bench = Bench::new(Policy { limits, ..Policy::default() });
    let mut reasons = Vec::new();
    let attempt = |bench: &mut Bench, n: u16| {
        let (call_id, branch) = (format!("{n}"), format!("z9hG4bK-{n}"));
        let dialog = Dialog { call_id: &call_id, branch: &branch, ..Dialog::default() };
        let text = request("INVITE", PHONE, 1, dialog, false, &sdp("192.168.1.10", 40000 + 2 * n));
        let sent = bench.out(PHONE, PROXY, &text);
        if sent.reason != Reason::Rewritten {
            assert_eq!(sent.text(), text);
        }
        sent.reason
    };
    for n in 0..5 {
        reasons.push(attempt(&mut bench, n));
    }
    let (ok, no) = (Reason::Rewritten, Reason::Quota);
    assert_eq!(reasons, [ok, ok, ok, no, no]);
    assert_eq!(bench.kernel.pinholes.len(), 6);
    bench.advance(Duration::from_secs(31));
    assert_eq!(bench.kernel.pinholes.len(), 6);
    bench.advance(Duration::from_secs(2));
    bench.assert_all_closed();
    assert_eq!(attempt(&mut bench, 10), no, "the minute is not over");
    bench.advance(Duration::from_secs(30));
    assert_eq!(attempt(&mut bench, 11), ok);
}

#[test]
fn f43_s13_what_failed_a_check_is_no_oracle() {
    // An attacker who sees his own text come out translated knows that it worked; so nothing is translated, neither
    // headers nor body, and the answer is none either.
    let mut bench = Bench::default();
    let text = request("INVITE", PHONE, 1, Dialog::default(), false, &sdp("192.168.1.10", 3306));
    assert_eq!(bench.out(PHONE, PROXY, &text).text(), text);
    let got = answered(&mut bench, Dialog::default(), "200 OK", &sdp("22.33.44.22", 30000));
    assert!(got.payload.is_some());
    assert_eq!(bench.kernel, Default::default());
    assert_eq!(bench.engine.sizes().calls, 0);
}
