//! What the engine asks of the kernel, and who undoes it.
//!
//! Commands speak of bindings and flows, not of nft elements or netlink: how a pinhole is made is the business of
//! the shell that carries it out ([`Executor`]). Whatever is opened carries a lifetime, so that the kernel closes it
//! by itself when nobody is left to send the undo.

use serde::{Deserialize, Serialize};
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;

use super::endpoint::{Inside, Outside, hash_endpoint};
use super::io::Tuples;

/// A command's name; never used twice by one engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandId(NonZeroU64);

impl CommandId {
    /// The `n`-th, counted from 0.
    pub fn nth(n: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(n))
    }

    /// How many came before it.
    pub fn number(self) -> u64 {
        self.0.get() - 1
    }
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Name for the answer.
    pub id: CommandId,
    /// The request.
    pub op: Op,
}

/// One endpoint tied to a public one, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pinhole {
    /// What is let through.
    #[serde(default)]
    pub transport: Transport,
    /// The phone's endpoint.
    pub inside: Inside,
    /// The endpoint that stands for it outside; from our own port pool.
    pub public: Outside,
    /// Index of the interface towards the outside: only what leaves by it is translated.
    pub uplink: u32,
}

/// The pinholes of one stream: RTP and, when it has one, RTCP.
pub type Pinholes = ArrayVec<Pinhole, 2>;

/// The public endpoints of one stream.
pub type Publics = ArrayVec<Outside, 2>;

/// A media flow whose both ends are known, to be a conntrack entry that looks answered and assured. Of UDP, the phone may
/// be the first to speak; a connection over TCP is one that the far end opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PinnedFlow {
    /// What carries it.
    #[serde(default)]
    pub transport: Transport,
    /// The phone's endpoint: of UDP, the source of the original direction; of TCP, where its reply comes from.
    pub inside: Inside,
    /// The far end's endpoint as the phone addresses it.
    pub far: SocketAddr,
    /// The source that the far end sees; where there is no NAT it is `inside`.
    pub public: Outside,
    /// For hairpin media: the inside endpoint that `far` (a public endpoint of ours) stands for.
    pub hairpin: Option<Inside>,
}

/// What carries a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Transport {
    /// UDP.
    #[default]
    Udp,
    /// TCP.
    Tcp,
}

impl Transport {
    /// In lower-case letters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// A TCP connection through the NAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Line {
    /// The end that the NAT hides.
    pub inside: Inside,
    /// The other end.
    pub far: SocketAddr,
    /// What the far end takes for the inside one: segments from outside go from `far` to it.
    pub public: Outside,
}

/// A flow as its two ends address each other on the inside of the NAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FlowKey {
    /// What carries it.
    pub transport: Transport,
    /// The end that the NAT hides.
    pub inside: Inside,
    /// The other end.
    pub far: SocketAddr,
}

impl Hash for FlowKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.transport as u8).hash(state);
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
    /// Has conntrack expect media at these public endpoints, as flows related to the signalling flow: the first packet of
    /// a far end that nobody has named yet passes. Undone by [`Op::Unexpect`], or by its lifetime, or by the end of the
    /// signalling flow's entry. Media that passes is translated by the pinholes.
    Expect {
        /// Where; with open pinholes.
        public: Publics,
        /// From whom; `None`: from anybody. From any port in either case.
        source: Option<IpAddr>,
        /// What kind of media, for the kernel's limits.
        class: MediaClass,
        /// Whose media it is.
        signalling: FlowKey,
        /// How long.
        lifetime: Duration,
    },
    /// Takes expectations back, and deletes the entries of media that has come by them. What is gone is no error.
    Unexpect {
        /// Where.
        public: Publics,
        /// Whose media it was.
        signalling: FlowKey,
    },
    /// Asks conntrack for the entry that a packet from `source` to `destination`, as seen at FORWARD, belongs to.
    /// Answered by [`Reply::Found`].
    Lookup {
        /// What carries the packet.
        transport: Transport,
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
    /// Queues the segments that come from outside on this connection before conntrack sees them
    /// ([`QueuePoint::BeforeConntrack`](super::QueuePoint)), and lets none of it, either way, pass without the daemon: its
    /// numbers are, or will be, translated. A daemon that is gone for a moment means that its segments are dropped; one
    /// that stays away, that both ends are reset at their next segment. Repeated for a connection that is followed
    /// already it renews the lifetime. Undone by [`Op::Unfollow`] or [`Op::Reset`].
    Follow {
        /// The connection.
        line: Line,
        /// How long without another [`Op::Follow`]; longer than conntrack keeps an idle connection.
        lifetime: Duration,
    },
    /// The connection is over, or was never translated: its segments are nobody's business any more. What is gone
    /// already is no error.
    Unfollow {
        /// The connection.
        line: Line,
    },
    /// Nobody can translate this followed connection any more: both ends get a reset at their next segment, and nothing
    /// of it passes. For an hour; after that it is as if it had never been followed.
    Reset {
        /// The connection.
        line: Line,
    },
    /// Deletes every UDP entry of conntrack whose translation needs this address: the machine does not have it any
    /// more, so nothing may be sent from it.
    Purge {
        /// The address.
        address: IpAddr,
    },
    /// A UDP signalling flow whose source is translated leaves by another interface than before. Deletes its conntrack entry
    /// if its public address belongs to the interface that it left by, and not to the one by which it leaves now: what
    /// the NAT decided for the one way is wrong for the other. Fails with [`Failure::NotFound`] where the entry may stay:
    /// the address belongs to no uplink alone, or its source is not what is translated.
    Reroute {
        /// The flow.
        flow: FlowKey,
        /// What stands for the phone.
        public: Outside,
        /// Index of the interface by which it left.
        from: u32,
        /// Index of the interface by which it leaves now.
        to: u32,
    },
    /// Sets the remaining lifetime of a signalling flow's conntrack entry. Never asked for TCP.
    Sustain {
        /// The flow.
        flow: FlowKey,
        /// How long from now on.
        lifetime: Duration,
    },
}

/// Kinds of media whose expectations conntrack counts apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MediaClass {
    /// `m=audio`
    Audio,
    /// `m=video`
    Video,
    /// `m=image`: fax
    Image,
    /// All others.
    Other,
}

impl MediaClass {
    /// The class of an `m=` line of this kind.
    pub fn of(kind: &[u8]) -> Self {
        match kind {
            b"audio" => Self::Audio,
            b"video" => Self::Video,
            b"image" => Self::Image,
            _ => Self::Other,
        }
    }
}

/// An address that may send to a public endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Peer {
    /// What it may send.
    pub transport: Transport,
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

    /// Says that somebody is still at work, for what must not go on without ([`Op::Follow`]). To be called by the thread
    /// that translates, so that one which hangs is noticed, and again at the time that this answers; `None`: nothing
    /// depends on it.
    fn keep_alive(&mut self, _now: Instant) -> Option<Instant> {
        None
    }
}
