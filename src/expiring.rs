//! A map whose entries die.
//!
//! Every table of the engine is one of these: it has a limit, each entry has a deadline, and there is one rule for
//! what goes first. It reads no clock: time is always an argument, and time that runs backwards only makes entries
//! live longer. It does not say what to do with an entry that expired: [`ExpiringMap::pop_expired`] hands it back.
//!
//! Entries lie in a slab, each once with its key. A hash table is half empty most of the time, and a heap has items of
//! entries that are gone; so both have the four bytes of an entry's [`Place`] instead of the key.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::{BuildHasher, Hash};
use std::time::{Duration, Instant};

use hashbrown::HashTable;
use slab::Slab;

/// Smaller tables keep their memory when they are empty.
const LARGE: usize = 256;

/// Where an entry lies for as long as it is in the map; afterwards another one may lie there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u32);

impl Place {
    fn slot(self) -> usize {
        self.0 as usize
    }
}

/// A bounded map with a deadline for each entry.
#[derive(Debug)]
pub struct ExpiringMap<K, V, S> {
    entries: Slab<Entry<K, V>>,
    places: HashTable<Place>,
    hasher: S,
    /// At least one item for each entry, due no later than the entry itself; an item whose time is not the one for which
    /// the entry at its place is `armed` is stale.
    due: BinaryHeap<Reverse<(Moment, Place)>>,
    limit: usize,
    /// The first deadline that was ever set. Moments are counted from here.
    origin: Option<Instant>,
}

#[derive(Debug)]
struct Entry<K, V> {
    key: K,
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

impl<K: Copy + Eq + Hash, V, S: BuildHasher> ExpiringMap<K, V, S> {
    /// An empty map that never holds more than `limit` entries.
    pub fn new(limit: usize, hasher: S) -> Self {
        let (entries, places, due) = (Slab::new(), HashTable::new(), BinaryHeap::new());
        Self { entries, places, hasher, due, limit, origin: None }
    }

    /// Puts `value` under `key` until `deadline`; the old value of the key comes back.
    ///
    /// # Errors
    /// The value itself, if the map is full and the key is new.
    pub fn insert(&mut self, key: K, value: V, deadline: Instant) -> Result<Option<V>, V> {
        let moment = Moment::new(*self.origin.get_or_insert(deadline), deadline);
        if let Some(old) = self.get_mut(&key) {
            let old = std::mem::replace(old, value);
            self.set_deadline(&key, deadline);
            return Ok(Some(old));
        }
        let Some(place) = self.vacant().filter(|_| !self.is_full()) else { return Err(value) };
        self.entries.insert(Entry { key, value, deadline: moment, armed: moment });
        let Self { entries, places, hasher, .. } = self;
        let again = |place: &Place| entries.get(place.slot()).map_or(0, |it| hasher.hash_one(it.key));
        places.insert_unique(hasher.hash_one(key), place, again);
        self.arm(moment, place);
        Ok(None)
    }

    /// The value under `key`, expired or not.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The value under `key`, to be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entry_mut(key).map(|(_, entry)| &mut entry.value)
    }

    /// When `key` expires.
    pub fn deadline(&self, key: &K) -> Option<Instant> {
        let origin = self.origin?;
        self.entry(key).map(|entry| entry.deadline.instant(origin))
    }

    /// Moves the deadline of `key`, forth or back. Later is free; earlier costs a heap item.
    pub fn set_deadline(&mut self, key: &K, deadline: Instant) {
        let Some(origin) = self.origin else { return };
        let Some((place, entry)) = self.entry_mut(key) else { return };
        entry.deadline = Moment::new(origin, deadline);
        if entry.deadline < entry.armed {
            entry.armed = entry.deadline;
            let armed = entry.armed;
            self.arm(armed, place);
        }
    }

    /// Takes `key` out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let place = self.place(key)?;
        let (_, value) = self.take(place)?;
        self.sweep_stale();
        Some(value)
    }

    /// Takes out one entry whose deadline is not after `now`; the earliest first.
    pub fn pop_expired(&mut self, now: Instant) -> Option<(K, V)> {
        let place = self.first_expired(now)?;
        self.due.pop();
        self.take(place)
    }

    /// The key of the entry that [`ExpiringMap::pop_expired`] would take out.
    pub fn peek_expired(&mut self, now: Instant) -> Option<K> {
        let place = self.first_expired(now)?;
        self.at(place).map(|(key, _)| *key)
    }

    /// The key of the entry that [`ExpiringMap::pop_earliest`] would take out.
    pub fn peek_earliest(&mut self) -> Option<K> {
        while let Some(due) = self.poll_timeout() {
            if let Some(key) = self.peek_expired(due) {
                return Some(key);
            }
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

    /// Where the entry of `key` lies.
    pub fn place(&self, key: &K) -> Option<Place> {
        let is_it = |place: &Place| self.entries.get(place.slot()).is_some_and(|it| it.key == *key);
        self.places.find(self.hasher.hash_one(key), is_it).copied()
    }

    /// The entry that lies there now.
    pub fn at(&self, place: Place) -> Option<(&K, &V)> {
        self.entries.get(place.slot()).map(|entry| (&entry.key, &entry.value))
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
        self.entries.iter().map(|(_, entry)| (&entry.key, &entry.value))
    }

    /// All entries with their deadlines, in no order that means anything.
    pub fn with_deadlines(&self) -> impl Iterator<Item = (&K, &V, Instant)> {
        // Without an origin there is no entry.
        self.origin.into_iter().flat_map(|origin| {
            self.entries
                .iter()
                .map(move |(_, entry)| (&entry.key, &entry.value, entry.deadline.instant(origin)))
        })
    }

    fn entry(&self, key: &K) -> Option<&Entry<K, V>> {
        self.entries.get(self.place(key)?.slot())
    }

    fn entry_mut(&mut self, key: &K) -> Option<(Place, &mut Entry<K, V>)> {
        let place = self.place(key)?;
        Some((place, self.entries.get_mut(place.slot())?))
    }

    /// Where the next new entry will lie; `None`: there are more than a place can name.
    fn vacant(&self) -> Option<Place> {
        u32::try_from(self.entries.vacant_key()).ok().map(Place)
    }

    /// Brings the entry to the front of `due` whose deadline is the earliest, if that is not after `now`.
    fn first_expired(&mut self, now: Instant) -> Option<Place> {
        let now = Moment::new(self.origin?, now);
        while let Some(&Reverse((due, place))) = self.due.peek() {
            if due > now {
                return None;
            }
            match self.entries.get_mut(place.slot()).filter(|entry| entry.armed == due) {
                Some(entry) if entry.deadline <= now => return Some(place),
                Some(entry) => {
                    entry.armed = entry.deadline;
                    let armed = entry.armed;
                    self.due.pop();
                    self.due.push(Reverse((armed, place)));
                }
                None => {
                    self.due.pop();
                }
            }
        }
        None
    }

    fn arm(&mut self, at: Moment, place: Place) {
        self.due.push(Reverse((at, place)));
        self.sweep_stale();
    }

    /// Takes out what lies there. Its items in `due` are stale from now on.
    fn take(&mut self, place: Place) -> Option<(K, V)> {
        let Entry { key, value, .. } = self.entries.try_remove(place.slot())?;
        let hash = self.hasher.hash_one(key);
        if let Ok(entry) = self.places.find_entry(hash, |other| *other == place) {
            entry.remove();
        }
        self.give_back();
        Some((key, value))
    }

    /// A rush is over: the memory that it took is given back.
    fn give_back(&mut self) {
        if self.entries.is_empty() && self.entries.capacity() > LARGE {
            (self.entries, self.places, self.due) = (Slab::new(), HashTable::new(), BinaryHeap::new());
        }
    }

    /// Removed and re-armed entries leave stale heap items; they may not outnumber the entries by much.
    fn sweep_stale(&mut self) {
        if self.due.len() > 2 * self.entries.len() + 64 {
            let item = |(slot, entry): (usize, &Entry<K, V>)| {
                // It was one when the entry came.
                u32::try_from(slot).ok().map(|slot| Reverse((entry.armed, Place(slot))))
            };
            self.due = self.entries.iter().filter_map(item).collect();
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
    fn what_is_stale_of_an_entry_that_is_gone_is_nothing_to_the_next_one_at_its_place() {
        let (mut map, t) = map(9);
        let s = |n| t + Duration::from_secs(n);
        map.insert(1, "gone", s(2)).unwrap();
        let place = map.place(&1).unwrap();
        map.remove(&1);
        assert_eq!((map.place(&1), map.at(place)), (None, None));
        map.insert(2, "here", s(2)).unwrap();
        assert_eq!((map.place(&2), map.at(place)), (Some(place), Some((&2, &"here"))));
        map.set_deadline(&2, s(8));
        assert_eq!((map.pop_expired(s(7)), map.peek_expired(s(7))), (None, None));
        assert_eq!(map.due.len(), 1, "the item of the one that is gone is gone too");
        assert_eq!((map.peek_expired(s(8)), map.pop_expired(s(8))), (Some(2), Some((2, "here"))));
        assert_eq!((map.peek_expired(s(9)), map.pop_expired(s(9))), (None, None));
    }

    #[test]
    fn an_entry_stays_where_it_is_while_others_come_and_go() {
        let (mut map, t) = map(1000);
        map.insert(0, "stays", t).unwrap();
        let place = map.place(&0).unwrap();
        for n in 1..1000 {
            map.insert(n, "x", t + Duration::from_secs(n.into())).unwrap();
        }
        for n in 1..1000 {
            map.set_deadline(&0, t + Duration::from_secs(2 * u64::from(n)));
            assert_eq!(map.pop_expired(t + Duration::from_secs(n.into())), Some((n, "x")));
        }
        assert_eq!((map.place(&0), map.at(place), map.len()), (Some(place), Some((&0, &"stays")), 1));
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
