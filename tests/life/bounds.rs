//! Bounds: full tables, greedy hosts, ports that rest.

use crate::common::Bench;
use crate::common::messages::{Dialog, PHONE, PROXY, answer, request, response, sdp};
use crate::{FAR, RTP, answers, asks, assert_all_forgotten, call_up, far_sdp, hang_up, offer, secs};
use sipalg::alg::{Limits, Policy, Reason};

fn with(limits: Limits) -> Bench {
    Bench::new(Policy { limits, ..Policy::default() })
}

/// Another host's INVITE, one of very many.
fn attempt(bench: &mut Bench, n: u32) -> Reason {
    let host = format!("192.168.{}.{}", 2 + n / 200, 1 + n % 200);
    let phone = format!("{host}:5060");
    let (call_id, branch) = (format!("flood-{n}"), format!("z9hG4bK-flood{n}"));
    let dialog = Dialog { call_id: &call_id, branch: &branch, ..Dialog::default() };
    bench.out(&phone, PROXY, request("INVITE", &phone, 1, dialog, false, &sdp(&host, 40000))).reason
}

#[test]
fn f41_full_of_calls_the_oldest_that_nobody_answered_goes_and_live_ones_never() {
    let mut bench = with(Limits { calls: 20, ..Limits::default() });
    call_up(&mut bench);
    for n in 0..200 {
        assert_eq!(attempt(&mut bench, n), Reason::Rewritten, "{n}");
        assert!(bench.engine.sizes().calls <= 20);
    }
    bench.assert_pinned(RTP, FAR);
    // Of those that nobody answered, the latest are left: their answers still come to something.
    let dialog = Dialog { call_id: "flood-199", branch: "z9hG4bK-flood199", ..Dialog::default() };
    let seen = bench.public("192.168.2.200:5060", PROXY).to_string();
    bench.inn(PROXY, "192.168.2.200:5060", response("200 OK", "INVITE", &seen, 1, dialog, &far_sdp()));
    bench.assert_pinned("192.168.2.200:40000", FAR);
    bench.advance(secs(33));
    assert_eq!(bench.engine.sizes().calls, 2);
    let bye = Dialog { branch: "z9hG4bK-floodbye", ..dialog };
    bench.out("192.168.2.200:5060", PROXY, request("BYE", "192.168.2.200:5060", 2, bye, true, ""));
    bench.inn(PROXY, "192.168.2.200:5060", response("200 OK", "BYE", &seen, 2, bye, ""));
    hang_up(&mut bench);
    assert_all_forgotten(&mut bench);
}

#[test]
fn f41_full_of_live_calls_the_next_one_passes_untouched() {
    let mut bench = with(Limits { calls: 1, ..Limits::default() });
    call_up(&mut bench);
    assert_eq!(attempt(&mut bench, 1), Reason::TableFull);
    bench.assert_pinned(RTP, FAR);
    hang_up(&mut bench);
}

#[test]
fn f41_full_of_pinholes_those_that_nobody_answered_go_first() {
    let mut bench = with(Limits { bindings: 10, ..Limits::default() });
    call_up(&mut bench);
    for n in 0..50 {
        assert_eq!(attempt(&mut bench, n), Reason::Rewritten, "{n}");
        assert!(bench.engine.sizes().bindings <= 10);
    }
    bench.assert_pinned(RTP, FAR);
    hang_up_all(&mut bench);
}

fn hang_up_all(bench: &mut Bench) {
    bench.advance(secs(33));
    hang_up(bench);
}

#[test]
fn f41_full_of_flows_and_transactions_a_live_call_goes_on() {
    let mut bench = with(Limits { flows: 20, transactions: 20, ..Limits::default() });
    call_up(&mut bench);
    for n in 0..500 {
        attempt(&mut bench, n);
        let sizes = bench.engine.sizes();
        assert!(sizes.flows <= 20 && sizes.transactions <= 20, "{sizes:?}");
    }
    hang_up_all(&mut bench);
    assert_all_forgotten(&mut bench);
}

#[test]
fn f41_full_of_registered_phones_all_of_them_stay_and_whoever_is_new_passes_untouched() {
    let mut bench = with(Limits { flows: 8, ..Limits::default() });
    for n in 1..=8 {
        let phone = format!("192.168.1.{n}:5060");
        let sent = bench.out(&phone, PROXY, request("REGISTER", &phone, 1, Dialog::default(), false, ""));
        let seen = bench.public(&phone, PROXY);
        let contact = format!("Contact: <sip:alice@{seen}>;expires=3600\n");
        bench.inn(PROXY, &phone, answer(&sent.text(), "200 OK", seen, &contact, ""));
    }
    assert_eq!(bench.engine.sizes().registrations, 8);
    bench.advance(secs(3500));
    for n in 0..20 {
        assert_eq!(attempt(&mut bench, n), Reason::TableFull, "{n}");
    }
    assert_eq!(bench.engine.sizes().registrations, 8);
    // Their time is over, and they are silent: there is room again.
    bench.advance(secs(3700));
    assert_eq!(attempt(&mut bench, 20), Reason::Rewritten);
}

#[test]
fn f43_s11_a_greedy_host_takes_from_nobody_but_itself() {
    let mut bench = with(Limits { per_host: 5, transactions_per_host: 5, ..Limits::default() });
    let greedy = "192.168.1.66:5060";
    let mut reasons = Vec::new();
    for n in 0..20 {
        let (call_id, branch) = (format!("greedy-{n}"), format!("z9hG4bK-greedy{n}"));
        let dialog = Dialog { call_id: &call_id, branch: &branch, ..Dialog::default() };
        let text = request("INVITE", greedy, 1, dialog, false, &sdp("192.168.1.66", 40000 + 2 * n));
        reasons.push(bench.out(greedy, PROXY, text).reason);
    }
    assert_eq!(reasons.iter().filter(|it| **it == Reason::Rewritten).count(), 5);
    assert_eq!(reasons.last(), Some(&Reason::Quota));
    let sizes = bench.engine.sizes();
    assert_eq!((sizes.calls, sizes.transactions, sizes.bindings), (5, 5, 10));
    // As many flows as it likes, by many ports; five of them are remembered.
    for port in 1..50 {
        let phone = format!("192.168.1.66:{}", 6000 + port);
        bench.out(&phone, PROXY, request("OPTIONS", &phone, 1, Dialog::default(), false, ""));
    }
    assert_eq!(bench.engine.sizes().flows, 5);
    // Everybody else calls as ever, and so does the greedy one when its attempts have died.
    bench.advance(secs(100));
    call_up(&mut bench);
    hang_up(&mut bench);
}

#[test]
fn s11_who_has_his_share_makes_nobody_else_go() {
    // Tables that are full, of pinholes and of calls; everybody but the greedy one has called once, and waits.
    for limits in [
        Limits { bindings: 12, bindings_per_host: 4, ..Limits::default() },
        Limits { calls: 6, bindings_per_host: 4, ..Limits::default() },
        Limits { bindings: 12, openings_per_minute: 4, ..Limits::default() },
        Limits { calls: 6, transactions_per_host: 2, ..Limits::default() },
    ] {
        let mut bench = with(limits);
        for n in 0..4 {
            assert_eq!(attempt(&mut bench, n), Reason::Rewritten, "{n}");
        }
        let greedy = "192.168.1.66:5060";
        let try_again = |bench: &mut Bench, n: u16| {
            let (call_id, branch) = (format!("greedy-{n}"), format!("z9hG4bK-greedy{n}"));
            let dialog = Dialog { call_id: &call_id, branch: &branch, ..Dialog::default() };
            let text = request("INVITE", greedy, 1, dialog, false, &sdp("192.168.1.66", 40000 + 2 * n));
            bench.out(greedy, PROXY, text).reason
        };
        assert_eq!([0, 1].map(|n| try_again(&mut bench, n)), [Reason::Rewritten; 2]);
        let before = (bench.engine.sizes().calls, bench.kernel.pinholes.clone());
        assert_eq!(before.1.len(), 12);
        for n in 2..40 {
            assert_eq!(try_again(&mut bench, n), Reason::Quota);
        }
        assert_eq!((bench.engine.sizes().calls, bench.kernel.pinholes.clone()), before, "{limits:?}");
    }
}

#[test]
fn f41_what_a_transaction_opened_that_had_to_make_room_is_taken_back() {
    let mut bench = with(Limits { transactions: 20, ..Limits::default() });
    call_up(&mut bench);
    let before = bench.kernel.clone();
    asks(&mut bench, "INVITE", 2, "z9hG4bK-re", &sdp("192.168.1.10", 42000));
    assert_eq!(bench.kernel.pinholes.len(), before.pinholes.len() + 2);
    bench.advance(secs(1));
    for n in 0..40 {
        ask_options(&mut bench, n);
    }
    assert_eq!((&bench.kernel.pinholes, &bench.kernel.pins), (&before.pinholes, &before.pins));
    hang_up(&mut bench);
}

#[test]
fn f41_a_bye_that_had_to_make_room_ends_its_call_all_the_same() {
    // It went when others came, or never had its place, for the phone has its share.
    for limits in [
        Limits { transactions: 20, ..Limits::default() },
        Limits { transactions_per_host: 1, ..Limits::default() },
    ] {
        let mut bench = with(limits);
        call_up(&mut bench);
        asks(&mut bench, "BYE", 2, "z9hG4bK-bye", "");
        bench.advance(secs(1));
        for n in 0..40 {
            ask_options(&mut bench, n);
        }
        answers(&mut bench, "200 OK", "BYE", 2, "z9hG4bK-bye", "");
        bench.advance(secs(33));
        bench.assert_all_closed();
        assert_eq!(bench.engine.sizes().calls, 0);
    }
}

/// Another host's request that opens nothing.
fn ask_options(bench: &mut Bench, n: u32) {
    let (phone, branch) = (format!("192.168.2.{}:5060", 1 + n), format!("z9hG4bK-options{n}"));
    let dialog = Dialog { branch: &branch, ..Dialog::default() };
    bench.out(&phone, PROXY, request("OPTIONS", &phone, 1, dialog, false, ""));
}

/// A registration for two hours of another account by `phone`.
fn register(bench: &mut Bench, phone: &str, n: u32) {
    let branch = format!("z9hG4bK-r{n}");
    let dialog = Dialog { branch: &branch, ..Dialog::default() };
    let text = request("REGISTER", phone, 1, dialog, false, "")
        .replace("To: <sip:bob@", &format!("To: <sip:bob{n}@"));
    let sent = bench.out(phone, PROXY, text);
    assert_eq!(sent.reason, Reason::Rewritten, "{n}");
    let seen = bench.public(phone, PROXY);
    let contact = format!("Contact: <sip:alice@{seen}>;expires=7200\n");
    bench.inn(PROXY, phone, answer(&sent.text(), "200 OK", seen, &contact, ""));
    // Its transaction is over.
    bench.advance(secs(40));
}

#[test]
fn s11_registrations_are_counted_for_each_host_by_whatever_ports_they_come() {
    let mut bench = with(Limits { per_host: 5, ..Limits::default() });
    for n in 0..12 {
        register(&mut bench, &format!("192.168.1.66:{}", 6000 + n % 3), n);
    }
    assert_eq!(bench.engine.sizes().registrations, 5);
    // Another host has a share of its own.
    register(&mut bench, PHONE, 12);
    assert_eq!(bench.engine.sizes().registrations, 6);
    // What has expired is given back.
    bench.advance(secs(8000));
    assert_eq!(bench.engine.sizes().registrations, 0);
    register(&mut bench, "192.168.1.66:6000", 13);
    assert_eq!(bench.engine.sizes().registrations, 1);
}

#[test]
fn a_port_rests_for_64_seconds() {
    let mut bench = Bench::new(Policy { ports: 20000..=20003, ..Policy::default() });
    call_up(&mut bench);
    let first = bench.binding(RTP);
    hang_up(&mut bench);
    // The other two ports; then there are none until the first two have rested.
    assert_eq!(attempt(&mut bench, 1), Reason::Rewritten);
    assert_ne!(bench.binding("192.168.2.2:40000"), first);
    assert_eq!(attempt(&mut bench, 2), Reason::PoolEmpty);
    bench.advance(secs(63));
    assert_eq!(attempt(&mut bench, 2), Reason::PoolEmpty);
    bench.advance(secs(2));
    let again = Dialog { call_id: "again", branch: "z9hG4bK-again", ..Dialog::default() };
    bench.out(PHONE, PROXY, request("INVITE", PHONE, 1, again, false, &offer()));
    assert_eq!(bench.binding(RTP), first);
}

#[test]
fn s11_by_default_no_host_can_have_all_of_any_shared_table() {
    let limits = Limits::default();
    assert_eq!((limits.per_host, limits.transactions_per_host), (4096, 32_768));
    for table in [limits.flows, limits.calls, limits.registrations] {
        assert!(limits.per_host <= table / 8, "{table}");
    }
    assert!(limits.transactions_per_host <= limits.transactions / 4);
    assert!(limits.bindings_per_host <= limits.bindings / 8);
}

#[test]
fn by_default_a_pbx_has_ninety_new_calls_a_second_two_hundred_at_a_time() {
    let mut bench = Bench::new(Policy::default());
    bench.keeps_records = false;
    let pbx = "192.168.1.5:5060";
    let (rate, at_once, seconds) = (90, 200, 70);
    let text = |n: u32| (format!("pbx-{n}"), format!("z9hG4bK-i{n}"), format!("z9hG4bK-b{n}"));
    for n in 0..rate * seconds {
        let (call_id, invite, _) = text(n);
        let dialog = Dialog { call_id: &call_id, branch: &invite, ..Dialog::default() };
        let body = sdp("192.168.1.5", 40000 + 2 * (n % 5000) as u16);
        let sent = bench.out(pbx, PROXY, request("INVITE", pbx, 1, dialog, false, &body));
        assert_eq!(sent.reason, Reason::Rewritten, "call {n}");
        let seen = bench.public(pbx, PROXY).to_string();
        bench.inn(PROXY, pbx, response("200 OK", "INVITE", &seen, 1, dialog, &far_sdp()));
        if let Some(old) = n.checked_sub(at_once) {
            let (call_id, _, branch) = text(old);
            let bye = Dialog { call_id: &call_id, branch: &branch, ..Dialog::default() };
            bench.out(pbx, PROXY, request("BYE", pbx, 2, bye, true, ""));
            bench.inn(PROXY, pbx, response("200 OK", "BYE", &seen, 2, bye, ""));
        }
        if n % rate == rate - 1 {
            bench.advance(secs(1));
        }
    }
    assert_eq!(bench.engine.sizes().calls, at_once as usize);
}
