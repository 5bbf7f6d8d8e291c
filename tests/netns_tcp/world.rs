//! The network: phone 192.168.1.10 — lan, router, wan 203.0.113.101 — server 203.0.113.9.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::gateway::Gateway;
use super::messages::Ends;
use super::netns::Netns;

pub(crate) const PHONE: &str = "192.168.1.10";
pub(crate) const PUBLIC: &str = "203.0.113.101";
pub(crate) const SERVER: &str = "203.0.113.9:5060";

/// What stands in the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A router.
    Plain,
    /// NAT, a firewall, and sipalg.
    Sipalg,
}

const ADMINISTRATOR: &str = r#"
table inet firewall {
    chain before {
        type filter hook prerouting priority mangle;
        ct state invalid counter comment "invalid"
    }
    chain input {
        type filter hook input priority filter; policy drop;
        iifname "lo" accept
        ct state established,related accept
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state invalid counter drop comment "invalid"
        ct state established,related accept
        iifname "lan" accept
        ct status dnat accept
    }
}
table ip nat {
    chain prerouting {
        type nat hook prerouting priority dstnat;
        iifname "wan" tcp dport 5070 dnat to 192.168.1.10:5060
    }
    chain postrouting {
        type nat hook postrouting priority srcnat;
        oifname "wan" masquerade random
    }
}
"#;

/// The network, running.
pub(crate) struct World {
    /// First, so that it ends before its namespace goes.
    pub(crate) gateway: Option<Gateway>,
    pub(crate) mode: Mode,
    pub(crate) phone: Netns,
    pub(crate) router: Netns,
    pub(crate) server: Netns,
    files: TempDir,
}

/// Both ends of a connection.
pub(crate) struct Talk {
    pub(crate) phone: TcpStream,
    pub(crate) server: TcpStream,
    pub(crate) ends: Ends,
}

impl World {
    /// With sipalg, if the mode wants it.
    pub(crate) fn new() -> Self {
        let mut world = Self::without_gateway();
        world.start();
        world
    }

    pub(crate) fn without_gateway() -> Self {
        let mode = match std::env::var("SIPALG_TCP_MODE").as_deref() {
            Err(_) | Ok("sipalg") => Mode::Sipalg,
            Ok("plain") => Mode::Plain,
            Ok(other) => panic!("SIPALG_TCP_MODE is plain or sipalg, not {other}"),
        };
        let (phone, router, server) = (Netns::new(), Netns::new(), Netns::new());
        phone.join("eth0", &router, "lan");
        router.join("wan", &server, "eth0");
        phone.run("ip address add 192.168.1.10/24 dev eth0");
        phone.run("ip route add default via 192.168.1.1");
        router.run("ip address add 192.168.1.1/24 dev lan");
        router.run("ip address add 203.0.113.101/24 dev wan");
        router.run("sysctl -qw net.ipv4.ip_forward=1");
        server.run("ip address add 203.0.113.9/24 dev eth0");
        match mode {
            Mode::Plain => {
                server.run("ip route add 192.168.1.0/24 via 203.0.113.101");
            }
            Mode::Sipalg => router.nft(ADMINISTRATOR),
        }
        let files = tempfile::tempdir().unwrap();
        Self { gateway: None, mode, phone, router, server, files }
    }

    /// Starts sipalg, if the mode wants it.
    pub(crate) fn start(&mut self) {
        if self.mode == Mode::Sipalg {
            self.gateway = Some(Gateway::start(&self.router, self.files.path()));
        }
    }

    /// Writes sipalg's configuration, for its next start or reload.
    pub(crate) fn configure(&self, text: &str) {
        fs::write(self.files.path().join("sipalg.toml"), text).unwrap();
    }

    /// Ends sipalg with a signal.
    pub(crate) fn end(&mut self, signal: &str) {
        self.gateway.take().unwrap().end(signal);
    }

    /// A connection from the phone; a port of 0 lets the system choose.
    pub(crate) fn open(&self, port: u16) -> Talk {
        let listener = self.server.listen(SERVER);
        let phone = self.phone.connect(&format!("{PHONE}:{port}"), SERVER).unwrap();
        let (server, public) = listener.accept().unwrap();
        self.talk(phone, server, public)
    }

    /// A connection from outside, by the port that the administrator forwards. The server sends from port `from`.
    pub(crate) fn open_from_outside(&self, from: u16) -> Talk {
        let listener = self.phone.listen(&format!("{PHONE}:5060"));
        let public = match self.mode {
            Mode::Plain => format!("{PHONE}:5060"),
            Mode::Sipalg => format!("{PUBLIC}:5070"),
        };
        let server = self.server.connect(&format!("203.0.113.9:{from}"), &public).unwrap();
        let (phone, _) = listener.accept().unwrap();
        self.talk(phone, server, public.parse().unwrap())
    }

    fn talk(&self, phone: TcpStream, server: TcpStream, public: SocketAddr) -> Talk {
        for end in [&phone, &server] {
            end.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            end.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
        }
        let ends = Ends { phone: phone.local_addr().unwrap(), public };
        Talk { phone, server, ends }
    }

    /// Loses packets at random: so many of a thousand, each way, before the router and behind it.
    pub(crate) fn lose(&self, before: u32, behind: u32) {
        let rule = |share: u32| {
            format!(
                "table inet loss {{ chain lossy {{ type filter hook prerouting priority -350; meta l4proto tcp numgen random mod 1000 < {share} drop\n}}\n}}"
            )
        };
        if before > 0 {
            self.router.nft(&rule(before));
        }
        if behind > 0 {
            self.phone.nft(&rule(behind));
            self.server.nft(&rule(behind));
        }
    }

    /// Lets all interfaces send and take segments of their size only, as they are on the wire.
    pub(crate) fn without_offloads(&self) {
        for (host, interfaces) in
            [(&self.phone, &["eth0"][..]), (&self.router, &["lan", "wan"]), (&self.server, &["eth0"])]
        {
            for interface in interfaces {
                host.run(&format!("ethtool -K {interface} tso off gso off gro off tx off"));
            }
        }
    }

    /// Sets a knob at both ends.
    pub(crate) fn at_both_ends(&self, knob: &str) {
        for host in [&self.phone, &self.server] {
            host.run(&format!("sysctl -qw {knob}"));
        }
    }

    /// Asserts that conntrack has found nothing invalid, and that no packet left the router untranslated.
    #[track_caller]
    pub(crate) fn assert_nothing_invalid(&self) {
        if self.mode == Mode::Plain {
            return;
        }
        let ruleset = self.router.run("nft list table inet firewall");
        let counters: Vec<_> = ruleset.lines().filter(|line| line.contains("invalid")).collect();
        assert_eq!(counters.len(), 2, "{ruleset}");
        assert!(counters.iter().all(|line| line.contains("packets 0 ")), "{counters:?}\n{}", self.log());
    }

    /// The seconds that conntrack would still keep the one established connection without a packet.
    pub(crate) fn patience(&self) -> u64 {
        let entries = self.router.run("conntrack -L -p tcp --state ESTABLISHED");
        assert_eq!(entries.lines().count(), 1, "{entries}");
        entries.split_whitespace().nth(2).and_then(|seconds| seconds.parse().ok()).expect("a number")
    }

    /// Elements of a set of sipalg's.
    pub(crate) fn elements(&self, kind: &str, name: &str) -> usize {
        let text = self.router.run(&format!("nft -j list {kind} inet sipalg {name}"));
        let listed: serde_json::Value = serde_json::from_str(&text).unwrap();
        listed["nftables"][1][kind]["elem"].as_array().map_or(0, Vec::len)
    }

    /// A file of sipalg's.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// What sipalg has said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.files.path().join("log")).unwrap_or_default()
    }
}

impl Drop for World {
    /// Says what the router knows about a test that has failed.
    #[allow(clippy::print_stderr)] // nothing else is left of it
    fn drop(&mut self) {
        if !std::thread::panicking() || self.mode == Mode::Plain {
            return;
        }
        let ask = |line| String::from_utf8_lossy(&self.router.output(line).stdout).into_owned();
        let resets = ask("nft list chain inet sipalg broken");
        let resets = resets.lines().find(|line| line.contains("counter")).unwrap_or_default().trim();
        eprintln!("{resets}\n{}{}", ask("conntrack -L -p tcp"), self.log());
    }
}
