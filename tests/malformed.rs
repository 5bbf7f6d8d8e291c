//! Input that is broken, and a kernel that refuses: everything passes to the letter, for a reason that is counted, and
//! nothing stays open.

mod common;

use std::time::Duration;

use common::messages::{Dialog, MEDIA, PHONE, PROXY, message, request, response, sdp};
use common::{Bench, LAN, WAN, at, kind, packet};
use sipalg::alg::{Event, Failure, Limits, OnFailure, Policy, QueuePoint, Reason};

const PUBLIC: &str = "22.33.44.55:17375";

fn invite() -> String {
    request("INVITE", PHONE, 1, Dialog::default(), false, &sdp("192.168.1.10", 40000))
}

fn ok() -> String {
    response("200 OK", "INVITE", PUBLIC, 1, Dialog::default(), &sdp("22.33.44.22", 30000))
}

/// `bytes` leave and come in as they are, counted once each for `reason`; nothing is asked of the kernel for them.
#[track_caller]
fn assert_passes(bytes: &[u8], reason: Reason) {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]);
    let mut bench = Bench::default();
    // The flow is known, so that nothing but the bytes can be the reason.
    bench.out(PHONE, PROXY, request("OPTIONS", PHONE, 9, Dialog::default(), false, ""));
    let (asked, told) = (bench.commands.len(), bench.engine.stats().clone());
    let sent = bench.out(PHONE, PROXY, bytes);
    assert_eq!((sent.payload.as_deref(), sent.reason), (Some(bytes), reason), "{shown}");
    let got = bench.inn(PROXY, PHONE, bytes);
    assert_eq!((got.payload.as_deref(), got.reason), (Some(bytes), reason), "{shown}");
    for any in Reason::ALL {
        let more = bench.engine.stats().verdicts(*any) - told.verdicts(*any);
        assert_eq!(more, if *any == reason { 2 } else { 0 }, "{any:?}: {shown}");
    }
    assert_eq!(bench.commands.len(), asked, "{shown}");
    bench.assert_all_closed();
}

#[test]
fn what_is_not_sip_passes() {
    let binary: Vec<u8> = (0..=255).cycle().take(1400).collect();
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        b"\x80\x00\x12\x34\x00\x00\x00\x00\x00\x00\x00\x00",
        b"\x16\x03\x01\x00\xf0",
        b"INVITE",
        b"INVITE sip:bob@provider.example SIP/2.0",
        b"SIP/2.0",
        b"SIP/2.0 2000 OK\r\n\r\n",
        b"\xff\xfe\xfd",
        &binary,
        &[b'A'; 60_000],
        &[0; 60_000],
        &[b'\n'; 60_000],
    ] {
        assert_passes(bytes, Reason::NotSip);
    }
}

#[test]
fn a_message_that_is_cut_anywhere_passes() {
    for text in [invite(), ok()] {
        let first_line = text.find('\n').unwrap();
        let headers = text.find("\r\n\r\n").unwrap() + 3;
        for length in 9..text.len() {
            let reason = match length {
                _ if length <= first_line => Reason::NotSip,
                _ if length <= headers => Reason::Unparsable,
                _ => Reason::Suspicious,
            };
            assert_passes(&text.as_bytes()[..length], reason);
        }
    }
    // The shortest pieces may look like keep-alives or whatever they like: they pass.
    for length in 0..9 {
        let text = invite();
        let sent = Bench::default().out(PHONE, PROXY, &text[..length]);
        assert_eq!(sent.text(), text[..length]);
    }
}

#[test]
fn a_packet_that_is_cut_or_spoiled_anywhere_passes() {
    let whole = packet(at(PHONE), at(PROXY), invite().as_bytes());
    for length in 0..whole.len() {
        for point in QueuePoint::ALL {
            let mut bench = Bench::default();
            let (passed, out) = bench.pass(point, LAN, WAN, &whole[..length]);
            assert_eq!((passed.reason, out.as_slice()), (Reason::BrokenPacket, &whole[..length]), "{length}");
            assert!(bench.commands.is_empty());
        }
    }
    // SCTP, and what would have to be a segment of a connection that nobody has seen begin.
    for (protocol, reason) in [(132, Reason::NotUdp), (6, Reason::NotInspected)] {
        let mut other = whole.clone();
        other[9] = protocol;
        let (passed, out) = Bench::default().pass(QueuePoint::Signalling, LAN, WAN, &other);
        assert_eq!((passed.reason, out), (reason, other));
    }
}

#[test]
fn a_length_that_lies_makes_a_message_nobodys_business() {
    let text = invite();
    let honest = format!("Content-Length: {}", sdp("192.168.1.10", 40000).replace('\n', "\r\n").len());
    assert!(text.contains(&honest));
    for lie in [
        "119",
        "1180",
        "65536",
        "4294967296",
        "18446744073709551615",
        "18446744073709551616",
        "9999999999999999999999",
        "-1",
        "-118",
        "+118",
        "1e2",
        "0x76",
        "118 118",
        "118,118",
        "",
        "\u{661}\u{661}\u{668}",
        "0",
        "1",
        "5",
        "10",
        "60",
    ] {
        assert_passes(
            text.replace(&honest, &format!("Content-Length: {lie}")).as_bytes(),
            Reason::Suspicious,
        );
    }
    let two = text.replace(&honest, &format!("{honest}\r\nl: 117"));
    assert_passes(two.as_bytes(), Reason::Suspicious);
}

#[test]
fn bytes_that_are_no_text_pass_inside_of_what_is() {
    // Not broken at all: names in any encoding, and NULs in a header that nobody reads.
    let mut bytes = invite().into_bytes();
    let at_name = bytes.windows(5).position(|window| window == b"Alice").unwrap();
    bytes.splice(at_name..at_name + 5, *b"\xc4\xff\x80\x01A");
    let at_agent = bytes.windows(7).position(|window| window == b"phone/1").unwrap();
    bytes.splice(at_agent..at_agent + 7, *b"\0\0\xfe\x7f\0<\"");
    let mut bench = Bench::default();
    let sent = bench.out(PHONE, PROXY, &bytes);
    assert_eq!(sent.reason, Reason::Rewritten);
    let plain = Bench::default().out(PHONE, PROXY, invite()).payload.unwrap();
    let payload = sent.payload.unwrap();
    assert_eq!(payload.len(), plain.len());
    assert!(payload.windows(5).any(|window| window == b"\xc4\xff\x80\x01A"));
    // NULs where it matters.
    let text = invite();
    for (old, new) in [("INVITE sip", "INV\0TE sip"), ("SIP/2.0\r\n", "SIP/2.0\0\r\n")] {
        assert_passes(text.replacen(old, new, 1).as_bytes(), Reason::NotSip);
    }
    assert_passes(text.replacen("z9hG4bK", "\0\0\0\0\0\0\0", 1).as_bytes(), Reason::Suspicious);
}

#[test]
fn a_message_of_64_kib_passes() {
    let text = invite();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let filled = |filler: usize| format!("{head}\r\nX-Filler: {}\r\n\r\n{body}", "x".repeat(filler));
    let empty = filled(0).len();
    assert_passes(filled(65_507 - empty).as_bytes(), Reason::Unparsable);
    assert_passes(filled(60_001 - empty).as_bytes(), Reason::Unparsable);
    let many = format!("{head}\r\n{}\r\n{body}", "X: y\r\n".repeat(2000));
    assert_passes(many.as_bytes(), Reason::Unparsable);
    // One that fits, but not what would become of it.
    let contacts = "Contact: <sip:1.2.3.4>,".to_string() + &"<sip:1.2.3.4>,".repeat(4200);
    let grows = format!("{}\r\n{contacts}\r\n\r\n{body}", head.replace("192.168.1.10", "1.2.3.4"));
    let mut bench = Bench::default();
    let sent = bench.out("1.2.3.4:5060", PROXY, &grows);
    assert_eq!((sent.text() == grows, sent.reason), (true, Reason::Unparsable));
    bench.advance(Duration::from_secs(33));
    bench.assert_all_closed();
    // And one that is just large.
    let mut bench = Bench::default();
    assert_eq!(bench.out(PHONE, PROXY, filled(50_000 - empty)).reason, Reason::Rewritten);
}

#[test]
fn descriptions_without_end_pass() {
    for line in [
        "m=audio 40000 RTP/AVP 0\n",
        "c=IN IP4 192.168.1.10\n",
        "a=candidate:1 1 UDP 1 192.168.1.10 40000 typ host\n",
    ] {
        let body = format!("v=0\nc=IN IP4 192.168.1.10\nm=audio 40000 RTP/AVP 0\n{}", line.repeat(900));
        let text = request("INVITE", PHONE, 1, Dialog::default(), false, &body);
        assert_passes(text.as_bytes(), Reason::Unparsable);
    }
}

/// What fails, and what the messages come to that wait for it.
const FAILURES: [Failure; 3] = [Failure::Full, Failure::Kernel(12), Failure::NotFound];

#[test]
fn a_kernel_that_opens_nothing_lets_the_message_pass() {
    for failure in FAILURES {
        for on_failure in [OnFailure::Pass, OnFailure::Drop] {
            // As the first packet of its flow, and as a later one.
            for known in [false, true] {
                let mut bench = Bench::new(Policy { on_failure, ..Policy::default() });
                if known {
                    bench.track(PHONE, PROXY);
                }
                bench.failures.push_back(("open", failure));
                let sent = bench.out(PHONE, PROXY, invite());
                match on_failure {
                    OnFailure::Pass => {
                        assert_eq!((sent.text(), sent.reason), (invite(), Reason::CommandFailed));
                    }
                    OnFailure::Drop => {
                        assert_eq!((sent.payload, sent.reason), (None, Reason::CommandFailedDropped));
                    }
                }
                bench.assert_all_closed();
                let told = Event::CommandFailed { what: "open", failure };
                assert_eq!(bench.events.iter().filter(|event| **event == told).count(), 1);
                assert!(!bench.events.iter().any(|event| matches!(event, Event::Opened { .. })));
                // The phone repeats itself, and this time all goes well.
                let sent = bench.out(PHONE, PROXY, invite());
                assert_eq!(sent.reason, Reason::Rewritten);
                bench.binding("192.168.1.10:40000");
            }
        }
    }
}

#[test]
fn what_is_half_open_when_a_command_fails_is_closed() {
    let body = format!("{}m=video 42000 RTP/AVP 31\nm=text 44000 RTP/AVP 98\n", sdp("192.168.1.10", 40000));
    let text = request("INVITE", PHONE, 1, Dialog::default(), false, &body);
    for failing in 0..3 {
        let mut bench = Bench::default();
        bench.dice.extend((0..failing).map(|_| None));
        bench.dice.push_back(Some(Failure::Full));
        let sent = bench.out(PHONE, PROXY, &text);
        assert_eq!((sent.text(), sent.reason), (text.clone(), Reason::CommandFailed), "{failing}");
        bench.assert_all_closed();
        let count = |what| bench.commands.iter().filter(|op| kind(op) == what).count();
        assert_eq!(count("open"), 3);
        bench.advance(Duration::from_secs(200));
        assert_eq!(bench.engine.sizes().ports, 0);
    }
    // In a call that stands, its media goes on.
    let mut bench = Bench::default();
    bench.out(PHONE, PROXY, invite());
    bench.inn(PROXY, PHONE, ok());
    let before = bench.kernel.clone();
    let again = Dialog { branch: "z9hG4bK-re", ..Dialog::default() };
    bench.dice.extend([None, Some(Failure::Full)]);
    let text = request("INVITE", PHONE, 2, again, true, &body.replace("40000", "46000"));
    assert_eq!(bench.out(PHONE, PROXY, &text).reason, Reason::CommandFailed);
    assert_eq!(bench.kernel.pins, before.pins);
    assert!(bench.kernel.peers.is_superset(&before.peers));
    bench.assert_pinned("192.168.1.10:40000", MEDIA);
    bye(&mut bench);
    bench.assert_all_closed();
}

fn bye(bench: &mut Bench) {
    let dialog = Dialog { branch: "z9hG4bK-bye", ..Dialog::default() };
    bench.out(PHONE, PROXY, request("BYE", PHONE, 7, dialog, true, ""));
    bench.inn(PROXY, PHONE, response("200 OK", "BYE", PUBLIC, 7, dialog, ""));
}

#[test]
fn an_answer_whose_media_cannot_be_pinned_passes_untouched() {
    for what in ["admit", "pin"] {
        for failure in FAILURES {
            let mut bench = Bench::default();
            bench.out(PHONE, PROXY, invite());
            bench.failures.push_back((what, failure));
            let got = bench.inn(PROXY, PHONE, ok());
            assert_eq!((got.text(), got.reason), (ok(), Reason::CommandFailed), "{what}");
            // The far end repeats its answer; what is missing is asked for again, and only that.
            let asked = bench.commands.len();
            assert_eq!(bench.inn(PROXY, PHONE, ok()).reason, Reason::Rewritten, "{what}");
            assert_eq!(bench.commands.len(), asked + 1, "{what}");
            bench.assert_pinned("192.168.1.10:40000", MEDIA);
            bench.assert_pinned("192.168.1.10:40001", "22.33.44.22:30001");
            assert_eq!(bench.kernel.peers.len(), 2);
            bye(&mut bench);
            bench.assert_all_closed();
        }
    }
}

#[test]
fn a_flow_that_cannot_be_looked_up_passes() {
    for failure in FAILURES {
        let mut bench = Bench::default();
        bench.track(PHONE, PROXY);
        bench.failures.push_back(("lookup", failure));
        let sent = bench.out(PHONE, PROXY, invite());
        assert_eq!((sent.text(), sent.reason), (invite(), Reason::CommandFailed));
        bench.advance(Duration::from_secs(2));
        assert_eq!(bench.out(PHONE, PROXY, invite()).reason, Reason::Rewritten);
    }
}

#[test]
fn what_nobody_waits_for_may_fail() {
    // Lifetimes, renewals and undoing: a line in the log, and the kernel's own lifetimes.
    for what in ["sustain", "renew", "unpin"] {
        let mut bench = Bench::default();
        bench.failures.push_back((what, Failure::Kernel(5)));
        let register = message(
            "REGISTER sip:provider.example SIP/2.0\nVia: SIP/2.0/UDP 192.168.1.10;branch=z9hG4bK-r;rport\n\
             From: <sip:alice@provider.example>;tag=a\nTo: <sip:alice@provider.example>\nCall-ID: reg-1\n\
             CSeq: 1 REGISTER\nContact: <sip:alice@192.168.1.10>",
            "",
        );
        let sent = bench.out(PHONE, PROXY, register).text();
        bench.inn(PROXY, PHONE, sent.replacen("REGISTER sip:provider.example SIP/2.0", "SIP/2.0 200 OK", 1));
        bench.out(PHONE, PROXY, invite());
        bench.inn(PROXY, PHONE, ok());
        bench.advance(Duration::from_secs(40));
        bye(&mut bench);
        let failed = bench.events.iter().filter(|event| matches!(event, Event::CommandFailed { .. })).count();
        assert_eq!(failed, 1, "{what}");
        assert!(bench.kernel.pinholes.is_empty());
        assert_eq!(bench.count(Reason::CommandFailed), 0);
    }
}

#[test]
fn a_latch_that_fails_drops_nothing_of_the_call() {
    let mut bench = Bench::default();
    bench.out(PHONE, PROXY, invite());
    bench.inn(PROXY, PHONE, ok());
    let public = bench.binding("192.168.1.10:40000");
    bench.failures.push_back(("pin", Failure::Full));
    assert_eq!(bench.latch("22.33.44.22:31000", public).reason, Reason::CommandFailed);
    assert_eq!(bench.latch("22.33.44.22:31000", public).reason, Reason::Latched);
    bench.assert_pinned("192.168.1.10:40000", MEDIA);
    bench.assert_pinned("192.168.1.10:40000", "22.33.44.22:31000");
}

#[test]
fn a_port_that_something_has_is_not_taken() {
    let mut bench = Bench::default();
    for _ in 0..5 {
        bench.failures.push_back(("open", Failure::PortInUse));
    }
    let sent = bench.out(PHONE, PROXY, invite());
    assert_eq!(sent.reason, Reason::Rewritten);
    let public = bench.binding("192.168.1.10:40000");
    assert_eq!(public.port(), 16384 + 5 * 2);
    assert_eq!(bench.binding("192.168.1.10:40001").port(), public.port() + 1);
    assert!(sent.text().contains(&format!("m=audio {} RTP/AVP", public.port())));
    let opened: Vec<_> = bench
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Opened { pinhole, .. } => Some(pinhole.public.0.port()),
            _ => None,
        })
        .collect();
    assert_eq!(opened, [public.port(), public.port() + 1], "only what is open is announced");
    // All of them: then the message passes.
    let mut bench = Bench::default();
    for _ in 0..100 {
        bench.failures.push_back(("open", Failure::PortInUse));
    }
    let sent = bench.out(PHONE, PROXY, invite());
    assert_eq!((sent.text(), sent.reason), (invite(), Reason::CommandFailed));
    bench.failures.clear();
    bench.assert_all_closed();
}

#[test]
fn an_empty_pool_never_means_a_public_address_with_a_private_port() {
    let mut bench = Bench::new(Policy { ports: 20000..=20003, ..Policy::default() });
    let body = format!("{}m=video 42000 RTP/AVP 31\n", sdp("192.168.1.10", 40000));
    // Two pairs are just enough; a third is not there, for a message that wants all three as little as for another.
    let three = format!("{body}m=text 44000 RTP/AVP 98\n");
    let text = request("INVITE", PHONE, 1, Dialog::default(), false, &three);
    let sent = bench.out(PHONE, PROXY, &text);
    assert_eq!((sent.text(), sent.reason), (text, Reason::PoolEmpty));
    bench.assert_all_closed();
    bench.advance(Duration::from_secs(70));
    let sent = bench.out(PHONE, PROXY, request("INVITE", PHONE, 1, Dialog::default(), false, &body));
    assert_eq!(sent.reason, Reason::Rewritten);
    let second = Dialog { call_id: "second", branch: "z9hG4bK-2", ..Dialog::default() };
    let text = request("INVITE", PHONE, 1, second, false, &sdp("192.168.1.10", 46000));
    let sent = bench.out(PHONE, PROXY, &text);
    assert_eq!((sent.text(), sent.reason), (text.clone(), Reason::PoolEmpty));
    assert_eq!(bench.engine.sizes().calls, 1);
    // Both rest for a while; then the oldest goes first.
    bench.inn(PROXY, PHONE, response("486 Busy Here", "INVITE", PUBLIC, 1, Dialog::default(), ""));
    assert_eq!(bench.out(PHONE, PROXY, &text).reason, Reason::PoolEmpty);
    bench.advance(Duration::from_secs(65));
    assert_eq!(bench.out(PHONE, PROXY, &text).reason, Reason::Rewritten);
    assert_eq!(bench.binding("192.168.1.10:46000").port(), 20000);
}

#[test]
fn full_tables_let_messages_pass() {
    let policy = |change: fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        Policy { limits, ..Policy::default() }
    };
    for (policy, reason) in [
        (policy(|limits| limits.flows = 0), Reason::TableFull),
        (policy(|limits| limits.calls = 0), Reason::TableFull),
        (policy(|limits| limits.parked = 0), Reason::TableFull),
        (policy(|limits| limits.bindings = 1), Reason::Quota),
        (policy(|limits| limits.bindings_per_host = 1), Reason::Quota),
        (policy(|limits| limits.openings_per_minute = 1), Reason::Quota),
    ] {
        let limits = policy.limits;
        let mut bench = Bench::new(policy);
        for _ in 0..3 {
            let sent = bench.out(PHONE, PROXY, invite());
            assert_eq!((sent.text(), sent.reason), (invite(), reason), "{limits:?}");
            bench.assert_all_closed();
        }
    }
    // Without room for the transaction the call goes out; its answer cannot be matched, and opens nothing (S5).
    let mut bench = Bench::new(policy(|limits| limits.transactions = 0));
    assert_eq!(bench.out(PHONE, PROXY, invite()).reason, Reason::Rewritten);
    bench.inn(PROXY, PHONE, ok());
    assert!(bench.kernel.pins.is_empty() && bench.kernel.peers.is_empty());
    bench.advance(Duration::from_secs(33));
    bench.assert_all_closed();
    // Without room for the registration nothing is lost but the long lifetime.
    let mut bench = Bench::new(policy(|limits| limits.registrations = 0));
    let register = message(
        "REGISTER sip:provider.example SIP/2.0\nVia: SIP/2.0/UDP 192.168.1.10;branch=z9hG4bK-r;rport\n\
         From: <sip:alice@provider.example>;tag=a\nTo: <sip:alice@provider.example>\nCall-ID: reg-1\n\
         CSeq: 1 REGISTER\nContact: <sip:alice@192.168.1.10>",
        "",
    );
    let sent = bench.out(PHONE, PROXY, register).text();
    let answer = sent.replacen("REGISTER sip:provider.example SIP/2.0", "SIP/2.0 200 OK", 1);
    assert_eq!(bench.inn(PROXY, PHONE, answer).reason, Reason::Rewritten);
    assert_eq!(bench.engine.sizes().registrations, 0);
}
