//! What each host has of the tables, so that none can take all of it (S11).
//!
//! One count for each kind of entry and inside host. Hosts without any are not kept, so the table is never larger than the
//! tables that it counts. Pinholes have an account of their own, with a rate (see [`super::binding`]).

use std::net::IpAddr;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

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
    hosts: HashMap<IpAddr, [u32; 4], FixedState>,
    limit: u32,
}

impl Shares {
    /// At most `limit` entries of each table for each host.
    pub fn new(limit: usize, hasher: FixedState) -> Self {
        Self { hosts: HashMap::with_hasher(hasher), limit: u32::try_from(limit).unwrap_or(u32::MAX) }
    }

    /// Counts one more; `false`: the host has its share.
    pub fn take(&mut self, host: IpAddr, table: Table) -> bool {
        let limit = self.limit;
        let counts = self.hosts.entry(host).or_default();
        match counts.get_mut(table as usize) {
            Some(count) if *count < limit => {
                *count += 1;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Counts one more, even beyond the share: it is there already.
    pub fn count(&mut self, host: IpAddr, table: Table) {
        if let Some(count) = self.hosts.entry(host).or_default().get_mut(table as usize) {
            *count = count.saturating_add(1);
        }
    }

    /// Moves the limit. Who has more than that keeps it.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = u32::try_from(limit).unwrap_or(u32::MAX);
    }

    /// Counts one less.
    pub fn give(&mut self, host: IpAddr, table: Table) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_gets_its_share_of_each_table_and_no_more() {
        let mut shares = Shares::new(2, FixedState::default());
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
    }
}
