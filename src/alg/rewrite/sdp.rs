//! Addresses in session descriptions.
//!
//! First a description is read for what it asks ([`local_streams`], [`remote_streams`]); when everything that it
//! needs is open, it is edited ([`outbound`], [`inbound`]). Every `c=` is mapped on its own, for the media that it
//! holds for (RFC 8866 section 5.7). `0.0.0.0`, `::`, names, foreign addresses, and the port 0 of a stream that is off
//! are left alone; so is all that does not run over UDP, with a `c=` that holds for nothing else: a public address
//! beside a port that nobody opened would lead to the router itself.
//!
//! With ICE (RFC 8839) the default destination in `c=`, `m=` and `a=rtcp` has to be one of the candidates, or the far
//! end says `a=ice-mismatch` and does without. So a host candidate is mapped when its endpoint is bound, which those
//! of the default destination are. All other candidates stay: server-reflexive and relayed ones are public as they
//! are, their `raddr` and `rport` are for diagnosis only, and a private one fails its checks as it would without us.

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

use arrayvec::ArrayVec;

use super::{Conflict, Decimal, Edits, Rule};
use crate::alg::flow::PublicSide;
use crate::alg::guard::is_unicast;
use crate::sdp::{Address, Description, Media};
use crate::span::Span;

/// Most ports of one `m=` line (`port/count` counts RTP ports; each has its RTCP).
pub const MAX_PORTS: u16 = 16;

/// The discard port: the address is not known yet, or does not matter (RFC 8840 section 4.1.1, RFC 4145 section 4.1).
const DISCARD: u16 = 9;

/// What one `m=` line of the phone asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalStream {
    /// Index of the `m=` line.
    pub media: u16,
    /// The phone's address for it.
    pub ip: IpAddr,
    /// The (first) RTP port, or the only port.
    pub port: u16,
    /// Number of RTP ports.
    pub count: u16,
    /// The RTCP port, if there is RTCP. With several RTP ports each has its RTCP on the next port.
    pub rtcp: Option<SocketAddr>,
    /// The public endpoints of RTP and RTCP, where the phone knows them by itself and the NAT has given them to it.
    #[serde(default)]
    pub known_as: [Option<SocketAddr>; 2],
}

/// Where the far end wants the media of one `m=` line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemoteStream {
    /// RTP, or the only port; `None`: on hold, off, a name, or not UDP.
    pub rtp: Option<SocketAddr>,
    /// RTCP, unless it is multiplexed (RFC 5761) or there is none.
    pub rtcp: Option<SocketAddr>,
    /// Number of RTP ports.
    pub count: u16,
}

/// The streams of a description for which public endpoints are needed. `is_inside` tells the addresses that the
/// message may speak for. `own_of` answers with the inside endpoint of a public one that the phone has already: who
/// learned it (by STUN, say) and writes it is understood.
pub fn local_streams<'a>(
    bytes: &'a [u8],
    description: &'a Description,
    is_inside: impl Fn(IpAddr) -> bool + 'a,
    own_of: impl Fn(SocketAddr) -> Option<SocketAddr> + 'a,
) -> impl Iterator<Item = LocalStream> + 'a {
    description.media.iter().enumerate().filter_map(move |(index, media)| {
        if !has_endpoint(bytes, media) {
            return None;
        }
        let count = media.count.max(1);
        let written = SocketAddr::new(address_of(description, media)?, media.number);
        let inside = |endpoint: SocketAddr| {
            if is_inside(endpoint.ip()) { Some(endpoint) } else { own_of(endpoint).filter(|_| count == 1) }
        };
        let rtp = inside(written)?;
        // RTCP at a third host is that host's business (S8).
        let rtcp = rtcp_of(bytes, media, written).filter(|_| !media.rtcp_mux_only).and_then(inside);
        let rtcp = rtcp.filter(|rtcp| *rtcp != rtp);
        let media = u16::try_from(index).ok()?;
        Some(LocalStream { media, ip: rtp.ip(), port: rtp.port(), count, rtcp, known_as: [None; 2] })
    })
}

/// The endpoints that the far end's description names, one entry for each `m=` line.
pub fn remote_streams(bytes: &[u8], description: &Description, into: &mut Vec<RemoteStream>) {
    into.clear();
    into.extend(description.media.iter().map(|media| {
        let ip = address_of(description, media).filter(|ip| is_unicast(*ip));
        let Some(ip) = ip.filter(|_| has_endpoint(bytes, media)) else {
            return RemoteStream::default();
        };
        let rtp = SocketAddr::new(ip, media.number);
        let rtcp = rtcp_of(bytes, media, rtp)
            .filter(|rtcp| !media.rtcp_mux && is_unicast(rtcp.ip()) && *rtcp != rtp);
        RemoteStream { rtp: Some(rtp), rtcp, count: media.count }
    }));
}

/// Maps a description that leaves. `public_of` answers with the public endpoint of an inside one.
///
/// # Errors
/// [`Conflict`] if two places overlap, which a sound parser rules out.
pub fn outbound(
    bytes: &[u8],
    description: &Description,
    public: &PublicSide,
    is_inside: impl Fn(IpAddr) -> bool,
    public_of: impl Fn(SocketAddr) -> Option<SocketAddr>,
    edits: &mut Edits,
) -> Result<(), Conflict> {
    let address = public.address.as_bytes();
    let inside = |it: &Address| it.ip.is_some_and(&is_inside);
    // What somebody else has open is not this message's: its port would change and its address stay.
    let public_of = |endpoint: SocketAddr| public_of(endpoint).filter(|_| is_inside(endpoint.ip()));
    if let Some(origin) = description.origin.as_ref().filter(|it| inside(it)) {
        edits.replace(origin.span, address, Rule::SdpOrigin)?;
    }
    let all_udp = description.media.iter().all(|media| is_udp(bytes, media));
    for connection in description.connections.iter().filter(|it| inside(it)) {
        if all_udp || is_for_udp(bytes, description, connection) {
            edits.replace(connection.span, address, Rule::SdpConnection)?;
        }
    }
    for media in &description.media {
        let ip = address_of(description, media);
        let to_public = |port| public_of(SocketAddr::new(ip?, port)).map(|it| it.port());
        if media.number != 0 && is_udp(bytes, media) {
            replace_port(media.port, media.number, to_public(media.number), Rule::SdpMediaPort, edits)?;
        }
        let Some(rtcp) = &media.rtcp else { continue };
        let rtcp_ip = rtcp.address.map_or(ip, |it| it.ip);
        let mapped = rtcp_ip.and_then(|ip| public_of(SocketAddr::new(ip, rtcp.number)));
        replace_port(rtcp.port, rtcp.number, mapped.map(|it| it.port()), Rule::SdpRtcp, edits)?;
        if let Some(written) = rtcp.address.as_ref().filter(|it| inside(it)) {
            edits.replace(written.span, address, Rule::SdpRtcp)?;
        }
    }
    for candidate in description.candidates.iter().filter(|it| it.host && it.udp && inside(&it.address)) {
        let Some(ip) = candidate.address.ip else { continue };
        // A host candidate for which nothing was opened stays: its checks fail, as they would without us.
        let Some(mapped) = public_of(SocketAddr::new(ip, candidate.number)) else { continue };
        edits.replace(candidate.address.span, address, Rule::SdpCandidate)?;
        replace_port(candidate.port, candidate.number, Some(mapped.port()), Rule::SdpCandidate, edits)?;
    }
    Ok(())
}

/// Restores a description that comes in: where it names a public endpoint of ours, the phone behind it is close by
/// and is named by its inside endpoint. `inside_of` answers only for endpoints that this phone can reach directly;
/// `own_of` answers for the phone's own public endpoints.
///
/// `o=` is the one place that stays as it went out. Nothing is sent to it: it is the name of the session (RFC 8866 section
/// 5.2), which has to be the same in every description of a dialog (RFC 3264 section 8), while `c=` is restored in one and,
/// on hold or after a move, not in the next. So what comes in is what went out but for that name.
///
/// # Errors
/// [`Conflict`] if two places overlap, which a sound parser rules out.
pub fn inbound(
    bytes: &[u8],
    description: &Description,
    inside_of: impl Fn(SocketAddr) -> Option<SocketAddr>,
    own_of: impl Fn(SocketAddr) -> Option<SocketAddr>,
    edits: &mut Edits,
) -> Result<(), Conflict> {
    let target = |media: &Media| {
        let ip = address_of(description, media)?;
        inside_of(SocketAddr::new(ip, media.number))
    };
    // A c= line is restored if all the media over UDP that are on under it lie behind the same inside address.
    let mut restored: ArrayVec<Span, 32> = ArrayVec::new();
    for (index, connection) in description.connections.iter().enumerate() {
        let mut targets = description
            .media
            .iter()
            .filter(|media| media.number != 0 && is_udp(bytes, media))
            .filter(|media| description.connection_range(media).contains(&index))
            .map(|media| target(media).map(|it| it.ip()));
        let Some(Some(ip)) = targets.next() else { continue };
        if targets.all(|other| other == Some(ip)) && restored.try_push(connection.span).is_ok() {
            replace_address(connection.span, ip, Rule::SdpConnection, edits)?;
        }
    }
    for media in &description.media {
        let under = description.connections_of(media);
        if media.number == 0
            || !is_udp(bytes, media)
            || !under.iter().all(|it| restored.contains(&it.span))
            || under.is_empty()
        {
            continue;
        }
        let port = target(media).map(|it| it.port());
        replace_port(media.port, media.number, port, Rule::SdpMediaPort, edits)?;
        let Some(rtcp) = &media.rtcp else { continue };
        let ip = rtcp.address.map_or(address_of(description, media), |it| it.ip);
        let Some(inside) = ip.and_then(|ip| inside_of(SocketAddr::new(ip, rtcp.number))) else { continue };
        replace_port(rtcp.port, rtcp.number, Some(inside.port()), Rule::SdpRtcp, edits)?;
        if let Some(written) = rtcp.address {
            replace_address(written.span, inside.ip(), Rule::SdpRtcp, edits)?;
        }
    }
    for candidate in description.candidates.iter().filter(|it| it.host && it.udp) {
        let Some(ip) = candidate.address.ip else { continue };
        let Some(inside) = inside_of(SocketAddr::new(ip, candidate.number)) else { continue };
        replace_address(candidate.address.span, inside.ip(), Rule::SdpCandidate, edits)?;
        replace_port(candidate.port, candidate.number, Some(inside.port()), Rule::SdpCandidate, edits)?;
    }
    for remote in &description.remote_candidates {
        let Some(ip) = remote.address.ip else { continue };
        let Some(inside) = own_of(SocketAddr::new(ip, remote.number)) else { continue };
        replace_address(remote.address.span, inside.ip(), Rule::SdpRemoteCandidate, edits)?;
        replace_port(remote.port, remote.number, Some(inside.port()), Rule::SdpRemoteCandidate, edits)?;
    }
    Ok(())
}

fn replace_port(
    span: Span,
    old: u16,
    new: Option<u16>,
    rule: Rule,
    edits: &mut Edits,
) -> Result<(), Conflict> {
    match new {
        Some(new) if new != old => Ok(edits.replace(span, Decimal::new(new.into()).bytes(), rule)?),
        Some(_) | None => Ok(()),
    }
}

fn replace_address(span: Span, ip: IpAddr, rule: Rule, edits: &mut Edits) -> Result<(), Conflict> {
    let text = PublicSide::new(crate::alg::endpoint::Outside(SocketAddr::new(ip, 0)));
    Ok(edits.replace(span, text.address.as_bytes(), rule)?)
}

/// The address that holds for `media`: its first `c=`.
fn address_of(description: &Description, media: &Media) -> Option<IpAddr> {
    description.connections_of(media).first().and_then(|connection| connection.ip)
}

/// Whether media goes to the address and port of the `m=` line.
fn has_endpoint(bytes: &[u8], media: &Media) -> bool {
    !matches!(media.number, 0 | DISCARD) && is_udp(bytes, media)
}

/// Where RTCP goes when RTP goes to `rtp`; `None`: nowhere, or to a name.
fn rtcp_of(bytes: &[u8], media: &Media, rtp: SocketAddr) -> Option<SocketAddr> {
    if !has_rtcp(bytes, media) {
        return None;
    }
    let Some(rtcp) = &media.rtcp else {
        return Some(SocketAddr::new(rtp.ip(), rtp.port().checked_add(1)?));
    };
    let ip = match rtcp.address {
        Some(address) => address.ip?,
        None => rtp.ip(),
    };
    Some(SocketAddr::new(ip, rtcp.number)).filter(|it| !matches!(it.port(), 0 | DISCARD))
}

/// Whether a `c=` line holds for anything over UDP, or for nothing yet.
fn is_for_udp(bytes: &[u8], description: &Description, connection: &Address) -> bool {
    let mut under = description
        .media
        .iter()
        .filter(|media| description.connections_of(media).contains(connection))
        .peekable();
    under.peek().is_none() || under.any(|media| is_udp(bytes, media))
}

/// `RTP/…`, `UDP/…`, `udptl`, `udp`: everything over UDP that SDP knows (RFC 8866 section 5.14, RFC 5764, RFC 7345).
fn is_udp(bytes: &[u8], media: &Media) -> bool {
    let proto = media.proto.of(bytes);
    let starts = |prefix: &[u8]| proto.get(..prefix.len()).is_some_and(|it| it.eq_ignore_ascii_case(prefix));
    starts(b"RTP/") || starts(b"UDP")
}

/// Everything with RTP in its name has RTCP.
fn has_rtcp(bytes: &[u8], media: &Media) -> bool {
    media.proto.of(bytes).windows(4).any(|part| part.eq_ignore_ascii_case(b"RTP/"))
}
