//! Offers in a running call: re-INVITE and UPDATE, refused, crossing, challenged, or never answered (RFC 3264, 3311).

use crate::common::messages::{Dialog, PHONE, PROXY, request, sdp};
use crate::common::{Bench, at};
use crate::{
    FAR, RTP, answers, asks, assert_all_forgotten, call_up, far_asks, far_request, far_sdp, hang_up, invite,
    offer, phone_answers, replies, secs,
};

#[test]
fn a_refused_re_invite_leaves_the_old_session_and_closes_what_it_opened() {
    for status in ["488 Not Acceptable Here", "500 Server Error", "491 Request Pending", "408 Timeout"] {
        let mut bench = Bench::default();
        call_up(&mut bench);
        let before = bench.kernel.clone();
        asks(&mut bench, "INVITE", 2, "z9hG4bK-re", &sdp("192.168.1.10", 42000));
        assert_eq!(bench.kernel.pinholes.len(), 4, "both at once, for the offer may be accepted");
        bench.assert_pinned(RTP, FAR);
        answers(&mut bench, status, "INVITE", 2, "z9hG4bK-re", "");
        assert_eq!(bench.kernel.pinholes, before.pinholes, "{status}");
        assert_eq!(bench.kernel.peers, before.peers, "{status}");
        assert_eq!(bench.kernel.pins, before.pins, "{status}");
        hang_up(&mut bench);
        assert_all_forgotten(&mut bench);
    }
}

#[test]
fn a_first_offer_in_a_running_call_that_is_refused_opens_nothing() {
    // The call began with all streams off.
    let mut bench = Bench::default();
    invite(&mut bench, &sdp("192.168.1.10", 0));
    replies(&mut bench, "200 OK", &sdp("22.33.44.22", 0));
    asks(&mut bench, "INVITE", 2, "z9hG4bK-first", &offer());
    bench.binding(RTP);
    answers(&mut bench, "488 Not Acceptable Here", "INVITE", 2, "z9hG4bK-first", "");
    assert!(bench.kernel.pinholes.is_empty(), "{:?}", bench.kernel);
    hang_up(&mut bench);
}

#[test]
fn a_refused_offer_does_not_age_the_doors_that_are_in_use() {
    let mut bench = Bench::default();
    call_up(&mut bench);
    bench.advance(secs(33));
    let public = bench.binding(RTP);
    let exchange = |bench: &mut Bench, n: u32, status: &str, ours: &str, theirs: &str| {
        let branch = format!("z9hG4bK-age{n}");
        asks(bench, "INVITE", n, &branch, ours);
        answers(bench, status, "INVITE", n, &branch, theirs);
    };
    let other = sdp("192.168.1.10", 42000);
    exchange(&mut bench, 2, "488 Not Acceptable Here", &other, "");
    exchange(&mut bench, 3, "200 OK", &format!("{}a=inactive\n", offer()), &far_sdp());
    // It moves, and back: as after any other move its port is there still.
    exchange(&mut bench, 4, "200 OK", &other, &far_sdp());
    assert_eq!(bench.binding(RTP), public);
    exchange(&mut bench, 5, "200 OK", &offer(), &far_sdp());
    assert_eq!(bench.binding(RTP), public);
    hang_up(&mut bench);
}

#[test]
fn an_offer_that_crosses_another_is_not_pinned_before_it_is_accepted() {
    // The far end is on hold as of old; its offer crosses one of the phone's, and both are refused.
    for theirs_first in [false, true] {
        let mut bench = Bench::default();
        invite(&mut bench, &offer());
        replies(&mut bench, "200 OK", &sdp("0.0.0.0", 30000));
        let before = bench.kernel.clone();
        let theirs = far_request("INVITE", 1, "z9hG4bK-theirs", &far_sdp());
        let got = theirs_first.then(|| far_asks(&mut bench, &theirs));
        asks(&mut bench, "INVITE", 2, "z9hG4bK-ours", &format!("{}a=inactive\n", offer()));
        let got = got.unwrap_or_else(|| far_asks(&mut bench, &theirs));
        assert_eq!(bench.kernel.pins, []);
        answers(&mut bench, "491 Request Pending", "INVITE", 2, "z9hG4bK-ours", "");
        assert_eq!(bench.kernel.pins, []);
        phone_answers(&mut bench, &got, "491 Request Pending", "");
        assert_eq!((&bench.kernel.pins, &bench.kernel.peers), (&before.pins, &before.peers));
        hang_up(&mut bench);
    }
}

#[test]
fn a_re_invite_that_nobody_answers_is_taken_back() {
    let mut bench = Bench::default();
    call_up(&mut bench);
    let before = bench.kernel.clone();
    asks(&mut bench, "INVITE", 2, "z9hG4bK-re", &sdp("192.168.1.10", 42000));
    bench.advance(secs(33));
    assert_eq!((&bench.kernel.pinholes, &bench.kernel.pins), (&before.pinholes, &before.pins));
    hang_up(&mut bench);
}

#[test]
fn offers_that_cross_each_other_are_both_taken_back() {
    let mut bench = Bench::default();
    call_up(&mut bench);
    let before = bench.kernel.clone();
    asks(&mut bench, "INVITE", 2, "z9hG4bK-re", &sdp("192.168.1.10", 42000));
    let theirs = far_request("INVITE", 1, "z9hG4bK-far1", &sdp("22.33.44.22", 33000));
    let got = far_asks(&mut bench, &theirs);
    phone_answers(&mut bench, &got, "491 Request Pending", "");
    answers(&mut bench, "491 Request Pending", "INVITE", 2, "z9hG4bK-re", "");
    assert_eq!((&bench.kernel.pinholes, &bench.kernel.pins), (&before.pinholes, &before.pins));
    assert_eq!(bench.kernel.peers, before.peers);
    // The far end comes again, alone.
    let got = far_asks(&mut bench, &far_request("INVITE", 2, "z9hG4bK-far2", &sdp("22.33.44.22", 33000)));
    phone_answers(&mut bench, &got, "200 OK", &offer());
    bench.assert_pinned(RTP, "22.33.44.22:33000");
    assert_eq!(bench.kernel.pins.len(), 2, "nothing of the old flow is left");
    hang_up(&mut bench);
}

#[test]
fn refusing_their_offer_while_ours_is_open_leaves_the_media_that_runs() {
    let mut bench = Bench::default();
    call_up(&mut bench);
    let before = bench.kernel.clone();
    asks(&mut bench, "INVITE", 2, "z9hG4bK-re", &sdp("192.168.1.10", 42000));
    let theirs = far_request("UPDATE", 1, "z9hG4bK-far1", &sdp("22.33.44.22", 33000));
    let got = far_asks(&mut bench, &theirs);
    phone_answers(&mut bench, &got, "491 Request Pending", "");
    bench.assert_pinned(RTP, FAR);
    assert!(before.peers.is_subset(&bench.kernel.peers), "who is heard still is");
    answers(&mut bench, "200 OK", "INVITE", 2, "z9hG4bK-re", &far_sdp());
    bench.assert_pinned("192.168.1.10:42000", FAR);
    assert_eq!(bench.kernel.pins.len(), 2, "nothing of the old flow is left");
    hang_up(&mut bench);
    assert_all_forgotten(&mut bench);
}

#[test]
fn a_re_invite_that_is_challenged_is_accepted_the_second_time() {
    let mut bench = Bench::default();
    call_up(&mut bench);
    let moved = sdp("192.168.1.10", 42000);
    asks(&mut bench, "INVITE", 2, "z9hG4bK-re", &moved);
    let public = bench.binding("192.168.1.10:42000");
    answers(&mut bench, "407 Proxy Authentication Required", "INVITE", 2, "z9hG4bK-re", "");
    asks(&mut bench, "INVITE", 3, "z9hG4bK-re3", &moved);
    assert_eq!(bench.binding("192.168.1.10:42000"), public);
    answers(&mut bench, "200 OK", "INVITE", 3, "z9hG4bK-re3", &far_sdp());
    bench.assert_pinned("192.168.1.10:42000", FAR);
    bench.advance(secs(100));
    bench.assert_pinned("192.168.1.10:42000", FAR);
    hang_up(&mut bench);
}

#[test]
fn a_re_invite_that_is_challenged_and_given_up_is_taken_back() {
    let mut bench = Bench::default();
    call_up(&mut bench);
    let before = bench.kernel.clone();
    asks(&mut bench, "INVITE", 2, "z9hG4bK-re", &sdp("192.168.1.10", 42000));
    answers(&mut bench, "401 Unauthorized", "INVITE", 2, "z9hG4bK-re", "");
    bench.advance(secs(33));
    assert_eq!((&bench.kernel.pinholes, &bench.kernel.pins), (&before.pinholes, &before.pins));
    hang_up(&mut bench);
}

#[test]
fn an_update_that_is_refused_is_taken_back_before_and_after_the_answer() {
    let mut bench = Bench::default();
    invite(&mut bench, &offer());
    replies(&mut bench, "183 Session Progress", &far_sdp());
    for round in 0..2 {
        let before = bench.kernel.clone();
        let branch = format!("z9hG4bK-u{round}");
        asks(&mut bench, "UPDATE", 10 + round, &branch, &sdp("192.168.1.10", 42000));
        assert!(bench.kernel.pinholes.len() > before.pinholes.len());
        answers(&mut bench, "488 Not Acceptable Here", "UPDATE", 10 + round, &branch, "");
        assert_eq!((&bench.kernel.pinholes, &bench.kernel.pins), (&before.pinholes, &before.pins));
        replies(&mut bench, "200 OK", "");
    }
    hang_up(&mut bench);
}

#[test]
fn a_description_in_a_refusal_says_only_what_would_be_possible() {
    let mut bench = Bench::default();
    call_up(&mut bench);
    let before = bench.kernel.clone();
    let got = far_asks(&mut bench, &far_request("INVITE", 1, "z9hG4bK-far", &sdp("22.33.44.99", 44000)));
    let sent = phone_answers(&mut bench, &got, "488 Not Acceptable Here", &sdp("192.168.1.10", 50000));
    assert!(sent.text().ends_with(&sdp("22.33.44.55", 50000).replace('\n', "\r\n")), "{}", sent.text());
    asks(&mut bench, "INVITE", 2, "z9hG4bK-re", &offer());
    answers(&mut bench, "488 Not Acceptable Here", "INVITE", 2, "z9hG4bK-re", &sdp("6.6.6.6", 6666));
    assert_eq!(bench.kernel, before);
    hang_up(&mut bench);
}

#[test]
fn a_phone_that_tells_what_it_can_do_opens_nothing() {
    let mut bench = Bench::default();
    bench.out(PHONE, PROXY, request("MESSAGE", PHONE, 1, Dialog::default(), false, ""));
    let ask = far_request("OPTIONS", 1, "z9hG4bK-options", "").replace(";tag=alice-1", "");
    let got = far_asks(&mut bench, &ask);
    phone_answers(&mut bench, &got, "200 OK", &offer());
    assert!(bench.kernel.pinholes.is_empty());
    assert_eq!(bench.engine.sizes().calls, 0);
}

#[test]
fn an_endpoint_that_moves_with_every_refresh_leaves_nothing_behind() {
    let mut bench = Bench::default();
    call_up(&mut bench);
    // The INVITE may have further answers for so long.
    bench.advance(secs(33));
    for n in 0..50u16 {
        let (branch, port) = (format!("z9hG4bK-mv{n}"), 42000 + 2 * n);
        asks(&mut bench, "INVITE", u32::from(10 + n), &branch, &sdp("192.168.1.10", port));
        answers(&mut bench, "200 OK", "INVITE", u32::from(10 + n), &branch, &far_sdp());
        bench.assert_pinned(&format!("192.168.1.10:{port}"), FAR);
        assert!(bench.kernel.pinholes.len() <= 4, "the last one and the one before it");
        assert_eq!(bench.kernel.pins.len(), 2);
    }
    hang_up(&mut bench);
}

#[test]
fn an_endpoint_that_moves_with_every_late_offer_leaves_nothing_behind() {
    // The INVITE has no description: the offer is in the 2xx, the answer in the ACK, and nobody accepts that any more.
    for by_phone in [false, true] {
        let mut bench = Bench::default();
        call_up(&mut bench);
        bench.advance(secs(33));
        for n in 0..50u16 {
            let (branch, ack, port) = (format!("z9hG4bK-l{n}"), format!("z9hG4bK-la{n}"), 42000 + 2 * n);
            let (cseq, ours) = (u32::from(10 + n), sdp("192.168.1.10", port));
            if by_phone {
                asks(&mut bench, "INVITE", cseq, &branch, "");
                answers(&mut bench, "200 OK", "INVITE", cseq, &branch, &far_sdp());
                asks(&mut bench, "ACK", cseq, &ack, &ours);
            } else {
                let got = far_asks(&mut bench, &far_request("INVITE", cseq, &branch, ""));
                phone_answers(&mut bench, &got, "200 OK", &ours);
                far_asks(&mut bench, &far_request("ACK", cseq, &ack, &far_sdp()));
            }
            bench.assert_pinned(&format!("192.168.1.10:{port}"), FAR);
            assert!(bench.kernel.pinholes.len() <= 4, "the last one and the one before it");
            assert_eq!(bench.kernel.pins.len(), 2);
        }
        hang_up(&mut bench);
    }
}

#[test]
fn a_door_that_others_keep_open_leaves_no_flow_of_a_call_that_has_left_it() {
    // For 32 s other branches of the INVITE may answer, and hold the door. This call has left it, with nothing in its place.
    let mut bench = Bench::default();
    call_up(&mut bench);
    let video = |ip, port| sdp(ip, 0) + &format!("m=video {port} RTP/AVP 31\n");
    for (n, port) in [(2, 41000), (3, 42000)] {
        let branch = format!("z9hG4bK-left{n}");
        asks(&mut bench, "INVITE", n, &branch, &video("192.168.1.10", port));
        answers(&mut bench, "200 OK", "INVITE", n, &branch, &video("22.33.44.22", 0));
    }
    bench.binding(RTP);
    assert_eq!(bench.kernel.pins, []);
    bench.advance(secs(33));
    assert!(bench.kernel.pinholes.values().all(|it| it.0 != at(RTP)), "{:?}", bench.kernel.pinholes);
    assert_eq!(bench.kernel.pins, []);
    hang_up(&mut bench);
}

/// After a first start, or a state that was lost, an UPDATE may be the first that is heard of a dialog (RFC 3311).
#[test]
fn an_update_that_is_accepted_confirms_a_dialog_that_nobody_knew() {
    let mut bench = Bench::default();
    asks(&mut bench, "UPDATE", 5, "z9hG4bK-u5", &offer());
    answers(&mut bench, "200 OK", "UPDATE", 5, "z9hG4bK-u5", &far_sdp());
    bench.advance(secs(600));
    bench.assert_pinned(RTP, FAR);
    hang_up(&mut bench);
    // The same from the other side.
    let mut bench = Bench::default();
    bench.out(PHONE, PROXY, request("MESSAGE", PHONE, 1, Dialog::default(), false, ""));
    let got = far_asks(&mut bench, &far_request("UPDATE", 5, "z9hG4bK-u5", &far_sdp()));
    phone_answers(&mut bench, &got, "200 OK", &offer());
    bench.advance(secs(600));
    bench.assert_pinned(RTP, FAR);
    hang_up(&mut bench);
}

#[test]
fn an_update_confirms_nothing_while_the_invite_is_open_or_without_a_dialog() {
    let mut bench = Bench::default();
    invite(&mut bench, &offer());
    replies(&mut bench, "183 Session Progress", &far_sdp());
    asks(&mut bench, "UPDATE", 10, "z9hG4bK-u", &offer());
    answers(&mut bench, "200 OK", "UPDATE", 10, "z9hG4bK-u", &far_sdp());
    replies(&mut bench, "486 Busy Here", "");
    bench.advance(secs(33));
    bench.assert_all_closed();
    // A session timer's, without a description (RFC 4028): nothing is learned of the dialog.
    let mut bench = Bench::default();
    asks(&mut bench, "UPDATE", 10, "z9hG4bK-u", "");
    answers(&mut bench, "200 OK", "UPDATE", 10, "z9hG4bK-u", "");
    assert_eq!(bench.engine.sizes().calls, 0);
}
