//! Which system calls may be made (seccomp), on the processors for which there is a list.
//!
//! Calls have other numbers on each kind of processor, some are missing and some are split for 32 bits: a list that nobody
//! has run there would end calls. So the others do without, which is said at the start and by `sipalg check`.

use std::env;

use crate::kernel::seccomp;

/// Kept to what [`has_list`] says by a test.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod list;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) use list::confine;

/// There is no list to confine it to.
///
/// # Errors
/// Always.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) fn confine() -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// Whether system calls can be confined, and what is missing if not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// They can.
    All,
    /// The kernel has no seccomp.
    NoSeccomp,
    /// There is no list for this kind of processor.
    NoList,
}

/// What [`confine`] would come to.
pub fn probe() -> Held {
    decide(env::consts::ARCH, seccomp::is_there)
}

fn decide(architecture: &str, kernel: impl FnOnce() -> bool) -> Held {
    if !has_list(architecture) {
        Held::NoList
    } else if kernel() {
        Held::All
    } else {
        Held::NoSeccomp
    }
}

/// The name is that of [`env::consts::ARCH`].
fn has_list(architecture: &str) -> bool {
    matches!(architecture, "x86_64" | "aarch64")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_processors_with_a_list_are_confined() {
        for architecture in ["x86_64", "aarch64"] {
            assert_eq!(decide(architecture, || true), Held::All);
            assert_eq!(decide(architecture, || false), Held::NoSeccomp);
        }
        for architecture in ["arm", "mips", "mips64", "powerpc", "riscv64", "x86"] {
            assert_eq!(decide(architecture, || true), Held::NoList);
        }
        let built_with_list = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));
        assert_eq!(has_list(env::consts::ARCH), built_with_list);
    }
}
