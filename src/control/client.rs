//! The `sipalg` command's side of the control socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::protocol::{LONGEST_ANSWER, Refusal, Request, VERSION};

/// How long to wait for the gateway. It answers in milliseconds; a reload may take seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("sipalg does not run here: nobody answers at {}", path.display())]
    NotRunning {
        /// Where the socket would be.
        path: PathBuf,
    },
    /// The socket is for root only.
    #[error("{} is for root only", path.display())]
    NotPermitted {
        /// The socket.
        path: PathBuf,
    },
    /// It refused.
    #[error("{}", .0.error)]
    Refused(Refusal),
    /// It answered something else.
    #[error("the answer makes no sense: {0}")]
    Nonsense(#[source] serde_json::Error),
    /// It speaks another version of the protocol.
    #[error(
        "the running sipalg answers in version {0} of the control protocol, this program knows {VERSION}"
    )]
    Version(u32),
    /// The system refused something else.
    #[error("no answer from sipalg: {0}")]
    System(#[from] io::Error),
}

/// Asks the gateway at `path`.
///
/// # Errors
/// See [`AskError`].
pub fn ask<T: DeserializeOwned>(path: &Path, request: &Request) -> Result<T, AskError> {
    let mut stream = UnixStream::connect(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            AskError::NotRunning { path: path.to_owned() }
        }
        io::ErrorKind::PermissionDenied => AskError::NotPermitted { path: path.to_owned() },
        _ => AskError::System(error),
    })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(request).map_err(AskError::Nonsense)?;
    line.push(b'\n');
    match stream.write_all(&line) {
        // Who is refused at the door is told why without being heard.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written?,
    }
    let mut answer = Vec::new();
    BufReader::new(stream).take(LONGEST_ANSWER as u64).read_until(b'\n', &mut answer)?;
    if answer.last() != Some(&b'\n') {
        return Err(AskError::System(io::ErrorKind::UnexpectedEof.into()));
    }
    read(&answer)
}

fn read<T: DeserializeOwned>(answer: &[u8]) -> Result<T, AskError> {
    #[derive(Deserialize)]
    struct Head {
        v: u32,
        error: Option<String>,
        #[serde(default)]
        remedy: String,
    }
    #[derive(Deserialize)]
    struct Body<T> {
        ok: T,
    }
    let Head { v, error, remedy } = serde_json::from_slice(answer).map_err(AskError::Nonsense)?;
    match error {
        Some(error) => Err(AskError::Refused(Refusal { error, remedy })),
        None if v != VERSION => Err(AskError::Version(v)),
        None => serde_json::from_slice(answer).map(|Body { ok }| ok).map_err(AskError::Nonsense),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{Reloaded, answer};

    #[test]
    fn an_answer_is_read_as_it_was_written() {
        let reloaded = Reloaded { changed: vec!["sip.ports".into()], warnings: vec!["oh".into()] };
        let line = answer(&Ok(&reloaded)).unwrap();
        assert_eq!(read::<Reloaded>(&line).unwrap(), reloaded);
        let refusal = Refusal { error: "no".into(), remedy: "do".into() };
        let line = answer::<Reloaded>(&Err(refusal.clone())).unwrap();
        assert!(matches!(read::<Reloaded>(&line), Err(AskError::Refused(it)) if it == refusal));
        assert!(matches!(read::<Reloaded>(b"{\"v\":2,\"ok\":{}}\n"), Err(AskError::Version(2))));
        assert!(matches!(read::<Reloaded>(b"{\"v\":1,\"ok\":{}}\n"), Err(AskError::Nonsense(_))));
    }
}
