//! Bindings: inside media endpoints tied to public ones.
//!
//! A binding is one endpoint. It belongs to the phone, not to a call: a phone that uses its RTP port in two calls has
//! one binding with two owners (endpoint-independent mapping, RFC 4787 section 4.1), and all bindings of a phone lie on
//! the public address of its signalling (paired pooling, REQ-2). The last owner to go closes it. Nothing here sends a
//! command, and nothing decides who needs what: see `engine::pinholes`.
//!
//! | module | what |
//! |---|---|
//! | [`key`] | what a binding is called |
//! | [`table`] | all of them, by both of their endpoints; the ports |
//! | [`quota`] | how many one inside host may have, and open |

mod key;
mod quota;
mod table;

use std::net::IpAddr;
use std::time::Instant;

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use thin_vec::ThinVec;

use super::command::{CommandId, Peer, PinnedFlow, Transport};
use super::endpoint::{Outside, Packed};
use super::flow::PackedFlow;

pub use key::BindingKey;
pub use table::Bindings;

/// The keys of the endpoints that one command opens together.
pub type BindingKeys = ArrayVec<BindingKey, 2>;

/// How far a binding is in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Asked for. Entered when it is made.
    Opening(CommandId),
    /// There. Entered from `Opening`.
    Open,
}

/// Somebody who may send to a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The address; `None`: everybody.
    pub far: Option<IpAddr>,
    /// How many legs of calls want it.
    pub wanted: u16,
    /// The command that is under way.
    pub admitting: Option<CommandId>,
}

/// Far ends, each with a number.
pub type Pins = SmallVec<[(Packed, u16); 1]>;

/// One binding. Its inside endpoint is in its name.
#[derive(Clone, Debug)]
pub struct Binding {
    /// The public endpoint.
    pub public: Packed,
    /// Index of the interface towards the phone.
    pub lan: u32,
    /// The signalling flow that first asked for it.
    pub signalling: PackedFlow,
    /// How many streams use it.
    pub owners: u16,
    /// How far it is.
    pub state: State,
    /// Who may send to it.
    pub peers: SmallVec<[Admitted; 1]>,
    /// The far ends to which it is pinned, each with the number of legs of calls that want it.
    pub pins: Pins,
    /// When a flow of it last died in conntrack: it had media until shortly before.
    pub died: Option<Instant>,
    /// A flow of it died, so that it has to be pinned anew before media can come in again.
    pub lapsed: bool,
    /// Whether conntrack expects media here.
    pub expecting: Expecting,
    /// Flows that were pinned because media came from another port than announced.
    pub latched: ThinVec<(PinnedFlow, Latch)>,
}

/// Whether conntrack expects media at a binding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expecting {
    /// Not asked for. Entered when the binding is made, and from `Yes` when its far end is known.
    #[default]
    No,
    /// Asked for. Entered from `No` with an offer, and from `Refused` with its first answer.
    Yes,
    /// The kernel does not know the signalling flow yet: this is the flow's first packet. Entered from `Yes`.
    Refused,
    /// The kernel never will. Entered from `Yes`.
    Never,
}

/// How far a latched flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Latch {
    /// Asked for. Entered by the first packet, and again by one that comes after the flow died.
    Pinning(CommandId),
    /// Pinned; the packet that asked for it waits for its verdict. Entered from `Pinning`.
    Pinned,
    /// The packet is gone. Entered from `Pinned`.
    Settled,
}

impl Binding {
    /// The public endpoint.
    pub fn public(&self) -> Outside {
        Outside(self.public.endpoint())
    }

    /// Everybody admitted, for commands.
    pub fn peers(&self, transport: Transport) -> impl Iterator<Item = Peer> + '_ {
        let public = self.public();
        self.peers.iter().map(move |it| Peer { transport, public, far: it.far })
    }
}

/// Why there is no binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoBinding {
    /// The table, or the host's share of it, is full, or the host opens too fast (S11).
    Quota,
    /// No public port is free.
    PoolEmpty,
}
