//! What the packet thread needs from the rest: MTUs, the log, and a ruleset that somebody mends.

use std::fmt::Display;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use tracing::{error, info};

use super::log::EventLog;
use super::worker::{EventSource, KernelEvent, Surroundings};
use crate::alg::Event;
use crate::kernel::ruleset::{self, RulesetSettings};
use crate::kernel::{self, Kernel};
use crate::queue::mtu::Mtus;

/// The router around the packet thread.
#[derive(Debug)]
pub(super) struct Router {
    mtus: Mtus,
    log: EventLog,
    ruleset: RulesetSettings,
}

impl Router {
    pub(super) fn new(mtus: Mtus, ruleset: RulesetSettings) -> Self {
        Self { mtus, log: EventLog::default(), ruleset }
    }

    /// What is mended.
    pub(super) fn ruleset(&self) -> &RulesetSettings {
        &self.ruleset
    }

    /// From now on this is what is mended.
    pub(super) fn set_ruleset(&mut self, ruleset: RulesetSettings) {
        self.ruleset = ruleset;
    }

    /// Loads the ruleset again where it is not whole, and puts back what was in its maps: an administrator's
    /// `flush ruleset` takes both away, and so does a ruleset that is flushed and includes ours again, which is whole
    /// then and empty. Calls that are up survive it in conntrack, and everything else in what the kernel side remembers.
    fn mend(&mut self, kernel: &mut Kernel) -> bool {
        match ruleset::install(&self.ruleset).and_then(|_| kernel.restore()) {
            Ok(elements) => {
                info!(elements, "the ruleset was changed by somebody, and is mended");
                true
            }
            Err(error) => {
                error!(%error, remedy = error.remedy(), "the ruleset can't be mended: messages pass untouched");
                false
            }
        }
    }
}

impl Surroundings<Kernel> for Router {
    fn mtu(&mut self, interface: u32, now: Instant) -> usize {
        self.mtus.of(interface, now)
    }

    fn event(&mut self, now: Instant, event: &Event) {
        self.log.event(now, event);
    }

    fn warning(&mut self, now: Instant, what: &'static str, detail: &dyn Display) {
        self.log.warning(now, what, detail);
    }

    fn ruleset_changed(&mut self, kernel: &mut Kernel) -> bool {
        self.mend(kernel)
    }

    fn events_lost(&mut self, kernel: &mut Kernel) -> bool {
        // Lost conntrack events cost nothing that timeouts do not repair; a lost ruleset would cost every new call.
        self.log.warning(Instant::now(), "kernel events were lost", &"the event socket overran");
        self.mend(kernel)
    }
}

/// The kernel's event socket, as the packet thread wants it.
#[derive(Debug)]
pub(super) struct Events(pub(super) kernel::events::Events);

impl EventSource for Events {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn second_descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.addresses())
    }

    fn drain(&mut self, sink: &mut dyn FnMut(KernelEvent)) {
        let drained = self.0.drain(&mut |event| {
            sink(match event {
                // The engine knows interfaces by their packets.
                kernel::events::KernelEvent::InterfacesChanged => return ruleset::follow_interfaces(),
                kernel::events::KernelEvent::Destroyed(tuples) => KernelEvent::Destroyed(tuples),
                kernel::events::KernelEvent::RulesetChanged => KernelEvent::RulesetChanged,
                kernel::events::KernelEvent::Overrun => KernelEvent::Overrun,
                kernel::events::KernelEvent::AddressGone(address) => KernelEvent::AddressGone(address),
            });
        });
        if drained.is_err() {
            sink(KernelEvent::Overrun);
        }
    }
}
