//! Own messages for those sections of RFC 4475 that `torture.rs` has none for: odd but sound ones are mapped like any
//! other, both ways; of those that are not sound nobody loses a byte.

use super::torture::{assert_mapped, assert_passes, marked, request};
use crate::PUBLIC;
use crate::common::messages::{Dialog, PHONE, PROXY, response, sdp};
use crate::common::{Bench, at};
use sipalg::alg::Reason;

/// A request as it stands on the wire, unmapped.
fn wire(start: &str, lines: &str) -> Vec<u8> {
    marked(&request(start, lines)).0
}

#[test]
fn f11_rfc4475_3_1_1_8_what_follows_a_message_stays() {
    // A REGISTER without a body, and the whole of an INVITE behind it, of which nothing is read.
    let register =
        request("REGISTER sip:example.com", "Contact: <sip:j.user@«192.168.1.10»>\nContent-Length: 0\n");
    let (inside, outside) = marked(&register);
    let invite = wire("INVITE sip:joe@example.com", "Contact: <sip:b@192.168.1.10>\nContent-Length: 0\n");
    let mut bench = Bench::default();
    let sent = bench.out(PHONE, PROXY, [&inside[..], &invite].concat()).payload.unwrap();
    assert_eq!(String::from_utf8_lossy(&sent), String::from_utf8_lossy(&[&outside[..], &invite].concat()));
    assert_eq!(bench.engine.sizes().calls, 0);
}

#[test]
fn f11_rfc4475_3_1_1_12_and_13_reasons_of_every_kind() {
    for reason in [
        "200 = 2**3 * 5**2 \u{d0}\u{bd}\u{d0}\u{be} \u{d1}\u{81}\u{d1}\u{82}\u{d0}\u{be} 192.168.1.10 \u{22}<>,;",
        "200 ",
        "100 ",
        "699 192.168.1.10:5060",
    ] {
        // The provider's answer to the phone.
        let mut bench = Bench::default();
        let text = marked(&request("OPTIONS sip:user@example.com", "")).0;
        bench.out(PHONE, PROXY, text);
        let answer = |via: &str| {
            let text = format!(
                "SIP/2.0 {reason}\nVia: SIP/2.0/UDP {via};branch=z9hG4bK-t\nFrom: <sip:a@192.168.1.10>;tag=1\n\
                 To: <sip:b@192.168.1.10>;tag=2\nCall-ID: 1@192.168.1.10\nCSeq: 1 OPTIONS\nContact: <sip:user@host198.example.com>\n\n"
            );
            marked(&text).0
        };
        let got = bench.inn(PROXY, PHONE, answer(PUBLIC)).payload.unwrap();
        assert_eq!(got, answer("192.168.1.10:5060"), "{reason}");
        // The phone's answer to the provider.
        let mine = |contact: &str| {
            let text = format!(
                "SIP/2.0 {reason}\nVia: SIP/2.0/UDP 22.33.44.20;branch=z9hG4bK-f\nFrom: <sip:a@provider.example>;tag=1\n\
                 To: <sip:b@192.168.1.10>;tag=2\nCall-ID: 2\nCSeq: 1 OPTIONS\nContact: <sip:b@{contact}>\n\n"
            );
            marked(&text).0
        };
        let sent = bench.out(PHONE, PROXY, mine("192.168.1.10")).payload.unwrap();
        assert_eq!(sent, mine(PUBLIC), "{reason}");
    }
}

#[test]
fn f11_rfc4475_3_1_2_what_is_wrong_elsewhere_is_no_reason_to_leave_what_is_right() {
    // 3.1.2.15 a name that is no token, 3.1.2.12 a date in another zone, 3.1.2.5 numbers that are too large, 3.1.2.11 headers
    // in the Request-URI. What is no To, by an open quote (3.1.2.6), makes no message (S4).
    let good = request("INVITE sip:user@example.com", "Contact: <sip:a@«192.168.1.10»>\n");
    for (from, to) in [
        ("To: <sip:b@192.168.1.10>", "To: \"Mr. J. User <sip:j.user@example.com>"),
        ("To: <sip:b@192.168.1.10>", "To: Bell, Alexander <sip:a.g.bell@example.com>;tag=43"),
        ("Contact", "Date: Fri, 01 Jan 2010 16:00:00 EST\nContact"),
        ("Contact", "Expires: 10000000000000000000000000000000000000000\nContact"),
        ("Contact", "Max-Forwards: 300\nWarning: 1812 overture \"In Progress\"\nContact"),
        ("INVITE sip:user@example.com SIP", "INVITE sip:user@example.com?Route=%3Csip:example.com%3E SIP"),
        (
            "INVITE sip:user@example.com SIP",
            "INVITE sip:sip%3Auser%40192.168.1.10@company.com;other-param=x SIP",
        ),
    ] {
        assert!(good.contains(from), "{from}");
        let text = good.replacen(from, to, 1);
        let (inside, outside) = marked(&text);
        let mut bench = Bench::default();
        let sent = bench.out(PHONE, PROXY, &inside);
        let is_message = !to.contains("Mr. J. User");
        let expected = if is_message { (outside, Reason::Rewritten) } else { (inside, Reason::Suspicious) };
        assert_eq!((sent.payload.unwrap(), sent.reason), expected, "{to}");
    }
}

#[test]
fn f11_rfc4475_3_1_2_what_is_no_message_beyond_doubt_passes() {
    let reasons = [Reason::NotSip, Reason::Suspicious, Reason::Unparsable];
    let good = wire("OPTIONS sip:user@example.com", "Contact: <sip:a@192.168.1.10>\n");
    let good = String::from_utf8(good).unwrap();
    for (from, to) in [
        // 3.1.2.9 and 10: blanks in the request line, where there may be none.
        ("OPTIONS sip:user@example.com SIP/2.0", "OPTIONS sip:user@example.com  SIP/2.0"),
        ("OPTIONS sip:user@example.com SIP/2.0", "OPTIONS sip:user@example.com SIP/2.0  "),
        ("OPTIONS sip:user@example.com SIP/2.0", "OPTIONS sip:user @example.com SIP/2.0"),
        // 3.1.2.14: an address in brackets with blanks in it.
        ("To: <sip:b@192.168.1.10>", "To: < sip:b@192.168.1.10  "),
        // 3.1.2.18: another method than CSeq's, unknown.
        ("OPTIONS sip:user", "NEWMETHOD sip:user"),
        // 3.3.1, 3.3.8: what must be there, and once.
        ("To: <sip:b@192.168.1.10>\r\n", ""),
        ("To: <sip:b@192.168.1.10>", "To: <sip:b@192.168.1.10>\r\nTo: <sip:c@192.168.1.10>"),
        ("CSeq: 1 OPTIONS", "CSeq: 1 OPTIONS\r\nCSeq: 2 OPTIONS"),
        // 3.4.1: RFC 2543 had no branches and no tags.
        (";branch=z9hG4bK-t", ""),
        (";tag=1", ""),
    ] {
        assert!(good.contains(from), "{from}");
        assert_passes(good.replacen(from, to, 1).as_bytes(), &reasons);
    }
    // 3.1.2.19: a status that is no status.
    let big = good.replacen("OPTIONS sip:user@example.com SIP/2.0", "SIP/2.0 4294967301 better not break", 1);
    assert_passes(big.as_bytes(), &reasons);
}

#[test]
fn f11_rfc4475_3_1_2_13_a_contact_with_headers_and_without_brackets() {
    // RFC 3261 section 20.10 wants brackets: what follows the first `?` is the header's or the URI's, and is not read.
    assert_mapped(&request(
        "REGISTER sip:example.com",
        "Contact: sip:user@«192.168.1.10»?Route=%3Csip:sip.example.com%3E\n",
    ));
}

#[test]
fn f11_rfc4475_3_2_1_a_branch_that_is_nothing_but_its_cookie() {
    assert_mapped(
        &request("OPTIONS sip:user@example.com", "Contact: <sip:a@«192.168.1.10»>\n")
            .replace("branch=z9hG4bK-t", "branch=z9hG4bK"),
    );
}

#[test]
fn f38_rfc4475_3_3_what_only_the_other_end_understands() {
    for (start, lines) in [
        // 3.3.2 to 3.3.4: unknown schemes.
        ("OPTIONS nobodyKnowsThisScheme:totallyopaquecontent", ""),
        ("OPTIONS soap.beep://192.0.2.103:3002", ""),
        ("REGISTER sip:example.com", "Contact: <name:John_Smith>\nContact: <sip:x@«192.168.1.10»>\n"),
        // 3.3.5: options that nobody has heard of.
        (
            "OPTIONS sip:user@example.com",
            "Require: nothingSupportsThis, nothingSupportsThisEither\nProxy-Require: noProxiesSupportThis\n",
        ),
        // 3.3.6: a type that nobody has heard of.
        (
            "INVITE sip:user@example.com",
            "Contact: <sip:a@«192.168.1.10»>\nContent-Type: application/unknownformat\nContent-Length: 21\n",
        ),
        // 3.3.7: a way to authenticate that nobody has heard of.
        (
            "REGISTER sip:example.com",
            "Authorization: NoOneKnowsThisScheme opaque-data=192.168.1.10\nContact: <sip:a@«192.168.1.10»>\n",
        ),
        // 3.3.11: no hops left.
        ("OPTIONS sip:user@example.com", "Max-Forwards: 0\nContact: <sip:a@«192.168.1.10»>\n"),
        // 3.3.12 and 13: parameters of the Contact, and of its URI.
        ("REGISTER sip:example.com", "Contact: <sip:watson@«192.168.1.10»>;unknownparam=192.168.1.10\n"),
        ("REGISTER sip:example.com", "Contact: <sip:+19725552222@«192.168.1.10»;unknownparam>\n"),
        // 3.3.14: a Contact whose URI has headers.
        ("REGISTER sip:example.com", "Contact: <sip:user@«192.168.1.10»?Route=%3Csip:sip.example.com%3E>\n"),
        // 3.3.15: neither is understood, and all the same the phone's.
        ("INVITE sip:user@example.com", "Contact: <sip:a@«192.168.1.10»>\nAccept: text/nobodyKnowsThis\n"),
    ] {
        let body = if lines.contains("unknownformat") { "v=0 c=IN 192.168.1.10" } else { "" };
        assert_mapped(&format!("{}{body}", request(start, lines)));
    }
}

#[test]
fn f22_rfc4475_3_3_9_two_lengths_that_differ() {
    // Who reads the one sees another message than who reads the other.
    let text = wire(
        "OPTIONS sip:user@example.com",
        "Contact: <sip:a@192.168.1.10>\nContent-Length: 13\nContent-Length: 5\nContent-Type: text/plain\n",
    );
    assert_passes(&[&text[..], b"There's no wa"].concat(), &[Reason::Suspicious]);
}

#[test]
fn f11_rfc4475_3_3_10_an_answer_by_a_via_that_is_nobodys() {
    // A Via of 255.255.255.255: nothing of ours, and no phone is named by it.
    let mut bench = Bench::default();
    bench.track(PHONE, PROXY);
    let ok = response(
        "200 OK",
        "INVITE",
        "255.255.255.255:5060",
        1,
        Dialog::default(),
        &sdp("22.33.44.22", 30000),
    );
    let ok = ok.replacen("Via: ", "Via: SIP/2.0/UDP 192.0.2.198;branch=z9hG4bK-1324923\r\nVia: ", 1);
    assert_eq!(bench.inn(PROXY, PHONE, &ok).text(), ok);
    assert!(bench.kernel.pins.is_empty());
    assert_eq!(bench.public(PHONE, PROXY), at(PUBLIC));
}
