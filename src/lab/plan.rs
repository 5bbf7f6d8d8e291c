//! Who calls whom, and how the calls of a run keep step.
//!
//! All calls go on at the same time. They wait for each other twice: nobody calls before all phones are registered,
//! and nobody hangs up before the router was looked at with all calls up. Neither wait is for a time: each is for the
//! last one to come, or to fail.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::media::Voice;
use super::stop::Stop;

/// One call.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) kind: Kind,
    /// Whether the caller hangs up.
    pub(super) caller_hangs_up: bool,
    /// Raised once the caller has the callee's answer: before that no firewall can know whose media to expect.
    pub(super) answered: Flag,
}

/// The parties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A phone calls somebody outside, who is heard before the call is answered if `early` (183 with SDP).
    Out { phone: u8, early: bool },
    /// Somebody outside calls a phone.
    In { phone: u8 },
    /// Two phones.
    Local { caller: u8, callee: u8 },
}

/// The calls of a run: every phone has one.
pub(super) fn calls() -> Vec<Plan> {
    let out = |phone, early| Kind::Out { phone, early };
    let inward = |phone| Kind::In { phone };
    [
        (out(10, false), true),
        (out(11, true), false),
        (out(12, true), true),
        (inward(13), true),
        (inward(14), false),
        (Kind::Local { caller: 15, callee: 16 }, false),
        (inward(17), true),
        (out(18, false), false),
        (inward(19), false),
    ]
    .into_iter()
    .map(|(kind, caller_hangs_up)| Plan { kind, caller_hangs_up, answered: Flag::default() })
    .collect()
}

impl Plan {
    /// A number that no other call has.
    fn number(&self) -> u8 {
        match self.kind {
            Kind::Out { phone, .. } | Kind::In { phone } | Kind::Local { caller: phone, .. } => phone,
        }
    }

    /// Whether a phone takes part.
    pub(super) fn has(&self, number: u8) -> bool {
        match self.kind {
            Kind::Out { phone, .. } | Kind::In { phone } => phone == number,
            Kind::Local { caller, callee } => caller == number || callee == number,
        }
    }

    /// The phone that calls; `None` if somebody outside does.
    pub(super) fn caller(&self) -> Option<u8> {
        match self.kind {
            Kind::Out { phone, .. } | Kind::Local { caller: phone, .. } => Some(phone),
            Kind::In { .. } => None,
        }
    }

    /// The phone that somebody outside speaks with; `None` for calls that stay inside.
    pub(super) fn outsiders_phone(&self) -> Option<u8> {
        match self.kind {
            Kind::Out { phone, .. } | Kind::In { phone } => Some(phone),
            Kind::Local { .. } => None,
        }
    }

    /// The party outside, as dialled.
    pub(super) fn outsider(&self) -> String {
        format!("+49301234{}", self.number())
    }

    pub(super) fn callers_voice(&self) -> Voice {
        Voice(0x6c61_6200 + u32::from(self.number()) * 2)
    }

    pub(super) fn callees_voice(&self) -> Voice {
        Voice(0x6c61_6201 + u32::from(self.number()) * 2)
    }

    /// SDP session number and media port of the party outside.
    pub(super) fn media_port(&self) -> u16 {
        30000 + u16::from(self.number()) * 2
    }
}

/// Something that happens once.
#[derive(Debug, Default)]
pub(super) struct Flag(AtomicBool);

impl Flag {
    pub(super) fn raise(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_raised(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Waits; whether it was raised in time.
    pub(super) fn wait(&self, patience: Duration, stop: &Stop) -> bool {
        let deadline = Instant::now() + patience;
        while !self.is_raised() && !stop.is_raised() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        self.is_raised()
    }
}

/// Holds everybody until the one who watches opens it.
#[derive(Debug, Default)]
pub(super) struct Gate {
    come: AtomicUsize,
    open: Flag,
}

impl Gate {
    /// How many have come, or will never come.
    pub(super) fn come(&self) -> usize {
        self.come.load(Ordering::SeqCst)
    }

    pub(super) fn open(&self) {
        self.open.raise();
    }

    /// A ticket counts as come when it is shown, or lost.
    pub(super) fn ticket(&self) -> Ticket<'_> {
        Ticket { gate: self, shown: false }
    }
}

/// One who is waited for.
#[derive(Debug)]
pub(super) struct Ticket<'g> {
    gate: &'g Gate,
    shown: bool,
}

impl Ticket<'_> {
    /// Says that its owner has come.
    pub(super) fn show(&mut self) {
        if !self.shown {
            self.shown = true;
            self.gate.come.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Comes, and waits for the gate to open.
    pub(super) fn pass(mut self, stop: &Stop) {
        self.show();
        self.gate.open.wait(Duration::from_secs(60), stop);
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.show();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::network::PHONES;

    #[test]
    fn every_phone_has_one_call() {
        let mut phones: Vec<u8> = calls()
            .iter()
            .flat_map(|plan| match plan.kind {
                Kind::Out { phone, .. } | Kind::In { phone } => vec![phone],
                Kind::Local { caller, callee } => vec![caller, callee],
            })
            .collect();
        phones.sort_unstable();
        assert_eq!(phones, PHONES.collect::<Vec<_>>());
    }

    #[test]
    fn a_lost_ticket_counts() {
        let gate = Gate::default();
        let mut shown = gate.ticket();
        drop(gate.ticket());
        assert_eq!(gate.come(), 1);
        shown.show();
        drop(shown);
        assert_eq!(gate.come(), 2);
    }
}
