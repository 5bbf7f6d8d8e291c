//! Media without a NAT, against the real kernel: a firewall that lets in only what is established, in a network that is
//! merely routed, IPv4 and IPv6. Needs root.

#![allow(clippy::unwrap_used)] // clippy knows tests by their attribute only, not their helpers

#[path = "common/netns.rs"]
mod netns;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use netns::Netns;
use sipalg::alg::{Command, CommandId, Executor, FlowKey, Inside, Op, Outside, PinnedFlow, Reply};
use sipalg::kernel::ruleset::{self, RulesetSettings};
use sipalg::kernel::{Kernel, KernelSettings};

const FIREWALL: &str = r#"
table inet firewall {
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname "lan" accept
        meta l4proto icmpv6 accept
    }
}
"#;

/// phone 192.168.1.10, fd00:1::10 — router — far end 10.9.0.20, fd00:9::20
struct Network {
    phone: Netns,
    router: Netns,
    far: Netns,
}

impl Network {
    fn new() -> Self {
        let (phone, router, far) = (Netns::new(), Netns::new(), Netns::new());
        phone.join("eth0", &router, "lan");
        router.join("vpn", &far, "eth0");
        for (host, addresses, routers) in [
            (&phone, ["192.168.1.10/24", "fd00:1::10/64"], ["192.168.1.1", "fd00:1::1"]),
            (&far, ["10.9.0.20/24", "fd00:9::20/64"], ["10.9.0.1", "fd00:9::1"]),
        ] {
            host.run(&format!("ip address add {} dev eth0", addresses[0]));
            host.run(&format!("ip -6 address add {} dev eth0 nodad", addresses[1]));
            host.run(&format!("ip route add default via {}", routers[0]));
            host.run(&format!("ip -6 route add default via {}", routers[1]));
        }
        for (interface, four, six) in
            [("lan", "192.168.1.1/24", "fd00:1::1/64"), ("vpn", "10.9.0.1/24", "fd00:9::1/64")]
        {
            router.run(&format!("ip address add {four} dev {interface}"));
            router.run(&format!("ip -6 address add {six} dev {interface} nodad"));
        }
        router.run("sysctl -qw net.ipv4.ip_forward=1");
        router.run("sysctl -qw net.ipv6.conf.all.forwarding=1");
        router.nft(FIREWALL);
        Self { phone, router, far }
    }

    #[track_caller]
    fn done(&self, kernel: &mut Kernel, op: Op) {
        let mut outcomes = Vec::new();
        self.router.enter(|| kernel.execute(&[Command { id: CommandId::nth(1), op }], &mut outcomes));
        assert_eq!(outcomes, [Ok(Reply::Done)]);
    }

    /// The lines that conntrack has on this port.
    fn entries(&self, family: &str, port: u16) -> String {
        self.router.run(&format!("conntrack -f {family} -L -p udp --orig-port-src {port}"))
    }
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut bytes = [0; 100];
    let (length, from) = socket.recv_from(&mut bytes).expect("it arrives");
    (bytes[..length].to_vec(), from)
}

#[test]
fn f37_the_far_end_may_speak_first_where_nothing_is_translated() {
    let network = Network::new();
    let mut kernel = network.router.enter(|| {
        ruleset::install(&RulesetSettings::default()).unwrap();
        Kernel::open(&KernelSettings::default()).unwrap()
    });
    for (family, phone, far) in [
        ("ipv4", "192.168.1.10:40000", "10.9.0.20:30000"),
        ("ipv6", "[fd00:1::10]:40000", "[fd00:9::20]:30000"),
    ] {
        let (phone_socket, far_socket) = (network.phone.udp(phone), network.far.udp(far));
        let [phone, far]: [SocketAddr; 2] = [phone, far].map(|it| it.parse().unwrap());
        let flow = PinnedFlow {
            transport: sipalg::alg::Transport::Udp,
            inside: Inside(phone),
            far,
            public: Outside(phone),
            hairpin: None,
        };
        let signalling = FlowKey {
            transport: sipalg::alg::Transport::Udp,
            inside: Inside(SocketAddr::new(phone.ip(), 5060)),
            far: SocketAddr::new(far.ip(), 5060),
        };
        // The firewall is in the way.
        far_socket.send_to(b"too early", phone).unwrap();
        phone_socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        assert!(phone_socket.recv_from(&mut [0; 100]).is_err());
        phone_socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();

        network.done(&mut kernel, Op::Pin { flow, signalling });
        far_socket.send_to(b"early media", phone).unwrap();
        assert_eq!(receive(&phone_socket), (b"early media".to_vec(), far));
        phone_socket.send_to(b"answer", far).unwrap();
        assert_eq!(receive(&far_socket), (b"answer".to_vec(), phone));
        // What is there is left alone: it may have passed packets of which we know nothing.
        let before = network.entries(family, 40000);
        assert_eq!(before.lines().count(), 1, "{before}");
        network.done(&mut kernel, Op::Pin { flow, signalling });
        assert_eq!(network.entries(family, 40000).lines().count(), 1);
        network.done(&mut kernel, Op::Unpin { flow });
        assert_eq!(network.entries(family, 40000), "");
    }
}

#[test]
fn f37_an_entry_that_the_administrators_nat_made_is_not_ours_to_delete() {
    let network = Network::new();
    network.router.nft(
        "table ip nat { chain postrouting { type nat hook postrouting priority srcnat;\noifname \"vpn\" masquerade\n}\n}",
    );
    let mut kernel = network.router.enter(|| {
        ruleset::install(&RulesetSettings::default()).unwrap();
        Kernel::open(&KernelSettings::default()).unwrap()
    });
    let (phone, far) = (network.phone.udp("192.168.1.10:40000"), network.far.udp("10.9.0.20:30000"));
    phone.send_to(b"media", "10.9.0.20:30000").unwrap();
    let (_, seen) = receive(&far);
    assert_eq!(seen.ip().to_string(), "10.9.0.1", "masqueraded");
    let [inside, far_end]: [SocketAddr; 2] =
        ["192.168.1.10:40000", "10.9.0.20:30000"].map(|it| it.parse().unwrap());
    let flow = PinnedFlow {
        transport: sipalg::alg::Transport::Udp,
        inside: Inside(inside),
        far: far_end,
        public: Outside(inside),
        hairpin: None,
    };
    let signalling = FlowKey { transport: sipalg::alg::Transport::Udp, inside: Inside(inside), far: far_end };
    for op in [Op::Pin { flow, signalling }, Op::Unpin { flow }] {
        network.done(&mut kernel, op);
        far.send_to(b"back", seen).unwrap();
        assert_eq!(receive(&phone), (b"back".to_vec(), far_end));
    }
}
