//! Session descriptions: made, written and read. The reader is one of its own: of each `m=` line it says where media goes.

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use proptest::sample::select;

/// The phone's address.
pub(crate) const PHONE_IP: &str = "192.168.1.10";
/// Where the far end's media may be.
const FAR_IPS: [&str; 3] = ["22.33.44.22", "22.33.44.23", "99.88.77.66"];
const NOWHERE: &str = "0.0.0.0";

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Phone,
    Far,
}

impl Side {
    pub(crate) fn other(self) -> Self {
        if self == Self::Phone { Self::Far } else { Self::Phone }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Audio,
    Video,
    /// Fax, which has no RTCP.
    Image,
}

/// Where one side wants the media of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Where {
    /// Port 0: removed, or refused.
    Off,
    /// `c=` says 0.0.0.0: on hold as RFC 2543 had it.
    Held,
    /// The port of this number.
    Port(u8),
}

/// Where one side wants RTCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rtcp {
    /// It says nothing: the next port.
    Unsaid,
    /// `a=rtcp` with the next port.
    Next,
    /// `a=rtcp` with another port.
    Elsewhere,
    /// `a=rtcp` with another port and an address.
    Address,
}

/// What one side says of one line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) place: Where,
    /// Which of the far end's hosts.
    pub(crate) host: u8,
    pub(crate) direction: &'static str,
    pub(crate) rtcp: Rtcp,
    pub(crate) mux: bool,
    /// `m=video 40000/2`.
    pub(crate) pairs: bool,
}

/// One `m=` line, of both sides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    pub(crate) kind: Kind,
    pub(crate) ends: [End; 2],
}

pub(crate) fn line() -> impl Strategy<Value = Line> {
    let kind = select(vec![Kind::Audio, Kind::Audio, Kind::Audio, Kind::Video, Kind::Image]);
    (kind, [end(), end()]).prop_map(|(kind, ends)| Line { kind, ends })
}

fn end() -> impl Strategy<Value = End> {
    let place = prop_oneof![
        2 => Just(Where::Off),
        1 => Just(Where::Held),
        8 => Just(Where::Port(0)),
        4 => (1..3u8).prop_map(Where::Port),
    ];
    let direction = select(vec!["", "", "", "sendrecv", "sendonly", "recvonly", "inactive"]);
    let rtcp = prop_oneof![
        6 => Just(Rtcp::Unsaid),
        1 => Just(Rtcp::Next),
        1 => Just(Rtcp::Elsewhere),
        1 => Just(Rtcp::Address),
    ];
    let host = prop_oneof![3 => Just(0u8), 1 => 1..3u8];
    (place, host, direction, rtcp, prop::bool::weighted(0.3), prop::bool::weighted(0.1)).prop_map(
        |(place, host, direction, rtcp, mux, pairs)| End { place, host, direction, rtcp, mux, pairs },
    )
}

impl End {
    fn ip(&self, side: Side) -> &'static str {
        match (self.place, side) {
            (Where::Held, _) => NOWHERE,
            (_, Side::Phone) => PHONE_IP,
            (_, Side::Far) => FAR_IPS[usize::from(self.host)],
        }
    }

    fn has_pairs(&self, kind: Kind) -> bool {
        self.pairs && kind == Kind::Video
    }

    fn port(&self, side: Side, kind: Kind, index: u16) -> u16 {
        let first = if side == Side::Phone { 40_000 } else { 30_000 } + 100 * index;
        match self.place {
            Where::Off => 0,
            Where::Held => first,
            // Ports that a stream has are never moved: one that becomes two gets the second pair anywhere.
            Where::Port(_) if self.has_pairs(kind) => first + 80,
            Where::Port(number) => first + 10 * u16::from(number),
        }
    }
}

/// A description as `side` writes it. `session`: whether there is a `c=` that holds for all lines that have none.
pub(crate) fn write(side: Side, lines: &[Line], session: bool, version: u32) -> String {
    let own = if side == Side::Phone { PHONE_IP } else { FAR_IPS[0] };
    let ends = || lines.iter().map(|line| &line.ends[side as usize]);
    let common = session.then(|| ends().next().map_or(own, |end| end.ip(side)));
    let mut text = format!("v=0\no=- 7 {version} IN IP4 {own}\ns=-\n");
    if let Some(ip) = common {
        text += &format!("c=IN IP4 {ip}\n");
    }
    text += "t=0 0\n";
    for ((index, line), end) in (0..).zip(lines).zip(ends()) {
        let (port, ip) = (end.port(side, line.kind, index), end.ip(side));
        let count = if end.has_pairs(line.kind) && port != 0 { "/2" } else { "" };
        text += &match line.kind {
            Kind::Audio => format!("m=audio {port}{count} RTP/AVP 0 8\n"),
            Kind::Video => format!("m=video {port}{count} RTP/AVP 31\n"),
            Kind::Image => format!("m=image {port} udptl t38\n"),
        };
        if common != Some(ip) {
            text += &format!("c=IN IP4 {ip}\n");
        }
        if !end.direction.is_empty() {
            text += &format!("a={}\n", end.direction);
        }
        if line.kind == Kind::Image || !count.is_empty() || port == 0 {
            continue;
        }
        let elsewhere = port + if side == Side::Phone { 13_005 } else { 3005 };
        text += &match end.rtcp {
            Rtcp::Unsaid => String::new(),
            Rtcp::Next => format!("a=rtcp:{}\n", port + 1),
            Rtcp::Elsewhere => format!("a=rtcp:{elsewhere}\n"),
            // Of a stream on hold as of old nothing is read (RFC 3264 section 8.4: no RTCP goes there either).
            Rtcp::Address if end.place == Where::Held => String::new(),
            Rtcp::Address => {
                let ip = if side == Side::Phone { PHONE_IP } else { FAR_IPS[2] };
                format!("a=rtcp:{elsewhere} IN IP4 {ip}\n")
            }
        };
        if end.mux {
            text += "a=rtcp-mux\n";
        }
    }
    text
}

/// Where media of one line goes, as whoever gets the description understands it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Read {
    /// Of each pair of ports: RTP, and RTCP if there is any. Nothing: no media comes here.
    pub(crate) pairs: Vec<(SocketAddr, Option<SocketAddr>)>,
    /// RTCP may come with RTP.
    pub(crate) mux: bool,
}

/// Reads the description in a message.
pub(crate) fn read(message: &str) -> Vec<Read> {
    let (_, body) = message.split_once("\r\n\r\n").expect("the headers end");
    let mut parts = body.split("m=");
    let address =
        |line: &str| line.split("IN IP4 ").nth(1).map(|it| it.parse::<IpAddr>().expect("an address"));
    let connection = |part: &str| part.lines().find(|it| it.starts_with("c=")).and_then(address);
    let session = connection(parts.next().unwrap_or_default());
    parts
        .map(|part| {
            let words: Vec<_> = part.lines().next().unwrap_or_default().split(' ').collect();
            let (port, count) = words[1].split_once('/').unwrap_or((words[1], "1"));
            let (port, count): (u16, u16) = (port.parse().unwrap(), count.parse().unwrap());
            let ip = connection(part).or(session).expect("each line has a c=");
            if port == 0 || ip.is_unspecified() {
                return Read::default();
            }
            let said = part.lines().find_map(|it| it.strip_prefix("a=rtcp:")).map(|it| {
                let port = it.split(' ').next().unwrap_or_default().parse().unwrap();
                SocketAddr::new(address(it).unwrap_or(ip), port)
            });
            let pair = |n: u16| {
                let rtp = SocketAddr::new(ip, port + 2 * n);
                let next = SocketAddr::new(ip, rtp.port() + 1);
                let rtcp = words[2].contains("RTP/").then(|| said.filter(|_| n == 0).unwrap_or(next));
                (rtp, rtcp)
            };
            Read { pairs: (0..count).map(pair).collect(), mux: part.lines().any(|it| it == "a=rtcp-mux") }
        })
        .collect()
}
