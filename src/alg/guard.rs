//! The security rules that a message must pass before anything is opened for it.
//!
//! Rules S1, S2 and S7 are about TCP and live there; S3 (whole, reassembled datagrams) is [`crate::packet`]'s refusal of
//! fragments and [`is_sip`] here; S4 is [`super::envelope`]; S5 is [`super::transaction`]; S10 is that only
//! messages from inside ever open anything; S11 is [`super::binding`]'s quotas; S13 is the engine's: what fails here
//! passes untouched. The rest stands here, one function each.

use std::net::{IpAddr, SocketAddr};

use super::policy::Policy;
use crate::sip::{HeaderName, Message, body};

/// What a datagram on the SIP port is, by its first bytes (S3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datagram {
    /// Perhaps SIP.
    Sip,
    /// CRLFs, NULs or nothing: RFC 5626 section 3.5.1 and older habits.
    KeepAlive,
    /// STUN (RFC 8489 section 5).
    Stun,
}

/// Tells keep-alives and STUN from what may be SIP.
pub fn is_sip(payload: &[u8]) -> Datagram {
    const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
    if payload.len() <= 8 && payload.iter().all(|byte| matches!(byte, b'\r' | b'\n' | 0 | b' ')) {
        Datagram::KeepAlive
    } else if payload.first().is_some_and(|byte| *byte < 4) && payload.get(4..8) == Some(&COOKIE) {
        Datagram::Stun
    } else {
        Datagram::Sip
    }
}

/// S4: whether Content-Length tells the truth. More than there is, or no number, is a truncated or crafted message. Less
/// is allowed, for what follows a datagram's message belongs to nobody (RFC 3261 section 18.3), but not where the
/// body goes on behind it: whoever reads that by another rule sees another message.
pub fn is_true_length(bytes: &[u8], message: &Message) -> bool {
    if message.first(HeaderName::ContentLength).is_none() {
        return true;
    }
    let told = body::content_length(bytes, message).and_then(|(_, length)| usize::try_from(length).ok());
    let Some((body, rest)) = told.and_then(|length| message.body().of(bytes).split_at_checked(length)) else {
        return false;
    };
    let is_padding = rest.iter().all(|byte| matches!(byte, b'\r' | b'\n' | b' ' | 0));
    if is_padding || message.first(HeaderName::ContentType).is_none() {
        return true;
    }
    let goes_on = rest.starts_with(b"--") || matches!(rest, [b'a'..=b'z', b'=', ..]);
    body.ends_with(b"\n") && !goes_on
}

/// S6: whether messages to and from this server are touched at all.
pub fn is_allowed_server(policy: &Policy, far: IpAddr) -> bool {
    policy.servers.is_empty() || policy.servers.iter().any(|block| block.contains(far))
}

/// S6: whether what this server says of registrations is believed.
pub fn is_registrar(policy: &Policy, far: IpAddr) -> bool {
    policy.registrars.is_empty() || policy.registrars.iter().any(|block| block.contains(far))
}

/// Whether this server does the NAT for its phones itself, so that its messages are left alone.
pub fn is_hands_off(policy: &Policy, far: IpAddr) -> bool {
    policy.hands_off.iter().any(|block| block.contains(far))
}

/// S8: whether a message from `sender` may speak for `ip`: its own address, or one that the administrator listed. Never
/// for one of the other family, for which this flow's translation says nothing.
pub fn may_speak_for(policy: &Policy, sender: IpAddr, ip: IpAddr) -> bool {
    ip == sender
        || ip.is_ipv4() == sender.is_ipv4() && policy.inside_hosts.iter().any(|block| block.contains(ip))
}

/// S9: whether an inside endpoint may get a pinhole.
pub fn may_open(policy: &Policy, endpoint: SocketAddr) -> bool {
    let port = endpoint.port();
    port >= 1024
        && !policy.denied_ports.iter().any(|range| range.contains(&port))
        && is_unicast(endpoint.ip())
}

/// Whether media between `inside` and `far` is surely as untranslated as their signalling, which goes to `server`. The
/// administrator's NAT may treat another far end differently, and an entry of ours would keep it from doing so: not if
/// it is the same machine, nor if `inside` needs no NAT, nor if `far` is no more public than `inside`.
pub fn is_routed_too(inside: IpAddr, server: IpAddr, far: IpAddr) -> bool {
    far == server || !is_private(inside) || is_private(far)
}

/// S8: whether media of a flow to `server`, which leaves by `public`, may be led to `far`. Whoever calls names what he likes;
/// a private address is the router's own, or that of another network behind it, unless the way to the server is private too
/// (a provider in a VPN, a router behind another). Its conntrack entry would take the phone's media past the firewall.
pub fn may_lead_to(public: IpAddr, server: IpAddr, far: IpAddr) -> bool {
    !is_private(far) || is_private(public) || is_private(server)
}

/// RFC 1918, RFC 6598 (shared), RFC 4193 (unique local) and link-local addresses.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let is_shared = ip.octets().first() == Some(&100) && ip.to_bits() >> 22 == 100 << 2 | 1;
            ip.is_private() || ip.is_link_local() || is_shared
        }
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// Never to multicast, broadcast, loopback or nowhere.
pub fn is_unicast(ip: IpAddr) -> bool {
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !(ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() || is_broadcast)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keep_alives_and_stun_are_told_from_sip() {
        for text in [&b""[..], b"\r\n", b"\r\n\r\n", b"\0\0\0\0", b" "] {
            assert_eq!(is_sip(text), Datagram::KeepAlive, "{text:?}");
        }
        assert_eq!(is_sip(b"\0\x01\0\0\x21\x12\xa4\x42abcdefghijkl"), Datagram::Stun);
        assert_eq!(is_sip(b"\r\n\r\nOPTIONS sip:a SIP/2.0"), Datagram::Sip);
    }

    #[test]
    fn a_length_is_true_if_the_body_ends_there() {
        let is_true = |headers: &str, body: &str| {
            let text = format!("BYE sip:h SIP/2.0\r\n{headers}\r\n\r\n{body}");
            let mut message = Message::default();
            message.parse(text.as_bytes()).unwrap();
            is_true_length(text.as_bytes(), &message)
        };
        let sdp = "v=0\r\ns=-\r\n";
        for (length, tail) in
            [("10", ""), ("010", ""), ("10", "\0\0"), ("8", ""), ("10", "garbage"), ("10", "\r\nx")]
        {
            let headers = format!("c: application/sdp\r\nl: {length}");
            assert!(is_true(&headers, &format!("{sdp}{tail}")), "{length} {tail:?}");
        }
        for (length, tail) in [
            ("11", ""),
            ("9", "x"),
            ("5", ""),
            ("0", ""),
            ("-1", ""),
            ("x", ""),
            ("", ""),
            ("10\r\nl: 9", ""),
            ("99999999999999999999", ""),
        ] {
            let headers = format!("c: application/sdp\r\nl: {length}");
            assert!(!is_true(&headers, &format!("{sdp}{tail}")), "{length} {tail:?}");
        }
        assert!(is_true("c: application/sdp", sdp) && is_true("l: 0", "garbage") && !is_true("l: 1", ""));
    }

    #[test]
    fn services_multicast_and_low_ports_stay_closed() {
        let policy = Policy::default();
        let may = |it: &str| may_open(&policy, it.parse().unwrap());
        assert!(may("192.168.1.10:40000") && may("192.168.1.10:1024"));
        for it in [
            "192.168.1.10:1023",
            "192.168.1.10:3306",
            "192.168.1.10:5060",
            "239.1.1.1:40000",
            "0.0.0.0:40000",
        ] {
            assert!(!may(it), "{it}");
        }
    }

    #[test]
    fn media_is_routed_where_no_nat_could_want_it() {
        let routed = |all: [&str; 3]| {
            let [inside, server, far] = all.map(|it| it.parse().unwrap());
            is_routed_too(inside, server, far)
        };
        for all in [
            ["192.168.1.10", "203.0.113.1", "203.0.113.1"],
            ["192.168.1.10", "10.9.0.1", "10.9.0.2"],
            ["192.168.1.10", "10.9.0.1", "100.127.255.255"],
            ["198.51.100.1", "203.0.113.1", "203.0.113.2"],
            ["2001:db8::1", "2001:db8:1::1", "2001:db8:2::1"],
            ["fd00::1", "fd01::1", "fd02::1"],
        ] {
            assert!(routed(all), "{all:?}");
        }
        for all in [
            ["192.168.1.10", "10.9.0.1", "203.0.113.1"],
            ["100.64.0.1", "10.9.0.1", "100.128.0.1"],
            ["fd00::1", "fd01::1", "2001:db8::1"],
        ] {
            assert!(!routed(all), "{all:?}");
        }
    }

    #[test]
    fn a_message_speaks_for_its_sender_and_for_listed_hosts_only() {
        let mut policy = Policy::default();
        let [a, b]: [IpAddr; 2] = ["192.168.1.10", "192.168.1.11"].map(|it| it.parse().unwrap());
        assert!(may_speak_for(&policy, a, a) && !may_speak_for(&policy, a, b));
        policy.inside_hosts.push(crate::alg::Prefix { address: b, bits: 32 });
        assert!(may_speak_for(&policy, a, b));
        assert!(is_allowed_server(&policy, b));
        policy.servers.push(crate::alg::Prefix { address: b, bits: 24 });
        assert!(is_allowed_server(&policy, a) && !is_allowed_server(&policy, "10.0.0.1".parse().unwrap()));
    }
}
