//! Bodies and what is no SIP at all: lengths by the difference, parts, keep-alives, everything encrypted.

use crate::common::messages::{Dialog, PHONE, PROXY, request, sdp};
use crate::common::{Bench, IDENTITY, LAN, WAN, at, packet};
use crate::invite;
use sipalg::alg::{QueuePoint, Reason};
use sipalg::packet::Datagram;

/// An INVITE with these header lines (Content-Type and Content-Length are not made) and this body, to the letter.
fn raw(host: &str, lines: &str, body: &str) -> String {
    let base = request("INVITE", host, 1, Dialog { call_id: "raw", ..Dialog::default() }, false, "");
    let (head, _) = base.split_once("Content-Length").unwrap();
    format!("{head}{lines}\r\n\r\n{body}")
}

fn crlf(text: &str) -> String {
    text.replace('\n', "\r\n")
}

/// Sends it; what leaves must be `outside` with the public media port in place of 40000.
#[track_caller]
fn assert_leaves(inside: &str, outside: impl Fn(u16) -> String) {
    let mut bench = Bench::default();
    let sent = bench.out(PHONE, PROXY, inside);
    let port = bench.binding("192.168.1.10:40000").port();
    assert_eq!(sent.text(), outside(port));
}

const PUBLIC: &str = crate::PUBLIC;

#[test]
fn f21_a_body_of_several_parts_keeps_its_length_right() {
    // Others set Content-Length to what follows the SDP: emergency calls with a location are refused.
    let part = |ip: &str, port: u16| format!("Content-Type: application/sdp\r\n\r\n{}", crlf(&sdp(ip, port)));
    let pidf =
        "Content-Type: application/pidf+xml\r\nContent-ID: <a@192.168.1.10>\r\n\r\n<x>192.168.1.10</x>\r\n";
    // With a length of its own, which may lose a digit.
    let own = |ip: &str, port: u16, padding: usize| {
        let body = format!("{}a=x:{}\r\n", crlf(&sdp(ip, port)), "x".repeat(padding))
            .replace("a=rtpmap:0 PCMU/8000\r\n", "");
        format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    for padding in 0..12 {
        let full = |host: &str, ip: &str, port: u16| {
            let body = format!("--b1\r\n{}\r\n--b1--\r\n", own(ip, port, padding));
            raw(
                host,
                &format!("Content-Type: multipart/mixed;boundary=b1\r\nContent-Length: {}", body.len()),
                &body,
            )
        };
        assert_leaves(&full(PHONE, "192.168.1.10", 40000), |port| full(PUBLIC, "22.33.44.55", port));
    }
    for first in [true, false] {
        let body = |ip: &str, port: u16| {
            let sdp = part(ip, port);
            let (a, b) = if first { (sdp.as_str(), pidf) } else { (pidf, sdp.as_str()) };
            format!("preamble\r\n--b1\r\n{a}\r\n--b1\r\n{b}\r\n--b1--\r\nepilogue 192.168.1.10")
        };
        let full = |host: &str, ip: &str, port: u16| {
            let body = body(ip, port);
            let lines =
                format!("Content-Type: multipart/mixed;boundary=b1\r\nContent-Length: {}", body.len());
            raw(host, &lines, &body)
        };
        assert_leaves(&full(PHONE, "192.168.1.10", 40000), |port| full(PUBLIC, "22.33.44.55", port));
    }
}

#[test]
fn f22_the_length_changes_by_the_difference() {
    // 192.168.1.10 is one byte longer than 22.33.44.55; both appear twice in the body.
    let body = crlf(&sdp("192.168.1.10", 40000));
    let out = |port: u16| crlf(&sdp("22.33.44.55", port));
    let (old, new) = (body.len(), body.len() - 2);
    let kind = "Content-Type: application/sdp";
    for (inside, outside) in [
        (format!("{kind}\r\nl: {old}"), format!("{kind}\r\nl: {new}")),
        (
            format!("Content-Length :\t {old}  \r\nc: application/sdp"),
            format!("Content-Length :\t {new}  \r\nc: application/sdp"),
        ),
        (format!("CONTENT-LENGTH:\r\n {old}\r\n{kind}"), format!("CONTENT-LENGTH:\r\n {new}\r\n{kind}")),
        (kind.to_string(), kind.to_string()),
        (
            format!("{kind}\r\nl: {old}\r\nContent-Length: {old}"),
            format!("{kind}\r\nl: {new}\r\nContent-Length: {new}"),
        ),
    ] {
        assert_leaves(&raw(PHONE, &inside, &body), |port| raw(PUBLIC, &outside, &out(port)));
    }
    // What follows the body belongs to nobody, and stays.
    for tail in ["\r\n", "\0\0\0\0", "garbage 192.168.1.10 of another layer"] {
        let lines = |n: usize| format!("{kind}\r\nContent-Length: {n}");
        let inside = raw(PHONE, &lines(old), &format!("{body}{tail}"));
        assert_leaves(&inside, |port| raw(PUBLIC, &lines(new), &format!("{}{tail}", out(port))));
    }
}

#[test]
fn f24_keep_alives_pass_and_do_not_confuse_anybody() {
    let mut bench = Bench::default();
    let stun = b"\0\x01\0\0\x21\x12\xa4\x42abcdefghijkl";
    for (bytes, reason) in [
        (&b"\r\n\r\n"[..], Reason::KeepAlive),
        (b"\r\n", Reason::KeepAlive),
        (b"\0\0\0\0", Reason::KeepAlive),
        (b"", Reason::KeepAlive),
        (stun, Reason::Stun),
        (b"jaK", Reason::NotSip),
    ] {
        for _ in 0..2 {
            let out = bench.out(PHONE, PROXY, bytes);
            assert_eq!((out.payload.as_deref(), out.reason), (Some(bytes), reason));
            let got = bench.inn(PROXY, PHONE, bytes);
            assert_eq!((got.payload.as_deref(), got.reason), (Some(bytes), reason));
        }
    }
    // Line ends before a message are no reason to leave its body alone.
    let mut bench = Bench::default();
    let text = request("INVITE", PHONE, 1, Dialog::default(), false, &sdp("192.168.1.10", 40000));
    let sent = bench.out(PHONE, PROXY, format!("\r\n\r\n{text}"));
    let plain = Bench::default().out(PHONE, PROXY, text);
    assert_eq!(sent.text(), format!("\r\n\r\n{}", plain.text()));
}

#[test]
fn f26_a_message_that_grows_past_the_mtu_may_be_cut() {
    // DF and an identification of 0 (which senders of DF may use) would lose it, or mix its fragments up.
    let mut bench = Bench::default();
    bench.track("10.1.1.1:5060", PROXY);
    let inside = "10.1.1.1:5060";
    let filler = |n: usize| format!("X-Filler: {}\r\nContent-Length: 0", "x".repeat(n));
    let empty = raw(inside, &filler(0), "").len() + 28;
    let text = raw(inside, &filler(1499 - empty), "");
    let bytes = packet(at(inside), at(PROXY), text.as_bytes());
    assert_eq!(bytes.len(), 1499);
    let (passed, out) = bench.pass(QueuePoint::Signalling, LAN, WAN, &bytes);
    assert_eq!(passed.reason, Reason::Rewritten);
    assert!(out.len() > 1500);
    assert_eq!(out[6] & 0x40, 0, "may be fragmented");
    assert_ne!(Datagram::parse(&out).unwrap().identity(), IDENTITY);
    assert_ne!(Datagram::parse(&out).unwrap().identity(), 0);
    // Shorter ones keep both.
    let bytes = packet(at(inside), at(PROXY), raw(inside, &filler(10), "").as_bytes());
    let (_, out) = bench.pass(QueuePoint::Signalling, LAN, WAN, &bytes);
    assert_eq!((out[6] & 0x40, Datagram::parse(&out).unwrap().identity()), (0x40, IDENTITY));
}

#[test]
fn f36_what_is_encrypted_or_signed_is_not_touched() {
    let body = crlf(&sdp("192.168.1.10", 40000));
    let length = format!("Content-Length: {}", body.len());
    for (lines, body) in [
        (format!("Content-Type: application/pkcs7-mime\r\n{length}"), body.clone()),
        (format!("Content-Type: application/sdp\r\nContent-Encoding: gzip\r\n{length}"), body.clone()),
        (
            format!(
                "Identity: \"c2lnbmVk\"\r\nIdentity-Info: <https://h/c>\r\nContent-Type: application/sdp\r\n{length}"
            ),
            body.clone(),
        ),
        {
            let signed = format!("--s\r\nContent-Type: application/sdp\r\n\r\n{body}\r\n--s--\r\n");
            (format!("Content-Type: multipart/signed;boundary=s\r\nContent-Length: {}", signed.len()), signed)
        },
    ] {
        let mut bench = Bench::default();
        let sent = bench.out(PHONE, PROXY, raw(PHONE, &lines, &body)).text();
        assert_eq!(sent, raw(PUBLIC, &lines, &body), "{lines}");
        assert!(bench.kernel.pinholes.is_empty(), "{lines}");
    }
    // Keys and fingerprints in a description that is mapped.
    let more =
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:192.168.1.10\na=fingerprint:sha-256 19:21:68:11:00\n";
    let offer = |ip: &str, port: u16| format!("{}{more}", sdp(ip, port).replace("RTP/AVP", "RTP/SAVP"));
    let mut bench = Bench::default();
    let sent = invite(&mut bench, Dialog::default(), &offer("192.168.1.10", 40000)).text();
    let port = bench.binding("192.168.1.10:40000").port();
    assert!(sent.ends_with(&crlf(&offer("22.33.44.55", port))), "{sent}");
    // TLS on the port of SIP.
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03INVITE sip:a SIP/2.0\r\n\r\n";
    let passed = bench.out(PHONE, PROXY, hello);
    assert_eq!((passed.payload.as_deref(), passed.reason), (Some(&hello[..]), Reason::NotSip));
}

#[test]
fn f38_unknown_things_pass() {
    let mut bench = Bench::default();
    for text in [
        &b"GET / HTTP/1.1\r\nHost: 192.168.1.10:5060\r\n\r\n"[..],
        b"POST /sip SIP/2.0\r\n\r\n",
        b"\xff\xff\xff\xffgetstatus\n",
        b"REGISTER",
        b"{\"sip\":\"192.168.1.10\"}",
    ] {
        let passed = bench.out(PHONE, PROXY, text);
        assert_eq!((passed.payload.as_deref(), passed.reason), (Some(text), Reason::NotSip), "{text:?}");
    }
    // An unknown method with unknown headers is SIP as well.
    let text = request("FROBNICATE", PHONE, 1, Dialog { call_id: "x", ..Dialog::default() }, false, "")
        .replacen("User-Agent", "X-Vendor: \u{e4} 192.168.1.10\r\nsip:192.168.1.10\r\nUser-Agent", 1);
    let sent = bench.out(PHONE, PROXY, &text);
    let expected = text
        .replace("UDP 192.168.1.10:5060", &format!("UDP {PUBLIC}"))
        .replace("alice@192.168.1.10:5060", &format!("alice@{PUBLIC}"));
    assert_eq!(sent.text(), expected);
}
