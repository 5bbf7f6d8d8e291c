//! Two baresips and a Kamailio: a tone goes each way, and is recognised.

use super::baresip::Baresip;
use super::capture::{Capture, Recording};
use super::gateway::Gateway;
use super::kamailio;
use super::kernel;
use super::wait;
use super::world::{FRIEND, Mode, Nat, World, inside};

const LOW: f64 = 440.0;
const HIGH: f64 = 1000.0;

/// `caller` calls `callee`; both hear the other and never themselves; the callee hangs up.
fn converse(caller: &mut Baresip, callee: &mut Baresip, name: &str) {
    caller.dial(name);
    callee.hears(LOW, HIGH);
    caller.hears(HIGH, LOW);
    callee.hang_up();
    caller.sees_the_end();
}

fn assert_clean(world: &World, capture: Capture) -> Recording {
    let recording = capture.stop();
    recording.assert_sound();
    assert!(!recording.invites().is_empty(), "the recording is not complete");
    if world.mode != Mode::Routed {
        recording.assert_no_private_address();
    }
    recording
}

#[test]
fn a_phone_behind_nat_calls_a_phone_outside_and_both_hear_each_other() {
    let world = World::new(Nat::MasqueradeRandom, 1);
    let capture = Capture::start(&world.router, "wan");
    let _kamailio = kamailio::start(&world);
    let mut alice = Baresip::start(&world.phones[0], "alice", inside(0), LOW);
    let mut bob = Baresip::start(&world.friend, "bob", FRIEND, HIGH);
    converse(&mut alice, &mut bob, "bob");
    assert_clean(&world, capture);
}

#[test]
fn a_phone_outside_calls_a_phone_behind_nat_and_both_hear_each_other() {
    let world = World::new(Nat::MasqueradeRandom, 1);
    let capture = Capture::start(&world.router, "wan");
    let _kamailio = kamailio::start(&world);
    let mut alice = Baresip::start(&world.phones[0], "alice", inside(0), HIGH);
    let mut bob = Baresip::start(&world.friend, "bob", FRIEND, LOW);
    converse(&mut bob, &mut alice, "alice");
    assert_clean(&world, capture);
}

#[test]
fn f34_two_phones_behind_the_same_nat_hear_each_other_and_their_media_stays_in_the_lan() {
    let world = World::new(Nat::Masquerade, 2);
    let capture = Capture::start(&world.router, "wan");
    let _kamailio = kamailio::start(&world);
    let mut alice = Baresip::start(&world.phones[0], "alice", inside(0), LOW);
    let mut carol = Baresip::start(&world.phones[1], "carol", inside(1), HIGH);
    converse(&mut alice, &mut carol, "carol");
    let recording = assert_clean(&world, capture);
    assert_eq!(recording.select("udp && !(udp.port == 5060)"), Vec::<String>::new());
}

/// A call is put on hold, all its media entries die of silence, sipalg comes back, and the call is taken up again.
fn resumes_after(signal: &str) {
    let mut world = World::new(Nat::MasqueradeRandom, 1);
    let capture = Capture::start(&world.router, "wan");
    let kamailio = kamailio::start(&world);
    let mut alice = Baresip::start(&world.phones[0], "alice", inside(0), LOW);
    let mut bob = Baresip::start(&world.friend, "bob", FRIEND, HIGH);
    if world.mode != Mode::Routed {
        for knob in ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"] {
            world.router.sysctl(&format!("net/netfilter/{knob}"), "2");
        }
    }
    alice.dial("bob");
    bob.hears(LOW, HIGH);
    alice.hears(HIGH, LOW);
    alice.hold(true);
    bob.has_sound(false);
    alice.has_sound(false);
    if world.mode == Mode::Sipalg {
        wait::until("the media's entries to die", || {
            let rtp = |line: &String| line.contains(" sport=40000 ");
            (!kernel::media_entries(&world.router).iter().any(rtp)).then_some(())
        });
        Gateway::await_state(&world.router, &["\"held\":{\"local\":true"]);
        world.gateway().end(signal);
        world.gateway = Some(Gateway::start(&world.router, ""));
        assert_eq!(Gateway::ask(&world.router, "calls")["total"], 1);
    }
    alice.hold(false);
    bob.has_sound(true);
    alice.has_sound(true);
    alice.hang_up();
    bob.sees_the_end();
    assert_clean(&world, capture);
    drop(kamailio);
}

#[test]
fn f17_f40_a_call_on_hold_is_taken_up_again_after_a_restart() {
    resumes_after("TERM");
}

#[test]
fn f17_f40_a_call_on_hold_is_taken_up_again_after_kill_9() {
    resumes_after("KILL");
}
