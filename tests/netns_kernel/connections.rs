//! TCP connections that are followed: what the rules make of their segments with the daemon, without it, and after it.
//! No queue is read here, so what the rules queue without bypass is dropped.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Instant;

use super::*;
use sipalg::alg::{Line, Transport};

const WEEK: Duration = Duration::from_secs(7 * 86_400);
const SERVER: &str = "203.0.113.9:5060";
/// Longer than the last sign of life is believed.
const DEAD: Duration = Duration::from_secs(3);

/// A connection from the phone's port 5061, with both its ends.
struct Connection {
    phone: TcpStream,
    server: TcpStream,
    line: Line,
}

impl Connection {
    fn new(network: &Network) -> Self {
        let listener = network.far.listen(SERVER);
        let phone = network.phone.connect("192.168.1.10:5061", SERVER).unwrap();
        let (server, public) = listener.accept().unwrap();
        server.set_read_timeout(Some(MINUTE)).unwrap();
        let line = Line {
            inside: Inside("192.168.1.10:5061".parse().unwrap()),
            far: SERVER.parse().unwrap(),
            public: Outside(public),
        };
        let connection = Self { phone, server, line };
        connection.assert_passes();
        connection
    }

    #[track_caller]
    fn assert_passes(&self) {
        for (mut from, mut to) in [(&self.phone, &self.server), (&self.server, &self.phone)] {
            from.write_all(b"hello").unwrap();
            let mut read = [0; 5];
            to.read_exact(&mut read).unwrap();
            assert_eq!(&read, b"hello");
        }
    }

    /// Asserts that each end gets a reset when it sends, and nothing of what is sent arrives.
    #[track_caller]
    fn assert_reset(self) {
        for mut end in [&self.phone, &self.server] {
            let read = match end.write_all(b"translated by nobody") {
                Ok(()) => end.read(&mut [0; 100]),
                Err(error) => Err(error),
            };
            let kind = read.map_err(|error| error.kind());
            assert!(matches!(kind, Err(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)), "{kind:?}");
        }
    }
}

fn follow(line: Line) -> Op {
    Op::Follow { line, lifetime: WEEK }
}

fn elements(network: &Network) -> [usize; 4] {
    let listed = |set| network.elements(set).len();
    let lines = json(&network.router.run("nft -j list map inet sipalg lines4"));
    let lines = lines["nftables"][1]["map"]["elem"].as_array().map_or(0, Vec::len);
    [listed("followed4"), listed("broken4"), lines, listed("alive")]
}

fn beat(network: &Network, kernel: &mut Kernel) {
    network.router.enter(|| kernel.keep_alive(Instant::now()));
}

#[test]
fn segments_wait_for_a_daemon_that_was_there_a_moment_ago_and_then_both_ends_are_reset() {
    let (network, mut kernel) = with_kernel();
    let connection = Connection::new(&network);
    network.done(&mut kernel, follow(connection.line));
    assert_eq!(elements(&network), [2, 0, 1, 1]);
    // While the daemon may come back, nothing passes and nothing is reset. Its signs of life do not wait for what is looked
    // at here.
    std::thread::scope(|scope| {
        let (_until_dropped, end) = channel::<()>();
        let (network, kernel) = (&network, &mut kernel);
        beat(network, kernel);
        scope.spawn(move || {
            while end.recv_timeout(Duration::from_millis(100)) == Err(RecvTimeoutError::Timeout) {
                beat(network, kernel);
            }
        });
        let short = Some(Duration::from_millis(300));
        for _ in 0..4 {
            for (mut from, mut to) in
                [(&connection.phone, &connection.server), (&connection.server, &connection.phone)]
            {
                from.write_all(b"dropped").unwrap();
                to.set_read_timeout(short).unwrap();
                assert_eq!(to.read(&mut [0]).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
            }
        }
    });
    eventually("the last sign of life to be forgotten", || elements(&network)[3] == 0);
    for end in [&connection.phone, &connection.server] {
        end.set_read_timeout(Some(MINUTE)).unwrap();
    }
    connection.assert_reset();
}

#[test]
fn a_broken_connection_is_reset_while_others_live_and_a_new_one_from_its_port_passes() {
    let (network, mut kernel) = with_kernel();
    let connection = Connection::new(&network);
    network.done(&mut kernel, follow(connection.line));
    // The daemon follows another one, too, so it is alive.
    let mut other = connection.line;
    other.inside.0.set_port(5062);
    other.public.0.set_port(5062);
    network.done(&mut kernel, follow(other));
    network.done(&mut kernel, Op::Reset { line: connection.line });
    assert_eq!(elements(&network), [2, 2, 1, 1]);
    beat(&network, &mut kernel);
    connection.assert_reset();
    beat(&network, &mut kernel);
    Connection::new(&network);
    assert_eq!(elements(&network)[..3], [2, 0, 1]);
}

#[test]
fn without_a_daemon_a_new_connection_from_the_port_of_a_followed_one_passes() {
    let (network, mut kernel) = with_kernel();
    let connection = Connection::new(&network);
    network.done(&mut kernel, follow(connection.line));
    std::thread::sleep(DEAD);
    connection.assert_reset();
    let again = Connection::new(&network);
    assert_eq!(elements(&network)[..2], [0, 0]);
    // What is followed in no direction is not followed, whatever the list says.
    assert_eq!(network.router.enter(|| kernel.held()).unwrap().followed, []);
    drop(again);
    // From outside, by a port that the administrator forwards.
    network.router.nft(
        "table ip forwards {\n chain in { type nat hook prerouting priority dstnat; iifname \"wan\" tcp dport 5070 dnat to 192.168.1.10:5060; }\n}\n\
         table inet firewall {\n chain forward { ct status dnat accept; }\n}",
    );
    let from_outside = || -> io::Result<Connection> {
        let listener = network.phone.listen("192.168.1.10:5060");
        let server = network.far.connect("203.0.113.9:5090", "203.0.113.1:5070")?;
        let (phone, _) = listener.accept()?;
        let line = Line {
            inside: Inside("192.168.1.10:5060".parse().unwrap()),
            far: "203.0.113.9:5090".parse().unwrap(),
            public: Outside("203.0.113.1:5070".parse().unwrap()),
        };
        let connection = Connection { phone, server, line };
        connection.assert_passes();
        Ok(connection)
    };
    let connection = from_outside().unwrap();
    network.done(&mut kernel, follow(connection.line));
    std::thread::sleep(DEAD);
    connection.assert_reset();
    from_outside().unwrap();
    assert_eq!(elements(&network)[..2], [0, 0]);
}

#[test]
fn followed_connections_are_listed_put_back_and_forgotten() {
    let (network, mut kernel) = with_kernel();
    let connection = Connection::new(&network);
    network.done(&mut kernel, follow(connection.line));
    let mut six = connection.line;
    six.inside.0 = "[fd00::10]:5061".parse().unwrap();
    six.far = "[2001:db8::9]:5060".parse().unwrap();
    six.public.0 = "[2001:db8::1]:49152".parse().unwrap();
    network.done(&mut kernel, follow(six));
    network.done(&mut kernel, follow(six));
    let mut next = network.router.enter(|| Kernel::open(&KernelSettings::default())).unwrap();
    let held = network.router.enter(|| next.held()).unwrap();
    assert_eq!(held.followed, [connection.line, six]);
    let next_beat = network.router.enter(|| next.keep_alive(Instant::now()));
    assert!(next_beat.is_some(), "it is alive for them now");
    network.router.run("nft flush ruleset");
    network.router.nft(ADMINISTRATOR);
    network.router.enter(|| ruleset::install(&RulesetSettings::default())).unwrap();
    assert_eq!(kernel.restore().unwrap(), 2);
    assert_eq!(elements(&network), [2, 0, 1, 1]);
    assert_eq!(network.router.enter(|| next.held()).unwrap().followed, [connection.line, six]);
    for line in [connection.line, six, six] {
        network.done(&mut kernel, Op::Unfollow { line });
    }
    assert_eq!(elements(&network)[..3], [0, 0, 0]);
    assert_eq!(
        network.router.enter(|| kernel.keep_alive(Instant::now())),
        None,
        "there is nobody to be alive for"
    );
}

#[test]
fn a_tcp_entry_is_looked_up_as_such_and_its_end_is_told() {
    let (network, mut kernel) = with_kernel();
    let mut events = network.router.enter(|| Events::open(&kernel)).unwrap();
    let connection = Connection::new(&network);
    let Line { inside: Inside(inside), far, public: Outside(public) } = connection.line;
    let entry = Tuples {
        transport: Transport::Tcp,
        orig_source: inside,
        orig_destination: far,
        reply_source: far,
        reply_destination: public,
    };
    let lookup = |transport| Op::Lookup { transport, source: inside, destination: far };
    assert_eq!(
        network.execute(&mut kernel, vec![lookup(Transport::Tcp), lookup(Transport::Udp)]),
        [Ok(Reply::Found(Some(entry))), Ok(Reply::Found(None))]
    );
    network.router.run("conntrack -D -p tcp --dport 5060");
    assert_eq!(drained(&mut events), [KernelEvent::Destroyed(entry)]);
}

fn read_kind(mut end: &TcpStream) -> Result<usize, ErrorKind> {
    end.read(&mut [0; 100]).map_err(|error| error.kind())
}

#[test]
fn removal_resets_both_ends_of_idle_connections_of_both_ip_versions_and_deletes_their_entries() {
    let (network, mut kernel) = with_kernel();
    for (host, interface, address) in [
        (&network.phone, "eth0", "fd00::10/64"),
        (&network.router, "lan", "fd00::1/64"),
        (&network.router, "wan", "2001:db8::1/64"),
        (&network.far, "eth0", "2001:db8::9/64"),
    ] {
        host.run(&format!("ip address add {address} dev {interface} nodad"));
    }
    network.phone.run("ip route add default via fd00::1");
    network.far.run("ip route add default via 2001:db8::1");
    network.router.run("sysctl -qw net.ipv6.conf.all.forwarding=1");
    network.router.run("nft add rule inet firewall input meta l4proto icmpv6 accept");
    let four = Connection::new(&network);
    let listener = network.far.enter(|| std::net::TcpListener::bind("[2001:db8::9]:5060")).unwrap();
    let phone = network.phone.enter(|| TcpStream::connect("[2001:db8::9]:5060")).unwrap();
    let (server, public) = listener.accept().unwrap();
    let line = Line { inside: Inside(public), far: server.local_addr().unwrap(), public: Outside(public) };
    let six = Connection { phone, server, line };
    six.assert_passes();
    network.done(&mut kernel, follow(four.line));
    network.done(&mut kernel, follow(six.line));
    // One whose translator has gone long since.
    network.done(&mut kernel, Op::Reset { line: four.line });
    let removed = network.router.enter(ruleset::remove).unwrap();
    assert_eq!((removed.table, removed.parted.told, removed.parted.silent), (true, 4, vec![]));
    for connection in [&four, &six] {
        for end in [&connection.phone, &connection.server] {
            end.set_read_timeout(Some(MINUTE)).unwrap();
            assert_eq!(read_kind(end), Err(ErrorKind::ConnectionReset), "{:?}", connection.line);
        }
    }
    assert_eq!(network.router.run("conntrack -L -p tcp --dport 5060 --state ESTABLISHED"), "");
    assert_eq!(network.router.run("conntrack -L -f ipv6 -p tcp"), "");
}

#[test]
fn removal_resets_nothing_while_a_daemon_is_at_work() {
    let (network, mut kernel) = with_kernel();
    let connection = Connection::new(&network);
    network.done(&mut kernel, follow(connection.line));
    network.router.run("nft delete element inet sipalg alive { tcp }");
    network.router.run("nft add element inet sipalg alive { tcp timeout 1h }");
    let removed = network.router.enter(ruleset::remove).unwrap();
    assert_eq!((removed.table, removed.parted.told, removed.parted.silent), (true, 0, vec![]));
    connection.assert_passes();
}

fn with_kernel() -> (Network, Kernel) {
    let network = Network::new();
    let kernel = network.kernel();
    (network, kernel)
}
