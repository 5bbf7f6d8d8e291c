//! Media: what is open follows each description, and dies when nobody uses it any more.

use crate::common::messages::{Dialog, PHONE, PROXY, request, response, sdp};
use crate::common::{Bench, kind};
use crate::{
    FAR, PUBLIC, RTP, answers, asks, call_up, far_asks, far_request, far_sdp, hang_up, invite, offer,
    phone_answers, replies, secs,
};
use sipalg::alg::{Event, MediaSource, Op, Policy, Reason};

/// How often conntrack was asked.
fn lookups(bench: &Bench) -> usize {
    bench.commands.iter().filter(|op| kind(op) == "lookup").count()
}

/// A description with an audio and a second line.
fn two(ip: &str, audio: u16, second: &str) -> String {
    format!("{}{second}\n", sdp(ip, audio))
}

#[test]
fn streams_come_go_and_move() {
    let mut bench = Bench::default();
    call_up(&mut bench);
    let exchange = |bench: &mut Bench, n: u32, ours: &str, theirs: &str| {
        let branch = format!("z9hG4bK-x{n}");
        asks(bench, "INVITE", n, &branch, ours);
        answers(bench, "200 OK", "INVITE", n, &branch, theirs);
        bench.advance(secs(40));
    };
    let video = |ip, port| {
        two(ip, if ip == "192.168.1.10" { 40000 } else { 30000 }, &format!("m=video {port} RTP/AVP 31"))
    };
    exchange(&mut bench, 2, &video("192.168.1.10", 41000), &video("22.33.44.22", 31000));
    bench.assert_pinned(RTP, FAR);
    bench.assert_pinned("192.168.1.10:41000", "22.33.44.22:31000");
    let public = bench.binding("192.168.1.10:41000");
    // Off, and on again: the same door.
    exchange(&mut bench, 3, &video("192.168.1.10", 0), &video("22.33.44.22", 0));
    bench.assert_pinned(RTP, FAR);
    exchange(&mut bench, 4, &video("192.168.1.10", 41000), &video("22.33.44.22", 31000));
    assert_eq!(bench.binding("192.168.1.10:41000"), public);
    bench.assert_pinned("192.168.1.10:41000", "22.33.44.22:31000");
    // The far end moves to another machine, the phone to another port.
    exchange(&mut bench, 5, &sdp("192.168.1.10", 45000), &sdp("22.33.44.99", 35000));
    bench.assert_pinned("192.168.1.10:45000", "22.33.44.99:35000");
    assert_eq!(bench.kernel.pins.len(), 2, "{:?}", bench.kernel.pins);
    let fars: Vec<_> = bench.kernel.peers.iter().filter_map(|peer| peer.far).collect();
    assert!(fars.iter().all(|far| far.to_string() == "22.33.44.99"), "{fars:?}");
    hang_up(&mut bench);
}

#[test]
fn f30_a_fax_and_back_to_speech() {
    let mut bench = Bench::default();
    call_up(&mut bench);
    let fax = |ip: &str, port: u16| {
        format!(
            "v=0\no=- 1 2 IN IP4 {ip}\ns=-\nc=IN IP4 {ip}\nt=0 0\nm=image {port} udptl t38\na=T38FaxVersion:0\n"
        )
    };
    for n in 0..3 {
        let (there, back) = (format!("z9hG4bK-fax{n}"), format!("z9hG4bK-speech{n}"));
        let got =
            far_asks(&mut bench, &far_request("INVITE", 10 + 2 * n, &there, &fax("22.33.44.22", 34000)));
        phone_answers(&mut bench, &got, "200 OK", &fax("192.168.1.10", 4006));
        bench.assert_pinned("192.168.1.10:4006", "22.33.44.22:34000");
        assert_eq!(bench.kernel.pins.len(), 1, "fax has no RTCP, and speech is over");
        let got = far_asks(&mut bench, &far_request("INVITE", 11 + 2 * n, &back, &far_sdp()));
        phone_answers(&mut bench, &got, "200 OK", &offer());
        bench.assert_pinned(RTP, FAR);
        assert_eq!(bench.kernel.pins.len(), 2);
    }
    hang_up(&mut bench);
}

#[test]
fn f37_a_stream_may_move_to_another_family() {
    let mut bench = Bench::default();
    call_up(&mut bench);
    let six = sdp("2001:db8::22", 36000).replace("IP4", "IP6");
    asks(&mut bench, "INVITE", 2, "z9hG4bK-six", &offer());
    answers(&mut bench, "200 OK", "INVITE", 2, "z9hG4bK-six", &six);
    // No translation leads from one family to the other; the next description is as good as ever.
    asks(&mut bench, "INVITE", 3, "z9hG4bK-four", &offer());
    answers(&mut bench, "200 OK", "INVITE", 3, "z9hG4bK-four", &far_sdp());
    bench.assert_pinned(RTP, FAR);
    assert_eq!(bench.kernel.pins.len(), 2);
    hang_up(&mut bench);
}

#[test]
fn f17_f39_a_call_on_hold_for_hours_comes_back() {
    for hold in ["a=sendonly", "a=inactive", "c=IN IP4 0.0.0.0"] {
        let mut bench = Bench::default();
        call_up(&mut bench);
        let public = bench.binding(RTP);
        asks(&mut bench, "INVITE", 2, "z9hG4bK-hold", &two("192.168.1.10", 40000, hold));
        answers(&mut bench, "200 OK", "INVITE", 2, "z9hG4bK-hold", &two("22.33.44.22", 30000, "a=inactive"));
        bench.media_dies(RTP, FAR);
        bench.media_dies("192.168.1.10:40001", "22.33.44.22:30001");
        let asked = lookups(&bench);
        for _ in 0..16 {
            bench.advance(secs(1800));
            bench.assert_renewed();
            assert_eq!(bench.binding(RTP), public);
        }
        assert_eq!(lookups(&bench), asked, "nobody is asked for media that is not meant to be");
        // The signalling lives too: a message can still come in.
        let (flow, lifetime) = bench.kernel.sustained.last().unwrap();
        assert_eq!(flow.inside.0.to_string(), PHONE);
        assert!(
            *lifetime >= secs(3600) && bench.kernel.sustained.len() >= 8,
            "{}",
            bench.kernel.sustained.len()
        );
        asks(&mut bench, "INVITE", 3, "z9hG4bK-resume", &offer());
        answers(&mut bench, "200 OK", "INVITE", 3, "z9hG4bK-resume", &far_sdp());
        bench.assert_pinned(RTP, FAR);
        assert_eq!(bench.binding(RTP), public);
        hang_up(&mut bench);
    }
}

#[test]
fn a_call_that_was_never_resumed_ends_some_day() {
    let mut bench = Bench::default();
    call_up(&mut bench);
    asks(&mut bench, "INVITE", 2, "z9hG4bK-hold", &two("192.168.1.10", 40000, "a=inactive"));
    answers(&mut bench, "200 OK", "INVITE", 2, "z9hG4bK-hold", &far_sdp());
    bench.advance(secs(11 * 3600));
    bench.binding(RTP);
    bench.advance(secs(2 * 3600));
    bench.assert_all_closed();
}

#[test]
fn media_that_resumes_after_an_hour_is_let_in_from_its_first_packet_but_one() {
    let mut bench = Bench::default();
    call_up(&mut bench);
    let public = bench.binding(RTP);
    asks(&mut bench, "INVITE", 2, "z9hG4bK-hold", &two("192.168.1.10", 40000, "a=inactive"));
    answers(&mut bench, "200 OK", "INVITE", 2, "z9hG4bK-hold", &far_sdp());
    bench.media_dies(RTP, FAR);
    bench.advance(secs(3600));
    bench.assert_renewed();
    // Without a word before it: the guard hands the first packet up, and its flow is pinned.
    assert_eq!(bench.latch(FAR, public).reason, Reason::Latched);
    bench.assert_pinned(RTP, FAR);
    hang_up(&mut bench);
}

#[test]
fn a_far_end_that_sends_from_elsewhere_or_moves_is_followed() {
    let mut bench = Bench::default();
    call_up(&mut bench);
    let public = bench.binding(RTP);
    for port in 40000..40020 {
        let far = format!("22.33.44.22:{port}");
        assert_eq!(bench.latch(&far, public).reason, Reason::Latched, "{far}");
        bench.assert_pinned(RTP, &far);
        bench.media_dies(RTP, &far);
    }
    assert_eq!(bench.latch("22.33.44.23:30000", public).reason, Reason::NotNegotiated);
    hang_up(&mut bench);
}

#[test]
fn f39_a_call_is_over_when_its_media_is_and_not_when_it_is_muted() {
    let mut bench = Bench::default();
    call_up(&mut bench);
    // Both sides are mute for ten minutes, twice in an hour, just when the clock would ask.
    for _ in 0..4 {
        bench.advance(secs(800));
        bench.media_dies(RTP, FAR);
        bench.advance(secs(600));
        assert_eq!(bench.engine.sizes().calls, 1);
        let public = bench.binding(RTP);
        bench.latch(FAR, public);
    }
    // Sound by a port that nobody announced is sound.
    bench.media_dies(RTP, FAR);
    bench.media_dies("192.168.1.10:40001", "22.33.44.22:30001");
    let public = bench.binding(RTP);
    bench.latch("22.33.44.22:39999", public);
    let asked = lookups(&bench);
    bench.advance(secs(4 * 3600));
    bench.assert_pinned(RTP, "22.33.44.22:39999");
    assert!(lookups(&bench) - asked <= 4 * 4 * 3, "conntrack is asked now and then, not all the time");
    // Then both vanish.
    bench.media_dies(RTP, "22.33.44.22:39999");
    bench.advance(secs(890));
    assert_eq!(bench.engine.sizes().calls, 1);
    bench.advance(secs(1100));
    bench.assert_all_closed();
    assert!(bench.events.iter().any(|it| matches!(it, Event::CallEnded { why: "inactive", .. })));
}

#[test]
fn media_that_lapsed_is_pinned_again_by_the_next_answer() {
    let mut bench = Bench::default();
    call_up(&mut bench);
    bench.media_dies(RTP, FAR);
    // The same descriptions once more, as a session refresh has them.
    asks(&mut bench, "INVITE", 2, "z9hG4bK-refresh", &offer());
    answers(&mut bench, "200 OK", "INVITE", 2, "z9hG4bK-refresh", &far_sdp());
    bench.assert_pinned(RTP, FAR);
    let commands = bench.commands.len();
    asks(&mut bench, "INVITE", 3, "z9hG4bK-refresh2", &offer());
    answers(&mut bench, "200 OK", "INVITE", 3, "z9hG4bK-refresh2", &far_sdp());
    assert_eq!(bench.commands.len(), commands, "only what is missing is asked for");
    hang_up(&mut bench);
}

#[test]
fn f41_doors_that_lead_to_nothing_close_after_32_seconds_also_in_the_kernel() {
    let mut bench = Bench::default();
    invite(&mut bench, &offer());
    let lifetimes: Vec<_> = bench
        .commands
        .iter()
        .filter_map(|op| match op {
            Op::Open { lifetime, .. } => Some(*lifetime),
            _ => None,
        })
        .collect();
    assert_eq!(lifetimes, [secs(64)], "what the daemon loses, the kernel closes");
    bench.advance(secs(33));
    bench.assert_all_closed();
}

#[test]
fn f01_any_source_may_send_where_the_policy_says_so_and_only_while_the_call_lives() {
    let mut bench = Bench::new(Policy { media_source: MediaSource::Any, ..Policy::default() });
    call_up(&mut bench);
    let public = bench.binding(RTP);
    for far in ["99.1.2.3:7000", "22.33.44.22:30000", "8.7.6.5:44"] {
        assert_eq!(bench.latch(far, public).reason, Reason::Latched, "{far}");
    }
    hang_up(&mut bench);
    assert_eq!(bench.latch("99.1.2.3:7000", public).reason, Reason::NotNegotiated);
}

#[test]
fn f27_rtcp_follows_its_stream() {
    let mut bench = Bench::default();
    let ours = two("192.168.1.10", 40000, "a=rtcp:53000");
    invite(&mut bench, &ours);
    replies(&mut bench, "200 OK", &two("22.33.44.22", 30000, "a=rtcp:33333 IN IP4 22.33.44.23"));
    bench.assert_pinned(RTP, FAR);
    bench.assert_pinned("192.168.1.10:53000", "22.33.44.23:33333");
    // Then both share one port (RFC 5761).
    asks(&mut bench, "INVITE", 2, "z9hG4bK-mux", &two("192.168.1.10", 40000, "a=rtcp-mux"));
    answers(&mut bench, "200 OK", "INVITE", 2, "z9hG4bK-mux", &two("22.33.44.22", 30000, "a=rtcp-mux"));
    assert_eq!(bench.kernel.pins.len(), 1, "{:?}", bench.kernel.pins);
    hang_up(&mut bench);
}

#[test]
fn f27_rtcp_that_was_elsewhere_comes_to_the_next_port() {
    // Nothing says where RTCP is then: the far end sends it to the port after that of RTP (RFC 3550 section 11).
    let mut bench = Bench::default();
    invite(&mut bench, &two("192.168.1.10", 40000, "a=rtcp:53000"));
    replies(&mut bench, "200 OK", &far_sdp());
    bench.assert_pinned("192.168.1.10:53000", "22.33.44.22:30001");
    let rtp = bench.binding(RTP);
    asks(&mut bench, "INVITE", 2, "z9hG4bK-next", &offer());
    answers(&mut bench, "200 OK", "INVITE", 2, "z9hG4bK-next", &far_sdp());
    bench.assert_pinned("192.168.1.10:40001", "22.33.44.22:30001");
    assert_eq!(bench.binding(RTP), rtp);
    assert_eq!(bench.binding("192.168.1.10:40001").port(), rtp.port() + 1);
    hang_up(&mut bench);
}

#[test]
fn a_second_call_with_the_same_port_keeps_its_media_when_the_first_one_ends() {
    let mut bench = Bench::default();
    call_up(&mut bench);
    let second = Dialog { call_id: "call-2", from_tag: "a2", to_tag: "b2", branch: "z9hG4bK-2nd" };
    bench.out(PHONE, PROXY, request("INVITE", PHONE, 1, second, false, &offer()));
    bench.inn(PROXY, PHONE, response("200 OK", "INVITE", PUBLIC, 1, second, &far_sdp()));
    asks(&mut bench, "BYE", 99, "z9hG4bK-bye99", "");
    answers(&mut bench, "200 OK", "BYE", 99, "z9hG4bK-bye99", "");
    bench.assert_pinned(RTP, FAR);
    assert_eq!(bench.kernel.peers.len(), 2);
    let bye = Dialog { branch: "z9hG4bK-2bye", ..second };
    bench.out(PHONE, PROXY, request("BYE", PHONE, 2, bye, true, ""));
    bench.inn(PROXY, PHONE, response("200 OK", "BYE", PUBLIC, 2, bye, ""));
    bench.assert_all_closed();
}
