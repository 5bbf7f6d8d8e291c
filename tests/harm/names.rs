//! Texts that look the same from outside: each must come back as what the phone wrote, or not be mapped at all.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use sipalg::alg::{Policy, Prefix, Reason, Transport, Tuples};

use crate::PUBLIC;
use crate::common::cases::cases;
use crate::common::messages::{PHONE, PROXY, answer, message};
use crate::common::{Bench, LAN, WAN, at, packet};

const FAR: &str = "Via: SIP/2.0/UDP 22.33.44.20";

/// A request from the far end; `to` is what follows the URI in To.
fn asks(method: &str, uri: &str, call: &str, to: &str, more: &str) -> String {
    message(
        &format!(
            "{method} {uri} SIP/2.0\n{FAR};branch=z9hG4bK-{call}\nFrom: <sip:bob@provider.example>;tag=bob-1\n\
             To: <sip:alice@provider.example>{to}\nCall-ID: {call}\nCSeq: 1 {method}\n{more}"
        ),
        "",
    )
}

/// A request of the phone with these lines.
fn says(method: &str, call: &str, more: &str) -> String {
    message(
        &format!(
            "{method} sip:provider.example SIP/2.0\nVia: SIP/2.0/UDP {PHONE};branch=z9hG4bK-{call};rport\n\
             From: <sip:alice@provider.example>;tag=a\nTo: <sip:bob@provider.example>\nCall-ID: {call}\n\
             CSeq: 1 {method}\n{more}"
        ),
        "",
    )
}

/// The far end calls the router's own address, which the administrator forwards to the phone.
fn forwarded(bench: &mut Bench, text: &str) -> String {
    let tuples = Tuples {
        transport: Transport::Udp,
        orig_source: at(PROXY),
        orig_destination: at("22.33.44.55:5060"),
        reply_source: at(PHONE),
        reply_destination: at(PROXY),
    };
    bench.nat(PHONE, PROXY, "22.33.44.55:5060").track(PHONE, PROXY);
    bench.behind_nat(tuples, WAN, LAN, &packet(at(PROXY), at(PHONE), text.as_bytes())).text()
}

#[test]
fn f13_a_trunk_is_called_where_it_has_registered() {
    // The Contact tells it, not the Via; with or without a user (RFC 6140), for whatever number.
    for contact in ["sip:192.168.1.10:5070;bnc", "sip:trunk1@192.168.1.10:5070"] {
        let mut bench = Bench::default();
        let tls = format!("<{contact}>, <sip:trunk1@192.168.1.10:5071;transport=tls>");
        let sent = bench.out(PHONE, PROXY, says("REGISTER", "register", &format!("Contact: {tls}"))).text();
        let granted = tls.replace("192.168.1.10:5070", PUBLIC).replace("192.168.1.10:5071", PUBLIC);
        assert!(sent.contains(&granted), "{sent}");
        let granted = format!("Contact: {granted}\nExpires: 600\n");
        bench.inn(PROXY, PHONE, answer(&sent, "200 OK", at(PUBLIC), &granted, ""));
        let invite = |host: &str| asks("INVITE", &format!("sip:+4930123@{host}"), "trunk", "", "");
        assert_eq!(bench.inn(PROXY, PHONE, invite(PUBLIC)).text(), invite("192.168.1.10:5070"));
    }
}

#[test]
fn f10_who_calls_a_forwarded_port_keeps_what_the_digest_was_made_over() {
    let mut bench = Bench::default();
    let uri = "sip:100@22.33.44.55:5060";
    let asked = |uri: &str, branch: &str, to: &str, more: &str| {
        asks("INVITE", uri, "forwarded", to, more).replace("z9hG4bK-forwarded", &format!("z9hG4bK-{branch}"))
    };
    let first = asked(uri, "1", "", "");
    assert_eq!(forwarded(&mut bench, &first), first);
    let contact = format!("Contact: <sip:100@{PHONE}>\n");
    let sent = bench.out(PHONE, PROXY, answer(&first, "401 Unauthorized", at(PROXY), &contact, "")).text();
    assert!(sent.contains("Contact: <sip:100@22.33.44.55>\r\n") || sent.contains(uri), "{sent}");
    // In a dialog too: whoever asks for the password compares the two.
    let digest = format!("Authorization: Digest username=\"b\", uri=\"{uri}\", response=\"0\"");
    for (branch, to) in [("2", ""), ("3", ";tag=bob-1")] {
        let second = asked(uri, branch, to, &digest);
        assert_eq!(bench.inn(PROXY, PHONE, &second).text(), second);
    }
    // Without one it is the Contact that is meant.
    let inside = format!("sip:100@{PHONE}");
    assert_eq!(bench.inn(PROXY, PHONE, asked(uri, "4", "", "")).text(), asked(&inside, "4", "", ""));
}

#[test]
fn f08_two_sockets_of_one_proxy_are_told_apart() {
    // A proxy between two of its UDP ports writes both into the route set, and nothing else differs.
    let [own, other] = ["<sip:192.168.1.10:5060;r2=on;lr>", "<sip:192.168.1.10:5070;r2=on;lr>"];
    for (first, second) in [(own, other), (other, own)] {
        let mut bench = Bench::default();
        let route = |name: &str| format!("{name}: {first}, {second}");
        let outside = |name: &str| route(name).replace(PHONE, PUBLIC);
        let sent = bench.out(PHONE, PROXY, says("INVITE", "r2", &route("Record-Route"))).text();
        let expected = says("INVITE", "r2", &outside("Record-Route"));
        assert_eq!(sent, expected.replacen(PHONE, PUBLIC, 1));
        let bye = |route: &str| asks("BYE", "sip:alice@client.example", "r2", ";tag=a", route);
        assert_eq!(bench.inn(PROXY, PHONE, bye(&outside("Route"))).text(), bye(&route("Route")));
    }
}

#[test]
fn f13_several_contacts_of_one_user_come_back_to_the_letter() {
    let mut bench = Bench::default();
    let contacts = "<sip:alice@192.168.1.10:5060>;q=0.5, <sip:alice@192.168.1.10:5061;transport=tls>,\
                    \"A, <b>\" <sips:alice@192.168.1.10>, <sip:alice@192.168.1.10:5070>, <sip:alice@192.168.1.10:5060;transport=tcp>";
    let line = format!("Contact: {contacts}\n");
    for _ in 0..2 {
        let sent = bench.out(PHONE, PROXY, says("REGISTER", "several", &line)).text();
        let (_, echoed) = sent.split_once("Contact: ").unwrap();
        let echoed = echoed.split("\r\n").next().unwrap();
        assert_eq!(echoed.matches(PUBLIC).count(), 4, "{echoed}");
        assert!(echoed.contains("<sip:alice@192.168.1.10:5070>"), "{echoed}");
        let granted = answer(&sent, "200 OK", at(PUBLIC), &format!("Contact: {echoed}\n"), "");
        let got = bench.inn(PROXY, PHONE, granted).text();
        assert!(got.contains(line.trim_end()), "{got}");
    }
}

#[test]
fn f13_a_port_that_changes_is_not_mixed_up_with_one_that_stays() {
    // The TLS socket moves; what names no transport has not changed.
    let mut bench = Bench::default();
    for tls in [5060, 5061] {
        let both = format!("Contact: <sip:alice@{PHONE}>, <sip:alice@192.168.1.10:{tls};transport=tls>");
        bench.out(PHONE, PROXY, says("REGISTER", "moves", &both));
    }
    let ask = |uri: &str| asks("OPTIONS", uri, "ask", "", "");
    let got = bench.inn(PROXY, PHONE, ask(&format!("sip:alice@{PUBLIC}"))).text();
    assert_eq!(got, ask(&format!("sip:alice@{PHONE}")));
}

#[test]
fn f08_namesakes_behind_one_proxy_get_each_their_own_calls() {
    let inside_hosts = vec![Prefix { address: "192.168.1.0".parse().unwrap(), bits: 24 }];
    let mut bench = Bench::new(Policy { inside_hosts, ..Policy::default() });
    let hosts = ["192.168.1.20:5060", "192.168.1.21", "192.168.1.20:5062"];
    let call = |n: usize| format!("namesake{n}");
    let lines = |host: &str| format!("Record-Route: <sip:{PHONE};lr>\nContact: <sip:alice@{host}>");
    for (n, host) in hosts.iter().enumerate() {
        let sent = bench.out(PHONE, PROXY, says("INVITE", &call(n), &lines(host))).text();
        assert!(sent.contains(&format!("Contact: <sip:alice@{PUBLIC}>")), "{sent}");
    }
    // One call that rings at two of them.
    let invite = asks("INVITE", "sip:alice@provider.example", "fork", "", "");
    bench.inn(PROXY, PHONE, &invite);
    for (n, host) in hosts.iter().enumerate() {
        let ringing = answer(&invite, "180 Ringing", at(PROXY), &format!("{}\n", lines(host)), "");
        bench.out(PHONE, PROXY, ringing.replace(";tag=bob-1", &format!(";tag=fork{n}")));
    }
    // Pings and refreshes in between change nothing.
    for n in 0..600 {
        let contact = format!("Contact: <sip:alice@{}>", hosts[n % 3]);
        bench.out(PHONE, PROXY, says("OPTIONS", &format!("ping{n}"), &contact));
        bench.out(PHONE, PROXY, says("REGISTER", "refresh", &contact).replace("tag=a", &format!("tag={n}")));
    }
    for (n, host) in hosts.iter().enumerate() {
        for (call, tag) in [(call(n), "a".to_owned()), ("fork".to_owned(), format!("fork{n}"))] {
            let bye = |uri: &str, route: &str| {
                let branch = format!("z9hG4bK-bye{n}{call}");
                asks(
                    "BYE",
                    &format!("sip:alice@{uri}"),
                    &call,
                    &format!(";tag={tag}"),
                    &format!("Route: <sip:{route};lr>"),
                )
                .replace(&format!("z9hG4bK-{call}"), &branch)
            };
            assert_eq!(bench.inn(PROXY, PHONE, bye(PUBLIC, PUBLIC)).text(), bye(host, PHONE));
        }
    }
}

#[test]
fn f07_a_user_whom_too_many_have_followed_still_gets_requests_in_its_dialogs() {
    let mut bench = Bench::default();
    for n in 0..600 {
        let contact = format!("Contact: <sip:user{n}@{PHONE}>");
        let sent = bench.out(PHONE, PROXY, says("INVITE", &format!("call{n}"), &contact)).text();
        bench.inn(PROXY, PHONE, answer(&sent, "200 OK", at(PUBLIC), "", ""));
    }
    for n in [0, 1, 87, 88, 300, 599] {
        let bye = |host: &str| asks("BYE", &format!("sip:user{n}@{host}"), &format!("call{n}"), ";tag=a", "");
        let got = bench.inn(PROXY, PHONE, bye(PUBLIC));
        assert_eq!((got.text(), got.reason), (bye(PHONE), Reason::Rewritten), "{n}");
    }
}

/// A URI in a Contact: its user, its endpoint, and what tells its transport.
#[derive(Clone, Debug, PartialEq)]
struct Said {
    user: &'static str,
    place: &'static str,
    transport: &'static str,
}

fn said() -> impl Strategy<Value = Said> {
    let place = vec![
        PHONE,
        PHONE,
        "192.168.1.10:5070",
        "192.168.1.10:5080",
        "192.168.1.11",
        "192.168.1.11:5070",
        "192.168.1.12:5060",
    ];
    let user = select(vec!["", "alice@", "bob@"]);
    (user, select(place), select(vec!["", ";transport=udp", ";transport=TCP", ";transport=tls"]))
        .prop_map(|(user, place, transport)| Said { user, place, transport })
}

fn written(all: &[Said]) -> String {
    let all: Vec<String> =
        all.iter().map(|Said { user, place, transport }| format!("<sip:{user}{place}{transport}>")).collect();
    all.join(", ")
}

proptest! {
    #![proptest_config(cases(300))]

    /// Whatever a phone, or a proxy for the hosts behind it, says in its dialogs, comes back to the letter in each of them:
    /// the route set as a whole, and the Contact in the Request-URI.
    #[test]
    fn f08_what_is_said_in_a_dialog_comes_back_in_it(
        calls in vec((vec(said(), 1..4), said(), any::<bool>()), 1..6),
        turns in vec(any::<prop::sample::Index>(), 1..6),
        hosts in any::<bool>(),
    ) {
        let address = "192.168.1.0".parse().unwrap();
        let inside_hosts = if hosts { vec![Prefix { address, bits: 24 }] } else { Vec::new() };
        let mut bench = Bench::new(Policy { inside_hosts, ..Policy::default() });
        let mut dialogs = Vec::new();
        for (n, (routes, contact, registers)) in calls.iter().enumerate() {
            if *registers {
                bench.out(PHONE, PROXY, says("REGISTER", "all", &format!("Contact: {}", written(routes))));
            }
            let contact = written(std::slice::from_ref(contact));
            let lines = format!("Record-Route: {}\nContact: {contact}", written(routes));
            let sent = bench.out(PHONE, PROXY, says("INVITE", &format!("call{n}"), &lines)).text();
            let line = |name: &str| {
                let (_, rest) = sent.split_once(&format!("\r\n{name}: ")).unwrap();
                rest.split("\r\n").next().unwrap().to_owned()
            };
            let (routes_out, contact_out) = (line("Record-Route"), line("Contact"));
            if routes.iter().any(|it| it.place == PHONE) {
                prop_assert!(routes_out.contains(PUBLIC), "{}", routes_out);
            }
            if contact.contains("192.168.1.10:") || hosts {
                prop_assert!(contact_out.contains(PUBLIC), "{}", contact_out);
            }
            dialogs.push((written(routes), contact, routes_out, contact_out));
        }
        for turn in turns {
            let n = turn.index(dialogs.len());
            let (routes, contact, routes_out, contact_out) = &dialogs[n];
            let bye = |uri: &str, routes: &str| {
                asks("BYE", uri.trim_matches(['<', '>']), &format!("call{n}"), ";tag=a", &format!("Route: {routes}"))
            };
            let got = bench.inn(PROXY, PHONE, bye(contact_out, routes_out)).text();
            prop_assert_eq!(got, bye(contact, routes), "{:?}", &calls);
        }
    }
}
