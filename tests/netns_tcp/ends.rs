//! How connections end, pause, and outlive the daemon.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use super::messages::{Message, verbatim};
use super::netns::{self, eventually};
use super::peers::{Cut, compare, expect, write};
use super::world::{Mode, Talk, World};

/// Whether an end was told that its connection is no more: the reset, or, if its writer was told that already, the end.
fn is_reset(error: Option<&std::io::Error>) -> bool {
    error.is_some_and(|error| {
        matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof)
    })
}

#[test]
fn a_phone_that_lost_power_comes_back_by_the_same_port() {
    let world = World::new();
    let first = world.open(5061);
    first.exchange(20, 400, Cut::Messages);
    // Its power is gone: no FIN and no RST leaves it.
    world.phone.nft("table ip dark { chain out { type filter hook output priority filter; drop\n}\n}");
    drop(first.phone);
    eventually("the phone to forget", || {
        world.phone.output("ss -K state all sport = :5061").status.success()
            && world.phone.run("ss -Htan sport = :5061").is_empty()
    });
    world.phone.run("nft delete table ip dark");
    let second = world.open(5061);
    second.converse(50, 400, Cut::Messages);
    // The server still has the first one, or has been told.
    drop(first.server);
}

#[test]
fn a_connection_outlives_every_timeout_of_conntrack_but_the_established_one() {
    let world = World::new();
    for (name, seconds) in [
        ("unacknowledged", 3),
        ("max_retrans", 3),
        ("syn_sent", 3),
        ("syn_recv", 3),
        ("last_ack", 3),
        ("close_wait", 3),
    ] {
        let knob = format!("net.netfilter.nf_conntrack_tcp_timeout_{name}={seconds}");
        if world.mode == Mode::Sipalg {
            world.router.run(&format!("sysctl -qw {knob}"));
        }
    }
    let talk = world.open(0);
    talk.exchange(30, 400, Cut::Messages);
    thread::sleep(Duration::from_secs(7));
    talk.converse(30, 400, Cut::Messages);
    world.assert_nothing_invalid();
}

#[test]
fn a_reset_of_either_end_reaches_the_other_and_conntrack_believes_it() {
    let world = World::new();
    for phone_resets in [true, false] {
        let Talk { phone, server, ends } = world.open(0);
        let talk = Talk { phone, server, ends };
        talk.exchange(30, 400, Cut::Messages);
        let (leaves, stays) =
            if phone_resets { (talk.phone, talk.server) } else { (talk.server, talk.phone) };
        // What is closed with something unread is reset.
        let mut stays = &stays;
        stays.write_all(b"\r\n\r\n").unwrap();
        leaves.set_nonblocking(false).unwrap();
        assert!(leaves.peek(&mut [0; 4]).unwrap() > 0);
        drop(leaves);
        let error = stays.read(&mut [0; 10]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        if world.mode == Mode::Sipalg {
            eventually("conntrack to believe it", || {
                world.router.run("conntrack -L -p tcp --state ESTABLISHED").is_empty()
            });
        }
    }
    world.assert_nothing_invalid();
    if world.mode == Mode::Sipalg {
        eventually("nothing to be followed any more", || {
            world.elements("set", "followed4") == 0 && world.elements("map", "lines4") == 0
        });
    }
}

#[test]
fn one_end_may_close_and_still_be_told_everything() {
    let world = World::new();
    let talk = world.open(0);
    talk.introduce();
    let messages = || (0..200).map(|number| talk.ends.inbound(number, 1500));
    talk.phone.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!((&talk.server).read(&mut [0]).unwrap(), 0);
    thread::scope(|scope| {
        scope.spawn(|| write(&talk.server, messages(), Cut::Messages).unwrap());
        expect(&talk.phone, messages());
    });
    talk.server.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!((&talk.phone).read(&mut [0]).unwrap(), 0);
    world.assert_nothing_invalid();
}

/// Both ends talk at a steady pace while `meanwhile` happens; what each reads is right up to where it ends. How both ended:
/// `None` if everything arrived.
fn talk_while(
    world: &mut World,
    talk: &Talk,
    meanwhile: impl FnOnce(&mut World),
) -> [Option<std::io::Error>; 2] {
    const COUNT: usize = 400;
    let cut = Cut::Paced(Duration::from_millis(10));
    talk.introduce();
    let ends = talk.ends;
    let out = move || (0..COUNT).map(move |number| ends.outbound(number, 3000));
    let back = move || (0..COUNT).map(move |number| ends.inbound(number, 3000));
    thread::scope(|scope| {
        scope.spawn(move || write(&talk.phone, out(), cut));
        scope.spawn(move || write(&talk.server, back(), cut));
        let phone = scope.spawn(move || compare(&talk.phone, back()).1);
        let server = scope.spawn(move || compare(&talk.server, out()).1);
        thread::sleep(Duration::from_secs(1));
        meanwhile(world);
        [phone, server].map(|reader| reader.join().unwrap())
    })
}

#[test]
fn a_restart_in_mid_connection_is_not_noticed() {
    let mut world = World::new();
    if world.mode == Mode::Plain {
        return;
    }
    let talk = world.open(0);
    let ended = talk_while(&mut world, &talk, |world| {
        for _ in 0..2 {
            world.end("TERM");
            world.start();
            thread::sleep(Duration::from_millis(500));
        }
    });
    assert!(ended.iter().all(Option::is_none), "{ended:?}\n{}", world.log());
    talk.close();
    world.assert_nothing_invalid();
}

#[test]
fn kill_9_in_mid_connection_resets_both_ends_and_nobody_reads_a_wrong_byte() {
    let mut world = World::new();
    if world.mode == Mode::Plain {
        return;
    }
    let talk = world.open(5061);
    let start = Instant::now();
    let ended = talk_while(&mut world, &talk, |world| world.end("KILL"));
    assert!(ended.iter().all(|error| is_reset(error.as_ref())), "{ended:?}");
    assert!(start.elapsed() < Duration::from_secs(45), "they have been told late");
    // Without a daemon everything passes untouched, by the same port too.
    for port in [5061, 0] {
        let talk = world.open(port);
        let text = talk.ends.outbound(1, 100).written;
        (&talk.phone).write_all(&text).unwrap();
        expect(&talk.server, [verbatim(&text)].into_iter());
        talk.close();
    }
    // And with the next one it is translated again.
    world.start();
    world.open(0).converse(50, 400, Cut::Messages);
}

#[test]
fn kill_9_and_a_restart_at_once_never_lets_a_wrong_byte_pass() {
    let mut world = World::new();
    if world.mode == Mode::Plain {
        return;
    }
    let talk = world.open(0);
    let ended = talk_while(&mut world, &talk, |world| {
        world.end("KILL");
        world.start();
    });
    assert!(ended.iter().all(|error| is_reset(error.as_ref())), "{ended:?}\n{}", world.log());
    world.open(0).converse(50, 400, Cut::Messages);
}

/// A program of another version cannot read how the bytes of its predecessor's connections are counted.
#[test]
fn an_upgrade_that_cannot_read_the_state_resets_both_ends_and_nobody_reads_a_wrong_byte() {
    let mut world = World::new();
    if world.mode == Mode::Plain {
        return;
    }
    let talk = world.open(0);
    let ended = talk_while(&mut world, &talk, |world| {
        world.end("TERM");
        let path = world.file("state");
        let state = fs::read_to_string(&path).unwrap();
        let (_, rest) = state.split_once(',').expect("fields, the version first");
        fs::write(&path, format!(r#"{{"sipalg-state":99,{rest}"#)).unwrap();
        world.start();
    });
    assert!(ended.iter().all(|error| is_reset(error.as_ref())), "{ended:?}\n{}", world.log());
    assert!(world.file("state.version-99").exists(), "it is set aside");
    world.open(0).converse(50, 400, Cut::Messages);
}

#[test]
fn a_daemon_that_hangs_is_as_good_as_dead_until_it_wakes() {
    let mut world = World::new();
    if world.mode == Mode::Plain {
        return;
    }
    let talk = world.open(0);
    let ended = talk_while(&mut world, &talk, |world| {
        world.gateway.as_ref().unwrap().signal("STOP");
        // Longer than it is believed to be alive, and than the pause before the next repetition.
        thread::sleep(Duration::from_secs(14));
        world.gateway.as_ref().unwrap().signal("CONT");
    });
    assert!(ended.iter().all(|error| is_reset(error.as_ref())), "{ended:?}");
    world.open(0).converse(50, 400, Cut::Messages);
}

#[test]
fn a_flushed_ruleset_is_put_back_with_the_connections_that_are_followed() {
    let world = World::new();
    if world.mode == Mode::Plain {
        return;
    }
    let talk = world.open(0);
    talk.exchange(30, 400, Cut::Messages);
    let before = world.elements("set", "followed4");
    assert_eq!(before, 2);
    world.router.run("nft delete table inet sipalg");
    eventually("the table to be back", || {
        let there = world.router.output("nft list set inet sipalg followed4");
        there.status.success() && world.elements("set", "followed4") == before
    });
    talk.converse(30, 400, Cut::Messages);
}

/// So many messages from the phone, each read before the next is written; nobody changes them.
fn pass(talk: &Talk, range: std::ops::Range<usize>) {
    for number in range {
        let message = verbatim(&talk.ends.outbound(number, 400).written);
        (&talk.phone).write_all(&message.written).unwrap();
        expect(&talk.server, [message].into_iter());
    }
}

#[test]
fn tcp_is_turned_on_and_off_while_connections_live() {
    let mut world = World::without_gateway();
    if world.mode == Mode::Plain {
        return;
    }
    // As before an upgrade that turns it on.
    world.configure("[sip]\ntcp-ports = []\n");
    world.start();
    let old = world.open(0);
    pass(&old, 0..10);
    world.end("TERM");
    world.configure("");
    world.start();
    pass(&old, 10..20);
    let new = world.open(0);
    new.exchange(30, 400, Cut::Messages);
    // Off again, by a reload: what is translated stays so.
    let is_looked_at = |world: &World, wanted: bool| {
        eventually("the configuration to be taken over", || {
            world.router.run("nft list set inet sipalg sip_tcp").contains("5060") == wanted
        });
    };
    is_looked_at(&world, true);
    world.configure("[sip]\ntcp-ports = []\n");
    world.gateway.as_ref().unwrap().signal("HUP");
    is_looked_at(&world, false);
    new.exchange(30, 400, Cut::Messages);
    pass(&old, 20..30);
    let untouched = world.open(0);
    pass(&untouched, 0..10);
    // And on.
    world.configure("");
    world.gateway.as_ref().unwrap().signal("HUP");
    is_looked_at(&world, true);
    new.converse(30, 400, Cut::Messages);
    world.open(0).converse(30, 400, Cut::Messages);
    for talk in [&old, &untouched] {
        pass(talk, 30..40);
        talk.close();
    }
    world.assert_nothing_invalid();
}

#[test]
fn a_connection_that_is_older_than_the_daemon_is_never_touched() {
    let mut world = World::without_gateway();
    let talk = world.open(0);
    let text = |number| verbatim(&talk.ends.outbound(number, 400).written);
    let pass = |range: std::ops::Range<usize>| {
        let messages: Vec<Message> = range.map(text).collect();
        write(&talk.phone, messages.iter().cloned(), Cut::Messages).unwrap();
        expect(&talk.server, messages.into_iter());
    };
    pass(0..10);
    world.start();
    pass(10..60);
    talk.close();
    world.assert_nothing_invalid();
}

/// `sipalg unload`, after which nothing of sipalg is left: what it said.
fn unload(world: &mut World) -> String {
    world.end("TERM");
    let mut command = world.router.command(env!("CARGO_BIN_EXE_sipalg"), &["unload"]);
    // With the one right that it needs.
    let output = netns::with_net_admin_only(&mut command).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(!world.router.run("nft list tables").contains("sipalg"));
    assert!(said.ends_with("table inet sipalg is removed\n"), "{said}");
    said
}

#[test]
fn unload_resets_connections_that_are_idle_at_both_ends() {
    let mut world = World::new();
    if world.mode == Mode::Plain {
        return;
    }
    // The router has a SIP server of its own, on the port of the far one.
    let _listener = world.router.listen("0.0.0.0:5060");
    let talks = [world.open(0), world.open(5061), world.open_from_outside(5099)];
    for talk in &talks {
        talk.exchange(30, 400, Cut::Messages);
    }
    let said = unload(&mut world);
    assert!(said.starts_with("6 ends of translated TCP connections were told to begin anew\n"), "{said}");
    for talk in &talks {
        for mut end in [&talk.phone, &talk.server] {
            let error = end.read(&mut [0; 10]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    }
    assert_eq!(world.router.run("conntrack -L -p tcp"), "");
    world.assert_nothing_invalid();
    // What comes after it passes as it is.
    let talk = world.open(5061);
    let text = talk.ends.outbound(1, 100).written;
    (&talk.phone).write_all(&text).unwrap();
    expect(&talk.server, [verbatim(&text)].into_iter());
    talk.close();
}

#[test]
fn after_unload_an_end_that_could_not_be_told_finds_nobody_who_takes_its_bytes() {
    for phone_is_away in [true, false] {
        let mut world = World::new();
        if world.mode == Mode::Plain {
            return;
        }
        // A NAT that gives the same public port again, and a router that answers for itself.
        world.router.run("nft flush chain ip nat postrouting");
        world.router.run("nft add rule ip nat postrouting oifname wan masquerade");
        world.router.run("nft insert rule inet firewall input accept");
        let talk = world.open(0);
        talk.exchange(30, 400, Cut::Messages);
        // Or it sends again what it takes for lost, and that is an answer.
        eventually("all to be acknowledged", || world.patience() > 430_000);
        let (away, mut gone, mut here) = if phone_is_away {
            (&world.phone, &talk.phone, &talk.server)
        } else {
            (&world.server, &talk.server, &talk.phone)
        };
        // It does not say anything either: an acknowledgment may still be under way.
        let dark = ["prerouting", "output"]
            .map(|hook| format!("chain {hook} {{ type filter hook {hook} priority raw; drop\n}}\n"));
        away.nft(&format!("table ip dark {{ {} }}", dark.concat()));
        let name = gone.local_addr().unwrap();
        let said = unload(&mut world);
        assert!(said.contains("1 ends of translated TCP connections were told to begin anew\n"), "{said}");
        assert!(said.contains(&format!("{name} has not answered: ")), "{said}");
        assert_eq!(here.read(&mut [0; 10]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        let away = if phone_is_away { &world.phone } else { &world.server };
        away.run("nft delete table ip dark");
        gone.write_all(b"\r\n\r\n").unwrap();
        assert_eq!(gone.read(&mut [0; 10]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}
