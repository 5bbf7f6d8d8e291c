//! Verdicts, each with its reason.
//!
//! Every packet gets exactly one verdict with exactly one [`Reason`], and each reason has one counter
//! ([`super::stats::Stats`]). Names of reasons are stable: they stand in `status --json`, logs and metrics.

use super::io::PacketId;
use super::rewrite::Edits;

/// What becomes of a packet.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict<'e> {
    /// Which packet.
    pub packet: PacketId,
    /// What to do with it.
    pub action: Action<'e>,
    /// UDP: the destination port that the packet gets, whether its payload changes or not; `None`: it keeps its own.
    pub port: Option<u16>,
    /// Why.
    pub reason: Reason,
}

/// What to do with a packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Action<'e> {
    /// Let it go as it came; only the identity (IPv4 identification, IPv6 flow label) is set where one is given.
    Accept {
        /// The new identity.
        identity: Option<u32>,
    },
    /// Let it go with its UDP payload edited.
    Rewrite {
        /// Replacements; offsets are those of the UDP payload.
        edits: &'e Edits,
        /// The new identity.
        identity: Option<u32>,
        /// IPv4 identification for a packet that loses its DF bit; never 0.
        spare_identity: u16,
    },
    /// Let these bytes, a whole IP packet with its lengths and sums, go in its place. (TCP.) If they cannot, drop it.
    Replace {
        /// The packet.
        packet: &'e [u8],
    },
    /// Drop it.
    Drop,
}

macro_rules! reasons {
    ($( $(#[$doc:meta])* $variant:ident = $name:literal, )*) => {
        /// Why a verdict is as it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $( $(#[$doc])* $variant, )* }

        impl Reason {
            /// All reasons.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

reasons! {
    /// A SIP message whose addresses were translated.
    Rewritten = "rewritten",
    /// A SIP message in which nothing had to change.
    Unchanged = "unchanged",
    /// First packet of a flow: marked, to be seen again after the NAT.
    Learning = "learning",
    /// The NAT leaves this flow alone, and so do we; only its media is let in.
    NotNated = "not_nated",
    /// Not an IP packet that makes sense, or a fragment.
    BrokenPacket = "broken_packet",
    /// Neither UDP nor TCP.
    NotUdp = "not_udp",
    /// A TCP segment of a connection that is not inspected: it does not speak SIP, or was there before us.
    NotInspected = "not_inspected",
    /// A TCP segment of a connection that is, or was, inspected. Its messages are counted under reasons of their own.
    Segment = "segment",
    /// No SIP start line.
    NotSip = "not_sip",
    /// Keep-alive of RFC 5626 (CRLFs) or an empty datagram.
    KeepAlive = "keep_alive",
    /// STUN on the SIP port.
    Stun = "stun",
    /// SIP that fails the strict checks (S4); passes untouched and opens nothing.
    Suspicious = "suspicious",
    /// A SIP message with more headers or lines than the limits allow, longer than a packet can become, or without an
    /// end of the headers.
    Unparsable = "unparsable",
    /// conntrack has no entry for the packet's flow.
    UnknownFlow = "unknown_flow",
    /// A packet at the learning point that we had not marked (traffic of the router itself).
    NotOurs = "not_ours",
    /// Under random NAT, a second packet of a new flow got another port: dropped, SIP repeats it.
    NatClash = "nat_clash",
    /// The message's flow leaves by another uplink than before, and what stands for the phone is the old uplink's address:
    /// dropped, SIP repeats it, and the NAT decides anew.
    Rerouted = "rerouted",
    /// The message asks for a pinhole that the rules forbid (S8, S9); passes untouched.
    Refused = "refused",
    /// The far end is not on the list of registrars (S6).
    PeerNotAllowed = "peer_not_allowed",
    /// The far end does the NAT for its phones itself (`sip.hands-off`).
    HandsOff = "hands_off",
    /// The message asks for more than the quotas of its inside host allow (S11).
    Quota = "quota",
    /// A table of ours is full.
    TableFull = "table_full",
    /// No public port is free.
    PoolEmpty = "pool_empty",
    /// A kernel command failed; the message passes untouched.
    CommandFailed = "command_failed",
    /// A kernel command failed and `on-failure = "drop"`.
    CommandFailedDropped = "command_failed_dropped",
    /// A signed or encrypted message: passes as it is.
    Protected = "protected",
    /// First media packet of a negotiated far address from a port of its own choice: its flow is pinned, the packet
    /// itself dropped.
    Latched = "latched",
    /// Media to an endpoint of ours that nobody negotiated with this source.
    NotNegotiated = "not_negotiated",
    /// Edits that do not fit (an internal error, never the sender's fault).
    EditFailed = "edit_failed",
}
