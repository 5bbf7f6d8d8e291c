//! Messages as one end writes them and as the other is to get them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::world::PUBLIC;

/// What a phone at 192.168.1.10 calls itself.
pub const OWN: &str = "192.168.1.10:5060";

/// A message in its two forms; the second is made when it is known which ports were opened.
#[derive(Clone, Debug)]
pub enum Message {
    /// CRLF CRLF.
    KeepAlive,
    /// Number, bytes of body. That of an odd number may have parts, so it is waited for; any other is told by its headers.
    Text(u32, usize),
    /// A call with this media port.
    Invite(u32, u16),
    /// From the server: a request to the phone's Contact.
    Request(u32, usize),
}

fn request(number: u32, host: &str, method: &str, kind: &str, body: &str) -> String {
    format!(
        "{method} sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/TCP {host};branch=z9hG4bK{number};alias\r\n\
         Max-Forwards: 70\r\nFrom: <sip:alice@example.com>;tag=f{number}\r\nTo: <sip:bob@example.com>\r\n\
         Call-ID: c{number}@192.168.1.10\r\nCSeq: {number} {method}\r\n\
         Contact: <sip:alice@{host};transport=tcp>;+sip.instance=\"<urn:uuid:1>\";reg-id=1\r\n\
         Supported: outbound\r\n{kind}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn incoming(number: u32, host: &str, body: &str) -> String {
    format!(
        "MESSAGE sip:alice@{host};transport=tcp SIP/2.0\r\nVia: SIP/2.0/TCP 22.33.44.20:5060;branch=z9hG4bKs{number}\r\n\
         From: <sip:bob@example.com>;tag=b{number}\r\nTo: <sip:alice@example.com>\r\nCall-ID: s{number}\r\n\
         CSeq: {number} MESSAGE\r\n{}Content-Length: {}\r\n\r\n{body}",
        kind(number),
        body.len()
    )
}

fn kind(number: u32) -> &'static str {
    if number.is_multiple_of(2) {
        "Content-Type: text/plain\r\n"
    } else {
        "Content-Type: multipart/mixed;boundary=0\r\n"
    }
}

fn text(number: u32, length: usize) -> String {
    (0..length).map(|at| char::from(b'a' + ((number as usize + at) % 26) as u8)).collect()
}

fn sdp(address: &str, port: u16) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\na=rtcp-mux\r\n"
    )
}

impl Message {
    /// As its sender writes it.
    pub fn written(&self) -> Vec<u8> {
        match self {
            Self::KeepAlive => b"\r\n\r\n".to_vec(),
            Self::Text(number, length) => {
                request(*number, OWN, "MESSAGE", kind(*number), &text(*number, *length)).into()
            }
            Self::Invite(number, port) => {
                let body = sdp("192.168.1.10", *port);
                request(*number, OWN, "INVITE", "Content-Type: application/sdp\r\n", &body).into()
            }
            Self::Request(number, length) => incoming(*number, PUBLIC, &text(*number, *length)).into(),
        }
    }

    /// As its receiver gets it.
    pub fn expected(&self, pinholes: &BTreeMap<SocketAddr, SocketAddr>) -> Vec<u8> {
        match self {
            Self::KeepAlive => b"\r\n\r\n".to_vec(),
            Self::Text(number, length) => {
                request(*number, PUBLIC, "MESSAGE", kind(*number), &text(*number, *length)).into()
            }
            Self::Invite(number, port) => {
                let public =
                    pinholes.get(&SocketAddr::from(([192, 168, 1, 10], *port))).expect("an open port");
                let body = sdp("22.33.44.55", public.port());
                request(*number, PUBLIC, "INVITE", "Content-Type: application/sdp\r\n", &body).into()
            }
            Self::Request(number, length) => incoming(*number, OWN, &text(*number, *length)).into(),
        }
    }
}

pub fn written(messages: &[Message]) -> Vec<u8> {
    messages.iter().flat_map(Message::written).collect()
}

pub fn expected(messages: &[Message], pinholes: &BTreeMap<SocketAddr, SocketAddr>) -> Vec<u8> {
    messages.iter().flat_map(|it| it.expected(pinholes)).collect()
}
