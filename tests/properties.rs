//! Any message, and any list of inputs: what must hold for all of them.
//!
//! Messages are made from templates: a list of pieces, some of which are places where the phone's address stands. The
//! same template is written with the inside and with the public side, so that what must come out is known to the byte
//! without asking the code under test. (`common::naive` looks at every packet that is rewritten, here as elsewhere.)

#![allow(clippy::unwrap_used)] // also in the helpers of the tests: a panic is how they fail

mod common;

use std::time::Duration;

use common::cases::cases;
use common::messages::{Dialog, PROXY, message, request, response, sdp};
use common::{Bench, LAN, Passed, WAN, at, packet};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use sipalg::alg::{Event, Failure, Input, MediaLocal, MediaSource, Op, Policy, QueuePoint, Reason, Sizes};

const PHONE: &str = "192.168.1.10:5060";
const IP: &str = "192.168.1.10";
const PUBLIC: &str = "22.33.44.55:17375";
const PUBLIC_IP: &str = "22.33.44.55";

/// A piece of a message.
#[derive(Clone, Debug)]
enum Piece {
    Text(String),
    /// Host and port of the phone, written by itself in this form.
    Place(String),
    /// The phone's address in a description.
    Address,
    /// A media port of the phone.
    Port(u16),
    /// The length of the body, and how it stands in its line.
    Length,
}

use Piece::{Address, Length, Place, Port, Text};

/// On which side of the NAT a template is written.
#[derive(Clone, Copy)]
enum Side<'a> {
    Inside,
    Outside(&'a Bench),
}

#[derive(Clone, Debug)]
struct Template {
    head: Vec<Piece>,
    body: Vec<Piece>,
}

impl Template {
    fn write(&self, side: Side<'_>) -> String {
        let body: String = self.body.iter().map(|piece| piece.write(side, 0)).collect();
        let head: String = self.head.iter().map(|piece| piece.write(side, body.len())).collect();
        head + &body
    }

    /// The same message with another start line, and without the body: what comes back of it.
    fn echoed(&self, start: Vec<Piece>) -> Self {
        let mut head = start;
        head.extend(self.head.iter().skip(1).cloned());
        Self { head, body: Vec::new() }
    }
}

impl Piece {
    fn write(&self, side: Side<'_>, length: usize) -> String {
        match (self, side) {
            (Text(text), _) => text.clone(),
            (Place(form), Side::Inside) => form.clone(),
            (Place(_), Side::Outside(_)) => PUBLIC.into(),
            (Address, Side::Inside) => IP.into(),
            (Address, Side::Outside(_)) => PUBLIC_IP.into(),
            (Port(port), Side::Inside) => port.to_string(),
            (Port(port), Side::Outside(bench)) => bench.binding(&format!("{IP}:{port}")).port().to_string(),
            (Length, _) => length.to_string(),
        }
    }
}

fn text(text: impl Into<String>) -> Piece {
    Text(text.into())
}

/// How phones write their host and port.
fn form() -> impl Strategy<Value = String> {
    select(vec![
        "192.168.1.10",
        "192.168.1.10:5060",
        "192.168.1.10:5070",
        "192.168.1.10 : 5060",
        "192.168.1.10:\t5060",
        "192.168.1.10\r\n :5060",
    ])
    .prop_map(String::from)
}

/// A header's name in one of its spellings, with its colon and what may stand around that.
fn name(long: &'static str, compact: &'static str) -> impl Strategy<Value = String> {
    let spelling =
        select(vec![long.to_string(), compact.to_string(), long.to_uppercase(), long.to_lowercase()]);
    let colon = select(vec![": ", ":", " : ", ":\t", ":\r\n ", ":  \r\n\t "]);
    (spelling, colon).prop_map(|(name, colon)| format!("{name}{colon}"))
}

/// Text that looks as if it had to be changed, and must not be.
fn decoy() -> impl Strategy<Value = String> {
    select(vec![
        "P-Asserted-Identity: <sip:alice@192.168.1.10>",
        "Subject: <sip:192.168.1.10:5060>",
        "X-Contact: <sip:alice@192.168.1.10:5060>",
        "Authorization: Digest uri=\"sip:192.168.1.10:5060\"",
        "Warning: 399 192.168.1.10 \"Via: SIP/2.0/UDP 192.168.1.10\"",
        "Allow: INVITE,\r\n ACK ,BYE",
        "Contact-Length: 5",
        "no colon 192.168.1.10",
        "X-Folded: a\r\n Contact: <sip:alice@192.168.1.10>",
        "X-8bit: \u{fc}\u{df}\u{20ac}",
        "Supported:",
    ])
    .prop_map(String::from)
}

/// What stands behind a URI, in and behind its brackets.
fn tail() -> impl Strategy<Value = String> {
    select(vec![
        ">",
        ";lr>",
        ";transport=udp;x=192.168.1.10>;q=0.5",
        "?X=192.168.1.10>;+sip.instance=\"<urn:uuid:192.168.1.10>\"",
        " >;expires=60",
    ])
    .prop_map(String::from)
}

/// Values of a list header: the phone's own, with names, and those of others.
fn values(most: usize) -> impl Strategy<Value = Vec<Piece>> {
    let display = select(vec!["<", "\"A, \\\"<sip:192.168.1.10>\" <", "Alice  <"]);
    let own = (display, any::<bool>(), form(), tail()).prop_map(|(display, secure, form, tail)| {
        let scheme = if secure { "sips" } else { "sip" };
        vec![text(format!("{display}{scheme}:userN@")), Place(form), text(tail)]
    });
    let others = select(vec![
        "<sip:192.168.1.11>",
        "<sip:bob@host.example:5060;maddr=192.168.1.10>",
        "<sip:192.168.1.10@host.example>",
        "<tel:+49123;phone-context=192.168.1.10>",
        "<sip:alice@192.168.1.100>",
        "<sip:[2001:db8::1]:5060>",
    ])
    .prop_map(|it| vec![text(it)]);
    let separator = select(vec![",", ", ", " ,\r\n "]);
    vec((prop_oneof![3 => own, 1 => others], separator), 1..=most).prop_map(|all| {
        let mut pieces = Vec::new();
        for (index, (value, separator)) in all.into_iter().enumerate() {
            if index > 0 {
                pieces.push(text(separator));
            }
            pieces.extend(value);
        }
        pieces
    })
}

fn line(
    name: impl Strategy<Value = String>,
    value: impl Strategy<Value = Vec<Piece>>,
) -> impl Strategy<Value = Vec<Piece>> {
    (name, value).prop_map(|(name, value)| {
        let mut line = vec![text(name)];
        line.extend(value);
        line.push(text("\r\n"));
        line
    })
}

fn fixed(
    header: &'static str,
    compact: &'static str,
    value: &'static str,
) -> impl Strategy<Value = Vec<Piece>> {
    line(name(header, compact), Just(vec![text(value)]))
}

fn via() -> impl Strategy<Value = Vec<Piece>> {
    let start = select(vec!["SIP/2.0/UDP ", "SIP/2.0/UDP\t", "SIP / 2.0 / UDP  ", "SIP/2.0/UDP\r\n "]);
    let end = select(vec![
        ";branch=z9hG4bK-p;rport",
        " ;rport; branch = z9hG4bK-p",
        ";ttl=1;branch=z9hG4bK-p;x=\"192.168.1.10\"",
        ";branch=z9hG4bK-p,SIP/2.0/UDP 192.168.1.10;branch=z9hG4bK-q",
    ]);
    let value = (start, form(), end).prop_map(|(start, form, end)| vec![text(start), Place(form), text(end)]);
    line(name("Via", "v"), value)
}

/// A description with up to four streams.
fn description() -> impl Strategy<Value = Vec<Piece>> {
    let stream = (0..4usize, any::<bool>(), select(vec!["audio", "video", "text"]), any::<bool>());
    (any::<bool>(), vec(stream, 1..4), any::<bool>()).prop_map(|(session, streams, bare)| {
        let end = if bare { "\n" } else { "\r\n" };
        let mut body = vec![
            text(format!("v=0{end}o=alice 192168110 1 IN IP4 ")),
            Address,
            text(format!("{end}s=call to 192.168.1.10{end}")),
        ];
        let connection = || vec![text("c=IN IP4 "), Address, text(end)];
        if session {
            body.extend(connection());
        }
        body.push(text(format!("t=0 0{end}")));
        for (index, (shape, own, kind, odd)) in streams.into_iter().enumerate() {
            let port = 40_000 + 100 * index as u16 + u16::from(odd);
            let foreign = shape == 3;
            if foreign {
                body.push(text(format!(
                    "m={kind} {port} RTP/AVP 0{end}c=IN IP4 99.88.77.66{end}a=rtcp:{port}{end}"
                )));
                continue;
            }
            body.extend([text(format!("m={kind} ")), Port(port), text(format!(" RTP/AVP 0 8 101{end}"))]);
            if own || !session {
                body.extend(connection());
            }
            body.push(text(format!("a=rtpmap:0 PCMU/8000{end}")));
            if shape == 1 {
                body.extend([text("a=rtcp:"), Port(port + 51), text(end)]);
            }
            if shape == 2 {
                body.extend([text("a=rtcp:"), Port(port + 53), text(" IN IP4 "), Address, text(end)]);
                body.extend([
                    text("a=candidate:1 1 UDP 2130706431 "),
                    Address,
                    text(" "),
                    Port(port),
                    text(format!(" typ host{end}")),
                ]);
                body.push(text(format!(
                    "a=candidate:2 1 UDP 1694498815 9.9.9.9 5 typ srflx raddr 192.168.1.10 rport {port}{end}"
                )));
            }
        }
        body
    })
}

/// A request of the phone: mandatory lines, lines with the phone's address, and decoys, in any order but for the Via.
fn template(method: &'static str, with_body: bool) -> impl Strategy<Value = Template> {
    let mandatory = (
        fixed("From", "f", "\"192.168.1.10\" <sip:alice@192.168.1.10>;tag=192.168.1.10"),
        fixed("To", "t", "<sip:bob@192.168.1.10:5060>"),
        fixed("Call-ID", "i", "p@192.168.1.10"),
        line(name("CSeq", "CSeq"), Just(vec![text(format!("1 {method}"))])),
    )
        .prop_map(|(a, b, c, d)| vec![a, b, c, d]);
    let addresses = vec(
        prop_oneof![
            3 => line(name("Contact", "m"), values(3)),
            1 => line(name("Record-Route", "Record-Route"), values(2)),
            1 => line(name("Route", "Route"), values(2)),
            1 => line(name("Path", "Path"), values(1)),
            1 => line(name("Refer-To", "r"), values(1)),
            1 => line(name("Referred-By", "b"), values(1)),
        ],
        0..4,
    );
    let decoys = vec(decoy().prop_map(|it| vec![text(it + "\r\n")]), 0..4);
    let body = if with_body { description().boxed() } else { Just(Vec::new()).boxed() };
    let length = (any::<bool>(), name("Content-Length", "l"));
    let lines = (mandatory, addresses, decoys).prop_map(|(a, b, c)| [a, b, c].concat()).prop_shuffle();
    let keep_alive = select(vec!["", "\r\n", "\r\n\r\n"]);
    (via(), lines, body, length, keep_alive).prop_map(move |(via, lines, body, (told, length), before)| {
        let mut head = vec![text(format!("{before}{method} sip:bob@192.168.1.10 SIP/2.0\r\n"))];
        head.extend(via);
        head.extend(lines.concat());
        // Each URI has a user of its own: two spellings of one URI cannot be told apart when they come back.
        for (index, piece) in head.iter_mut().enumerate() {
            if let Text(text) = piece {
                *text = text.replace("userN@", &format!("user{index}@"));
            }
        }
        if !body.is_empty() {
            head.push(text("c:application/sdp\r\n"));
        }
        if told {
            head.extend([text(length), Length, text("\r\n")]);
        }
        head.push(text("\r\n"));
        Template { head, body }
    })
}

proptest! {
    #![proptest_config(cases(400))]

    /// Oracles 1 to 4 of one message: nothing but the places changes, lengths and sums are right, the answer brings
    /// back what the phone wrote, and what is translated is not translated again.
    #[test]
    fn what_goes_out_comes_back(template in prop_oneof![template("REGISTER", false), template("REFER", false), template("INVITE", true)]) {
        let mut bench = Bench::default();
        let inside = template.write(Side::Inside);
        let sent = bench.out(PHONE, PROXY, &inside);
        prop_assert_eq!(sent.reason, Reason::Rewritten);
        let outside = template.write(Side::Outside(&bench));
        prop_assert_eq!(sent.text(), outside.as_str());

        let asked = bench.commands.clone();
        let twice = bench.out(PHONE, PROXY, &inside);
        prop_assert_eq!(twice.text(), outside.as_str(), "a retransmission");
        prop_assert_eq!(&bench.commands, &asked);
        let mut other = Bench::default();
        let thrice = other.out(PHONE, PROXY, &outside);
        prop_assert_eq!((thrice.text(), thrice.reason), (outside, Reason::Unchanged), "translated already");
        let only_asks = other.commands.iter().all(|op| matches!(op, Op::Recognise { .. }));
        prop_assert!(only_asks, "{:?}", other.commands);

        let ok = template.echoed(vec![text("SIP/2.0 200 OK\r\n")]);
        let got = bench.inn(PROXY, PHONE, ok.write(Side::Outside(&bench)));
        prop_assert_eq!(got.text(), ok.write(Side::Inside));
        let again = bench.inn(PROXY, PHONE, got.text());
        prop_assert_eq!((again.text(), again.reason), (got.text(), Reason::Unchanged), "restored already");
    }

    /// The far end uses the Contact that it was given.
    #[test]
    fn a_request_to_the_contact_arrives(form in form(), user in "[a-z0-9;=?&+$,/._-]{1,12}", tail in "(;[a-z]{1,5}(=[0-9.]{1,9})?){0,3}") {
        let mut bench = Bench::default();
        let contact = |place: &str| format!("sip:{user}@{place}{tail}");
        let asks = |start: &str, via: &str, contact: &str| message(&format!(
            "{start} SIP/2.0\nVia: SIP/2.0/UDP {via};branch=z9hG4bK-c\nFrom: <sip:a@b>;tag=1\nTo: <sip:c@d>\nCall-ID: c\n\
             CSeq: 1 OPTIONS\nContact: {contact}"), "");
        let form = form.replace("\r\n", "");
        bench.out(PHONE, PROXY, asks("OPTIONS sip:provider.example", PHONE, &format!("<{}>", contact(&form))));
        // A Request-URI holds no blanks; nobody echoes those.
        let far = "<sip:bob@22.33.44.21>";
        let got = bench.inn(PROXY, PHONE, asks(&format!("OPTIONS {}", contact(PUBLIC)), "22.33.44.20", far));
        prop_assert_eq!(got.text(), asks(&format!("OPTIONS {}", contact(&form)), "22.33.44.20", far));
    }

    /// A message that is nobody's business (addresses of others, or a flow that the NAT leaves alone) has no edits.
    #[test]
    fn what_does_not_concern_us_stays(template in prop_oneof![template("REGISTER", false), template("INVITE", true)]) {
        let foreign = template.write(Side::Inside).replace(IP, "172.16.99.99");
        let mut bench = Bench::default();
        let sent = bench.out(PHONE, PROXY, &foreign);
        prop_assert_eq!((sent.text(), sent.reason), (foreign.clone(), Reason::Unchanged));
        prop_assert_eq!(&bench.commands, &[]);
        let mut bench = Bench::default();
        bench.nat(PHONE, PROXY, PHONE).track(PHONE, PROXY);
        let inside = template.write(Side::Inside);
        let sent = bench.out(PHONE, PROXY, &inside);
        prop_assert_eq!((sent.text(), sent.reason), (inside, Reason::NotNated));
        prop_assert!(bench.kernel.pinholes.is_empty());
    }

    /// Whatever becomes of a message on its way: no panic, and either it is as it came or naive reading finds no fault.
    #[test]
    fn spoiled_messages_do_no_harm(
        template in prop_oneof![template("REGISTER", false), template("INVITE", true)],
        spoils in vec((any::<prop::sample::Index>(), prop_oneof![vec(any::<u8>(), 0..4), Just(b"\r\n".to_vec()), Just(b"\"".to_vec()), Just(b"<".to_vec()), Just(b",".to_vec())], 0..6usize), 1..5),
        inbound in any::<bool>(),
        truncate in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = template.write(Side::Inside).into_bytes();
        for (index, insert, removed) in spoils {
            let start = index.index(bytes.len());
            let end = (start + removed).min(bytes.len());
            bytes.splice(start..end, insert);
        }
        if let Some(index) = truncate {
            bytes.truncate(index.index(bytes.len()));
        }
        let mut bench = Bench::default();
        bench.track(PHONE, PROXY);
        let passed = if inbound { bench.inn(PROXY, PHONE, &bytes) } else { bench.out(PHONE, PROXY, &bytes) };
        if passed.reason != Reason::Rewritten {
            prop_assert_eq!(passed.payload.as_ref(), Some(&bytes));
        }
        // Nobody has answered: it is over in 32 s.
        bench.advance(Duration::from_secs(33));
        prop_assert!(bench.kernel.pinholes.is_empty(), "left open by {}", String::from_utf8_lossy(&bytes));
        bench.assert_all_closed();
    }
}

proptest! {
    #![proptest_config(cases(600))]

    /// Oracle 7: any bytes at any queue point, as packets and as payloads.
    #[test]
    fn nothing_panics(
        packets in vec(prop_oneof![
            vec(any::<u8>(), 0..200).prop_map(|raw| (raw, false)),
            vec(any::<u8>(), 0..200).prop_map(|payload| (payload, true)),
            "(INVITE|ACK|SIP/2.0|REGISTER) (sip:[a-z@:0-9.]{0,20}|200)( SIP/2.0|)\r?\n([A-Za-z-]{1,8}: ?[ -~]{0,40}\r?\n){0,6}\r?\n?[ -~]{0,40}"
                .prop_map(|text| (text.into_bytes(), true)),
        ], 1..6),
        headers in (select(vec![0x45u8, 0x46, 0x4f, 0x60, 0x40, 0x05]), any::<bool>()),
    ) {
        let mut bench = Bench::default();
        bench.track(PHONE, PROXY);
        for (bytes, is_payload) in packets {
            let bytes = if is_payload {
                packet(at(PHONE), at(PROXY), &bytes)
            } else if headers.1 && !bytes.is_empty() {
                let mut bytes = bytes;
                bytes[0] = headers.0;
                bytes
            } else {
                bytes
            };
            for point in QueuePoint::ALL {
                let (passed, out) = bench.pass(point, LAN, WAN, &bytes);
                if !matches!(passed.reason, Reason::Rewritten | Reason::Learning | Reason::NotNegotiated) {
                    prop_assert_eq!(&out, &bytes, "{:?}", passed.reason);
                }
            }
        }
        bench.advance(Duration::from_secs(33));
        bench.assert_all_closed();
    }
}

/// One thing that happens in a network that loses, repeats and reorders; `call` names one of a few calls.
#[derive(Clone, Copy, Debug)]
enum Step {
    Out { call: u8, what: u8, fork: bool, retry: u8 },
    In { call: u8, what: u8, fork: bool, retry: u8 },
    Cut { call: u8, what: u8, at: u16 },
    Rest { seconds: u16 },
    Latch { nth: u8, from: u8 },
    Forget { phone: u8 },
    NewAddress(u8),
    Reload,
    Silence,
}

fn step() -> impl Strategy<Value = Step> {
    let message = || (0..4u8, 0..16u8, any::<bool>(), 0..3u8);
    prop_oneof![
        12 => message().prop_map(|(call, what, fork, retry)| Step::Out { call, what, fork, retry }),
        12 => message().prop_map(|(call, what, fork, retry)| Step::In { call, what, fork, retry }),
        1 => (0..4u8, 0..16u8, any::<u16>()).prop_map(|(call, what, at)| Step::Cut { call, what, at }),
        3 => (0..100u16).prop_map(|seconds| Step::Rest { seconds }),
        1 => (100..5000u16).prop_map(|seconds| Step::Rest { seconds }),
        2 => (any::<u8>(), 0..3u8).prop_map(|(nth, from)| Step::Latch { nth, from }),
        1 => (0..2u8).prop_map(|phone| Step::Forget { phone }),
        1 => (0..3u8).prop_map(Step::NewAddress),
        1 => Just(Step::Reload),
        1 => Just(Step::Silence),
    ]
}

/// How calls go when all goes well: what the phone and the far end send in turn.
fn script() -> impl Strategy<Value = Vec<Step>> {
    let out = |what, fork, more| (true, what, fork, more);
    let inn = |what, fork, more| (false, what, fork, more);
    let plain = vec![
        out(0, false, 0),
        inn(1, false, 0),
        inn(0, false, 0),
        out(5, false, 0),
        out(7, false, 0),
        inn(7, false, 0),
    ];
    let challenged = vec![
        out(0, false, 0),
        inn(10, true, 0),
        out(0, false, 1),
        inn(1, false, 1),
        inn(14, false, 1),
        out(5, false, 1),
        inn(11, false, 0),
        out(11, false, 0),
    ];
    let forked = vec![
        out(0, false, 0),
        inn(2, false, 0),
        inn(3, true, 0),
        out(6, false, 0),
        inn(6, false, 0),
        inn(9, false, 0),
    ];
    let called = vec![
        inn(12, false, 0),
        out(10, false, 0),
        out(9, false, 0),
        out(2, false, 1),
        inn(4, false, 1),
        out(4, false, 2),
        inn(0, false, 2),
        out(8, false, 0),
        inn(5, false, 0),
        out(7, false, 0),
        inn(7, false, 0),
    ];
    let moved = vec![
        out(3, false, 0),
        inn(0, false, 0),
        out(3, true, 1),
        inn(8, false, 1),
        out(0, true, 2),
        inn(2, false, 2),
        out(7, false, 0),
    ];
    let late = vec![
        out(13, false, 0),
        inn(13, false, 0),
        out(1, false, 0),
        inn(2, false, 0),
        out(5, false, 2),
        inn(11, false, 0),
        out(11, false, 0),
    ];
    let scripts = select(vec![plain, challenged, forked, called, moved, late]);
    (scripts, 0..4u8, vec(0..12u8, 16)).prop_map(|(script, call, losses)| {
        let step = |(outbound, what, fork, retry)| match outbound {
            true => Step::Out { call, what, fork, retry },
            false => Step::In { call, what, fork, retry },
        };
        let often = |loss: u8| match loss {
            0 => 0,
            1 => 2,
            _ => 1,
        };
        let repeated = |(it, loss)| std::iter::repeat_n(step(it), often(loss));
        script.into_iter().zip(losses).flat_map(repeated).collect()
    })
}

/// Scripts and single steps, woven into each other.
fn story() -> impl Strategy<Value = Vec<Step>> {
    let single = vec(step(), 1..6);
    let latches = vec((any::<u8>(), 0..3u8).prop_map(|(nth, from)| Step::Latch { nth, from }), 1..8);
    let threads = vec(prop_oneof![3 => script().boxed(), 1 => single.boxed(), 1 => latches.boxed()], 1..8);
    (threads, vec(any::<prop::sample::Index>(), 100)).prop_map(|(threads, picks)| {
        let mut threads: Vec<_> = threads.into_iter().map(std::collections::VecDeque::from).collect();
        let mut story = Vec::new();
        for pick in picks {
            threads.retain(|thread| !thread.is_empty());
            if threads.is_empty() {
                break;
            }
            let thread = pick.index(threads.len());
            story.extend(threads[thread].pop_front());
        }
        story
    })
}

fn fate() -> impl Strategy<Value = Option<Failure>> {
    prop_oneof![
        12 => Just(None),
        1 => Just(Some(Failure::PortInUse)),
        1 => Just(Some(Failure::Full)),
        1 => Just(Some(Failure::Kernel(5))),
    ]
}

const PHONES: [&str; 2] = ["192.168.1.10:5060", "192.168.1.11:5060"];

/// The text of a step: as the phone writes it, or as the far end does.
fn write(bench: &Bench, call: u8, what: u8, fork: bool, retry: u8, outbound: bool) -> (String, &'static str) {
    let phone = PHONES[usize::from(call % 2)];
    let ip = phone.split(':').next().expect("an endpoint");
    let call_id = format!("call-{call}");
    // An answer has the branch of what it answers.
    let asked = match (outbound, what) {
        (true, 0..=4 | 6 | 14) | (false, 0..=4 | 6 | 8..=10 | 14) => "invite",
        (true, 9 | 10 | 12) | (false, 12 | 15) => "far-invite",
        (true, 7) | (false, 7) => "bye",
        (_, 11) => "far-bye",
        (true, 8) | (false, 5) => "update",
        (_, 13) => "register",
        (true, _) | (false, _) => "other",
    };
    let branch = format!("z9hG4bK-{call}-{asked}-{retry}");
    let tags = [format!("a{call}"), format!("b{call}{}", u8::from(fork))];
    let dialog = Dialog { call_id: &call_id, from_tag: &tags[0], to_tag: &tags[1], branch: &branch };
    // Calls of one phone share media ports, and so do the two phones.
    let port = 40_000 + 2 * u16::from(retry) + 10 * u16::from(call / 2);
    let far = |n: u16| sdp("22.33.44.22", 30_000 + 2 * n);
    let hold = sdp(ip, port).replacen(&format!("c=IN IP4 {ip}"), "c=IN IP4 0.0.0.0", 1);
    let video =
        format!("{}m=video {}/2 RTP/AVP 31\nm=image {} udptl t38\n", sdp(ip, port), port + 100, port + 200);
    let own = || match what {
        1 => String::new(),
        2 => hold.clone(),
        3 => video.clone(),
        4 => sdp(ip, port).replacen("a=rtpmap", "a=sendonly\na=rtpmap", 1),
        _ => sdp(ip, port),
    };
    let seen = bench.nat_of(phone, PROXY).unwrap_or_else(|| at(PUBLIC)).to_string();
    let cseq = u32::from(retry) + 1;
    // The far end's requests have the tags the other way round.
    let swapped = Dialog { from_tag: &tags[1], to_tag: &tags[0], ..dialog };
    let text = match (outbound, what) {
        (true, 0 | 1 | 3) => request("INVITE", phone, cseq, dialog, fork, &own()),
        (true, 2 | 4) => request("INVITE", phone, cseq, dialog, true, &own()),
        (true, 5) => request("ACK", phone, cseq, dialog, true, if retry == 2 { &video } else { "" }),
        (true, 6) => request("CANCEL", phone, cseq, dialog, false, ""),
        (true, 7) => request("BYE", phone, cseq, dialog, true, ""),
        (true, 8) => request("UPDATE", phone, cseq, dialog, true, &own()),
        (true, 9) => response("200 OK", "INVITE", "22.33.44.20:5060", cseq, swapped, &sdp(ip, port)),
        (true, 10) => response("183 Progress", "INVITE", "22.33.44.20:5060", cseq, swapped, &sdp(ip, port)),
        (true, 11) => response("200 OK", "BYE", "22.33.44.20:5060", cseq, swapped, ""),
        (true, 12) => response("486 Busy Here", "INVITE", "22.33.44.20:5060", cseq, swapped, ""),
        (true, 13) => request("REGISTER", phone, cseq, dialog, false, ""),
        (true, 14) => request("INVITE", phone, cseq, dialog, false, &sdp(ip, 3306)),
        (true, _) => request("OPTIONS", phone, cseq, dialog, fork, ""),
        (false, 0) => response("200 OK", "INVITE", &seen, cseq, dialog, &far(0)),
        (false, 1) => response("180 Ringing", "INVITE", &seen, cseq, dialog, ""),
        (false, 2 | 3) => response("200 OK", "INVITE", &seen, cseq, dialog, &far(1 + u16::from(fork))),
        (false, 4) => {
            response("200 OK", "INVITE", &seen, cseq, dialog, &far(0).replace("22.33.44.22", "0.0.0.0"))
        }
        (false, 5) => response("200 OK", "UPDATE", &seen, cseq, dialog, &far(2)),
        (false, 6) => response("200 OK", "CANCEL", &seen, cseq, dialog, ""),
        (false, 7) => response("200 OK", "BYE", &seen, cseq, dialog, ""),
        (false, 8) => response("486 Busy Here", "INVITE", &seen, cseq, dialog, ""),
        (false, 9) => response("487 Request Terminated", "INVITE", &seen, cseq, dialog, ""),
        (false, 10) => response("401 Unauthorized", "INVITE", &seen, cseq, dialog, ""),
        (false, 11) => request("BYE", "22.33.44.20:5060", cseq, swapped, true, ""),
        (false, 12) => request("INVITE", "22.33.44.20:5060", cseq, swapped, fork, &far(3)),
        (false, 13) => response("200 OK", "REGISTER", &seen, cseq, dialog, "").replacen(
            "sip:bob@22.33.44.21:5060",
            &format!("sip:alice@{seen}"),
            1,
        ),
        // What the other phone has been given, so that calls between the two occur.
        (false, 14) => {
            let other = bench.kernel.pinholes.keys().nth(usize::from(retry)).copied();
            let body = other.map_or(far(4), |public| sdp(&public.ip().to_string(), public.port()));
            response("200 OK", "INVITE", &seen, cseq, dialog, &body)
        }
        (false, _) => request("INVITE", "22.33.44.20:5060", cseq, swapped, fork, ""),
    };
    (text, phone)
}

/// Everything that can be seen of a run.
type Seen = (Vec<Passed>, Vec<Op>, Vec<Event>);

/// Runs the steps, then waits until everything must be over.
fn run(steps: &[Step], fates: &[Option<Failure>], [small, hairpin, any]: [bool; 3]) -> (Seen, Bench) {
    let mut policy = Policy::default();
    if hairpin {
        policy.media_local = MediaLocal::Hairpin;
    }
    if any {
        policy.media_source = MediaSource::Any;
    }
    if small {
        policy.ports = 20_000..=20_019;
        policy.limits.calls = 3;
        policy.limits.transactions = 6;
        policy.limits.bindings = 12;
        policy.limits.flows = 2;
    }
    let mut bench = Bench::new(policy);
    bench.dice.extend(fates);
    let mut all = Vec::new();
    for step in steps {
        match *step {
            Step::Out { call, what, fork, retry } => {
                let (text, phone) = write(&bench, call, what, fork, retry, true);
                let passed = bench.out(phone, PROXY, &text);
                if passed.reason == Reason::Rewritten {
                    let ip = phone.split(':').next().expect("an endpoint");
                    let text = passed.text();
                    assert!(!text.contains(&format!("c=IN IP4 {ip}")), "half translated: {text}");
                }
                all.push(passed);
            }
            Step::In { call, what, fork, retry } => {
                let (text, phone) = write(&bench, call, what, fork, retry, false);
                all.push(bench.inn(PROXY, phone, &text));
            }
            Step::Cut { call, what, at } => {
                let (text, phone) = write(&bench, call, what, false, 0, true);
                let cut = &text[..usize::from(at) % text.len()];
                let passed = bench.out(phone, PROXY, cut);
                assert!(passed.reason != Reason::Rewritten, "{cut}");
                all.push(passed);
            }
            Step::Rest { seconds } => bench.advance(Duration::from_secs(seconds.into())),
            Step::Latch { nth, from } => {
                let open: Vec<_> = bench.kernel.pinholes.keys().copied().collect();
                if let Some(public) = open.get(usize::from(nth) % open.len().max(1)) {
                    let far = ["22.33.44.22:31000", "22.33.44.22:30000", "6.6.6.6:7"][usize::from(from)];
                    all.push(bench.latch(far, *public));
                }
            }
            Step::Forget { phone } => bench.forget(PHONES[usize::from(phone)], PROXY),
            Step::NewAddress(n) => {
                bench.move_to(["22.33.44.55", "22.33.44.66", "22.33.44.77"][usize::from(n)])
            }
            Step::Reload => bench.input(Input::RulesetReloaded),
            Step::Silence => bench.kernel.pins.clear(),
        }
        let sizes = bench.engine.sizes();
        assert_eq!(sizes.parked, 0, "somebody waits for ever");
        assert_eq!(sizes.bindings, bench.kernel.pinholes.len(), "the tables and the kernel agree");
    }
    bench.dice.clear();
    // Nobody talks any more; the longest hold is twelve hours, twice.
    for _ in 0..40 {
        bench.kernel.pins.clear();
        bench.advance(Duration::from_secs(3600));
    }
    let seen = (all, bench.commands.clone(), bench.events.clone());
    (seen, bench)
}

proptest! {
    #![proptest_config(cases(250))]

    /// Oracles 5 and 6: whatever happened, in the end all tables are empty and nothing is open; and it happens the same
    /// way twice.
    #[test]
    fn in_the_end_nothing_is_left(
        steps in story(),
        fates in prop_oneof![Just(Vec::new()), vec(fate(), 0..60)],
        policy in [0.2, 0.5, 0.2].map(prop::bool::weighted),
    ) {
        let (seen, bench) = run(&steps, &fates, policy);
        bench.assert_all_closed();
        prop_assert_eq!(bench.engine.sizes(), Sizes::default());
        prop_assert_eq!(bench.engine.poll_timeout(), None, "nothing is left to wait for");
        let verdicts: u64 = Reason::ALL.iter().map(|reason| bench.count(*reason)).sum();
        prop_assert_eq!(verdicts, bench.packets_seen(), "one verdict for each packet");
        let (again, _) = run(&steps, &fates, policy);
        prop_assert!(seen == again, "the same inputs gave other outputs");
    }

    /// As long as no command fails, nothing that is in use dies of old age in the kernel.
    #[test]
    fn what_is_open_is_renewed(steps in story(), rests in vec(prop_oneof![0..3u64, 20..200u64], 100)) {
        let mut bench = Bench::default();
        for (step, rest) in steps.iter().zip(rests) {
            match *step {
                Step::Out { call, what, fork, retry } => {
                    let (text, phone) = write(&bench, call, what, fork, retry, true);
                    bench.out(phone, PROXY, &text);
                }
                Step::In { call, what, fork, retry } => {
                    let (text, phone) = write(&bench, call, what, fork, retry, false);
                    bench.inn(PROXY, phone, &text);
                }
                Step::Rest { seconds } => bench.advance(Duration::from_secs(seconds.into())),
                _ => {}
            }
            bench.assert_renewed();
            // People let it ring, talk, and hold; nothing may have died when they go on.
            bench.advance(Duration::from_secs(rest));
            bench.assert_renewed();
        }
    }
}
