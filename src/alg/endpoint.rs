//! Addresses with a side.
//!
//! The two sides of a NAT hold values that look alike. They are distinct types here, so that no table can be asked
//! with the wrong one. An address without a side is a plain [`SocketAddr`]: the far end of a flow, which the NAT
//! does not change.

use std::fmt;
use std::net::SocketAddr;

/// An endpoint as the phones' network knows it: the one that the NAT hides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Inside(pub SocketAddr);

/// The public endpoint that stands for an [`Inside`] one in the outside network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Outside(pub SocketAddr);

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
