//! What goes into the engine and what comes out.
//!
//! These types, with [`Command`], [`Verdict`] and [`Event`], are the whole language between the pure core and the
//! shells around it. None of them does anything.

use std::net::{IpAddr, SocketAddr};

use super::command::{Command, CommandId, Outcome};
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
}

impl QueuePoint {
    /// All four, in the order of their queue numbers.
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
    /// A UDP conntrack entry is gone.
    FlowDestroyed(Tuples),
    /// This machine does not have this address any more.
    AddressGone(IpAddr),
    /// The ruleset was gone (an administrator flushed it) and is in place again, with its elements. What comes with a
    /// ruleset and not with its elements is lost: the lifetime rule that new flows got.
    RulesetReloaded,
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
