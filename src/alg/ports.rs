//! The pool of public ports.
//!
//! Ports are handed out in slots of an even port and the odd one above it, so that RTP keeps its parity and RTCP is
//! the next port (RFC 4787 section 4.2.2, REQ-4; RFC 3550 section 11). The slot that has been free for the longest
//! time goes first, and a released port stays out for a quarantine. One pool belongs to one public address. It does
//! not know who holds a port, and does not ask the system whether a socket has it (see
//! [`Op::Open`](super::command::Op::Open)).

use std::collections::VecDeque;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::state::{Kept, PoolState};

/// How many free slots are looked at for a run of adjacent ones.
const SEARCH: usize = 256;

const EVEN: u8 = 1;
const ODD: u8 = 2;
const QUARANTINED: u8 = 4;

/// The ports of one public address.
#[derive(Clone, Debug)]
pub struct PortPool {
    base: u16,
    /// For each slot: which of its two ports are taken, and whether it rests.
    slots: Vec<u8>,
    /// Free slots, longest free first. A slot that is not free any more (taken as part of a run) is skipped.
    free: VecDeque<u16>,
    resting: VecDeque<(Instant, u16)>,
}

impl PortPool {
    /// A pool of the whole slots in `range`.
    pub fn new(range: &RangeInclusive<u16>) -> Self {
        let base = range.start().saturating_add(range.start() % 2);
        let last = u32::from(*range.end()) + 1;
        let count = last.saturating_sub(u32::from(base)) / 2;
        let count = u16::try_from(count).unwrap_or(u16::MAX);
        Self {
            base,
            slots: vec![0; usize::from(count)],
            free: (0..count).collect(),
            resting: VecDeque::new(),
        }
    }

    /// Whether this is the pool of `range`.
    pub fn covers(&self, range: &RangeInclusive<u16>) -> bool {
        let other = Self::new(range);
        (self.base, self.slots.len()) == (other.base, other.slots.len())
    }

    /// Becomes the pool of another range, with all its ports free but those that rest, and the longest free first. Ports
    /// that are taken have to be claimed again.
    pub fn reshape(&mut self, range: &RangeInclusive<u16>) {
        let old = std::mem::replace(self, Self::new(range));
        let moved = |slot: u16| {
            let port = u32::from(old.base) + 2 * u32::from(slot);
            let slot = self.slot_of(u16::try_from(port).ok()?)?;
            (usize::from(slot) < self.slots.len()).then_some(slot)
        };
        let resting: Vec<_> =
            old.resting.iter().filter_map(|(until, slot)| Some((*until, moved(*slot)?))).collect();
        let mut order: Vec<u16> = old.free.iter().filter_map(|slot| moved(*slot)).collect();
        let mut known = vec![false; self.slots.len()];
        let mut first_time =
            |slot: u16| known.get_mut(usize::from(slot)).is_some_and(|known| !std::mem::replace(known, true));
        order.retain(|slot| first_time(*slot));
        // What was not in the old range has never been used; it goes first.
        let fresh: Vec<u16> = self.free.iter().copied().filter(|slot| first_time(*slot)).collect();
        self.free = fresh.into_iter().chain(order).collect();
        for (until, slot) in resting {
            if let Some(state) = self.slots.get_mut(usize::from(slot)) {
                *state = QUARANTINED;
                self.resting.push_back((until, slot));
            }
        }
    }

    /// What the next engine has to know.
    pub fn export(&self, address: IpAddr, now: Instant) -> PoolState {
        let mut free: Vec<(u16, u16)> = Vec::new();
        for &slot in self.free.iter().filter(|slot| self.is_free_run(**slot, 1)) {
            match free.last_mut() {
                Some((first, count)) if first.checked_add(*count) == Some(slot) => *count += 1,
                _ => free.push((slot, 1)),
            }
        }
        let resting = self.resting.iter().map(|(until, slot)| (*slot, until.keep(now))).collect();
        let slots = u16::try_from(self.slots.len()).unwrap_or(u16::MAX);
        PoolState { address, base: self.base, slots, free, resting }
    }

    /// The pool of an earlier engine, with another range if that has changed. Ports that are taken have to be claimed.
    pub fn import(state: &PoolState, then: Instant, range: &RangeInclusive<u16>) -> Self {
        let count = state.slots.min(u16::MAX / 2);
        let runs = state.free.iter().flat_map(|(first, count)| *first..first.saturating_add(*count));
        let mut pool = Self {
            base: state.base & !1,
            slots: vec![0; usize::from(count)],
            free: runs.filter(|slot| *slot < count).take(usize::from(count)).collect(),
            resting: VecDeque::new(),
        };
        for (slot, until) in &state.resting {
            if let Some(state) = pool.slots.get_mut(usize::from(*slot)) {
                *state = QUARANTINED;
                pool.resting.push_back((Instant::revive(*until, then), *slot));
            }
        }
        if !pool.covers(range) {
            pool.reshape(range);
        }
        // What is neither free nor resting was taken. Where its owner is gone, it is free all the same.
        let mut listed = vec![false; pool.slots.len()];
        for slot in pool.free.iter().chain(pool.resting.iter().map(|(_, slot)| slot)) {
            if let Some(listed) = listed.get_mut(usize::from(*slot)) {
                *listed = true;
            }
        }
        pool.free.extend((0..).zip(listed).filter(|(_, listed)| !listed).map(|(slot, _): (u16, _)| slot));
        pool
    }

    /// Lets a port rest until then, unless its slot is taken or rests already.
    pub fn rest(&mut self, port: u16, until: Instant) {
        let Some(slot) = self.slot_of(port) else { return };
        if let Some(state) = self.slots.get_mut(usize::from(slot))
            && *state == 0
        {
            *state = QUARANTINED;
            // In the order of their ends: a pool wakes from the front.
            let at = self.resting.partition_point(|(other, _)| *other <= until);
            self.resting.insert(at, (until, slot));
        }
    }

    /// Marks a port as taken that is in use already. Nothing happens if it is not of this pool.
    pub fn claim(&mut self, port: u16) {
        self.set(port, true);
    }

    /// Takes `count` adjacent ports, the first of them of the parity of `like`. `None`: no such run is free.
    pub fn take(&mut self, like: u16, count: u16) -> Option<u16> {
        let odd = like % 2;
        let slots = (odd + count.max(1)).div_ceil(2);
        let at = self.free.iter().take(SEARCH).position(|&slot| self.is_free_run(slot, slots))?;
        let slot = *self.free.get(at)?;
        self.free.remove(at);
        let first = self.base + 2 * slot + odd;
        for port in first..=first + (count.max(1) - 1) {
            self.set(port, true);
        }
        // Slots of the run beyond the first stay in `free` and are skipped there by `is_free_run`; drop those in front.
        while self.free.front().is_some_and(|&front| !self.is_free_run(front, 1)) {
            self.free.pop_front();
        }
        Some(first)
    }

    /// Takes just these `count` ports from `first` on. `false`: one of them is taken, rests, or is none of this pool.
    pub fn take_at(&mut self, first: u16, count: u16) -> bool {
        let Some(last) = first.checked_add(count.max(1) - 1) else { return false };
        let mut ports = first..=last;
        let is_free = ports.all(|port| {
            let state = self.slot_of(port).and_then(|slot| self.slots.get(usize::from(slot)));
            state.is_some_and(|state| state & (bit_of(port) | QUARANTINED) == 0)
        });
        if is_free {
            (first..=last).for_each(|port| self.set(port, true));
        }
        is_free
    }

    /// Gives a port back. It rests until `now + quarantine`, together with the other port of its slot.
    pub fn release(&mut self, port: u16, now: Instant, quarantine: Duration) {
        self.set(port, false);
        let Some(slot) = self.slot_of(port) else { return };
        if let Some(state) = self.slots.get_mut(usize::from(slot))
            && *state == 0
        {
            *state = QUARANTINED;
            self.resting.push_back((now + quarantine, slot));
        }
    }

    /// Ends the rest of slots whose quarantine is over.
    pub fn wake(&mut self, now: Instant) {
        while let Some(&(until, slot)) = self.resting.front()
            && until <= now
        {
            self.resting.pop_front();
            if let Some(state) = self.slots.get_mut(usize::from(slot)) {
                *state = 0;
                self.free.push_back(slot);
            }
        }
        // A slot that was taken as part of a run may stand in `free` twice after its release.
        if self.free.len() > self.slots.len() {
            let mut seen = vec![false; self.slots.len()];
            self.free.retain(|&slot| match seen.get_mut(usize::from(slot)) {
                Some(seen) => !std::mem::replace(seen, true),
                None => false,
            });
        }
    }

    /// When [`PortPool::wake`] is worth a call.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.resting.front().map(|(until, _)| *until)
    }

    /// Number of ports that are taken or rest.
    pub fn used(&self) -> usize {
        self.slots.iter().filter(|state| **state != 0).count() * 2
    }

    fn is_free_run(&self, first: u16, slots: u16) -> bool {
        (first..first.saturating_add(slots)).all(|slot| self.slots.get(usize::from(slot)) == Some(&0))
    }

    fn slot_of(&self, port: u16) -> Option<u16> {
        Some(port.checked_sub(self.base)? / 2)
    }

    fn set(&mut self, port: u16, taken: bool) {
        let bit = bit_of(port);
        let slot = self.slot_of(port).map(usize::from);
        if let Some(state) = slot.and_then(|slot| self.slots.get_mut(slot)) {
            if taken { *state |= bit } else { *state &= !bit }
        }
    }
}

fn bit_of(port: u16) -> u8 {
    if port.is_multiple_of(2) { EVEN } else { ODD }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUARANTINE: Duration = Duration::from_secs(64);

    #[test]
    fn pairs_keep_parity_and_the_longest_free_goes_first() {
        let now = Instant::now();
        let mut pool = PortPool::new(&(20001..=20010));
        assert_eq!(pool.take(40000, 2), Some(20002));
        assert_eq!(pool.take(40000, 2), Some(20004));
        pool.release(20002, now, QUARANTINE);
        assert_eq!(pool.used(), 4);
        pool.release(20003, now, QUARANTINE);
        assert_eq!(pool.take(40000, 2), Some(20006));
        assert_eq!(pool.take(40000, 2), Some(20008));
        assert_eq!(pool.take(40000, 2), None);
        pool.wake(now + QUARANTINE - Duration::from_secs(1));
        assert_eq!(pool.take(40000, 2), None);
        pool.wake(now + QUARANTINE);
        assert_eq!(pool.take(40000, 2), Some(20002));
    }

    #[test]
    fn an_odd_port_gets_an_odd_one_with_the_next_above_it() {
        let mut pool = PortPool::new(&(20000..=20007));
        assert_eq!(pool.take(40001, 2), Some(20001));
        assert_eq!(pool.take(40000, 2), Some(20004));
        assert_eq!(pool.take(40001, 2), None);
        assert_eq!(pool.take(40001, 1), Some(20007));
    }

    #[test]
    fn the_rest_of_a_run_is_taken_at_its_place_or_not_at_all() {
        let now = Instant::now();
        let mut pool = PortPool::new(&(20000..=20007));
        assert_eq!(pool.take(40000, 1), Some(20000));
        assert!(pool.take_at(20001, 1) && !pool.take_at(20001, 1));
        pool.release(20001, now, QUARANTINE);
        assert!(pool.take_at(20001, 3), "beside a port that is taken it does not rest");
        assert_eq!(pool.take(40000, 2), Some(20004));
        assert!(!pool.take_at(20005, 2) && !pool.take_at(20007, 2) && !pool.take_at(19999, 1));
        assert!(!pool.take_at(u16::MAX, 2));
        pool.release(20004, now, QUARANTINE);
        pool.release(20005, now, QUARANTINE);
        assert!(!pool.take_at(20005, 1));
        assert_eq!(pool.take(40000, 2), Some(20006), "nothing of what was refused was kept");
    }

    #[test]
    fn runs_are_adjacent_and_come_back_whole() {
        let now = Instant::now();
        let mut pool = PortPool::new(&(20000..=20011));
        for _ in 0..50 {
            assert!(pool.take(0, 4).is_some());
            assert!(pool.take(0, 6).is_some());
            for port in 20000..20012 {
                pool.release(port, now, Duration::ZERO);
            }
            pool.wake(now);
            assert_eq!(pool.used(), 0);
            assert!(pool.free.len() <= pool.slots.len());
        }
    }

    #[test]
    fn another_range_keeps_what_rests_and_what_is_claimed() {
        let now = Instant::now();
        let mut pool = PortPool::new(&(20000..=20007));
        assert_eq!(pool.take(0, 2), Some(20000));
        assert_eq!(pool.take(0, 2), Some(20002));
        pool.release(20002, now, QUARANTINE);
        pool.release(20003, now, QUARANTINE);
        assert!(pool.covers(&(20000..=20007)) && !pool.covers(&(20000..=20009)));
        pool.reshape(&(19998..=20005));
        pool.claim(20000);
        pool.claim(20001);
        assert_eq!(pool.used(), 4);
        assert_eq!(pool.take(0, 2), Some(19998));
        assert_eq!(pool.take(0, 2), Some(20004));
        assert_eq!(pool.take(0, 2), None);
        pool.wake(now + QUARANTINE);
        assert_eq!(pool.take(0, 2), Some(20002));
        pool.release(20000, now, Duration::ZERO);
        pool.release(20001, now, Duration::ZERO);
        pool.wake(now);
        assert_eq!(pool.take(0, 2), Some(20000));
    }

    #[test]
    fn foreign_ports_and_an_empty_range_are_harmless() {
        let mut pool = PortPool::new(&(65535..=65535));
        assert_eq!(pool.take(0, 2), None);
        pool.release(80, Instant::now(), QUARANTINE);
        assert_eq!(pool.used(), 0);
        assert_eq!(PortPool::new(&(65534..=65535)).take(0, 2), Some(65534));
    }
}
