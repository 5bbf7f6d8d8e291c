//! Which files may be touched (landlock).
//!
//! Rules hang on what is there when they are made. Entries of `/proc` come and go, so `/proc` is named as a whole, and
//! what is written there (conntrack's counters) is opened before.

use std::env;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

use super::Needs;

/// How much of it the kernel holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// All.
    All,
    /// What it knows.
    Partly,
    /// It has no landlock.
    Not,
}

/// The newest rights that are asked for (Linux 6.12); older kernels hold what they know of them.
const NEWEST: ABI = ABI::V6;

/// What is read beside the settings: the kernel's answers, and what libnftables looks names up in.
const READ: [&str; 6] = [
    "/proc",
    "/etc/protocols",
    "/etc/services",
    "/etc/nsswitch.conf",
    "/etc/iproute2",
    "/usr/share/iproute2",
];

/// Confines this thread, and those that it will start.
///
/// # Errors
/// The kernel has landlock and refuses these rules.
pub(super) fn confine(needs: &Needs) -> io::Result<Held> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    // A new file replaces the old one: made, written, renamed over it. And a socket.
    let write = read
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeSock
        | AccessFs::RemoveFile;
    let apply = || -> Result<RulesetStatus, RulesetError> {
        let status = ruleset()?
            .create()?
            .add_rules(path_beneath_rules(READ.iter().map(Path::new), read))?
            .add_rules(path_beneath_rules(&needs.read, read))?
            .add_rules(path_beneath_rules(needs.own.iter().chain(&needs.write), write))?
            .restrict_self()?;
        Ok(status.ruleset)
    };
    apply().map_err(io::Error::other).map(|status| match status {
        RulesetStatus::FullyEnforced => Held::All,
        RulesetStatus::PartiallyEnforced => Held::Partly,
        RulesetStatus::NotEnforced => Held::Not,
    })
}

/// What [`confine`] would come to.
pub fn probe() -> Held {
    let needs = |level| ruleset_at(level).and_then(Ruleset::create).is_ok();
    if needs(CompatLevel::HardRequirement) {
        Held::All
    } else if Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(Ruleset::create)
        .is_ok()
    {
        Held::Partly
    } else {
        Held::Not
    }
}

fn ruleset() -> Result<Ruleset, RulesetError> {
    ruleset_at(CompatLevel::BestEffort)
}

/// Every right that is known is taken away; rules give some back. No TCP at all, and no signal to anybody.
fn ruleset_at(level: CompatLevel) -> Result<Ruleset, RulesetError> {
    Ruleset::default()
        .set_compatibility(level)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(scopes())
}

/// Sockets without a file can't be reached, unless systemd's own is one.
fn scopes() -> BitFlags<Scope> {
    let notify = env::var_os("NOTIFY_SOCKET");
    if notify.is_some_and(|name| name.as_bytes().starts_with(b"@")) {
        Scope::Signal.into()
    } else {
        Scope::from_all(NEWEST)
    }
}
