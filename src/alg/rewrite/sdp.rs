//! Addresses in session descriptions.
//!
//! First a description is read for what it asks ([`local_streams`], [`remote_streams`]); when everything that it
//! needs is open, it is edited ([`outbound`], [`inbound`]). Every `c=` is mapped on its own, for the media that it
//! holds for (RFC 8866 section 5.7). `0.0.0.0`, `::`, names, foreign addresses, and the port 0 of a stream that is off
//! are left alone; so is what runs over TCP and has no door ([`comedia`]), with a `c=` that holds for nothing else: a
//! public address beside a port that nobody opened would lead to the router itself.
//!
//! With ICE (RFC 8839) the default destination in `c=`, `m=` and `a=rtcp` has to be one of the candidates, or the far
//! end says `a=ice-mismatch` and does without. So a host candidate is mapped when its endpoint is bound, which those
//! of the default destination are. All other candidates stay: server-reflexive and relayed ones are public as they
//! are, their `raddr` and `rport` are for diagnosis only, and a private one fails its checks as it would without us.

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

use arrayvec::ArrayVec;

use super::comedia::{self, Caller};
use super::{Conflict, Decimal, Edits, Rule};
use crate::alg::command::Transport;
use crate::alg::flow::PublicSide;
use crate::alg::guard::is_unicast;
use crate::sdp::{Address, Description, Media, Setup};
use crate::span::Span;

/// Most ports of one `m=` line (`port/count` counts RTP ports; each has its RTCP).
pub const MAX_PORTS: u16 = 16;

/// The discard port: the address is not known yet, or does not matter (RFC 8840 section 4.1.1, RFC 4145 section 4.1).
pub(super) const DISCARD: u16 = 9;

/// What one `m=` line of the phone asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalStream {
    /// What carries it.
    #[serde(default)]
    pub transport: Transport,
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
    /// Whether RTCP may come to the RTP port (RFC 5761); it does if the far end says so too.
    #[serde(default)]
    pub mux: bool,
    /// The public endpoints of RTP and RTCP, where the phone knows them by itself and the NAT has given them to it.
    #[serde(default)]
    pub known_as: [Option<SocketAddr>; 2],
}

/// Where the far end wants the media of one `m=` line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemoteStream {
    /// RTP, or the only port; `None`: on hold, off, a name, or nothing that is looked at. Of a connection that the far end
    /// may open, where it is.
    pub rtp: Option<SocketAddr>,
    /// RTCP; `None`: there is none, or nowhere but with RTP.
    pub rtcp: Option<SocketAddr>,
    /// Whether RTCP may go to the RTP port (RFC 5761); it does if the phone says so too.
    pub mux: bool,
    /// Number of RTP ports.
    pub count: u16,
    /// It waits for the phone to open the connection (TCP).
    pub waits: bool,
    /// What carries it.
    pub transport: Transport,
}

/// The streams of a description for which public endpoints are needed. `is_inside` tells the addresses that the
/// message may speak for. `own_of` answers with the inside endpoint of a public one that the phone has already: who
/// learned it (by STUN, say) and writes it is understood. `tcp`: also those over TCP that the phone waits for.
pub fn local_streams<'a>(
    bytes: &'a [u8],
    description: &'a Description,
    tcp: bool,
    is_inside: impl Fn(IpAddr) -> bool + 'a,
    own_of: impl Fn(SocketAddr) -> Option<SocketAddr> + 'a,
) -> impl Iterator<Item = LocalStream> + 'a {
    description.media.iter().enumerate().filter_map(move |(index, media)| {
        let awaited = || comedia::awaited(bytes, description, index, media);
        if let Some(it) = tcp.then(awaited).flatten().filter(|it| is_inside(it.ip())) {
            let media = u16::try_from(index).ok()?;
            let (transport, known_as) = (Transport::Tcp, [None; 2]);
            let (ip, port, mux) = (it.ip(), it.port(), false);
            return Some(LocalStream { transport, media, ip, port, count: 1, rtcp: None, mux, known_as });
        }
        if !has_endpoint(bytes, media) {
            return None;
        }
        let count = media.count.max(1);
        let endpoint = SocketAddr::new(address_of(description, media)?, media.number);
        let inside = |endpoint: SocketAddr| {
            if is_inside(endpoint.ip()) { Some(endpoint) } else { own_of(endpoint).filter(|_| count == 1) }
        };
        let rtp = inside(endpoint)?;
        // RTCP at a third host is that host's business (S8).
        let rtcp = rtcp_of(bytes, media, endpoint).filter(|_| !media.rtcp_mux_only).and_then(inside);
        let rtcp = rtcp.filter(|rtcp| *rtcp != rtp);
        let (index, mux) = (u16::try_from(index).ok()?, media.rtcp_mux);
        let (transport, known_as) = (Transport::Udp, [None; 2]);
        let (ip, port) = (rtp.ip(), rtp.port());
        Some(LocalStream { transport, media: index, ip, port, count, rtcp, mux, known_as })
    })
}

/// The endpoints that the far end's description names, one entry for each `m=` line. `tcp`: those over TCP too, with what
/// it means if a line does not say who opens the connection.
pub fn remote_streams(
    bytes: &[u8],
    description: &Description,
    tcp: Option<Setup>,
    into: &mut Vec<RemoteStream>,
) {
    into.clear();
    into.extend(description.media.iter().map(|media| {
        let transport = Transport::Tcp;
        match tcp.map(|unsaid| comedia::caller(bytes, description, media, unsaid)) {
            None | Some(Caller::Unsaid) => {}
            Some(Caller::Waits) => return RemoteStream { transport, waits: true, ..RemoteStream::default() },
            Some(Caller::May(from)) => {
                return RemoteStream { transport, rtp: Some(from), count: 1, ..RemoteStream::default() };
            }
        }
        let ip = address_of(description, media).filter(|ip| is_unicast(*ip));
        let Some(ip) = ip.filter(|_| has_endpoint(bytes, media)) else {
            return RemoteStream::default();
        };
        let rtp = SocketAddr::new(ip, media.number);
        let rtcp = rtcp_of(bytes, media, rtp)
            .filter(|rtcp| !media.rtcp_mux_only && is_unicast(rtcp.ip()) && *rtcp != rtp);
        let (rtp, count, mux) = (Some(rtp), media.count, media.rtcp_mux);
        RemoteStream { rtp, rtcp, mux, count, ..RemoteStream::default() }
    }));
}

/// Maps a description that leaves. `public_of` answers with the public endpoint of an inside one. `tcp`: media over TCP
/// too.
///
/// # Errors
/// [`Conflict`] if two places overlap, which a sound parser rules out.
pub fn outbound(
    bytes: &[u8],
    description: &Description,
    public: &PublicSide,
    tcp: bool,
    is_inside: impl Fn(IpAddr) -> bool,
    public_of: impl Fn(Transport, SocketAddr) -> Option<SocketAddr>,
    edits: &mut Edits,
) -> Result<(), Conflict> {
    let address = public.address().as_bytes();
    let inside = |it: &Address| it.ip.is_some_and(&is_inside);
    // What somebody else has open is not this message's: its port would change and its address stay.
    let public_of =
        |transport, endpoint: SocketAddr| public_of(transport, endpoint).filter(|_| is_inside(endpoint.ip()));
    // Over TCP: where the phone waits, and where that is reached.
    let door_of = |index, media| {
        let from = tcp.then(|| comedia::awaited(bytes, description, index, media)).flatten()?;
        Some((from, public_of(Transport::Tcp, from)?))
    };
    let mut ways: ArrayVec<Way, { Description::MAX_MEDIA }> = ArrayVec::new();
    for (index, media) in description.media.iter().enumerate().take(Description::MAX_MEDIA) {
        ways.push(if is_udp(bytes, media) {
            Way::Udp
        } else if door_of(index, media).is_some() {
            Way::Door
        } else if tcp && comedia::dials(bytes, description, index, media) {
            Way::Dials
        } else {
            Way::Other
        });
    }
    if let Some(origin) = description.origin.as_ref().filter(|it| inside(it)) {
        edits.replace(origin.span, address, Rule::SdpOrigin)?;
    }
    let all = ways.iter().all(|way| *way != Way::Other);
    for connection in description.connections.iter().filter(|it| inside(it)) {
        if all || is_mapped(description, connection, &ways) {
            edits.replace(connection.span, address, Rule::SdpConnection)?;
        }
    }
    for (index, (media, way)) in description.media.iter().zip(&ways).enumerate() {
        let ip = address_of(description, media);
        let to_public = |port| public_of(Transport::Udp, SocketAddr::new(ip?, port)).map(|it| it.port());
        if *way == Way::Door
            && let Some((from, to)) = door_of(index, media)
        {
            replace_port(media.port, media.number, Some(to.port()), Rule::SdpMediaPort, edits)?;
            // What is written for an address may be another than the one that the NAT gives here.
            let to = SocketAddr::new(public.shown.ip(), to.port());
            comedia::move_paths(description, index, from, to, edits)?;
        }
        if media.number != 0 && *way == Way::Udp {
            replace_port(media.port, media.number, to_public(media.number), Rule::SdpMediaPort, edits)?;
        }
        let Some(rtcp) = &media.rtcp else { continue };
        let rtcp_ip = rtcp.address.map_or(ip, |it| it.ip);
        let mapped = rtcp_ip.and_then(|ip| public_of(Transport::Udp, SocketAddr::new(ip, rtcp.number)));
        replace_port(rtcp.port, rtcp.number, mapped.map(|it| it.port()), Rule::SdpRtcp, edits)?;
        if let Some(written) = rtcp.address.as_ref().filter(|it| inside(it)) {
            edits.replace(written.span, address, Rule::SdpRtcp)?;
        }
    }
    for candidate in description.candidates.iter().filter(|it| it.host && it.udp && inside(&it.address)) {
        let Some(ip) = candidate.address.ip else { continue };
        // A host candidate for which nothing was opened stays: its checks fail, as they would without us.
        let Some(mapped) = public_of(Transport::Udp, SocketAddr::new(ip, candidate.number)) else { continue };
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
    inside_of: impl Fn(Transport, SocketAddr) -> Option<SocketAddr>,
    own_of: impl Fn(SocketAddr) -> Option<SocketAddr>,
    edits: &mut Edits,
) -> Result<(), Conflict> {
    let target = |media: &Media| {
        let transport = if is_udp(bytes, media) { Transport::Udp } else { Transport::Tcp };
        let ip = address_of(description, media)?;
        inside_of(transport, SocketAddr::new(ip, media.number))
    };
    // Of media over TCP, what has a door of ours.
    let counts = |media: &Media| {
        media.number != 0
            && (is_udp(bytes, media) || comedia::is_tcp(bytes, media) && target(media).is_some())
    };
    // A c= line is restored if all the media that are on under it lie behind the same inside address.
    let mut restored: ArrayVec<Span, 32> = ArrayVec::new();
    for (index, connection) in description.connections.iter().enumerate() {
        let mut targets = description
            .media
            .iter()
            .filter(|media| description.connection_range(media).contains(&index))
            .filter(|media| counts(media))
            .map(|media| target(media).map(|it| it.ip()));
        let Some(Some(ip)) = targets.next() else { continue };
        if targets.all(|other| other == Some(ip)) && restored.try_push(connection.span).is_ok() {
            replace_address(connection.span, ip, Rule::SdpConnection, edits)?;
        }
    }
    for (at, media) in description.media.iter().enumerate() {
        let under = description.connections_of(media);
        if !counts(media) || !under.iter().all(|it| restored.contains(&it.span)) || under.is_empty() {
            continue;
        }
        let inside = target(media);
        replace_port(media.port, media.number, inside.map(|it| it.port()), Rule::SdpMediaPort, edits)?;
        if let (false, Some(ip), Some(inside)) =
            (is_udp(bytes, media), address_of(description, media), inside)
        {
            let written = SocketAddr::new(ip, media.number);
            comedia::move_paths(description, at, written, inside, edits)?;
        }
        let Some(rtcp) = &media.rtcp else { continue };
        let ip = rtcp.address.map_or(address_of(description, media), |it| it.ip);
        let endpoint = ip.map(|ip| SocketAddr::new(ip, rtcp.number));
        let Some(inside) = endpoint.and_then(|it| inside_of(Transport::Udp, it)) else { continue };
        replace_port(rtcp.port, rtcp.number, Some(inside.port()), Rule::SdpRtcp, edits)?;
        if let Some(written) = rtcp.address {
            replace_address(written.span, inside.ip(), Rule::SdpRtcp, edits)?;
        }
    }
    for candidate in description.candidates.iter().filter(|it| it.host && it.udp) {
        let Some(ip) = candidate.address.ip else { continue };
        let endpoint = SocketAddr::new(ip, candidate.number);
        let Some(inside) = inside_of(Transport::Udp, endpoint) else { continue };
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

pub(super) fn replace_port(
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

pub(super) fn replace_address(span: Span, ip: IpAddr, rule: Rule, edits: &mut Edits) -> Result<(), Conflict> {
    let text = PublicSide::new(crate::alg::endpoint::Outside(SocketAddr::new(ip, 0)));
    Ok(edits.replace(span, text.address().as_bytes(), rule)?)
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

/// What becomes of a line that leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Udp,
    /// TCP: the phone waits, and can be reached.
    Door,
    /// TCP: the phone connects.
    Dials,
    /// It is left as it came.
    Other,
}

/// Whether a `c=` line holds for anything that is mapped, or for nothing yet.
fn is_mapped(description: &Description, connection: &Address, ways: &[Way]) -> bool {
    let mut under = description
        .media
        .iter()
        .zip(ways)
        .filter(|(media, _)| description.connections_of(media).contains(connection))
        .peekable();
    under.peek().is_none() || under.any(|(_, way)| *way != Way::Other)
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
