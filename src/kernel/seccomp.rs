//! Hands a finished seccomp filter to the kernel, and asks whether it would take one.
//!
//! The filter's author is elsewhere (`daemon::privileges`). seccompiler can install what it compiles, but not so that the
//! kernel logs what was refused.
#![allow(unsafe_code)] // seccomp(2)

use std::io;

use seccompiler::sock_filter;

/// As in linux/filter.h.
#[repr(C)]
struct Program {
    length: u16,
    instructions: *const sock_filter,
}

/// What becomes of calls that are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusals {
    /// The kernel logs them.
    Logged,
    /// It does not.
    Silent,
}

/// Filters the system calls of all threads of this process. Takes PR_SET_NO_NEW_PRIVS. Of several filters the strictest
/// answer holds.
///
/// # Errors
/// Those of seccomp(2).
pub fn install(filter: &[sock_filter], refusals: Refusals) -> io::Result<()> {
    let length = u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = Program { length, instructions: filter.as_ptr() };
    let log = if refusals == Refusals::Logged { libc::SECCOMP_FILTER_FLAG_LOG } else { 0 };
    let flags = libc::SECCOMP_FILTER_FLAG_TSYNC | log;
    // SAFETY: the kernel copies `length` instructions from the slice, which lives through the call; it checks them itself.
    let done =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    match done {
        0 => Ok(()),
        -1 => Err(io::Error::last_os_error()),
        thread => Err(io::Error::other(format!("thread {thread} has a filter of its own"))),
    }
}

/// Whether this kernel has filters that can refuse with an error.
pub fn is_there() -> bool {
    let action = libc::SECCOMP_RET_ERRNO;
    // SAFETY: the kernel reads one word, which lives through the call.
    let answer =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) };
    answer == 0
}
