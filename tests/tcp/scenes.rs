//! What several tests begin with.

use std::time::Duration;

use sipalg::alg::Policy;

use crate::endpoint::{Endpoint, Habits};
use crate::messages::Message;
use crate::properties::Scene;
use crate::world::{PHONE, PUBLIC, SERVER, Wires, World, at};

pub const SECOND: Duration = Duration::from_secs(1);

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

pub fn many() -> Vec<Message> {
    (1..60).map(|number| Message::Text(number, 7 * number as usize)).collect()
}

/// Whatever the sender's form is: as long as it is.
pub fn text_of(message: &Message) -> String {
    String::from_utf8(message.written()).unwrap()
}

pub fn wire_of(message: &Message) -> String {
    String::from_utf8(message.expected(&Default::default())).unwrap()
}

/// A message that grows: an inside host without a port.
pub fn growing() -> (String, String) {
    let written = text_of(&Message::Text(1, 40)).replace("192.168.1.10:5060", "192.168.1.10");
    let expected = wire_of(&Message::Text(1, 40));
    assert_eq!(expected.len(), written.len() + 2 * 5);
    (written, expected)
}

/// A SYN of the phone with these options and this payload.
pub fn syn(options: &[u8], payload: &[u8]) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ipv4([192, 168, 1, 10], [22, 33, 44, 20], 64)
        .tcp(43_210, 5060, 1000, 65_535)
        .syn()
        .options_raw(options)
        .unwrap();
    let mut bytes = Vec::new();
    builder.write(&mut bytes, payload).unwrap();
    bytes
}

pub fn idle() -> World {
    let phone = Endpoint::new("phone", at(PHONE), at(SERVER), Habits::default(), 1, false);
    let server = Endpoint::new("server", at(SERVER), at(PUBLIC), Habits::default(), 2, true);
    let mut world = World::new(Policy::default(), phone, server, 3);
    world.wires.behind = 100;
    world.taping = true;
    world
}
