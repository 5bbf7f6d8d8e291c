//! How a call ends, or never begins: BYE and its refusals, CANCEL and its races, refusals, challenges and redirections
//! that lead to nothing (RFC 3261 9, 15).

use crate::common::Bench;
use crate::common::messages::{Dialog, PHONE, PROXY, request, response};
use crate::{
    FAR, PUBLIC, RTP, answers, asks, call_up, far_asks, far_request, far_sdp, hang_up, invite, offer,
    phone_answers, replies, secs,
};
use sipalg::alg::Event;

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
