//! Messages, as they are written and as they must arrive.

use std::net::SocketAddr;

use super::world::PHONE;

/// The ends of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    /// The phone, as it knows itself.
    pub(crate) phone: SocketAddr,
    /// The phone, as the server sees it.
    pub(crate) public: SocketAddr,
}

/// One message on its way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    pub(crate) written: Vec<u8>,
    pub(crate) arrives: Vec<u8>,
}

/// Users at the phone; each writes its address in a way of its own.
pub(crate) const USERS: usize = 3;

impl Ends {
    /// How a user of the phone writes where he is.
    fn own(&self, user: usize) -> String {
        match user % USERS {
            0 => PHONE.to_owned(),
            1 => format!("{PHONE}:5060"),
            _ => self.phone.to_string(),
        }
    }

    /// How the server must read it.
    fn seen(&self, user: usize) -> String {
        if self.public == self.phone { self.own(user) } else { self.public.to_string() }
    }

    /// The phone's message of this number; its body has at most `longest` bytes.
    pub(crate) fn outbound(&self, number: usize, longest: usize) -> Message {
        let body = body(number, longest);
        let write = |at: &str| {
            let user = number % USERS;
            let length = body.len();
            let kind = kind(number);
            let head = format!(
                "OPTIONS sip:bob@example.com SIP/2.0\r\n\
                 Via: SIP/2.0/TCP {at};branch=z9hG4bKout{number};rport\r\n\
                 Max-Forwards: 70\r\n\
                 From: \"Alice in {PHONE}\" <sip:alice{user}@example.com>;tag=a{number}\r\n\
                 To: <sip:bob@example.com>\r\n\
                 Call-ID: out-{number}@{PHONE}\r\n\
                 CSeq: 1 OPTIONS\r\n\
                 Contact: <sip:alice{user}@{at};transport=tcp>;expires=60\r\n\
                 Content-Type: {kind}\r\n\
                 Content-Length: {length}\r\n\r\n"
            );
            framed(number, head, &body)
        };
        Message { written: write(&self.own(number)), arrives: write(&self.seen(number)) }
    }

    /// The server's message of this number, to what a user of the phone has given as his Contact.
    pub(crate) fn inbound(&self, number: usize, longest: usize) -> Message {
        let body = body(number + 7, longest);
        let write = |at: &str| {
            let user = number % USERS;
            let length = body.len();
            let kind = kind(number);
            let head = format!(
                "OPTIONS sip:alice{user}@{at};transport=tcp SIP/2.0\r\n\
                 v: SIP/2.0/TCP 203.0.113.9;branch=z9hG4bKin{number}\r\n\
                 Max-Forwards: 70\r\n\
                 f: <sip:bob@example.com>;tag=b{number}\r\n\
                 t: <sip:alice{user}@example.com>\r\n\
                 i: in-{number}@203.0.113.9\r\n\
                 CSeq: 1 OPTIONS\r\n\
                 m: <sip:bob@203.0.113.9;transport=tcp>\r\n\
                 c: {kind}\r\n\
                 l: {length}\r\n\r\n"
            );
            framed(number, head, &body)
        };
        Message { written: write(&self.seen(number)), arrives: write(&self.own(number)) }
    }
}

/// What may have parts is waited for; what may not is told by its headers. Of both there are long ones.
fn kind(number: usize) -> &'static str {
    if (number / 16).is_multiple_of(2) { "multipart/mixed;boundary=0" } else { "text/plain" }
}

/// What has no reason to change.
pub(crate) fn verbatim(text: &[u8]) -> Message {
    Message { written: text.to_vec(), arrives: text.to_vec() }
}

/// With a keep-alive now and then.
fn framed(number: usize, head: String, body: &[u8]) -> Vec<u8> {
    let mut bytes = if number % 50 == 49 { b"\r\n\r\n".to_vec() } else { Vec::new() };
    bytes.extend_from_slice(head.as_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// A text in which much looks like SIP; most are short.
fn body(number: usize, longest: usize) -> Vec<u8> {
    const PATTERN: &[u8] = b"INVITE sip:x@192.168.1.10 SIP/2.0\r\nVia: SIP/2.0/TCP 192.168.1.10;branch=z9hG4bK7\r\nContent-Length: 5\r\n\r\n";
    let length = match number % 16 {
        0 => longest,
        1..4 => 0,
        _ => number.wrapping_mul(2_654_435_761) % (longest / 4 + 1),
    };
    let mut body = format!("{number} ").into_bytes();
    body.extend(PATTERN.iter().cycle().take(length));
    body.truncate(length);
    body
}
