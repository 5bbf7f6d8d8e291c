//! Pinholes and admissions: what is in the maps and sets, and what it lets through.

use super::*;

#[test]
fn a_pinhole_is_four_elements_for_as_long_as_it_was_asked_for() {
    let (network, mut kernel, pinhole) = Network::with_pinhole();
    network.done(&mut kernel, admit(&[peer(pinhole, "203.0.113.9")]));
    let inbound = network.elements("inbound4");
    let [(key, data, left)] = &inbound[..] else { panic!("{inbound:?}") };
    assert_eq!(*key, json(r#"["udp", "203.0.113.1", 16384]"#));
    assert_eq!(*data, json(r#"["192.168.1.10", 40000]"#));
    assert!((3500..=3600).contains(left), "{left}");
    let outbound = network.elements("outbound4");
    let [(key, data, _)] = &outbound[..] else { panic!("{outbound:?}") };
    assert_eq!(*key, json(r#"["wan", "udp", "192.168.1.10", 40000]"#));
    assert_eq!(*data, json(r#"["203.0.113.1", 16384]"#));
    assert_eq!(network.elements("owned4")[0].0, json(r#"["udp", "203.0.113.1", 16384]"#));
    assert_eq!(network.elements("peers4")[0].0, json(r#"["udp", "203.0.113.1", 16384, "203.0.113.9"]"#));
}

#[test]
fn the_guard_lets_in_whom_we_admitted_and_nobody_else() {
    let (network, mut kernel, pinhole) = Network::with_pinhole();
    // A firewall that would let everything in: the guard alone decides.
    network.router.run("nft chain inet firewall forward { policy accept ; }");
    let phone = network.phone.udp("192.168.1.10:40000");
    let (far, stranger) = (network.far.udp("203.0.113.9:30000"), network.far.udp("203.0.113.10:30000"));
    network.done(&mut kernel, admit(&[peer(pinhole, "203.0.113.9")]));
    stranger.send_to(b"intruder", pinhole.public.0).unwrap();
    far.send_to(b"welcome", pinhole.public.0).unwrap();
    expect(&phone, b"welcome", "203.0.113.9:30000");
    assert_eq!(network.entries(&["src=203.0.113.10"]), [""; 0]);
    // Any source, for as long as it is asked for.
    let anybody = Peer { transport: sipalg::alg::Transport::Udp, public: pinhole.public, far: None };
    network.done(&mut kernel, admit(&[anybody]));
    stranger.send_to(b"now invited", pinhole.public.0).unwrap();
    expect(&phone, b"now invited", "203.0.113.10:30000");
    network.done(&mut kernel, Op::Dismiss { peers: vec![anybody] });
    let other = network.far.udp("203.0.113.10:30002");
    other.send_to(b"intruder", pinhole.public.0).unwrap();
    far.send_to(b"again", pinhole.public.0).unwrap();
    expect(&phone, b"again", "203.0.113.9:30000");
    assert_eq!(network.entries(&["sport=30002"]), [""; 0]);
}

#[test]
fn a_closed_endpoint_stays_closed_for_its_quarantine() {
    let (network, mut kernel, pinhole) = Network::with_pinhole();
    network.router.run("nft chain inet firewall forward { policy accept ; }");
    network.router.run("nft chain inet firewall input { policy accept ; }");
    let far_end = peer(pinhole, "203.0.113.9");
    network.done(&mut kernel, admit(&[far_end]));
    network.done(&mut kernel, close(&[pinhole], &[far_end]));
    for set in ["inbound4", "outbound4", "peers4", "open4"] {
        assert_eq!(network.elements(set), [], "{set}");
    }
    let owned = network.elements("owned4");
    let [(key, _, left)] = &owned[..] else { panic!("{owned:?}") };
    assert_eq!(*key, json(r#"["udp", "203.0.113.1", 16384]"#));
    assert!((1..=60).contains(left), "{left}");
    // Late media leaves nothing behind.
    network.far.udp("203.0.113.9:30000").send_to(b"late", pinhole.public.0).unwrap();
    network.far.udp("203.0.113.9:30001").send_to(b"proof of arrival", "203.0.113.1:9").unwrap();
    eventually("the packet behind the late one is there", || !network.entries(&["dport=9"]).is_empty());
    assert_eq!(network.entries(&["dport=16384"]), [""; 0]);
    // Once more, and without anything there: no error.
    network.done(&mut kernel, close(&[pinhole], &[far_end]));
    network.router.run("nft flush set inet sipalg owned4");
    network.done(&mut kernel, close(&[pinhole], &[far_end]));
    network.done(&mut kernel, Op::Dismiss { peers: vec![far_end] });
    assert_eq!(network.elements("owned4").len(), 1);
}

#[test]
fn renewing_sets_the_time_anew_and_makes_again_what_was_lost() {
    let (network, mut kernel, pinhole) = Network::with_pinhole();
    let far_end = peer(pinhole, "203.0.113.9");
    network.router.run("nft flush map inet sipalg outbound4");
    let pinholes: Pinholes = [pinhole].into_iter().collect();
    let renew = Op::Renew { pinholes, peers: vec![far_end], lifetime: 2 * HOUR };
    network.done(&mut kernel, renew);
    for set in ["inbound4", "outbound4", "owned4", "peers4"] {
        let elements = network.elements(set);
        assert_eq!(elements.len(), 1, "{set}");
        assert!((7000..=7200).contains(&elements[0].2), "{set}: {elements:?}");
    }
}

#[test]
fn a_port_that_somebody_has_is_in_use() {
    let network = Network::new();
    let mut kernel = network.kernel();
    let pinhole = network.pinhole("192.168.1.10:40000", 16384);
    let taken = Err(Failure::PortInUse);
    let socket = network.router.udp("0.0.0.0:16384");
    assert_eq!(network.execute(&mut kernel, vec![open(&[pinhole])]), [taken]);
    drop(socket);
    let element = "{ udp . 203.0.113.1 . 16384 : 192.168.1.99 . 4444 }";
    network.router.run(&format!("nft add element inet sipalg inbound4 {element}"));
    assert_eq!(network.execute(&mut kernel, vec![open(&[pinhole])]), [taken]);
    assert_eq!(network.elements("owned4"), []);
    assert_eq!(network.elements("outbound4"), []);
    network.router.run(&format!("nft delete element inet sipalg inbound4 {element}"));
    // What an earlier run left behind is ours.
    network.done(&mut kernel, open(&[pinhole]));
    network.done(&mut kernel, open(&[pinhole]));
    assert_eq!(network.elements("inbound4").len(), 1);
    // An address that this machine does not have can't have a socket.
    let routed = Pinhole { public: Outside("198.51.100.1:16384".parse().unwrap()), ..pinhole };
    network.done(
        &mut kernel,
        open(&[Pinhole { inside: Inside("192.168.1.11:40000".parse().unwrap()), ..routed }]),
    );
}

#[test]
fn a_command_that_fails_leaves_nothing_and_keeps_nobody_else_from_succeeding() {
    let network = Network::new();
    let mut kernel = network.kernel();
    let [one, two, three] = [16384, 16386, 16388].map(|port| network.pinhole("192.168.1.10:40000", port));
    let at = |pinhole, inside: &str| Pinhole { inside: Inside(inside.parse().unwrap()), ..pinhole };
    let (two, three) = (at(two, "192.168.1.10:40002"), at(three, "192.168.1.10:40004"));
    network
        .router
        .run("nft add element inet sipalg inbound4 { udp . 203.0.113.1 . 16386 : 192.168.1.99 . 4444 }");
    let ops = vec![
        open(&[one]),
        // All or none: the first of these two is free.
        open(&[three, two]),
        admit(&[peer(one, "203.0.113.9")]),
        Op::Lookup {
            transport: sipalg::alg::Transport::Udp,
            source: one.inside.0,
            destination: "203.0.113.9:1".parse().unwrap(),
        },
        close(&[one], &[]),
        open(&[three]),
    ];
    let done = Ok(Reply::Done);
    let expected = [done, Err(Failure::PortInUse), done, Ok(Reply::Found(None)), done, done];
    assert_eq!(network.execute(&mut kernel, ops), expected);
    let inbound: Vec<_> = network.elements("inbound4").into_iter().map(|(key, ..)| key[2].clone()).collect();
    assert!(inbound.contains(&16386.into()) && inbound.contains(&16388.into()) && inbound.len() == 2);
    assert_eq!(network.elements("outbound4").len(), 1);
}

#[test]
fn a_thousand_pinholes_in_one_round_come_and_go() {
    let network = Network::new();
    let mut kernel = network.kernel();
    let pinholes: Vec<_> =
        (0..1000u16).map(|n| network.pinhole(&format!("192.168.1.10:{}", 40000 + n), 16384 + n)).collect();
    let opened = network.execute(&mut kernel, pinholes.iter().map(|pinhole| open(&[*pinhole])).collect());
    assert!(opened.iter().all(|outcome| *outcome == Ok(Reply::Done)));
    // The kernel's hash tables are still growing, and a dump of one may miss elements then.
    eventually("all are there", || {
        let held = kernel.held().unwrap();
        (held.pinholes.len(), held.owned.len(), held.peers.len()) == (1000, 1000, 0)
    });
    let closing = pinholes.iter().map(|pinhole| Op::Close {
        pinholes: [*pinhole].into_iter().collect(),
        peers: vec![],
        quarantine: Duration::ZERO,
    });
    let closed = network.execute(&mut kernel, closing.collect());
    assert!(closed.iter().all(|outcome| *outcome == Ok(Reply::Done)));
    assert_eq!(kernel.held().unwrap(), Default::default());
}

#[test]
fn what_is_held_is_what_was_opened_also_for_ipv6() {
    let network = Network::new();
    let mut kernel = network.kernel();
    let four = network.pinhole("192.168.1.10:40000", 16384);
    let six = Pinhole {
        transport: sipalg::alg::Transport::Udp,
        inside: Inside("[fd00::10]:40000".parse().unwrap()),
        public: Outside("[2001:db8::1]:16384".parse().unwrap()),
        uplink: four.uplink,
    };
    let peers = [
        peer(four, "203.0.113.9"),
        peer(six, "2001:db8::9"),
        Peer { transport: sipalg::alg::Transport::Udp, public: six.public, far: None },
    ];
    network.done(&mut kernel, open(&[four, six]));
    network.done(&mut kernel, admit(&peers));
    let held = kernel.held().unwrap();
    assert_eq!(held.pinholes.iter().map(|(pinhole, _)| *pinhole).collect::<Vec<_>>(), [four, six]);
    assert_eq!(held.owned.iter().map(|(public, _)| *public).collect::<Vec<_>>(), [four.public, six.public]);
    assert_eq!(held.peers.iter().map(|(peer, _)| *peer).collect::<Vec<_>>(), peers);
    let left = held.pinholes.iter().map(|(_, left)| *left).chain(held.peers.iter().map(|(_, left)| *left));
    assert!(left.into_iter().all(|left| left > HOUR - MINUTE && left <= HOUR));
    let flow = PinnedFlow {
        transport: sipalg::alg::Transport::Udp,
        inside: six.inside,
        far: "[2001:db8::9]:30000".parse().unwrap(),
        public: six.public,
        hairpin: None,
    };
    network.done(&mut kernel, Op::Pin { flow, signalling: key(six.inside, "[2001:db8::9]:5060") });
    let text = network.router.run("conntrack -L -f ipv6 -p udp");
    assert!(text.contains("src=2001:db8::9 dst=2001:db8::1 sport=30000 dport=16384"), "{text}");
}
