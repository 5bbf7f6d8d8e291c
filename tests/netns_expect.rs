//! Expected media and offloaded media against the real kernel: one that has helpers in user space and flowtables. Run by
//! tests/vm/run.sh only. Needs root.

#![allow(clippy::unwrap_used)] // clippy knows tests by their attribute only, not their helpers

#[path = "common/gateway.rs"]
mod gateway;
#[allow(dead_code, unreachable_pub)] // others use more of it
#[path = "common/messages.rs"]
mod messages;
#[path = "common/netns.rs"]
mod netns;
#[path = "common/notices.rs"]
mod notices;

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gateway::Gateway;
use messages::{Dialog, answer, request, sdp};
use netns::{Netns, eventually};
use sipalg::alg::{
    Admission, Command, CommandId, Executor, Failure, FlowKey, Inside, MediaClass, Op, Outcome, Outside,
    Peer, Pinhole, Pinholes, PinnedFlow, Reply, Transport,
};
use sipalg::kernel::admission::{self, Wanted};
use sipalg::kernel::probe::{self, Level};
use sipalg::kernel::ruleset::{self, RulesetSettings};
use sipalg::kernel::traffic::{self, Meter};
use sipalg::kernel::{Kernel, KernelSettings};
use tempfile::TempDir;

const HOUR: Duration = Duration::from_secs(3600);
const PHONE: &str = "192.168.1.10:5060";
const SERVER: &str = "203.0.113.9:5060";

/// The list of helpers is the machine's: what one test takes away another would miss.
static HELPERS: Mutex<()> = Mutex::new(());

/// Lets in what is established or related, and counts the latter.
const ADMINISTRATOR: &str = r#"
table inet firewall {
    chain input { type filter hook input priority filter; policy drop; ct state established,related accept; }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established accept
        ct state related counter accept
        iifname "lan" accept
    }
}
table ip nat {
    chain postrouting { type nat hook postrouting priority srcnat; oifname "wan" masquerade random; }
}
"#;

/// phone 192.168.1.10 — lan 192.168.1.1 router 203.0.113.1 wan — far 203.0.113.9 and .10
struct Network {
    phone: Netns,
    router: Netns,
    far: Netns,
    kernel: Kernel,
}

impl Network {
    fn new() -> Self {
        Self::with(&RulesetSettings { expect: true, ..RulesetSettings::default() })
    }

    fn with(settings: &RulesetSettings) -> Self {
        let (phone, router, far) = Self::cables();
        let kernel = router.enter(|| {
            traffic::Switch::open().count_from_now_on().unwrap();
            let installed = ruleset::install(settings).unwrap();
            assert_eq!(installed.expects, settings.expect);
            Kernel::open(&KernelSettings::default()).unwrap()
        });
        Self { phone, router, far, kernel }
    }

    fn cables() -> (Netns, Netns, Netns) {
        let [phone, router, far] = Netns::phone_router_far();
        router.nft(ADMINISTRATOR);
        (phone, router, far)
    }

    /// With the program itself, told this of media.
    fn with_daemon(media: &str) -> (Self, Gateway, TempDir) {
        let (phone, router, far) = Self::cables();
        let dir = tempfile::tempdir().unwrap();
        let text =
            format!("user = \"none\"\n[log]\nlevel = \"debug\"\n[media]\nadmission = \"auto\"\n{media}");
        fs::write(dir.path().join("sipalg.toml"), text).unwrap();
        let sipalg = Gateway::start(&router, dir.path());
        let kernel = router.enter(|| Kernel::open(&KernelSettings::default()).unwrap());
        (Self { phone, router, far, kernel }, sipalg, dir)
    }

    /// A packet of the phone's signalling flow, so that conntrack knows it.
    fn signal(&self) {
        let (phone, server) = (self.phone.udp(PHONE), self.far.udp(SERVER));
        phone.send_to(b"\r\n\r\n", SERVER).unwrap();
        receive(&server);
    }

    fn pinhole(&self, inside: &str, port: u16) -> Pinhole {
        let public = Outside(([203, 0, 113, 1], port).into());
        Pinhole {
            transport: sipalg::alg::Transport::Udp,
            inside: Inside(inside.parse().unwrap()),
            public,
            uplink: self.router.index("wan"),
        }
    }

    fn execute(&mut self, op: Op) -> Outcome {
        let mut outcomes = Vec::new();
        let commands = [Command { id: CommandId::nth(1), op }];
        self.router.enter(|| self.kernel.execute(&commands, &mut outcomes));
        outcomes.remove(0)
    }

    #[track_caller]
    fn done(&mut self, op: Op) {
        assert_eq!(self.execute(op), Ok(Reply::Done));
    }

    fn opened(&mut self, port: u16) -> Pinhole {
        let pinhole = self.pinhole("192.168.1.10:40000", port);
        self.done(Op::Open { pinholes: one(pinhole), lifetime: HOUR });
        pinhole
    }

    fn expectations(&self) -> Vec<String> {
        let text = self.router.run("conntrack -L expect");
        text.lines().filter(|line| line.contains("proto=17")).map(str::to_owned).collect()
    }

    fn entries(&self, words: &[&str]) -> Vec<String> {
        let text = self.router.run("conntrack -L -p udp -o extended,id");
        let has_all = |line: &&str| words.iter().all(|word| line.split_whitespace().any(|w| w == *word));
        text.lines().filter(has_all).map(str::to_owned).collect()
    }

    fn related(&self) -> u64 {
        let text = self.router.run("nft list chain inet firewall forward");
        let line = text.lines().find(|line| line.contains("ct state related")).unwrap();
        let mut words = line.split_whitespace().skip_while(|word| *word != "packets");
        words.nth(1).unwrap().parse().unwrap()
    }
}

fn one(pinhole: Pinhole) -> Pinholes {
    [pinhole].into_iter().collect()
}

fn signalling() -> FlowKey {
    FlowKey {
        transport: Transport::Udp,
        inside: Inside(PHONE.parse().unwrap()),
        far: SERVER.parse().unwrap(),
    }
}

fn expect(pinhole: Pinhole, source: Option<&str>, class: MediaClass) -> Op {
    let source = source.map(|ip| ip.parse::<IpAddr>().unwrap());
    let lifetime = Duration::from_secs(300);
    Op::Expect {
        public: [pinhole.public].into_iter().collect(),
        source,
        class,
        signalling: signalling(),
        lifetime,
    }
}

fn unexpect(pinhole: Pinhole) -> Op {
    Op::Unexpect { public: [pinhole.public].into_iter().collect(), signalling: signalling() }
}

fn pinned(pinhole: Pinhole, far: &str) -> PinnedFlow {
    PinnedFlow {
        transport: sipalg::alg::Transport::Udp,
        inside: pinhole.inside,
        far: far.parse().unwrap(),
        public: pinhole.public,
        hairpin: None,
    }
}

fn pin(pinhole: Pinhole, far: &str) -> Op {
    Op::Pin { flow: pinned(pinhole, far), signalling: signalling() }
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 2048];
    let (length, from) = socket.recv_from(&mut buffer).expect("a datagram within 20 s");
    (buffer[..length].to_vec(), from)
}

/// What the socket has got when the router has had time: nothing but `last`, which is sent again and again by `send`.
fn only(socket: &UdpSocket, last: &[u8], mut send: impl FnMut()) {
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut buffer = [0; 2048];
    eventually("the allowed packet arrives", || {
        send();
        match socket.recv_from(&mut buffer) {
            Ok((length, _)) => {
                assert_eq!(&buffer[..length], last);
                true
            }
            Err(_) => false,
        }
    });
}

#[test]
fn this_kernel_has_it_all() {
    let network = Network::new();
    network.router.enter(|| {
        let (way, finding) = admission::choose(Wanted::Auto);
        assert_eq!((way, finding.level), (Admission::Expectation, Level::Ok), "{finding:?}");
        let offload = probe::offload();
        assert_eq!(offload.level, Level::Ok, "{offload:?}");
    });
}

#[test]
fn media_before_the_answer_is_related_whoever_sends_it() {
    let _guard = HELPERS.lock();
    let mut network = Network::new();
    network.signal();
    assert_eq!(network.entries(&["sport=5060", "helper=sipalg"]).len(), 1, "{:?}", network.entries(&[]));
    let pinhole = network.opened(16384);
    network.done(expect(pinhole, None, MediaClass::Audio));
    let shown = network.expectations();
    assert!(shown.len() == 1 && shown[0].contains("dport=16384"), "{shown:?}");
    let (phone, stranger) = (network.phone.udp("192.168.1.10:40000"), network.far.udp("203.0.113.10:3333"));
    stranger.send_to(b"please hold", pinhole.public.0).unwrap();
    assert_eq!(receive(&phone), (b"please hold".to_vec(), "203.0.113.10:3333".parse().unwrap()));
    assert_eq!(network.related(), 1);
    // And back by the same way.
    phone.send_to(b"listening", "203.0.113.10:3333").unwrap();
    assert_eq!(receive(&stranger), (b"listening".to_vec(), pinhole.public.0));
}

#[test]
fn the_answer_puts_the_pinned_flow_in_the_place_of_what_was_expected() {
    let _guard = HELPERS.lock();
    let mut network = Network::new();
    network.signal();
    let pinhole = network.opened(16384);
    network.done(expect(pinhole, None, MediaClass::Video));
    let (phone, stranger) = (network.phone.udp("192.168.1.10:40000"), network.far.udp("203.0.113.10:3333"));
    stranger.send_to(b"early", pinhole.public.0).unwrap();
    receive(&phone);
    network.done(unexpect(pinhole));
    network.done(pin(pinhole, "203.0.113.9:30000"));
    assert_eq!(network.expectations(), [""; 0]);
    assert_eq!(network.entries(&["dport=16384"]).len(), 1, "the pinned one: {:?}", network.entries(&[]));
    let far = network.far.udp("203.0.113.9:30000");
    only(&phone, b"answered", || {
        stranger.send_to(b"late", pinhole.public.0).unwrap();
        far.send_to(b"answered", pinhole.public.0).unwrap();
    });
    // What is gone is as gone as it should be.
    network.done(unexpect(pinhole));
}

/// Media does not wait for the answer: packets come in every moment between the expectation, the entry that it has let
/// them make, and the pinned one. Whatever they meet, afterwards media flows both ways by the one entry that there is.
#[test]
fn media_that_flows_while_it_is_answered_goes_on_both_ways() {
    let _guard = HELPERS.lock();
    let mut network = Network::new();
    network.signal();
    let [phone, far] = [network.phone.udp("192.168.1.10:40000"), network.far.udp("203.0.113.9:30000")];
    let media = "203.0.113.9:30000";
    for round in 0..12 {
        let pinhole = network.opened(16_384 + 2 * round);
        network.done(expect(pinhole, Some("203.0.113.9"), MediaClass::Audio));
        let answered = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // Every other time they are already there, else their first one may come at any moment.
            let sending = scope.spawn(|| {
                let heard = |text: &[u8]| {
                    let mut buffer = [0; 100];
                    let _ = far.send_to(text, pinhole.public.0);
                    phone.recv_from(&mut buffer).is_ok_and(|(length, _)| buffer.get(..length) == Some(text))
                };
                phone.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
                while !answered.load(Ordering::SeqCst) {
                    heard(b"early");
                }
                eventually("media comes in", || heard(format!("round {round}").as_bytes()));
            });
            if round % 2 == 0 {
                let named = format!("dport={}", pinhole.public.0.port());
                eventually("early media", || !network.entries(&[&named]).is_empty());
            }
            let admit = Op::Admit { peers: vec![peer_of(pinhole)], lifetime: HOUR };
            let ops = [admit, unexpect(pinhole), pin(pinhole, media)];
            let commands: Vec<_> = ops.into_iter().map(|op| Command { id: CommandId::nth(1), op }).collect();
            let mut outcomes = Vec::new();
            network.router.enter(|| network.kernel.execute(&commands, &mut outcomes));
            assert_eq!(outcomes, [Ok(Reply::Done); 3]);
            answered.store(true, Ordering::SeqCst);
            sending.join().unwrap();
        });
        phone.send_to(format!("round {round}").as_bytes(), media).unwrap();
        assert_eq!(receive(&far), (format!("round {round}").into_bytes(), pinhole.public.0));
        assert_eq!(network.entries(&["sport=40000", "dport=30000"]).len(), 1, "{:?}", network.entries(&[]));
        assert_eq!(network.expectations(), [""; 0]);
        network.done(Op::Close { pinholes: one(pinhole), peers: vec![peer_of(pinhole)], quarantine: HOUR });
        network.done(Op::Unpin { flow: pinned(pinhole, media) });
        assert_eq!(network.entries(&["sport=40000"]), [""; 0]);
    }
}

/// The call is over before anybody has answered, and the announcement goes on and on: not one of its packets may slip
/// between the expectation and the maps, to the router itself. Its entry would be in the way of the port's next call.
#[test]
fn media_that_flows_while_its_call_is_given_up_leaves_nothing() {
    let _guard = HELPERS.lock();
    let mut network = Network::new();
    network.signal();
    let far = network.far.udp("203.0.113.9:30000");
    for round in 0..12 {
        let pinhole = network.opened(16_384 + 2 * round);
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::SeqCst) {
                    let _ = far.send_to(b"all lines are busy", pinhole.public.0);
                    std::thread::sleep(Duration::from_micros(200));
                }
            });
            // In half of the rounds the expectation is not, or hardly, used up when it is taken back.
            network.done(expect(pinhole, Some("203.0.113.9"), MediaClass::Audio));
            let named = format!("dport={}", pinhole.public.0.port());
            if round % 2 == 0 {
                eventually("early media", || !network.entries(&[&named]).is_empty());
            }
            let close = Op::Close { pinholes: one(pinhole), peers: vec![], quarantine: HOUR };
            let ops = [unexpect(pinhole), close];
            let commands: Vec<_> = ops.into_iter().map(|op| Command { id: CommandId::nth(1), op }).collect();
            let mut outcomes = Vec::new();
            network.router.enter(|| network.kernel.execute(&commands, &mut outcomes));
            let left = network.entries(&[&named]);
            ended.store(true, Ordering::SeqCst);
            assert_eq!((outcomes, left), (vec![Ok(Reply::Done); 2], vec![]), "round {round}");
        });
    }
}

fn peer_of(pinhole: Pinhole) -> Peer {
    Peer {
        transport: sipalg::alg::Transport::Udp,
        public: pinhole.public,
        far: Some("203.0.113.9".parse().unwrap()),
    }
}

#[test]
fn the_server_alone_is_expected_unless_anybody_may_send() {
    let _guard = HELPERS.lock();
    let mut network = Network::new();
    network.signal();
    let pinhole = network.opened(16384);
    network.done(expect(pinhole, Some("203.0.113.9"), MediaClass::Image));
    let phone = network.phone.udp("192.168.1.10:40000");
    let (stranger, server) = (network.far.udp("203.0.113.10:3333"), network.far.udp("203.0.113.9:7777"));
    only(&phone, b"server", || {
        stranger.send_to(b"stranger", pinhole.public.0).unwrap();
        server.send_to(b"server", pinhole.public.0).unwrap();
    });
    network.done(unexpect(pinhole));
    assert_eq!(network.entries(&["dport=16384"]), [""; 0]);
}

#[test]
fn a_flow_that_conntrack_does_not_know_yet_is_told_from_one_without_a_helper() {
    let _guard = HELPERS.lock();
    let mut network = Network::with(&RulesetSettings::default());
    let pinhole = network.opened(16384);
    assert_eq!(network.execute(expect(pinhole, None, MediaClass::Audio)), Err(Failure::NotFound));
    network.signal();
    assert_eq!(
        network.execute(expect(pinhole, None, MediaClass::Audio)),
        Err(Failure::Kernel(libc::EOPNOTSUPP))
    );
}

#[test]
fn every_class_takes_two_hundred_and_fifty_five() {
    let _guard = HELPERS.lock();
    let mut network = Network::new();
    network.signal();
    for (at, class) in [MediaClass::Audio, MediaClass::Video].into_iter().enumerate() {
        for n in 0..255 {
            let pinhole = network.pinhole("192.168.1.10:40000", 20_000 + 1000 * at as u16 + n);
            network.done(expect(pinhole, None, class));
        }
    }
    assert_eq!(network.expectations().len(), 2 * 255);
}

#[test]
fn two_routers_on_one_machine_share_the_helper_and_do_not_disturb_each_other() {
    let _guard = HELPERS.lock();
    let mut one_router = Network::new();
    let other = Network::new();
    // A restart, a load over itself, a crash: it is there already.
    let settings = RulesetSettings { expect: true, ..RulesetSettings::default() };
    one_router.router.enter(|| assert!(ruleset::install(&settings).unwrap().expects));
    assert!(other.router.enter(|| ruleset::remove().unwrap().table));
    one_router.signal();
    let pinhole = one_router.opened(16384);
    one_router.done(expect(pinhole, None, MediaClass::Audio));
    assert_eq!(one_router.expectations().len(), 1);
    // The last one takes it along (namespaces of other tests may need a moment until they are gone), and comes back.
    assert!(one_router.router.enter(|| ruleset::remove().unwrap().table));
    let naming = "table inet names {\n ct helper h { type \"sipalg\" protocol udp; l3proto ip; }\n}";
    let is_registered = |router: &Netns| {
        let named = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| router.nft(naming)));
        named.inspect(|()| drop(router.run("nft delete table inet names"))).is_ok()
    };
    eventually("the helper is off the list", || {
        one_router.router.enter(|| ruleset::remove().unwrap());
        !is_registered(&one_router.router)
    });
    one_router.router.enter(|| assert!(ruleset::install(&settings).unwrap().expects));
    assert!(is_registered(&one_router.router));
}

fn offloading() -> Network {
    let network = Network::with(&RulesetSettings { offload: true, ..RulesetSettings::default() });
    let rules = network.router.run("nft list chain inet sipalg short_way");
    assert_eq!(rules.matches("flow add @media").count(), 4, "{rules}");
    network
}

/// Sends back and forth until the kernel has taken the flow out of our sight.
fn until_offloaded(network: &Network, phone: &UdpSocket, far: &UdpSocket, public: SocketAddr) {
    eventually("the flow is offloaded", || {
        far.send_to(b"in", public).unwrap();
        receive(phone);
        phone.send_to(b"out", far.local_addr().unwrap()).unwrap();
        receive(far);
        network.entries(&["sport=40000", "[OFFLOAD]"]).len() == 1
    });
}

#[test]
fn established_media_takes_the_short_way_and_signalling_never_does() {
    let mut network = offloading();
    let (phone, server) = (network.phone.udp(PHONE), network.far.udp(SERVER));
    for _ in 0..5 {
        phone.send_to(b"\r\n\r\n", SERVER).unwrap();
        let (_, public) = receive(&server);
        server.send_to(b"\r\n", public).unwrap();
        receive(&phone);
    }
    let pinhole = network.opened(16384);
    network.done(pin(pinhole, "203.0.113.9:30000"));
    let (phone, far) = (network.phone.udp("192.168.1.10:40000"), network.far.udp("203.0.113.9:30000"));
    until_offloaded(&network, &phone, &far, pinhole.public.0);
    assert_eq!(network.entries(&["sport=5060", "[OFFLOAD]"]), [""; 0]);
    // Packets are counted all the same.
    let flow = pinned(pinhole, "203.0.113.9:30000");
    let read = || network.router.enter(|| Meter::open().unwrap().read(&flow).unwrap().unwrap());
    let before = read();
    for _ in 0..100 {
        far.send_to(b"in", pinhole.public.0).unwrap();
        receive(&phone);
    }
    eventually("the packets are counted", || read().packets_in >= before.packets_in + 100);
}

#[test]
fn media_that_moves_leaves_the_short_way_at_once() {
    let mut network = offloading();
    let pinhole = network.opened(16384);
    network.done(pin(pinhole, "203.0.113.9:30000"));
    let (phone, far) = (network.phone.udp("192.168.1.10:40000"), network.far.udp("203.0.113.9:30000"));
    until_offloaded(&network, &phone, &far, pinhole.public.0);
    // A re-INVITE names another endpoint.
    let flow = pinned(pinhole, "203.0.113.9:30000");
    network.done(Op::Unpin { flow });
    assert_eq!(network.entries(&["sport=40000"]), [""; 0]);
    network.done(pin(pinhole, "203.0.113.10:31000"));
    let moved = network.far.udp("203.0.113.10:31000");
    only(&phone, b"new place", || {
        far.send_to(b"old place", pinhole.public.0).unwrap();
        moved.send_to(b"new place", pinhole.public.0).unwrap();
    });
    assert_eq!(network.entries(&["sport=40000"]).len(), 1);
}

#[test]
fn offloaded_media_is_not_silent_and_silent_media_is() {
    let mut network = offloading();
    network.router.run("sysctl -qw net.netfilter.nf_conntrack_udp_timeout_stream=4");
    network.router.run("sysctl -qw net.netfilter.nf_flowtable_udp_timeout=2");
    let pinhole = network.opened(16384);
    network.done(pin(pinhole, "203.0.113.9:30000"));
    let (phone, far) = (network.phone.udp("192.168.1.10:40000"), network.far.udp("203.0.113.9:30000"));
    until_offloaded(&network, &phone, &far, pinhole.public.0);
    let ask = Op::Lookup {
        transport: Transport::Udp,
        source: pinhole.inside.0,
        destination: "203.0.113.9:30000".parse().unwrap(),
    };
    let start = Instant::now();
    // One way only, and for longer than any timeout.
    while start.elapsed() < Duration::from_secs(10) {
        far.send_to(b"in", pinhole.public.0).unwrap();
        receive(&phone);
        std::thread::sleep(Duration::from_millis(100));
        assert!(matches!(network.execute(ask.clone()), Ok(Reply::Found(Some(_)))), "it looks silent");
    }
    eventually("silence is noticed", || network.execute(ask.clone()) == Ok(Reply::Found(None)));
}

#[test]
fn a_call_has_early_media_from_a_stranger_and_then_the_short_way_until_it_moves() {
    let _guard = HELPERS.lock();
    let (network, _sipalg, dir) = Network::with_daemon("source = \"any\"\noffload = true\n");
    let (phone, server) = (network.phone.udp(PHONE), network.far.udp(SERVER));
    let [rtp, far, moved, stranger] = [
        network.phone.udp("192.168.1.10:40000"),
        network.far.udp("203.0.113.9:30000"),
        network.far.udp("203.0.113.10:31000"),
        network.far.udp("203.0.113.10:3333"),
    ];
    let text = |(bytes, from): (Vec<u8>, SocketAddr)| (String::from_utf8(bytes).unwrap(), from);
    let log = || fs::read_to_string(dir.path().join("log")).unwrap();
    // The first packet of its flow: conntrack can't tie anything to it yet.
    let invite = |cseq, branch, in_dialog| {
        let dialog = Dialog { branch, ..Dialog::default() };
        request("INVITE", PHONE, cseq, dialog, in_dialog, &sdp("192.168.1.10", 40000))
    };
    phone.send_to(invite(1, "z9hG4bK-1", false).as_bytes(), SERVER).unwrap();
    let (heard, known_as) = text(receive(&server));
    let port = heard.split("m=audio ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().to_owned();
    let public: SocketAddr = format!("203.0.113.1:{port}").parse().unwrap();
    server.send_to(answer(&heard, "100 Trying", known_as, "", "").as_bytes(), known_as).unwrap();
    receive(&phone);
    eventually("RTP and RTCP are expected", || network.expectations().len() == 2);
    stranger.send_to(b"please hold", public).unwrap();
    assert_eq!(receive(&rtp).0, b"please hold", "{}", log());
    assert_eq!(network.related(), 1);

    // Answered: the pinned flow alone.
    let contact = "Contact: <sip:bob@203.0.113.9>\n";
    let ok = |heard: &str, ip: &str, port| answer(heard, "200 OK", known_as, contact, &sdp(ip, port));
    server.send_to(ok(&heard, "203.0.113.9", 30000).as_bytes(), known_as).unwrap();
    receive(&phone);
    assert_eq!(network.expectations(), [""; 0]);
    assert_eq!(network.entries(&["sport=3333"]), [""; 0], "what came early has gone");
    until_offloaded(&network, &rtp, &far, public);

    // Then it moves: a later description names another place.
    phone.send_to(invite(2, "z9hG4bK-2", true).as_bytes(), SERVER).unwrap();
    let (heard, _) = text(receive(&server));
    server.send_to(ok(&heard, "203.0.113.10", 31000).as_bytes(), known_as).unwrap();
    receive(&phone);
    assert_eq!(network.entries(&["sport=40000", "dport=30000"]), [""; 0]);
    until_offloaded(&network, &rtp, &moved, public);

    let bye = request("BYE", PHONE, 3, Dialog { branch: "z9hG4bK-3", ..Dialog::default() }, true, "");
    phone.send_to(bye.as_bytes(), SERVER).unwrap();
    let (heard, _) = text(receive(&server));
    server.send_to(answer(&heard, "200 OK", known_as, "", "").as_bytes(), known_as).unwrap();
    receive(&phone);
    eventually("nothing is left of the call", || network.entries(&["sport=40000"]).is_empty());
    let config = dir.path().join("sipalg.toml");
    let check = format!("{} check --config {}", env!("CARGO_BIN_EXE_sipalg"), config.display());
    let check = network.router.run(&check);
    assert!(check.contains("expectation: media before an answer is expected"), "{check}");
}

#[test]
fn interfaces_that_come_later_and_come_again_take_part() {
    let _guard = HELPERS.lock();
    let (network, _sipalg, _dir) = Network::with_daemon("offload = true\n");
    let devices = || network.router.run("nft list flowtable inet sipalg media");
    assert!(devices().contains("wan") && !devices().contains("dsl0"), "{}", devices());
    for _ in 0..2 {
        network.router.run("ip link add dsl0 type veth peer name dsl1");
        network.router.run("ip address add 198.51.100.1/24 dev dsl0");
        eventually("the new interface takes part", || devices().contains("dsl0"));
        assert!(devices().contains("wan"), "{}", devices());
        network.router.run("ip link delete dsl0");
        eventually("the old one is out", || !devices().contains("dsl0"));
    }
}

#[test]
fn the_short_way_is_measured() {
    let mut rivals = [false, true].map(|offload| {
        let mut network = Network::with(&RulesetSettings { offload, ..RulesetSettings::default() });
        let pinhole = network.opened(16384);
        network.done(pin(pinhole, "203.0.113.9:30000"));
        let (phone, far) = (network.phone.udp("192.168.1.10:40000"), network.far.udp("203.0.113.9:30000"));
        if offload {
            until_offloaded(&network, &phone, &far, pinhole.public.0);
        }
        (network, pinhole.public.0, phone, far, Vec::new(), Vec::new())
    });
    // In turns, because the machine is shared. Nobody reads: the router's work is done in the sender's own time.
    for _ in 0..7 {
        for (_, public, _, far, rates, costs) in &mut rivals {
            let (start, busy) = (Instant::now(), used());
            let mut sent = 0;
            while start.elapsed() < Duration::from_millis(700) {
                for _ in 0..100 {
                    far.send_to(&[0x80; 172], *public).unwrap();
                }
                sent += 100;
            }
            rates.push(f64::from(sent) / start.elapsed().as_secs_f64());
            costs.push((used() - busy) * 1e6 / f64::from(sent));
        }
    }
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let [(_, _, phone, _, plain, plain_cost), (_, _, short_phone, _, short, short_cost)] = &mut rivals;
    // Not all fit into the phones' buffers, but nobody else has dropped them.
    receive(phone);
    receive(short_phone);
    let (plain, short) = (median(plain), median(short));
    let said = format!(
        "media {plain:.0} packets/s at {:.1} us of CPU each, offloaded {short:.0} at {:.1} us: {:.2} times",
        median(plain_cost),
        median(short_cost),
        short / plain
    );
    // For the console of the virtual machine.
    let _ = fs::write("/dev/console", format!("vm: note    {said}\n"));
    // How much is gained is for the console; here only that nothing is badly lost: two emulated machines share two processors.
    assert!(short > 0.5 * plain, "{said}");
}

/// Seconds that all processors were not idle.
fn used() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap();
    let ticks: Vec<f64> =
        text.lines().next().unwrap().split_whitespace().skip(1).map(|it| it.parse().unwrap()).collect();
    let idle = ticks[3] + ticks[4];
    (ticks.iter().take(8).sum::<f64>() - idle) / 100.0
}
