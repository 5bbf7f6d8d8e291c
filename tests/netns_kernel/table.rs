//! The table as a whole: loaded, reloaded, included, flushed, removed.

use super::*;

#[test]
fn a_flushed_ruleset_is_noticed_and_mended_with_all_its_elements() {
    let (network, mut kernel, pinhole) = Network::with_pinhole();
    let mut events = network.router.enter(|| Events::open(&kernel)).unwrap();
    let (kept, gone) = (peer(pinhole, "203.0.113.9"), peer(pinhole, "203.0.113.10"));
    network.done(&mut kernel, admit(&[kept, gone]));
    network.done(&mut kernel, Op::Dismiss { peers: vec![gone] });
    let closed = network.pinhole("192.168.1.10:40002", 16386);
    network.done(&mut kernel, open(&[closed]));
    network.done(&mut kernel, close(&[closed], &[]));
    let sets = ["inbound4", "outbound4", "owned4", "peers4"];
    let content = |network: &Network| {
        sets.map(|set| {
            let mut keys: Vec<_> =
                network.elements(set).into_iter().map(|(k, d, _)| format!("{k} {d}")).collect();
            keys.sort();
            keys
        })
    };
    let before = content(&network);
    assert_eq!(before.clone().map(|keys| keys.len()), [1, 1, 2, 1]);
    network.router.run("nft flush ruleset");
    assert_eq!(drained(&mut events), [KernelEvent::RulesetChanged]);
    assert!(!network.router.enter(ruleset::is_intact).unwrap());
    network.router.enter(|| ruleset::install(&RulesetSettings::default())).unwrap();
    assert_eq!(kernel.restore().unwrap(), 3);
    assert_eq!(content(&network), before);
    // What we did ourselves is no news, or there would be no end.
    assert_eq!(drained(&mut events), []);
    assert!(network.router.enter(ruleset::is_intact).unwrap());
    // Loaded over itself by somebody: the queue points are empty then.
    network.router.nft(ruleset::SHIPPED);
    assert_eq!(drained(&mut events), [KernelEvent::RulesetChanged]);
    // Changes to other tables are nobody's business here.
    network.router.nft("table ip other {\n chain c { counter; }\n}");
    assert_eq!(drained(&mut events), []);
}

#[test]
fn loading_over_itself_keeps_elements_and_doubles_nothing() {
    let (network, _kernel, _) = Network::with_pinhole();
    let rules = |network: &Network| network.router.run("nft -s list table inet sipalg").lines().count();
    let before = rules(&network);
    let again = network.router.enter(|| ruleset::install(&RulesetSettings::default())).unwrap();
    assert_eq!((again.origin, &again.ports[..]), (Origin::Daemon, &[5060][..]));
    assert_eq!(rules(&network), before);
    // Other ports: in place, too.
    let settings = RulesetSettings {
        ports: vec![5070, 5060, 5070],
        tcp_ports: vec![],
        queue_base: 100,
        ..RulesetSettings::default()
    };
    let again = network.router.enter(|| ruleset::install(&settings)).unwrap();
    assert_eq!((again.origin, &again.ports[..]), (Origin::Daemon, &[5060, 5070][..]));
    assert_eq!(network.elements("inbound4").len(), 1);
    assert_eq!(again.tcp_ports, [0; 0]);
    for (chain, queue) in [("q_followed", 104), ("q_followed_in", 105)] {
        let text = network.router.run(&format!("nft list chain inet sipalg {chain}"));
        assert_eq!((text.matches("bypass").count(), text.matches("queue").count()), (0, 1), "{text}");
        assert!(text.contains(&format!("{queue}")), "{text}");
    }
    for (chain, queue) in [("q_sip", 100), ("q_new", 101), ("q_learn", 102), ("q_latch", 103), ("q_tcp", 104)]
    {
        let text = network.router.run(&format!("nft list chain inet sipalg {chain}"));
        assert_eq!(text.matches("bypass").count(), 1, "{text}");
        assert_eq!(
            text.matches(&format!("num {queue} bypass")).count()
                + text.matches(&format!("to {queue}")).count(),
            1,
            "{text}"
        );
    }
}

#[test]
fn a_table_that_an_administrator_included_is_used_as_it_is() {
    let network = Network::new();
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let edited = ruleset::SHIPPED.replace("SIPALG_UDP_PORTS = { 5060 }", "SIPALG_UDP_PORTS = { 5060, 5090 }");
    let edited = edited.replace("size 262144", "size 1024");
    let included = write("sipalg.nft", &edited);
    let main = write("nftables.conf", &format!("flush ruleset\n{ADMINISTRATOR}\ninclude \"{included}\"\n"));
    network.router.run(&format!("nft -f {main}"));
    let installed = network.router.enter(|| ruleset::install(&RulesetSettings::default())).unwrap();
    assert_eq!((installed.origin, &installed.ports[..]), (Origin::Administrator, &[5060, 5090][..]));
    assert!(network.router.run("nft list map inet sipalg inbound4").contains("size 1024"));
    assert!(network.router.enter(ruleset::is_intact).unwrap());
    // A file of another version is replaced.
    let old = write(
        "old.nft",
        &edited.replace("sipalg ruleset 3", "sipalg ruleset 0").replace("ct state untracked accept", ""),
    );
    network.router.run(&format!("nft -f {old}"));
    network.router.run("nft delete table inet sipalg");
    network.router.run(&format!("nft -f {old}"));
    let installed = network.router.enter(|| ruleset::install(&RulesetSettings::default())).unwrap();
    assert_eq!((installed.origin, &installed.ports[..]), (Origin::Daemon, &[5060][..]));
    assert!(network.router.run("nft list chain inet sipalg forward").contains("untracked"));
}

#[test]
fn a_table_that_cannot_be_replaced_in_place_is_refused_with_a_remedy() {
    let network = Network::new();
    network.router.nft("table inet sipalg {\n set owned4 { type ipv4_addr; }\n}");
    let before = network.router.run("nft list ruleset");
    let error = network.router.enter(|| ruleset::install(&RulesetSettings::default())).unwrap_err();
    assert!(matches!(error, KernelError::Refused(_)), "{error:?}");
    assert!(error.remedy().contains("sipalg unload"));
    assert_eq!(network.router.run("nft list ruleset"), before);
    assert!(network.router.enter(ruleset::remove).unwrap().table);
    network.router.enter(|| ruleset::install(&RulesetSettings::default())).unwrap();
}

#[test]
fn removal_leaves_nothing() {
    let network = Network::new();
    let before = network.router.run("nft list ruleset");
    let mut kernel = network.kernel();
    let pinhole = network.pinhole("192.168.1.10:40000", 16384);
    network.done(&mut kernel, open(&[pinhole]));
    network.done(&mut kernel, pin(pinhole, "203.0.113.9:30000"));
    let (phone, far) = (network.phone.udp("192.168.1.10:5070"), network.far.udp("203.0.113.9:5070"));
    phone.send_to(b"not ours", "203.0.113.9:5070").unwrap();
    receive(&far);
    assert_ne!(network.router.run("nft list ruleset"), before);
    assert!(network.router.enter(ruleset::remove).unwrap().table);
    assert_eq!(network.router.run("nft list ruleset"), before);
    assert_eq!(network.entries(&["sport=40000"]), [""; 0]);
    assert_eq!(network.entries(&["sport=5070"]).len(), 1);
    assert!(!network.router.enter(ruleset::remove).unwrap().table);
}

#[test]
fn without_the_right_the_error_says_so() {
    let network = Network::new();
    network.router.enter(|| {
        netns::drop_net_admin();
        for error in [
            ruleset::install(&RulesetSettings::default()).unwrap_err(),
            ruleset::remove().unwrap_err(),
            Kernel::open(&KernelSettings::default()).unwrap_err(),
        ] {
            assert!(matches!(error, KernelError::NotPermitted(_)), "{error:?}");
            assert!(error.remedy().contains("CAP_NET_ADMIN"));
        }
        let findings = probe::run(&RulesetSettings::default());
        assert_eq!((findings.len(), findings[0].name, findings[0].level), (1, "rights", Level::Problem));
    });
}
