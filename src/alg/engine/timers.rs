//! Deadlines: everything that ends by itself.
//!
//! Each input first brings the tables up to its time, so that an old entry is never mistaken for a live one. What has
//! to stay is renewed in the kernel here too.

use std::time::{Duration, Instant};

use super::super::binding::BindingKey;
use super::super::call::Phase;
use super::super::command::{Op, Pinholes, Transport};
use super::super::envelope::Method;
use super::super::key::Key;
use super::super::transaction::Tags;
use super::Engine;
use super::commands::Inflight;

/// A call on hold needs no media; but nobody holds for longer than this.
const LONGEST_HOLD: Duration = Duration::from_secs(12 * 3600);

impl Engine {
    /// When to call [`Engine::handle`] with [`Input::Timeout`](super::Input::Timeout) at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [
            self.flows.poll_timeout(),
            self.transactions.poll_timeout(),
            self.calls.poll_timeout(),
            self.registrations.poll_timeout(),
            self.bindings.poll_timeout(),
            self.settling.front().map(|(due, _)| *due),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    pub(super) fn expire(&mut self, now: Instant) {
        while self.flows.pop_expired(now).is_some() {}
        while let Some((_, transaction)) = self.transactions.pop_expired(now) {
            // Nobody answered the BYE: the other side is gone (RFC 3261 section 15.1.1).
            if transaction.method == Method::Bye && !transaction.finished {
                self.end_dialog(now, transaction.call, transaction.tags, "lost");
            }
        }
        while let Some((_, gone)) = self.registrations.pop_expired(now) {
            self.unregistered(gone, "expired");
        }
        while let Some(&(due, key)) = self.settling.front()
            && due <= now
        {
            self.settling.pop_front();
            if self.flows.get(&key).is_some_and(|flow| flow.answered && flow.seen_as(key.inside).is_some()) {
                self.sustain(now, key);
            }
        }
        self.expire_calls(now);
        self.renew(now);
        if self.bindings.poll_timeout().is_some_and(|due| due <= now) {
            self.bindings.tidy(now);
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
        let idle = self.policy.media_inactivity;
        let Some(call) = self.calls.get_mut(&key) else { return };
        let ringing = call.legs.len();
        let Some(leg) = call.legs.get_mut(index) else { return };
        if leg.phase != Phase::Confirmed {
            let why = if call.answered.is_some() && ringing > 1 { "lost the fork" } else { "no answer" };
            return self.end_leg(now, key, index, why);
        }
        let asked = leg.pins.first().filter(|_| !leg.held).map(|pin| (pin.flow, leg.tags));
        let Some((flow, tags)) = asked else {
            // On hold, direct, or with a far end that is only a name: there is no media to ask for.
            if leg.waited {
                return self.end_leg(now, key, index, "inactive");
            }
            leg.waited = true;
            leg.deadline = now + LONGEST_HOLD;
            return;
        };
        leg.deadline = now + idle;
        let question = Op::Lookup { transport: Transport::Udp, source: flow.inside.0, destination: flow.far };
        self.command(question, Inflight::Liveness { call: key, tags });
    }

    /// Whether a silent leg still has media.
    pub(super) fn heard(&mut self, now: Instant, call: Key, tags: Tags, alive: bool) {
        if !alive {
            self.end_dialog(now, call, tags, "inactive");
        }
    }

    /// Flows that are up have lost the ruleset's lifetime rule for good: from now on their lifetime is ours to set.
    pub(super) fn sustain_all(&mut self, now: Instant) {
        let mut flows: Vec<_> = self.flows.iter().map(|(key, _)| *key).collect();
        flows.sort_unstable();
        for key in flows {
            let Some(flow) = self.flows.get_mut(&key) else { continue };
            flow.governed = false;
            if flow.answered && flow.seen_as(key.inside).is_some() {
                self.sustain(now, key);
            }
        }
    }

    /// Renews what is still owned; the kernel's own lifetimes end the rest.
    fn renew(&mut self, now: Instant) {
        let lifetime = self.policy.pinhole_lifetime;
        while let Some(key) = self.bindings.pop_renewal(now, now + lifetime / 2) {
            self.renew_one(&key);
        }
    }

    pub(super) fn renew_one(&mut self, key: &BindingKey) {
        let Some(binding) = self.bindings.get(key) else { return };
        let peers = binding.peers().collect();
        let pinholes = Pinholes::from_iter([binding.pinhole]);
        let lifetime = self.policy.pinhole_lifetime;
        self.background(Op::Renew { pinholes, peers, lifetime }, "renew");
    }
}
