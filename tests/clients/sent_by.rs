//! A phone that sends from one port and listens at that of its Via, as Cisco's 7940 and 7941 do.

use std::net::{SocketAddr, UdpSocket};

use super::party::Party;
use super::world::{Nat, PROXY, World, inside};

#[test]
fn a_phone_that_listens_at_the_port_of_its_via_hears_answers_and_requests() {
    let world = World::new(Nat::MasqueradeRandom, 1);
    let provider = Party::new(&world.outside, PROXY);
    let ear = Party::new(&world.phones[0], inside(0));
    let mouth = world.phones[0].within(|| UdpSocket::bind((inside(0), 49_152))).expect("the port is free");
    let via = "Via: SIP/2.0/UDP 192.168.1.10:5060;branch=z9hG4bK-";
    let names =
        "From: <sip:alice@provider.example>;tag=a\nTo: <sip:alice@provider.example>\nCall-ID: two-ports";
    for turn in 1..=2 {
        let head =
            format!("REGISTER sip:provider.example SIP/2.0\n{via}{turn}\n{names}\nCSeq: {turn} REGISTER\n");
        let text = format!("{head}Contact: <sip:alice@192.168.1.10:5060>\nContent-Length: 0\n\n");
        mouth.send_to(text.replace('\n', "\r\n").as_bytes(), provider.address()).expect("sent");
        let got = provider.receive();
        // RFC 3261 section 18.2.2, without rport: to where it came from, at the port of its Via.
        let line = got.text.lines().nth(1).expect("a Via").to_string();
        let sent_by = line.split([' ', ';']).nth(2).expect("a sent-by");
        let port = sent_by.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        let back = SocketAddr::new(got.from.ip(), port);
        provider.send(
            back,
            &format!("SIP/2.0 200 OK\n{line}\n{names};tag=r\nCSeq: {turn} REGISTER\nContent-Length: 0\n\n"),
        );
        let heard = ear.receive().text;
        assert!(heard.starts_with(&format!("SIP/2.0 200 OK\n{via}{turn}\n")), "{heard}");
        // And a request of the provider, of which nothing is changed.
        let ask = format!(
            "OPTIONS sip:nobody SIP/2.0\nVia: SIP/2.0/UDP 22.33.44.20:5060;branch=z9hG4bK-o{turn}\n\
             From: <sip:p@provider.example>;tag=p\nTo: <sip:nobody>\nCall-ID: ping-{turn}\nCSeq: 1 OPTIONS\n\
             Content-Length: 0\n\n"
        );
        provider.send(back, &ask);
        assert_eq!(ear.receive().text, ask);
    }
}
