//! What was left: inside addresses that stand in a message after its rewriting, each with the reason.
//!
//! For people who want to know (`sipalg explain`), never on the way of a packet. The one idea: addresses are looked for
//! in the text, without regard to any grammar, so that nothing is passed over; only then [`places`] asks the parsers
//! what the place is. It decides nothing: what is edited was decided before.

mod places;

use std::net::IpAddr;

use crate::alg::flow::Direction;
use crate::ip_text;
use crate::sip::Message;
use crate::span::Span;

/// An inside address that no edit covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// The address as written, without `[]`.
    pub span: Span,
    /// Where it stands.
    pub place: Place,
    /// Why it was left.
    pub why: Why,
}

/// A place in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The Request-URI, or the rest of the first line.
    StartLine,
    /// The header of this name, as written.
    Header(Span),
    /// The line of a session description that begins so: `o=`, `a=candidate`.
    Sdp(Span),
    /// Anything else behind the headers.
    Body,
    /// What is no SIP message.
    Datagram,
}

impl Place {
    /// The place in words, cut to what fits a line.
    pub fn text(self, bytes: &[u8]) -> String {
        let name = |span: Span| {
            String::from_utf8_lossy(span.of(bytes).get(..40).unwrap_or(span.of(bytes))).into_owned()
        };
        match self {
            Self::StartLine => "start line".to_owned(),
            Self::Header(span) => name(span),
            Self::Sdp(span) => format!("SDP {}", name(span)),
            Self::Body => "body".to_owned(),
            Self::Datagram => "datagram".to_owned(),
        }
    }
}

macro_rules! whys {
    ($( $variant:ident = $name:literal: $sentence:literal, )*) => {
        /// Why an address was left. The documentation of each is its sentence.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Why { $( #[doc = $sentence] $variant, )* }

        impl Why {
            /// All reasons.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The reason in words.
            pub fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)* }
            }
        }
    };
}

whys! {
    MessageUntouched = "message-untouched": "the whole message passed untouched",
    NeverTouched = "never-touched": "this header is never touched",
    HeaderNotTouched = "header-not-touched": "not a header that carries addresses for the NAT",
    HostName = "host-name": "part of a host name",
    OtherHost = "other-host": "the address of another inside host, for which this message does not speak",
    OtherScheme = "other-scheme": "not a sip: or sips: URI, or none that can be read",
    NotTheHost = "not-the-host": "not the host of its URI: a user part, a parameter or a header in it",
    NotAnAddress = "not-an-address": "not a place that carries addresses",
    LowerVia = "lower-via": "not the topmost Via: another's, which travels on as it is",
    OtherWay = "other-way": "addresses are not mapped here in messages that go this way",
    Indistinct = "indistinct": "beside another one in this message that would look the same from outside",
    ProtectedBody = "protected-body": "the body is signed, encrypted, compressed or covered by an Identity header",
    OtherBody = "other-body": "not a session description",
    BehindBody = "behind-body": "behind the end of the message that Content-Length names",
    TcpCandidate = "tcp-candidate": "a TCP candidate",
    NotHostCandidate = "not-host-candidate": "not a host candidate, so its address is not the phone's own",
    RelatedAddress = "related-address": "the related address of a candidate, which nobody connects to",
    NothingOpened = "nothing-opened": "nothing was opened for this endpoint",
}

/// All inside addresses in `bytes` that no span of `edited` (in order) covers. `own` is the flow's inside address,
/// `is_inside` tells the others. `touched`: whether the message was one whose addresses are translated at all.
pub fn left(
    bytes: &[u8],
    direction: Direction,
    own: IpAddr,
    is_inside: impl Fn(IpAddr) -> bool,
    touched: bool,
    edited: &[Span],
) -> Vec<Left> {
    let mut message = Message::default();
    let readable = message.parse(bytes).is_ok();
    let places = places::Places::new(bytes, &message, direction, own);
    addresses(bytes)
        .filter(|(_, ip)| *ip == own || is_inside(*ip))
        .filter(|(span, _)| !edited.iter().any(|edit| edit.start <= span.start && span.end <= edit.end))
        .map(|(span, ip)| {
            let (place, why) =
                if readable { places.of(span, ip) } else { (Place::Datagram, Why::MessageUntouched) };
            Left { span, place, why: if touched { why } else { Why::MessageUntouched } }
        })
        .collect()
}

/// Everything in `bytes` that can be read as an address, in order. Digits and dots that go on in either direction
/// (`1192.0.2.1`, `192.0.2.1.5`) are no address, dots at the ends are punctuation.
fn addresses(bytes: &[u8]) -> impl Iterator<Item = (Span, IpAddr)> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let rest = bytes.get(at..)?;
            let start = at + rest.iter().position(|&byte| is_address(byte))?;
            let run = bytes.get(start..)?;
            let length = run.iter().position(|&byte| !is_address(byte)).unwrap_or(run.len());
            at = start + length;
            let found = run_of_v6(bytes, start, at).or_else(|| v4_in(bytes, start, at));
            if let Some((span, ip)) = found {
                at = span.end as usize;
                return Some((span, ip));
            }
        }
    })
}

fn is_address(byte: u8) -> bool {
    byte.is_ascii_hexdigit() || matches!(byte, b'.' | b':')
}

/// The whole run as IPv6: an address that goes on is none. Only the colon of a scheme, and a full stop, are cut off.
fn run_of_v6(bytes: &[u8], start: usize, end: usize) -> Option<(Span, IpAddr)> {
    let text = bytes.get(start..end)?;
    let start = start + usize::from(text.starts_with(b":") && !text.starts_with(b"::"));
    let end = end - usize::from(text.ends_with(b"."));
    let ip = ip_text::v6(bytes.get(start..end)?)?;
    Some((Span::new(start, end), IpAddr::V6(ip)))
}

/// The first dotted quad between `start` and `end`.
fn v4_in(bytes: &[u8], start: usize, end: usize) -> Option<(Span, IpAddr)> {
    let is_quad = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
    let mut at = start;
    while at < end {
        let rest = bytes.get(at..end)?;
        let from = at + rest.iter().position(is_quad)?;
        let run = bytes.get(from..end)?;
        let to = from + run.iter().position(|byte| !is_quad(byte)).unwrap_or(run.len());
        let text = bytes.get(from..to)?;
        let first = text.iter().position(|byte| *byte != b'.').unwrap_or(text.len());
        let last = text.iter().rposition(|byte| *byte != b'.').map_or(first, |last| last + 1);
        if let Some(ip) = text.get(first..last).and_then(ip_text::v4) {
            return Some((Span::new(from + first, from + last), IpAddr::V4(ip)));
        }
        at = to;
    }
    None
}

#[cfg(test)]
mod tests;
