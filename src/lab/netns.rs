//! Network namespaces and child processes: the lab's calls into the system that std has no safe form for.
//!
//! One idea: a thread may enter another namespace, and what it opens there (a socket, a child process) stays there
//! for good. So [`Namespace::run`] does its work in a thread of its own, and the rest of the lab is ordinary code that
//! uses sockets and does not care where they live. It neither names nor makes namespaces: see `network`.
#![allow(unsafe_code)] // setns, geteuid, kill and prctl

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::thread;

/// A network namespace that can be entered.
#[derive(Debug)]
pub(super) struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    /// Opens a namespace that `ip netns add` made.
    pub(super) fn open(name: &str) -> io::Result<Self> {
        let file = File::open(Path::new("/var/run/netns").join(name))?;
        Ok(Self { name: name.to_owned(), file })
    }

    /// As `ip` knows it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Does `work` inside, in a thread that ends with it.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                // SAFETY: setns takes two integers; the descriptor is open as long as `self` lives.
                if unsafe { libc::setns(self.file.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
                    return Err(io::Error::last_os_error());
                }
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// Whether this process may do everything here.
pub(super) fn is_root() -> bool {
    // SAFETY: geteuid takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Whether there is a process of this number, whoever owns it.
pub(super) fn is_alive(pid: u32) -> bool {
    let Ok(pid) = i32::try_from(pid) else { return false };
    // SAFETY: signal 0 only asks.
    let answer = unsafe { libc::kill(pid, 0) };
    answer == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}

/// Asks a child to end.
pub(super) fn terminate(child: &Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        // SAFETY: the child has not been waited for yet (that needs `&mut`), so the number is still its own.
        let _ = unsafe { libc::kill(pid, libc::SIGTERM) };
    }
}

/// Starts a child that ends with the calling thread, whatever ends that, and that a Ctrl-C at the terminal does not
/// reach: its end is ours to choose.
pub(super) fn spawn(command: &mut Command) -> io::Result<Child> {
    command.process_group(0);
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe and takes integers.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    command.spawn()
}
