//! Commands under way, and what follows from their outcome.
//!
//! A failed command undoes what was made for it and decides the verdict of the packets that waited
//! (`on-failure`). Commands that nobody waits for only leave a line in the log when they fail.

use std::net::IpAddr;
use std::time::Instant;

use super::super::binding::{Admitted, BindingKey, BindingKeys, Latch, State};
use super::super::call::{Before, Leg, Stream, Streams};
use super::super::command::{Command, CommandId, Failure, FlowKey, Op, Outcome, Pinholes, PinnedFlow, Reply};
use super::super::endpoint::Outside;
use super::super::event::Event;
use super::super::key::Key;
use super::super::policy::OnFailure;
use super::super::transaction::Tags;
use super::super::verdict::Reason;
use super::{Engine, Queued};

/// How many other ports are tried when something on this machine has the chosen one.
const TRIES: u8 = 16;

/// What a command was for.
#[derive(Clone, Debug)]
pub(super) enum Inflight {
    Lookup {
        asked: FlowKey,
    },
    Open {
        keys: BindingKeys,
        call: Key,
        tries: u8,
    },
    Admit {
        binding: BindingKey,
        far: Option<IpAddr>,
    },
    Pin {
        call: Key,
        tags: Tags,
        flow: PinnedFlow,
    },
    Expect {
        keys: BindingKeys,
    },
    Latch {
        binding: BindingKey,
        flow: PinnedFlow,
    },
    /// Asked because a leg has been silent: is there still media?
    Liveness {
        call: Key,
        tags: Tags,
    },
    /// Asked after a restart: is the flow still what it was?
    Recheck {
        flow: FlowKey,
    },
    /// Asked after a restart: is the pinned flow still there?
    Repin {
        call: Key,
        tags: Tags,
        flow: PinnedFlow,
    },
    /// Who is behind a public endpoint that a phone of this address wrote?
    Recognise {
        public: Outside,
        host: IpAddr,
    },
    /// A flow leaves by this uplink now: may its mapping stay?
    Reroute {
        flow: FlowKey,
        public: Outside,
        uplink: u32,
    },
    /// A TCP connection is to be followed before it goes on.
    Follow {
        flow: FlowKey,
    },
    /// Nobody waits for it; the text is its name in the log.
    Background(&'static str),
}

impl Engine {
    pub(super) fn command(&mut self, op: Op, purpose: Inflight) -> CommandId {
        let id = CommandId::nth(self.last_command);
        self.last_command += 1;
        self.inflight.insert(id, purpose);
        self.outputs.push_back(Queued::Command(Command { id, op }));
        id
    }

    pub(super) fn background(&mut self, op: Op, name: &'static str) {
        self.command(op, Inflight::Background(name));
    }

    pub(super) fn handle_done(&mut self, now: Instant, id: CommandId, outcome: Outcome) {
        let Some(purpose) = self.inflight.remove(&id) else { return };
        if let (Inflight::Open { keys, call, tries }, Err(Failure::PortInUse)) = (&purpose, &outcome)
            && *tries < TRIES
            && let Some(again) = self.move_elsewhere(now, keys, *call, *tries)
        {
            self.parking.replace(id, again);
            self.connections.replace(id, again);
            return;
        }
        let mut failure = outcome.err();
        match purpose {
            Inflight::Lookup { asked } => {
                let found = match outcome {
                    Ok(Reply::Found(found)) => found,
                    Ok(Reply::Done) | Err(_) => None,
                };
                self.looked_up(now, asked, found);
            }
            Inflight::Open { keys, call, .. } => self.opened(now, id, &keys, call, failure),
            Inflight::Admit { binding, far } => {
                self.failed("admit", failure);
                let ours = |peer: &Admitted| peer.far == far && peer.admitting == Some(id);
                if let Some(binding) = self.bindings.get_mut(&binding)
                    && let Some(at) = binding.peers.iter().position(ours)
                {
                    if failure.is_some() {
                        binding.peers.swap_remove(at);
                    } else if let Some(peer) = binding.peers.get_mut(at) {
                        peer.admitting = None;
                    }
                }
            }
            Inflight::Expect { keys } => {
                // Media before the answer is a good thing to have; the call goes on without.
                self.expected(&keys, failure.take());
            }
            Inflight::Pin { call, tags, flow } => self.pinned(call, tags, flow, failure),
            Inflight::Latch { binding, flow } => {
                self.failed("latch", failure);
                if failure.is_some() {
                    if let Some(binding) = self.bindings.get_mut(&binding) {
                        binding.latched.retain(|(latched, _)| *latched != flow);
                    }
                } else {
                    self.set_latch(&binding, &flow, Latch::Pinned);
                }
            }
            Inflight::Liveness { call, tags } => {
                let alive = matches!(outcome, Ok(Reply::Found(Some(_))));
                self.heard(now, call, tags, alive);
            }
            Inflight::Recognise { public, host } => {
                // A phone that is not recognised is served as far as that goes.
                self.failed("recognise", failure.take());
                self.recognised(now, public, host, outcome);
            }
            Inflight::Recheck { flow } => self.rechecked(now, flow, outcome),
            Inflight::Repin { call, tags, flow } => self.repin(call, tags, flow, outcome),
            Inflight::Reroute { flow, public, uplink } => {
                self.rerouted(now, flow, public, uplink, failure.take());
            }
            Inflight::Follow { flow } => {
                self.failed("follow", failure);
                self.followed(id, flow, failure);
            }
            // What is gone already is as gone as it should be.
            Inflight::Background(name) => self.failed(name, failure.filter(|it| *it != Failure::NotFound)),
        }
        self.resume_all(now, id, failure);
        let mut released = Vec::new();
        self.parking.done(id, failure, |it| released.push(it));
        for it in released {
            match (it.failure, self.policy.on_failure) {
                (None, _) => self.outputs.push_back(Queued::Again(it.packet)),
                (Some(_), OnFailure::Pass) => self.accept(it.packet, it.identity, Reason::CommandFailed),
                (Some(_), OnFailure::Drop) => self.drop_packet(it.packet, Reason::CommandFailedDropped),
            }
        }
    }

    fn opened(
        &mut self,
        now: Instant,
        id: CommandId,
        keys: &BindingKeys,
        call: Key,
        failure: Option<Failure>,
    ) {
        self.failed("open", failure);
        // A binding that was closed and made again in the meantime waits for a command of its own.
        let state = State::Opening(id);
        let ours = |key: &&BindingKey| self.bindings.get(key).is_some_and(|it| it.state == state);
        let keys: BindingKeys = keys.iter().filter(ours).copied().collect();
        if failure.is_some() {
            return self.forget(now, &keys, call);
        }
        for key in &keys {
            let Some(binding) = self.bindings.get_mut(key) else { continue };
            binding.state = State::Open;
            let pinhole = key.pinhole(binding.public());
            if let Some(call_id) = self.calls.get(&call).map(|call| call.names.call_id().to_owned()) {
                self.event(Event::Opened { pinhole, call_id });
            }
        }
    }

    /// The kernel could not make these bindings. What was made with them is undone: all of it in a dialog that has just
    /// begun; in one that stands only what needs them, for its media so far goes on.
    fn forget(&mut self, now: Instant, keys: &BindingKeys, call: Key) {
        for key in keys {
            self.bindings.remove(key, now, self.policy.quarantine);
        }
        let concerned = |leg: &Leg| leg.bindings().any(|key| keys.contains(&key));
        while let Some(it) = self.calls.get_mut(&call)
            && let Some(index) = it.legs.iter().position(concerned)
            && let Some(leg) = it.legs.get_mut(index)
        {
            leg.retired.retain(|key| !keys.contains(key));
            let whole = |stream: &Stream| !stream.keys().any(|key| keys.contains(&key));
            let (kept, broken): (Streams, Streams) = leg.local.iter().copied().partition(whole);
            leg.local = kept;
            leg.retired.extend(broken.iter().flat_map(Stream::keys).filter(|key| !keys.contains(key)));
            let local = leg.pending.iter().find(|it| matches!(it.before, Before::Local(_))).map(|it| it.by);
            if leg.is_early() {
                self.release_local(now, call, index);
            } else if let Some(by) = local {
                // The offer goes on untranslated; nobody will tell what becomes of it.
                self.take_back_offer(now, call, by);
            }
        }
    }

    fn pinned(&mut self, call: Key, tags: Tags, flow: PinnedFlow, failure: Option<Failure>) {
        self.failed("pin", failure);
        let leg = self.calls.get_mut(&call).and_then(|call| {
            let index = call.position(tags)?;
            call.legs.get_mut(index)
        });
        match leg {
            Some(leg) if failure.is_some() => {
                let before = leg.pins.len();
                leg.pins.retain(|pin| pin.flow() != flow);
                if leg.pins.len() < before {
                    self.bindings.uncount_pin(&flow);
                }
            }
            Some(leg) => {
                for pin in leg.pins.iter_mut().filter(|pin| pin.flow() == flow) {
                    pin.pinning = None;
                }
            }
            // The call ended while the command was under way.
            None if failure.is_none() && !self.bindings.is_pin_wanted(&flow) => {
                self.background(Op::Unpin { flow }, "unpin");
            }
            None => {}
        }
    }

    /// Other public ports for bindings whose first ones are taken by something on this machine.
    fn move_elsewhere(
        &mut self,
        now: Instant,
        keys: &BindingKeys,
        call: Key,
        tries: u8,
    ) -> Option<CommandId> {
        let first = keys.first()?;
        let public = self.bindings.get(first)?.public().0.ip();
        let count = u16::try_from(keys.len()).ok()?;
        let like = first.inside().0.port();
        let base = self.bindings.take_ports(public, like, count, now, &self.policy).ok()?;
        let mut pinholes = Pinholes::new();
        for (key, port) in keys.iter().zip(base..=u16::MAX) {
            self.bindings.move_to(key, port, now, self.policy.quarantine);
            pinholes.try_push(key.pinhole(self.bindings.get(key)?.public())).ok()?;
        }
        let lifetime = 2 * self.policy.half_open;
        let purpose = Inflight::Open { keys: keys.clone(), call, tries: tries + 1 };
        let id = self.command(Op::Open { pinholes, lifetime }, purpose);
        for key in keys {
            if let Some(binding) = self.bindings.get_mut(key) {
                binding.state = State::Opening(id);
            }
        }
        Some(id)
    }

    pub(super) fn failed(&mut self, what: &'static str, failure: Option<Failure>) {
        if let Some(failure) = failure {
            self.event(Event::CommandFailed { what, failure });
        }
    }
}
