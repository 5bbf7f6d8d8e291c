//! How media gets through the administrator's own filter, with the whole program in a router: by a rule of his, and what
//! `sipalg check` says of the way in force. Needs root.

#![allow(clippy::unwrap_used)] // clippy knows tests by their attribute only, not their helpers

#[path = "common/gateway.rs"]
mod gateway;
#[allow(dead_code, unreachable_pub)] // others use more of it
#[path = "common/messages.rs"]
mod messages;
#[path = "common/netns.rs"]
mod netns;
#[path = "common/notices.rs"]
mod notices;

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use gateway::Gateway;
use messages::{Dialog, answer, request, sdp};
use netns::{Netns, eventually};
use sipalg::alg::Admission;
use sipalg::kernel::admission::{self, Wanted};
use tempfile::TempDir;

const PHONE: &str = "192.168.1.10:5060";
const SERVER: &str = "203.0.113.9:5060";
const SIPALG: &str = env!("CARGO_BIN_EXE_sipalg");

/// Nothing is let in by being related; a flow that nobody has begun from inside passes if it is translated to somebody,
/// and is counted.
const BY_RULE: &str = r#"
table inet firewall {
    chain input { type filter hook input priority filter; policy drop; ct state established accept; }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established accept
        iifname "wan" ct status dnat counter accept
        iifname "lan" accept
    }
}
table ip nat {
    chain postrouting { type nat hook postrouting priority srcnat; oifname "wan" masquerade random; }
}
"#;

/// phone 192.168.1.10 — lan 192.168.1.1 router 203.0.113.1 wan — far 203.0.113.9 and .10
struct Network {
    phone: Netns,
    router: Netns,
    far: Netns,
    dir: TempDir,
}

impl Network {
    fn new() -> Self {
        let [phone, router, far] = Netns::phone_router_far();
        Self { phone, router, far, dir: tempfile::tempdir().unwrap() }
    }

    /// A configuration with this way of admission.
    fn configure(&self, way: &str) -> String {
        let file = self.dir.path().join("sipalg.toml");
        fs::write(&file, format!("user = \"none\"\n[media]\nadmission = \"{way}\"\n")).unwrap();
        file.display().to_string()
    }

    fn start(&self, way: &str) -> Gateway {
        self.configure(way);
        Gateway::start(&self.router, self.dir.path())
    }

    fn entries(&self, word: &str) -> Vec<String> {
        let text = self.router.run("conntrack -L -p udp");
        text.lines().filter(|line| line.split_whitespace().any(|it| it == word)).map(str::to_owned).collect()
    }

    /// Flows that the administrator's rule has let in.
    fn let_in(&self) -> u64 {
        let text = self.router.run("nft list chain inet firewall forward");
        let line = text.lines().find(|line| line.contains("ct status dnat")).unwrap();
        let mut words = line.split_whitespace().skip_while(|word| *word != "packets");
        words.nth(1).unwrap().parse().unwrap()
    }

    /// The line of `sipalg check` about admission, and the exit code.
    fn check(&self, way: &str) -> (String, Option<i32>) {
        let output = self.router.output(&format!("{SIPALG} check --config {}", self.configure(way)));
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().find(|line| line.split_whitespace().nth(1) == Some("admission"));
        let line = line.unwrap_or_else(|| panic!("a line about admission in {text}"));
        (line.split_whitespace().collect::<Vec<_>>().join(" "), output.status.code())
    }
}

fn receive(socket: &UdpSocket) -> (String, SocketAddr) {
    let mut buffer = [0; 2048];
    let (length, from) = socket.recv_from(&mut buffer).expect("a datagram within 20 s");
    (String::from_utf8_lossy(&buffer[..length]).into_owned(), from)
}

#[test]
fn a_rule_of_the_administrators_lets_media_in_and_conntrack_holds_what_packets_have_made() {
    let network = Network::new();
    network.router.nft(BY_RULE);
    let _sipalg = network.start("rule");
    let [phone, rtp] = [PHONE, "192.168.1.10:40000"].map(|at| network.phone.udp(at));
    let [server, far, stranger] =
        [SERVER, "203.0.113.9:30000", "203.0.113.10:3333"].map(|at| network.far.udp(at));
    let dialog = |branch| Dialog { branch, ..Dialog::default() };

    let invite = request("INVITE", PHONE, 1, dialog("z9hG4bK-1"), false, &sdp("192.168.1.10", 40000));
    phone.send_to(invite.as_bytes(), SERVER).unwrap();
    let (heard, known_as) = receive(&server);
    let port = heard.split("m=audio ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    let public: SocketAddr = format!("203.0.113.1:{port}").parse().unwrap();
    let contact = "Contact: <sip:bob@203.0.113.9>\n";
    let ok = answer(&heard, "200 OK", known_as, contact, &sdp("203.0.113.9", 30000));
    server.send_to(ok.as_bytes(), known_as).unwrap();
    receive(&phone);
    let named = format!("dport={port}");
    assert_eq!(network.entries(&named), [""; 0], "nobody has sent any media");

    // The far end speaks first, after somebody who has no part in it; not one packet of the far end is lost.
    stranger.send_to(b"stranger", public).unwrap();
    far.send_to(b"hello", public).unwrap();
    assert_eq!(receive(&rtp), ("hello".to_owned(), "203.0.113.9:30000".parse().unwrap()));
    assert_eq!((network.let_in(), network.entries(&named).len()), (1, 1));
    rtp.send_to(b"hello yourself", "203.0.113.9:30000").unwrap();
    assert_eq!(receive(&far), ("hello yourself".to_owned(), public));

    let bye = request("BYE", PHONE, 2, dialog("z9hG4bK-2"), true, "");
    phone.send_to(bye.as_bytes(), SERVER).unwrap();
    let (heard, _) = receive(&server);
    server.send_to(answer(&heard, "200 OK", known_as, "", "").as_bytes(), known_as).unwrap();
    receive(&phone);
    eventually("the call's entry is gone", || network.entries(&named).is_empty());
    far.send_to(b"late", public).unwrap();
    rtp.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    assert!(rtp.recv_from(&mut [0; 100]).is_err(), "the door is closed");
    assert_eq!(network.let_in(), 1);
}

#[test]
fn check_names_the_way_in_force_and_why() {
    let network = Network::new();
    let (line, code) = network.check("rule");
    let remedy = "your filter has to accept packets from outside with `ct status dnat`";
    assert_eq!((line, code), (format!("note admission rule: media.admission says so; {remedy}"), Some(0)));
    assert_eq!(network.check("pinned"), ("ok admission pinned: media.admission says so".to_owned(), Some(0)));
    let (auto, code) = network.check("auto");
    let (wanted, problem) = network.check("expectation");
    assert_eq!(code, Some(0));
    // What this kernel can do is found out by asking it.
    match network.router.enter(|| admission::choose(Wanted::Auto)).0 {
        Admission::Expectation => {
            assert!(
                auto.starts_with("ok admission expectation: media before an answer is expected"),
                "{auto}"
            );
            assert_eq!(wanted, "ok admission expectation: media.admission says so");
            assert_eq!(problem, Some(0));
        }
        _ => {
            assert!(
                auto.starts_with("ok admission pinned: this kernel has no conntrack helpers in user space"),
                "{auto}"
            );
            assert!(
                wanted.starts_with("problem admission media.admission = \"expectation\" is not possible:"),
                "{wanted}"
            );
            assert_ne!(problem, Some(0));
        }
    }
}
