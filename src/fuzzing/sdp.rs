//! The SDP reader: positions in order and in bounds, and what a naive line reader finds.

use super::{all, assert_ordered};
use crate::sdp::{Description, Malformed, Media};
use crate::span::Span;

/// Reads `data` as a description, and as a piece of one.
///
/// # Panics
/// If positions overlap or leave their bounds, if memory that was used before changes an answer, or if the media and
/// addresses are not those of a line reader.
pub fn sdp(data: &[u8]) {
    let within = all(data);
    let mut used = Description::default();
    let text = b"v=0\r\no=- 1 2 IN IP4 h\r\nc=IN IP4 h\r\nm=audio 1 x y\r\na=rtcp:7\r\na=candidate:1 1 UDP 1 h 1 typ host\r\n";
    assert_eq!(used.parse(text, all(text)), Ok(()));
    let mut fresh = Description::default();
    let outcome = fresh.parse(data, within);
    assert_eq!(used.parse(data, within), outcome);
    assert_eq!(used, fresh);
    let begins = data.iter().position(|byte| !b"\r\n".contains(byte)).and_then(|at| data.get(at..));
    let begins = begins.is_some_and(|text| text.starts_with(b"v="));
    match outcome {
        Ok(()) => {
            assert!(begins);
            read(data, &fresh);
        }
        Err(error) => {
            assert_eq!(fresh, Description::default());
            assert_eq!(error == Malformed::NotSdp, !begins);
        }
    }
    if fresh.parse_fragment(data, within).is_ok() {
        read(data, &fresh);
    }
    // A description knows nothing of what stands around it.
    let framed = [b"m=before 1 x y\r\n", data, b"\r\nm=behind 2 x y"].concat();
    let inner = Span::new(16, 16 + data.len());
    let mut shifted = Description::default();
    assert_eq!(shifted.parse(&framed, inner), outcome);
    assert_eq!(shifted.media.len(), used.media.len());
    for (ours, theirs) in shifted.media.iter().zip(&used.media) {
        assert_eq!(ours.port, theirs.port.shifted(16));
        assert_eq!(
            (ours.number, ours.count, ours.direction),
            (theirs.number, theirs.count, theirs.direction)
        );
    }
}

fn read(bytes: &[u8], it: &Description) {
    positions(bytes, it);
    // The n-th m= line is the n-th medium, and what follows belongs to it.
    let mut media = it.media.iter();
    let mut current: Option<&Media> = None;
    let mut connections = it.connections.iter();
    for line in bytes.split(|byte| b"\r\n".contains(byte)) {
        let fields = |text: &[u8]| -> Vec<Vec<u8>> {
            let fields = text.split(|byte| b" \t".contains(byte)).filter(|field| !field.is_empty());
            fields.map(<[u8]>::to_vec).collect()
        };
        match line {
            [b'm', b'=', rest @ ..] => {
                let medium = media.next().expect("a medium for each m= line");
                let fields = fields(rest);
                let field = |at: usize| fields.get(at).cloned().unwrap_or_default();
                assert_eq!((medium.kind.of(bytes), medium.proto.of(bytes)), (&field(0)[..], &field(2)[..]));
                let ports = String::from_utf8_lossy(&field(1)).into_owned();
                let (port, count) = ports.split_once('/').unwrap_or((&ports, ""));
                assert_eq!(medium.number, naive_number(port).unwrap_or(0), "{ports}");
                assert_eq!(medium.count, naive_number(count).unwrap_or(1), "{ports}");
                current = Some(medium);
            }
            [b'c', b'=', rest @ ..] => {
                let fields = fields(rest);
                let Some(address) = fields.get(2) else { continue };
                let found = connections.next().expect("an address for each c= line");
                let address = address.split(|byte| *byte == b'/').next().unwrap_or_default();
                assert_eq!(found.span.of(bytes), address);
                let ip = std::str::from_utf8(address).ok().and_then(|text| text.parse().ok());
                let family = fields.get(1).map(|family| family.to_ascii_uppercase()).unwrap_or_default();
                let fits = |ip: &std::net::IpAddr| match ip {
                    std::net::IpAddr::V4(_) => family == b"IP4",
                    std::net::IpAddr::V6(_) => family == b"IP6",
                };
                assert_eq!(found.ip, ip.filter(fits), "{}", String::from_utf8_lossy(rest));
                if let Some(medium) = current {
                    assert!(it.connections_of(medium).contains(found));
                }
            }
            [b'a', b'=', rest @ ..] if rest.starts_with(b"rtcp:") => {
                let fields = fields(rest.get(5..).unwrap_or_default());
                let port = fields.first().and_then(|port| naive_number(&String::from_utf8_lossy(port)));
                if let (Some(medium), Some(port)) = (current, port) {
                    assert!(
                        medium
                            .rtcp
                            .is_some_and(|rtcp| rtcp.number == port || medium.port.end < rtcp.port.start)
                    );
                }
            }
            _ => {}
        }
    }
    assert_eq!((media.next(), connections.next()), (None, None));
}

/// Digits that are a u16.
fn naive_number(text: &str) -> Option<u16> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

fn positions(bytes: &[u8], it: &Description) {
    let within = all(bytes);
    let ordered = |spans: Vec<Span>| assert_ordered(&spans, within);
    ordered(it.connections.iter().flat_map(|a| [a.family, a.span]).collect());
    ordered(it.origin.iter().flat_map(|a| [a.family, a.span]).collect());
    ordered(it.version.into_iter().collect());
    let mut lines = Vec::new();
    let mut connections = it.session_connections;
    assert!(usize::from(connections) <= it.connections.len());
    for media in &it.media {
        lines.extend([media.kind, media.port, media.proto]);
        assert_eq!(media.connections.0, connections, "no connection is skipped or shared");
        connections = media.connections.1;
        let own = usize::from(media.connections.1 - media.connections.0);
        let held = it.connections_of(media).len();
        assert_eq!(held, if own == 0 { usize::from(it.session_connections) } else { own });
        if let Some(rtcp) = media.rtcp {
            lines.push(rtcp.port);
            lines.extend(rtcp.address.iter().flat_map(|a| [a.family, a.span]));
        }
    }
    assert_eq!(usize::from(connections), it.connections.len());
    ordered(lines);
    ordered(it.candidates.iter().flat_map(|c| [c.address.family, c.address.span, c.port]).collect());
    ordered(it.remote_candidates.iter().flat_map(|c| [c.address.family, c.address.span, c.port]).collect());
    ordered(it.paths.iter().flat_map(|p| [p.host.family, p.host.span, p.port]).collect());
    let count = it.media.len();
    let owners = it.candidates.iter().map(|c| c.media).chain(it.remote_candidates.iter().map(|c| c.media));
    assert!(owners.chain(it.paths.iter().map(|p| p.media)).all(|media| media < count));
    assert!(it.media.len() <= Description::MAX_MEDIA && it.connections.len() <= Description::MAX_CONNECTIONS);
}
