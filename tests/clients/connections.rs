//! The same calls with signalling over TCP: SIPp by one connection and by one for each call, Kamailio and baresip. Media is
//! UDP, as ever.

use super::baresip::Baresip;
use super::calls::{far_end, many_calls_by, phone, provider, to_provider};
use super::capture::Capture;
use super::kamailio;
use super::kernel;
use super::rtp::{Handset, Speaker};
use super::sipp::{Role, Wire};
use super::wait;
use super::world::{FRIEND, MEDIA, Mode, Nat, PROXY, PUBLIC, World, inside};

const LOW: f64 = 440.0;
const HIGH: f64 = 1000.0;

fn calls_by(wire: Wire) {
    let world = World::new(Nat::MasqueradeRandom, 1);
    let capture = Capture::start(&world.router, "wan");
    many_calls_by(&world, 50, wire);
    let recording = capture.stop();
    recording.assert_sound();
    if world.mode != Mode::Routed {
        recording.assert_no_private_address();
    }
    if world.mode == Mode::Sipalg {
        wait::until("all pinholes to be closed", || {
            let open = |(name, count): (&str, usize)| name != "owned4" && count > 0;
            (!kernel::elements(&world.router).into_iter().any(open)).then_some(())
        });
    }
}

#[test]
fn fifty_calls_of_one_phone_by_one_connection() {
    calls_by(Wire::Tcp);
}

#[test]
fn fifty_calls_of_one_phone_by_a_connection_each() {
    calls_by(Wire::TcpEach);
}

#[test]
fn media_is_echoed_by_sipp_itself_on_either_side_of_a_connection() {
    let world = World::new(Nat::MasqueradeRandom, 1);
    let wire = Wire::Tcp;
    let mut server = Role { wire, echo: true, ..provider(1) }.serve(&world.outside);
    let mut caller = Role { wire, ..phone(0, "speaking", 1) }.call(&world.phones[0], &to_provider());
    let call = caller.answered();
    Speaker::bind(&world.phones[0], (inside(0), 40_000)).is_echoed_by(call.media);
    caller.hang_up(&call);
    caller.succeeds();
    server.succeeds();
    drop((caller, server));
    let mut server = Role { wire, ..provider(1) }.serve(&world.outside);
    let mut caller =
        Role { wire, echo: true, ..phone(0, "echoing", 1) }.call(&world.phones[0], &to_provider());
    let call = caller.answered();
    let offer = server.invite(&call.call);
    world.assert_reachable(0, offer.media);
    far_end(&world).is_echoed_by(offer.media);
    caller.hang_up(&call);
    caller.succeeds();
    server.succeeds();
}

#[test]
fn a_phone_is_called_by_a_connection_from_outside() {
    let world = World::new(Nat::Masquerade, 1);
    if world.mode != Mode::Routed {
        world.load(
            "table ip forwards {
                chain in { type nat hook prerouting priority dstnat; iifname \"wan\" tcp dport 5060 dnat to 192.168.1.10; }
            }
            table inet filter {
                chain forward { ct status dnat accept; }
            }\n",
        );
    }
    let wire = Wire::Tcp;
    let _handset = Handset::start(&world.phones[0], "phone", inside(0), [40_000]);
    let mut callee = Role { wire, scenario: "uas.xml", ..phone(0, "phone", 3) }.serve(&world.phones[0]);
    let host = if world.mode == Mode::Routed { inside(0) } else { PUBLIC };
    let target = [(format!("sip:phone@{host}"), (host, 5060).into())];
    let mut caller =
        Role { wire, scenario: "uac.xml", name: "caller", ..provider(3) }.call(&world.outside, &target);
    let mut far = far_end(&world);
    for _ in 0..3 {
        let call = caller.answered();
        world.assert_reachable(0, call.media);
        far.asks(call.media, "phone");
        assert_eq!(callee.invite(&call.call).media.ip(), MEDIA);
        caller.hang_up(&call);
    }
    caller.succeeds();
    callee.succeeds();
}

/// Two baresips and a Kamailio, all over TCP; who is called is so by the connection by which he has registered.
fn converse(from_inside: bool) {
    let world = World::new(Nat::MasqueradeRandom, 1);
    let capture = Capture::start(&world.router, "wan");
    let _kamailio = kamailio::start_by(&world, "tcp");
    let mut alice = Baresip::start_by(&world.phones[0], "alice", inside(0), LOW, "tcp");
    let mut bob = Baresip::start_by(&world.friend, "bob", FRIEND, HIGH, "tcp");
    let ((caller, callee), name) =
        if from_inside { ((&mut alice, &mut bob), "bob") } else { ((&mut bob, &mut alice), "alice") };
    let (low, high) = if from_inside { (LOW, HIGH) } else { (HIGH, LOW) };
    caller.dial(name);
    callee.hears(low, high);
    caller.hears(high, low);
    callee.hang_up();
    caller.sees_the_end();
    let recording = capture.stop();
    recording.assert_sound();
    if world.mode != Mode::Routed {
        recording.assert_no_private_address();
        // No connection was ever made from outside.
        let knocks =
            recording.select(&format!("tcp.flags.syn == 1 && tcp.flags.ack == 0 && ip.src == {PROXY}"));
        assert_eq!(knocks, [""; 0]);
    }
}

#[test]
fn a_phone_behind_nat_calls_a_phone_outside_over_tcp() {
    converse(true);
}

#[test]
fn a_phone_outside_calls_a_phone_behind_nat_over_tcp() {
    converse(false);
}
