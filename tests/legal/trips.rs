//! A flow is learned by its first packet in one trip through the queues where conntrack tells of it, otherwise in two: the
//! outcome is the same.

use crate::common::messages::{Dialog, PHONE, PROXY, request, response, sdp};
use crate::common::{Bench, LAN, WAN, at, packet};
use sipalg::alg::{Event, Inside, Outside, QueuePoint, Reason, Tuples};

#[test]
fn one_trip_and_two_give_the_same_bytes() {
    let outcomes = [false, true].map(|one_trip| {
        let mut bench = Bench::default();
        bench.one_trip = one_trip;
        let mut seen = Vec::new();
        let offer = sdp("192.168.1.10", 40000);
        for text in [
            request("REGISTER", PHONE, 1, Dialog { call_id: "r", ..Dialog::default() }, false, ""),
            request("INVITE", PHONE, 1, Dialog::default(), false, &offer),
        ] {
            let passed = bench.out(PHONE, PROXY, &text);
            seen.push((passed.text(), passed.reason));
        }
        // The first packet of the next flow is the call itself.
        let passed = bench.out(
            "192.168.1.11:5060",
            PROXY,
            request(
                "INVITE",
                "192.168.1.11:5060",
                1,
                Dialog { call_id: "second", ..Dialog::default() },
                false,
                &sdp("192.168.1.11", 40000),
            ),
        );
        seen.push((passed.text(), passed.reason));
        let public = bench.public(PHONE, PROXY).to_string();
        let answer = response("200 OK", "INVITE", &public, 1, Dialog::default(), &sdp("22.33.44.22", 30000));
        let passed = bench.inn(PROXY, PHONE, answer);
        seen.push((passed.text(), passed.reason));
        (seen, bench.kernel.pinholes.len(), bench.kernel.pins.len())
    });
    assert_eq!(outcomes[0], outcomes[1]);
    assert!(outcomes[0].0.iter().all(|(_, reason)| *reason == Reason::Rewritten), "{outcomes:?}");
}

#[test]
fn however_many_flows_begin_at_once_each_is_learned() {
    let mut bench = Bench::default();
    bench.one_trip = true;
    bench.keeps_records = false;
    // More than may be on their way at one time; the time stands still.
    for n in 0..17_000 {
        let phone = format!("10.1.{}.{}:5060", n / 250, n % 250);
        let branch = format!("z9hG4bK-{n}");
        let dialog = Dialog { branch: &branch, call_id: "many", ..Dialog::default() };
        let passed = bench.out(&phone, PROXY, request("OPTIONS", &phone, 1, dialog, false, ""));
        assert_eq!(passed.reason, Reason::Rewritten, "{phone}");
    }
}

#[test]
fn what_does_not_come_through_the_router_is_not_ours() {
    let mut bench = Bench::default();
    let public = "22.33.44.55:17375";
    let text = request("REGISTER", PHONE, 1, Dialog::default(), false, "");
    let bytes = packet(at(public), at(PROXY), text.as_bytes());
    let tuples = |source: &str| Tuples {
        transport: sipalg::alg::Transport::Udp,
        orig_source: at(PHONE),
        orig_destination: at(PROXY),
        reply_source: at(PROXY),
        reply_destination: at(source),
    };
    // A program of the router itself, and an entry that is not this packet's.
    for (tuples, indev) in [(tuples(public), 0), (tuples("22.33.44.55:9"), LAN)] {
        let passed = bench.behind_nat(tuples, indev, WAN, &bytes);
        assert_eq!((passed.text(), passed.reason), (text.clone(), Reason::NotOurs));
    }
    let passed = bench.behind_nat(tuples(public), LAN, WAN, &bytes);
    assert_eq!((passed.text(), passed.reason), (text.replace(PHONE, public), Reason::Rewritten));
}

#[test]
fn what_was_marked_before_the_nat_gets_its_identity_back_whatever_conntrack_tells() {
    let mut bench = Bench::default();
    let public = "22.33.44.55:17375";
    let text = request("REGISTER", PHONE, 1, Dialog::default(), false, "");
    let first = packet(at(PHONE), at(PROXY), text.as_bytes());
    let (passed, marked) = bench.pass(QueuePoint::NewFlow, LAN, WAN, &first);
    assert_eq!(passed.reason, Reason::Learning);
    assert_ne!(marked[4..6], first[4..6]);
    let mut natted = packet(at(public), at(PROXY), text.as_bytes());
    natted[4..6].copy_from_slice(&marked[4..6]);
    let tuples = Tuples {
        transport: sipalg::alg::Transport::Udp,
        orig_source: at(PHONE),
        orig_destination: at(PROXY),
        reply_source: at(PROXY),
        reply_destination: at(public),
    };
    let (passed, sent) = bench.behind_nat_bytes(tuples, 0, WAN, &natted);
    assert_eq!((passed.text(), &sent[4..6]), (text.replace(PHONE, public), &first[4..6]));
}

#[test]
fn a_flow_that_is_forwarded_in_is_known_by_its_first_packet() {
    let mut bench = Bench::default();
    let text = request("OPTIONS", PROXY, 1, Dialog::default(), false, "");
    let tuples = Tuples {
        transport: sipalg::alg::Transport::Udp,
        orig_source: at(PROXY),
        orig_destination: at("22.33.44.55:5060"),
        reply_source: at(PHONE),
        reply_destination: at(PROXY),
    };
    let passed = bench.behind_nat(tuples, WAN, LAN, &packet(at(PROXY), at(PHONE), text.as_bytes()));
    assert_eq!(passed.text(), text);
    let (inside, public) = (Inside(at(PHONE)), Some(Outside(at("22.33.44.55:5060"))));
    assert!(
        bench.events.contains(&Event::FlowLearned { inside, far: at(PROXY), public }),
        "{:?}",
        bench.events
    );
}
