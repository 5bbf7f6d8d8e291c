//! The real `sipalg run`, in the router's namespace.

use std::os::unix::net::UnixDatagram;
use std::process::{Command, ExitStatus};
use std::time::Duration;
use std::{fs, io};

use super::net::Namespace;
use super::proc::Proc;
use super::wait;

/// A running sipalg.
pub(crate) struct Gateway {
    proc: Proc,
}

impl Gateway {
    /// Starts it, and waits until it says that it is ready (the way systemd would learn it).
    pub(crate) fn start(router: &Namespace, config: &str) -> Self {
        let path = router.files().join("notify");
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).expect("the directory of a test is writable");
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout above zero");
        let mut command = run_command(router, config);
        command.env("NOTIFY_SOCKET", &path);
        let mut proc = router.spawn("sipalg", command);
        wait::until("READY=1 of sipalg", || {
            if let Some(status) = proc.ended() {
                panic!("sipalg ended with {status} instead of getting ready");
            }
            let mut message = [0; 4096];
            match socket.recv(&mut message) {
                Ok(length) => {
                    message[..length].split(|&byte| byte == b'\n').find(|line| line == b"READY=1").map(drop)
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    None
                }
                Err(error) => panic!("the socket of sd_notify: {error}"),
            }
        });
        Self { proc }
    }

    /// Starts it where it is not to become ready: returns its status and what it said.
    pub(crate) fn refused(router: &Namespace, config: &str) -> (ExitStatus, String) {
        let mut proc = router.spawn("sipalg-refused", run_command(router, config));
        let status = proc.status_within(wait::LONG);
        (status, proc.output())
    }

    /// Ends it with a signal: its status.
    pub(crate) fn end(&mut self, signal: &str) -> ExitStatus {
        self.proc.end(signal)
    }

    /// `sipalg unload`.
    pub(crate) fn unload(router: &Namespace) {
        let mut proc = router.spawn("sipalg-unload", {
            let mut command = router.command(PROGRAM);
            command.arg("unload");
            command
        });
        proc.succeeds_within(wait::LONG);
    }
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_sipalg");

fn run_command(router: &Namespace, config: &str) -> Command {
    let mut command = router.command(PROGRAM);
    command.arg("run").env_remove("NOTIFY_SOCKET");
    if !config.is_empty() {
        let path = router.files().join("sipalg.toml");
        fs::write(&path, config).expect("the directory of a test is writable");
        command.arg("--config").arg(path);
    }
    command
}
