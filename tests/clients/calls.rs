//! Calls by SIPp.

use std::net::SocketAddr;

use super::rtp::{Handset, Speaker};
use super::sipp::Role;
use super::world::{MEDIA, Nat, PROXY, World, inside};

/// A hundred calls of one phone to the outside, all up at once, each with media of its own.
fn calls_out(nat: Nat, calls: u32, rate: u32) {
    let world = World::new(nat, 1);
    let phone = &world.phones[0];
    let last = u16::try_from(calls - 1).expect("fewer calls than ports");
    let _handset = Handset::start(phone, "phone", inside(0), (0..=last).map(|call| 40_000 + 4 * call));
    let mut server = Role {
        scenario: "uas.xml",
        name: "callee",
        address: PROXY,
        media: (MEDIA, 6000),
        echo: false,
        calls,
        rate,
    }
    .serve(&world.outside);
    let mut far = Speaker::bind(&world.outside, (MEDIA, 6000));
    let proxy = SocketAddr::from((PROXY, 5060));
    let mut caller = Role {
        scenario: "uac.xml",
        name: "phone",
        address: inside(0),
        media: (inside(0), 40_000),
        echo: false,
        calls,
        rate,
    }
    .call(phone, &[("sip:callee@example.com".to_owned(), proxy)]);
    let mut up = Vec::new();
    for _ in 0..calls {
        let call = caller.answered();
        assert_eq!(call.media, SocketAddr::from((MEDIA, 6000)));
        let offer = server.invite(&call.call);
        world.assert_reachable(0, offer.media);
        far.asks(offer.media, "phone");
        up.push((call, offer));
    }
    for (call, offer) in &up {
        far.asks(offer.media, "phone");
        caller.hang_up(call);
    }
    caller.succeeds();
    server.succeeds();
}

#[test]
fn f04_a_hundred_calls_of_one_phone_are_up_at_once_and_each_is_heard() {
    calls_out(Nat::Masquerade, 100, 50);
}
