//! What `sipalg check` finds.

use super::*;

#[test]
fn a_router_without_another_alg_has_no_problem() {
    let network = Network::new();
    let findings = probe(&network);
    let problems: Vec<_> = findings.iter().filter(|finding| finding.level == Level::Problem).collect();
    assert_eq!(problems, [&findings[0]; 0]);
    let level =
        |name: &str| findings.iter().find(|finding| finding.name == name).map(|finding| finding.level);
    for name in ["rights", "ruleset", "queue", "conntrack", "forwarding"] {
        assert_eq!(level(name), Some(Level::Ok), "{name}");
    }
    network.router.run("sysctl -qw net.ipv4.ip_forward=0 net.netfilter.nf_conntrack_acct=1");
    let findings = probe(&network);
    let level =
        |name: &str| findings.iter().find(|finding| finding.name == name).map(|finding| finding.level);
    assert_eq!((level("forwarding"), level("accounting")), (Some(Level::Note), Some(Level::Ok)));
    let remedy = |name: &str| findings.iter().find(|finding| finding.name == name).unwrap().remedy.as_str();
    assert_eq!(
        remedy("forwarding"),
        "sysctl -w net.ipv4.ip_forward=1, and the line net.ipv4.ip_forward=1 in /etc/sysctl.d/ for the next boot"
    );
    // It has looked, and left nothing.
    assert!(!network.router.run("nft list ruleset").contains("sipalg"));
}

#[test]
fn the_kernels_sip_helper_is_a_problem_until_the_remedy_is_taken() {
    let network = Network::new();
    network.router.nft(
        r#"
table ip alg {
    ct helper sip-udp { type "sip" protocol udp; }
    ct helper sip-tcp { type "sip" protocol tcp; }
    ct helper other { type "tftp" protocol udp; }
    chain attach {
        type filter hook prerouting priority raw + 200; policy accept;
        udp dport 5080 ct helper set "sip-udp"
        tcp dport 5080 ct helper set "sip-tcp"
        udp dport 69 ct helper set "other"
    }
}
"#,
    );
    assert_eq!(helper_remedies(&network), [""; 0]);
    for attach in [
        "nft add rule ip alg attach udp dport 5060 ct helper set sip-udp",
        "nft add rule ip alg attach udp dport {5060,5061} ct helper set sip-udp",
        "nft add rule ip alg attach meta l4proto udp ct helper set sip-udp",
        "nft add rule ip alg attach tcp dport 5060 ct helper set sip-tcp",
        "iptables-nft -t raw -A PREROUTING -p udp --dport 5060 -j CT --helper sip",
        "iptables-nft -t raw -A PREROUTING -p tcp --dport 5060 -j CT --helper sip",
        "iptables-nft -t raw -A PREROUTING -p udp -m multiport --dports 5060,5070 -j CT --helper sip",
        "ip6tables-nft -t raw -A PREROUTING -p udp --dport 5060 -j CT --helper sip",
        "iptables-legacy -t raw -A PREROUTING -p udp --dport 5060 -j CT --helper sip",
    ] {
        network.router.run(attach);
        let remedies = helper_remedies(&network);
        assert_eq!(remedies.len(), 1, "{attach}: {remedies:?}");
        network.router.run(&remedies[0]);
        assert_eq!(helper_remedies(&network), [""; 0], "{attach}");
    }
    for harmless in [
        "iptables-nft -t raw -A PREROUTING -p udp --dport 5090 -j CT --helper sip",
        "iptables-nft -t raw -A PREROUTING -p tcp --dport 5090 -j CT --helper sip",
        "iptables-nft -t raw -A PREROUTING -p udp --dport 69 -j CT --helper tftp",
        "iptables-legacy -t raw -A PREROUTING -p udp --dport 5090 -j CT --helper sip",
    ] {
        network.router.run(harmless);
        assert_eq!(helper_remedies(&network), [""; 0], "{harmless}");
    }
}

#[test]
fn a_flow_that_still_has_the_helper_is_a_problem() {
    let network = Network::new();
    network.router.nft(
        r#"
table ip alg {
    ct helper sip-udp { type "sip" protocol udp; }
    chain attach {
        type filter hook prerouting priority filter; policy accept;
        udp dport 5060 ct helper set "sip-udp"
    }
}
"#,
    );
    let (phone, far) = (network.phone.udp("192.168.1.10:5070"), network.far.udp("203.0.113.9:5060"));
    phone.send_to(b"OPTIONS sip:x SIP/2.0\r\n\r\n", "203.0.113.9:5060").unwrap();
    receive(&far);
    network.router.run("nft delete table ip alg");
    network.router.enter(|| ruleset::install(&RulesetSettings::default())).unwrap();
    let remedies = helper_remedies(&network);
    assert_eq!(remedies, ["conntrack -D -p udp --dport 5060"]);
    network.router.run(&remedies[0]);
    assert_eq!(helper_remedies(&network), [""; 0]);
}

fn probe(network: &Network) -> Vec<Finding> {
    network.router.enter(|| probe::run(&RulesetSettings::default()))
}

fn helper_remedies(network: &Network) -> Vec<String> {
    let problems = probe(network).into_iter().filter(|finding| finding.level == Level::Problem);
    problems.inspect(|finding| assert_eq!(finding.name, "sip-helper")).map(|finding| finding.remedy).collect()
}

#[test]
fn interfaces_are_those_of_the_namespace() {
    let network = Network::new();
    let wan = network.router.index("wan");
    network.router.run("ip link set wan mtu 1492");
    network.router.enter(|| {
        let mut links = Links::new();
        assert_eq!((links.name(wan), links.mtu(wan)), ("wan".to_owned(), Some(1492)));
        assert_eq!((links.name(wan + 100), links.mtu(wan + 100)), (format!("#{}", wan + 100), None));
    });
}
