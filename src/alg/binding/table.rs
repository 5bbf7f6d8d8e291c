//! All bindings, by both of their endpoints, and the ports of all public addresses.
//!
//! It chooses ports and counts owners' pins. When a binding is made or closed is not known here.

use std::hash::BuildHasher;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashTable};

use super::quota::Quotas;
use super::{Binding, BindingKey, NoBinding, Pins};
use crate::alg::call::Target;
use crate::alg::command::{PinnedFlow, Transport};
use crate::alg::endpoint::{Inside, Outside};
use crate::alg::policy::{MediaLocal, Policy};
use crate::alg::ports::PortPool;
use crate::alg::state::PoolState;
use crate::expiring::{ExpiringMap, Place};

/// Most public addresses with a pool of their own.
const POOLS: usize = 256;

/// In boxes: a table has room for twice as many as it holds.
type Table = ExpiringMap<BindingKey, Box<Binding>, FixedState>;

/// All bindings. The deadline of an entry is when it has to be renewed in the kernel.
#[derive(Debug)]
pub struct Bindings {
    table: Table,
    /// All of them, to be found by their public endpoints, which stand in `table` only.
    by_public: HashTable<Place>,
    hasher: FixedState,
    pools: HashMap<IpAddr, PortPool, FixedState>,
    quotas: Quotas,
    /// Flows that are pinned without a binding, for there is no NAT; with the number of legs that want each.
    routed: HashMap<(Inside, SocketAddr), u16, FixedState>,
}

impl Bindings {
    /// No bindings.
    pub fn new(policy: &Policy, hasher: FixedState) -> Self {
        let limit = policy.limits.bindings;
        Self {
            table: ExpiringMap::new(limit, hasher.clone()),
            by_public: HashTable::new(),
            hasher: hasher.clone(),
            routed: HashMap::with_hasher(hasher.clone()),
            pools: HashMap::with_hasher(hasher.clone()),
            quotas: Quotas::new(limit, hasher),
        }
    }

    /// The binding of this name.
    pub fn get(&self, key: &BindingKey) -> Option<&Binding> {
        self.table.get(key).map(AsRef::as_ref)
    }

    /// The binding of this name, to be changed.
    pub fn get_mut(&mut self, key: &BindingKey) -> Option<&mut Binding> {
        self.table.get_mut(key).map(AsMut::as_mut)
    }

    /// The binding that has this public endpoint.
    pub fn by_public(&self, public: Outside) -> Option<(&BindingKey, &Binding)> {
        let is_it = |place: &Place| stands_at(&self.table, *place, public);
        let place = self.by_public.find(self.hasher.hash_one(public), is_it)?;
        self.table.at(*place).map(|(key, binding)| (key, &**binding))
    }

    /// One leg more wants this flow pinned.
    pub fn count_pin(&mut self, flow: &PinnedFlow) {
        match self.pins_of(flow) {
            Some(pins) => match pins.iter_mut().find(|(far, _)| *far == flow.far.into()) {
                Some((_, count)) => *count = count.saturating_add(1),
                None => pins.push((flow.far.into(), 1)),
            },
            None => *self.routed.entry((flow.inside, flow.far)).or_default() += 1,
        }
    }

    /// One leg less wants it; whether another one still does.
    pub fn uncount_pin(&mut self, flow: &PinnedFlow) -> bool {
        if let Some(pins) = self.pins_of(flow) {
            let Some(at) = pins.iter().position(|(far, _)| *far == flow.far.into()) else { return false };
            let Some((_, count)) = pins.get_mut(at) else { return false };
            *count = count.saturating_sub(1);
            let over = *count == 0;
            if over {
                pins.swap_remove(at);
            }
            return !over;
        }
        let key = (flow.inside, flow.far);
        let Some(count) = self.routed.get_mut(&key) else { return false };
        *count = count.saturating_sub(1);
        let over = *count == 0;
        if over {
            self.routed.remove(&key);
        }
        !over
    }

    /// Whether any leg wants this flow pinned.
    pub fn is_pin_wanted(&self, flow: &PinnedFlow) -> bool {
        self.routed.contains_key(&(flow.inside, flow.far))
            || self
                .by_public(flow.public)
                .is_some_and(|(_, binding)| binding.pins.iter().any(|(far, _)| *far == flow.far.into()))
    }

    fn pins_of(&mut self, flow: &PinnedFlow) -> Option<&mut Pins> {
        // An endpoint that the NAT gave may by now be one of ours, and stand for another.
        let (key, _) = self.by_public(flow.public).filter(|(key, _)| key.inside() == flow.inside)?;
        let key = *key;
        self.table.get_mut(&key).map(|binding| &mut binding.pins)
    }

    /// Takes a run of public ports for inside endpoints that follow each other, the first of the parity of the first
    /// inside port.
    pub fn take_ports(
        &mut self,
        public: IpAddr,
        like: u16,
        count: u16,
        now: Instant,
        policy: &Policy,
    ) -> Result<u16, NoBinding> {
        if !self.pools.contains_key(&public) && self.pools.len() >= POOLS {
            return Err(NoBinding::Quota);
        }
        let pool = self.pools.entry(public).or_insert_with(|| PortPool::new(&policy.ports));
        pool.wake(now);
        pool.take(like, count).ok_or(NoBinding::PoolEmpty)
    }

    /// Takes just these `count` public ports from `first` on, for the rest of a run; `false`: one of them is not free.
    pub fn take_ports_at(&mut self, public: IpAddr, first: u16, count: u16) -> bool {
        self.pools.get_mut(&public).is_some_and(|pool| pool.take_at(first, count))
    }

    /// Whether the table can hold `count` more.
    pub fn has_room(&self, count: usize, policy: &Policy) -> bool {
        self.table.len() + count <= policy.limits.bindings
    }

    /// Whether `host`'s share leaves room for `count` more bindings now.
    pub fn has_share(&self, host: IpAddr, count: usize, now: Instant, policy: &Policy) -> bool {
        self.quotas.has_share(host, count, now, policy)
    }

    /// Whether `host` may have `count` more bindings now; if so they count as opened.
    pub fn admit_host(
        &mut self,
        host: IpAddr,
        count: usize,
        now: Instant,
        policy: &Policy,
    ) -> Result<(), NoBinding> {
        if !self.has_room(count, policy) {
            return Err(NoBinding::Quota);
        }
        self.quotas.admit(host, count, now, policy)
    }

    /// Gives back what [`Bindings::admit_host`] counted, because there was no port.
    pub fn return_quota(&mut self, host: IpAddr, count: usize) {
        self.quotas.give_back(host, count);
    }

    /// The public endpoint that stands for an inside one at an uplink.
    pub fn public_of(&self, transport: Transport, inside: SocketAddr, uplink: u32) -> Option<SocketAddr> {
        let key = BindingKey::new(transport, Inside(inside), uplink);
        self.table.get(&key).map(|binding| binding.public().0)
    }

    /// The inside endpoint of a public one for UDP, if it is `host`'s own.
    pub fn own_of(&self, public: Outside, host: IpAddr) -> Option<SocketAddr> {
        let (key, _) = self.by_public(public)?;
        let Inside(inside) = key.inside();
        (inside.ip() == host && key.transport() == Transport::Udp).then_some(inside)
    }

    /// How a phone that is reached by interface `lan` gets to the phone behind one of our public endpoints. `None`: it
    /// is no endpoint of ours for this transport.
    pub fn target(
        &self,
        transport: Transport,
        public: Outside,
        lan: u32,
        policy: &Policy,
    ) -> Option<(Target, Inside)> {
        let (key, binding) = self.by_public(public).filter(|(key, _)| key.transport() == transport)?;
        let direct = policy.media_local == MediaLocal::Direct && lan != 0 && binding.lan == lan;
        let hairpin = Target::Hairpin { public: public.0.into(), inside: key.inside().0.into() };
        Some((if direct { Target::Direct } else { hairpin }, key.inside()))
    }

    /// Puts a new binding in; its ports and its host's quota have been taken.
    pub fn insert(&mut self, key: BindingKey, binding: Binding, renewal: Instant) {
        let public = binding.public();
        if self.table.insert(key, Box::new(binding), renewal).is_err() {
            debug_assert!(false, "admit_host keeps the table within its limit");
            return;
        }
        self.index(public, &key);
    }

    /// Gives a binding another public port, because something has the first one; that one rests.
    pub fn move_to(&mut self, key: &BindingKey, port: u16, now: Instant, quarantine: Duration) {
        let Some(old) = self.get(key).map(|binding| binding.public()) else { return };
        let new = Outside(SocketAddr::new(old.0.ip(), port));
        self.strike(old);
        if let Some(binding) = self.table.get_mut(key) {
            binding.public = new.0.into();
        }
        self.index(new, key);
        if let Some(pool) = self.pools.get_mut(&old.0.ip()) {
            pool.release(old.0.port(), now, quarantine);
        }
    }

    /// Takes a binding out; its port rests.
    pub fn remove(&mut self, key: &BindingKey, now: Instant, quarantine: Duration) -> Option<Binding> {
        let public = self.get(key)?.public();
        self.strike(public);
        let binding = self.table.remove(key)?;
        if let Some(pool) = self.pools.get_mut(&public.0.ip()) {
            pool.release(public.0.port(), now, quarantine);
        }
        self.quotas.give_back(binding.signalling.get().inside.0.ip(), 1);
        Some(*binding)
    }

    /// The names of all bindings on a public address, in order.
    pub fn at_address(&self, public: IpAddr) -> Vec<BindingKey> {
        let here = self.iter().filter(|(_, binding)| binding.public().0.ip() == public);
        let mut keys: Vec<_> = here.map(|(key, _)| *key).collect();
        keys.sort_unstable();
        keys
    }

    /// All bindings, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = (&BindingKey, &Binding)> {
        self.table.iter().map(|(key, binding)| (key, &**binding))
    }

    /// All bindings with the dates of their renewal, in no order that means anything.
    pub fn with_renewals(&self) -> impl Iterator<Item = (&BindingKey, &Binding, Instant)> {
        self.table.with_deadlines().map(|(key, binding, due)| (key, &**binding, due))
    }

    /// The ports of all public addresses as the next engine has to know them.
    pub fn export_pools(&self, now: Instant) -> Vec<PoolState> {
        self.pools.iter().map(|(address, pool)| pool.export(*address, now)).collect()
    }

    /// Takes over the ports of an earlier engine, in the order in which they have been free, with those that rest. Its
    /// bindings have to follow.
    pub fn import_pools(&mut self, pools: Vec<PoolState>, then: Instant, range: &RangeInclusive<u16>) {
        for state in pools.into_iter().take(POOLS) {
            self.pools.insert(state.address, PortPool::import(&state, then, range));
        }
    }

    /// Takes over a binding of an earlier engine with its port. Nothing happens if its place is taken, or the table full.
    pub fn import(&mut self, key: BindingKey, binding: Binding, renewal: Instant) {
        let public = binding.public();
        let host = binding.signalling.get().inside.0.ip();
        if self.by_public(public).is_some()
            || self.table.get(&key).is_some()
            || self.table.insert(key, Box::new(binding), renewal).is_err()
        {
            return;
        }
        self.index(public, &key);
        if let Some(pool) = self.pools.get_mut(&public.0.ip()) {
            pool.claim(public.0.port());
        }
        self.quotas.take_over(host, renewal);
    }

    /// Lets a port rest until then, unless it is taken: the kernel has something of it that nobody owns.
    pub fn rest(&mut self, public: Outside, until: Instant, range: &RangeInclusive<u16>) {
        let address = public.0.ip();
        if self.by_public(public).is_none() && (self.pools.contains_key(&address) || self.pools.len() < POOLS)
        {
            let pool = self.pools.entry(address).or_insert_with(|| PortPool::new(range));
            pool.rest(public.0.port(), until);
        }
    }

    /// Moves the date of a renewal.
    pub fn set_renewal(&mut self, key: &BindingKey, due: Instant) {
        self.table.set_deadline(key, due);
    }

    /// The names of all bindings, in order.
    pub fn keys(&self) -> Vec<BindingKey> {
        let mut keys: Vec<_> = self.table.iter().map(|(key, _)| *key).collect();
        keys.sort_unstable();
        keys
    }

    /// Has a binding renewed at `at`, unless that happens earlier.
    pub fn renew_by(&mut self, key: &BindingKey, at: Instant) {
        if self.table.deadline(key).is_some_and(|due| due > at) {
            self.table.set_deadline(key, at);
        }
    }

    /// A binding that must be renewed now; each gets `next` as its next date.
    pub fn pop_renewal(&mut self, now: Instant, next: Instant) -> Option<BindingKey> {
        let key = self.table.peek_expired(now)?;
        self.table.set_deadline(&key, next);
        Some(key)
    }

    /// Ends quarantines and forgets hosts without bindings.
    pub fn tidy(&mut self, now: Instant) {
        for pool in self.pools.values_mut() {
            pool.wake(now);
        }
        self.quotas.tidy(now);
    }

    /// The next time at which there is something to renew, to wake or to forget.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let pools = self.pools.values().filter_map(PortPool::poll_timeout).min();
        [self.table.poll_timeout(), self.quotas.poll_timeout(), pools].into_iter().flatten().min()
    }

    /// Follows new settings. Ports that are taken stay taken, also outside of a new range; those that rest go on resting
    /// if they are in it.
    pub fn set_policy(&mut self, policy: &Policy) {
        let limit = policy.limits.bindings;
        self.table.set_limit(limit);
        self.quotas.set_limit(limit);
        for (address, pool) in &mut self.pools {
            if pool.covers(&policy.ports) {
                continue;
            }
            pool.reshape(&policy.ports);
            let publics = self.table.iter().map(|(_, binding)| binding.public().0);
            for public in publics.filter(|public| public.ip() == *address) {
                pool.claim(public.port());
            }
        }
    }

    /// Enters a binding of the table under its public endpoint.
    fn index(&mut self, public: Outside, key: &BindingKey) {
        let Self { table, by_public, hasher, .. } = self;
        let Some(place) = table.place(key) else { return };
        let again = |place: &Place| table.at(*place).map_or(0, |(_, it)| hasher.hash_one(it.public()));
        by_public.insert_unique(hasher.hash_one(public), place, again);
    }

    /// Takes out what stands under a public endpoint; its binding must still be there.
    fn strike(&mut self, public: Outside) {
        let Self { table, by_public, hasher, .. } = self;
        let is_it = |place: &Place| stands_at(table, *place, public);
        if let Ok(entry) = by_public.find_entry(hasher.hash_one(public), is_it) {
            entry.remove();
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Number of bindings.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Number of public ports that are taken or rest.
    pub fn ports_used(&self) -> usize {
        self.pools.values().map(PortPool::used).sum()
    }
}

fn stands_at(table: &Table, place: Place, public: Outside) -> bool {
    table.at(place).is_some_and(|(_, binding)| binding.public() == public)
}
