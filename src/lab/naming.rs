//! Names of what a run makes outside of itself: namespaces and its directory.
//!
//! One idea: the name tells whose it is, so that the next run can remove what a killed one (SIGKILL, power) left.

use std::sync::atomic::{AtomicU32, Ordering};

use super::netns;

const PREFIX: &str = "sipalg-lab-";

/// A name that no other run has, in this process or another.
pub(super) fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Whether it was made by a run whose process is gone.
pub(super) fn is_orphan(name: &str) -> bool {
    maker(name).is_some_and(|pid| !netns::is_alive(pid))
}

fn maker(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_lab_made_has_a_maker() {
        assert_eq!(maker("sipalg-lab-4711-0-router"), Some(4711));
        assert_eq!(maker("sipalg-lab-x-router"), None);
        assert_eq!(maker("sipalg-test-4711-router"), None);
        assert_eq!(maker(&unique()), Some(std::process::id()));
    }

    #[test]
    fn only_the_dead_leave_orphans() {
        assert!(!is_orphan(&unique()));
        // Above the highest number that Linux gives (2^22).
        assert!(is_orphan("sipalg-lab-4999999-0"));
        assert!(!is_orphan("sipalg"));
    }
}
