//! Network namespaces that never outlive their test.
//!
//! One idea: a small shell beside each [`Net`] reads the names of its namespaces from a pipe, and removes them, and
//! what runs in them, and the files, when the pipe ends. A pipe ends in every case: at drop, at a panic, at Ctrl-C, at kill -9.
//! All names contain the pid and a counter. The namespace in which the tests were started is never changed.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fs, thread};

use tempfile::TempDir;

use super::enter;
use super::proc::Proc;

const REAPER: &str = r#"
trap '' INT TERM HUP
names=
while read -r name; do names="$names $name"; done
for name in $names; do
    ip netns pids "$name" 2>/dev/null | xargs -r kill -9 2>/dev/null
    ip netns del "$name"
done
rm -rf "$1"
"#;

/// A set of namespaces with a directory for what the test writes.
pub(crate) struct Net {
    prefix: String,
    reaper: Child,
    dir: PathBuf,
}

/// One namespace of a [`Net`].
#[derive(Clone, Debug)]
pub(crate) struct Namespace {
    name: String,
    path: PathBuf,
    files: PathBuf,
}

impl Net {
    /// An empty set. Fails loudly without root.
    pub(crate) fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("sipalg-{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let dir = TempDir::with_prefix(&prefix).expect("a temporary directory can be made").keep();
        let reaper = Command::new("sh")
            .args(["-c", REAPER, "reaper"])
            .arg(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("sh starts");
        Self { prefix, reaper, dir }
    }

    /// A new namespace with its loopback up and without IPv6 chatter.
    pub(crate) fn namespace(&mut self, role: &str) -> Namespace {
        let name = format!("{}-{role}", self.prefix);
        let pipe = self.reaper.stdin.as_mut().expect("the pipe is taken only at drop");
        writeln!(pipe, "{name}").expect("the reaper reads");
        run("ip", ["netns", "add", &name]);
        let files = self.dir.join(role);
        fs::create_dir(&files).expect("a role is used once");
        let namespace = Namespace { path: Path::new("/run/netns").join(&name), name, files };
        for knob in ["default", "all"] {
            namespace.sysctl(&format!("net/ipv6/conf/{knob}/disable_ipv6"), "1");
        }
        namespace.ip("link set lo up");
        namespace
    }

    /// A cable from `a` to `b`. Checksums are computed by the sender, as on real cables, so that a wrong one is seen.
    pub(crate) fn cable(&self, (a, a_name): (&Namespace, &str), (b, b_name): (&Namespace, &str)) {
        a.ip(&format!("link add {a_name} type veth peer name {b_name} netns {}", b.name));
        for (end, name) in [(a, a_name), (b, b_name)] {
            end.run(
                "ethtool",
                ["-K", name, "tx", "off", "rx", "off", "gro", "off", "gso", "off", "tso", "off"],
            );
            end.ip(&format!("link set {name} up"));
        }
    }
}

/// A namespace with bridges in it, each a network that hosts are plugged into.
pub(crate) struct Switch {
    namespace: Namespace,
    ports: u32,
}

impl Switch {
    /// A switch with these bridges.
    pub(crate) fn new(net: &mut Net, bridges: &[&str]) -> Self {
        let namespace = net.namespace("switch");
        for bridge in bridges {
            namespace.ip(&format!("link add {bridge} type bridge"));
            namespace.ip(&format!("link set {bridge} up"));
        }
        Self { namespace, ports: 0 }
    }

    /// Connects a new interface of `host` to a bridge, and gives it an address with its prefix length.
    pub(crate) fn plug(&mut self, net: &Net, host: &Namespace, interface: &str, bridge: &str, address: &str) {
        self.ports += 1;
        let port = format!("port{}", self.ports);
        net.cable((host, interface), (&self.namespace, &port));
        self.namespace.ip(&format!("link set {port} master {bridge}"));
        host.ip(&format!("address add {address} dev {interface}"));
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        drop(self.reaper.stdin.take());
        if let Err(error) = self.reaper.wait() {
            assert!(thread::panicking(), "the reaper: {error}");
        }
    }
}

impl Namespace {
    /// Where the programs of this namespace may write.
    pub(crate) fn files(&self) -> &Path {
        &self.files
    }

    /// Runs `ip` here; `arguments` are split at blanks.
    pub(crate) fn ip(&self, arguments: &str) {
        run("ip", ["-n", &self.name].into_iter().chain(arguments.split(' ')));
    }

    /// Sets a knob under /proc/sys here.
    pub(crate) fn sysctl(&self, knob: &str, value: &str) {
        self.within(|| fs::write(Path::new("/proc/sys").join(knob), value)).expect("the knob exists");
    }

    /// Runs a program here to its end, which must be a good one; returns its output.
    pub(crate) fn run<A: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> String {
        finish(self.command(program).args(arguments))
    }

    /// Runs a program here to its end with `input`; `Err` is what it complained about.
    pub(crate) fn feed(&self, program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
        let mut command = self.command(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("nsenter is installed");
        child
            .stdin
            .take()
            .expect("it is piped")
            .write_all(input.as_bytes())
            .expect("the program reads its input");
        let output = child.wait_with_output().expect("it can be waited for");
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// Starts a program here that ends with the returned guard. `label` names its log.
    pub(crate) fn spawn(&self, label: &str, command: Command) -> Proc {
        Proc::start(label, &self.files, command)
    }

    /// A command that will run here.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path.display())).arg("--").arg(program);
        command.current_dir(&self.files);
        command
    }

    /// Does `work` on a thread that is in this namespace: sockets that it makes belong here.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        enter::within(&self.path, work)
    }

    /// Whether a UDP socket is bound to `port` here.
    pub(crate) fn udp_is_bound(&self, port: u16) -> bool {
        self.has_socket("udp", port, |_| true)
    }

    /// Whether a TCP socket listens at `port` here.
    pub(crate) fn tcp_listens(&self, port: u16) -> bool {
        self.has_socket("tcp", port, |state| state == "0A")
    }

    fn has_socket(&self, table: &str, port: u16, is_state: impl Fn(&str) -> bool) -> bool {
        let path = format!("/proc/thread-self/net/{table}");
        let text = self.within(|| fs::read_to_string(path)).expect("/proc is mounted");
        let suffix = format!(":{port:04X}");
        text.lines().any(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            matches!(words[..], [_, local, _, state, ..] if local.ends_with(&suffix) && is_state(state))
        })
    }
}

fn run<A: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = A>) -> String {
    finish(Command::new(program).args(arguments))
}

fn finish(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{complaint}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}
