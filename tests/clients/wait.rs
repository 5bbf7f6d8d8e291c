//! Waiting for conditions instead of for time.

use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take that should take milliseconds: the limit only ends a test that is broken anyway.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Asks `condition` until it holds a value; panics with `what` after [`LONG`].
pub(crate) fn until<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    until_within(LONG, what, condition)
}

/// As [`until`], with a limit of its own.
pub(crate) fn until_within<T>(limit: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
