//! Deadlines: everything that ends by itself.
//!
//! Each input first brings the tables up to its time, so that an old entry is never mistaken for a live one. What has
//! to stay is renewed in the kernel here too.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;

use super::super::binding::BindingKey;
use super::super::call::Phase;
use super::super::command::{FlowKey, Op, Pinholes, PinnedFlow};
use super::super::key::Key;
use super::super::transaction::Tags;
use super::Engine;
use super::commands::Inflight;

/// A call on hold needs no media; but nobody holds for longer than this.
const LONGEST_HOLD: Duration = Duration::from_secs(12 * 3600);
/// conntrack reports the end of an entry up to a minute late; only then is silence silence.
const LATE: Duration = Duration::from_secs(75);
/// So many bindings are renewed at a time, and so many flows sustained.
const RENEWALS: usize = 256;
/// So many flows of one leg are asked for.
const QUESTIONS: usize = 16;

impl Engine {
    /// When to call [`Engine::handle`] with [`Input::Timeout`](super::Input::Timeout) at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [
            self.flows.poll_timeout(),
            self.transactions.poll_timeout(),
            self.calls.poll_timeout(),
            self.registrations.poll_timeout(),
            self.bindings.poll_timeout(),
            self.connections.poll_timeout(),
            self.settling.front().map(|(due, _)| *due),
            self.ungoverned.front().map(|(since, _)| *since),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((key, flow)) = self.flows.pop_expired(now) {
            self.forget_flow(key, flow);
        }
        while let Some((key, transaction)) = self.transactions.pop_expired(now) {
            self.count_transaction_off(&transaction);
            self.take_back_offer(now, transaction.call, key);
            // Nobody answered the phone's BYE: the other side is gone (RFC 3261 section 15.1.1). A BYE that the phone
            // does not answer may be a forged one.
            if transaction.is_lost_bye() {
                self.end_dialog(now, transaction.call, transaction.tags, "lost");
            }
        }
        self.expire_registrations(now);
        while let Some(&(due, key)) = self.settling.front()
            && due <= now
        {
            self.settling.pop_front();
            if self.flows.get(&key).is_some_and(|flow| flow.answered && flow.seen_as(key.inside).is_some()) {
                self.sustain(now, key);
            }
        }
        self.expire_connections(now);
        self.expire_calls(now);
        if self.bindings.poll_timeout().is_some_and(|due| due <= now) {
            self.bindings.tidy(now);
        }
    }

    /// A PBX may have thousands on one flow, and all of them expire at once when its registrar is gone: the flow's list is
    /// gone through once for all of them.
    fn expire_registrations(&mut self, now: Instant) {
        let mut flows: Vec<FlowKey> = Vec::new();
        while let Some((_, gone)) = self.registrations.pop_expired(now) {
            let flow = gone.flow.get();
            if flows.last() != Some(&flow) {
                flows.push(flow);
            }
            self.count_registration_off(*gone, "expired");
        }
        flows.sort_unstable();
        flows.dedup();
        for key in flows {
            if let Some(flow) = self.flows.get_mut(&key) {
                flow.registrations.retain(|it| self.registrations.get(it).is_some());
                if flow.registrations.is_empty() {
                    flow.registered = None;
                }
            }
        }
    }

    fn expire_calls(&mut self, now: Instant) {
        while let Some((key, call)) = self.calls.pop_expired(now) {
            // The map gave the call away; it goes back before its legs are looked at.
            let kept = self.calls.insert(key, call, now + LONGEST_HOLD);
            debug_assert!(kept.is_ok(), "the call was there a moment ago");
            while let Some(index) = self.due_leg(key, now) {
                self.leg_is_due(now, key, index);
            }
            if let Some(deadline) = self.calls.get(&key).and_then(|call| call.deadline()) {
                self.calls.set_deadline(&key, deadline);
            }
        }
    }

    fn due_leg(&self, key: Key, now: Instant) -> Option<usize> {
        self.calls.get(&key)?.legs.iter().position(|leg| leg.deadline <= now)
    }

    /// A leg's time is over: an early one ends; a confirmed one is asked whether its media still flows.
    fn leg_is_due(&mut self, now: Instant, key: Key, index: usize) {
        let usual = self.policy.media_inactivity;
        let Some(call) = self.calls.get_mut(&key) else { return };
        let (flow, ringing, answered) = (call.flow.get(), call.legs.len(), call.answered.is_some());
        let Some(leg) = call.legs.get_mut(index) else { return };
        match leg.phase {
            Phase::Confirmed => {}
            Phase::Leaving => return self.end_leg(now, key, index, "bye"),
            Phase::Offered | Phase::Ringing => {
                let why = if answered && ringing > 1 { "lost the fork" } else { "no answer" };
                return self.end_leg(now, key, index, why);
            }
        }
        // A flow that died shows that there was media until shortly before.
        let died = leg.bindings().filter_map(|key| self.bindings.get(&key)?.died).max();
        leg.heard = died.map_or(leg.heard, |died| died.max(leg.heard));
        let quiet = now.saturating_duration_since(leg.heard);
        let interval = Duration::from_secs(leg.interval.unwrap_or_default().into());
        let idle = usual.max(interval.min(LONGEST_HOLD));
        if quiet < idle {
            leg.deadline = (leg.heard + idle).min(now + usual);
            return self.sustain_idle(now, flow);
        }
        let mut questions: ArrayVec<PinnedFlow, QUESTIONS> = ArrayVec::new();
        if !leg.held.local && !leg.held.remote {
            let latched = leg.bindings().filter_map(|key| self.bindings.get(&key)).flat_map(|it| &it.latched);
            let flows = latched.map(|(flow, _)| *flow).chain(leg.pins.iter().map(|pin| pin.flow()));
            questions.extend(flows.take(QUESTIONS));
        }
        leg.deadline = now + usual;
        if questions.is_empty() {
            // On hold, direct, or with a far end that is only a name: there is no media to ask for.
            if quiet >= LONGEST_HOLD {
                return self.end_leg(now, key, index, "inactive");
            }
            return self.sustain_idle(now, flow);
        }
        let tags = leg.tags;
        leg.asked = questions.len() as u8;
        for PinnedFlow { transport, inside, far, .. } in questions {
            let question = Op::Lookup { transport, source: inside.0, destination: far };
            self.command(question, Inflight::Liveness { call: key, tags });
        }
    }

    /// Whether a flow of a silent leg still has media.
    pub(super) fn heard(&mut self, now: Instant, call_key: Key, tags: Tags, alive: bool) {
        let Some(call) = self.calls.get_mut(&call_key) else { return };
        let flow = call.flow.get();
        let Some(index) = call.position(tags) else { return };
        let Some(leg) = call.legs.get_mut(index) else { return };
        leg.asked = leg.asked.saturating_sub(1);
        if alive {
            leg.heard = now;
            leg.silent = false;
            self.sustain_idle(now, flow);
        } else if leg.asked == 0 && leg.heard < now {
            if leg.silent {
                return self.end_leg(now, call_key, index, "inactive");
            }
            leg.silent = true;
            leg.deadline = now + LATE;
            if let Some(deadline) = call.deadline() {
                self.calls.set_deadline(&call_key, deadline);
            }
        }
    }

    /// Flows that are up have lost the ruleset's lifetime rule for good: from now on their lifetime is ours to set.
    pub(super) fn sustain_all(&mut self, now: Instant) {
        let mut flows: Vec<_> = self.flows.iter().map(|(key, _)| *key).collect();
        flows.sort_unstable();
        for key in &flows {
            if let Some(flow) = self.flows.get_mut(key) {
                flow.governed = false;
            }
        }
        self.ungoverned = flows.into_iter().map(|key| (now, key)).collect();
        self.sustain_some(now);
    }

    /// The next of those that [`Engine::sustain_all`] has left.
    fn sustain_some(&mut self, now: Instant) {
        let portion = self.ungoverned.len().min(RENEWALS);
        for (_, key) in self.ungoverned.drain(..portion).collect::<Vec<_>>() {
            if self.flows.get(&key).is_some_and(|flow| flow.answered && flow.seen_as(key.inside).is_some()) {
                self.sustain(now, key);
            }
        }
        if self.ungoverned.is_empty() {
            self.ungoverned = VecDeque::new();
        }
    }

    /// Renews what is still owned; the kernel's own lifetimes end the rest. After a rush, or when the ruleset was loaded
    /// again, thousands are due at one moment: packets come in between.
    pub(super) fn renew(&mut self, now: Instant) {
        self.sustain_some(now);
        let lifetime = self.policy.pinhole_lifetime;
        for _ in 0..RENEWALS {
            let Some(key) = self.bindings.pop_renewal(now, now + lifetime / 2) else { return };
            self.renew_one(&key);
        }
    }

    pub(super) fn renew_one(&mut self, key: &BindingKey) {
        let Some(binding) = self.bindings.get(key) else { return };
        let peers = binding.peers(key.transport()).collect();
        let pinholes = Pinholes::from_iter([key.pinhole(binding.public())]);
        let lifetime = self.policy.pinhole_lifetime;
        self.background(Op::Renew { pinholes, peers, lifetime }, "renew");
    }
}
