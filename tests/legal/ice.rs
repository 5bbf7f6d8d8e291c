//! ICE: what one line says, the others say too (RFC 8839, RFC 8840, RFC 9143).

use crate::common::messages::{Dialog, PHONE, PROXY, message, request, response};
use crate::common::{Bench, at};
use crate::{INSIDE, OUTSIDE, PUBLIC, answer, assert_comes, assert_leaves, body_of, called, offer, outside};
use sipalg::alg::{MediaIce, Policy, Reason};

const HEAD: &str =
    "v=0\no=- 1 1 IN IP4 192.168.1.10\ns=-\nc=IN IP4 192.168.1.10\nt=0 0\na=ice-ufrag:F7gI\na=ice-pwd:x\n";
/// Candidates that are nobody's business: public already, foreign, over TCP, by name, of another family.
const OTHERS: &str = "a=candidate:2 1 UDP 1694498815 22.33.44.55 51000 typ srflx raddr 192.168.1.10 rport 40000\n\
                      a=candidate:3 1 UDP 100 99.88.77.66 52000 typ relay raddr 192.168.1.10 rport 40000 generation 0\n\
                      a=candidate:4 1 TCP 1518280447 192.168.1.10 9 typ host tcptype active\n\
                      a=candidate:5 1 UDP 2122 9b36eaac-bb2e-49bb-bb78-21c41c499900.local 40000 typ host\n\
                      a=candidate:6 1 UDP 2122 2001:db8::10 40000 typ host\n\
                      a=candidate:7 1 UDP 2122 10.8.0.2 40000 typ host\n\
                      a=candidate:8 1 UDP 2122 192.168.1.10 47777 typ host\n";

fn hosts(port: u16) -> String {
    format!(
        "a=candidate:1 1 UDP 2130706431 192.168.1.10 {port} typ host\n\
         a=candidate:1 2 udp 2130706430 192.168.1.10 {} typ host generation 0 network-id 1\n",
        port + 1
    )
}

#[test]
fn f28_the_default_destination_is_one_of_the_candidates() {
    let text = format!("{HEAD}m=audio 40000 RTP/AVP 0\na=rtcp:40001\n{}{OTHERS}", hosts(40000));
    assert_leaves(&text, &[40000, 40001], &[OTHERS]);
    // Many of them, and a phone whose default is what STUN told it: nothing to do, nothing opened.
    let many = OTHERS.repeat(60);
    assert_leaves(
        &format!("{HEAD}m=audio 40000 RTP/AVP 0\n{}{many}", hosts(40000)),
        &[40000, 40001],
        &[&many],
    );
    let public = HEAD.replace(INSIDE, OUTSIDE);
    let text = format!("{public}m=audio 51000 RTP/AVP 0\n{}{OTHERS}", hosts(40000));
    assert_leaves(&text, &[], &[&text]);
    assert_comes(&text.replace(INSIDE, "10.1.1.1").replace(OUTSIDE, "22.33.44.22"));
}

#[test]
fn f28_a_bundle_has_one_port_for_all() {
    // The first offer: a port for each, or none for those that are only there in the bundle.
    let group = "a=group:BUNDLE 0 1 2\n";
    let text = format!(
        "{HEAD}{group}m=audio 40000 UDP/TLS/RTP/SAVPF 0\na=mid:0\na=rtcp-mux\n{}m=video 42000 UDP/TLS/RTP/SAVPF 31\n\
         a=mid:1\na=rtcp-mux\n{}m=video 0 UDP/TLS/RTP/SAVPF 31\na=mid:2\na=bundle-only\na=rtcp-mux\n",
        hosts(40000),
        hosts(42000)
    );
    assert_leaves(&text, &[40000, 40001, 42000, 42001], &[]);
    // Later ones, and answers: the same port in all.
    let one = "a=rtcp:40000 IN IP4 192.168.1.10\na=rtcp-mux\na=candidate:1 1 UDP 2130706431 192.168.1.10 40000 typ host\n";
    let text = format!(
        "{HEAD}{group}m=audio 40000 UDP/TLS/RTP/SAVPF 0\n{one}m=video 40000 UDP/TLS/RTP/SAVPF 31\n{one}\
         m=application 40000 UDP/DTLS/SCTP webrtc-datachannel\na=sctp-port:5000\n"
    );
    assert_leaves(&text, &[40000], &[]);
    let mut bench = Bench::default();
    offer(&mut bench, &text);
    let far = text.replace(INSIDE, "22.33.44.22").replace("40000", "30000");
    assert_eq!(body_of(&answer(&mut bench, &far).text()), far);
    bench.assert_pinned("192.168.1.10:40000", "22.33.44.22:30000");
    assert_eq!(bench.kernel.pins.len(), 1, "{:?}", bench.kernel.pins);
    let bye = Dialog { branch: "z9hG4bK-bye", ..Dialog::default() };
    bench.out(PHONE, PROXY, request("BYE", PHONE, 2, bye, true, ""));
    bench.inn(PROXY, PHONE, response("200 OK", "BYE", PUBLIC, 2, bye, ""));
    bench.assert_all_closed();
}

#[test]
fn f28_candidates_that_trickle_in() {
    // Nothing is known yet (RFC 8840 section 4.1.1): no address, the discard port.
    let nothing = "v=0\no=- 1 1 IN IP4 192.168.1.10\ns=-\nc=IN IP4 0.0.0.0\nt=0 0\na=ice-options:trickle\n\
                   a=ice-ufrag:x\nm=audio 9 UDP/TLS/RTP/SAVPF 0\na=rtcp:9 IN IP4 0.0.0.0\na=rtcp-mux\n";
    assert_leaves(nothing, &[], &[]);
    assert_leaves(&nothing.replace("0.0.0.0", INSIDE), &[], &[]);
    assert_leaves(&nothing.replace("IP4 0.0.0.0", "IP6 ::"), &[], &[]);
    assert_comes(&nothing.replace(INSIDE, "22.33.44.22"));

    // Afterwards in INFO: those of a stream that has its door are mapped, and the length with them.
    let info = |via: &str, kind: &str, body: &str| {
        message(
            &format!(
                "INFO sip:bob@provider.example SIP/2.0\nVia: SIP/2.0/UDP {via};branch=z9hG4bK-i;rport\n\
                 From: <sip:alice@provider.example>;tag=alice-1\nTo: <sip:bob@provider.example>;tag=bob-1\n\
                 Call-ID: call-1@192.168.1.10\nCSeq: 2 INFO\nInfo-Package: trickle-ice\n\
                 Content-Disposition: Info-Package\nContent-Type: {kind}"
            ),
            body,
        )
    };
    let pieces = |hosts: &str| {
        format!(
            "a=ice-pwd:x\na=ice-ufrag:F7gI\nm=audio 9 RTP/AVP 0\na=mid:1\n{hosts}{OTHERS}a=end-of-candidates\n"
        )
    };
    for kind in ["application/trickle-ice-sdpfrag", "APPLICATION/Trickle-ICE-SDPfrag;charset=utf-8"] {
        let mut bench = Bench::default();
        offer(&mut bench, &format!("{HEAD}m=audio 40000 RTP/AVP 0\n"));
        answer(&mut bench, &crate::common::messages::sdp("22.33.44.22", 30000));
        let sent = bench.out(PHONE, PROXY, info(PHONE, kind, &pieces(&hosts(40000))));
        let expected = pieces(&outside(&bench, &hosts(40000), &[40000, 40001]));
        assert_eq!(sent.text(), info(PUBLIC, kind, &expected));
        // The far end's come in as they are, but for the pair that it names as ours.
        let got =
            bench.inn(PROXY, PHONE, info("22.33.44.20", kind, &pieces("").replace(OUTSIDE, "22.33.44.22")));
        assert_eq!(got.reason, Reason::Unchanged);
    }
    // Pieces in another kind of body, or of a stream without a door, are text.
    let mut bench = Bench::default();
    for kind in ["application/trickle-ice-sdpfrag", "application/octet-stream", "text/plain"] {
        let sent = bench.out(PHONE, PROXY, info(PHONE, kind, &pieces(&hosts(40000)))).text();
        assert_eq!(sent, info(PUBLIC, kind, &pieces(&hosts(40000))), "{kind}");
    }
    assert!(bench.kernel.pinholes.is_empty());
}

#[test]
fn f28_the_chosen_pair_comes_back_in_the_phones_words() {
    let mut bench = Bench::default();
    let mine = format!("{HEAD}m=audio 40000 RTP/AVP 0\n{}", hosts(40000));
    offer(&mut bench, &mine);
    answer(&mut bench, &crate::common::messages::sdp("22.33.44.22", 30000));
    let [rtp, rtcp] = [40000, 40001].map(|port| bench.binding(&format!("{INSIDE}:{port}")).port());
    let far = |a: &str, b: &str| {
        format!("{}a=remote-candidates:1 {a} 2 {b}\n", crate::common::messages::sdp("22.33.44.22", 30000))
    };
    let (got, _) = called(&mut bench, &far(&format!("{OUTSIDE} {rtp}"), &format!("{OUTSIDE} {rtcp}")), &mine);
    assert_eq!(got, far(&format!("{INSIDE} 40000"), &format!("{INSIDE} 40001")));
    // Others' are not ours.
    let foreign = far("22.33.44.55 51000", "99.88.77.66 40000");
    let mut bench = Bench::default();
    assert_eq!(called(&mut bench, &foreign, &mine).0, foreign);
    // What the phone names are the far end's.
    let named = format!("{mine}a=remote-candidates:1 22.33.44.22 30000 2 192.168.1.10 40001\n");
    assert_leaves(&named, &[40000, 40001], &["remote-candidates:1 22.33.44.22 30000 2 192.168.1.10 40001"]);
}

#[test]
fn f28_who_wants_it_leaves_ice_alone() {
    let policy = Policy { media_ice: MediaIce::Leave, ..Policy::default() };
    let ice = [
        format!("{HEAD}m=audio 40000 RTP/AVP 0\n{}", hosts(40000)),
        format!("{HEAD}m=audio 40000 RTP/AVP 0\n"),
        format!("{}m=audio 40000 RTP/AVP 0\n{}", HEAD.replace("a=ice", "a=xce"), hosts(40000)),
    ];
    for text in &ice {
        let mut bench = Bench::new(policy.clone());
        let sent = offer(&mut bench, text);
        assert_eq!(sent.rules, ["via", "contact"], "{text}");
        assert_eq!(body_of(&sent.text()), *text);
        assert_eq!(
            body_of(&answer(&mut bench, &text.replace(INSIDE, "22.33.44.22")).text()),
            text.replace(INSIDE, "22.33.44.22")
        );
        assert!(bench.kernel.pinholes.is_empty() && bench.kernel.pins.is_empty());
    }
    // Everybody else is served as ever.
    let mut bench = Bench::new(policy);
    let plain = crate::common::messages::sdp(INSIDE, 40000);
    let sent = body_of(&offer(&mut bench, &plain).text());
    assert_eq!(sent, outside(&bench, &plain, &[40000]));
    assert_eq!(bench.binding("192.168.1.10:40000").ip(), at(PUBLIC).ip());
}
