#![allow(unsafe_code)] // unshare and setns
#![allow(dead_code)] // each test program uses a part of it
//! Network namespaces for tests.
//!
//! A [`Netns`] has no name and no file: it lives as long as its descriptor, a process or a socket is in it. So there is
//! nothing to remove after a failure, a panic or a signal, and no two tests can meet. Needs root; without it, it panics.
//!
//! Sockets belong to the namespace in which they were opened, whichever thread uses them later.

use std::fs::File;
use std::io::{self, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A network namespace of its own, with its loopback interface up.
#[derive(Debug)]
pub(crate) struct Netns(File);

impl Netns {
    /// A new, empty one.
    pub(crate) fn new() -> Self {
        let made = std::thread::spawn(|| {
            // SAFETY: changes only what this short-lived thread sees.
            let code = unsafe { libc::unshare(libc::CLONE_NEWNET) };
            assert_eq!(code, 0, "these tests need root: unshare: {}", io::Error::last_os_error());
            File::open("/proc/thread-self/ns/net").expect("/proc is mounted")
        });
        let namespace = Self(made.join().expect("a network namespace can be made: these tests need root"));
        namespace.run("ip link set lo up");
        namespace
    }

    /// Runs `body` in a thread inside; panics go on outside.
    pub(crate) fn enter<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            enter_by_descriptor(self.0.as_raw_fd()).expect("the namespace can be entered");
            body()
        };
        std::thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// A program that will run inside, and die with the thread that starts it.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let descriptor = self.0.as_raw_fd();
        let mut command = Command::new(program);
        command.args(arguments);
        // SAFETY: between fork and exec only two system calls are made.
        unsafe {
            command.pre_exec(move || {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                    return Err(io::Error::last_os_error());
                }
                enter_by_descriptor(descriptor)
            });
        }
        command
    }

    /// Runs a command line (words separated by spaces) and answers what it printed; panics if it fails.
    pub(crate) fn run(&self, line: &str) -> String {
        let output = self.output(line);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs a command line that may fail.
    pub(crate) fn output(&self, line: &str) -> Output {
        let words: Vec<_> = line.split_whitespace().collect();
        let (program, arguments) = words.split_first().expect("a command line");
        self.command(program, arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"))
    }

    /// Loads nftables rules; panics if they are refused.
    pub(crate) fn nft(&self, rules: &str) {
        let mut nft =
            self.command("nft", &["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft is installed");
        nft.stdin.take().expect("a pipe").write_all(rules.as_bytes()).expect("nft reads");
        assert!(nft.wait().expect("nft ends").success(), "{rules}");
    }

    /// Starts a program inside; it is killed when the guard is dropped.
    pub(crate) fn spawn(&self, program: &str, arguments: &[&str]) -> Running {
        let mut command = self.command(program, arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running(command.spawn().unwrap_or_else(|error| panic!("{program}: {error}")))
    }

    /// A UDP socket inside, that waits at most 20 s for a datagram.
    pub(crate) fn udp(&self, address: &str) -> UdpSocket {
        let address: SocketAddr = address.parse().expect("an address and a port");
        let socket = self.enter(|| UdpSocket::bind(address)).expect("the address is there and the port free");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("not zero");
        socket
    }

    /// A TCP connection from inside, whose reads wait at most 60 s. A port of 0 lets the system choose.
    pub(crate) fn connect(&self, from: &str, to: &str) -> io::Result<TcpStream> {
        let ends = [from, to].map(|end| end.parse::<SocketAddrV4>().expect("an address and a port"));
        let stream = self.enter(|| connect(ends))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.set_write_timeout(Some(Duration::from_secs(60)))?;
        Ok(stream)
    }

    /// What comes of a TCP connection from inside that has `limit` to be made.
    pub(crate) fn connect_within(&self, from: &str, to: &str, limit: Duration) -> io::Result<TcpStream> {
        let ends = [from, to].map(|end| end.parse::<SocketAddrV4>().expect("an address and a port"));
        self.enter(|| connect_in(ends, Some(limit)))
    }

    /// A TCP listener inside.
    pub(crate) fn listen(&self, address: &str) -> TcpListener {
        let address: SocketAddr = address.parse().expect("an address and a port");
        let start = Instant::now();
        loop {
            match self.enter(|| TcpListener::bind(address)) {
                // A program that another test is about to start has, for a moment, all that was open here.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && start.elapsed().as_secs() < 60 => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                listener => return listener.expect("the address is there and the port free"),
            }
        }
    }

    /// Three of them, with nothing but cables and addresses:
    /// phone 192.168.1.10 — lan 192.168.1.1 router 203.0.113.1 wan — far 203.0.113.9 and .10
    pub(crate) fn phone_router_far() -> [Self; 3] {
        let (phone, router, far) = (Self::new(), Self::new(), Self::new());
        phone.join("eth0", &router, "lan");
        router.join("wan", &far, "eth0");
        phone.run("ip address add 192.168.1.10/24 dev eth0");
        phone.run("ip route add default via 192.168.1.1");
        router.run("ip address add 192.168.1.1/24 dev lan");
        router.run("ip address add 203.0.113.1/24 dev wan");
        router.run("sysctl -qw net.ipv4.ip_forward=1");
        far.run("ip address add 203.0.113.9/24 dev eth0");
        far.run("ip address add 203.0.113.10/24 dev eth0");
        [phone, router, far]
    }

    /// Joins two namespaces by a pair of interfaces, both up.
    pub(crate) fn join(&self, name: &str, other: &Self, other_name: &str) {
        // A path, because there is no name; the numbers are those of this process.
        let path = |it: &Self| format!("/proc/{}/fd/{}", std::process::id(), it.0.as_raw_fd());
        let peer = path(other);
        self.run(&format!("ip link add {name} type veth peer name {other_name} netns {peer}"));
        self.run(&format!("ip link set {name} up"));
        other.run(&format!("ip link set {other_name} up"));
    }

    /// The index of an interface inside.
    pub(crate) fn index(&self, name: &str) -> u32 {
        let text = self.run(&format!("ip -o link show dev {name}"));
        text.split(':').next().and_then(|number| number.parse().ok()).expect("an index")
    }
}

/// A connection between two ends; the first may be in TIME_WAIT.
fn connect(ends: [SocketAddrV4; 2]) -> io::Result<TcpStream> {
    connect_in(ends, None)
}

/// The same, in this time.
fn connect_in([from, to]: [SocketAddrV4; 2], limit: Option<Duration>) -> io::Result<TcpStream> {
    let checked = |code: i32| if code < 0 { Err(io::Error::last_os_error()) } else { Ok(code) };
    let named = |end: SocketAddrV4| libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: end.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*end.ip()).to_be() },
        sin_zero: [0; 8],
    };
    let length = size_of::<libc::sockaddr_in>() as u32;
    // SAFETY: the descriptor is new and owned by nobody else; every pointer is to a value on this stack of the length that
    // comes with it.
    unsafe {
        let socket = OwnedFd::from_raw_fd(checked(libc::socket(
            libc::AF_INET,
            libc::SOCK_STREAM | libc::SOCK_CLOEXEC,
            0,
        ))?);
        let on = 1i32;
        let (number, from, to) = (socket.as_raw_fd(), named(from), named(to));
        checked(libc::setsockopt(number, libc::SOL_SOCKET, libc::SO_REUSEADDR, (&raw const on).cast(), 4))?;
        if let Some(limit) = limit {
            let time = libc::timeval { tv_sec: limit.as_secs() as i64, tv_usec: 0 };
            let size = size_of::<libc::timeval>() as u32;
            let option = (&raw const time).cast();
            checked(libc::setsockopt(number, libc::SOL_SOCKET, libc::SO_SNDTIMEO, option, size))?;
        }
        checked(libc::bind(number, (&raw const from).cast(), length))?;
        checked(libc::connect(number, (&raw const to).cast(), length))?;
        Ok(TcpStream::from(socket))
    }
}

/// A program that ends with this value.
#[derive(Debug)]
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until `condition` holds, at most 60 s; panics with `what` then.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn enter_by_descriptor(descriptor: RawFd) -> io::Result<()> {
    // SAFETY: takes a descriptor and changes only what this thread sees.
    let code = unsafe { libc::setns(descriptor, libc::CLONE_NEWNET) };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets a program of root's have CAP_NET_ADMIN and nothing else.
pub(crate) fn with_net_admin_only(command: &mut Command) -> &mut Command {
    let drop_others = || {
        // Every number is that of a right until the kernel knows none any more.
        for right in (0..64).filter(|right| *right != CAP_NET_ADMIN) {
            // SAFETY: takes no pointer.
            if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(right), 0, 0, 0) } != 0 {
                let error = io::Error::last_os_error();
                return if error.raw_os_error() == Some(libc::EINVAL) { Ok(()) } else { Err(error) };
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made.
    unsafe { command.pre_exec(drop_others) }
}

const CAP_NET_ADMIN: u32 = 12;

/// Takes CAP_NET_ADMIN from this thread for good.
pub(crate) fn drop_net_admin() {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    // Effective, permitted, inheritable: low words, then high words.
    let mut data = [0u32; 6];
    // SAFETY: both arrays are as large as version 3 of the two calls says.
    unsafe {
        assert_eq!(libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr()), 0);
        data.iter_mut().take(3).for_each(|word| *word &= !(1 << CAP_NET_ADMIN));
        assert_eq!(libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()), 0);
    }
}
