//! An engine's knowledge handed to the next one, and compared with what the kernel has.
//!
//! [`Engine::export`] copies the tables; [`Engine::import`] takes them over and counts anew what can be counted, so that
//! they fit each other whatever was left out for want of room. The world has moved on in between: calls have ended
//! unheard, entries have died. So [`Engine::reconcile`] closes what the kernel has and nobody owns, renews all that
//! lives (which makes again what is lost), and asks conntrack for each flow and each pin: a flow that is gone is learned
//! again with its next packet, a pin that is gone is made again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::super::binding::{Admitted, Binding, BindingKey};
use super::super::call::Call;
use super::super::command::{FlowKey, Op, Outcome, Peer, Pinhole, Pinholes, PinnedFlow, Reply};
use super::super::endpoint::Outside;
use super::super::flow::Flow;
use super::super::io::Tuples;
use super::super::key::{Key, Keyer};
use super::super::registration::Registration;
use super::super::state::{Entry, Held, Kept, State};
use super::super::tcp::Connection;
use super::super::transaction::{Tags, Transaction};
use super::Engine;
use super::commands::Inflight;
use crate::expiring::ExpiringMap;

impl Engine {
    /// All that the next engine has to know. Takes time in proportion to the tables; nothing changes.
    pub fn export(&self, now: Instant) -> State {
        State {
            seed: self.policy.seed,
            last_identity: self.last_identity,
            flows: entries(&self.flows, now),
            transactions: entries(&self.transactions, now),
            calls: entries(&self.calls, now),
            registrations: entries(&self.registrations, now),
            bindings: self
                .bindings
                .with_renewals()
                .map(|(key, binding, due)| entry(key, binding, due, now))
                .collect(),
            pools: self.bindings.export_pools(now),
            connections: entries_of(self.connections.iter(), now),
            settling: self.settling.iter().map(|(due, key)| (*key, due.keep(now))).collect(),
        }
    }

    /// Takes over what another engine knew when it was `age` ago. For an engine that has just been made: what has no room
    /// by this one's limits is left out. [`Engine::reconcile`] is to follow.
    pub fn import(&mut self, now: Instant, age: Duration, state: State) {
        let then = now.checked_sub(age).unwrap_or(now);
        let State { seed, last_identity, flows, transactions, calls, registrations, .. } = state;
        let State { bindings, pools, settling, connections, .. } = state;
        for Entry { key, value, deadline } in connections {
            self.connections.import(key, Connection::revive(value, then), Instant::revive(deadline, then));
        }
        self.policy.seed = seed;
        self.keyer = Keyer::new(seed);
        self.last_identity = last_identity;
        fill::<_, Flow, _>(&mut self.flows, flows, then);
        fill::<_, Transaction, _>(&mut self.transactions, transactions, then);
        fill::<_, Box<Call>, _>(&mut self.calls, calls, then);
        fill::<_, Box<Registration>, _>(&mut self.registrations, registrations, then);
        self.settling = settling.into_iter().map(|(key, due)| (Instant::revive(due, then), key)).collect();
        self.bindings.import_pools(pools, then, &self.policy.ports);
        let owned = Owned::count(&self.calls);
        for Entry { key, value, deadline } in bindings {
            let mut binding = Binding::revive(value, then);
            binding.owners = owned.bindings.get(&key).copied().unwrap_or_default();
            let wanted = |far| owned.peers.get(&(key, far)).copied().unwrap_or_default();
            binding.peers.retain_mut(|Admitted { far, wanted: count, .. }| {
                *count = wanted(*far);
                *count > 0
            });
            // What nobody owns is closed when the kernel's side is looked at.
            if binding.owners > 0 {
                binding.pins.clear();
                self.bindings.import(key, binding, Instant::revive(deadline, then));
            }
        }
        for (_, _, flow) in self.all_pins() {
            self.bindings.count_pin(&flow);
        }
        self.count_shares();
        self.advertise();
    }

    /// Brings the kernel in line with the tables: to be called once, after [`Engine::import`] (or without it), with all
    /// that the kernel holds.
    pub fn reconcile(&mut self, now: Instant, held: &Held) {
        self.reconcile_connections(&held.followed);
        self.close_strays(now, held);
        for key in self.bindings.keys() {
            self.bindings.set_renewal(&key, now + self.policy.pinhole_lifetime / 2);
            self.renew_one(&key);
        }
        for (call, tags, flow) in self.all_pins() {
            let question =
                Op::Lookup { transport: flow.transport, source: flow.inside.0, destination: flow.far };
            self.command(question, Inflight::Repin { call, tags, flow });
        }
        let mut flows: Vec<FlowKey> =
            self.flows.iter().filter(|(_, flow)| flow.public().is_some()).map(|(key, _)| *key).collect();
        flows.sort_unstable();
        for key in flows {
            let question =
                Op::Lookup { transport: key.transport, source: key.inside.0, destination: key.far };
            self.command(question, Inflight::Recheck { flow: key });
        }
    }

    /// Conntrack's answer about a flow of an earlier engine.
    pub(super) fn rechecked(&mut self, now: Instant, key: FlowKey, outcome: Outcome) {
        let Ok(Reply::Found(found)) = outcome else { return };
        let Some(flow) = self.flows.get(&key) else { return };
        let Some(public) = flow.public().map(|side| side.endpoint) else { return };
        let (inside, far) = (key.inside.0, key.far);
        let known = Tuples {
            transport: key.transport,
            orig_source: inside,
            orig_destination: far,
            reply_source: far,
            reply_destination: public.0,
        };
        // The same entry, whoever of the two began it.
        let begun_outside = Tuples {
            transport: key.transport,
            orig_source: far,
            orig_destination: public.0,
            reply_source: inside,
            reply_destination: far,
        };
        if found.is_some_and(|tuples| tuples == known || tuples == begun_outside) {
            if flow.lease().is_some_and(|lease| lease > now) {
                self.sustain(now, key);
            }
        } else {
            // It died while nobody listened.
            self.handle_destroyed(now, &known);
        }
    }

    /// Conntrack's answer about a pin of an earlier engine.
    pub(super) fn repin(&mut self, call_key: Key, tags: Tags, flow: PinnedFlow, outcome: Outcome) {
        let is_there = match outcome {
            Ok(Reply::Found(Some(tuples))) => {
                tuples.reply_destination == flow.public.0 || tuples.orig_destination == flow.public.0
            }
            Ok(_) => false,
            // It may be there.
            Err(_) => true,
        };
        let Some(call) = self.calls.get(&call_key).filter(|_| !is_there) else { return };
        let signalling = call.flow.get();
        let id = self.command(Op::Pin { flow, signalling }, Inflight::Pin { call: call_key, tags, flow });
        let leg = self.calls.get_mut(&call_key).and_then(|call| {
            let index = call.position(tags)?;
            call.legs.get_mut(index)
        });
        for pin in leg.into_iter().flat_map(|leg| &mut leg.pins).filter(|pin| pin.flow() == flow) {
            pin.pinning = Some(id);
        }
    }

    /// Closes what the kernel has and no binding explains. Its ports rest as after a call.
    fn close_strays(&mut self, now: Instant, held: &Held) {
        let quarantine = self.policy.quarantine;
        let is_ours = |pinhole: &Pinhole| {
            let Pinhole { transport, inside, uplink, .. } = *pinhole;
            let key = BindingKey::new(transport, inside, uplink);
            self.bindings.get(&key).is_some_and(|binding| binding.public() == pinhole.public)
        };
        let strays: Vec<Pinhole> =
            held.pinholes.iter().map(|(pinhole, _)| *pinhole).filter(|it| !is_ours(it)).collect();
        let wanted: BTreeSet<Peer> = self
            .bindings
            .iter()
            .flat_map(|(key, binding)| binding.peers(key.transport()).collect::<Vec<_>>())
            .collect();
        let mut unwanted: BTreeMap<Outside, Vec<Peer>> = BTreeMap::new();
        for peer in held.peers.iter().map(|(peer, _)| *peer).filter(|peer| !wanted.contains(peer)) {
            unwanted.entry(peer.public).or_default().push(peer);
        }
        for pinhole in strays {
            let peers = unwanted.remove(&pinhole.public).unwrap_or_default();
            self.bindings.rest(pinhole.public, now + quarantine, &self.policy.ports);
            let pinholes = Pinholes::from_iter([pinhole]);
            self.background(Op::Close { pinholes, peers, quarantine }, "close");
        }
        let unwanted: Vec<Peer> = unwanted.into_values().flatten().collect();
        if !unwanted.is_empty() {
            self.background(Op::Dismiss { peers: unwanted }, "dismiss");
        }
        for (public, left) in &held.owned {
            if self.bindings.by_public(*public).is_none() {
                self.bindings.rest(*public, now + *left, &self.policy.ports);
            }
        }
    }

    fn all_pins(&self) -> Vec<(Key, Tags, PinnedFlow)> {
        let legs = self.calls.iter().flat_map(|(key, call)| call.legs.iter().map(move |leg| (*key, leg)));
        let mut pins: Vec<_> =
            legs.flat_map(|(key, leg)| leg.pins.iter().map(move |pin| (key, leg.tags, pin.flow()))).collect();
        pins.sort_unstable_by_key(|(key, tags, flow)| (*key, *tags, flow.inside, flow.far));
        pins
    }
}

/// How often legs of calls own each binding, and want each peer.
#[derive(Default)]
struct Owned {
    bindings: BTreeMap<BindingKey, u16>,
    peers: BTreeMap<(BindingKey, Option<IpAddr>), u16>,
}

impl Owned {
    fn count(calls: &super::super::call::Calls) -> Self {
        let mut owned = Self::default();
        for leg in calls.iter().flat_map(|(_, call)| &call.legs) {
            for key in leg.bindings() {
                *owned.bindings.entry(key).or_default() += 1;
            }
            for peer in &leg.admitted {
                *owned.peers.entry(*peer).or_default() += 1;
            }
        }
        owned
    }
}

fn entry<K: Copy, V: Kept>(key: &K, value: &V, deadline: Instant, now: Instant) -> Entry<K, V::Form> {
    Entry { key: *key, value: value.keep(now), deadline: deadline.keep(now) }
}

fn entries_of<'a, K: Copy + 'a, V: Kept + 'a>(
    all: impl Iterator<Item = (&'a K, &'a V, Instant)>,
    now: Instant,
) -> Vec<Entry<K, V::Form>> {
    all.map(|(key, value, due)| entry(key, value, due, now)).collect()
}

fn entries<K, V, S>(table: &ExpiringMap<K, V, S>, now: Instant) -> Vec<Entry<K, V::Form>>
where
    K: Copy + Eq + std::hash::Hash,
    V: Kept,
    S: std::hash::BuildHasher,
{
    entries_of(table.with_deadlines(), now)
}

fn fill<K, V, S>(table: &mut ExpiringMap<K, V, S>, entries: Vec<Entry<K, V::Form>>, then: Instant)
where
    K: Copy + Eq + std::hash::Hash,
    V: Kept,
    S: std::hash::BuildHasher,
{
    for Entry { key, value, deadline } in entries {
        // What has no room is forgotten, as if it had never been heard of.
        let _ = table.insert(key, V::revive(value, then), Instant::revive(deadline, then));
    }
}
