//! Which headers change, in which forms, and that what comes back is what the phone wrote.

use crate::common::messages::{Dialog, MEDIA, PHONE, PROXY, answer, message, request, sdp};
use crate::common::{Bench, at};
use crate::{PUBLIC, answered, call, invite};
use sipalg::alg::{QueuePoint, Reason};
use sipalg::packet::Datagram;

/// An OPTIONS with these header lines in place of Via or Contact, or beside them.
fn options(uri: &str, via: &str, more: &str) -> String {
    message(
        &format!(
            "OPTIONS {uri} SIP/2.0\n{via}\nMax-Forwards: 70\nFrom: <sip:alice@provider.example>;tag=a\n\
             To: <sip:bob@provider.example>\nCall-ID: headers\nCSeq: 1 OPTIONS\n{more}"
        ),
        "",
    )
}

const VIA: &str = "Via: SIP/2.0/UDP 192.168.1.10:5060;branch=z9hG4bK-h;rport";
const VIA_OUT: &str = "Via: SIP/2.0/UDP 22.33.44.55:17375;branch=z9hG4bK-h;rport";

/// What leaves, for an OPTIONS with `more`.
fn leaves(more: &str) -> String {
    let sent = Bench::default().out(PHONE, PROXY, options("sip:provider.example", VIA, more));
    let expected_via = options("sip:provider.example", VIA_OUT, "");
    let text = sent.text();
    assert!(text.starts_with(expected_via.split("Content-Length").next().unwrap()), "{text}");
    text
}

#[test]
fn f07_every_form_of_contact_is_mapped_and_comes_back_to_the_letter() {
    // Others need host and port to equal the packet's source, and know `sip:` only.
    let public = "22.33.44.55:17375";
    for (inside, outside) in [
        ("<sip:alice@192.168.1.10:5060>", format!("<sip:alice@{public}>")),
        ("<sip:alice@192.168.1.10>", format!("<sip:alice@{public}>")),
        ("<sip:alice@192.168.1.10:5070>", format!("<sip:alice@{public}>")),
        ("sip:alice@192.168.1.10", format!("sip:alice@{public}")),
        ("<sip:192.168.1.10>", format!("<sip:{public}>")),
        ("<sip:192.168.1.10:5060;ob>", format!("<sip:{public};ob>")),
        ("<sips:alice@192.168.1.10:5061>", format!("<sips:alice@{public}>")),
        ("<SIP:alice:pw@192.168.1.10>", format!("<SIP:alice:pw@{public}>")),
        (
            "\"A, \\\"B\\\" <x>\" <sip:a;b=c?d@192.168.1.10>",
            format!("\"A, \\\"B\\\" <x>\" <sip:a;b=c?d@{public}>"),
        ),
        (
            "<sip:alice@192.168.1.10:5060;transport=udp;gr=urn:uuid:1>;+sip.instance=\"<urn:uuid:1>\";q=0.5",
            format!("<sip:alice@{public};transport=udp;gr=urn:uuid:1>;+sip.instance=\"<urn:uuid:1>\";q=0.5"),
        ),
        (
            "<sip:alice@192.168.1.10?X-Host=192.168.1.10>;x=192.168.1.10",
            format!("<sip:alice@{public}?X-Host=192.168.1.10>;x=192.168.1.10"),
        ),
        ("<sip:alice@192.168.1.10 : 5060>", format!("<sip:alice@{public}>")),
        ("<sip:alice@\n 192.168.1.10\n\t:5060>", format!("<sip:alice@\n {public}>")),
    ] {
        let mut bench = Bench::default();
        let uri = "sip:provider.example";
        let sent = bench.out(PHONE, PROXY, options(uri, VIA, &format!("Contact: {inside}")));
        assert_eq!(sent.text(), options(uri, VIA_OUT, &format!("Contact: {outside}")), "{inside}");
        // The provider repeats the Contact, and then uses it.
        let more = format!("Contact: {outside}\n");
        let got = bench.inn(PROXY, PHONE, answer(&sent.text(), "200 OK", at(PUBLIC), &more, "")).text();
        let inside = inside.replace('\n', "\r\n");
        assert!(got.contains(&format!("Contact: {inside}\r\n")), "{inside}: {got}");
        assert!(!got.contains("22.33.44.55"), "{inside}: {got}");
    }
}

#[test]
fn f07_a_request_to_the_contact_gets_the_phones_own_text() {
    let mut bench = Bench::default();
    for (user, form) in
        [("alice", "192.168.1.10"), ("bob", "192.168.1.10:5060"), ("carol", "192.168.1.10 :5060")]
    {
        let contact = |host: &str| format!("Contact: <sip:{user}@{host};line=1>");
        bench.out(PHONE, PROXY, options("sip:provider.example", VIA, &contact(form)));
    }
    let far = "Via: SIP/2.0/UDP 22.33.44.20;branch=z9hG4bK-f";
    for (user, form) in
        [("alice", "192.168.1.10"), ("bob", "192.168.1.10:5060"), ("carol", "192.168.1.10 :5060")]
    {
        let uri = |host: &str| format!("sip:{user}@{host};line=1");
        let got = bench.inn(PROXY, PHONE, options(&uri(PUBLIC), far, ""));
        assert_eq!(got.text(), options(&uri(form), far, ""));
    }
}

#[test]
fn f07_names_and_foreign_addresses_stay() {
    for contact in [
        "<sip:alice@phone.lan:5060>",
        "<sip:alice@192.168.1.11>",
        "<sip:alice@192.168.1.100>",
        "<sip:alice@192.168.001.010>",
        "<sip:alice@0.0.0.0>",
        "<tel:+49192.168.1.10>",
        "<mailto:alice@192.168.1.10>",
        "<sip:192.168.1.10@provider.example>",
        "*",
    ] {
        let more = format!("Contact: {contact}");
        assert!(leaves(&more).contains(&format!("\r\n{more}\r\n")), "{contact}");
    }
}

#[test]
fn f08_route_sets_are_mapped_and_come_back_to_the_letter() {
    // A PBX inside that routes for itself: others leave these headers private, and in-dialog requests get lost.
    for (inside, outside) in [
        ("Record-Route: <sip:192.168.1.10;lr>", "Record-Route: <sip:22.33.44.55:17375;lr>"),
        (
            "Record-Route: <sip:22.33.44.20;lr>, <sip:pbx@192.168.1.10:5060;lr;x=1>",
            "Record-Route: <sip:22.33.44.20;lr>, <sip:pbx@22.33.44.55:17375;lr;x=1>",
        ),
        (
            "Record-Route: <sip:192.168.1.10;lr>\nRecord-Route: <sip:x@192.168.1.10:5060;lr>",
            "Record-Route: <sip:22.33.44.55:17375;lr>\nRecord-Route: <sip:x@22.33.44.55:17375;lr>",
        ),
        // A proxy between two transports writes one for each.
        (
            "Record-Route: <sip:192.168.1.10:5060;r2=on;lr>, <sip:192.168.1.10:5061;transport=tls;r2=on;lr>",
            "Record-Route: <sip:22.33.44.55:17375;r2=on;lr>, <sip:22.33.44.55:17375;transport=tls;r2=on;lr>",
        ),
        ("Path: <sip:192.168.1.10;lr;ob>", "Path: <sip:22.33.44.55:17375;lr;ob>"),
        ("Service-Route: \"pbx\" <sip:192.168.1.10;lr>", "Service-Route: \"pbx\" <sip:22.33.44.55:17375;lr>"),
        ("Route: <sip:192.168.1.10:5060;lr>", "Route: <sip:22.33.44.55:17375;lr>"),
    ] {
        let mut bench = Bench::default();
        let uri = "sip:provider.example";
        let sent = bench.out(PHONE, PROXY, options(uri, VIA, inside));
        assert_eq!(sent.text(), options(uri, VIA_OUT, outside), "{inside}");
        let more = format!("{outside}\n");
        let more = if outside.starts_with("Record-Route") { String::new() } else { more };
        let got = bench.inn(PROXY, PHONE, answer(&sent.text(), "200 OK", at(PUBLIC), &more, "")).text();
        for line in inside.lines() {
            assert!(got.contains(&format!("{line}\r\n")), "{line}: {got}");
        }
        // In the dialog the same text comes as a Route.
        if inside.starts_with("Record-Route") {
            let far = "Via: SIP/2.0/UDP 22.33.44.20;branch=z9hG4bK-f";
            let [inside, outside] = [inside, outside].map(|it| it.replace("Record-Route", "Route"));
            let got = bench.inn(PROXY, PHONE, options("sip:a@b.example", far, &outside));
            assert_eq!(got.text(), options("sip:a@b.example", far, &inside));
        }
    }
}

#[test]
fn f09_identities_are_nobodys_business() {
    // Others rewrite From and To, add `:5060`, and cannot put it back.
    let mut bench = Bench::default();
    let untouched = "From: \"192.168.1.10\" <sip:alice@192.168.1.10>;tag=192.168.1.10\n\
         To: <sip:bob@192.168.1.10:5060>\n\
         Call-ID: 7@192.168.1.10\nCSeq: 1 MESSAGE\n\
         P-Asserted-Identity: <sip:alice@192.168.1.10>\nP-Preferred-Identity: <sip:alice@192.168.1.10:5060>\n\
         Remote-Party-ID: <sip:alice@192.168.1.10>;party=calling\nDiversion: <sip:alice@192.168.1.10>\n\
         History-Info: <sip:alice@192.168.1.10>;index=1\nReply-To: <sip:alice@192.168.1.10>\n\
         Warning: 399 192.168.1.10 \"none\"\nSubject: call 192.168.1.10:5060\nUser-Agent: phone (192.168.1.10)\n\
         Alert-Info: <http://192.168.1.10/ring>\nX-Real-IP: 192.168.1.10:5060";
    let full = |host: &str| {
        message(
            &format!(
                "MESSAGE sip:bob@192.168.1.10 SIP/2.0\nVia: SIP/2.0/UDP {host};branch=z9hG4bK-9;rport\n{untouched}"
            ),
            "192.168.1.10:5060\n",
        )
    };
    let sent = bench.out(PHONE, PROXY, full(PHONE));
    assert_eq!(sent.text(), full(PUBLIC));
    assert_eq!(sent.rules, ["via"]);
    // And inbound, where the same names are public ones.
    let inbound = full("22.33.44.20").replace("192.168.1.10", "22.33.44.55").replace(":5060", ":17375");
    let inbound = inbound.replace("MESSAGE sip:bob@22.33.44.55", "MESSAGE sip:bob@provider.example");
    let got = bench.inn(PROXY, PHONE, &inbound);
    assert_eq!((got.text(), got.reason), (inbound, Reason::Unchanged));
}

#[test]
fn f10_the_request_uri_and_its_digest_stay_together() {
    // The digest is made over the Request-URI: whoever changes one of them alone makes the password wrong.
    let mut bench = Bench::default();
    let digest =
        "Digest username=\"alice\", realm=\"x\", uri=\"sip:192.168.1.10:5060\", response=\"0\", qop=auth-int";
    let text = |uri: &str, via: &str| {
        options(uri, via, &format!("Authorization: {digest}\nProxy-Authorization: {digest}"))
    };
    for uri in ["sip:provider.example", "sip:192.168.1.10:5060", "sip:22.33.44.20;transport=udp"] {
        let sent = bench.out(PHONE, PROXY, text(uri, VIA));
        assert_eq!(sent.text(), text(uri, VIA_OUT));
    }
    // Inbound: a trunk calls the number at our public address; the PBX never gave that as its Contact.
    let far = "Via: SIP/2.0/UDP 22.33.44.20;branch=z9hG4bK-f";
    for uri in ["sip:4711@22.33.44.55:17375", "sip:provider.example", "sip:22.33.44.55:17375"] {
        let asked = text(uri, far).replace("192.168.1.10:5060", "22.33.44.55:17375");
        let got = bench.inn(PROXY, PHONE, &asked);
        assert_eq!(got.text(), asked, "{uri}");
    }
}

/// A request of the server's to `uri`, by which `branch`.
fn asks(method: &str, uri: &str, branch: &str, more: &str) -> String {
    message(
        &format!(
            "{method} {uri} SIP/2.0\nVia: SIP/2.0/UDP 22.33.44.20;branch=z9hG4bK-{branch}\nMax-Forwards: 70\n\
             From: <sip:bob@provider.example>;tag=b\nTo: <sip:+4930@provider.example>\nCall-ID: {branch}\n\
             CSeq: 1 {method}\n{more}"
        ),
        "",
    )
}

#[test]
fn f10_all_of_a_transaction_have_the_same_request_uri() {
    // What a PBX says of itself between an INVITE and its CANCEL must not change the second (RFC 3261 section 9.1).
    let mut bench = Bench::default();
    bench.out(PHONE, PROXY, options("sip:provider.example", VIA, "Contact: <sip:pbx@192.168.1.10>"));
    let public = format!("sip:+4930@{PUBLIC}");
    let comes = |bench: &mut Bench, method: &str, branch: &str, uri: &str| {
        let text = asks(method, &public, branch, "");
        let got = bench.inn(PROXY, PHONE, &text).text();
        assert_eq!(got, text.replace(&public, uri));
        got
    };
    let got = comes(&mut bench, "INVITE", "1", &public);
    let contact = "Contact: <sip:+4930@192.168.1.10:5060>\n";
    bench.out(PHONE, PROXY, answer(&got, "180 Ringing", at(PROXY), contact, ""));
    comes(&mut bench, "INVITE", "1", &public);
    comes(&mut bench, "CANCEL", "1", &public);
    bench.out(PHONE, PROXY, answer(&got, "487 Request Terminated", at(PROXY), "", ""));
    comes(&mut bench, "ACK", "1", &public);
    // From now on it is known.
    for method in ["INVITE", "INVITE", "CANCEL"] {
        comes(&mut bench, method, "2", "sip:+4930@192.168.1.10:5060");
    }
}

#[test]
fn f10_what_a_digest_was_made_over_comes_in_as_it_was_sent() {
    let mut bench = Bench::default();
    bench.out(PHONE, PROXY, options("sip:provider.example", VIA, "Contact: <sip:+4930@192.168.1.10>"));
    let public = format!("sip:+4930@{PUBLIC}");
    for (over, restored) in [(public.as_str(), public.as_str()), ("sip:other", "sip:+4930@192.168.1.10")] {
        for header in ["Authorization", "Proxy-Authorization"] {
            let digest = format!("{header}: Digest username=\"bob\", uri=\"{over}\", response=\"0\"");
            let text = asks("MESSAGE", &public, &format!("{over}{header}"), &digest);
            let got = bench.inn(PROXY, PHONE, &text).text();
            assert_eq!(got, text.replacen(&public, restored, 1), "{digest}");
        }
    }
}

#[test]
fn f13_a_trunk_that_has_registered_is_asked_for_any_of_its_numbers() {
    // RFC 6140: `bnc` stands for all of them. Without the NAT they would be asked for at its own address.
    let mut bench = Bench::default();
    let register = options("sip:provider.example", VIA, "Contact: <sip:192.168.1.10:5060;bnc>;expires=60");
    let sent = bench.out(PHONE, PROXY, register.replace("OPTIONS", "REGISTER"));
    let granted = format!("Contact: <sip:{PUBLIC};bnc>;expires=60\n");
    bench.inn(PROXY, PHONE, answer(&sent.text(), "200 OK", at(PUBLIC), &granted, ""));
    let text = |branch| asks("INVITE", &format!("sip:+4930@{PUBLIC}"), branch, "");
    let got = bench.inn(PROXY, PHONE, text("1")).text();
    assert_eq!(got, text("1").replace(PUBLIC, "192.168.1.10:5060"));
    // Somebody else, and another port: not the trunk.
    for other in ["sip:+4930@22.33.44.55", "sip:+4930@22.33.44.56:17375"] {
        let text = asks("INVITE", other, other, "");
        assert_eq!(bench.inn(PROXY, PHONE, &text).text(), text);
    }
    bench.advance(std::time::Duration::from_secs(120));
    assert_eq!(bench.inn(PROXY, PHONE, text("2")).text(), text("2"));
}

#[test]
fn f13_in_its_own_dialog_a_phone_is_asked_for_by_whatever_name() {
    let mut bench = Bench::default();
    call(&mut bench, Dialog::default(), &sdp("192.168.1.10", 40000), &sdp("22.33.44.22", 30000));
    let bye = |call: &str| {
        message(
            &format!(
                "BYE sip:unknown@{PUBLIC} SIP/2.0\nVia: SIP/2.0/UDP 22.33.44.20;branch=z9hG4bK-{call}\n\
                 From: <sip:bob@provider.example>;tag=bob-1\n\
                 To: \"Alice\" <sip:alice@provider.example>;tag=alice-1\nCall-ID: {call}\nCSeq: 1 BYE"
            ),
            "",
        )
    };
    assert_eq!(bench.inn(PROXY, PHONE, bye("another")).text(), bye("another"));
    let own = bye("call-1@192.168.1.10");
    let got = bench.inn(PROXY, PHONE, &own).text();
    assert_eq!(got, own.replace(PUBLIC, "192.168.1.10:5060"));
}

#[test]
fn f11_every_spelling_of_via_is_understood() {
    // Others need exactly one blank, and make `203.0.113.1:5060 : 5060` of a legal spelling.
    let out = "22.33.44.55:17375";
    for (inside, outside) in [
        ("Via: SIP/2.0/UDP 192.168.1.10:5060", format!("Via: SIP/2.0/UDP {out}")),
        ("v: SIP/2.0/UDP 192.168.1.10", format!("v: SIP/2.0/UDP {out}")),
        ("VIA:SIP/2.0/UDP  192.168.1.10:5060", format!("VIA:SIP/2.0/UDP  {out}")),
        ("Via :\tSIP/2.0/UDP\t192.168.1.10:5060", format!("Via :\tSIP/2.0/UDP\t{out}")),
        ("Via: SIP/2.0/UDP\n 192.168.1.10:5060", format!("Via: SIP/2.0/UDP\n {out}")),
        ("Via: SIP / 2.0 / UDP 192.168.1.10 : 5060 ", format!("Via: SIP / 2.0 / UDP {out} ")),
        ("Via:\n SIP/2.0/UDP 192.168.1.10:\n\t5060\n ", format!("Via:\n SIP/2.0/UDP {out}\n ")),
        ("Via: SIP/2.0/TCP 192.168.1.10:5060", format!("Via: SIP/2.0/TCP {out}")),
        ("Via: SIP/2.0/UDP 192.168.1.10:5062", format!("Via: SIP/2.0/UDP {out}")),
        (
            "Via: sip/2.0/udp 192.168.1.10:5060;ttl=1;maddr=192.168.1.10",
            format!("Via: sip/2.0/udp {out};ttl=1;maddr=192.168.1.10"),
        ),
    ] {
        for tail in [
            ";branch=z9hG4bK-h;rport",
            " ; rport ; branch = z9hG4bK-h",
            ";branch=z9hG4bK-h, SIP/2.0/UDP 192.168.1.10;branch=z9hG4bK-lower",
        ] {
            let mut bench = Bench::default();
            let uri = "sip:provider.example";
            let sent = bench.out(PHONE, PROXY, options(uri, &format!("{inside}{tail}"), ""));
            assert_eq!(sent.text(), options(uri, &format!("{outside}{tail}"), ""), "{inside}{tail}");
            assert_eq!(sent.rules, ["via"]);
            // Echoed by a server that knows no rport, it comes back to the letter.
            let ok = |via: &str| {
                options(uri, &format!("{via}{tail}"), "").replacen(
                    "OPTIONS sip:provider.example SIP/2.0",
                    "SIP/2.0 200 OK",
                    1,
                )
            };
            assert_eq!(bench.inn(PROXY, PHONE, ok(&outside)).text(), ok(inside), "{inside}{tail}");
        }
    }
}

#[test]
fn f11_received_and_rport_come_back_as_the_phone_sees_itself() {
    let mut bench = Bench::default();
    bench.out(PHONE, PROXY, options("sip:provider.example", VIA, ""));
    let ok = |params: &str, host: &str| {
        let via = format!("Via: SIP/2.0/UDP {host};branch=z9hG4bK-h{params}");
        options("x", &via, "").replacen("OPTIONS x SIP/2.0", "SIP/2.0 200 OK", 1)
    };
    for (outside, inside) in [
        (";received=22.33.44.55;rport=17375", ";received=192.168.1.10;rport=5060"),
        (";rport=17375;received=22.33.44.55", ";rport=5060;received=192.168.1.10"),
        ("; rport = 17375 ; received = 22.33.44.55", "; rport = 5060 ; received = 192.168.1.10"),
        (";received=22.33.44.55", ";received=192.168.1.10"),
        (";received=22.33.44.99;rport=17375", ";received=22.33.44.99;rport=17375"),
        (";received=22.33.44.55;rport=5999", ";received=192.168.1.10;rport=5999"),
        (";rport", ";rport"),
        ("", ""),
    ] {
        assert_eq!(bench.inn(PROXY, PHONE, ok(outside, PUBLIC)).text(), ok(inside, PHONE), "{outside}");
    }
}

#[test]
fn f29_what_is_public_already_stays() {
    // A phone with STUN writes its public address itself; others translate it once more.
    let mut bench = Bench::default();
    let dialog = Dialog { call_id: "call-1@phone", ..Dialog::default() };
    let invite = request("INVITE", PUBLIC, 1, dialog, false, &sdp("22.33.44.55", 50000));
    let sent = bench.out(PHONE, PROXY, &invite);
    assert_eq!((sent.text(), sent.reason), (invite, Reason::Unchanged));
    assert!(bench.kernel.pinholes.is_empty());
}

#[test]
fn f31_transfers_find_their_dialogs() {
    // Call-ID and tags are what Replaces names; URIs of the phone are mapped, in Refer-To and Referred-By too.
    let mut bench = Bench::default();
    let more = |host: &str| {
        format!(
            "Contact: <sip:alice@{host}>\n\
             Refer-To: <sip:alice@{host}?Replaces=call-1%40192.168.1.10%3Bto-tag%3D1%3Bfrom-tag%3D2>\n\
             Referred-By: \"Alice\" <sip:alice@{host}>;cid=\"1@192.168.1.10\"\n\
             Replaces: call-1@192.168.1.10;to-tag=1;from-tag=2\nJoin: call-1@192.168.1.10;to-tag=1;from-tag=2\n\
             Target-Dialog: call-1@192.168.1.10"
        )
    };
    let text = |via: &str, host: &str| {
        options("sip:bob@provider.example", via, &more(host)).replace("OPTIONS", "REFER")
    };
    let sent = bench.out(PHONE, PROXY, text(VIA, "192.168.1.10"));
    assert_eq!(sent.text(), text(VIA_OUT, PUBLIC));
    assert_eq!(sent.rules, ["via", "contact", "refer", "refer"]);
    // The far end sends the same names back in a REFER of its own.
    let far = "Via: SIP/2.0/UDP 22.33.44.20;branch=z9hG4bK-f";
    assert_eq!(bench.inn(PROXY, PHONE, text(far, PUBLIC)).text(), text(far, "192.168.1.10"));
}

#[test]
fn f35_what_another_gateway_translated_stays() {
    // Behind a second NAT with an ALG of its own (or with a helper that runs before us), everything is as it must be.
    let mut bench = Bench::default();
    let dialog = Dialog { call_id: "1@phone", ..Dialog::default() };
    let invite_text = request("INVITE", PHONE, 1, dialog, false, &sdp("192.168.1.10", 40000));
    let once = bench.out(PHONE, PROXY, &invite_text);
    let (pinholes, commands) = (bench.kernel.pinholes.clone(), bench.commands.len());
    let twice = bench.out(PHONE, PROXY, once.text());
    assert_eq!((twice.text(), twice.reason), (once.text(), Reason::Unchanged));
    assert_eq!(bench.kernel.pinholes, pinholes);
    assert_eq!(bench.commands.len(), commands);

    let mut bench = Bench::default();
    invite(&mut bench, dialog, &sdp("192.168.1.10", 40000));
    let got = answered(&mut bench, dialog, "200 OK", &sdp("22.33.44.22", 30000));
    let again = bench.inn(PROXY, PHONE, got.text());
    assert_eq!((again.text(), again.reason), (got.text(), Reason::Unchanged));
    bench.assert_pinned("192.168.1.10:40000", MEDIA);
}

/// Cisco's 7940 and 7941 send from a port of the moment and listen at that of their Via (RFC 3261 section 18.2.2).
#[test]
fn a_phone_that_listens_at_the_port_of_its_via_gets_everything_there() {
    for (phone, host, far) in [
        ("192.168.1.10:49152", "192.168.1.10", PROXY),
        ("[2001:db8:1::10]:49152", "[2001:db8:1::10]", "[2001:db8:ffff::20]:5060"),
    ] {
        let mut bench = Bench::default();
        bench.nat("[2001:db8:1::10]:49152", "[2001:db8:ffff::20]:5060", "[2001:db8:2::55]:17375");
        let ask = |sent_by: &str, branch: &str, rport: &str| {
            let via = format!("Via: SIP/2.0/UDP {sent_by};branch=z9hG4bK-{branch}{rport}");
            options("sip:provider.example", &via, &format!("Contact: <sip:alice@{host}:5060>"))
        };
        // What the phone gets: at which port, and in its own words.
        let mut round = |sent_by: &str, branch: &str, rport: &str| {
            let asked = ask(sent_by, branch, rport);
            let sent = bench.out(phone, far, &asked).text();
            let public = bench.public(phone, far);
            let reply = answer(&sent, "200 OK", public, "", "");
            let packet = crate::common::packet(at(far), at(phone), reply.as_bytes());
            let (_, bytes) = bench.pass(QueuePoint::Signalling, 2, 1, &packet);
            let got = Datagram::parse(&bytes).unwrap();
            let expected = answer(&asked, "200 OK", at(phone), "", "");
            assert_eq!(String::from_utf8_lossy(got.payload()), expected);
            crate::common::naive::assert_packet(&bytes);
            assert_eq!((got.source(), got.destination().ip()), (at(far), at(phone).ip()));
            got.destination().port()
        };
        assert_eq!(round(&format!("{host}:5060"), "1", ""), 5060);
        assert_eq!(round(host, "2", ""), 5060, "a Via without a port means 5060");
        assert_eq!(round(&format!("{host}:5070"), "3", ""), 5070);
        assert_eq!(round(&format!("{host}:5070"), "4", ";rport"), 49152, "it wants symmetric answers");
        assert_eq!(round(&format!("{host}:5060"), "5", ""), 5060);
        assert_eq!(round(&format!("{host}:49152"), "6", ""), 49152);
        assert_eq!(round(&format!("{host}:1900"), "7", ""), 49152, "S9: not a port of another service");
        assert_eq!(round(&format!("{host}:53"), "8", ""), 49152, "S9");
        assert_eq!(round(&format!("{host}:5060"), "9", ""), 5060);
        assert_eq!(round("phone.example:5080", "10", ""), 5060, "a name tells nothing");
        // A request that passes otherwise unchanged goes there too.
        let ask = options("sip:nobody", "Via: SIP/2.0/UDP sip.example;branch=z9hG4bK-in", "");
        let packet = crate::common::packet(at(far), at(phone), ask.as_bytes());
        let (passed, bytes) = bench.pass(QueuePoint::Signalling, 2, 1, &packet);
        assert_eq!((passed.text(), passed.reason), (ask, Reason::Unchanged));
        assert_eq!(Datagram::parse(&bytes).unwrap().destination().port(), 5060);
        crate::common::naive::assert_packet(&bytes);
    }
}
