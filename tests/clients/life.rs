//! Registrations that stay reachable, and a router whose public address changes: F12 and F15 of the harm table. The phone and
//! the provider are plain sockets here, because what matters is what the kernel does between two messages.

use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use super::gateway::Gateway;
use super::kernel;
use super::party::{Got, Party, request, sdp};
use super::wait;
use super::world::{Mode, Nat, PROXY, PUBLIC, World, inside};

/// The address that the router gets.
const NEXT: Ipv4Addr = Ipv4Addr::new(22, 33, 44, 56);
/// What everybody's public port rests, so that the tests need not wait for a minute.
const CONFIG: &str = "[media]\nquarantine = \"2s\"\n";

/// A phone, a provider and what is between them.
struct Line {
    world: World,
    phone: Party,
    provider: Party,
}

impl Line {
    fn new() -> Self {
        let world = World::configured(Nat::Masquerade, 1, CONFIG);
        let phone = Party::new(&world.phones[0], inside(0));
        let provider = Party::new(&world.outside, PROXY);
        Self { world, phone, provider }
    }

    /// The phone sends a request; what the provider gets, and from where.
    fn ask(&self, method: &str, n: u32, body: &str) -> Got {
        self.phone.ask(&self.provider, method, 1, &format!("{method}{n}"), body)
    }

    /// The provider says yes; what the phone gets.
    fn grant(&self, asked: &Got, more: &str, body: &str) -> String {
        self.provider.agree(asked, &self.phone, more, body).text
    }

    /// The router's address changes.
    fn renumber(&self) {
        self.world.router.ip(&format!("address del {PUBLIC}/24 dev wan"));
        self.world.router.ip(&format!("address add {NEXT}/24 dev wan"));
    }

    /// Asserts that nothing stands for the old address any more.
    fn assert_departed(&self) {
        wait::until("everything by the old address to go", || {
            let entries = self.world.router.run("conntrack", ["-L", "-p", "udp"]);
            let elements = kernel::elements(&self.world.router);
            let gone =
                !entries.contains(&PUBLIC.to_string()) && elements.iter().all(|(_, count)| *count == 0);
            gone.then_some(())
        });
    }
}

#[test]
fn f12_a_phone_that_registers_at_once_is_reachable_as_long_as_it_was_told() {
    let line = Line::new();
    if line.world.mode != Mode::Sipalg {
        return;
    }
    // By itself conntrack forgets it after so long.
    for knob in ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"] {
        line.world.router.sysctl(&format!("net/netfilter/{knob}"), "60");
    }
    let asked = line.ask("REGISTER", 1, "");
    let got = line.grant(&asked, "Expires: 7200\n", "");
    assert!(got.contains("Contact: <sip:a@192.168.1.10:5060>"), "{got}");
    // What comes within two seconds lowers it again.
    let asked = line.ask("OPTIONS", 1, "");
    line.grant(&asked, "", "");
    // All within milliseconds. conntrack's own rule for the first two seconds leaves it a minute or three; after that
    // the flow has what the registrar granted.
    thread::sleep(Duration::from_millis(2600));
    wait::until("the flow to have two hours", || {
        let entries = line.world.router.run("conntrack", ["-L", "-p", "udp", "--orig-port-dst", "5060"]);
        let left: u32 = entries.split_whitespace().nth(2)?.parse().ok()?;
        (left > 7000).then_some(())
    });
    // And is used by what comes in.
    let invite = request("OPTIONS", 9, "o", line.provider.address(), "")
        .replace("sip:b@provider.example SIP", &format!("sip:a@{} SIP", asked.from));
    line.provider.send(asked.from, &invite);
    assert!(line.phone.receive().text.starts_with("OPTIONS sip:a@192.168.1.10:5060 SIP/2.0\n"));
}

#[test]
fn f15_a_new_public_address_in_mid_registration_and_in_mid_call() {
    let line = Line::new();
    if line.world.mode != Mode::Sipalg {
        return;
    }
    let asked = line.ask("REGISTER", 1, "");
    assert!(asked.text.contains(&format!("Contact: <sip:a@{PUBLIC}:")), "{}", asked.text);
    // Before the answer.
    line.renumber();
    line.assert_departed();
    let asked = line.ask("REGISTER", 1, "");
    assert_eq!(asked.from.ip(), NEXT);
    assert!(asked.text.contains(&format!("Contact: <sip:a@{NEXT}:")), "{}", asked.text);
    line.grant(&asked, "Expires: 600\n", "");

    // A call, and back to the first address.
    let asked = line.ask("INVITE", 1, &sdp(inside(0), 40_000, ""));
    assert!(asked.text.contains(&format!("c=IN IP4 {NEXT}\n")), "{}", asked.text);
    line.grant(&asked, "", &sdp(PROXY, 6000, ""));
    assert_eq!(kernel::media_entries(&line.world.router).len(), 2, "RTP and RTCP are pinned");
    line.world.router.ip(&format!("address del {NEXT}/24 dev wan"));
    line.world.router.ip(&format!("address add {PUBLIC}/24 dev wan"));
    wait::until("the pinned flows to go", || {
        kernel::media_entries(&line.world.router).is_empty().then_some(())
    });
    let asked = line.ask("REGISTER", 2, "");
    assert!(asked.text.contains(&format!("Contact: <sip:a@{PUBLIC}:")), "{}", asked.text);
    let asked = line.ask("INVITE", 2, &sdp(inside(0), 40_000, ""));
    assert!(asked.text.contains(&format!("c=IN IP4 {PUBLIC}\n")), "{}", asked.text);
}

#[test]
fn an_address_that_is_renewed_takes_nothing_with_it() {
    let line = Line::new();
    if line.world.mode != Mode::Sipalg {
        return;
    }
    let asked = line.ask("INVITE", 1, &sdp(inside(0), 40_000, ""));
    line.grant(&asked, "", &sdp(PROXY, 6000, ""));
    assert_eq!(kernel::media_entries(&line.world.router).len(), 2);
    line.world.router.ip(&format!("address replace {PUBLIC}/24 dev wan valid_lft 3600 preferred_lft 3600"));
    line.world.router.ip("link set wan down");
    line.world.router.ip("link set wan up");
    // A message that is seen after the events proves that they were read.
    let asked = line.ask("OPTIONS", 7, "");
    assert_eq!(asked.from.ip(), PUBLIC);
    assert_eq!(kernel::media_entries(&line.world.router).len(), 2);
    assert!(kernel::elements(&line.world.router).iter().any(|(_, count)| *count > 0));
}

#[test]
fn an_address_that_changed_while_sipalg_was_down_takes_its_calls_with_it() {
    let mut line = Line::new();
    if line.world.mode != Mode::Sipalg {
        return;
    }
    let asked = line.ask("INVITE", 1, &sdp(inside(0), 40_000, ""));
    line.grant(&asked, "", &sdp(PROXY, 6000, ""));
    assert_eq!(kernel::media_entries(&line.world.router).len(), 2);
    line.world.gateway().end("TERM");
    line.renumber();
    assert_eq!(kernel::media_entries(&line.world.router).len(), 2, "nobody else ends them");
    line.world.gateway = Some(Gateway::start(&line.world.router, CONFIG));
    line.assert_departed();
    let asked = line.ask("INVITE", 2, &sdp(inside(0), 40_000, ""));
    assert!(asked.text.contains(&format!("c=IN IP4 {NEXT}\n")), "{}", asked.text);
}
