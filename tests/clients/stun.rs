//! A phone that asks a STUN server (RFC 8489) where it is, and writes what it learned.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use super::net::Namespace;
use super::party::{Party, sdp};
use super::rtp::{Handset, Speaker};
use super::wait;
use super::world::{MEDIA, Mode, Nat, OTHER, PROXY, World, inside};

const RTP: u16 = 40_000;
const FAR_RTP: u16 = 6000;
const MAGIC: u32 = 0x2112_a442;
const TRANSACTION: &[u8; 12] = b"transaction!";

/// A STUN header with its attributes: RFC 8489 section 5.
fn stun(kind: u16, attributes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(attributes.len()).expect("a short message");
    [&kind.to_be_bytes()[..], &length.to_be_bytes(), &MAGIC.to_be_bytes(), TRANSACTION, attributes].concat()
}

/// XOR-MAPPED-ADDRESS, section 14.2.
fn xor_mapped(seen: SocketAddr) -> Vec<u8> {
    let IpAddr::V4(ip) = seen.ip() else { panic!("{seen} in a network of IPv4") };
    let port = seen.port() ^ (MAGIC >> 16) as u16;
    let head = [0x0020_u16.to_be_bytes(), 8_u16.to_be_bytes(), [0, 1], port.to_be_bytes()].concat();
    [head, (u32::from(ip) ^ MAGIC).to_be_bytes().to_vec()].concat()
}

/// What a phone learns when it asks `server` from its own port `port`.
fn learned(phone: &Namespace, own: (Ipv4Addr, u16), server: &UdpSocket) -> SocketAddr {
    let socket = phone.within(|| UdpSocket::bind(own)).expect("the port is free");
    for socket in [&socket, server] {
        socket.set_read_timeout(Some(wait::LONG)).expect("not zero");
    }
    let mut buffer = [0; 512];
    socket.send_to(&stun(0x0001, &[]), server.local_addr().expect("it is bound")).expect("there is a route");
    let (length, seen) = server.recv_from(&mut buffer).expect("the question comes");
    assert_eq!(buffer[..length], stun(0x0001, &[]));
    server.send_to(&stun(0x0101, &xor_mapped(seen)), seen).expect("there is a route");
    let (length, _) = socket.recv_from(&mut buffer).expect("the answer comes");
    assert!(length == 32 && buffer[..20] == stun(0x0101, &[0; 12])[..20], "{:?}", &buffer[..length]);
    let port = u16::from_be_bytes([buffer[26], buffer[27]]) ^ (MAGIC >> 16) as u16;
    let ip = u32::from_be_bytes([buffer[28], buffer[29], buffer[30], buffer[31]]) ^ MAGIC;
    SocketAddr::from((Ipv4Addr::from(ip), port))
}

#[test]
fn f29_a_phone_that_asked_a_stun_server_is_heard_by_the_port_it_learned() {
    // Every flow has another public port here, so that what the phone learned holds for the STUN server only.
    let world = World::new(Nat::MasqueradeRandom, 2);
    let server = world.outside.within(|| UdpSocket::bind((PROXY, 3478))).expect("the port is free");
    let [rtp, rtcp] = [RTP, RTP + 1].map(|port| learned(&world.phones[0], (inside(0), port), &server));
    world.assert_reachable(0, rtp);
    let provider = Party::new(&world.outside, PROXY);
    let (party, thief) = (Party::new(&world.phones[0], inside(0)), Party::new(&world.phones[1], inside(1)));
    let handset = Handset::start(&world.phones[0], "phone", inside(0), [RTP, RTP + 1]);
    let IpAddr::V4(public) = rtp.ip() else { panic!("{rtp}") };
    let offer = sdp(public, rtp.port(), &format!("a=rtcp:{}\n", rtcp.port()));
    let answer = sdp(MEDIA, FAR_RTP, "");

    let (asked, got) = party.call(&provider, "call", &offer, &answer);
    assert!(asked.text.ends_with(&offer) && got.text.ends_with(&answer), "{}{}", asked.text, got.text);
    // The far end speaks first, and hears the phone from the port that was announced.
    let mut far = Speaker::bind(&world.outside, (MEDIA, FAR_RTP));
    far.asks_without_loss(rtp, "phone", 3);
    Speaker::bind(&world.outside, (MEDIA, FAR_RTP + 1)).asks_without_loss(rtcp, "phone", 3);
    if world.mode != Mode::Sipalg {
        return;
    }
    // Nobody else is let in by it, and another phone that writes it gets nothing.
    let stranger = SocketAddr::from((OTHER, FAR_RTP));
    let mut other = Speaker::bind(&world.outside, stranger);
    let (asked, _) = thief.call(&provider, "theft", &offer, &sdp(OTHER, FAR_RTP, ""));
    assert!(asked.text.ends_with(&offer), "{}", asked.text);
    other.speak(rtp);
    far.asks_without_loss(rtp, "phone", 3);
    assert_eq!(handset.heard_from(stranger), 0);
    // With the call its door goes.
    party.hang_up(&provider, "call");
    wait::until("the door to close", || {
        let entries = world.router.run("conntrack", ["-L", "-p", "udp"]);
        (!entries.contains(&format!("dst={MEDIA}"))).then_some(())
    });
}
