//! Work inside a network namespace, on a thread of its own.
//!
//! A socket belongs for ever to the namespace of the thread that made it, so that a helper thread enters, makes the
//! socket, and hands it back. Does NOT start programs: `net` does, by `nsenter`.
#![allow(unsafe_code)] // setns(2) has no safe form in the standard library

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::thread;

/// Runs `work` on a thread that is in the namespace at `path`, and returns what it returns.
pub(crate) fn within<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let entered = scope.spawn(|| {
            let namespace = File::open(path).expect("the namespace exists");
            // SAFETY: setns takes two integers and changes this thread only, which ends right after `work`.
            let result = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
            assert_eq!(result, 0, "setns: {} (these tests need root)", std::io::Error::last_os_error());
            work()
        });
        match entered.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
