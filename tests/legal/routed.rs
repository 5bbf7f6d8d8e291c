//! Flows without a NAT: nothing is rewritten, and the media gets in all the same.

use crate::common::messages::{Dialog, request, response, sdp};
use crate::common::{Bench, kind};
use sipalg::alg::{Event, Inside, Op, Outside, PinnedFlow, Reason};

const PHONE: &str = "192.168.1.10:5060";
const PBX: &str = "10.9.0.20:5060";

fn routed(phone: &str, pbx: &str) -> Bench {
    let mut bench = Bench::default();
    bench.nat(phone, pbx, phone).track(phone, pbx);
    bench
}

fn pin(inside: &str, far: &str) -> PinnedFlow {
    let inside = crate::common::at(inside);
    PinnedFlow {
        transport: sipalg::alg::Transport::Udp,
        inside: Inside(inside),
        far: crate::common::at(far),
        public: Outside(inside),
        hairpin: None,
    }
}

/// The phone calls, the PBX answers: nothing may change.
#[track_caller]
fn call(bench: &mut Bench, (phone, pbx): (&str, &str), dialog: Dialog<'_>, offer: &str, answer: &str) {
    for (out, text) in [
        (true, request("INVITE", phone, 1, dialog, false, offer)),
        (false, response("183 Session Progress", "INVITE", phone, 1, dialog, answer)),
        (false, response("200 OK", "INVITE", phone, 1, dialog, answer)),
        (true, request("ACK", phone, 1, Dialog { branch: "z9hG4bK-a", ..dialog }, true, "")),
    ] {
        let passed = if out { bench.out(phone, pbx, &text) } else { bench.inn(pbx, phone, &text) };
        assert_eq!((passed.text(), passed.reason), (text, Reason::NotNated));
    }
}

#[test]
fn f37_f43_s8_routed_media_is_never_led_into_a_network_behind_the_firewall() {
    let (phone, pbx) = ("203.0.113.77:5060", "198.51.100.1:5060");
    for other in ["192.168.1.1", "10.2.0.5", "169.254.1.1", "100.64.0.1"] {
        let mut bench = routed(phone, pbx);
        let (offer, answer) = (sdp("203.0.113.77", 40000), sdp(other, 30000));
        call(&mut bench, (phone, pbx), Dialog::default(), &offer, &answer);
        assert!(bench.kernel.pins.is_empty(), "{other}: {:?}", bench.kernel.pins);
        assert!(
            bench.events.iter().any(|event| matches!(event, Event::Refused { rule: "S8", .. })),
            "{other}"
        );
    }
}

#[test]
fn f37_a_routed_call_is_let_in_and_not_touched() {
    for (phone, pbx, family) in [(PHONE, PBX, "IP4"), ("[2001:db8::10]:5060", "[2001:db8:9::20]:5060", "IP6")]
    {
        let mut bench = routed(phone, pbx);
        let [inside, far] = [phone, pbx].map(|it| it.rsplit_once(':').unwrap().0);
        let body = |ip: &str, port| sdp(ip.trim_matches(['[', ']']), port).replace("IP4", family);
        call(&mut bench, (phone, pbx), Dialog::default(), &body(inside, 40000), &body(far, 30000));
        let at = |host: &str, port: u16| format!("{host}:{port}");
        let pins = [pin(&at(inside, 40000), &at(far, 30000)), pin(&at(inside, 40001), &at(far, 30001))];
        assert_eq!(bench.kernel.pins, pins, "before the 183 was let go");
        assert!(bench.kernel.pinholes.is_empty() && bench.kernel.peers.is_empty());
        assert!(bench.events.iter().any(|event| matches!(event, Event::CallAnswered { media: None, .. })));
        bench.advance(std::time::Duration::from_secs(600));
        assert_eq!(bench.kernel.pins, pins);
        // On hold nothing is lost; hung up, all is closed.
        let hold = Dialog { branch: "z9hG4bK-h", ..Dialog::default() };
        let text = request("INVITE", phone, 2, hold, true, &format!("{}a=inactive\n", body(inside, 40000)));
        assert_eq!(bench.out(phone, pbx, &text).text(), text);
        assert_eq!(bench.kernel.pins, pins);
        let bye = Dialog { branch: "z9hG4bK-b", ..Dialog::default() };
        bench.out(phone, pbx, request("BYE", phone, 3, bye, true, ""));
        bench.inn(pbx, phone, response("200 OK", "BYE", phone, 3, bye, ""));
        bench.assert_all_closed();
        let kinds: Vec<_> = bench.commands.iter().map(kind).filter(|it| *it != "sustain").collect();
        assert_eq!(kinds, ["lookup", "pin", "pin", "unpin", "unpin"]);
    }
}

#[test]
fn f37_a_routed_phone_that_registers_first_is_known_by_then() {
    let mut bench = Bench::default();
    bench.nat(PHONE, PBX, PHONE);
    let first = request("REGISTER", PHONE, 1, Dialog { call_id: "r", ..Dialog::default() }, false, "");
    let ok = response("200 OK", "REGISTER", PHONE, 1, Dialog { call_id: "r", ..Dialog::default() }, "");
    assert_eq!(bench.out(PHONE, PBX, &first).text(), first);
    let got = bench.inn(PBX, PHONE, &ok);
    assert_eq!((got.text(), got.reason), (ok, Reason::NotNated));
    call(&mut bench, (PHONE, PBX), Dialog::default(), &sdp("192.168.1.10", 40000), &sdp("10.9.0.20", 30000));
    assert_eq!(bench.kernel.pins.len(), 2);
    // A firewall forgets its flow no sooner than the registrar does.
    let dialog = Dialog { call_id: "r", branch: "z9hG4bK-r2", ..Dialog::default() };
    bench.out(PHONE, PBX, request("REGISTER", PHONE, 2, dialog, false, ""));
    let ok = response("200 OK", "REGISTER", PHONE, 2, dialog, "").replacen(
        "Contact: <sip:bob@22.33.44.21:5060>",
        "Contact: <sip:alice@192.168.1.10:5060>;expires=7200",
        1,
    );
    assert_eq!(bench.inn(PBX, PHONE, &ok).text(), ok);
    let (flow, lifetime) = bench.kernel.sustained.last().unwrap();
    assert_eq!((flow.inside.0, lifetime.as_secs() >= 7200), (crate::common::at(PHONE), true));
}

#[test]
fn f37_where_a_nat_may_stand_in_the_way_it_decides() {
    // Signalling by the VPN, media by the internet: an entry of ours would keep masquerade from its work.
    let mut bench = routed(PHONE, PBX);
    call(
        &mut bench,
        (PHONE, PBX),
        Dialog::default(),
        &sdp("192.168.1.10", 40000),
        &sdp("22.33.44.22", 30000),
    );
    assert!(bench.kernel.pins.is_empty(), "{:?}", bench.kernel.pins);
    // A media server beside the PBX is as routed as the PBX is.
    let mut bench = routed(PHONE, PBX);
    call(&mut bench, (PHONE, PBX), Dialog::default(), &sdp("192.168.1.10", 40000), &sdp("10.9.0.99", 30000));
    assert_eq!(bench.kernel.pins.len(), 2);
}

#[test]
fn f43_the_rules_hold_without_a_nat_too() {
    // S8 another host, S9 a service's port, S5 nobody has answered, S10 the far end asks for nothing.
    for body in [
        sdp("192.168.1.11", 40000),
        sdp("192.168.1.10", 3306),
        sdp("192.168.1.10", 80),
        sdp("192.168.1.1", 40000),
    ] {
        let mut bench = routed(PHONE, PBX);
        call(&mut bench, (PHONE, PBX), Dialog::default(), &body, &sdp("10.9.0.20", 30000));
        assert!(bench.kernel.pins.is_empty(), "{body}: {:?}", bench.kernel.pins);
    }
    let mut bench = routed(PHONE, PBX);
    bench.out(PHONE, PBX, request("INVITE", PHONE, 1, Dialog::default(), false, &sdp("192.168.1.10", 40000)));
    let other = Dialog { branch: "z9hG4bK-other", ..Dialog::default() };
    bench.inn(PBX, PHONE, response("200 OK", "INVITE", PHONE, 1, other, &sdp("10.9.0.20", 30000)));
    bench.inn(
        PBX,
        PHONE,
        request("INVITE", PBX, 1, Dialog { call_id: "z", ..other }, false, &sdp("10.9.0.20", 30000)),
    );
    assert!(
        bench.commands.iter().all(|op| matches!(op, Op::Lookup { .. } | Op::Sustain { .. })),
        "{:?}",
        bench.commands
    );
    // S11: the rate of openings.
    let mut policy = sipalg::alg::Policy::default();
    policy.limits.openings_per_minute = 5;
    let mut bench = Bench::new(policy);
    bench.nat(PHONE, PBX, PHONE).track(PHONE, PBX);
    for n in 0..4u16 {
        let (call_id, branch) = (format!("q{n}"), format!("z9hG4bK-q{n}"));
        let dialog = Dialog { call_id: &call_id, branch: &branch, ..Dialog::default() };
        let text = request("INVITE", PHONE, 1, dialog, false, &sdp("192.168.1.10", 40000 + 2 * n));
        let passed = bench.out(PHONE, PBX, &text);
        assert_eq!(
            (passed.text(), passed.reason),
            (text, if n < 2 { Reason::NotNated } else { Reason::Quota })
        );
    }
}
