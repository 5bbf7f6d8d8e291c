//! Descriptions: every line that carries an address, each on its own.

use crate::common::messages::{Dialog, PHONE, PROXY, answer, message, request, sdp};
use crate::common::{Bench, at};
use crate::{PUBLIC, answered, call, hang_up, invite};
use sipalg::alg::{Event, Reason};

/// The body that leaves for this one, and the bench that did it.
fn leaves(body: &str) -> (String, Bench) {
    let mut bench = Bench::default();
    let sent = invite(&mut bench, Dialog::default(), body);
    let text = sent.text();
    let (head, sent) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.ends_with(&format!("Content-Length: {}", sent.len())), "{head}");
    (sent.replace("\r\n", "\n"), bench)
}

/// `body` with inside endpoints (`192.168.1.10 PORT` by the names `@P1`…) replaced by what they were bound to.
fn expected(bench: &Bench, body: &str, ports: &[u16]) -> String {
    let mut text = body.replace("192.168.1.10", "22.33.44.55");
    for port in ports {
        let public = bench.binding(&format!("192.168.1.10:{port}")).port();
        text = text.replace(&format!("{port} "), &format!("{public} "));
        text = text.replace(&format!("{port}\n"), &format!("{public}\n"));
    }
    text
}

const HEAD: &str = "v=0\no=- 1 1 IN IP4 192.168.1.10\ns=-\n";

#[test]
fn f18_a_description_that_is_strange_is_no_reason_to_lose_a_call() {
    // Others drop the INVITE for each of these.
    for (body, reason) in [
        (
            "o=- 1 1 IN IP4 pbx.lan\ns=-\nc=IN IP4 pbx.lan\nt=0 0\nm=audio 40000 RTP/AVP 0\n",
            Reason::Rewritten,
        ),
        ("o=- 1 1 IN IP4 22.33.44.55\ns=-\nt=0 0\nm=audio 40000 RTP/AVP 0\n", Reason::Rewritten),
        ("s=-\nm=audio 40000 RTP/AVP 0\n", Reason::Rewritten),
        ("o=\nc=\nm=\na=rtcp:\n", Reason::Rewritten),
        ("c=IN IP4 192.168.1.10\nm=audio 5 RTP/AVP 0\n", Reason::Refused),
        ("c=IN IP4 192.168.1.10\nm=audio 3306 RTP/AVP 0\n", Reason::Refused),
        ("c=IN IP4 192.168.1.10\nm=audio 40000/0 RTP/AVP 0\n", Reason::Rewritten),
        ("c=IN IP4 192.168.1.10\nm=audio 40000/99 RTP/AVP 0\n", Reason::Refused),
        ("c=IN IP4 192.168.1.10\nm=audio 65535 RTP/AVP 0\n", Reason::Rewritten),
        ("c=IN IP4 192.168.1.10\nm=audio 65536 RTP/AVP 0\n", Reason::Rewritten),
        ("c=IN IP4 224.2.1.1/127\nm=audio 40000 RTP/AVP 0\n", Reason::Rewritten),
    ] {
        let mut bench = Bench::default();
        let text = request("INVITE", PHONE, 1, Dialog::default(), false, &format!("v=0\n{body}"));
        let sent = bench.out(PHONE, PROXY, &text);
        assert_eq!(sent.reason, reason, "{body}");
        assert!(sent.payload.is_some(), "{body}");
        assert_eq!(bench.count(reason), 1);
        if reason == Reason::Refused {
            assert_eq!(sent.text(), text);
            assert!(bench.events.iter().any(|event| matches!(event, Event::Refused { .. })), "{body}");
            bench.assert_all_closed();
        }
    }
    let text = request("INVITE", PHONE, 1, Dialog::default(), false, "x=0\n");
    let mut bench = Bench::default();
    let sent = bench.out(PHONE, PROXY, &text);
    assert_eq!((sent.text(), sent.reason), (text, Reason::Unparsable));
}

#[test]
fn f19_every_connection_is_mapped_for_its_own_media() {
    // Others overwrite the session's `c=` and `o=` with the last one that they meet.
    let body = format!(
        "{HEAD}c=IN IP4 192.168.1.10\nt=0 0\nm=audio 40000 RTP/AVP 0\nm=video 42000 RTP/AVP 31\n\
         c=IN IP4 99.88.77.66\nm=audio 44000 RTP/AVP 0\nc=IN IP4 192.168.1.10\n"
    );
    let (sent, bench) = leaves(&body);
    assert_eq!(sent, expected(&bench, &body, &[40000, 44000]));
    assert_eq!(bench.kernel.pinholes.len(), 4, "nothing for the relay's video");
    // No session level at all, and the relay first.
    let body = format!(
        "{HEAD}t=0 0\nm=video 42000 RTP/AVP 31\nc=IN IP4 99.88.77.66\nm=audio 40000 RTP/AVP 0\nc=IN IP4 192.168.1.10\n"
    );
    let (sent, bench) = leaves(&body);
    assert_eq!(sent, expected(&bench, &body, &[40000]));
}

#[test]
fn f20_every_kind_of_media_is_served() {
    // Others know audio, video and image, and count to three.
    let body = format!(
        "{HEAD}c=IN IP4 192.168.1.10\nt=0 0\nm=audio 40000 RTP/AVP 0\nm=video 40002 RTP/AVPF 96\n\
         m=text 40004 RTP/AVP 98\nm=application 40006 UDP/BFCP *\nm=image 40008 udptl t38\n\
         m=application 40010 UDP/DTLS/SCTP webrtc-datachannel\nm=audio 40012 RTP/SAVP 0\n\
         m=audio 40014 UDP/TLS/RTP/SAVPF 0\nm=whatever 40016 udp 1\n"
    );
    let (sent, bench) = leaves(&body);
    let ports = [40000, 40002, 40004, 40006, 40008, 40010, 40012, 40014, 40016];
    assert_eq!(sent, expected(&bench, &body, &ports));
    assert_eq!(bench.kernel.pinholes.len(), 9 + 5, "five of them have RTCP");
}

#[test]
fn f20_layered_media_has_ports_in_a_row() {
    let body = format!("{HEAD}c=IN IP4 192.168.1.10\nt=0 0\nm=video 40000/3 RTP/AVP 31\n");
    let mut bench = Bench::default();
    let sent = invite(&mut bench, Dialog::default(), &body).text();
    let first = bench.binding("192.168.1.10:40000").port();
    for offset in 0..6 {
        assert_eq!(bench.binding(&format!("192.168.1.10:{}", 40000 + offset)).port(), first + offset);
    }
    assert!(sent.contains(&format!("\r\nm=video {first}/3 RTP/AVP 31\r\n")), "{sent}");
    answered(
        &mut bench,
        Dialog::default(),
        "200 OK",
        &sdp("22.33.44.22", 30000).replace("m=audio 30000", "m=video 30000/3"),
    );
    for offset in 0..6 {
        let (local, far) = (40000 + offset, 30000 + offset);
        bench.assert_pinned(&format!("192.168.1.10:{local}"), &format!("22.33.44.22:{far}"));
    }
    hang_up(&mut bench, Dialog::default());
    bench.assert_all_closed();
}

#[test]
fn f27_rtcp_is_where_the_description_says() {
    // Others open the next even pair, and ignore `a=rtcp`.
    let body = format!("{HEAD}c=IN IP4 192.168.1.10\nt=0 0\nm=audio 40001 RTP/AVP 0\na=rtcp:41000\n");
    let (sent, bench) = leaves(&body);
    let rtp = bench.binding("192.168.1.10:40001").port();
    let rtcp = bench.binding("192.168.1.10:41000").port();
    assert_eq!((rtp % 2, rtcp), (1, rtp + 1), "the phone's parity");
    assert_eq!(
        sent,
        body.replace("192.168.1.10", "22.33.44.55")
            .replace("40001", &rtp.to_string())
            .replace("41000", &rtcp.to_string())
    );

    // Odd, without a word on RTCP: it is the next port.
    let body = format!("{HEAD}c=IN IP4 192.168.1.10\nt=0 0\nm=audio 40001 RTP/AVP 0\n");
    let (_, bench) = leaves(&body);
    assert_eq!(bench.binding("192.168.1.10:40002").port(), bench.binding("192.168.1.10:40001").port() + 1);

    // With an address of its own, and both in one port.
    let body = format!(
        "{HEAD}c=IN IP4 192.168.1.10\nt=0 0\nm=audio 40000 RTP/AVP 0\na=rtcp:41001 IN IP4 192.168.1.10\na=rtcp-mux\n"
    );
    let (sent, mut bench) = leaves(&body);
    let rtp = bench.binding("192.168.1.10:40000").port();
    let rtcp = bench.binding("192.168.1.10:41001").port();
    assert_eq!(
        sent,
        body.replace("192.168.1.10", "22.33.44.55")
            .replace("40000", &rtp.to_string())
            .replace("41001", &rtcp.to_string())
    );
    let answer = format!("{}a=rtcp-mux\n", sdp("22.33.44.22", 30000));
    answered(&mut bench, Dialog::default(), "200 OK", &answer);
    bench.assert_pinned("192.168.1.10:40000", "22.33.44.22:30000");
    assert_eq!(bench.kernel.pins.len(), 1, "the answer has one port: {:?}", bench.kernel.pins);

    // Both in one port, and said twice.
    let body = format!(
        "{HEAD}c=IN IP4 192.168.1.10\nt=0 0\nm=audio 40000 RTP/AVP 0\na=rtcp:40000 IN IP4 192.168.1.10\na=rtcp-mux\n"
    );
    let (sent, mut bench) = leaves(&body);
    let rtp = bench.binding("192.168.1.10:40000").port();
    assert_eq!(sent, body.replace("192.168.1.10", "22.33.44.55").replace("40000", &rtp.to_string()));
    assert_eq!(bench.kernel.pinholes.len(), 1);
    answered(&mut bench, Dialog::default(), "486 Busy Here", "");
    bench.assert_all_closed();

    // The far end's `a=rtcp` counts as well.
    let (_, mut bench) = leaves(&sdp("192.168.1.10", 40000));
    let answer = format!("{}a=rtcp:31999 IN IP4 22.33.44.23\n", sdp("22.33.44.22", 30000));
    answered(&mut bench, Dialog::default(), "200 OK", &answer);
    bench.assert_pinned("192.168.1.10:40001", "22.33.44.23:31999");
}

#[test]
fn f28_candidates_say_the_same_as_the_lines_above() {
    // Others change `c=` and `m=` alone: ICE sees a mismatch.
    let body = format!(
        "{HEAD}c=IN IP4 192.168.1.10\nt=0 0\nm=audio 40000 RTP/AVP 0\n\
         a=candidate:1 1 UDP 2130706431 192.168.1.10 40000 typ host\n\
         a=candidate:1 2 UDP 2130706430 192.168.1.10 40001 typ host\n\
         a=candidate:2 1 UDP 1694498815 22.33.44.55 51000 typ srflx raddr 192.168.1.10 rport 40000\n\
         a=candidate:3 1 TCP 1518280447 192.168.1.10 9 typ host tcptype active\n\
         a=ice-ufrag:x\na=ice-pwd:y\n"
    );
    let (sent, mut bench) = leaves(&body);
    let [rtp, rtcp] = [40000, 40001].map(|port| bench.binding(&format!("192.168.1.10:{port}")).port());
    let wanted = format!(
        "{}c=IN IP4 22.33.44.55\nt=0 0\nm=audio {rtp} RTP/AVP 0\n\
         a=candidate:1 1 UDP 2130706431 22.33.44.55 {rtp} typ host\n\
         a=candidate:1 2 UDP 2130706430 22.33.44.55 {rtcp} typ host\n\
         a=candidate:2 1 UDP 1694498815 22.33.44.55 51000 typ srflx raddr 192.168.1.10 rport 40000\n\
         a=candidate:3 1 TCP 1518280447 192.168.1.10 9 typ host tcptype active\n\
         a=ice-ufrag:x\na=ice-pwd:y\n",
        HEAD.replace("192.168.1.10", "22.33.44.55")
    );
    assert_eq!(sent, wanted);
    // The far end names the pair that it chose: in the phone's own words.
    answered(&mut bench, Dialog::default(), "200 OK", &sdp("22.33.44.22", 30000));
    let offer = |ip: &str, a: u16, b: u16| {
        let lines = format!("a=remote-candidates:1 {ip} {a} 2 {ip} {b}\n");
        message(
            "INVITE sip:alice@x.example SIP/2.0\nVia: SIP/2.0/UDP 22.33.44.20;branch=z9hG4bK-ice\n\
                 From: <sip:bob@provider.example>;tag=bob-1\nTo: <sip:alice@provider.example>;tag=alice-1\n\
                 Call-ID: call-1@192.168.1.10\nCSeq: 1 INVITE\nContent-Type: application/sdp",
            &format!("{}{lines}", sdp("22.33.44.22", 30000)),
        )
    };
    let got = bench.inn(PROXY, PHONE, offer("22.33.44.55", rtp, rtcp));
    assert_eq!(got.text(), offer("192.168.1.10", 40000, 40001));
}

#[test]
fn f17_the_origin_names_the_same_session_always() {
    let mut bench = Bench::default();
    call(&mut bench, Dialog::default(), &sdp("192.168.1.10", 40000), &sdp("22.33.44.22", 30000));
    for (cseq, c) in [(2, "0.0.0.0"), (3, "192.168.1.10"), (4, "99.88.77.66"), (5, "pbx.lan")] {
        let branch = format!("z9hG4bK-o{cseq}");
        let dialog = Dialog { branch: &branch, ..Dialog::default() };
        let body = sdp("192.168.1.10", 40000).replace("c=IN IP4 192.168.1.10", &format!("c=IN IP4 {c}"));
        let sent = bench.out(PHONE, PROXY, request("INVITE", PHONE, cseq, dialog, true, &body)).text();
        assert!(sent.contains("\r\no=- 1 1 IN IP4 22.33.44.55\r\n"), "{sent}");
    }
}

#[test]
fn f37_each_line_has_its_own_family() {
    // A dual-stack offer in a call over IPv4: others take the family from the packet, and drop the rest.
    let body = "v=0\no=- 1 1 IN IP6 2001:db8::10\ns=-\nt=0 0\nm=audio 40000 RTP/AVP 0\n\
                c=IN IP6 2001:db8::10\nm=audio 42000 RTP/AVP 0\nc=IN IP4 192.168.1.10\n\
                m=audio 44000 RTP/AVP 0\nc=IN IP4 2001:db8::10\n";
    let (sent, bench) = leaves(body);
    assert_eq!(sent, expected(&bench, body, &[42000]));
    assert_eq!(bench.kernel.pinholes.len(), 2);
}

#[test]
fn f37_a_nat_for_ipv6_is_a_nat() {
    let (phone, proxy) = ("[fd00::10]:5060", "[2001:db8:1::20]:5060");
    let mut bench = Bench::default();
    bench.nat(phone, proxy, "[2001:db8::55]:17375");
    let dialog = Dialog { call_id: "six", ..Dialog::default() };
    let body = |ip: &str, port: u16| sdp(ip, port).replace("IP4", "IP6");
    let sent = bench.out(phone, proxy, request("INVITE", phone, 1, dialog, false, &body("fd00::10", 40000)));
    let public = bench.binding("[fd00::10]:40000");
    assert_eq!(
        sent.text(),
        request("INVITE", "[2001:db8::55]:17375", 1, dialog, false, &body("2001:db8::55", public.port()))
    );
    let seen = at("[2001:db8::55]:17375");
    let ok = answer(&sent.text(), "200 OK", seen, "", &body("2001:db8:1::22", 30000));
    let got = bench.inn(proxy, phone, ok).text();
    assert!(
        got.contains("Via: SIP/2.0/UDP [fd00::10]:5060;branch=z9hG4bK-1;rport=5060;received=fd00::10\r\n"),
        "{got}"
    );
    bench.assert_pinned("[fd00::10]:40000", "[2001:db8:1::22]:30000");
    assert_ne!(PUBLIC, phone);
}
