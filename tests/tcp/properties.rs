//! Any split of any messages, and any fate of any segment.

use std::time::Duration;

use proptest::prelude::*;
use sipalg::alg::Policy;

use crate::endpoint::{Endpoint, Habits};
use crate::messages::{Message, expected, written};
use crate::world::{PHONE, PUBLIC, SERVER, Wires, World, at};

#[derive(Clone, Debug)]
pub struct Scene {
    pub seed: u64,
    pub phone: Habits,
    pub server: Habits,
    pub wires: Wires,
    pub out: Vec<Message>,
    pub inn: Vec<Message>,
    pub slow: u64,
}

/// So short that it often ends while others go on.
const PATIENCE: Duration = Duration::from_millis(500);
/// What a SYN waits for the kernel is not counted as patience, and neither is what a command takes meanwhile.
const MOMENT: Duration = Duration::from_millis(50);

/// Patience beyond everything, so that nothing is ever let go.
pub fn patient() -> Policy {
    Policy { tcp_patience: Duration::from_secs(3600), ..Policy::default() }
}

pub fn world(scene: &Scene, policy: Policy) -> World {
    let phone = Endpoint::new("phone", at(PHONE), at(SERVER), scene.phone, scene.seed, false);
    let server = Endpoint::new("server", at(SERVER), at(PUBLIC), scene.server, !scene.seed, true);
    let mut world = World::new(policy, phone, server, scene.seed ^ 0x5150);
    world.wires = scene.wires;
    world.slow = Duration::from_millis(scene.slow);
    world
}

/// Runs a scene to its end and compares both streams.
pub fn play(scene: &Scene) -> World {
    let mut world = world(scene, patient());
    world.phone.stream = written(&scene.out);
    world.taping = true;
    // Nothing can be restored before the phone has said how it calls itself.
    let first = scene.out.first().map_or(0, |it| it.written().len());
    world.phone.connect(world.now);
    let inn = written(&scene.inn);
    world.run(Duration::from_secs(3600), |world| world.server.received.len() >= first);
    world.server.stream = inn;
    world.phone.closing = true;
    world.server.closing = true;
    world.run(Duration::from_secs(7200), |world| world.phone.is_done() && world.server.is_done());
    let refused = world.log.iter().any(|event| matches!(event, sipalg::alg::Event::Refused { .. }));
    assert!(!refused, "{:?}", world.log);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, inn) = (expected(&scene.out, &world.pinholes), expected(&scene.inn, &world.pinholes));
    assert_eq!(text(&world.server.received), text(&out));
    assert_eq!(text(&world.phone.received), text(&inn));
    world.assert_true_bytes(&out, &inn);
    assert_eq!(world.engine.sizes().held_segments, 0);
    world
}

fn habits() -> impl Strategy<Value = Habits> {
    let isn = prop_oneof![Just(0u32), Just(u32::MAX), Just(u32::MAX - 700), any::<u32>()];
    let mss = prop_oneof![Just(1460u16), Just(536), 100u16..1460];
    let window = prop_oneof![Just(65_535u16), 3000u16..20_000];
    (isn, mss, window, any::<[bool; 5]>(), 1usize..12).prop_map(
        |(isn, mss, window, [sack, nagle, cuts, lazy, stamps], cwnd)| Habits {
            isn,
            mss,
            window,
            scale: 0,
            sack,
            nagle,
            cuts,
            lazy,
            cwnd,
            stamps,
        },
    )
}

fn wires() -> impl Strategy<Value = Wires> {
    let quiet = Just(Wires::default());
    let wild = (0u64..25, 0u64..25, 0u64..10, 0u64..30).prop_map(|(before, behind, doubled, jitter)| Wires {
        before,
        behind,
        doubled,
        delay: 5,
        jitter,
    });
    prop_oneof![1 => quiet, 4 => wild]
}

fn out() -> impl Strategy<Value = Vec<Message>> {
    let kind = prop_oneof![
        1 => Just((0, 0usize)),
        4 => (Just(1), 0usize..3000),
        1 => (Just(1), 3000usize..60_000),
        2 => Just((2, 0)),
    ];
    prop::collection::vec(kind, 0..8).prop_map(|kinds| {
        let message = |(index, (kind, length)): (usize, (i32, usize))| match kind {
            0 => Message::KeepAlive,
            1 => Message::Text(index as u32 + 2, length),
            _ => Message::Invite(index as u32 + 2, 40_000 + 2 * index as u16),
        };
        let first = Message::Text(1, 10);
        [first].into_iter().chain(kinds.into_iter().enumerate().map(message)).collect()
    })
}

fn inn() -> impl Strategy<Value = Vec<Message>> {
    let kind = prop_oneof![1 => Just(None), 5 => (0usize..4000).prop_map(Some), 1 => (4000usize..60_000).prop_map(Some)];
    prop::collection::vec(kind, 0..8).prop_map(|kinds| {
        let message = |(index, length): (usize, Option<usize>)| match length {
            None => Message::KeepAlive,
            Some(length) => Message::Request(index as u32 + 1, length),
        };
        kinds.into_iter().enumerate().map(message).collect()
    })
}

fn shortened(mut scene: Scene) -> Scene {
    for message in scene.out.iter_mut().chain(&mut scene.inn) {
        match message {
            Message::Text(_, length) => *length %= 20_000,
            Message::Request(_, length) => *length %= 4000,
            Message::KeepAlive | Message::Invite(..) => {}
        }
    }
    scene
}

pub fn scene() -> impl Strategy<Value = Scene> {
    let scales = prop_oneof![2 => Just((0u8, 0u8)), 1 => (1u8..5, 1u8..5)];
    (any::<u64>(), habits(), habits(), scales, wires(), out(), inn(), 0u64..20).prop_map(
        |(seed, mut phone, mut server, scales, wires, out, inn, slow)| {
            (phone.scale, server.scale) = scales;
            let scene = Scene { seed, phone, server, wires, out, inn, slow };
            // Where every fifth segment is lost, messages of a hundred segments take hours.
            if scene.wires.before + scene.wires.behind > 6 { shortened(scene) } else { scene }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn both_ends_get_the_rewritten_messages_and_come_to_their_end(scene in scene()) {
        play(&scene);
    }

    #[test]
    fn nothing_is_held_for_longer_than_twice_the_patience(scene in scene()) {
        let mut world = world(&scene, Policy { tcp_patience: PATIENCE, ..Policy::default() });
        world.phone.stream = written(&scene.out);
        world.server.stream = written(&scene.inn);
        world.phone.closing = true;
        world.server.closing = true;
        world.phone.connect(world.now);
        world.run(Duration::from_secs(7200), |world| world.phone.is_done() && world.server.is_done());
        prop_assert!(world.longest_held <= 2 * PATIENCE + MOMENT, "{:?}", world.longest_held);
    }
}
