//! Carries out the engine's commands in the kernel.
//!
//! Everything that sipalg has in the kernel is of two kinds: the table `inet sipalg` ([`ruleset`], its maps and sets:
//! [`maps`]) and conntrack entries ([`conntrack`]). [`Kernel`] turns each [`Command`] into elements and entries; whatever
//! it makes has a timeout, so that nothing stays open when the daemon dies. [`events`] tells what others did to either,
//! [`probe`] what this kernel can do, [`fake`] stands in where there is no kernel to change.
//!
//! Nothing here decides anything about calls, reads packets or knows SIP. All netlink sockets belong to the network
//! namespace of the thread that opened them.

pub mod conntrack;
pub mod events;
pub mod fake;
pub mod links;
pub mod maps;
pub mod probe;
pub mod ruleset;

use std::io;
use std::time::Duration;

use crate::alg::{Command, Executor, Outcome};

/// Settings of [`Kernel`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelSettings {
    /// First lifetime of a pinned flow; from its first packet on conntrack's own UDP timeouts hold. Long enough for the
    /// slowest phone to begin, whole seconds.
    pub pin_lifetime: Duration,
}

impl Default for KernelSettings {
    fn default() -> Self {
        Self { pin_lifetime: Duration::from_secs(180) }
    }
}

/// What went wrong, for a person who can do something about it.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The `nft` program could not be started.
    #[error("the program `nft` could not be started: {0}")]
    NftMissing(io::Error),
    /// The kernel refuses: no CAP_NET_ADMIN in this network namespace.
    #[error("the kernel does not permit it: {0}")]
    NotPermitted(String),
    /// The kernel lacks something.
    #[error("this kernel lacks {0}")]
    Unsupported(String),
    /// The ruleset was refused.
    #[error("nft refused the ruleset:\n{0}")]
    Refused(String),
    /// Anything else that the system said.
    #[error("{doing}: {source}")]
    System {
        /// What we were about to do.
        doing: &'static str,
        /// What the system answered.
        source: io::Error,
    },
}

impl KernelError {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NftMissing(_) => "install nftables (Debian: apt install nftables)",
            Self::NotPermitted(_) => "run as root, or with CAP_NET_ADMIN in the router's network namespace",
            Self::Unsupported(_) => {
                "use a kernel with this option, or load its module; `sipalg check` lists what is needed"
            }
            Self::Refused(_) => {
                "run `sipalg check`; if a table `inet sipalg` of another version is loaded, `sipalg unload` first"
            }
            Self::System { .. } => "see the system's message; `sipalg check` tells what the kernel can do",
        }
    }
}

/// The kernel's side of the gateway.
#[derive(Debug)]
pub struct Kernel {}

impl Kernel {
    /// Opens the sockets. The ruleset need not be there yet.
    ///
    /// # Errors
    /// No CAP_NET_ADMIN, or a kernel without nf_tables or ctnetlink.
    pub fn open(settings: &KernelSettings) -> Result<Self, KernelError> {
        let _ = settings;
        todo!()
    }

    /// Puts back every element that should be there by what has been carried out so far: after
    /// [`ruleset::install`] has mended the table. Answers how many elements.
    ///
    /// # Errors
    /// The transaction failed.
    pub fn restore(&mut self) -> Result<usize, KernelError> {
        todo!()
    }

    /// What the maps and sets hold now.
    ///
    /// # Errors
    /// The table is not there, or the kernel refuses.
    pub fn held(&mut self) -> Result<maps::Held, KernelError> {
        todo!()
    }
}

impl Executor for Kernel {
    fn execute(&mut self, commands: &[Command], outcomes: &mut Vec<Outcome>) {
        let _ = (commands, outcomes);
        todo!()
    }
}
