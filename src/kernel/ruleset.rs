//! stub
use super::KernelError;

/// What the ruleset depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulesetSettings {
    /// UDP ports of SIP servers.
    pub ports: Vec<u16>,
    /// Number of the first of the four queues, in the order of [`QueuePoint::ALL`](crate::alg::QueuePoint::ALL).
    pub queue_base: u16,
}

/// What [`install`] found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Who loaded the table.
    pub origin: Origin,
    /// The UDP ports that the loaded ruleset queues.
    pub ports: Vec<u16>,
    /// The form of the queue rules.
    pub queue: QueueForm,
}

/// Who loaded the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// We did, now or in an earlier run.
    Daemon,
    /// An administrator: `sipalg.nft` is included in the router's own ruleset. It is used as it is; its ports hold.
    Administrator,
}

/// How a packet gets into an NFQUEUE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueForm {
    /// nft's own `queue` expression.
    Native,
    /// xtables' `NFQUEUE` target through `nft_compat`.
    Compat,
}

/// Loads the ruleset unless it is there, and fills the queue points. Idempotent; keeps all elements.
///
/// # Errors
/// See [`KernelError`].
pub fn install(settings: &RulesetSettings) -> Result<Installed, KernelError> {
    let _ = settings;
    todo!()
}

/// Removes the table, and with it every map, set and timeout policy, and the conntrack entries that its bindings made.
/// Nothing there is no error. Answers whether there was anything.
///
/// # Errors
/// See [`KernelError`].
pub fn remove() -> Result<bool, KernelError> {
    todo!()
}

/// Whether our table is loaded and every queue point has its rule. Cheap: one netlink request.
///
/// # Errors
/// See [`KernelError`].
pub fn is_intact() -> Result<bool, KernelError> {
    todo!()
}
