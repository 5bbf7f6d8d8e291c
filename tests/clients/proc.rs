//! A running program that ends with its guard, and whose log is shown when the test fails.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use super::wait;

/// A program that was started by a test. Killed, by its pid, when it is dropped.
pub(crate) struct Proc {
    label: String,
    child: Child,
    log: PathBuf,
}

impl Proc {
    /// Starts `command`; both its outputs go to `<label>.out` in `dir`.
    pub(crate) fn start(label: &str, dir: &Path, mut command: Command) -> Self {
        let log = dir.join(format!("{label}.out"));
        let out = File::create(&log).expect("the directory of a test is writable");
        let err = out.try_clone().expect("a file can be shared");
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn();
        let child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { label: label.to_owned(), child, log }
    }

    /// What it has printed so far.
    pub(crate) fn output(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Its status if it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be asked")
    }

    /// Waits for its end.
    pub(crate) fn status_within(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.label);
        wait::until_within(limit, &what, || self.ended())
    }

    /// Waits for its end, which must be exit code 0.
    pub(crate) fn succeeds_within(&mut self, limit: Duration) {
        let status = self.status_within(limit);
        assert!(status.success(), "{} ended with {status}", self.label);
    }

    /// Waits until it has printed `text`.
    pub(crate) fn wait_for(&mut self, text: &str) {
        let what = format!("{text:?} from {}", self.label);
        wait::until(&what, || {
            let seen = self.output().contains(text);
            let status = self.ended();
            assert!(seen || status.is_none(), "{} ended with {status:?} instead of {text:?}", self.label);
            seen.then_some(())
        });
    }

    /// Sends a signal, by name.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().expect("kill is installed");
        assert!(status.success(), "{} ({pid}) can't be signalled", self.label);
    }

    /// Ends it with a signal, and waits for the end.
    pub(crate) fn end(&mut self, signal: &str) -> ExitStatus {
        self.signal(signal);
        self.status_within(wait::LONG)
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        if thread::panicking() {
            let output = self.output();
            let from = output.char_indices().rev().nth(6000).map_or(0, |(at, _)| at);
            // libtest shows it with the failed test only.
            #[allow(clippy::print_stderr)]
            {
                eprintln!("--- {} ({:?}):\n{}", self.label, self.child.try_wait(), &output[from..]);
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
