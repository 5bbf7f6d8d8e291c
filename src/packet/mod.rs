//! stub
use std::net::SocketAddr;

/// A validated IPv4 or IPv6 packet that carries one whole UDP datagram.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    bytes: &'a [u8],
    source: SocketAddr,
    destination: SocketAddr,
    payload_start: usize,
}

/// Why a packet is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Lengths, versions or extension headers that do not fit
    #[error("not a valid IP packet")]
    Broken,
    /// A fragment
    #[error("a fragment")]
    Fragment,
    /// TCP, SCTP, …
    #[error("not UDP")]
    NotUdp,
    /// Copied short
    #[error("truncated")]
    Truncated,
}

/// What to change besides the payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// New IPv4 identification or IPv6 flow label.
    pub set: Option<u32>,
    /// The identification to give when DF must be cleared and no other was set (never 0).
    pub spare: u16,
}

/// The result does not fit an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the packet would be larger than 65,535 bytes")]
pub struct TooLarge;

impl<'a> Datagram<'a> {
    /// Validates `bytes`.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let _ = bytes;
        todo!()
    }
    /// source
    pub fn source(&self) -> SocketAddr {
        self.source
    }
    /// destination
    pub fn destination(&self) -> SocketAddr {
        self.destination
    }
    /// UDP payload
    pub fn payload(&self) -> &'a [u8] {
        self.bytes.get(self.payload_start..).unwrap_or_default()
    }
    /// IPv4 identification or IPv6 flow label
    pub fn identity(&self) -> u32 {
        todo!()
    }
    /// Writes the packet with the payload that `write` makes (it appends to the buffer) into `out` (cleared first):
    /// lengths and checksums right; when the result is longer than `mtu` and has grown, DF is cleared.
    pub fn rebuild(
        &self,
        write: impl FnOnce(&[u8], &mut Vec<u8>),
        identity: Identity,
        mtu: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), TooLarge> {
        let _ = (write, identity, mtu, out);
        todo!()
    }
}
