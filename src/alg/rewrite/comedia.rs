//! Media over TCP in descriptions (RFC 4145): MSRP, BFCP, T.38 over TCP, and whatever else runs over it.
//!
//! One of the two parties opens the connection. Who waits for it says so: `a=setup:passive`, or `actpass` where the answer
//! decides. Only such words ask for a door; what RFC 4145 assumes where nothing is said does not, for a door to a port of
//! TCP is a door to a service (S9). A phone that opens the connection itself needs nothing but its address in `c=`, by
//! which the other side may know it: its port is the discard port, and stays.
//!
//! What is left as it came: a line with several addresses or ports, or with ICE candidates, whose own checks open the way
//! (RFC 6544); and an MSRP line whose path begins somewhere else than at its `m=` line, with a relay most often (RFC 4976).
//! With a door, MSRP's path follows `c=` and `m=`, for it is the path that far ends connect to, unless both know RFC 6714.

use std::net::{IpAddr, SocketAddr};

use super::sdp::DISCARD;
use super::{Conflict, Edits, Rule};
use crate::alg::guard::is_unicast;
use crate::sdp::{Description, Media, Path, Setup};

/// What the far end says of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// It may open it, and this is where it is. Its port means nothing as a rule.
    May(SocketAddr),
    /// It waits for the phone's.
    Waits,
    /// Nothing that could be acted upon.
    Unsaid,
}

/// Everything over TCP that SDP knows: `TCP/MSRP`, `TCP/TLS/BFCP`, `TCP/RTP/AVP`, `tcp`, `tcptl`.
pub(super) fn is_tcp(bytes: &[u8], media: &Media) -> bool {
    media.proto.of(bytes).get(..3).is_some_and(|it| it.eq_ignore_ascii_case(b"TCP"))
}

/// Where the phone waits for a connection, if this line asks for a door.
pub(super) fn awaited(
    bytes: &[u8],
    description: &Description,
    index: usize,
    media: &Media,
) -> Option<SocketAddr> {
    let waits = matches!(media.setup, Some(Setup::Passive | Setup::ActPass));
    if !waits || media.count != 1 || matches!(media.number, 0 | DISCARD) || !is_tcp(bytes, media) {
        return None;
    }
    let endpoint = SocketAddr::new(sole_address(description, media)?, media.number);
    let is_ice = description.candidates.iter().any(|it| it.media == index);
    let mut firsts = paths(description, index).filter(|path| path.first).peekable();
    let leads_there =
        !is_msrp(bytes, media) || firsts.peek().is_some() && firsts.all(|path| stands_at(path, endpoint));
    (!is_ice && leads_there).then_some(endpoint)
}

/// Whether the phone opens the connection of this line.
pub(super) fn dials(bytes: &[u8], description: &Description, index: usize, media: &Media) -> bool {
    media.setup == Some(Setup::Active)
        && is_tcp(bytes, media)
        && description.candidates.iter().all(|it| it.media != index)
}

/// What the far end's line says. `unsaid` is what it means by saying nothing: `active` in an offer, `passive` in an answer
/// (RFC 4145 section 4).
pub(super) fn caller(bytes: &[u8], description: &Description, media: &Media, unsaid: Setup) -> Caller {
    if !is_tcp(bytes, media) || media.number == 0 {
        return Caller::Unsaid;
    }
    match media.setup.unwrap_or(unsaid) {
        Setup::Passive => Caller::Waits,
        Setup::HoldConn => Caller::Unsaid,
        Setup::Active | Setup::ActPass => match sole_address(description, media) {
            Some(ip) if is_unicast(ip) => Caller::May(SocketAddr::new(ip, media.number)),
            Some(_) | None => Caller::Unsaid,
        },
    }
}

/// Has the path follow when a line moves from one endpoint to another: each URI that names the first names the second.
pub(super) fn move_paths(
    description: &Description,
    index: usize,
    from: SocketAddr,
    to: SocketAddr,
    edits: &mut Edits,
) -> Result<(), Conflict> {
    for path in paths(description, index).filter(|path| stands_at(path, from)) {
        super::sdp::replace_address(path.host.span, to.ip(), Rule::SdpPath, edits)?;
        super::sdp::replace_port(path.port, path.number, Some(to.port()), Rule::SdpPath, edits)?;
    }
    Ok(())
}

/// The one address of a line. With several of them nobody knows whose connection it will be.
fn sole_address(description: &Description, media: &Media) -> Option<IpAddr> {
    match description.connections_of(media) {
        [only] => only.ip,
        _ => None,
    }
}

fn paths(description: &Description, index: usize) -> impl Iterator<Item = &Path> {
    description.paths.iter().filter(move |path| path.media == index)
}

fn stands_at(path: &Path, endpoint: SocketAddr) -> bool {
    path.host.ip == Some(endpoint.ip()) && path.number == endpoint.port()
}

fn is_msrp(bytes: &[u8], media: &Media) -> bool {
    media.proto.of(bytes).windows(4).any(|part| part.eq_ignore_ascii_case(b"MSRP"))
}
