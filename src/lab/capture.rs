//! Writes what crosses the router, one capture for each side, with tcpdump.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::LabError;
use super::instance::end;
use super::netns::{self, Namespace};
use super::scratch::Scratch;
use super::stop::Stop;

/// How long tcpdump may take to open its socket.
const PATIENCE: Duration = Duration::from_secs(5);

/// Both captures, running.
#[derive(Debug)]
pub(super) struct Capture(Vec<Side>);

#[derive(Debug)]
struct Side {
    child: Child,
    file: PathBuf,
}

impl Capture {
    /// Starts them, and waits until they see packets.
    pub(super) fn start(
        router: &Namespace,
        directory: &Path,
        scratch: &Scratch,
        stop: &Stop,
    ) -> Result<Self, LabError> {
        fs::create_dir_all(directory)
            .map_err(|error| LabError::io(format!("cannot make {}", directory.display()), error))?;
        let mut capture = Self(Vec::new());
        for (interface, name) in [("lan0", "lan.pcap"), ("wan0", "wan.pcap")] {
            let (file, said) = (directory.join(name), scratch.path(name));
            let child = File::create(&said)
                .and_then(|stderr| {
                    netns::spawn(
                        Command::new("ip")
                            .args(["netns", "exec", router.name(), "tcpdump", "-i", interface])
                            .args(["-n", "-U", "--immediate-mode", "-Z", "root", "-w"])
                            .arg(&file)
                            .arg("udp or icmp")
                            .stdin(Stdio::null())
                            .stdout(Stdio::null())
                            .stderr(stderr),
                    )
                })
                .map_err(|error| LabError::io("cannot start tcpdump", error))?;
            capture.0.push(Side { child, file });
            capture.await_start(&said, stop)?;
        }
        Ok(capture)
    }

    /// Ends them; gives the files.
    pub(super) fn finish(mut self) -> Vec<PathBuf> {
        // tcpdump drops what it has not read yet when it is told to end.
        thread::sleep(Duration::from_millis(200));
        self.0.drain(..).map(|side| side.file.clone()).collect()
    }

    fn await_start(&mut self, said: &Path, stop: &Stop) -> Result<(), LabError> {
        let deadline = Instant::now() + PATIENCE;
        let Some(side) = self.0.last_mut() else { return Ok(()) };
        loop {
            let words = fs::read_to_string(said).unwrap_or_default();
            if words.contains("listening on") {
                return Ok(());
            }
            if stop.is_raised() {
                return Err(LabError::Interrupted);
            }
            if Instant::now() > deadline || !matches!(side.child.try_wait(), Ok(None)) {
                let command = format!("tcpdump -w {}", side.file.display());
                return Err(LabError::Tool { command, said: words.trim().to_owned() });
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        end(&mut self.child, Duration::from_secs(2));
    }
}
