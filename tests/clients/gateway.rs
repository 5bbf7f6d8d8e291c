//! The real `sipalg run`, in the router's namespace.

use std::fs;
use std::process::{Command, ExitStatus};

use serde_json::Value;

use super::net::Namespace;
use super::notices::Notices;
use super::proc::Proc;
use super::wait;

/// A running sipalg.
pub(crate) struct Gateway {
    proc: Proc,
    router: Namespace,
}

impl Gateway {
    /// Starts it, and waits until it says that it is ready (the way systemd would learn it).
    pub(crate) fn start(router: &Namespace, config: &str) -> Self {
        let notices = Notices::listen(router.files());
        let mut command = run_command(router, config);
        command.env("NOTIFY_SOCKET", notices.path());
        let mut proc = router.spawn("sipalg", command);
        wait::until("READY=1 of sipalg", || {
            if let Some(status) = proc.ended() {
                panic!("sipalg ended with {status} instead of getting ready");
            }
            notices.says("READY=1").then_some(())
        });
        Self { proc, router: router.clone() }
    }

    /// What a command that asks it says, on either stream.
    pub(crate) fn say(&self, command: &str) -> String {
        let output = own_files(&self.router).arg(command).output().expect("it starts");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    /// Starts it where it is not to become ready: returns its status and what it said.
    pub(crate) fn refused(router: &Namespace, config: &str) -> (ExitStatus, String) {
        let mut proc = router.spawn("sipalg-refused", run_command(router, config));
        let status = proc.status_within(wait::LONG);
        (status, proc.output())
    }

    /// What it has said so far: its log.
    pub(crate) fn output(&self) -> String {
        self.proc.output()
    }

    /// Ends it with a signal: its status.
    pub(crate) fn end(&mut self, signal: &str) -> ExitStatus {
        self.proc.end(signal)
    }

    /// What the running sipalg answers to a command with `--json`.
    pub(crate) fn ask(router: &Namespace, command: &str) -> Value {
        let output = own_files(router).args([command, "--json"]).output().expect("it starts");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "sipalg {command}: {complaint}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Waits until the state file has all of `parts`.
    pub(crate) fn await_state(router: &Namespace, parts: &[&str]) {
        let path = router.files().join("state");
        wait::until("the state to be written", || {
            let text = fs::read_to_string(&path).ok()?;
            parts.iter().all(|part| text.contains(part)).then_some(())
        });
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

/// The program with a state file and a control socket of this router's own: tests run side by side.
fn own_files(router: &Namespace) -> Command {
    let mut command = router.command(PROGRAM);
    command.env("RUNTIME_DIRECTORY", router.files()).env("STATE_DIRECTORY", router.files());
    command
}

fn run_command(router: &Namespace, config: &str) -> Command {
    let mut command = own_files(router);
    command.arg("run").env_remove("NOTIFY_SOCKET");
    if !config.is_empty() {
        let path = router.files().join("sipalg.toml");
        fs::write(&path, config).expect("the directory of a test is writable");
        command.arg("--config").arg(path);
    }
    command
}
