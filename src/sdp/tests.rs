//! What [`Description`] finds in whole descriptions, as text.

use super::*;

/// Parses `text` from the middle of a buffer, so that offsets of the wrong buffer show.
fn parse(text: &str) -> (String, Result<Description, Malformed>) {
    let head = "head v=0\r\nm=no 1 x y";
    let buffer = format!("{head}{text}\r\nm=tail 2 x y");
    let within = Span::new(head.len(), head.len() + text.len());
    let mut description = Description::default();
    let outcome = description.parse(buffer.as_bytes(), within);
    (buffer, outcome.map(|()| description))
}

/// One line for each thing found.
fn show(text: &str) -> Vec<String> {
    let (buffer, description) = parse(text);
    let description = description.unwrap_or_else(|e| panic!("{e}: {text}"));
    let text = |span: Span| std::str::from_utf8(span.of(buffer.as_bytes())).unwrap();
    let address = |a: Address| {
        let ip = a.ip.map_or("-".to_string(), |ip| ip.to_string());
        format!("{}|{}|{ip}", text(a.family), text(a.span))
    };
    let mut found = Vec::new();
    found.extend(description.origin.map(|o| format!("origin {}", address(o))));
    found.extend(description.version.map(|v| format!("version {}", text(v))));
    found.extend(
        description
            .connections
            .iter()
            .take(usize::from(description.session_connections))
            .map(|c| format!("session c {}", address(*c))),
    );
    for (index, media) in description.media.iter().enumerate() {
        found.push(format!(
            "m {}|{}={}/{}|{} {:?}{}{}",
            text(media.kind),
            text(media.port),
            media.number,
            media.count,
            text(media.proto),
            media.direction,
            match (media.rtcp_mux, media.rtcp_mux_only) {
                (false, _) => "",
                (true, false) => " mux",
                (true, true) => " mux only",
            },
            media.setup.map_or(String::new(), |setup| format!(" {setup:?}"))
        ));
        found.extend(description.connections_of(media).iter().map(|c| format!(" c {}", address(*c))));
        found.extend(media.rtcp.map(|r| {
            format!(" rtcp {}={} {}", text(r.port), r.number, r.address.map_or("-".to_string(), address))
        }));
        for c in description.candidates.iter().filter(|c| c.media == index) {
            let kind = format!("{}{}", if c.udp { "udp" } else { "-" }, if c.host { " host" } else { "" });
            found.push(format!(
                " candidate {} {kind} {} {}={}",
                c.component,
                address(c.address),
                text(c.port),
                c.number
            ));
        }
        for c in description.remote_candidates.iter().filter(|c| c.media == index) {
            found.push(format!(
                " remote {} {} {}={}",
                c.component,
                address(c.address),
                text(c.port),
                c.number
            ));
        }
        for p in description.paths.iter().filter(|p| p.media == index) {
            let name = if p.first { "path" } else { "then" };
            found.push(format!(" {name} {} {}={}", address(p.host), text(p.port), p.number));
        }
    }
    found
}

const PLAIN: &str = "v=0\r\no=alice 2890844526 2890842807 IN IP4 192.168.1.10\r\ns=-\r\nc=IN IP4 192.168.1.10\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0 8\r\na=rtpmap:0 PCMU/8000\r\n";

#[test]
fn a_plain_offer_is_read_with_every_line_end() {
    let expected = [
        "origin IP4|192.168.1.10|192.168.1.10",
        "version 2890842807",
        "session c IP4|192.168.1.10|192.168.1.10",
        "m audio|40000=40000/1|RTP/AVP SendRecv",
        " c IP4|192.168.1.10|192.168.1.10",
    ];
    assert_eq!(show(PLAIN), expected);
    assert_eq!(show(&PLAIN.replace("\r\n", "\n")), expected);
    assert_eq!(show(&PLAIN.replace("\r\n", "\r")), expected);
    assert_eq!(show(&PLAIN.replace("\r\n", "\r\n\r\n")), expected);
    assert_eq!(show(PLAIN.trim_end()), expected);
    assert_eq!(show(&PLAIN.replace(' ', "  ")), expected);
    assert_eq!(show(&format!("\r\n{PLAIN}")), expected);
}

#[test]
fn each_media_has_its_own_connections_or_the_sessions() {
    let text = "v=0\no=- 1 1 IN IP6 ::1\ns=x\nc=IN IP4 192.0.2.1\nm=audio 1000/2 RTP/AVP 0\nm=video 1002 RTP/SAVPF 96\nc=IN IP4 224.2.1.1/127/3\nc=IN IP6 ff15::101/3\nm=image 1004 udptl t38\nc=IN IP4 fax.example\n";
    assert_eq!(
        show(text),
        [
            "origin IP6|::1|::1",
            "version 1",
            "session c IP4|192.0.2.1|192.0.2.1",
            "m audio|1000=1000/2|RTP/AVP SendRecv",
            " c IP4|192.0.2.1|192.0.2.1",
            "m video|1002=1002/1|RTP/SAVPF SendRecv",
            " c IP4|224.2.1.1|224.2.1.1",
            " c IP6|ff15::101|ff15::101",
            "m image|1004=1004/1|udptl SendRecv",
            " c IP4|fax.example|-",
        ]
    );
    assert_eq!(show("v=0\nm=audio 9 RTP/AVP 0\n"), ["m audio|9=9/1|RTP/AVP SendRecv"], "no c= at all");
}

#[test]
fn rtcp_and_mux_belong_to_their_media() {
    let text = "v=0\na=rtcp:1 IN IP4 192.0.2.9\na=rtcp-mux\nm=audio 1000 RTP/AVP 0\na=rtcp:53020 IN IP4 126.16.64.4\na=rtcp:2\nm=audio 1000 RTP/AVP 0\na=rtcp:53020\na=rtcp-mux\nm=audio 1000 RTP/AVP 0\na=rtcp-mux-only \na=rtcp:70000\nm=audio 1000 RTP/AVP 0\na=rtcp-fb:* nack\na=rtcp-muxer\na=rtcp:5 IN IP6\n";
    assert_eq!(
        show(text),
        [
            "m audio|1000=1000/1|RTP/AVP SendRecv",
            " rtcp 53020=53020 IP4|126.16.64.4|126.16.64.4",
            "m audio|1000=1000/1|RTP/AVP SendRecv mux",
            " rtcp 53020=53020 -",
            "m audio|1000=1000/1|RTP/AVP SendRecv mux only",
            "m audio|1000=1000/1|RTP/AVP SendRecv",
            " rtcp 5=5 -",
        ]
    );
}

#[test]
fn direction_is_the_medias_or_the_sessions() {
    let text = "v=0\na=recvonly\nm=a 1 x y\nm=b 2 x y\na=sendonly \nm=c 3 x y\na=inactive\na=sendrecv\nm=d 4 x y\na=inactive\n";
    assert_eq!(
        show(text),
        ["m a|1=1/1|x RecvOnly", "m b|2=2/1|x SendOnly", "m c|3=3/1|x SendRecv", "m d|4=4/1|x Inactive"]
    );
}

#[test]
fn candidates_are_read_in_both_dialects() {
    let text = "v=0\na=candidate:0 1 UDP 1 192.0.2.1 1 typ host\nm=audio 45664 RTP/AVP 0\na=candidate:1 1 UDP 2130706431 10.0.1.1 8998 typ host\na=candidate:2 2 udp 1694498815 192.0.2.3 45665 typ srflx raddr 10.0.1.1 rport 8999\na=candidate:H3 1 TCP 2105458943 10.0.1.1 9 typ HOST tcptype active\na=candidate:4 1 UDP 1 2001:db8::1 8998 typ host generation 0\na=candidate:5 1 UDP 1 9b36eaac.local 8998 typ host\na=candidate:6 1 UDP 1 phone.example 8998 typ relay\na=candidate:7 1 UDP 1 10.0.1.1 99999 typ host\na=candidate:8 1 UDP 1 10.0.1.1\na=remote-candidates:1 192.0.2.3 45664 2 2001:db8::3 45665\na=remote-candidates:1 192.0.2.4\n";
    assert_eq!(
        show(text),
        [
            "m audio|45664=45664/1|RTP/AVP SendRecv",
            " candidate 1 udp host |10.0.1.1|10.0.1.1 8998=8998",
            " candidate 2 udp |192.0.2.3|192.0.2.3 45665=45665",
            " candidate 1 - host |10.0.1.1|10.0.1.1 9=9",
            " candidate 1 udp host |2001:db8::1|2001:db8::1 8998=8998",
            " candidate 1 udp host |9b36eaac.local|- 8998=8998",
            " candidate 1 udp |phone.example|- 8998=8998",
            " remote 1 |192.0.2.3|192.0.2.3 45664=45664",
            " remote 2 |2001:db8::3|2001:db8::3 45665=45665",
        ]
    );
}

#[test]
fn msrp_paths_are_taken_apart() {
    let text = "v=0\nm=message 7394 TCP/MSRP *\na=path:msrp://alice.example.com:7394/2s93i9ek2a;tcp msrps://u@192.168.1.10:7395/x;tcp\nm=message 9 TCP/MSRP *\na=path:MSRP://[2001:db8::1]:7396;tcp msrp://192.168.1.10/x;tcp msrp://2001:db8::1:5/x;tcp http://192.168.1.10:80/ msrp:192.168.1.10:1 msrp://:1/x;tcp\n";
    assert_eq!(
        show(text),
        [
            "m message|7394=7394/1|TCP/MSRP SendRecv",
            " path |alice.example.com|- 7394=7394",
            " then |192.168.1.10|192.168.1.10 7395=7395",
            "m message|9=9/1|TCP/MSRP SendRecv",
            " path |2001:db8::1|2001:db8::1 7396=7396",
        ]
    );
}

#[test]
fn who_opens_the_connection_is_inherited_and_said() {
    let text = "v=0\na=setup:passive\nm=a 1 x y\nm=b 2 x y\na=setup:active \nm=c 3 x y\na=setup:actpass\n\
                m=d 4 x y\na=setup:holdconn\nm=e 5 x y\na=setup:Passive\nm=f 6 x y\na=setup: passive\na=setups:active\n";
    let roles: Vec<_> = show(text).iter().map(|line| line.rsplit_once(' ').unwrap().1.to_owned()).collect();
    assert_eq!(roles, ["Passive", "Active", "ActPass", "HoldConn", "SendRecv", "SendRecv"]);
    assert_eq!(show("v=0\nm=a 1 x y\na=sendonly\n"), ["m a|1=1/1|x SendOnly"]);
}

#[test]
fn odd_lines_are_borne() {
    for (line, expected) in [
        ("o=John Q. Public 1 2 IN IP4 192.0.2.1", vec!["origin IP4|192.0.2.1|192.0.2.1", "version 2"]),
        ("o=- 1 x IN IP4 0.0.0.0", vec!["origin IP4|0.0.0.0|0.0.0.0"]),
        ("o=- 1", vec![]),
        (
            "o=- 1 2 IN IP4 192.0.2.1\no=- 3 4 IN IP4 192.0.2.2",
            vec!["origin IP4|192.0.2.1|192.0.2.1", "version 2"],
        ),
        ("m=", vec!["m |=0/1| SendRecv"]),
        ("m=audio", vec!["m audio|=0/1| SendRecv"]),
        ("m=audio x/y RTP/AVP", vec!["m audio|x=0/1|RTP/AVP SendRecv"]),
        ("m=audio 65536 RTP/AVP 0", vec!["m audio|65536=0/1|RTP/AVP SendRecv"]),
        ("m=audio 0 RTP/AVP 0", vec!["m audio|0=0/1|RTP/AVP SendRecv"]),
        ("m=audio 5/ RTP/AVP 0", vec!["m audio|5=5/1|RTP/AVP SendRecv"]),
        ("c=IN IP4", vec![]),
        ("c=TN RFC2543 +1-201-406-4090", vec!["session c RFC2543|+1-201-406-4090|-"]),
        ("k=clear:x\nz=0\na=\nb\n=\nC=IN IP4 192.0.2.1\n", vec![]),
    ] {
        assert_eq!(show(&format!("v=0\n{line}")), expected, "{line}");
    }
}

#[test]
fn what_does_not_begin_with_a_version_is_no_sdp() {
    for text in ["", "\r\n", "s=-\r\nv=0", "v", " v=0", "\0", "V=0"] {
        assert_eq!(parse(text).1, Err(Malformed::NotSdp), "{text:?}");
    }
    let mut description = Description::default();
    assert_eq!(description.parse(b"v=0", Span::new(1, 9)), Err(Malformed::NotSdp));
}

#[test]
fn fragments_need_no_version() {
    let text = b"a=ice-ufrag:x\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\na=candidate:1 1 UDP 1 10.0.1.1 8998 typ host\r\n";
    let mut description = Description::default();
    assert_eq!(description.parse_fragment(text, Span::new(0, text.len())), Ok(()));
    assert_eq!(description.candidates.len(), 1);
    assert_eq!(description.candidates[0].address.span.of(text), b"10.0.1.1");
    assert!(description.ice);
    assert_eq!(description.parse_fragment(b"", Span::new(0, 0)), Ok(()));
    assert_eq!(description, Description::default());
}

#[test]
fn lists_are_limited_and_a_failure_leaves_nothing_behind() {
    let mut description = Description::default();
    for (line, most) in [
        ("m=audio 1 x y\n", Description::MAX_MEDIA - 1),
        ("c=IN IP4 192.0.2.1\n", Description::MAX_CONNECTIONS),
        ("a=candidate:1 1 UDP 1 192.0.2.1 1 typ host\n", Description::MAX_CANDIDATES),
        ("a=remote-candidates:1 192.0.2.1 1\n", Description::MAX_CANDIDATES),
        ("a=path:msrp://h:1/x;tcp\n", Description::MAX_PATHS),
    ] {
        let text = |count| format!("v=0\nm=audio 1 x y\n{}", line.repeat(count));
        let mut parse = |text: String| description.parse(text.as_bytes(), Span::new(0, text.len()));
        assert_eq!(parse(text(most)), Ok(()), "{line}");
        assert_eq!(parse(text(most + 1)), Err(Malformed::TooMany), "{line}");
        assert_eq!(description, Description::default());
    }
}

#[test]
fn parsing_again_keeps_the_memory() {
    let mut description = Description::default();
    let mut parse = |text: &str| {
        description.parse(text.as_bytes(), Span::new(0, text.len())).unwrap();
        (description.media.capacity(), description.connections.capacity())
    };
    let before = parse(PLAIN);
    parse("v=0");
    assert_eq!(parse(PLAIN), before);
}
