//! Bodies in every wrapping.

use crate::common::messages::{Dialog, PHONE, PROXY, message, request, response, sdp};
use crate::common::{Bench, at};
use crate::{INSIDE, OUTSIDE, PUBLIC, called, offer};
use sipalg::alg::Reason;

/// An INVITE with these lines after its own, and this body, both to the letter.
fn invite(host: &str, lines: &str, body: &[u8]) -> Vec<u8> {
    let base = request("INVITE", host, 1, Dialog { call_id: "b", ..Dialog::default() }, false, "");
    let (head, _) = base.split_once("Content-Length").unwrap();
    [format!("{head}{lines}\r\n\r\n").as_bytes(), body].concat()
}

/// The same as the phone's 200 to a call that came.
fn accepted(lines: &str, body: &[u8]) -> Vec<u8> {
    let head = "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 22.33.44.20;branch=z9hG4bK-in\r\nFrom: <sip:bob@x.example>;tag=b\r\n\
                To: <sip:alice@x.example>;tag=a\r\nCall-ID: in\r\nCSeq: 1 INVITE\r\n";
    [format!("{head}{lines}\r\n\r\n").as_bytes(), body].concat()
}

/// `full` makes lines and body from address and port; with the inside ones it leaves as it is with the outside ones, as an
/// offer and as an answer, and comes in as it is.
#[track_caller]
fn assert_mapped(full: impl Fn(&str, u16) -> (String, Vec<u8>)) {
    let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (lines, body) = full(INSIDE, 40000);
    let mut bench = Bench::default();
    let sent = bench.out(PHONE, PROXY, invite(PHONE, &lines, &body));
    let port = bench.binding("192.168.1.10:40000").port();
    let (lines_out, body_out) = full(OUTSIDE, port);
    assert_eq!(show(&sent.payload.unwrap()), show(&invite(PUBLIC, &lines_out, &body_out)), "as an offer");

    let mut bench = Bench::default();
    let far = full("22.33.44.22", 30000);
    let asked = [
        b"INVITE sip:alice@x.example SIP/2.0\r\nVia: SIP/2.0/UDP 22.33.44.20;branch=z9hG4bK-in\r\nFrom: <sip:bob@x.example>;tag=b\r\n\
          To: <sip:alice@x.example>\r\nCall-ID: in\r\nCSeq: 1 INVITE\r\n",
        far.0.as_bytes(),
        b"\r\n\r\n",
        &far.1,
    ]
    .concat();
    bench.track(PHONE, PROXY);
    let got = bench.inn(PROXY, PHONE, &asked);
    assert_eq!((show(&got.payload.unwrap()), got.reason), (show(&asked), Reason::Unchanged), "coming in");
    let sent = bench.out(PHONE, PROXY, accepted(&lines, &body));
    let port = bench.binding("192.168.1.10:40000").port();
    let (lines_out, body_out) = full(OUTSIDE, port);
    assert_eq!(show(&sent.payload.unwrap()), show(&accepted(&lines_out, &body_out)), "as an answer");
    bench.assert_pinned("192.168.1.10:40000", "22.33.44.22:30000");
}

fn crlf(text: &str) -> Vec<u8> {
    text.replace('\n', "\r\n").into_bytes()
}

#[test]
fn f21_parts_in_every_order_and_depth() {
    let binary = b"Content-Type: application/ISUP;version=nxv3;base=etsi121\r\nContent-Disposition: signal;handling=optional\r\n\r\n\x01\x00\x49\x00\x00\xff\r\n--bx\r\nv=0\r\nc=IN IP4 192.168.1.10\r\n\x00";
    let metadata = b"Content-Type: application/rs-metadata+xml\r\nContent-Disposition: recording-session\r\n\r\n<recording>192.168.1.10 v=0</recording>\r\n";
    let location = b"Content-ID: <a@192.168.1.10>\r\nContent-Type: application/pidf+xml\r\n\r\n<presence entity=\"sip:a@192.168.1.10\"/>";
    for kind in ["mixed", "alternative", "related;start=\"<x@192.168.1.10>\"", "report"] {
        for order in 0..4 {
            assert_mapped(|ip, port| {
                let part = [b"Content-Type: application/sdp\r\n\r\n".to_vec(), crlf(&sdp(ip, port))].concat();
                let mut parts: Vec<&[u8]> = vec![binary, metadata, location];
                parts.insert(order, &part);
                let mut body = b"preamble c=IN IP4 192.168.1.10\r\n".to_vec();
                for part in parts {
                    body.extend([b"--b\r\n", part, b"\r\n"].concat());
                }
                body.extend(b"--b--\r\nv=0\r\nc=IN IP4 192.168.1.10");
                (format!("Content-Type: multipart/{kind};boundary=b\r\nContent-Length: {}", body.len()), body)
            });
        }
    }
    // Nested, with lengths of their own, one of which loses a digit; and several descriptions.
    for filler in 0..16 {
        assert_mapped(|ip, port| {
            let text = crlf(&format!("{}a=x-{}\n", sdp(ip, port), "x".repeat(filler)));
            let inner = [
                format!("--in\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n", text.len())
                    .as_bytes(),
                &text,
                b"\r\n--in\r\nContent-Type: application/sdp\r\n\r\n",
                &crlf(&sdp(ip, port)),
                b"\r\n--in--",
            ]
            .concat();
            let body = [
                format!("--out\r\nl: {}\r\nc: multipart/alternative; boundary=\"in\"\r\n\r\n", inner.len())
                    .as_bytes(),
                &inner,
                b"\r\n--out--\r\n",
            ]
            .concat();
            (format!("c: multipart/mixed;boundary=out\r\nl: {}", body.len()), body)
        });
    }
}

#[test]
fn f21_a_recording_session_has_both_its_streams_and_its_metadata() {
    // SIPREC (RFC 7866): one stream for each party, told apart by label; who they are stands in the metadata.
    let metadata = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<recording xmlns='urn:ietf:params:xml:ns:recording:1'>\r\n\
                    <participant><nameID aor=\"sip:alice@192.168.1.10\"/></participant>\r\n<stream><label>1</label></stream>\r\n\
                    </recording>";
    let full = |ip: &str, ports: [u16; 2], way: &str| {
        let line = |n: usize, port: u16| format!("m=audio {port} RTP/AVP 0\na=label:{n}\na={way}\n");
        let head = format!("v=0\no=SRS 0 0 IN IP4 {ip}\ns=-\nc=IN IP4 {ip}\nt=0 0\n");
        let text = format!("{head}{}{}", line(1, ports[0]), line(2, ports[1])).replace('\n', "\r\n");
        let body = format!(
            "--foobar\r\nContent-Type: application/SDP\r\n\r\n{text}\r\n--foobar\r\nContent-Type: application/rs-metadata+xml\r\n\
             Content-Disposition: recording-session\r\n\r\n{metadata}\r\n--foobar--"
        );
        let lines = format!(
            "Require: siprec\r\nContent-Type: multipart/mixed;boundary=foobar\r\nContent-Length: {}",
            body.len()
        );
        (lines, body.into_bytes())
    };
    let far = |ports| full("22.33.44.22", ports, "recvonly");
    // The phone's side records, and then the phone's side is the recorder.
    let mut bench = Bench::default();
    let (lines, body) = full(INSIDE, [40000, 40002], "sendonly");
    let sent = bench.out(PHONE, PROXY, invite(PHONE, &lines, &body)).payload.unwrap();
    let ports = [40000, 40002].map(|port| bench.binding(&format!("{INSIDE}:{port}")).port());
    let (lines, body) = full(OUTSIDE, ports, "sendonly");
    assert_eq!(sent, invite(PUBLIC, &lines, &body));
    let ok = |via: &str| {
        let (lines, body) = far([30000, 30002]);
        let head = response("200 OK", "INVITE", via, 1, Dialog { call_id: "b", ..Dialog::default() }, "");
        let (head, _) = head.split_once("Content-Length").unwrap();
        [format!("{head}{lines}\r\n\r\n").as_bytes(), &body].concat()
    };
    assert_eq!(bench.inn(PROXY, PHONE, ok(PUBLIC)).payload.unwrap(), ok(PHONE));
    bench.assert_pinned("192.168.1.10:40000", "22.33.44.22:30000");
    bench.assert_pinned("192.168.1.10:40002", "22.33.44.22:30002");

    let mut bench = Bench::default();
    bench.track(PHONE, PROXY);
    let (lines, body) = far([30000, 30002]);
    let asked = [
        b"INVITE sip:srs@x.example SIP/2.0\r\nVia: SIP/2.0/UDP 22.33.44.20;branch=z9hG4bK-in\r\nFrom: <sip:bob@x.example>;tag=b\r\n\
          To: <sip:alice@x.example>\r\nCall-ID: in\r\nCSeq: 1 INVITE\r\n",
        lines.as_bytes(),
        b"\r\n\r\n",
        &body,
    ]
    .concat();
    assert_eq!(bench.inn(PROXY, PHONE, &asked).payload.unwrap(), asked);
    let (lines, body) = full(INSIDE, [40000, 40002], "recvonly");
    let sent = bench.out(PHONE, PROXY, accepted(&lines, &body)).payload.unwrap();
    let ports = [40000, 40002].map(|port| bench.binding(&format!("{INSIDE}:{port}")).port());
    let (lines, body) = full(OUTSIDE, ports, "recvonly");
    assert_eq!(sent, accepted(&lines, &body));
    bench.assert_pinned("192.168.1.10:40002", "22.33.44.22:30002");
}

#[test]
fn f22_lengths_and_line_ends_of_every_kind() {
    type Make = fn(usize) -> String;
    let lengths: [Make; 8] = [
        |n| format!("Content-Length: {n}"),
        |n| format!("l:{n}"),
        |n| format!("Content-Length\t :\r\n  {n} "),
        |n| format!("CONTENT-LENGTH: {n}\r\nl : {n}"),
        |_| "X-No-Length: 1".into(),
        |n| format!("Content-Length: {n}\r\nX-After: 192.168.1.10"),
        |n| format!("l: {n}\r\nContent-Encoding: identity"),
        |n| format!("Content-Disposition: session;handling=required\r\nContent-Length: {n}"),
    ];
    for length in lengths {
        for end in ["\r\n", "\n", "\r"] {
            for last in [true, false] {
                assert_mapped(|ip, port| {
                    let text = sdp(ip, port).replace('\n', end);
                    let text = if last { text } else { text.trim_end_matches(['\r', '\n']).to_string() };
                    (format!("Content-Type: application/sdp\r\n{}", length(text.len())), text.into_bytes())
                });
            }
        }
    }
    // What follows the body is nobody's, and stays: bytes, line ends, what looks like more.
    for tail in [&b"\r\n"[..], b"\r\n\r\n", b"\0\0\0\0", b"\xff\xfe 192.168.1.10", b"IN IP4 192.168.1.10\r\n"]
    {
        assert_mapped(|ip, port| {
            let text = crlf(&sdp(ip, port));
            (format!("Content-Type: application/sdp\r\nl: {}", text.len()), [&text, tail].concat())
        });
    }
    // A message of bare line feeds.
    let text = |host: &str, ip: &str, port: u16| {
        let body = sdp(ip, port);
        let head = request("INVITE", host, 1, Dialog { call_id: "lf", ..Dialog::default() }, false, "");
        let head = head.split_once("Content-Length").unwrap().0.replace("\r\n", "\n");
        format!("{head}Content-Type: application/sdp\nContent-Length: {}\n\n{body}", body.len())
    };
    let mut bench = Bench::default();
    let sent = bench.out(PHONE, PROXY, text(PHONE, INSIDE, 40000)).text();
    assert_eq!(sent, text(PUBLIC, OUTSIDE, bench.binding("192.168.1.10:40000").port()));
}

#[test]
fn f36_signed_bodies_stay_and_are_understood() {
    // From outside: nothing may change, but the media that it announces is let in.
    let signed = |ip: &str, port: u16| {
        let body = format!(
            "--s\nContent-Type: application/sdp\n\n{}\n--s\nContent-Type: application/pkcs7-signature\n\n\u{1}\n--s--\n",
            sdp(ip, port)
        );
        message(
            "SIP/2.0 200 OK\nVia: SIP/2.0/UDP 22.33.44.55:17375;branch=z9hG4bK-1\n\
             From: \"Alice\" <sip:alice@provider.example>;tag=alice-1\nTo: <sip:bob@provider.example>;tag=bob-1\n\
             Call-ID: call-1@192.168.1.10\nCSeq: 1 INVITE\nContent-Type: multipart/signed;boundary=s;protocol=\"application/pkcs7-signature\"",
            &body,
        )
    };
    let mut bench = Bench::default();
    offer(&mut bench, &sdp(INSIDE, 40000));
    let ok = signed("22.33.44.22", 30000);
    let got = bench.inn(PROXY, PHONE, &ok).text();
    assert_eq!(got, ok.replacen(PUBLIC, PHONE, 1));
    bench.assert_pinned("192.168.1.10:40000", "22.33.44.22:30000");
    // From inside: the signature would break, so it stays private and nothing is opened.
    let mut bench = Bench::default();
    bench.track(PHONE, PROXY);
    let ok = signed(INSIDE, 40000);
    assert_eq!(bench.out(PHONE, PROXY, &ok).text(), ok);
    assert!(bench.kernel.pinholes.is_empty());
}

#[test]
fn f36_a_passport_signs_who_calls_and_not_from_where() {
    // RFC 8224, RFC 8588: every call of many carriers has one. With its SDP left private the call would be silent.
    for value in [
        "eyJhbGciOiJFUzI1NiJ9.eyJvcmlnIjp7InRuIjoiMTIxNTU1NTEyMTIifX0.sig;info=<https://192.168.1.10/cert.pem>;alg=ES256;ppt=shaken",
        "..sig;info=<https://cert.example>",
    ] {
        for name in ["Identity", "y"] {
            assert_mapped(|ip, port| {
                let body = crlf(&format!("{}a=fingerprint:sha-256 19:21:68:11:00\n", sdp(ip, port)));
                let lines = format!(
                    "{name}: {value}\r\nDate: Sat, 1 Jan 2022 00:00:00 GMT\r\nContent-Type: application/sdp\r\nContent-Length: {}",
                    body.len()
                );
                (lines, body)
            });
        }
    }
    // RFC 4474 signed the body too: it stays.
    let body = crlf(&sdp(INSIDE, 40000));
    let lines = format!(
        "Identity: \"ZYNBbHC00VMZr2kZt6VmCvPonWJMGvQTBDqghoWeLxJfzB2a1pxAr3VgrB0SsSAa\"\r\nIdentity-Info: <https://h/c>;alg=rsa-sha1\r\n\
         Content-Type: application/sdp\r\nContent-Length: {}",
        body.len()
    );
    let mut bench = Bench::default();
    let sent = bench.out(PHONE, PROXY, invite(PHONE, &lines, &body));
    assert_eq!(sent.payload.unwrap(), invite(PUBLIC, &lines, &body));
    assert!(bench.kernel.pinholes.is_empty());
}

#[test]
fn f36_encrypted_and_compressed_bodies_and_other_kinds_stay() {
    let text = String::from_utf8(crlf(&sdp(INSIDE, 40000))).unwrap();
    let part = |headers: &str| format!("--b\r\n{headers}\r\n\r\n{text}\r\n--b--\r\n");
    for (kind, body) in [
        ("Content-Type: application/pkcs7-mime;smime-type=enveloped-data", text.clone()),
        ("Content-Type: application/sdp\r\nContent-Encoding: gzip", text.clone()),
        ("Content-Type: application/sdp\r\ne: deflate", text.clone()),
        ("Content-Type: multipart/encrypted;boundary=b", part("Content-Type: application/sdp")),
        (
            "Content-Type: multipart/mixed;boundary=b",
            part("Content-Type: application/sdp\r\nContent-Encoding: gzip"),
        ),
        (
            "Content-Type: multipart/mixed;boundary=b",
            part("Content-Type: application/sdp\r\nContent-Transfer-Encoding: base64"),
        ),
        ("Content-Type: text/plain", text.clone()),
        ("Content-Type: message/sipfrag", format!("INVITE sip:a@192.168.1.10 SIP/2.0\r\n\r\n{text}")),
        ("Content-Type: application/sdpx", text.clone()),
        ("Content-Type: application/dialog-info+xml", "<x>sip:a@192.168.1.10:5060</x>".into()),
        ("X-No-Type: 1", text.clone()),
    ] {
        let lines = format!("{kind}\r\nContent-Length: {}", body.len());
        let mut bench = Bench::default();
        let sent = bench.out(PHONE, PROXY, invite(PHONE, &lines, body.as_bytes()));
        assert_eq!(
            String::from_utf8(sent.payload.unwrap()).unwrap(),
            String::from_utf8(invite(PUBLIC, &lines, body.as_bytes())).unwrap()
        );
        assert!(bench.kernel.pinholes.is_empty(), "{kind}");
        let far = String::from_utf8(accepted(&lines, body.as_bytes())).unwrap().replace(INSIDE, OUTSIDE);
        assert_eq!(bench.inn(PROXY, PHONE, &far).text(), far, "{kind}");
    }
}

#[test]
fn f24_what_is_no_message_passes_both_ways() {
    let stun = |kind: u8| {
        [&[0, kind, 0, 8, 0x21, 0x12, 0xa4, 0x42], &b"abcdefghijkl"[..], &[0, 3, 0, 4, 0, 0, 0, 6]].concat()
    };
    let mut bench = Bench::default();
    bench.track(PHONE, PROXY);
    for (bytes, reason) in [
        (b"\r\n\r\n".to_vec(), Reason::KeepAlive),
        (b"\r\n".to_vec(), Reason::KeepAlive),
        (b"\0".to_vec(), Reason::KeepAlive),
        (b"\0\0\0\0".to_vec(), Reason::KeepAlive),
        (Vec::new(), Reason::KeepAlive),
        (stun(1), Reason::Stun),
        (stun(17), Reason::Stun),
        ([&[1][..], &stun(1)[1..]].concat(), Reason::Stun),
        (b"\x40\x00\x00\x10channel data of TURN".to_vec(), Reason::NotSip),
        (b"\x80\x00\x12\x34rtp".to_vec(), Reason::NotSip),
    ] {
        for out in [true, false] {
            let passed = if out { bench.out(PHONE, PROXY, &bytes) } else { bench.inn(PROXY, PHONE, &bytes) };
            assert_eq!((passed.payload.as_ref(), passed.reason), (Some(&bytes), reason));
        }
    }
    assert!(bench.commands.len() <= 1 && bench.kernel.pinholes.is_empty());
    // In front of a message they are part of nothing.
    let (mut bench, mut plain) = (Bench::default(), Bench::default());
    let mine = request("INVITE", PHONE, 1, Dialog::default(), false, &sdp(INSIDE, 40000));
    let sent = bench.out(PHONE, PROXY, format!("\r\n\r\n{mine}")).text();
    assert_eq!(sent, format!("\r\n\r\n{}", plain.out(PHONE, PROXY, &mine).text()));
    let far = response("200 OK", "INVITE", PUBLIC, 1, Dialog::default(), &sdp("22.33.44.22", 30000));
    let got = bench.inn(PROXY, PHONE, format!("\r\n{far}")).text();
    assert_eq!(got, format!("\r\n{}", plain.inn(PROXY, PHONE, &far).text()));
    bench.assert_pinned("192.168.1.10:40000", "22.33.44.22:30000");
    assert_eq!(bench.binding("192.168.1.10:40000").ip(), at(PUBLIC).ip());
    called(&mut Bench::default(), &sdp("22.33.44.22", 30000), &sdp(INSIDE, 40000));
}
