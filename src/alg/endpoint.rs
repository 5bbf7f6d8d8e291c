//! Addresses with a side.
//!
//! The two sides of a NAT hold values that look alike. They are distinct types here, so that no table can be asked
//! with the wrong one. An address without a side is a plain [`SocketAddr`]: the far end of a flow, which the NAT
//! does not change.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

/// An endpoint as the phones' network knows it: the one that the NAT hides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Inside(pub SocketAddr);

/// The public endpoint that stands for an [`Inside`] one in the outside network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Outside(pub SocketAddr);

/// An endpoint in two thirds of the room that a [`SocketAddr`] takes, for tables: of IPv6 it has neither flow label nor
/// scope, which no message and no packet on its way has either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "SocketAddr", into = "SocketAddr")]
pub struct Packed {
    ip: IpAddr,
    port: u16,
}

impl Packed {
    /// The endpoint.
    pub fn endpoint(self) -> SocketAddr {
        self.into()
    }
}

impl From<SocketAddr> for Packed {
    fn from(endpoint: SocketAddr) -> Self {
        Self { ip: endpoint.ip(), port: endpoint.port() }
    }
}

impl From<Packed> for SocketAddr {
    fn from(packed: Packed) -> Self {
        Self::new(packed.ip, packed.port)
    }
}

impl Hash for Packed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash_endpoint(self.endpoint(), state);
    }
}

impl Hash for Inside {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash_endpoint(self.0, state);
    }
}

impl Hash for Outside {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash_endpoint(self.0, state);
    }
}

/// Hashes an endpoint as one number: tables are asked several times for each packet, and the derived hash feeds an
/// address byte by byte.
pub(super) fn hash_endpoint<H: Hasher>(endpoint: SocketAddr, state: &mut H) {
    let port = endpoint.port();
    match endpoint {
        SocketAddr::V4(it) => state.write_u64(u64::from(it.ip().to_bits()) << 16 | u64::from(port)),
        SocketAddr::V6(it) => {
            state.write_u128(it.ip().to_bits());
            state.write_u16(port);
        }
    }
}

impl fmt::Display for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
