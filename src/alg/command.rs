//! What the engine asks of the kernel, and who undoes it.
//!
//! Commands speak of bindings and flows, not of nft elements or netlink: how a pinhole is made is the business of
//! the shell that carries it out ([`Executor`]). Whatever is opened carries a lifetime, so that the kernel closes it
//! by itself when nobody is left to send the undo.

use serde::{Deserialize, Serialize};
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use arrayvec::ArrayVec;

use super::endpoint::{Inside, Outside, hash_endpoint};
use super::io::Tuples;

/// A command's name; never used twice by one engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandId(pub u64);

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Name for the answer.
    pub id: CommandId,
    /// The request.
    pub op: Op,
}

/// One UDP endpoint tied to a public one, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pinhole {
    /// The phone's endpoint.
    pub inside: Inside,
    /// The endpoint that stands for it outside; from our own port pool.
    pub public: Outside,
    /// Index of the interface towards the outside: only what leaves by it is translated.
    pub uplink: u32,
}

/// The pinholes of one stream: RTP and, when it has one, RTCP.
pub type Pinholes = ArrayVec<Pinhole, 2>;

/// A media flow whose both ends are known, to be a conntrack entry that looks answered and assured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PinnedFlow {
    /// The phone's endpoint: source of the original direction.
    pub inside: Inside,
    /// The far end's endpoint as the phone addresses it: destination of the original direction.
    pub far: SocketAddr,
    /// The source that the far end sees; where there is no NAT it is `inside`.
    pub public: Outside,
    /// For hairpin media: the inside endpoint that `far` (a public endpoint of ours) stands for.
    pub hairpin: Option<Inside>,
}

/// A flow as its two ends address each other on the inside of the NAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FlowKey {
    /// The end that the NAT hides.
    pub inside: Inside,
    /// The other end.
    pub far: SocketAddr,
}

impl Hash for FlowKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inside.hash(state);
        hash_endpoint(self.far, state);
    }
}

/// The requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Makes pinholes, all or none: maps both ways and ownership of the public endpoint. No peer may use them before
    /// [`Op::Admit`]. Fails with [`Failure::PortInUse`] if a socket of this machine has one of the public endpoints.
    /// Undone by [`Op::Close`], or by their lifetime.
    Open {
        /// What to open.
        pinholes: Pinholes,
        /// How long without [`Op::Renew`].
        lifetime: Duration,
    },
    /// Sets the lifetime of open pinholes and of their admitted peers anew. What the kernel has lost is made again.
    Renew {
        /// What is open.
        pinholes: Pinholes,
        /// Who is admitted.
        peers: Vec<Peer>,
        /// How long from now on.
        lifetime: Duration,
    },
    /// Takes pinholes away, their admitted peers with them. The public endpoints stay owned, and closed, for
    /// `quarantine`, so that late media cannot leave a conntrack entry that is in the way of the next call.
    Close {
        /// What to close; what is gone already is no error.
        pinholes: Pinholes,
        /// Who was admitted.
        peers: Vec<Peer>,
        /// How long the public endpoints stay closed.
        quarantine: Duration,
    },
    /// Lets a far address send to a public endpoint of ours. Undone by [`Op::Close`] or [`Op::Dismiss`].
    Admit {
        /// Who.
        peers: Vec<Peer>,
        /// How long without [`Op::Renew`].
        lifetime: Duration,
    },
    /// Takes admissions back. What is gone already is no error.
    Dismiss {
        /// Who.
        peers: Vec<Peer>,
    },
    /// Makes sure that there is exactly this conntrack entry: one that is in its way is deleted.
    /// Undone by [`Op::Unpin`], or by conntrack's own timeout once no packet flows.
    Pin {
        /// The flow.
        flow: PinnedFlow,
        /// The signalling flow whose zone and mark it shall carry.
        signalling: FlowKey,
    },
    /// Deletes the conntrack entry, whoever made it. What is gone already is no error.
    Unpin {
        /// The flow.
        flow: PinnedFlow,
    },
    /// Asks conntrack for the entry that a packet from `source` to `destination`, as seen at FORWARD, belongs to.
    /// Answered by [`Reply::Found`].
    Lookup {
        /// The packet's source.
        source: SocketAddr,
        /// The packet's destination.
        destination: SocketAddr,
    },
    /// Asks conntrack which endpoint of `host` the NAT hides behind `public`: who began a live UDP entry whose source is
    /// translated to it. Takes time in proportion to conntrack's table, so it is not for every packet. Answered by
    /// [`Reply::Found`]; nothing is found where there are several.
    Recognise {
        /// The public endpoint.
        public: Outside,
        /// The inside host.
        host: IpAddr,
    },
    /// Deletes every UDP entry of conntrack whose translation needs this address: the machine does not have it any
    /// more, so nothing may be sent from it.
    Purge {
        /// The address.
        address: IpAddr,
    },
    /// Sets the remaining lifetime of a signalling flow's conntrack entry.
    Sustain {
        /// The flow.
        flow: FlowKey,
        /// How long from now on.
        lifetime: Duration,
    },
}

/// An address that may send to a public endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Peer {
    /// The endpoint of ours.
    pub public: Outside,
    /// Whose packets are let in; `None`: everybody's (`media.source = "any"`).
    pub far: Option<IpAddr>,
}

/// What came of a command.
pub type Outcome = Result<Reply, Failure>;

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Done as asked.
    Done,
    /// To [`Op::Lookup`] and [`Op::Recognise`]: the entry, if there is one.
    Found(Option<Tuples>),
}

/// Why a command was not carried out. What it had done by then is undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Failure {
    /// A socket of this machine, or somebody's map element, has the public endpoint.
    #[error("the public port is in use")]
    PortInUse,
    /// The flow is not in conntrack.
    #[error("no such conntrack entry")]
    NotFound,
    /// A map, a set or the conntrack table is full.
    #[error("a kernel table is full")]
    Full,
    /// Anything else, with the kernel's error number.
    #[error("the kernel answered with error {0}")]
    Kernel(i32),
}

/// Something that carries out commands: the kernel, or a recording fake.
pub trait Executor {
    /// Carries out `commands` in order, as few transactions as it likes, and appends one outcome for each, in order.
    fn execute(&mut self, commands: &[Command], outcomes: &mut Vec<Outcome>);
}
