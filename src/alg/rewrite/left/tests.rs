//! Text in, places and reasons out.

use super::*;

const OWN: &str = "192.168.1.10";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Where and why every inside address of `text` is left, if nothing is edited.
fn told(direction: Direction, own: &str, text: &str) -> Vec<String> {
    let bytes = text.as_bytes();
    let is_inside = |ip: IpAddr| matches!(ip, IpAddr::V4(ip) if ip.is_private());
    left(bytes, direction, ip(own), is_inside, true, &[])
        .iter()
        .map(|it| {
            let written = String::from_utf8_lossy(it.span.of(bytes)).into_owned();
            format!("{written} in {}: {}", it.place.text(bytes), it.why.name())
        })
        .collect()
}

fn outbound(headers: &str, body: &str) -> Vec<String> {
    let text = format!("INVITE sip:h SIP/2.0\n{headers}\n\n{body}").replace('\n', "\r\n");
    told(Direction::Outbound, OWN, &text)
}

#[test]
fn addresses_are_found_in_any_text() {
    let all = |text: &str| -> Vec<String> {
        let found = addresses(text.as_bytes());
        found
            .map(|(span, ip)| format!("{}={ip}", String::from_utf8_lossy(span.of(text.as_bytes()))))
            .collect()
    };
    assert_eq!(all("a@192.168.1.10:5060, x192.0.2.1."), ["192.168.1.10=192.168.1.10", "192.0.2.1=192.0.2.1"]);
    assert_eq!(all("bad192.0.2.1 192.0.2.1.5 1192.0.2.1 192.0.2.01"), ["192.0.2.1=192.0.2.1"]);
    assert_eq!(all("[FD00::10]:5060 fd00::10"), ["FD00::10=fd00::10", "fd00::10=fd00::10"]);
    assert_eq!(all("12:30:45 a:b ... ::: "), Vec::<String>::new());
    assert_eq!(all("192.168.1.10:5060"), ["192.168.1.10=192.168.1.10"]);
    assert_eq!(all(""), Vec::<String>::new());
}

#[test]
fn every_header_has_its_reason() {
    for (header, expected) in [
        ("From: <sip:a@192.168.1.10>;tag=1", "192.168.1.10 in From: never-touched"),
        ("i: 7@192.168.1.10", "192.168.1.10 in i: never-touched"),
        ("Warning: 399 192.168.1.10 \"x\"", "192.168.1.10 in Warning: header-not-touched"),
        ("Contact: <sip:a@192.168.1.10.example>", "192.168.1.10 in Contact: host-name"),
        ("Contact: <sip:a@192.168.1.77>", "192.168.1.77 in Contact: other-host"),
        ("Contact: <sip:a@192.168.1.10:5070>", "192.168.1.10 in Contact: indistinct"),
        ("m: \"192.168.1.10\" <sip:a@h>", "192.168.1.10 in m: not-an-address"),
        ("Contact: <sip:192.168.1.10@h>", "192.168.1.10 in Contact: not-the-host"),
        ("Contact: <sip:h;x=192.168.1.10>", "192.168.1.10 in Contact: not-the-host"),
        ("Refer-To: <https://192.168.1.10/x>", "192.168.1.10 in Refer-To: other-scheme"),
        ("Via: SIP/2.0/UDP h, SIP/2.0/UDP 192.168.1.10", "192.168.1.10 in Via: lower-via"),
        ("Via: SIP/2.0/UDP h\nVia: SIP/2.0/UDP 192.168.1.10", "192.168.1.10 in Via: lower-via"),
        ("Via: SIP/2.0/UDP h;received=192.168.1.10", "192.168.1.10 in Via: other-way"),
        ("Via: SIP/2.0/UDP 192.168.1.77", "192.168.1.77 in Via: other-host"),
        ("Via: SIP/2.0/UDP h;branch=z9hG4bK192.168.1.10", "192.168.1.10 in Via: not-an-address"),
    ] {
        assert_eq!(outbound(header, ""), [expected], "{header}");
    }
    let text = "INVITE sip:a@192.168.1.10 SIP/2.0\r\nContact: <sip:b@192.168.1.10>\r\n\r\n";
    let both = ["192.168.1.10 in start line: other-way", "192.168.1.10 in Contact: other-way"];
    assert_eq!(told(Direction::Inbound, OWN, text), both);
    let text = "SIP/2.0 404 192.168.1.10\r\n\r\n";
    assert_eq!(told(Direction::Inbound, OWN, text), ["192.168.1.10 in start line: not-an-address"]);
    let text = "SIP/2.0 200 OK\r\nContact: <sip:[fd00::10]:5060>, <sip:fd00::10.x>\r\n\r\n";
    let both = ["fd00::10 in Contact: other-way", "fd00::10 in Contact: other-scheme"];
    assert_eq!(told(Direction::Inbound, "fd00::10", text), both);
}

#[test]
fn every_line_of_a_description_has_its_reason() {
    for (line, expected) in [
        ("s=call of 192.168.1.10", "192.168.1.10 in SDP s=: not-an-address"),
        ("a=tool:x 192.168.1.10", "192.168.1.10 in SDP a=tool: not-an-address"),
        ("c=IN IP4 192.168.1.77", "192.168.1.77 in SDP c=: other-host"),
        ("c=IN IP4 192.168.1.10.example", "192.168.1.10 in SDP c=: host-name"),
        (
            "m=a 1 x y\na=candidate:1 1 TCP 1 192.168.1.10 9 typ host",
            "192.168.1.10 in SDP a=candidate: tcp-candidate",
        ),
        (
            "m=a 1 x y\na=candidate:1 1 UDP 1 192.168.1.10 9 typ relay",
            "192.168.1.10 in SDP a=candidate: not-host-candidate",
        ),
        (
            "m=a 1 x y\na=candidate:1 1 UDP 1 192.0.2.1 9 typ srflx raddr 192.168.1.10 rport 9",
            "192.168.1.10 in SDP a=candidate: related-address",
        ),
        (
            "m=a 1 x y\na=candidate:1 1 UDP 1 192.168.1.10 9 typ host",
            "192.168.1.10 in SDP a=candidate: nothing-opened",
        ),
        (
            "m=a 1 TCP/MSRP *\na=path:msrp://192.168.1.10:7/s;tcp",
            "192.168.1.10 in SDP a=path: nothing-opened",
        ),
    ] {
        let body = format!("v=0\n{line}\n");
        assert_eq!(outbound("Content-Type: application/sdp", &body), [expected], "{line}");
    }
}

#[test]
fn other_bodies_have_theirs() {
    let sdp = "v=0\nc=IN IP4 192.168.1.10";
    assert_eq!(outbound("c: text/plain", sdp), ["192.168.1.10 in body: other-body"]);
    assert_eq!(
        outbound("c: application/sdp\nIdentity: \"c2lnbmVk\"", sdp),
        ["192.168.1.10 in SDP c=: protected-body"]
    );
    assert_eq!(outbound("c: application/sdp\ne: gzip", sdp), ["192.168.1.10 in body: protected-body"]);
    assert_eq!(outbound("c: application/sdp\nl: 5", sdp), ["192.168.1.10 in body: behind-body"]);
}

#[test]
fn what_is_edited_or_not_touched_at_all_is_told_apart() {
    let text = b"BYE sip:h SIP/2.0\r\nContact: <sip:192.168.1.10:5060>\r\nFrom: 192.168.1.10\r\n\r\n";
    let at = 33;
    assert_eq!(&text[at..at + 12], b"192.168.1.10");
    let edited = [Span::new(at, at + 17)];
    let rest = left(text, Direction::Outbound, ip(OWN), |_| false, true, &edited);
    assert_eq!(rest.iter().map(|it| it.why).collect::<Vec<_>>(), [Why::NeverTouched]);
    let all = left(text, Direction::Outbound, ip(OWN), |_| false, false, &[]);
    assert_eq!(all.iter().map(|it| it.why).collect::<Vec<_>>(), [Why::MessageUntouched; 2]);
    let noise = left(b"at 192.168.1.10", Direction::Outbound, ip(OWN), |_| false, true, &[]);
    assert_eq!((noise[0].place, noise[0].why), (Place::Datagram, Why::MessageUntouched));
}

#[test]
fn reasons_have_names_of_their_own() {
    let mut names: Vec<_> = Why::ALL.iter().map(|why| why.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Why::ALL.len());
}
