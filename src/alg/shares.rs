//! What each host has of the tables, so that none can take all of it (S11).
//!
//! One count for each kind of entry and inside host. Hosts without any are not kept, so the table is never larger than the
//! tables that it counts. Who has IPv6 has a whole /64 of addresses, and takes another one as often as he likes; so all of
//! a /64 counts as one host. Pinholes have an account of their own, with a rate (see [`super::binding`]).

use std::net::IpAddr;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::policy::Limits;

/// Who is counted: an IPv4 address, or the /64 of an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(IpAddr);

impl Host {
    /// The one that has this address.
    pub fn of(address: IpAddr) -> Self {
        Self(match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(it) => IpAddr::V6((it.to_bits() >> 64 << 64).into()),
        })
    }
}

/// A table that is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Signalling flows.
    Flows,
    /// Transactions.
    Transactions,
    /// Calls.
    Calls,
    /// Registrations, by whatever flow.
    Registrations,
}

/// Entries of each host.
#[derive(Debug)]
pub struct Shares {
    hosts: HashMap<Host, [u32; 4], FixedState>,
    /// By table.
    limits: [u32; 4],
}

impl Shares {
    /// At most as many entries of each table for each host as `limits` says.
    pub fn new(limits: &Limits, hasher: FixedState) -> Self {
        Self { hosts: HashMap::with_hasher(hasher), limits: of_a_host(limits) }
    }

    /// Counts one more; `false`: the host has its share.
    pub fn take(&mut self, host: IpAddr, table: Table) -> bool {
        let has_room = self.has_room(host, table);
        if has_room {
            self.count(host, table);
        }
        has_room
    }

    /// Whether the host may have one more.
    pub fn has_room(&self, host: IpAddr, table: Table) -> bool {
        let at = table as usize;
        let count =
            self.hosts.get(&Host::of(host)).and_then(|counts| counts.get(at)).copied().unwrap_or_default();
        self.limits.get(at).is_some_and(|limit| count < *limit)
    }

    /// Counts one more, even beyond the share: it is there already.
    pub fn count(&mut self, host: IpAddr, table: Table) {
        if let Some(count) = self.hosts.entry(Host::of(host)).or_default().get_mut(table as usize) {
            *count = count.saturating_add(1);
        }
    }

    /// Moves the limits. Who has more than that keeps it.
    pub fn set_limits(&mut self, limits: &Limits) {
        self.limits = of_a_host(limits);
    }

    /// Counts one less.
    pub fn give(&mut self, host: IpAddr, table: Table) {
        let host = Host::of(host);
        let Some(counts) = self.hosts.get_mut(&host) else { return };
        if let Some(count) = counts.get_mut(table as usize) {
            *count = count.saturating_sub(1);
        }
        if *counts == [0; 4] {
            self.hosts.remove(&host);
        }
    }

    /// Number of hosts that have anything.
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Whether nobody has anything.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }
}

/// By table. A transaction is kept for half a minute after its answer, so one call after the other makes many of them.
fn of_a_host(limits: &Limits) -> [u32; 4] {
    [limits.per_host, limits.transactions_per_host, limits.per_host, limits.per_host]
        .map(|limit| u32::try_from(limit).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_gets_its_share_of_each_table_and_no_more() {
        let limits = Limits { per_host: 2, transactions_per_host: 3, ..Limits::default() };
        let mut shares = Shares::new(&limits, FixedState::default());
        let [a, b]: [IpAddr; 2] = ["192.168.1.1", "192.168.1.2"].map(|it| it.parse().unwrap());
        assert!(shares.take(a, Table::Flows) && shares.take(a, Table::Flows));
        assert!(!shares.take(a, Table::Flows));
        assert!(shares.take(a, Table::Calls) && shares.take(b, Table::Flows));
        shares.give(a, Table::Flows);
        assert!(shares.take(a, Table::Flows) && !shares.take(a, Table::Flows));
        for (host, table) in [(a, Table::Flows), (a, Table::Flows), (a, Table::Calls), (b, Table::Flows)] {
            shares.give(host, table);
        }
        assert!(shares.is_empty());
        assert_eq!([(); 4].map(|()| shares.take(a, Table::Transactions)), [true, true, true, false]);
        for _ in 0..3 {
            shares.give(a, Table::Transactions);
        }
        assert!(shares.is_empty());
    }

    #[test]
    fn a_64_is_one_host_and_an_ipv4_address_is_one() {
        let limits = Limits { per_host: 2, ..Limits::default() };
        let mut shares = Shares::new(&limits, FixedState::default());
        let mut take = |host: &str| shares.take(host.parse().unwrap(), Table::Flows);
        assert!(take("2001:db8:1:2::1") && take("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert!(!take("2001:db8:1:2:3::4"));
        assert!(take("2001:db8:1:3::1") && take("192.168.1.1") && take("192.168.1.2"));
        assert_eq!(shares.len(), 4);
        shares.give("2001:db8:1:2:8::".parse().unwrap(), Table::Flows);
        assert!(shares.take("2001:db8:1:2:9::".parse().unwrap(), Table::Flows));
    }
}
