//! What is read in a connection, and what the engine makes of it.

use sipalg::alg::{Failure, Op, Reason};

use crate::hand::Hand;
use crate::messages::{Message, written};
use crate::properties::{patient, play, world};
use crate::scenes::{SECOND, calm, growing, text_of, wire_of};
use crate::world::{PHONE, PUBLIC, at};

#[test]
fn what_does_not_begin_like_sip_is_let_go_for_ever() {
    for first in [
        &b"\x16\x03\x01\x02\x00\x01"[..],
        b"GET /chat HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: sip\r\n\r\n",
        b"\0\x01\0\0\x21\x12\xa4\x42",
        b"EHLO example.com\r\n",
    ] {
        let mut hand = Hand::new();
        let seen = hand.out(0, first);
        assert_eq!(seen[0].text, String::from_utf8_lossy(first));
        assert!(hand.world.followed.is_empty());
        assert_eq!(hand.world.engine.sizes().connections, 0);
        let message = text_of(&Message::Text(1, 10));
        assert_eq!(hand.out(first.len() as i64, &message)[0].text, message);
        assert_eq!(hand.refused(), None, "nothing to complain of");
    }
}

#[test]
fn what_does_not_go_on_like_sip_is_let_go_and_only_shifted() {
    let (written, wire) = growing();
    let mut hand = Hand::new();
    hand.out(0, &written);
    let next = text_of(&Message::Text(2, 10));
    let garbage = format!("GET / HTTP/1.1\r\n\r\n{next}");
    let seen = hand.out(written.len() as i64, &garbage);
    assert_eq!((seen[0].at, seen[0].text.as_str()), (wire.len() as i64, garbage.as_str()));
    assert_eq!((hand.refused(), hand.world.followed.len()), (Some("S1"), 1));
}

#[test]
fn s1_s2_a_web_page_that_speaks_sip_opens_nothing() {
    // As published: a POST whose body is cut so that a segment begins with a REGISTER, and a server that says OK.
    let register = "REGISTER sip:22.33.44.20;transport=tcp SIP/2.0\r\nVia: SIP/2.0/TCP 192.168.1.10:5060;branch=z9hG4bK1\r\n\
        Max-Forwards: 70\r\nTo: <sip:wuzzi@example.org>\r\nFrom: <sip:wuzzi@example.org>;tag=U7c3d519\r\n\
        Call-ID: aaaaaaaaaaaaaaaaa0404aaaaaaaaaaaabbbbbbZjQ4M2M.\r\nCSeq: 1 REGISTER\r\n\
        Contact: <sip:wuzzi@192.168.1.10:3306;transport=tcp>\r\nExpires: 600\r\nContent-Length: 0\r\n\r\n";
    let ok = register.replacen("REGISTER sip:22.33.44.20;transport=tcp SIP/2.0", "SIP/2.0 200 OK", 1);
    let head = format!(
        "POST / HTTP/1.1\r\nHost: 22.33.44.20:5060\r\nContent-Length: 5000\r\n\r\n{}",
        "x".repeat(900)
    );
    for delayed in [false, true] {
        let mut hand = Hand::new();
        let at = head.len() as i64;
        let mut seen = Vec::new();
        if delayed {
            // The segment with the REGISTER comes first.
            seen.extend(hand.out(at, register));
            seen.extend(hand.out(0, &head));
        } else {
            seen.extend(hand.out(0, &head));
            seen.extend(hand.out(at, register));
        }
        seen.extend(hand.inn(0, &ok));
        let texts: Vec<&str> = seen.iter().map(|it| it.text.as_str()).collect();
        assert_eq!(texts, [head.as_str(), register, &ok], "not a byte changes");
        let harmless = |op: &Op| matches!(op, Op::Follow { .. } | Op::Unfollow { .. });
        assert!(hand.world.commands.iter().all(harmless), "{:?}", hand.world.commands);
        assert!(hand.world.followed.is_empty());
        assert_eq!(hand.world.engine.sizes().registrations, 0);
    }
}

#[test]
fn s7_a_registration_over_tcp_opens_no_door() {
    let register = "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/TCP 192.168.1.10:43210;branch=z9hG4bK1;alias\r\n\
        Max-Forwards: 70\r\nTo: <sip:alice@example.com>\r\nFrom: <sip:alice@example.com>;tag=1\r\nCall-ID: r\r\n\
        CSeq: 1 REGISTER\r\nContact: <sip:alice@192.168.1.10:43210;transport=tcp;ob>;reg-id=1\r\nSupported: outbound, path\r\n\
        Expires: 600\r\nContent-Length: 0\r\n\r\n";
    let mut hand = Hand::new();
    let sent = hand.out(0, register).remove(0).text;
    assert_eq!(sent, register.replace("192.168.1.10:43210", PUBLIC));
    let ok = sent.replacen("REGISTER sip:example.com SIP/2.0", "SIP/2.0 200 OK", 1);
    let seen = hand.inn(0, &ok).remove(0).text;
    assert_eq!(seen, register.replacen("REGISTER sip:example.com SIP/2.0", "SIP/2.0 200 OK", 1));
    assert_eq!(hand.world.engine.sizes().registrations, 1);
    assert!(
        hand.world.commands.iter().all(|op| matches!(op, Op::Follow { .. })),
        "{:?}",
        hand.world.commands
    );
}

#[test]
fn a_phone_that_takes_tcp_for_a_large_message_keeps_its_dialog_and_its_contact() {
    let request = |transport: &str, method: &str, number: u32, via: &str| {
        format!(
            "{method} sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/{transport} {via};branch=z9hG4bK{method}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:alice@example.com>;tag=f\r\nTo: <sip:bob@example.com>\r\nCall-ID: large\r\n\
             CSeq: {number} {method}\r\nContact: <sip:alice@192.168.1.10:5060>\r\nContent-Length: 0\r\n\r\n"
        )
    };
    let mut hand = Hand::new();
    let udp = "22.33.44.55:31000";
    let sent = hand.world.datagram(udp, &request("UDP", "OPTIONS", 1, "192.168.1.10:5060"));
    assert!(sent.contains(&format!("Contact: <sip:alice@{udp}>")), "{sent}");
    // Over TCP its Via is the connection's, and its Contact is where it always was.
    let invite = request("TCP", "INVITE", 2, "192.168.1.10:43210");
    let sent = hand.out(0, &invite).remove(0).text;
    let expected = invite.replace("192.168.1.10:43210", PUBLIC).replace("192.168.1.10:5060", udp);
    assert_eq!(sent, expected);
    // A request that comes by the connection all the same finds the phone's own text.
    let bye = format!(
        "BYE sip:alice@{udp} SIP/2.0\r\nVia: SIP/2.0/TCP 22.33.44.20:5060;branch=z9hG4bKb\r\n\
         From: <sip:bob@example.com>;tag=t\r\nTo: <sip:alice@example.com>;tag=f\r\nCall-ID: large\r\nCSeq: 1 BYE\r\n\
         Content-Length: 0\r\n\r\n"
    );
    assert_eq!(hand.inn(0, &bye)[0].text, bye.replace(udp, "192.168.1.10:5060"));
    assert_eq!(hand.world.engine.sizes().calls, 1);
    // With `transport=tcp` it means the connection.
    let over_tcp = request("TCP", "MESSAGE", 3, "192.168.1.10:43210").replace("5060>", "5060;transport=tcp>");
    let sent = hand.out(invite.len() as i64, &over_tcp).remove(0).text;
    assert!(sent.contains(&format!("Contact: <sip:alice@{PUBLIC};transport=tcp>")), "{sent}");
}

#[test]
fn without_a_nat_messages_are_only_read() {
    let mut scene = calm();
    scene.out = vec![Message::Text(1, 900), Message::Invite(2, 40_000), Message::Text(3, 3000)];
    let mut world = world(&scene, patient());
    world.nated = false;
    world.server.to = at(PHONE);
    world.phone.stream = written(&scene.out);
    world.phone.closing = true;
    world.server.closing = true;
    world.phone.connect(world.now);
    world.run(60 * SECOND, |world| world.phone.is_done() && world.server.is_done());
    assert_eq!(world.server.received, written(&scene.out));
    assert!(world.followed.is_empty() && world.pinholes.is_empty());
    assert_eq!(world.engine.sizes().calls, 1, "it was read");
}

#[test]
fn a_message_waits_until_the_kernel_has_what_it_announces() {
    let mut scene = calm();
    scene.out.push(Message::Invite(2, 40_000));
    scene.out.push(Message::Text(3, 10));
    scene.slow = 300;
    let world = play(&scene);
    assert!(world.pinholes.contains_key(&at("192.168.1.10:40000")));
}

#[test]
fn a_message_whose_command_fails_passes_untouched_and_the_next_one_is_read() {
    let mut scene = calm();
    let invite = Message::Invite(2, 40_000);
    let next = Message::Text(3, 10);
    scene.out = vec![Message::Text(1, 10), invite.clone(), next.clone()];
    let mut world = world(&scene, patient());
    world.failures.push_back(("open", Failure::Full));
    world.phone.stream = written(&scene.out);
    world.phone.closing = true;
    world.server.closing = true;
    world.phone.connect(world.now);
    world.run(60 * SECOND, |world| world.phone.is_done() && world.server.is_done());
    let wanted = wire_of(&scene.out[0]) + &text_of(&invite) + &wire_of(&next);
    assert_eq!(String::from_utf8_lossy(&world.server.received), wanted);
    assert_eq!(world.reasons.get(&Reason::CommandFailed), None, "a message, not a segment");
    assert_eq!(world.engine.stats().verdicts(Reason::CommandFailed), 1);
}

#[test]
fn a_connection_that_cannot_be_followed_passes_untouched() {
    let scene = calm();
    let mut world = world(&scene, patient());
    world.failures.push_back(("follow", Failure::Full));
    world.phone.stream = written(&scene.out);
    world.phone.closing = true;
    world.server.closing = true;
    world.phone.connect(world.now);
    world.run(60 * SECOND, |world| world.phone.is_done() && world.server.is_done());
    assert_eq!(world.server.received, written(&scene.out));
    assert_eq!(world.engine.sizes().connections, 0);
}
