//! SDP as spans over its bytes (RFC 8866, and what RFC 4566 and RFC 2327 speakers still send).
//!
//! The one idea: every place that carries an address or a port is located, together with the `m=` line that it
//! belongs to, and nothing else is looked at. Lines in odd order, unknown lines, doubled blanks and every line end
//! are borne. Nothing is checked against the offer/answer rules, changed, or known about SIP and packets.
//!
//! [`Description`] is the entry; [`Address`] says what an address text stands for; the attributes with their RFCs are
//! [`Rtcp`], [`Candidate`], [`RemoteCandidate`] and [`Path`].

mod address;
mod attribute;
mod text;

pub use address::Address;
pub use attribute::{Candidate, Path, RemoteCandidate, Rtcp};

use crate::span::Span;
use std::ops::Range;
use text::{Fields, Lines, number};

/// sendrecv, sendonly, recvonly, inactive (RFC 8866 section 6.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // each is the attribute of its name
pub enum Direction {
    #[default]
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

/// Who opens the connection of a stream over TCP (RFC 4145 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// Whoever says so.
    Active,
    /// The other one.
    Passive,
    /// Either; the answer decides.
    ActPass,
    /// Nobody for now.
    HoldConn,
}

/// One `m=` line and what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Media {
    /// `audio`, `video`, …
    pub kind: Span,
    /// Port digits; empty if the line has no port.
    pub port: Span,
    /// Their number; 0 also when it is no u16.
    pub number: u16,
    /// `/count`, 1 if absent.
    pub count: u16,
    /// `RTP/AVP`, `udptl`, `TCP/MSRP`, …
    pub proto: Span,
    /// First and one past last in [`Description::connections`] of this media's own `c=` lines; empty: the session's
    /// hold.
    pub connections: (u16, u16),
    /// `a=rtcp`, the first one.
    pub rtcp: Option<Rtcp>,
    /// `a=rtcp-mux` or `a=rtcp-mux-only` (RFC 5761, RFC 8858).
    pub rtcp_mux: bool,
    /// `a=rtcp-mux-only`: there is no RTCP port to fall back to (RFC 8858).
    pub rtcp_mux_only: bool,
    /// Own direction attribute, or the session's, or sendrecv.
    pub direction: Direction,
    /// Own `a=setup`, or the session's. DTLS has the same attribute (RFC 5763).
    pub setup: Option<Setup>,
}

/// A session description. Made once, filled again and again without allocating.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// The address of `o=`.
    pub origin: Option<Address>,
    /// sess-version digits of `o=`.
    pub version: Option<Span>,
    /// All `c=` addresses in order; session level ones first.
    pub connections: Vec<Address>,
    /// How many of `connections` are at session level.
    pub session_connections: u16,
    /// The media in order.
    pub media: Vec<Media>,
    /// All candidates of whatever type, in order.
    pub candidates: Vec<Candidate>,
    /// All remote candidates, in order.
    pub remote_candidates: Vec<RemoteCandidate>,
    /// All MSRP path URIs, in order.
    pub paths: Vec<Path>,
    /// Whether there is `a=ice-ufrag`, without which nobody speaks ICE (RFC 8839 section 5.4).
    pub ice: bool,
}

/// Why it is not SDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The first line does not begin with `v=`.
    #[error("the body does not begin with v=")]
    NotSdp,
    /// More of something than the limits allow.
    #[error("too many lines of one kind")]
    TooMany,
}

impl Description {
    /// Most `m=` lines.
    pub const MAX_MEDIA: usize = 64;
    /// Most `c=` lines.
    pub const MAX_CONNECTIONS: usize = 256;
    /// Most candidates, and most remote candidates.
    pub const MAX_CANDIDATES: usize = 512;
    /// Most MSRP path URIs.
    pub const MAX_PATHS: usize = 256;

    /// Reads the description that is `within` (offsets stay those of `bytes`). CRLF, LF and CR line ends, no final
    /// line end needed; unknown lines and odd order are skipped.
    ///
    /// # Errors
    /// Says why it is none, or cannot be handled; the description is then empty.
    pub fn parse(&mut self, bytes: &[u8], within: Span) -> Result<(), Malformed> {
        self.clear();
        let text = within.of(bytes);
        let first = text.iter().position(|byte| !matches!(byte, b'\r' | b'\n'));
        if !first.and_then(|at| text.get(at..)).is_some_and(|line| line.starts_with(b"v=")) {
            return Err(Malformed::NotSdp);
        }
        self.read_or_clear(bytes, within)
    }

    /// Reads a piece of a description, which need not begin with `v=`: the body of RFC 8840's trickle ICE.
    ///
    /// # Errors
    /// [`Malformed::TooMany`]; the description is then empty.
    pub fn parse_fragment(&mut self, bytes: &[u8], within: Span) -> Result<(), Malformed> {
        self.clear();
        self.read_or_clear(bytes, within)
    }

    /// The `c=` addresses that hold for `media`: its own, or the session's.
    pub fn connections_of(&self, media: &Media) -> &[Address] {
        self.connections.get(self.connection_range(media)).unwrap_or_default()
    }

    /// Where in [`Description::connections`] those that hold for `media` are.
    pub fn connection_range(&self, media: &Media) -> Range<usize> {
        let (first, end) = media.connections;
        let range = if first < end { first..end } else { 0..self.session_connections };
        usize::from(range.start)..usize::from(range.end)
    }

    fn clear(&mut self) {
        self.origin = None;
        self.version = None;
        self.session_connections = 0;
        self.connections.clear();
        self.media.clear();
        self.candidates.clear();
        self.remote_candidates.clear();
        self.paths.clear();
        self.ice = false;
    }

    fn read_or_clear(&mut self, bytes: &[u8], within: Span) -> Result<(), Malformed> {
        let outcome = self.read(bytes, within);
        if outcome.is_err() {
            self.clear();
        }
        outcome
    }

    fn read(&mut self, bytes: &[u8], within: Span) -> Result<(), Malformed> {
        let mut session = Inherited::default();
        for (start, line) in Lines::new(bytes, within) {
            let value = Span::new(start + 2, start + line.len());
            match line {
                [b'a', b'=', text @ ..] => self.read_attribute(bytes, value, text, &mut session)?,
                [b'm', b'=', ..] => self.read_media(bytes, value, session)?,
                [b'c', b'=', ..] => self.read_connection(bytes, value)?,
                [b'o', b'=', ..] if self.origin.is_none() && self.media.is_empty() => {
                    self.read_origin(bytes, value)
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// `o=username sess-id sess-version nettype addrtype address`, counted from the end: there are user names with
    /// blanks in them, and lines without any.
    fn read_origin(&mut self, bytes: &[u8], value: Span) {
        let mut last = Fields::new(bytes, value).rev();
        let (Some(address), Some(family), Some(_network), Some(version)) =
            (last.next(), last.next(), last.next(), last.next())
        else {
            return;
        };
        self.origin = Some(Address::named(bytes, family, address));
        self.version = Some(version).filter(|version| version.of(bytes).iter().all(u8::is_ascii_digit));
    }

    /// `c=nettype addrtype address[/ttl[/count]]`; a line without an address is passed over.
    fn read_connection(&mut self, bytes: &[u8], value: Span) -> Result<(), Malformed> {
        let Some(address) = Address::from_fields(bytes, &mut Fields::new(bytes, value)) else {
            return Ok(());
        };
        push(&mut self.connections, Self::MAX_CONNECTIONS, address)?;
        let count = self.connections.len() as u16; // MAX_CONNECTIONS at most
        match self.media.last_mut() {
            Some(media) => media.connections.1 = count,
            None => self.session_connections = count,
        }
        Ok(())
    }

    /// `m=media port[/count] proto fmt …`; whatever it lacks, what follows belongs to it.
    fn read_media(&mut self, bytes: &[u8], value: Span, session: Inherited) -> Result<(), Malformed> {
        let mut fields = Fields::new(bytes, value);
        let nothing = Span::new(value.end as usize, value.end as usize);
        let kind = fields.next().unwrap_or(nothing);
        let ports = fields.next().unwrap_or(nothing);
        let proto = fields.next().unwrap_or(nothing);
        let slash = ports.of(bytes).iter().position(|&b| b == b'/').map(|i| ports.start as usize + i);
        let port = Span::new(ports.start as usize, slash.unwrap_or(ports.end as usize));
        let count = slash.and_then(|at| number(Span::new(at + 1, ports.end as usize).of(bytes)));
        let connections = self.connections.len() as u16; // MAX_CONNECTIONS at most
        let media = Media {
            kind,
            port,
            number: number(port.of(bytes)).unwrap_or(0),
            count: count.unwrap_or(1),
            proto,
            connections: (connections, connections),
            rtcp: None,
            rtcp_mux: false,
            rtcp_mux_only: false,
            direction: session.direction,
            setup: session.setup,
        };
        push(&mut self.media, Self::MAX_MEDIA, media)
    }

    /// An attribute of the last media, or of the session as long as there is none; `session` is what media inherit.
    /// `text` is what `value` names.
    fn read_attribute(
        &mut self,
        bytes: &[u8],
        value: Span,
        text: &[u8],
        session: &mut Inherited,
    ) -> Result<(), Malformed> {
        // Most lines are `rtpmap`, `fmtp` and the like: two or three bytes tell that they are none of ours.
        let direction = match text {
            [b'i', b'c', b'e', b'-', b'u', ..] if text.starts_with(b"ice-ufrag:") => {
                self.ice = true;
                return Ok(());
            }
            [b's', b'e', b't', b'u', b'p', b':', role @ ..] => {
                let setup = setup(role);
                *self.media.last_mut().map_or(&mut session.setup, |media| &mut media.setup) = setup;
                return Ok(());
            }
            [b's', b'e', ..] | [b'i', b'n', ..] | [b'r', b'e', b'c', ..] => direction(text),
            [b'r', b't', b'c', ..] | [b'r', b'e', b'm', ..] | [b'c', b'a', ..] | [b'p', b'a', ..] => {
                return self.read_media_attribute(bytes, value);
            }
            _ => None,
        };
        if let Some(direction) = direction {
            *self.media.last_mut().map_or(&mut session.direction, |media| &mut media.direction) = direction;
        }
        Ok(())
    }

    /// The attributes with addresses and ports, which exist at media level only.
    fn read_media_attribute(&mut self, bytes: &[u8], value: Span) -> Result<(), Malformed> {
        let text = value.of(bytes);
        let after = |name: &str| {
            let start = value.start as usize + name.len();
            text.starts_with(name.as_bytes()).then(|| Span::new(start, value.end as usize))
        };
        let index = self.media.len().wrapping_sub(1);
        let Some(media) = self.media.last_mut() else { return Ok(()) };
        if let Some(value) = after("rtcp:") {
            if media.rtcp.is_none() {
                media.rtcp = attribute::rtcp(bytes, value);
            }
        } else if let Some(value) = after("candidate:") {
            if let Some(candidate) = attribute::candidate(bytes, value, index) {
                push(&mut self.candidates, Self::MAX_CANDIDATES, candidate)?;
            }
        } else if let Some(value) = after("remote-candidates:") {
            for candidate in attribute::remote_candidates(bytes, value, index) {
                push(&mut self.remote_candidates, Self::MAX_CANDIDATES, candidate)?;
            }
        } else if let Some(value) = after("path:") {
            for path in attribute::paths(bytes, value, index) {
                push(&mut self.paths, Self::MAX_PATHS, path)?;
            }
        } else if let name @ (b"rtcp-mux" | b"rtcp-mux-only") = text.trim_ascii_end() {
            media.rtcp_mux = true;
            media.rtcp_mux_only |= name == b"rtcp-mux-only";
        }
        Ok(())
    }
}

/// What the session says for media that do not say it themselves.
#[derive(Clone, Copy, Debug, Default)]
struct Inherited {
    direction: Direction,
    setup: Option<Setup>,
}

fn setup(role: &[u8]) -> Option<Setup> {
    match role.trim_ascii_end() {
        b"active" => Some(Setup::Active),
        b"passive" => Some(Setup::Passive),
        b"actpass" => Some(Setup::ActPass),
        b"holdconn" => Some(Setup::HoldConn),
        _ => None,
    }
}

fn direction(attribute: &[u8]) -> Option<Direction> {
    match attribute.trim_ascii_end() {
        b"sendrecv" => Some(Direction::SendRecv),
        b"sendonly" => Some(Direction::SendOnly),
        b"recvonly" => Some(Direction::RecvOnly),
        b"inactive" => Some(Direction::Inactive),
        _ => None,
    }
}

/// Adds `item` unless the list is full.
fn push<T>(list: &mut Vec<T>, most: usize, item: T) -> Result<(), Malformed> {
    if list.len() >= most {
        return Err(Malformed::TooMany);
    }
    list.push(item);
    Ok(())
}

#[cfg(test)]
mod tests;
