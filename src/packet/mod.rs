//! IP packets as bytes: validated once, changed without losing anything.
//!
//! [`Datagram::parse`] checks every length on the way to the UDP payload, so that what is asked afterwards cannot fail.
//! [`Datagram::rebuild`] puts another payload into the same headers: options, extension headers and every field that
//! has no reason to change stay as they came, lengths and checksums come out right. etherparse validates, the mutable
//! views of pnet_packet write header fields, sums are our own ([`checksum`]).
//!
//! What this module does not do: it knows no SIP and opens no socket. It does not verify checksums of UDP: conntrack has done
//! so before a packet can be queued, and a packet that fails there has no flow. It does not answer a packet that became
//! too large with an ICMP message.
//!
//! [`Segment`] is the same for TCP: other numbers, another payload, fewer options. It can tell whether its checksum is
//! right, for segments are also queued before conntrack.
//!
//! The network layer ([`ip`]) is apart from UDP ([`udp`]) and TCP ([`tcp`]), which stand beside each other.

pub mod checksum;
mod ip;
mod tcp;
mod udp;

pub use tcp::{Numbers, Options, Segment};
pub use udp::Datagram;

/// Whether this is a whole IP packet that carries TCP.
pub fn carries_tcp(bytes: &[u8]) -> bool {
    const TCP: u8 = 6;
    ip::IpPacket::parse(bytes).is_ok_and(|ip| ip.protocol == TCP)
}

/// The largest packet that [`Datagram::rebuild`] makes, in bytes, headers included.
///
/// IPv6 could carry 40 bytes more; one limit for both families is easier to reason about.
pub const MAX_PACKET: usize = 65_535;

/// Why a packet is no UDP datagram that may be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// Versions, lengths or extension headers that contradict each other. A UDP length that leaves bytes behind the
    /// datagram is among them: nobody could say what they are for. So are an IPv6 routing header that has not arrived
    /// (the checksum covers an address that the header does not show) and an IPv6 jumbogram.
    #[error("not a valid IP packet")]
    Broken,
    /// A fragment. (The kernel reassembles before it queues, so this is rare.)
    #[error("a fragment")]
    Fragment,
    /// TCP, SCTP, …; also UDP under an IPsec authentication header, which vouches for every byte.
    #[error("not UDP")]
    NotUdp,
    /// Not TCP, or TCP under an IPsec authentication header.
    #[error("not TCP")]
    NotTcp,
    /// There are fewer bytes than the IP header announces: the packet was copied short.
    #[error("truncated")]
    Truncated,
}

/// The result does not fit into [`MAX_PACKET`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the packet would be larger than 65,535 bytes")]
pub struct TooLarge;

/// Writes the packet `bytes` into `out` (cleared first), the same but for its identity, whatever it carries.
///
/// # Errors
/// [`Refusal`]: it is no whole IP packet.
pub fn restamp(bytes: &[u8], identity: u32, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let packet = ip::IpPacket::parse(bytes)?;
    out.clear();
    out.extend_from_slice(packet.bytes);
    packet.restamp(identity, out);
    Ok(())
}

/// What to change besides the payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// New IPv4 identification (low 16 bits) or IPv6 flow label (low 20 bits); `None`: as it came.
    pub set: Option<u32>,
    /// The IPv4 identification of a packet that loses its DF bit and has no better one: `set` is `None` or 0. Never 0.
    pub spare: u16,
}
