//! What a message begins and ends: transactions, calls, registrations (RFC 3261 sections 10, 12, 13, 15 and 17).
//!
//! Called once for each message that gets its verdict. A request begins a transaction; its answer, which must match in
//! everything (S5), decides: a 2xx to an INVITE confirms a leg, a failure ends the legs that this INVITE made and no
//! other, the answer to a BYE ends its leg, a registrar's 2xx sets a lease.

use std::time::{Duration, Instant};

use super::super::call::{Leg, Phase};
use super::super::command::Op;
use super::super::envelope::Method;
use super::super::event::Event;
use super::super::flow::Direction;
use super::super::key::Key;
use super::super::names::FormId;
use super::super::registration::{self, GRACE, Registration};
use super::super::transaction::{self, RINGING, Transaction};
use super::message::Context;
use super::{Engine, Scratch};

const REGISTRATION_DOMAIN: u8 = b'r';
/// The lifetime that the ruleset's timeout policy gives an answered flow with every packet.
const FLOOR: Duration = Duration::from_secs(3600);
/// A flow's lifetime is set at most this often.
const SUSTAIN_EVERY: Duration = Duration::from_secs(1);

impl Engine {
    /// Notes what the message changes. `form` is how the phone wrote its Via.
    pub(super) fn track(&mut self, context: &Context<'_>, scratch: &Scratch, form: Option<FormId>) {
        match context.envelope.status {
            None => self.track_request(context, scratch, form),
            Some(status) => self.track_response(context, scratch, status),
        }
        self.keep_alive(context);
    }

    fn track_request(&mut self, context: &Context<'_>, scratch: &Scratch, form: Option<FormId>) {
        let method = context.envelope.method;
        if method == Method::Ack {
            return;
        }
        if method == Method::Invite {
            // Also without a description: the offer may come with the answer.
            let _ = self.leg(context);
        }
        if let Some(transaction) = self.transactions.get_mut(&context.transaction) {
            transaction.via_form = form.or(transaction.via_form);
            return;
        }
        let transaction = Transaction {
            direction: context.direction,
            method,
            call: context.call,
            tags: context.tags,
            via_form: form,
            answered: false,
            finished: false,
            lifetime: (method == Method::Register)
                .then(|| registration::requested(context.bytes, &scratch.message))
                .flatten(),
        };
        let deadline = transaction::deadline(&transaction, context.now);
        // Without room its answer passes without opening anything.
        let _ = self.transactions.insert(context.transaction, transaction, deadline);
    }

    fn track_response(&mut self, context: &Context<'_>, scratch: &Scratch, status: u16) {
        let Some(transaction) = self.transactions.get_mut(&context.transaction) else { return };
        let was_finished = transaction.finished;
        transaction.answered = true;
        transaction.finished |= status >= 200;
        let transaction = transaction.clone();
        self.transactions
            .set_deadline(&context.transaction, transaction::deadline(&transaction, context.now));
        match (transaction.method, status) {
            (Method::Invite, ..=199) => self.ring(context),
            (Method::Invite, 200..=299) => self.confirm(context),
            // Challenged or redirected: the phone tries again with the same Call-ID, or lets it be; then timer B ends it.
            (Method::Invite, 300..=399 | 401 | 407 | 422 | 494) => {}
            (Method::Invite, 487) => self.fail(context, "cancelled"),
            (Method::Invite, _) => self.fail(context, "refused"),
            // RFC 3261 section 15.1.1: these end the dialog; a challenge or a refusal does not.
            (Method::Bye, 200..=299 | 408 | 481) => {
                self.end_dialog(context.now, transaction.call, transaction.tags, "bye");
            }
            (Method::Register, 200..=299) if !was_finished => {
                self.register(context, scratch, transaction.lifetime);
            }
            _ => {}
        }
    }

    /// A provisional answer: somebody is there, timer B is off.
    fn ring(&mut self, context: &Context<'_>) {
        let deadline = context.now + RINGING;
        let Some(call) = self.calls.get_mut(&context.call) else { return };
        for leg in &mut call.legs {
            if leg.made_by == context.transaction && leg.phase != Phase::Confirmed {
                leg.phase = Phase::Ringing;
                leg.deadline = deadline;
            }
        }
        let deadline = call.deadline().unwrap_or(deadline);
        self.calls.set_deadline(&context.call, deadline);
    }

    /// A 2xx: the dialog stands. What was half known of it goes; other branches of a fork have timer B's time left.
    fn confirm(&mut self, context: &Context<'_>) {
        let Ok(index) = self.leg(context) else { return };
        let (now, idle) = (context.now, self.policy.media_inactivity);
        let loser = now + self.policy.half_open;
        let Some(call) = self.calls.get_mut(&context.call) else { return };
        let first = call.answered.is_none();
        call.answered.get_or_insert(now);
        for (at, leg) in call.legs.iter_mut().enumerate() {
            if at == index {
                leg.phase = Phase::Confirmed;
                leg.deadline = now + idle;
            } else if leg.made_by == context.transaction && leg.phase != Phase::Confirmed {
                leg.deadline = leg.deadline.min(loser);
            }
        }
        let half = |leg: &Leg| leg.tags != context.tags && (leg.tags.local == 0 || leg.tags.remote == 0);
        let made = |leg: &Leg| leg.made_by == context.transaction && leg.phase != Phase::Confirmed;
        let half_known = call.legs.iter().position(|leg| half(leg) && made(leg));
        if let Some(deadline) = call.deadline() {
            self.calls.set_deadline(&context.call, deadline);
        }
        if first {
            self.announce(context.call);
        }
        if let Some(index) = half_known {
            self.end_leg(now, context.call, index, "answered");
        }
    }

    fn announce(&mut self, key: Key) {
        let Some(call) = self.calls.get(&key) else { return };
        let media = call.media.and_then(|key| self.bindings.get(&key)).map(|it| it.pinhole.public);
        let event = Event::CallAnswered {
            from: call.names.from.to_string(),
            to: call.names.to.to_string(),
            call_id: call.names.call_id.to_string(),
            inside: call.flow.inside,
            media,
        };
        self.event(event);
    }

    /// The INVITE failed: the legs that it made are over. Confirmed ones, and those of other INVITEs, are not.
    fn fail(&mut self, context: &Context<'_>, why: &'static str) {
        while let Some(call) = self.calls.get(&context.call) {
            let made = |leg: &Leg| leg.made_by == context.transaction && leg.phase != Phase::Confirmed;
            let Some(index) = call.legs.iter().position(made) else { return };
            self.end_leg(context.now, context.call, index, why);
        }
    }

    /// Ends one dialog.
    pub(super) fn end_dialog(
        &mut self,
        now: Instant,
        call_key: Key,
        tags: transaction::Tags,
        why: &'static str,
    ) {
        let Some(call) = self.calls.get(&call_key) else { return };
        if let Some(index) = call.position(tags) {
            self.end_leg(now, call_key, index, why);
        }
    }

    /// The last leg is gone.
    pub(super) fn end_call(&mut self, now: Instant, key: Key, why: &'static str) {
        let Some(call) = self.calls.remove(&key) else { return };
        if call.invited {
            let names = call.names;
            self.event(Event::CallEnded {
                from: names.from.into_string(),
                to: names.to.into_string(),
                call_id: names.call_id.into_string(),
                inside: call.flow.inside,
                duration: call.answered.map(|then| now.saturating_duration_since(then)),
                why,
            });
        }
    }

    /// The registrar's 2xx.
    fn register(&mut self, context: &Context<'_>, scratch: &Scratch, requested: Option<Duration>) {
        if context.direction != Direction::Inbound {
            return;
        }
        let inside = context.flow.inside;
        let Some(public) = self.flows.get(&context.flow).and_then(|flow| flow.seen_as(inside)) else {
            return;
        };
        let granted = registration::granted(context.bytes, &scratch.message, public.0, requested);
        let who = context.envelope.to.of(context.bytes);
        let inside = transaction::endpoint_bytes(context.flow.inside.0);
        let key = self.keyer.key(REGISTRATION_DOMAIN, &[&inside, who]);
        if granted.is_zero() {
            if let Some(gone) = self.registrations.remove(&key) {
                self.unregistered(gone, "unregistered");
            }
            return;
        }
        let until = context.now + granted;
        let known = self.registrations.get(&key);
        let is_news = known.is_none_or(|known| known.public != public || known.flow != context.flow);
        let who: Box<str> = String::from_utf8_lossy(who).into();
        let registration = Registration { who: who.clone(), flow: context.flow, public, until };
        // Without room the phone is reachable for as long as the ruleset's own lifetime says.
        let _ = self.registrations.insert(key, registration, until + GRACE);
        if let Some(flow) = self.flows.get_mut(&context.flow) {
            flow.lease = flow.lease.max(Some(until + GRACE));
        }
        let deadline = self.flows.deadline(&context.flow).max(Some(until + 2 * GRACE));
        if let Some(deadline) = deadline {
            self.flows.set_deadline(&context.flow, deadline);
        }
        self.sustain(context.now, context.flow);
        if is_news {
            let (inside, registrar) = (context.flow.inside, context.flow.far);
            let who = who.into_string();
            self.event(Event::Registered { who, inside, registrar, public, lifetime: granted });
        }
    }

    pub(super) fn unregistered(&mut self, gone: Registration, why: &'static str) {
        if let Some(flow) = self.flows.get_mut(&gone.flow) {
            flow.lease = None;
        }
        let event = Event::Unregistered { who: gone.who.into_string(), inside: gone.flow.inside, why };
        self.event(event);
    }

    /// Any message shows that its flow, and the dialog that it belongs to, are alive.
    fn keep_alive(&mut self, context: &Context<'_>) {
        let now = context.now;
        if let Some(flow) = self.flows.get_mut(&context.flow) {
            flow.answered |= context.direction == Direction::Inbound;
            // The packet has set the entry's lifetime to the ruleset's, or to conntrack's own two minutes; a longer one
            // must be set again.
            let shorter = !flow.governed || flow.lease.is_some_and(|lease| lease > now + FLOOR);
            if shorter && flow.answered && now.saturating_duration_since(flow.sustained) > SUSTAIN_EVERY {
                self.sustain(now, context.flow);
            }
        }
        let idle = now + self.policy.media_inactivity;
        let Some(call) = self.calls.get_mut(&context.call) else { return };
        if let Some(index) = call.position(context.tags)
            && let Some(leg) = call.legs.get_mut(index)
            && leg.phase == Phase::Confirmed
        {
            leg.deadline = idle;
            leg.waited = false;
        }
    }

    /// Sets the lifetime of a flow's conntrack entry to its lease, or to what any answered flow gets.
    pub(super) fn sustain(&mut self, now: Instant, key: super::super::command::FlowKey) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        let lease = flow.lease.map_or(Duration::ZERO, |lease| lease.saturating_duration_since(now));
        flow.sustained = now;
        let lifetime = lease.max(FLOOR + Duration::from_secs(100));
        self.background(Op::Sustain { flow: key, lifetime }, "sustain");
    }
}
