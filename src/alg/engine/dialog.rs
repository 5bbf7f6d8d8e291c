//! What a message begins and ends: transactions, calls, registrations (RFC 3261 sections 10, 12, 13, 15 and 17).
//!
//! Called once for each message that gets its verdict. A request begins a transaction; its answer, which must match in
//! everything (S5), decides: a 2xx to an INVITE confirms a leg, a failure ends the legs that this INVITE made and no
//! other, the answer to a BYE ends its leg, a registrar's 2xx sets a lease.

use std::time::{Duration, Instant};

use thin_vec::ThinVec;

use super::super::call::{Leg, Phase};
use super::super::command::{FlowKey, Op, Transport};
use super::super::envelope::{Envelope, Method};
use super::super::event::Event;
use super::super::flow::{Direction, Flow};
use super::super::guard;
use super::super::key::Key;
use super::super::names::FormId;
use super::super::registration::{self, GRACE, Registration};
use super::super::shares::Table;
use super::super::transaction::{self, RINGING, Transaction};
use super::flows::{IDLE, UNANSWERED_FLOW};
use super::message::Context;
use super::{Engine, Scratch};
use crate::sip::host;

const REGISTRATION_DOMAIN: u8 = b'r';
/// The lifetime that the ruleset's timeout policy gives an answered flow with every packet.
const FLOOR: Duration = Duration::from_secs(3600);
/// A flow's lifetime is set at most this often.
const SUSTAIN_EVERY: Duration = Duration::from_secs(1);

impl Engine {
    /// Notes what the message changes. `form` is how the phone wrote its Via, or what became of the Request-URI.
    pub(super) fn track(&mut self, context: &Context<'_>, scratch: &Scratch, form: Option<FormId>) {
        match context.envelope.status {
            None => self.track_request(context, scratch, form),
            Some(status) => self.track_response(context, scratch, status),
        }
        self.keep_alive(context);
    }

    /// Whether the message may change anything. Copies that come late do not: what they say has been overtaken. Nor
    /// does a request in a dialog that comes from elsewhere than its far end: only the two parties can change or end it.
    pub(super) fn counts(&self, context: &Context<'_>) -> bool {
        let call = self.calls.get(&context.call);
        let leg = call.and_then(|call| call.legs.get(call.position(context.tags)?));
        let transaction = self.transactions.get(&context.transaction);
        match context.envelope.status {
            None => {
                let far = context.flow.far.ip();
                let is_stranger =
                    |leg: &Leg| leg.server != far && call.is_none_or(|call| call.flow.get().far.ip() != far);
                let is_forged = context.direction == Direction::Inbound
                    && context.envelope.to_tag.is_some()
                    && leg.is_some_and(is_stranger);
                !is_forged && !transaction.is_some_and(|it| it.finished)
            }
            Some(status) => {
                let Some(transaction) = transaction else { return true };
                // The dialog is over, or was when its own request was asked: it does not begin again.
                let in_dialog = transaction.tags.local != 0 && transaction.tags.remote != 0;
                if leg.is_none() && (in_dialog || transaction.ended.contains(&context.tags)) {
                    return false;
                }
                if !transaction.finished {
                    return true;
                }
                match leg {
                    _ if status < 200 => false,
                    Some(leg) => leg.latest == context.transaction,
                    None => true,
                }
            }
        }
    }

    /// Whether the message is a copy of an ACK whose INVITE is not the latest word on media any more. ACKs have no transaction
    /// of their own, and that of a late offer has a description.
    pub(super) fn is_overtaken(&self, context: &Context<'_>) -> bool {
        let Envelope { status, method, cseq, .. } = context.envelope;
        let call = self.calls.get(&context.call);
        let leg = call.and_then(|call| call.legs.get(call.position(context.tags)?));
        let latest = leg.and_then(|leg| self.transactions.get(&leg.latest));
        let is_of = |it: &Transaction| {
            (it.method, it.direction, it.cseq) == (Method::Invite, context.direction, cseq)
        };
        method == Method::Ack && status.is_none() && latest.is_some_and(|latest| !is_of(latest))
    }

    fn track_request(&mut self, context: &Context<'_>, scratch: &Scratch, form: Option<FormId>) {
        let method = context.envelope.method;
        if context.direction == Direction::Outbound {
            self.note_server(context);
        }
        if method == Method::Ack {
            return;
        }
        if method == Method::Invite {
            // Also without a description: the offer may come with the answer.
            let _ = self.leg(context);
        }
        if let Some(transaction) = self.transactions.get_mut(&context.transaction) {
            transaction.form = form.or(transaction.form);
            return;
        }
        let transaction = Transaction {
            direction: context.direction,
            host: context.flow.inside.0.ip(),
            method,
            cseq: context.envelope.cseq,
            call: context.call,
            tags: context.tags,
            form,
            answered: false,
            finished: false,
            ended: ThinVec::new(),
            lifetime: matches!(method, Method::Register | Method::Subscribe | Method::Publish)
                .then(|| registration::requested(context.bytes, &scratch.message))
                .flatten(),
        };
        let deadline = transaction::deadline(&transaction, context.now);
        if method == Method::Invite || !scratch.parts.is_empty() {
            let leg = self.calls.get_mut(&context.call).and_then(|call| {
                let index = call.position(context.tags)?;
                call.legs.get_mut(index)
            });
            if let Some(leg) = leg {
                leg.latest = context.transaction;
            }
        }
        self.add_transaction(context.now, context.transaction, transaction, deadline);
    }

    fn track_response(&mut self, context: &Context<'_>, scratch: &Scratch, status: u16) {
        let Some(transaction) = self.transactions.get_mut(&context.transaction) else { return };
        let was_finished = transaction.finished;
        transaction.answered = true;
        transaction.finished |= status >= 200;
        let transaction = transaction.clone();
        if transaction.form.is_some() && context.direction == Direction::Inbound {
            self.notice_upstream(context);
        }
        self.transactions
            .set_deadline(&context.transaction, transaction::deadline(&transaction, context.now));
        let (now, call) = (context.now, transaction.call);
        match status {
            // Now conntrack knows the signalling flow for sure.
            ..=199 => self.expect_again(call),
            200..=299 => self.accept_offer(now, call, context.tags, context.transaction),
            // The same offer comes again, with credentials or another session interval.
            401 | 407 | 422 | 494 => self.expect_again(call),
            _ => self.take_back_offer(now, call, context.transaction),
        }
        if matches!((transaction.method, status), (Method::Invite | Method::Update, 200..=299)) {
            self.time_session(context, scratch);
        }
        match (transaction.method, status) {
            (Method::Invite, ..=199) => self.ring(context),
            (Method::Invite, 200..=299) => self.confirm(context),
            // Challenged or redirected: the phone tries again with the same Call-ID, or lets it be; then timer B ends it.
            (Method::Invite, 300..=399 | 401 | 407 | 422 | 494) => {
                self.hurry(context.now, call, context.transaction)
            }
            (Method::Invite, 487) => self.fail(context, "cancelled"),
            (Method::Invite, _) => self.fail(context, "refused"),
            // The 487 may get lost, or never have been sent (RFC 3261 section 9.1).
            (Method::Cancel, 200..=299) => {
                let invite = self.invite_of(context, transaction.direction);
                self.hurry(now, call, invite);
            }
            (Method::Update, 200..=299) => self.confirm_by_update(context),
            // RFC 3261 section 15.1.1 and 12.2.1.2: these end the dialog.
            (Method::Bye, 200..=299 | 408 | 481) => self.end_dialog(now, call, transaction.tags, "bye"),
            (Method::Bye, 300..) if transaction.direction == Direction::Outbound => {
                self.leave_dialog(now, call, transaction.tags);
            }
            (Method::Subscribe | Method::Publish, 200..=299) if context.direction == Direction::Inbound => {
                self.subscribe(context, scratch, transaction.lifetime);
            }
            (Method::Register, 200..=299) if !was_finished => {
                self.register(context, scratch, transaction.lifetime);
            }
            _ => {}
        }
    }

    /// Compares what comes back of our Via with what has left. A server repeats it to the letter and adds where the
    /// request came from (RFC 3261 section 18.2.1): a change tells of another gateway or another NAT on the way.
    fn notice_upstream(&mut self, context: &Context<'_>) {
        let (bytes, via) = (context.bytes, &context.envelope.via);
        let Some(flow) = self.flows.get_mut(&context.flow).filter(|flow| !flow.upstream_told) else { return };
        let Some(side) = flow.public() else { return };
        let sent = side.shown;
        let sent_by = via.port.map_or(via.host, |port| via.host.to(port));
        let is_ours = host::address(via.host.of(bytes)) == Some(sent.ip());
        let moved = via.received.filter(|it| host::address(it.of(bytes)).is_some_and(|it| it != sent.ip()));
        let (what, seen) = match (is_ours, moved) {
            (false, _) => ("gateway", sent_by),
            (true, Some(received)) => ("nat", received),
            (true, None) => return,
        };
        flow.upstream_told = true;
        let seen = String::from_utf8_lossy(seen.of(bytes)).into_owned();
        let (inside, far) = (context.flow.inside, context.flow.far);
        self.event(Event::Upstream { inside, far, sent, seen, what });
    }

    /// Two sides that are both mute say that they are there by refreshing the session: until then silence is no end.
    fn time_session(&mut self, context: &Context<'_>, scratch: &Scratch) {
        let interval = registration::session_interval(context.bytes, &scratch.message);
        let Some(call) = self.calls.get_mut(&context.call) else { return };
        if let Some(leg) = call.position(context.tags).and_then(|index| call.legs.get_mut(index)) {
            leg.interval = interval;
        }
    }

    /// A provisional answer: somebody is there, timer B is off.
    fn ring(&mut self, context: &Context<'_>) {
        let deadline = context.now + RINGING;
        let Some(call) = self.calls.get_mut(&context.call) else { return };
        for leg in &mut call.legs {
            if leg.made_by == context.transaction && leg.is_early() {
                leg.phase = Phase::Ringing;
                leg.deadline = deadline;
            }
        }
        let deadline = call.deadline().unwrap_or(deadline);
        self.calls.set_deadline(&context.call, deadline);
    }

    /// A 2xx: the dialog stands. Other branches of a fork may answer too, for timer B's time (RFC 3261 section 13.2.2.4);
    /// so may those that nobody has heard of yet, for which the half-known leg stays as long.
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
                leg.heard = now;
            } else if leg.made_by == context.transaction && leg.is_early() {
                leg.deadline = leg.deadline.min(loser);
            }
        }
        if let Some(deadline) = call.deadline() {
            self.calls.set_deadline(&context.call, deadline);
        }
        if first {
            self.announce(context.call);
        }
    }

    /// A 2xx to an UPDATE (RFC 3311 section 5) shows that a dialog stands of which no INVITE was seen: it began before
    /// this program did. While an INVITE is open, its own answer decides.
    fn confirm_by_update(&mut self, context: &Context<'_>) {
        let is_invite = |key| self.transactions.get(&key).is_some_and(|it| it.method == Method::Invite);
        let is_whole = context.tags.local != 0 && context.tags.remote != 0;
        let Some(call) = self.calls.get_mut(&context.call).filter(|_| is_whole) else { return };
        let leg = call.position(context.tags).and_then(|index| call.legs.get(index));
        if leg.is_some_and(|leg| leg.is_early() && !is_invite(leg.made_by)) {
            call.invited = true;
            self.confirm(context);
        }
    }

    /// The phone speaks in a dialog: so it has not hung up, and this is where the other party is.
    fn note_server(&mut self, context: &Context<'_>) {
        let leg = self.calls.get_mut(&context.call).and_then(|call| {
            let index = call.position(context.tags)?;
            call.legs.get_mut(index)
        });
        let Some(leg) = leg else { return };
        leg.server = context.flow.far.ip();
        if leg.phase == Phase::Leaving && !matches!(context.envelope.method, Method::Ack | Method::Bye) {
            leg.phase = Phase::Confirmed;
        }
    }

    /// The phone's BYE was refused. It may repeat it with credentials; whatever it does, it listens no more.
    pub(super) fn leave_dialog(&mut self, now: Instant, call_key: Key, tags: transaction::Tags) {
        let deadline = now + self.policy.half_open;
        let Some(call) = self.calls.get_mut(&call_key) else { return };
        let Some(leg) = call.position(tags).and_then(|index| call.legs.get_mut(index)) else { return };
        if leg.phase == Phase::Confirmed {
            leg.phase = Phase::Leaving;
            leg.deadline = deadline;
            self.calls.set_deadline(&call_key, deadline);
        }
    }

    /// The INVITE that a message belongs to by its branch: a CANCEL, its answer, or an ACK. `direction` is that of the request.
    pub(super) fn invite_of(&self, context: &Context<'_>, direction: Direction) -> Key {
        let sender = match direction {
            Direction::Outbound => context.tags.local,
            Direction::Inbound => context.tags.remote,
        };
        let Context { bytes, envelope, flow, call, .. } = context;
        transaction::invite(self.keyer, bytes, envelope, (*call, sender), flow, direction)
    }

    /// Early legs of an INVITE that was cancelled, challenged or redirected: they end if nothing follows soon.
    fn hurry(&mut self, now: Instant, call_key: Key, made_by: Key) {
        let soon = now + self.policy.half_open;
        let Some(call) = self.calls.get_mut(&call_key) else { return };
        for leg in call.legs.iter_mut().filter(|leg| leg.made_by == made_by && leg.is_early()) {
            leg.deadline = leg.deadline.min(soon);
        }
        if let Some(deadline) = call.deadline() {
            self.calls.set_deadline(&call_key, deadline);
        }
    }

    fn announce(&mut self, key: Key) {
        let Some(call) = self.calls.get(&key) else { return };
        let media = call.media.and_then(|key| self.bindings.get(&key)).map(|it| it.public());
        let event = Event::CallAnswered {
            from: call.names.from().to_owned(),
            to: call.names.to().to_owned(),
            call_id: call.names.call_id().to_owned(),
            inside: call.flow.get().inside,
            media,
        };
        self.event(event);
    }

    /// The INVITE failed: the legs that it made are over. Confirmed ones, and those of other INVITEs, are not.
    fn fail(&mut self, context: &Context<'_>, why: &'static str) {
        while let Some(call) = self.calls.get(&context.call) {
            let made = |leg: &Leg| leg.made_by == context.transaction && leg.is_early();
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
        // What was kept for further answers of its INVITE has no purpose if there was only one.
        let is_half = |leg: &Leg| leg.is_early() && (leg.tags.local == 0 || leg.tags.remote == 0);
        let is_closed = |leg: &Leg| self.transactions.get(&leg.made_by).is_none_or(|it| it.finished);
        let Some(call) = self.calls.get(&call_key).filter(|call| call.position(tags).is_some()) else {
            return;
        };
        if call.legs.iter().all(|leg| leg.tags == tags || (is_half(leg) && is_closed(leg))) {
            while let Some(call) = self.calls.get(&call_key)
                && let Some(other) = call.legs.iter().position(|leg| leg.tags != tags)
            {
                self.end_leg(now, call_key, other, why);
            }
        }
        if let Some(index) = self.calls.get(&call_key).and_then(|call| call.position(tags)) {
            self.end_leg(now, call_key, index, why);
        }
    }

    /// The last leg is gone.
    pub(super) fn end_call(&mut self, now: Instant, key: Key, why: &'static str) {
        let Some(call) = self.calls.remove(&key) else { return };
        self.count_call_off(call.flow.get().inside.0.ip());
        if call.invited {
            let names = call.names;
            self.event(Event::CallEnded {
                from: names.from().to_owned(),
                to: names.to().to_owned(),
                call_id: names.call_id().to_owned(),
                inside: call.flow.get().inside,
                duration: call.answered.map(|then| now.saturating_duration_since(then)),
                why,
            });
        }
    }

    /// The registrar's 2xx.
    fn register(&mut self, context: &Context<'_>, scratch: &Scratch, requested: Option<Duration>) {
        if context.direction != Direction::Inbound
            || !guard::is_registrar(&self.policy, context.flow.far.ip())
        {
            return;
        }
        let inside = context.flow.inside;
        let Some(public) = self.flows.get(&context.flow).and_then(|flow| flow.seen_as(inside)) else {
            return;
        };
        let granted = registration::granted(context.bytes, &scratch.message, public.0, requested);
        let who = context.envelope.to.of(context.bytes);
        // A phone may be registered with two registrars, or by two ways with one (RFC 5626).
        let inside = transaction::endpoint_bytes(context.flow.inside.0);
        let far = transaction::endpoint_bytes(context.flow.far);
        let key = self.keyer.key(REGISTRATION_DOMAIN, &[&inside, &far, who]);
        if granted.is_zero() {
            if let Some(gone) = self.registrations.remove(&key) {
                self.unregistered(key, *gone, "unregistered");
            }
            return;
        }
        let until = context.now + granted;
        let Some(flow) = self.flows.get_mut(&context.flow) else { return };
        let known = self.registrations.get(&key);
        let is_news = known.is_none_or(|known| known.public != public.0.into());
        if known.is_none() {
            // Without room the phone is reachable for as long as the ruleset's own lifetime says.
            let host = context.flow.inside.0.ip();
            if self.registrations.is_full() || !self.shares.take(host, Table::Registrations) {
                return;
            }
            if flow.registrations.is_empty() {
                // A phone has one; a PBX has many.
                flow.registrations.reserve_exact(1);
            }
            flow.registrations.push(key);
        }
        let alone = flow.registrations.len() == 1;
        let lease = Some(until + GRACE);
        flow.registered = if alone { lease } else { flow.registered.max(lease) };
        let who: Box<str> = String::from_utf8_lossy(who).into();
        let news = is_news.then(|| who.clone());
        let registration = Box::new(Registration { who, flow: context.flow.into(), public: public.0.into() });
        let kept = self.registrations.insert(key, registration, until + GRACE);
        debug_assert!(kept.is_ok(), "there was room");
        self.outlast(context.flow, until + 2 * GRACE);
        self.sustain(context.now, context.flow);
        if let Some(who) = news {
            let (inside, registrar) = (context.flow.inside, context.flow.far);
            let who = who.into_string();
            self.event(Event::Registered { who, inside, registrar, public, lifetime: granted });
        }
    }

    pub(super) fn unregistered(&mut self, key: Key, gone: Registration, why: &'static str) {
        if let Some(flow) = self.flows.get_mut(&gone.flow.get()) {
            flow.registrations.retain(|it| *it != key);
            if flow.registrations.is_empty() {
                flow.registered = None;
            }
        }
        self.count_registration_off(gone, why);
    }

    /// A registration has left its table, and its flow's list.
    pub(super) fn count_registration_off(&mut self, gone: Registration, why: &'static str) {
        self.shares.give(gone.flow.get().inside.0.ip(), Table::Registrations);
        let event = Event::Unregistered { who: gone.who.into_string(), inside: gone.flow.get().inside, why };
        self.event(event);
    }

    /// A 2xx to a SUBSCRIBE or a PUBLISH: NOTIFYs come by this flow for as long as it says (RFC 6665 section 4.1.2.1,
    /// RFC 3903 section 4).
    fn subscribe(&mut self, context: &Context<'_>, scratch: &Scratch, requested: Option<Duration>) {
        let Some(granted) = registration::subscribed(context.bytes, &scratch.message, requested) else {
            return;
        };
        let lease = context.now + granted + GRACE;
        let Some(flow) = self.flows.get_mut(&context.flow) else { return };
        if flow.subscribed.is_some_and(|known| known >= lease) {
            return;
        }
        flow.subscribed = Some(lease);
        self.outlast(context.flow, lease + GRACE);
        if granted > FLOOR {
            self.sustain(context.now, context.flow);
        }
    }

    /// A flow must be remembered until then.
    pub(super) fn outlast(&mut self, flow: FlowKey, until: Instant) {
        if self.flows.deadline(&flow).is_some_and(|deadline| deadline < until) {
            self.flows.set_deadline(&flow, until);
        }
    }

    /// A dialog lives without a message for a long time: its flow must not die meanwhile, or nobody could end it.
    pub(super) fn sustain_idle(&mut self, now: Instant, key: FlowKey) {
        self.outlast(key, now + IDLE);
        let old = |flow: &Flow| now.saturating_duration_since(flow.sustained) > FLOOR / 4;
        if self.flows.get(&key).is_some_and(|flow| flow.public().is_some() && old(flow)) {
            self.sustain(now, key);
        }
    }

    /// Any message shows that its flow, and the dialog that it belongs to, are alive.
    fn keep_alive(&mut self, context: &Context<'_>) {
        let now = context.now;
        if let Some(flow) = self.flows.get_mut(&context.flow) {
            flow.answered |= context.direction == Direction::Inbound;
            let answered = flow.answered;
            self.outlast(context.flow, now + if answered { IDLE } else { UNANSWERED_FLOW });
        }
        if let Some(flow) = self.flows.get_mut(&context.flow) {
            // The packet has set the entry's lifetime to the ruleset's, or to conntrack's own two minutes; a longer one
            // must be set again.
            let shorter = !flow.governed || flow.lease().is_some_and(|lease| lease > now + FLOOR);
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
            leg.heard = now;
            leg.silent = false;
        }
    }

    /// Sets the lifetime of a flow's conntrack entry to its lease, or to what any answered flow gets.
    pub(super) fn sustain(&mut self, now: Instant, key: FlowKey) {
        if key.transport == Transport::Tcp {
            // conntrack keeps it for days by itself.
            return;
        }
        let Some(flow) = self.flows.get_mut(&key) else { return };
        let lease = flow.lease().map_or(Duration::ZERO, |lease| lease.saturating_duration_since(now));
        flow.sustained = now;
        let lifetime = lease.max(FLOOR + Duration::from_secs(100));
        self.background(Op::Sustain { flow: key, lifetime }, "sustain");
    }
}
