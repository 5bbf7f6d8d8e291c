//! What holds for every message, whatever it says.
//!
//! Messages are made of legal pieces in any number and order. Then: outside of the edits nothing changed; who gets back
//! what was sent, gets it back as it was; what is done is not done again.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use sipalg::alg::{Action, Engine, Input, Output, PacketId, PacketIn, Policy, QueuePoint, Reply, Tuples};
use sipalg::packet::Datagram;
use std::time::Instant;

use crate::PUBLIC;
use crate::common::messages::{PHONE, PROXY};
use crate::common::{Bench, LAN, WAN, at, packet};

/// An address header, `@` standing for the phone as it wrote itself.
fn header() -> impl Strategy<Value = String> {
    let name = select(vec![
        "Contact",
        "m",
        "CONTACT ",
        "Record-Route",
        "Route",
        "Path",
        "Service-Route",
        "Refer-To",
        "r",
        "Referred-By",
        "b",
        "P-Asserted-Identity",
        "Diversion",
        "X-Unknown",
        "Subject",
        "History-Info",
    ]);
    let value = select(vec![
        "<sip:@>",
        "<sip:alice@@>",
        "sip:alice@@",
        "\"A, B\" <sips:bob@@;transport=tls>;q=0.5",
        "<sip:a@@;maddr=192.168.1.10>",
        "<sip:alice@example.com>",
        "<sip:carol@10.1.1.1:5060>",
        "<tel:+192.168.1.10>",
        "<sip:a;b=c?d@@;lr?x=192.168.1.10>",
        "<sip:x@[2001:db8::1]>",
        "\n <sip:y@@>\n\t;z",
        "<sip:alice@22.33.44.55:50000>",
        "<sip:alice@192.168.1.10.example>",
    ]);
    (name, vec(value, 1..4), select(vec![": ", ":", " :\t", ":\n "]))
        .prop_map(|(name, values, colon)| format!("{name}{colon}{}\n", values.join(" , ")))
}

/// Media of a description, `@` standing for the phone's address.
fn media() -> impl Strategy<Value = String> {
    let kind = select(vec!["audio", "video", "image", "application", "text", "x"]);
    let proto = select(vec![
        "RTP/AVP 0",
        "RTP/SAVPF 96",
        "udptl t38",
        "UDP/BFCP *",
        "TCP/MSRP *",
        "UDP/TLS/RTP/SAVPF 0",
    ]);
    let port = select(vec![0u16, 9, 40000, 40001, 40002, 42000, 42010, 65534]);
    let lines = vec(
        select(vec![
            "c=IN IP4 @\n",
            "c=IN IP4 0.0.0.0\n",
            "c=IN IP4 99.88.77.66\n",
            "c=IN IP6 2001:db8::1\n",
            "c=IN IP4 pbx.lan\n",
            "a=rtcp:43001\n",
            "a=rtcp:43003 IN IP4 @\n",
            "a=rtcp-mux\n",
            "a=rtcp-mux-only\n",
            "a=inactive\n",
            "a=sendonly\n",
            "a=candidate:1 1 UDP 1 @ 40000 typ host\n",
            "a=candidate:2 1 UDP 1 22.33.44.9 41000 typ srflx raddr @ rport 40000\n",
            "a=candidate:1 2 TCP 1 @ 9 typ host\n",
            "a=crypto:1 x inline:@\n",
            "a=path:msrp://@:2855/x;tcp\n",
            "b=AS:40000\n",
            "i=@\n",
            "a=remote-candidates:1 @ 40000\n",
        ]),
        0..6,
    );
    (kind, port, select(vec!["", "/2"]), proto, lines).prop_map(|(kind, port, count, proto, lines)| {
        format!("m={kind} {port}{count} {proto}\n{}", lines.concat())
    })
}

fn body() -> impl Strategy<Value = String> {
    let session = select(vec![
        "c=IN IP4 @\n",
        "",
        "c=IN IP4 0.0.0.0\n",
        "c=IN IP4 sbc.example\n",
        "a=ice-ufrag:x\nc=IN IP4 @\n",
    ]);
    (session, vec(media(), 0..4), select(vec!["\r\n", "\n"]), select(vec!["name.example", "@"])).prop_map(
        |(session, media, end, origin)| {
            format!("v=0\no=- 1 1 IN IP4 {origin}\ns=-\n{session}t=0 0\n{}", media.concat())
                .replace('@', "192.168.1.10")
                .replace('\n', end)
        },
    )
}

/// A whole request; `length` says how Content-Length is written.
fn message() -> impl Strategy<Value = String> {
    let method = select(vec!["INVITE", "REGISTER", "OPTIONS", "UPDATE", "X"]);
    let via = select(vec!["@", "192.168.1.10 : 5060", "192.168.1.10", "phone.lan", "192.168.1.10:5062"]);
    let form = select(vec!["192.168.1.10", "192.168.1.10:5060", "192.168.1.10 :5060", "192.168.1.10:5070"]);
    let length = select(vec!["Content-Length: ", "l:", "CONTENT-LENGTH :\n ", ""]);
    (method, via, form, vec(header(), 0..6), prop::option::of(body()), length).prop_map(
        |(method, via, form, headers, body, length)| {
            let mut text = format!(
                "{method} sip:provider.example SIP/2.0\nVia: SIP/2.0/UDP {via};branch=z9hG4bK-p;rport\n\
                 From: <sip:alice@192.168.1.10>;tag=a\nTo: <sip:bob@provider.example>\nCall-ID: p@192.168.1.10\nCSeq: 1 {method}\n"
            )
            .replace("UDP @;", &format!("UDP {form};"));
            // The first `@` of a URI with two is its own.
            text += &headers.concat().replace("@@", "\u{1}@").replace(":@", &format!(":{form}")).replace("\u{1}@", &format!("@{form}"));
            let body = body.unwrap_or_default();
            if !body.is_empty() {
                text += "Content-Type: application/sdp\n";
            }
            if !length.is_empty() {
                text += &format!("{length}{}\n", body.len());
            }
            format!("{}\r\n{body}", text.replace('\n', "\r\n"))
        },
    )
}

/// Where something was replaced, and by what.
type Change = (std::ops::Range<usize>, Vec<u8>);

/// The edits of a message of a known flow, and what leaves.
fn edited(text: &str) -> (Vec<Change>, String) {
    let mut engine = Engine::new(Policy::default());
    let now = Instant::now();
    let bytes = packet(at(PHONE), at(PROXY), text.as_bytes());
    for _ in 0..8 {
        let input = PacketIn {
            id: PacketId(1),
            point: QueuePoint::Signalling,
            indev: LAN,
            outdev: WAN,
            bytes: &bytes,
        };
        engine.handle(now, Input::Packet(input));
        let mut asked = Vec::new();
        loop {
            let mut done = None;
            while let Some(output) = engine.poll_output() {
                match output {
                    Output::Command(command) => asked.push(command),
                    Output::Verdict(verdict) => {
                        let payload = Datagram::parse(&bytes).unwrap().payload();
                        let mut out = Vec::new();
                        let mut list = Vec::new();
                        match verdict.action {
                            Action::Rewrite { edits, .. } => {
                                list.extend(
                                    edits.iter().map(|edit| (edit.span.range(), edits.text(edit).to_vec())),
                                );
                                edits.apply(payload, &mut out);
                            }
                            Action::Accept { .. } => out.extend(payload),
                            Action::Replace { .. } | Action::Drop => panic!("dropped"),
                        }
                        done = Some((list, String::from_utf8(out).unwrap()));
                    }
                    Output::Again(_) | Output::Event(_) => {}
                }
            }
            if let Some(done) = done {
                return done;
            }
            let Some(command) = (!asked.is_empty()).then(|| asked.remove(0)) else { break };
            let outcome = match command.op {
                sipalg::alg::Op::Recognise { .. } => Ok(Reply::Found(None)),
                sipalg::alg::Op::Lookup { .. } => Ok(Reply::Found(Some(Tuples {
                    transport: sipalg::alg::Transport::Udp,
                    orig_source: at(PHONE),
                    orig_destination: at(PROXY),
                    reply_source: at(PROXY),
                    reply_destination: at(PUBLIC),
                }))),
                _ => Ok(Reply::Done),
            };
            engine.handle(now, Input::CommandDone { id: command.id, outcome });
        }
    }
    panic!("no verdict")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn outside_of_the_edits_nothing_changes(text in message()) {
        let (edits, result) = edited(&text);
        let (mut rest, mut left) = (String::new(), String::new());
        let (mut from, mut at) = (0, 0);
        for (span, new) in &edits {
            prop_assert!(span.start >= from && span.end <= text.len());
            prop_assert_ne!(text[span.clone()].as_bytes(), &new[..], "an edit that changes nothing");
            rest += &text[from..span.start];
            left += &result[at..at + span.start - from];
            at += span.start - from;
            prop_assert_eq!(&result.as_bytes()[at..at + new.len()], &new[..]);
            at += new.len();
            from = span.end;
        }
        rest += &text[from..];
        left += &result[at..];
        prop_assert_eq!(left, rest);
    }

    #[test]
    fn lengths_are_true_afterwards(text in message()) {
        let (_, result) = edited(&text);
        let length = |text: &str| {
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            let head = head.replace("\r\n ", "").to_ascii_lowercase();
            let line = head.lines().find(|line| line.starts_with("content-length") || line.starts_with("l:"))?.to_string();
            Some((line.split_once(':').unwrap().1.trim().parse::<usize>().unwrap(), body.len()))
        };
        prop_assert_eq!(length(&text).is_some(), length(&result).is_some());
        if let Some((told, there)) = length(&result) {
            prop_assert_eq!(told, there);
        }
    }

    #[test]
    fn who_gets_it_back_gets_it_as_it_was(text in message()) {
        let mut bench = Bench::default();
        let sent = bench.out(PHONE, PROXY, &text);
        prop_assume!(sent.payload.is_some());
        let back = |text: &str| {
            let (_, rest) = text.split_once("\r\n").unwrap();
            format!("SIP/2.0 200 OK\r\n{rest}")
        };
        let got = bench.inn(PROXY, PHONE, back(&sent.text())).text();
        let (head, _) = got.split_once("\r\n\r\n").unwrap();
        let expected = back(&text);
        let (expected, _) = expected.split_once("\r\n\r\n").unwrap();
        // What the phone said of its media is of no use to itself; its length goes with it.
        let lines = |head: &str| -> Vec<String> {
            let unfolded = head.replace("\r\n ", "\u{1}").replace("\r\n\t", "\u{2}");
            unfolded.split("\r\n").filter(|line| !line.to_ascii_lowercase().starts_with("content-length") && !line.starts_with("l:")).map(str::to_string).collect()
        };
        prop_assert_eq!(lines(head), lines(expected));
    }

    #[test]
    fn what_is_done_is_not_done_again(text in message()) {
        let mut bench = Bench::default();
        let once = bench.out(PHONE, PROXY, &text);
        let open = bench.kernel.pinholes.clone();
        let again = bench.out(PHONE, PROXY, &text);
        prop_assert_eq!(&again.text(), &once.text(), "a retransmission");
        let twice = bench.out(PHONE, PROXY, once.text());
        prop_assert_eq!(twice.text(), once.text(), "a second gateway");
        prop_assert_eq!(&bench.kernel.pinholes, &open);
    }

    #[test]
    fn a_request_from_outside_changes_only_where_we_are_named(text in message()) {
        // Nobody outside has seen anything of ours: all that it says is its own.
        let mut bench = Bench::default();
        bench.track(PHONE, PROXY);
        let text = text.replace("22.33.44.55", "22.33.44.66");
        prop_assert_eq!(bench.inn(PROXY, PHONE, &text).text(), text);
        prop_assert!(bench.kernel.pinholes.is_empty() && bench.kernel.pins.is_empty());
    }
}
