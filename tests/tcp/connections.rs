//! How connections begin, live and end, and which of them are left alone.

use std::time::Duration;

use sipalg::alg::{Op, Policy, Reason};
use sipalg::packet::Segment;

use crate::endpoint::{Endpoint, Habits};
use crate::hand::{Hand, Made};
use crate::messages::{Message, expected, written};
use crate::properties::{Scene, patient, play, world};
use crate::scenes::{SECOND, calm, growing, idle, many, syn, text_of, wire_of};
use crate::world::{PHONE, PUBLIC, SERVER, WAN, Wires, World, at};

#[test]
fn a_reset_goes_on_with_the_right_number_and_ends_the_connection() {
    let (written, wire) = growing();
    let mut hand = Hand::new();
    hand.out(0, &written);
    let seen = hand.push(Made { outbound: true, at: written.len() as i64, rst: true, ..Made::default() });
    assert_eq!(seen[0].at, wire.len() as i64);
    assert_eq!(hand.world.engine.sizes().connections, 1, "late segments are translated for a while");
    hand.settle(11 * SECOND);
    assert_eq!(hand.world.engine.sizes().connections, 0);
    assert!(hand.world.followed.is_empty());
}

#[test]
fn a_reset_from_nowhere_ends_nothing() {
    let (written, _) = growing();
    let mut hand = Hand::new();
    hand.out(0, &written);
    hand.push(Made { at: 500_000, rst: true, ..Made::default() });
    hand.settle(60 * SECOND);
    assert_eq!(hand.world.engine.sizes().connections, 1);
}

#[test]
fn a_fin_lets_an_incomplete_message_go() {
    let message = text_of(&Message::Text(1, 40));
    let mut hand = Hand::new();
    assert_eq!(hand.out(0, &message[..200]), []);
    let rest =
        Made { outbound: true, at: 200, payload: message[200..220].into(), fin: true, ..Made::default() };
    let seen = hand.push(rest);
    let joined: String = seen.iter().map(|it| it.text.as_str()).collect();
    assert_eq!(joined, message[..220], "as it came");
    assert_eq!((seen[0].fin, seen[1].fin), (false, true));
}

#[test]
fn one_end_may_finish_long_before_the_other() {
    let scene = calm();
    let mut world = world(&scene, patient());
    world.phone.stream = written(&scene.out);
    world.phone.closing = true;
    world.phone.connect(world.now);
    world.run(60 * SECOND, |world| world.server.fin_received && world.phone.una > 0);
    let inn: Vec<Message> = (1..30).map(|number| Message::Request(number, 500)).collect();
    world.server.stream = written(&inn);
    world.server.closing = true;
    world.run(120 * SECOND, |world| world.phone.is_done() && world.server.is_done());
    assert_eq!(world.phone.received, expected(&inn, &world.pinholes));
    world.wait(121 * SECOND);
    assert_eq!(world.engine.sizes().connections, 0);
}

#[test]
fn who_never_hears_that_his_end_has_arrived_is_translated_for_as_long_as_he_asks() {
    let scene = Scene { out: vec![Message::Text(1, 10), Message::Invite(2, 40_000)], ..calm() };
    let mut world = world(&scene, Policy::default());
    world.phone.stream = written(&scene.out);
    world.phone.connect(world.now);
    world.server.closing = true;
    world.run(10 * SECOND, |world| world.phone.fin_received && world.server.is_open());
    world.wait(SECOND);
    world.phone.closing = true;
    world.run(20 * SECOND, |world| world.server.fin_received);
    (world.wires.behind, world.taping) = (100, true);
    world.wait(1000 * SECOND);
    let ends = world.tape.iter().filter_map(|(outbound, bytes)| {
        let segment = Segment::parse(bytes).unwrap();
        (*outbound && segment.fin()).then(|| segment.sequence().wrapping_add(segment.payload().len() as u32))
    });
    let ends: Vec<u32> = ends.collect();
    let end = expected(&scene.out, &world.pinholes).len() as u32;
    assert!(ends.len() > 50, "{ends:?}");
    assert_eq!(ends, vec![scene.phone.isn.wrapping_add(1 + end); ends.len()]);
}

#[test]
fn a_syn_that_is_sent_again_changes_nothing() {
    let mut scene = calm();
    scene.wires = Wires { before: 40, behind: 40, ..Wires::default() };
    let world = play(&scene);
    let follows = world.commands.iter().filter(|op| matches!(op, Op::Follow { .. })).count();
    assert_eq!(follows, 1);
}

#[test]
fn a_phone_that_lost_its_power_comes_again_by_the_same_port() {
    let mut scene = calm();
    scene.out = many();
    let mut world = world(&scene, patient());
    world.phone.stream = written(&scene.out);
    world.phone.connect(world.now);
    world.run(60 * SECOND, |world| world.server.received.len() > 5000);
    // Both ends begin anew; the router knows of nothing.
    let phone = Habits { isn: 0x7000_0000, ..scene.phone };
    let server = Habits { isn: 0x3000_0000, ..scene.server };
    world.phone = Endpoint::new("phone", at(PHONE), at(SERVER), phone, 9, false);
    world.server = Endpoint::new("server", at(SERVER), at(PUBLIC), server, 10, true);
    world.forget_wires();
    world.phone.stream = written(&scene.out);
    world.phone.connect(world.now);
    world.phone.closing = true;
    world.server.closing = true;
    world.run(120 * SECOND, |world| world.phone.is_done() && world.server.is_done());
    assert_eq!(world.server.received, expected(&scene.out, &world.pinholes));
}

#[test]
fn an_old_syn_does_not_disturb_a_connection() {
    let message = Message::Text(1, 40);
    let (whole, wire) = (text_of(&message), wire_of(&message));
    let mut hand = Hand::new();
    hand.out(0, &whole);
    let mut syn = Hand::bytes(&Made { outbound: true, at: 123_456, ..Made::default() });
    syn[33] = 2;
    hand.world.route(crate::world::readdressed(&syn, None, None));
    let next = Message::Text(2, 40);
    let seen = hand.out(whole.len() as i64, text_of(&next));
    let seen = seen.last().unwrap();
    assert_eq!((seen.at, seen.text.as_str()), (wire.len() as i64, wire_of(&next).as_str()));
}

#[test]
fn a_syn_that_is_repeated_before_conntrack_knows_it_does_not_mislead() {
    // Under random NAT the second one gets a port of its own, which dies with it.
    let mut world = idle();
    world.wires = Wires::default();
    (world.second, world.slow) = (Some(at("22.33.44.55:40404")), Duration::from_millis(1500));
    let wire = expected(&[Message::Text(1, 10)], &Default::default());
    world.phone.stream = written(&[Message::Text(1, 10)]);
    world.phone.connect(world.now);
    world.run(60 * SECOND, |world| world.server.received.len() >= wire.len());
    assert_eq!(world.server.received, wire);
    assert!(world.reasons.contains_key(&Reason::NatClash), "{:?}", world.reasons);
}

#[test]
fn connections_that_vouch_for_their_bytes_or_bring_some_in_the_syn_are_left_alone() {
    let md5 = [&[19, 18][..], &[7; 16], &[1, 1]].concat();
    let ao = [29, 4, 1, 2];
    let multipath = [30, 12, 0, 0x81, 0, 1, 2, 3, 4, 5, 6, 7];
    for (options, payload) in [
        (&md5[..], &b""[..]),
        (&ao, b""),
        (&multipath, b""),
        (&[2, 4, 5, 180], b"REGISTER sip:x SIP/2.0\r\n"),
    ] {
        let mut world = idle();
        world.route(syn(options, payload));
        world.wait(SECOND);
        assert_eq!((world.engine.sizes().connections, world.commands.len(), world.tape.len()), (0, 0, 1));
        let natted = crate::world::readdressed(&syn(options, payload), Some(at(PUBLIC)), None);
        assert_eq!(world.tape[0].1, natted);
    }
}

#[test]
fn a_connection_that_nobody_knows_from_its_syn_is_not_read() {
    let mut world = idle();
    let message = Message::Text(1, 10).written();
    world.route(Hand::bytes(&Made { outbound: true, payload: message.clone(), ..Made::default() }));
    world.wait(SECOND);
    assert_eq!(Segment::parse(&world.tape[0].1).unwrap().payload(), message);
    assert!(world.commands.is_empty());
}

#[test]
fn connections_that_begin_outside_are_read_too() {
    let mut scene = calm();
    scene.out = many();
    for nated in [true, false] {
        let phone = Endpoint::new("phone", at(PHONE), at(SERVER), scene.phone, 1, true);
        let to = if nated { PUBLIC } else { PHONE };
        let server = Endpoint::new("server", at(SERVER), at(to), scene.server, 2, false);
        let mut world = World::new(patient(), phone, server, 3);
        world.from_outside = true;
        world.nated = nated;
        world.wires = Wires { before: 5, behind: 5, ..Wires::default() };
        world.server.connect(world.now);
        world.phone.stream = written(&scene.out);
        world.run(100 * SECOND, |world| world.server.received.len() > 1000);
        let inn: Vec<Message> = (1..30).map(|number| Message::Request(number, 300)).collect();
        world.server.stream = written(&inn);
        world.phone.closing = true;
        world.server.closing = true;
        world.run(200 * SECOND, |world| world.phone.is_done() && world.server.is_done());
        if nated {
            assert_eq!(world.server.received, expected(&scene.out, &world.pinholes));
            assert_eq!(world.phone.received, expected(&inn, &world.pinholes));
        } else {
            assert_eq!(world.server.received, written(&scene.out), "no NAT, no change");
            assert_eq!(world.phone.received, written(&inn));
        }
        assert_eq!(world.followed.len(), usize::from(nated));
    }
}

#[test]
fn f40_a_restart_in_the_middle_is_not_noticed() {
    for wires in [Wires::default(), Wires { before: 5, behind: 5, ..Wires::default() }] {
        for after in [1u64, 900, 2000, 4000, 7000, 11_000] {
            let mut scene = calm();
            scene.out = many();
            scene.wires = wires;
            let inn: Vec<Message> = (1..60).map(|number| Message::Request(number, 400)).collect();
            let mut world = world(&scene, patient());
            world.phone.stream = written(&scene.out);
            world.phone.connect(world.now);
            let first = scene.out[0].written().len();
            world.run(60 * SECOND, |world| world.server.received.len() >= first);
            world.server.stream = written(&inn);
            world.phone.closing = true;
            world.server.closing = true;
            world.run(60 * SECOND, |world| world.server.received.len() as u64 >= after);
            world.restart(patient());
            assert_eq!(world.resets, []);
            world.run(600 * SECOND, |world| world.phone.is_done() && world.server.is_done());
            assert_eq!(world.server.received, expected(&scene.out, &world.pinholes));
            assert_eq!(world.phone.received, expected(&inn, &world.pinholes));
        }
    }
}

#[test]
fn f40_what_nobody_can_translate_any_more_is_reset() {
    let mut hand = Hand::new();
    hand.out(0, growing().0);
    let line = *hand.world.followed.first().unwrap();
    hand.world.engine = sipalg::alg::Engine::new(Policy::default());
    let held = sipalg::alg::Held { followed: vec![line], ..Default::default() };
    hand.world.engine.reconcile(hand.world.now, &held);
    hand.world.drain();
    hand.settle(SECOND);
    assert_eq!(hand.world.resets, [line]);
}

#[test]
fn f40_a_live_connection_that_conntrack_forgets_is_reset_once_it_was_translated() {
    let mut hand = Hand::new();
    hand.out(0, growing().0);
    let line = *hand.world.followed.first().unwrap();
    hand.world.destroy();
    assert_eq!(hand.world.engine.sizes().connections, 0);
    hand.settle(SECOND);
    assert_eq!(hand.world.resets, [line]);
}

#[test]
fn a_connection_that_conntrack_forgets_is_forgotten_if_nothing_was_changed() {
    let mut hand = Hand::new();
    hand.world.destroy();
    assert_eq!(hand.world.engine.sizes().connections, 0);
    hand.settle(SECOND);
    assert!(hand.world.followed.is_empty());
    assert_eq!(hand.world.resets, []);
}

#[test]
fn f16_a_connection_that_leaves_by_another_uplink_is_reset_if_its_address_stays_behind() {
    for is_translated in [true, false] {
        for owner in [Some(WAN), None] {
            let mut hand = Hand::new();
            let first = growing().0;
            if is_translated {
                hand.out(0, &first);
            }
            hand.world.owner = owner;
            hand.world.uplink = 9;
            let line = *hand.world.followed.first().unwrap();
            let at = if is_translated { first.len() as i64 } else { 0 };
            for _ in 0..2 {
                hand.out(at, "");
                hand.settle(SECOND);
            }
            let asked = |op: &&Op| matches!(op, Op::Reroute { flow, to: 9, .. } if flow.far == line.far);
            assert_eq!(hand.world.commands.iter().filter(asked).count(), 1);
            let expected = if owner.is_some() { vec![line] } else { vec![] };
            assert_eq!(hand.world.resets, expected);
            assert_eq!(hand.world.engine.sizes().connections, usize::from(owner.is_none()));
        }
    }
}

#[test]
fn a_connection_lives_as_long_as_it_is_used() {
    let mut hand = Hand::new();
    hand.out(0, growing().0);
    for _ in 0..5 {
        hand.settle(5 * 24 * 3600 * SECOND);
        hand.out(growing().0.len() as i64, "");
    }
    assert_eq!(hand.world.engine.sizes().connections, 1);
    let next = Message::Text(2, 10);
    let seen = hand.out(growing().0.len() as i64, text_of(&next));
    assert_eq!(seen[0].text, wire_of(&next));
    hand.settle(13 * 24 * 3600 * SECOND);
    assert_eq!(hand.world.engine.sizes().connections, 0);
    assert!(hand.world.followed.is_empty());
}
