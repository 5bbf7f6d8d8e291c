//! What the gateway can't do any more once it is set up, and that it still does everything else.
//!
//! There is no way back from it, so each trial runs in a process of its own: this program, started again with the name of
//! the trial. Running gateways are looked at from outside. Needs root and landlock, and fails without them.

use std::fs::{self, File};
use std::io;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, thread};

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use nix::unistd::{Pid, Uid};
use sipalg::config::User;
use sipalg::daemon::privileges::{self, Needs, files};

/// Set in the process of a trial: its directory.
const TRIAL: &str = "SIPALG_TRIAL";
const NOBODY: u32 = 65_534;
const EPERM: i32 = 1;
const EACCES: i32 = 13;

/// Runs the test of this name once more, in a process of its own, with a directory.
fn try_alone(name: &str) -> bool {
    if env::var_os(TRIAL).is_some() {
        return true;
    }
    let directory = tempfile::tempdir().expect("a directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
    fs::create_dir(directory.path().join("elsewhere")).expect("a directory");
    fs::set_permissions(directory.path().join("elsewhere"), fs::Permissions::from_mode(0o777))
        .expect("permissions");
    fs::create_dir(directory.path().join("settings")).expect("a directory");
    fs::write(directory.path().join("settings/sipalg.toml"), "# ours\n").expect("written");
    let output = Command::new(env::current_exe().expect("this program"))
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(TRIAL, directory.path())
        .output()
        .expect("it starts");
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    assert!(said.contains("1 passed"), "{said}");
    false
}

fn directory() -> PathBuf {
    env::var_os(TRIAL).map(PathBuf::from).expect("a trial")
}

/// As the gateway does it, with a user and directories of the trial.
fn shed() -> privileges::Shed {
    let directory = directory();
    let needs = Needs {
        user: Some(User::Named("nobody".to_owned())),
        read: vec![directory.join("settings")],
        own: vec![directory.join("run"), directory.join("state")],
        write: Vec::new(),
    };
    let shed = privileges::shed(&needs).expect("it can be given up");
    assert_eq!(shed.user.as_deref(), Some("nobody"), "needs root");
    assert_ne!(shed.files, files::Held::Not, "needs landlock");
    assert!(shed.calls, "needs seccomp");
    shed
}

/// Asserts that something failed for want of a right.
#[track_caller]
fn assert_denied<T>(what: &str, outcome: io::Result<T>) {
    match outcome {
        Ok(_) => panic!("{what} is possible"),
        Err(error) => assert!(
            matches!(error.raw_os_error(), Some(EPERM | EACCES)),
            "{what} fails for another reason: {error}"
        ),
    }
}

fn status(pid: &str) -> impl Fn(&str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    move |name| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.expect(name).trim().to_owned()
    }
}

/// One capability, another user, no new privileges, a filter.
fn assert_confined(pid: &str, uid: u32) {
    let status = status(pid);
    for (set, bits) in
        [("CapEff", 1u64 << 12), ("CapPrm", 1 << 12), ("CapInh", 0), ("CapAmb", 0), ("CapBnd", 1 << 12)]
    {
        assert_eq!(status(set), format!("{bits:016x}"), "{set}");
    }
    let uids: Vec<_> =
        status("Uid").split_whitespace().map(|id| id.parse::<u32>().expect("a number")).collect();
    assert_eq!(uids, [uid; 4]);
    assert_eq!((status("NoNewPrivs"), status("Seccomp")), ("1".to_owned(), "2".to_owned()));
}

#[test]
fn no_file_elsewhere_can_be_written_read_or_removed() {
    if !try_alone("no_file_elsewhere_can_be_written_read_or_removed") {
        return;
    }
    let directory = directory();
    shed();
    // Permissions would allow it, landlock does not.
    let elsewhere = directory.join("elsewhere");
    assert_denied("writing elsewhere", fs::write(elsewhere.join("file"), "x"));
    assert_denied("a directory elsewhere", fs::create_dir(elsewhere.join("directory")));
    assert_denied("a socket elsewhere", UnixListener::bind(elsewhere.join("socket")));
    assert_denied("reading /etc/passwd", fs::read("/etc/passwd"));
    assert_denied("listing /", fs::read_dir("/"));
    assert_denied("opening a device", File::open("/dev/null"));
    // Links that lead out of the directories do not help.
    assert_denied("a link", std::os::unix::fs::symlink("/etc/passwd", directory.join("state/link")));
    assert_denied("a settings file", fs::write(directory.join("settings/sipalg.toml"), "x"));
    assert_denied("removing the settings", fs::remove_file(directory.join("settings/sipalg.toml")));
    assert_denied(
        "conntrack's switch by its path",
        fs::write("/proc/sys/net/netfilter/nf_conntrack_acct", "1"),
    );

    // What the gateway does itself.
    assert_eq!(fs::read_to_string(directory.join("settings/sipalg.toml")).expect("readable"), "# ours\n");
    let state = directory.join("state");
    fs::write(state.join("state.new"), "1").expect("the state file");
    fs::rename(state.join("state.new"), state.join("state")).expect("in one step");
    fs::write(state.join("state.new"), "2").expect("the state file");
    fs::rename(state.join("state.new"), state.join("state")).expect("over the old one");
    File::open(&state).and_then(|directory| directory.sync_all()).expect("on the disk");
    drop(UnixListener::bind(directory.join("run/socket")).expect("the control socket"));
    fs::remove_file(directory.join("run/socket")).expect("its end");
    assert!(fs::read_to_string("/proc/thread-self/status").is_ok());
}

#[test]
fn no_program_can_be_started_and_no_process_made_or_touched() {
    if !try_alone("no_program_can_be_started_and_no_process_made_or_touched") {
        return;
    }
    let parent = Pid::parent();
    shed();
    assert_denied("a program", Command::new("/bin/true").stdin(Stdio::null()).status());
    assert_denied("execve", Err::<(), _>(Command::new("/bin/true").exec()));
    assert_denied("ptrace", nix::sys::ptrace::attach(parent).map_err(io::Error::from));
    assert_denied("a signal to others", nix::sys::signal::kill(parent, None).map_err(io::Error::from));
    let unshare = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER);
    assert_denied("a user namespace", unshare.map_err(io::Error::from));
    let root = nix::unistd::setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0));
    assert_denied("being root again", root.map_err(io::Error::from));
    assert_eq!(thread::spawn(|| 7).join().expect("threads are possible"), 7);
}

#[test]
fn no_network_but_netlink_and_datagrams() {
    if !try_alone("no_network_but_netlink_and_datagrams") {
        return;
    }
    let open = |family, kind, protocol: Option<SockProtocol>| {
        socket(family, kind, SockFlag::SOCK_CLOEXEC, protocol).map_err(io::Error::from)
    };
    // So that it is seccomp which refuses, and not the kernel for want of a capability: they exist.
    drop(open(AddressFamily::Packet, SockType::Raw, None).expect("root may"));
    shed();
    assert_denied("a TCP connection", TcpStream::connect("127.0.0.1:9"));
    assert_denied("a TCP port", TcpListener::bind("127.0.0.1:0"));
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        assert_denied("a stream", open(family, SockType::Stream, None));
        assert_denied("a raw socket", open(family, SockType::Raw, Some(SockProtocol::Icmp)));
    }
    assert_denied("a packet socket", open(AddressFamily::Packet, SockType::Raw, None));
    assert_denied("a packet socket", open(AddressFamily::Packet, SockType::Datagram, None));
    assert_denied("another family", open(AddressFamily::Vsock, SockType::Stream, None));

    UdpSocket::bind("127.0.0.1:0").expect("whether a port is free is tried");
    open(AddressFamily::Netlink, SockType::Raw, Some(SockProtocol::NetlinkRoute)).expect("rtnetlink");
    open(AddressFamily::Netlink, SockType::Raw, Some(SockProtocol::NetlinkNetFilter)).expect("netfilter");
}

#[test]
fn one_capability_is_left_and_no_way_to_more() {
    if !try_alone("one_capability_is_left_and_no_way_to_more") {
        return;
    }
    shed();
    assert_confined("thread-self", NOBODY);
    // Threads that are started later too.
    thread::spawn(|| assert_confined("thread-self", NOBODY)).join().expect("as confined");
    assert_denied("CAP_SYS_ADMIN", nix::unistd::sethostname("other").map_err(io::Error::from));
    let raise = caps::raise(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_ADMIN);
    assert!(raise.is_err());
}

#[test]
fn what_it_does_to_others_is_refused_with_an_error_and_does_not_end_it() {
    if !try_alone("what_it_does_to_others_is_refused_with_an_error_and_does_not_end_it") {
        return;
    }
    // A filter that kills would end this process here, and `try_alone` would say by which signal.
    shed();
    for _ in 0..3 {
        assert_denied("execve", Err::<(), _>(Command::new("/bin/true").exec()));
    }
    assert!(Path::new("/proc/self").exists());
}
