//! What a binding is called.

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::alg::command::{Pinhole, Transport};
use crate::alg::endpoint::{Inside, Outside};

/// A binding's name: the phone's endpoint, what it is for (a phone may have the same port number for UDP and for TCP), and
/// the index of the interface towards the outside. The kernel's map from inside to outside has the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "Spelt", into = "Spelt")]
pub struct BindingKey {
    // Not an endpoint in one piece, which would have a gap at its end.
    ip: IpAddr,
    port: u16,
    transport: Transport,
    uplink: u32,
}

impl BindingKey {
    /// The name of this binding.
    pub fn new(transport: Transport, inside: Inside, uplink: u32) -> Self {
        Self { ip: inside.0.ip(), port: inside.0.port(), transport, uplink }
    }

    /// What it is for.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// The pinhole from `public` to the phone's endpoint.
    pub fn pinhole(&self, public: Outside) -> Pinhole {
        Pinhole { transport: self.transport, inside: self.inside(), public, uplink: self.uplink }
    }

    /// The phone's endpoint.
    pub fn inside(&self) -> Inside {
        Inside(SocketAddr::new(self.ip, self.port))
    }
}

impl Hash for BindingKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inside().hash(state);
        state.write_u64(u64::from(self.uplink) << 8 | self.transport as u64);
    }
}

/// How a name is written down.
#[derive(Serialize, Deserialize)]
struct Spelt {
    #[serde(default)]
    transport: Transport,
    inside: Inside,
    uplink: u32,
}

impl From<Spelt> for BindingKey {
    fn from(Spelt { transport, inside, uplink }: Spelt) -> Self {
        Self::new(transport, inside, uplink)
    }
}

impl From<BindingKey> for Spelt {
    fn from(key: BindingKey) -> Self {
        Self { transport: key.transport, inside: key.inside(), uplink: key.uplink }
    }
}
