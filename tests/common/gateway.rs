#![allow(dead_code)] // each test program uses a part of it
//! The real `sipalg run` in a namespace of these tests.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::netns::{Netns, eventually};
use super::notices::Notices;

/// A running sipalg; killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Gateway(Child);

impl Gateway {
    /// Starts it with `sipalg.toml` in `files`, if there is one, and waits until it is ready. Its state, its control socket
    /// and its log are there too.
    pub(crate) fn start(router: &Netns, files: &Path) -> Self {
        let notices = Notices::listen(files);
        let log = OpenOptions::new().create(true).append(true).open(files.join("log")).unwrap();
        let config = files.join("sipalg.toml");
        if !config.exists() {
            fs::write(&config, "").unwrap();
        }
        let mut command = router.command(env!("CARGO_BIN_EXE_sipalg"), &["run", "--config"]);
        command.arg(config).env("NOTIFY_SOCKET", notices.path()).env_remove("JOURNAL_STREAM");
        command.env("RUNTIME_DIRECTORY", files).env("STATE_DIRECTORY", files);
        let mut gateway = Self(command.stdin(Stdio::null()).stderr(log).spawn().unwrap());
        eventually("sipalg is ready", || {
            if let Some(status) = gateway.0.try_wait().unwrap() {
                let log = fs::read_to_string(files.join("log")).unwrap_or_default();
                panic!("sipalg ended with {status} instead of getting ready:\n{log}");
            }
            notices.says("READY=1")
        });
        gateway
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: &str) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &id]).status().unwrap().success());
    }

    /// Ends it with a signal and waits until it is gone.
    pub(crate) fn end(mut self, signal: &str) {
        self.signal(signal);
        eventually("sipalg ends", || self.0.try_wait().unwrap().is_some());
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
