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
struct Line {
    world: World,
    server: Sipp,
    far: Speaker,
    _handset: Handset,
}

/// A call of a [`Line`] that is up.
struct Call {
    caller: Caller,
    answered: Answered,
    offer: Invite,
}

impl Line {
    fn new(world: World, calls: u32) -> Self {
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
    fn talk(&mut self, name: &str) -> Call {
        let call = self.dial(name);
        self.world.assert_reachable(0, call.offer.media);
        self.assert_heard(&call);
        call
    }

    /// Asserts that media goes both ways, the outside speaking first.
    fn assert_heard(&mut self, call: &Call) {
        self.far.asks(call.offer.media, "phone");
    }

    /// Asserts that a call began untouched: its INVITE says what the phone said.
    fn assert_untouched(&self, call: &Call, name: &str) {
        assert_eq!(call.offer.contact, format!("sip:{name}@192.168.1.10:5060"));
        assert_eq!(call.offer.media, SocketAddr::from((inside(0), 40_000)));
        assert_eq!(call.answered.media, SocketAddr::from((MEDIA, 6000)));
    }

    fn is_guarded(&self) -> bool {
        self.world.mode == Mode::Sipalg
    }

    fn start(&mut self) {
        self.world.gateway = Some(Gateway::start(&self.world.router, ""));
    }
}

impl Call {
    fn hang_up(mut self) {
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
        assert!(queues >= 4, "each queue point has a rule");
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
