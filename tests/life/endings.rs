//! How a call ends, or never begins: BYE and its refusals, CANCEL and its races, refusals, challenges and redirections
//! that lead to nothing (RFC 3261 9, 15).

use crate::common::messages::{Dialog, PHONE, PROXY, answer, request, response, sdp};
use crate::common::{Bench, Passed, at};
use crate::{
    FAR, PUBLIC, RTP, answers, asks, call_up, far_asks, far_invites, far_request, far_sdp, hang_up, invite,
    offer, phone_answers, replies, secs,
};
use sipalg::alg::Event;

/// Another server that the phone speaks with, and so can send to it.
const STRANGER: &str = "66.6.6.6:5060";

#[test]
fn an_answer_that_crosses_its_cancel_is_a_call() {
    let mut bench = Bench::default();
    invite(&mut bench, &offer());
    replies(&mut bench, "180 Ringing", "");
    let dialog = Dialog::default();
    bench.out(PHONE, PROXY, request("CANCEL", PHONE, 1, dialog, false, ""));
    replies(&mut bench, "200 OK", &far_sdp());
    bench.inn(PROXY, PHONE, response("200 OK", "CANCEL", PUBLIC, 1, dialog, ""));
    bench.assert_pinned(RTP, FAR);
    bench.advance(secs(100));
    bench.assert_pinned(RTP, FAR);
    hang_up(&mut bench);
}

#[test]
fn a_cancelled_call_whose_487_got_lost_ends_by_itself() {
    let mut bench = Bench::default();
    invite(&mut bench, &offer());
    replies(&mut bench, "180 Ringing", "");
    let dialog = Dialog::default();
    bench.out(PHONE, PROXY, request("CANCEL", PHONE, 1, dialog, false, ""));
    bench.inn(PROXY, PHONE, response("200 OK", "CANCEL", PUBLIC, 1, dialog, ""));
    bench.advance(secs(33));
    bench.assert_all_closed();
}

#[test]
fn a_challenge_or_a_redirection_that_leads_to_nothing_ends_after_32_seconds() {
    for status in [
        "401 Unauthorized",
        "407 Proxy Authentication Required",
        "302 Moved Temporarily",
        "422 Session Interval Too Small",
        "494 Security Agreement Required",
    ] {
        let mut bench = Bench::default();
        invite(&mut bench, &offer());
        replies(&mut bench, "100 Trying", "");
        replies(&mut bench, status, "");
        bench.binding(RTP);
        bench.advance(secs(33));
        bench.assert_all_closed();
    }
}

#[test]
fn a_bye_that_the_far_end_refuses_is_over_for_the_phone() {
    // RFC 3261 section 15.1.1: who sends BYE does not listen any more, whatever is answered.
    for status in ["403 Forbidden", "500 Server Error", "407 Proxy Authentication Required"] {
        let mut bench = Bench::default();
        call_up(&mut bench);
        asks(&mut bench, "BYE", 2, "z9hG4bK-bye", "");
        answers(&mut bench, status, "BYE", 2, "z9hG4bK-bye", "");
        bench.advance(secs(31));
        bench.assert_pinned(RTP, FAR);
        bench.advance(secs(2));
        bench.assert_all_closed();
    }
}

#[test]
fn a_phone_that_goes_on_after_its_bye_was_refused_keeps_its_call() {
    let mut bench = Bench::default();
    call_up(&mut bench);
    asks(&mut bench, "BYE", 2, "z9hG4bK-bye", "");
    answers(&mut bench, "403 Forbidden", "BYE", 2, "z9hG4bK-bye", "");
    asks(&mut bench, "INVITE", 3, "z9hG4bK-re", &offer());
    answers(&mut bench, "200 OK", "INVITE", 3, "z9hG4bK-re", &far_sdp());
    bench.advance(secs(100));
    bench.assert_pinned(RTP, FAR);
    hang_up(&mut bench);
}

#[test]
fn a_phone_that_says_anything_after_its_bye_was_refused_keeps_its_call() {
    let mut bench = Bench::default();
    call_up(&mut bench);
    asks(&mut bench, "BYE", 2, "z9hG4bK-bye", "");
    answers(&mut bench, "403 Forbidden", "BYE", 2, "z9hG4bK-bye", "");
    asks(&mut bench, "INFO", 3, "z9hG4bK-info", "");
    answers(&mut bench, "200 OK", "INFO", 3, "z9hG4bK-info", "");
    bench.advance(secs(100));
    bench.assert_pinned(RTP, FAR);
    hang_up(&mut bench);
}

#[test]
fn a_bye_for_a_dialog_that_the_other_side_does_not_know_ends_it_at_once() {
    // RFC 3261 sections 15.1.1 and 12.2.1.2; 481 is also what each side says when both hang up at the same moment.
    for status in ["481 Call/Transaction Does Not Exist", "408 Request Timeout"] {
        let mut bench = Bench::default();
        call_up(&mut bench);
        asks(&mut bench, "BYE", 2, "z9hG4bK-bye", "");
        answers(&mut bench, status, "BYE", 2, "z9hG4bK-bye", "");
        bench.assert_all_closed();
        let mut bench = Bench::default();
        call_up(&mut bench);
        let got = far_asks(&mut bench, &far_request("BYE", 1, "z9hG4bK-fb", ""));
        phone_answers(&mut bench, &got, status, "");
        bench.assert_all_closed();
    }
}

#[test]
fn a_bye_that_the_phone_refuses_ends_nothing() {
    let mut bench = Bench::default();
    call_up(&mut bench);
    let got = far_asks(&mut bench, &far_request("BYE", 1, "z9hG4bK-fb", ""));
    phone_answers(&mut bench, &got, "403 Forbidden", "");
    bench.advance(secs(100));
    bench.assert_pinned(RTP, FAR);
    hang_up(&mut bench);
}

#[test]
fn a_bye_that_nobody_answers_ends_the_call_that_the_phone_has_left() {
    let mut bench = Bench::default();
    call_up(&mut bench);
    asks(&mut bench, "BYE", 2, "z9hG4bK-bye", "");
    bench.advance(secs(33));
    bench.assert_all_closed();
    assert!(bench.events.iter().any(|it| matches!(it, Event::CallEnded { why: "lost", .. })));
}

#[test]
fn a_call_that_rings_for_an_hour_without_a_word_is_over() {
    let mut bench = Bench::default();
    invite(&mut bench, &offer());
    replies(&mut bench, "180 Ringing", "");
    bench.advance(secs(3599));
    assert_eq!(bench.engine.sizes().calls, 1);
    bench.advance(secs(2));
    bench.assert_all_closed();
    assert_eq!(bench.engine.sizes().calls, 0);
}

/// One of the phones behind a PBX inside answers what the far end asked.
fn answers_as(bench: &mut Bench, tag: &str, got: &Passed, status: &str, body: &str) -> Passed {
    let contact = "Contact: <sip:alice@192.168.1.10:5060>\n";
    let text = answer(&got.text(), status, at(PROXY), contact, body);
    let to = "To: \"Alice\" <sip:alice@provider.example>";
    assert!(text.contains(to), "{text}");
    bench.out(PHONE, PROXY, text.replacen(to, &format!("{to};tag={tag}"), 1))
}

/// The far end calls, and the phone has media before it has answered.
fn rings_with_media(bench: &mut Bench) -> Passed {
    bench.out(PHONE, PROXY, request("MESSAGE", PHONE, 1, Dialog::default(), false, ""));
    let got = far_invites(bench, "z9hG4bK-in");
    answers_as(bench, "kitchen", &got, "183 Session Progress", &offer());
    bench.assert_pinned(RTP, FAR);
    got
}

/// What the far end sends to take its call back.
fn cancel() -> String {
    far_request("CANCEL", 1, "z9hG4bK-in", "").replace(";tag=alice-1", "")
}

#[test]
fn an_inbound_call_with_early_media_that_its_caller_cancels_is_over() {
    let mut bench = Bench::default();
    let got = rings_with_media(&mut bench);
    let cancelled = far_asks(&mut bench, &cancel());
    answers_as(&mut bench, "kitchen", &cancelled, "200 OK", "");
    answers_as(&mut bench, "kitchen", &got, "487 Request Terminated", "");
    bench.assert_all_closed();
}

#[test]
fn an_inbound_call_with_early_media_that_is_refused_is_over() {
    for status in ["486 Busy Here", "487 Request Terminated", "603 Decline"] {
        let mut bench = Bench::default();
        let got = rings_with_media(&mut bench);
        answers_as(&mut bench, "kitchen", &got, status, "");
        bench.assert_all_closed();
    }
}

#[test]
fn a_forged_cancel_ends_no_call_whatever_the_phone_says_to_it() {
    for status in ["200 OK", "481 Call/Transaction Does Not Exist"] {
        let mut bench = Bench::default();
        let got = rings_with_media(&mut bench);
        bench.out(PHONE, STRANGER, request("OPTIONS", PHONE, 1, Dialog::default(), false, ""));
        let forged = bench.inn(STRANGER, PHONE, cancel());
        let reply = answer(&forged.text(), status, at(STRANGER), "", "");
        bench.out(PHONE, STRANGER, reply);
        bench.advance(secs(100));
        bench.assert_pinned(RTP, FAR);
        answers_as(&mut bench, "kitchen", &got, "200 OK", &offer());
        bench.assert_pinned(RTP, FAR);
    }
}

#[test]
fn of_the_phones_that_ring_inside_the_one_that_answers_keeps_its_media() {
    let mut bench = Bench::default();
    let got = rings_with_media(&mut bench);
    answers_as(&mut bench, "hall", &got, "183 Session Progress", &sdp("192.168.1.10", 42000));
    bench.assert_pinned("192.168.1.10:42000", FAR);
    answers_as(&mut bench, "hall", &got, "200 OK", &sdp("192.168.1.10", 42000));
    bench.inn(PROXY, PHONE, far_request("ACK", 1, "z9hG4bK-ack", "").replace("tag=alice-1", "tag=hall"));
    bench.advance(secs(100));
    bench.assert_pinned("192.168.1.10:42000", FAR);
    assert!(bench.kernel.pins.iter().all(|pin| pin.inside.0.port() >= 42000), "{:?}", bench.kernel.pins);
    let got =
        far_asks(&mut bench, &far_request("BYE", 2, "z9hG4bK-bye", "").replace("tag=alice-1", "tag=hall"));
    phone_answers(&mut bench, &got, "200 OK", "");
    bench.assert_all_closed();
}
