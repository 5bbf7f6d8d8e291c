//! How media from outside gets through the router's firewall: three ways, and which of them this kernel has.
//!
//! The guard (chain `guard`) and the maps are the same in all of them: a public endpoint of ours is closed to everybody but
//! the negotiated addresses, and what passes is translated to the phone. What remains is the administrator's own filter,
//! which as a rule lets in only what is `established` or `related`.
//!
//! - **Pinned**: when both ends of a stream are known its conntrack entry is made as if it were already running
//!   ([`super::pin`]). Media is `established` from its first packet on. From a negotiated address but another port, it is
//!   latched: its first packet is queued, and an entry made for it. Media before the far end has said where it comes from
//!   does not pass.
//! - **Expectation**: the same, and with each offer conntrack is told to expect media at its endpoints
//!   ([`super::expectation`]), from the server that the offer went to or, with `media.source = "any"`, from anybody. The
//!   first packet is `related`; chain `expected` lets it pass the guard. When the far end is known, the expectation and
//!   what came by it make room for the pinned flow; with the call it goes. conntrack wants a helper for that
//!   ([`super::cthelper`]), attached to the signalling flow by its first packet, behind the NAT
//!   (chain `attach`; the kernel confirms a packet with a helper when it comes back from a queue, and what is confirmed gets no
//!   NAT any more): a flow that is older than
//!   the rule is pinned only, and so is SIP over TCP.
//! - **Rule**: no entry is ever made by us. The administrator's filter accepts what the maps have translated
//!   (`ct status dnat`), after the guard. For who wants conntrack to hold nothing but what packets have made. A pin only
//!   removes what is in the way of the maps.
//!
//! `auto` is Expectation where the kernel can do it, and Pinned otherwise. That is tried, not told from a version.

use std::io;

use super::cthelper;
use super::probe::Finding;
use super::socket::NetlinkSocket;
use crate::alg::Admission;

const NAME: &str = "admission";

/// What the administrator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The best that the kernel can do.
    Auto,
    /// This and no other.
    Exactly(Admission),
}

/// The way that is in force, and a line that says why. A [`Level::Problem`](super::probe::Level) if it is not what was
/// wanted exactly. Changes nothing, but the kernel may load a module.
pub fn choose(wanted: Wanted) -> (Admission, Finding) {
    let is_possible = NetlinkSocket::netfilter().and_then(|mut socket| cthelper::probe(&mut socket));
    let because = |error: &io::Error| match error.raw_os_error() {
        Some(libc::EPERM) => {
            "this process may not register conntrack helpers (it is not in the first user namespace)"
                .to_owned()
        }
        _ => format!(
            "this kernel has no conntrack helpers in user space (CONFIG_NF_CT_NETLINK_HELPER): {error}"
        ),
    };
    match (wanted, is_possible) {
        (Wanted::Auto, Ok(())) => (
            Admission::Expectation,
            Finding::ok(
                NAME,
                "expectation: media before an answer is expected, after it pinned; the kernel has helpers in user space",
            ),
        ),
        (Wanted::Auto, Err(error)) => {
            (Admission::Pinned, Finding::ok(NAME, format!("pinned: {}", because(&error))))
        }
        (Wanted::Exactly(Admission::Expectation), Ok(())) => {
            (Admission::Expectation, Finding::ok(NAME, "expectation: media.admission says so"))
        }
        (Wanted::Exactly(Admission::Expectation), Err(error)) => (
            Admission::Pinned,
            Finding::problem(
                NAME,
                format!("media.admission = \"expectation\" is not possible: {}", because(&error)),
                "use \"auto\", or another kernel",
            ),
        ),
        (Wanted::Exactly(Admission::Pinned), _) => {
            (Admission::Pinned, Finding::ok(NAME, "pinned: media.admission says so"))
        }
        (Wanted::Exactly(Admission::Rule), _) => (
            Admission::Rule,
            Finding::note(
                NAME,
                "rule: media.admission says so",
                "your filter has to accept packets from outside with `ct status dnat`",
            ),
        ),
    }
}
