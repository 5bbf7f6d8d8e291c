//! What goes into the engine and what comes out.
//!
//! These types, with [`Command`], [`Verdict`] and [`Event`], are the whole language between the pure core and the
//! shells around it. None of them does anything.
//!
//! # TCP
//!
//! A segment comes in like a datagram, at these points:
//!
//! - [`QueuePoint::NewFlow`] and [`QueuePoint::Learn`]: a SYN of an entry that conntrack has not confirmed, before and
//!   after the NAT, whichever end it comes from.
//! - [`QueuePoint::Signalling`]: all segments of confirmed entries at FORWARD, to or from a signalling port. Those from
//!   outside of a followed connection need not come here again; if they do they pass as they are.
//! - [`QueuePoint::BeforeConntrack`]: segments from outside of followed connections. Conntrack sees only what the engine
//!   makes of them, so for it both ends count in the numbers of the inside one.
//!
//! A segment gets its verdict at once, or it is *held*: it has none, like a packet that waits for a command, and is
//! asked for with [`Output::Again`] when its time has come, within twice [`Policy::tcp_patience`](super::Policy). The
//! shell must never let a TCP segment pass as it came for want of room, time or at its end: it drops it, and TCP sends it
//! again.

use std::net::{IpAddr, SocketAddr};

use super::command::{Command, CommandId, Outcome, Transport};
use super::event::Event;
use super::verdict::Verdict;

/// A packet's name, chosen by the shell; the engine only hands it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PacketId(pub u64);

/// Where on its way through the kernel a packet was queued (`nft-rules/README.md` has the picture).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum QueuePoint {
    /// FORWARD, signalling of a flow that conntrack has confirmed, either direction.
    Signalling,
    /// FORWARD, first packet of a flow: the NAT has not decided yet.
    NewFlow,
    /// POSTROUTING after the NAT, the same packet again: its source shows what the NAT decided. Where the kernel tells a
    /// queued packet's conntrack entry ([`Input::Translated`]), first packets come here only.
    Learn,
    /// PREROUTING before any DNAT: first packet of media to one of our public endpoints.
    Latch,
    /// PREROUTING before conntrack (and behind reassembly): a TCP segment from outside to the public endpoint of a
    /// connection that is [followed](super::Op::Follow). Source and destination are those of the wire.
    BeforeConntrack,
}

impl QueuePoint {
    /// Those of UDP, in the order of their queue numbers.
    pub const ALL: [Self; 4] = [Self::Signalling, Self::NewFlow, Self::Learn, Self::Latch];
}

/// A packet as it was queued.
#[derive(Clone, Copy, Debug)]
pub struct PacketIn<'a> {
    /// Name for the verdict.
    pub id: PacketId,
    /// Where it was queued.
    pub point: QueuePoint,
    /// Index of the interface that it came in by; 0 when not known.
    pub indev: u32,
    /// Index of the interface that it will leave by; 0 when not known.
    pub outdev: u32,
    /// The whole IP packet.
    pub bytes: &'a [u8],
}

/// Both directions of a conntrack entry, as seen on the wire before any translation by the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuples {
    /// Transport of the entry.
    pub transport: Transport,
    /// Source of the original direction.
    pub orig_source: SocketAddr,
    /// Destination of the original direction.
    pub orig_destination: SocketAddr,
    /// Source of the reply direction.
    pub reply_source: SocketAddr,
    /// Destination of the reply direction.
    pub reply_destination: SocketAddr,
}

/// One thing that happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// A packet waits for its verdict.
    Packet(PacketIn<'a>),
    /// What conntrack says of a packet that is handed in next, at [`QueuePoint::Learn`]: then one trip is enough to learn
    /// what the NAT decided. Not every kernel tells.
    Translated {
        /// The packet.
        packet: PacketId,
        /// Its flow's entry, which is not confirmed yet.
        tuples: Tuples,
    },
    /// A command was carried out, or was not.
    CommandDone {
        /// Which one.
        id: CommandId,
        /// What came of it.
        outcome: Outcome,
    },
    /// A conntrack entry is gone: of UDP, or of TCP to or from a signalling port.
    FlowDestroyed(Tuples),
    /// This machine does not have this address any more.
    AddressGone(IpAddr),
    /// The ruleset was gone (an administrator flushed it) and is in place again, with its elements. What comes with a
    /// ruleset and not with its elements is lost: the lifetime rule that new flows got.
    RulesetReloaded,
    /// The MTU of an interface: told before the first packet that names it, and whenever it changes. Without it only
    /// what the two ends of a connection said themselves bounds the length of a segment.
    Mtu {
        /// Index of the interface.
        interface: u32,
        /// Largest IP packet in bytes.
        mtu: u32,
    },
    /// A deadline of [`poll_timeout`](super::Engine::poll_timeout) has passed. (Any input does this work too.)
    Timeout,
}

/// One thing that the shell has to do.
#[derive(Debug)]
pub enum Output<'e> {
    /// Change or ask the kernel; answer with [`Input::CommandDone`]. Commands may be carried out together, in order.
    Command(Command),
    /// Let a packet go.
    Verdict(Verdict<'e>),
    /// Hand this packet in again, unchanged: what it waited for has been decided.
    Again(PacketId),
    /// Something worth a log line.
    Event(Event),
}
