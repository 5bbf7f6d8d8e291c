//! Only the two parties can change or end what is theirs.

use crate::common::Bench;
use crate::common::at;
use crate::common::messages::{PHONE, PROXY, answer, message, sdp};
use crate::{FAR, PUBLIC, RTP, asks, call_up, far_request, hang_up, offer, phone_answers, secs};

/// Another server that the phone speaks with, and so can send to it.
const STRANGER: &str = "66.6.6.6:5060";

/// The phone has an open flow to the stranger.
fn know_stranger(bench: &mut Bench) {
    let hello = message(
        "OPTIONS sip:x SIP/2.0\nVia: SIP/2.0/UDP 192.168.1.10:5060;branch=z9hG4bK-hello\n\
         From: <sip:a@x>;tag=h\nTo: <sip:a@x>\nCall-ID: hello\nCSeq: 1 OPTIONS",
        "",
    );
    bench.out(PHONE, STRANGER, hello);
}

#[test]
fn a_forged_bye_ends_nothing_whatever_the_phone_says_to_it() {
    for status in ["200 OK", "481 Call/Transaction Does Not Exist", "408 Request Timeout"] {
        let mut bench = Bench::default();
        call_up(&mut bench);
        know_stranger(&mut bench);
        let before = bench.kernel.clone();
        let forged = far_request("BYE", 1, "z9hG4bK-forged", "");
        let got = bench.inn(STRANGER, PHONE, &forged);
        let reply = answer(&got.text(), status, at(STRANGER), "", "");
        bench.out(PHONE, STRANGER, reply);
        bench.advance(secs(40));
        assert_eq!(
            (&bench.kernel.pinholes, &bench.kernel.pins),
            (&before.pinholes, &before.pins),
            "{status}"
        );
        hang_up(&mut bench);
    }
}

#[test]
fn a_forged_bye_with_wrong_tags_ends_nothing_even_from_the_right_place() {
    let mut bench = Bench::default();
    call_up(&mut bench);
    let forged = far_request("BYE", 1, "z9hG4bK-forged", "").replace("tag=bob-1", "tag=mallory");
    let got = bench.inn(PROXY, PHONE, &forged);
    phone_answers(&mut bench, &got, "481 Call/Transaction Does Not Exist", "");
    bench.assert_pinned(RTP, FAR);
    hang_up(&mut bench);
}

#[test]
fn a_bye_from_outside_that_the_phone_does_not_answer_ends_nothing() {
    let mut bench = Bench::default();
    call_up(&mut bench);
    bench.inn(PROXY, PHONE, far_request("BYE", 1, "z9hG4bK-forged", ""));
    bench.advance(secs(40));
    bench.assert_pinned(RTP, FAR);
    hang_up(&mut bench);
}

#[test]
fn a_forged_offer_moves_no_media() {
    let mut bench = Bench::default();
    call_up(&mut bench);
    know_stranger(&mut bench);
    let before = bench.kernel.clone();
    let forged = far_request("INVITE", 1, "z9hG4bK-forged", &sdp("66.6.6.6", 6666));
    let got = bench.inn(STRANGER, PHONE, &forged);
    let contact = "Contact: <sip:alice@192.168.1.10:5060>\n";
    bench.out(PHONE, STRANGER, answer(&got.text(), "200 OK", at(STRANGER), contact, &offer()));
    bench.inn(STRANGER, PHONE, far_request("ACK", 1, "z9hG4bK-forged2", &sdp("66.6.6.6", 6666)));
    assert_eq!((&bench.kernel.pins, &bench.kernel.peers), (&before.pins, &before.peers));
    hang_up(&mut bench);
}

#[test]
fn an_answer_from_elsewhere_counts_for_nothing() {
    let mut bench = Bench::default();
    call_up(&mut bench);
    know_stranger(&mut bench);
    asks(&mut bench, "BYE", 2, "z9hG4bK-bye", "");
    let forged = format!(
        "SIP/2.0 200 OK\nVia: SIP/2.0/UDP {PUBLIC};branch=z9hG4bK-bye\n\
         From: \"Alice\" <sip:alice@provider.example>;tag=alice-1\nTo: <sip:bob@provider.example>;tag=bob-1\n\
         Call-ID: call-1@192.168.1.10\nCSeq: 2 BYE"
    );
    bench.inn(STRANGER, PHONE, message(&forged, ""));
    bench.assert_pinned(RTP, FAR);
    hang_up(&mut bench);
}

#[test]
fn another_host_inside_cannot_end_a_call() {
    let mut bench = Bench::default();
    call_up(&mut bench);
    let mallory = "192.168.1.66:5060";
    let bye = message(
        &format!(
            "BYE sip:bob@provider.example SIP/2.0\nVia: SIP/2.0/UDP {mallory};branch=z9hG4bK-m\n\
             From: \"Alice\" <sip:alice@provider.example>;tag=alice-1\nTo: <sip:bob@provider.example>;tag=bob-1\n\
             Call-ID: call-1@192.168.1.10\nCSeq: 9 BYE"
        ),
        "",
    );
    let sent = bench.out(mallory, PROXY, bye);
    let seen = bench.public(mallory, PROXY);
    bench.inn(PROXY, mallory, answer(&sent.text(), "200 OK", seen, "", ""));
    bench.assert_pinned(RTP, FAR);
    hang_up(&mut bench);
}

#[test]
fn a_dialog_may_go_on_by_another_way_that_the_phone_chose() {
    // No Record-Route: the phone's ACK goes straight to the far end's Contact, and so does what follows.
    let mut bench = Bench::default();
    call_up(&mut bench);
    let contact = "22.33.44.21:5060";
    let ack = crate::request(
        "ACK",
        PHONE,
        1,
        crate::Dialog { branch: "z9hG4bK-da", ..Default::default() },
        true,
        "",
    );
    bench.out(PHONE, contact, ack);
    let public = bench.public(PHONE, contact).to_string();
    let bye = far_request("BYE", 1, "z9hG4bK-direct", "").replace(PUBLIC, &public);
    let got = bench.inn(contact, PHONE, bye);
    bench.out(PHONE, contact, answer(&got.text(), "200 OK", at(contact), "", ""));
    bench.assert_all_closed();
}
