//! What lies between the two sides of a leg: pinned flows, and far addresses that are admitted.
//!
//! [`Engine::pin_leg`] compares what both sides say with what is there. Of UDP each pair of endpoints is a flow, pinned with
//! the answer; of TCP it is known who will connect, but not from which port: he is admitted, and pinned when he comes.

use std::net::IpAddr;
use std::time::Instant;

use smallvec::SmallVec;

use super::super::binding::{Admitted, BindingKey};
use super::super::call::{Before, Call, Leg, Pending, Pin, Target};
use super::super::command::{CommandId, Op, Peer, PinnedFlow, Transport};
use super::super::endpoint::{Inside, Outside};
use super::super::flow::Direction;
use super::super::key::Key;
use super::super::policy::MediaSource;
use super::commands::Inflight;
use super::{Engine, Scratch};

impl Engine {
    /// Brings pinned flows and admitted peers of a leg in line with its two sides. New ones go into `scratch.needs`.
    /// An offer may be refused, and media goes on as before until it is answered (RFC 3264 section 8.3.1): so it only
    /// adds, and what it replaces goes with its answer.
    pub(super) fn pin_leg(
        &mut self,
        now: Instant,
        call_key: Key,
        index: usize,
        is_answer: bool,
        scratch: &mut Scratch,
    ) {
        let Scratch { flows, peers, needs, .. } = scratch;
        flows.clear();
        peers.clear();
        let Some(call) = self.calls.get(&call_key) else { return };
        let Some(leg) = call.legs.get(index) else { return };
        let turned = self.gather(call, leg, is_answer, flows, peers);
        // What is there is taken back only when the far end named something else, never because it fell silent. So is
        // nothing done when nothing has changed, but what is under way has to be waited for.
        let lapsed = |flow: &PinnedFlow| {
            self.bindings.by_public(flow.public).is_some_and(|(_, binding)| is_answer && binding.lapsed)
        };
        let unchanged = flows.iter().copied().eq(leg.pins.iter().map(Pin::flow))
            && **peers == *leg.admitted
            && peers.iter().all(|(key, far)| self.is_admitted(key, *far))
            && !flows.iter().any(lapsed);
        if flows.is_empty() && peers.is_empty() && !turned || unchanged {
            // Media that is refused, on hold, or takes another way is not expected any more either.
            if is_answer {
                self.unexpect_leg(call_key, index);
            }
            let Some(leg) = self.calls.get(&call_key).and_then(|call| call.legs.get(index)) else { return };
            needs.extend(leg.pins.iter().filter_map(|pin| pin.pinning));
            let admitting = leg.admitted.iter().filter_map(|(key, far)| self.admitting(key, *far));
            needs.extend(admitting);
            return;
        }
        let (signalling, tags) = (call.flow.get(), leg.tags);
        let (old_peers, mut old_pins) = (leg.admitted.clone(), leg.pins.clone());
        let counted: Vec<PinnedFlow> = old_pins.iter().map(Pin::flow).collect();
        // What conntrack has forgotten in a long silence is made again, before the far end's media finds it missing.
        old_pins.retain(|pin| !flows.contains(&pin.flow()) || !lapsed(&pin.flow()));
        if is_answer {
            for stream in leg.local.clone() {
                for key in stream.keys() {
                    if let Some(binding) = self.bindings.get_mut(&key) {
                        binding.lapsed = false;
                    }
                }
            }
        }
        for flow in old_pins.iter().map(Pin::flow).filter(|flow| !flows.contains(flow)) {
            self.unpin(&flow);
        }
        for (key, far) in old_peers.iter().filter(|peer| !peers.contains(peer)) {
            self.dismiss(key, *far);
        }
        for (key, far) in peers.iter() {
            let known = old_peers.contains(&(*key, *far));
            needs.extend(self.admit(now, key, *far, known));
        }
        // First: what has come by an expectation makes room for the pin.
        for (key, _) in peers.iter() {
            self.unexpect(key);
        }
        if is_answer {
            self.unexpect_leg(call_key, index);
        }
        let mut pins = SmallVec::new();
        for flow in flows.iter().copied() {
            let pinning = match old_pins.iter().find(|pin| pin.flow() == flow) {
                Some(pin) => pin.pinning,
                None => {
                    if !counted.contains(&flow) {
                        self.bindings.count_pin(&flow);
                    }
                    let purpose = Inflight::Pin { call: call_key, tags, flow };
                    Some(self.command(Op::Pin { flow, signalling }, purpose))
                }
            };
            needs.extend(pinning);
            pins.push(Pin::new(flow, pinning));
        }
        if let Some(leg) = self.calls.get_mut(&call_key).and_then(|call| call.legs.get_mut(index)) {
            leg.pins = pins;
            leg.admitted = peers.as_slice().into();
        }
    }

    /// What should lie between the two sides of a leg, for [`Engine::pin_leg`]. `true`: a connection that could come will
    /// not, so that there may be less than before.
    fn gather(
        &self,
        call: &Call,
        leg: &Leg,
        is_answer: bool,
        flows: &mut Vec<PinnedFlow>,
        peers: &mut Vec<(BindingKey, Option<IpAddr>)>,
    ) -> bool {
        if !is_answer {
            flows.extend(leg.pins.iter().map(Pin::flow));
            peers.extend(leg.admitted.iter().copied());
        }
        // What the far end offers meanwhile is not agreed upon, and may be refused too (RFC 3261 section 14.2).
        let crosses = |it: &&Pending| {
            self.transactions.get(&it.by).is_some_and(|it| it.direction == Direction::Inbound && !it.finished)
        };
        let agreed =
            leg.pending.iter().filter(|_| !is_answer).filter(crosses).find_map(|it| match &it.before {
                Before::Remote(remotes) => Some(remotes),
                Before::Local(_) | Before::Routed(_) => None,
            });
        let remotes = agreed.unwrap_or(&leg.remote);
        // A stream that stands at a public endpoint of the phone's own by now keeps its doors, as one on hold does, and is
        // pinned by that endpoint alone.
        let moved = |media| leg.routed.iter().any(|it| it.media == media && it.known_as != [None; 2]);
        for stream in leg.local.iter().filter(|stream| !moved(stream.media)) {
            let Some(remote) = remotes.get(usize::from(stream.media)) else { continue };
            let keys = [Some(stream.rtp), stream.rtcp];
            for (key, target) in keys.into_iter().zip(remote.targets(stream.mux)) {
                let target = target.and_then(|target| target.of_pair(stream.pair, remote.count));
                let (Some(key), Some(target)) = (key, target) else { continue };
                let Some(binding) = self.bindings.get(&key) else { continue };
                if key.transport() == Transport::Tcp {
                    // The port that it will connect from is its own choice: it is let in, and pinned when it comes. Nobody
                    // else ever is, whatever the policy says of datagrams (S9).
                    let caller = caller(&key, target).map(|far| (key, Some(far)));
                    peers.extend(caller.filter(|it| !peers.contains(it)));
                    continue;
                }
                if let Some((flow, far)) = pinned(&key, binding.public(), target)
                    && !is_pinned(flows, &flow)
                {
                    let far = far.filter(|_| self.policy.media_source == MediaSource::Negotiated);
                    flows.push(flow);
                    peers.push((key, far));
                }
            }
        }
        for flow in super::routed::flows(leg, call.flow.get()) {
            if !is_pinned(flows, &flow) {
                flows.push(flow);
            }
        }
        // Only of a connection it may be said that it comes no more: the phone is to open it.
        let turned = is_answer
            && leg.admitted.iter().any(|it| it.0.transport() == Transport::Tcp && !peers.contains(it));
        if turned && flows.is_empty() {
            flows.extend(leg.pins.iter().map(Pin::flow));
            peers.extend(leg.admitted.iter().filter(|it| it.0.transport() == Transport::Udp));
        }
        turned
    }

    fn is_admitted(&self, key: &BindingKey, far: Option<IpAddr>) -> bool {
        self.bindings.get(key).is_some_and(|binding| binding.peers.iter().any(|entry| entry.far == far))
    }

    pub(super) fn admitting(&self, key: &BindingKey, far: Option<IpAddr>) -> Option<CommandId> {
        let binding = self.bindings.get(key)?;
        binding.peers.iter().find(|entry| entry.far == far)?.admitting
    }

    /// Admits `far` to a binding, or counts one more that wants it. The answer is the command to wait for.
    fn admit(
        &mut self,
        now: Instant,
        key: &BindingKey,
        far: Option<IpAddr>,
        known: bool,
    ) -> Option<CommandId> {
        let binding = self.bindings.get_mut(key)?;
        if let Some(entry) = binding.peers.iter_mut().find(|entry| entry.far == far) {
            entry.wanted += u16::from(!known);
            return entry.admitting;
        }
        let peer = Peer { transport: key.transport(), public: binding.public(), far };
        let lifetime = 2 * self.policy.half_open;
        let op = Op::Admit { peers: vec![peer], lifetime };
        let id = self.command(op, Inflight::Admit { binding: *key, far });
        // The binding may not be due for renewal for a long time.
        self.bindings.renew_by(key, now + self.policy.half_open);
        let binding = self.bindings.get_mut(key)?;
        binding.peers.push(Admitted { far, wanted: 1, admitting: Some(id) });
        Some(id)
    }

    /// One less wants `far` admitted; the last one closes.
    pub(super) fn dismiss(&mut self, key: &BindingKey, far: Option<IpAddr>) {
        let Some(binding) = self.bindings.get_mut(key) else { return };
        let Some(at) = binding.peers.iter().position(|entry| entry.far == far) else { return };
        let Some(entry) = binding.peers.get_mut(at) else { return };
        entry.wanted = entry.wanted.saturating_sub(1);
        if entry.wanted > 0 {
            return;
        }
        binding.peers.swap_remove(at);
        let peers = vec![Peer { transport: key.transport(), public: binding.public(), far }];
        self.background(Op::Dismiss { peers }, "dismiss");
    }

    /// One leg less wants a flow pinned; when none of any call is left, its entry goes.
    pub(super) fn unpin(&mut self, flow: &PinnedFlow) {
        let wanted = self.bindings.uncount_pin(flow);
        if !wanted {
            self.background(Op::Unpin { flow: *flow }, "unpin");
        }
    }
}

/// Whether there is an entry for this flow in the list. By which public endpoint does not matter: conntrack knows one, and
/// that of an offer has to wait until it is answered.
fn is_pinned(flows: &[PinnedFlow], flow: &PinnedFlow) -> bool {
    flows.iter().any(|it| (it.inside, it.far) == (flow.inside, flow.far))
}

/// The flow between a binding and a target, and the address to admit for it; nothing for direct media.
fn pinned(key: &BindingKey, public: Outside, target: Target) -> Option<(PinnedFlow, Option<IpAddr>)> {
    let (transport, inside) = (key.transport(), key.inside());
    match target {
        Target::Direct => None,
        Target::Far(far) => {
            let far = far.endpoint();
            let flow = PinnedFlow { transport, inside, far, public, hairpin: None };
            // Nobody here translates between the families.
            (far.is_ipv4() == inside.0.is_ipv4()).then_some((flow, Some(far.ip())))
        }
        Target::Hairpin { public: far, inside: other } => {
            let (far, other) = (far.endpoint(), Inside(other.endpoint()));
            let flow = PinnedFlow { transport, inside, far, public, hairpin: Some(other) };
            Some((flow, Some(other.0.ip())))
        }
    }
}

/// Who may connect to a binding for TCP, if anybody is to. Between two phones behind the same NAT nobody does: where they
/// are named to each other directly they need no door, and by the router there is no way for connections.
fn caller(key: &BindingKey, target: Target) -> Option<IpAddr> {
    match target {
        Target::Far(far) => Some(far.endpoint().ip()).filter(|ip| ip.is_ipv4() == key.inside().0.is_ipv4()),
        Target::Direct | Target::Hairpin { .. } => None,
    }
}
