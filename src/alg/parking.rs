//! Packets that wait for the kernel.
//!
//! A packet whose translation relies on something that is not in the kernel yet is parked until the commands that put
//! it there are done, and then handled again from the start: handling is idempotent, so nothing of the first attempt
//! has to be kept. This file only counts who waits for what.

use std::hash::Hash;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::command::{CommandId, Failure};
use super::io::PacketId;

/// What became of a packet's wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released<W = PacketId> {
    /// Who waited: a packet, if nothing else is said.
    pub packet: W,
    /// The identity to give back to it.
    pub identity: Option<u32>,
    /// The first failure among its commands.
    pub failure: Option<Failure>,
}

/// Who waits for what.
#[derive(Debug)]
pub struct Parking<W = PacketId> {
    packets: HashMap<W, Wait, FixedState>,
    commands: HashMap<CommandId, Vec<W>, FixedState>,
    limit: usize,
}

#[derive(Debug)]
struct Wait {
    outstanding: usize,
    identity: Option<u32>,
    failure: Option<Failure>,
}

impl<W: Copy + Eq + Hash> Parking<W> {
    /// Room for `limit` packets.
    pub fn new(limit: usize, hasher: FixedState) -> Self {
        Self { packets: HashMap::with_hasher(hasher.clone()), commands: HashMap::with_hasher(hasher), limit }
    }

    /// Whether nobody else can wait.
    pub fn is_full(&self) -> bool {
        self.packets.len() >= self.limit
    }

    /// Room for so many from now on; who waits already goes on waiting.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Whether `packet` waits.
    pub fn waits(&self, packet: W) -> bool {
        self.packets.contains_key(&packet)
    }

    /// Number of packets that wait.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Lets `packet` wait for all of `needs` (at least one; duplicates are fine).
    pub fn park(&mut self, packet: W, identity: Option<u32>, needs: &[CommandId]) {
        let mut outstanding = 0;
        for need in needs {
            let waiters = self.commands.entry(*need).or_default();
            if !waiters.contains(&packet) {
                waiters.push(packet);
                outstanding += 1;
            }
        }
        self.packets.insert(packet, Wait { outstanding, identity, failure: None });
    }

    /// The command `old` is replaced by `new`: who waited for one waits for the other.
    pub fn replace(&mut self, old: CommandId, new: CommandId) {
        if let Some(waiters) = self.commands.remove(&old) {
            self.commands.insert(new, waiters);
        }
    }

    /// A command is done: hands out who waits for nothing more.
    pub fn done(&mut self, id: CommandId, failure: Option<Failure>, mut release: impl FnMut(Released<W>)) {
        for packet in self.commands.remove(&id).unwrap_or_default() {
            let Some(wait) = self.packets.get_mut(&packet) else { continue };
            wait.outstanding = wait.outstanding.saturating_sub(1);
            wait.failure = wait.failure.or(failure);
            if wait.outstanding == 0 {
                let Wait { identity, failure, .. } = *wait;
                self.packets.remove(&packet);
                release(Released { packet, identity, failure });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn released(parking: &mut Parking, id: u64, failure: Option<Failure>) -> Vec<Released> {
        let mut all = Vec::new();
        parking.done(CommandId::nth(id), failure, |it| all.push(it));
        all
    }

    #[test]
    fn a_packet_waits_for_all_its_commands_and_hears_of_the_first_failure() {
        let mut parking = Parking::new(9, FixedState::default());
        parking.park(PacketId(1), Some(7), &[CommandId::nth(1), CommandId::nth(2), CommandId::nth(1)]);
        parking.park(PacketId(2), None, &[CommandId::nth(2)]);
        assert_eq!(released(&mut parking, 1, Some(Failure::Full)), []);
        let done = released(&mut parking, 2, None);
        let both = [
            Released { packet: PacketId(1), identity: Some(7), failure: Some(Failure::Full) },
            Released { packet: PacketId(2), identity: None, failure: None },
        ];
        assert_eq!(done, both);
        assert_eq!((parking.len(), parking.commands.len()), (0, 0));
    }

    #[test]
    fn waiters_follow_a_command_that_is_tried_again() {
        let mut parking = Parking::new(1, FixedState::default());
        parking.park(PacketId(1), None, &[CommandId::nth(1)]);
        assert!(parking.is_full());
        parking.replace(CommandId::nth(1), CommandId::nth(5));
        assert_eq!(released(&mut parking, 1, None), []);
        assert_eq!(
            released(&mut parking, 5, None),
            [Released { packet: PacketId(1), identity: None, failure: None }]
        );
    }
}
