//! Registrations: until when a phone must be reachable, and by which flow.

use std::time::Duration;

use crate::common::messages::{Dialog, PHONE, PROXY, answer, message, request, response};
use crate::common::{Bench, Passed, at};
use crate::{PUBLIC, assert_all_forgotten, far_sdp, secs};
use sipalg::alg::{Event, Input, Op, Output, Policy, Prefix, Reason};

/// A REGISTER of `who`; `n` tells attempts apart.
fn register(who: &str, phone: &str, n: u32, lines: &str) -> String {
    message(
        &format!(
            "REGISTER sip:provider.example SIP/2.0\nVia: SIP/2.0/UDP {phone};branch=z9hG4bK-{who}{n};rport\n\
             From: <sip:{who}@provider.example>;tag=r\nTo: <sip:{who}@provider.example>\n\
             Call-ID: reg-{who}\nCSeq: {n} REGISTER\n{lines}"
        ),
        "",
    )
}

fn contact(who: &str, phone: &str, params: &str) -> String {
    format!("Contact: <sip:{who}@{phone}>{params}\n")
}

/// `who` registers at `registrar`, who grants `lines` (with `PUBLIC` for the phone's public endpoint).
fn registered(
    bench: &mut Bench,
    who: &str,
    phone: &str,
    registrar: &str,
    n: u32,
    asked: &str,
    lines: &str,
) -> Passed {
    let sent = bench.out(phone, registrar, register(who, phone, n, asked));
    let seen = bench.public(phone, registrar);
    let lines = lines.replace("PUBLIC", &seen.to_string());
    bench.inn(registrar, phone, answer(&sent.text(), "200 OK", seen, &lines, ""))
}

fn count(bench: &Bench) -> usize {
    bench.engine.sizes().registrations
}

/// The lifetime that the flow was given last.
fn lifetime(bench: &Bench) -> Duration {
    bench.kernel.sustained.last().expect("none was given").1
}

#[test]
fn the_lifetime_is_in_the_contact_or_in_the_header_or_in_the_question() {
    for (asked, granted, seconds) in [
        (";expires=3600", "Contact: <sip:a@PUBLIC>;expires=120\n", 120),
        (";expires=3600", "Contact: <sip:a@PUBLIC>\nExpires: 240\n", 240),
        (";expires=300", "Contact: <sip:a@PUBLIC>\n", 300),
        ("", "Contact: <sip:a@PUBLIC>\n", 3600),
        // Others of the same account, on other phones, live longer; that is not for this flow.
        (";expires=60", "Contact: <sip:a@9.9.9.9>;expires=9000, <sip:a@PUBLIC>;expires=60\n", 60),
        // A registrar that lists nothing.
        (";expires=500", "", 500),
        (";expires=500", "Expires: 70\n", 70),
    ] {
        let mut bench = Bench::default();
        registered(&mut bench, "a", PHONE, PROXY, 1, &contact("a", PHONE, asked), granted);
        assert_eq!(count(&bench), 1, "{granted}");
        bench.advance(secs(seconds + 31));
        assert_eq!(count(&bench), 1, "{granted}");
        bench.advance(secs(2));
        assert_eq!(count(&bench), 0, "{granted}");
        assert!(bench.events.iter().any(|it| matches!(it, Event::Unregistered { why: "expired", .. })));
    }
}

#[test]
fn ways_to_unregister() {
    for (asked, answered) in [
        ("Contact: <sip:a@192.168.1.10:5060>;expires=0\n", ""),
        ("Contact: <sip:a@192.168.1.10:5060>\nExpires: 0\n", ""),
        ("Contact: *\nExpires: 0\n", ""),
        ("Contact: *\nExpires: 0\n", "Contact: <sip:a@9.9.9.9>;expires=500\n"),
        ("Contact: <sip:a@192.168.1.10:5060>;expires=0\n", "Contact: <sip:a@PUBLIC>;expires=0\n"),
    ] {
        let mut bench = Bench::default();
        registered(
            &mut bench,
            "a",
            PHONE,
            PROXY,
            1,
            &contact("a", PHONE, ""),
            "Contact: <sip:a@PUBLIC>;expires=600\n",
        );
        assert_eq!(count(&bench), 1);
        // Only the registrar's word counts: refused, it stays.
        let sent = bench.out(PHONE, PROXY, register("a", PHONE, 2, asked));
        let lines = "";
        bench.inn(PROXY, PHONE, answer(&sent.text(), "403 Forbidden", at(PUBLIC), lines, ""));
        assert_eq!(count(&bench), 1);
        registered(&mut bench, "a", PHONE, PROXY, 3, asked, answered);
        assert_eq!(count(&bench), 0, "{asked} {answered}");
    }
}

#[test]
fn a_contact_that_is_a_name_is_a_registration_for_as_long_as_it_was_granted() {
    let mut bench = Bench::default();
    let named = "Contact: <sip:a@phone.lan>\n";
    let granted = "Contact: <sip:a@phone.lan>;expires=7200, <sip:a@9.9.9.9>;expires=9000\n";
    registered(&mut bench, "a", PHONE, PROXY, 1, named, granted);
    assert_eq!(count(&bench), 1);
    assert!(lifetime(&bench) > secs(7200), "{:?}", lifetime(&bench));
    // A question changes nothing.
    registered(&mut bench, "a", PHONE, PROXY, 2, "", granted);
    assert_eq!(count(&bench), 1);
    // Removed, it is gone, whatever name another phone has.
    let removed = "Contact: <sip:a@phone.lan>;expires=0\n";
    registered(&mut bench, "a", PHONE, PROXY, 3, removed, "Contact: <sip:a@desk.lan>;expires=7200\n");
    assert_eq!(count(&bench), 0);
    // The phone's address says more than a name.
    let both = "Contact: <sip:a@desk.lan>;expires=7200, <sip:a@PUBLIC>;expires=60\n";
    registered(&mut bench, "a", PHONE, PROXY, 4, &contact("a", PHONE, ";expires=60"), both);
    bench.advance(secs(93));
    assert_eq!(count(&bench), 0);
}

#[test]
fn a_lifetime_in_quotes_is_a_lifetime() {
    let mut bench = Bench::default();
    let granted = "Contact: <sip:a@PUBLIC>;expires=\"120\"\n";
    registered(&mut bench, "a", PHONE, PROXY, 1, &contact("a", PHONE, ";expires=\"120\""), granted);
    bench.advance(secs(151));
    assert_eq!(count(&bench), 1);
    bench.advance(secs(2));
    assert_eq!(count(&bench), 0);
    registered(&mut bench, "a", PHONE, PROXY, 2, &contact("a", PHONE, ""), granted);
    assert_eq!(count(&bench), 1);
    registered(&mut bench, "a", PHONE, PROXY, 3, &contact("a", PHONE, ";expires=\"0\""), "");
    assert_eq!(count(&bench), 0);
}

#[test]
fn a_lifetime_that_no_number_holds_is_a_week() {
    for granted in [
        "Contact: <sip:a@PUBLIC>;expires=4294967296\n",
        "Contact: <sip:a@PUBLIC>\nExpires: 99999999999999999999\n",
    ] {
        let mut bench = Bench::default();
        registered(&mut bench, "a", PHONE, PROXY, 1, &contact("a", PHONE, ";expires=60"), granted);
        assert_eq!(lifetime(&bench), secs(7 * 24 * 3600 + 32), "{granted}");
    }
}

#[test]
fn several_accounts_on_one_flow_go_one_by_one() {
    let mut bench = Bench::default();
    for who in ["a", "b", "c"] {
        let granted = format!("Contact: <sip:{who}@PUBLIC>;expires=7200\n");
        registered(&mut bench, who, PHONE, PROXY, 1, &contact(who, PHONE, ""), &granted);
    }
    assert_eq!(count(&bench), 3);
    registered(&mut bench, "b", PHONE, PROXY, 2, &contact("b", PHONE, ";expires=0"), "");
    assert_eq!(count(&bench), 2);
    // The flow still has to live for two hours: a packet lowers its lifetime, and it is set again.
    bench.advance(secs(10));
    let sustained = bench.kernel.sustained.len();
    bench.out(PHONE, PROXY, request("OPTIONS", PHONE, 1, Dialog::default(), false, ""));
    assert_eq!(bench.kernel.sustained.len(), sustained + 1);
    assert!(lifetime(&bench) > secs(7000), "{:?}", lifetime(&bench));
    for who in ["a", "c"] {
        registered(&mut bench, who, PHONE, PROXY, 2, &contact(who, PHONE, ";expires=0"), "");
    }
    assert_eq!(count(&bench), 0);
    bench.advance(secs(10));
    let sustained = bench.kernel.sustained.len();
    bench.out(
        PHONE,
        PROXY,
        request("OPTIONS", PHONE, 2, Dialog { branch: "z9hG4bK-o2", ..Dialog::default() }, false, ""),
    );
    assert_eq!(bench.kernel.sustained.len(), sustained, "nobody needs more than the ruleset gives");
    assert_all_forgotten(&mut bench);
}

#[test]
fn several_phones_behind_one_address_and_two_contacts_of_one() {
    let mut bench = Bench::default();
    for (who, port) in [("a", 5060), ("b", 5062), ("c", 5064)] {
        let phone = format!("192.168.1.10:{port}");
        let granted =
            format!("Contact: <sip:{who}@PUBLIC>;expires=600, <sip:{who}@9.8.7.6:5070>;expires=60\n");
        let asked = format!("Contact: <sip:{who}@{phone}>;q=1, <sip:{who}@9.8.7.6:5070>;q=0.5\n");
        let got = registered(&mut bench, who, &phone, PROXY, 1, &asked, &granted);
        assert!(
            got.text().contains(&format!("<sip:{who}@{phone}>;expires=600, <sip:{who}@9.8.7.6:5070>")),
            "{}",
            got.text()
        );
    }
    assert_eq!(count(&bench), 3);
    bench.advance(secs(500));
    assert_eq!(count(&bench), 3);
}

#[test]
fn a_registrar_that_moves_is_another_flow() {
    let mut bench = Bench::default();
    let other = "22.33.44.40:5060";
    registered(
        &mut bench,
        "a",
        PHONE,
        PROXY,
        1,
        &contact("a", PHONE, ""),
        "Contact: <sip:a@PUBLIC>;expires=600\n",
    );
    registered(
        &mut bench,
        "a",
        PHONE,
        other,
        2,
        &contact("a", PHONE, ""),
        "Contact: <sip:a@PUBLIC>;expires=600\n",
    );
    assert_eq!(bench.kernel.sustained.last().unwrap().0.far, at(other));
    assert_eq!(count(&bench), 2, "the old one may still call until it forgets");
    bench.advance(secs(400));
    registered(
        &mut bench,
        "a",
        PHONE,
        other,
        3,
        &contact("a", PHONE, ""),
        "Contact: <sip:a@PUBLIC>;expires=600\n",
    );
    bench.advance(secs(300));
    assert_eq!(count(&bench), 1);
}

#[test]
fn f12_a_phone_that_registers_within_300_ms_is_still_there_after_an_hour() {
    let mut bench = Bench::default();
    let sent = bench.out(PHONE, PROXY, register("a", PHONE, 1, &contact("a", PHONE, ";expires=3600")));
    bench.advance(Duration::from_millis(100));
    bench.inn(PROXY, PHONE, answer(&sent.text(), "401 Unauthorized", at(PUBLIC), "", ""));
    bench.advance(Duration::from_millis(100));
    registered(
        &mut bench,
        "a",
        PHONE,
        PROXY,
        2,
        &contact("a", PHONE, ";expires=3600"),
        "Contact: <sip:a@PUBLIC>;expires=3600\n",
    );
    let sustained = bench.kernel.sustained.len();
    // conntrack's own rule holds for two seconds of a flow's life; only what is set after that stays.
    bench.advance(Duration::from_millis(2250));
    assert_eq!(bench.kernel.sustained.len(), sustained);
    bench.advance(Duration::from_millis(100));
    assert_eq!(bench.kernel.sustained.len(), sustained + 1);
    assert!(lifetime(&bench) >= secs(3600));
    bench.advance(secs(3590));
    let invite = message(
        &format!(
            "INVITE sip:a@{PUBLIC} SIP/2.0\nVia: SIP/2.0/UDP 22.33.44.20;branch=z9hG4bK-in\n\
             From: <sip:bob@provider.example>;tag=b\nTo: <sip:a@provider.example>\nCall-ID: in\nCSeq: 1 INVITE\n\
             Contact: <sip:bob@22.33.44.21>\nContent-Type: application/sdp"
        ),
        &far_sdp(),
    );
    let got = bench.inn(PROXY, PHONE, invite);
    assert!(got.text().starts_with(&format!("INVITE sip:a@{PHONE} SIP/2.0\r\n")), "{}", got.text());
}

#[test]
fn a_grant_of_a_day_is_kept_although_every_packet_lowers_it() {
    let mut bench = Bench::default();
    registered(
        &mut bench,
        "a",
        PHONE,
        PROXY,
        1,
        &contact("a", PHONE, ""),
        "Contact: <sip:a@PUBLIC>;expires=86400\n",
    );
    assert!(lifetime(&bench) >= secs(86_400));
    for n in 0..20 {
        bench.advance(secs(3600));
        let branch = format!("z9hG4bK-o{n}");
        bench.out(
            PHONE,
            PROXY,
            request("OPTIONS", PHONE, n, Dialog { branch: &branch, ..Dialog::default() }, false, ""),
        );
        assert!(lifetime(&bench) >= secs(86_400 - 3600 * u64::from(n + 1)), "{n}: {:?}", lifetime(&bench));
    }
    assert_eq!(bench.count(Reason::UnknownFlow), 0);
}

#[test]
fn f32_subscriptions_keep_their_flow_for_as_long_as_they_were_granted() {
    for method in ["SUBSCRIBE", "PUBLISH"] {
        let mut bench = Bench::default();
        let dialog = Dialog { call_id: "sub", ..Dialog::default() };
        let text = request(method, PHONE, 1, dialog, false, "").replacen(
            "User-Agent:",
            "Event: dialog\r\nExpires: 86400\r\nUser-Agent:",
            1,
        );
        bench.out(PHONE, PROXY, text);
        let ok = response("200 OK", method, PUBLIC, 1, dialog, "").replacen(
            "Contact:",
            "Expires: 43200\r\nContact:",
            1,
        );
        bench.inn(PROXY, PHONE, ok);
        assert!(lifetime(&bench) >= secs(43_200), "{method}");
        assert_eq!((count(&bench), bench.engine.sizes().calls), (0, 0));
        bench.advance(secs(40_000));
        assert_eq!(bench.engine.sizes().flows, 1);
        assert_all_forgotten(&mut bench);
    }
}

#[test]
fn a_flow_that_dies_takes_its_registrations_with_it() {
    let mut bench = Bench::default();
    registered(
        &mut bench,
        "a",
        PHONE,
        PROXY,
        1,
        &contact("a", PHONE, ""),
        "Contact: <sip:a@PUBLIC>;expires=600\n",
    );
    bench.destroy(PHONE, PROXY);
    assert_eq!(count(&bench), 0);
    assert!(bench.events.iter().any(|it| matches!(it, Event::Unregistered { why: "flow lost", .. })));
    // The next REGISTER is as good as the first one.
    registered(
        &mut bench,
        "a",
        PHONE,
        PROXY,
        2,
        &contact("a", PHONE, ""),
        "Contact: <sip:a@PUBLIC>;expires=600\n",
    );
    assert_eq!(count(&bench), 1);
}

#[test]
fn forged_registrations_change_nothing() {
    let mut bench = Bench::default();
    registered(
        &mut bench,
        "a",
        PHONE,
        PROXY,
        1,
        &contact("a", PHONE, ""),
        "Contact: <sip:a@PUBLIC>;expires=600\n",
    );
    // Another phone un-registers the account, and even gets a yes; a stranger answers what nobody asked.
    let other = "192.168.1.66:5060";
    registered(&mut bench, "a", other, PROXY, 1, "Contact: *\nExpires: 0\n", "");
    let forged = register("a", PHONE, 9, "Contact: *\nExpires: 0\n").replacen(
        "REGISTER sip:provider.example SIP/2.0",
        "SIP/2.0 200 OK",
        1,
    );
    bench.inn(PROXY, PHONE, &forged);
    bench.inn(PROXY, PHONE, register("a", "22.33.44.20", 9, "Contact: *\nExpires: 0\n"));
    assert_eq!(count(&bench), 1);
}

#[test]
fn only_listed_registrars_are_believed() {
    let mut policy = Policy::default();
    policy.registrars.push(Prefix { address: at("22.33.44.40:0").ip(), bits: 32 });
    let mut bench = Bench::new(policy);
    let granted = "Contact: <sip:a@PUBLIC>;expires=86400\n";
    let got = registered(&mut bench, "a", PHONE, PROXY, 1, &contact("a", PHONE, ""), granted);
    assert!(got.text().contains(&format!("Contact: <sip:a@{PHONE}>;expires=86400\r\n")), "still translated");
    assert_eq!(count(&bench), 0);
    bench.advance(secs(5));
    assert!(bench.kernel.sustained.iter().all(|(_, it)| *it <= secs(3700)));
    registered(&mut bench, "a", PHONE, "22.33.44.40:5060", 2, &contact("a", PHONE, ""), granted);
    assert_eq!(count(&bench), 1);
    assert!(lifetime(&bench) >= secs(86_400));
}

#[test]
fn servers_that_do_the_nat_themselves_see_the_nat() {
    let mut policy = Policy::default();
    policy.hands_off.push(Prefix { address: at(PROXY).ip(), bits: 24 });
    let mut bench = Bench::new(policy);
    let text = register("a", PHONE, 1, &contact("a", PHONE, ""));
    let passed = bench.out(PHONE, PROXY, &text);
    assert_eq!((passed.reason, passed.text()), (Reason::HandsOff, text));
    let invite = request("INVITE", PHONE, 1, Dialog::default(), false, &crate::offer());
    let passed = bench.out(PHONE, PROXY, &invite);
    assert_eq!((passed.reason, passed.text()), (Reason::HandsOff, invite));
    assert!(bench.kernel.pinholes.is_empty());
    assert_eq!(bench.out(PHONE, "33.3.3.3:5060", register("a", PHONE, 2, "")).reason, Reason::Rewritten);
}

/// A PBX that registers `accounts` by one flow.
fn pbx(bench: &mut Bench, accounts: u32) {
    for n in 0..accounts {
        let who = format!("line{n}");
        registered(bench, &who, PHONE, PROXY, 1, &contact(&who, PHONE, ";expires=600"), &grant(&who));
    }
    assert_eq!(count(bench), accounts as usize);
}

fn grant(who: &str) -> String {
    format!("Contact: <sip:{who}@PUBLIC>;expires=600\n")
}

#[test]
fn many_registrations_of_one_flow_that_expire_at_once_leave_those_that_were_renewed() {
    let mut bench = Bench::default();
    pbx(&mut bench, 500);
    bench.advance(secs(400));
    for n in [3, 77, 499] {
        let who = format!("line{n}");
        registered(&mut bench, &who, PHONE, PROXY, 2, &contact(&who, PHONE, ";expires=600"), &grant(&who));
    }
    bench.events.clear();
    bench.advance(secs(300));
    let ended = |it: &&Event| matches!(it, Event::Unregistered { why: "expired", .. });
    assert_eq!((count(&bench), bench.events.iter().filter(ended).count()), (3, 497));
    // They still hold their flow, whose loss they hear of.
    bench.destroy(PHONE, PROXY);
    let lost = |it: &&Event| matches!(it, Event::Unregistered { why: "flow lost", .. });
    assert_eq!((count(&bench), bench.events.iter().filter(lost).count()), (0, 3));
    assert_all_forgotten(&mut bench);
}

#[test]
fn after_a_reload_of_the_ruleset_flows_are_sustained_in_portions() {
    let mut bench = Bench::default();
    for n in 0..600 {
        let phone = format!("192.168.{}.{}:5060", 1 + n / 200, 10 + n % 200);
        let who = format!("line{n}");
        registered(&mut bench, &who, &phone, PROXY, 1, &contact(&who, &phone, ";expires=600"), &grant(&who));
    }
    let mut portions = Vec::new();
    let mut input = Input::RulesetReloaded;
    loop {
        bench.engine.handle(bench.now, input);
        let mut sustained = 0;
        while let Some(output) = bench.engine.poll_output() {
            sustained +=
                usize::from(matches!(output, Output::Command(it) if matches!(it.op, Op::Sustain { .. })));
        }
        portions.push(sustained);
        if bench.engine.poll_timeout().is_none_or(|due| due > bench.now) {
            break;
        }
        input = Input::Timeout;
    }
    assert_eq!(portions, [256, 256, 88]);
}
