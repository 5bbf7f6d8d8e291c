//! Media over TCP with the whole program in a router: a real connection by the door, for who was negotiated and for nobody
//! else, through a firewall that lets in only what is established. Needs root.

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
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use gateway::Gateway;
use messages::{Dialog, answer, request};
use netns::{Netns, eventually};
use serde_json::Value;
use tempfile::TempDir;

const PHONE: &str = "192.168.1.10:5060";
const SERVER: &str = "203.0.113.9:5060";
/// Where the phone waits.
const WAITS: &str = "192.168.1.10:2855";
const SIPALG: &str = env!("CARGO_BIN_EXE_sipalg");

/// What comes from outside has to be established, and what makes no sense is dropped.
const ESTABLISHED: &str = r#"
table inet firewall {
    chain input { type filter hook input priority filter; policy drop; ct state established,related accept; }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state invalid counter drop
        ct state established,related accept
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
    sip: [UdpSocket; 2],
}

/// A call that is up, with a door.
struct Call {
    /// How the server knows the phone.
    known_as: SocketAddr,
    /// The public endpoint of the door.
    public: String,
}

impl Network {
    fn new(rules: &str) -> Self {
        let [phone, router, far] = Netns::phone_router_far();
        router.nft(rules);
        let sip = [phone.udp(PHONE), far.udp(SERVER)];
        Self { phone, router, far, dir: tempfile::tempdir().unwrap(), sip }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start(&self, media: &str) -> Gateway {
        let text = format!("user = \"none\"\n[log]\nlevel = \"debug\"\n[media]\n{media}\n");
        fs::write(self.path("sipalg.toml"), text).unwrap();
        Gateway::start(&self.router, self.dir.path())
    }

    /// What the program tells of itself.
    fn ask(&self, what: &str) -> Value {
        let text = self
            .router
            .run(&format!("{SIPALG} {what} --json --socket {}", self.path("control.sock").display()));
        serde_json::from_str(&text).unwrap()
    }

    /// The phone calls, and says that it waits; the far end answers that it connects. What the far end got, and by whom.
    fn offers(&self, dialog: Dialog<'_>, cseq: u32) -> (String, SocketAddr) {
        let [phone, server] = &self.sip;
        let invite = request("INVITE", PHONE, cseq, dialog, cseq > 1, &msrp("192.168.1.10", 2855, "actpass"));
        phone.send_to(invite.as_bytes(), SERVER).unwrap();
        receive(server)
    }

    fn call(&self) -> Call {
        let [phone, server] = &self.sip;
        let (heard, known_as) = self.offers(dialog("z9hG4bK-1"), 1);
        let port = heard.split("m=message ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
        let public = format!("203.0.113.1:{port}");
        let text = msrp("203.0.113.1", port.parse().unwrap(), "actpass").replace('\n', "\r\n");
        assert_eq!(heard.split_once("\r\n\r\n").unwrap().1, text);
        let contact = "Contact: <sip:bob@203.0.113.9>\n";
        let ok = answer(&heard, "200 OK", known_as, contact, &msrp("203.0.113.9", 9, "active"));
        server.send_to(ok.as_bytes(), known_as).unwrap();
        receive(phone);
        Call { known_as, public }
    }

    fn hang_up(&self, call: &Call) {
        let [phone, server] = &self.sip;
        let bye = request("BYE", PHONE, 9, dialog("z9hG4bK-9"), true, "");
        phone.send_to(bye.as_bytes(), SERVER).unwrap();
        let (heard, _) = receive(server);
        server.send_to(answer(&heard, "200 OK", call.known_as, "", "").as_bytes(), call.known_as).unwrap();
        receive(phone);
    }

    /// Conntrack's entries of connections to the public endpoint.
    fn entries(&self, public: &str) -> Vec<String> {
        let port = format!("dport={}", public.rsplit_once(':').unwrap().1);
        let text = self.router.run("conntrack -L -p tcp -o extended");
        text.lines().filter(|line| line.split_whitespace().any(|it| it == port)).map(str::to_owned).collect()
    }

    /// What the guard has kept out.
    fn kept_out(&self) -> u64 {
        let text = self.router.run("nft list chain inet sipalg guard");
        let line = text.lines().find(|line| line.contains("@owned4")).unwrap();
        let mut words = line.split_whitespace().skip_while(|word| *word != "packets");
        words.nth(1).unwrap().parse().unwrap()
    }

    /// Nobody at this address gets through.
    #[track_caller]
    fn assert_kept_out(&self, from: &str, public: &str) {
        let before = self.kept_out();
        let refused = self.far.connect_within(from, public, Duration::from_secs(3));
        assert!(refused.is_err(), "{from} got through: {refused:?}");
        assert!(self.kept_out() > before, "it was the guard that kept it out");
    }
}

fn dialog(branch: &str) -> Dialog<'_> {
    Dialog { branch, ..Dialog::default() }
}

fn msrp(ip: &str, port: u16, role: &str) -> String {
    format!(
        "v=0\no=- 1 1 IN IP4 {ip}\ns=-\nc=IN IP4 {ip}\nt=0 0\nm=message {port} TCP/MSRP *\n\
         a=accept-types:text/plain\na=setup:{role}\na=path:msrp://{ip}:{port}/session;tcp\n"
    )
}

fn receive(socket: &UdpSocket) -> (String, SocketAddr) {
    let mut buffer = [0; 4096];
    let (length, from) = socket.recv_from(&mut buffer).expect("a datagram within 20 s");
    (String::from_utf8_lossy(&buffer[..length]).into_owned(), from)
}

fn accepted(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let (stream, from) = listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
    (stream, from)
}

/// Bytes that repeat late, so that none can be missing unnoticed.
fn bytes(seed: u32) -> Vec<u8> {
    (0..300_000u32).map(|n| (n.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 13) as u8).collect()
}

/// Both ends send at once, and get every byte of the other.
fn talk(one: &mut TcpStream, other: &mut TcpStream) {
    let all = |reader: &mut TcpStream, expected: &[u8]| {
        let mut got = vec![0; expected.len()];
        reader.read_exact(&mut got).unwrap();
        assert!(got == expected, "other bytes came");
    };
    let (mut to_one, mut to_other) = (other.try_clone().unwrap(), one.try_clone().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(move || to_other.write_all(&bytes(1)).unwrap());
        scope.spawn(move || to_one.write_all(&bytes(2)).unwrap());
        scope.spawn(|| all(other, &bytes(1)));
        all(one, &bytes(2));
    });
}

#[test]
fn who_was_negotiated_connects_and_nobody_else_and_not_for_longer_than_the_call() {
    let network = Network::new(ESTABLISHED);
    // Two programs of the router have the first ports; no door may take those from them.
    let _theirs = [network.router.listen("0.0.0.0:16385"), network.router.listen("203.0.113.1:16387")];
    let _sipalg = network.start("tcp = true\nsource = \"any\"");
    let waits = network.phone.listen(WAITS);
    let call = network.call();
    assert_eq!(call.public, "203.0.113.1:16389", "the first of the phone's parity that is free");
    network.assert_kept_out("203.0.113.10:50000", &call.public);

    let mut far = network.far.connect("203.0.113.9:50000", &call.public).expect("the door is open");
    let (mut phone, from) = accepted(&waits);
    assert_eq!(from, "203.0.113.9:50000".parse().unwrap());
    talk(&mut far, &mut phone);
    let entries = network.entries(&call.public);
    assert!(entries.len() == 1 && entries[0].contains("ESTABLISHED"), "{entries:?}");
    // A second one of the same far end, and still nobody else.
    let mut second = network.far.connect("203.0.113.9:0", &call.public).expect("the door is still open");
    let (mut other, _) = accepted(&waits);
    talk(&mut second, &mut other);
    network.assert_kept_out("203.0.113.10:50000", &call.public);

    let bindings = network.ask("bindings");
    let binding = &bindings["entries"][0];
    assert_eq!((&binding["transport"], &binding["inside"]), (&"tcp".into(), &WAITS.into()), "{bindings}");
    assert_eq!(binding["admitted"][0], "203.0.113.9");
    let calls = network.ask("calls");
    let stream = &calls["entries"][0]["dialogs"][0]["streams"][0];
    assert_eq!((&stream["kind"], &stream["far"]), (&"tcp".into(), &"203.0.113.9".into()), "{calls}");
    // Both connections, 300,000 bytes each way in each.
    assert!(stream["traffic"]["bytes_in"].as_u64().unwrap() > 600_000, "{calls}");
    assert!(stream["traffic"]["bytes_out"].as_u64().unwrap() > 600_000, "{calls}");

    network.hang_up(&call);
    eventually("the door is closed", || network.entries(&call.public).is_empty());
    network.assert_kept_out("203.0.113.9:50001", &call.public);
    assert_eq!(network.ask("bindings")["entries"].as_array().unwrap().len(), 0);
    let maps = network.router.run("nft list map inet sipalg inbound4");
    assert!(!maps.contains("elements"), "{maps}");
}

#[test]
fn a_connection_does_not_notice_a_restart_and_ends_with_its_call() {
    let network = Network::new(ESTABLISHED);
    let sipalg = network.start("tcp = true");
    let waits = network.phone.listen(WAITS);
    let call = network.call();
    let mut far = network.far.connect("203.0.113.9:50000", &call.public).expect("the door is open");
    let (mut phone, _) = accepted(&waits);
    talk(&mut far, &mut phone);
    sipalg.end("TERM");
    talk(&mut far, &mut phone);
    let _sipalg = network.start("tcp = true");
    talk(&mut far, &mut phone);
    // Whoever connects anew is known again, and who is not, is not.
    let mut second = network.far.connect("203.0.113.9:0", &call.public).expect("the door is still open");
    talk(&mut second, &mut accepted(&waits).0);
    network.assert_kept_out("203.0.113.10:50000", &call.public);
    network.hang_up(&call);
    eventually("all connections are gone", || network.entries(&call.public).is_empty());
    network.assert_kept_out("203.0.113.9:50001", &call.public);
}

#[test]
fn a_rule_of_the_administrators_lets_connections_in() {
    let rule = "iifname \"wan\" ct status dnat accept\n        iifname \"lan\" accept";
    let network = Network::new(&ESTABLISHED.replace("iifname \"lan\" accept", rule));
    let _sipalg = network.start("tcp = true\nadmission = \"rule\"");
    let waits = network.phone.listen(WAITS);
    let call = network.call();
    network.assert_kept_out("203.0.113.10:50000", &call.public);
    let mut far = network.far.connect("203.0.113.9:50000", &call.public).expect("the door is open");
    talk(&mut far, &mut accepted(&waits).0);
    network.hang_up(&call);
    eventually("the door is closed", || {
        network.router.run("nft list set inet sipalg peers4").find("elements").is_none()
    });
    network.assert_kept_out("203.0.113.9:50001", &call.public);
}

#[test]
fn without_the_key_nothing_is_opened() {
    let network = Network::new(ESTABLISHED);
    let _sipalg = network.start("");
    let _waits = network.phone.listen(WAITS);
    let (heard, known_as) = network.offers(dialog("z9hG4bK-1"), 1);
    let written = msrp("192.168.1.10", 2855, "actpass").replacen("IP4 192.168.1.10", "IP4 203.0.113.1", 1);
    assert_eq!(
        heard.split_once("\r\n\r\n").unwrap().1,
        written.replace('\n', "\r\n"),
        "all but o= as it came"
    );
    let ok = answer(
        &heard,
        "200 OK",
        known_as,
        "Contact: <sip:bob@203.0.113.9>\n",
        &msrp("203.0.113.9", 9, "active"),
    );
    network.sip[1].send_to(ok.as_bytes(), known_as).unwrap();
    receive(&network.sip[0]);
    for set in ["map inet sipalg inbound4", "set inet sipalg owned4", "set inet sipalg peers4"] {
        let listed = network.router.run(&format!("nft list {set}"));
        assert!(!listed.contains("elements"), "{listed}");
    }
    assert!(
        network.far.connect_within("203.0.113.9:50000", "203.0.113.1:2855", Duration::from_secs(2)).is_err()
    );
}
