//! The loop with a scripted queue, engine and executor. Every step of each goes into one journal, whose exact content
//! is what is tested.

mod bench;

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt::Display;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::rc::Rc;

use super::*;
use crate::alg::{
    Action, CommandId, Edits, FlowKey, Inside, Op, PacketIn, QueuePoint, Reason, Reply, Rule, Verdict,
};
use crate::daemon::held;
use crate::queue::TooLong;
use crate::span::Span;
use bench::{Bench, Out};

type Journal = Rc<RefCell<Vec<String>>>;

/// 192.0.2.1:5060 > 198.51.100.2:5062, ID 0x1234, DF, payload "abc"
const PACKET: [u8; 31] = [
    0x45, 0, 0, 0x1f, 0x12, 0x34, 0x40, 0, 0x40, 0x11, 0x3c, 0x63, 192, 0, 2, 1, 198, 51, 100, 2, 0x13, 0xc4,
    0x13, 0xc6, 0, 0x0b, 0x27, 0xb4, b'a', b'b', b'c',
];

/// Packets with such a number and higher are segments of TCP: 1.1.1.1:1 > 2.2.2.2:2, bare acknowledgements.
const SEGMENTS: u64 = 1_000_000;
const SEGMENT: [u8; 40] = [
    0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 0, 1, 0, 2, 0, 0, 0, 7, 0, 0, 0, 9,
    0x50, 0x10, 2, 0, 0, 0, 0, 0,
];

#[test]
fn verdicts_of_a_batch_are_sent_together_at_its_end() {
    let mut bench = Bench::new(|input, out| {
        if let Input::Packet(packet) = input {
            out.push_back(match packet.id.0 {
                1 => Out::Accept(1),
                2 => Out::Drop(2),
                _ => Out::Restamp(3, 0x1235),
            });
        }
    });
    bench.arrive(&[1, 2, 3]);
    assert_eq!(bench.turn(), 3);
    let restamped = hex(&[&PACKET[..5], &[0x35], &PACKET[6..11], &[0x62], &PACKET[12..]].concat());
    let replaced = format!("replace 3 {restamped}");
    bench.expect(&["packet 1", "accept 1", "packet 2", "discard 2", "packet 3", &replaced, "flush"]);
}

#[test]
fn commands_of_a_batch_are_carried_out_together_and_their_verdicts_follow() {
    let mut bench = Bench::new(|input, out| match input {
        Input::Packet(packet) => out.push_back(Out::Command(packet.id.0 + 10)),
        Input::CommandDone { id, .. } => out.push_back(Out::Accept(id.number() - 10)),
        _ => {}
    });
    bench.arrive(&[1, 2]);
    bench.turn();
    bench.expect(&[
        "packet 1",
        "packet 2",
        "execute [11, 12]",
        "done 11 Ok(Done)",
        "accept 1",
        "done 12 Ok(Done)",
        "accept 2",
        "flush",
    ]);
}

#[test]
fn commands_that_follow_from_outcomes_are_carried_out_in_the_same_turn() {
    let mut bench = Bench::new(|input, out| match input {
        Input::Packet(_) => out.extend([Out::Command(1), Out::Command(2)]),
        Input::CommandDone { id, .. } if id.number() == 1 => out.push_back(Out::Command(3)),
        Input::CommandDone { id, .. } if id.number() == 2 => out.push_back(Out::Command(4)),
        Input::CommandDone { id, .. } if id.number() == 4 => out.push_back(Out::Accept(1)),
        _ => {}
    });
    bench.worker.executor.failing.insert(3);
    bench.arrive(&[1]);
    bench.turn();
    bench.expect(&[
        "packet 1",
        "execute [1, 2]",
        "done 1 Ok(Done)",
        "done 2 Ok(Done)",
        "execute [3, 4]",
        "done 3 Err(Full)",
        "done 4 Ok(Done)",
        "accept 1",
        "flush",
    ]);
}

#[test]
fn a_packet_that_the_engine_wants_again_comes_after_all_that_came_before() {
    let mut seen = 0;
    let mut bench = Bench::new(move |input, out| match input {
        Input::Packet(PacketIn { bytes, .. }) => {
            assert_eq!(*bytes, PACKET);
            seen += 1;
            match seen {
                1 => out.push_back(Out::Command(5)),
                2 => out.extend([Out::Again(1), Out::Accept(2)]),
                _ => out.push_back(Out::Accept(1)),
            }
        }
        Input::CommandDone { .. } => {}
        _ => {}
    });
    bench.arrive(&[1, 2]);
    bench.turn();
    bench.expect(&[
        "packet 1",
        "packet 2",
        "accept 2",
        "packet 1",
        "accept 1",
        "execute [5]",
        "done 5 Ok(Done)",
        "flush",
    ]);
}

#[test]
fn a_packet_without_verdict_is_held_with_its_bytes() {
    let mut bench = Bench::new(|input, out| match input {
        Input::Packet(PacketIn { id: PacketId(2), .. }) => out.extend([Out::Again(1), Out::Accept(2)]),
        Input::Packet(PacketIn { id: PacketId(1), point, indev, outdev, bytes }) => {
            assert_eq!((*point, *indev, *outdev, *bytes), (QueuePoint::NewFlow, 3, 4, &PACKET[..]));
        }
        Input::FlowDestroyed(_) => out.push_back(Out::Rewrite(1, "xyz")),
        _ => {}
    });
    bench.arrive(&[1]);
    bench.turn();
    assert_eq!(bench.worker.gate.held(), 1);
    bench.arrive(&[2]);
    bench.turn();
    bench.worker.events.waiting.push(destroyed());
    bench.worker.handle_kernel_events(bench.now);
    bench.turn();
    assert_eq!(bench.worker.gate.held(), 0);
    let replaced = format!("replace 1 {}", hex(&rebuilt(b"xyz")));
    bench.expect(&[
        "packet 1",
        "flush",
        "packet 2",
        "accept 2",
        "packet 1",
        "flush",
        "destroyed",
        "mtu 4",
        &replaced,
        "flush",
    ]);
}

#[test]
fn a_grown_packet_loses_df_by_the_mtu_of_its_own_way_out() {
    let mut bench = Bench::new(|input, out| {
        if let Input::Packet(packet) = input {
            out.push_back(Out::Rewrite(packet.id.0, if packet.id.0 == 1 { "abcd" } else { "abcde" }));
        }
    });
    bench.worker.surroundings.mtu = 32;
    bench.arrive(&[1, 2]);
    bench.turn();
    let journal = bench.take();
    let flags_and_id: Vec<_> =
        journal.iter().filter(|line| line.starts_with("replace")).map(|line| &line[18..26]).collect();
    assert_eq!(flags_and_id, ["12344000", "beef0000"]);
}

#[test]
fn what_would_be_too_large_passes_as_it_came() {
    let mut bench = Bench::new(|input, out| {
        if let Input::Packet(packet) = input {
            out.push_back(Out::RewriteTo(packet.id.0, if packet.id.0 == 1 { 65_531 } else { 70_000 } - 28));
        }
    });
    bench.arrive(&[1, 2]);
    bench.worker.gate.queue_mut().longest = 65_530;
    bench.turn();
    bench.expect(&["packet 1", "mtu 4", "accept 1", "packet 2", "mtu 4", "accept 2", "flush"]);
    assert_eq!(bench.worker.gate.mishaps(), Mishaps { too_large: 2, ..Mishaps::default() });
}

#[test]
fn a_verdict_for_a_packet_that_does_not_wait_is_counted_and_nothing_else() {
    let mut bench = Bench::new(|input, out| {
        if let Input::Packet(_) = input {
            out.extend([Out::Accept(1), Out::Accept(1), Out::Drop(99), Out::Again(99)]);
        }
    });
    bench.arrive(&[1]);
    bench.turn();
    bench.expect(&["packet 1", "accept 1", "flush"]);
    assert_eq!(bench.worker.gate.mishaps(), Mishaps { stray: 2, ..Mishaps::default() });
}

#[test]
fn a_forgotten_packet_passes() {
    let mut bench = Bench::new(|_, _| {});
    bench.arrive(&[1]);
    bench.turn();
    let late = bench.now + held::LIFETIME;
    assert_eq!(bench.worker.gate.release_forgotten(late), 1);
    bench.expect(&["packet 1", "flush", "accept 1"]);
    assert_eq!(bench.worker.gate.mishaps(), Mishaps { forgotten: 1, ..Mishaps::default() });
}

#[test]
fn more_packets_than_can_be_held_pass() {
    let mut bench = Bench::new(|_, _| {});
    for first in 0..33 {
        let ids: Vec<u64> = (first * 32..first * 32 + 32).collect();
        bench.arrive(&ids);
        bench.turn();
    }
    assert_eq!(bench.worker.gate.held(), 1024);
    assert_eq!(bench.take().iter().filter(|line| line.starts_with("accept")).count(), 32);
    assert_eq!(bench.worker.gate.mishaps(), Mishaps { held_full: 32, ..Mishaps::default() });
}

#[test]
fn kernel_events_reach_the_engine_and_changes_of_the_ruleset_the_daemon_once() {
    let mut bench = Bench::new(|input, out| {
        if let Input::FlowDestroyed(_) = input {
            out.extend([Out::Command(7), Out::Event]);
        }
    });
    let events = [
        KernelEvent::RulesetChanged,
        destroyed(),
        KernelEvent::Overrun,
        KernelEvent::RulesetChanged,
        destroyed(),
    ];
    bench.worker.events.waiting.extend(events);
    bench.worker.handle_kernel_events(bench.now);
    bench.expect(&[
        "destroyed",
        "event S4",
        "destroyed",
        "event S4",
        "ruleset changed",
        "events lost",
        "reloaded",
        "execute [7, 7]",
        "done 7 Ok(Done)",
        "done 7 Ok(Done)",
    ]);
}

#[test]
fn an_error_of_the_queue_is_a_warning_and_the_next_turn_goes_on() {
    let mut bench = Bench::new(|input, out| {
        if let Input::Packet(packet) = input {
            out.push_back(Out::Accept(packet.id.0));
        }
    });
    bench.worker.gate.queue_mut().batches.push_back(Err(libc::EIO));
    bench.arrive(&[1]);
    assert_eq!(bench.turn(), 0);
    assert_eq!(bench.worker.retry, Some(bench.now + RETRY));
    assert_eq!(bench.worker.trouble, Some(bench.now));
    assert_eq!(bench.turn(), 1);
    assert_eq!((bench.worker.retry, bench.worker.trouble), (None, None));
    bench.worker.gate.queue_mut().deaf_for = 1;
    bench.turn();
    assert!(bench.worker.poll_timeout().is_some_and(|due| due <= bench.now + RETRY));
    bench.expect(&[
        "warning: cannot read packets",
        "flush",
        "packet 1",
        "accept 1",
        "flush",
        "warning: cannot send verdicts",
    ]);
}

#[test]
fn an_order_is_carried_out_with_all_that_follows_from_it() {
    let mut bench = Bench::new(|input, out| {
        if let Input::FlowDestroyed(_) = input {
            out.push_back(Out::Command(7));
        }
    });
    let desk = bench.worker.desk().unwrap();
    let KernelEvent::Destroyed(tuples) = destroyed() else { unreachable!() };
    desk.hand_in(Box::new(move |core, _, _, now| core.handle(now, Input::FlowDestroyed(tuples)))).unwrap();
    bench.worker.carry_out_orders(bench.now);
    bench.expect(&["destroyed", "execute [7]", "done 7 Ok(Done)"]);
    drop(desk);
    bench.worker.carry_out_orders(bench.now);
    assert!(bench.worker.orders.is_none(), "a closed desk would be readable for ever");
}

#[test]
fn a_deadline_of_the_engine_is_kept() {
    let mut bench = Bench::new(|_, _| {});
    bench.worker.core.due = Some(bench.now + Duration::from_millis(5));
    assert_eq!(bench.worker.poll_timeout(), bench.worker.core.due);
    bench.turn();
    bench.now += Duration::from_millis(5);
    bench.turn();
    bench.expect(&["flush", "timeout", "flush"]);
}

#[test]
fn a_snapshot_is_taken_once_a_second_at_most() {
    let mut bench = Bench::new(|input, out| {
        if let Input::Packet(packet) = input {
            out.push_back(Out::Accept(packet.id.0));
        }
    });
    let snapshot = bench.worker.snapshot();
    let received = || snapshot.lock().unwrap().queue.received;
    bench.arrive(&[1]);
    bench.turn();
    assert_eq!(received(), 0);
    assert!(
        bench.worker.poll_timeout().is_some_and(|due| due <= bench.now + PUBLISH),
        "it will be taken, though idle"
    );
    bench.now += PUBLISH;
    bench.turn();
    assert_eq!(received(), 1);
    assert_eq!(bench.worker.poll_timeout(), None, "nothing to do and nothing to tell");
}

#[test]
fn at_the_order_to_stop_every_packet_gets_its_verdict() {
    let mut bench = Bench::new(|input, out| {
        if let Input::Packet(packet) = input
            && packet.id.0 != 1
        {
            out.push_back(Out::Drop(packet.id.0));
        }
    });
    bench.arrive(&[1]);
    bench.turn();
    bench.arrive(&[2]);
    bench.arrive(&[3]);
    bench.worker.gate.queue_mut().deaf_for = 4;
    let (stop, stopping) = io::pipe().unwrap();
    drop(stopping);
    bench.worker.run(stop);
    let journal = bench.take();
    let verdicts: Vec<_> =
        journal.iter().filter(|line| line.starts_with("accept") || line.starts_with("discard")).collect();
    assert_eq!(verdicts, ["discard 2", "discard 3", "accept 1"]);
    assert_eq!(journal.last().map(String::as_str), Some("flush"), "also when the first attempts fail");
    assert_eq!(bench.worker.snapshot().lock().unwrap().held, 0);
}

#[test]
fn a_segment_for_which_there_is_no_verdict_is_dropped_and_never_passes() {
    let mut bench = Bench::new(|_, _| {});
    bench.arrive(&[1, SEGMENTS]);
    bench.turn();
    bench.take();
    bench.worker.gate.release_all();
    bench.expect(&["accept 1", &format!("discard {SEGMENTS}")]);

    let mut bench = Bench::new(|input, out| {
        if let Input::Packet(packet) = input {
            out.push_back(Out::RewriteTo(packet.id.0, 100));
        }
    });
    bench.worker.gate.queue_mut().longest = 50;
    bench.arrive(&[SEGMENTS]);
    bench.turn();
    let journal = bench.take();
    assert!(!journal.iter().any(|line| line.starts_with("replace")), "{journal:?}");

    let mut bench = Bench::new(|_, _| {});
    let (mut refused, mut id) = (0, SEGMENTS);
    while refused == 0 {
        bench.arrive(&[id]);
        bench.turn();
        refused = bench.worker.gate.mishaps().held_full;
        id += 1;
    }
    let journal = bench.take();
    assert_eq!(journal.iter().filter(|line| line.starts_with("accept")).count(), 0);
    assert_eq!(journal.iter().filter(|line| **line == format!("discard {}", id - 1)).count(), 1);
}

#[test]
fn segments_that_waited_before_the_start_are_turned_away_until_none_is_left() {
    let (stop, stopping) = io::pipe().unwrap();
    let mut stopping = Some(stopping);
    let mut bench = Bench::new(move |input, out| {
        if let Input::Packet(packet) = input {
            out.push_back(Out::Accept(packet.id.0));
            if packet.id.0 == SEGMENTS + 3 {
                stopping.take();
            }
        }
    });
    for batch in [&[SEGMENTS, 1, SEGMENTS + 1][..], &[SEGMENTS + 2], &[], &[SEGMENTS + 3]] {
        bench.arrive(batch);
    }
    bench.worker.run(stop);
    let journal = bench.take();
    let verdicts: Vec<_> =
        journal.iter().filter(|line| line.starts_with("accept") || line.starts_with("discard")).collect();
    let [a, b, c, d] = [0, 1, 2, 3].map(|n| SEGMENTS + n);
    assert_eq!(
        verdicts,
        [
            &format!("discard {a}"),
            "accept 1",
            &format!("discard {b}"),
            &format!("discard {c}"),
            &format!("accept {d}")
        ]
    );
}

#[test]
fn the_engine_knows_the_mtu_of_an_interface_before_a_segment_names_it_and_hears_of_changes() {
    let mut bench = Bench::new(|input, out| {
        if let Input::Packet(packet) = input {
            out.push_back(Out::Accept(packet.id.0));
        }
    });
    let told = |bench: &Bench| {
        let journal = bench.take();
        journal
            .into_iter()
            .filter(|line| line.starts_with("told") || line.starts_with("packet"))
            .collect::<Vec<_>>()
    };
    bench.arrive(&[1, SEGMENTS, SEGMENTS + 1]);
    bench.turn();
    let [a, b] = [SEGMENTS, SEGMENTS + 1].map(|n| format!("packet {n}"));
    assert_eq!(told(&bench), ["packet 1", "told 3 1500", "told 4 1500", &a, &b]);
    bench.worker.surroundings.mtu = 1492;
    bench.arrive(&[SEGMENTS]);
    bench.turn();
    assert_eq!(told(&bench), ["told 3 1492", "told 4 1492", &a]);
    bench.worker.surroundings.mtu = usize::MAX;
    bench.arrive(&[SEGMENTS]);
    bench.turn();
    assert_eq!(told(&bench), [a], "not known");
}

#[test]
fn the_executor_is_asked_for_a_sign_of_life_when_it_wants_to_be() {
    let mut bench = Bench::new(|_, _| {});
    bench.turn();
    bench.now += PUBLISH;
    bench.turn();
    assert_eq!(bench.worker.poll_timeout(), None);
    bench.worker.executor.beat = Some(Duration::from_millis(300));
    bench.turn();
    assert_eq!(bench.worker.poll_timeout(), Some(bench.now + Duration::from_millis(300)));
}

#[test]
fn the_loop_wakes_for_packets_events_and_deadlines() {
    for with_descriptor in [true, false] {
        let (mut stop, stopping) = io::pipe().map(|(reader, writer)| (reader, Some(writer))).unwrap();
        let stopping = RefCell::new(stopping);
        let mut bench = Bench::new(move |input, out| match input {
            Input::Packet(packet) => out.push_back(Out::Accept(packet.id.0)),
            Input::Timeout => drop(stopping.borrow_mut().take()),
            _ => {}
        });
        bench.worker.gate.queue_mut().without_descriptor = !with_descriptor;
        bench.arrive(&[1]);
        bench.worker.events.announce(destroyed());
        bench.worker.core.due = Some(Instant::now() + Duration::from_millis(50));
        bench.worker.run(&stop);
        let journal = bench.take();
        for step in ["packet 1", "accept 1", "destroyed", "timeout"] {
            assert!(journal.iter().any(|line| line == step), "{step}: {journal:?}");
        }
        assert_eq!(stop.read(&mut [0]).unwrap(), 0);
    }
}

fn destroyed() -> KernelEvent {
    let end = "192.0.2.1:5060".parse().unwrap();
    KernelEvent::Destroyed(Tuples {
        transport: crate::alg::Transport::Udp,
        orig_source: end,
        orig_destination: end,
        reply_source: end,
        reply_destination: end,
    })
}

fn rebuilt(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let datagram = crate::packet::Datagram::parse(&PACKET).unwrap();
    datagram.rebuild(|_, out| out.extend_from_slice(payload), Default::default(), 1500, &mut out).unwrap();
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
