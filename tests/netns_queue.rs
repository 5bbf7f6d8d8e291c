//! Both queues of the kernel's and the loop that reads them, with real packets: three network namespaces in a row, a rule that queues in the middle.
//!
//! Needs root, `ip` and `iptables`, and fails without them. The namespaces have no names: they are gone with the
//! process, however it ends.
#![allow(missing_docs, clippy::unwrap_used)] // a failed step is a failed test
#![allow(unsafe_code)] // unshare(2), setns(2), setresuid(2)

use std::fmt::Display;
use std::fs::{self, File};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use sipalg::alg::{
    self, Action, Edits, Event, Executor, Input, Outcome, Output, PacketId, PacketIn, QueuePoint, Reason,
    Rule, Sizes, Stats, Verdict,
};
use sipalg::daemon::gate::Mishaps;
use sipalg::daemon::worker::{Core, NoEvents, Parts, Snapshot, Surroundings, Worker};
use sipalg::packet::{Datagram, Identity, Refusal};
use sipalg::queue::Backend::{self, Netlink, Nfq};
use sipalg::queue::Overload::{Drop, Pass};
use sipalg::queue::mtu::Mtus;
use sipalg::queue::netlink::NetlinkQueue;
use sipalg::queue::{self, Counters, OpenError, Options, PacketQueue};
use sipalg::span::Span;

/// No test waits for the right thing longer than this.
const LIMIT: Duration = Duration::from_secs(60);
const MTU: usize = 1500;
const SERVER: &str = "10.77.2.2";

#[test]
fn netlink_passes_replaces_and_drops() {
    passes_replaces_and_drops(Netlink);
}

#[test]
fn nfq_passes_replaces_and_drops() {
    passes_replaces_and_drops(Nfq);
}

#[test]
fn netlink_survives_packets_that_vanish() {
    survives_packets_that_vanish(Netlink);
}

#[test]
fn nfq_survives_packets_that_vanish() {
    survives_packets_that_vanish(Nfq);
}

#[test]
fn a_full_queue_drops_or_passes_as_it_was_told() {
    for (backend, overload) in [(Netlink, Drop), (Netlink, Pass), (Nfq, Drop), (Nfq, Pass)] {
        let network = Network::new();
        let (phone, [server, ..]) = (network.phone(), network.servers());
        let (mut queue, status) = network.router.enter(|| {
            let options = Options { max_length: 4, overload, ..Options::default() };
            let queue = queue::open(backend, &options).unwrap();
            network.queue_ports([]);
            for number in 0..10 {
                phone.send_to(&[b'0' + number], (SERVER, PORTS[0])).unwrap();
            }
            let full = || queue::proc::queue(PORTS[0]).filter(|queue| queue.waiting == 4);
            (queue, eventually(full))
        });
        let digits = |count| (0..count).map(|_| text_of(&receive(&server)).to_owned()).collect::<String>();
        match overload {
            Pass => assert_eq!(digits(6), "456789"),
            Drop => assert_eq!(status.queue_full, 6),
        }
        accept_all(&mut *queue);
        assert_eq!(digits(4), "0123");
    }
}

#[test]
fn the_data_path_rewrites_and_at_its_end_lets_everything_go() {
    let network = Network::new();
    let (phone, server) = (network.phone(), network.servers());
    let (stop, stopping) = std::io::pipe().unwrap();
    thread::scope(|scope| {
        let (ready, is_ready) = mpsc::channel();
        let router = scope.spawn(|| {
            network.router.enter_here();
            let parts = Parts {
                core: Greeter { verdict: None, edits: Edits::new(), stats: Stats::default() },
                queue: NetlinkQueue::open(&Options::default()).unwrap(),
                executor: Nothing,
                events: NoEvents::new().unwrap(),
                surroundings: Links(Mtus::open().unwrap()),
            };
            let mut worker = Worker::new(parts, Instant::now());
            let snapshot = worker.snapshot();
            ready.send(Arc::clone(&snapshot)).unwrap();
            drop(ready);
            worker.run(stop);
            Snapshot::clone(&snapshot.lock().unwrap())
        });
        let snapshot = is_ready.recv_timeout(LIMIT).unwrap();
        network.queue_ports([]);
        let to = SocketAddr::new(SERVER.parse().unwrap(), PORTS[0]);
        for length in [5, 1000, 1472] {
            let text = "x".repeat(length - 5);
            phone.send_to(format!("alice{text}").as_bytes(), to).unwrap();
            assert_eq!(text_of(&receive(&server[0])), format!("longer than alice{text}"));
        }
        phone.send_to(b"hold 1", to).unwrap();
        phone.send_to(b"hold 2", to).unwrap();
        eventually(|| (snapshot.lock().unwrap().held == 2).then_some(()));
        drop(stopping);
        assert_eq!(text_of(&receive(&server[0])), "hold 1");
        assert_eq!(text_of(&receive(&server[0])), "hold 2");
        let last = router.join().unwrap();
        assert_eq!(last.queue, Counters { received: 5, verdicts: 5, refused: 0 });
        assert_eq!((last.held, last.mishaps), (0, Mishaps::default()));
    });
}

/// Stands in for the engine: "alice" grows, "hold" waits.
struct Greeter {
    verdict: Option<PacketId>,
    edits: Edits,
    stats: Stats,
}

impl Core for Greeter {
    fn handle(&mut self, _: Instant, input: Input<'_>) {
        if let Input::Packet(packet) = input
            && Datagram::parse(packet.bytes).unwrap().payload().starts_with(b"alice")
        {
            self.verdict = Some(packet.id);
            self.edits.clear();
            self.edits.replace(Span::new(0, 0), b"longer than ", Rule::Via).unwrap();
        }
    }

    fn poll_output(&mut self) -> Option<Output<'_>> {
        let packet = self.verdict.take()?;
        let action = Action::Rewrite { edits: &self.edits, identity: None, spare_identity: 0x5150 };
        Some(Output::Verdict(Verdict { packet, action, port: None, reason: Reason::Rewritten }))
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }

    fn sizes(&self) -> Sizes {
        Sizes::default()
    }
}

struct Nothing;

impl Executor for Nothing {
    fn execute(&mut self, _: &[alg::Command], _: &mut Vec<Outcome>) {
        panic!("no command was given");
    }
}

struct Links(Mtus);

impl Surroundings<Nothing> for Links {
    fn mtu(&mut self, interface: u32, now: Instant) -> usize {
        self.0.of(interface, now)
    }

    fn event(&mut self, _: Instant, event: &Event) {
        panic!("{event:?}");
    }

    fn warning(&mut self, _: Instant, what: &'static str, detail: &dyn Display) {
        panic!("{what}: {detail}");
    }

    fn ruleset_changed(&mut self, _: &mut Nothing) -> bool {
        false
    }

    fn events_lost(&mut self, _: &mut Nothing) -> bool {
        false
    }
}

#[test]
fn a_second_reader_gets_a_clear_error() {
    let network = Network::new();
    network.router.enter(|| {
        for first in [Netlink, Nfq] {
            let held = eventually(|| queue::open(first, &Options::default()).ok());
            for second in [Netlink, Nfq] {
                let error = queue::open(second, &Options::default()).err().unwrap();
                assert!(matches!(error, OpenError::Taken { queue: 5060, reader: Some(_) }), "{error}");
                assert!(error.to_string().contains("stop that program"), "{error}");
                // Overlapping with the last of the four.
                let overlapping = Options { first: 5057, ..Options::default() };
                eventually(|| match queue::open(second, &overlapping).err().unwrap() {
                    OpenError::Taken { queue: 5060, .. } => Some(()),
                    _ => None,
                });
            }
            drop(held);
        }
    });
}

#[test]
fn without_rights_the_error_says_so() {
    let network = Network::new();
    network.router.enter(|| {
        // The bare system call changes this thread only.
        // SAFETY: no pointers.
        assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, 65_534, 65_534, 65_534) }, 0);
        for backend in [Netlink, Nfq] {
            let error = queue::open(backend, &Options::default()).err().unwrap();
            assert!(matches!(error, OpenError::NotPermitted), "{error}");
        }
    });
}

#[test]
fn a_queue_opened_under_traffic_leaves_no_packet_behind() {
    let network = Network::new();
    network.queue_ports(["--queue-bypass"]);
    let phone = network.phone();
    let (stop, stopped) = mpsc::channel::<()>(); // closed on every way out of the scope
    thread::scope(|scope| {
        scope.spawn(move || {
            while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
                for port in PORTS {
                    let _ = phone.send_to(b"noise", (SERVER, port));
                }
            }
        });
        let waiting = network.router.enter(|| {
            let mut left = Vec::new();
            for _ in 0..20 {
                let mut queue = eventually(|| NetlinkQueue::open(&Options::default()).ok());
                iptables(["-t", "mangle", "-I", "FORWARD", "-p", "udp", "-j", "DROP"]);
                accept_all(&mut queue);
                left.push(queue::proc::queues().iter().map(|queue| queue.waiting).sum::<u32>());
                iptables(["-t", "mangle", "-D", "FORWARD", "1"]);
            }
            left
        });
        drop(stop);
        assert_eq!(waiting, [0; 20]);
    });
}

/// Tries until there is a result. A queue that was closed is not always free at once: another test's child process may
/// have its descriptor between its fork and its exec.
fn eventually<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(result) = attempt() {
            return result;
        }
        assert!(Instant::now() < deadline, "it never came about");
        thread::yield_now();
    }
}

const PORTS: [u16; 4] = [5060, 5061, 5062, 5063];

/// What the router does with a packet is the first word of its payload.
fn passes_replaces_and_drops(backend: Backend) {
    let network = Network::new();
    let (phone, server) = (network.phone(), network.servers());
    thread::scope(|scope| {
        let router = Router::start(scope, &network, backend);
        let port = |index: usize| SocketAddr::new(SERVER.parse().unwrap(), PORTS[index]);

        // Each port is queued at its own point; the router answers with the name of the point.
        for (index, point) in QueuePoint::ALL.into_iter().enumerate() {
            phone.send_to(b"point?", port(index)).unwrap();
            assert_eq!(text_of(&receive(&server[index])), format!("{point:?}"));
        }

        phone.send_to(b"pass me", port(0)).unwrap();
        phone.send_to(b"drop me", port(0)).unwrap();
        phone.send_to(b"grow me", port(0)).unwrap();
        phone.send_to(b"pass", port(0)).unwrap();
        assert_eq!(text_of(&receive(&server[0])), "pass me");
        assert_eq!(receive(&server[0]), grown(b"grow me"));
        assert_eq!(text_of(&receive(&server[0])), "pass");

        // Odd and even lengths; from 1308 bytes on a grown packet is longer than the MTU, with DF set by the sender.
        for length in [6, 7, 100, 1273, 1274, 1307, 1308, 1471, 1472] {
            let payload = [b"grow ".as_slice(), &vec![b'x'; length - 5]].concat();
            phone.send_to(&payload, port(0)).unwrap();
            assert_eq!(receive(&server[0]), grown(&payload), "{length}");
        }

        // The largest that a verdict can carry, and larger ones, of which the queue has only the beginning.
        for (length, expected) in [(65_503, 65_503), (65_504, 65_504), (65_507, 65_507)] {
            let payload = [b"same ".as_slice(), &vec![b'y'; length - 5]].concat();
            phone.send_to(&payload, port(0)).unwrap();
            assert_eq!(receive(&server[0]).len(), expected);
        }

        // A burst: everything arrives, in order.
        for number in 0..300 {
            phone.send_to(format!("pass {number}").as_bytes(), port(0)).unwrap();
            phone.send_to(format!("grow {number}").as_bytes(), port(0)).unwrap();
            if number % 30 == 29 {
                for number in number - 29..=number {
                    assert_eq!(text_of(&receive(&server[0])), format!("pass {number}"));
                    assert_eq!(receive(&server[0]), grown(format!("grow {number}").as_bytes()));
                }
            }
        }

        let counters = router.stop();
        let count = 4 + 4 + 9 + 3 + 600;
        assert_eq!(counters, Counters { received: count, verdicts: count, refused: 0 });
    });
}

/// A held packet is lost when its interface goes down; its verdict fails, and the queue goes on.
fn survives_packets_that_vanish(backend: Backend) {
    let network = Network::new();
    let (phone, server) = (network.phone(), network.servers());
    thread::scope(|scope| {
        let router = Router::start(scope, &network, backend);
        let to = SocketAddr::new(SERVER.parse().unwrap(), PORTS[0]);
        phone.send_to(b"hold", to).unwrap();
        router.until(|state| state.held == 1);
        network.router.run("ip", ["link", "set", "wan", "down"]);
        network.router.run("ip", ["link", "set", "wan", "up"]);
        router.release();
        router.until(|state| state.counters.refused == 1);
        let deadline = Instant::now() + LIMIT;
        server[0].set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let arrived = loop {
            phone.send_to(b"pass", to).unwrap(); // the link may need a moment
            let mut buffer = [0; 100];
            match server[0].recv(&mut buffer) {
                Ok(length) => break text_of(&buffer[..length]).to_owned(),
                Err(_) => assert!(Instant::now() < deadline, "nothing passes any more"),
            }
        };
        assert_eq!(arrived, "pass");
        router.stop();
    });
}

fn grown(payload: &[u8]) -> Vec<u8> {
    [payload, &[b'+'; 165]].concat()
}

fn text_of(payload: &[u8]) -> &str {
    std::str::from_utf8(payload).unwrap()
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65_536];
    loop {
        match socket.recv(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return buffer;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => panic!("the packet did not arrive: {error}"),
        }
    }
}

fn accept_all(queue: &mut dyn PacketQueue) {
    while let count @ 1.. = queue.receive().unwrap() {
        let ids: Vec<_> = (0..count).map(|index| queue.packet(index).unwrap().id).collect();
        ids.into_iter().for_each(|id| queue.accept(id));
        queue.flush().unwrap();
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    held: usize,
    counters: Counters,
}

/// A thread in the middle namespace that reads the queue.
struct Router<'scope> {
    thread: thread::ScopedJoinHandle<'scope, Counters>,
    orders: mpsc::Sender<()>,
    states: mpsc::Receiver<State>,
}

impl<'scope> Router<'scope> {
    fn start<'env>(
        scope: &'scope thread::Scope<'scope, 'env>,
        network: &'env Network,
        backend: Backend,
    ) -> Self {
        let (ready, is_ready) = mpsc::channel();
        let (orders, take_orders) = mpsc::channel();
        let (report, states) = mpsc::channel();
        let thread = scope.spawn(move || {
            network.router.enter_here();
            let mut queue = queue::open(backend, &Options::default()).unwrap();
            ready.send(()).unwrap();
            let mut held = Vec::new();
            let mut out = Vec::new();
            loop {
                let timeout = Some(Duration::from_millis(if queue.descriptor().is_some() { 20 } else { 1 }));
                queue::wait([queue.descriptor()], timeout).unwrap();
                let count = queue.receive().unwrap();
                for index in 0..count {
                    decide(&mut *queue, index, &mut held, &mut out);
                }
                match take_orders.try_recv() {
                    Ok(()) => held.drain(..).for_each(|id| queue.accept(id)),
                    Err(mpsc::TryRecvError::Empty) => {}
                    Err(mpsc::TryRecvError::Disconnected) => break,
                }
                queue.flush().unwrap();
                let _ = report.send(State { held: held.len(), counters: queue.counters() });
            }
            queue.counters()
        });
        is_ready.recv_timeout(LIMIT).expect("the queue did not open");
        network.queue_ports([]);
        Self { thread, orders, states }
    }

    fn release(&self) {
        self.orders.send(()).unwrap();
    }

    fn until(&self, condition: impl Fn(&State) -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !condition(&self.states.recv_timeout(LIMIT).unwrap()) {
            assert!(Instant::now() < deadline, "the router never came so far");
        }
    }

    fn stop(self) -> Counters {
        drop(self.orders);
        self.thread.join().unwrap()
    }
}

fn decide(queue: &mut dyn PacketQueue, index: usize, held: &mut Vec<PacketId>, out: &mut Vec<u8>) {
    let PacketIn { id, point, indev, outdev, bytes } = queue.packet(index).unwrap();
    assert!(indev != 0 && outdev != 0 && indev != outdev, "both interfaces are known in FORWARD");
    let datagram = match Datagram::parse(bytes) {
        Ok(datagram) => datagram,
        Err(refusal) => {
            assert_eq!(refusal, Refusal::Truncated);
            return queue.accept(id);
        }
    };
    let payload = datagram.payload();
    let new = match payload.split(|byte| *byte == b' ').next().unwrap() {
        b"drop" => return queue.discard(id),
        b"hold" => return held.push(id),
        b"grow" => grown(payload),
        b"same" => payload.to_vec(),
        b"point?" => format!("{point:?}").into_bytes(),
        _ => return queue.accept(id),
    };
    let identity = Identity { set: None, spare: 0x5150 };
    datagram.rebuild(|_, out| out.extend_from_slice(&new), identity, MTU, out).unwrap();
    queue.replace(id, out).unwrap();
}

/// inside 10.77.1.2 — 10.77.1.1 router 10.77.2.1 — 10.77.2.2 outside
struct Network {
    inside: Namespace,
    router: Namespace,
    outside: Namespace,
}

impl Network {
    fn new() -> Self {
        let (inside, router, outside) = (Namespace::new(), Namespace::new(), Namespace::new());
        for (end, name, peer) in [(&inside, "lan", "eth0"), (&outside, "wan", "eth0")] {
            let far = end.path();
            router.run("ip", ["link", "add", name, "type", "veth", "peer", "name", peer, "netns", &far]);
        }
        inside.set_up("eth0", "10.77.1.2/24");
        router.set_up("lan", "10.77.1.1/24");
        router.set_up("wan", "10.77.2.1/24");
        outside.set_up("eth0", "10.77.2.2/24");
        inside.run("ip", ["route", "add", "default", "via", "10.77.1.1"]);
        outside.run("ip", ["route", "add", "default", "via", "10.77.2.1"]);
        router.enter(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
        // conntrack, and with it reassembly, as on every router that has a NAT.
        router.enter(|| iptables(["-t", "nat", "-A", "POSTROUTING", "-p", "tcp", "-j", "MASQUERADE"]));
        Self { inside, router, outside }
    }

    /// Queues each of [`PORTS`] to the queue of the same number.
    fn queue_ports<const N: usize>(&self, flags: [&str; N]) {
        for port in PORTS.map(|port| port.to_string()) {
            let rule = ["-t", "mangle", "-A", "FORWARD", "-p", "udp", "--dport", &port, "-j", "NFQUEUE"];
            let rule = rule.into_iter().chain(["--queue-num", &port]).chain(flags);
            self.router.enter(|| iptables(rule));
        }
    }

    fn phone(&self) -> UdpSocket {
        self.inside.enter(|| UdpSocket::bind("10.77.1.2:5060").unwrap())
    }

    fn servers(&self) -> [UdpSocket; 4] {
        self.outside.enter(|| {
            PORTS.map(|port| {
                let socket = UdpSocket::bind((SERVER, port)).unwrap();
                socket.set_read_timeout(Some(LIMIT)).unwrap();
                socket
            })
        })
    }
}

/// A network namespace that lives as long as this handle.
struct Namespace(File);

impl Namespace {
    fn new() -> Self {
        let made = thread::spawn(|| {
            // SAFETY: no pointers; only this thread changes its namespace.
            let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
            assert_eq!(result, 0, "these tests need root: {}", std::io::Error::last_os_error());
            Self(File::open("/proc/thread-self/ns/net").unwrap())
        });
        let namespace = made.join().expect("a network namespace");
        namespace.run("ip", ["link", "set", "lo", "up"]);
        namespace
    }

    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Moves the calling thread into the namespace.
    fn enter_here(&self) {
        // SAFETY: the descriptor is open; no pointers.
        let result = unsafe { libc::setns(self.0.as_raw_fd(), libc::CLONE_NEWNET) };
        assert_eq!(result, 0, "setns: {}", std::io::Error::last_os_error());
    }

    /// Runs `work` in a thread in the namespace.
    fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter_here();
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn run<const N: usize>(&self, program: &str, arguments: [&str; N]) {
        self.enter(|| run(program, arguments));
    }

    fn set_up(&self, interface: &str, address: &str) {
        self.run("ip", ["address", "add", address, "dev", interface]);
        self.run("ip", ["link", "set", interface, "up"]);
    }
}

fn iptables<'a>(arguments: impl IntoIterator<Item = &'a str>) {
    run("iptables", ["-w"].into_iter().chain(arguments));
}

fn run<'a>(program: &str, arguments: impl IntoIterator<Item = &'a str>) {
    let arguments: Vec<_> = arguments.into_iter().collect();
    let output = Command::new(program).args(&arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {complaint}");
}
