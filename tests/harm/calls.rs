//! Calls side by side, and calls from their first request to their last.

use std::time::Duration;

use crate::common::Bench;
use crate::common::messages::{Dialog, MEDIA, PHONE, PROXY, message, request, response, sdp};
use crate::{PUBLIC, answered, ask_phone, call, hang_up, invite};
use sipalg::alg::Reason;

/// Names for call number `n` of one PBX.
fn names(n: u16) -> [String; 4] {
    [format!("pbx-{n}"), format!("z9hG4bK-{n}"), format!("from-{n}"), format!("to-{n}")]
}

fn dialog(names: &[String; 4]) -> Dialog<'_> {
    let [call_id, branch, from_tag, to_tag] = names;
    Dialog { call_id, branch, from_tag, to_tag }
}

fn port(n: u16) -> u16 {
    20000 + 4 * n
}

#[test]
fn f04_two_hundred_calls_share_one_flow() {
    // Others flush everything that the flow has with each INVITE, and have four at most.
    let mut bench = Bench::default();
    for n in 0..200 {
        call(
            &mut bench,
            dialog(&names(n)),
            &sdp("192.168.1.10", port(n)),
            &sdp("22.33.44.22", 30000 + 2 * n),
        );
    }
    let all = |bench: &Bench, calls: std::ops::Range<u16>| {
        for n in calls {
            bench.assert_pinned(
                &format!("192.168.1.10:{}", port(n)),
                &format!("22.33.44.22:{}", 30000 + 2 * n),
            );
        }
    };
    all(&bench, 0..200);
    assert_eq!(bench.engine.sizes().calls, 200);
    assert_eq!(bench.kernel.pinholes.len(), 400);
    for n in 0..100 {
        hang_up(&mut bench, dialog(&names(n)));
    }
    all(&bench, 100..200);
    assert_eq!(bench.kernel.pins.len(), 200);
    for n in 100..200 {
        hang_up(&mut bench, dialog(&names(n)));
    }
    bench.assert_all_closed();
}

#[test]
fn f05_the_end_of_one_dialog_is_not_the_end_of_another() {
    // Others compare the CSeq number and nothing else; here all of them have the same.
    let mut bench = Bench::default();
    let [first, second, third] = [names(1), names(2), names(3)];
    call(&mut bench, dialog(&first), &sdp("192.168.1.10", 40000), &sdp("22.33.44.22", 30000));
    // Another call is busy.
    invite(&mut bench, dialog(&second), &sdp("192.168.1.10", 42000));
    answered(&mut bench, dialog(&second), "486 Busy Here", "");
    bench.assert_pinned("192.168.1.10:40000", MEDIA);
    assert_eq!(bench.kernel.pinholes.len(), 2, "of the busy one nothing is left");
    // A third one is answered and hung up.
    call(&mut bench, dialog(&third), &sdp("192.168.1.10", 44000), &sdp("22.33.44.22", 31000));
    hang_up(&mut bench, dialog(&third));
    bench.assert_pinned("192.168.1.10:40000", MEDIA);
    assert_eq!(bench.kernel.pins.len(), 2);
    // Two calls with one media port: the door stays for the other.
    call(&mut bench, dialog(&second), &sdp("192.168.1.10", 40000), &sdp("22.33.44.22", 32000));
    hang_up(&mut bench, dialog(&second));
    bench.assert_pinned("192.168.1.10:40000", MEDIA);
    hang_up(&mut bench, dialog(&first));
    bench.assert_all_closed();
}

#[test]
fn f05_one_branch_of_a_fork_fails_and_the_others_do_not() {
    let mut bench = Bench::default();
    invite(&mut bench, Dialog::default(), &sdp("192.168.1.10", 40000));
    let [one, two] = ["fork-1", "fork-2"].map(|to_tag| Dialog { to_tag, ..Dialog::default() });
    answered(&mut bench, one, "183 Session Progress", &sdp("22.33.44.22", 30000));
    answered(&mut bench, two, "200 OK", &sdp("22.33.44.22", 31000));
    // A server that forwards the failure of a branch after the answer of another.
    answered(&mut bench, one, "480 Temporarily Unavailable", "");
    bench.assert_pinned("192.168.1.10:40000", "22.33.44.22:31000");
    bench.advance(Duration::from_secs(100));
    bench.assert_pinned("192.168.1.10:40000", "22.33.44.22:31000");
    hang_up(&mut bench, two);
    bench.assert_all_closed();
}

#[test]
fn f05_a_bye_that_is_challenged_ends_nothing() {
    let mut bench = Bench::default();
    call(&mut bench, Dialog::default(), &sdp("192.168.1.10", 40000), &sdp("22.33.44.22", 30000));
    let bye = Dialog { branch: "z9hG4bK-bye", ..Dialog::default() };
    bench.out(PHONE, PROXY, request("BYE", PHONE, 2, bye, true, ""));
    bench.inn(PROXY, PHONE, response("407 Proxy Authentication Required", "BYE", PUBLIC, 2, bye, ""));
    bench.assert_pinned("192.168.1.10:40000", MEDIA);
    hang_up(&mut bench, Dialog::default());
    bench.assert_all_closed();
}

#[test]
fn f05_a_cancelled_call_leaves_nothing() {
    let mut bench = Bench::default();
    invite(&mut bench, Dialog::default(), &sdp("192.168.1.10", 40000));
    answered(&mut bench, Dialog::default(), "183 Session Progress", &sdp("22.33.44.22", 30000));
    let dialog = Dialog::default();
    bench.out(PHONE, PROXY, request("CANCEL", PHONE, 1, dialog, false, ""));
    bench.inn(PROXY, PHONE, response("200 OK", "CANCEL", PUBLIC, 1, dialog, ""));
    bench.assert_pinned("192.168.1.10:40000", MEDIA);
    answered(&mut bench, dialog, "487 Request Terminated", "");
    bench.assert_all_closed();
}

#[test]
fn f10_a_call_that_is_challenged_first_rings_as_long_as_it_likes() {
    let mut bench = Bench::default();
    let offer = sdp("192.168.1.10", 40000);
    invite(&mut bench, Dialog::default(), &offer);
    let public = bench.binding("192.168.1.10:40000");
    let challenge = Dialog { to_tag: "challenge", ..Dialog::default() };
    answered(&mut bench, challenge, "407 Proxy Authentication Required", "");
    let again = Dialog { branch: "z9hG4bK-auth", ..Dialog::default() };
    bench.out(PHONE, PROXY, request("INVITE", PHONE, 2, again, false, &offer));
    assert_eq!(bench.binding("192.168.1.10:40000"), public);
    bench.inn(PROXY, PHONE, response("180 Ringing", "INVITE", PUBLIC, 2, again, ""));
    bench.advance(Duration::from_secs(120));
    assert_eq!(bench.binding("192.168.1.10:40000"), public);
    bench.assert_renewed();
    bench.inn(PROXY, PHONE, response("200 OK", "INVITE", PUBLIC, 2, again, &sdp("22.33.44.22", 30000)));
    bench.assert_pinned("192.168.1.10:40000", MEDIA);
    bench.advance(Duration::from_secs(120));
    bench.assert_pinned("192.168.1.10:40000", MEDIA);
    hang_up(&mut bench, again);
    bench.assert_all_closed();
}

#[test]
fn f10_a_call_that_is_challenged_and_refused_leaves_nothing() {
    let mut bench = Bench::default();
    let offer = sdp("192.168.1.10", 40000);
    invite(&mut bench, Dialog::default(), &offer);
    answered(&mut bench, Dialog::default(), "401 Unauthorized", "");
    let again = Dialog { branch: "z9hG4bK-auth", ..Dialog::default() };
    bench.out(PHONE, PROXY, request("INVITE", PHONE, 2, again, false, &offer));
    bench.inn(PROXY, PHONE, response("403 Forbidden", "INVITE", PUBLIC, 2, again, ""));
    bench.assert_all_closed();
}

#[test]
fn f06_each_side_reaches_the_other_a_minute_after_the_answer() {
    // Calls that drop after 32 s: the ACK or the BYE went to an address that nobody has.
    let mut bench = Bench::default();
    let dialog = Dialog::default();
    let sent = invite(&mut bench, dialog, &sdp("192.168.1.10", 40000)).text();
    assert!(sent.contains("Contact: <sip:alice@22.33.44.55:17375>\r\n"));
    let ok = response("200 OK", "INVITE", PUBLIC, 1, dialog, &sdp("22.33.44.22", 30000));
    let ok = ok.replacen("Contact:", "Record-Route: <sip:22.33.44.20;lr>\r\nContact:", 1);
    let got = bench.inn(PROXY, PHONE, &ok).text();
    assert!(got.contains("Contact: <sip:bob@22.33.44.21:5060>\r\n") && got.contains("<sip:22.33.44.20;lr>"));
    // The phone's requests have the far end's Contact and route, which are not ours.
    let ack = request("ACK", PHONE, 1, dialog, true, "")
        .replacen("sip:bob@provider.example", "sip:bob@22.33.44.21:5060", 1)
        .replacen("Contact:", "Route: <sip:22.33.44.20;lr>\r\nContact:", 1);
    let expected = ack.replace("192.168.1.10:5060", PUBLIC);
    assert_eq!(bench.out(PHONE, PROXY, &ack).text(), expected);

    for n in 1..=3 {
        bench.advance(Duration::from_secs(61));
        let ask = |uri: &str| {
            message(
                &format!(
                    "OPTIONS {uri} SIP/2.0\nVia: SIP/2.0/UDP 22.33.44.20;branch=z9hG4bK-far{n}\n\
                     From: <sip:bob@provider.example>;tag=bob-1\n\
                     To: \"Alice\" <sip:alice@provider.example>;tag=alice-1\nCall-ID: call-1@192.168.1.10\n\
                     CSeq: {n} OPTIONS\nContact: <sip:bob@22.33.44.21:5060>"
                ),
                "",
            )
        };
        let got = ask_phone(&mut bench, &ask("sip:alice@22.33.44.55:17375"));
        assert_eq!(got.text(), ask("sip:alice@192.168.1.10:5060"));
        bench.assert_pinned("192.168.1.10:40000", MEDIA);
    }
    let bye = message(
        "BYE sip:alice@22.33.44.55:17375 SIP/2.0\nVia: SIP/2.0/UDP 22.33.44.20;branch=z9hG4bK-farbye\n\
         From: <sip:bob@provider.example>;tag=bob-1\n\
         To: \"Alice\" <sip:alice@provider.example>;tag=alice-1\nCall-ID: call-1@192.168.1.10\nCSeq: 9 BYE",
        "",
    );
    ask_phone(&mut bench, &bye);
    bench.assert_all_closed();
}

#[test]
fn f32_subscriptions_live_on_their_own() {
    // Presence and message lamps: the dialog has no media, and its Contact must stay what it was for its whole life.
    let mut bench = Bench::default();
    let dialog = Dialog { call_id: "blf", ..Dialog::default() };
    let subscribe = request("SUBSCRIBE", PHONE, 1, dialog, false, "").replacen(
        "User-Agent:",
        "Event: dialog\r\nExpires: 3600\r\nUser-Agent:",
        1,
    );
    let sent = bench.out(PHONE, PROXY, &subscribe);
    assert_eq!(sent.text(), subscribe.replace(PHONE, PUBLIC));
    bench.inn(PROXY, PHONE, response("202 Accepted", "SUBSCRIBE", PUBLIC, 1, dialog, ""));
    for n in 1..=59 {
        bench.advance(Duration::from_secs(60));
        let body = "<?xml version=\"1.0\"?><dialog-info entity=\"sip:alice@22.33.44.55:17375\"/>";
        let notify = |uri: &str| {
            message(
                &format!(
                    "NOTIFY {uri} SIP/2.0\nVia: SIP/2.0/UDP 22.33.44.20;branch=z9hG4bK-n{n}\n\
                     From: <sip:bob@provider.example>;tag=bob-1\nTo: <sip:alice@provider.example>;tag=alice-1\n\
                     Call-ID: blf\nCSeq: {n} NOTIFY\nContact: <sip:bob@22.33.44.21>\nEvent: dialog\n\
                     Subscription-State: active;expires={}\nContent-Type: application/dialog-info+xml",
                    3600 - 60 * n
                ),
                body,
            )
        };
        let got = ask_phone(&mut bench, &notify("sip:alice@22.33.44.55:17375"));
        assert_eq!(got.text(), notify("sip:alice@192.168.1.10:5060"));
    }
    assert_eq!(bench.engine.sizes().calls, 0);
    assert_eq!(bench.count(Reason::UnknownFlow), 0);
}
