//! From what a message says to what it must say on the other side of the NAT.
//!
//! Pure: takes a parsed message and a translation, makes edits. It chooses no port and opens nothing (see
//! [`binding`](super::binding)); it asks for what has been chosen. Only the places of the table in [`Rule`] are ever
//! touched, and each replaces the least: the host, and the port only if it changes.
//!
//! | module | what |
//! |---|---|
//! | [`headers`] | Request-URI, Via, Contact, the route set, Refer-To |
//! | [`recall`] | how a URI was written that comes back |
//! | [`sdp`] | `o=`, `c=`, `m=`, `a=rtcp`, candidates |
//! | [`comedia`] | media over TCP: whose door, and MSRP's `a=path` |
//! | [`left`](mod@left) | what was not touched, and why; for people |
//!
//! Before changing anything here read RFC 3261 sections 8.1.1, 16.7, 18.2 and 20, and RFC 3264.

mod comedia;
pub mod headers;
pub mod left;
pub mod recall;
pub mod sdp;

use std::cmp::Reverse;

use crate::edit::EditSet;
use crate::sip::body::PartLength;
use crate::span::Span;

/// The edits of one message.
pub type Edits = EditSet<Rule>;

/// Which rule made an edit. From, To, Call-ID, CSeq and everything else that is not here are never touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// The Request-URI that comes in: the Contact that the phone gave.
    RequestUri,
    /// sent-by of the topmost Via.
    Via,
    /// `received`, `rport`, `maddr` of the topmost Via that comes back.
    ViaParameter,
    /// Contact.
    Contact,
    /// Route, Record-Route, Path, Service-Route.
    RouteSet,
    /// Refer-To, Referred-By.
    Refer,
    /// Content-Length, by the difference.
    ContentLength,
    /// Address of `o=`.
    SdpOrigin,
    /// Address of `c=`.
    SdpConnection,
    /// Port of `m=`.
    SdpMediaPort,
    /// Port and address of `a=rtcp`.
    SdpRtcp,
    /// Address and port of a host candidate.
    SdpCandidate,
    /// Address and port of a remote candidate that is ours.
    SdpRemoteCandidate,
    /// Host and port of a URI in `a=path`.
    SdpPath,
}

impl Rule {
    /// The stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::RequestUri => "request-uri",
            Self::Via => "via",
            Self::ViaParameter => "via-parameter",
            Self::Contact => "contact",
            Self::RouteSet => "route-set",
            Self::Refer => "refer",
            Self::ContentLength => "content-length",
            Self::SdpOrigin => "sdp-origin",
            Self::SdpConnection => "sdp-connection",
            Self::SdpMediaPort => "sdp-media-port",
            Self::SdpRtcp => "sdp-rtcp",
            Self::SdpCandidate => "sdp-candidate",
            Self::SdpRemoteCandidate => "sdp-remote-candidate",
            Self::SdpPath => "sdp-path",
        }
    }
}

/// A decimal number without an allocation.
pub(crate) struct Decimal {
    digits: [u8; 20],
    start: usize,
}

impl Decimal {
    pub(crate) fn new(mut number: u64) -> Self {
        let mut decimal = Self { digits: [b'0'; 20], start: 20 };
        for (index, digit) in decimal.digits.iter_mut().enumerate().rev() {
            *digit = b'0' + (number % 10) as u8;
            decimal.start = index;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        decimal
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.digits.get(self.start..).unwrap_or_default()
    }
}

/// Two rules claimed the same bytes: an internal error; the message passes untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("two rules claim byte {0}")]
pub struct Conflict(pub u32);

impl From<crate::edit::Overlap> for Conflict {
    fn from(overlap: crate::edit::Overlap) -> Self {
        Self(overlap.at)
    }
}

/// Adjusts Content-Length, in all the headers that say it, by what the other edits change in the body. Absent stays
/// absent, and a value that was wrong before stays wrong by as much: it is never computed from the datagram.
pub fn content_length(
    fields: impl Iterator<Item = (Span, u64)>,
    body: Span,
    edits: &mut Edits,
) -> Result<(), Conflict> {
    let growth = edits.growth(body);
    if growth == 0 {
        return Ok(());
    }
    for (span, number) in fields {
        let number = number.saturating_add_signed(growth);
        edits.replace(span, Decimal::new(number).bytes(), Rule::ContentLength)?;
    }
    Ok(())
}

/// Adjusts the lengths that MIME parts say, in any order and each once or more. A length that loses a digit makes all
/// those outside of it smaller too, so it goes from inside to outside: an inner part begins behind the outer one.
pub fn part_lengths(lengths: &mut Vec<PartLength>, edits: &mut Edits) -> Result<(), Conflict> {
    lengths.sort_unstable_by_key(|length| Reverse(length.digits.start));
    lengths.dedup();
    for PartLength { digits, number, body } in lengths {
        let growth = edits.growth(*body);
        if growth != 0 {
            let number = Decimal::new(number.saturating_add_signed(growth));
            edits.replace(*digits, number.bytes(), Rule::ContentLength)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_written_as_the_formatter_writes_them() {
        for number in [0, 9, 10, 65535, 1_000_000, u64::MAX] {
            assert_eq!(Decimal::new(number).bytes(), number.to_string().as_bytes());
        }
    }

    #[test]
    fn content_length_changes_by_the_difference_even_when_it_lies() {
        let text = b"l: 7\r\n\r\nc=10.0.0.1";
        let mut edits = Edits::new();
        edits.replace(Span::new(10, 18), b"203.0.113.1", Rule::SdpConnection).unwrap();
        content_length([(Span::new(3, 4), 7)].into_iter(), Span::new(8, 18), &mut edits).unwrap();
        let mut out = Vec::new();
        edits.apply(text, &mut out);
        assert_eq!(out, b"l: 10\r\n\r\nc=203.0.113.1");
    }
}
