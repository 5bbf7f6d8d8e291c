//! The real `sipalg run` in a namespace of these tests.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io};

use super::netns::Netns;

/// Nothing here takes so long, on any machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A running sipalg; killed when it is dropped.
pub(crate) struct Gateway(Child);

impl Gateway {
    /// Starts it and waits until it is ready. Its state and its log are in `files`.
    pub(crate) fn start(router: &Netns, files: &Path) -> Self {
        let path = files.join("notify");
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let log = fs::OpenOptions::new().create(true).append(true).open(files.join("log")).unwrap();
        let config = files.join("sipalg.toml");
        if !config.exists() {
            fs::write(&config, "").unwrap();
        }
        let mut command = router.command(env!("CARGO_BIN_EXE_sipalg"), &["run", "--config"]);
        command.arg(config).env("NOTIFY_SOCKET", &path).env_remove("JOURNAL_STREAM");
        command.env("RUNTIME_DIRECTORY", files).env("STATE_DIRECTORY", files);
        let child = command.stdin(Stdio::null()).stderr(log).spawn().unwrap();
        let mut gateway = Self(child);
        let deadline = Instant::now() + LIMIT;
        let mut buffer = [0; 4096];
        loop {
            match socket.recv(&mut buffer) {
                Ok(length)
                    if buffer[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") =>
                {
                    return gateway;
                }
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                }
                Err(error) => panic!("{error}"),
            }
            let ended = gateway.0.try_wait().unwrap();
            let log = || fs::read_to_string(files.join("log")).unwrap_or_default();
            assert!(ended.is_none() && Instant::now() < deadline, "not ready: {ended:?}\n{}", log());
        }
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: &str) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &id]).status().unwrap().success());
    }

    /// Ends it with a signal and waits until it is gone.
    pub(crate) fn end(mut self, signal: &str) {
        self.signal(signal);
        let deadline = Instant::now() + LIMIT;
        while self.0.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
