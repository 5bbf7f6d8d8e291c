//! Dialogs and transactions from their first message to their last: forks, late offers, retransmissions, transfers,
//! sessions that last. Offers in a running call are in `offers.rs`, how calls end in `endings.rs`.

use crate::common::Bench;
use crate::common::messages::{Dialog, PHONE, PROXY, request, response, sdp};
use crate::{
    FAR, PUBLIC, RTP, answers, asks, assert_all_forgotten, call_up, far_asks, far_invites, far_request,
    far_sdp, hang_up, invite, offer, phone_answers, replies, secs,
};
use sipalg::alg::{Event, Reason};

#[test]
fn every_branch_of_a_fork_has_its_media_and_the_losers_go() {
    let mut bench = Bench::default();
    invite(&mut bench, &offer());
    let branches = ["a", "b", "c"].map(|to_tag| Dialog { to_tag, ..Dialog::default() });
    let reply = |bench: &mut Bench, dialog, status: &str, port| {
        let body = if port == 0 { String::new() } else { sdp("22.33.44.22", port) };
        bench.inn(PROXY, PHONE, response(status, "INVITE", PUBLIC, 1, dialog, &body));
    };
    reply(&mut bench, branches[0], "183 Session Progress", 30000);
    reply(&mut bench, branches[1], "183 Session Progress", 31000);
    reply(&mut bench, branches[2], "180 Ringing", 0);
    bench.assert_pinned(RTP, "22.33.44.22:30000");
    bench.assert_pinned(RTP, "22.33.44.22:31000");
    reply(&mut bench, branches[1], "200 OK", 31000);
    // Somebody else picked up at the same moment; the phone will hang up on one of them.
    let late = Dialog { to_tag: "late", ..Dialog::default() };
    reply(&mut bench, late, "200 OK", 32000);
    bench.assert_pinned(RTP, "22.33.44.22:32000");
    bench.advance(secs(33));
    assert_eq!(bench.kernel.pins.len(), 4, "the two that answered: {:?}", bench.kernel.pins);
    for (n, dialog) in [(1, late), (2, branches[1])] {
        let branch = format!("z9hG4bK-bye{n}");
        let dialog = Dialog { branch: &branch, ..dialog };
        bench.out(PHONE, PROXY, request("BYE", PHONE, 2, dialog, true, ""));
        bench.inn(PROXY, PHONE, response("200 OK", "BYE", PUBLIC, 2, dialog, ""));
        bench.assert_pinned_if(n == 1, RTP, "22.33.44.22:31000");
    }
    bench.assert_all_closed();
    assert_all_forgotten(&mut bench);
}

#[test]
fn late_copies_of_what_ended_phones_had_answered_begin_nothing() {
    let mut bench = Bench::default();
    invite(&mut bench, &offer());
    let answered = ["a", "b", "c"].map(|to_tag| {
        let dialog = Dialog { to_tag, ..Dialog::default() };
        let text = response("200 OK", "INVITE", PUBLIC, 1, dialog, &far_sdp());
        bench.inn(PROXY, PHONE, &text);
        (to_tag, text)
    });
    for (n, (to_tag, _)) in (2..).zip(&answered) {
        let branch = format!("z9hG4bK-bye{n}");
        let dialog = Dialog { branch: &branch, to_tag, ..Dialog::default() };
        bench.out(PHONE, PROXY, request("BYE", PHONE, n, dialog, true, ""));
        bench.inn(PROXY, PHONE, response("200 OK", "BYE", PUBLIC, n, dialog, ""));
    }
    bench.assert_all_closed();
    for (_, text) in answered {
        bench.inn(PROXY, PHONE, text);
        bench.assert_all_closed();
    }
}

#[test]
fn the_offer_may_come_with_the_answer_and_its_answer_with_the_ack() {
    // Third party call control (RFC 3725): the INVITE that comes in has no description.
    let mut bench = Bench::default();
    call_up(&mut bench);
    let got = far_asks(&mut bench, &far_request("INVITE", 1, "z9hG4bK-3pcc", ""));
    phone_answers(&mut bench, &got, "200 OK", &sdp("192.168.1.10", 42000));
    bench.binding("192.168.1.10:42000");
    let ack = far_request("ACK", 1, "z9hG4bK-3pack", &sdp("22.33.44.77", 35000));
    far_asks(&mut bench, &ack);
    bench.assert_pinned("192.168.1.10:42000", "22.33.44.77:35000");
    hang_up(&mut bench);
}

#[test]
fn a_late_copy_of_an_ack_that_answered_an_offer_changes_nothing() {
    // By then the far end has moved on (RFC 3261 section 13.2.2.4: each copy of the 2xx gets the ACK again).
    for update in [false, true] {
        let mut bench = Bench::default();
        call_up(&mut bench);
        let got = far_asks(&mut bench, &far_request("INVITE", 1, "z9hG4bK-late", ""));
        phone_answers(&mut bench, &got, "200 OK", &offer());
        let ack = far_request("ACK", 1, "z9hG4bK-late-ack", &sdp("22.33.44.77", 35000));
        far_asks(&mut bench, &ack);
        bench.assert_pinned(RTP, "22.33.44.77:35000");
        let method = if update { "UPDATE" } else { "INVITE" };
        let moves = far_request(method, 2, "z9hG4bK-moves", &sdp("22.33.44.99", 36000));
        let got = far_asks(&mut bench, &moves);
        far_asks(&mut bench, &ack);
        phone_answers(&mut bench, &got, "200 OK", &offer());
        bench.assert_pinned(RTP, "22.33.44.99:36000");
        let kernel = bench.kernel.clone();
        let copy = far_asks(&mut bench, &ack);
        assert!(copy.text().contains("22.33.44.77"));
        assert_eq!(bench.kernel, kernel);
        hang_up(&mut bench);
    }
}

#[test]
fn a_late_offer_in_a_reliable_provisional_answer_is_answered_by_prack() {
    let mut bench = Bench::default();
    invite(&mut bench, &offer());
    replies(&mut bench, "200 OK", &far_sdp());
    let got = far_asks(&mut bench, &far_request("INVITE", 1, "z9hG4bK-late", ""));
    phone_answers(&mut bench, &got, "183 Session Progress", &sdp("192.168.1.10", 42000));
    let got = far_asks(&mut bench, &far_request("PRACK", 2, "z9hG4bK-prack", &sdp("22.33.44.77", 35000)));
    bench.assert_pinned("192.168.1.10:42000", "22.33.44.77:35000");
    phone_answers(&mut bench, &got, "200 OK", "");
    bench.assert_pinned("192.168.1.10:42000", "22.33.44.77:35000");
    hang_up(&mut bench);
}

#[test]
fn a_redirected_call_goes_on_at_another_server() {
    let mut bench = Bench::default();
    invite(&mut bench, &offer());
    replies(&mut bench, "302 Moved Temporarily", "");
    let other = "22.33.44.30:5060";
    let dialog = Dialog { branch: "z9hG4bK-moved", ..Dialog::default() };
    bench.out(PHONE, other, request("INVITE", PHONE, 2, dialog, false, &offer()));
    let seen = bench.public(PHONE, other).to_string();
    bench.inn(other, PHONE, response("200 OK", "INVITE", &seen, 2, dialog, &far_sdp()));
    bench.assert_pinned(RTP, FAR);
    bench.advance(secs(300));
    bench.assert_pinned(RTP, FAR);
    let bye = Dialog { branch: "z9hG4bK-movedbye", ..dialog };
    bench.out(PHONE, other, request("BYE", PHONE, 3, bye, true, ""));
    bench.inn(other, PHONE, response("200 OK", "BYE", &seen, 3, bye, ""));
    bench.assert_all_closed();
}

#[test]
fn retransmissions_have_the_same_bytes_at_every_point() {
    let mut bench = Bench::default();
    let twice_out = |bench: &mut Bench, text: &str| {
        let first = bench.out(PHONE, PROXY, text);
        let (commands, events) = (bench.commands.len(), bench.events.len());
        assert_eq!(bench.out(PHONE, PROXY, text), first);
        assert_eq!((bench.commands.len(), bench.events.len()), (commands, events), "{text}");
    };
    let twice_in = |bench: &mut Bench, text: &str| {
        let first = bench.inn(PROXY, PHONE, text);
        let (commands, events) = (bench.commands.len(), bench.events.len());
        assert_eq!(bench.inn(PROXY, PHONE, text), first);
        assert_eq!((bench.commands.len(), bench.events.len()), (commands, events), "{text}");
    };
    let dialog = Dialog::default();
    let of = |branch| Dialog { branch, ..dialog };
    twice_out(&mut bench, &request("INVITE", PHONE, 1, dialog, false, &offer()));
    twice_in(&mut bench, &response("407 Proxy Authentication Required", "INVITE", PUBLIC, 1, dialog, ""));
    twice_out(&mut bench, &request("ACK", PHONE, 1, dialog, true, ""));
    let again = of("z9hG4bK-again");
    twice_out(&mut bench, &request("INVITE", PHONE, 2, again, false, &offer()));
    twice_in(&mut bench, &response("183 Session Progress", "INVITE", PUBLIC, 2, again, &far_sdp()));
    twice_out(&mut bench, &request("PRACK", PHONE, 3, of("z9hG4bK-prack"), true, ""));
    twice_in(&mut bench, &response("200 OK", "PRACK", PUBLIC, 3, of("z9hG4bK-prack"), ""));
    // The ACK gets lost three times.
    for _ in 0..3 {
        twice_in(&mut bench, &response("200 OK", "INVITE", PUBLIC, 2, again, &far_sdp()));
        twice_out(&mut bench, &request("ACK", PHONE, 2, of("z9hG4bK-ack"), true, ""));
    }
    twice_in(&mut bench, &far_request("INVITE", 1, "z9hG4bK-hold", &sdp("22.33.44.22", 33000)));
    let got = far_asks(&mut bench, &far_request("INVITE", 1, "z9hG4bK-hold", &sdp("22.33.44.22", 33000)));
    let first = phone_answers(&mut bench, &got, "200 OK", &offer());
    assert_eq!(phone_answers(&mut bench, &got, "200 OK", &offer()), first);
    bench.assert_pinned(RTP, "22.33.44.22:33000");
    twice_out(&mut bench, &request("BYE", PHONE, 9, of("z9hG4bK-bye"), true, ""));
    twice_in(&mut bench, &response("200 OK", "BYE", PUBLIC, 9, of("z9hG4bK-bye"), ""));
    bench.assert_all_closed();
}

#[test]
fn copies_that_come_late_change_nothing() {
    let mut bench = Bench::default();
    let first = request("INVITE", PHONE, 1, Dialog::default(), false, &offer());
    bench.out(PHONE, PROXY, &first);
    let early =
        response("183 Session Progress", "INVITE", PUBLIC, 1, Dialog::default(), &sdp("22.33.44.22", 29000));
    bench.inn(PROXY, PHONE, &early);
    let ok = response("200 OK", "INVITE", PUBLIC, 1, Dialog::default(), &far_sdp());
    bench.inn(PROXY, PHONE, &ok);
    asks(&mut bench, "INVITE", 2, "z9hG4bK-re", &sdp("192.168.1.10", 42000));
    answers(&mut bench, "200 OK", "INVITE", 2, "z9hG4bK-re", &sdp("22.33.44.22", 33000));
    bench.assert_pinned("192.168.1.10:42000", "22.33.44.22:33000");
    let (kernel, commands) = (bench.kernel.clone(), bench.commands.len());
    for (copy, body) in [(&early, sdp("22.33.44.22", 29000)), (&ok, far_sdp())] {
        let got = bench.inn(PROXY, PHONE, copy).text();
        assert!(got.ends_with(&body.replace('\n', "\r\n")), "{got}");
    }
    let sent = bench.out(PHONE, PROXY, &first).text();
    assert!(sent.contains("c=IN IP4 22.33.44.55\r\n"), "{sent}");
    assert_eq!((&bench.kernel, bench.commands.len()), (&kernel, commands));
    hang_up(&mut bench);
    for text in [&early, &ok] {
        bench.inn(PROXY, PHONE, text);
    }
    bench.out(PHONE, PROXY, &first);
    bench.assert_all_closed();
    assert_all_forgotten(&mut bench);
}

#[test]
fn transfers_and_pickups_are_calls_of_their_own() {
    // Alice calls Bob, calls Carol, and connects the two (RFC 3891); both of Alice's calls end, one after the other.
    let mut bench = Bench::default();
    call_up(&mut bench);
    let second = Dialog { call_id: "call-2", from_tag: "alice-2", to_tag: "carol", branch: "z9hG4bK-c2" };
    bench.out(PHONE, PROXY, request("INVITE", PHONE, 1, second, false, &sdp("192.168.1.10", 44000)));
    bench.inn(PROXY, PHONE, response("200 OK", "INVITE", PUBLIC, 1, second, &sdp("22.33.44.22", 34000)));
    let refer = Dialog { branch: "z9hG4bK-refer", ..Dialog::default() };
    let target = "<sip:carol@22.33.44.21?Replaces=call-2%3Bto-tag%3Dcarol%3Bfrom-tag%3Dalice-2>";
    let text = request("REFER", PHONE, 3, refer, true, "").replacen(
        "User-Agent:",
        &format!("Refer-To: {target}\r\nReferred-By: <sip:alice@{PHONE}>\r\nUser-Agent:"),
        1,
    );
    let sent = bench.out(PHONE, PROXY, &text).text();
    assert!(sent.contains(target) && sent.contains(&format!("Referred-By: <sip:alice@{PUBLIC}>")), "{sent}");
    bench.inn(PROXY, PHONE, response("202 Accepted", "REFER", PUBLIC, 3, refer, ""));
    let got = far_asks(&mut bench, &far_request("NOTIFY", 4, "z9hG4bK-notify", ""));
    phone_answers(&mut bench, &got, "200 OK", "");
    bench.assert_pinned(RTP, FAR);
    bench.assert_pinned("192.168.1.10:44000", "22.33.44.22:34000");
    // Carol's side of the second call is replaced: she hangs up on Alice.
    let bye = far_request("BYE", 2, "z9hG4bK-carolbye", "")
        .replace("call-1@192.168.1.10", "call-2")
        .replace("tag=bob-1", "tag=carol")
        .replace("tag=alice-1", "tag=alice-2");
    let got = far_asks(&mut bench, &bye);
    phone_answers(&mut bench, &got, "200 OK", "");
    assert_eq!(bench.kernel.pins.len(), 2);
    bench.assert_pinned(RTP, FAR);
    // Somebody picks a call up at Alice's phone: an INVITE with Replaces is a call like any other.
    let pickup = Dialog { call_id: "call-3", from_tag: "alice-3", to_tag: "dan", branch: "z9hG4bK-c3" };
    let text = request("INVITE", PHONE, 1, pickup, false, &sdp("192.168.1.10", 46000)).replacen(
        "User-Agent:",
        "Replaces: 98asjd8@pbx.example;to-tag=x;from-tag=y;early-only\r\nUser-Agent:",
        1,
    );
    let sent = bench.out(PHONE, PROXY, &text).text();
    assert!(sent.contains("\r\nReplaces: 98asjd8@pbx.example;to-tag=x;from-tag=y;early-only\r\n"));
    bench.inn(PROXY, PHONE, response("200 OK", "INVITE", PUBLIC, 1, pickup, &sdp("22.33.44.22", 36000)));
    bench.assert_pinned("192.168.1.10:46000", "22.33.44.22:36000");
    let bye = Dialog { branch: "z9hG4bK-c3bye", ..pickup };
    bench.out(PHONE, PROXY, request("BYE", PHONE, 2, bye, true, ""));
    bench.inn(PROXY, PHONE, response("200 OK", "BYE", PUBLIC, 2, bye, ""));
    hang_up(&mut bench);
}

#[test]
fn a_session_with_timer_lives_for_days() {
    let mut bench = Bench::default();
    call_up(&mut bench);
    for n in 0..2 * 48 {
        bench.advance(secs(1800));
        let branch = format!("z9hG4bK-st{n}");
        asks(&mut bench, "UPDATE", 10 + n, &branch, "");
        answers(&mut bench, "200 OK", "UPDATE", 10 + n, &branch, "");
        bench.assert_renewed();
        bench.assert_pinned(RTP, FAR);
    }
    assert_eq!(bench.count(Reason::UnknownFlow), 0);
    hang_up(&mut bench);
}

#[test]
fn two_sides_that_are_mute_are_together_for_as_long_as_their_session_timer_says() {
    let timer = |text: String| text.replacen("CSeq:", "Session-Expires: 3600 ;refresher=uac\nCSeq:", 1);
    let update = |bench: &mut Bench, n: u32, with_timer: bool| {
        let branch = format!("z9hG4bK-st{n}");
        asks(bench, "UPDATE", 10 + n, &branch, "");
        let dialog = Dialog { branch: &branch, ..Dialog::default() };
        let answer = response("200 OK", "UPDATE", PUBLIC, 10 + n, dialog, "");
        bench.inn(PROXY, PHONE, if with_timer { timer(answer) } else { answer });
    };
    let mut bench = Bench::default();
    invite(&mut bench, &offer());
    let answer = response("200 OK", "INVITE", PUBLIC, 1, Dialog::default(), &far_sdp());
    bench.inn(PROXY, PHONE, timer(answer));
    bench.media_dies(RTP, FAR);
    bench.media_dies("192.168.1.10:40001", "22.33.44.22:30001");
    // Refreshed at half of the time, as RFC 4028 section 7.2 has it; the phone's and the far end's media is dead all day.
    for n in 0..24 {
        bench.advance(secs(1800));
        assert_eq!(bench.engine.sizes().calls, 1, "after {n} refreshes");
        update(&mut bench, n, true);
    }
    // Nobody refreshes it any more: it is over a while after the hour, not before.
    bench.advance(secs(3500));
    assert_eq!(bench.engine.sizes().calls, 1);
    bench.advance(secs(1000));
    bench.assert_all_closed();
}

#[test]
fn a_phone_that_is_transferred_gets_the_invite_with_replaces_to_the_letter() {
    // The other end of an attended transfer (RFC 3891 section 1): a third party takes Bob's place in Alice's call.
    let mut bench = Bench::default();
    call_up(&mut bench);
    let replaces = "Replaces: call-1@192.168.1.10;to-tag=alice-1;from-tag=bob-1";
    let invite = far_request("INVITE", 1, "z9hG4bK-replaces", &sdp("22.33.44.77", 37000))
        .replace(";tag=alice-1", "")
        .replace("tag=bob-1", "tag=carol-1")
        .replace("Call-ID: call-1@192.168.1.10", &format!("Call-ID: transfer\r\n{replaces}"));
    let got = far_asks(&mut bench, &invite);
    assert!(got.text().contains(&format!("\r\n{replaces}\r\n")), "{}", got.text());
    // Another port for the new call; the old one is hung up by the phone.
    phone_answers(&mut bench, &got, "200 OK", &sdp("192.168.1.10", 47000));
    bench.assert_pinned("192.168.1.10:47000", "22.33.44.77:37000");
    bench.assert_pinned(RTP, FAR);
    asks(&mut bench, "BYE", 99, "z9hG4bK-bye99", "");
    answers(&mut bench, "200 OK", "BYE", 99, "z9hG4bK-bye99", "");
    bench.assert_pinned("192.168.1.10:47000", "22.33.44.77:37000");
    assert_eq!(bench.kernel.pins.len(), 2, "the first call's media is over");
    let bye = far_request("BYE", 2, "z9hG4bK-carolbye", "")
        .replace("call-1@192.168.1.10", "transfer")
        .replace("tag=bob-1", "tag=carol-1");
    let got = far_asks(&mut bench, &bye.replace("tag=alice-1", "tag=bob-1"));
    phone_answers(&mut bench, &got, "200 OK", "");
    bench.assert_all_closed();
}

#[test]
fn requests_outside_of_calls_pass_both_ways_and_leave_nothing() {
    for method in ["MESSAGE", "OPTIONS", "PUBLISH", "NOTIFY", "REFER"] {
        let mut bench = Bench::default();
        let dialog = Dialog { call_id: "alone", ..Dialog::default() };
        let sent = bench.out(PHONE, PROXY, request(method, PHONE, 1, dialog, false, "")).text();
        assert_eq!(sent, request(method, PUBLIC, 1, dialog, false, ""), "{method}");
        let got = bench.inn(PROXY, PHONE, response("200 OK", method, PUBLIC, 1, dialog, "")).text();
        assert!(got.contains(&format!("Via: SIP/2.0/UDP {PHONE};branch=z9hG4bK-1;rport=5060;")), "{got}");
        let asked = far_request(method, 1, "z9hG4bK-in", "").replace(";tag=alice-1", "");
        let got = far_asks(&mut bench, &asked);
        assert_eq!(got.text(), asked.replace(PUBLIC, PHONE), "{method}");
        let sent = phone_answers(&mut bench, &got, "200 OK", "").text();
        assert!(sent.contains(&format!("Contact: <sip:alice@{PUBLIC}>")), "{sent}");
        assert_eq!(bench.engine.sizes().calls, 0, "{method}");
        assert!(bench.kernel.pinholes.is_empty(), "{method}");
        assert_all_forgotten(&mut bench);
    }
}

/// Many back-to-back user agents send one provisional answer only, however long the callee or an announcement takes.
#[test]
fn early_media_after_one_183_runs_until_the_late_answer_and_on() {
    let mut bench = Bench::default();
    invite(&mut bench, &offer());
    replies(&mut bench, "183 Session Progress", &far_sdp());
    for _ in 0..11 {
        bench.advance(secs(300));
        bench.assert_pinned(RTP, FAR);
    }
    replies(&mut bench, "200 OK", &far_sdp());
    asks(&mut bench, "ACK", 1, "z9hG4bK-ack", "");
    bench.advance(secs(600));
    bench.assert_pinned(RTP, FAR);
    hang_up(&mut bench);
    assert_all_forgotten(&mut bench);
}

#[test]
fn an_inbound_call_that_rings_for_long_after_one_180_has_media() {
    let mut bench = Bench::default();
    bench.out(PHONE, PROXY, request("MESSAGE", PHONE, 1, Dialog::default(), false, ""));
    let got = far_invites(&mut bench, "z9hG4bK-in");
    phone_answers(&mut bench, &got, "180 Ringing", "");
    bench.advance(secs(310));
    phone_answers(&mut bench, &got, "200 OK", &offer());
    bench.assert_pinned(RTP, FAR);
    bench.advance(secs(600));
    bench.assert_pinned(RTP, FAR);
}

#[test]
fn an_invite_that_comes_by_two_ways_is_refused_once_and_answered_once() {
    // RFC 3261 section 8.2.2.2: a fork on the way here has met again, and the phone says 482 to the second branch.
    let mut bench = Bench::default();
    bench.out(PHONE, PROXY, request("MESSAGE", PHONE, 1, Dialog::default(), false, ""));
    let [one, two] = ["z9hG4bK-one", "z9hG4bK-two"].map(|branch| far_invites(&mut bench, branch));
    phone_answers(&mut bench, &one, "180 Ringing", "");
    phone_answers(&mut bench, &two, "482 Loop Detected", "");
    bench.advance(secs(40));
    phone_answers(&mut bench, &one, "200 OK", &offer());
    bench.assert_pinned(RTP, FAR);
    assert_eq!(bench.engine.sizes().calls, 1);
    let ended = bench.events.iter().any(|event| matches!(event, Event::CallEnded { .. }));
    assert!(!ended, "{:?}", bench.events);
}
