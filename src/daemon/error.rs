//! Why the gateway did not start, or did not go on.

use std::io;

use crate::kernel::KernelError;
use crate::kernel::probe::Finding;
use crate::queue;

/// What ended [`run`](super::run).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The probe found something that can't be done without. At least one finding, all of them problems.
    #[error("this router is not ready: {}", findings.first().map_or("", |finding| finding.text.as_str()))]
    NotReady {
        /// What was found.
        findings: Vec<Finding>,
    },
    /// The kernel's side could not be set up.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The ruleset could not be loaded.
    #[error("the ruleset can't be loaded: {0}")]
    Ruleset(#[source] KernelError),
    /// The packet queues can't be read.
    #[error(transparent)]
    Queue(#[from] queue::OpenError),
    /// Another sipalg works with the table in this network namespace, by queues of its own.
    #[error(
        "another sipalg is at work here: the queue {queue} of table inet sipalg has a reader (netlink port {reader}, \
         usually its process id)"
    )]
    Another {
        /// The first of its queues.
        queue: u16,
        /// Netlink port of the reader.
        reader: u32,
    },
    /// journald was asked for and is not there.
    #[error("journald can't be reached: {0}")]
    Journald(#[source] io::Error),
    /// The user that it shall run as can't be had.
    #[error("{0}")]
    User(String),
    /// The system refused something else.
    #[error("can't {doing}: {source}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The thread that handles packets ended by itself.
    #[error("the packet thread has died; this is a mistake in sipalg, and the log has its last words")]
    Died,
}

impl Error {
    /// For `map_err`: what was being done when the system refused.
    pub(super) fn doing(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { doing, source }
    }
}
