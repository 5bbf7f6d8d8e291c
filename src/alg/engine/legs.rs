//! Legs of calls: how they begin, and what they give back when they end.
//!
//! A leg owns bindings, admissions and pinned flows, each perhaps together with other legs. What the last of them gives
//! back is closed.

use std::time::Instant;

use smallvec::SmallVec;
use thin_vec::ThinVec;

use super::super::binding::BindingKey;
use super::super::call::{Call, Leg, MAX_LEGS, Phase};
use super::super::call_names::CallNames;
use super::super::envelope::Method;
use super::super::key::Key;
use super::super::transaction::Tags;
use super::super::verdict::Reason;
use super::Engine;
use super::message::Context;

impl Engine {
    /// The index of the leg that the message belongs to; made if there is none.
    pub(super) fn leg(&mut self, context: &Context<'_>) -> Result<usize, Reason> {
        if let Some(call) = self.calls.get_mut(&context.call)
            && let Some(index) = call.position(context.tags)
        {
            call.invited |= context.envelope.method == Method::Invite;
            self.take_over(context, index);
            return Ok(index);
        }
        self.new_leg(context)
    }

    fn new_leg(&mut self, context: &Context<'_>) -> Result<usize, Reason> {
        let deadline = context.now + self.policy.half_open;
        if self.calls.get(&context.call).is_none() {
            let envelope = &context.envelope;
            let [from, to, call_id] =
                [envelope.from, envelope.to, envelope.call_id].map(|span| span.of(context.bytes));
            let names = CallNames::new(from, to, call_id);
            let call = Call {
                flow: context.flow.into(),
                legs: SmallVec::new(),
                invited: false,
                names,
                answered: None,
                media: None,
            };
            self.add_call(context.now, context.call, call, deadline)?;
        }
        let call = self.calls.get_mut(&context.call).ok_or(Reason::TableFull)?;
        call.invited |= context.envelope.method == Method::Invite;
        if call.legs.len() >= MAX_LEGS {
            return Err(Reason::TableFull);
        }
        // The dialog has just got its second tag: it begins with what the half-known one had (a fork does so too, once
        // for each branch).
        let halves =
            [Tags { local: context.tags.local, remote: 0 }, Tags { local: 0, remote: context.tags.remote }];
        let half = halves.into_iter().find_map(|tags| call.position(tags)).and_then(|at| call.legs.get(at));
        let leg = match half {
            Some(half) => Leg {
                tags: context.tags,
                retired: ThinVec::new(),
                stale: 0,
                pending: ThinVec::new(),
                pins: SmallVec::new(),
                admitted: SmallVec::new(),
                ..half.clone()
            },
            None => Leg::new(context.tags, context.transaction, context.flow.far.ip(), context.now, deadline),
        };
        for key in leg.bindings() {
            if let Some(binding) = self.bindings.get_mut(&key) {
                binding.owners += 1;
            }
        }
        call.legs.push(leg);
        let index = call.legs.len() - 1;
        if let Some(deadline) = call.deadline() {
            self.calls.set_deadline(&context.call, deadline);
        }
        Ok(index)
    }

    /// An INVITE that was challenged comes again with a new branch: the half-known leg is now this one's. While the
    /// first INVITE is still open the second is a branch of a fork that met again, and the leg stays the first one's.
    fn take_over(&mut self, context: &Context<'_>, index: usize) {
        let is_invite = context.envelope.method == Method::Invite && context.envelope.status.is_none();
        let Some(call) = self.calls.get_mut(&context.call).filter(|_| is_invite) else { return };
        let Some(leg) = call.legs.get_mut(index).filter(|leg| leg.is_early()) else { return };
        let is_open = |key| self.transactions.get(&key).is_some_and(|it| !it.finished);
        if leg.made_by != context.transaction && !is_open(leg.made_by) {
            leg.made_by = context.transaction;
            leg.phase = Phase::Offered;
            leg.deadline = context.now + self.policy.half_open;
            // Redirected (RFC 3261 section 8.1.3.4): the next server may be another.
            leg.server = context.flow.far.ip();
            call.flow = context.flow.into();
        }
    }

    /// Takes a leg out of its call and gives everything back that it owned. The last leg ends the call.
    pub(super) fn end_leg(&mut self, now: Instant, call_key: Key, index: usize, why: &'static str) {
        let Some(call) = self.calls.get_mut(&call_key) else { return };
        if index >= call.legs.len() {
            return;
        }
        let leg = call.legs.swap_remove(index);
        call.legs.shrink_to_fit();
        let over = call.legs.is_empty();
        let is_whole = leg.tags.local != 0 && leg.tags.remote != 0;
        if let Some(transaction) = self.transactions.get_mut(&leg.made_by).filter(|_| is_whole) {
            // No INVITE has more legs at a time; of so many that ended copies come of the last ones.
            if transaction.ended.len() >= MAX_LEGS {
                transaction.ended.remove(0);
            }
            transaction.ended.push(leg.tags);
        }
        if let Some(deadline) = call.deadline() {
            self.calls.set_deadline(&call_key, deadline);
        }
        self.release(now, &leg);
        if over {
            self.end_call(now, call_key, why);
        }
    }

    /// Gives back what a leg owns for the phone's side. If the far end has said nothing either, the leg ends.
    pub(super) fn release_local(&mut self, now: Instant, call_key: Key, index: usize) {
        let leg = self.calls.get_mut(&call_key).and_then(|call| call.legs.get_mut(index));
        let Some(leg) = leg else { return };
        if leg.remote.is_empty() {
            return self.end_leg(now, call_key, index, "refused");
        }
        let mut given = Leg::new(leg.tags, leg.made_by, leg.server, now, leg.deadline);
        std::mem::swap(&mut given.local, &mut leg.local);
        std::mem::swap(&mut given.retired, &mut leg.retired);
        leg.stale = 0;
        leg.pending.clear();
        std::mem::swap(&mut given.pins, &mut leg.pins);
        std::mem::swap(&mut given.admitted, &mut leg.admitted);
        self.release(now, &given);
    }

    /// Gives back what `leg`, which is no longer part of its call, owns.
    fn release(&mut self, now: Instant, leg: &Leg) {
        for (key, far) in &leg.admitted {
            if self.bindings.get(key).is_some_and(|binding| binding.owners > leg.owns(key)) {
                self.dismiss(key, *far);
            }
        }
        let mut closing = Vec::new();
        for key in leg.bindings() {
            if let Some(binding) = self.bindings.get_mut(&key) {
                binding.owners = binding.owners.saturating_sub(1);
                if binding.owners == 0 && !closing.contains(&key) {
                    closing.push(key);
                }
            }
        }
        // The maps go first: once they are gone, late media of the phone cannot make a new entry by them.
        for keys in closing.chunks(2) {
            self.close(now, keys);
        }
        for pin in &leg.pins {
            self.unpin(&pin.flow());
        }
    }
}

impl Leg {
    fn owns(&self, key: &BindingKey) -> u16 {
        u16::try_from(self.bindings().filter(|it| it == key).count()).unwrap_or(u16::MAX)
    }
}
