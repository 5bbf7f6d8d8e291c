//! The gateway's side of the control socket.
//!
//! Only root is answered, and the user whom the gateway runs as: the socket has mode 0600, and each client's identity is asked of the kernel, for a mode alone
//! does not hold where somebody else owns the directory. Clients, sizes and times are bounded, so that nobody who may
//! connect can hold the gateway up; the packet thread has no part in this.

use std::future::Future;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, process};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::protocol::{self, LONGEST_REQUEST, Refusal, Request};

/// Clients at one time; more wait to be accepted.
const CLIENTS: usize = 16;
/// How long a client may take for its line.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long an answer may take, and a client to read it.
const READING: Duration = Duration::from_secs(30);
/// After a failure to accept (no descriptors left), the next attempt waits so long.
const RETRY: Duration = Duration::from_millis(100);

/// The listening socket. It goes from the file system when this does.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

impl Server {
    /// Listens at `path`; its directory is made if it is not there. What a dead gateway left at `path` is replaced. To be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// `AddrInUse` if another gateway answers there; else what the system says.
    pub fn bind(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        if StdStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another sipalg answers there"));
        }
        // Made under another name and moved: nobody meets it with the wrong mode, and a dead one is replaced in one step.
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(format!(".{}", process::id()));
        let fresh = PathBuf::from(fresh);
        let _ = fs::remove_file(&fresh);
        let listener = UnixListener::bind(&fresh)?;
        let placed = fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))
            .and_then(|()| fs::rename(&fresh, path));
        if let Err(error) = placed {
            let _ = fs::remove_file(&fresh);
            return Err(error);
        }
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Serves for ever: each request goes to `answer`, which makes the line that is sent back.
    pub async fn serve<F>(&self, answer: impl Fn(Request) -> F + Clone + 'static)
    where
        F: Future<Output = Vec<u8>> + 'static,
    {
        let room = Arc::new(Semaphore::new(CLIENTS));
        loop {
            let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "a client of the control socket can't be accepted");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            let answer = answer.clone();
            tokio::task::spawn_local(async move {
                if let Err(error) = converse(stream, answer).await {
                    debug!(%error, "a client of the control socket went away");
                }
                drop(place);
            });
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

async fn converse<F: Future<Output = Vec<u8>>>(
    mut stream: UnixStream,
    answer: impl Fn(Request) -> F,
) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    let line = if is_trusted(peer) {
        match timeout(PATIENCE, read_line(&mut stream)).await {
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(line) => match line.map(|line| protocol::request(&line)) {
                Ok(Ok(request)) => timeout(READING, answer(request)).await?,
                Ok(Err(refusal)) => refused(refusal),
                Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                    refused(Refusal { error: "this request is too long".to_owned(), ..Refusal::default() })
                }
                Err(error) => return Err(error),
            },
        }
    } else {
        warn!(uid = peer, "somebody who is not root was refused at the control socket");
        refused(Refusal {
            error: "only root may ask".to_owned(),
            remedy: "run the command with sudo".to_owned(),
        })
    };
    timeout(READING, stream.write_all(&line)).await?
}

/// Root, and the user whom the gateway itself runs as.
fn is_trusted(uid: u32) -> bool {
    uid == 0 || nix::unistd::geteuid().as_raw() == uid
}

async fn read_line(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    BufReader::new(stream).take(LONGEST_REQUEST as u64).read_until(b'\n', &mut line).await?;
    match line.last() {
        Some(b'\n') => Ok(line),
        Some(_) if line.len() == LONGEST_REQUEST => Err(io::ErrorKind::FileTooLarge.into()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn refused(refusal: Refusal) -> Vec<u8> {
    protocol::answer::<()>(&Err(refusal)).unwrap_or_default()
}
