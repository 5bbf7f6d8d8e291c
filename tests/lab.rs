//! The lab tried on routers of which the outcome is known, and its leave-taking. Needs root, `ip`, `nft` and
//! `tcpdump`, as the lab does.
#![allow(clippy::unwrap_used)] // also in helpers, which are no tests to clippy

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use sipalg::lab::{self, Direction, LabError, LabOptions, Program, Progress, Report, Stop, Translation};

#[test]
fn behind_nat_with_sipalg_everything_holds() {
    let _turn = turn();
    let output = Command::new(SIPALG).args(["lab", "--json"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    assert_eq!(output.status.code(), Some(0), "{said}\n{report:#}");
    assert_eq!(report["ok"], true, "{report:#}");
    let phones = report["phones"].as_array().unwrap();
    let public = |value: &serde_json::Value| {
        let endpoint = value.as_str().unwrap().strip_prefix("22.33.44.55:").unwrap();
        endpoint.parse::<u16>().unwrap()
    };
    let mut doors: Vec<_> = phones.iter().map(|phone| public(&phone["registered_as"])).collect();
    let mut media: Vec<_> = phones.iter().map(|phone| public(&phone["call"]["public_media"])).collect();
    // The default pool, even ports, one for each phone; and ports of the NAT's own choice for signalling.
    assert!(media.iter().all(|port| (16384..=32767).contains(port) && port % 2 == 0), "{media:?}");
    for ports in [&mut doors, &mut media] {
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 10, "{report:#}");
    }
    for phone in phones {
        let call = &phone["call"];
        assert_eq!((&call["packets_in"], &call["packets_out"]), (&50.into(), &50.into()), "{phone:#}");
    }
    assert_eq!(report["pinholes"]["during"], 20, "RTP and RTCP of ten phones");
    assert_eq!(report["pinholes"]["after"], 0);
    assert!(report["seconds"].as_f64().unwrap() < 30.0);
}

#[test]
fn the_command_leaves_nothing_after_ctrl_c() {
    let _turn = turn();
    for calls_are_up in [false, true] {
        let mut child =
            Command::new(SIPALG).arg("lab").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        let wanted = if calls_are_up { "calling" } else { "starting sipalg" };
        assert!(said.lines().map_while(Result::ok).any(|line| line.starts_with(wanted)), "{wanted}");
        // Looking takes its time, which the calls shall not have.
        signal(child.id(), "-STOP");
        let daemons = processes_in(&namespaces_of(child.id()));
        signal(child.id(), "-INT");
        signal(child.id(), "-CONT");
        assert_eq!(wait(&mut child).code(), Some(130));
        assert_eq!(namespaces_of(child.id()), Vec::<String>::new());
        assert_eq!(scratch_of(child.id()), Vec::<PathBuf>::new());
        for daemon in daemons {
            assert!(!Path::new(&format!("/proc/{daemon}")).exists(), "process {daemon} is left");
        }
    }
}

#[test]
fn without_nat_everything_holds_without_sipalg() {
    let _turn = turn();
    let report = lab::run(&routed(), |_| ()).unwrap();
    assert!(report.ok, "{}", pretty(&report));
    assert_eq!(report.faults, Vec::<String>::new());
    let addresses: Vec<_> = report.phones.iter().map(|phone| phone.address.clone()).collect();
    assert_eq!(addresses, (10..=19).map(|last| format!("192.168.1.{last}")).collect::<Vec<_>>());
    for phone in &report.phones {
        let call = &phone.call;
        assert_eq!(phone.registered_as, format!("{}:5060", phone.address).parse().ok());
        assert_eq!((call.packets_in, call.packets_out), (50, 50), "{}", phone.address);
        assert_eq!((call.reports_in, call.reports_out), (2, 2), "{}", phone.address);
        assert_eq!(call.direct, matches!(call.direction, Direction::LocalIn | Direction::LocalOut));
    }
    assert_nothing_left();
}

#[test]
fn behind_nat_without_sipalg_the_report_says_what_fails() {
    let _turn = turn();
    let report = lab::run(&LabOptions::default(), |_| ()).unwrap();
    assert!(!report.ok, "{}", pretty(&report));
    assert!(report.phones.iter().all(|phone| !phone.ok), "{}", pretty(&report));
    // 192.168.1.10 asks for rport, so that it is answered at all; then it is heard and hears nothing.
    let phone = &report.phones[0];
    let call = &phone.call;
    assert_eq!((call.answered, call.packets_in, call.packets_out), (true, 0, 50), "{}", pretty(&report));
    for said in [
        "the phone heard 0 of 50 RTP",
        "REGISTER: Contact says 192.168.1.10:5060, the packet came from 22.33.44.55:",
        "INVITE: c= in the SDP says 192.168.1.10 and not 22.33.44.55",
        "the SDP said 192.168.1.10:40000",
        "Via came back as",
    ] {
        assert!(
            phone.faults.iter().any(|fault| fault.contains(said)),
            "{said} is not in {:#?}",
            phone.faults
        );
    }
    // 192.168.1.11 does not ask for rport: the answer goes to its private address.
    assert!(report.phones[1].faults.contains(&"no answer to REGISTER".to_owned()), "{}", pretty(&report));
    assert!(report.seconds < 30.0);
    assert_nothing_left();
}

/// Another ALG is the best proof that faults are seen: the kernel's helper translates, and is known to do it badly
/// (F1, F3, F13).
#[test]
fn behind_the_kernels_sip_helper_each_of_its_faults_is_named() {
    let _turn = turn();
    let rules = "table ip rival {\n\
                 ct helper sip { type \"sip\" protocol udp; }\n\
                 chain pre {\ntype filter hook prerouting priority mangle\n\
                 udp dport 5060 ct helper set \"sip\"\n}\n}\n";
    let script = Script::new(&format!("nft -f - <<'END' || exit 1\n{rules}END\n{}", ready(60)));
    let report = lab::run(&script.options(), |_| ()).unwrap();
    assert!(!report.ok);
    let phone = |last: usize| &report.phones[last - 10];
    // What it does right is not held against it: it registers every phone with an address of its own.
    for phone in &report.phones {
        let registered = phone.registered_as.unwrap();
        assert_eq!(registered.ip().to_string(), "22.33.44.55", "{}", pretty(&report));
    }
    let marked = phone(19).registered_as.unwrap().port();
    assert!((61000..=61999).contains(&marked), "{marked}");
    assert!(!phone(14).faults.iter().any(|fault| fault.contains("Contact") || fault.contains("Via")));
    // It adds a port that the phone did not write.
    for said in [
        "the registrar's 200 says Contact: <sip:13@192.168.1.13:5060>;expires=600, which is not \
         <sip:13@192.168.1.13>;expires=600",
        "INVITE to the phone: asks for sip:13@192.168.1.13:5060, which is not sip:13@192.168.1.13",
        "it was SIP/2.0/UDP 192.168.1.13;branch=",
    ] {
        assert!(phone(13).faults.iter().any(|fault| fault.contains(said)), "{said}: {}", pretty(&report));
    }
    // It gives phones the same public endpoint, and lets no media in from a third server. Which call it breaks how
    // depends on which of them took the endpoint.
    let all: String = report.phones.iter().map(|phone| phone.faults.join("\n")).collect();
    assert!(all.contains("has a public endpoint that 192.168.1."), "{}", pretty(&report));
    let unheard = ["heard 0 of 50 RTP", "heard nothing from the far end"];
    assert!(unheard.iter().any(|said| all.contains(said)), "{}", pretty(&report));
    assert_eq!(report.faults.len(), 2, "{:?}", report.faults);
    assert!(report.faults.iter().all(|fault| fault.contains("inbound4")), "{:?}", report.faults);
    assert_nothing_left();
}

#[test]
fn a_sipalg_that_does_not_start_is_quoted() {
    let _turn = turn();
    let script = Script::new("echo 'no such queue' >&2; exit 3");
    let error = lab::run(&script.options(), |_| ()).unwrap_err();
    let LabError::NotReady { why, log } = error else { panic!("{error}") };
    assert!(why.contains("exit status: 3"), "{why}");
    assert!(log.contains("no such queue"), "{log}");
    assert_nothing_left();
}

#[test]
fn a_sipalg_that_dies_on_the_way_is_a_fault() {
    let _turn = turn();
    let script = Script::new(&ready(0));
    let options = LabOptions { translation: Translation::None, ..script.options() };
    let report = lab::run(&options, |_| ()).unwrap();
    assert!(!report.ok);
    assert_eq!(report.faults, ["sipalg ended by itself: exit status: 0"]);
    assert_nothing_left();
}

#[test]
fn captures_of_both_sides_are_written() {
    let _turn = turn();
    let directory = tempfile::tempdir().unwrap();
    let pcap = directory.path().join("deep/er");
    let report = lab::run(&LabOptions { pcap: Some(pcap.clone()), ..routed() }, |_| ()).unwrap();
    assert!(report.ok, "{}", pretty(&report));
    assert_eq!(report.captures, [pcap.join("lan.pcap"), pcap.join("wan.pcap")]);
    for file in &report.captures {
        let bytes = fs::read(file).unwrap();
        for part in ["REGISTER sip:phone.example SIP/2.0", "m=audio 40000", "BYE sip:"] {
            let part = part.as_bytes();
            assert!(bytes.windows(part.len()).any(|window| window == part), "{}", file.display());
        }
    }
    assert_nothing_left();
}

#[test]
fn nothing_is_left_when_interrupted_in_any_step() {
    let _turn = turn();
    let steps: [fn(Progress) -> bool; 4] = [
        |progress| matches!(progress, Progress::Building),
        |progress| matches!(progress, Progress::Registering(..)),
        |progress| matches!(progress, Progress::Calling(..)),
        |progress| matches!(progress, Progress::Talking(..)),
    ];
    for is_the_step in steps {
        let options = LabOptions { stop: Stop::default(), ..routed() };
        let stop = options.stop.clone();
        let result = lab::run(&options, |progress| {
            if is_the_step(progress) {
                stop.raise();
            }
        });
        assert!(matches!(result, Err(LabError::Interrupted)), "{result:?}");
        assert_nothing_left();
    }
}

#[test]
fn nothing_is_left_after_a_panic() {
    let _turn = turn();
    let script = Script::new(&ready(60));
    let options = LabOptions { translation: Translation::None, ..script.options() };
    let run = || {
        lab::run(&options, |progress| assert!(!matches!(progress, Progress::Calling(3.., _)), "on purpose"))
    };
    assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
    assert_nothing_left();
}

#[test]
fn nothing_is_left_after_ctrl_c() {
    let _turn = turn();
    let mut child = child("a_lab_in_a_process_of_its_own").stderr(Stdio::null()).spawn().unwrap();
    await_namespaces_of(child.id());
    signal(child.id(), "-INT");
    let status = wait(&mut child);
    assert_eq!(status.code(), Some(130), "{status}");
    assert_eq!(namespaces_of(child.id()), Vec::<String>::new());
    assert_eq!(scratch_of(child.id()), Vec::<PathBuf>::new());
}

#[test]
fn what_a_killed_lab_left_is_swept_up_by_the_next() {
    let _turn = turn();
    let mut child = child("a_lab_in_a_process_of_its_own").stderr(Stdio::null()).spawn().unwrap();
    await_namespaces_of(child.id());
    child.kill().unwrap();
    wait(&mut child);
    assert_eq!(namespaces_of(child.id()).len(), 13);
    assert!(lab::run(&routed(), |_| ()).unwrap().ok);
    assert_eq!(namespaces_of(child.id()), Vec::<String>::new());
    assert_eq!(scratch_of(child.id()), Vec::<PathBuf>::new());
    assert_nothing_left();
}

#[test]
fn without_root_or_a_tool_it_refuses_at_once_and_says_what_to_do() {
    use std::os::unix::process::CommandExt;
    let refusal = |change: &dyn Fn(&mut Command)| {
        let mut command = child("a_lab_that_refuses");
        change(&mut command);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(REFUSED), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    // The build directory may be closed to others, so nobody gets a copy.
    let program = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
    let copy = program.path().join("lab");
    fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let as_nobody = Command::new(&copy)
        .args(["--exact", "a_lab_that_refuses", "--nocapture"])
        .env(CHILD, "1")
        .uid(65534)
        .current_dir("/")
        .output()
        .unwrap();
    let said = String::from_utf8(as_nobody.stderr).unwrap();
    assert!(said.contains("the lab needs root: try `sudo sipalg lab`"), "{said}");

    let empty = tempfile::tempdir().unwrap();
    let said = refusal(&|command| {
        command.env("PATH", empty.path());
    });
    assert!(said.contains("`ip` is missing: install it with `apt-get install iproute2`"), "{said}");
    fs::write(empty.path().join("ip"), "").unwrap();
    let said = refusal(&|command| {
        command.env("PATH", empty.path());
    });
    assert!(said.contains("`nft` is missing: install it with `apt-get install nftables`"), "{said}");
    fs::write(empty.path().join("nft"), "").unwrap();
    let said = refusal(&|command| {
        command.env("PATH", empty.path());
    });
    assert!(said.contains("`tcpdump` is missing: install it with `apt-get install tcpdump`"), "{said}");
}

/// Not a test by itself: tells why a lab cannot be run.
#[test]
fn a_lab_that_refuses() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let options = LabOptions { pcap: Some("/nowhere".into()), ..LabOptions::default() };
    match lab::run(&options, |progress| panic!("it began: {progress}")) {
        Ok(_) => panic!("it ran"),
        Err(error) => eprintln!("{error}"),
    }
    std::process::exit(REFUSED);
}

/// Not a test by itself: the child process of the tests above, which ends by a signal.
#[test]
fn a_lab_in_a_process_of_its_own() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let options = routed();
    options.stop.on_signals().unwrap();
    let stop = options.stop.clone();
    let result = lab::run(&options, |progress| {
        // Long enough to be found and ended; not for ever, should the parent be gone.
        let deadline = Instant::now() + Duration::from_secs(20);
        while matches!(progress, Progress::Calling(..)) && !stop.is_raised() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
    });
    std::process::exit(if matches!(result, Err(LabError::Interrupted)) { 130 } else { 1 });
}

const SIPALG: &str = env!("CARGO_BIN_EXE_sipalg");
const CHILD: &str = "SIPALG_LAB_TEST_CHILD";
const REFUSED: i32 = 42;

fn routed() -> LabOptions {
    LabOptions { translation: Translation::None, ..LabOptions::default() }
}

fn pretty(report: &Report) -> String {
    serde_json::to_string_pretty(report).unwrap()
}

/// One lab at a time: two cores, and leftovers are counted.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A program that stands in for sipalg.
struct Script {
    directory: tempfile::TempDir,
}

impl Script {
    fn new(body: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("sipalg");
        fs::write(&file, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        Self { directory }
    }

    fn options(&self) -> LabOptions {
        let program = Program { executable: self.directory.path().join("sipalg"), config: None };
        LabOptions { sipalg: Some(program), ..LabOptions::default() }
    }
}

/// Says that it is ready as sd_notify does, and lives so many seconds longer.
fn ready(seconds: u32) -> String {
    format!(
        "exec python3 -c \"import os, socket, time; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); \
         s.sendto(b'READY=1', os.environ['NOTIFY_SOCKET']); time.sleep({seconds})\""
    )
}

/// Runs one test of this file in a process of its own.
fn child(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env(CHILD, "1").stdout(Stdio::null());
    command
}

fn wait(child: &mut std::process::Child) -> std::process::ExitStatus {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < deadline, "the lab did not end");
        thread::sleep(Duration::from_millis(20));
    }
}

fn signal(pid: u32, signal: &str) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

/// Until it is in the middle of its calls.
fn await_namespaces_of(pid: u32) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while namespaces_of(pid).len() < 13 {
        assert!(Instant::now() < deadline, "the lab did not begin");
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(Duration::from_millis(500));
}

fn assert_nothing_left() {
    let pid = std::process::id();
    assert_eq!(namespaces_of(pid), Vec::<String>::new());
    assert_eq!(scratch_of(pid), Vec::<PathBuf>::new());
    let children: Vec<_> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("stat")).ok())
        .filter(|stat| parent(stat) == Some(pid))
        .collect();
    assert_eq!(children, Vec::<String>::new());
}

fn processes_in(namespaces: &[String]) -> Vec<String> {
    let list =
        |namespace: &String| Command::new("ip").args(["netns", "pids", namespace]).output().unwrap().stdout;
    let listed = namespaces.iter().map(list).map(|bytes| String::from_utf8(bytes).unwrap());
    listed.flat_map(|pids| pids.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// Out of `pid (name) state parent …`.
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn namespaces_of(pid: u32) -> Vec<String> {
    let listed = Command::new("ip").args(["netns", "list"]).output().unwrap();
    let prefix = format!("sipalg-lab-{pid}-");
    let names = String::from_utf8(listed.stdout).unwrap();
    names.lines().filter(|name| name.starts_with(&prefix)).map(str::to_owned).collect()
}

fn scratch_of(pid: u32) -> Vec<PathBuf> {
    let prefix = format!("sipalg-lab-{pid}-");
    let ours = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix));
    let entries = fs::read_dir(std::env::temp_dir()).unwrap();
    entries.map(|entry| entry.unwrap().path()).filter(|path| ours(path)).collect()
}
