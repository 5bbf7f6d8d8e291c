//! When the state is written: soon after something has changed, not too often, and once at the end.
//!
//! Copying the tables takes time on the packet thread, so the pause after it grows with what it took: however full the
//! tables are, they take less than a hundredth of that thread's time. Everything else happens on other threads.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::state_file::{self, Found, Moment};
use super::worker::Snapshot;
use crate::alg::{Engine, Sizes, State, Stats};
use crate::control::protocol::StateFile;

/// The shortest time between two writes.
const PAUSE: Duration = Duration::from_secs(5);
/// And so many times what the copy took.
const SHARE: u32 = 100;

/// What to do where it can't be written.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => NO_ROOM,
        _ => NOT_ALLOWED,
    }
}

const NO_ROOM: &str = "make room: calls go on, but a restart forgets what the file does not have yet";

/// The unit lets sipalg write in these two places only.
const NOT_ALLOWED: &str = "state-file = \"auto\" is where the service may write; for another place its directory must belong to \
    the user that sipalg runs as, and the unit must allow it: `systemctl edit sipalg`, [Service] ReadWritePaths=";

/// The state file's keeper.
#[derive(Debug)]
pub(super) struct Keeper {
    path: PathBuf,
    last: RefCell<Last>,
}

#[derive(Debug, Default)]
struct Last {
    /// What was counted before the latest copy.
    seen: Option<(Stats, Sizes)>,
    /// Not before this time the next copy is made.
    next: Option<Instant>,
    /// Whether one is under way.
    busy: bool,
    written: Option<Instant>,
    error: Option<String>,
}

impl Keeper {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, last: RefCell::default() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives a new engine what the last one knew. The answer is which of this machine's addresses are gone since then.
    pub(super) fn take_up(&self, engine: &mut Engine) -> Vec<IpAddr> {
        match state_file::read(&self.path) {
            Ok(Found::Nothing) => {}
            Ok(Found::OfAnotherKernel) => info!(
                file = %self.path.display(),
                "the state file is of another boot or network namespace: nothing of what it speaks of is left"
            ),
            Ok(Found::State { mut state, age, written, lost }) => {
                // Segments have passed since: a map of what was translated before them would make wrong bytes.
                if written == Moment::Meanwhile {
                    state.connections.clear();
                }
                engine.import(Instant::now(), age, *state);
                let sizes = engine.sizes();
                let (calls, registrations, seconds) = (sizes.calls, sizes.registrations, age.as_secs());
                info!(calls, registrations, seconds, "taken up from the state file");
                return lost;
            }
            Ok(Found::SetAside { to, why }) => {
                warn!(
                    file = %self.path.display(), to = %to.display(), why,
                    "the state file can't be used and was set aside; calls that are up go on, but are not known again"
                );
            }
            Err(error) => warn!(file = %self.path.display(), %error, "the state file can't be read"),
        }
        Vec::new()
    }

    /// Whether a copy is to be made now. If so, [`Keeper::done`] is to be called when that has ended.
    pub(super) fn is_due(&self, now: Instant, snapshot: &Snapshot) -> bool {
        let mut last = self.last.borrow_mut();
        let is_early = last.next.is_some_and(|next| now < next);
        let is_same = last
            .seen
            .as_ref()
            .is_some_and(|(stats, sizes)| *stats == snapshot.stats && *sizes == snapshot.sizes);
        if last.busy || is_early || is_same {
            return false;
        }
        last.busy = true;
        last.seen = Some((snapshot.stats.clone(), snapshot.sizes));
        true
    }

    /// How it went: what the copy took of the packet thread's time, or why nothing was written.
    pub(super) fn done(&self, outcome: io::Result<Duration>) {
        let now = Instant::now();
        let mut last = self.last.borrow_mut();
        last.busy = false;
        let took = match outcome {
            Ok(took) => {
                last.written = Some(now);
                last.error = None;
                took
            }
            Err(error) => {
                let text = error.to_string();
                // One line for one trouble, however long it lasts.
                if last.error.as_ref() != Some(&text) {
                    let remedy = remedy(&error);
                    warn!(file = %self.path.display(), %error, remedy, "the state file can't be written");
                }
                last.error = Some(text);
                // It has to be tried again, also if nothing changes.
                last.seen = None;
                Duration::ZERO
            }
        };
        last.next = now.checked_add(PAUSE.max(took * SHARE));
    }

    /// Writes the last state of all.
    pub(super) fn finish(&self, state: &State) {
        if let Err(error) = state_file::write(&self.path, state, Moment::AtTheEnd) {
            warn!(
                file = %self.path.display(), %error, remedy = remedy(&error),
                "the state file can't be written: a restart forgets calls"
            );
        }
    }

    /// For `sipalg status`.
    pub(super) fn report(&self) -> StateFile {
        let last = self.last.borrow();
        StateFile {
            path: self.path.display().to_string(),
            age: last.written.map(|at| at.elapsed().as_secs()),
            error: last.error.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_due_when_something_has_changed_and_not_too_often() {
        let keeper = Keeper::new("/nowhere".into());
        let mut snapshot = Snapshot::default();
        let now = Instant::now();
        assert!(keeper.is_due(now, &snapshot));
        snapshot.sizes.calls = 1;
        assert!(!keeper.is_due(now, &snapshot), "one is under way");
        keeper.done(Ok(Duration::from_secs(1)));
        assert!(!keeper.is_due(now + 90 * PAUSE / 5, &snapshot), "the copy took long");
        assert!(keeper.is_due(now + 22 * PAUSE, &snapshot));
        keeper.done(Err(io::Error::other("no room")));
        assert_eq!(keeper.report().error.as_deref(), Some("no room"));
        assert!(keeper.is_due(Instant::now() + PAUSE, &snapshot), "it failed");
        keeper.done(Ok(Duration::ZERO));
        assert_eq!((keeper.report().error, keeper.report().age), (None, Some(0)));
        assert!(!keeper.is_due(Instant::now() + PAUSE, &snapshot), "nothing has changed");
    }

    #[test]
    fn a_full_disk_has_another_remedy_than_a_forbidden_one() {
        assert!(remedy(&ErrorKind::StorageFull.into()).starts_with("make room"));
        assert!(remedy(&ErrorKind::PermissionDenied.into()).contains("ReadWritePaths="));
    }
}
