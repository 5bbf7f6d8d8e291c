//! `sipalg run`, `check` and `unload` as systemd and an administrator meet them, each in a network namespace of its own:
//! how it starts, what it says when it can't, what its signals do, what it leaves.
//!
//! Needs root, `nft`, `unshare` and `nsenter`, and fails without them. A namespace lives as long as the process that
//! holds it, and that one is killed when a test ends, however it ends.
#![allow(unsafe_code)] // ptrace has no safe form in the standard library

#[path = "common/notices.rs"]
mod notices;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use notices::Notices;
use tempfile::TempDir;

const SIPALG: &str = env!("CARGO_BIN_EXE_sipalg");
/// Nothing here takes so long, on any machine.
const LIMIT: Duration = Duration::from_secs(60);
const NOBODY: u32 = 65_534;

/// A network namespace, and who holds it.
struct Namespace(Child, TempDir);

impl Namespace {
    fn new() -> Self {
        // Says so when it is inside.
        let script = "echo inside; exec sleep 600";
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare is installed");
        let mut line = String::new();
        let out = child.stdout.take().expect("a pipe");
        BufReader::new(out).read_line(&mut line).expect("a line");
        assert_eq!(line, "inside\n", "making a network namespace needs root");
        Self(child, tempfile::tempdir().expect("a directory"))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.0.id())).arg(program);
        command.env_remove("JOURNAL_STREAM").env_remove("NOTIFY_SOCKET").stdin(Stdio::null());
        // Tests run side by side, and perhaps beside a sipalg of this machine.
        command.env("RUNTIME_DIRECTORY", self.1.path()).env("STATE_DIRECTORY", self.1.path());
        command
    }

    /// Runs a program that ends by itself, or fails the test.
    fn run(&self, program: &str, args: &[&str]) -> Output {
        let limit = LIMIT.as_secs().to_string();
        let output = self.command("timeout").args([&limit, program]).args(args).output().expect("it starts");
        assert_ne!(output.status.code(), Some(124), "{program} {args:?} did not end");
        output
    }

    fn ruleset(&self) -> String {
        let output = self.run("nft", &["list", "ruleset"]);
        assert!(output.status.success(), "nft: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn load(&self, rules: &str) {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), rules).expect("written");
        let output = self.run("nft", &["-f", &file.path().display().to_string()]);
        assert!(output.status.success(), "nft: {}", text(&output.stderr));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running `sipalg run`.
struct Gateway {
    child: Child,
    log: Receiver<String>,
    notices: Notices,
    _dir: TempDir,
}

impl Gateway {
    /// Starts it and waits until it is ready.
    fn start(namespace: &Namespace, args: &[&str]) -> Self {
        let mut command = namespace.command(SIPALG);
        command.arg("run").args(args);
        Self::launch(command)
    }

    /// The same for a command that ends in `sipalg run`.
    fn launch(mut command: Command) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        // The gateway may have become another user before it speaks.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).expect("permissions");
        let notices = Notices::listen(dir.path());
        command.env("NOTIFY_SOCKET", notices.path()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let stderr = child.stderr.take().expect("a pipe");
        let (to, log) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = to.send(line);
            }
        });
        let mut gateway = Self { child, log, notices, _dir: dir };
        gateway.await_notice("READY=1");
        gateway
    }

    fn await_notice(&mut self, notice: &str) {
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            if self.notices.says(notice) {
                return;
            }
            if let Some(status) = self.child.try_wait().expect("its state") {
                panic!(
                    "it ended with {status} instead of {notice}: {:?}",
                    self.log.try_iter().collect::<Vec<_>>()
                );
            }
        }
        panic!("{notice} never came: {:?}", self.log.try_iter().collect::<Vec<_>>());
    }

    /// Waits for a line of the log that contains `part`.
    fn await_line(&self, part: &str) -> String {
        let deadline = Instant::now() + LIMIT;
        let mut seen = Vec::new();
        while let Ok(line) = self.log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            if line.contains(part) {
                return line;
            }
            seen.push(line);
        }
        panic!("no line with {part:?} in {seen:#?}");
    }

    /// All notices up to one that begins so.
    fn notices_until(&self, notice: &str) -> String {
        let (deadline, mut all) = (Instant::now() + LIMIT, String::new());
        while Instant::now() < deadline {
            let Some(said) = self.notices.next() else { continue };
            all += &said;
            all += "\n";
            if said.lines().any(|line| line.starts_with(notice)) {
                return all;
            }
        }
        panic!("{notice} never came: {all}");
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let done = Command::new("kill").args([&format!("-{name}"), &id]).status().expect("kill");
        assert!(done.success());
    }

    fn stop(mut self, signal: &str) {
        self.signal(signal);
        self.await_notice("STOPPING=1");
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("its state") {
                assert_eq!(status.code(), Some(0), "{status}");
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("it did not end");
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A thread of another process that stands still until this is dropped, or until the test ends.
struct Stopped(libc::pid_t);

impl Stopped {
    /// The thread called `name` of process `id`.
    fn thread(id: u32, name: &str) -> Self {
        let tasks = fs::read_dir(format!("/proc/{id}/task")).expect("it runs");
        let task = tasks
            .flatten()
            .find(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|it| it.trim() == name));
        let task = task.unwrap_or_else(|| panic!("it has no thread {name:?}")).file_name();
        let task = task.to_string_lossy().parse().expect("a number");
        trace(libc::PTRACE_SEIZE, task);
        trace(libc::PTRACE_INTERRUPT, task);
        let mut status = 0;
        // SAFETY: writes one integer, which lives.
        let waited = unsafe { libc::waitpid(task, &raw mut status, libc::__WALL) };
        assert_eq!((waited, libc::WIFSTOPPED(status)), (task, true), "{status:#x}");
        Self(task)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        trace(libc::PTRACE_DETACH, self.0);
    }
}

fn trace(request: libc::c_uint, task: libc::pid_t) {
    let nothing = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: these requests take no memory of ours.
    let outcome = unsafe { libc::ptrace(request, task, nothing, nothing) };
    assert_eq!(outcome, 0, "ptrace {request:#x}: {}", std::io::Error::last_os_error());
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Asserts that a command was refused with `code`, in a message with these parts and without a backtrace.
fn assert_refused(output: &Output, code: i32, parts: &[&str]) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for part in parts {
        assert!(said.contains(part), "no {part:?} in {said:?}");
    }
    assert!(!said.contains("panicked") && !said.contains("backtrace"), "{said}");
    assert_eq!(said.matches("sipalg: ").count(), 1, "one message: {said:?}");
}

#[test]
fn it_starts_counts_reads_its_level_again_and_stops_leaving_the_ruleset() {
    let namespace = Namespace::new();
    let before = namespace.ruleset();
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("sipalg.toml");
    fs::write(&file, "[log]\nlevel = \"info\"\n").expect("written");
    let mut gateway = Gateway::start(&namespace, &["--config", &file.display().to_string()]);
    gateway.await_notice("STATUS=0 calls, 0 registrations, 0 pinholes, 0 flows; ");
    let loaded = namespace.ruleset();
    assert!(loaded.contains("table inet sipalg"), "{loaded}");

    gateway.signal("USR1");
    gateway.await_line("counters: no packet yet");
    fs::write(&file, "[log]\nlevel = \"warn\"\n[queue]\nbase = 7000\n").expect("written");
    gateway.signal("HUP");
    gateway.await_line("queue.base can't change while sipalg runs; nothing was changed");
    fs::write(&file, "[log]\nlevel = \"loud\"\n").expect("written");
    gateway.signal("HUP");
    gateway.await_line("the configuration was not taken over, the old one stays");
    fs::write(&file, "on-failure = \"drop\"\n[log]\nlevel = \"info\"\n").expect("written");
    gateway.signal("HUP");
    let line = gateway.await_line("the configuration was read again");
    assert!(line.contains("changed=\"on-failure\""), "{line}");

    gateway.stop("TERM");
    assert_eq!(namespace.ruleset(), loaded, "the ruleset stays");
    // A restart finds everything; SIGINT is as good.
    Gateway::start(&namespace, &[]).stop("INT");
    assert_eq!(namespace.ruleset(), loaded);

    let unloaded = namespace.run(SIPALG, &["unload"]);
    assert_eq!(
        (unloaded.status.code(), text(&unloaded.stdout).as_str()),
        (Some(0), "table inet sipalg is removed\n")
    );
    assert_eq!(namespace.ruleset(), before);
    let again = namespace.run(SIPALG, &["unload"]);
    assert_eq!(
        (again.status.code(), text(&again.stdout).as_str()),
        (Some(0), "there was nothing to remove\n")
    );
}

#[test]
fn f40_the_watchdog_hears_from_the_packet_thread_and_from_nobody_else() {
    let namespace = Namespace::new();
    let mut command = namespace.command(SIPALG);
    command.arg("run").env("WATCHDOG_USEC", "400000");
    let mut gateway = Gateway::launch(command);
    gateway.await_notice("WATCHDOG=1");
    let stopped = Stopped::thread(gateway.child.id(), "packets");
    // The other thread is as well as ever, and says so every five seconds. What was under way has arrived by the second
    // time, and none is missed on a slow machine.
    for _ in 0..2 {
        gateway.await_notice("STATUS=");
    }
    let more = gateway.notices_until("STATUS=");
    assert!(!more.contains("WATCHDOG=1"), "somebody else speaks for it: {more}");
    drop(stopped);
    gateway.await_notice("WATCHDOG=1");
    gateway.stop("TERM");
}

#[test]
fn a_flush_of_the_ruleset_is_mended_once() {
    let namespace = Namespace::new();
    let gateway = Gateway::start(&namespace, &[]);
    let loaded = namespace.ruleset();
    namespace.load("flush ruleset\n");
    gateway.await_line("the ruleset was changed by somebody, and is mended");
    assert_eq!(namespace.ruleset(), loaded);
    // Mending is a change too, and must not be mended again.
    thread::sleep(Duration::from_secs(2));
    let more: Vec<_> = gateway.log.try_iter().filter(|line| line.contains("mended")).collect();
    assert_eq!(more, [""; 0]);
    gateway.stop("TERM");
}

/// The words of a process's state, as the kernel says them.
fn state_of(pid: u32, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.expect(name).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn confined_and_as_another_user_it_does_all_of_its_work() {
    let namespace = Namespace::new();
    let directory = namespace.1.path();
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).expect("permissions");
    let settings = tempfile::tempdir().expect("a directory");
    fs::set_permissions(settings.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
    let file = settings.path().join("sipalg.toml");
    let args = ["--config", &file.display().to_string()];
    // Root, as it was before: with a state that belongs to root.
    fs::write(&file, "user = \"none\"\n").expect("written");
    let gateway = Gateway::start(&namespace, &args);
    assert_eq!(state_of(gateway.child.id(), "Uid"), "0 0 0 0");
    assert_eq!(state_of(gateway.child.id(), "CapEff"), "0000000000001000");
    gateway.stop("TERM");
    assert_eq!(fs::metadata(directory.join("state")).expect("written").uid(), 0);

    fs::write(&file, "user = \"nobody\"\n").expect("written");
    let gateway = Gateway::start(&namespace, &args);
    gateway.await_line("confined user=\"nobody\" capabilities=\"CAP_NET_ADMIN\" files=");
    let pid = gateway.child.id();
    for (name, value) in [
        ("Uid", "65534 65534 65534 65534"),
        ("CapEff", "0000000000001000"),
        ("CapPrm", "0000000000001000"),
        ("CapBnd", "0000000000001000"),
        ("CapInh", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ] {
        assert_eq!(state_of(pid, name), value, "{name}");
    }
    // Every thread.
    for thread in fs::read_dir(format!("/proc/{pid}/task")).expect("threads") {
        let thread = thread.expect("a thread").file_name().into_string().expect("a number").parse();
        assert_eq!(state_of(thread.expect("a number"), "Seccomp"), "2");
    }

    // The ruleset is loaded again; its ports change; the counters are switched on; the control socket and its user.
    let loaded = namespace.ruleset();
    namespace.load("flush ruleset\n");
    gateway.await_line("the ruleset was changed by somebody, and is mended");
    assert_eq!(namespace.ruleset(), loaded);
    const SWITCH: &str = "/proc/sys/net/netfilter/nf_conntrack_acct";
    namespace.run("sh", &["-c", &format!("echo 0 >{SWITCH}")]);
    let fresh = settings.path().join("fresh");
    fs::write(&fresh, "user = \"nobody\"\n[sip]\nports = [5060, 5080]\n").expect("written");
    fs::rename(&fresh, &file).expect("as editors do");
    gateway.signal("HUP");
    gateway.await_line("the configuration was read again changed=\"sip.ports\"");
    assert!(namespace.ruleset().contains("5080"), "{}", namespace.ruleset());
    assert_eq!(text(&namespace.run("cat", &[SWITCH]).stdout), "1\n");
    let status = namespace.run(SIPALG, &["status"]);
    assert_eq!(status.status.code(), Some(0), "{}", text(&status.stderr));
    let metrics = namespace.run(SIPALG, &["status", "--metrics"]);
    assert_eq!(metrics.status.code(), Some(0), "{}", text(&metrics.stderr));
    assert!(
        text(&metrics.stdout).contains("\nsipalg_table_entries{table=\"calls\"} 0\n"),
        "{}",
        text(&metrics.stdout)
    );
    assert_eq!(fs::metadata(directory.join("control.sock")).expect("it is there").uid(), NOBODY);
    gateway.stop("TERM");
    let state = fs::metadata(directory.join("state")).expect("written");
    assert_eq!((state.uid(), state.mode() & 0o777), (NOBODY, 0o600));
    assert!(!directory.join("control.sock").exists());
}

#[test]
fn a_user_that_is_not_there_is_refused() {
    let namespace = Namespace::new();
    let file = namespace.1.path().join("sipalg.toml");
    fs::write(&file, "user = \"no-such-user\"\n").expect("written");
    let args = ["run", "--config", &file.display().to_string()];
    assert_refused(
        &namespace.run(SIPALG, &args),
        2,
        &["there is no user \"no-such-user\"", "the key is \"user\""],
    );
}

#[test]
fn without_rights_every_command_says_so_once() {
    // Where nobody can reach it.
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
    let program = dir.path().join("sipalg");
    fs::copy(SIPALG, &program).expect("a copy");
    for command in ["run", "unload"] {
        let output = Command::new(&program).arg(command).uid(NOBODY).gid(NOBODY).output().expect("it starts");
        assert_refused(&output, 3, &["CAP_NET_ADMIN"]);
    }
    let check = Command::new(&program).arg("check").uid(NOBODY).gid(NOBODY).output().expect("it starts");
    assert_eq!(check.status.code(), Some(3));
    let findings = text(&check.stdout);
    assert!(findings.lines().any(|line| line.starts_with("problem  rights")), "{findings}");
}

#[test]
fn it_needs_no_other_program() {
    let namespace = Namespace::new();
    // Empty directories instead of the programs, in a mount namespace that ends with the command.
    let hide = r#"mount -t tmpfs none "$(dirname "$(readlink -f "$(command -v nft)")")" && exec "$0" run"#;
    let mut command = namespace.command("unshare");
    command.args(["--mount", "sh", "-c", hide, SIPALG]);
    Gateway::launch(command).stop("TERM");
    assert!(namespace.ruleset().contains("queue"), "{}", namespace.ruleset());
}

#[test]
fn a_second_one_finds_the_queue_taken_and_changes_nothing() {
    let namespace = Namespace::new();
    let first = Gateway::start(&namespace, &[]);
    let loaded = namespace.ruleset();
    let second = namespace.run(SIPALG, &["run"]);
    assert_refused(&second, 5, &["packet queue 5060 already has a reader", "queue.base"]);
    assert_eq!(namespace.ruleset(), loaded);
    first.stop("TERM");
}

#[test]
fn a_second_one_with_other_queues_is_refused_while_the_first_lives_and_serves_when_it_is_dead() {
    let namespace = Namespace::new();
    let mut first = Gateway::start(&namespace, &[]);
    let loaded = namespace.ruleset();
    let file = namespace.1.path().join("other.toml");
    fs::write(&file, "[queue]\nbase = 6060\n").expect("written");
    let args = ["--config", &file.display().to_string()];
    let second = namespace.run(SIPALG, &["run", args[0], args[1]]);
    assert_refused(
        &second,
        5,
        &["another sipalg is at work here", "queue 5060 of table inet sipalg has a reader"],
    );
    assert_eq!(namespace.ruleset(), loaded, "the first one's rules are as they were");
    // Other queues after a restart are no matter: nobody reads the old ones.
    first.child.kill().expect("it runs");
    first.child.wait().expect("it ends");
    Gateway::start(&namespace, &args).stop("TERM");
    assert_ne!(namespace.ruleset(), loaded);
}

#[test]
fn who_reloads_other_ports_than_his_own_ruleset_has_is_told_which_line_to_change() {
    let namespace = Namespace::new();
    namespace.load(include_str!("../nft-rules/sipalg.nft"));
    let file = namespace.1.path().join("sipalg.toml");
    fs::write(&file, "").expect("written");
    let gateway = Gateway::start(&namespace, &["--config", &file.display().to_string()]);
    fs::write(&file, "[sip]\nports = [5060, 5080]\n").expect("written");
    let reloaded = namespace.run(SIPALG, &["reload"]);
    let said = text(&reloaded.stdout);
    assert_eq!(reloaded.status.code(), Some(0), "{said}");
    assert!(
        said.contains("note: the ruleset that you included queues the ports 5060, sip.ports says 5060, 5080"),
        "{said}"
    );
    assert!(said.contains("change SIPALG_UDP_PORTS"), "{said}");
    assert!(!namespace.ruleset().contains("5080"), "it is the administrator's");
    gateway.stop("TERM");
}

#[test]
fn a_ruleset_that_can_not_be_loaded_is_refused_with_what_nft_said() {
    let namespace = Namespace::new();
    namespace.load("table inet sipalg { map inbound4 { type ipv4_addr : ipv4_addr; }\n}\n");
    let output = namespace.run(SIPALG, &["run"]);
    assert_refused(&output, 7, &["inbound4", "sipalg unload"]);
}

#[test]
fn check_has_a_line_for_each_finding_and_changes_nothing() {
    let namespace = Namespace::new();
    let before = namespace.ruleset();
    let check = namespace.run(SIPALG, &["check"]);
    let findings = text(&check.stdout);
    assert_eq!(check.status.code(), Some(0), "{findings}");
    for name in
        ["config", "rights", "ruleset", "queue", "conntrack", "sip-helper", "user", "landlock", "seccomp"]
    {
        assert!(
            findings.lines().any(|line| line.split_whitespace().nth(1) == Some(name)),
            "no {name} in\n{findings}"
        );
    }
    assert!(
        findings.lines().all(|line| ["ok ", "note "].iter().any(|level| line.starts_with(level))),
        "{findings}"
    );
    assert_eq!(namespace.ruleset(), before);

    let json = namespace.run(SIPALG, &["check", "--json"]);
    let names = text(&json.stdout)
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["name"].clone())
        .collect::<Vec<_>>();
    assert_eq!(names.len(), findings.lines().count());
}

#[test]
fn the_unit_file_starts_what_there_is() {
    let unit = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/daemon/sipalg.service"))
        .expect("the unit");
    assert!(
        unit.contains("\nType=notify\n") && unit.contains("\nExecStart=/usr/sbin/sipalg run\n"),
        "{unit}"
    );
    // What a restart can't mend: every code but 1 and 5.
    assert!(unit.contains("\nRestartPreventExitStatus=2 3 4 6 7\n"), "{unit}");
}

/// What the control socket answers to some bytes, after which nothing more is sent.
fn answer(socket: &Path, bytes: &[u8]) -> serde_json::Value {
    let mut stream = UnixStream::connect(socket).expect("it listens");
    stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
    stream.write_all(bytes).expect("it reads");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("it answers");
    serde_json::from_str(&line).expect(&line)
}

#[test]
fn the_control_socket_answers_root_only_within_bounds_and_goes_with_the_gateway() {
    let namespace = Namespace::new();
    let gateway = Gateway::start(&namespace, &[]);
    let socket = namespace.1.path().join("control.sock");
    assert_eq!(fs::metadata(&socket).expect("it is there").permissions().mode() & 0o777, 0o600);

    let status = answer(&socket, b"{\"v\":1,\"ask\":\"status\"}\n");
    assert_eq!(status["ok"]["pid"], gateway.child.id());
    let empty = answer(&socket, b"{\"v\":1,\"ask\":\"calls\"}\n");
    assert_eq!(empty, serde_json::json!({"v": 1, "ok": {"total": 0, "entries": []}}));
    let other = answer(&socket, b"{\"v\":2,\"ask\":\"status\"}\n");
    assert_eq!(other["error"], "version 2 of the control protocol is not known here, only 1");
    assert_eq!(answer(&socket, &[b'x'; 4096])["error"], "this request is too long");

    // Even if the mode lets them in.
    for path in [namespace.1.path(), &socket] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("permissions");
    }
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
    let program = dir.path().join("sipalg");
    fs::copy(SIPALG, &program).expect("a copy");
    let mut nobody = Command::new(&program);
    nobody.args(["status", "--socket"]).arg(&socket).uid(NOBODY).gid(NOBODY);
    assert_refused(&nobody.output().expect("it starts"), 1, &["only root may ask", "sudo"]);
    gateway.await_line("somebody who is not root was refused at the control socket");

    // Many who say nothing keep nobody else out: each has five seconds.
    let silent: Vec<_> = (0..40).map(|_| UnixStream::connect(&socket).expect("it listens")).collect();
    assert_eq!(answer(&socket, b"{\"v\":1,\"ask\":\"status\"}\n")["ok"]["pid"], gateway.child.id());
    drop(silent);
    gateway.stop("TERM");
    assert!(!socket.exists());
}
