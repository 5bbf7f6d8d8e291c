//! The public address changes, an uplink goes.

use crate::common::messages::{Dialog, PHONE, PROXY, answer, request, response, sdp};
use crate::common::{Bench, WAN, at, kind};
use crate::{FAR, PUBLIC, RTP, asks, call_up, far_sdp, hang_up, invite, offer, replies, secs};
use sipalg::alg::{Event, Input, Op, Policy, Reason};

/// A server by the other uplink.
const OTHER: &str = "44.55.66.77:5060";

fn register(n: u32) -> String {
    request(
        "REGISTER",
        PHONE,
        n,
        Dialog { call_id: "reg", branch: &format!("z9hG4bK-reg{n}"), ..Dialog::default() },
        false,
        "",
    )
}

/// The phone registers and gets what it asks for.
fn registered(bench: &mut Bench, n: u32) -> String {
    let sent = bench.out(PHONE, PROXY, register(n)).text();
    let seen = bench.public(PHONE, PROXY);
    let contact = format!("Contact: <sip:alice@{seen}>;expires=600\n");
    bench.inn(PROXY, PHONE, answer(&sent, "200 OK", seen, &contact, ""));
    sent
}

/// The phone has a call by the other uplink.
fn call_elsewhere(bench: &mut Bench) {
    bench.nat(PHONE, OTHER, "99.88.77.66:5060");
    bench.uplink = 9;
    let second = Dialog { call_id: "second", branch: "z9hG4bK-second", ..Dialog::default() };
    bench.out(PHONE, OTHER, request("INVITE", PHONE, 1, second, false, &sdp("192.168.1.10", 44000)));
    bench.inn(
        OTHER,
        PHONE,
        response("200 OK", "INVITE", "99.88.77.66:5060", 1, second, &sdp("44.55.66.78", 34000)),
    );
    bench.uplink = WAN;
    bench.assert_pinned("192.168.1.10:44000", "44.55.66.78:34000");
}

#[test]
fn f15_everything_by_the_old_address_goes_at_once_and_the_next_register_has_the_new_one() {
    let mut bench = Bench::default();
    assert!(registered(&mut bench, 1).contains(&format!("Contact: <sip:alice@{PUBLIC}>")));
    call_up(&mut bench);
    bench.lose("22.33.44.55");
    bench.assert_all_closed();
    assert_eq!(bench.engine.sizes().registrations, 0);
    assert_eq!(bench.commands.iter().map(kind).filter(|it| *it == "purge").count(), 1);
    assert!(
        bench.commands.iter().any(|op| matches!(op, Op::Purge { address } if *address == at(PUBLIC).ip()))
    );
    let ended = |it: &Event| matches!(it, Event::CallEnded { why: "lost", duration: Some(_), .. });
    assert!(bench.events.iter().any(ended), "{:?}", bench.events);
    let gone = |it: &Event| matches!(it, Event::AddressGone { flows: 1, calls: 1, .. });
    assert!(bench.events.iter().any(gone), "{:?}", bench.events);

    bench.renumber("22.33.44.99");
    let sent = registered(&mut bench, 2);
    assert!(sent.contains("Contact: <sip:alice@22.33.44.99:"), "{sent}");
    assert!(!sent.contains("22.33.44.55"), "{sent}");
    assert_eq!(bench.engine.sizes().registrations, 1);
    // And so does the next call.
    let again = Dialog { call_id: "again", branch: "z9hG4bK-a", ..Dialog::default() };
    let sent = bench.out(PHONE, PROXY, request("INVITE", PHONE, 1, again, false, &offer())).text();
    assert!(sent.contains("c=IN IP4 22.33.44.99\r\n"), "{sent}");
    assert_eq!(bench.binding(RTP).ip(), at("22.33.44.99:0").ip());
}

#[test]
fn f16_calls_by_other_uplinks_are_not_touched() {
    let mut bench = Bench::default();
    call_up(&mut bench);
    call_elsewhere(&mut bench);
    bench.lose("22.33.44.55");
    bench.assert_pinned("192.168.1.10:44000", "44.55.66.78:34000");
    assert_eq!((bench.kernel.pins.len(), bench.kernel.pinholes.len(), bench.engine.sizes().calls), (2, 2, 1));
    bench.lose("99.88.77.66");
    bench.assert_all_closed();
}

/// Two uplinks with an address of their own each, and a phone that is registered by the first.
fn two_uplinks() -> Bench {
    let mut bench = Bench::default();
    bench.addresses = vec![(WAN, at(PUBLIC).ip()), (9, at("99.88.77.66:0").ip())];
    registered(&mut bench, 1);
    bench
}

#[test]
fn f16_a_phone_whose_way_out_moves_to_another_uplink_is_translated_anew_when_it_repeats_itself() {
    let mut bench = two_uplinks();
    call_up(&mut bench);
    bench.uplink = 9;
    let first = bench.out(PHONE, PROXY, register(2));
    assert_eq!(
        (first.reason, first.payload),
        (Reason::Rerouted, None),
        "it would leave with the old address"
    );
    assert_eq!(bench.engine.sizes().registrations, 0);
    let lost = |it: &Event| matches!(it, Event::Unregistered { why: "flow lost", .. });
    assert!(bench.events.iter().any(lost), "{:?}", bench.events);
    bench.renumber("99.88.77.66");
    let sent = registered(&mut bench, 2);
    assert!(sent.contains("Contact: <sip:alice@99.88.77.66:") && !sent.contains("22.33.44.55"), "{sent}");
    assert_eq!(bench.engine.sizes().registrations, 1);
    // The call goes on as it is; the phone may take it along.
    bench.assert_pinned(RTP, FAR);
    let sent = asks(&mut bench, "INVITE", 2, "z9hG4bK-re", &offer()).text();
    assert!(sent.contains("c=IN IP4 99.88.77.66\r\n"), "{sent}");
    // And back.
    reroute(&mut bench, WAN, "22.33.44.55", 3);
    assert!(registered(&mut bench, 3).contains("Contact: <sip:alice@22.33.44.55:"));
}

#[test]
fn f16_an_address_that_belongs_to_no_uplink_alone_goes_by_any() {
    for addresses in [vec![], vec![(1, at(PUBLIC).ip())], vec![(WAN, at(PUBLIC).ip()), (9, at(PUBLIC).ip())]]
    {
        let mut bench = two_uplinks();
        bench.addresses = addresses;
        bench.uplink = 9;
        for n in 2..4 {
            assert!(registered(&mut bench, n).contains(&format!("Contact: <sip:alice@{PUBLIC}>")));
        }
        let asked = bench.commands.iter().filter(|op| kind(op) == "reroute").count();
        assert_eq!((asked, bench.engine.sizes().registrations), (1, 1), "one question, and it stays");
    }
}

#[test]
fn f16_answers_that_come_by_another_uplink_change_nothing() {
    let mut bench = two_uplinks();
    for n in 2..4 {
        let sent = bench.out(PHONE, PROXY, register(n)).text();
        bench.uplink = 9;
        let contact = format!("Contact: <sip:alice@{PUBLIC}>;expires=600\n");
        bench.inn(PROXY, PHONE, answer(&sent, "200 OK", at(PUBLIC), &contact, ""));
        bench.uplink = WAN;
    }
    assert!(!bench.commands.iter().any(|op| kind(op) == "reroute"), "{:?}", bench.commands);
    assert_eq!(bench.engine.sizes().registrations, 1);
}

#[test]
fn an_address_that_nobody_used_means_nothing() {
    let mut bench = Bench::default();
    registered(&mut bench, 1);
    call_up(&mut bench);
    let (kernel, commands) = (bench.kernel.clone(), bench.commands.len());
    bench.lose("192.168.1.1");
    assert_eq!((&bench.kernel, bench.commands.len()), (&kernel, commands));
    hang_up(&mut bench);
}

#[test]
fn in_the_middle_of_a_registration_the_answer_is_late_and_the_next_attempt_is_right() {
    let mut bench = Bench::default();
    let sent = bench.out(PHONE, PROXY, register(1)).text();
    bench.lose("22.33.44.55");
    let late =
        answer(&sent, "200 OK", at(PUBLIC), &format!("Contact: <sip:alice@{PUBLIC}>;expires=600\n"), "");
    // conntrack has no entry for it any more; if it came through all the same it would change nothing.
    assert_eq!(bench.inn(PROXY, PHONE, late).reason, Reason::UnknownFlow);
    assert_eq!(bench.engine.sizes().registrations, 0);
    bench.renumber("22.33.44.99");
    registered(&mut bench, 2);
    assert_eq!(bench.engine.sizes().registrations, 1);
}

#[test]
fn a_call_that_the_phone_takes_along_goes_on_by_the_new_address() {
    let mut bench = Bench::default();
    call_up(&mut bench);
    bench.lose("22.33.44.55");
    bench.renumber("22.33.44.99");
    let sent = asks(&mut bench, "INVITE", 2, "z9hG4bK-re", &offer()).text();
    assert!(sent.contains("c=IN IP4 22.33.44.99\r\n"), "{sent}");
    let seen = bench.public(PHONE, PROXY).to_string();
    let dialog = Dialog { branch: "z9hG4bK-re", ..Dialog::default() };
    bench.inn(PROXY, PHONE, response("200 OK", "INVITE", &seen, 2, dialog, &far_sdp()));
    bench.assert_pinned(RTP, FAR);
    bench.advance(secs(100));
    bench.assert_pinned(RTP, FAR);
    let bye = Dialog { branch: "z9hG4bK-bye", ..dialog };
    asks(&mut bench, "BYE", 3, "z9hG4bK-bye", "");
    bench.inn(PROXY, PHONE, response("200 OK", "BYE", &seen, 3, bye, ""));
    bench.assert_all_closed();
}

#[test]
fn commands_that_are_under_way_find_nothing_to_hold_on_to() {
    let mut bench = Bench::default();
    invite(&mut bench, &offer());
    bench.engine.handle(bench.now, Input::AddressGone(at(PUBLIC).ip()));
    bench.lose("22.33.44.55");
    replies(&mut bench, "183 Session Progress", &far_sdp());
    bench.advance(secs(400));
    bench.assert_all_closed();
}

#[test]
fn f35_behind_another_nat_messages_have_the_address_that_the_administrator_knows() {
    let policy = Policy { advertise: vec![at("198.51.100.7:0").ip()], ..Policy::default() };
    let mut bench = Bench::new(policy);
    let sent = bench.out(PHONE, PROXY, register(1)).text();
    assert!(sent.contains("Via: SIP/2.0/UDP 198.51.100.7:17375;"), "{sent}");
    assert!(sent.contains("Contact: <sip:alice@198.51.100.7:17375>"), "{sent}");
    // What comes back is understood, and the phone gets its own words.
    let seen = at("198.51.100.7:17375");
    let contact = "Contact: <sip:alice@198.51.100.7:17375>;expires=600\n";
    let got = bench.inn(PROXY, PHONE, answer(&sent, "200 OK", seen, contact, "")).text();
    assert!(got.contains("Contact: <sip:alice@192.168.1.10:5060>;expires=600"), "{got}");
    assert!(!got.contains("198.51.100.7"), "{got}");
    assert_eq!(bench.engine.sizes().registrations, 1);
    assert!(!bench.events.iter().any(|it| matches!(it, Event::Upstream { .. })), "all is as it should be");
    // Media: the port is ours, the address is the advertised one; the kernel works with what is really here.
    let sent = invite(&mut bench, &offer()).text();
    let public = bench.binding(RTP);
    assert_eq!(public.ip(), at(PUBLIC).ip());
    let expected = sdp("198.51.100.7", public.port()).replace('\n', "\r\n");
    assert!(sent.ends_with(&expected), "{sent}");
    replies(&mut bench, "200 OK", &far_sdp());
    bench.assert_pinned(RTP, FAR);
    assert!(bench.kernel.pins.iter().all(|pin| pin.public.0.ip() == at(PUBLIC).ip()));
    // Another phone here is told the advertised address, and still found in the house.
    let bob = "192.168.1.11:5060";
    let second = Dialog { call_id: "second", branch: "z9hG4bK-s", from_tag: "b", to_tag: "x" };
    bench.out(bob, PROXY, request("INVITE", bob, 1, second, false, &sdp("192.168.1.11", 50000)));
    let back = bench.public(bob, PROXY).to_string().replace("22.33.44.55", "198.51.100.7");
    let body = sdp("198.51.100.7", public.port());
    let got = bench.inn(PROXY, bob, response("200 OK", "INVITE", &back, 1, second, &body)).text();
    assert!(got.contains("c=IN IP4 192.168.1.10\r\n") && got.contains("m=audio 40000 "), "{got}");
}

#[test]
fn f35_another_nat_and_another_gateway_on_the_way_are_noticed_once() {
    for (from, to, what) in [
        ("received=22.33.44.55", "received=198.51.100.7", "nat"),
        ("UDP 22.33.44.55:17375", "UDP 198.51.100.7:61000", "gateway"),
    ] {
        let mut bench = Bench::default();
        for n in 1..=3 {
            let sent = bench.out(PHONE, PROXY, register(n)).text();
            let text = answer(&sent, "401 Unauthorized", at(PUBLIC), "", "");
            assert!(text.contains(from), "{text}");
            bench.inn(PROXY, PHONE, text.replace(from, to));
        }
        let told: Vec<_> = bench
            .events
            .iter()
            .filter(|it| matches!(it, Event::Upstream { what: it, .. } if *it == what))
            .collect();
        assert_eq!(told.len(), 1, "{:?}", bench.events);
    }
}

/// The phone's way out moves to another uplink; its first message by it is lost.
fn reroute(bench: &mut Bench, uplink: u32, address: &str, n: u32) {
    bench.uplink = uplink;
    assert_eq!(bench.out(PHONE, PROXY, register(n)).reason, Reason::Rerouted);
    bench.renumber(address);
}

#[test]
fn f16_a_call_whose_signalling_has_moved_goes_with_the_address_of_its_media() {
    let mut bench = two_uplinks();
    call_up(&mut bench);
    reroute(&mut bench, 9, "99.88.77.66", 2);
    registered(&mut bench, 2);
    bench.assert_pinned(RTP, FAR);
    bench.lose("22.33.44.55");
    bench.assert_all_closed();
    assert_eq!((bench.engine.sizes().calls, bench.engine.sizes().registrations), (0, 1));
}

#[test]
fn f16_a_call_whose_media_has_moved_survives_the_loss_of_its_signallings_address() {
    let mut bench = two_uplinks();
    call_up(&mut bench);
    // Both move to the other uplink, and the signalling moves back.
    reroute(&mut bench, 9, "99.88.77.66", 2);
    let sent = asks(&mut bench, "INVITE", 2, "z9hG4bK-re", &offer()).text();
    assert!(sent.contains("c=IN IP4 99.88.77.66\r\n"), "{sent}");
    let contact = "Contact: <sip:bob@22.33.44.21:5060>\n";
    let seen = bench.public(PHONE, PROXY);
    bench.inn(PROXY, PHONE, answer(&sent, "200 OK", seen, contact, &far_sdp()));
    bench.assert_pinned(RTP, FAR);
    reroute(&mut bench, WAN, "22.33.44.55", 3);
    registered(&mut bench, 3);
    bench.lose("22.33.44.55");
    bench.assert_pinned(RTP, FAR);
    assert_eq!(bench.kernel.pinholes.len(), 2, "those that it left behind are closed");
    assert_eq!((bench.engine.sizes().calls, bench.engine.sizes().registrations), (1, 0));
    // What it left behind is none of its business when it ends: another call has the same port by the first uplink now.
    bench.renumber("22.33.44.99");
    let second = Dialog { call_id: "second", branch: "z9hG4bK-second", ..Dialog::default() };
    bench.out(PHONE, PROXY, request("INVITE", PHONE, 1, second, false, &offer()));
    let seen = bench.public(PHONE, PROXY).to_string();
    bench.inn(PROXY, PHONE, response("200 OK", "INVITE", &seen, 1, second, &far_sdp()));
    let bye = asks(&mut bench, "BYE", 9, "z9hG4bK-bye", "").text();
    bench.inn(PROXY, PHONE, answer(&bye, "200 OK", bench.public(PHONE, PROXY), "", ""));
    assert_eq!(bench.engine.sizes().calls, 1);
    assert_eq!(bench.kernel.pinholes.len(), 2, "{:?}", bench.kernel);
    bench.assert_pinned(RTP, FAR);
    bench.lose("22.33.44.99");
    bench.assert_all_closed();
}
