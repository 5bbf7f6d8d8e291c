//! Messages that are hard on a reader, own ones for the sections of RFC 4475 and RFC 5118, through the whole engine:
//! each is mapped in every place where the grammar has an address of the phone's, and nowhere else.
//!
//! Guillemets mark what must change: `«192.168.1.10 : 5060»` becomes the public endpoint. A character is a byte.

use crate::PUBLIC;
use crate::common::Bench;
use crate::common::messages::{PHONE, PROXY};
use sipalg::alg::Reason;

/// What the phone sends and what must leave.
pub(crate) fn marked(text: &str) -> (Vec<u8>, Vec<u8>) {
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    let text = text.replace('\n', "\r\n");
    let mut parts = text.split(['«', '»']).map(|part| part.chars().map(|c| u8::try_from(c).unwrap()));
    while let Some(plain) = parts.next() {
        plain.for_each(|byte| {
            inside.push(byte);
            outside.push(byte);
        });
        let Some(address) = parts.next() else { break };
        inside.extend(address);
        outside.extend(PUBLIC.bytes());
    }
    (inside, outside)
}

/// It leaves as marked, and the same names come back as the phone wrote them.
#[track_caller]
pub(crate) fn assert_mapped(text: &str) {
    let (inside, outside) = marked(text);
    let mut bench = Bench::default();
    let sent = bench.out(PHONE, PROXY, &inside);
    let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(show(&sent.payload.unwrap()), show(&outside));
    // The answer repeats it all; of the phone's own description nothing would come back.
    let answer = |bytes: &[u8]| {
        let end = bytes.windows(2).position(|it| it == b"\r\n").unwrap();
        let end = end + bytes[end..].iter().position(|b| !matches!(b, b'\r' | b'\n')).unwrap() - 2;
        [b"SIP/2.0 200 ", &bytes[end..]].concat()
    };
    let got = bench.inn(PROXY, PHONE, answer(&outside));
    assert_eq!(show(&got.payload.unwrap()), show(&answer(&inside)), "the way back");
}

/// It passes byte for byte, both ways.
#[track_caller]
pub(crate) fn assert_passes(bytes: &[u8], reasons: &[Reason]) {
    let mut bench = Bench::default();
    let sent = bench.out(PHONE, PROXY, bytes);
    assert_eq!(sent.payload.as_deref(), Some(bytes), "{}", String::from_utf8_lossy(bytes));
    assert!(reasons.contains(&sent.reason), "{:?}", sent.reason);
    let got = bench.inn(PROXY, PHONE, bytes);
    assert_eq!(got.payload.as_deref(), Some(bytes));
    assert!(bench.kernel.pinholes.is_empty());
}

#[test]
fn f11_rfc4475_3_1_1_1_white_space_wherever_it_may_be() {
    assert_mapped(
        "INVITE sip:vivekg@chair-dnrc.example.com;unknownparam SIP/2.0\n\
         TO :\n sip:vivekg@chair-dnrc.example.com ;   tag    = 1918181833n\n\
         from   : \"J Rosenberg \\\\\\\"\"       <sip:jdrosen@192.168.1.10>\n  ;\n  tag = 98asjd8\n\
         MaX-fOrWaRdS: 0068\nCall-ID: wsinv.ndaksdj@192.168.1.10\n\
         Content-Length   : 0\ncseq: 0009\n  INVITE\n\
         Via  : SIP  /   2.0\n /UDP\n    «192.168.1.10 \n : 5060» ;branch  = z9hG4bK-1 ;\n  received = 192.0.2.255\n\
         s :\nNewFangledHeader:   newfangled value\n continued newfangled value 192.168.1.10\n\
         UnknownHeaderWithUnusualValue: ;;,,;;,;\n\
         Content-Type: application/sdp\nRoute:\n <sip:services.example.com;lr;unknownwith=value;unknown-no-value>\n\
         v:  SIP  / 2.0  / TCP     192.168.1.10   ;\n  branch  =   z9hG4bK9ikj8  ,\n SIP  /    2.0   / UDP  192.168.1.10 ;x\n\
         m:\"Quoted string \\\"\\\"\" <sip:jdrosen@«192.168.1.10» > ; newparam =\n      newvalue ;\n  secondparam ; q = 0.33\n\n",
    );
}

/// A request in which only its Via and what these lines mark is the phone's.
pub(crate) fn request(start: &str, lines: &str) -> String {
    let method = start.split(' ').next().unwrap();
    format!(
        "{start} SIP/2.0\nVia: SIP/2.0/UDP «192.168.1.10:5060»;branch=z9hG4bK-t\nFrom: <sip:a@192.168.1.10>;tag=1\n\
         To: <sip:b@192.168.1.10>\nCall-ID: 1@192.168.1.10\nCSeq: 1 {method}\n{lines}\n"
    )
}

#[test]
fn f11_rfc4475_3_1_1_2_odd_tokens_and_eight_bits() {
    assert_mapped(
        "!interesting-Method0123456789_*+`.%indeed'~ sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com SIP/2.0\n\
         Via: SIP/2.0/UDP «192.168.1.10»;branch=z9hG4bK-.!%66*_+`'~\n\
         To: \"BEL:\\\u{7} NUL:\\\u{0} DEL:\\\u{7f}\" <sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*@example.com>\n\
         From: token1~` token2'+_ token3*%!.- <sip:mundane@192.168.1.10>;fromParam''~+*_!.-%=\"\u{d1}\u{80}\u{d0}\u{b0}\";tag=_token~1'+`*%!-.\n\
         Call-ID: intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{\n\
         CSeq: 139122385 !interesting-Method0123456789_*+`.%indeed'~\nMax-Forwards: 255\n\
         extensionHeader-!.%*+_`'~: \u{ef}\u{ac}\u{a0}\u{e5}\u{a4}\u{a7} 192.168.1.10 \u{0}\u{1}\n\
         Contact: \"\u{d1}\u{80}\u{0}, <192.168.1.10>\" <sip:!*'()&=+$,;?/@«192.168.1.10»>\nContent-Length: 0\n\n",
    );
}

#[test]
fn f11_rfc4475_3_1_1_3_to_10_escapes_long_values_many_values_transports() {
    assert_mapped(&request(
        "INVITE sip:sips%3Auser%40example.com@example.net",
        "m: <sip:cal%6Cer@«192.168.1.10:5060»;%6C%72;n%61me=v%61lue%25%34%31?h%40=192.168.1.10>\n\
         C%6Fntact: <sip:alias1@192.168.1.10>\nContact: <sip:alias2@«192.168.1.10»>\n",
    ));
    assert_mapped(&request(
        "OPTIONS sip:user@example.com",
        "Contact: caller<sip:caller@«192.168.1.10»>;x=<y>\n",
    ));
    let long = "long-".repeat(300);
    let names = format!("\"{long}, <sip:{long}@192.168.1.10>\"");
    let many: String =
        (0..60).map(|n| format!("Via: SIP/2.0/UDP 192.168.1.{n};branch=z9hG4bK-{n}\n")).collect();
    assert_mapped(&request(
        "OPTIONS sip:user@example.com",
        &format!(
            "Contact: {names} <sip:{long}@«192.168.1.10:5060»;{long}={long}>;{long}=\"{long}\"\n{many}X-{long}: {long}\n"
        ),
    ));
    assert_mapped(&request(
        "OPTIONS sip:user;par=u%40example.net@example.com",
        "Contact: <sip:a;x=1@«192.168.1.10»;y=2>\n",
    ));
    for transport in ["TCP", "SCTP", "UNKNOWN", "TLS-SCTP", "5G"] {
        let text =
            request("OPTIONS sip:user@example.com", "Contact: <sip:a@«192.168.1.10»;transport=other>\n");
        assert_mapped(&text.replace("2.0/UDP", &format!("2.0/{transport}")));
    }
}

#[test]
fn f38_unknown_schemes_methods_and_headers() {
    for uri in [
        "tel:+1234;phone-context=192.168.1.10",
        "urn:service:sos",
        "sips:a@b.example",
        "nobodyKnowsThisScheme:totallyopaquecontent@192.168.1.10",
        "soap.beep://192.168.1.10:3002",
        "http://192.168.1.10/",
        "sip:192.168.1.10",
        "sip:a@[2001:db8::1]:5060;maddr=192.168.1.10?to=192.168.1.10",
    ] {
        for method in ["INVITE", "REGISTER", "PUBLISH", "REFER", "X", "invite", "ACKNOWLEDGE"] {
            assert_mapped(&request(
                &format!("{method} {uri}"),
                "Contact: <name:John_Smith@192.168.1.10>, <tel:+192.168.1.10>, <urn:x:192.168.1.10>\n\
                 Contact: <sip:a@«192.168.1.10»>, \"x\"<sips:b@«192.168.1.10:5062»>;q=1 ,sip:c@«192.168.1.10» , <sip:d@10.1.1.1>\n\
                 P-Charging-Vector: icid-value=192.168.1.10;orig-ioi=192.168.1.10\nP-Access-Network-Info: x=192.168.1.10\n\
                 Reason: SIP ;cause=200 ;text=\"192.168.1.10\"\nGeolocation: <sip:192.168.1.10>\n\
                 192.168.1.10: Contact: <sip:a@192.168.1.10>\n",
            ));
        }
    }
}

#[test]
fn f07_parameters_and_headers_of_uris() {
    // `maddr` says where to send and overrides the host; all else is text.
    for uri in [
        "sip:a@«192.168.1.10:5060»;gr=urn:uuid:192.168.1.10;ob",
        "sip:a@«192.168.1.10:5060»;received=192.168.1.10;ttl=1;method=INVITE?Route=%3Csip:192.168.1.10%3E&Contact=192.168.1.10",
        "sip:192.168.1.10@«192.168.1.10:5060»;sip.instance=192.168.1.10",
        "sip:a@example.com;maddr=192.168.1.10",
        "sip:a@example.com;gr=192.168.1.10",
        "sip:a@192.168.1.11;maddr=192.168.1.10",
        "sip:a@[::ffff:192.168.1.10]",
        "sip:a@192.168.1.10.example.com",
    ] {
        let lines = format!(
            "Contact: <{uri}>;+sip.instance=\"<urn:uuid:192.168.1.10>\";pub-gruu=\"sip:a@192.168.1.10;gr\";temp-gruu=\"sip:a@192.168.1.10\"\n\
             Path: <{uri};lr>\nService-Route: \"192.168.1.10\" <{uri};lr>\nRefer-To: <{uri}>\nReferred-By: <{uri}>;cid=\"1@192.168.1.10\"\n"
        );
        assert_mapped(&request("REGISTER sip:registrar.example", &lines));
    }
    let (inside, outside) = marked(&request(
        "REGISTER sip:registrar.example",
        "Contact: <sip:a@«192.168.1.10:5060»;maddr=192.168.1.10;x=y>\nPath: <sip:«192.168.1.10:5060»; MAddr = 192.168.1.10 ;lr>\n",
    ));
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut bench = Bench::default();
    let outside = text(&outside)
        .replace("maddr=192.168.1.10", "maddr=22.33.44.55")
        .replace("MAddr = 192.168.1.10", "MAddr = 22.33.44.55");
    assert_eq!(bench.out(PHONE, PROXY, &inside).text(), outside);
    let answer = |text: &str| text.replacen("REGISTER sip:registrar.example SIP/2.0", "SIP/2.0 200 OK", 1);
    assert_eq!(bench.inn(PROXY, PHONE, answer(&outside)).text(), answer(&text(&inside)));
    let (asked, _) = (
        request("BYE sip:a@22.33.44.55:17375;maddr=22.33.44.55;x=y", "")
            .replace(['«', '»'], "")
            .replace('\n', "\r\n"),
        (),
    );
    let asked = asked.replace("192.168.1.10:5060", "22.33.44.20");
    let expected =
        asked.replacen("a@22.33.44.55:17375;maddr=22.33.44.55", "a@192.168.1.10:5060;maddr=192.168.1.10", 1);
    assert_eq!(bench.inn(PROXY, PHONE, asked).text(), expected);
}

#[test]
fn f31_transfers_and_their_escaped_dialogs() {
    assert_mapped(&request(
        "REFER sip:b@example.com",
        "r: \"x\" <sip:c@«192.168.1.10:5060»;method=INVITE?Replaces=1%40192.168.1.10%3Bto-tag%3D7743%3Bfrom-tag%3D6472&Require=replaces>\n\
         b: <sip:a@«192.168.1.10:5060»>;cid=\"20398823.2UWQFN309shb3@192.168.1.10\"\nRefer-Sub: false\n\
         Replaces: 1@192.168.1.10;to-tag=1;from-tag=2\nTarget-Dialog: 1@192.168.1.10;local-tag=x;remote-tag=y\n",
    ));
    assert_mapped(&request(
        "REFER sip:b@example.com",
        "Refer-To: sip:c@«192.168.1.10:5060»\nReferred-By: sip:a@example.com\n",
    ));
    assert_mapped(&request(
        "REFER sip:b@example.com",
        "Refer-To: <tel:+192.168.1.10>\nRefer-To: <cid:1@192.168.1.10>\n",
    ));
}

#[test]
fn f11_messages_that_break_the_rules_pass_as_they_are() {
    // RFC 4475 3.1.2 and 3.3: what is not SIP beyond doubt is not touched, and nobody loses it.
    let good = request("OPTIONS sip:b@example.com", "Contact: <sip:a@192.168.1.10>\nContent-Length: 0\n")
        .replace(['«', '»'], "")
        .replace('\n', "\r\n");
    let reasons = [Reason::NotSip, Reason::Suspicious, Reason::Unparsable];
    for (from, to) in [
        ("SIP/2.0\r\n", "SIP/7.0\r\n"),
        ("SIP/2.0\r\n", "\r\n"),
        ("OPTIONS sip", "OPTIONS  sip"),
        ("sip:b@example.com SIP", "<sip:b@example.com> SIP"),
        ("sip:b@example.com SIP", "sip:b@example.com; lr SIP"),
        ("1 OPTIONS", "1 INVITE"),
        ("1 OPTIONS", "36893488147419103232 OPTIONS"),
        ("Call-ID: 1@192.168.1.10\r\n", ""),
        ("Call-ID: 1@192.168.1.10\r\n", "Call-ID: 1\r\nCall-ID: 2\r\n"),
        (";tag=1", ""),
        (";branch=z9hG4bK-t", ""),
        (";branch=z9hG4bK-t", ";branch=1"),
        ("Via: SIP/2.0/UDP 192.168.1.10:5060", "Via: SIP/2.0/UDP ;;,"),
        ("Content-Length: 0", "Content-Length: 9999"),
        ("Content-Length: 0", "Content-Length: -999"),
        ("\r\n\r\n", "\r\n"),
    ] {
        assert!(good.contains(from), "{from}");
        assert_passes(good.replacen(from, to, 1).as_bytes(), &reasons);
    }
    let cut = [1, 7, 20, good.len() / 2, good.len() - 5];
    for end in cut {
        assert_passes(&good.as_bytes()[..end], &reasons);
    }
    assert_passes(format!("{}\r\n", "x".repeat(60_000)).as_bytes(), &reasons);
    assert_passes(
        good.replacen("Contact", &format!("X: {}\r\nContact", ",".repeat(60_000)), 1).as_bytes(),
        &reasons,
    );
}

#[test]
fn f37_rfc5118_references_in_all_forms() {
    let (phone, proxy, public) = ("[fd00::10]:5060", "[2001:db8:1::20]:5060", "[2001:db8::55]:17375");
    for text in [
        "[fd00::10]",
        "[fd00::10]:5060",
        "[FD00:0:0:0:0:0:0:10]",
        "[fd00::0.0.0.16]:5062",
        "[fd00:0::10] : 5060",
    ] {
        for (received, back) in [("[2001:db8::55]", "[fd00::10]"), ("2001:db8::55", "fd00::10")] {
            let full = |host: &str| {
                format!(
                    "REGISTER sip:[2001:db8:1::20] SIP/2.0\r\nVia: SIP/2.0/UDP {host};branch=z9hG4bK-6;rport\r\n\
                     From: <sip:a@[fd00::10]>;tag=1\r\nTo: <sip:a@[fd00::10]>\r\nCall-ID: 1@[fd00::10]\r\nCSeq: 1 REGISTER\r\n\
                     Contact: <sip:a@{host};ob>, <sip:fd00::10@[fd00::11]>, <sip:[fd00::10%eth0]>\r\nContent-Length: 0\r\n\r\n"
                )
            };
            let mut bench = Bench::default();
            bench.nat(phone, proxy, public);
            let sent = bench.out(phone, proxy, full(text)).text();
            assert_eq!(sent, full(public));
            let answer = |text: &str, seen: &str| {
                text.replacen("REGISTER sip:[2001:db8:1::20] SIP/2.0", "SIP/2.0 200 OK", 1)
                    .replacen(";rport", seen, 1)
            };
            let ok = answer(&sent, &format!(";rport=17375;received={received}"));
            let expected = answer(&full(text), &format!(";rport=5060;received={back}"));
            assert_eq!(bench.inn(proxy, phone, ok).text(), expected);
        }
    }
}
