//! The state file: what a restart has to know, and for which kernel.
//!
//! Two lines of JSON: a header, and the engine's [`State`]. What the state speaks of lives in the kernel, in one network
//! namespace of one boot; the header names both, and a state of another one is of no use. A new file replaces the old one
//! in one step, so that there is a whole one at any time, whatever happens. Nothing here runs on the packet thread.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, str};

use serde::{Deserialize, Serialize};

use crate::alg::State;
use crate::config::Place;
use crate::kernel::addresses;

/// The version that is written; others are set aside.
const VERSION: u32 = 3;
/// Where systemd makes a directory for us, and where we make one without it.
const DIRECTORY: &str = "/var/lib/sipalg";
/// The file's name in it.
const NAME: &str = "state";
/// So many files of the same kind are set aside, of which the last gives way to the next.
const ASIDE: u32 = 5;
/// Full tables take about a fifth of this.
const LARGEST: u64 = 1 << 30;

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    #[serde(rename = "sipalg-state")]
    version: u32,
    #[serde(flatten)]
    kernel: KernelId,
    /// The time since the boot when it was written, in seconds.
    uptime: f64,
    /// When it was written.
    written: Moment,
    /// The addresses that this machine had then.
    #[serde(default)]
    addresses: BTreeSet<IpAddr>,
}

/// When a state was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Moment {
    /// While packets passed: what it says may have changed since.
    Meanwhile,
    /// After the last packet.
    AtTheEnd,
}

/// Which kernel, and which part of it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct KernelId {
    /// New with each boot.
    boot: String,
    /// The network namespace.
    namespace: String,
}

/// What was found.
#[derive(Debug)]
pub(super) enum Found {
    /// No file.
    Nothing,
    /// A state, with the addresses that this machine had and has lost since.
    State {
        /// The state.
        state: Box<State>,
        /// How old it is.
        age: Duration,
        /// When it was written.
        written: Moment,
        /// What the state says of these is not true any more.
        lost: Vec<IpAddr>,
    },
    /// A state of another boot or another network namespace: nothing of what it speaks of is left.
    OfAnotherKernel,
    /// A file that can't be used; it has this name now.
    SetAside {
        /// The new name.
        to: PathBuf,
        /// Why.
        why: String,
    },
}

/// Where the file is; `None`: there shall be none. `STATE_DIRECTORY` goes before the usual place (systemd.exec(5)).
pub(super) fn path(place: &Place) -> Option<PathBuf> {
    match place {
        Place::None => None,
        Place::At(path) => Some(path.clone()),
        Place::Auto => Some(in_directory(env::var("STATE_DIRECTORY").ok().as_deref())),
    }
}

/// systemd separates several directories by colons; ours is the first.
fn in_directory(state: Option<&str>) -> PathBuf {
    let first = state.and_then(|all| all.split(':').next()).filter(|first| !first.is_empty());
    Path::new(first.unwrap_or(DIRECTORY)).join(NAME)
}

/// Replaces the file.
///
/// # Errors
/// What the system says; the old file is still there then.
pub(super) fn write(path: &Path, state: &State, written: Moment) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    if !directory.exists() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let fresh = with_suffix(path, "new");
    let replaced = write_to(&fresh, state, written).and_then(|()| fs::rename(&fresh, path));
    if replaced.is_err() {
        // Half a file is of no use, and what it takes may be what is lacking.
        let _ = fs::remove_file(&fresh);
    }
    replaced?;
    File::open(directory)?.sync_all()
}

fn write_to(fresh: &Path, state: &State, written: Moment) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(fresh)?;
    let mut out = BufWriter::new(file);
    let (kernel, uptime) = (KernelId::own()?, uptime()?.as_secs_f64());
    // Without them nothing can be compared, that is all.
    let addresses = addresses::held().unwrap_or_default();
    let header = Header { version: VERSION, kernel, uptime, written, addresses };
    serde_json::to_writer(&mut out, &header)?;
    out.write_all(b"\n")?;
    serde_json::to_writer(&mut out, state)?;
    out.write_all(b"\n")?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// Reads the file.
///
/// # Errors
/// What the system says.
pub(super) fn read(path: &Path) -> io::Result<Found> {
    let size = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(error),
    };
    if size > LARGEST {
        return set_aside(path, "unusable", format!("it has {size} bytes"));
    }
    let bytes = fs::read(path)?;
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let (first, second) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    // Of another version only the version is understood.
    #[derive(Deserialize)]
    struct Version {
        #[serde(rename = "sipalg-state")]
        version: u32,
    }
    let version = match serde_json::from_slice(first) {
        Ok(Version { version }) => version,
        Err(error) => return set_aside(path, "unusable", error.to_string()),
    };
    if version != VERSION {
        let why = format!("it is of version {version}, this program knows {VERSION}");
        return set_aside(path, &format!("version-{version}"), why);
    }
    let read = serde_json::from_slice(first).and_then(|header| Ok((header, serde_json::from_slice(second)?)));
    let (header, state): (Header, State) = match read {
        Ok(read) => read,
        Err(error) => return set_aside(path, "unusable", error.to_string()),
    };
    if header.kernel != KernelId::own()? {
        return Ok(Found::OfAnotherKernel);
    }
    let then = Duration::try_from_secs_f64(header.uptime).unwrap_or_default();
    let (age, written) = (uptime()?.saturating_sub(then), header.written);
    let lost = match addresses::held() {
        Ok(held) => header.addresses.difference(&held).copied().collect(),
        Err(_) => Vec::new(),
    };
    Ok(Found::State { state: Box::new(state), age, written, lost })
}

/// What was set aside before stays; of [`ASIDE`] names only the last is used again.
fn set_aside(path: &Path, suffix: &str, why: String) -> io::Result<Found> {
    let mut to = with_suffix(path, suffix);
    for number in 2..=ASIDE {
        if !to.try_exists()? {
            break;
        }
        to = with_suffix(path, &format!("{suffix}.{number}"));
    }
    fs::rename(path, &to)?;
    Ok(Found::SetAside { to, why })
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

impl KernelId {
    fn own() -> io::Result<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        let namespace = fs::read_link("/proc/thread-self/ns/net")?.display().to_string();
        Ok(Self { boot, namespace })
    }
}

/// The time since the boot, in which the machine slept too: the wall clock may be set in between.
fn uptime() -> io::Result<Duration> {
    let text = fs::read_to_string("/proc/uptime")?;
    let seconds = text.split_whitespace().next().and_then(|seconds| seconds.parse().ok());
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/uptime has no time"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alg::{Engine, Policy};
    use std::os::unix::fs::PermissionsExt;
    use std::time::Instant;

    fn some_state() -> State {
        let seed = [u64::MAX, 7];
        Engine::new(Policy { seed, ..Policy::default() }).export(Instant::now())
    }

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn what_is_written_is_read_and_only_its_owner_may() {
        let directory = directory();
        let path = directory.path().join("below/state");
        assert!(matches!(read(&path).unwrap(), Found::Nothing));
        for _ in 0..2 {
            write(&path, &some_state(), Moment::Meanwhile).unwrap();
        }
        let Found::State { state, age, written, lost } = read(&path).unwrap() else { panic!("it is there") };
        assert_eq!((*state, written), (some_state(), Moment::Meanwhile));
        assert_eq!(lost, [] as [IpAddr; 0]);
        assert!(age < Duration::from_secs(60), "{age:?}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(names.len(), 1, "nothing else is left: {names:?}");
    }

    #[test]
    fn an_unknown_version_is_set_aside_whatever_else_is_in_it() {
        let directory = directory();
        let path = directory.path().join("state");
        fs::write(&path, "{\"sipalg-state\":7,\"moon\":true}\nwho knows\n").unwrap();
        let Found::SetAside { to, why } = read(&path).unwrap() else { panic!("not a state of ours") };
        assert_eq!(why, format!("it is of version 7, this program knows {VERSION}"));
        assert_eq!(to, directory.path().join("state.version-7"));
        assert!(!path.exists());
        assert!(fs::read_to_string(&to).unwrap().ends_with("who knows\n"));
        // The next one does not take its place.
        for number in [2, 3, 4, 5, 5] {
            fs::write(&path, format!("{{\"sipalg-state\":7}}\n{number}\n")).unwrap();
            let Found::SetAside { to, .. } = read(&path).unwrap() else { panic!("not a state of ours") };
            assert_eq!(to, directory.path().join(format!("state.version-7.{number}")));
        }
        assert!(fs::read_to_string(&to).unwrap().ends_with("who knows\n"));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 5);
    }

    #[test]
    fn addresses_that_this_machine_has_no_more_are_told_also_by_a_file_that_names_none() {
        let directory = directory();
        let path = directory.path().join("state");
        write(&path, &some_state(), Moment::AtTheEnd).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let (head, rest) = text.split_once(",\"addresses\":[").unwrap();
        let lost = |text: String| {
            fs::write(&path, text).unwrap();
            let Found::State { lost, .. } = read(&path).unwrap() else { panic!("it is there") };
            lost
        };
        assert_eq!(
            lost(format!("{head},\"addresses\":[\"192.0.2.77\",{rest}")),
            [IpAddr::from([192, 0, 2, 77])]
        );
        // What an earlier program wrote.
        assert_eq!(lost(format!("{head}}}\n{}", rest.split_once('\n').unwrap().1)), [] as [IpAddr; 0]);
    }

    #[test]
    fn what_can_not_take_its_place_is_taken_away_again() {
        let directory = directory();
        let path = directory.path().join("state");
        fs::create_dir_all(path.join("somebody's")).unwrap();
        write(&path, &some_state(), Moment::Meanwhile).unwrap_err();
        let names: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(names, ["state"]);
    }

    #[test]
    fn half_a_file_and_nonsense_are_set_aside() {
        let directory = directory();
        let path = directory.path().join("state");
        write(&path, &some_state(), Moment::AtTheEnd).unwrap();
        let whole = fs::read(&path).unwrap();
        for bytes in [&whole[..whole.len() - 20], &whole[..20], b"", b"[]\n[]\n"] {
            fs::write(&path, bytes).unwrap();
            let found = read(&path).unwrap();
            assert!(matches!(&found, Found::SetAside { .. }), "{found:?}");
            assert!(!path.exists());
        }
    }

    #[test]
    fn the_state_of_another_boot_or_namespace_is_not_used() {
        let directory = directory();
        let path = directory.path().join("state");
        for (what, own) in
            [("boot", KernelId::own().unwrap().boot), ("namespace", KernelId::own().unwrap().namespace)]
        {
            write(&path, &some_state(), Moment::AtTheEnd).unwrap();
            let text = fs::read_to_string(&path).unwrap();
            fs::write(&path, text.replacen(&own, "another", 1)).unwrap();
            assert!(matches!(read(&path).unwrap(), Found::OfAnotherKernel), "{what}");
        }
    }

    #[test]
    fn the_state_directory_is_honoured() {
        assert_eq!(in_directory(None), Path::new("/var/lib/sipalg/state"));
        assert_eq!(in_directory(Some("/var/lib/a:/var/lib/b")), Path::new("/var/lib/a/state"));
        assert_eq!(path(&Place::None), None);
        assert_eq!(path(&Place::At("/x/y".into())), Some("/x/y".into()));
    }
}
