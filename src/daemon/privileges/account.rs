//! Whom the gateway runs as, and what belongs to that user.
//!
//! systemd starts it as `sipalg` already; then there is nothing to do. Started by root (by hand, in a container, by
//! another init system), it becomes `sipalg` where there is such a user.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, lchown};
use std::path::Path;

use caps::{CapSet, Capability};
use nix::unistd::{Uid, User as Account};

use super::Needs;
use crate::config::User;
use crate::daemon::Error;
use crate::kernel::probe::{Finding, Level};

/// The user of `"auto"`; `sipalg.sysusers` makes it.
const OWN: &str = "sipalg";

/// The account to become; `None`: none.
///
/// # Errors
/// A user that was asked for by name, and is not there, or can't be had.
pub(super) fn find(wanted: &User) -> Result<Option<Account>, Error> {
    let lookup = |name: &str| {
        Account::from_name(name).map_err(io::Error::from).map_err(Error::doing("look the user up"))
    };
    let missing = |why: String| Error::User(why);
    let found = match wanted {
        User::None => None,
        // In a container, root often has neither the right nor another user to be.
        User::Auto if !may_change() => None,
        User::Auto => lookup(OWN)?,
        User::Named(name) => {
            let account = lookup(name)?.ok_or_else(|| missing(format!("there is no user {name:?}")))?;
            if account.uid != Uid::current() && !may_change() {
                return Err(missing(format!("only root can become the user {name:?}")));
            }
            Some(account)
        }
    };
    Ok(found.filter(|account| account.uid != Uid::current()))
}

/// Makes the directories that are missing, and gives the user what is ours: a state that was written as root, too.
pub(super) fn prepare(needs: &Needs, user: Option<&Account>) -> io::Result<()> {
    let give = |path: &Path| match user {
        Some(user) => lchown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())),
        None => Ok(()),
    };
    for directory in needs.own.iter().chain(&needs.write) {
        let is_own = needs.own.contains(directory);
        if !directory.exists() {
            // Where it can't be made, the state file's and the control socket's own messages say so.
            if fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).is_err() {
                continue;
            }
            give(directory)?;
        } else if is_own && user.is_some() {
            give(directory)?;
            for entry in fs::read_dir(directory)? {
                let entry = entry?;
                // A link that somebody has put there leads to nothing of ours: lchown does not follow a symbolic one, and
                // a file with another name may be somebody else's. Directories have many by nature.
                let kind = entry.metadata()?;
                if kind.is_dir() || kind.nlink() == 1 {
                    give(&entry.path())?;
                }
            }
        }
    }
    Ok(())
}

/// What `sipalg check` says. That run as another user than the daemon, it tells what a start as the present user would do.
pub(super) fn finding(wanted: &User) -> Finding {
    let (level, text, remedy) = match find(wanted) {
        Err(error) => (
            Level::Problem,
            error.to_string(),
            "the key is \"user\"; \"auto\" is sipalg, where there is such a user",
        ),
        Ok(Some(account)) => (Level::Ok, format!("it will run as the user {}", account.name), ""),
        Ok(None) if !Uid::current().is_root() => (Level::Ok, "it does not run as root".to_owned(), ""),
        Ok(None) if *wanted == User::None || !may_change() => {
            (Level::Ok, "it will run as root, but with CAP_NET_ADMIN alone".to_owned(), "")
        }
        Ok(None) => (
            Level::Note,
            "it will run as root, but with CAP_NET_ADMIN alone".to_owned(),
            "a user sipalg is all that is needed: adduser --system --group --no-create-home sipalg",
        ),
    };
    Finding { name: "user", level, text, remedy: remedy.to_owned() }
}

fn may_change() -> bool {
    [Capability::CAP_SETUID, Capability::CAP_SETGID, Capability::CAP_CHOWN]
        .into_iter()
        .all(|needed| caps::has_cap(None, CapSet::Effective, needed).unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_another_name_keeps_its_owner() {
        assert!(Uid::current().is_root(), "needs root");
        let directory = tempfile::tempdir().unwrap();
        let (own, foreign) = (directory.path().join("own"), directory.path().join("foreign"));
        fs::create_dir(&own).unwrap();
        fs::write(own.join("state"), "1").unwrap();
        fs::write(&foreign, "2").unwrap();
        fs::hard_link(&foreign, own.join("link")).unwrap();
        std::os::unix::fs::symlink(&foreign, own.join("symbolic")).unwrap();
        let needs = Needs { own: vec![own.clone()], ..Needs::default() };
        let nobody = Account::from_name("nobody").unwrap().expect("every system has this user");
        prepare(&needs, Some(&nobody)).unwrap();
        let owner = |path: &Path| fs::symlink_metadata(path).unwrap().uid();
        let expected = nobody.uid.as_raw();
        assert_eq!([owner(&own), owner(&own.join("state")), owner(&foreign)], [expected, expected, 0]);
    }

    #[test]
    fn a_user_that_is_not_there_is_refused_by_name_only() {
        let named = find(&User::Named("no-such-user".to_owned())).unwrap_err();
        assert_eq!(named.to_string(), "there is no user \"no-such-user\"");
        assert_eq!(find(&User::None).unwrap(), None);
        let own = Account::from_uid(Uid::current()).unwrap().expect("this process has a user");
        assert_eq!(find(&User::Named(own.name)).unwrap(), None, "nothing to change");
        assert_eq!(finding(&User::Named("no-such-user".to_owned())).level, Level::Problem);
    }
}
