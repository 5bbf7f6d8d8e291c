//! Bindings: inside media endpoints tied to public ones.
//!
//! A binding is one endpoint. It belongs to the phone, not to a call: a phone that uses its RTP port in two calls has
//! one binding with two owners (endpoint-independent mapping, RFC 4787 section 4.1), and all bindings of a phone lie on
//! the public address of its signalling (paired pooling, REQ-2). The last owner to go closes it. This table chooses
//! ports and counts; it sends no command.

use serde::{Deserialize, Serialize};
use std::hash::{BuildHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashTable};

use super::call::Target;
use super::command::{CommandId, FlowKey, Peer, Pinhole, PinnedFlow, Transport};
use super::endpoint::{Inside, Outside};
use super::policy::{MediaLocal, Policy};
use super::ports::PortPool;
use super::shares::Host;
use super::state::PoolState;
use crate::expiring::ExpiringMap;

/// Most public addresses with a pool of their own.
const POOLS: usize = 256;
/// Quota records are forgotten after this long without a binding.
const QUOTA_MEMORY: Duration = Duration::from_secs(120);

/// A binding's name: the phone's endpoint, what it is for (a phone may have the same port number for UDP and for TCP), and
/// the index of the interface towards the outside. The kernel's map from inside to outside has the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "Spelt", into = "Spelt")]
pub struct BindingKey {
    // Not an endpoint in one piece, which would have a gap at its end.
    ip: IpAddr,
    port: u16,
    transport: Transport,
    uplink: u32,
}

impl BindingKey {
    /// The name of this binding.
    pub fn new(transport: Transport, inside: Inside, uplink: u32) -> Self {
        Self { ip: inside.0.ip(), port: inside.0.port(), transport, uplink }
    }

    /// What it is for.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// The phone's endpoint.
    pub fn inside(&self) -> Inside {
        Inside(SocketAddr::new(self.ip, self.port))
    }
}

impl Hash for BindingKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inside().hash(state);
        state.write_u64(u64::from(self.uplink) << 8 | self.transport as u64);
    }
}

/// How a name is written down.
#[derive(Serialize, Deserialize)]
struct Spelt {
    #[serde(default)]
    transport: Transport,
    inside: Inside,
    uplink: u32,
}

impl From<Spelt> for BindingKey {
    fn from(Spelt { transport, inside, uplink }: Spelt) -> Self {
        Self::new(transport, inside, uplink)
    }
}

impl From<BindingKey> for Spelt {
    fn from(key: BindingKey) -> Self {
        Self { transport: key.transport, inside: key.inside(), uplink: key.uplink }
    }
}

/// How far a binding is in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Asked for. Entered when it is made.
    Opening(CommandId),
    /// There. Entered from `Opening`.
    Open,
}

/// Somebody who may send to a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The address; `None`: everybody.
    pub far: Option<IpAddr>,
    /// How many legs of calls want it.
    pub wanted: u16,
    /// The command that is under way.
    pub admitting: Option<CommandId>,
}

/// One binding.
#[derive(Clone, Debug)]
pub struct Binding {
    /// Both endpoints and the uplink.
    pub pinhole: Pinhole,
    /// Index of the interface towards the phone.
    pub lan: u32,
    /// The signalling flow that first asked for it.
    pub signalling: FlowKey,
    /// How many streams use it.
    pub owners: u16,
    /// How far it is.
    pub state: State,
    /// Who may send to it.
    pub peers: Vec<Admitted>,
    /// The far ends to which it is pinned, each with the number of legs of calls that want it.
    pub pins: Vec<(SocketAddr, u16)>,
    /// When a flow of it last died in conntrack: it had media until shortly before.
    pub died: Option<Instant>,
    /// A flow of it died, so that it has to be pinned anew before media can come in again.
    pub lapsed: bool,
    /// Whether conntrack expects media here.
    pub expecting: Expecting,
    /// Flows that were pinned because media came from another port than announced.
    pub latched: Vec<(PinnedFlow, Latch)>,
}

/// Whether conntrack expects media at a binding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expecting {
    /// Not asked for. Entered when the binding is made, and from `Yes` when its far end is known.
    #[default]
    No,
    /// Asked for. Entered from `No` with an offer, and from `Refused` with its first answer.
    Yes,
    /// The kernel does not know the signalling flow yet: this is the flow's first packet. Entered from `Yes`.
    Refused,
    /// The kernel never will. Entered from `Yes`.
    Never,
}

/// How far a latched flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Latch {
    /// Asked for. Entered by the first packet, and again by one that comes after the flow died.
    Pinning(CommandId),
    /// Pinned; the packet that asked for it waits for its verdict. Entered from `Pinning`.
    Pinned,
    /// The packet is gone. Entered from `Pinned`.
    Settled,
}

impl Binding {
    /// Everybody admitted, for commands.
    pub fn peers(&self) -> impl Iterator<Item = Peer> + '_ {
        let Pinhole { transport, public, .. } = self.pinhole;
        self.peers.iter().map(move |it| Peer { transport, public, far: it.far })
    }
}

/// Why there is no binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoBinding {
    /// The table, or the host's share of it, is full, or the host opens too fast (S11).
    Quota,
    /// No public port is free.
    PoolEmpty,
}

#[derive(Debug)]
struct Account {
    bindings: usize,
    /// Openings that are left of this minute's.
    tokens: u32,
    /// When the minute began; `None`: it begins with the next opening.
    since: Option<Instant>,
}

impl Account {
    /// Whether its minute is over, so that another one begins.
    fn is_over(&self, now: Instant) -> bool {
        self.since.is_none_or(|since| now.saturating_duration_since(since) >= Duration::from_secs(60))
    }
}

/// All bindings. The deadline of an entry is when it has to be renewed in the kernel.
#[derive(Debug)]
pub struct Bindings {
    /// In boxes: a table is half empty most of the time.
    table: ExpiringMap<BindingKey, Box<Binding>, FixedState>,
    /// The names of all of them, to be found by their public endpoints, which stand in `table` only.
    by_public: HashTable<BindingKey>,
    hasher: FixedState,
    pools: HashMap<IpAddr, PortPool, FixedState>,
    hosts: ExpiringMap<Host, Account, FixedState>,
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
            hosts: ExpiringMap::new(limit.max(1024), hasher),
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
        let key = self.by_public.find(self.hasher.hash_one(public), |key| self.stands_at(key, public))?;
        Some((key, self.get(key)?))
    }

    /// One leg more wants this flow pinned.
    pub fn count_pin(&mut self, flow: &PinnedFlow) {
        match self.pins_of(flow) {
            Some(pins) => match pins.iter_mut().find(|(far, _)| *far == flow.far) {
                Some((_, count)) => *count = count.saturating_add(1),
                None => {
                    pins.reserve_exact(1);
                    pins.push((flow.far, 1));
                }
            },
            None => *self.routed.entry((flow.inside, flow.far)).or_default() += 1,
        }
    }

    /// One leg less wants it; whether another one still does.
    pub fn uncount_pin(&mut self, flow: &PinnedFlow) -> bool {
        if let Some(pins) = self.pins_of(flow) {
            let Some(at) = pins.iter().position(|(far, _)| *far == flow.far) else { return false };
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
                .is_some_and(|(_, binding)| binding.pins.iter().any(|(far, _)| *far == flow.far))
    }

    fn pins_of(&mut self, flow: &PinnedFlow) -> Option<&mut Vec<(SocketAddr, u16)>> {
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
        let limits = &policy.limits;
        let (bindings, tokens) = match self.hosts.get(&Host::of(host)) {
            Some(record) if !record.is_over(now) => (record.bindings, record.tokens),
            record => (record.map_or(0, |it| it.bindings), limits.openings_per_minute),
        };
        bindings + count <= limits.bindings_per_host && tokens as usize >= count
    }

    /// Whether `host` may have `count` more bindings now; if so they count as opened.
    pub fn admit_host(
        &mut self,
        host: IpAddr,
        count: usize,
        now: Instant,
        policy: &Policy,
    ) -> Result<(), NoBinding> {
        let (limits, counted) = (&policy.limits, Host::of(host));
        if self.hosts.get(&counted).is_none() {
            let fresh = Account { bindings: 0, tokens: limits.openings_per_minute, since: Some(now) };
            self.hosts.insert(counted, fresh, now + QUOTA_MEMORY).map_err(|_| NoBinding::Quota)?;
        }
        if !self.has_share(host, count, now, policy) || !self.has_room(count, policy) {
            return Err(NoBinding::Quota);
        }
        let record = self.hosts.get_mut(&counted).ok_or(NoBinding::Quota)?;
        if record.is_over(now) {
            record.since = Some(now);
            record.tokens = limits.openings_per_minute;
        }
        record.tokens = record.tokens.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
        record.bindings += count;
        Ok(())
    }

    /// Gives back what [`Bindings::admit_host`] counted, because there was no port.
    pub fn return_quota(&mut self, host: IpAddr, count: usize) {
        if let Some(record) = self.hosts.get_mut(&Host::of(host)) {
            record.bindings = record.bindings.saturating_sub(count);
        }
    }

    /// The public endpoint that stands for an inside one at an uplink.
    pub fn public_of(&self, transport: Transport, inside: SocketAddr, uplink: u32) -> Option<SocketAddr> {
        let key = BindingKey::new(transport, Inside(inside), uplink);
        self.table.get(&key).map(|binding| binding.pinhole.public.0)
    }

    /// The inside endpoint of a public one for UDP, if it is `host`'s own.
    pub fn own_of(&self, public: Outside, host: IpAddr) -> Option<SocketAddr> {
        let (key, _) = self.by_public(public)?;
        let Inside(inside) = key.inside();
        (inside.ip() == host && key.transport == Transport::Udp).then_some(inside)
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
        let (key, binding) = self.by_public(public).filter(|(key, _)| key.transport == transport)?;
        let direct = policy.media_local == MediaLocal::Direct && lan != 0 && binding.lan == lan;
        let hairpin = Target::Hairpin { public: public.0.into(), inside: key.inside().0.into() };
        Some((if direct { Target::Direct } else { hairpin }, key.inside()))
    }

    /// Puts a new binding in; its ports and its host's quota have been taken.
    pub fn insert(&mut self, key: BindingKey, binding: Binding, renewal: Instant) {
        let public = binding.pinhole.public;
        if self.table.insert(key, Box::new(binding), renewal).is_err() {
            debug_assert!(false, "admit_host keeps the table within its limit");
            return;
        }
        self.index(public, key);
    }

    /// Gives a binding another public port, because something has the first one; that one rests.
    pub fn move_to(&mut self, key: &BindingKey, port: u16, now: Instant, quarantine: Duration) {
        let Some(old) = self.get(key).map(|binding| binding.pinhole.public) else { return };
        let new = Outside(SocketAddr::new(old.0.ip(), port));
        self.strike(old);
        if let Some(binding) = self.table.get_mut(key) {
            binding.pinhole.public = new;
        }
        self.index(new, *key);
        if let Some(pool) = self.pools.get_mut(&old.0.ip()) {
            pool.release(old.0.port(), now, quarantine);
        }
    }

    /// Takes a binding out; its port rests.
    pub fn remove(&mut self, key: &BindingKey, now: Instant, quarantine: Duration) -> Option<Binding> {
        let public = self.get(key)?.pinhole.public;
        self.strike(public);
        let binding = self.table.remove(key)?;
        if let Some(pool) = self.pools.get_mut(&public.0.ip()) {
            pool.release(public.0.port(), now, quarantine);
        }
        let host = Host::of(binding.signalling.inside.0.ip());
        if let Some(record) = self.hosts.get_mut(&host) {
            record.bindings = record.bindings.saturating_sub(1);
        }
        Some(*binding)
    }

    /// The names of all bindings on a public address, in order.
    pub fn at_address(&self, public: IpAddr) -> Vec<BindingKey> {
        let here = self.iter().filter(|(_, binding)| binding.pinhole.public.0.ip() == public);
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
        let public = binding.pinhole.public;
        let host = Host::of(binding.signalling.inside.0.ip());
        if self.by_public(public).is_some()
            || self.table.get(&key).is_some()
            || self.table.insert(key, Box::new(binding), renewal).is_err()
        {
            return;
        }
        self.index(public, key);
        if let Some(pool) = self.pools.get_mut(&public.0.ip()) {
            pool.claim(public.0.port());
        }
        if self.hosts.get(&host).is_none() {
            // The quota's minute begins anew with the engine.
            let fresh = Account { bindings: 0, tokens: 0, since: None };
            let _ = self.hosts.insert(host, fresh, renewal);
        }
        if let Some(record) = self.hosts.get_mut(&host) {
            record.bindings += 1;
        }
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
        let (key, binding) = self.table.pop_expired(now)?;
        if self.table.insert(key, binding, next).is_err() {
            debug_assert!(false, "the entry was there a moment ago");
        }
        Some(key)
    }

    /// Ends quarantines and forgets hosts without bindings.
    pub fn tidy(&mut self, now: Instant) {
        for pool in self.pools.values_mut() {
            pool.wake(now);
        }
        while let Some((host, record)) = self.hosts.pop_expired(now) {
            if record.bindings > 0 {
                let kept = self.hosts.insert(host, record, now + QUOTA_MEMORY);
                debug_assert!(kept.is_ok(), "the record was there a moment ago");
            }
        }
    }

    /// The next time at which there is something to renew, to wake or to forget.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let pools = self.pools.values().filter_map(PortPool::poll_timeout).min();
        [self.table.poll_timeout(), self.hosts.poll_timeout(), pools].into_iter().flatten().min()
    }

    /// Follows new settings. Ports that are taken stay taken, also outside of a new range; those that rest go on resting
    /// if they are in it.
    pub fn set_policy(&mut self, policy: &Policy) {
        let limit = policy.limits.bindings;
        self.table.set_limit(limit);
        self.hosts.set_limit(limit.max(1024));
        for (address, pool) in &mut self.pools {
            if pool.covers(&policy.ports) {
                continue;
            }
            pool.reshape(&policy.ports);
            let publics = self.table.iter().map(|(_, binding)| binding.pinhole.public.0);
            for public in publics.filter(|public| public.ip() == *address) {
                pool.claim(public.port());
            }
        }
    }

    fn stands_at(&self, key: &BindingKey, public: Outside) -> bool {
        self.get(key).is_some_and(|binding| binding.pinhole.public == public)
    }

    /// Enters a binding of the table under its public endpoint.
    fn index(&mut self, public: Outside, key: BindingKey) {
        let Self { table, by_public, hasher, .. } = self;
        let again = |key: &BindingKey| table.get(key).map_or(0, |it| hasher.hash_one(it.pinhole.public));
        by_public.insert_unique(hasher.hash_one(public), key, again);
    }

    /// Takes out what stands under a public endpoint; its binding must still be there.
    fn strike(&mut self, public: Outside) {
        let Self { table, by_public, hasher, .. } = self;
        let is_it = |key: &BindingKey| table.get(key).is_some_and(|it| it.pinhole.public == public);
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

/// The keys of the endpoints that one command opens together.
pub type BindingKeys = ArrayVec<BindingKey, 2>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alg::Limits;

    #[test]
    fn whoever_has_a_64_of_ipv6_has_one_hosts_share_of_pinholes() {
        let limits = Limits { bindings_per_host: 4, openings_per_minute: 6, ..Limits::default() };
        let policy = Policy { limits, ..Policy::default() };
        let mut bindings = Bindings::new(&policy, FixedState::default());
        let start = Instant::now();
        let mut admit = |host: &str, count, now| {
            bindings.admit_host(host.parse().unwrap(), count, now, &policy).map(|()| {
                // Only the rate counts.
                if count == 2 {
                    bindings.return_quota(host.parse().unwrap(), count);
                }
            })
        };
        assert_eq!(admit("2001:db8:0:1::1", 4, start), Ok(()));
        assert_eq!(admit("2001:db8:0:1:2:3:4:5", 1, start), Err(NoBinding::Quota));
        assert_eq!(admit("2001:db8:0:2::1", 3, start), Ok(()));
        assert_eq!(admit("2001:db8:0:3::1", 2, start), Ok(()));
        assert_eq!(admit("2001:db8:0:3::2", 2, start), Ok(()));
        assert_eq!(admit("2001:db8:0:3::3", 2, start), Ok(()));
        assert_eq!(admit("2001:db8:0:3::4", 2, start), Err(NoBinding::Quota));
        assert_eq!(admit("2001:db8:0:3::4", 2, start + Duration::from_secs(60)), Ok(()));
    }
}
