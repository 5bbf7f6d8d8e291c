//! Limits, and a configuration that changes.

use sipalg::alg::{Limits, Policy};

use crate::hand::Hand;
use crate::messages::{Message, written};
use crate::properties::{patient, world};
use crate::scenes::{SECOND, calm, growing, text_of, wire_of};

#[test]
fn s11_a_host_cannot_hold_more_than_its_share() {
    let mut policy = patient();
    policy.limits = Limits { tcp_held_per_host: 3, tcp_bytes_per_host: 2000, ..policy.limits };
    let message = text_of(&Message::Text(1, 5000));
    let mut hand = Hand::with(policy.clone(), 1460);
    for index in 0..10 {
        let at = index * 100;
        hand.out(at as i64, &message[at..at + 100]);
        assert!(hand.world.engine.sizes().held_segments <= 3);
    }
    assert_eq!(hand.refused(), None);
    let mut hand = Hand::with(policy, 1460);
    hand.out(0, &message[..1400]);
    hand.out(1400, &message[1400..2800]);
    assert_eq!(hand.refused(), Some("S11"));
}

#[test]
fn another_configuration_holds_for_connections_that_are_there() {
    let mut hand = Hand::with(patient(), 1460);
    let message = text_of(&Message::Text(1, 5000));
    for at in [0, 100, 200] {
        hand.out(at, &message[at as usize..at as usize + 100]);
    }
    assert_eq!((hand.world.engine.sizes().held_segments, hand.refused()), (3, None));
    // Less room than is taken already: nothing is thrown out, and nothing new is taken in.
    let policy = patient();
    let small = Limits { connections: 0, tcp_held_per_host: 2, ..policy.limits };
    hand.world.engine.set_policy(Policy { limits: small, ..policy });
    hand.out(300, &message[300..400]);
    assert_eq!((hand.world.engine.sizes().held_segments, hand.refused()), (3, None));
    // Less patience: what waits from now on waits for so long only.
    let mut hand = Hand::new();
    hand.world.engine.set_policy(Policy { tcp_patience: SECOND, ..patient() });
    hand.out(0, &message[..100]);
    hand.settle(SECOND / 2);
    assert_eq!((hand.world.engine.sizes().held_segments, hand.refused()), (1, None));
    hand.settle(SECOND);
    assert_eq!((hand.world.engine.sizes().held_segments, hand.refused()), (0, Some("S2")));
}

#[test]
fn a_limit_that_has_become_smaller_ends_no_connection() {
    let (written, wire) = growing();
    let mut hand = Hand::new();
    assert_eq!(hand.out(0, &written)[0].text, wire);
    let policy = Policy::default();
    let limits = Limits { connections: 0, ..policy.limits };
    hand.world.engine.set_policy(Policy { limits, ..policy });
    // Its lifetime is renewed.
    hand.settle(7 * 24 * 3600 * SECOND);
    let next = Message::Text(2, 10);
    assert_eq!(hand.out(written.len() as i64, text_of(&next))[0].text, wire_of(&next));
    assert_eq!(hand.world.followed.len(), 1);
}

#[test]
fn a_connection_finds_no_room_and_passes_untouched() {
    let mut policy = patient();
    policy.limits = Limits { connections: 0, ..policy.limits };
    let scene = calm();
    let mut world = world(&scene, policy);
    world.phone.stream = written(&scene.out);
    world.phone.closing = true;
    world.server.closing = true;
    world.phone.connect(world.now);
    world.run(60 * SECOND, |world| world.phone.is_done() && world.server.is_done());
    assert_eq!(world.server.received, written(&scene.out));
    world.wait(SECOND);
    assert!(world.followed.is_empty());
}
