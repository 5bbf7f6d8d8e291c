//! The kernel side against the real kernel, in network namespaces of its own: phone, router, far end. What came of a command
//! is asserted from outside, with `nft` and `conntrack`. Needs root.

#![allow(clippy::unwrap_used)] // clippy knows tests by their attribute only, not their helpers

#[path = "netns_kernel/addresses.rs"]
mod addresses;
#[path = "netns_kernel/connections.rs"]
mod connections;
#[path = "netns_kernel/elements.rs"]
mod elements;
#[path = "netns_kernel/flows.rs"]
mod flows;
#[path = "common/netns.rs"]
mod netns;
#[path = "netns_kernel/probing.rs"]
mod probing;
#[path = "netns_kernel/table.rs"]
mod table;

use std::net::{IpAddr, SocketAddr, UdpSocket};
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
use sipalg::kernel::traffic::{self, Meter, Traffic};
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
        let [phone, router, far] = Netns::phone_router_far();
        phone.run("ip address add 192.168.1.11/24 dev eth0");
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
        Pinhole {
            transport: sipalg::alg::Transport::Udp,
            inside: Inside(inside.parse().unwrap()),
            public,
            uplink: self.router.index("wan"),
        }
    }

    fn execute(&self, kernel: &mut Kernel, ops: Vec<Op>) -> Vec<Outcome> {
        let number = |(n, op)| Command { id: CommandId::nth(n), op };
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
    Peer { transport: sipalg::alg::Transport::Udp, public: pinhole.public, far: Some(far.parse().unwrap()) }
}

fn admit(peers: &[Peer]) -> Op {
    Op::Admit { peers: peers.to_vec(), lifetime: HOUR }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn pinned(pinhole: Pinhole, far: &str, hairpin: Option<Inside>) -> PinnedFlow {
    PinnedFlow {
        transport: sipalg::alg::Transport::Udp,
        inside: pinhole.inside,
        far: far.parse().unwrap(),
        public: pinhole.public,
        hairpin,
    }
}

fn key(inside: Inside, far: &str) -> FlowKey {
    FlowKey { transport: sipalg::alg::Transport::Udp, inside, far: far.parse().unwrap() }
}

fn pin(pinhole: Pinhole, far: &str) -> Op {
    let signalling = key(Inside("192.168.1.10:5060".parse().unwrap()), "203.0.113.9:5060");
    Op::Pin { flow: pinned(pinhole, far, None), signalling }
}

fn unpin(pinhole: Pinhole, far: &str) -> Op {
    Op::Unpin { flow: pinned(pinhole, far, None) }
}

fn lookup(network: &Network, kernel: &mut Kernel, source: &str, destination: &str) -> Option<Tuples> {
    let op = Op::Lookup {
        transport: sipalg::alg::Transport::Udp,
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    };
    match network.execute(kernel, vec![op])[..] {
        [Ok(Reply::Found(found))] => found,
        ref other => panic!("{other:?}"),
    }
}

/// All news but one: an interface of a namespace that was just made gets its IPv6 address when it likes.
fn drained(events: &mut Events) -> Vec<KernelEvent> {
    let mut all = Vec::new();
    events.drain(&mut |event| all.push(event)).unwrap();
    all.retain(|event| *event != KernelEvent::InterfacesChanged);
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
