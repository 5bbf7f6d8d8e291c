//! Drives the engine for one datagram after the other, as the daemon would, with a router that does not exist.
//!
//! The contract is the engine's own: one input, then all of its outputs. Commands are answered at once by
//! [`Nat`]; the first outbound datagram of a flow goes the same two trips as in the kernel, and the second one shows
//! what the NAT made of its source.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::nat::Nat;
use super::wire;
use crate::alg::flow;
use crate::alg::rewrite::left::{self, Why};
use crate::alg::{
    Action, Command, Engine, Event, Executor, Input, Outcome, Output, PacketId, PacketIn, Policy, QueuePoint,
    Reason, Rule, Verdict,
};
use crate::span::Span;

/// Interface numbers of the router, so that the engine can tell its two sides.
const INSIDE: u32 = 2;
const UPLINK: u32 = 3;

/// The engine between a router that does not exist and whoever hands in datagrams.
#[derive(Debug)]
pub(super) struct Session {
    engine: Engine,
    nat: Nat,
    start: Instant,
    elapsed: Duration,
    packets: u64,
    /// Flows that have had their first packet, by both ends as seen at FORWARD, the smaller first.
    flows: BTreeSet<[SocketAddr; 2]>,
}

/// Which way a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// From inside to outside.
    Out,
    /// From outside to inside.
    In,
    /// Not through the NAT.
    Through,
}

impl Direction {
    /// Stable name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::In => "in",
            Self::Through => "through",
        }
    }
}

/// What becomes of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes as it came.
    Accept,
    /// It goes with changes.
    Rewrite,
    /// It does not go.
    Drop,
}

impl Fate {
    /// Stable name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Rewrite => "rewrite",
            Self::Drop => "drop",
        }
    }
}

/// One replacement in the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// First byte of the original that is replaced.
    pub(super) offset: usize,
    /// What stood there.
    pub(super) old: Vec<u8>,
    /// What stands there now.
    pub(super) new: Vec<u8>,
    /// Why.
    pub(super) rule: Rule,
}

/// An inside address that stays in the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// Its first byte in the original.
    pub(super) offset: usize,
    /// The address as written.
    pub(super) text: String,
    /// Where it stands, in words.
    pub(super) place: String,
    /// Why.
    pub(super) why: Why,
}

/// All that happened to one datagram.
#[derive(Debug)]
pub(super) struct Passage {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) direction: Direction,
    pub(super) fate: Fate,
    pub(super) reason: Reason,
    /// The port that it goes to instead of its own.
    pub(super) port: Option<u16>,
    pub(super) before: Vec<u8>,
    pub(super) after: Vec<u8>,
    pub(super) changes: Vec<Change>,
    /// Inside addresses in `before` that no change covers.
    pub(super) left: Vec<Left>,
    pub(super) commands: Vec<(Command, Outcome)>,
    pub(super) events: Vec<Event>,
}

impl Session {
    /// A new engine behind `nat`.
    pub(super) fn new(policy: Policy, nat: Nat) -> Self {
        Self {
            engine: Engine::new(policy),
            nat,
            start: Instant::now(),
            elapsed: Duration::ZERO,
            packets: 0,
            flows: BTreeSet::new(),
        }
    }

    /// Says that a flow has had its first packet before the first one that is handed in.
    pub(super) fn know(&mut self, one: SocketAddr, other: SocketAddr) {
        self.flows.insert(flow(one, other));
    }

    /// Lets time pass until `elapsed` after the beginning: whatever falls due is done. Time never runs backwards.
    /// Commands and events of that time are returned.
    pub(super) fn advance(&mut self, elapsed: Duration) -> (Vec<(Command, Outcome)>, Vec<Event>) {
        let mut events = Vec::new();
        while let Some(due) = self.engine.poll_timeout() {
            let due = due.saturating_duration_since(self.start);
            if due > elapsed {
                break;
            }
            // A deadline that does not move would be visited for ever: time goes on by a little each time.
            self.elapsed = due.max(self.elapsed + Duration::from_millis(1));
            self.turn(Input::Timeout, &[], &mut events);
        }
        self.elapsed = self.elapsed.max(elapsed);
        (self.nat.take_log(), events)
    }

    /// Sends one IP packet through. `datagram` is what it carries.
    pub(super) fn pass(&mut self, packet: &[u8], datagram: wire::Carried<'_>) -> Passage {
        let wire::Carried { source, destination, payload } = datagram;
        let direction = self.nat.direction(source, destination);
        let first = self.flows.insert(flow(source, destination)) && direction != Direction::In;
        if !first {
            self.nat.track(source, destination);
        }

        let mut events = Vec::new();
        let decision = if first {
            let at_forward = self.queue(QueuePoint::NewFlow, direction, packet, &mut events);
            match (at_forward.reason, at_forward.identity) {
                (Reason::Learning, Some(identity)) => {
                    let source = self.nat.translate(source, destination);
                    let after_nat = wire::translated(packet, identity, source);
                    self.queue(QueuePoint::Learn, direction, &after_nat, &mut events)
                }
                _ => at_forward,
            }
        } else {
            self.queue(QueuePoint::Signalling, direction, packet, &mut events)
        };
        let left = self.left(&datagram, direction, &decision);
        let after = match decision.fate {
            Fate::Rewrite => decision.after,
            Fate::Accept => payload.to_vec(),
            Fate::Drop => Vec::new(),
        };
        Passage {
            source,
            destination,
            direction,
            fate: decision.fate,
            reason: decision.reason,
            port: decision.port,
            left,
            before: payload.to_vec(),
            after,
            changes: decision.changes,
            commands: self.nat.take_log(),
            events,
        }
    }

    /// What `decision` leaves of inside addresses.
    fn left(&self, datagram: &wire::Carried<'_>, direction: Direction, decision: &Decision) -> Vec<Left> {
        let (way, own) = match direction {
            Direction::Out | Direction::Through => (flow::Direction::Outbound, datagram.source),
            Direction::In => (flow::Direction::Inbound, datagram.destination),
        };
        let touched = matches!(decision.reason, Reason::Rewritten | Reason::Unchanged | Reason::Protected);
        let changed = |change: &Change| Span::new(change.offset, change.offset + change.old.len());
        let edited: Vec<Span> = decision.changes.iter().map(changed).collect();
        let (payload, is_inside) = (datagram.payload, |ip| self.nat.is_inside(ip));
        left::left(payload, way, own.ip(), is_inside, touched, &edited)
            .into_iter()
            .map(|it| Left {
                offset: it.span.range().start,
                text: String::from_utf8_lossy(it.span.of(payload)).into_owned(),
                place: it.place.text(payload),
                why: it.why,
            })
            .collect()
    }

    /// Hands one packet in and waits for its verdict.
    fn queue(
        &mut self,
        point: QueuePoint,
        direction: Direction,
        bytes: &[u8],
        events: &mut Vec<Event>,
    ) -> Decision {
        self.packets += 1;
        let (indev, outdev) = match direction {
            Direction::Out | Direction::Through => (INSIDE, UPLINK),
            Direction::In => (UPLINK, INSIDE),
        };
        let packet = PacketIn { id: PacketId(self.packets), point, indev, outdev, bytes };
        // Without a verdict the packet would be dropped; the engine gives each packet exactly one.
        self.turn(Input::Packet(packet), &[packet], events).unwrap_or(Decision {
            fate: Fate::Drop,
            reason: Reason::CommandFailed,
            identity: None,
            port: None,
            after: Vec::new(),
            changes: Vec::new(),
        })
    }

    /// One input and all that follows from it. `packets` are those that the engine may ask for again.
    fn turn(
        &mut self,
        input: Input<'_>,
        packets: &[PacketIn<'_>],
        events: &mut Vec<Event>,
    ) -> Option<Decision> {
        let now = self.start + self.elapsed;
        let mut inputs = VecDeque::from([input]);
        let mut decision = None;
        while let Some(input) = inputs.pop_front() {
            self.engine.handle(now, input);
            let mut commands = Vec::new();
            while let Some(output) = self.engine.poll_output() {
                match output {
                    Output::Command(command) => commands.push(command),
                    Output::Again(id) => {
                        inputs.extend(
                            packets.iter().filter(|packet| packet.id == id).copied().map(Input::Packet),
                        );
                    }
                    Output::Event(event) => events.push(event),
                    Output::Verdict(verdict) => {
                        let payload = packets
                            .iter()
                            .find(|packet| packet.id == verdict.packet)
                            .and_then(|packet| wire::carried(packet.bytes))
                            .map(|carried| carried.payload);
                        decision = Some(Decision::new(&verdict, payload.unwrap_or_default()));
                    }
                }
            }
            let mut outcomes = Vec::with_capacity(commands.len());
            self.nat.execute(&commands, &mut outcomes);
            // Answers come before packets that wait for them.
            for (command, outcome) in commands.iter().zip(outcomes).rev() {
                inputs.push_front(Input::CommandDone { id: command.id, outcome });
            }
        }
        decision
    }
}

/// A verdict that has left the engine.
#[derive(Debug)]
struct Decision {
    fate: Fate,
    reason: Reason,
    identity: Option<u32>,
    port: Option<u16>,
    after: Vec<u8>,
    changes: Vec<Change>,
}

impl Decision {
    fn new(verdict: &Verdict<'_>, payload: &[u8]) -> Self {
        let Verdict { action, port, reason, .. } = verdict;
        let (fate, after, changes) = (Fate::Accept, Vec::new(), Vec::new());
        let mut decision = Self { fate, reason: *reason, identity: None, port: *port, after, changes };
        match action {
            Action::Accept { identity } => decision.identity = *identity,
            Action::Drop => decision.fate = Fate::Drop,
            // Captures of TCP are not explained message by message.
            Action::Replace { .. } => decision.fate = Fate::Rewrite,
            Action::Rewrite { edits, identity, .. } => {
                decision.fate = Fate::Rewrite;
                decision.identity = *identity;
                edits.apply(payload, &mut decision.after);
                decision.changes = edits
                    .iter()
                    .map(|edit| Change {
                        offset: edit.span.range().start,
                        old: edit.span.of(payload).to_vec(),
                        new: edits.text(edit).to_vec(),
                        rule: edit.rule,
                    })
                    .collect();
            }
        }
        decision
    }
}

/// Both ends of a flow, in an order that does not depend on the direction.
fn flow(one: SocketAddr, other: SocketAddr) -> [SocketAddr; 2] {
    [one.min(other), one.max(other)]
}
