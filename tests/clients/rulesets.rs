//! Beside the rulesets that others write: firewalld's, Docker's, OpenWrt's. Each is reloaded in mid-call as its owner does
//! it, and is the same again when sipalg is gone.

use super::gateway::Gateway;
use super::kernel;
use super::net::Namespace;
use super::upkeep::{Line, await_closed};
use super::wait;
use super::world::{Mode, World};

const FIREWALLD: &str = include_str!("rulesets/firewalld.nft");
const FW4: &str = include_str!("rulesets/fw4.nft");
const DOCKER: &str = include_str!("rulesets/docker.sh");

/// While firewalld reloads, everything but what is established is dropped, by a table beside its own.
const FIREWALLD_PAUSE: &str = r"
table inet firewalld_policy_drop {
    chain filter_input { type filter hook input priority filter + 9; policy drop; ct state { established, related } accept; }
    chain filter_forward { type filter hook forward priority filter + 9; policy drop; ct state { established, related } accept; }
    chain filter_output { type filter hook output priority filter + 9; policy drop; ct state { established, related } accept; }
}
";

fn nft(router: &Namespace, rules: &str) {
    router.feed("nft", &["-f", "-"], rules).unwrap_or_else(|complaint| panic!("nft: {complaint}\n{rules}"));
}

fn docker(router: &Namespace, step: &str) {
    router.feed("sh", &["-s", step], DOCKER).unwrap_or_else(|complaint| panic!("docker.sh: {complaint}"));
}

/// What the administrator would see, without counters, in order: chains that were made again stand elsewhere.
fn listing(router: &Namespace) -> Vec<String> {
    let ruleset = router.run("nft", ["-s", "list", "ruleset"]);
    let mut lines: Vec<_> = ruleset.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// A call before, over and after `reload` of the ruleset that `load` made; then sipalg goes without a trace.
fn lives_beside(load: impl Fn(&Namespace), reload: impl Fn(&Namespace)) {
    let mut world = World::without_ruleset(1);
    if world.mode != Mode::Routed {
        load(&world.router);
    }
    let before = listing(&world.router);
    if world.mode == Mode::Sipalg {
        world.gateway = Some(Gateway::start(&world.router, ""));
    }
    let mut line = Line::new(world, 2);
    let queues = kernel::queue_rules(&line.world.router);
    let call = line.talk("before");
    if line.is_guarded() {
        // In front of the NAT there need not be one: where the kernel tells the mapping of a first packet behind it.
        assert!(queues >= 3, "{queues}");
        reload(&line.world.router);
        wait::until("the queue rules to be there", || {
            (kernel::queue_rules(&line.world.router) == queues).then_some(())
        });
    }
    line.assert_heard(&call);
    call.hang_up();
    line.talk("after").hang_up();
    line.server.succeeds();
    if !line.is_guarded() {
        return;
    }
    await_closed(&line.world);
    line.world.gateway().end("TERM");
    Gateway::unload(&line.world.router);
    assert_eq!(listing(&line.world.router), before);
}

#[test]
fn beside_firewalld_and_its_reload_in_mid_call() {
    lives_beside(
        |router| nft(router, FIREWALLD),
        |router| {
            // Its four transactions. Whatever waits in a queue when base chains go is dropped, and repeated by its sender.
            nft(router, FIREWALLD_PAUSE);
            nft(router, "delete table inet firewalld");
            nft(router, FIREWALLD);
            nft(router, "delete table inet firewalld_policy_drop");
        },
    );
}

#[test]
fn beside_docker_and_its_restart_in_mid_call() {
    lives_beside(|router| docker(router, "start"), |router| docker(router, "restart"));
}

#[test]
fn beside_fw4_and_its_reload_in_mid_call() {
    lives_beside(|router| nft(router, FW4), |router| nft(router, FW4));
}

#[test]
fn beside_all_of_them_flushed_at_once_in_mid_call() {
    // An administrator who starts anew, and whose own file has none of them: what is left is his, and sipalg's.
    lives_beside(|router| nft(router, FW4), |router| nft(router, &format!("flush ruleset\n{FW4}")));
}
