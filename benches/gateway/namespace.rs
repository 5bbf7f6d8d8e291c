//! Network namespaces without names.
//!
//! A namespace lives as long as its descriptor here and the processes in it, so nothing is left behind however the
//! bench ends. It does not configure anything; see [`network`](super::network).
#![allow(unsafe_code)] // unshare, setns and the steps between fork and exec are system calls without a safe form

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::{process, ptr, thread};

/// A network namespace.
pub(crate) struct Namespace {
    handle: File,
}

impl Namespace {
    /// A new, empty one.
    pub(crate) fn new() -> io::Result<Self> {
        let handle = thread::spawn(|| {
            // SAFETY: unshare takes flags only; it concerns this thread, which ends after the next line.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                return Err(io::Error::last_os_error());
            }
            File::open("/proc/thread-self/ns/net")
        })
        .join()
        .expect("the thread has no code that panics")?;
        Ok(Self { handle })
    }

    /// A path that other processes can open it by.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", process::id(), self.handle.as_raw_fd())
    }

    /// Moves the calling thread into it: sockets opened from now on belong to it.
    pub(crate) fn enter(&self) -> io::Result<()> {
        enter(self.handle.as_raw_fd())
    }

    /// A command that runs in it, with a /sys that shows it, and that dies with the calling thread.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let namespace = self.handle.as_raw_fd();
        let (none, root, sys) = (CString::default(), CString::from(c"/"), CString::from(c"/sys"));
        let sysfs = CString::from(c"sysfs");
        // SAFETY: between fork and exec only system calls are made, on memory that was allocated before.
        unsafe {
            command.pre_exec(move || {
                enter(namespace)?;
                check(libc::unshare(libc::CLONE_NEWNS))?;
                let private = libc::MS_REC | libc::MS_PRIVATE;
                check(libc::mount(none.as_ptr(), root.as_ptr(), none.as_ptr(), private, ptr::null()))?;
                check(libc::mount(sysfs.as_ptr(), sys.as_ptr(), sysfs.as_ptr(), 0, ptr::null()))?;
                check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))
            });
        }
        command
    }
}

fn enter(namespace: i32) -> io::Result<()> {
    // SAFETY: setns takes a descriptor, which its owner keeps open, and flags.
    check(unsafe { libc::setns(namespace, libc::CLONE_NEWNET) })
}

fn check(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
