//! Media: who may send where, from when on, and what two calls have to do with each other (nothing).

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::common::messages::{Dialog, MEDIA, PHONE, PROXY, answer, message, request, response, sdp};
use crate::common::{Bench, LAN, WAN, at, kind, packet};
use crate::{PUBLIC, answered, call, hang_up, invite};
use sipalg::alg::{
    Engine, Event, Input, MediaLocal, MediaSource, Op, Output, PacketId, PacketIn, Policy, QueuePoint,
    Reason, Reply,
};

#[test]
fn f01_media_may_come_from_another_machine_than_signalling() {
    // Others open for the SIP server's address only.
    let mut bench = Bench::default();
    call(&mut bench, Dialog::default(), &sdp("192.168.1.10", 40000), &sdp("22.33.44.22", 30000));
    bench.assert_pinned("192.168.1.10:40000", MEDIA);
    bench.assert_pinned("192.168.1.10:40001", "22.33.44.22:30001");
    let public = bench.binding("192.168.1.10:40000");
    let peers: BTreeSet<_> = bench.kernel.peers.iter().map(|peer| (peer.public.0, peer.far)).collect();
    let far = Some("22.33.44.22".parse().unwrap());
    let rtcp = bench.binding("192.168.1.10:40001");
    assert_eq!(peers, BTreeSet::from([(public, far), (rtcp, far)]), "the answer's address and no other");

    // The media server may use another port than it announced; nobody else may use any.
    assert_eq!(bench.latch("22.33.44.22:31234", public).reason, Reason::Latched);
    bench.assert_pinned("192.168.1.10:40000", "22.33.44.22:31234");
    let pins = bench.kernel.pins.clone();
    for stranger in ["22.33.44.20:5060", "22.33.44.20:30000", "6.6.6.6:30000"] {
        let passed = bench.latch(stranger, public);
        assert_eq!((passed.reason, passed.payload), (Reason::NotNegotiated, None), "{stranger}");
    }
    assert_eq!(bench.kernel.pins, pins);
}

#[test]
fn f01_any_source_is_let_in_where_the_administrator_says_so() {
    let mut bench = Bench::new(Policy { media_source: MediaSource::Any, ..Policy::default() });
    call(&mut bench, Dialog::default(), &sdp("192.168.1.10", 40000), &sdp("22.33.44.22", 30000));
    assert!(bench.kernel.peers.iter().all(|peer| peer.far.is_none()));
    let public = bench.binding("192.168.1.10:40000");
    assert_eq!(bench.latch("6.6.6.6:7", public).reason, Reason::Latched);
    hang_up(&mut bench, Dialog::default());
    bench.assert_all_closed();
}

/// Everything that the engine has to say now, in short.
fn outputs(engine: &mut Engine) -> (Vec<&'static str>, Vec<sipalg::alg::CommandId>) {
    let (mut names, mut commands) = (Vec::new(), Vec::new());
    while let Some(output) = engine.poll_output() {
        match output {
            Output::Command(command) => {
                names.push(kind(&command.op));
                commands.push(command.id);
            }
            Output::Verdict(verdict) => names.push(verdict.reason.name()),
            Output::Again(_) => names.push("again"),
            Output::Event(_) => {}
        }
    }
    (names, commands)
}

#[test]
fn f02_the_door_is_open_before_anybody_can_know_of_it() {
    // Without a door the far end's first packet makes a conntrack entry that is in the way for the rest of the call.
    let mut bench = Bench::default();
    bench.track(PHONE, PROXY);
    bench.out(PHONE, PROXY, request("OPTIONS", PHONE, 1, Dialog::default(), false, ""));
    let engine = &mut bench.engine;
    let now = bench.now;
    let handle = |engine: &mut Engine, outbound: bool, text: &str| {
        let (from, to) = if outbound { (PHONE, PROXY) } else { (PROXY, PHONE) };
        let (indev, outdev) = if outbound { (LAN, WAN) } else { (WAN, LAN) };
        let bytes = packet(at(from), at(to), text.as_bytes());
        let (id, point) = (PacketId(900), QueuePoint::Signalling);
        engine.handle(now, Input::Packet(PacketIn { id, point, indev, outdev, bytes: &bytes }));
        outputs(engine)
    };
    let done = |engine: &mut Engine, id| {
        engine.handle(now, Input::CommandDone { id, outcome: Ok(Reply::Done) });
        outputs(engine).0
    };
    let dialog = Dialog { call_id: "early", ..Dialog::default() };
    let invite = request("INVITE", PHONE, 1, dialog, false, &sdp("192.168.1.10", 40000));
    let (names, commands) = handle(engine, true, &invite);
    assert_eq!(names, ["open"], "no verdict yet");
    assert_eq!(done(engine, commands[0]), ["again"]);
    assert_eq!(handle(engine, true, &invite).0, ["rewritten"]);

    // Early media: pinned and admitted before the phone knows that it rings.
    let ringing = response("183 Session Progress", "INVITE", PUBLIC, 1, dialog, &sdp("22.33.44.22", 30000));
    let (names, commands) = handle(engine, false, &ringing);
    assert_eq!(names, ["admit", "admit", "pin", "pin"], "RTP and RTCP; no verdict yet");
    for id in &commands[..3] {
        assert_eq!(done(engine, *id), [""; 0]);
    }
    // A retransmission in the meantime waits for the same commands.
    assert_eq!(handle(engine, false, &ringing).0, [""; 0]);
    assert_eq!(done(engine, commands[3]), ["again"]);
    assert_eq!(handle(engine, false, &ringing).0, ["rewritten"]);
}

#[test]
fn f02_a_late_offer_opens_before_the_phones_answer_leaves() {
    let mut bench = Bench::default();
    invite(&mut bench, Dialog::default(), "");
    answered(&mut bench, Dialog::default(), "200 OK", &sdp("22.33.44.22", 30000));
    assert!(bench.kernel.pinholes.is_empty());
    let ack = request("ACK", PHONE, 1, Dialog::default(), true, &sdp("192.168.1.10", 40000));
    let sent = bench.out(PHONE, PROXY, ack);
    assert!(!sent.text().contains("IP4 192.168."), "{}", sent.text());
    bench.assert_pinned("192.168.1.10:40000", MEDIA);
}

#[test]
fn f03_ten_phones_have_the_same_media_port() {
    // Others find the port taken, and drop the INVITE.
    let mut bench = Bench::default();
    let mut publics = BTreeSet::new();
    for n in 10..20 {
        let (phone, ip) = (format!("192.168.1.{n}:5060"), format!("192.168.1.{n}"));
        let (call_id, branch) = (format!("call@{ip}"), format!("z9hG4bK-{n}"));
        let dialog = Dialog { call_id: &call_id, branch: &branch, ..Dialog::default() };
        let sent = bench.out(&phone, PROXY, request("INVITE", &phone, 1, dialog, false, &sdp(&ip, 40000)));
        let public = bench.binding(&format!("{ip}:40000"));
        assert!(sent.text().contains(&format!("m=audio {} RTP/AVP", public.port())), "{}", sent.text());
        assert_eq!(public.port() % 2, 0);
        assert_eq!(bench.binding(&format!("{ip}:40001")).port(), public.port() + 1);
        publics.insert(public);
        let seen = bench.public(&phone, PROXY).to_string();
        bench.inn(PROXY, &phone, response("200 OK", "INVITE", &seen, 1, dialog, &sdp("22.33.44.22", 30000)));
        bench.assert_pinned(&format!("{ip}:40000"), MEDIA);
    }
    assert_eq!(publics.len(), 10);
    assert_eq!(bench.kernel.pins.len(), 20);
}

#[test]
fn f17_hold_keeps_the_door_and_says_nothing_new() {
    // Others write `o=0.0.0.0`, or close the port for good.
    let mut bench = Bench::default();
    call(&mut bench, Dialog::default(), &sdp("192.168.1.10", 40000), &sdp("22.33.44.22", 30000));
    let public = bench.binding("192.168.1.10:40000");
    let pins = bench.kernel.pins.clone();
    let active = sdp("192.168.1.10", 40000);
    let active_out = sdp("22.33.44.55", public.port());
    let old_style = |text: &str| {
        text.replacen("c=IN IP4 192.168.1.10", "c=IN IP4 0.0.0.0", 1).replacen(
            "c=IN IP4 22.33.44.55",
            "c=IN IP4 0.0.0.0",
            1,
        )
    };
    let holds = [
        (
            old_style(&active),
            old_style(&active_out).replace(&format!("audio {}", public.port()), "audio 40000"),
        ),
        (format!("{active}a=sendonly\n"), format!("{active_out}a=sendonly\n")),
        (format!("{active}a=inactive\n"), format!("{active_out}a=inactive\n")),
        (
            active.replace("audio 40000", "audio 0"),
            active_out.replace(&format!("audio {}", public.port()), "audio 0"),
        ),
    ];
    for (turn, (hold, hold_out)) in (2..).step_by(2).zip(holds) {
        for (cseq, offer, expected) in [(turn, &hold, &hold_out), (turn + 1, &active, &active_out)] {
            let branch = format!("z9hG4bK-hold-{cseq}");
            let dialog = Dialog { branch: &branch, ..Dialog::default() };
            let sent = bench.out(PHONE, PROXY, request("INVITE", PHONE, cseq, dialog, true, offer)).text();
            let body = sent.split_once("\r\n\r\n").unwrap().1;
            assert_eq!(body, expected.replace('\n', "\r\n"));
            let body = if offer == &active { sdp("22.33.44.22", 30000) } else { sdp("0.0.0.0", 30000) };
            bench.inn(PROXY, PHONE, response("200 OK", "INVITE", PUBLIC, cseq, dialog, &body));
            bench.out(PHONE, PROXY, request("ACK", PHONE, cseq, dialog, true, ""));
            bench.advance(Duration::from_secs(300));
            assert_eq!(bench.binding("192.168.1.10:40000"), public);
            assert_eq!(bench.kernel.pins, pins);
        }
    }
    // A hold of hours, without a packet of media.
    let branch = "z9hG4bK-long";
    let dialog = Dialog { branch, ..Dialog::default() };
    let hold = format!("{active}a=inactive\n");
    bench.out(PHONE, PROXY, request("INVITE", PHONE, 90, dialog, true, &hold));
    let held = format!("{}a=inactive\n", sdp("22.33.44.22", 30000));
    bench.inn(PROXY, PHONE, response("200 OK", "INVITE", PUBLIC, 90, dialog, &held));
    bench.advance(Duration::from_secs(3 * 3600));
    bench.assert_renewed();
    assert_eq!(bench.binding("192.168.1.10:40000"), public);
    hang_up(&mut bench, Dialog::default());
    bench.assert_all_closed();
}

/// A re-INVITE of the far end.
fn asks_again(cseq: u32, body: &str) -> String {
    message(
        &format!(
            "INVITE sip:alice@{PUBLIC} SIP/2.0\nVia: SIP/2.0/UDP 22.33.44.20;branch=z9hG4bK-f{cseq}\n\
             From: <sip:bob@provider.example>;tag=bob-1\n\
             To: \"Alice\" <sip:alice@provider.example>;tag=alice-1\nCall-ID: call-1@192.168.1.10\n\
             CSeq: {cseq} INVITE\nContact: <sip:bob@22.33.44.21:5060>\nContent-Type: application/sdp"
        ),
        body,
    )
}

#[test]
fn f30_a_fax_switches_its_media_and_back() {
    // Others do not know `m=image`, and close the audio port for good.
    let mut bench = Bench::default();
    call(&mut bench, Dialog::default(), &sdp("192.168.1.10", 40000), &sdp("22.33.44.22", 30000));
    let audio = bench.binding("192.168.1.10:40000");
    let fax = |ip: &str, port: u16| {
        format!(
            "v=0\no=- 1 2 IN IP4 {ip}\ns=-\nc=IN IP4 {ip}\nt=0 0\nm=image {port} udptl t38\na=T38FaxVersion:0\n"
        )
    };
    // The far end asks for it, as it is the one that heard the fax tone; the fax then comes from there first.
    let got = bench.inn(PROXY, PHONE, asks_again(1, &fax("22.33.44.22", 30500)));
    let ok = answer(
        &got.text(),
        "200 OK",
        at(PROXY),
        "Contact: <sip:alice@192.168.1.10:5060>\n",
        &fax("192.168.1.10", 41000),
    );
    let sent = bench.out(PHONE, PROXY, ok).text();
    let public = bench.binding("192.168.1.10:41000");
    assert!(sent.ends_with(&fax("22.33.44.55", public.port()).replace('\n', "\r\n")), "{sent}");
    bench.assert_pinned("192.168.1.10:41000", "22.33.44.22:30500");
    assert_eq!(bench.kernel.pins.len(), 1, "udptl has no RTCP, and audio is over");

    let got = bench.inn(PROXY, PHONE, asks_again(2, &sdp("22.33.44.22", 30000)));
    let ok = answer(&got.text(), "200 OK", at(PROXY), "", &sdp("192.168.1.10", 40000));
    bench.out(PHONE, PROXY, ok);
    assert_eq!(bench.binding("192.168.1.10:40000"), audio, "the door was kept");
    bench.assert_pinned("192.168.1.10:40000", MEDIA);
    hang_up(&mut bench, Dialog::default());
    bench.assert_all_closed();
}

#[test]
fn f27_rtcp_comes_back_to_its_place_beside_rtp() {
    // The fax takes the port of the sound, and is refreshed; then there is sound again, and nothing says where RTCP is.
    let fax =
        "v=0\no=- 1 2 IN IP4 192.168.1.10\ns=-\nc=IN IP4 192.168.1.10\nt=0 0\nm=image 40000 udptl t38\n";
    let far_fax = fax.replace("192.168.1.10", "22.33.44.22").replace("40000", "30000");
    let (audio, far_audio) = (sdp("192.168.1.10", 40000), sdp("22.33.44.22", 30000));
    for (first, far_first) in [(&audio, &far_audio), (&fax.to_owned(), &far_fax)] {
        let mut bench = Bench::default();
        call(&mut bench, Dialog::default(), first, far_first);
        let rtp = bench.binding("192.168.1.10:40000");
        for (cseq, ours, theirs) in
            [(2, fax, far_fax.as_str()), (3, fax, &far_fax), (4, fax, &far_fax), (5, &audio, &far_audio)]
        {
            let branch = format!("z9hG4bK-{cseq}");
            let dialog = Dialog { branch: &branch, ..Dialog::default() };
            let seen = bench.out(PHONE, PROXY, request("INVITE", PHONE, cseq, dialog, true, ours)).text();
            bench.inn(PROXY, PHONE, answer(&seen, "200 OK", at(PROXY), "", theirs));
            assert_eq!(bench.binding("192.168.1.10:40000"), rtp);
            let pins = if cseq == 5 { 2 } else { 1 };
            assert_eq!(bench.kernel.pins.len(), pins, "{:?}", bench.kernel.pins);
        }
        let rtcp = bench.binding("192.168.1.10:40001");
        assert_eq!((rtcp.ip(), rtcp.port()), (rtp.ip(), rtp.port() + 1));
        bench.assert_pinned("192.168.1.10:40001", "22.33.44.22:30001");
        hang_up(&mut bench, Dialog::default());
        bench.assert_all_closed();
    }
}

#[test]
fn f27_rtcp_comes_with_rtp_only_if_both_sides_say_so() {
    // RFC 5761 section 5.1.1: who does not know the attribute passes over it, and sends RTCP to the next port.
    let with = |text: String, mux: bool| if mux { text + "a=rtcp-mux\n" } else { text };
    for (ours, theirs) in [(false, false), (false, true), (true, false), (true, true)] {
        let local = with(sdp("192.168.1.10", 40000), ours);
        let remote = with(sdp("22.33.44.22", 30000), theirs);
        let mut bench = Bench::default();
        call(&mut bench, Dialog::default(), &local, &remote);
        bench.assert_pinned("192.168.1.10:40000", MEDIA);
        bench.assert_pinned_if(!(ours && theirs), "192.168.1.10:40001", "22.33.44.22:30001");
        hang_up(&mut bench, Dialog::default());
        bench.assert_all_closed();

        // The same where the far end offers.
        let mut bench = Bench::default();
        call(&mut bench, Dialog::default(), &sdp("192.168.1.10", 40000), &sdp("22.33.44.22", 30000));
        let got = bench.inn(PROXY, PHONE, asks_again(1, &remote));
        bench.out(PHONE, PROXY, answer(&got.text(), "200 OK", at(PROXY), "", &local));
        bench.assert_pinned_if(!(ours && theirs), "192.168.1.10:40001", "22.33.44.22:30001");
    }
}

#[test]
fn f30_a_change_that_is_refused_changes_nothing() {
    // The phone offers fax on another port; until that is accepted, and if it is not, the audio goes on.
    let mut bench = Bench::default();
    call(&mut bench, Dialog::default(), &sdp("192.168.1.10", 40000), &sdp("22.33.44.22", 30000));
    let peers = bench.kernel.peers.clone();
    let dialog = Dialog { branch: "z9hG4bK-fax", ..Dialog::default() };
    let fax =
        "v=0\no=- 1 2 IN IP4 192.168.1.10\ns=-\nc=IN IP4 192.168.1.10\nt=0 0\nm=image 41000 udptl t38\n";
    bench.out(PHONE, PROXY, request("INVITE", PHONE, 2, dialog, true, fax));
    bench.assert_pinned("192.168.1.10:40000", MEDIA);
    assert!(bench.kernel.peers.is_superset(&peers), "{:?}", bench.kernel.peers);
    bench.inn(PROXY, PHONE, response("488 Not Acceptable Here", "INVITE", PUBLIC, 2, dialog, ""));
    bench.out(PHONE, PROXY, request("ACK", PHONE, 2, dialog, true, ""));
    bench.assert_pinned("192.168.1.10:40000", MEDIA);
    assert!(bench.kernel.peers.is_superset(&peers), "{:?}", bench.kernel.peers);
    bench.advance(Duration::from_secs(60));
    bench.assert_pinned("192.168.1.10:40000", MEDIA);
    hang_up(&mut bench, Dialog::default());
    bench.assert_all_closed();
}

#[test]
fn f33_forks_have_media_each() {
    let mut bench = Bench::default();
    invite(&mut bench, Dialog::default(), &sdp("192.168.1.10", 40000));
    let public = bench.binding("192.168.1.10:40000");
    for (to_tag, port) in [("fork-1", 30000), ("fork-2", 31000)] {
        let dialog = Dialog { to_tag, ..Dialog::default() };
        answered(&mut bench, dialog, "183 Session Progress", &sdp("22.33.44.22", port));
        bench.assert_pinned("192.168.1.10:40000", &format!("22.33.44.22:{port}"));
    }
    bench.assert_pinned("192.168.1.10:40000", MEDIA);
    let winner = Dialog { to_tag: "fork-2", ..Dialog::default() };
    answered(&mut bench, winner, "200 OK", &sdp("22.33.44.22", 31000));
    bench.advance(Duration::from_secs(40));
    // The loser is gone, the winner is not, and the door is the same.
    assert_eq!(bench.kernel.pins.len(), 2, "{:?}", bench.kernel.pins);
    bench.assert_pinned("192.168.1.10:40000", "22.33.44.22:31000");
    assert_eq!(bench.binding("192.168.1.10:40000"), public);
    bench.assert_renewed();
    hang_up(&mut bench, winner);
    bench.assert_all_closed();
}

#[test]
fn f33_two_answers_at_the_same_moment_take_turns() {
    // A 183 and a 200 that differ, and the kernel has not answered for the first when the second comes: each would take
    // back what the other needs, again and again.
    let mut bench = Bench::default();
    invite(&mut bench, Dialog::default(), &sdp("192.168.1.10", 40000));
    let packets = [("183 Session Progress", 30000), ("200 OK", 31000)].map(|(status, port)| {
        let text = response(status, "INVITE", PUBLIC, 1, Dialog::default(), &sdp("22.33.44.22", port));
        packet(at(PROXY), at(PHONE), text.as_bytes())
    });
    let (engine, now) = (&mut bench.engine, bench.now);
    let hand_in = |engine: &mut Engine, number: u64| {
        let bytes = &packets[number as usize - 1001];
        let (id, point) = (PacketId(number), QueuePoint::Signalling);
        engine.handle(now, Input::Packet(PacketIn { id, point, indev: WAN, outdev: LAN, bytes }));
    };
    let (mut commands, mut pins, mut verdicts) = (VecDeque::new(), Vec::new(), Vec::new());
    let mut agains = VecDeque::from([1001, 1002]);
    for _ in 0..100 {
        if let Some(number) = agains.pop_front() {
            hand_in(engine, number);
        } else if let Some(id) = commands.pop_front() {
            engine.handle(now, Input::CommandDone { id, outcome: Ok(Reply::Done) });
        }
        while let Some(output) = engine.poll_output() {
            match output {
                Output::Command(command) => {
                    commands.push_back(command.id);
                    match command.op {
                        Op::Pin { flow, .. } => pins.push(flow.far.port()),
                        Op::Unpin { flow } => pins.retain(|port| *port != flow.far.port()),
                        _ => {}
                    }
                }
                Output::Again(PacketId(number)) => agains.push_back(number),
                Output::Verdict(verdict) => verdicts.push((verdict.packet.0, verdict.reason)),
                Output::Event(_) => {}
            }
        }
    }
    assert_eq!(verdicts, [(1001, Reason::Rewritten), (1002, Reason::Rewritten)], "in their order");
    assert_eq!(pins, [31000, 31001], "the last word counts");
    assert!(commands.is_empty() && agains.is_empty());
}

#[test]
fn f33_offers_travel_in_prack_and_update_too() {
    let mut bench = Bench::default();
    invite(&mut bench, Dialog::default(), "");
    answered(&mut bench, Dialog::default(), "183 Session Progress", &sdp("22.33.44.22", 30000));
    let prack = Dialog { branch: "z9hG4bK-prack", ..Dialog::default() };
    let sent = bench.out(PHONE, PROXY, request("PRACK", PHONE, 2, prack, true, &sdp("192.168.1.10", 40000)));
    assert_eq!(
        bench.out(PHONE, PROXY, request("PRACK", PHONE, 2, prack, true, &sdp("192.168.1.10", 40000))),
        sent
    );
    bench.assert_pinned("192.168.1.10:40000", MEDIA);
    bench.inn(PROXY, PHONE, response("200 OK", "PRACK", PUBLIC, 2, prack, ""));
    let update = Dialog { branch: "z9hG4bK-update", ..Dialog::default() };
    bench.out(PHONE, PROXY, request("UPDATE", PHONE, 3, update, true, &sdp("192.168.1.10", 40000)));
    bench.inn(PROXY, PHONE, response("200 OK", "UPDATE", PUBLIC, 3, update, &sdp("22.33.44.22", 30200)));
    bench.assert_pinned("192.168.1.10:40000", "22.33.44.22:30200");
    assert_eq!(bench.kernel.pins.len(), 2, "the old target is gone: {:?}", bench.kernel.pins);
    answered(&mut bench, Dialog::default(), "200 OK", "");
    hang_up(&mut bench, Dialog::default());
    bench.assert_all_closed();
}

/// One phone calls another one behind the same NAT by the provider, which relays signalling and leaves media alone.
/// The descriptions come back that each of them got.
fn local_call(bench: &mut Bench) -> (String, String) {
    let [alice, bob] = ["192.168.1.10:5060", "192.168.1.11:5060"];
    let registers = |who: &str, at: &str| {
        message(
            &format!(
                "REGISTER sip:provider.example SIP/2.0\nVia: SIP/2.0/UDP {at};branch=z9hG4bK-r{who};rport\n\
                 From: <sip:{who}@provider.example>;tag=r\nTo: <sip:{who}@provider.example>\nCall-ID: r-{who}\n\
                 CSeq: 1 REGISTER\nContact: <sip:{who}@{at}>"
            ),
            "",
        )
    };
    bench.out(alice, PROXY, registers("alice", alice));
    bench.out(bob, PROXY, registers("bob", bob));
    let dialog = Dialog { call_id: "local-1", ..Dialog::default() };
    let sent =
        bench.out(alice, PROXY, request("INVITE", alice, 1, dialog, false, &sdp("192.168.1.10", 40000)));
    let forwarded = sent
        .text()
        .replacen("sip:bob@provider.example", &format!("sip:bob@{}", bench.public(bob, PROXY)), 1)
        .replacen("Via:", "Via: SIP/2.0/UDP 22.33.44.20;branch=z9hG4bK-proxy\r\nVia:", 1);
    let rings = bench.inn(PROXY, bob, forwarded).text();
    assert!(rings.starts_with("INVITE sip:bob@192.168.1.11:5060 SIP/2.0\r\n"), "{rings}");
    let ok = answer(
        &rings,
        "200 OK",
        at(PROXY),
        "Contact: <sip:bob@192.168.1.11:5060>\n",
        &sdp("192.168.1.11", 40000),
    );
    let ok = bench.out(bob, PROXY, ok).text();
    let back = ok.replacen("Via: SIP/2.0/UDP 22.33.44.20;branch=z9hG4bK-proxy\r\n", "", 1);
    let answered = bench.inn(PROXY, alice, back).text();
    let body = |text: &str| text.split_once("\r\n\r\n").unwrap().1.replace("\r\n", "\n");
    (body(&rings), body(&answered))
}

#[test]
fn f34_two_phones_behind_one_nat_talk_directly() {
    // Others open for the server only: silence.
    let mut bench = Bench::default();
    let (offer, reply) = local_call(&mut bench);
    // o= names the session, not a destination, and stays what the far end gave.
    assert_eq!(offer, sdp("192.168.1.10", 40000).replacen("IP4 192.168.1.10", "IP4 22.33.44.55", 1));
    assert_eq!(reply, sdp("192.168.1.11", 40000).replacen("IP4 192.168.1.11", "IP4 22.33.44.55", 1));
    assert_eq!(bench.kernel.pins, [], "media does not come by");
    assert_eq!(bench.kernel.peers.len(), 0, "and nobody outside may send");
}

#[test]
fn f34_two_phones_behind_one_nat_talk_by_the_router() {
    let mut bench = Bench::new(Policy { media_local: MediaLocal::Hairpin, ..Policy::default() });
    let (offer, reply) = local_call(&mut bench);
    let [alice, bob] = ["192.168.1.10:40000", "192.168.1.11:40000"].map(|it| bench.binding(it));
    assert_eq!(offer, sdp("22.33.44.55", alice.port()));
    assert_eq!(reply, sdp("22.33.44.55", bob.port()));
    let hairpins: BTreeSet<_> = bench
        .kernel
        .pins
        .iter()
        .filter(|pin| pin.inside.0.port() == 40000)
        .map(|pin| (pin.inside.0, pin.far, pin.public.0, pin.hairpin.map(|it| it.0)))
        .collect();
    let [a, b] = ["192.168.1.10:40000", "192.168.1.11:40000"].map(at);
    let from_alice = (a, bob, alice, Some(b));
    let from_bob = (b, alice, bob, Some(a));
    assert!(
        hairpins == BTreeSet::from([from_alice])
            || hairpins == BTreeSet::from([from_bob])
            || hairpins == BTreeSet::from([from_alice, from_bob]),
        "{hairpins:?}"
    );
}

#[test]
fn f16_the_address_is_that_of_the_way_which_the_call_takes() {
    // Two uplinks: others take some interface's address and write it everywhere.
    let mut bench = Bench::default();
    let other_proxy = "44.55.66.77:5060";
    bench.nat(PHONE, other_proxy, "99.88.77.66:5060");
    bench.out(
        PHONE,
        PROXY,
        request("INVITE", PHONE, 1, Dialog::default(), false, &sdp("192.168.1.10", 40000)),
    );
    bench.uplink = 9;
    let second = Dialog { call_id: "second", branch: "z9hG4bK-second", ..Dialog::default() };
    let sent = bench.out(
        PHONE,
        other_proxy,
        request("INVITE", PHONE, 1, second, false, &sdp("192.168.1.10", 40000)),
    );
    let open: Vec<_> =
        bench.kernel.pinholes.keys().filter(|it| it.ip() == at("99.88.77.66:0").ip()).collect();
    let port = open[0].port();
    assert_eq!(
        sent.text(),
        request("INVITE", "99.88.77.66:5060", 1, second, false, &sdp("99.88.77.66", port))
    );
    let uplinks: BTreeSet<_> = bench
        .commands
        .iter()
        .filter_map(|op| match op {
            Op::Open { pinholes, .. } => Some((pinholes[0].uplink, pinholes[0].public.0.ip().to_string())),
            _ => None,
        })
        .collect();
    assert_eq!(uplinks, BTreeSet::from([(WAN, "22.33.44.55".into()), (9, "99.88.77.66".into())]));
}

#[test]
fn f39_doors_stay_open_while_the_call_lives_and_no_longer() {
    // Others close after 30, 120 or 180 s of silence.
    let mut bench = Bench::default();
    invite(&mut bench, Dialog::default(), &sdp("192.168.1.10", 40000));
    answered(&mut bench, Dialog::default(), "180 Ringing", "");
    for _ in 0..10 {
        bench.advance(Duration::from_secs(20));
        bench.assert_renewed();
    }
    answered(&mut bench, Dialog::default(), "200 OK", &sdp("22.33.44.22", 30000));
    for _ in 0..8 * 60 {
        bench.advance(Duration::from_secs(60));
        bench.assert_renewed();
        bench.assert_pinned("192.168.1.10:40000", MEDIA);
    }
    // Both ends vanish: conntrack forgets the media, and then the call is over.
    bench.kernel.pins.clear();
    bench.advance(Duration::from_secs(2 * 900));
    bench.assert_all_closed();
    assert!(bench.events.iter().any(|event| matches!(event, Event::CallEnded { why: "inactive", .. })));
}
