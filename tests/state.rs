//! A restart in the middle of everything: the tables go through a state (and its JSON) into a new engine, which compares
//! itself with the kernel. Whatever was going on goes on as if nothing had happened.

#![allow(clippy::unwrap_used)] // clippy knows tests by their attribute only, not their helpers

mod common;

use std::time::{Duration, Instant};

use common::messages::{Dialog, MEDIA, PHONE, PROXY, message, request, response, sdp};
use common::restart::{held, restart, written};
use common::{Bench, LAN, Passed, WAN, at, kind, packet};
use proptest::prelude::*;
use serde_json::Value;
use sipalg::alg::{
    Engine, Event, Held, Input, Inside, Op, Output, Outside, PacketId, PacketIn, Peer, Policy, QueuePoint,
    Reason, Reply, State, Transport,
};
use sipalg::packet::Datagram;

const PUBLIC: &str = "22.33.44.55:17375";
const NO_TIME: Duration = Duration::ZERO;

/// What remains of an earlier step: what went on, or that time passed.
type Step = fn(&mut Bench) -> Option<Passed>;

fn dialog() -> Dialog<'static> {
    Dialog::default()
}

fn in_dialog(branch: &'static str) -> Dialog<'static> {
    Dialog { branch, ..dialog() }
}

fn register(expires: u32) -> String {
    message(
        &format!(
            "REGISTER sip:provider.example SIP/2.0\n\
             Via: SIP/2.0/UDP 192.168.1.10;branch=z9hG4bK-r{expires};rport\n\
             From: <sip:alice@provider.example>;tag=a\nTo: <sip:alice@provider.example>\n\
             Call-ID: reg-1\nCSeq: 1 REGISTER\n\
             Contact: <sip:alice@192.168.1.10 ;line=7>;expires={expires}"
        ),
        "",
    )
}

fn registered(expires: u32) -> String {
    register(expires)
        .replace("REGISTER sip:provider.example SIP/2.0", "SIP/2.0 200 OK")
        .replace("UDP 192.168.1.10;", &format!("UDP {PUBLIC};"))
        .replace("@192.168.1.10 ", &format!("@{PUBLIC} "))
        .replace(";rport", ";rport=17375;received=22.33.44.55")
}

fn ringing_in(uri: &str) -> String {
    message(
        &format!(
            "INVITE {uri} SIP/2.0\nVia: SIP/2.0/UDP 22.33.44.20;branch=z9hG4bK-in\n\
             From: <sip:bob@provider.example>;tag=b\nTo: <sip:alice@provider.example>\n\
             Call-ID: in-1\nCSeq: 1 INVITE\nContact: <sip:bob@22.33.44.21>\nContent-Type: application/sdp"
        ),
        &sdp("22.33.44.22", 30000),
    )
}

fn hold(direction: &str) -> String {
    format!("{}a={direction}\n", sdp("192.168.1.10", 40000))
}

/// A registration and a call with everything: challenge, ringing, answer, hold, resumption, a refused BYE, the end.
const CALL: &[Step] = &[
    |b| Some(b.out(PHONE, PROXY, register(600))),
    |b| Some(b.inn(PROXY, PHONE, registered(600))),
    |b| Some(b.out(PHONE, PROXY, request("INVITE", PHONE, 1, dialog(), false, &sdp("192.168.1.10", 40000)))),
    |b| Some(b.inn(PROXY, PHONE, response("100 Trying", "INVITE", PUBLIC, 1, dialog(), ""))),
    |b| {
        Some(b.inn(
            PROXY,
            PHONE,
            response("407 Proxy Authentication Required", "INVITE", PUBLIC, 1, dialog(), ""),
        ))
    },
    |b| Some(b.out(PHONE, PROXY, request("ACK", PHONE, 1, dialog(), true, ""))),
    |b| {
        let again = request("INVITE", PHONE, 2, in_dialog("z9hG4bK-2"), false, &sdp("192.168.1.10", 40000));
        Some(b.out(PHONE, PROXY, again))
    },
    |b| {
        let early = sdp("22.33.44.22", 30000);
        Some(b.inn(
            PROXY,
            PHONE,
            response("183 Progress", "INVITE", PUBLIC, 2, in_dialog("z9hG4bK-2"), &early),
        ))
    },
    |b| {
        b.advance(Duration::from_secs(20));
        None
    },
    |b| {
        let answer = sdp("22.33.44.22", 30000);
        Some(b.inn(PROXY, PHONE, response("200 OK", "INVITE", PUBLIC, 2, in_dialog("z9hG4bK-2"), &answer)))
    },
    |b| Some(b.out(PHONE, PROXY, request("ACK", PHONE, 2, in_dialog("z9hG4bK-3"), true, ""))),
    |b| Some(b.latch("22.33.44.22:31000", b.binding("192.168.1.10:40000"))),
    |b| {
        let held = hold("sendonly");
        Some(b.out(PHONE, PROXY, request("INVITE", PHONE, 3, in_dialog("z9hG4bK-4"), true, &held)))
    },
    |b| {
        let answer = format!("{}a=recvonly\n", sdp("22.33.44.22", 30000));
        Some(b.inn(PROXY, PHONE, response("200 OK", "INVITE", PUBLIC, 3, in_dialog("z9hG4bK-4"), &answer)))
    },
    |b| {
        b.advance(Duration::from_secs(300));
        None
    },
    |b| {
        let resumed = hold("sendrecv");
        Some(b.out(PHONE, PROXY, request("INVITE", PHONE, 4, in_dialog("z9hG4bK-5"), true, &resumed)))
    },
    |b| {
        let answer = sdp("22.33.44.23", 32000);
        Some(b.inn(PROXY, PHONE, response("200 OK", "INVITE", PUBLIC, 4, in_dialog("z9hG4bK-5"), &answer)))
    },
    |b| Some(b.inn(PROXY, PHONE, ringing_in(&format!("sip:alice@{PUBLIC};line=7")))),
    |b| Some(b.out(PHONE, PROXY, request("BYE", PHONE, 5, in_dialog("z9hG4bK-6"), true, ""))),
    |b| Some(b.inn(PROXY, PHONE, response("401 Unauthorized", "BYE", PUBLIC, 5, in_dialog("z9hG4bK-6"), ""))),
    |b| Some(b.out(PHONE, PROXY, request("BYE", PHONE, 6, in_dialog("z9hG4bK-7"), true, ""))),
    |b| Some(b.inn(PROXY, PHONE, response("200 OK", "BYE", PUBLIC, 6, in_dialog("z9hG4bK-7"), ""))),
    |b| {
        b.advance(Duration::from_secs(40));
        None
    },
    // The next call's ports are not those that still rest.
    |b| {
        let next = Dialog { call_id: "call-2", branch: "z9hG4bK-8", ..dialog() };
        Some(b.out(PHONE, PROXY, request("INVITE", PHONE, 1, next, false, &sdp("192.168.1.10", 40000))))
    },
];

/// Everything that somebody outside of the engine can see of a run.
#[derive(Debug, PartialEq)]
struct Seen {
    passed: Vec<Option<Passed>>,
    pinholes: Vec<(std::net::SocketAddr, Inside)>,
    peers: Vec<Peer>,
    pins: Vec<String>,
    events: Vec<String>,
    sizes: String,
}

/// Runs a call; before the steps in `restarts` the engine is replaced.
fn run(restarts: &[usize]) -> Seen {
    let mut bench = Bench::default();
    let mut passed = Vec::new();
    for (number, step) in CALL.iter().enumerate() {
        if restarts.contains(&number) {
            restart(&mut bench, NO_TIME, Policy::default());
        }
        passed.push(step(&mut bench));
    }
    let mut pins: Vec<String> = bench.kernel.pins.iter().map(|pin| format!("{pin:?}")).collect();
    pins.sort();
    // Learned flows are learned once.
    let told = bench.events.iter().filter(|event| !matches!(event, Event::FlowLearned { .. }));
    Seen {
        passed,
        pinholes: bench.kernel.pinholes.iter().map(|(public, inside)| (*public, *inside)).collect(),
        peers: bench.kernel.peers.iter().copied().collect(),
        pins,
        events: told.map(|event| format!("{event:?}")).collect(),
        sizes: format!("{:?}", bench.engine.sizes()),
    }
}

#[test]
fn a_restart_before_any_step_of_a_call_changes_nothing() {
    let without = run(&[]);
    assert!(without.passed.iter().flatten().all(|it| it.reason != Reason::UnknownFlow), "{without:?}");
    assert!(without.passed.iter().flatten().filter(|it| it.reason == Reason::Rewritten).count() > 15);
    for step in 1..CALL.len() {
        assert_eq!(run(&[step]), without, "restart before step {step}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn restarts_before_any_steps_change_nothing(steps in proptest::collection::vec(1..CALL.len(), 2..8)) {
        prop_assert_eq!(run(&steps), run(&[]));
    }
}

#[test]
fn an_export_is_what_was_imported() {
    let mut bench = Bench::default();
    for step in &CALL[..14] {
        step(&mut bench);
    }
    let now = bench.now;
    let state = bench.engine.export(now);
    let mut next = Engine::new(Policy::default());
    next.import(now, NO_TIME, state.clone());
    let sorted = |mut state: State| {
        state.flows.sort_by_key(|it| it.key);
        state.transactions.sort_by_key(|it| it.key);
        state.calls.sort_by_key(|it| it.key);
        state.registrations.sort_by_key(|it| it.key);
        state.bindings.sort_by_key(|it| it.key);
        state
    };
    assert!(!state.flows.is_empty() && !state.transactions.is_empty() && !state.calls.is_empty());
    assert!(!state.registrations.is_empty() && !state.bindings.is_empty() && !state.pools.is_empty());
    assert_eq!(sorted(next.export(now)), sorted(state));
}

/// Everything in a JSON text that is a number or a list, by its path.
fn places(value: &Value, path: &mut Vec<String>, sink: &mut Vec<String>) {
    let mut below = |key: String, value: &Value| {
        path.push(key);
        places(value, path, sink);
        path.pop();
    };
    match value {
        Value::Array(all) => all.iter().enumerate().for_each(|(at, value)| below(at.to_string(), value)),
        Value::Object(all) => all.iter().for_each(|(key, value)| below(key.clone(), value)),
        _ => {}
    }
    if value.is_number() || value.is_array() || value.is_null() {
        sink.push(format!("/{}", path.join("/")));
    }
}

/// Takes over what may be nonsense, lets half an hour pass, and hears of the call's end; the kernel agrees to everything.
fn live_on(state: State, held: &Held, messages: &[Vec<u8>]) {
    let (mut now, mut rounds) = (Instant::now() + Duration::from_secs(86_400), 0);
    let mut engine = Engine::new(Policy { seed: [7, 8], ..Policy::default() });
    engine.import(now, Duration::from_secs(5), state);
    engine.reconcile(now, held);
    let settle = |engine: &mut Engine, now: Instant| {
        for _ in 0..1000 {
            let Some(output) = engine.poll_output() else { return };
            if let Output::Command(command) = output {
                let outcome = match command.op {
                    Op::Lookup { .. } | Op::Recognise { .. } => Ok(Reply::Found(None)),
                    _ => Ok(Reply::Done),
                };
                let id = command.id;
                engine.handle(now, Input::CommandDone { id, outcome });
            }
        }
    };
    settle(&mut engine, now);
    for (number, bytes) in messages.iter().enumerate() {
        let id = PacketId(number as u64);
        let (indev, outdev, point) = (LAN, WAN, QueuePoint::Signalling);
        engine.handle(now, Input::Packet(PacketIn { id, point, indev, outdev, bytes }));
        settle(&mut engine, now);
    }
    let end = now + Duration::from_secs(1800);
    while let Some(due) = engine.poll_timeout().filter(|due| *due <= end && rounds < 2000) {
        (now, rounds) = (now.max(due), rounds + 1);
        engine.handle(now, Input::Timeout);
        settle(&mut engine, now);
    }
    assert!(rounds < 2000, "time stands still");
    let _ = (engine.calls(end).count(), engine.registrations(end).count(), engine.bindings().count());
    let _ = engine.export(end);
}

/// A gateway that ended at each start because of its own file would be out of service for good.
#[test]
fn a_state_that_makes_no_sense_does_no_harm() {
    let mut bench = Bench::default();
    for step in &CALL[..11] {
        step(&mut bench);
    }
    let held = held(&bench);
    let state = serde_json::to_value(bench.engine.export(bench.now)).unwrap();
    let far = Dialog { branch: "z9hG4bK-end", ..dialog() };
    let messages = [
        packet(at(PHONE), at(PROXY), request("BYE", PHONE, 9, far, true, "").as_bytes()),
        packet(at(PROXY), at(PHONE), response("200 OK", "BYE", PUBLIC, 9, far, "").as_bytes()),
    ];
    let mut all = Vec::new();
    places(&state, &mut Vec::new(), &mut all);
    let numbers =
        [0, 1, 7, u64::from(u16::MAX), u64::from(u32::MAX), i64::MAX as u64, u64::MAX].map(Value::from);
    let odd = [-1, i64::MIN].map(Value::from);
    let mut taken = 0;
    for place in &all {
        let here = state.pointer(place).unwrap();
        let instead: Vec<Value> = match here {
            Value::Array(list) => {
                let twice = list.iter().chain(list).cloned().collect();
                let but_one = list.iter().skip(1).cloned().collect();
                vec![Value::Array(vec![]), Value::Array(twice), Value::Array(but_one)]
            }
            _ => numbers.iter().chain(&odd).cloned().collect(),
        };
        for value in instead {
            let mut broken = state.clone();
            *broken.pointer_mut(place).unwrap() = value.clone();
            let Ok(broken) = serde_json::from_value::<State>(broken) else { continue };
            taken += 1;
            let outcome = std::panic::catch_unwind(|| live_on(broken, &held, &messages));
            assert!(outcome.is_ok(), "{place} is {value}");
        }
    }
    assert!(taken > 500, "{taken} of them could be read");
}

#[test]
fn time_that_passes_without_an_engine_counts() {
    let mut bench = Bench::default();
    for step in &CALL[..2] {
        step(&mut bench);
    }
    restart(&mut bench, Duration::from_secs(500), Policy::default());
    assert_eq!(bench.engine.registrations(bench.now).next().unwrap().left, Duration::from_secs(100));
    restart(&mut bench, Duration::from_secs(400), Policy::default());
    assert_eq!(bench.engine.sizes().registrations, 0);
}

#[test]
fn a_registered_phone_still_rings_with_its_contact_to_the_letter() {
    let mut bench = Bench::default();
    for step in &CALL[..2] {
        step(&mut bench);
    }
    restart(&mut bench, Duration::from_secs(30), Policy::default());
    let asked = bench.commands.len();
    let got = bench.inn(PROXY, PHONE, ringing_in(&format!("sip:alice@{PUBLIC};line=7")));
    assert!(got.text().starts_with("INVITE sip:alice@192.168.1.10;line=7 SIP/2.0\r\n"), "{}", got.text());
    assert_eq!(bench.commands.len(), asked, "the flow is known");
}

#[test]
fn a_flow_that_died_meanwhile_is_learned_again() {
    let mut bench = Bench::default();
    for step in &CALL[..2] {
        step(&mut bench);
    }
    // Nobody hears that the entry dies, and the NAT gives the next one another port.
    let state = written(&bench.engine.export(bench.now));
    bench.destroy(PHONE, PROXY);
    bench.nat(PHONE, PROXY, "22.33.44.55:4711");
    bench.engine = Engine::new(Policy::default());
    bench.engine.import(bench.now, NO_TIME, state);
    bench.engine.reconcile(bench.now, &Held::default());
    bench.advance(NO_TIME);
    let sent = bench.out(PHONE, PROXY, register(601));
    assert!(sent.text().contains("Contact: <sip:alice@22.33.44.55:4711 ;line=7>"), "{}", sent.text());
}

#[test]
fn what_the_kernel_lost_of_a_live_call_is_made_again() {
    let mut bench = Bench::default();
    for step in &CALL[..11] {
        step(&mut bench);
    }
    let before = bench.kernel.clone();
    assert_eq!((before.pinholes.len(), before.peers.len(), before.pins.len()), (2, 2, 2));
    bench.kernel.pinholes.clear();
    bench.kernel.peers.clear();
    bench.kernel.pins.remove(0);
    bench.forgets = true;
    restart(&mut bench, Duration::from_secs(1), Policy::default());
    assert_eq!((&bench.kernel.pinholes, &bench.kernel.peers), (&before.pinholes, &before.peers));
    bench.assert_pinned("192.168.1.10:40000", MEDIA);
    bench.assert_pinned("192.168.1.10:40001", "22.33.44.22:30001");
    assert_eq!(bench.kernel.pins.len(), 2, "what was there is not made twice");
    bench.out(PHONE, PROXY, request("BYE", PHONE, 5, in_dialog("z9hG4bK-6"), true, ""));
    bench.inn(PROXY, PHONE, response("200 OK", "BYE", PUBLIC, 5, in_dialog("z9hG4bK-6"), ""));
    bench.assert_all_closed();
}

#[test]
fn what_nobody_owns_is_closed_and_its_port_rests() {
    let mut bench = Bench::default();
    for step in &CALL[..11] {
        step(&mut bench);
    }
    let port = bench.binding("192.168.1.10:40000").port();
    // The state is gone.
    bench.engine = Engine::new(Policy::default());
    let mut held = held(&bench);
    // And so is this one's pinhole, but not its quarantine.
    held.owned.push((Outside(at("22.33.44.55:16390")), Duration::from_secs(10)));
    bench.engine.reconcile(bench.now, &held);
    bench.commands.clear();
    bench.advance(NO_TIME);
    assert_eq!(bench.commands.iter().map(kind).collect::<Vec<_>>(), ["close", "close"]);
    assert!(bench.kernel.pinholes.is_empty() && bench.kernel.peers.is_empty());
    assert_eq!(bench.kernel.pins.len(), 2, "calls that nobody knows keep their sound");
    assert_eq!(bench.engine.sizes().ports, 4);
    let next = Dialog { call_id: "call-2", branch: "z9hG4bK-8", ..dialog() };
    bench.out(PHONE, PROXY, request("INVITE", PHONE, 1, next, false, &sdp("192.168.1.10", 40000)));
    assert_ne!(bench.binding("192.168.1.10:40000").port(), port);
    bench.advance(Duration::from_secs(11));
    assert_eq!(bench.engine.sizes().ports, 4, "the shorter quarantine is over, and a call rings");
}

#[test]
fn a_peer_that_no_call_wants_is_shown_out() {
    let mut bench = Bench::default();
    for step in &CALL[..11] {
        step(&mut bench);
    }
    let public = Outside(bench.binding("192.168.1.10:40000"));
    let stranger = Peer { transport: Transport::Udp, public, far: Some([22, 33, 44, 99].into()) };
    bench.kernel.peers.insert(stranger);
    restart(&mut bench, NO_TIME, Policy::default());
    assert!(!bench.kernel.peers.contains(&stranger));
    assert_eq!(bench.kernel.peers.len(), 2);
}

#[test]
fn a_smaller_gateway_takes_what_it_has_room_for_and_closes_the_rest() {
    let mut bench = Bench::default();
    for call in 0..5u16 {
        let (id, branch) = (format!("call-{call}"), format!("z9hG4bK-{call}"));
        let dialog = Dialog { call_id: &id, branch: &branch, ..Dialog::default() };
        let offer = sdp("192.168.1.10", 40000 + 2 * call);
        bench.out(PHONE, PROXY, request("INVITE", PHONE, 1, dialog, false, &offer));
    }
    let mut policy = Policy::default();
    policy.limits.calls = 2;
    restart(&mut bench, NO_TIME, policy);
    let sizes = bench.engine.sizes();
    assert_eq!((sizes.calls, sizes.bindings, bench.kernel.pinholes.len()), (2, 4, 4));
    bench.advance(Duration::from_secs(40));
    bench.assert_all_closed();
}

#[test]
fn another_range_of_ports_keeps_calls_and_serves_new_ones() {
    let mut bench = Bench::default();
    for step in &CALL[..11] {
        step(&mut bench);
    }
    let old = bench.binding("192.168.1.10:40000");
    bench.engine.set_policy(Policy { ports: 20000..=20007, ..Policy::default() });
    let next = Dialog { call_id: "call-2", branch: "z9hG4bK-8", ..dialog() };
    bench.out(PHONE, PROXY, request("INVITE", PHONE, 1, next, false, &sdp("192.168.1.10", 42000)));
    assert_eq!(bench.binding("192.168.1.10:40000"), old);
    assert_eq!(bench.binding("192.168.1.10:42000"), at("22.33.44.55:20000"));
    bench.out(PHONE, PROXY, request("BYE", PHONE, 5, in_dialog("z9hG4bK-6"), true, ""));
    bench.inn(PROXY, PHONE, response("200 OK", "BYE", PUBLIC, 5, in_dialog("z9hG4bK-6"), ""));
    bench.advance(Duration::from_secs(40));
    bench.assert_all_closed();
}

#[test]
fn a_smaller_limit_takes_nothing_from_who_is_in_and_nobody_new() {
    let mut bench = Bench::default();
    for step in &CALL[..11] {
        step(&mut bench);
    }
    let mut policy = Policy::default();
    policy.limits.calls = 1;
    policy.limits.bindings = 2;
    bench.engine.set_policy(policy);
    let next = Dialog { call_id: "call-2", branch: "z9hG4bK-8", ..dialog() };
    let refused =
        bench.out(PHONE, PROXY, request("INVITE", PHONE, 1, next, false, &sdp("192.168.1.10", 42000)));
    assert_eq!(refused.reason, Reason::TableFull);
    bench.engine.set_policy(Policy::default());
    let taken =
        bench.out(PHONE, PROXY, request("INVITE", PHONE, 1, next, false, &sdp("192.168.1.10", 42000)));
    assert_eq!(taken.reason, Reason::Rewritten);
}

#[test]
fn a_door_for_connections_is_known_again_with_who_came_by_it() {
    let policy = || Policy { media_tcp: true, ..Policy::default() };
    let mut bench = Bench::new(policy());
    let line = |ip: &str, port: u16, role: &str| {
        format!("v=0\no=- 1 1 IN IP4 {ip}\ns=-\nc=IN IP4 {ip}\nt=0 0\nm=x {port} TCP/x *\na=setup:{role}\n")
    };
    let offer = line("192.168.1.10", 50_000, "passive");
    let invite = request("INVITE", PHONE, 1, dialog(), false, &offer);
    let sent = bench.out(PHONE, PROXY, &invite);
    restart(&mut bench, Duration::from_secs(1), policy());
    assert_eq!(bench.out(PHONE, PROXY, &invite), sent, "the same port");
    let answer = line("22.33.44.22", 9, "active");
    bench.inn(PROXY, PHONE, response("200 OK", "INVITE", PUBLIC, 1, dialog(), &answer));
    let public = bench.binding("192.168.1.10:50000");
    bench.connect("22.33.44.22:40000", public, 2);
    let before = bench.kernel.clone();
    assert_eq!((before.tcp.len(), before.peers.len(), before.pins.len()), (1, 1, 1));
    restart(&mut bench, Duration::from_secs(1), policy());
    assert_eq!(
        (&bench.kernel.pinholes, &bench.kernel.peers, &bench.kernel.pins),
        (&before.pinholes, &before.peers, &before.pins)
    );
    assert_eq!(bench.connect("22.33.44.22:40001", public, 2).reason, Reason::Latched);
    let bye = in_dialog("z9hG4bK-bye");
    bench.out(PHONE, PROXY, request("BYE", PHONE, 2, bye, true, ""));
    bench.inn(PROXY, PHONE, response("200 OK", "BYE", PUBLIC, 2, bye, ""));
    bench.assert_all_closed();
}

#[test]
fn where_a_phone_listens_is_known_after_a_restart_and_a_state_without_it_is_read() {
    let mut bench = Bench::default();
    let phone = "192.168.1.10:49152";
    let text = request("OPTIONS", PHONE, 1, dialog(), false, "").replace(";rport", "");
    bench.out(phone, PROXY, text);
    let ask = message(
        "OPTIONS sip:nobody SIP/2.0\nVia: SIP/2.0/UDP 22.33.44.20;branch=z9hG4bK-in\n\
         From: <sip:p@provider.example>;tag=p\nTo: <sip:nobody>\nCall-ID: ping\nCSeq: 1 OPTIONS",
        "",
    );
    let gets_at = |bench: &mut Bench| {
        let packet = packet(at(PROXY), at(phone), ask.as_bytes());
        let (_, bytes) = bench.pass(QueuePoint::Signalling, WAN, LAN, &packet);
        Datagram::parse(&bytes).unwrap().destination().port()
    };
    assert_eq!(gets_at(&mut bench), 5060);
    restart(&mut bench, NO_TIME, Policy::default());
    assert_eq!(gets_at(&mut bench), 5060);
    let state = serde_json::to_string(&bench.engine.export(bench.now)).unwrap();
    let older = state.replace("\"listens_at\":5060,", "");
    assert_ne!(older, state);
    let older = serde_json::from_str(&older).unwrap();
    bench.engine = Engine::new(Policy::default());
    bench.engine.import(bench.now, NO_TIME, older);
    assert_eq!(gets_at(&mut bench), 49152);
}
