//! Counters: one for each reason of a verdict, and the sizes of the tables.

use super::verdict::Reason;

/// What has been counted since the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    verdicts: Vec<u64>,
}

impl Default for Stats {
    fn default() -> Self {
        Self { verdicts: vec![0; Reason::ALL.len()] }
    }
}

impl Stats {
    /// How many packets got a verdict for `reason`.
    pub fn verdicts(&self, reason: Reason) -> u64 {
        self.verdicts.get(reason as usize).copied().unwrap_or_default()
    }

    pub(super) fn count(&mut self, reason: Reason) {
        if let Some(counter) = self.verdicts.get_mut(reason as usize) {
            *counter += 1;
        }
    }
}

/// How full the engine's tables are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Signalling flows.
    pub flows: usize,
    /// Transactions in progress.
    pub transactions: usize,
    /// Calls.
    pub calls: usize,
    /// Registrations.
    pub registrations: usize,
    /// Media bindings.
    pub bindings: usize,
    /// Public ports in use or in quarantine.
    pub ports: usize,
    /// Packets that wait for a command.
    pub parked: usize,
    /// TCP connections.
    pub connections: usize,
    /// TCP segments that are held.
    pub held_segments: usize,
    /// Bytes of TCP streams that are kept.
    pub stream_bytes: usize,
}
