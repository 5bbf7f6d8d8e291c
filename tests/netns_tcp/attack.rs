//! What is not SIP passes to the letter and opens nothing, least of all what only looks like SIP.

use std::io::Write;

use super::messages::verbatim;
use super::peers::{Cut, expect, write};
use super::world::{Mode, PHONE, World};

/// Both ends say these texts in turn, the phone first.
fn assert_verbatim(world: &World, texts: &[&[u8]]) {
    let talk = world.open(0);
    for (turn, text) in texts.iter().enumerate() {
        let (from, to) =
            if turn % 2 == 0 { (&talk.phone, &talk.server) } else { (&talk.server, &talk.phone) };
        write(from, [verbatim(text)].into_iter(), Cut::Messages).unwrap();
        expect(to, [verbatim(text)].into_iter());
    }
    // And whatever follows.
    for text in [&talk.ends.outbound(2, 300).written, &talk.ends.outbound(5, 3000).written] {
        write(&talk.phone, [verbatim(text)].into_iter(), Cut::Pieces).unwrap();
        expect(&talk.server, [verbatim(text)].into_iter());
    }
    talk.close();
    world.assert_nothing_invalid();
}

/// What sipalg has opened.
fn pinholes(world: &World) -> usize {
    ["inbound4", "outbound4"].map(|name| world.elements("map", name)).iter().sum()
}

#[test]
fn http_and_tls_pass_to_the_letter() {
    let world = World::new();
    let request = format!("GET / HTTP/1.1\r\nHost: {PHONE}\r\nContact: <sip:x@{PHONE}>\r\n\r\n");
    assert_verbatim(&world, &[request.as_bytes(), b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]);
    assert_verbatim(&world, &[b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x16\x03\x03\x00\x7a"]);
    // One that speaks second, as a mail server does.
    let talk = world.open(0);
    (&talk.server).write_all(b"220 mail ready\r\n").unwrap();
    expect(&talk.phone, [verbatim(b"220 mail ready\r\n")].into_iter());
    talk.close();
}

#[test]
fn slipstreaming_opens_nothing() {
    let world = World::new();
    if world.mode == Mode::Plain {
        return;
    }
    // The browser is made to send a form whose content is filled up so that a segment begins with a REGISTER.
    let register = format!(
        "REGISTER sip:203.0.113.9;transport=TCP SIP/2.0\r\n\
         Via: SIP/2.0/TCP {PHONE}:5060;branch=z9hG4bKnashds7\r\n\
         Max-Forwards: 70\r\nFrom: <sip:x@203.0.113.9>;tag=1\r\nTo: <sip:x@203.0.113.9>\r\n\
         Call-ID: a84b4c76e66710\r\nCSeq: 1 REGISTER\r\n\
         Contact: <sip:x@{PHONE}:3306;transport=TCP>\r\nExpires: 7200\r\nContent-Length: 0\r\n\r\n"
    );
    let invite = format!(
        "INVITE sip:x@203.0.113.9 SIP/2.0\r\n\
         Via: SIP/2.0/TCP {PHONE}:5060;branch=z9hG4bKnashds8\r\n\
         Max-Forwards: 70\r\nFrom: <sip:x@203.0.113.9>;tag=1\r\nTo: <sip:x@203.0.113.9>\r\n\
         Call-ID: a84b4c76e66711\r\nCSeq: 1 INVITE\r\nContact: <sip:x@{PHONE}:3306;transport=TCP>\r\n\
         Content-Type: application/sdp\r\nContent-Length: 97\r\n\r\n\
         v=0\r\no=- 1 1 IN IP4 {PHONE}\r\ns=-\r\nc=IN IP4 {PHONE}\r\nt=0 0\r\nm=audio 33060 RTP/AVP 0\r\n"
    );
    let listener = world.phone.listen(&format!("{PHONE}:3306"));
    listener.set_nonblocking(true).unwrap();
    for message in [&register, &invite] {
        for length in [1300, 1320, 1332, 1348, 1388, 1448, 1460] {
            let talk = world.open(0);
            let head = "POST / HTTP/1.1\r\nHost: 203.0.113.9:5060\r\nContent-Length: 100000\r\n\r\n";
            let filler = "x".repeat(length - head.len());
            let text = format!("{head}{filler}");
            write(&talk.phone, [verbatim(text.as_bytes())].into_iter(), Cut::Messages).unwrap();
            expect(&talk.server, [verbatim(text.as_bytes())].into_iter());
            write(&talk.phone, [verbatim(message.as_bytes())].into_iter(), Cut::Messages).unwrap();
            expect(&talk.server, [verbatim(message.as_bytes())].into_iter());
            // The far end plays a registrar that grants it, and a phone that answers.
            let answer = message.lines().skip(1).take_while(|line| !line.is_empty());
            let answer: String = answer.map(|line| format!("{line}\r\n")).collect();
            let answer = format!("SIP/2.0 200 OK\r\n{answer}\r\n");
            write(&talk.server, [verbatim(answer.as_bytes())].into_iter(), Cut::Messages).unwrap();
            expect(&talk.phone, [verbatim(answer.as_bytes())].into_iter());
            assert_eq!(pinholes(&world), 0);
            // No port of the phone is reached from outside.
            for port in [3306, 5060, talk.ends.public.port()] {
                let reached = world.server.enter(|| {
                    std::net::TcpStream::connect_timeout(
                        &format!("203.0.113.101:{port}").parse().unwrap(),
                        std::time::Duration::from_millis(60),
                    )
                });
                assert!(reached.is_err(), "port {port} is reached");
                assert!(listener.accept().is_err());
            }
        }
    }
}
