//! Flows and pinholes as tables hold them.
//!
//! A [`SocketAddr`](std::net::SocketAddr) has room for what no message and no packet on its way has: of IPv6 a flow label
//! and a scope. What there are thousands of is kept without, in two thirds of the room, and taken out whole. Nothing here
//! is a key: what is looked up has the form in which packets and commands have it.

use super::command::{FlowKey, Pinhole, Transport};
use super::endpoint::{Inside, Outside, Packed};

/// A [`FlowKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedFlow {
    transport: Transport,
    inside: Packed,
    far: Packed,
}

impl PackedFlow {
    /// The flow.
    pub fn get(self) -> FlowKey {
        let Self { transport, inside, far } = self;
        FlowKey { transport, inside: Inside(inside.endpoint()), far: far.endpoint() }
    }
}

impl From<FlowKey> for PackedFlow {
    fn from(FlowKey { transport, inside: Inside(inside), far }: FlowKey) -> Self {
        Self { transport, inside: inside.into(), far: far.into() }
    }
}

/// A [`Pinhole`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedPinhole {
    transport: Transport,
    inside: Packed,
    public: Packed,
    uplink: u32,
}

impl PackedPinhole {
    /// The pinhole.
    pub fn get(self) -> Pinhole {
        let Self { transport, inside, public, uplink } = self;
        Pinhole { transport, inside: Inside(inside.endpoint()), public: Outside(public.endpoint()), uplink }
    }
}

impl From<Pinhole> for PackedPinhole {
    fn from(pinhole: Pinhole) -> Self {
        let Pinhole { transport, inside: Inside(inside), public: Outside(public), uplink } = pinhole;
        Self { transport, inside: inside.into(), public: public.into(), uplink }
    }
}
