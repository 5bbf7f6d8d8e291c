//! Two phones behind the same NAT.

use crate::common::messages::{Dialog, PROXY, answer, message, request, sdp};
use crate::common::{Bench, at};
use sipalg::alg::{MediaLocal, Policy};

const ALICE: &str = "192.168.1.10:5060";
const BOB: &str = "192.168.1.11:5060";
const CAROL: &str = "192.168.1.12:5060";

/// The provider sends Alice's INVITE on to another phone of the same house, as a fork with this number.
fn forward(bench: &mut Bench, sent: &str, callee: &str, n: u32) -> String {
    let (_, body) = sent.split_once("\r\n\r\n").expect("the headers end");
    bench.out(callee, PROXY, register(callee, n));
    let public = bench.public(callee, PROXY);
    let invite = message(
        &format!(
            "INVITE sip:x@{public} SIP/2.0\nVia: SIP/2.0/UDP 22.33.44.20;branch=z9hG4bK-f{n}\n\
             From: <sip:alice@provider.example>;tag=b2bua-{n}\nTo: <sip:x@provider.example>\nCall-ID: fork-{n}\n\
             CSeq: 1 INVITE\nContact: <sip:alice@22.33.44.20>\nContent-Type: application/sdp"
        ),
        &body.replace("\r\n", "\n"),
    );
    bench.inn(PROXY, callee, invite).text()
}

fn register(phone: &str, n: u32) -> String {
    message(
        &format!(
            "REGISTER sip:provider.example SIP/2.0\nVia: SIP/2.0/UDP {phone};branch=z9hG4bK-reg{n};rport\n\
             From: <sip:x@provider.example>;tag=r\nTo: <sip:x@provider.example>\nCall-ID: reg-{n}\nCSeq: 1 REGISTER\n\
             Contact: <sip:x@{phone}>"
        ),
        "",
    )
}

/// Alice calls, the provider rings both other phones, Carol answers. What each hears of the other's media.
fn forked(bench: &mut Bench) -> [String; 3] {
    let sent = bench
        .out(ALICE, PROXY, request("INVITE", ALICE, 1, Dialog::default(), false, &sdp("192.168.1.10", 40000)))
        .text();
    let to_bob = forward(bench, &sent, BOB, 1);
    let to_carol = forward(bench, &sent, CAROL, 2);
    let contact = "Contact: <sip:x@192.168.1.12:5060>\n";
    let ok = answer(&to_carol, "200 OK", at(PROXY), contact, &sdp("192.168.1.12", 42000));
    let ok = bench.out(CAROL, PROXY, ok).text();
    let (_, body) = ok.split_once("\r\n\r\n").expect("the headers end");
    let seen = bench.public(ALICE, PROXY);
    let back = answer(&sent, "200 OK", seen, "Contact: <sip:x@22.33.44.20>\n", &body.replace("\r\n", "\n"));
    let to_alice = bench.inn(PROXY, ALICE, back).text();
    [to_bob, to_carol, to_alice]
}

fn audio(text: &str) -> (String, String) {
    let line = |start: &str| text.lines().find(|line| line.starts_with(start)).expect(start).to_owned();
    (line("c="), line("m=audio").split(' ').nth(1).expect("a port").to_owned())
}

#[test]
fn f34_forked_to_two_phones_of_the_same_house_media_stays_in_the_house() {
    let mut bench = Bench::default();
    let [to_bob, to_carol, to_alice] = forked(&mut bench);
    let alice = ("c=IN IP4 192.168.1.10".to_owned(), "40000".to_owned());
    assert_eq!((audio(&to_bob), audio(&to_carol)), (alice.clone(), alice));
    assert_eq!(audio(&to_alice), ("c=IN IP4 192.168.1.12".to_owned(), "42000".to_owned()));
    assert!(bench.kernel.pins.is_empty(), "{:?}", bench.kernel.pins);
}

#[test]
fn f34_by_the_router_when_the_policy_or_the_interfaces_say_so() {
    let hairpin = |bench: &mut Bench| {
        let [_, to_carol, to_alice] = forked(bench);
        let (alice, carol) = (bench.binding("192.168.1.10:40000"), bench.binding("192.168.1.12:42000"));
        assert_eq!(audio(&to_carol), (format!("c=IN IP4 {}", alice.ip()), alice.port().to_string()));
        assert_eq!(audio(&to_alice), (format!("c=IN IP4 {}", carol.ip()), carol.port().to_string()));
        let pins: Vec<_> = bench.kernel.pins.iter().filter(|pin| pin.hairpin.is_some()).collect();
        assert!(!pins.is_empty());
        for pin in pins {
            let ends = (pin.far, pin.hairpin.map(|it| it.0));
            assert!(
                [alice, carol].contains(&pin.far) || pin.far.port() % 2 == 1,
                "from one public endpoint to the other: {ends:?}"
            );
        }
    };
    hairpin(&mut Bench::new(Policy { media_local: MediaLocal::Hairpin, ..Policy::default() }));
    // The guests' network has no way into the house.
    let mut bench = Bench::default();
    bench.lans.insert(at(CAROL).ip(), 7);
    hairpin(&mut bench);
}
