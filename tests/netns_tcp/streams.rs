//! Long conversations: every byte arrives as it must, however it is cut and whatever is lost.

use std::time::Duration;

use super::netns::eventually;
use super::peers::Cut;
use super::world::World;

/// A conversation in a world of its own, and what conntrack thinks of it.
fn talk(world: &World, count: usize, longest: usize, cut: Cut) {
    let talk = world.open(0);
    talk.exchange(count, longest, cut);
    world.assert_nothing_invalid();
    if world.mode == super::world::Mode::Sipalg {
        // Once the last bytes are acknowledged.
        eventually("conntrack to keep it for five days", || world.patience() > 430_000);
    }
    talk.close();
    world.assert_nothing_invalid();
}

/// The same where segments are lost. If the last acknowledgment is among them, conntrack stays with its short patience.
fn talk_with_loss(world: &World, count: usize, longest: usize, cut: Cut) {
    let talk = world.open(0);
    talk.exchange(count, longest, cut);
    talk.close();
    world.assert_nothing_invalid();
}

#[test]
fn f25_ten_thousand_messages_each_way_at_once_in_a_write_each() {
    talk(&World::new(), 10_000, 600, Cut::Messages);
}

#[test]
fn f25_ten_thousand_messages_each_way_at_once_in_large_segments() {
    talk(&World::new(), 10_000, 600, Cut::Bulk);
}

#[test]
fn f23_messages_in_pieces_of_any_length() {
    talk(&World::new(), 600, 4000, Cut::Pieces);
}

#[test]
fn f23_messages_of_several_segments_without_offloads() {
    let world = World::new();
    world.without_offloads();
    talk(&world, 2000, 4000, Cut::Messages);
}

#[test]
fn f23_messages_of_many_small_segments() {
    let world = World::new();
    world.phone.run("ip route change default via 192.168.1.1 advmss 300");
    world.server.run("ip route change 203.0.113.0/24 dev eth0 advmss 300");
    talk(&world, 150, 2000, Cut::Paced(Duration::from_millis(10)));
}

#[test]
fn f25_loss_behind_the_router_with_sack() {
    let world = World::new();
    world.lose(0, 30);
    talk_with_loss(&world, 1500, 1500, Cut::Messages);
}

#[test]
fn f25_loss_behind_the_router_without_sack_and_offloads() {
    let world = World::new();
    world.without_offloads();
    world.at_both_ends("net.ipv4.tcp_sack=0");
    world.lose(0, 20);
    talk_with_loss(&world, 800, 1500, Cut::Messages);
}

#[test]
fn f25_loss_before_and_behind_the_router() {
    let world = World::new();
    world.without_offloads();
    world.lose(20, 20);
    talk_with_loss(&world, 120, 4000, Cut::Paced(Duration::from_millis(50)));
}

#[test]
fn f25_loss_before_and_behind_the_router_without_sack() {
    let world = World::new();
    world.without_offloads();
    world.at_both_ends("net.ipv4.tcp_sack=0");
    world.lose(10, 10);
    talk_with_loss(&world, 120, 4000, Cut::Paced(Duration::from_millis(50)));
}

#[test]
fn f26_a_message_of_sixty_thousand_bytes_each_way() {
    let world = World::new();
    for _ in 0..3 {
        world.open(0).converse(1, 59_000, Cut::Messages);
    }
    world.assert_nothing_invalid();
}

#[test]
fn f25_the_path_is_narrower_than_the_ends_know() {
    let world = World::new();
    // Behind a tunnel, say.
    world.router.run("ip link set wan mtu 1400");
    world.server.run("ip link set eth0 mtu 1400");
    talk(&world, 500, 4000, Cut::Messages);
}

#[test]
fn a_connection_that_begins_outside_by_a_port_forward() {
    let world = World::new();
    let talk = world.open_from_outside(5999);
    talk.exchange(500, 1500, Cut::Messages);
    world.assert_nothing_invalid();
    talk.close();
}

/// One behind the other, in both directions at once: each is longer than what its sender sends unacknowledged.
#[test]
fn f26_long_messages_with_parts_that_follow_each_other() {
    let world = World::new();
    talk_with_loss(&world, 200, 59_000, Cut::Messages);
}

#[test]
fn f26_long_messages_that_follow_each_other_without_offloads() {
    let world = World::new();
    world.without_offloads();
    talk_with_loss(&world, 400, 30_000, Cut::Messages);
    talk_with_loss(&world, 200, 59_000, Cut::Bulk);
}
