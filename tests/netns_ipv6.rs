//! IPv6 through the real `sipalg run`: pinholes without NAT, NAT66 and NPTv6 with rewriting, phones that have both
//! families, extension headers, fragments. Needs root, `ip`, `nft` and `conntrack`.
//!
//! The two parties are this test; the kernel between them has a firewall that lets in only what is established.

#![allow(clippy::unwrap_used)] // clippy knows tests by their attribute only, not their helpers
#![allow(clippy::print_stderr)] // the log of a failed test
#![allow(unsafe_code)] // setsockopt for extension headers
#![allow(dead_code, unreachable_pub)] // of `common`, which others use too, only a part is used

#[path = "ipv6/call.rs"]
mod call;
#[path = "common/gateway.rs"]
mod gateway;
#[path = "common/messages.rs"]
mod messages;
#[path = "common/netns.rs"]
mod netns;
#[path = "ipv6/network.rs"]
mod network;
#[path = "common/notices.rs"]
mod notices;

use std::os::fd::AsRawFd;

use call::{Call, registered};
use messages::{Dialog, request, sdp};
use netns::eventually;
use network::{FAR, LOCAL, Network, OWN, PUBLIC, hear, host_port, say};

const NAT66: &str = "table ip6 nat { chain postrouting { type nat hook postrouting priority srcnat;
    oifname \"wan\" masquerade
}
}";

/// RFC 6296 in conntrack's way: the prefix changes, both ways, and the host's part stays.
const NPT66: &str = "table ip6 nat {
    chain postrouting { type nat hook postrouting priority srcnat;
        oifname \"wan\" snat ip6 prefix to ip6 saddr map { fd00:1::/64 : 2001:db8:8::/64 }
    }
    chain prerouting { type nat hook prerouting priority dstnat;
        iifname \"wan\" dnat ip6 prefix to ip6 daddr map { 2001:db8:8::/64 : fd00:1::/64 }
    }
}";

#[test]
fn f37_without_nat_a_pinhole_is_opened_and_nothing_is_touched() {
    let network = Network::new("");
    let mut call = Call::new(&network, OWN, OWN);
    call.ring();
    call.talk();
    call.hang_up();
}

#[test]
fn nat66_is_translated_and_let_in() {
    let network = Network::new(NAT66);
    let mut call = Call::new(&network, LOCAL, PUBLIC);
    call.ring();
    call.talk();
    call.hang_up();
}

#[test]
fn a_new_flow_is_learned_in_two_trips_on_every_kernel_if_it_has_to() {
    let random = NAT66.replace("masquerade", "masquerade random");
    let network = Network::configured(&random, "[queue]\nconntrack = false\n");
    let before_nat = network.router.run("nft list chain inet sipalg q_new");
    assert!(before_nat.contains("bypass"), "{before_nat}");
    let mut call = Call::new(&network, LOCAL, PUBLIC);
    call.ring();
    call.talk();
    call.hang_up();
}

#[test]
fn a_new_flow_takes_as_many_trips_as_sipalg_says() {
    for (nat, inside, public) in [("", OWN, OWN), (NAT66, LOCAL, PUBLIC)] {
        let network = Network::new(nat);
        let _sockets = registered(&network, inside, public, FAR);
        // The request once or twice, and the answer.
        let expected = if network.log().contains(" trips=1") { 2 } else { 3 };
        // Counters are published now and then.
        eventually("the answer to be counted", || network.count("received") >= expected);
        assert_eq!((network.count("received"), network.count("learning")), (expected, expected - 2));
    }
}

#[test]
fn nptv6_is_translated_and_let_in() {
    let network = Network::new(NPT66);
    let mut call = Call::new(&network, LOCAL, "2001:db8:8::10");
    call.ring();
    call.talk();
    call.hang_up();
}

#[test]
fn fragments_are_put_together_and_made_again() {
    let network = Network::new(NAT66);
    let (phone, far) = (network.phone.udp(&host_port(LOCAL, 5060)), network.far.udp(&host_port(FAR, 5060)));
    let inside = host_port(LOCAL, 5060);
    for cseq in 1..=2 {
        let padding = format!("X-Padding: {}\r\nUser-Agent", "long ".repeat(800));
        let text = request("OPTIONS", &inside, cseq, Dialog::default(), false, "")
            .replace("User-Agent", &padding)
            .replace("z9hG4bK-1", &format!("z9hG4bK-{cseq}"));
        say(&phone, &text, &host_port(FAR, 5060));
        let (heard, from) = hear(&far);
        assert_eq!(from.ip().to_string(), PUBLIC);
        let public = host_port(PUBLIC, from.port());
        assert_eq!(heard, text.replace(&inside, &public));
        // And back, where it becomes shorter.
        let answer = messages::answer(&heard, "200 OK", from, &padding.replace("User-Agent", ""), "");
        say(&far, &answer, &public);
        let (heard, _) = hear(&phone);
        let via = format!("Via: SIP/2.0/UDP {inside};branch=z9hG4bK-{cseq}");
        assert!(heard.len() > 4000 && heard.contains(&via), "{heard}");
    }
}

/// A request that fills a packet of so many bytes, headers of IPv6 and UDP included.
fn of_size(bytes: usize, cseq: u32) -> String {
    let inside = host_port(LOCAL, 5060);
    let branch = format!("z9hG4bK-{cseq}-{bytes}");
    let text = request("OPTIONS", &inside, cseq, Dialog { branch: &branch, ..Dialog::default() }, false, "");
    let missing = (bytes - 48).checked_sub(text.len() + "X-Padding: \r\n".len()).expect("shorter");
    text.replace("User-Agent", &format!("X-Padding: {}\r\nUser-Agent", "x".repeat(missing)))
}

/// Nobody but its sender may cut a packet of IPv6 into fragments, and the kernel's own Packet Too Big names an MTU that the
/// packet had kept to. What helps is a phone that knows of a smaller one.
#[test]
fn a_message_that_outgrows_the_mtu_is_told_of_and_a_smaller_mtu_for_the_phones_helps() {
    let network = Network::new(NAT66);
    let (phone, far) = (network.phone.udp(&host_port(LOCAL, 5060)), network.far.udp(&host_port(FAR, 5060)));
    let sent = |size, cseq| {
        let text = of_size(size, cseq);
        say(&phone, &text, &host_port(FAR, 5060));
        text
    };
    let arrives = |text: &str| {
        let (heard, from) = hear(&far);
        assert_eq!(heard, text.replace(&host_port(LOCAL, 5060), &host_port(PUBLIC, from.port())));
        assert!(heard.len() > text.len());
    };
    // Room for what it grows by.
    arrives(&sent(1400, 1));
    sent(1500, 2);
    eventually("it is told of", || network.count("outgrown") == 1);
    let log = network.log();
    assert!(log.contains("outgrown the MTU") && log.contains("1500 bytes became 15"), "{log}");
    let refused = network.router.run("cat /proc/net/snmp6");
    assert!(
        refused.lines().any(|line| line.starts_with("Ip6FragFails") && line.ends_with("\t1")),
        "{refused}"
    );

    // As router advertisements set it: what is larger comes in fragments, and leaves in such.
    network.phone.run("ip link set dev eth0 mtu 1280");
    for (size, cseq) in [(1280, 3), (1281, 4), (1400, 5), (1500, 6), (3000, 7)] {
        arrives(&sent(size, cseq));
    }
}

/// RFC 6296 to the letter has no state: conntrack is told to look away, and so do we.
#[test]
fn stateless_nptv6_passes_untouched() {
    let network = Network::new(
        "table ip6 npt {
    chain untracked { type filter hook prerouting priority raw; notrack; }
    chain out { type filter hook postrouting priority srcnat; oifname \"wan\" ip6 saddr fd00:1::10 ip6 saddr set 2001:db8:8::10; }
    chain back { type filter hook prerouting priority mangle; iifname \"wan\" ip6 daddr 2001:db8:8::10 ip6 daddr set fd00:1::10; }
}",
    );
    // The firewall has nothing to go by but addresses.
    network.router.nft("insert rule inet firewall forward meta nfproto ipv6 accept");
    let (phone, far) = (network.phone.udp(&host_port(LOCAL, 5060)), network.far.udp(&host_port(FAR, 5060)));
    for cseq in 1..=2 {
        let text = of_size(900, cseq);
        say(&phone, &text, &host_port(FAR, 5060));
        assert_eq!(hear(&far), (text.clone(), host_port("2001:db8:8::10", 5060).parse().unwrap()));
        say(&far, &text, &host_port("2001:db8:8::10", 5060));
        assert_eq!(hear(&phone).0, text);
    }
    assert_eq!(network.count("received"), 0);
}

#[test]
fn extension_headers_are_no_obstacle() {
    let network = Network::new(NAT66);
    let inside = host_port(LOCAL, 5060);
    let (phone, far) = (network.phone.udp(&inside), network.far.udp(&host_port(FAR, 5060)));
    // Eight bytes of options that say nothing (RFC 8200, section 4.2); the kernel fills the first byte in.
    let options: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];
    for header in [libc::IPV6_DSTOPTS, libc::IPV6_HOPOPTS] {
        // SAFETY: the kernel reads as many bytes as there are.
        let code = unsafe {
            let length = libc::socklen_t::try_from(options.len()).unwrap();
            libc::setsockopt(phone.as_raw_fd(), libc::IPPROTO_IPV6, header, options.as_ptr().cast(), length)
        };
        assert_eq!(code, 0, "{}", std::io::Error::last_os_error());
        // The first packet of a flow and a later one, which go different ways through the router.
        for cseq in 1..=2 {
            let branch = format!("z9hG4bK-{header}-{cseq}");
            let text =
                request("OPTIONS", &inside, cseq, Dialog { branch: &branch, ..Dialog::default() }, false, "");
            say(&phone, &text, &host_port(FAR, 5060));
            let (heard, from) = hear(&far);
            assert_eq!(heard, text.replace(&inside, &host_port(PUBLIC, from.port())));
        }
    }
}

#[test]
fn a_phone_with_both_families_has_each_translated_by_its_own_flow() {
    let network = Network::new(&format!(
        "{NAT66}\ntable ip nat4 {{ chain postrouting {{ type nat hook postrouting priority srcnat;\noifname \"wan\" masquerade\n}}\n}}"
    ));
    let own = [("192.168.1.10", "22.33.44.55", "22.33.44.20"), (LOCAL, PUBLIC, FAR)];
    // RFC 4091 in the first description, RFC 8445 in the second.
    let both = |four: &str, six: &str| {
        format!(
            "v=0\no=- 1 1 IN IP4 {four}\ns=-\nt=0 0\na=group:ANAT 1 2\n\
             m=audio 40000 RTP/AVP 0\nc=IN IP4 {four}\na=mid:1\n\
             m=audio 40002 RTP/AVP 0\nc=IN IP6 {six}\na=mid:2\n"
        )
    };
    let ice = |own: &str, family: &str| {
        format!(
            "{}a=candidate:1 1 UDP 2130706431 192.168.1.10 40004 typ host\n\
             a=candidate:2 1 UDP 2130706430 {LOCAL} 40004 typ host\n",
            sdp(own, 40_004).replace("IP4", family)
        )
    };
    for (index, (inside, public, far)) in own.into_iter().enumerate() {
        let family = if inside == LOCAL { "IP6" } else { "IP4" };
        let (phone, far_end) = registered(&network, inside, public, far);
        let local = host_port(inside, 5060);
        for (n, body) in [both("192.168.1.10", LOCAL), ice(inside, family)].into_iter().enumerate() {
            let (call_id, branch) = (format!("dual-{index}-{n}"), format!("z9hG4bK-dual-{index}-{n}"));
            let dialog = Dialog { call_id: &call_id, branch: &branch, ..Dialog::default() };
            say(&phone, &request("INVITE", &local, 1, dialog, false, &body), &host_port(far, 5060));
            let (heard, from) = hear(&far_end);
            assert_eq!(from.ip().to_string(), public);
            let heard = heard.split("\r\n\r\n").nth(1).unwrap().replace("\r\n", "\n");
            // Only the lines of this flow's family change, each to a public endpoint.
            for (was, is) in body.lines().zip(heard.lines()) {
                let is_port =
                    |text: &&str| text.parse().is_ok_and(|port| (16_384..=32_767u16).contains(&port));
                let port = is.split([' ', '\n']).find(is_port).unwrap_or_default();
                let expected = match was {
                    "m=audio 40000 RTP/AVP 0" if inside != LOCAL => format!("m=audio {port} RTP/AVP 0"),
                    "m=audio 40002 RTP/AVP 0" if inside == LOCAL => format!("m=audio {port} RTP/AVP 0"),
                    "m=audio 40004 RTP/AVP 0 8" => format!("m=audio {port} RTP/AVP 0 8"),
                    line if line.contains(" 40004 typ") && line.contains(inside) => {
                        line.replace(inside, public).replace("40004", port)
                    }
                    line => line.replace(inside, public),
                };
                assert_eq!(is, expected);
            }
            assert_eq!(body.lines().count(), heard.lines().count());
        }
    }
}
