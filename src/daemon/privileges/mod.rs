//! What the gateway gives up once it is set up: everything but what its work needs.
//!
//! One idea: whoever took this process over by a packet should find nothing worth having. What needs more than the daily
//! work (the probe, which starts programs; directories; conntrack's switch) is done before; then, in this order:
//!
//! 1. [`account`]: the directories are handed over to the user `sipalg`, and the process becomes that user.
//! 2. Capabilities: CAP_NET_ADMIN is all that is kept, in every set.
//! 3. No new privileges: no program can give any back.
//! 4. [`files`] (landlock): it reads its configuration and `/proc`, and writes into its two directories.
//! 5. [`calls`] (seccomp): a list of system calls; no program, no process, no debugging, no TCP, no raw packets.
//!
//! All of it holds for one thread and what it starts, so it comes before the first other thread. What this kernel lacks
//! (4 and 5) is told once in the log and by `sipalg check`; the rest of the walls stand without it. Nothing here decides
//! what the work needs: the lists name the place in the code that a right is for.

mod account;
pub mod calls;
pub mod files;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use caps::{CapSet, Capability};
use tracing::info;

use super::{Error, state_file};
use crate::config::{self, Config, Place, User};
use crate::control::path as control_path;
use crate::kernel::probe::{Finding, Level};

/// What the gateway needs of the file system from now on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Whom to become.
    pub user: Option<User>,
    /// Directories and files that are read.
    pub read: Vec<PathBuf>,
    /// Directories that are ours: made if missing, and given to the user.
    pub own: Vec<PathBuf>,
    /// Directories of somebody else that are written into: left as they are, made if missing.
    pub write: Vec<PathBuf>,
}

impl Needs {
    /// What these settings lead to. `file` is where they came from, if that was named.
    pub fn of(config: &Config, file: Option<&Path>) -> Self {
        let directory = |path: &Path| path.parent().map(Path::to_owned);
        let (mut own, mut write) = (Vec::new(), Vec::new());
        let mut add = |place: &Place, path: Option<PathBuf>| {
            let list = if *place == Place::Auto { &mut own } else { &mut write };
            list.extend(path.as_deref().and_then(directory));
        };
        add(&config.state_file, state_file::path(&config.state_file));
        add(&config.control_socket, control_path::of(&config.control_socket));
        let file = file.unwrap_or(Path::new(config::DEFAULT_PATH));
        // Not the file: an editor puts another one in its place. A bare name lies in the working directory.
        let settings = directory(file).filter(|path| !path.as_os_str().is_empty()).unwrap_or(".".into());
        let mut read = vec![settings];
        // Where a link leads, if it is one; the same once more does no harm.
        read.extend(
            file.canonicalize().ok().as_deref().and_then(directory).filter(|path| !read.contains(path)),
        );
        Self { user: Some(config.user.clone()), read, own, write }
    }
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shed {
    /// The user whom the process has become, if another one.
    pub user: Option<String>,
    /// Whether the kernel holds the lists of files.
    pub files: files::Held,
    /// Whether it holds the list of system calls.
    pub calls: bool,
}

/// Gives up everything else, for this thread and those that it starts. There is no way back.
///
/// # Errors
/// A right that can't be given up is not kept in silence: the gateway does not start. What the kernel lacks is no error.
pub fn shed(needs: &Needs) -> Result<Shed, Error> {
    let user = account::find(needs.user.as_ref().unwrap_or(&User::None))?;
    account::prepare(needs, user.as_ref()).map_err(Error::doing("make the directories"))?;
    keep_only_net_admin(user.as_ref()).map_err(Error::doing("give up capabilities"))?;
    nix::sys::prctl::set_no_new_privs()
        .map_err(io::Error::from)
        .map_err(Error::doing("rule out new privileges"))?;
    let files = files::confine(needs).map_err(Error::doing("confine it to its files (landlock)"))?;
    let calls = calls::probe() == calls::Held::All;
    if calls {
        calls::confine().map_err(Error::doing("confine it to its system calls (seccomp)"))?;
    }
    Ok(Shed { user: user.map(|user| user.name), files, calls })
}

impl Shed {
    /// One line of the log. What this kernel lacks has been said by the findings.
    pub fn log(&self) {
        let user = self.user.as_deref().unwrap_or("unchanged");
        info!(user, capabilities = "CAP_NET_ADMIN", files = ?self.files, calls = self.calls, "confined");
    }
}

/// What `sipalg check` says of this kernel and this machine, and a start that goes on in spite of it.
pub fn findings(config: &Config) -> Vec<Finding> {
    vec![account::finding(&config.user), landlock(files::probe()), system_calls(calls::probe())]
}

fn landlock(held: files::Held) -> Finding {
    let (level, text, remedy) = match held {
        files::Held::All => (Level::Ok, "files are confined by landlock", ""),
        files::Held::Partly => (
            Level::Ok,
            "files are confined by landlock, as far as this kernel knows it (newer ones also confine TCP and signals)",
            "",
        ),
        files::Held::Not => (
            Level::Note,
            "this kernel has no landlock, or it is switched off: permissions alone keep sipalg from files",
            "add landlock to the kernel's lsm= parameter, or use a kernel with CONFIG_SECURITY_LANDLOCK",
        ),
    };
    Finding { name: "landlock", level, text: text.to_owned(), remedy: remedy.to_owned() }
}

fn system_calls(held: calls::Held) -> Finding {
    let (level, text, remedy) = match held {
        calls::Held::All => (Level::Ok, "system calls are confined by seccomp", ""),
        calls::Held::NoSeccomp => (
            Level::Note,
            "this kernel has no seccomp: sipalg's system calls are not confined",
            "use a kernel with CONFIG_SECCOMP_FILTER",
        ),
        calls::Held::NoList => (
            Level::Note,
            "sipalg has no list of system calls for this processor: its system calls are not confined",
            "there is one for x86-64 and 64-bit ARM; capabilities, user and landlock hold on every processor",
        ),
    };
    Finding { name: "seccomp", level, text: text.to_owned(), remedy: remedy.to_owned() }
}

/// Becomes `user`, if there is one to become, and keeps CAP_NET_ADMIN alone. Under systemd there is nothing left to do but
/// to clear what it made inheritable; without the right to change a set, nothing can be gained by it either.
fn keep_only_net_admin(user: Option<&nix::unistd::User>) -> io::Result<()> {
    const NEEDED: Capability = Capability::CAP_NET_ADMIN;
    let other = |error: caps::errors::CapsError| io::Error::other(error.to_string());
    // The bounding set is what a program could regain. To lower it takes CAP_SETPCAP.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(other)? {
        for capability in caps::read(None, CapSet::Bounding).map_err(other)? {
            if capability != NEEDED {
                caps::drop(None, CapSet::Bounding, capability).map_err(other)?;
            }
        }
    }
    if let Some(user) = user {
        // Otherwise a change from root to another user takes all of them.
        caps::securebits::set_keepcaps(true).map_err(other)?;
        nix::unistd::setgroups(&[user.gid])?;
        nix::unistd::setresgid(user.gid, user.gid, user.gid)?;
        nix::unistd::setresuid(user.uid, user.uid, user.uid)?;
        caps::securebits::set_keepcaps(false).map_err(other)?;
    }
    let none = HashSet::new();
    let needed = caps::CapsHashSet::from_iter([NEEDED]);
    let _ = caps::clear(None, CapSet::Ambient); // before Linux 4.3 there is no such set
    caps::set(None, CapSet::Effective, &needed).map_err(other)?;
    caps::set(None, CapSet::Permitted, &needed).map_err(other)?;
    caps::set(None, CapSet::Inheritable, &none.into_iter().collect()).map_err(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_ours_are_told_from_those_of_others() {
        let config = Config::parse("user = \"nobody\"\nstate-file = \"/srv/voice/state\"").unwrap();
        let needs = Needs::of(&config, Some(Path::new("/etc/router/sip.toml")));
        assert_eq!(needs.user, Some(User::Named("nobody".to_owned())));
        assert_eq!(needs.read, [Path::new("/etc/router")]);
        assert_eq!(needs.write, [Path::new("/srv/voice")]);
        assert_eq!(needs.own.len(), 1, "the control socket's: {:?}", needs.own);
        assert_eq!(Needs::of(&config, Some(Path::new("sip.toml"))).read, [Path::new(".")]);
        let directory = tempfile::tempdir().unwrap();
        let (link, there) = (directory.path().join("sip.toml"), directory.path().join("there"));
        std::fs::create_dir(&there).unwrap();
        std::fs::write(there.join("sip.toml"), "").unwrap();
        std::os::unix::fs::symlink("there/sip.toml", &link).unwrap();
        let read = Needs::of(&config, Some(&link)).read;
        assert_eq!(
            read,
            [directory.path().to_owned(), there.canonicalize().unwrap()],
            "of a link both sides"
        );
        let none = Config::parse("state-file = \"none\"\n[control]\nsocket = \"none\"").unwrap();
        let needs = Needs::of(&none, None);
        assert_eq!((needs.own.len(), needs.write.len()), (0, 0));
        assert_eq!(needs.read, [Path::new("/etc/sipalg")]);
    }
}
