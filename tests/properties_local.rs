//! Two phones behind the same NAT, by a server that knows neither of the other: they call, move, are refused and hang up
//! in any order, and are told where the other one really is (`media.local`).

mod common;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use common::cases::cases;
use common::messages::{Dialog, PROXY, answer, message, request, sdp};
use common::restart::restart;
use common::{Bench, at};
use proptest::collection::vec;
use proptest::prelude::*;
use sipalg::alg::{MediaLocal, Policy};

const PHONES: [&str; 2] = ["192.168.1.10:5060", "192.168.1.11:5060"];
const HOSTS: [&str; 2] = ["192.168.1.10", "192.168.1.11"];

/// One of the phones offers, both from these ports, which may be others than before.
#[derive(Clone, Copy, Debug)]
struct Exchange {
    offerer: usize,
    ports: [u16; 2],
    is_accepted: bool,
    rest: u64,
    /// The gateway restarts after it.
    restarts: bool,
}

fn exchange() -> impl Strategy<Value = Exchange> {
    let port = || (0..3u16).prop_map(|n| 40_000 + 2 * n);
    (
        0..2usize,
        [port(), port()],
        prop::bool::weighted(0.7),
        prop_oneof![Just(0), Just(40)],
        prop::bool::weighted(0.2),
    )
        .prop_map(|(offerer, ports, is_accepted, rest, restarts)| Exchange {
            offerer,
            ports,
            is_accepted,
            rest,
            restarts,
        })
}

struct Pair {
    bench: Bench,
    policy: Policy,
    is_direct: bool,
    /// Who called, and so has the server's first request.
    caller: usize,
    n: u32,
    /// What both have agreed on.
    ports: Option<[u16; 2]>,
}

impl Pair {
    fn new(is_direct: bool, caller: usize) -> Self {
        let media_local = if is_direct { MediaLocal::Direct } else { MediaLocal::Hairpin };
        let policy = Policy { media_local, ..Policy::default() };
        let mut bench = Bench::new(policy.clone());
        for (n, phone) in PHONES.into_iter().enumerate() {
            let (branch, call_id) = (format!("z9hG4bK-o{n}"), format!("options{n}"));
            let dialog = Dialog { branch: &branch, call_id: &call_id, ..Dialog::default() };
            let text = bench.out(phone, PROXY, request("OPTIONS", phone, 1, dialog, false, "")).text();
            let seen = bench.public(phone, PROXY);
            bench.inn(PROXY, phone, answer(&text, "200 OK", seen, "", ""));
        }
        Self { bench, policy, is_direct, caller, n: 0, ports: None }
    }

    /// A request in the dialog that the server has with this phone: who called began it.
    fn request(&self, phone: usize, by_server: bool, method: &str, body: &str) -> String {
        let (n, seen) = (self.n, self.bench.public(PHONES[phone], PROXY));
        let by_caller = (phone == self.caller) != by_server;
        let [own, other] = if by_caller { ["caller-1", "bob-1"] } else { ["bob-1", "caller-1"] };
        let other = if n > 1 { format!(";tag={other}") } else { String::new() };
        let (uri, host, rport) = if by_server {
            (format!("sip:alice@{seen}"), "22.33.44.20", "")
        } else {
            ("sip:bob@provider.example".to_owned(), PHONES[phone], ";rport")
        };
        let kind = if body.is_empty() { "" } else { "\nContent-Type: application/sdp" };
        message(
            &format!(
                "{method} {uri} SIP/2.0\nVia: SIP/2.0/UDP {host};branch=z9hG4bK-{method}{phone}-{n}{rport}\n\
                 From: <sip:one@provider.example>;tag={own}\nTo: <sip:two@provider.example>{other}\n\
                 Call-ID: call{phone}\nCSeq: {n} {method}\nContact: <sip:x@{host}>{kind}"
            ),
            body,
        )
    }

    fn exchange(&mut self, it: Exchange) {
        let is_first = self.n == 0;
        let offerer = if is_first { self.caller } else { it.offerer };
        let other = 1 - offerer;
        let is_accepted = it.is_accepted || is_first;
        self.n += 1;
        let offer = sdp(HOSTS[offerer], it.ports[offerer]);
        let asked = self.request(offerer, false, "INVITE", &offer);
        let sent = self.bench.out(PHONES[offerer], PROXY, asked).text();
        assert!(!sent.contains("192.168."), "{sent}");
        let relayed = self.request(other, true, "INVITE", &body_of(&sent));
        let got = self.bench.inn(PROXY, PHONES[other], relayed).text();
        self.assert_told(&got, offerer, it.ports[offerer]);
        let status = if is_accepted { "200 OK" } else { "488 Not Acceptable Here" };
        let reply = if is_accepted { sdp(HOSTS[other], it.ports[other]) } else { String::new() };
        let contact = format!("Contact: <sip:x@{}>\n", PHONES[other]);
        let replied = answer(&got, status, at(PROXY), &contact, &reply);
        let back = self.bench.out(PHONES[other], PROXY, replied).text();
        assert!(!back.contains("192.168."), "{back}");
        let seen = self.bench.public(PHONES[offerer], PROXY);
        let relayed = answer(&sent, status, seen, "Contact: <sip:x@22.33.44.20>\n", &body_of(&back));
        let got = self.bench.inn(PROXY, PHONES[offerer], relayed).text();
        if is_accepted {
            self.assert_told(&got, other, it.ports[other]);
            self.ports = Some(it.ports);
        }
        self.bench.advance(Duration::from_secs(it.rest));
        self.assert_ways();
        if it.restarts {
            restart(&mut self.bench, Duration::ZERO, self.policy.clone());
            self.assert_ways();
        }
    }

    /// What a phone is told of another one's media.
    fn assert_told(&self, text: &str, of: usize, port: u16) {
        let inside = at(&format!("{}:{port}", HOSTS[of]));
        let expected = if self.is_direct { inside } else { self.public(inside) };
        let line = format!("c=IN IP4 {}\r\nt=0 0\r\nm=audio {} RTP", expected.ip(), expected.port());
        assert!(text.contains(&line), "{line} in {text}");
    }

    fn public(&self, inside: SocketAddr) -> SocketAddr {
        self.bench.binding(&inside.to_string())
    }

    /// Media goes directly, or each port of one phone and the same of the other are one flow by the router.
    fn assert_ways(&self) {
        let pins = &self.bench.kernel.pins;
        if self.is_direct {
            assert!(pins.is_empty() && self.bench.kernel.peers.is_empty(), "{:?}", self.bench.kernel);
            return;
        }
        let Some(ports) = self.ports else { return };
        let ends = |offset: u16| [0, 1].map(|it: usize| at(&format!("{}:{}", HOSTS[it], ports[it] + offset)));
        let expected: BTreeSet<_> = [0, 1].map(ends).map(BTreeSet::from).into();
        let flows =
            pins.iter().map(|it| BTreeSet::from([it.inside.0, it.hairpin.expect("between phones").0]));
        assert_eq!(flows.collect::<BTreeSet<_>>(), expected, "{pins:?}");
        for pin in pins {
            let other = pin.hairpin.expect("between phones").0;
            assert_eq!((pin.public.0, pin.far), (self.public(pin.inside.0), self.public(other)));
        }
    }

    fn hang_up(mut self, by: usize) {
        self.n += 1;
        let asked = self.request(by, false, "BYE", "");
        let sent = self.bench.out(PHONES[by], PROXY, asked).text();
        let seen = self.bench.public(PHONES[by], PROXY);
        self.bench.inn(PROXY, PHONES[by], answer(&sent, "200 OK", seen, "", ""));
        let relayed = self.request(1 - by, true, "BYE", "");
        let got = self.bench.inn(PROXY, PHONES[1 - by], relayed).text();
        self.bench.out(PHONES[1 - by], PROXY, answer(&got, "200 OK", at(PROXY), "", ""));
        self.bench.advance(Duration::from_secs(70));
        self.bench.assert_all_closed();
    }
}

/// With plain newlines, as the other functions take it.
fn body_of(text: &str) -> String {
    text.split_once("\r\n\r\n").expect("the headers end").1.replace("\r\n", "\n")
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn each_is_told_where_the_other_is(
        is_direct in any::<bool>(),
        caller in 0..2usize,
        exchanges in vec(exchange(), 1..8),
        by in 0..2usize,
    ) {
        let mut pair = Pair::new(is_direct, caller);
        for exchange in exchanges {
            pair.exchange(exchange);
        }
        pair.hang_up(by);
    }
}
