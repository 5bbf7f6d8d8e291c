//! Segments that wait for the rest of their message, and what is promised for them meanwhile.

use std::time::Duration;

use sipalg::alg::Policy;

use crate::endpoint::Habits;
use crate::hand::{Hand, Made, Seen};
use crate::messages::{Message, expected, written};
use crate::properties::{Scene, play, world};
use crate::scenes::{SECOND, calm, growing, text_of, wire_of};
use crate::world::PUBLIC;

#[test]
fn holding_ends_after_twenty_seconds() {
    let message = text_of(&Message::Text(1, 40));
    let mut hand = Hand::new();
    assert_eq!(hand.out(0, &message[..100]), []);
    assert_eq!(hand.out(100, &message[100..150]), []);
    let seen = hand.settle(19 * SECOND);
    assert_eq!(seen.iter().map(|it| (it.at, it.text.as_str())).collect::<Vec<_>>(), [(-1, "")], "a probe");
    assert_eq!(hand.refused(), None);
    let seen = hand.settle(SECOND);
    assert_eq!(seen.iter().map(|it| it.text.as_str()).collect::<Vec<_>>(), [&message[..100]]);
    assert_eq!(hand.refused(), Some("S2"));
    let seen = hand.out(150, &message[150..]);
    assert_eq!(
        (seen[0].at, seen[0].text.as_str()),
        (100, &message[100..]),
        "it is not read, and nothing is lost"
    );
}

#[test]
fn a_sender_whose_timeout_has_grown_beyond_patience_is_freed_with_what_it_has_sent() {
    let (written, wire) = growing();
    let mut hand = Hand::new();
    assert_eq!(hand.out(0, &written[..100]), []);
    assert_eq!(hand.settle(Duration::from_millis(2900)), []);
    let seen = hand.settle(Duration::from_millis(200));
    assert_eq!(seen.iter().map(|it| (it.at, it.text.as_str())).collect::<Vec<_>>(), [(-1, "")], "a probe");
    assert_eq!(hand.ack(0, None).ack, 100);
    // Nothing waits any more, so nothing is given up.
    assert_eq!(hand.settle(60 * SECOND), []);
    let seen = hand.out(100, &written[100..]);
    assert_eq!(seen.iter().map(|it| (it.at, it.text.as_str())).collect::<Vec<_>>(), [(0, wire.as_str())]);
    assert_eq!(hand.refused(), None);
}

#[test]
fn what_came_behind_a_message_that_waited_for_the_kernel_is_not_held_for_ever() {
    let (first, second) = (Message::Invite(1, 40_000), text_of(&Message::Text(2, 40)));
    let mut hand = Hand::new();
    hand.world.slow = Duration::from_millis(300);
    assert_eq!(hand.out(0, text_of(&first)), []);
    // The head of the next message, and then nothing more.
    let at = text_of(&first).len() as i64;
    assert_eq!(hand.out(at, &second[..50]), []);
    assert_eq!(hand.out(at + 50, &second[50..100]), []);
    assert_eq!(hand.settle(SECOND).len(), 1, "the first one has gone on");
    assert!(hand.settle(18 * SECOND).iter().all(|probe| probe.text.len() <= 1));
    let seen = hand.settle(2 * SECOND);
    assert_eq!(seen.iter().map(|it| it.text.as_str()).collect::<Vec<_>>(), [&second[..50]]);
    assert_eq!(hand.refused(), Some("S2"));
    let seen = hand.out(at + 100, &second[100..]);
    assert_eq!(seen.iter().map(|it| it.text.as_str()).collect::<String>(), second[50..]);
}

#[test]
fn what_lies_behind_a_gap_is_dropped_in_time_and_comes_again() {
    let (first, second) = (Message::Text(1, 40), Message::Text(2, 40));
    let at = text_of(&first).len() as i64;
    let mut hand = Hand::new();
    assert_eq!(hand.out(at, text_of(&second)), []);
    assert_eq!(hand.settle(21 * SECOND), []);
    assert_eq!((hand.refused(), hand.world.engine.sizes().held_segments), (None, 0));
    assert_eq!(hand.out(0, text_of(&first))[0].text, wire_of(&first));
    assert_eq!(hand.out(at, text_of(&second))[0].text, wire_of(&second));
}

#[test]
fn what_is_held_while_others_go_on_is_dropped_in_time_too_and_comes_again() {
    let messages: Vec<Message> = (1..=4).map(|number| Message::Text(number, 40)).collect();
    let at = |index: usize| messages[..index].iter().map(|it| text_of(it).len() as i64).sum();
    let mut hand = Hand::new();
    assert_eq!(hand.out(at(3), text_of(&messages[3])), []);
    for (index, message) in messages[..2].iter().enumerate() {
        assert_eq!(hand.settle(15 * SECOND), []);
        assert_eq!(hand.out(at(index), text_of(message))[0].text, wire_of(message));
    }
    assert_eq!(hand.settle(9 * SECOND), []);
    assert_eq!(hand.world.engine.sizes().held_segments, 1);
    assert_eq!(hand.settle(2 * SECOND), []);
    assert_eq!((hand.refused(), hand.world.engine.sizes().held_segments), (None, 0));
    for (index, message) in messages.iter().enumerate().skip(2) {
        assert_eq!(hand.out(at(index), text_of(message))[0].text, wire_of(message));
    }
}

#[test]
fn both_directions_lose_patience_at_the_same_time() {
    let (out, inn) = (text_of(&Message::Text(1, 40)), text_of(&Message::Request(1, 400)));
    let mut hand = Hand::new();
    assert_eq!(hand.out(0, &out[..100]), []);
    assert_eq!(hand.inn(0, &inn[..100]), []);
    // Nobody looks in between, as in a daemon that was stopped.
    hand.world.now += 41 * SECOND;
    let seen = hand.settle(SECOND);
    assert_eq!(hand.world.engine.sizes().held_segments, 0);
    assert_eq!(seen.iter().filter(|it| it.text.len() == 100).count(), 2);
}

#[test]
fn patience_begins_anew_when_nothing_was_held_meanwhile() {
    let message = text_of(&Message::Text(1, 40));
    let mut hand = Hand::new();
    assert_eq!(hand.out(0, &message[..100]), []);
    // Acknowledged ahead of time, so it is held no longer.
    assert!(hand.settle(18 * SECOND).iter().all(|probe| probe.text.is_empty()));
    assert_eq!(hand.world.engine.sizes().held_segments, 0);
    assert_eq!(hand.out(100, &message[100..150]), []);
    assert_eq!(hand.world.engine.sizes().held_segments, 1);
    // Nor is this one; and nobody gives up who has nothing to wait for.
    assert!(hand.settle(15 * SECOND).iter().all(|probe| probe.text.len() <= 1));
    assert_eq!(hand.refused(), None);
}

#[test]
fn segments_that_overtook_each_other_go_on_in_order() {
    let messages = [Message::Text(1, 40), Message::Text(2, 900), Message::Text(3, 40)];
    let whole = String::from_utf8(written(&messages)).unwrap();
    let wire = String::from_utf8(expected(&messages, &Default::default())).unwrap();
    let mut hand = Hand::new();
    assert_eq!(hand.out(1200, &whole[1200..]), []);
    assert_eq!(hand.out(600, &whole[600..1200]), []);
    let seen = hand.out(0, &whole[..600]);
    let joined: String = seen.iter().map(|it| it.text.as_str()).collect();
    assert_eq!((joined.as_str(), seen.len()), (wire.as_str(), 3));
    assert!(seen.is_sorted_by_key(|it| it.at));
}

#[test]
fn a_message_of_sixty_thousand_bytes_passes_and_a_longer_one_ends_inspection() {
    let mut scene = calm();
    scene.out.push(Message::Text(3, 60_000));
    scene.phone.cwnd = 60;
    play(&scene);
    let mut hand = Hand::new();
    let long = text_of(&Message::Text(1, 70_000));
    assert_eq!(hand.out(0, &long[..1000])[0].text, long[..1000]);
    assert_eq!(hand.refused(), Some("S2"));
}

#[test]
fn of_a_message_that_is_told_by_its_headers_nothing_is_held() {
    let mut scene = calm();
    scene.out.extend([Message::Text(2, 300_000), Message::Text(4, 10)]);
    let world = play(&scene);
    assert!(world.most_held <= 1, "{}", world.most_held);
    let message = Message::Text(2, 40_000);
    let (whole, wire) = (text_of(&message), wire_of(&message));
    let mut hand = Hand::new();
    let head = whole.find("\r\n\r\n").unwrap() + 4;
    assert_eq!(hand.out(0, &whole[..head - 1]), [], "one byte is missing");
    let seen = hand.out(head as i64 - 1, &whole[head - 1..head]);
    let joined: String = seen.iter().map(|it| it.text.as_str()).collect();
    assert_eq!(joined, wire[..head + wire.len() - whole.len()]);
    // What overtakes waits for what it has overtaken, and no longer.
    let at = |from: usize| &whole[from..from + 1000];
    assert_eq!(hand.out(head as i64 + 1000, at(head + 1000)), []);
    let seen = hand.out(head as i64, at(head));
    assert_eq!(seen.iter().map(|it| it.text.as_str()).collect::<Vec<_>>(), [at(head), at(head + 1000)]);
}

/// The sender repeats the first segment of a held message, for the second was lost before the router.
fn owned(cut: usize, whole: &str) -> (Hand, Vec<Seen>) {
    let mut hand = Hand::new();
    assert_eq!(hand.out(0, &whole[..cut]), []);
    let seen = hand.out(0, &whole[..cut]);
    (hand, seen)
}

#[test]
fn a_held_segment_that_comes_again_is_acknowledged_and_its_sender_freed() {
    let message = Message::Text(1, 900);
    let (whole, wire) = (text_of(&message), wire_of(&message));
    let (mut hand, seen) = owned(600, &whole);
    // The receiver has to answer that; it says nothing new to it.
    assert_eq!(seen.iter().map(|it| (it.at, it.text.len())).collect::<Vec<_>>(), [(-1, 0)]);
    let answer = hand.ack(0, None);
    assert_eq!(answer.ack, 600);
    let seen = hand.out(600, &whole[600..]);
    let joined: String = seen.iter().map(|it| it.text.as_str()).collect();
    assert_eq!((joined.as_str(), seen.len()), (wire.as_str(), 2));
    // The first is lost behind the router, and its sender has forgotten it.
    let answer = hand.ack(0, Some((600, wire.len() as u32)));
    assert_eq!((answer.ack, answer.sack), (600, vec![]), "what contradicts it is taken out");
    let seen = hand.out(600, &whole[600..]);
    assert_eq!((seen[0].at, seen[0].text.as_str()), (0, &wire[..seen[0].text.len()]));
    let got = seen[0].text.len() as u32;
    assert!(got >= 600);
    assert_eq!(hand.ack(wire.len() as u32, None).ack, whole.len() as u32);
}

#[test]
fn an_acknowledgment_carries_what_only_we_have() {
    let message = Message::Text(1, 900);
    let (whole, wire) = (text_of(&message), wire_of(&message));
    let (mut hand, _) = owned(600, &whole);
    hand.ack(0, None);
    hand.out(600, &whole[600..]);
    hand.ack(0, None);
    let seen = hand.out(whole.len() as i64, "");
    assert_eq!((seen[0].at, &seen[0].text[..600]), (0, &wire[..600]));
}

#[test]
fn what_does_not_fit_is_cut_and_its_sender_sends_the_rest_again() {
    let (written, wire) = growing();
    let mut hand = Hand::with(Policy::default(), written.len() as u16 + 4);
    let seen =
        hand.push(Made { outbound: true, payload: written.clone().into(), fin: true, ..Made::default() });
    let first = seen[0].text.len();
    assert!(first <= written.len() + 4 && wire.starts_with(&seen[0].text) && !seen[0].fin, "{first}");
    let ack = hand.ack(first as u32, None).ack;
    assert!(ack < written.len() as u32);
    let rest = Made {
        outbound: true,
        at: i64::from(ack),
        payload: written[ack as usize..].into(),
        fin: true,
        ..Made::default()
    };
    let seen = hand.push(rest);
    assert!(wire.ends_with(&seen[0].text) && seen[0].fin);
    assert_eq!(hand.ack(wire.len() as u32 + 1, None).ack, written.len() as u32 + 1);
}

#[test]
fn a_cut_tail_that_is_owned_still_arrives() {
    // The first segment grows by ten bytes and has room for four.
    let (head, _) = growing();
    let written = head.replace("Content-Length: 40", "Content-Length: 640") + &"z".repeat(600);
    let wire = written
        .replace("192.168.1.10;", &format!("{PUBLIC};"))
        .replace("192.168.1.10;t", &format!("{PUBLIC};t"));
    let cut = head.len();
    let mut hand = Hand::with(Policy::default(), cut as u16 + 4);
    assert_eq!(hand.out(0, &written[..cut]), []);
    hand.out(0, &written[..cut]);
    assert_eq!(hand.ack(0, None).ack, cut as u32, "owned");
    let mut got: Vec<Option<u8>> = vec![None; wire.len()];
    let mut note = |seen: &[Seen]| {
        for it in seen.iter().filter(|it| it.outbound && it.at >= 0) {
            for (index, byte) in it.text.bytes().enumerate() {
                got[it.at as usize + index] = Some(byte);
            }
        }
    };
    let mut at = cut;
    while at < written.len() {
        let end = (at + 300).min(written.len());
        note(&hand.out(at as i64, &written[at..end]));
        at = end;
    }
    // Its sender never had to repeat what was owned; of the last segment it has not been told that it arrived.
    for _ in 0..3 {
        note(&hand.out(written.len() as i64 - 300, &written[written.len() - 300..]));
    }
    let got: Vec<u8> = got.into_iter().map(|byte| byte.expect("every byte")).collect();
    assert_eq!(String::from_utf8(got).unwrap(), wire);
}

#[test]
fn what_was_held_is_not_too_old_for_its_receiver() {
    let mut hand = Hand::new();
    let (whole, wire) = (text_of(&Message::Text(1, 40)), wire_of(&Message::Text(1, 40)));
    let mut stamped = |at: usize, end: usize, stamp: u32| {
        let plain = Hand::bytes(&Made { outbound: true, at: at as i64, ..Made::default() });
        let option = [&[1, 1, 8, 10][..], &stamp.to_be_bytes(), &[0; 4]].concat();
        let mut bytes = [&plain[..40], &option, &whole.as_bytes()[at..end]].concat();
        let length = (bytes.len() as u16).to_be_bytes();
        bytes[2..4].copy_from_slice(&length);
        bytes[32] = 8 << 4;
        hand.world.route(crate::world::readdressed(&bytes, None, None));
        hand.world.wait(Duration::from_millis(50));
        hand.world.tape.drain(..).map(|(_, bytes)| bytes).collect::<Vec<_>>()
    };
    assert_eq!(stamped(0, 100, 7).len(), 0);
    // It comes again, later: a probe goes out with the later timestamp.
    assert_eq!(stamped(0, 100, 9).len(), 1);
    let seen = stamped(100, whole.len(), 8);
    let stamps: Vec<_> =
        seen.iter().map(|bytes| sipalg::packet::Segment::parse(bytes).unwrap().stamp()).collect();
    assert_eq!(stamps, [Some(9), Some(9)]);
    let joined: Vec<u8> = seen
        .iter()
        .flat_map(|bytes| sipalg::packet::Segment::parse(bytes).unwrap().payload().to_vec())
        .collect();
    assert_eq!(String::from_utf8(joined).unwrap(), wire);
}

#[test]
fn a_segment_that_never_arrives_is_not_made_longer_any_more() {
    let (written, wire) = growing();
    let mut hand = Hand::new();
    let sizes: Vec<usize> = (0..4).map(|_| hand.out(0, &written)[0].text.len()).collect();
    assert_eq!(sizes[..3], [wire.len(); 3]);
    assert!(sizes[3] <= written.len(), "the path is narrower than anybody says");
}

#[test]
fn an_outage_longer_than_all_patience_ends_no_inspection() {
    for (outage, index) in [(14, 1), (30, 1), (60, 2), (200, 1)] {
        let scene = Scene { out: vec![Message::Text(1, 10), Message::Text(2 * index + 1, 4000)], ..calm() };
        let mut world = world(&scene, Policy::default());
        let first = scene.out[0].written();
        world.phone.stream = first.clone();
        world.phone.longest_rto = 64 * SECOND;
        world.phone.connect(world.now);
        world.run(5 * SECOND, |world| world.server.received.len() > first.len() - 20);
        world.wait(SECOND);
        world.wires.before = 100;
        world.phone.stream = written(&scene.out);
        world.wait(Duration::from_secs(outage));
        world.wires.before = 0;
        world.phone.closing = true;
        world.server.closing = true;
        world.run(600 * SECOND, |world| world.phone.is_done() && world.server.is_done());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let wanted = text(&expected(&scene.out, &world.pinholes));
        assert_eq!(text(&world.server.received), wanted, "{outage} s");
    }
}

#[test]
fn what_was_sent_beyond_the_window_of_a_receiver_that_nobody_translates_for_any_more_is_heeded() {
    // The phone was told of a window as wide as its message is long, which is let go before it is complete.
    let phone = Habits { isn: u32::MAX, mss: 536, nagle: true, lazy: true, cwnd: 7, ..Habits::default() };
    let server = Habits { mss: 1460, window: 6549, stamps: true, ..phone };
    let mut scene = Scene { phone, server, slow: 14, ..calm() };
    scene.out.extend([Message::Text(2, 22_980), Message::Text(3, 48_532)]);
    scene.inn = vec![Message::Request(1, 2756), Message::Request(2, 39_900)];
    let mut world = world(&scene, Policy { tcp_patience: Duration::from_millis(500), ..Policy::default() });
    (world.phone.stream, world.server.stream) = (written(&scene.out), written(&scene.inn));
    (world.phone.closing, world.server.closing) = (true, true);
    world.phone.connect(world.now);
    world.run(600 * SECOND, |world| world.phone.is_done() && world.server.is_done());
    assert!(!world.log.is_empty());
}

/// Both ends write so many messages of this length, which have parts, and none waits for the other.
fn long_scene(count: u32, length: usize, habits: Habits) -> Scene {
    let mut scene = calm();
    for end in [&mut scene.phone, &mut scene.server] {
        *end = Habits { isn: end.isn, ..habits };
    }
    scene.out.extend((1..=count).map(|number| Message::Text(2 * number + 1, length)));
    scene.inn = (1..=count).map(|number| Message::Request(2 * number + 1, length)).collect();
    scene
}

#[test]
fn long_messages_with_parts_follow_each_other_without_a_timeout_for_each_window() {
    for [stamps, lazy, sack] in [[true; 3], [false, true, true], [true, false, false], [false; 3]] {
        // While a message is held, the other end may send more than the narrower windows.
        for (window, scale, cwnd) in [(4096, 7, 10), (65_535, 0, 10), (65_535, 0, 48), (40_000, 0, 30)] {
            let habits = Habits { stamps, lazy, sack, window, scale, cwnd, ..Habits::default() };
            let world = play(&long_scene(20, 50_000, habits));
            // A timeout for each window that is waited for, or lost, took a hundred seconds and more.
            let took = world.now - world.start;
            assert!(took < 5 * SECOND, "{took:?}, {habits:?}");
            assert!(world.most_held <= 2 * 2 * 50_000 / 1332 + 20, "{}", world.most_held);
        }
    }
}

#[test]
fn what_is_lost_of_long_messages_is_sent_again_soon() {
    for sack in [true, false] {
        for seed in 1..6 {
            let habits = Habits { sack, stamps: true, lazy: true, ..Habits::default() };
            let mut scene = long_scene(20, 50_000, habits);
            (scene.wires.behind, scene.seed) = (1, seed);
            let world = play(&scene);
            // One is lost behind which nothing follows any more; all others are a matter of a second. With a timeout for each
            // it took 2000 seconds.
            let (took, longest) = (world.now - world.start, if (sack, seed) == (true, 4) { 200 } else { 5 });
            assert!(took < longest * SECOND, "{took:?}, SACK: {sack}, seed {seed}");
        }
    }
}
