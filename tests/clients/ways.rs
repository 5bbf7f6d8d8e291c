//! Other networks than one router with one uplink: two uplinks, a NAT behind a NAT, a gateway at each end.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use super::gateway::Gateway;
use super::kernel;
use super::net::{Namespace, Net, Switch};
use super::party::{Party, request, sdp};
use super::rtp::{Handset, Speaker};
use super::wait;
use super::world::{MEDIA, Mode, PROXY, PUBLIC, inside, ruleset};

/// RTP of all phones.
const RTP: u16 = 40_000;
/// RTP of the media server.
const FAR_RTP: u16 = 6000;

/// A router with an administrator's ruleset, which lets what is established in and everything out of `uplinks`.
fn router(net: &mut Net, role: &str, uplinks: &str, more: &str) -> Namespace {
    let router = net.namespace(role);
    router.sysctl("net/ipv4/ip_forward", "1");
    for knob in ["all", "default"] {
        router.sysctl(&format!("net/ipv4/conf/{knob}/rp_filter"), "0");
    }
    let rules = ruleset(uplinks, "ct status dnat accept", "masquerade") + more;
    router.feed("nft", &["-f", "-"], &rules).expect("a ruleset");
    router
}

/// A host in the LAN of a router.
fn phone(
    net: &mut Net,
    switch: &mut Switch,
    role: &str,
    lan: &str,
    address: Ipv4Addr,
    gateway: &str,
) -> Namespace {
    let phone = net.namespace(role);
    switch.plug(net, &phone, "lan", lan, &format!("{address}/24"));
    phone.ip(&format!("route add default via {gateway}"));
    phone
}

/// A provider with a media server, on the network `outside`.
fn outside(net: &mut Net, switch: &mut Switch) -> Namespace {
    let outside = net.namespace("outside");
    switch.plug(net, &outside, "wan", "outside", &format!("{PROXY}/24"));
    outside.ip(&format!("address add {MEDIA}/24 dev wan"));
    outside
}

#[test]
fn f16_two_uplinks_and_routing_by_policy_each_call_has_the_address_of_its_own_way() {
    if Mode::chosen() != Mode::Sipalg {
        return;
    }
    let mut net = Net::new();
    let mut switch = Switch::new(&mut net, &["inside", "outside", "other"]);
    // The administrator sends the second phone by the other uplink, with a mark of his own.
    let marks = r#"table ip ways {
    chain prerouting {
        type filter hook prerouting priority mangle; policy accept;
        ip saddr 192.168.1.11 meta mark set 2
    }
}
"#;
    let router = router(&mut net, "router", r#""wan", "wan2""#, marks);
    switch.plug(&net, &router, "lan", "inside", "192.168.1.1/24");
    switch.plug(&net, &router, "wan", "outside", &format!("{PUBLIC}/24"));
    let second = Ipv4Addr::new(33, 44, 55, 66);
    switch.plug(&net, &router, "wan2", "other", &format!("{second}/24"));
    router.ip("route add default via 33.44.55.1 table 2");
    router.ip("route add 192.168.1.0/24 dev lan table 2");
    router.ip("rule add fwmark 2 table 2");
    let outside = outside(&mut net, &mut switch);
    switch.plug(&net, &outside, "wan2", "other", "33.44.55.1/24");
    let phones = [0, 1].map(|index| {
        phone(&mut net, &mut switch, &format!("phone{index}"), "inside", inside(index), "192.168.1.1")
    });
    let _gateway = Gateway::start(&router, "");
    let provider = Party::new(&outside, PROXY);
    let mut fars = [0, 1].map(|index| Speaker::bind(&outside, (MEDIA, FAR_RTP + 10 * index)));
    let parties = [0, 1].map(|index| Party::new(&phones[usize::from(index)], inside(index)));
    let _handsets =
        [0, 1].map(|index| Handset::start(&phones[usize::from(index)], "phone", inside(index), [RTP]));
    let mut publics = Vec::new();
    for (index, address) in [(0u8, PUBLIC), (1, second)] {
        let (party, number) = (&parties[usize::from(index)], u16::from(index));
        let asked = party.ask(&provider, "REGISTER", 1, &format!("register{index}"), "");
        assert_eq!(asked.from.ip(), address);
        assert!(asked.header("Contact").contains(&format!("@{address}:")), "{}", asked.text);
        provider.agree(&asked, party, "Expires: 600\n", "");
        let answer = sdp(MEDIA, FAR_RTP + 10 * number, "");
        let (asked, _) =
            party.call(&provider, &format!("call{index}"), &sdp(inside(index), RTP, ""), &answer);
        assert_eq!((asked.from.ip(), asked.media().ip()), (address.into(), address.into()), "{}", asked.text);
        publics.push(asked.media());
    }
    for (far, public) in fars.iter_mut().zip(&publics) {
        far.asks_without_loss(*public, "phone", 3);
    }
    // One of the uplinks goes: its call and its registration with it, and the other's go on.
    router.ip(&format!("address del {second}/24 dev wan2"));
    wait::until("everything by the lost uplink to go", || {
        let entries = router.run("conntrack", ["-L", "-p", "udp"]);
        (!entries.contains(&second.to_string())).then_some(())
    });
    assert_eq!(Gateway::ask(&router, "calls")["total"], 1);
    assert_eq!(Gateway::ask(&router, "registrations")["total"], 1);
    fars[0].asks_without_loss(publics[0], "phone", 3);
    // It comes back with another address.
    let third = Ipv4Addr::new(33, 44, 55, 77);
    router.ip(&format!("address add {third}/24 dev wan2"));
    router.ip("route replace default via 33.44.55.1 table 2");
    let asked = parties[1].ask(&provider, "REGISTER", 1, "again", "");
    assert_eq!(asked.from.ip(), third);
    assert!(asked.header("Contact").contains(&format!("@{third}:")), "{}", asked.text);
    fars[0].asks_without_loss(publics[0], "phone", 3);
    parties[0].hang_up(&provider, "call0");
}

/// The address of the second uplink.
const SECOND: Ipv4Addr = Ipv4Addr::new(33, 44, 55, 66);

/// A router whose uplinks have a rule with an address of their own each, a provider that is reached by both, and a phone. An
/// address that stands in a rule is not masquerade's: conntrack would keep it for as long as the phone keeps the flow alive.
fn two_fixed_uplinks(net: &mut Net) -> (Namespace, Namespace, Namespace) {
    let mut switch = Switch::new(net, &["inside", "outside", "other"]);
    let nat = format!(
        r#"table ip fixed {{
    chain postrouting {{
        type nat hook postrouting priority srcnat - 1;
        oifname "wan" snat to {PUBLIC}
        oifname "wan2" snat to {SECOND}
    }}
}}
"#
    );
    let router = router(net, "router", r#""wan", "wan2""#, &nat);
    switch.plug(net, &router, "lan", "inside", "192.168.1.1/24");
    switch.plug(net, &router, "wan", "outside", &format!("{PUBLIC}/24"));
    switch.plug(net, &router, "wan2", "other", &format!("{SECOND}/24"));
    router.ip("route add default via 33.44.55.1");
    let outside = outside(net, &mut switch);
    switch.plug(net, &outside, "wan2", "other", "33.44.55.1/24");
    let host = phone(net, &mut switch, "phone", "inside", inside(0), "192.168.1.1");
    (router, outside, host)
}

#[test]
fn f16_with_static_nat_a_phone_whose_uplink_goes_down_registers_by_the_other_one_at_its_second_attempt() {
    if Mode::chosen() != Mode::Sipalg {
        return;
    }
    let mut net = Net::new();
    let (router, outside, host) = two_fixed_uplinks(&mut net);
    let _gateway = Gateway::start(&router, "");
    let provider = Party::new(&outside, PROXY);
    let party = Party::new(&host, inside(0));
    let register = |n: u32, address: Ipv4Addr| {
        let asked = party.ask(&provider, "REGISTER", n, "register", "");
        assert_eq!(asked.from.ip(), address);
        assert!(asked.header("Contact").contains(&format!("@{address}:")), "{}", asked.text);
        provider.agree(&asked, &party, "Expires: 600\n", "");
    };
    register(1, PUBLIC);
    router.ip("link set wan down");
    party.send(provider.address(), &request("REGISTER", 2, "register", party.address(), ""));
    wait::until("the old mapping to go", || {
        (Gateway::ask(&router, "registrations")["total"] == 0).then_some(())
    });
    register(2, SECOND);
    register(3, SECOND);
    assert_eq!(Gateway::ask(&router, "registrations")["entries"][0]["public"], format!("{SECOND}:5060"));
    // And back. Where nothing moves, nothing is lost.
    router.ip("link set wan up");
    party.send(provider.address(), &request("REGISTER", 4, "register", party.address(), ""));
    wait::until("the mapping of the other uplink to go", || {
        (Gateway::ask(&router, "registrations")["total"] == 0).then_some(())
    });
    register(4, PUBLIC);
    register(5, PUBLIC);
}

#[test]
fn f16_with_static_nat_a_connection_whose_uplink_goes_down_is_reset_and_the_next_one_goes_by_the_other() {
    if Mode::chosen() != Mode::Sipalg {
        return;
    }
    let mut net = Net::new();
    let (router, outside, host) = two_fixed_uplinks(&mut net);
    let _gateway = Gateway::start(&router, "");
    let server = SocketAddr::from((PROXY, 5060));
    let listener = outside.within(|| TcpListener::bind(server)).expect("the port is free");
    let register = |n: u32, address: Ipv4Addr| {
        let mut phone = host.within(|| TcpStream::connect_timeout(&server, wait::LONG)).expect("connected");
        let (mut provider, from) = listener.accept().expect("it is there");
        assert_eq!(from.ip(), address);
        for stream in [&phone, &provider] {
            stream.set_read_timeout(Some(wait::LONG)).expect("not zero");
        }
        let local = phone.local_addr().expect("connected");
        let text = request("REGISTER", n, "register", local, "").replace("SIP/2.0/UDP", "SIP/2.0/TCP");
        phone.write_all(text.replace('\n', "\r\n").as_bytes()).expect("sent");
        let mut seen = String::new();
        while !seen.ends_with("\r\n\r\n") {
            let mut byte = [0];
            provider.read_exact(&mut byte).expect("it comes");
            seen.push(char::from(byte[0]));
        }
        assert!(seen.contains(&format!("Contact: <sip:a@{address}:")), "{seen}");
        (phone, provider)
    };
    let (mut phone, _provider) = register(1, PUBLIC);
    router.ip("link set wan down");
    phone.write_all(b"\r\n\r\n").expect("the keep-alive is sent");
    let error = phone.read(&mut [0; 10]).expect_err("nobody is there any more");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    register(2, SECOND);
}

#[test]
fn f35_two_phones_each_behind_a_nat_and_a_gateway_of_its_own_hear_each_other() {
    if Mode::chosen() != Mode::Sipalg {
        return;
    }
    let mut net = Net::new();
    let mut switch = Switch::new(&mut net, &["left", "right", "outside"]);
    let outside = outside(&mut net, &mut switch);
    let provider = Party::new(&outside, PROXY);
    // Both houses have the same private addresses.
    let mut house = |lan: &str, public: Ipv4Addr| {
        let router = router(&mut net, &format!("router-{lan}"), r#""wan""#, "");
        switch.plug(&net, &router, "lan", lan, "192.168.1.1/24");
        switch.plug(&net, &router, "wan", "outside", &format!("{public}/24"));
        let phone = phone(&mut net, &mut switch, &format!("phone-{lan}"), lan, inside(0), "192.168.1.1");
        let party = Party::new(&phone, inside(0));
        (Gateway::start(&router, ""), router, phone, party)
    };
    let (_left, left_router, left, alice) = house("left", PUBLIC);
    let (_right, right_router, right, bob) = house("right", Ipv4Addr::new(22, 33, 44, 66));
    let registered = bob.ask(&provider, "REGISTER", 1, "register", "");
    provider.agree(&registered, &bob, "Expires: 600\n", "");
    let offer = alice.ask(&provider, "INVITE", 1, "out", &sdp(inside(0), RTP, ""));
    let there = offer.media();
    let passed_on = |media: SocketAddr| {
        sdp(PUBLIC, media.port(), "").replace(&PUBLIC.to_string(), &media.ip().to_string())
    };
    provider.send(registered.from, &request("INVITE", 1, "in", provider.address(), &passed_on(there)));
    let got = bob.receive();
    assert_eq!(got.media(), there);
    let here = bob.agree(&got, &provider, "", &sdp(inside(0), RTP, "")).media();
    assert_eq!(provider.agree(&offer, &alice, "", &passed_on(here)).media(), here);
    // Whoever speaks first is heard, though both firewalls let nothing in that was not asked for.
    let handset = Handset::start(&right, "bob", inside(0), [RTP]);
    let mut speaker = Speaker::bind(&left, (inside(0), RTP));
    speaker.until_answered(here, |text, _| format!("bob heard {text} from {there}"));
    assert_eq!(handset.sources(), [there]);
    alice.hang_up(&provider, "out");
    wait::until("the left house to close its doors", || {
        kernel::media_entries(&left_router).is_empty().then_some(())
    });
    assert!(!kernel::media_entries(&right_router).is_empty(), "the other call is the provider's to end");
}

/// The outer one of two NATs, with `more` in its ruleset; the network between the two is 10.0.0.0/24.
fn outer(net: &mut Net, switch: &mut Switch, more: &str) -> Namespace {
    let outer = router(net, "outer", r#""wan""#, more);
    switch.plug(net, &outer, "lan", "between", "10.0.0.1/24");
    switch.plug(net, &outer, "wan", "outside", &format!("{PUBLIC}/24"));
    outer
}

/// The inner one.
fn inner(net: &mut Net, switch: &mut Switch) -> Namespace {
    let inner = router(net, "inner", r#""wan""#, "");
    switch.plug(net, &inner, "lan", "inside", "192.168.1.1/24");
    switch.plug(net, &inner, "wan", "between", "10.0.0.2/24");
    inner.ip("route add default via 10.0.0.1");
    inner
}

#[test]
fn f35_behind_another_nat_the_advertised_address_makes_calls_work_and_without_it_the_log_says_why_not() {
    if Mode::chosen() != Mode::Sipalg {
        return;
    }
    for advertise in [true, false] {
        let mut net = Net::new();
        let mut switch = Switch::new(&mut net, &["inside", "between", "outside"]);
        // The other box has no gateway; it forwards the ports, as its owner was told to.
        let forwards = r#"table ip forwards {
    chain prerouting {
        type nat hook prerouting priority dstnat;
        iifname "wan" udp dport { 5060, 16384-32767 } dnat to 10.0.0.2
    }
}
"#;
        let _outer = outer(&mut net, &mut switch, forwards);
        let inner = inner(&mut net, &mut switch);
        let outside = outside(&mut net, &mut switch);
        let host = phone(&mut net, &mut switch, "phone", "inside", inside(0), "192.168.1.1");
        let config = if advertise { format!("[nat]\nadvertise = [\"{PUBLIC}\"]\n") } else { String::new() };
        let gateway = Gateway::start(&inner, &config);
        let (party, provider) = (Party::new(&host, inside(0)), Party::new(&outside, PROXY));
        let asked = party.ask(&provider, "REGISTER", 1, "register", "");
        assert_eq!(asked.from.ip(), PUBLIC);
        let shown = if advertise { PUBLIC } else { Ipv4Addr::new(10, 0, 0, 2) };
        assert!(asked.header("Contact").contains(&format!("@{shown}:")), "{}", asked.text);
        let got = provider.agree(&asked, &party, "Expires: 600\n", "");
        assert_eq!(got.header("Contact"), "<sip:a@192.168.1.10:5060>");
        if !advertise {
            let told = format!("seen=\"{PUBLIC}\"");
            wait::until("the log to name the other NAT", || gateway.output().contains(&told).then_some(()));
            assert!(gateway.output().contains("nat.advertise"), "{}", gateway.output());
            continue;
        }
        let answer = sdp(MEDIA, FAR_RTP, "");
        let (asked, got) = party.call(&provider, "call", &sdp(inside(0), RTP, ""), &answer);
        assert_eq!(asked.media().ip(), PUBLIC);
        assert_eq!(got.media(), SocketAddr::from((MEDIA, FAR_RTP)));
        let _handset = Handset::start(&host, "phone", inside(0), [RTP]);
        Speaker::bind(&outside, (MEDIA, FAR_RTP)).asks_without_loss(asked.media(), "phone", 3);
        // And a call comes in.
        let target = asked.from;
        provider.send(
            target,
            &request("OPTIONS", 1, "in", provider.address(), "")
                .replace("sip:b@provider.example SIP", &format!("sip:a@{target} SIP")),
        );
        assert!(party.receive().text.starts_with("OPTIONS sip:a@192.168.1.10:5060 SIP/2.0\n"));
        party.hang_up(&provider, "call");
        assert!(!gateway.output().contains("nat.advertise"), "{}", gateway.output());
    }
}

#[test]
fn f35_two_gateways_one_behind_the_other_do_not_fight() {
    if Mode::chosen() != Mode::Sipalg {
        return;
    }
    let mut net = Net::new();
    let mut switch = Switch::new(&mut net, &["inside", "between", "outside"]);
    let outer = outer(&mut net, &mut switch, "");
    let inner = inner(&mut net, &mut switch);
    let outside = outside(&mut net, &mut switch);
    let host = phone(&mut net, &mut switch, "phone", "inside", inside(0), "192.168.1.1");
    let _gateways = [Gateway::start(&outer, ""), Gateway::start(&inner, "")];
    let (party, provider) = (Party::new(&host, inside(0)), Party::new(&outside, PROXY));
    let asked = party.ask(&provider, "REGISTER", 1, "register", "");
    assert!(!asked.text.contains("192.168.1.") && !asked.text.contains("10.0.0."), "{}", asked.text);
    let got = provider.agree(&asked, &party, "Expires: 600\n", "");
    assert_eq!(got.header("Contact"), "<sip:a@192.168.1.10:5060>");
    let (asked, got) = party.call(&provider, "call", &sdp(inside(0), RTP, ""), &sdp(MEDIA, FAR_RTP, ""));
    assert_eq!((asked.media().ip(), got.media()), (PUBLIC.into(), SocketAddr::from((MEDIA, FAR_RTP))));
    assert!(!asked.text.contains("192.168.1.") && !asked.text.contains("10.0.0."), "{}", asked.text);
    let _handset = Handset::start(&host, "phone", inside(0), [RTP]);
    Speaker::bind(&outside, (MEDIA, FAR_RTP)).asks_without_loss(asked.media(), "phone", 3);
    party.hang_up(&provider, "call");
    for router in [&outer, &inner] {
        wait::until("both to close", || kernel::media_entries(router).is_empty().then_some(()));
    }
}
