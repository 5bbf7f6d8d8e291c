//! One thing at a time.

use crate::endpoint::Habits;
use crate::messages::Message;
use crate::properties::{Scene, play};
use crate::world::Wires;

pub fn calm() -> Scene {
    Scene {
        seed: 1,
        phone: Habits::default(),
        server: Habits { isn: 77, ..Habits::default() },
        wires: Wires::default(),
        out: vec![Message::Text(1, 10)],
        inn: vec![],
        slow: 1,
    }
}

#[test]
fn f23_one_message_in_one_segment() {
    let world = play(&calm());
    assert_eq!(world.followed.len(), 1);
    assert_eq!(world.phone.retransmissions + world.server.retransmissions, 0);
}
