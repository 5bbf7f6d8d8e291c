//! Where the control socket is.

use std::env;
use std::path::{Path, PathBuf};

use crate::config::Place;

/// Where systemd makes a directory for us, and where we make one without it.
const DIRECTORY: &str = "/run/sipalg";
/// The socket's name in it.
const NAME: &str = "control.sock";

/// The socket, unless the configuration names another one: in `RUNTIME_DIRECTORY` if that is set (systemd.exec(5)),
/// otherwise in /run/sipalg.
pub fn default() -> PathBuf {
    in_directory(env::var("RUNTIME_DIRECTORY").ok().as_deref())
}

/// Where the gateway's own is by its configuration; `None`: there shall be none.
pub fn of(place: &Place) -> Option<PathBuf> {
    match place {
        Place::None => None,
        Place::Auto => Some(default()),
        Place::At(path) => Some(path.clone()),
    }
}

/// systemd separates several directories by colons; ours is the first.
fn in_directory(runtime: Option<&str>) -> PathBuf {
    let first = runtime.and_then(|all| all.split(':').next()).filter(|first| !first.is_empty());
    Path::new(first.unwrap_or(DIRECTORY)).join(NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_directory_is_honoured() {
        assert_eq!(in_directory(None), Path::new("/run/sipalg/control.sock"));
        assert_eq!(in_directory(Some("")), Path::new("/run/sipalg/control.sock"));
        assert_eq!(in_directory(Some("/run/a:/run/b")), Path::new("/run/a/control.sock"));
    }
}
