//! Media over TCP (`media.tcp`): who waits gets a door, for one address, and for as long as the call lives.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::common::messages::{Dialog, PHONE, PROXY, answer, message, request, sdp};
use crate::common::{Bench, Passed, at};
use crate::{PUBLIC, answers, asks, far_asks, far_request, hang_up, invite, phone_answers, replies, secs};
use sipalg::alg::{Event, MediaLocal, MediaSource, PinnedFlow, Policy, Reason, Transport};

const HEAD: &str = "v=0\no=- 1 1 IN IP4 192.168.1.10\ns=-\nc=IN IP4 192.168.1.10\nt=0 0\n";
const FAR_HEAD: &str = "v=0\no=- 1 1 IN IP4 22.33.44.22\ns=-\nc=IN IP4 22.33.44.22\nt=0 0\n";
const MSRP: &str = "m=message 2855 TCP/MSRP *\na=accept-types:text/plain\na=setup:actpass\n\
                    a=path:msrp://192.168.1.10:2855/s1;tcp\n";
const FAR_MSRP: &str = "m=message 9 TCP/MSRP *\na=accept-types:text/plain\na=setup:active\n\
                        a=path:msrp://22.33.44.22:2855/s2;tcp\n";
/// The flags of a first segment.
const SYN: u8 = 2;

fn bench() -> Bench {
    Bench::new(Policy { media_tcp: true, ..Policy::default() })
}

fn body(passed: &Passed) -> String {
    passed.text().split_once("\r\n\r\n").unwrap().1.replace("\r\n", "\n")
}

/// The phone's lines as the far end gets them: its address, and this port.
fn outside(text: &str, inside: u16, public: u16) -> String {
    text.replace("192.168.1.10", "22.33.44.55")
        .replace(&format!(" {inside} "), &format!(" {public} "))
        .replace(&format!(":{inside}/"), &format!(":{public}/"))
}

/// Who may connect to what.
fn admitted(bench: &Bench) -> Vec<(SocketAddr, String)> {
    let tcp = bench.kernel.peers.iter().filter(|peer| peer.transport == Transport::Tcp);
    tcp.map(|peer| (peer.public.0, peer.far.map_or("anybody".into(), |far| far.to_string()))).collect()
}

fn far(address: &str) -> String {
    address.to_owned()
}

/// The pinned connection.
fn connection(inside: &str, from: &str, public: SocketAddr) -> PinnedFlow {
    PinnedFlow {
        transport: Transport::Tcp,
        inside: sipalg::alg::Inside(at(inside)),
        far: at(from),
        public: crate::common::outside(&public.to_string()),
        hairpin: None,
    }
}

#[test]
fn f20_who_waits_is_reached_by_the_one_who_was_negotiated() {
    for media_source in [MediaSource::Negotiated, MediaSource::Any] {
        let mut bench = Bench::new(Policy { media_tcp: true, media_source, ..Policy::default() });
        let offer = format!("{HEAD}{MSRP}");
        let sent = invite(&mut bench, &offer);
        let public = bench.binding("192.168.1.10:2855");
        assert!((16384..32768).contains(&public.port()));
        assert_eq!(body(&sent), outside(&offer, 2855, public.port()));
        assert_eq!(bench.kernel.tcp, BTreeSet::from([public]));
        assert_eq!(invite(&mut bench, &offer), sent, "repeated");
        // Nobody before the answer, and then nobody else.
        assert_eq!(admitted(&bench), []);
        assert_eq!(bench.connect("22.33.44.22:50000", public, SYN).reason, Reason::NotNegotiated);
        let answer = format!("{FAR_HEAD}{FAR_MSRP}");
        assert_eq!(body(&replies(&mut bench, "200 OK", &answer)), answer);
        assert_eq!(admitted(&bench), [(public, far("22.33.44.22"))]);
        for stranger in ["22.33.44.20:5060", "22.33.44.23:50000", "66.6.6.6:50000"] {
            let refused = bench.connect(stranger, public, SYN);
            assert_eq!((refused.reason, refused.payload), (Reason::NotNegotiated, None), "{stranger}");
        }
        assert_eq!(bench.kernel.pins, []);

        // Its first segment makes the entry, and comes again.
        let first = bench.connect("22.33.44.22:50000", public, SYN);
        assert_eq!((first.reason, first.payload), (Reason::Latched, None));
        assert_eq!(bench.kernel.pins, [connection("192.168.1.10:2855", "22.33.44.22:50000", public)]);
        // A second connection, and one that conntrack has forgotten in its middle, which no entry of ours would fit.
        assert_eq!(bench.connect("22.33.44.22:50001", public, SYN).reason, Reason::Latched);
        for flags in [16, 18] {
            assert_eq!(bench.connect("22.33.44.22:50002", public, flags).reason, Reason::Segment);
        }
        assert_eq!(bench.kernel.pins.len(), 2);
        // The door is for connections alone.
        assert_eq!(bench.latch("22.33.44.22:50000", public).reason, Reason::NotNegotiated);
        bench.advance(secs(1000));
        bench.assert_renewed();
        hang_up(&mut bench);
        assert_eq!(bench.connect("22.33.44.22:50003", public, SYN).reason, Reason::NotNegotiated);
    }
}

#[test]
fn f20_the_answer_decides_who_connects() {
    let mut bench = bench();
    let offer = format!("{HEAD}{MSRP}");
    let answer = |role: &str| format!("{FAR_HEAD}{}", FAR_MSRP.replace("active", role));
    invite(&mut bench, &offer);
    let public = bench.binding("192.168.1.10:2855");
    // The far end waits itself, or says nothing, which in an answer means the same.
    let silent = answer("passive").replace("a=setup:passive\n", "");
    replies(&mut bench, "183 Session Progress", &answer("passive"));
    assert_eq!(admitted(&bench), []);
    replies(&mut bench, "200 OK", &silent);
    assert_eq!(admitted(&bench), []);
    // The roles change, and change back, and everything once more.
    let roles = [("active", true), ("holdconn", true), ("passive", false), ("active", true)];
    for (cseq, (role, open)) in (2..).zip(roles) {
        let branch = format!("z9hG4bK-{cseq}");
        let sent = asks(&mut bench, "INVITE", cseq, &branch, &offer);
        assert_eq!(body(&sent), outside(&offer, 2855, public.port()), "the same port");
        answers(&mut bench, "200 OK", "INVITE", cseq, &branch, &answer(role));
        assert_eq!(!admitted(&bench).is_empty(), open, "{role}");
        let reason = if open { Reason::Latched } else { Reason::NotNegotiated };
        assert_eq!(bench.connect(&format!("22.33.44.22:{}", 50000 + cseq), public, SYN).reason, reason);
    }
    // It moves: the old address is not let in any more.
    asks(&mut bench, "INVITE", 9, "z9hG4bK-9", &offer);
    answers(&mut bench, "200 OK", "INVITE", 9, "z9hG4bK-9", &answer("active").replace("44.22", "44.29"));
    assert_eq!(admitted(&bench), [(public, far("22.33.44.29"))]);
    hang_up(&mut bench);
}

#[test]
fn f20_a_change_of_roles_that_is_refused_changes_nothing() {
    let mut bench = bench();
    invite(&mut bench, &format!("{HEAD}{MSRP}"));
    let public = bench.binding("192.168.1.10:2855");
    replies(&mut bench, "200 OK", &format!("{FAR_HEAD}{FAR_MSRP}"));
    let moved = format!("{FAR_HEAD}{}", FAR_MSRP.replace("active", "passive"));
    let got = far_asks(&mut bench, &far_request("INVITE", 1, "z9hG4bK-turn", &moved));
    assert_eq!(admitted(&bench), [(public, far("22.33.44.22"))]);
    phone_answers(&mut bench, &got, "488 Not Acceptable Here", "");
    assert_eq!(admitted(&bench), [(public, far("22.33.44.22"))]);
    assert_eq!(bench.connect("22.33.44.22:50000", public, SYN).reason, Reason::Latched);
    hang_up(&mut bench);
}

#[test]
fn f20_a_phone_that_is_called_waits_if_it_says_so() {
    for (offered, answered, open) in [
        ("active", "passive", true),
        ("actpass", "passive", true),
        ("actpass", "active", false),
        ("passive", "active", false),
        // Two that wait, and one that says nothing.
        ("passive", "passive", false),
        ("active", "", false),
        // What says nothing in an offer means to connect.
        ("", "passive", true),
    ] {
        let line = |role: &str, text: &str| {
            let setup = if role.is_empty() { String::new() } else { format!("a=setup:{role}\n") };
            text.replace("a=setup:actpass\n", &setup).replace("a=setup:active\n", &setup)
        };
        let mut bench = bench();
        // The phone has called, so that its dialog is known; now the far end adds the line.
        crate::call_up(&mut bench);
        let offer = format!("{}{}", sdp("22.33.44.22", 30000), line(offered, FAR_MSRP));
        let got = far_asks(&mut bench, &far_request("INVITE", 1, "z9hG4bK-add", &offer));
        assert_eq!(body(&got), offer);
        let ours = format!("{}{}", sdp("192.168.1.10", 40000), line(answered, MSRP));
        let sent = body(&phone_answers(&mut bench, &got, "200 OK", &ours));
        let rtp = bench.binding("192.168.1.10:40000").port().to_string();
        let door = bench.kernel.tcp.first().copied();
        assert_eq!(door.is_some(), answered == "passive", "{offered} {answered}");
        let expected = match door {
            Some(public) => outside(&ours, 2855, public.port()),
            // The path names the phone to itself: nobody connects to it.
            None => ours.replace("IP4 192.168.1.10", "IP4 22.33.44.55"),
        };
        assert_eq!(sent, expected.replace("audio 40000", &format!("audio {rtp}")), "{offered} {answered}");
        let expected: Vec<_> = door.filter(|_| open).map(|it| (it, far("22.33.44.22"))).into_iter().collect();
        assert_eq!(admitted(&bench), expected, "{offered} {answered}");
        bench.assert_pinned("192.168.1.10:40000", "22.33.44.22:30000");
        hang_up(&mut bench);
    }
}

#[test]
fn f20_floor_control_and_fax_wait_too_each_by_the_connection_line_that_holds() {
    let mut bench = bench();
    let own = "c=IN IP4 192.168.1.10\n";
    let offer = format!(
        "v=0\no=- 1 1 IN IP4 192.168.1.10\ns=-\nc=IN IP4 192.168.1.10\nt=0 0\na=setup:passive\n\
         m=audio 40000 RTP/AVP 0\nm=application 50000 TCP/BFCP *\na=connection:new\n{own}\
         m=application 50002 TCP/TLS/BFCP *\na=setup:actpass\na=floorid:1 m-stream:1\n\
         m=image 40000 tcp t38\n{own}m=image 40004 tcptl t38\nm=chat 40006 TCP/x-chat *\na=setup:active\n"
    );
    let sent = body(&invite(&mut bench, &offer));
    let port = |inside: &str| bench.binding(inside).port();
    // UDP and TCP have their own of the same number.
    let twins: Vec<_> = bench.kernel.pinholes.iter().filter(|(_, it)| it.0.port() == 40000).collect();
    let [first, second] = twins[..] else { panic!("{twins:?}") };
    let (rtp, fax) =
        if bench.kernel.tcp.contains(first.0) { (second.0, first.0) } else { (first.0, second.0) };
    let expected = offer
        .replace("IP4 192.168.1.10", "IP4 22.33.44.55")
        .replace("audio 40000", &format!("audio {}", rtp.port()))
        .replace("50000", &port("192.168.1.10:50000").to_string())
        .replace("50002", &port("192.168.1.10:50002").to_string())
        .replace("image 40000", &format!("image {}", fax.port()))
        .replace("40004", &port("192.168.1.10:40004").to_string());
    assert_eq!(sent, expected);
    assert_eq!((bench.kernel.pinholes.len(), bench.kernel.tcp.len()), (6, 4));
    let answer = format!(
        "{FAR_HEAD}m=audio 30000 RTP/AVP 0\nm=application 9 TCP/BFCP *\na=setup:active\nc=IN IP4 22.33.44.23\n\
         m=application 9 TCP/TLS/BFCP *\na=setup:passive\nm=image 0 tcp t38\n\
         m=image 9 tcptl t38\na=setup:active\nm=chat 2000 TCP/x-chat *\na=setup:passive\n"
    );
    replies(&mut bench, "200 OK", &answer);
    let bfcp = (bench.binding("192.168.1.10:50000"), far("22.33.44.23"));
    let tcptl = (bench.binding("192.168.1.10:40004"), far("22.33.44.22"));
    assert_eq!(admitted(&bench).into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([bfcp, tcptl]));
    bench.assert_pinned("192.168.1.10:40000", "22.33.44.22:30000");
    hang_up(&mut bench);
}

/// What has no door leaves as it came, and the sound beside it as ever.
#[track_caller]
fn assert_left(bench: &mut Bench, line: &str) {
    let offer = format!(
        "v=0\no=- 1 1 IN IP4 192.168.1.10\ns=-\nt=0 0\nm=audio 40000 RTP/AVP 0\nc=IN IP4 192.168.1.10\n{line}"
    );
    let sent = body(&invite(bench, &offer));
    let rtp = bench.binding("192.168.1.10:40000").port();
    let expected = offer.replacen("IP4 192.168.1.10", "IP4 22.33.44.55", 2).replacen(
        "audio 40000",
        &format!("audio {rtp}"),
        1,
    );
    assert_eq!(sent, expected, "{line}");
    assert_eq!((bench.kernel.pinholes.len(), bench.kernel.tcp.len()), (2, 0), "{line}");
    let far_line = "m=message 9 TCP/MSRP *\na=setup:active\n";
    replies(bench, "200 OK", &format!("{}{far_line}", sdp("22.33.44.22", 30000)));
    assert_eq!(admitted(bench), [], "{line}");
    hang_up(bench);
}

#[test]
fn f20_without_the_key_nothing_is_opened() {
    let own = "c=IN IP4 192.168.1.10\n";
    for line in [
        format!("{MSRP}{own}"),
        format!("m=application 50000 TCP/BFCP *\na=setup:passive\n{own}"),
        format!("m=image 40004 tcptl t38\na=setup:passive\n{own}"),
        format!("m=application 9 TCP/BFCP *\na=setup:active\n{own}"),
    ] {
        assert_left(&mut Bench::default(), &line);
    }
}

#[test]
fn f20_f43_only_who_says_that_it_waits_at_a_port_of_its_own_gets_a_door() {
    let own = "c=IN IP4 192.168.1.10\n";
    let waiting = |port: &str| format!("m=x {port} TCP/x *\na=setup:passive\n{own}");
    let msrp = |path: &str| format!("m=message 2855 TCP/MSRP *\na=setup:passive\n{path}{own}");
    for line in [
        waiting("50000").replace("a=setup:passive\n", ""),
        waiting("50000").replace("passive", "holdconn"),
        waiting("50000").replace("passive", "Passive"),
        waiting("9"),
        waiting("0"),
        // A service's port, whatever the service is.
        waiting("1023"),
        waiting("80"),
        waiting("3306"),
        waiting("5061"),
        // More than one port, or address.
        waiting("50000/2"),
        format!("{}c=IN IP4 192.168.1.11\n", waiting("50000")),
        waiting("50000").replace(own, "c=IN IP4 192.168.1.11\n"),
        waiting("50000").replace(own, "c=IN IP4 phone.lan\n"),
        // ICE finds its own way (RFC 6544).
        format!("{}a=candidate:1 1 TCP 1 192.168.1.10 50000 typ host tcptype passive\n", waiting("50000")),
        // The path begins at a relay, or leads elsewhere, or cannot be read.
        msrp("a=path:msrp://relay.example:2855/r;tcp msrp://192.168.1.10:2855/s;tcp\n"),
        msrp("a=path:msrps://22.33.44.30:2855/r;tcp msrp://192.168.1.10:2855/s;tcp\n"),
        msrp("a=path:msrp://22.33.44.30/r;tcp msrp://192.168.1.10:2855/s;tcp\n"),
        msrp("a=path:msrp://192.168.1.10:2856/s;tcp\n"),
        msrp("a=path:msrp://192.168.1.11:2855/s;tcp\n"),
        msrp("a=path:msrp://192.168.1.10:2855/s;tcp\na=path:msrp://22.33.44.30:2855/r;tcp\n"),
        msrp(""),
    ] {
        assert_left(&mut bench(), &line);
    }
}

#[test]
fn f43_a_port_that_may_have_no_door_is_told() {
    let mut bench = bench();
    invite(&mut bench, &format!("{HEAD}m=x 3306 TCP/x *\na=setup:passive\n"));
    let refused = |event: &Event| matches!(event, Event::Refused { rule: "S9", .. });
    assert_eq!(bench.events.iter().filter(|event| refused(event)).count(), 1);
    assert_eq!(bench.kernel.pinholes.len(), 0);
}

#[test]
fn f20_a_phone_that_connects_needs_its_address_and_nothing_else() {
    let mut bench = bench();
    let offer = format!("{HEAD}{}", MSRP.replace("2855", "9").replace("actpass", "active"));
    let sent = body(&invite(&mut bench, &offer));
    assert_eq!(sent, offer.replace("IP4 192.168.1.10", "IP4 22.33.44.55"));
    replies(&mut bench, "200 OK", &format!("{FAR_HEAD}{}", FAR_MSRP.replace("active", "passive")));
    assert_eq!((bench.kernel.pinholes.len(), admitted(&bench).len()), (0, 0));
    asks(&mut bench, "BYE", 99, "z9hG4bK-bye99", "");
    answers(&mut bench, "200 OK", "BYE", 99, "z9hG4bK-bye99", "");
    bench.assert_all_closed();
}

#[test]
fn f20_nobody_is_let_in_whose_address_is_not_one() {
    let far = |connections: &str| {
        format!(
            "v=0\no=- 1 1 IN IP4 22.33.44.22\ns=-\nt=0 0\nm=message 9 TCP/MSRP *\na=setup:active\n{connections}"
        )
    };
    for connections in [
        "c=IN IP4 22.33.44.22\nc=IN IP4 22.33.44.23\n",
        "c=IN IP4 far.example\n",
        "c=IN IP4 0.0.0.0\n",
        "c=IN IP4 239.1.2.3\n",
        "c=IN IP4 127.0.0.1\n",
        "c=IN IP4 22.33.44.55\n",
        "c=IN IP6 2001:db8::22\n",
        "",
    ] {
        let mut bench = bench();
        invite(&mut bench, &format!("{HEAD}{MSRP}"));
        let answer = far(connections);
        assert_eq!(body(&replies(&mut bench, "200 OK", &answer)), answer);
        assert_eq!(admitted(&bench), [], "{connections}");
        hang_up(&mut bench);
    }
}

#[test]
fn f41_a_door_that_nobody_answers_closes_after_32_seconds() {
    let mut bench = bench();
    invite(&mut bench, &format!("{HEAD}{MSRP}"));
    bench.advance(secs(31));
    bench.binding("192.168.1.10:2855");
    bench.advance(secs(2));
    bench.assert_all_closed();
}

#[test]
fn f41_connections_through_one_door_are_few_and_make_room_when_they_end() {
    let mut bench = bench();
    invite(&mut bench, &format!("{HEAD}{MSRP}"));
    let public = bench.binding("192.168.1.10:2855");
    replies(&mut bench, "200 OK", &format!("{FAR_HEAD}{FAR_MSRP}"));
    let from = |n: u16| format!("22.33.44.22:{}", 50000 + n);
    for n in 0..8 {
        assert_eq!(bench.connect(&from(n), public, SYN).reason, Reason::Latched);
    }
    assert_eq!(bench.connect(&from(8), public, SYN).reason, Reason::Quota);
    // conntrack tells the end of the first.
    let gone = bench.kernel.pins.remove(0);
    let tuples = sipalg::alg::Tuples {
        transport: Transport::Tcp,
        orig_source: gone.far,
        orig_destination: public,
        reply_source: gone.inside.0,
        reply_destination: gone.far,
    };
    // Not that of a datagram's flow by the same names.
    bench.input(sipalg::alg::Input::FlowDestroyed(sipalg::alg::Tuples {
        transport: Transport::Udp,
        ..tuples
    }));
    assert_eq!(bench.connect(&from(8), public, SYN).reason, Reason::Quota);
    bench.input(sipalg::alg::Input::FlowDestroyed(tuples));
    assert_eq!(bench.connect(&from(8), public, SYN).reason, Reason::Latched);
    hang_up(&mut bench);
}

#[test]
fn a_session_without_sound_lives_as_long_as_its_connection() {
    let mut bench = bench();
    invite(&mut bench, &format!("{HEAD}{MSRP}"));
    let public = bench.binding("192.168.1.10:2855");
    replies(&mut bench, "200 OK", &format!("{FAR_HEAD}{FAR_MSRP}"));
    bench.connect("22.33.44.22:50000", public, SYN);
    bench.advance(secs(6 * 3600));
    bench.assert_renewed();
    assert_eq!(bench.binding("192.168.1.10:2855"), public);
    // Both ends vanish, and conntrack forgets the connection some day.
    bench.kernel.pins.clear();
    bench.advance(secs(2 * 900 + 100));
    bench.assert_all_closed();
}

#[test]
fn who_asks_sees_the_door_and_who_came_by_it() {
    let mut bench = bench();
    invite(&mut bench, &format!("{HEAD}{MSRP}"));
    let public = bench.binding("192.168.1.10:2855");
    replies(&mut bench, "200 OK", &format!("{FAR_HEAD}{FAR_MSRP}"));
    bench.connect("22.33.44.22:50000", public, SYN);
    let bindings: Vec<_> = bench.engine.bindings().collect();
    let [binding] = &bindings[..] else { panic!("{bindings:?}") };
    assert_eq!((binding.transport, binding.public.0), (Transport::Tcp, public));
    assert_eq!(binding.latched, [at("22.33.44.22:50000")]);
    let calls: Vec<_> = bench.engine.calls(bench.now).collect();
    let stream = &calls[0].legs[0].streams[..];
    let [stream] = stream else { panic!("{stream:?}") };
    assert_eq!((stream.transport, stream.public.0), (Transport::Tcp, public));
    assert_eq!(stream.flows, [connection("192.168.1.10:2855", "22.33.44.22:50000", public)]);
    hang_up(&mut bench);
}

#[test]
fn f16_a_lost_address_takes_its_connections_with_it() {
    let mut bench = bench();
    invite(&mut bench, &format!("{HEAD}{MSRP}"));
    let public = bench.binding("192.168.1.10:2855");
    replies(&mut bench, "200 OK", &format!("{FAR_HEAD}{FAR_MSRP}"));
    bench.connect("22.33.44.22:50000", public, SYN);
    bench.lose("22.33.44.55");
    bench.assert_all_closed();
}

/// Alice calls Bob, who is behind the same NAT, and both have MSRP. What each gets.
fn local_call(bench: &mut Bench, alices: &str, bobs: &str) -> [String; 2] {
    let bob = "192.168.1.11:5060";
    let hello = |who: &str, from: &str| {
        message(
            &format!(
                "REGISTER sip:provider.example SIP/2.0\nVia: SIP/2.0/UDP {from};branch=z9hG4bK-r{who};rport\n\
                 From: <sip:{who}@provider.example>;tag=r\nTo: <sip:{who}@provider.example>\nCall-ID: r-{who}\n\
                 CSeq: 1 REGISTER\nContact: <sip:{who}@{from}>"
            ),
            "",
        )
    };
    bench.out(PHONE, PROXY, hello("alice", PHONE));
    bench.out(bob, PROXY, hello("bob", bob));
    let dialog = Dialog { call_id: "local-1", ..Dialog::default() };
    let sent = bench.out(PHONE, PROXY, request("INVITE", PHONE, 1, dialog, false, alices));
    let forwarded = sent
        .text()
        .replacen("sip:bob@provider.example", &format!("sip:bob@{}", bench.public(bob, PROXY)), 1)
        .replacen("Via:", "Via: SIP/2.0/UDP 22.33.44.20;branch=z9hG4bK-proxy\r\nVia:", 1);
    let rings = bench.inn(PROXY, bob, forwarded);
    let contact = "Contact: <sip:bob@192.168.1.11:5060>\n";
    let ok = bench.out(bob, PROXY, answer(&rings.text(), "200 OK", at(PROXY), contact, bobs)).text();
    let back = ok.replacen("Via: SIP/2.0/UDP 22.33.44.20;branch=z9hG4bK-proxy\r\n", "", 1);
    [body(&rings), body(&bench.inn(PROXY, PHONE, back))]
}

#[test]
fn f34_two_phones_behind_one_nat_connect_directly() {
    let alices = format!("{HEAD}{MSRP}");
    let named = |text: &str, ip: &str| text.replacen(&format!("IP4 {ip}"), "IP4 22.33.44.55", 1);
    for role in ["active", "passive"] {
        let mut bench = bench();
        let bobs = alices.replace("192.168.1.10", "192.168.1.11").replace("actpass", role);
        let [rings, answered] = local_call(&mut bench, &alices, &bobs);
        assert_eq!(rings, named(&alices, "192.168.1.10"), "o= alone stays as it went out");
        let expected = match role {
            "passive" => named(&bobs, "192.168.1.11"),
            // Who connects is known by its address; nobody needs that here.
            _ => bobs.replace("IP4 192.168.1.11", "IP4 22.33.44.55"),
        };
        assert_eq!(answered, expected);
        assert_eq!(admitted(&bench), []);
    }
    // By the router there is no way for connections.
    let mut bench =
        Bench::new(Policy { media_tcp: true, media_local: MediaLocal::Hairpin, ..Policy::default() });
    let bobs = alices.replace("192.168.1.10", "192.168.1.11").replace("actpass", "active");
    let [rings, _] = local_call(&mut bench, &alices, &bobs);
    let public = bench.binding("192.168.1.10:2855");
    assert_eq!(rings, outside(&alices, 2855, public.port()));
    assert_eq!(admitted(&bench), []);
    assert!(bench.public(PHONE, PROXY).to_string() == PUBLIC);
}
