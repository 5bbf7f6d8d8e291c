//! The gateway itself: what a restart means, what it gives back, and what it says.

use std::time::Duration;

use crate::common::messages::{Dialog, MEDIA, PHONE, PROXY, message, request, response, sdp};
use crate::common::{Bench, LAN, WAN, at, outside, packet};
use crate::{PUBLIC, answered, call, hang_up, invite};
use sipalg::alg::{Event, Inside, Limits, Policy, QueuePoint, Reason};

#[test]
fn f40_a_flow_older_than_the_daemon_is_looked_up() {
    let mut bench = Bench::default();
    bench.track(PHONE, PROXY);
    let text = |host: &str| request("OPTIONS", host, 1, Dialog::default(), false, "");
    let sent = bench.out(PHONE, PROXY, text(PHONE));
    assert_eq!(sent.text(), text(PUBLIC).replace("call-1@22.33.44.55:17375", "call-1@192.168.1.10"));
    // Also when the far end speaks first.
    let mut bench = Bench::default();
    bench.track(PHONE, PROXY);
    let invite = |uri: &str| {
        message(
            &format!(
                "INVITE {uri} SIP/2.0\nVia: SIP/2.0/UDP 22.33.44.20;branch=z9hG4bK-in\n\
                 From: <sip:bob@provider.example>;tag=b\nTo: <sip:alice@provider.example>\nCall-ID: in-1\n\
                 CSeq: 1 INVITE\nContact: <sip:bob@22.33.44.21>\nContent-Type: application/sdp"
            ),
            &sdp("22.33.44.22", 30000),
        )
    };
    let got = bench.inn(PROXY, PHONE, invite("sip:alice@provider.example"));
    assert_eq!((got.text(), got.reason), (invite("sip:alice@provider.example"), Reason::Unchanged));
    let ok = message(
        "SIP/2.0 200 OK\nVia: SIP/2.0/UDP 22.33.44.20;branch=z9hG4bK-in\n\
         From: <sip:bob@provider.example>;tag=b\nTo: <sip:alice@provider.example>;tag=a\nCall-ID: in-1\n\
         CSeq: 1 INVITE\nContact: <sip:alice@192.168.1.10:5060>\nContent-Type: application/sdp",
        &sdp("192.168.1.10", 40000),
    );
    let sent = bench.out(PHONE, PROXY, ok).text();
    assert!(!sent.contains("192.168."), "{sent}");
    bench.assert_pinned("192.168.1.10:40000", MEDIA);
}

#[test]
fn f40_a_flow_that_nobody_knows_passes() {
    let mut bench = Bench::default();
    let text = request("OPTIONS", "22.33.44.20:5060", 1, Dialog::default(), false, "");
    let got = bench.inn(PROXY, PHONE, &text);
    assert_eq!((got.text(), got.reason), (text.clone(), Reason::UnknownFlow));
    let asked = bench.commands.len();
    assert_eq!(bench.inn(PROXY, PHONE, &text).reason, Reason::UnknownFlow);
    assert_eq!(bench.commands.len(), asked, "a flood of packets is no flood of questions");
    bench.advance(Duration::from_secs(2));
    bench.track(PHONE, PROXY);
    assert_eq!(bench.inn(PROXY, PHONE, &text).reason, Reason::Unchanged);
}

#[test]
fn f41_ports_come_back_on_every_path() {
    // A thousand calls of each kind that there is, with a pool of a hundred ports.
    let policy = Policy { ports: 20000..=20099, quarantine: Duration::from_secs(64), ..Policy::default() };
    let mut bench = Bench::new(policy);
    for n in 0..1000 {
        let (call_id, branch) = (format!("c{n}"), format!("z9hG4bK-{n}"));
        let dialog = Dialog { call_id: &call_id, branch: &branch, ..Dialog::default() };
        let offer = sdp("192.168.1.10", 40000 + 2 * (n % 7));
        let sent = invite(&mut bench, dialog, &offer);
        assert_eq!(sent.reason, Reason::Rewritten, "call {n}");
        match n % 5 {
            0 => {
                answered(&mut bench, dialog, "486 Busy Here", "");
            }
            1 => bench.advance(Duration::from_secs(33)),
            2 => {
                answered(&mut bench, dialog, "183 Session Progress", &sdp("22.33.44.22", 30000));
                answered(&mut bench, dialog, "487 Request Terminated", "");
            }
            3 => {
                answered(&mut bench, dialog, "200 OK", &sdp("22.33.44.22", 30000));
                bench.kernel.pins.clear();
                bench.advance(Duration::from_secs(1000));
            }
            _ => {
                answered(&mut bench, dialog, "200 OK", &sdp("22.33.44.22", 30000));
                hang_up(&mut bench, dialog);
            }
        }
        bench.assert_all_closed();
        bench.advance(Duration::from_secs(10));
    }
    bench.advance(Duration::from_secs(3 * 3600));
    let sizes = bench.engine.sizes();
    assert_eq!(sizes, sipalg::alg::Sizes::default(), "{sizes:?}");
}

#[test]
fn f41_a_crafted_message_takes_its_share_and_no_more() {
    let limits = Limits { bindings_per_host: 20, ..Limits::default() };
    let mut bench = Bench::new(Policy { limits, ..Policy::default() });
    // Another phone's call is not concerned.
    let other = "192.168.1.11:5060";
    let many: String = (0..30).map(|n| format!("m=audio {} RTP/AVP 0\n", 40000 + 2 * n)).collect();
    let body = format!("v=0\no=- 1 1 IN IP4 192.168.1.10\ns=-\nc=IN IP4 192.168.1.10\nt=0 0\n{many}");
    let text = request("INVITE", PHONE, 1, Dialog::default(), false, &body);
    let sent = bench.out(PHONE, PROXY, &text);
    assert_eq!((sent.text(), sent.reason), (text, Reason::Quota));
    bench.assert_all_closed();
    let dialog = Dialog { call_id: "other", ..Dialog::default() };
    let sent =
        bench.out(other, PROXY, request("INVITE", other, 1, dialog, false, &sdp("192.168.1.11", 40000)));
    assert_eq!(sent.reason, Reason::Rewritten);
    assert_eq!(invite(&mut bench, Dialog::default(), &sdp("192.168.1.10", 40000)).reason, Reason::Rewritten);
}

#[test]
fn f42_the_log_says_who_spoke_with_whom_by_which_address_for_how_long_and_why_not_longer() {
    let mut bench = Bench::default();
    call(&mut bench, Dialog::default(), &sdp("192.168.1.10", 40000), &sdp("22.33.44.22", 30000));
    let media = bench.binding("192.168.1.10:40000");
    bench.advance(Duration::from_secs(83));
    hang_up(&mut bench, Dialog::default());
    let inside = Inside(at(PHONE));
    let [from, to] = ["sip:alice@provider.example", "sip:bob@provider.example"].map(String::from);
    let call_id = "call-1@192.168.1.10".to_string();
    let learned = Event::FlowLearned { inside, far: at(PROXY), public: Some(outside(PUBLIC)) };
    let answered_event = Event::CallAnswered {
        from: from.clone(),
        to: to.clone(),
        call_id: call_id.clone(),
        inside,
        media: Some(sipalg::alg::Outside(media)),
    };
    let duration = Some(Duration::from_secs(83));
    let ended = Event::CallEnded { from, to, call_id: call_id.clone(), inside, duration, why: "bye" };
    for event in [&learned, &answered_event, &ended] {
        assert_eq!(
            bench.events.iter().filter(|it| *it == event).count(),
            1,
            "{event:?} in {:?}",
            bench.events
        );
    }
    // Each door is told of, when it opens and when it closes, with the call that asked for it.
    let opened: Vec<_> = bench
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Opened { pinhole, call_id: of } if *of == call_id => Some(*pinhole),
            _ => None,
        })
        .collect();
    let closed: Vec<_> = bench
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Closed { pinhole } => Some(*pinhole),
            _ => None,
        })
        .collect();
    assert_eq!(opened.len(), 2);
    assert_eq!(opened[0].public.0, media);
    assert_eq!(opened, closed);
}

#[test]
fn f42_calls_that_did_not_come_about_say_why() {
    for (status, expected) in [
        (Some("486 Busy Here"), "refused"),
        (Some("487 Request Terminated"), "cancelled"),
        (Some("603 Decline"), "refused"),
        (None, "no answer"),
    ] {
        let mut bench = Bench::default();
        invite(&mut bench, Dialog::default(), &sdp("192.168.1.10", 40000));
        match status {
            Some(status) => {
                answered(&mut bench, Dialog::default(), status, "");
            }
            None => bench.advance(Duration::from_secs(40)),
        }
        let whys: Vec<_> = bench
            .events
            .iter()
            .filter_map(|event| match event {
                Event::CallEnded { why, duration: None, .. } => Some(*why),
                _ => None,
            })
            .collect();
        assert_eq!(whys, [expected], "{status:?}");
    }
    // A BYE that nobody answers: the far end is gone.
    let mut bench = Bench::default();
    call(&mut bench, Dialog::default(), &sdp("192.168.1.10", 40000), &sdp("22.33.44.22", 30000));
    let bye = Dialog { branch: "z9hG4bK-bye", ..Dialog::default() };
    bench.out(PHONE, PROXY, request("BYE", PHONE, 2, bye, true, ""));
    bench.advance(Duration::from_secs(40));
    bench.assert_all_closed();
    assert!(bench.events.iter().any(|event| matches!(event, Event::CallEnded { why: "lost", .. })));
}

#[test]
fn f42_every_edit_names_its_rule() {
    let mut bench = Bench::default();
    let sent = invite(&mut bench, Dialog::default(), &sdp("192.168.1.10", 40000));
    let rules = ["via", "contact", "content-length", "sdp-origin", "sdp-connection", "sdp-media-port"];
    assert_eq!(sent.rules, rules);
    let got = bench.inn(
        PROXY,
        PHONE,
        response("200 OK", "INVITE", PUBLIC, 1, Dialog::default(), &sdp("22.33.44.22", 30000)),
    );
    assert_eq!(got.rules, ["via", "via-parameter", "via-parameter"]);
    let trips = (bench.count(Reason::Rewritten), bench.count(Reason::Learning));
    assert_eq!(trips, if bench.one_trip { (2, 0) } else { (2, 1) });
}

#[test]
fn f42_a_message_that_is_rewritten_keeps_its_class_of_service() {
    let mut bench = Bench::default();
    invite(&mut bench, Dialog::default(), &sdp("192.168.1.10", 40000));
    let again = Dialog { branch: "z9hG4bK-ef", ..Dialog::default() };
    let text = request("INVITE", PHONE, 2, again, false, &sdp("192.168.1.10", 40000));
    let mut bytes = packet(at(PHONE), at(PROXY), text.as_bytes());
    // Expedited forwarding (RFC 3246), and the sum of the header put right for it.
    let (ef, sum) = (46 << 2, u16::from_be_bytes([bytes[10], bytes[11]]));
    bytes[1] = ef;
    bytes[10..12].copy_from_slice(&(sum - u16::from(ef)).to_be_bytes());
    let (passed, out) = bench.pass(QueuePoint::Signalling, LAN, WAN, &bytes);
    assert_eq!((passed.reason, out[1]), (Reason::Rewritten, ef));
}
