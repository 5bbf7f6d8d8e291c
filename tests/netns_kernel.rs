//! The kernel side against the real kernel, in network namespaces of its own: phone, router, far end. What came of a command
//! is asserted from outside, with `nft` and `conntrack`. Needs root.

#![allow(clippy::unwrap_used)] // clippy knows tests by their attribute only, not their helpers

#[path = "common/netns.rs"]
mod netns;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use netns::{Netns, eventually};
use serde_json::Value;
use sipalg::alg::{
    Command, CommandId, Executor, Failure, FlowKey, Inside, Op, Outcome, Outside, Peer, Pinhole, Pinholes,
    PinnedFlow, Reply, Tuples,
};
use sipalg::kernel::events::{Events, KernelEvent};
use sipalg::kernel::links::Links;
use sipalg::kernel::probe::{self, Finding, Level};
use sipalg::kernel::ruleset::{self, Origin, RulesetSettings};
use sipalg::kernel::{Kernel, KernelError, KernelSettings};

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

/// What a router has before sipalg comes: a firewall that lets only answers in, and masquerade.
const ADMINISTRATOR: &str = r#"
table inet firewall {
    chain input { type filter hook input priority filter; policy drop; ct state established,related accept; }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname "lan" accept
    }
}
table ip nat {
    chain postrouting { type nat hook postrouting priority srcnat; oifname "wan" masquerade random; }
}
"#;

/// phone 192.168.1.10 and .11 — lan 192.168.1.1 router 203.0.113.1 wan — far end 203.0.113.9 and .10
struct Network {
    phone: Netns,
    router: Netns,
    far: Netns,
}

impl Network {
    fn new() -> Self {
        let (phone, router, far) = (Netns::new(), Netns::new(), Netns::new());
        phone.join("eth0", &router, "lan");
        router.join("wan", &far, "eth0");
        phone.run("ip address add 192.168.1.10/24 dev eth0");
        phone.run("ip address add 192.168.1.11/24 dev eth0");
        phone.run("ip route add default via 192.168.1.1");
        router.run("ip address add 192.168.1.1/24 dev lan");
        router.run("ip address add 203.0.113.1/24 dev wan");
        router.run("sysctl -qw net.ipv4.ip_forward=1");
        far.run("ip address add 203.0.113.9/24 dev eth0");
        far.run("ip address add 203.0.113.10/24 dev eth0");
        router.nft(ADMINISTRATOR);
        Self { phone, router, far }
    }

    /// With the ruleset installed, an hour's pinhole 192.168.1.10:40000 behind 203.0.113.1:16384 open.
    fn with_pinhole() -> (Self, Kernel, Pinhole) {
        let network = Self::new();
        let pinhole = network.pinhole("192.168.1.10:40000", 16384);
        let mut kernel = network.kernel();
        network.done(&mut kernel, open(&[pinhole]));
        (network, kernel, pinhole)
    }

    fn kernel(&self) -> Kernel {
        self.router.enter(|| {
            ruleset::install(&RulesetSettings::default()).unwrap();
            Kernel::open(&KernelSettings::default()).unwrap()
        })
    }

    fn pinhole(&self, inside: &str, port: u16) -> Pinhole {
        let public = Outside(([203, 0, 113, 1], port).into());
        Pinhole { inside: Inside(inside.parse().unwrap()), public, uplink: self.router.index("wan") }
    }

    fn execute(&self, kernel: &mut Kernel, ops: Vec<Op>) -> Vec<Outcome> {
        let number = |(n, op)| Command { id: CommandId(n), op };
        let commands: Vec<_> = (0..).zip(ops).map(number).collect();
        let mut outcomes = Vec::new();
        self.router.enter(|| kernel.execute(&commands, &mut outcomes));
        assert_eq!(outcomes.len(), commands.len());
        outcomes
    }

    #[track_caller]
    fn done(&self, kernel: &mut Kernel, op: Op) {
        assert_eq!(self.execute(kernel, vec![op]), [Ok(Reply::Done)]);
    }

    /// Elements of a map or set as nft lists them: keys, values and remaining seconds.
    fn elements(&self, set: &str) -> Vec<(Value, Value, u64)> {
        let kind = if set.ends_with("bound4") || set.ends_with("bound6") { "map" } else { "set" };
        let text = self.router.run(&format!("nft -j list {kind} inet sipalg {set}"));
        let listed: Value = serde_json::from_str(&text).unwrap();
        let objects = listed["nftables"].as_array().unwrap();
        let set = objects.iter().find_map(|object| object.get("set").or(object.get("map"))).expect("a set");
        let element = |element: &Value| {
            let (key, data) = match element {
                Value::Array(pair) => (&pair[0], pair[1]["concat"].clone()),
                key => (key, Value::Null),
            };
            // Without a timeout the key stands by itself.
            let concat = key.get("concat").unwrap_or(&key["elem"]["val"]["concat"]);
            (concat.clone(), data, key["elem"]["expires"].as_u64().unwrap_or(0))
        };
        set["elem"].as_array().map(|all| all.iter().map(element).collect()).unwrap_or_default()
    }

    /// Lines of `conntrack -L` that contain every one of these words.
    fn entries(&self, words: &[&str]) -> Vec<String> {
        let text = self.router.run("conntrack -L -p udp -o extended,id");
        let has_all = |line: &&str| words.iter().all(|word| line.split_whitespace().any(|w| w == *word));
        text.lines().filter(has_all).map(str::to_owned).collect()
    }
}

fn open(pinholes: &[Pinhole]) -> Op {
    Op::Open { pinholes: pinholes.iter().copied().collect(), lifetime: HOUR }
}

fn close(pinholes: &[Pinhole], peers: &[Peer]) -> Op {
    let pinholes: Pinholes = pinholes.iter().copied().collect();
    Op::Close { pinholes, peers: peers.to_vec(), quarantine: MINUTE }
}

fn peer(pinhole: Pinhole, far: &str) -> Peer {
    Peer { public: pinhole.public, far: Some(far.parse().unwrap()) }
}

fn admit(peers: &[Peer]) -> Op {
    Op::Admit { peers: peers.to_vec(), lifetime: HOUR }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_pinhole_is_four_elements_for_as_long_as_it_was_asked_for() {
    let (network, mut kernel, pinhole) = Network::with_pinhole();
    network.done(&mut kernel, admit(&[peer(pinhole, "203.0.113.9")]));
    let inbound = network.elements("inbound4");
    let [(key, data, left)] = &inbound[..] else { panic!("{inbound:?}") };
    assert_eq!(*key, json(r#"["udp", "203.0.113.1", 16384]"#));
    assert_eq!(*data, json(r#"["192.168.1.10", 40000]"#));
    assert!((3500..=3600).contains(left), "{left}");
    let outbound = network.elements("outbound4");
    let [(key, data, _)] = &outbound[..] else { panic!("{outbound:?}") };
    assert_eq!(*key, json(r#"["wan", "udp", "192.168.1.10", 40000]"#));
    assert_eq!(*data, json(r#"["203.0.113.1", 16384]"#));
    assert_eq!(network.elements("owned4")[0].0, json(r#"["udp", "203.0.113.1", 16384]"#));
    assert_eq!(network.elements("peers4")[0].0, json(r#"["udp", "203.0.113.1", 16384, "203.0.113.9"]"#));
}

#[test]
fn the_far_end_may_speak_first_through_a_pinned_flow() {
    let (network, mut kernel, pinhole) = Network::with_pinhole();
    let (phone, far) = (network.phone.udp("192.168.1.10:40000"), network.far.udp("203.0.113.9:30000"));
    network.done(&mut kernel, pin(pinhole, "203.0.113.9:30000"));
    far.send_to(b"far end first", pinhole.public.0).unwrap();
    expect(&phone, b"far end first", "203.0.113.9:30000");
    phone.send_to(b"answer", "203.0.113.9:30000").unwrap();
    expect(&far, b"answer", "203.0.113.1:16384");
    let words = ["src=192.168.1.10", "sport=40000", "[ASSURED]", "dst=203.0.113.1", "dport=16384"];
    assert_eq!(network.entries(&words).len(), 1);
    network.done(&mut kernel, unpin(pinhole, "203.0.113.9:30000"));
    assert_eq!(network.entries(&["sport=40000"]), [""; 0]);
    network.done(&mut kernel, unpin(pinhole, "203.0.113.9:30000"));
}

#[test]
fn a_pin_repairs_the_entry_that_a_phone_too_early_has_made() {
    let network = Network::new();
    let mut kernel = network.kernel();
    let pinhole = network.pinhole("192.168.1.10:40000", 16384);
    let (phone, far) = (network.phone.udp("192.168.1.10:40000"), network.far.udp("203.0.113.9:30000"));
    phone.send_to(b"too early", "203.0.113.9:30000").unwrap();
    let stray = receive(&far).1;
    assert_ne!(stray, pinhole.public.0);
    network.done(&mut kernel, open(&[pinhole]));
    network.done(&mut kernel, pin(pinhole, "203.0.113.9:30000"));
    phone.send_to(b"in time", "203.0.113.9:30000").unwrap();
    expect(&far, b"in time", "203.0.113.1:16384");
    assert_eq!(network.entries(&["sport=40000"]).len(), 1);
}

#[test]
fn a_pin_repairs_the_entry_that_a_stray_packet_to_the_router_has_made() {
    let network = Network::new();
    network.router.run("nft flush chain inet firewall input");
    network.router.run("nft chain inet firewall input { policy accept ; }");
    let mut kernel = network.kernel();
    let pinhole = network.pinhole("192.168.1.10:40000", 16384);
    let (phone, far) = (network.phone.udp("192.168.1.10:40000"), network.far.udp("203.0.113.9:30000"));
    let nobody = network.router.udp("203.0.113.1:16384");
    far.send_to(b"stray", pinhole.public.0).unwrap();
    expect(&nobody, b"stray", "203.0.113.9:30000");
    drop(nobody);
    network.done(&mut kernel, open(&[pinhole]));
    network.done(&mut kernel, pin(pinhole, "203.0.113.9:30000"));
    phone.send_to(b"media", "203.0.113.9:30000").unwrap();
    expect(&far, b"media", "203.0.113.1:16384");
    // Again: the entry is right already.
    network.done(&mut kernel, pin(pinhole, "203.0.113.9:30000"));
    assert_eq!(network.entries(&["dport=16384"]).len(), 1);
}

#[test]
fn a_pin_that_finds_the_right_entry_leaves_it() {
    let (network, mut kernel, pinhole) = Network::with_pinhole();
    let (phone, far) = (network.phone.udp("192.168.1.10:40000"), network.far.udp("203.0.113.9:30000"));
    phone.send_to(b"first", "203.0.113.9:30000").unwrap();
    expect(&far, b"first", "203.0.113.1:16384");
    let id = |lines: Vec<String>| lines[0].split_once(" id=").map(|(_, id)| id.to_owned()).unwrap();
    let before = id(network.entries(&["sport=40000"]));
    network.done(&mut kernel, pin(pinhole, "203.0.113.9:30000"));
    assert_eq!(id(network.entries(&["sport=40000"])), before);
}

#[test]
fn a_pinned_flow_has_mark_and_zone_of_its_signalling() {
    let network = Network::new();
    network.router.nft(
        "table ip zones {
            chain raw { type filter hook prerouting priority raw; ct zone set 7; }
            chain marks { type filter hook forward priority mangle; ct mark set 0x2a; }
        }",
    );
    let (phone, far) = (network.phone.udp("192.168.1.10:5070"), network.far.udp("203.0.113.9:5070"));
    phone.send_to(b"hello", "203.0.113.9:5070").unwrap();
    receive(&far);
    let mut kernel = network.kernel();
    let pinhole = network.pinhole("192.168.1.10:40000", 16384);
    let signalling = FlowKey {
        inside: Inside("192.168.1.10:5070".parse().unwrap()),
        far: "203.0.113.9:5070".parse().unwrap(),
    };
    let flow = pinned(pinhole, "203.0.113.9:30000", None);
    network.done(&mut kernel, Op::Pin { flow, signalling });
    assert_eq!(network.entries(&["sport=40000", "mark=42", "zone=7"]).len(), 1);
    network.done(&mut kernel, Op::Sustain { flow: signalling, lifetime: HOUR });
    network.done(&mut kernel, Op::Unpin { flow });
    assert_eq!(network.entries(&["sport=40000"]), [""; 0]);
}

#[test]
fn zones_that_come_up_later_are_found() {
    let network = Network::new();
    network.router.nft(
        "table ip zones {\n chain raw { type filter hook prerouting priority raw; udp sport 5071 ct zone set 7; }\n}",
    );
    let mut kernel = network.kernel();
    // Zones are searched for once at the start and then at most every ten seconds.
    let (phone, far) = (network.phone.udp("192.168.1.10:5071"), network.far.udp("203.0.113.9:5071"));
    phone.send_to(b"hello", "203.0.113.9:5071").unwrap();
    receive(&far);
    eventually("the flow is found in its zone", || {
        lookup(&network, &mut kernel, "192.168.1.10:5071", "203.0.113.9:5071").is_some()
    });
}

#[test]
fn the_guard_lets_in_whom_we_admitted_and_nobody_else() {
    let (network, mut kernel, pinhole) = Network::with_pinhole();
    // A firewall that would let everything in: the guard alone decides.
    network.router.run("nft chain inet firewall forward { policy accept ; }");
    let phone = network.phone.udp("192.168.1.10:40000");
    let (far, stranger) = (network.far.udp("203.0.113.9:30000"), network.far.udp("203.0.113.10:30000"));
    network.done(&mut kernel, admit(&[peer(pinhole, "203.0.113.9")]));
    stranger.send_to(b"intruder", pinhole.public.0).unwrap();
    far.send_to(b"welcome", pinhole.public.0).unwrap();
    expect(&phone, b"welcome", "203.0.113.9:30000");
    assert_eq!(network.entries(&["src=203.0.113.10"]), [""; 0]);
    // Any source, for as long as it is asked for.
    let anybody = Peer { public: pinhole.public, far: None };
    network.done(&mut kernel, admit(&[anybody]));
    stranger.send_to(b"now invited", pinhole.public.0).unwrap();
    expect(&phone, b"now invited", "203.0.113.10:30000");
    network.done(&mut kernel, Op::Dismiss { peers: vec![anybody] });
    let other = network.far.udp("203.0.113.10:30002");
    other.send_to(b"intruder", pinhole.public.0).unwrap();
    far.send_to(b"again", pinhole.public.0).unwrap();
    expect(&phone, b"again", "203.0.113.9:30000");
    assert_eq!(network.entries(&["sport=30002"]), [""; 0]);
}

#[test]
fn two_phones_talk_through_the_router_by_hairpin_pins() {
    let network = Network::new();
    let mut kernel = network.kernel();
    let one = network.pinhole("192.168.1.10:40000", 16384);
    let two = network.pinhole("192.168.1.11:40000", 16386);
    network.done(&mut kernel, open(&[one, two]));
    let to_two = pinned(one, "203.0.113.1:16386", Some(two.inside));
    network.done(&mut kernel, Op::Pin { flow: to_two, signalling: key(one.inside, "203.0.113.9:5060") });
    let (a, b) = (network.phone.udp("192.168.1.10:40000"), network.phone.udp("192.168.1.11:40000"));
    b.send_to(b"from two", "203.0.113.1:16384").unwrap();
    expect(&a, b"from two", "203.0.113.1:16386");
    a.send_to(b"from one", "203.0.113.1:16386").unwrap();
    expect(&b, b"from one", "203.0.113.1:16384");
    // The other phone's pin is the same entry.
    let to_one = pinned(two, "203.0.113.1:16384", Some(one.inside));
    network.done(&mut kernel, Op::Pin { flow: to_one, signalling: key(two.inside, "203.0.113.9:5060") });
    assert_eq!(network.entries(&["src=192.168.1.10"]).len(), 1);
}

#[test]
fn a_flow_is_found_from_either_direction_under_random_masquerade() {
    let network = Network::new();
    let mut kernel = network.kernel();
    let (phone, far) = (network.phone.udp("192.168.1.10:5070"), network.far.udp("203.0.113.9:5070"));
    assert_eq!(lookup(&network, &mut kernel, "192.168.1.10:5070", "203.0.113.9:5070"), None);
    phone.send_to(b"hello", "203.0.113.9:5070").unwrap();
    let (_, public) = receive(&far);
    let entry = Tuples {
        orig_source: "192.168.1.10:5070".parse().unwrap(),
        orig_destination: "203.0.113.9:5070".parse().unwrap(),
        reply_source: "203.0.113.9:5070".parse().unwrap(),
        reply_destination: public,
    };
    assert_eq!(lookup(&network, &mut kernel, "192.168.1.10:5070", "203.0.113.9:5070"), Some(entry));
    assert_eq!(lookup(&network, &mut kernel, "203.0.113.9:5070", "192.168.1.10:5070"), Some(entry));
    assert_eq!(lookup(&network, &mut kernel, "203.0.113.9:5071", "192.168.1.10:5070"), None);
}

#[test]
fn a_flow_is_sustained_and_a_flow_that_is_not_there_is_not_found() {
    let network = Network::new();
    let mut kernel = network.kernel();
    let flow = key(Inside("192.168.1.10:5070".parse().unwrap()), "203.0.113.9:5070");
    let sustain = Op::Sustain { flow, lifetime: HOUR };
    assert_eq!(network.execute(&mut kernel, vec![sustain.clone()]), [Err(Failure::NotFound)]);
    let (phone, far) = (network.phone.udp("192.168.1.10:5070"), network.far.udp("203.0.113.9:5070"));
    phone.send_to(b"hello", "203.0.113.9:5070").unwrap();
    receive(&far);
    network.done(&mut kernel, sustain);
    let left: u64 = network.entries(&["sport=5070"])[0].split_whitespace().nth(4).unwrap().parse().unwrap();
    assert!((3500..=3600).contains(&left), "{left}");
}

#[test]
fn a_closed_endpoint_stays_closed_for_its_quarantine() {
    let (network, mut kernel, pinhole) = Network::with_pinhole();
    network.router.run("nft chain inet firewall forward { policy accept ; }");
    network.router.run("nft chain inet firewall input { policy accept ; }");
    let far_end = peer(pinhole, "203.0.113.9");
    network.done(&mut kernel, admit(&[far_end]));
    network.done(&mut kernel, close(&[pinhole], &[far_end]));
    for set in ["inbound4", "outbound4", "peers4", "open4"] {
        assert_eq!(network.elements(set), [], "{set}");
    }
    let owned = network.elements("owned4");
    let [(key, _, left)] = &owned[..] else { panic!("{owned:?}") };
    assert_eq!(*key, json(r#"["udp", "203.0.113.1", 16384]"#));
    assert!((1..=60).contains(left), "{left}");
    // Late media leaves nothing behind.
    network.far.udp("203.0.113.9:30000").send_to(b"late", pinhole.public.0).unwrap();
    network.far.udp("203.0.113.9:30001").send_to(b"proof of arrival", "203.0.113.1:9").unwrap();
    eventually("the packet behind the late one is there", || !network.entries(&["dport=9"]).is_empty());
    assert_eq!(network.entries(&["dport=16384"]), [""; 0]);
    // Once more, and without anything there: no error.
    network.done(&mut kernel, close(&[pinhole], &[far_end]));
    network.router.run("nft flush set inet sipalg owned4");
    network.done(&mut kernel, close(&[pinhole], &[far_end]));
    network.done(&mut kernel, Op::Dismiss { peers: vec![far_end] });
    assert_eq!(network.elements("owned4").len(), 1);
}

#[test]
fn renewing_sets_the_time_anew_and_makes_again_what_was_lost() {
    let (network, mut kernel, pinhole) = Network::with_pinhole();
    let far_end = peer(pinhole, "203.0.113.9");
    network.router.run("nft flush map inet sipalg outbound4");
    let pinholes: Pinholes = [pinhole].into_iter().collect();
    let renew = Op::Renew { pinholes, peers: vec![far_end], lifetime: 2 * HOUR };
    network.done(&mut kernel, renew);
    for set in ["inbound4", "outbound4", "owned4", "peers4"] {
        let elements = network.elements(set);
        assert_eq!(elements.len(), 1, "{set}");
        assert!((7000..=7200).contains(&elements[0].2), "{set}: {elements:?}");
    }
}

#[test]
fn a_port_that_somebody_has_is_in_use() {
    let network = Network::new();
    let mut kernel = network.kernel();
    let pinhole = network.pinhole("192.168.1.10:40000", 16384);
    let taken = Err(Failure::PortInUse);
    let socket = network.router.udp("0.0.0.0:16384");
    assert_eq!(network.execute(&mut kernel, vec![open(&[pinhole])]), [taken]);
    drop(socket);
    let element = "{ udp . 203.0.113.1 . 16384 : 192.168.1.99 . 4444 }";
    network.router.run(&format!("nft add element inet sipalg inbound4 {element}"));
    assert_eq!(network.execute(&mut kernel, vec![open(&[pinhole])]), [taken]);
    assert_eq!(network.elements("owned4"), []);
    assert_eq!(network.elements("outbound4"), []);
    network.router.run(&format!("nft delete element inet sipalg inbound4 {element}"));
    // What an earlier run left behind is ours.
    network.done(&mut kernel, open(&[pinhole]));
    network.done(&mut kernel, open(&[pinhole]));
    assert_eq!(network.elements("inbound4").len(), 1);
    // An address that this machine does not have can't have a socket.
    let routed = Pinhole { public: Outside("198.51.100.1:16384".parse().unwrap()), ..pinhole };
    network.done(
        &mut kernel,
        open(&[Pinhole { inside: Inside("192.168.1.11:40000".parse().unwrap()), ..routed }]),
    );
}

#[test]
fn a_command_that_fails_leaves_nothing_and_keeps_nobody_else_from_succeeding() {
    let network = Network::new();
    let mut kernel = network.kernel();
    let [one, two, three] = [16384, 16386, 16388].map(|port| network.pinhole("192.168.1.10:40000", port));
    let at = |pinhole, inside: &str| Pinhole { inside: Inside(inside.parse().unwrap()), ..pinhole };
    let (two, three) = (at(two, "192.168.1.10:40002"), at(three, "192.168.1.10:40004"));
    network
        .router
        .run("nft add element inet sipalg inbound4 { udp . 203.0.113.1 . 16386 : 192.168.1.99 . 4444 }");
    let ops = vec![
        open(&[one]),
        // All or none: the first of these two is free.
        open(&[three, two]),
        admit(&[peer(one, "203.0.113.9")]),
        Op::Lookup { source: one.inside.0, destination: "203.0.113.9:1".parse().unwrap() },
        close(&[one], &[]),
        open(&[three]),
    ];
    let done = Ok(Reply::Done);
    let expected = [done, Err(Failure::PortInUse), done, Ok(Reply::Found(None)), done, done];
    assert_eq!(network.execute(&mut kernel, ops), expected);
    let inbound: Vec<_> = network.elements("inbound4").into_iter().map(|(key, ..)| key[2].clone()).collect();
    assert!(inbound.contains(&16386.into()) && inbound.contains(&16388.into()) && inbound.len() == 2);
    assert_eq!(network.elements("outbound4").len(), 1);
}

#[test]
fn a_thousand_pinholes_in_one_round_come_and_go() {
    let network = Network::new();
    let mut kernel = network.kernel();
    let pinholes: Vec<_> =
        (0..1000u16).map(|n| network.pinhole(&format!("192.168.1.10:{}", 40000 + n), 16384 + n)).collect();
    let opened = network.execute(&mut kernel, pinholes.iter().map(|pinhole| open(&[*pinhole])).collect());
    assert!(opened.iter().all(|outcome| *outcome == Ok(Reply::Done)));
    let held = kernel.held().unwrap();
    assert_eq!((held.pinholes.len(), held.owned.len(), held.peers.len()), (1000, 1000, 0));
    let closing = pinholes.iter().map(|pinhole| Op::Close {
        pinholes: [*pinhole].into_iter().collect(),
        peers: vec![],
        quarantine: Duration::ZERO,
    });
    let closed = network.execute(&mut kernel, closing.collect());
    assert!(closed.iter().all(|outcome| *outcome == Ok(Reply::Done)));
    assert_eq!(kernel.held().unwrap(), Default::default());
}

#[test]
fn what_is_held_is_what_was_opened_also_for_ipv6() {
    let network = Network::new();
    let mut kernel = network.kernel();
    let four = network.pinhole("192.168.1.10:40000", 16384);
    let six = Pinhole {
        inside: Inside("[fd00::10]:40000".parse().unwrap()),
        public: Outside("[2001:db8::1]:16384".parse().unwrap()),
        uplink: four.uplink,
    };
    let peers = [peer(four, "203.0.113.9"), peer(six, "2001:db8::9"), Peer { public: six.public, far: None }];
    network.done(&mut kernel, open(&[four, six]));
    network.done(&mut kernel, admit(&peers));
    let held = kernel.held().unwrap();
    assert_eq!(held.pinholes.iter().map(|(pinhole, _)| *pinhole).collect::<Vec<_>>(), [four, six]);
    assert_eq!(held.owned.iter().map(|(public, _)| *public).collect::<Vec<_>>(), [four.public, six.public]);
    assert_eq!(held.peers.iter().map(|(peer, _)| *peer).collect::<Vec<_>>(), peers);
    let left = held.pinholes.iter().map(|(_, left)| *left).chain(held.peers.iter().map(|(_, left)| *left));
    assert!(left.into_iter().all(|left| left > HOUR - MINUTE && left <= HOUR));
    let flow = PinnedFlow {
        inside: six.inside,
        far: "[2001:db8::9]:30000".parse().unwrap(),
        public: six.public,
        hairpin: None,
    };
    network.done(&mut kernel, Op::Pin { flow, signalling: key(six.inside, "[2001:db8::9]:5060") });
    let text = network.router.run("conntrack -L -f ipv6 -p udp");
    assert!(text.contains("src=2001:db8::9 dst=2001:db8::1 sport=30000 dport=16384"), "{text}");
}

#[test]
fn a_dying_entry_is_an_event_and_our_own_elements_are_none() {
    let network = Network::new();
    let mut kernel = network.kernel();
    let mut events = network.router.enter(|| Events::open(&kernel)).unwrap();
    let pinhole = network.pinhole("192.168.1.10:40000", 16384);
    network.done(&mut kernel, open(&[pinhole]));
    network.done(&mut kernel, close(&[pinhole], &[]));
    // Not even a place in a queue.
    let sockets = network.router.enter(|| std::fs::read_to_string("/proc/thread-self/net/netlink")).unwrap();
    let waiting = |line: &str| line.split_whitespace().nth(4).unwrap().parse::<u64>().unwrap();
    assert_eq!(sockets.lines().skip(1).map(waiting).sum::<u64>(), 0, "{sockets}");
    let (phone, far) = (network.phone.udp("192.168.1.10:5070"), network.far.udp("203.0.113.9:5070"));
    phone.send_to(b"hello", "203.0.113.9:5070").unwrap();
    let (_, public) = receive(&far);
    assert_eq!(drained(&mut events), []);
    network.router.run("conntrack -D -p udp --orig-src 192.168.1.10 --sport 5070");
    let entry = Tuples {
        orig_source: "192.168.1.10:5070".parse().unwrap(),
        orig_destination: "203.0.113.9:5070".parse().unwrap(),
        reply_source: "203.0.113.9:5070".parse().unwrap(),
        reply_destination: public,
    };
    let mut heard = Vec::new();
    eventually("the event is there", || {
        heard.extend(drained(&mut events));
        !heard.is_empty()
    });
    assert_eq!(heard, [KernelEvent::Destroyed(entry)]);
}

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
    assert!(!network.router.enter(|| ruleset::is_intact()).unwrap());
    network.router.enter(|| ruleset::install(&RulesetSettings::default())).unwrap();
    assert_eq!(kernel.restore().unwrap(), 3);
    assert_eq!(content(&network), before);
    // What we did ourselves is no news, or there would be no end.
    assert_eq!(drained(&mut events), []);
    assert!(network.router.enter(|| ruleset::is_intact()).unwrap());
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
    let settings = RulesetSettings { ports: vec![5070, 5060, 5070], queue_base: 100 };
    let again = network.router.enter(|| ruleset::install(&settings)).unwrap();
    assert_eq!((again.origin, &again.ports[..]), (Origin::Daemon, &[5060, 5070][..]));
    assert_eq!(network.elements("inbound4").len(), 1);
    for (chain, queue) in [("q_sip", 100), ("q_new", 101), ("q_learn", 102), ("q_latch", 103)] {
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
    assert!(network.router.enter(|| ruleset::is_intact()).unwrap());
    // A file of another version is replaced.
    let old = write(
        "old.nft",
        &edited.replace("sipalg ruleset 1", "sipalg ruleset 0").replace("ct state untracked accept", ""),
    );
    network.router.run(&format!("nft -f {old}"));
    network.router.run("nft delete table inet sipalg");
    network.router.run(&format!("nft -f {old}"));
    let installed = network.router.enter(|| ruleset::install(&RulesetSettings::default())).unwrap();
    assert_eq!((installed.origin, &installed.ports[..]), (Origin::Daemon, &[5060][..]));
    assert!(network.router.run("nft list chain inet sipalg forward").contains("untracked"));
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
    assert!(network.router.enter(ruleset::remove).unwrap());
    assert_eq!(network.router.run("nft list ruleset"), before);
    assert_eq!(network.entries(&["sport=40000"]), [""; 0]);
    assert_eq!(network.entries(&["sport=5070"]).len(), 1);
    assert!(!network.router.enter(ruleset::remove).unwrap());
}

#[test]
fn without_a_reader_signalling_passes_and_has_its_long_life() {
    let network = Network::new();
    let _kernel = network.kernel();
    let (phone, far) = (network.phone.udp("192.168.1.10:5060"), network.far.udp("203.0.113.9:5060"));
    phone.send_to(b"request", "203.0.113.9:5060").unwrap();
    let (_, public) = receive(&far);
    let left = |network: &Network| -> u64 {
        network.entries(&["src=192.168.1.10"])[0].split_whitespace().nth(4).unwrap().parse().unwrap()
    };
    assert!((150..=180).contains(&left(&network)));
    far.send_to(b"response", public).unwrap();
    expect(&phone, b"response", "203.0.113.9:5060");
}

#[test]
fn each_queue_point_gets_its_packets() {
    let (network, mut kernel, pinhole) = Network::with_pinhole();
    let mut queue = network.router.enter(|| {
        let mut queue = nfq::Queue::open().unwrap();
        queue.set_nonblocking(true);
        (5060..=5063).for_each(|number| queue.bind(number).unwrap());
        queue
    });
    // Number of the queue, and the addresses of the packet; it is let go.
    let mut next = || {
        let mut seen = None;
        eventually("a packet is queued", || {
            let Ok(mut message) = queue.recv() else { return false };
            let packet = message.get_payload();
            let address =
                |at: usize| std::net::Ipv4Addr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap());
            seen = Some((message.get_queue_num(), address(12).to_string(), address(16).to_string()));
            message.set_verdict(nfq::Verdict::Accept);
            queue.verdict(message).unwrap();
            true
        });
        let (number, source, destination) = seen.unwrap();
        format!("{number} {source} {destination}")
    };
    let (phone, far) = (network.phone.udp("192.168.1.10:5070"), network.far.udp("203.0.113.9:5060"));
    phone.send_to(b"request", "203.0.113.9:5060").unwrap();
    assert_eq!(next(), "5061 192.168.1.10 203.0.113.9");
    assert_eq!(next(), "5062 203.0.113.1 203.0.113.9");
    let (_, public) = receive(&far);
    far.send_to(b"response", public).unwrap();
    assert_eq!(next(), "5060 203.0.113.9 192.168.1.10");
    phone.send_to(b"request", "203.0.113.9:5060").unwrap();
    assert_eq!(next(), "5060 192.168.1.10 203.0.113.9");
    // Media from a negotiated address that is not pinned; from a pinned flow: never.
    let (media, source) = (network.phone.udp("192.168.1.10:40000"), network.far.udp("203.0.113.9:30000"));
    network.done(&mut kernel, admit(&[peer(pinhole, "203.0.113.9")]));
    source.send_to(b"first", pinhole.public.0).unwrap();
    assert_eq!(next(), "5063 203.0.113.9 203.0.113.1");
    network.done(&mut kernel, pin(pinhole, "203.0.113.9:30000"));
    source.send_to(b"second", pinhole.public.0).unwrap();
    expect(&media, b"second", "203.0.113.9:30000");
    phone.send_to(b"last", "203.0.113.9:5060").unwrap();
    assert_eq!(next(), "5060 192.168.1.10 203.0.113.9");
}

#[test]
fn a_router_without_another_alg_has_no_problem() {
    let network = Network::new();
    let findings = probe(&network);
    let problems: Vec<_> = findings.iter().filter(|finding| finding.level == Level::Problem).collect();
    assert_eq!(problems, [&findings[0]; 0]);
    let level =
        |name: &str| findings.iter().find(|finding| finding.name == name).map(|finding| finding.level);
    for name in ["rights", "nft", "ruleset", "queue", "conntrack", "forwarding"] {
        assert_eq!(level(name), Some(Level::Ok), "{name}");
    }
    network.router.run("sysctl -qw net.ipv4.ip_forward=0 net.netfilter.nf_conntrack_acct=1");
    let findings = probe(&network);
    let level =
        |name: &str| findings.iter().find(|finding| finding.name == name).map(|finding| finding.level);
    assert_eq!((level("forwarding"), level("accounting")), (Some(Level::Note), Some(Level::Ok)));
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
        tcp dport 5060 ct helper set "sip-tcp"
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
        "iptables-nft -t raw -A PREROUTING -p udp --dport 5060 -j CT --helper sip",
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
        "iptables-nft -t raw -A PREROUTING -p tcp --dport 5060 -j CT --helper sip",
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

fn pinned(pinhole: Pinhole, far: &str, hairpin: Option<Inside>) -> PinnedFlow {
    PinnedFlow { inside: pinhole.inside, far: far.parse().unwrap(), public: pinhole.public, hairpin }
}

fn key(inside: Inside, far: &str) -> FlowKey {
    FlowKey { inside, far: far.parse().unwrap() }
}

fn pin(pinhole: Pinhole, far: &str) -> Op {
    let signalling = key(Inside("192.168.1.10:5060".parse().unwrap()), "203.0.113.9:5060");
    Op::Pin { flow: pinned(pinhole, far, None), signalling }
}

fn unpin(pinhole: Pinhole, far: &str) -> Op {
    Op::Unpin { flow: pinned(pinhole, far, None) }
}

fn lookup(network: &Network, kernel: &mut Kernel, source: &str, destination: &str) -> Option<Tuples> {
    let op = Op::Lookup { source: source.parse().unwrap(), destination: destination.parse().unwrap() };
    match network.execute(kernel, vec![op])[..] {
        [Ok(Reply::Found(found))] => found,
        ref other => panic!("{other:?}"),
    }
}

fn drained(events: &mut Events) -> Vec<KernelEvent> {
    let mut all = Vec::new();
    events.drain(&mut |event| all.push(event)).unwrap();
    all
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 2048];
    let (length, from) = socket.recv_from(&mut buffer).expect("a datagram within 20 s");
    (buffer[..length].to_vec(), from)
}

#[track_caller]
fn expect(socket: &UdpSocket, payload: &[u8], from: &str) {
    assert_eq!(receive(socket), (payload.to_vec(), from.parse().unwrap()));
}
