//! Endpoints that know of the NAT: nothing is mapped twice.

use crate::common::messages::{Dialog, PHONE, PROXY, answer, message, request, response, sdp};
use crate::common::{Bench, LAN, WAN, at, kind, packet};
use crate::{INSIDE, OUTSIDE, PUBLIC, body_of, called, offer};
use sipalg::alg::{
    Engine, Failure, Input, Inside, Op, Output, Outside, PacketId, PacketIn, PinnedFlow, Policy, Prefix,
    QueuePoint, Reason, Reply,
};
use std::time::{Duration, Instant};

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
    bench.advance(Duration::from_secs(40));
    assert_eq!(bench.binding("192.168.1.10:40000"), public);
    bench.assert_pinned("192.168.1.10:40000", "22.33.44.22:30000");
}

/// A phone that has asked a STUN server from these ports, whose public ones are ten thousand higher.
fn aware(ports: &[u16]) -> Bench {
    let mut bench = Bench::default();
    let learned = ports.iter().map(|port| {
        (Inside(at(&format!("{INSIDE}:{port}"))), Outside(at(&format!("{OUTSIDE}:{}", port + 10_000))))
    });
    bench.stun.extend(learned);
    bench
}

/// The pinned flow of one of its ports.
fn pin(port: u16, far: &str) -> PinnedFlow {
    let (inside, public) = (format!("{INSIDE}:{port}"), format!("{OUTSIDE}:{}", port + 10_000));
    PinnedFlow {
        transport: sipalg::alg::Transport::Udp,
        inside: Inside(at(&inside)),
        far: at(far),
        public: Outside(at(&public)),
        hairpin: None,
    }
}

fn questions(bench: &Bench) -> usize {
    bench.commands.iter().filter(|op| kind(op) == "recognise").count()
}

#[test]
fn f29_a_port_that_conntrack_ties_to_the_phone_is_kept_and_let_in() {
    // Others map it once more, or leave the far end's first packets outside.
    let mut bench = aware(&[40000, 40001]);
    let mine = sdp(OUTSIDE, 50000);
    let invite = |via: &str| request("INVITE", via, 1, Dialog::default(), false, &mine);
    assert_eq!(bench.out(PHONE, PROXY, invite(PHONE)).text(), invite(PUBLIC));
    assert_eq!(bench.out(PHONE, PROXY, invite(PHONE)).text(), invite(PUBLIC), "repeated");
    assert_eq!(questions(&bench), 2, "RTP and RTCP, once each");
    assert!(bench.kernel.pins.is_empty(), "nobody has answered");
    let far = sdp("22.33.44.22", 30000);
    let seen = response("183 Session Progress", "INVITE", PUBLIC, 1, Dialog::default(), &far);
    assert_eq!(body_of(&bench.inn(PROXY, PHONE, seen).text()), far);
    let pins = [pin(40000, "22.33.44.22:30000"), pin(40001, "22.33.44.22:30001")];
    assert_eq!(bench.kernel.pins, pins);
    let seen = response("200 OK", "INVITE", PUBLIC, 1, Dialog::default(), &far);
    bench.inn(PROXY, PHONE, seen);
    assert_eq!(bench.kernel.pins, pins);
    assert!(bench.kernel.pinholes.is_empty() && bench.kernel.peers.is_empty(), "nothing else is open");
    // The call lives as long as its media, and takes all away.
    bench.advance(Duration::from_secs(3600));
    assert_eq!(bench.kernel.pins, pins);
    let bye = Dialog { branch: "z9hG4bK-bye", ..Dialog::default() };
    bench.out(PHONE, PROXY, request("BYE", PHONE, 2, bye, true, ""));
    bench.inn(PROXY, PHONE, response("200 OK", "BYE", PUBLIC, 2, bye, ""));
    bench.assert_all_closed();

    // In an answer: the flow is there before the phone's 200 leaves.
    let mut bench = aware(&[40000, 40001]);
    let mine = format!("{mine}a=rtcp:50001 IN IP4 {OUTSIDE}\n");
    assert_eq!(called(&mut bench, &far, &mine), (far, mine));
    assert_eq!(bench.kernel.pins, pins);
    assert!(bench.kernel.pinholes.is_empty());
}

#[test]
fn f29_streams_that_the_phone_knows_and_others_go_together() {
    let mut bench = aware(&[40000]);
    let head = format!("v=0\no=- 1 1 IN IP4 {INSIDE}\ns=-\nt=0 0\n");
    let lines = |video: &str| {
        format!(
            "m=audio 50000 RTP/AVP 0\nc=IN IP4 {OUTSIDE}\na=rtcp-mux-only\nm=video {video}\na=rtcp-mux-only\n\
             m=audio 50400 RTP/AVP 0\nc=IN IP4 {OUTSIDE}\na=rtcp-mux-only\n"
        )
    };
    let sent =
        offer(&mut bench, &format!("{head}{}", lines(&format!("42000 RTP/AVP 31\nc=IN IP4 {INSIDE}"))));
    let video = bench.binding("192.168.1.10:42000").port();
    let expected = lines(&format!("{video} RTP/AVP 31\nc=IN IP4 {OUTSIDE}"));
    assert_eq!(body_of(&sent.text()), format!("{}{expected}", head.replace(INSIDE, OUTSIDE)));
    let far = "v=0\no=- 1 1 IN IP4 22.33.44.22\ns=-\nc=IN IP4 22.33.44.22\nt=0 0\nm=audio 30000 RTP/AVP 0\n\
               m=video 30002 RTP/AVP 31\nm=audio 30004 RTP/AVP 0\n";
    answer_to(&mut bench, 1, far);
    bench.assert_pinned("192.168.1.10:42000", "22.33.44.22:30002");
    assert!(bench.kernel.pins.contains(&pin(40000, "22.33.44.22:30000")), "{:?}", bench.kernel.pins);
    // One of RTP, one of video's RTP and its RTCP: of the third nothing is known, and nothing is opened.
    assert!(bench.kernel.pins.iter().all(|pin| pin.far.port() < 30004), "{:?}", bench.kernel.pins);
    // It goes back to its own address: the door is one of ours from then on.
    let again = Dialog { branch: "z9hG4bK-again", ..Dialog::default() };
    bench.out(PHONE, PROXY, request("INVITE", PHONE, 2, again, true, &sdp(INSIDE, 40000)));
    let seen = response("200 OK", "INVITE", PUBLIC, 2, again, &sdp("22.33.44.22", 30000));
    bench.inn(PROXY, PHONE, seen);
    bench.assert_pinned("192.168.1.10:40000", "22.33.44.22:30000");
    assert!(!bench.kernel.pins.contains(&pin(40000, "22.33.44.22:30000")), "{:?}", bench.kernel.pins);
}

#[test]
fn f29_a_phone_that_asks_a_stun_server_in_the_middle_of_a_call_and_thinks_again() {
    let mut bench = aware(&[40000, 40001]);
    let far = sdp("22.33.44.22", 30000);
    offer(&mut bench, &sdp(INSIDE, 40000));
    answer_to(&mut bench, 1, &far);
    let ours = bench.kernel.pins.clone();
    let door = bench.binding("192.168.1.10:40000");
    let learned = [pin(40000, "22.33.44.22:30000"), pin(40001, "22.33.44.22:30001")];
    let mut before = ours.clone();
    for (cseq, mine, seen, pins) in [
        (2, sdp(OUTSIDE, 50000), sdp(OUTSIDE, 50000), &learned[..]),
        (3, sdp(INSIDE, 40000), sdp(OUTSIDE, door.port()), &ours),
        (4, sdp(OUTSIDE, 50000), sdp(OUTSIDE, 50000), &learned),
    ] {
        let branch = format!("z9hG4bK-again-{cseq}");
        let again = Dialog { branch: &branch, ..Dialog::default() };
        let sent = bench.out(PHONE, PROXY, request("INVITE", PHONE, cseq, again, true, &mine)).text();
        assert_eq!(body_of(&sent), seen);
        assert_eq!(bench.kernel.pins, before, "an offer may be refused");
        // An entry has one public endpoint: that of the last word, and of no other.
        bench.inn(PROXY, PHONE, response("200 OK", "INVITE", PUBLIC, cseq, again, &far));
        assert_eq!(bench.kernel.pins, pins, "{cseq}");
        before = pins.to_vec();
    }
    // What is refused changes nothing (RFC 3261 section 14.1), either way.
    for (cseq, mine, pins) in [(5, sdp(INSIDE, 40000), &learned[..]), (7, sdp(OUTSIDE, 50000), &ours)] {
        let (refused, accepted) = (format!("z9hG4bK-no-{cseq}"), format!("z9hG4bK-yes-{cseq}"));
        let no = Dialog { branch: &refused, ..Dialog::default() };
        bench.out(PHONE, PROXY, request("INVITE", PHONE, cseq, no, true, &mine));
        bench.inn(PROXY, PHONE, response("488 Not Acceptable Here", "INVITE", PUBLIC, cseq, no, ""));
        assert_eq!(bench.kernel.pins, pins, "refused {cseq}");
        let yes = Dialog { branch: &accepted, ..Dialog::default() };
        bench.out(PHONE, PROXY, request("INVITE", PHONE, cseq + 1, yes, true, &sdp(INSIDE, 40000)));
        bench.inn(PROXY, PHONE, response("200 OK", "INVITE", PUBLIC, cseq + 1, yes, &far));
        assert_eq!(bench.kernel.pins, ours, "accepted {cseq}");
    }
    let bye = Dialog { branch: "z9hG4bK-bye", ..Dialog::default() };
    bench.out(PHONE, PROXY, request("BYE", PHONE, 9, bye, true, ""));
    bench.inn(PROXY, PHONE, response("200 OK", "BYE", PUBLIC, 9, bye, ""));
    bench.assert_all_closed();
}

/// The provider's answer to the phone's INVITE.
fn answer_to(bench: &mut Bench, cseq: u32, body: &str) {
    bench.inn(PROXY, PHONE, response("200 OK", "INVITE", PUBLIC, cseq, Dialog::default(), body));
}

#[test]
fn f29_a_port_that_is_not_tied_to_the_phone_stays_as_it_is_written() {
    let far = sdp("22.33.44.22", 30000);
    let check = |mut bench: Bench, port: u16| {
        let mine = sdp(OUTSIDE, port);
        assert_eq!(body_of(&offer(&mut bench, &mine).text()), mine);
        answer_to(&mut bench, 1, &far);
        assert!(bench.kernel.pins.is_empty(), "{port}: {:?}", bench.kernel.pins);
        bench.commands.iter().all(|op| !matches!(op, Op::Open { .. } | Op::Admit { .. }))
    };
    // Nobody's; another phone's; a service's (S9).
    let mut other = Bench::default();
    other.stun.push((Inside(at("192.168.1.66:40000")), Outside(at("22.33.44.55:50000"))));
    for (bench, port) in [(Bench::default(), 50000), (other, 50000), (aware(&[3306, 3307]), 13306)] {
        assert!(check(bench, port), "{port}");
    }
    // Conntrack does not say: the message is served as far as it goes.
    let mut bench = aware(&[40000, 40001]);
    bench.failures.extend([("recognise", Failure::Kernel(5)), ("recognise", Failure::Full)]);
    let invite = |via: &str| request("INVITE", via, 1, Dialog::default(), false, &sdp(OUTSIDE, 50000));
    let sent = bench.out(PHONE, PROXY, invite(PHONE));
    assert_eq!((sent.text(), sent.reason), (invite(PUBLIC), Reason::Rewritten));
    answer_to(&mut bench, 1, &far);
    assert!(bench.kernel.pins.is_empty());
}

#[test]
fn f29_questions_to_conntrack_are_few_and_only_for_who_needs_them() {
    let mut bench = Bench::default();
    offer(&mut bench, &sdp(INSIDE, 40000));
    assert_eq!(questions(&bench), 0, "nearly every phone writes its own address");
    // A walk over conntrack's table for each is what an attacker would like.
    let ask = |bench: &mut Bench, n: u16| {
        let (call_id, branch) = (format!("many-{n}"), format!("z9hG4bK-many-{n}"));
        let dialog = Dialog { call_id: &call_id, branch: &branch, ..Dialog::default() };
        let text = |via: &str| request("INVITE", via, 1, dialog, false, &sdp(OUTSIDE, 50000 + 2 * n));
        assert_eq!(bench.out(PHONE, PROXY, text(PHONE)).text(), text(PUBLIC));
    };
    for n in 0..100 {
        ask(&mut bench, n);
    }
    assert_eq!(questions(&bench), 8);
    bench.advance(Duration::from_secs(2));
    ask(&mut bench, 200);
    assert_eq!(questions(&bench), 9, "who is not known by his RTP is not asked for his RTCP");
}

#[test]
fn f29_a_late_answer_holds_back_who_needs_it_and_nobody_else() {
    let mut bench = Bench::default();
    let plain = register(PHONE, "<sip:alice@192.168.1.10>");
    bench.out(PHONE, PROXY, &plain);
    let invite = |n: u32| {
        let (call_id, branch) = (format!("late-{n}"), format!("z9hG4bK-late-{n}"));
        let dialog = Dialog { call_id: &call_id, branch: &branch, ..Dialog::default() };
        request("INVITE", PHONE, 1, dialog, false, &sdp(OUTSIDE, 50000))
    };
    let (engine, mut now) = (&mut bench.engine, bench.now);
    let hand_in = |engine: &mut Engine, now: Instant, number: u64, text: &str| {
        let bytes = &packet(at(PHONE), at(PROXY), text.as_bytes());
        let (id, point) = (PacketId(number), QueuePoint::Signalling);
        engine.handle(now, Input::Packet(PacketIn { id, point, indev: LAN, outdev: WAN, bytes }));
    };
    // What is asked, and whose turn it is, and what has its verdict.
    let come = |engine: &mut Engine| {
        let (mut asked, mut agains, mut verdicts) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(output) = engine.poll_output() {
            match output {
                Output::Command(command) => asked.push((kind(&command.op).to_owned(), command.id)),
                Output::Again(PacketId(number)) => agains.push(number),
                Output::Verdict(verdict) => verdicts.push((verdict.packet.0, verdict.reason)),
                Output::Event(_) => {}
            }
        }
        (asked, agains, verdicts)
    };
    hand_in(engine, now, 1001, &invite(1));
    let (asked, agains, verdicts) = come(engine);
    let [(ref what, id)] = asked[..] else { panic!("{asked:?}") };
    assert_eq!((what.as_str(), agains, verdicts), ("recognise", vec![], vec![]));
    hand_in(engine, now, 1002, &invite(2));
    assert_eq!(come(engine), (vec![], vec![], vec![]), "the same question is not asked twice");
    hand_in(engine, now, 1003, &plain);
    assert_eq!(come(engine), (vec![], vec![], vec![(1003, Reason::Rewritten)]));
    // It comes after whoever waits would have sent again.
    now += Duration::from_secs(1);
    hand_in(engine, now, 1004, &invite(1));
    engine.handle(now, Input::CommandDone { id, outcome: Ok(Reply::Found(None)) });
    assert_eq!(come(engine), (vec![], vec![1001, 1002, 1004], vec![]), "in their order");
    for (number, n) in [(1001, 1), (1002, 2), (1004, 1)] {
        hand_in(engine, now, number, &invite(n));
        assert_eq!(come(engine), (vec![], vec![], vec![(number, Reason::Rewritten)]));
    }
    // For a while that is the answer; then who calls again is looked for again.
    now += Duration::from_secs(31);
    hand_in(engine, now, 1005, &invite(3));
    assert_eq!(come(engine).2, [(1005, Reason::Rewritten)]);
    now += Duration::from_secs(2);
    hand_in(engine, now, 1006, &invite(4));
    let (asked, _, verdicts) = come(engine);
    assert_eq!((asked.iter().filter(|(what, _)| what == "recognise").count(), verdicts), (1, vec![]));
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
fn f08_of_more_hosts_than_can_be_told_apart_the_rest_keeps_its_text() {
    let inside_hosts = vec![Prefix { address: "192.168.1.0".parse().unwrap(), bits: 24 }];
    let mut bench = Bench::new(Policy { inside_hosts, ..Policy::default() });
    let proxy = "192.168.1.10:5060";
    let text = |host: &str, top: &str, contact: &str| {
        message(
            &format!(
                "OPTIONS sip:bob@provider.example SIP/2.0\nVia: SIP/2.0/UDP {top};branch=z9hG4bK-{host}\n\
                 Record-Route: <sip:{top};lr>\nFrom: <sip:u{host}@provider.example>;tag=a\n\
                 To: <sip:bob@provider.example>\nCall-ID: {host}\nCSeq: 1 OPTIONS\nContact: <sip:u{host}@{contact}>"
            ),
            "",
        )
    };
    let mut mapped = 0;
    for host in 20..40 {
        let (host, own) = (host.to_string(), format!("192.168.1.{host}"));
        let sent = bench.out(proxy, PROXY, text(&host, proxy, &own)).text();
        // Whoever is mapped is found again, and nobody else is mapped.
        let uri = if sent == text(&host, PUBLIC, PUBLIC) {
            mapped += 1;
            format!("sip:u{host}@{PUBLIC}")
        } else {
            assert_eq!(sent, text(&host, PUBLIC, &own));
            continue;
        };
        let got = bench.inn(PROXY, proxy, options(&uri)).text();
        assert_eq!(got, options(&format!("sip:u{host}@{own}")));
    }
    assert!((1..20).contains(&mapped), "{mapped}");
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
