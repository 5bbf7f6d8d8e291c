//! How many bindings one inside host may have, and how fast it may open them (S11).
//!
//! It counts; what it counts, and what happens to who wants more, is not its business.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use foldhash::fast::FixedState;

use super::NoBinding;
use crate::alg::policy::Policy;
use crate::alg::shares::Host;
use crate::expiring::ExpiringMap;

/// Hosts that are known, at least.
const FEWEST: usize = 1024;
/// They are forgotten after this long without a binding.
const MEMORY: Duration = Duration::from_secs(120);

/// The accounts of all inside hosts.
#[derive(Debug)]
pub(super) struct Quotas(ExpiringMap<Host, Account, FixedState>);

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

impl Quotas {
    /// Accounts for as many hosts as there may be bindings.
    pub(super) fn new(limit: usize, hasher: FixedState) -> Self {
        Self(ExpiringMap::new(limit.max(FEWEST), hasher))
    }

    /// Changes that number.
    pub(super) fn set_limit(&mut self, limit: usize) {
        self.0.set_limit(limit.max(FEWEST));
    }

    /// Whether `host` may have `count` more now.
    pub(super) fn has_share(&self, host: IpAddr, count: usize, now: Instant, policy: &Policy) -> bool {
        let limits = &policy.limits;
        let (bindings, tokens) = match self.0.get(&Host::of(host)) {
            Some(account) if !account.is_over(now) => (account.bindings, account.tokens),
            account => (account.map_or(0, |it| it.bindings), limits.openings_per_minute),
        };
        bindings + count <= limits.bindings_per_host && tokens as usize >= count
    }

    /// The same; if so they count as opened.
    pub(super) fn admit(
        &mut self,
        host: IpAddr,
        count: usize,
        now: Instant,
        policy: &Policy,
    ) -> Result<(), NoBinding> {
        let (limits, counted) = (&policy.limits, Host::of(host));
        if self.0.get(&counted).is_none() {
            let fresh = Account { bindings: 0, tokens: limits.openings_per_minute, since: Some(now) };
            self.0.insert(counted, fresh, now + MEMORY).map_err(|_| NoBinding::Quota)?;
        }
        if !self.has_share(host, count, now, policy) {
            return Err(NoBinding::Quota);
        }
        let account = self.0.get_mut(&counted).ok_or(NoBinding::Quota)?;
        if account.is_over(now) {
            account.since = Some(now);
            account.tokens = limits.openings_per_minute;
        }
        account.tokens = account.tokens.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
        account.bindings += count;
        Ok(())
    }

    /// Counts a binding that an earlier engine made; the minute begins anew with this one.
    pub(super) fn take_over(&mut self, host: IpAddr, until: Instant) {
        let host = Host::of(host);
        if self.0.get(&host).is_none() {
            let fresh = Account { bindings: 0, tokens: 0, since: None };
            let _ = self.0.insert(host, fresh, until);
        }
        if let Some(account) = self.0.get_mut(&host) {
            account.bindings += 1;
        }
    }

    /// `count` bindings of `host` are gone.
    pub(super) fn give_back(&mut self, host: IpAddr, count: usize) {
        if let Some(account) = self.0.get_mut(&Host::of(host)) {
            account.bindings = account.bindings.saturating_sub(count);
        }
    }

    /// Forgets hosts without bindings.
    pub(super) fn tidy(&mut self, now: Instant) {
        while let Some(host) = self.0.peek_expired(now) {
            if self.0.get(&host).is_some_and(|account| account.bindings > 0) {
                self.0.set_deadline(&host, now + MEMORY);
            } else {
                self.0.remove(&host);
            }
        }
    }

    /// When [`Quotas::tidy`] is worth a call.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.0.poll_timeout()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alg::Limits;

    #[test]
    fn whoever_has_a_64_of_ipv6_has_one_hosts_share_of_pinholes() {
        let limits = Limits { bindings_per_host: 4, openings_per_minute: 6, ..Limits::default() };
        let policy = Policy { limits, ..Policy::default() };
        let mut quotas = Quotas::new(policy.limits.bindings, FixedState::default());
        let start = Instant::now();
        let mut admit = |host: &str, count, now| {
            quotas.admit(host.parse().unwrap(), count, now, &policy).map(|()| {
                // Only the rate counts.
                if count == 2 {
                    quotas.give_back(host.parse().unwrap(), count);
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
