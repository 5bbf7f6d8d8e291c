//! A map whose entries die.
//!
//! Every table of the engine is one of these: it has a limit, each entry has a deadline, and there is one rule for
//! what goes first. It reads no clock: time is always an argument, and time that runs backwards only makes entries
//! live longer. It does not say what to do with an entry that expired: [`ExpiringMap::pop_expired`] hands it back.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::{BuildHasher, Hash};
use std::mem;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

/// Smaller tables keep their memory when they are empty.
const LARGE: usize = 256;

/// A bounded map with a deadline for each entry.
#[derive(Debug)]
pub struct ExpiringMap<K, V, S> {
    entries: HashMap<K, Entry<V>, S>,
    /// At least one item for each entry, due no later than the entry itself; items whose `armed` differs are stale.
    due: BinaryHeap<Reverse<(Moment, K)>>,
    limit: usize,
    /// The first deadline that was ever set. Moments are counted from here.
    origin: Option<Instant>,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    deadline: Moment,
    /// The time under which this entry stands in `due`.
    armed: Moment,
}

/// Nanoseconds after a map's origin; negative: before. Half as large as an [`Instant`], of which each entry would have three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Moment(i64);

impl Moment {
    fn new(origin: Instant, at: Instant) -> Self {
        let nanos = |long: Duration| i64::try_from(long.as_nanos()).unwrap_or(i64::MAX);
        Self(match at.checked_duration_since(origin) {
            Some(after) => nanos(after),
            None => -nanos(origin.saturating_duration_since(at)),
        })
    }

    fn instant(self, origin: Instant) -> Instant {
        let long = Duration::from_nanos(self.0.unsigned_abs());
        let moved = if self.0 < 0 { origin.checked_sub(long) } else { origin.checked_add(long) };
        // Such a moment was made from an instant, so this never happens.
        moved.unwrap_or(origin)
    }
}

impl<K: Copy + Ord + Hash, V, S: BuildHasher> ExpiringMap<K, V, S> {
    /// An empty map that never holds more than `limit` entries.
    pub fn new(limit: usize, hasher: S) -> Self {
        Self { entries: HashMap::with_hasher(hasher), due: BinaryHeap::new(), limit, origin: None }
    }

    /// Puts `value` under `key` until `deadline`; the old value of the key comes back.
    ///
    /// # Errors
    /// The value itself, if the map is full and the key is new.
    pub fn insert(&mut self, key: K, value: V, deadline: Instant) -> Result<Option<V>, V> {
        if self.is_full() && !self.entries.contains_key(&key) {
            return Err(value);
        }
        let deadline = Moment::new(*self.origin.get_or_insert(deadline), deadline);
        self.due.push(Reverse((deadline, key)));
        let entry = Entry { value, deadline, armed: deadline };
        let old = self.entries.insert(key, entry).map(|old| old.value);
        self.sweep_stale();
        Ok(old)
    }

    /// Puts back what [`ExpiringMap::pop_expired`] has just given away: it is not new, so there is room for it, also when
    /// the limit has become a smaller one since it came.
    pub fn put_back(&mut self, key: K, value: V, deadline: Instant) {
        let limit = mem::replace(&mut self.limit, usize::MAX);
        // Nothing is refused below the limit.
        let _ = self.insert(key, value, deadline);
        self.limit = limit;
    }

    /// The value under `key`, expired or not.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// The value under `key`, to be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|entry| &mut entry.value)
    }

    /// When `key` expires.
    pub fn deadline(&self, key: &K) -> Option<Instant> {
        let origin = self.origin?;
        self.entries.get(key).map(|entry| entry.deadline.instant(origin))
    }

    /// Moves the deadline of `key`, forth or back. Later is free; earlier costs a heap item.
    pub fn set_deadline(&mut self, key: &K, deadline: Instant) {
        let (Some(entry), Some(origin)) = (self.entries.get_mut(key), self.origin) else { return };
        let deadline = Moment::new(origin, deadline);
        entry.deadline = deadline;
        if deadline < entry.armed {
            entry.armed = deadline;
            self.due.push(Reverse((deadline, *key)));
            self.sweep_stale();
        }
    }

    /// Takes `key` out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let removed = self.entries.remove(key).map(|entry| entry.value);
        self.sweep_stale();
        self.give_back();
        removed
    }

    /// Takes out one entry whose deadline is not after `now`; the earliest first.
    pub fn pop_expired(&mut self, now: Instant) -> Option<(K, V)> {
        let now = Moment::new(self.origin?, now);
        while let Some(&Reverse((due, key))) = self.due.peek() {
            if due > now {
                return None;
            }
            self.due.pop();
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            if entry.armed != due {
                continue;
            }
            if entry.deadline > now {
                entry.armed = entry.deadline;
                self.due.push(Reverse((entry.deadline, key)));
                continue;
            }
            let removed = self.entries.remove(&key).map(|entry| (key, entry.value));
            self.give_back();
            return removed;
        }
        None
    }

    /// Takes out the entry with the earliest deadline.
    pub fn pop_earliest(&mut self) -> Option<(K, V)> {
        // Each turn that takes nothing puts an entry where its deadline is.
        while let Some(due) = self.poll_timeout() {
            if let Some(entry) = self.pop_expired(due) {
                return Some(entry);
            }
        }
        None
    }

    /// A time at which [`ExpiringMap::pop_expired`] is worth a call; never after the earliest deadline.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let origin = self.origin?;
        self.due.peek().map(|Reverse((due, _))| due.instant(origin))
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether a new key would be refused.
    pub fn is_full(&self) -> bool {
        self.entries.len() >= self.limit
    }

    /// Another limit from now on. Entries beyond a smaller one stay until their time; new keys are refused until then.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// All entries, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, entry)| (key, &entry.value))
    }

    /// A rush is over: the memory that it took is given back.
    fn give_back(&mut self) {
        if self.entries.is_empty() && self.entries.capacity() > LARGE {
            self.entries.shrink_to(0);
            self.due = BinaryHeap::new();
        }
    }

    /// All entries with their deadlines, in no order that means anything.
    pub fn with_deadlines(&self) -> impl Iterator<Item = (&K, &V, Instant)> {
        // Without an origin there is no entry.
        self.origin.into_iter().flat_map(|origin| {
            self.entries.iter().map(move |(key, entry)| (key, &entry.value, entry.deadline.instant(origin)))
        })
    }

    /// Removed and re-armed entries leave stale heap items; they may not outnumber the entries by much.
    fn sweep_stale(&mut self) {
        if self.due.len() > 2 * self.entries.len() + 64 {
            self.due = self.entries.iter().map(|(key, entry)| Reverse((entry.armed, *key))).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foldhash::fast::FixedState;
    use std::time::Duration;

    fn map(limit: usize) -> (ExpiringMap<u32, &'static str, FixedState>, Instant) {
        (ExpiringMap::new(limit, FixedState::default()), Instant::now())
    }

    #[test]
    fn entries_expire_in_the_order_of_their_deadlines() {
        let (mut map, t) = map(9);
        let s = |n| t + Duration::from_secs(n);
        map.insert(1, "late", s(9)).unwrap();
        map.insert(2, "early", s(3)).unwrap();
        map.insert(3, "moved later", s(1)).unwrap();
        map.set_deadline(&3, s(5));
        map.insert(4, "moved earlier", s(8)).unwrap();
        map.set_deadline(&4, s(2));
        assert_eq!(map.pop_expired(s(1)), None);
        assert_eq!(map.pop_expired(s(7)), Some((4, "moved earlier")));
        assert_eq!(map.pop_expired(s(7)), Some((2, "early")));
        assert_eq!(map.pop_expired(s(7)), Some((3, "moved later")));
        assert_eq!(map.pop_expired(s(7)), None);
        assert_eq!(map.deadline(&1), Some(s(9)));
        assert!(map.poll_timeout().is_some_and(|due| due <= s(9)));
    }

    #[test]
    fn the_earliest_deadline_goes_first_wherever_it_was_moved_from() {
        let (mut map, t) = map(9);
        let s = |n| t + Duration::from_secs(n);
        for (key, name, at) in [(1, "a", 5), (2, "b", 1), (3, "c", 3)] {
            map.insert(key, name, s(at)).unwrap();
        }
        map.set_deadline(&2, s(9));
        map.remove(&3);
        assert_eq!(map.pop_earliest(), Some((1, "a")));
        assert_eq!(map.pop_earliest(), Some((2, "b")));
        assert_eq!(map.pop_earliest(), None);
    }

    #[test]
    fn a_full_map_refuses_new_keys_and_takes_old_ones() {
        let (mut map, t) = map(1);
        assert_eq!(map.insert(1, "a", t), Ok(None));
        assert_eq!(map.insert(2, "b", t), Err("b"));
        assert_eq!(map.insert(1, "c", t), Ok(Some("a")));
        assert_eq!((map.len(), map.is_full()), (1, true));
    }

    #[test]
    fn what_was_taken_out_may_come_back_beyond_a_limit_that_has_become_smaller() {
        let (mut map, t) = map(2);
        map.insert(1, "a", t).unwrap();
        map.insert(2, "b", t + Duration::from_secs(9)).unwrap();
        map.set_limit(1);
        let (key, value) = map.pop_expired(t).unwrap();
        map.put_back(key, value, t + Duration::from_secs(5));
        assert_eq!((map.get(&1), map.len(), map.is_full()), (Some(&"a"), 2, true));
        assert_eq!(map.insert(3, "c", t), Err("c"));
    }

    #[test]
    fn a_replaced_entry_does_not_die_with_its_old_deadline() {
        let (mut map, t) = map(9);
        map.insert(1, "old", t).unwrap();
        map.insert(1, "new", t + Duration::from_secs(5)).unwrap();
        assert_eq!(map.pop_expired(t + Duration::from_secs(1)), None);
        assert_eq!(map.get(&1), Some(&"new"));
    }

    #[test]
    fn a_moment_is_an_instant_to_the_nanosecond_before_and_after_the_origin() {
        let (origin, long) = (Instant::now() + Duration::from_secs(60), Duration::from_nanos(7_000_000_001));
        for at in [origin, origin + long, origin - long] {
            assert_eq!(Moment::new(origin, at).instant(origin), at);
        }
        let (mut map, t) = map(9);
        map.insert(1, "first", t + long).unwrap();
        map.insert(2, "before the first", t - long).unwrap();
        assert_eq!(map.deadline(&2), Some(t - long));
        assert_eq!(map.pop_expired(t), Some((2, "before the first")));
        assert_eq!(map.pop_expired(t), None);
        assert_eq!(map.poll_timeout(), Some(t + long));
    }

    #[test]
    fn stale_heap_items_are_bounded() {
        let (mut map, t) = map(10);
        for n in 0..10_000 {
            map.insert(n, "x", t + Duration::from_secs(60)).unwrap();
            map.remove(&n);
        }
        assert!(map.due.len() <= 64, "{}", map.due.len());
    }
}
