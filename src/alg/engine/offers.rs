//! Offers that are accepted, and offers that are not (RFC 3264, RFC 3261 section 14, RFC 3311).
//!
//! A description in a running dialog changes the dialog's state when it is seen, because media may follow at once; what
//! was agreed upon before is kept beside it until its transaction has a final answer. A 2xx forgets what was before;
//! anything else brings it back and closes what the refused description had opened. Each side is kept for itself, so
//! that offers that cross each other (491) are taken back without disturbing the other one.

use std::time::Instant;

use super::super::binding::BindingKey;
use super::super::call::{Before, Leg, Stream};
use super::super::command::Op;
use super::super::key::Key;
use super::super::transaction::Tags;
use super::Engine;

impl Engine {
    /// Transaction `by` was accepted: what it said holds.
    pub(super) fn accept_offer(&mut self, now: Instant, call_key: Key, tags: Tags, by: Key) {
        let Some(call) = self.calls.get_mut(&call_key) else { return };
        let Some(index) = call.position(tags) else { return };
        let Some(leg) = call.legs.get_mut(index) else { return };
        let before = leg.pending.len();
        leg.pending.retain(|pending| pending.by != by);
        if leg.pending.len() != before {
            self.close_stale(now, call_key, index);
        }
    }

    /// Descriptions were exchanged: what was off before already is not used any more, and what is off now may come back
    /// with the next one.
    pub(super) fn close_stale(&mut self, now: Instant, call_key: Key, index: usize) {
        let leg = self.calls.get_mut(&call_key).and_then(|call| call.legs.get_mut(index));
        let Some(leg) = leg else { return };
        let mut gone: Vec<_> = leg.retired.drain(..leg.stale.min(leg.retired.len())).collect();
        // What an offer had put off that was refused is in use again. It is not off, and has not been for a while when it is.
        let Leg { retired, local, .. } = leg;
        let in_use = |key: &BindingKey| local.iter().flat_map(Stream::keys).any(|it| it == *key);
        gone.extend(retired.iter().copied().filter(in_use));
        retired.retain(|key| !in_use(key));
        leg.stale = leg.retired.len();
        self.give_back(now, call_key, index, &gone);
    }

    /// Transaction `by` was refused, or died: everything is as it was before it.
    pub(super) fn take_back_offer(&mut self, now: Instant, call_key: Key, by: Key) {
        while let Some(call) = self.calls.get_mut(&call_key) {
            let concerned = |leg: &Leg| leg.pending.iter().any(|it| it.by == by);
            let Some(index) = call.legs.iter().position(concerned) else { return };
            let Some(leg) = call.legs.get_mut(index) else { return };
            let Some(at) = leg.pending.iter().position(|it| it.by == by) else { return };
            let pending = leg.pending.swap_remove(at);
            // As long as another offer is open, what was there before it is in force (RFC 3264 section 8.3.1), and is pinned
            // still. That offer may be refused too, so nothing is pinned for it.
            let is_last = leg.pending.is_empty();
            let kept = leg.retired.len();
            match pending.before {
                Before::Remote(remote) => {
                    leg.held.remote = pending.held;
                    leg.remote = remote;
                }
                Before::Routed(streams) => {
                    leg.held.local = pending.held;
                    leg.routed = streams;
                }
                Before::Local(streams) => {
                    leg.held.local = pending.held;
                    self.replace_local(call_key, index, &streams);
                }
            }
            if is_last {
                let mut scratch = self.spare.take().unwrap_or_default();
                scratch.needs.clear();
                self.pin_leg(now, call_key, index, true, &mut scratch);
                self.spare = Some(scratch);
            }
            let leg = self.calls.get_mut(&call_key).and_then(|call| call.legs.get_mut(index));
            let Some(leg) = leg else { return };
            let refused = leg.retired.split_off(kept.min(leg.retired.len()));
            leg.stale = leg.stale.min(leg.retired.len());
            self.give_back(now, call_key, index, &refused);
        }
    }

    /// Gives back bindings that a leg has just struck from its list; those that nobody else owns close.
    pub(super) fn give_back(&mut self, now: Instant, call_key: Key, index: usize, keys: &[BindingKey]) {
        for key in keys {
            let Some(binding) = self.bindings.get_mut(key) else { continue };
            binding.owners = binding.owners.saturating_sub(1);
            let (public, over) = (binding.public(), binding.owners == 0);
            let leg = self.calls.get_mut(&call_key).and_then(|call| call.legs.get_mut(index));
            let Some(leg) = leg.filter(|leg| leg.bindings().all(|it| it != *key)) else { continue };
            let admitted: Vec<_> = leg.admitted.iter().filter(|(it, _)| it == key).copied().collect();
            let pinned = leg.strike(key, public);
            if over {
                self.close(now, &[*key]);
                for flow in pinned {
                    self.background(Op::Unpin { flow }, "unpin");
                }
                continue;
            }
            // Another leg, or another call, keeps it open, and has flows of its own.
            for (key, far) in &admitted {
                self.dismiss(key, *far);
            }
            for flow in &pinned {
                self.unpin(flow);
            }
        }
    }
}
