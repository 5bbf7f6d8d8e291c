//! The state machine.
//!
//! This file holds the state and the contract; the work is done beside it:
//!
//! | module | what |
//! |---|---|
//! | [`flows`] | which flow a packet belongs to: learning, looking up, losing it |
//! | [`message`] | one SIP message from parsing to its verdict |
//! | [`media`] | what a description says of media, and what has to be in the kernel before it may go on |
//! | [`pinholes`] | bindings: opened for the streams of a description, and closed |
//! | [`pinning`] | pinned flows and admitted addresses, between the two sides of a leg |
//! | [`legs`] | how legs of calls begin, and what they give back |
//! | [`departure`] | what a lost address takes with it |
//! | [`offers`] | what an offer changed, kept or taken back by its answer |
//! | [`routed`] | the same where there is no NAT |
//! | [`aware`] | the same for phones that know their public endpoints |
//! | [`dialog`] | transactions, calls and registrations: what begins and ends |
//! | [`commands`] | issuing commands, and what follows from their outcome |
//! | [`room`] | who goes first when a table is full |
//! | [`tcp`] | connections, and what becomes of their segments |
//! | [`timers`] | deadlines |
//! | [`keeping`] | what the next engine has to know, and its comparison with the kernel |
//! | [`views`] | copies of the tables, for who asks |

mod aware;
mod commands;
mod departure;
mod dialog;
mod expecting;
mod flows;
mod keeping;
mod legs;
mod media;
mod message;
mod offers;
mod pinholes;
mod pinning;
mod rerouting;
mod room;
mod routed;
mod sent_by;
mod tcp;
mod timers;
mod views;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Instant;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::binding::{BindingKey, Bindings};
use super::call::{Calls, Stream};
use super::command::{Command, CommandId, FlowKey, PinnedFlow, Transport};
use super::event::Event;
use super::flow::{Flow, Mapping, PublicSide};
use super::io::{Input, Output, PacketId};
use super::key::{Key, KeyHasher, Keyer};
use super::learning::Learning;
use super::parking::Parking;
use super::policy::Policy;
use super::registration::Registrations;
use super::rewrite::Edits;
use super::rewrite::sdp::{LocalStream, RemoteStream};
use super::shares::Shares;
use super::stats::{Sizes, Stats};
use super::transaction::Transactions;
use super::verdict::{Action, Reason, Verdict};
use crate::expiring::ExpiringMap;
use crate::sdp::Description;
use crate::sip::Message;
use crate::sip::body::PartLength;
use crate::span::Span;
use commands::Inflight;
use tcp::Connections;

/// The engine. See [`crate::alg`] for its contract.
#[derive(Debug)]
pub struct Engine {
    policy: Policy,
    keyer: Keyer,
    flows: ExpiringMap<FlowKey, Flow, FixedState>,
    learning: Learning,
    transactions: Transactions,
    calls: Calls,
    registrations: Registrations,
    /// What each host has of the tables.
    shares: Shares,
    /// Calls in the order of their beginning; those that nobody has answered go first when there is no room.
    half_open: VecDeque<Key>,
    bindings: Bindings,
    parking: Parking,
    recognised: aware::Recognised,
    connections: Connections,
    /// The packet that stands in for the one whose verdict was polled last.
    replaced: Vec<u8>,
    inflight: HashMap<CommandId, Inflight, FixedState>,
    /// Flows whose lifetime has to be set once the kernel's first two seconds are over, by that time.
    settling: VecDeque<(Instant, FlowKey)>,
    /// Flows whose lifetime has to be set because the ruleset was loaded again, and when that was.
    ungoverned: VecDeque<(Instant, FlowKey)>,
    outputs: VecDeque<Queued>,
    /// `None` only while a message is handled.
    scratch: Option<Box<Scratch>>,
    /// Another one, for what is done while the first is in use.
    spare: Option<Box<Scratch>>,
    last_command: u64,
    last_identity: u16,
    stats: Stats,
}

/// An output that waits to be polled. A rewrite's edits are in the scratch: there is at most one for an input.
#[derive(Debug)]
enum Queued {
    Command(Command),
    Accept { packet: PacketId, identity: Option<u32>, port: Option<u16>, reason: Reason },
    Rewrite { packet: PacketId, identity: Option<u32>, port: Option<u16>, spare_identity: u16 },
    Replace { packet: PacketId, bytes: Vec<u8>, reason: Reason },
    Drop { packet: PacketId, reason: Reason },
    Again(PacketId),
    Event(Event),
}

/// Memory that is used again for every message.
#[derive(Debug, Default)]
struct Scratch {
    message: Message,
    parts: Vec<Span>,
    description: Description,
    edits: Edits,
    local: Vec<LocalStream>,
    aware: Vec<LocalStream>,
    remote: Vec<RemoteStream>,
    streams: Vec<Stream>,
    flows: Vec<PinnedFlow>,
    peers: Vec<(BindingKey, Option<IpAddr>)>,
    needs: Vec<CommandId>,
    lengths: Vec<PartLength>,
}

impl Engine {
    /// An engine with these settings and empty tables.
    pub fn new(policy: Policy) -> Self {
        let hasher = FixedState::with_seed(policy.seed[0] ^ policy.seed[1].rotate_left(32));
        let limits = policy.limits;
        Self {
            keyer: Keyer::new(policy.seed),
            flows: ExpiringMap::new(limits.flows, hasher.clone()),
            learning: Learning::new(hasher.clone()),
            transactions: ExpiringMap::new(limits.transactions, KeyHasher::default()),
            calls: ExpiringMap::new(limits.calls, KeyHasher::default()),
            registrations: ExpiringMap::new(limits.registrations, KeyHasher::default()),
            shares: Shares::new(&limits, hasher.clone()),
            half_open: VecDeque::new(),
            bindings: Bindings::new(&policy, hasher.clone()),
            parking: Parking::new(limits.parked, hasher.clone()),
            recognised: aware::Recognised::new(hasher.clone()),
            connections: Connections::new(&limits, &hasher),
            replaced: Vec::new(),
            inflight: HashMap::with_hasher(hasher),
            settling: VecDeque::new(),
            ungoverned: VecDeque::new(),
            outputs: VecDeque::new(),
            scratch: None,
            spare: None,
            last_command: 0,
            last_identity: 0,
            stats: Stats::default(),
            policy,
        }
    }

    /// Follows other settings from now on. What lives stays as it is: bindings keep their ports, tables that are fuller
    /// than a new limit take nothing new until they are not, and who was admitted stays so until his call ends. The seed
    /// stays the old one, for the keys in the tables depend on it.
    pub fn set_policy(&mut self, policy: Policy) {
        let limits = policy.limits;
        self.flows.set_limit(limits.flows);
        self.transactions.set_limit(limits.transactions);
        self.calls.set_limit(limits.calls);
        self.registrations.set_limit(limits.registrations);
        self.parking.set_limit(limits.parked);
        self.connections.set_limits(&limits);
        self.bindings.set_policy(&policy);
        self.shares.set_limits(&limits);
        // Like the seed, the way of admission belongs to what is in the kernel already.
        self.policy = Policy { seed: self.policy.seed, admission: self.policy.admission, ..policy };
        self.advertise();
    }

    /// Gives all flows the texts that the settings ask for.
    fn advertise(&mut self) {
        let keys: Vec<FlowKey> = self.flows.iter().map(|(key, _)| *key).collect();
        for key in keys {
            if let Some(Flow { mapping: Mapping::Public(side), .. }) = self.flows.get_mut(&key) {
                **side = PublicSide::advertised(side.endpoint, &self.policy.advertise);
            }
        }
    }

    /// Takes one input. Drain [`Engine::poll_output`] before the next one.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        self.expire(now);
        match input {
            Input::Packet(packet) => {
                self.handle_packet(now, &packet);
                if !self.parking.waits(packet.id) {
                    self.learning.forget(packet.id);
                }
            }
            Input::Translated { packet, tuples } => self.learning.tell(now, packet, tuples),
            Input::CommandDone { id, outcome } => self.handle_done(now, id, outcome),
            Input::FlowDestroyed(tuples) => {
                if tuples.transport == Transport::Tcp {
                    self.connection_destroyed(&tuples);
                }
                self.handle_destroyed(now, &tuples);
            }
            Input::Mtu { interface, mtu } => self.note_mtu(interface, mtu),
            Input::AddressGone(address) => self.leave_address(now, address),
            Input::RulesetReloaded => self.sustain_all(now),
            Input::Timeout => self.renew(now),
        }
    }

    /// The next thing to do, first in, first out.
    pub fn poll_output(&mut self) -> Option<Output<'_>> {
        Some(match self.outputs.pop_front()? {
            Queued::Command(command) => Output::Command(command),
            Queued::Again(packet) => Output::Again(packet),
            Queued::Event(event) => Output::Event(event),
            Queued::Accept { packet, identity, port, reason } => {
                Output::Verdict(Verdict { packet, action: Action::Accept { identity }, port, reason })
            }
            Queued::Drop { packet, reason } => {
                Output::Verdict(Verdict { packet, action: Action::Drop, port: None, reason })
            }
            Queued::Replace { packet, bytes, reason } => {
                self.replaced = bytes;
                Output::Verdict(Verdict {
                    packet,
                    action: Action::Replace { packet: &self.replaced },
                    port: None,
                    reason,
                })
            }
            Queued::Rewrite { packet, identity, port, spare_identity } => {
                let edits = &self.scratch.get_or_insert_default().edits;
                let action = Action::Rewrite { edits, identity, spare_identity };
                Output::Verdict(Verdict { packet, action, port, reason: Reason::Rewritten })
            }
        })
    }

    /// What has been counted.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// How full the tables are.
    pub fn sizes(&self) -> Sizes {
        Sizes {
            flows: self.flows.len(),
            transactions: self.transactions.len(),
            calls: self.calls.len(),
            registrations: self.registrations.len(),
            bindings: self.bindings.len(),
            ports: self.bindings.ports_used(),
            parked: self.parking.len(),
            connections: self.connections.len(),
            held_segments: self.connections.load().held,
            stream_bytes: self.connections.load().bytes,
        }
    }

    fn accept(&mut self, packet: PacketId, identity: Option<u32>, reason: Reason) {
        self.accept_to(packet, identity, None, reason);
    }

    fn accept_to(&mut self, packet: PacketId, identity: Option<u32>, port: Option<u16>, reason: Reason) {
        self.stats.count(reason);
        self.outputs.push_back(Queued::Accept { packet, identity, port, reason });
    }

    fn drop_packet(&mut self, packet: PacketId, reason: Reason) {
        self.stats.count(reason);
        self.outputs.push_back(Queued::Drop { packet, reason });
    }

    fn rewrite(&mut self, packet: PacketId, identity: Option<u32>, port: Option<u16>) {
        self.stats.count(Reason::Rewritten);
        self.last_identity = self.last_identity.wrapping_add(1).max(1);
        let spare_identity = self.last_identity;
        self.outputs.push_back(Queued::Rewrite { packet, identity, port, spare_identity });
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Queued::Event(event));
    }
}
