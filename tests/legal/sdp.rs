//! Descriptions in every dialect.

use crate::common::messages::{Dialog, PHONE, PROXY, request, response};
use crate::common::{Bench, at};
use crate::{INSIDE, PUBLIC, answer, assert_comes, assert_leaves, called, offer};

const HEAD: &str = "v=0\no=- 1 1 IN IP4 192.168.1.10\ns=-\n";
const HELD: &str = "v=0\no=- 1 1 IN IP4 192.168.1.10\ns=-\nc=IN IP4 192.168.1.10\nt=0 0\n";

#[test]
fn f17_hold_in_every_dialect() {
    for direction in ["sendonly", "recvonly", "inactive", "sendrecv"] {
        assert_leaves(&format!("{HELD}m=audio 40000 RTP/AVP 0\na={direction}\n"), &[40000, 40001], &[]);
        let session = HELD.replace("t=0 0\n", &format!("t=0 0\na={direction}\n"));
        assert_leaves(&format!("{session}m=audio 40000 RTP/AVP 0\n"), &[40000, 40001], &[]);
    }
    // Nowhere is no place of the phone's, in either family and at either level.
    for (family, nowhere) in [("IP4", "0.0.0.0"), ("IP6", "::"), ("IP6", "0:0:0:0:0:0:0:0")] {
        let line = format!("c=IN {family} {nowhere}\n");
        assert_leaves(&format!("{HEAD}{line}t=0 0\nm=audio 40000 RTP/AVP 0\n"), &[], &["40000"]);
        assert_leaves(
            &format!("{HELD}m=audio 40000 RTP/AVP 0\n{line}m=video 42000 RTP/AVP 31\n"),
            &[42000, 42001],
            &["40000"],
        );
        assert_comes(&format!(
            "v=0\no=- 1 1 IN IP4 22.33.44.22\ns=-\n{line}t=0 0\nm=audio 30000 RTP/AVP 0\n"
        ));
    }
    assert_leaves(&format!("{HELD}m=audio 0 RTP/AVP 0\nm=video 42000 RTP/AVP 31\n"), &[42000, 42001], &[]);
}

#[test]
fn f19_every_connection_on_its_own() {
    // Several for one stream (layered multicast has that), with ttl and count; the first says where RTP is.
    assert_leaves(
        &format!(
            "{HEAD}t=0 0\nm=video 40000 RTP/AVP 31\nc=IN IP4 192.168.1.10\nc=IN IP4 224.2.1.2/127/3\n\
             c=IN IP4 192.168.1.10\nm=audio 42000 RTP/AVP 0\nc=IN IP4 192.168.1.10/127\n"
        ),
        &[40000, 40001, 42000, 42001],
        &[],
    );
    for name in ["pbx.lan", "192.168.1.10.example", "192.168.1.100", "192.168.001.010", "22.33.44.55"] {
        let c = format!("c=IN IP4 {name}\n");
        let text = format!("v=0\no=a b 1 1 IN IP4 {name}\ns=-\n{c}t=0 0\nm=audio 40000 RTP/AVP 0\n");
        assert_leaves(&text, &[], &[name, "40000"]);
    }
    assert_comes(
        "v=0\no=- 1 1 IN IP4 sbc.example\ns=-\nc=IN IP4 sbc.example\nt=0 0\nm=audio 30000 RTP/AVP 0\n\
         m=video 30002 RTP/AVP 31\nc=IN IP4 22.33.44.55\nm=audio 30004 RTP/AVP 0\nc=IN IP4 192.168.1.10\n",
    );
}

#[test]
fn f20_tcp_stays_with_the_line_that_holds_for_nothing_else() {
    // A public address beside a port that nobody opened leads to the router.
    let msrp = "m=message 2855 TCP/MSRP *\na=path:msrp://192.168.1.10:2855/x;tcp\n";
    let bfcp = "m=application 5070 TCP/BFCP *\na=setup:passive\na=connection:new\n";
    let own = "c=IN IP4 192.168.1.10\n";
    assert_leaves(&format!("{HELD}m=audio 40000 RTP/AVP 0\n{msrp}{bfcp}"), &[40000, 40001], &[msrp, bfcp]);
    let text = format!("{HEAD}t=0 0\nm=audio 40000 RTP/AVP 0\n{own}{msrp}{own}{bfcp}{own}");
    let kept = [format!("{msrp}{own}"), format!("{bfcp}{own}")];
    assert_leaves(&text, &[40000, 40001], &[&kept[0], &kept[1]]);
    assert_leaves(&format!("{HEAD}{own}t=0 0\n{msrp}"), &[], &[&format!("{own}t=0 0\n{msrp}")]);
    assert_leaves(
        &format!("{HEAD}{own}t=0 0\nm=image 40000 tcptl t38\n"),
        &[],
        &[&format!("{own}t=0 0\nm=image 40000 tcptl t38\n")],
    );
    assert_comes(&format!(
        "v=0\no=- 1 1 IN IP4 22.33.44.22\ns=-\nc=IN IP4 22.33.44.22\nt=0 0\n{}",
        msrp.replace(INSIDE, "22.33.44.22")
    ));
}

#[test]
fn f27_rtcp_in_every_place() {
    let line = "m=audio 40000 RTP/AVP 0\n";
    for (lines, mapped, kept) in [
        (format!("{line}a=rtcp-mux\n"), vec![40000, 40001], vec![]),
        (format!("{line}a=rtcp-mux-only\n"), vec![40000], vec![]),
        (format!("{line}a=rtcp-mux\na=rtcp:40000 IN IP4 192.168.1.10\n"), vec![40000], vec![]),
        (format!("{line}a=rtcp:40000\na=rtcp-mux\n"), vec![40000], vec![]),
        (
            format!("{line}a=rtcp:9 IN IP4 0.0.0.0\na=rtcp-mux\n"),
            vec![40000],
            vec!["a=rtcp:9 IN IP4 0.0.0.0"],
        ),
        (format!("{line}a=rtcp:41001 IN IP4 192.168.1.10\n"), vec![40000, 41001], vec![]),
        (format!("{line}a=rtcp:41001 IN IP4 99.88.77.66\n"), vec![40000], vec!["41001 IN IP4 99.88.77.66"]),
        (format!("{line}a=rtcp:41001 IN IP4 pbx.lan\n"), vec![40000], vec!["41001 IN IP4 pbx.lan"]),
        ("m=audio 40001 RTP/AVP 0\n".to_string(), vec![40001, 40002], vec![]),
        ("m=video 40000/2 RTP/AVP 31\n".to_string(), vec![40000, 40001, 40002, 40003], vec![]),
        ("m=audio 9 RTP/AVP 0\n".to_string(), vec![], vec!["m=audio 9"]),
    ] {
        assert_leaves(&format!("{HELD}{lines}"), &mapped, &kept);
    }
    // The far end's, on the way to the pinned flow. It answers to a phone that can multiplex.
    for (lines, far) in [
        ("a=rtcp-mux\n", vec!["22.33.44.22:30000"]),
        ("a=rtcp-mux-only\n", vec!["22.33.44.22:30000"]),
        ("a=rtcp:30000\n", vec!["22.33.44.22:30000"]),
        ("a=rtcp:9 IN IP4 0.0.0.0\n", vec!["22.33.44.22:30000"]),
        ("a=rtcp:31001 IN IP4 22.33.44.23\n", vec!["22.33.44.22:30000", "22.33.44.23:31001"]),
        ("", vec!["22.33.44.22:30000", "22.33.44.22:30001"]),
    ] {
        let mut bench = Bench::default();
        offer(&mut bench, &format!("{HELD}{line}a=rtcp-mux\n"));
        answer(&mut bench, &format!("{}{lines}", crate::common::messages::sdp("22.33.44.22", 30000)));
        let pinned: Vec<_> = bench.kernel.pins.iter().map(|pin| pin.far).collect();
        assert_eq!(pinned, far.into_iter().map(at).collect::<Vec<_>>(), "{lines}");
    }
}

#[test]
fn f30_fax_beside_speech_and_instead_of_it() {
    assert_leaves(
        &format!("{HELD}m=audio 40000 RTP/AVP 0\nm=image 40004 udptl t38\na=T38FaxVersion:0\n"),
        &[40000, 40001, 40004],
        &[],
    );
    assert_leaves(&format!("{HELD}m=audio 0 RTP/AVP 0\nm=image 40004 UDPTL t38\n"), &[40004], &[]);
    // The phone may use its audio port for the fax as well: one door, used twice.
    let mut bench = Bench::default();
    offer(&mut bench, &format!("{HELD}m=audio 40000 RTP/AVP 0\n"));
    answer(&mut bench, &crate::common::messages::sdp("22.33.44.22", 30000));
    let door = bench.binding("192.168.1.10:40000");
    let dialog = Dialog { branch: "z9hG4bK-fax", ..Dialog::default() };
    let fax = |ip: &str, port: u16| {
        format!("v=0\no=- 1 2 IN IP4 {ip}\ns=-\nc=IN IP4 {ip}\nt=0 0\nm=image {port} udptl t38\n")
    };
    let sent = bench.out(PHONE, PROXY, request("INVITE", PHONE, 2, dialog, true, &fax(INSIDE, 40000)));
    assert_eq!(crate::body_of(&sent.text()), fax("22.33.44.55", door.port()));
    bench.inn(PROXY, PHONE, response("200 OK", "INVITE", PUBLIC, 2, dialog, &fax("22.33.44.22", 30500)));
    bench.assert_pinned("192.168.1.10:40000", "22.33.44.22:30500");
}

#[test]
fn f33_descriptions_travel_in_any_method_and_any_response() {
    // What is asked without a description is answered with one, by the phone and to it.
    let mine = crate::common::messages::sdp(INSIDE, 40000);
    for method in ["OPTIONS", "INFO", "MESSAGE", "NOTIFY", "PRACK", "UPDATE", "FROBNICATE"] {
        let mut bench = Bench::default();
        let sent = bench.out(PHONE, PROXY, request(method, PHONE, 1, Dialog::default(), false, &mine)).text();
        assert_eq!(crate::body_of(&sent), crate::outside(&bench, &mine, &[40000]), "{method}");
        let far = crate::common::messages::sdp("22.33.44.22", 30000);
        for status in ["183 Session Progress", "200 OK", "488 Not Acceptable Here"] {
            let came = response(status, method, PUBLIC, 1, Dialog::default(), &far);
            assert_eq!(crate::body_of(&bench.inn(PROXY, PHONE, came).text()), far, "{method} {status}");
        }
        bench.assert_pinned("192.168.1.10:40000", "22.33.44.22:30000");
    }
    // Several answers, each for another fork, and one that changes its mind: every one has its own flow.
    let mut bench = Bench::default();
    offer(&mut bench, &mine);
    for (to_tag, port) in [("one", 30000), ("two", 31000), ("three", 32000)] {
        let dialog = Dialog { to_tag, ..Dialog::default() };
        let far = crate::common::messages::sdp("22.33.44.22", port);
        bench.inn(PROXY, PHONE, response("183 Session Progress", "INVITE", PUBLIC, 1, dialog, &far));
    }
    for port in [30000, 31000, 32000] {
        bench.assert_pinned("192.168.1.10:40000", &format!("22.33.44.22:{port}"));
    }
    assert_eq!(bench.kernel.pinholes.len(), 2, "one door");
    // A late offer: the provider's in its INVITE's 200 (the phone calls without one), the phone's in the ACK.
    let mut bench = Bench::default();
    offer(&mut bench, "");
    answer(&mut bench, &crate::common::messages::sdp("22.33.44.22", 30000));
    let ack = Dialog { branch: "z9hG4bK-ack", ..Dialog::default() };
    let sent = bench.out(PHONE, PROXY, request("ACK", PHONE, 1, ack, true, &mine)).text();
    assert_eq!(crate::body_of(&sent), crate::outside(&bench, &mine, &[40000]));
    bench.assert_pinned("192.168.1.10:40000", "22.33.44.22:30000");
}

#[test]
fn f36_what_keeps_media_secret_is_nobodys_business() {
    let secrets = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:192.168.1.10|2^20|1:4\n\
                   a=fingerprint:sha-256 19:21:68:11:00\na=setup:actpass\na=tls-id:192.168.1.10\n\
                   a=key-mgmt:mikey 192.168.1.10\na=zrtp-hash:1.10 192.168.1.10\na=identity:192.168.1.10\n\
                   a=ssrc:1 cname:192.168.1.10\na=msid:192.168.1.10 40000\na=rtpmap:0 PCMU/8000\na=x-40000 \n\
                   a=fmtp:96 x=192.168.1.10:40000\nb=AS:40000\nk=clear:192.168.1.10\ni=192.168.1.10\n";
    for proto in ["RTP/SAVP", "RTP/SAVPF", "UDP/TLS/RTP/SAVP", "UDP/TLS/RTP/SAVPF"] {
        let text = format!("{HELD}m=audio 40000 {proto} 0\n{secrets}");
        assert_leaves(&text, &[40000, 40001], &[secrets]);
    }
    let far = "v=0\no=- 1 1 IN IP4 22.33.44.22\ns=-\nc=IN IP4 22.33.44.22\nt=0 0\nm=audio 30000 RTP/SAVP 0\n";
    assert_comes(&format!("{far}{}", secrets.replace(INSIDE, "22.33.44.55")));
}

#[test]
fn f37_each_line_has_its_own_family() {
    for group in ["a=group:ANAT 1 2\n", ""] {
        let text = format!(
            "v=0\no=- 1 1 IN IP6 2001:db8::10\ns=-\nt=0 0\n{group}m=audio 40000 RTP/AVP 0\nc=IN IP4 192.168.1.10\n\
             a=mid:1\nm=audio 42000 RTP/AVP 0\nc=IN IP6 2001:db8::10\na=mid:2\nm=audio 44000 RTP/AVP 0\n\
             c=IN IP6 192.168.1.10\nm=audio 46000 RTP/AVP 0\nc=ATM NSAP 192.168.1.10\n"
        );
        let kept =
            ["42000", "44000 RTP/AVP 0\nc=IN IP6 192.168.1.10", "46000 RTP/AVP 0\nc=ATM NSAP 192.168.1.10"];
        assert_leaves(&text, &[40000, 40001], &kept);
    }
    // The far end may answer in either; a flow is made where there is one.
    let mut bench = Bench::default();
    let (_, sent) = called(
        &mut bench,
        "v=0\no=- 1 1 IN IP6 2001:db8::22\ns=-\nt=0 0\nm=audio 30000 RTP/AVP 0\nc=IN IP6 2001:db8::22\n\
         m=audio 30002 RTP/AVP 0\nc=IN IP4 22.33.44.22\n",
        &format!("{HELD}m=audio 0 RTP/AVP 0\nm=audio 40000 RTP/AVP 0\n"),
    );
    assert!(sent.contains("m=audio 0 RTP/AVP 0\n"), "{sent}");
    bench.assert_pinned("192.168.1.10:40000", "22.33.44.22:30002");
    assert!(bench.kernel.pins.iter().all(|pin| pin.far.is_ipv4()), "{:?}", bench.kernel.pins);
}

#[test]
fn f34_phones_behind_one_nat_get_each_others_own_words_back() {
    // Bob is called by the public description of alice, who shares his LAN; what runs over TCP does not stand in the way.
    let body = "v=0\no=- 1 1 IN IP4 pbx.lan\ns=-\nc=IN IP4 192.168.1.10\nt=0 0\nm=audio 40000 RTP/AVP 0\na=rtcp:41001 IN IP4 192.168.1.10\n\
         a=candidate:1 1 UDP 1 192.168.1.10 40000 typ host\nm=message 2855 TCP/MSRP *\na=path:msrp://192.168.1.10:2855/x;tcp\n\
         m=video 40000 RTP/AVP 31\nc=IN IP4 192.168.1.10\nm=image 0 udptl t38\n";
    let bob = "192.168.1.11:5060";
    let mut bench = Bench::default();
    bench.track(bob, PROXY);
    let sent = offer(&mut bench, body).text();
    let forwarded = sent.replacen("Via:", "Via: SIP/2.0/UDP 22.33.44.20;branch=z9hG4bK-proxy\r\nVia:", 1);
    let got = bench.inn(PROXY, bob, forwarded).text();
    assert_eq!(crate::body_of(&got), body);
}

#[test]
fn f34_the_name_of_a_session_is_the_same_whatever_is_restored_beside_it() {
    // `o=` is where nothing is sent to: it stays as it went out, also where the phone behind it is close by. In one
    // description `c=` is restored, in the next one there is nothing to restore; the session has one name (RFC 3264).
    let bob = "192.168.1.11:5060";
    let mut bench = Bench::default();
    bench.track(bob, PROXY);
    let body = |origin: &str, version: u32, c: &str, port: u16| {
        format!(
            "v=0\no=alice 7 {version} IN IP4 {origin}\ns=-\nc=IN IP4 {c}\nt=0 0\nm=audio {port} RTP/AVP 0\n"
        )
    };
    for (version, c) in [(1, INSIDE), (2, "0.0.0.0"), (3, INSIDE)] {
        let branch = format!("z9hG4bK-o{version}");
        let dialog = Dialog { branch: &branch, ..Dialog::default() };
        let text = request("INVITE", PHONE, version, dialog, version > 1, &body(INSIDE, version, c, 40000));
        let sent = bench.out(PHONE, PROXY, text).text();
        let (shown, port) = if c == INSIDE {
            (crate::OUTSIDE, bench.binding("192.168.1.10:40000").port())
        } else {
            (c, 40000)
        };
        assert_eq!(crate::body_of(&sent), body(crate::OUTSIDE, version, shown, port));
        let forwarded = sent.replacen("Via:", "Via: SIP/2.0/UDP 22.33.44.20;branch=z9hG4bK-proxy\r\nVia:", 1);
        let got = bench.inn(PROXY, bob, forwarded).text();
        assert_eq!(crate::body_of(&got), body(crate::OUTSIDE, version, c, 40000));
    }
}
