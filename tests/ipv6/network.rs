//! phone — router with a firewall and sipalg — far end, each with both families.

use std::fs;
use std::net::{SocketAddr, UdpSocket};

use tempfile::TempDir;

use super::gateway::Gateway;
use super::netns::Netns;

/// The phone's address of the kind that everybody can reach.
pub(crate) const OWN: &str = "2001:db8:1::10";
/// The phone's unique local address.
pub(crate) const LOCAL: &str = "fd00:1::10";
/// The router's outer address.
pub(crate) const PUBLIC: &str = "2001:db8:9::1";
/// The provider.
pub(crate) const FAR: &str = "2001:db8:9::20";
/// Its media server.
pub(crate) const MEDIA: &str = "2001:db8:9::22";
/// Somebody else.
pub(crate) const STRANGER: &str = "2001:db8:9::66";

const FIREWALL: &str = r#"
table inet firewall {
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname "lan" oifname "wan" accept
    }
}
"#;

const PROGRAM: &str = env!("CARGO_BIN_EXE_sipalg");

/// The network, running.
pub(crate) struct Network {
    sipalg: Gateway,
    pub(crate) phone: Netns,
    pub(crate) router: Netns,
    pub(crate) far: Netns,
    dir: TempDir,
}

impl Network {
    /// A router with these NAT rules.
    pub(crate) fn new(nat: &str) -> Self {
        Self::configured(nat, "")
    }

    /// A router with these NAT rules and this file for sipalg.
    pub(crate) fn configured(nat: &str, config: &str) -> Self {
        let (phone, router, far) = (Netns::new(), Netns::new(), Netns::new());
        phone.join("eth0", &router, "lan");
        router.join("wan", &far, "eth0");
        for (host, interface, addresses) in [
            (&phone, "eth0", &["192.168.1.10/24", "fd00:1::10/64", "2001:db8:1::10/64"][..]),
            (&router, "lan", &["192.168.1.1/24", "fd00:1::1/64", "2001:db8:1::1/64"]),
            (&router, "wan", &["22.33.44.55/24", "2001:db8:9::1/64"]),
            (
                &far,
                "eth0",
                &["22.33.44.20/24", "2001:db8:9::20/64", "2001:db8:9::22/64", "2001:db8:9::66/64"],
            ),
        ] {
            for address in addresses {
                let nodad = if address.contains("::") { " nodad" } else { "" };
                host.run(&format!("ip address add {address} dev {interface}{nodad}"));
            }
        }
        phone.run("ip route add default via 192.168.1.1");
        phone.run("ip -6 route add default via fd00:1::1");
        // What is routed to this site: its own prefix, and the one that NPTv6 shows instead of the local one.
        far.run("ip -6 route add 2001:db8:1::/64 via 2001:db8:9::1");
        far.run("ip -6 route add 2001:db8:8::/64 via 2001:db8:9::1");
        router.run("sysctl -qw net.ipv4.ip_forward=1");
        router.run("sysctl -qw net.ipv6.conf.all.forwarding=1");
        router.nft(FIREWALL);
        if !nat.is_empty() {
            router.nft(nat);
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("sipalg.toml"), config).unwrap();
        let sipalg = Gateway::start(&router, dir.path());
        Self { sipalg, phone, router, far, dir }
    }

    /// What sipalg has counted under this name.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let socket = self.dir.path().join("control.sock");
        let asked = self.router.run(&format!("{PROGRAM} status --json --socket {}", socket.display()));
        let status: serde_json::Value = serde_json::from_str(&asked).unwrap();
        let counters = status["counters"].as_array().unwrap();
        let counter = counters.iter().find(|counter| counter["name"] == name);
        counter.map_or(0, |counter| counter["count"].as_u64().unwrap())
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// How many elements the maps have that lead inside.
    pub(crate) fn pinholes(&self) -> usize {
        let count = |map: &str| {
            let listing = self.router.run(&format!("nft list map inet sipalg {map}"));
            listing.matches(" : ").count().saturating_sub(1)
        };
        count("inbound4") + count("inbound6")
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- sipalg:\n{}", self.log());
        }
    }
}

/// An endpoint as text.
pub(crate) fn host_port(host: &str, port: u16) -> String {
    SocketAddr::new(host.parse().unwrap(), port).to_string()
}

pub(crate) fn say(from: &UdpSocket, text: &str, to: &str) {
    from.send_to(text.as_bytes(), to.parse::<SocketAddr>().unwrap()).unwrap();
}

#[track_caller]
pub(crate) fn hear(at: &UdpSocket) -> (String, SocketAddr) {
    let mut buffer = vec![0; 65_536];
    let (length, from) = at.recv_from(&mut buffer).expect("it arrives");
    (String::from_utf8(buffer[..length].to_vec()).unwrap(), from)
}
