//! What a daemon tells the service manager: the far end of its NOTIFY_SOCKET (sd_notify(3)).

use std::fs::{self, Permissions};
use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A socket that one daemon speaks to.
#[derive(Debug)]
pub(crate) struct Notices {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Notices {
    /// Listens at `notify` in this directory, in the place of who listened there before.
    pub(crate) fn listen(dir: &Path) -> Self {
        let path = dir.join("notify");
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).expect("the directory of a test is writable");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("not zero");
        // The daemon may have become another user before it speaks.
        fs::set_permissions(&path, Permissions::from_mode(0o777)).expect("it is ours");
        Self { socket, path }
    }

    /// The value for NOTIFY_SOCKET.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The next notice, a line for each thing that is said; `None` if there is none yet.
    pub(crate) fn next(&self) -> Option<String> {
        let mut buffer = [0; 4096];
        match self.socket.recv(&mut buffer) {
            Ok(length) => Some(String::from_utf8_lossy(&buffer[..length]).into_owned()),
            // A machine that was stopped for a moment interrupts what has a time limit.
            Err(error) if matches!(error.kind(), WouldBlock | TimedOut | Interrupted) => None,
            Err(error) => panic!("the socket of sd_notify: {error}"),
        }
    }

    /// Whether the next notice has a line that begins so.
    pub(crate) fn says(&self, begin: &str) -> bool {
        self.next().is_some_and(|notice| notice.lines().any(|line| line.starts_with(begin)))
    }
}
