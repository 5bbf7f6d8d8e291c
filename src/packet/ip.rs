//! The network layer: where the transport begins, and header fields that follow from the length.
//!
//! [`IpPacket`] remembers what one validation found. It knows no transport beyond its protocol number.
//!
//! Read first: RFC 791 (IPv4), RFC 8200 (IPv6), RFC 6864 (what the IPv4 identification is for).

use std::net::IpAddr;

use etherparse::err::ip::SliceError;
use etherparse::{IpSlice, Ipv6ExtensionSlice, Ipv6Slice, LenSource};
use pnet_packet::ipv4::{Ipv4Flags, MutableIpv4Packet};
use pnet_packet::ipv6::MutableIpv6Packet;

use super::{Identity, MAX_PACKET, Refusal, TooLarge, checksum};

/// A whole, unfragmented IP packet whose payload may be changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct IpPacket<'a> {
    /// Exactly as many bytes as the IP header announces.
    pub(super) bytes: &'a [u8],
    /// Offset of the transport header: behind IPv4 options and IPv6 extension headers.
    pub(super) transport: usize,
    /// Length of the IPv4 header with its options, or of the fixed IPv6 header.
    header: usize,
    /// Protocol number of the transport.
    pub(super) protocol: u8,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
}

impl<'a> IpPacket<'a> {
    /// Validates `bytes`; what lies behind the announced length (link padding) is left out.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let slice = IpSlice::from_slice(bytes).map_err(|error| match error {
            SliceError::Len(error) if error.len_source == LenSource::Slice => Refusal::Truncated,
            SliceError::Len(_) | SliceError::IpHeaders(_) => Refusal::Broken,
        })?;
        let payload = slice.payload();
        let header = match &slice {
            IpSlice::Ipv4(ip) => ip.header().slice().len(),
            IpSlice::Ipv6(ip) => ip.header().slice().len(),
        };
        if payload.len_source == LenSource::Slice {
            return Err(Refusal::Broken); // no length announced: a jumbogram, RFC 2675
        }
        match &slice {
            IpSlice::Ipv4(ip) if ip.extensions().auth.is_some() => return Err(Refusal::NotUdp),
            IpSlice::Ipv4(_) => {}
            IpSlice::Ipv6(ip) => check_extensions(ip)?,
        }
        if payload.fragmented {
            return Err(Refusal::Fragment);
        }
        let extensions = match &slice {
            IpSlice::Ipv4(_) => 0,
            IpSlice::Ipv6(ip) => ip.extensions().slice().len(),
        };
        let transport = header + extensions;
        Ok(Self {
            bytes: bytes.get(..transport + payload.payload.len()).ok_or(Refusal::Broken)?,
            transport,
            header,
            protocol: payload.ip_number.0,
            source: slice.source_addr(),
            destination: slice.destination_addr(),
        })
    }

    /// IPv4 identification or IPv6 flow label.
    pub(super) fn identity(&self) -> u32 {
        match (self.source, self.bytes) {
            (IpAddr::V4(_), [_, _, _, _, high, low, ..]) => u32::from_be_bytes([0, 0, *high, *low]),
            (IpAddr::V6(_), [_, high, middle, low, ..]) => {
                u32::from_be_bytes([0, high & 0x0f, *middle, *low])
            }
            _ => 0,
        }
    }

    /// The sum of the pseudo header (RFC 768, RFC 8200 section 8.1) for a transport of `length` bytes.
    pub(super) fn pseudo_sum(&self, length: usize) -> u64 {
        let addresses = match self.source {
            IpAddr::V4(_) => self.bytes.get(12..20),
            IpAddr::V6(_) => self.bytes.get(8..40),
        };
        checksum::sum(addresses.unwrap_or_default()) + u64::from(self.protocol) + length as u64
    }

    /// Makes the IP header at the front of `out`, copied from this packet, fit the new length of `out`.
    ///
    /// A packet that has grown and is longer than `mtu` would be lost if DF stayed: nobody at its sender could make
    /// sense of the error. So DF is cleared, and fragments need an identification of their own (RFC 6864), which
    /// senders that set DF often leave 0. An IPv6 packet cannot be fragmented here and stays as it is.
    pub(super) fn finish(&self, out: &mut [u8], identity: Identity, mtu: usize) -> Result<(), TooLarge> {
        let length = u16::try_from(out.len()).map_err(|_| TooLarge)?;
        match self.source {
            IpAddr::V4(_) => {
                let split = out.len() > self.bytes.len() && out.len() > mtu;
                let Some(mut ip) = MutableIpv4Packet::new(out) else { return Ok(()) };
                ip.set_total_length(length);
                if let Some(id) = identity.set {
                    ip.set_identification(id as u16);
                }
                if split && ip.get_flags() & Ipv4Flags::DontFragment != 0 {
                    ip.set_flags(ip.get_flags() & !Ipv4Flags::DontFragment);
                    if identity.set.is_none_or(|id| id as u16 == 0) {
                        ip.set_identification(identity.spare);
                    }
                }
                ip.set_checksum(0);
                let sum = checksum::sum(out.get(..self.header).unwrap_or_default());
                if let Some(mut ip) = MutableIpv4Packet::new(out) {
                    ip.set_checksum(checksum::finish(sum));
                }
            }
            IpAddr::V6(_) => {
                let header = u16::try_from(self.header).map_err(|_| TooLarge)?;
                let Some(mut ip) = MutableIpv6Packet::new(out) else { return Ok(()) };
                ip.set_payload_length(length.saturating_sub(header));
                if let Some(label) = identity.set {
                    ip.set_flow_label(label & 0xf_ffff);
                }
            }
        }
        Ok(())
    }

    /// Sets the identity in the header at the front of `out`, a copy of this packet.
    pub(super) fn restamp(&self, identity: u32, out: &mut [u8]) {
        match self.source {
            IpAddr::V4(_) => {
                let Some(mut ip) = MutableIpv4Packet::new(out) else { return };
                let (old, new) = (ip.get_identification(), identity as u16);
                if old != new {
                    ip.set_identification(new);
                    ip.set_checksum(checksum::update(ip.get_checksum(), old, new));
                }
            }
            IpAddr::V6(_) => {
                if let Some(mut ip) = MutableIpv6Packet::new(out) {
                    ip.set_flow_label(identity & 0xf_ffff);
                }
            }
        }
    }
}

/// Refuses what no payload may be changed behind.
fn check_extensions(ip: &Ipv6Slice<'_>) -> Result<(), Refusal> {
    for extension in ip.extensions().clone() {
        match extension {
            Ipv6ExtensionSlice::Authentication(_) => return Err(Refusal::NotUdp),
            // Behind next header and length: routing type, segments left (RFC 8200, section 4.4).
            Ipv6ExtensionSlice::Routing(routing) if routing.slice().get(3) != Some(&0) => {
                return Err(Refusal::Broken);
            }
            Ipv6ExtensionSlice::HopByHop(_)
            | Ipv6ExtensionSlice::Routing(_)
            | Ipv6ExtensionSlice::Fragment(_)
            | Ipv6ExtensionSlice::DestinationOptions(_) => {}
        }
    }
    Ok(())
}

const _: () = assert!(MAX_PACKET == u16::MAX as usize, "`finish` takes the limit from the field");
