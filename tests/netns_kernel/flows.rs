//! Conntrack entries, and the way of packets past the queue points.

use super::*;

#[test]
fn the_far_end_may_speak_first_through_a_pinned_flow() {
    let (network, mut kernel, pinhole) = Network::with_pinhole();
    let (phone, far) = (network.phone.udp("192.168.1.10:40000"), network.far.udp("203.0.113.9:30000"));
    network.done(&mut kernel, pin(pinhole, "203.0.113.9:30000"));
    // It looks answered and assured before there is any packet.
    let words = ["src=192.168.1.10", "sport=40000", "[ASSURED]", "dst=203.0.113.1", "dport=16384"];
    let entries = network.entries(&words);
    assert!(entries.len() == 1 && !entries[0].contains("UNREPLIED"), "{entries:?}");
    far.send_to(b"far end first", pinhole.public.0).unwrap();
    expect(&phone, b"far end first", "203.0.113.9:30000");
    phone.send_to(b"answer", "203.0.113.9:30000").unwrap();
    expect(&far, b"answer", "203.0.113.1:16384");
    assert_eq!(network.entries(&words).len(), 1);
    network.done(&mut kernel, unpin(pinhole, "203.0.113.9:30000"));
    assert_eq!(network.entries(&["sport=40000"]), [""; 0]);
    network.done(&mut kernel, unpin(pinhole, "203.0.113.9:30000"));
}

#[test]
fn a_public_port_that_a_phone_learned_is_recognised_and_pinned() {
    let network = Network::new();
    let mut kernel = network.kernel();
    let recognise = |kernel: &mut Kernel, public: SocketAddr, host: &str| {
        let op = Op::Recognise { public: Outside(public), host: host.parse().unwrap() };
        match network.execute(kernel, vec![op])[..] {
            [Ok(Reply::Found(found))] => found,
            ref other => panic!("{other:?}"),
        }
    };
    let (phone, stun) = (network.phone.udp("192.168.1.10:40000"), network.far.udp("203.0.113.9:3478"));
    phone.send_to(b"who am I?", "203.0.113.9:3478").unwrap();
    let public = receive(&stun).1;
    let (source, server) = ("192.168.1.10:40000".parse().unwrap(), "203.0.113.9:3478".parse().unwrap());
    let tuples = Tuples {
        transport: sipalg::alg::Transport::Udp,
        orig_source: source,
        orig_destination: server,
        reply_source: server,
        reply_destination: public,
    };
    assert_eq!(recognise(&mut kernel, public, "192.168.1.10"), Some(tuples));
    // Not another host's, nor another port, nor a port that is not translated, nor what the router itself uses.
    assert_eq!(recognise(&mut kernel, public, "192.168.1.11"), None);
    let next = SocketAddr::new(public.ip(), public.port() ^ 1);
    assert_eq!(recognise(&mut kernel, next, "192.168.1.10"), None);
    assert_eq!(recognise(&mut kernel, server, "192.168.1.10"), None);
    assert_eq!(recognise(&mut kernel, "[2001:db8::1]:40000".parse().unwrap(), "fd00::10"), None);

    // Pinned, the far end may speak first, and sees the same port.
    let flow = |inside: &str, far: &str| PinnedFlow {
        transport: sipalg::alg::Transport::Udp,
        inside: Inside(inside.parse().unwrap()),
        far: far.parse().unwrap(),
        public: Outside(public),
        hairpin: None,
    };
    let signalling = key(Inside("192.168.1.10:5060".parse().unwrap()), "203.0.113.9:5060");
    let mine = flow("192.168.1.10:40000", "203.0.113.10:30000");
    network.done(&mut kernel, Op::Pin { flow: mine, signalling });
    let far = network.far.udp("203.0.113.10:30000");
    far.send_to(b"far end first", public).unwrap();
    expect(&phone, b"far end first", "203.0.113.10:30000");
    phone.send_to(b"answer", "203.0.113.10:30000").unwrap();
    expect(&far, b"answer", &public.to_string());
    // Two inside endpoints behind one public one: that is nobody for sure.
    let second = flow("192.168.1.10:40002", "203.0.113.10:30002");
    network.done(&mut kernel, Op::Pin { flow: second, signalling });
    assert_eq!(recognise(&mut kernel, public, "192.168.1.10"), None);
    network.done(&mut kernel, Op::Unpin { flow: second });
    network.done(&mut kernel, Op::Unpin { flow: mine });
    assert_eq!(recognise(&mut kernel, public, "192.168.1.10"), Some(tuples));

    // Another phone that the NAT gave the same port towards the same far end keeps its entry.
    let theirs = flow("192.168.1.11:40000", "203.0.113.10:30000");
    network.done(&mut kernel, Op::Pin { flow: theirs, signalling });
    network.done(&mut kernel, Op::Pin { flow: mine, signalling });
    let entries = network.entries(&["dst=203.0.113.10", "dport=30000"]);
    assert!(entries.len() == 1 && entries[0].contains("src=192.168.1.11"), "{entries:?}");
}

#[test]
fn a_pin_repairs_the_entry_that_a_phone_too_early_has_made() {
    let network = Network::new();
    let mut kernel = network.kernel();
    let pinhole = network.pinhole("192.168.1.10:40000", 16384);
    let (phone, far) = (network.phone.udp("192.168.1.10:40000"), network.far.udp("203.0.113.9:30000"));
    phone.send_to(b"too early", "203.0.113.9:30000").unwrap();
    let stray = receive(&far).1;
    assert_ne!(stray, pinhole.public.0);
    network.done(&mut kernel, open(&[pinhole]));
    network.done(&mut kernel, pin(pinhole, "203.0.113.9:30000"));
    phone.send_to(b"in time", "203.0.113.9:30000").unwrap();
    expect(&far, b"in time", "203.0.113.1:16384");
    assert_eq!(network.entries(&["sport=40000"]).len(), 1);
}

#[test]
fn a_pin_repairs_the_entry_that_a_stray_packet_to_the_router_has_made() {
    let network = Network::new();
    network.router.run("nft flush chain inet firewall input");
    network.router.run("nft chain inet firewall input { policy accept ; }");
    let mut kernel = network.kernel();
    let pinhole = network.pinhole("192.168.1.10:40000", 16384);
    let (phone, far) = (network.phone.udp("192.168.1.10:40000"), network.far.udp("203.0.113.9:30000"));
    // Nobody listens: a socket that is closed again may live on in a process that another test is about to start.
    far.send_to(b"stray", pinhole.public.0).unwrap();
    eventually("the stray's entry", || network.entries(&["src=203.0.113.9", "dport=16384"]).len() == 1);
    network.done(&mut kernel, open(&[pinhole]));
    network.done(&mut kernel, pin(pinhole, "203.0.113.9:30000"));
    phone.send_to(b"media", "203.0.113.9:30000").unwrap();
    expect(&far, b"media", "203.0.113.1:16384");
    // Again: the entry is right already.
    network.done(&mut kernel, pin(pinhole, "203.0.113.9:30000"));
    assert_eq!(network.entries(&["dport=16384"]).len(), 1);
}

#[test]
fn a_pin_by_a_port_that_the_phone_learned_repairs_what_a_stray_packet_has_made() {
    let network = Network::new();
    network.router.run("nft flush chain inet firewall input");
    network.router.run("nft chain inet firewall input { policy accept ; }");
    let mut kernel = network.kernel();
    let (phone, stun) = (network.phone.udp("192.168.1.10:40000"), network.far.udp("203.0.113.9:3478"));
    phone.send_to(b"who am I?", "203.0.113.9:3478").unwrap();
    let public = receive(&stun).1;
    let far = network.far.udp("203.0.113.10:30000");
    far.send_to(b"stray", public).unwrap();
    let port = format!("dport={}", public.port());
    eventually("the stray's entry", || network.entries(&["src=203.0.113.10", &port]).len() == 1);
    let flow = PinnedFlow {
        transport: sipalg::alg::Transport::Udp,
        inside: Inside("192.168.1.10:40000".parse().unwrap()),
        far: "203.0.113.10:30000".parse().unwrap(),
        public: Outside(public),
        hairpin: None,
    };
    let signalling = key(Inside("192.168.1.10:5060".parse().unwrap()), "203.0.113.9:5060");
    network.done(&mut kernel, Op::Pin { flow, signalling });
    far.send_to(b"far end first", public).unwrap();
    expect(&phone, b"far end first", "203.0.113.10:30000");
    phone.send_to(b"answer", "203.0.113.10:30000").unwrap();
    expect(&far, b"answer", &public.to_string());
}

#[test]
fn a_pin_that_finds_the_right_entry_leaves_it() {
    let (network, mut kernel, pinhole) = Network::with_pinhole();
    let (phone, far) = (network.phone.udp("192.168.1.10:40000"), network.far.udp("203.0.113.9:30000"));
    phone.send_to(b"first", "203.0.113.9:30000").unwrap();
    expect(&far, b"first", "203.0.113.1:16384");
    let id = |lines: Vec<String>| lines[0].split_once(" id=").map(|(_, id)| id.to_owned()).unwrap();
    let before = id(network.entries(&["sport=40000"]));
    network.done(&mut kernel, pin(pinhole, "203.0.113.9:30000"));
    assert_eq!(id(network.entries(&["sport=40000"])), before);
}

#[test]
fn a_pinned_flow_has_mark_and_zone_of_its_signalling() {
    let network = Network::new();
    network.router.nft(
        "table ip zones {
            chain raw { type filter hook prerouting priority raw; ct zone set 7; }
            chain marks { type filter hook forward priority mangle; ct mark set 0x2a; }
        }",
    );
    let (phone, far) = (network.phone.udp("192.168.1.10:5070"), network.far.udp("203.0.113.9:5070"));
    phone.send_to(b"hello", "203.0.113.9:5070").unwrap();
    receive(&far);
    let mut kernel = network.kernel();
    let pinhole = network.pinhole("192.168.1.10:40000", 16384);
    let signalling = FlowKey {
        transport: sipalg::alg::Transport::Udp,
        inside: Inside("192.168.1.10:5070".parse().unwrap()),
        far: "203.0.113.9:5070".parse().unwrap(),
    };
    let flow = pinned(pinhole, "203.0.113.9:30000", None);
    network.done(&mut kernel, Op::Pin { flow, signalling });
    assert_eq!(network.entries(&["sport=40000", "mark=42", "zone=7"]).len(), 1);
    network.done(&mut kernel, Op::Sustain { flow: signalling, lifetime: HOUR });
    network.done(&mut kernel, Op::Unpin { flow });
    assert_eq!(network.entries(&["sport=40000"]), [""; 0]);
}

#[test]
fn zones_that_come_up_later_are_found() {
    let network = Network::new();
    network.router.nft(
        "table ip zones {\n chain raw { type filter hook prerouting priority raw; udp sport 5071 ct zone set 7; }\n}",
    );
    let mut kernel = network.kernel();
    // Zones are searched for once at the start and then at most every ten seconds.
    let (phone, far) = (network.phone.udp("192.168.1.10:5071"), network.far.udp("203.0.113.9:5071"));
    phone.send_to(b"hello", "203.0.113.9:5071").unwrap();
    receive(&far);
    eventually("the flow is found in its zone", || {
        lookup(&network, &mut kernel, "192.168.1.10:5071", "203.0.113.9:5071").is_some()
    });
}

#[test]
fn two_phones_talk_through_the_router_by_hairpin_pins() {
    let network = Network::new();
    let mut kernel = network.kernel();
    let one = network.pinhole("192.168.1.10:40000", 16384);
    let two = network.pinhole("192.168.1.11:40000", 16386);
    network.done(&mut kernel, open(&[one, two]));
    let to_two = pinned(one, "203.0.113.1:16386", Some(two.inside));
    network.done(&mut kernel, Op::Pin { flow: to_two, signalling: key(one.inside, "203.0.113.9:5060") });
    let (a, b) = (network.phone.udp("192.168.1.10:40000"), network.phone.udp("192.168.1.11:40000"));
    b.send_to(b"from two", "203.0.113.1:16384").unwrap();
    expect(&a, b"from two", "203.0.113.1:16386");
    a.send_to(b"from one", "203.0.113.1:16386").unwrap();
    expect(&b, b"from one", "203.0.113.1:16384");
    // The other phone's pin is the same entry.
    let to_one = pinned(two, "203.0.113.1:16384", Some(one.inside));
    network.done(&mut kernel, Op::Pin { flow: to_one, signalling: key(two.inside, "203.0.113.9:5060") });
    assert_eq!(network.entries(&["src=192.168.1.10"]).len(), 1);
}

#[test]
fn a_flow_is_found_from_either_direction_under_random_masquerade() {
    let network = Network::new();
    let mut kernel = network.kernel();
    let (phone, far) = (network.phone.udp("192.168.1.10:5070"), network.far.udp("203.0.113.9:5070"));
    assert_eq!(lookup(&network, &mut kernel, "192.168.1.10:5070", "203.0.113.9:5070"), None);
    phone.send_to(b"hello", "203.0.113.9:5070").unwrap();
    let (_, public) = receive(&far);
    let entry = Tuples {
        transport: sipalg::alg::Transport::Udp,
        orig_source: "192.168.1.10:5070".parse().unwrap(),
        orig_destination: "203.0.113.9:5070".parse().unwrap(),
        reply_source: "203.0.113.9:5070".parse().unwrap(),
        reply_destination: public,
    };
    assert_eq!(lookup(&network, &mut kernel, "192.168.1.10:5070", "203.0.113.9:5070"), Some(entry));
    assert_eq!(lookup(&network, &mut kernel, "203.0.113.9:5070", "192.168.1.10:5070"), Some(entry));
    assert_eq!(lookup(&network, &mut kernel, "203.0.113.9:5071", "192.168.1.10:5070"), None);
}

#[test]
fn a_flow_is_sustained_and_a_flow_that_is_not_there_is_not_found() {
    let network = Network::new();
    let mut kernel = network.kernel();
    let flow = key(Inside("192.168.1.10:5070".parse().unwrap()), "203.0.113.9:5070");
    let sustain = Op::Sustain { flow, lifetime: HOUR };
    assert_eq!(network.execute(&mut kernel, vec![sustain.clone()]), [Err(Failure::NotFound)]);
    let (phone, far) = (network.phone.udp("192.168.1.10:5070"), network.far.udp("203.0.113.9:5070"));
    phone.send_to(b"hello", "203.0.113.9:5070").unwrap();
    receive(&far);
    network.done(&mut kernel, sustain);
    let left: u64 = network.entries(&["sport=5070"])[0].split_whitespace().nth(4).unwrap().parse().unwrap();
    assert!((3500..=3600).contains(&left), "{left}");
}

#[test]
fn a_dying_entry_is_an_event_and_our_own_elements_are_none() {
    let network = Network::new();
    let mut kernel = network.kernel();
    let mut events = network.router.enter(|| Events::open(&kernel)).unwrap();
    let pinhole = network.pinhole("192.168.1.10:40000", 16384);
    network.done(&mut kernel, open(&[pinhole]));
    network.done(&mut kernel, close(&[pinhole], &[]));
    // Not even a place in a queue of netfilter's; an IPv6 address of the namespace may just have become ready.
    let sockets = network.router.enter(|| std::fs::read_to_string("/proc/thread-self/net/netlink")).unwrap();
    let field = |line: &str, at| line.split_whitespace().nth(at).unwrap().parse::<u64>().unwrap();
    let netfilters =
        || sockets.lines().skip(1).filter(|line| field(line, 1) == libc::NETLINK_NETFILTER as u64);
    assert!(netfilters().count() >= 3, "{sockets}");
    assert_eq!(netfilters().map(|line| field(line, 4)).sum::<u64>(), 0, "{sockets}");
    let (phone, far) = (network.phone.udp("192.168.1.10:5070"), network.far.udp("203.0.113.9:5070"));
    phone.send_to(b"hello", "203.0.113.9:5070").unwrap();
    let (_, public) = receive(&far);
    assert_eq!(drained(&mut events), []);
    network.router.run("conntrack -D -p udp --orig-src 192.168.1.10 --sport 5070");
    let entry = Tuples {
        transport: sipalg::alg::Transport::Udp,
        orig_source: "192.168.1.10:5070".parse().unwrap(),
        orig_destination: "203.0.113.9:5070".parse().unwrap(),
        reply_source: "203.0.113.9:5070".parse().unwrap(),
        reply_destination: public,
    };
    let mut heard = Vec::new();
    eventually("the event is there", || {
        heard.extend(drained(&mut events));
        !heard.is_empty()
    });
    assert_eq!(heard, [KernelEvent::Destroyed(entry)]);
}

#[test]
fn without_a_reader_signalling_passes_and_has_its_long_life() {
    let network = Network::new();
    let _kernel = network.kernel();
    let (phone, far) = (network.phone.udp("192.168.1.10:5060"), network.far.udp("203.0.113.9:5060"));
    phone.send_to(b"request", "203.0.113.9:5060").unwrap();
    let (_, public) = receive(&far);
    let left = |network: &Network| -> u64 {
        network.entries(&["src=192.168.1.10"])[0].split_whitespace().nth(4).unwrap().parse().unwrap()
    };
    assert!((150..=180).contains(&left(&network)));
    far.send_to(b"response", public).unwrap();
    expect(&phone, b"response", "203.0.113.9:5060");
}

#[test]
fn each_queue_point_gets_its_packets() {
    let (network, mut kernel, pinhole) = Network::with_pinhole();
    let mut queue = network.router.enter(|| {
        let mut queue = nfq::Queue::open().unwrap();
        queue.set_nonblocking(true);
        (5060..=5063).for_each(|number| queue.bind(number).unwrap());
        queue
    });
    // Number of the queue, and the addresses of the packet; it is let go.
    let mut next = || {
        let mut seen = None;
        eventually("a packet is queued", || {
            let Ok(mut message) = queue.recv() else { return false };
            let packet = message.get_payload();
            let address =
                |at: usize| std::net::Ipv4Addr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap());
            seen = Some((message.get_queue_num(), address(12).to_string(), address(16).to_string()));
            message.set_verdict(nfq::Verdict::Accept);
            queue.verdict(message).unwrap();
            true
        });
        let (number, source, destination) = seen.unwrap();
        format!("{number} {source} {destination}")
    };
    let (phone, far) = (network.phone.udp("192.168.1.10:5070"), network.far.udp("203.0.113.9:5060"));
    phone.send_to(b"request", "203.0.113.9:5060").unwrap();
    assert_eq!(next(), "5061 192.168.1.10 203.0.113.9");
    assert_eq!(next(), "5062 203.0.113.1 203.0.113.9");
    let (_, public) = receive(&far);
    far.send_to(b"response", public).unwrap();
    assert_eq!(next(), "5060 203.0.113.9 192.168.1.10");
    phone.send_to(b"request", "203.0.113.9:5060").unwrap();
    assert_eq!(next(), "5060 192.168.1.10 203.0.113.9");
    // Media from a negotiated address that is not pinned; from a pinned flow: never.
    let (media, source) = (network.phone.udp("192.168.1.10:40000"), network.far.udp("203.0.113.9:30000"));
    network.done(&mut kernel, admit(&[peer(pinhole, "203.0.113.9")]));
    source.send_to(b"first", pinhole.public.0).unwrap();
    assert_eq!(next(), "5063 203.0.113.9 203.0.113.1");
    network.done(&mut kernel, pin(pinhole, "203.0.113.9:30000"));
    source.send_to(b"second", pinhole.public.0).unwrap();
    expect(&media, b"second", "203.0.113.9:30000");
    phone.send_to(b"last", "203.0.113.9:5060").unwrap();
    assert_eq!(next(), "5060 192.168.1.10 203.0.113.9");
}

#[test]
fn media_is_counted_each_way_once_it_is_wanted() {
    let (network, mut kernel, pinhole) = Network::with_pinhole();
    let (phone, far) = (network.phone.udp("192.168.1.10:40000"), network.far.udp("203.0.113.9:30000"));
    let flow = pinned(pinhole, "203.0.113.9:30000", None);
    let mut meter = network.router.enter(|| Meter::open().unwrap());
    network.router.run("sysctl -qw net.netfilter.nf_conntrack_acct=0");
    network.done(&mut kernel, pin(pinhole, "203.0.113.9:30000"));
    assert_eq!(meter.read(&flow).unwrap(), None, "made before anybody counted");
    network.done(&mut kernel, unpin(pinhole, "203.0.113.9:30000"));
    assert_eq!(meter.read(&flow).unwrap(), None, "no such entry");

    network.router.enter(|| traffic::Switch::open().count_from_now_on().unwrap());
    network.done(&mut kernel, pin(pinhole, "203.0.113.9:30000"));
    assert_eq!(meter.read(&flow).unwrap(), Some(Traffic::default()));
    for _ in 0..3 {
        far.send_to(b"ten bytes.", pinhole.public.0).unwrap();
        expect(&phone, b"ten bytes.", "203.0.113.9:30000");
    }
    phone.send_to(b"x", "203.0.113.9:30000").unwrap();
    expect(&far, b"x", "203.0.113.1:16384");
    let counted = Traffic { packets_out: 1, bytes_out: 29, packets_in: 3, bytes_in: 114 };
    assert_eq!(meter.read(&flow).unwrap(), Some(counted));
}
