//! The sipalg under trial: started in the router as systemd would start it, and ended with the run.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::LabError;
use super::netns::{self, Namespace};
use super::scratch::Scratch;
use super::stop::Stop;

/// How long it may take to become ready.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long it may take to end when asked to.
const FAREWELL: Duration = Duration::from_secs(3);
/// Where sipalg looks for its configuration when it is not told.
const MACHINES_OWN: &str = "/etc/sipalg/sipalg.toml";

/// What is started in the router.
#[derive(Clone, Debug)]
pub struct Program {
    /// The executable.
    pub executable: PathBuf,
    /// Its configuration; `None`: the defaults.
    pub config: Option<PathBuf>,
}

impl Program {
    /// This very program.
    ///
    /// # Errors
    /// When the system does not tell its path.
    pub fn this_one(config: Option<PathBuf>) -> io::Result<Self> {
        Ok(Self { executable: std::env::current_exe()?, config })
    }
}

/// It runs.
#[derive(Debug)]
pub(super) struct Instance {
    child: Child,
    log: PathBuf,
}

impl Instance {
    /// Starts it, and waits until it says that it is ready (sd_notify).
    pub(super) fn start(
        program: &Program,
        router: &Namespace,
        scratch: &Scratch,
        stop: &Stop,
    ) -> Result<Self, LabError> {
        let socket = scratch.path("notify");
        let listen = || {
            let listening = UnixDatagram::bind(&socket)?;
            listening.set_read_timeout(Some(Duration::from_millis(50)))?;
            Ok(listening)
        };
        let ready = listen().map_err(|error| LabError::io("cannot listen for readiness", error))?;
        let log = scratch.path("sipalg.log");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", router.name()]).arg(&program.executable).arg("run");
        if let Some(config) = configuration(program, scratch)? {
            command.arg("--config").arg(config);
        }
        // What it keeps between runs must not be that of a sipalg on this machine.
        command.env("RUNTIME_DIRECTORY", scratch.directory()).env("STATE_DIRECTORY", scratch.directory());
        command.env("NOTIFY_SOCKET", &socket).env_remove("JOURNAL_STREAM").stdin(Stdio::null());
        let child = File::create(&log)
            .and_then(|file| {
                command.stderr(file.try_clone()?).stdout(file);
                netns::spawn(&mut command)
            })
            .map_err(|error| LabError::io("cannot start sipalg in the router", error))?;
        let mut instance = Self { child, log };
        instance.await_readiness(&ready, stop)?;
        Ok(instance)
    }

    fn await_readiness(&mut self, ready: &UnixDatagram, stop: &Stop) -> Result<(), LabError> {
        let deadline = Instant::now() + PATIENCE;
        let mut message = [0; 4096];
        loop {
            if let Ok(length) = ready.recv(&mut message) {
                let text = String::from_utf8_lossy(message.get(..length).unwrap_or_default()).into_owned();
                if text.lines().any(|line| line == "READY=1") {
                    return Ok(());
                }
            }
            if stop.is_raised() {
                return Err(LabError::Interrupted);
            }
            if let Some(why) = self.death() {
                return Err(LabError::NotReady { why, log: self.last_words() });
            }
            if Instant::now() > deadline {
                let why = format!("it was not ready within {} s", PATIENCE.as_secs());
                return Err(LabError::NotReady { why, log: self.last_words() });
            }
        }
    }

    /// If it has ended by itself: how.
    pub(super) fn death(&mut self) -> Option<String> {
        match self.child.try_wait() {
            Ok(Some(status)) => Some(format!("sipalg ended by itself: {status}")),
            Ok(None) => None,
            Err(error) => Some(error.to_string()),
        }
    }

    /// Leaves the log with the captures.
    pub(super) fn keep_log(&self, directory: &Path) -> Result<(), LabError> {
        let to = directory.join("sipalg.log");
        match fs::copy(&self.log, &to) {
            Ok(_) => Ok(()),
            Err(error) => Err(LabError::io(format!("cannot write {}", to.display()), error)),
        }
    }

    fn last_words(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        let lines: Vec<_> = log.lines().collect();
        let last = lines.get(lines.len().saturating_sub(15)..).unwrap_or_default();
        last.iter().map(|line| format!("  {line}\n")).collect()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        end(&mut self.child, FAREWELL);
    }
}

/// Asks a child to end, and makes it end when it takes too long.
pub(super) fn end(child: &mut Child, patience: Duration) {
    let deadline = Instant::now() + patience;
    if let Ok(None) = child.try_wait() {
        netns::terminate(child);
        while let Ok(None) = child.try_wait() {
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The `--config` to hand over. Without one sipalg would take the machine's own file, if there is any; the lab wants
/// the defaults then, so it gets an empty one.
fn configuration(program: &Program, scratch: &Scratch) -> Result<Option<OsString>, LabError> {
    if let Some(config) = &program.config {
        return Ok(Some(config.into()));
    }
    if !Path::new(MACHINES_OWN).exists() {
        return Ok(None);
    }
    let empty = scratch.path("sipalg.toml");
    match fs::write(&empty, "") {
        Ok(()) => Ok(Some(empty.into())),
        Err(error) => Err(LabError::io("cannot write an empty configuration", error)),
    }
}
