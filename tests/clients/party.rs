//! Parties that speak SIP over plain sockets, for tests in which what matters is what the kernel does between two messages.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use super::net::Namespace;
use super::wait;

/// A party with a socket at port 5060.
pub(crate) struct Party {
    socket: UdpSocket,
    address: SocketAddr,
}

/// A message as it was received, and from where.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    /// Its text, with `\n` for CRLF.
    pub(crate) text: String,
    /// Where it came from.
    pub(crate) from: SocketAddr,
}

impl Party {
    /// A party at `address` of `host`.
    pub(crate) fn new(host: &Namespace, address: Ipv4Addr) -> Self {
        let address = SocketAddr::from((address, 5060));
        let socket = host.within(|| UdpSocket::bind(address)).expect("the port is free");
        socket.set_read_timeout(Some(wait::LONG)).expect("not zero");
        Self { socket, address }
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a text with `\n` for CRLF.
    pub(crate) fn send(&self, to: SocketAddr, text: &str) {
        self.socket.send_to(text.replace('\n', "\r\n").as_bytes(), to).expect("sent");
    }

    /// The next message.
    pub(crate) fn receive(&self) -> Got {
        let mut buffer = [0; 4096];
        let (length, from) = self.datagram(&mut buffer).expect("a message comes");
        Got { text: String::from_utf8_lossy(&buffer[..length]).replace("\r\n", "\n"), from }
    }

    /// The next datagram. A machine that was stopped for a moment interrupts what has a time limit.
    fn datagram(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        loop {
            match self.socket.recv_from(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                got => return got,
            }
        }
    }

    /// The next message, if one comes in `time`.
    pub(crate) fn receive_within(&self, time: Duration) -> Option<Got> {
        self.socket.set_read_timeout(Some(time)).expect("not zero");
        let mut buffer = [0; 4096];
        let got = self.datagram(&mut buffer).ok();
        self.socket.set_read_timeout(Some(wait::LONG)).expect("not zero");
        let (length, from) = got?;
        Some(Got { text: String::from_utf8_lossy(&buffer[..length]).replace("\r\n", "\n"), from })
    }

    /// Sends request number `n` of the dialog `call` to `to`; what the other party gets.
    pub(crate) fn ask(&self, to: &Self, method: &str, n: u32, call: &str, body: &str) -> Got {
        self.send(to.address, &request(method, n, call, self.address, body));
        to.receive()
    }

    /// Answers what it got with 200, at once to where it came from; what `to` gets. `more` are header lines.
    pub(crate) fn agree(&self, got: &Got, to: &Self, more: &str, body: &str) -> Got {
        self.send(got.from, &agreement(got, self.address, more, body));
        to.receive()
    }

    /// A call from here to `to` whose offer and answer are these: what `to` got, and what came back.
    pub(crate) fn call(&self, to: &Self, call: &str, offer: &str, answer: &str) -> (Got, Got) {
        let asked = self.ask(to, "INVITE", 1, call, offer);
        let got = to.agree(&asked, self, "", answer);
        (asked, got)
    }

    /// Hangs up a call that was made from here.
    pub(crate) fn hang_up(&self, to: &Self, call: &str) {
        let asked = self.ask(to, "BYE", 99, call, "");
        to.agree(&asked, self, "", "");
    }
}

impl Got {
    /// The value of a header line.
    pub(crate) fn header(&self, name: &str) -> &str {
        let line = self.text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("{name} in {}", self.text))
    }

    /// The endpoint of the audio line.
    pub(crate) fn media(&self) -> SocketAddr {
        let line = |start: &str| {
            let found = self.text.lines().find_map(|line| line.strip_prefix(start));
            found.unwrap_or_else(|| panic!("{start} in {}", self.text))
        };
        let port = line("m=audio ").split(' ').next().unwrap_or_default();
        format!("{}:{port}", line("c=IN IP4 ")).parse().expect("an endpoint")
    }
}

/// A request. All but the first INVITE of a call, and what stands outside of calls, has the To-tag.
pub(crate) fn request(method: &str, n: u32, call: &str, from: SocketAddr, body: &str) -> String {
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\n" };
    let begins = n == 1 || ["REGISTER", "OPTIONS", "MESSAGE"].contains(&method);
    let tag = if begins { "" } else { ";tag=far" };
    format!(
        "{method} sip:b@provider.example SIP/2.0\nVia: SIP/2.0/UDP {from};branch=z9hG4bK-{call}-{method}{n};rport\n\
         Max-Forwards: 70\nFrom: <sip:a@provider.example>;tag=near\nTo: <sip:b@provider.example>{tag}\n\
         Call-ID: {call}\nCSeq: {n} {method}\nContact: <sip:a@{from}>\n{kind}Content-Length: {}\n\n{body}",
        length(body)
    )
}

/// A 200 to `asked`. To a REGISTER it has the request's Contact, as registrars answer; the topmost Via says where the
/// request came from (RFC 3581 section 4).
fn agreement(asked: &Got, from: SocketAddr, more: &str, body: &str) -> String {
    let is_registration = asked.text.starts_with("REGISTER");
    let seen = format!(";received={};rport={}\n", asked.from.ip(), asked.from.port());
    let text = asked.text.replacen(";rport\n", &seen, 1);
    let copied: String = text
        .lines()
        .filter(|line| {
            let repeated = ["Via:", "Record-Route:", "From:", "To:", "Call-ID:", "CSeq:"]
                .iter()
                .any(|it| line.starts_with(it));
            repeated || is_registration && line.starts_with("Contact:")
        })
        .map(|line| {
            let tag = if line.starts_with("To:") && !line.contains(";tag=") { ";tag=far" } else { "" };
            format!("{line}{tag}\n")
        })
        .collect();
    let contact = if is_registration { String::new() } else { format!("Contact: <sip:b@{from}>\n") };
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\n" };
    format!("SIP/2.0 200 OK\n{copied}{contact}{more}{kind}Content-Length: {}\n\n{body}", length(body))
}

fn length(body: &str) -> usize {
    body.replace('\n', "\r\n").len()
}

/// A description with one audio line, which may have more lines about it.
pub(crate) fn sdp(address: Ipv4Addr, port: u16, more: &str) -> String {
    format!("v=0\no=- 1 1 IN IP4 {address}\ns=-\nc=IN IP4 {address}\nt=0 0\nm=audio {port} RTP/AVP 0\n{more}")
}
