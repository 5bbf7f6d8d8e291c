//! What must hold when sipalg ends, comes back, loses its ruleset, or has nothing left to do.
//!
//! In the networks without sipalg only the calls are made.

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use super::calls::{far_end, many_calls_of_one_phone, phone, provider, to_provider};
use super::gateway::Gateway;
use super::kernel;
use super::rtp::{Handset, Speaker};
use super::sipp::{Answered, Caller, Invite, Sipp};
use super::wait;
use super::world::{MEDIA, Mode, Nat, World, inside};

/// One phone whose calls come one after the other, all to one server.
pub(super) struct Line {
    pub(super) world: World,
    pub(super) server: Sipp,
    far: Speaker,
    _handset: Handset,
}

/// A call of a [`Line`] that is up.
pub(super) struct Call {
    caller: Caller,
    answered: Answered,
    offer: Invite,
}

impl Line {
    pub(super) fn new(world: World, calls: u32) -> Self {
        let server = provider(calls).serve(&world.outside);
        let handset = Handset::start(&world.phones[0], "phone", inside(0), [40_000]);
        let far = far_end(&world);
        Self { world, server, far, _handset: handset }
    }

    /// A new call, of which nothing is demanded yet.
    fn dial(&self, name: &str) -> Call {
        let mut caller = phone(0, name, 1).call(&self.world.phones[0], &to_provider());
        let answered = caller.answered();
        let offer = self.server.invite(&answered.call);
        Call { caller, answered, offer }
    }

    /// A new call with a public endpoint and with media both ways.
    pub(super) fn talk(&mut self, name: &str) -> Call {
        let call = self.dial(name);
        self.world.assert_reachable(0, call.offer.media);
        self.assert_heard(&call);
        call
    }

    /// Asserts that media goes both ways, the outside speaking first.
    pub(super) fn assert_heard(&mut self, call: &Call) {
        self.far.asks(call.offer.media, "phone");
    }

    /// Asserts that a call began untouched: its INVITE says what the phone said.
    fn assert_untouched(&self, call: &Call, name: &str) {
        assert_eq!(call.offer.contact, format!("sip:{name}@192.168.1.10:5060"));
        assert_eq!(call.offer.media, SocketAddr::from((inside(0), 40_000)));
        assert_eq!(call.answered.media, SocketAddr::from((MEDIA, 6000)));
    }

    pub(super) fn is_guarded(&self) -> bool {
        self.world.mode == Mode::Sipalg
    }

    fn start(&mut self) {
        self.world.gateway = Some(Gateway::start(&self.world.router, ""));
    }
}

impl Call {
    pub(super) fn hang_up(mut self) {
        self.caller.hang_up(&self.answered);
        self.caller.succeeds();
    }
}

#[test]
fn calls_survive_kill_9_and_new_ones_pass_untouched_until_it_is_back() {
    let mut line = Line::new(World::new(Nat::Masquerade, 1), 3);
    let call = line.talk("before");
    if line.is_guarded() {
        line.world.gateway().end("KILL");
    }
    line.assert_heard(&call);
    call.hang_up();
    let call = line.dial("meanwhile");
    line.assert_untouched(&call, "meanwhile");
    call.hang_up();
    if line.is_guarded() {
        line.start();
    }
    // The flow of the signalling is older than this sipalg.
    line.talk("after").hang_up();
    line.server.succeeds();
}

/// Waits until nothing is open. Quarantined endpoints stay owned, that is, closed to everybody.
pub(super) fn await_closed(world: &World) {
    wait::until("the pinholes to be closed", || {
        let open = |(name, count): (&str, usize)| name != "owned4" && count > 0;
        (!kernel::elements(&world.router).into_iter().any(open)).then_some(())
    });
    assert_eq!(kernel::media_entries(&world.router), [""; 0]);
}

#[test]
fn after_kill_9_in_mid_call_audio_goes_on_and_the_bye_still_closes_the_pinholes() {
    let mut line = Line::new(World::new(Nat::MasqueradeRandom, 1), 1);
    let call = line.talk("alice");
    if line.is_guarded() {
        Gateway::await_state(&line.world.router, &[&call.answered.call, "Confirmed"]);
        line.world.gateway().end("KILL");
    }
    line.assert_heard(&call);
    if line.is_guarded() {
        line.start();
        let calls = Gateway::ask(&line.world.router, "calls");
        assert_eq!(calls["total"], 1, "{calls}");
        assert_eq!(calls["entries"][0]["call_id"], call.answered.call);
        let stream = &calls["entries"][0]["dialogs"][0]["streams"][0];
        assert_eq!(stream["inside"], "192.168.1.10:40000");
        assert_eq!(stream["public"], call.offer.media.to_string());
        assert_eq!(stream["far"], call.answered.media.to_string());
        for way in ["packets_out", "packets_in"] {
            assert!(stream["traffic"][way].as_u64().is_some_and(|count| count >= 2), "{stream}");
        }
    }
    line.assert_heard(&call);
    call.hang_up();
    line.server.succeeds();
    if line.is_guarded() {
        await_closed(&line.world);
        assert_eq!(Gateway::ask(&line.world.router, "calls")["total"], 0);
    }
}

#[test]
fn what_the_kernel_lost_while_nobody_was_there_is_made_again_and_what_nobody_owns_is_closed() {
    let nat = Nat::Masquerade;
    let mut line = Line::new(World::new(nat, 1), 1);
    let call = line.talk("alice");
    if line.is_guarded() {
        line.world.gateway().end("TERM");
        // The administrator reloads his ruleset, which takes ours away, and flushes conntrack.
        line.world.load(&nat.ruleset());
        line.world.router.run("conntrack", ["-D", "-p", "udp", "--dport", "6000"]);
        line.start();
    }
    line.assert_heard(&call);
    call.hang_up();
    line.server.succeeds();
    if !line.is_guarded() {
        return;
    }
    await_closed(&line.world);
    // A pinhole of which no state knows.
    line.world.gateway().end("TERM");
    let stray = "add element inet sipalg inbound4 { udp . 22.33.44.55 . 16390 timeout 1h : 192.168.1.10 . 40000 }
         add element inet sipalg outbound4 { \"wan\" . udp . 192.168.1.10 . 40000 timeout 1h : 22.33.44.55 . 16390 }
         add element inet sipalg peers4 { udp . 22.33.44.55 . 16390 . 22.33.44.99 timeout 1h }\n";
    line.world.load(stray);
    line.start();
    await_closed(&line.world);
}

#[test]
fn an_unknown_state_is_set_aside_and_calls_go_on() {
    let mut line = Line::new(World::new(Nat::Masquerade, 1), 1);
    let call = line.talk("alice");
    if line.is_guarded() {
        line.world.gateway().end("TERM");
        let state = line.world.router.files().join("state");
        let text = fs::read_to_string(&state).expect("it was written at the end");
        let newer = text.replacen("\"sipalg-state\":3", "\"sipalg-state\":1000", 1);
        assert_ne!(newer, text);
        fs::write(&state, &newer).expect("writable");
        line.start();
        let aside = line.world.router.files().join("state.version-1000");
        assert_eq!(fs::read_to_string(aside).expect("it was set aside"), newer);
    }
    line.assert_heard(&call);
    call.hang_up();
    line.server.succeeds();
}

#[test]
fn one_way_audio_is_named_and_says_who_is_not_heard() {
    let mut world = World::new(Nat::Masquerade, 1);
    if world.mode != Mode::Sipalg {
        return;
    }
    let mut server = provider(1).serve(&world.outside);
    let far = far_end(&world);
    let mut caller = phone(0, "alice", 1).call(&world.phones[0], &to_provider());
    let answered = caller.answered();
    // The phone talks, and nothing comes back.
    let socket =
        world.phones[0].within(|| std::net::UdpSocket::bind((inside(0), 40_000)).expect("the port is free"));
    let trouble = wait::until("the trouble to be named", || {
        for _ in 0..10 {
            socket.send_to(&[0x80; 172], answered.media).expect("it is sent");
        }
        let calls = Gateway::ask(&world.router, "calls");
        let stream = calls["entries"][0]["dialogs"][0]["streams"][0].clone();
        let named = stream["trouble"].as_str().is_some_and(|text| text.starts_with("one-way"));
        named.then_some(stream["trouble"].clone())
    });
    assert_eq!(trouble, "one-way audio: the phone hears nothing, no packet has come from the far end");
    let shown = world.gateway().say("calls");
    assert!(shown.contains("! one-way audio: the phone hears nothing"), "{shown}");
    drop((socket, far));
    caller.hang_up(&answered);
    caller.succeeds();
    server.succeeds();
}

#[test]
fn a_new_configuration_is_taken_over_in_mid_call_or_not_at_all() {
    let mut line = Line::new(World::configured(Nat::Masquerade, 1, "[media]\nports = \"20000-20099\"\n"), 2);
    let call = line.talk("before");
    if line.is_guarded() {
        assert!((20000..20100).contains(&call.offer.media.port()), "{}", call.offer.media);
        let file = line.world.router.files().join("sipalg.toml");
        let mut reload = |text: &str| {
            fs::write(&file, text).expect("writable");
            line.world.gateway().say("reload")
        };
        let refused = reload("[media]\nports = \"21000-21099\"\n[queue]\nbase = 7000\n");
        assert!(
            refused.contains("queue.base can't change while sipalg runs; nothing was changed"),
            "{refused}"
        );
        assert!(refused.contains("systemctl restart sipalg"), "{refused}");
        let refused = reload("[media]\nports = \"21000-21099\"\nsauce = 1\n");
        assert!(refused.contains("unknown key \"sauce\""), "{refused}");
        // Who takes the port of a call away is told, and may think better of it.
        let warned = reload("[sip]\nports = [5080]\n[media]\nports = \"20000-20099\"\n");
        assert!(
            warned.contains("note: 1 call goes by sip.ports that are not looked at any more (5060)"),
            "{warned}"
        );
        assert!(warned.contains("changed: sip.ports"), "{warned}");
        assert!(!reload("[media]\nports = \"20000-20099\"\n").contains("not looked at"), "it is back");
        let taken = reload("[sip]\nports = [5060, 5080]\n[media]\nports = \"22000-22099\"\n");
        assert!(taken.contains("changed: media.ports, sip.ports"), "{taken}");
        assert!(kernel::ruleset(&line.world.router).contains("5060, 5080"));
    }
    line.assert_heard(&call);
    call.hang_up();
    let next = line.talk("after");
    if line.is_guarded() {
        assert!((22000..22100).contains(&next.offer.media.port()), "{}", next.offer.media);
    }
    next.hang_up();
    line.server.succeeds();
    if line.is_guarded() {
        await_closed(&line.world);
    }
}

#[test]
fn calls_survive_a_restart_and_unload_leaves_no_trace() {
    let mut line = Line::new(World::without_gateway(Nat::MasqueradeRandom, 1), 2);
    let before = kernel::ruleset(&line.world.router);
    if line.is_guarded() {
        line.start();
    }
    let call = line.talk("first");
    if line.is_guarded() {
        let status = line.world.gateway().end("TERM");
        assert_eq!(status.code(), Some(0), "sipalg ended with {status}");
        assert!(kernel::ruleset(&line.world.router).contains("table inet sipalg"), "the ruleset must stay");
    }
    line.assert_heard(&call);
    if line.is_guarded() {
        line.start();
    }
    line.assert_heard(&call);
    call.hang_up();
    if line.is_guarded() {
        await_closed(&line.world);
    }
    line.talk("second").hang_up();
    line.server.succeeds();
    if line.is_guarded() {
        line.world.gateway().end("TERM");
        Gateway::unload(&line.world.router);
    }
    assert_eq!(kernel::ruleset(&line.world.router), before);
}

#[test]
fn a_flush_of_the_whole_ruleset_is_mended_in_mid_call() {
    let nat = Nat::Masquerade;
    let mut line = Line::new(World::new(nat, 1), 2);
    let queues = kernel::queue_rules(&line.world.router);
    let call = line.talk("before");
    if line.is_guarded() {
        assert!(queues >= 3, "each queue point that is needed has a rule");
        line.world.load(&nat.ruleset());
        wait::until("sipalg's ruleset to be mended", || {
            (kernel::queue_rules(&line.world.router) == queues).then_some(())
        });
    }
    line.assert_heard(&call);
    call.hang_up();
    line.talk("after").hang_up();
    line.server.succeeds();
}

#[test]
fn the_ruleset_as_shipped_is_included_and_may_be_loaded_over_itself_in_mid_call() {
    const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/nft-rules/sipalg.nft");
    let nat = Nat::Masquerade;
    let mut line = Line::new(World::without_gateway(nat, 1), 2);
    if line.is_guarded() {
        let own = line.world.router.files().join("nftables.conf");
        fs::write(&own, format!("{}include \"{SHIPPED}\"\n", nat.ruleset())).expect("a test's own directory");
        line.world.router.run("nft", [OsStr::new("-f"), own.as_os_str()]);
        line.start();
    }
    let call = line.talk("before");
    if line.is_guarded() {
        let router = &line.world.router;
        let (queues, elements) = (kernel::queue_rules(router), kernel::elements(router));
        assert!(elements.iter().all(|&(_, count)| count > 0), "{elements:?}");
        router.run("nft", ["-f", SHIPPED]);
        // The file leaves the queue points empty.
        wait::until("the queue rules to be put in again", || {
            (kernel::queue_rules(router) == queues).then_some(())
        });
        assert_eq!(kernel::elements(router), elements, "elements outlive it");
    }
    line.assert_heard(&call);
    call.hang_up();
    line.talk("after").hang_up();
    line.server.succeeds();
}

#[test]
fn a_thousand_calls_leave_nothing_behind() {
    let world = World::configured(Nat::Masquerade, 1, "[media]\nquarantine = \"2s\"\n");
    many_calls_of_one_phone(&world, 1000);
    if world.mode != Mode::Sipalg {
        return;
    }
    // Beside the quarantine, what the kernel collects late: it looks for expired entries about once a minute.
    let limit = Duration::from_secs(150);
    let mut left = Vec::new();
    wait::until_within(limit, "all elements of sipalg's maps and sets to go", || {
        left = kernel::elements(&world.router);
        left.iter().all(|&(_, count)| count == 0).then_some(())
    });
    wait::until_within(limit, "all conntrack entries of media to go", || {
        kernel::media_entries(&world.router).is_empty().then_some(())
    });
}

#[test]
fn f35_it_refuses_to_start_beside_the_kernels_helper_and_names_the_command_that_detaches_it() {
    let mut world = World::without_gateway(Nat::Masquerade, 1);
    world.load(
        r#"table inet helpers {
    ct helper sip-5060 {
        type "sip" protocol udp
    }
    chain prerouting {
        type filter hook prerouting priority filter; policy accept;
        udp dport 5060 ct helper set "sip-5060"
    }
}
"#,
    );
    if world.mode != Mode::Sipalg {
        return;
    }
    let before = kernel::ruleset(&world.router);
    let (status, said) = Gateway::refused(&world.router, "");
    assert_eq!(status.code(), Some(6), "{said}");
    assert_eq!(kernel::ruleset(&world.router), before, "a refusal changes nothing");
    // The administrator does as he is told.
    let command =
        said.find("nft delete").map(|at| &said[at..]).unwrap_or_else(|| panic!("no command in {said:?}"));
    let end =
        command.find(|c: char| !c.is_ascii_alphanumeric() && !" _-".contains(c)).unwrap_or(command.len());
    world.router.run("sh", ["-c", &command[..end]]);
    world.gateway = Some(Gateway::start(&world.router, ""));
}
