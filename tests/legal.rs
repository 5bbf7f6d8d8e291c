//! Every legal message: what a standard phone, PBX, gateway or carrier may send is translated right or passes byte for byte.
//!
//! Tests have the number of their row in the table of ways in which gateways do harm (see `harm.rs`, which shows each row
//! once); here is the breadth: every form that the grammars allow, both ways, offers and answers.

#![allow(clippy::unwrap_used)] // clippy knows tests by their attribute only, not their helpers

mod common;

#[path = "legal/aware.rs"]
mod aware;
#[path = "legal/bodies.rs"]
mod bodies;
#[path = "legal/ice.rs"]
mod ice;
#[path = "legal/properties.rs"]
mod properties;
#[path = "legal/rfc4475.rs"]
mod rfc4475;
#[path = "legal/rfc5118.rs"]
mod rfc5118;
#[path = "legal/routed.rs"]
mod routed;
#[path = "legal/sdp.rs"]
mod sdp;
#[path = "legal/torture.rs"]
mod torture;
#[path = "legal/trips.rs"]
mod trips;

use common::messages::{Dialog, PHONE, PROXY, message, request, response};
use common::{Bench, Passed, at};

/// The public endpoint of the first flow of a bench.
const PUBLIC: &str = "22.33.44.55:17375";
/// Its address, and the phone's.
const OUTSIDE: &str = "22.33.44.55";
const INSIDE: &str = "192.168.1.10";

/// The phone's INVITE with this description.
fn offer(bench: &mut Bench, body: &str) -> Passed {
    bench.out(PHONE, PROXY, request("INVITE", PHONE, 1, Dialog::default(), false, body))
}

/// The provider's answer to it.
fn answer(bench: &mut Bench, body: &str) -> Passed {
    bench.inn(PROXY, PHONE, response("200 OK", "INVITE", PUBLIC, 1, Dialog::default(), body))
}

/// An INVITE from the provider with this description, and the phone's 200 with its own. What each of them became.
fn called(bench: &mut Bench, offer: &str, answer: &str) -> (String, String) {
    bench.track(PHONE, PROXY);
    let names = "Via: SIP/2.0/UDP 22.33.44.20;branch=z9hG4bK-in\nFrom: <sip:bob@provider.example>;tag=b\n\
                 To: <sip:alice@provider.example>";
    let more = "Call-ID: in-1\nCSeq: 1 INVITE\nContent-Type: application/sdp";
    let invite = message(&format!("INVITE sip:alice@provider.example SIP/2.0\n{names}\n{more}"), offer);
    let got = bench.inn(PROXY, PHONE, invite).text();
    let sent =
        bench.out(PHONE, PROXY, message(&format!("SIP/2.0 200 OK\n{names};tag=a\n{more}"), answer)).text();
    (body_of(&got), body_of(&sent))
}

/// The body with plain newlines.
fn body_of(text: &str) -> String {
    text.split_once("\r\n\r\n").expect("the headers end").1.replace("\r\n", "\n")
}

/// `body` as the outside sees it: the address, and each of these inside ports by the port that it is bound to.
fn outside(bench: &Bench, body: &str, ports: &[u16]) -> String {
    let mut text = body.replace(INSIDE, OUTSIDE);
    for port in ports {
        let public = bench.binding(&format!("{INSIDE}:{port}")).port().to_string();
        let digits = port.to_string();
        for end in [" ", "\n", "/"] {
            text = text.replace(&format!("{digits}{end}"), &format!("{public}{end}"));
        }
    }
    text
}

/// A description of the phone leaves as it must, in an offer and in an answer; `mapped` are the ports that are bound.
/// `kept` are pieces that stay as they are, whatever addresses they have.
#[track_caller]
fn assert_leaves(body: &str, mapped: &[u16], kept: &[&str]) {
    let expected = |bench: &Bench| {
        let mut text = body.to_string();
        for (index, piece) in kept.iter().enumerate() {
            assert!(text.contains(piece), "{piece:?} is not in the description");
            text = text.replace(piece, &format!("\u{1}{index}\u{1}"));
        }
        text = outside(bench, &text, mapped);
        for (index, piece) in kept.iter().enumerate() {
            text = text.replace(&format!("\u{1}{index}\u{1}"), piece);
        }
        text
    };
    let mut bench = Bench::default();
    let sent = offer(&mut bench, body);
    assert_eq!(body_of(&sent.text()), expected(&bench), "as an offer");
    assert_eq!(bench.kernel.pinholes.len(), mapped.len(), "{:?}", bench.kernel.pinholes);
    let again = offer(&mut bench, body);
    assert_eq!(again, sent, "repeated");

    let mut bench = Bench::default();
    let far = "v=0\no=- 1 1 IN IP4 22.33.44.22\ns=-\nc=IN IP4 22.33.44.22\nt=0 0\n";
    let (got, sent) = called(&mut bench, far, body);
    assert_eq!(got, far);
    assert_eq!(sent, expected(&bench), "as an answer");
    assert_eq!(bench.kernel.pinholes.len(), mapped.len(), "{:?}", bench.kernel.pinholes);
}

/// A description of the far end comes in untouched, as an offer and as an answer.
#[track_caller]
fn assert_comes(body: &str) {
    let mine = common::messages::sdp(INSIDE, 40000);
    let mut bench = Bench::default();
    offer(&mut bench, &mine);
    assert_eq!(body_of(&answer(&mut bench, body).text()), body, "as an answer");
    let mut bench = Bench::default();
    assert_eq!(called(&mut bench, body, &mine).0, body, "as an offer");
    assert!(bench.kernel.pins.iter().all(|pin| pin.far.ip() != at(PUBLIC).ip()), "never to the router");
}
