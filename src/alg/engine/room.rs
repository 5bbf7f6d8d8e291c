//! Room in full tables.
//!
//! No input makes memory grow without bound, and none may push out what lives. So what goes first is what nobody has
//! answered, the oldest of it first: calls in which the far end has not said a word, flows on which no answer ever came,
//! transactions that are nearest to their end. Each host has only a share of each table; it pushes out nobody with what
//! it has beyond.

use std::net::IpAddr;
use std::time::Instant;

use super::super::binding::BindingKey;
use super::super::call::{Call, Phase};
use super::super::command::FlowKey;
use super::super::envelope::Method;
use super::super::flow::Flow;
use super::super::key::Key;
use super::super::rewrite::sdp::LocalStream;
use super::super::shares::Table;
use super::super::transaction::Transaction;
use super::super::verdict::Reason;
use super::Engine;
use super::flows::IDLE;
use super::message::Context;
use super::pinholes::endpoints;

impl Engine {
    /// Puts a new flow in; `false`: there is no room.
    pub(super) fn add_flow(&mut self, key: FlowKey, flow: Flow, deadline: Instant) -> bool {
        let host = key.inside.0.ip();
        if !self.shares.take(host, Table::Flows) {
            return false;
        }
        if self.flows.is_full()
            && let Some(first) = self.flows.peek_earliest()
            && !self.is_live(flow.since, &first)
            && let Some(gone) = self.flows.remove(&first)
        {
            self.forget_flow(first, gone);
        }
        let kept = self.flows.insert(key, flow, deadline).is_ok();
        if !kept {
            self.shares.give(host, Table::Flows);
        }
        kept
    }

    /// Whether somebody needs this flow, as far as it shows: a phone is registered by it, or it has been in use within the
    /// last hour, as that of a call always has ([`Engine::sustain_idle`]).
    fn is_live(&self, now: Instant, key: &FlowKey) -> bool {
        let Some(flow) = self.flows.get(key).filter(|flow| flow.answered) else { return false };
        let is_in_use = self.flows.deadline(key).is_some_and(|deadline| deadline > now + IDLE / 2);
        is_in_use || flow.lease().is_some_and(|lease| lease > now)
    }

    /// A flow has left its table.
    pub(super) fn forget_flow(&mut self, key: FlowKey, flow: Flow) {
        self.shares.give(key.inside.0.ip(), Table::Flows);
        for registration in flow.registrations {
            if let Some(gone) = self.registrations.remove(&registration) {
                self.count_registration_off(*gone, "flow lost");
            }
        }
    }

    /// Puts a new transaction in. Without room its answer passes without opening anything.
    pub(super) fn add_transaction(
        &mut self,
        now: Instant,
        key: Key,
        transaction: Transaction,
        deadline: Instant,
    ) {
        let host = transaction.host;
        if !self.shares.take(host, Table::Transactions) {
            return self.without_answer(now, key, &transaction);
        }
        if self.transactions.is_full()
            && let Some((key, gone)) = self.transactions.pop_earliest()
        {
            self.count_transaction_off(&gone);
            self.without_answer(now, key, &gone);
        }
        if let Err(transaction) = self.transactions.insert(key, transaction, deadline) {
            self.count_transaction_off(&transaction);
            self.without_answer(now, key, &transaction);
        }
    }

    /// Nobody will recognise the answer to this: what it offered is taken back, and the dialog that it ends lives for as
    /// long as if the BYE had been refused.
    fn without_answer(&mut self, now: Instant, key: Key, gone: &Transaction) {
        self.take_back_offer(now, gone.call, key);
        if gone.is_lost_bye() {
            self.leave_dialog(now, gone.call, gone.tags);
        }
    }

    /// A transaction has left its table.
    pub(super) fn count_transaction_off(&mut self, transaction: &Transaction) {
        self.shares.give(transaction.host, Table::Transactions);
    }

    /// Puts a new call in.
    pub(super) fn add_call(
        &mut self,
        now: Instant,
        key: Key,
        call: Call,
        deadline: Instant,
    ) -> Result<(), Reason> {
        let host = call.flow.get().inside.0.ip();
        if !self.shares.take(host, Table::Calls) {
            return Err(Reason::Quota);
        }
        if self.calls.is_full() {
            self.evict_call(now, key);
        }
        if self.calls.insert(key, Box::new(call), deadline).is_err() {
            self.shares.give(host, Table::Calls);
            return Err(Reason::TableFull);
        }
        self.half_open.push_back(key);
        // Those that were answered, or are over, leave the list when they have come to its front.
        while let Some(oldest) = self.half_open.front()
            && !self.calls.get(oldest).is_some_and(|call| is_half_open(call))
        {
            self.half_open.pop_front();
        }
        if self.half_open.len() > 2 * self.calls.len() + 64 {
            let calls = &self.calls;
            self.half_open.retain(|key| calls.get(key).is_some_and(|call| is_half_open(call)));
        }
        Ok(())
    }

    /// Counts what each host has, after tables were taken over.
    pub(super) fn count_shares(&mut self) {
        let flows = self.flows.iter().map(|(key, _)| (key.inside.0.ip(), Table::Flows));
        let transactions = self.transactions.iter().map(|(_, it)| (it.host, Table::Transactions));
        let calls = self.calls.iter().map(|(_, it)| (it.flow.get().inside.0.ip(), Table::Calls));
        let registrations =
            self.registrations.iter().map(|(_, it)| (it.flow.get().inside.0.ip(), Table::Registrations));
        for (host, table) in flows.chain(transactions).chain(calls).chain(registrations) {
            self.shares.count(host, table);
        }
        let half_open = self.calls.iter().filter(|(_, call)| is_half_open(call));
        let mut half_open: Vec<_> = half_open.map(|(key, call)| (call.deadline(), *key)).collect();
        half_open.sort_unstable();
        self.half_open = half_open.into_iter().map(|(_, key)| key).collect();
    }

    /// A call has left its table.
    pub(super) fn count_call_off(&mut self, host: IpAddr) {
        self.shares.give(host, Table::Calls);
    }

    /// Whether the host's own share has room for the phone's streams, and for the transaction that they come with. Asked
    /// before anybody else has to make room.
    pub(super) fn check_host(&self, context: &Context<'_>, streams: &[LocalStream]) -> Result<(), Reason> {
        let host = context.flow.inside.0.ip();
        let begins = context.envelope.status.is_none()
            && context.envelope.method != Method::Ack
            && self.transactions.get(&context.transaction).is_none();
        let has_room = !begins || self.shares.has_room(host, Table::Transactions);
        let missing = self.missing(context, streams);
        if has_room && self.bindings.has_share(host, missing, context.now, &self.policy) {
            Ok(())
        } else {
            Err(Reason::Quota)
        }
    }

    /// How many pinholes these streams need that are not there.
    fn missing(&self, context: &Context<'_>, streams: &[LocalStream]) -> usize {
        let keys = streams.iter().filter_map(|stream| Some((stream.transport, endpoints(stream)?)));
        let keys = keys.flat_map(|(transport, all)| all.map(move |inside| (transport, inside)));
        let is_missing = |(transport, inside)| {
            let key = BindingKey::new(transport, inside, context.uplink);
            self.bindings.get(&key).is_none()
        };
        keys.filter(|it| is_missing(*it)).count()
    }

    /// What nobody answers makes room for the pinholes of these streams. Done before any of them is looked at, for it may
    /// close what they would have shared.
    pub(super) fn make_room(&mut self, context: &Context<'_>, streams: &[LocalStream]) {
        loop {
            let missing = self.missing(context, streams);
            if self.bindings.has_room(missing, &self.policy) || !self.evict_call(context.now, context.call) {
                return;
            }
        }
    }

    /// Ends the oldest call that nobody has answered, other than `own`; `false`: there is none.
    fn evict_call(&mut self, now: Instant, own: Key) -> bool {
        for _ in 0..self.half_open.len() {
            let Some(key) = self.half_open.pop_front() else { break };
            if !self.calls.get(&key).is_some_and(|call| is_half_open(call)) {
                continue;
            }
            if key == own {
                self.half_open.push_back(key);
                continue;
            }
            while self.calls.get(&key).is_some_and(|call| !call.legs.is_empty()) {
                self.end_leg(now, key, 0, "no room");
            }
            return true;
        }
        false
    }
}

fn is_half_open(call: &Call) -> bool {
    call.legs.iter().all(|leg| leg.phase == Phase::Offered)
}
