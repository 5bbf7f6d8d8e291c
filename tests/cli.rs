//! The command line as people and scripts meet it: the real binary, its output and its exit codes; and that README says
//! what is so.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use etherparse::PacketBuilder;
use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use serde_json::{Value, json};
use sipalg::cli::Exit;
use sipalg::config::{SAMPLE, keys};
use tempfile::TempDir;

const README: &str = include_str!("../README.md");
const PHONE: &str = "192.168.1.10:5060";
const OTHER_PHONE: &str = "192.168.1.11:5060";
const PUBLIC: &str = "22.33.44.55:17375";
const SERVER: &str = "22.33.44.20:5060";

fn sipalg(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sipalg"))
        .args(args)
        .env_remove("JOURNAL_STREAM")
        .output()
        .expect("the binary runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it was not killed")
}

/// A directory of raw messages.
struct Messages(TempDir);

impl Messages {
    fn new(messages: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, text) in messages {
            fs::write(dir.path().join(name), text).expect("a file");
        }
        Self(dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// Explains `files`, each `out:NAME` or `in:NAME`, as messages of the phone, with further arguments.
    fn explain(&self, files: &[&str], more: &[&str]) -> Output {
        let files: Vec<String> = files
            .iter()
            .map(|file| {
                let (way, name) = file.split_once(':').expect("a direction");
                format!("{way}:{}", self.path(name))
            })
            .collect();
        let mut args = vec!["explain", "--inside", PHONE, "--outside", PUBLIC, "--peer", SERVER];
        args.extend(more);
        args.extend(files.iter().map(String::as_str));
        sipalg(&args)
    }
}

fn crlf(text: &str) -> String {
    text.replace('\n', "\r\n")
}

fn register(contact: &str) -> String {
    crlf(&format!(
        "REGISTER sip:provider.example SIP/2.0\n\
         Via: SIP/2.0/UDP {contact};branch=z9hG4bK-r;rport\n\
         From: <sip:alice@provider.example>;tag=a\n\
         To: <sip:alice@provider.example>\n\
         Call-ID: reg-1\n\
         CSeq: 1 REGISTER\n\
         Contact: <sip:alice@{contact};line=7>;expires=600\n\
         Content-Length: 0\n\n"
    ))
}

fn registered(contact: &str, rport: &str, received: &str) -> String {
    register(contact)
        .replace("REGISTER sip:provider.example SIP/2.0", "SIP/2.0 200 OK")
        .replace(";rport", &format!(";rport={rport};received={received}"))
}

fn invite(phone: &str, ip: &str, port: u16) -> String {
    let body =
        crlf(&format!("v=0\no=- 1 1 IN IP4 {ip}\ns=-\nc=IN IP4 {ip}\nt=0 0\nm=audio {port} RTP/AVP 0\n"));
    let length = body.len();
    crlf(&format!(
        "INVITE sip:bob@provider.example SIP/2.0\n\
         Via: SIP/2.0/UDP {phone};branch=z9hG4bK-i;rport\n\
         From: <sip:alice@provider.example>;tag=a\n\
         To: <sip:bob@provider.example>\n\
         Call-ID: call-1\n\
         CSeq: 1 INVITE\n\
         Contact: <sip:alice@{phone}>\n\
         Content-Type: application/sdp\n\
         Content-Length: {length}\n\n"
    )) + &body
}

fn json_lines(output: &Output) -> Vec<Value> {
    stdout(output).lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

#[test]
fn help_and_version_are_success_and_nonsense_is_usage() {
    let version = sipalg(&["--version"]);
    assert_eq!((code(&version), stdout(&version)), (0, format!("sipalg {}\n", env!("CARGO_PKG_VERSION"))));
    for command in ["run", "unload", "check", "lab", "explain"] {
        assert_eq!(code(&sipalg(&[command, "--help"])), 0, "{command}");
        assert_eq!(code(&sipalg(&[command, "--no-such-option"])), 2, "{command}");
    }
    assert_eq!(code(&sipalg(&[])), 2);
    assert_eq!(code(&sipalg(&["explain"])), 2);
    assert_eq!(code(&sipalg(&["explain", "--inside", PHONE, "file"])), 2, "an inside without an outside");
}

#[test]
fn a_wrong_configuration_is_one_message_with_file_line_and_nearest_key() {
    let files = Messages::new(&[("s.toml", "[media]\nprots = \"16384-32767\"\n")]);
    let file = files.path("s.toml");
    for command in ["run", "check"] {
        let output = sipalg(&[command, "--config", &file]);
        assert_eq!(code(&output), 2, "{command}");
        assert_eq!(
            stderr(&output),
            format!("sipalg: {file}, line 2: unknown key \"prots\" in [media]; did you mean \"ports\"?\n")
        );
        assert_eq!(stdout(&output), "");
    }
    let missing = sipalg(&["run", "--config", "/nonexistent/s.toml"]);
    assert_eq!(code(&missing), 2);
    assert_eq!(
        stderr(&missing),
        "sipalg: can't read /nonexistent/s.toml: No such file or directory (os error 2)\n"
    );
}

#[test]
fn one_engine_goes_through_all_messages_so_an_answer_restores_what_its_request_mapped() {
    let messages = Messages::new(&[
        ("register", &register("192.168.1.10")),
        ("200", &registered(PUBLIC, "17375", "22.33.44.55")),
    ]);
    let output = messages.path("result");
    let done = messages.explain(&["out:register", "in:200"], &["--output", &output]);
    assert_eq!((code(&done), stderr(&done).as_str()), (0, ""));
    let result = |name: &str| fs::read_to_string(Path::new(&output).join(name)).expect("the result is there");
    assert_eq!(result("register"), register(PUBLIC));
    assert_eq!(result("200"), registered("192.168.1.10", "5060", "192.168.1.10"));
}

#[test]
fn text_shows_each_changed_line_with_place_and_rule_and_what_was_opened() {
    let messages = Messages::new(&[("invite", &invite(PHONE, "192.168.1.10", 40000))]);
    let done = messages.explain(&["out:invite"], &[]);
    let path = messages.path("invite");
    let expected = format!(
        "{path}  INVITE sip:bob@provider.example SIP/2.0
  out      {PHONE} -> {SERVER}
  changed  rewritten: its addresses were translated
    via at byte 58
    - Via: SIP/2.0/UDP 192.168.1.10:5060;branch=z9hG4bK-i;rport
    + Via: SIP/2.0/UDP 22.33.44.55:17375;branch=z9hG4bK-i;rport
    contact at byte 227
    - Contact: <sip:alice@192.168.1.10:5060>
    + Contact: <sip:alice@22.33.44.55:17375>
    content-length at byte 294
    - Content-Length: 94
    + Content-Length: 92
    sdp-origin at byte 320
    - o=- 1 1 IN IP4 192.168.1.10
    + o=- 1 1 IN IP4 22.33.44.55
    sdp-connection at byte 348
    - c=IN IP4 192.168.1.10
    + c=IN IP4 22.33.44.55
    sdp-media-port at byte 377
    - m=audio 40000 RTP/AVP 0
    + m=audio 16384 RTP/AVP 0
"
    );
    let text = stdout(&done);
    assert_eq!(text.get(..expected.len()), Some(expected.as_str()), "{text}");
    assert!(text.contains("\n  opens    22.33.44.55:16384 -> 192.168.1.10:40000 for "), "{text}");
    assert!(text.contains("\n  opens    22.33.44.55:16385 -> 192.168.1.10:40001 for "), "{text}");
    assert!(text.ends_with(
        "1 message\n       1  rewritten\nopen at the end: 2 pinholes\n  \
         22.33.44.55:16384 -> 192.168.1.10:40000\n  22.33.44.55:16385 -> 192.168.1.10:40001\n"
    ));
}

#[test]
fn json_has_one_object_for_each_message_whose_edits_make_the_output() {
    let original = invite(PHONE, "192.168.1.10", 40000);
    let messages = Messages::new(&[("invite", &original), ("noise", "hello")]);
    let output = messages.path("result");
    let done = messages.explain(&["out:invite", "out:noise"], &["--json", "--output", &output]);
    assert_eq!(code(&done), 0);
    let lines = json_lines(&done);
    assert_eq!(lines.len(), 2);

    let it = &lines[0];
    assert_eq!(it["message"], json!(messages.path("invite")));
    assert_eq!(it["start-line"], "INVITE sip:bob@provider.example SIP/2.0");
    assert_eq!((&it["verdict"], &it["reason"]), (&json!("rewrite"), &json!("rewritten")));
    assert_eq!(
        (&it["direction"], &it["source"], &it["destination"]),
        (&json!("out"), &json!(PHONE), &json!(SERVER))
    );
    assert_eq!(
        it["edits"][0],
        json!({ "offset": 58, "length": 17, "old": "192.168.1.10:5060", "new": PUBLIC, "rule": "via" })
    );
    let open = it["commands"].as_array().expect("a list").iter().find(|command| command["op"] == "open");
    assert_eq!(
        open.expect("an opening")["pinholes"],
        json!([
            { "transport": "udp", "public": "22.33.44.55:16384", "inside": "192.168.1.10:40000" },
            { "transport": "udp", "public": "22.33.44.55:16385", "inside": "192.168.1.10:40001" },
        ])
    );

    // The edits, applied from the back by hand, are the file that was written.
    let mut text = original;
    for edit in it["edits"].as_array().expect("a list").iter().rev() {
        let number = |name: &str| edit[name].as_u64().expect("a number") as usize;
        let range = number("offset")..number("offset") + number("length");
        assert_eq!(text.get(range.clone()), edit["old"].as_str());
        text.replace_range(range, edit["new"].as_str().expect("text"));
    }
    assert_eq!(fs::read_to_string(Path::new(&output).join("invite")).expect("the result"), text);

    assert_eq!((&lines[1]["verdict"], &lines[1]["reason"]), (&json!("accept"), &json!("not_sip")));
    assert_eq!(lines[1]["edits"], json!([]));
    assert_eq!(fs::read_to_string(Path::new(&output).join("noise")).expect("the result"), "hello");
}

/// A message with inside addresses in places of all kinds.
fn telling() -> String {
    let body = crlf(
        "v=0\no=- 1 1 IN IP4 192.168.1.10\ns=at 192.168.1.10\nc=IN IP4 192.168.1.77\nt=0 0\n\
         m=audio 40000 RTP/AVP 0\na=candidate:1 1 TCP 9 192.168.1.10 9 typ host\n",
    );
    let length = body.len();
    crlf(&format!(
        "INVITE sip:bob@provider.example SIP/2.0\n\
         Via: SIP/2.0/UDP {PHONE};branch=z9hG4bK-i;rport\n\
         From: <sip:alice@192.168.1.10>;tag=a\n\
         To: <sip:bob@provider.example>\n\
         Call-ID: 1@192.168.1.10\n\
         CSeq: 1 INVITE\n\
         Contact: <sip:alice@{PHONE}>, <sip:alice@192.168.1.10.example>\n\
         Warning: 399 192.168.1.10 \"a \u{1b}[2J\"\n\
         Content-Type: application/sdp\n\
         Content-Length: {length}\n\n"
    )) + &body
}

#[test]
fn text_shows_every_inside_address_that_stays_and_why() {
    let messages = Messages::new(&[("invite", &telling())]);
    let text = stdout(&messages.explain(&["out:invite"], &[]));
    let leaves: Vec<&str> = text.lines().filter(|line| line.starts_with("  leaves")).collect();
    assert_eq!(
        leaves,
        [
            "  leaves   192.168.1.10 in From at byte 117: this header is never touched",
            "  leaves   192.168.1.10 in Call-ID at byte 181: this header is never touched",
            "  leaves   192.168.1.10 in Contact at byte 262: part of a host name",
            "  leaves   192.168.1.10 in Warning at byte 298: not a header that carries addresses for the NAT",
            "  leaves   192.168.1.10 in SDP s= at byte 414: not a place that carries addresses",
            "  leaves   192.168.1.10 in SDP a=candidate at byte 505: a TCP candidate",
        ],
        "{text}"
    );
    assert!(!text.contains('\u{1b}'), "{text}");
}

#[test]
fn json_lists_every_inside_address_that_stays_and_why() {
    let messages = Messages::new(&[("invite", &telling()), ("noise", "I am 192.168.1.10")]);
    let lines = json_lines(&messages.explain(&["out:invite", "out:noise"], &["--json"]));
    let left = |offset: u32, place: &str, reason: &str| json!({ "offset": offset, "text": "192.168.1.10", "where": place, "reason": reason });
    assert_eq!(
        lines[0]["left"],
        json!([
            left(117, "From", "never-touched"),
            left(181, "Call-ID", "never-touched"),
            left(262, "Contact", "host-name"),
            left(298, "Warning", "header-not-touched"),
            left(414, "SDP s=", "not-an-address"),
            left(505, "SDP a=candidate", "tcp-candidate"),
        ])
    );
    assert_eq!(lines[1]["left"], json!([left(5, "datagram", "message-untouched")]));

    // Every address of the original is told of: it was replaced, or it is in the list.
    let original = telling();
    let told = |at: usize| {
        let edits = lines[0]["edits"].as_array().expect("a list").iter();
        let start = |it: &Value| it["offset"].as_u64().expect("a number") as usize;
        let edited = edits.clone().any(|it| (start(it)..start(it) + 12).contains(&at));
        edited || lines[0]["left"].as_array().expect("a list").iter().any(|it| start(it) == at)
    };
    let places: Vec<usize> = original.match_indices("192.168.1.10").map(|(at, _)| at).collect();
    assert_eq!(places.len(), 9);
    assert!(places.into_iter().all(told));
}

#[test]
fn a_message_that_passes_untouched_leaves_all_its_addresses_for_that_reason() {
    let messages = Messages::new(&[("register", &register("192.168.1.10"))]);
    let file = messages.path("register");
    let done = sipalg(&["explain", "--json", "--inside", PHONE, "--outside", PHONE, "--peer", SERVER, &file]);
    let left = json_lines(&done)[0]["left"].clone();
    let reasons: Vec<&str> =
        left.as_array().expect("a list").iter().filter_map(|it| it["reason"].as_str()).collect();
    assert_eq!(reasons, ["message-untouched", "message-untouched"]);
}

#[test]
fn a_capture_also_tells_of_other_inside_hosts() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = capture(dir.path(), &[(PHONE, SERVER, &telling())]);
    let done = sipalg(&["explain", "--json", "--public", "22.33.44.55", file.to_str().expect("UTF-8")]);
    let left = json_lines(&done)[0]["left"].clone();
    let other = json!({ "offset": 437, "text": "192.168.1.77", "where": "SDP c=", "reason": "other-host" });
    assert!(left.as_array().expect("a list").contains(&other), "{left}");
}

#[test]
fn a_flow_without_nat_is_not_rewritten() {
    let messages = Messages::new(&[("register", &register("192.168.1.10"))]);
    let file = messages.path("register");
    let done = sipalg(&["explain", "--json", "--inside", PHONE, "--outside", PHONE, "--peer", SERVER, &file]);
    assert_eq!(json_lines(&done)[0]["reason"], "not_nated");
}

#[test]
fn settings_reach_the_engine_of_explain() {
    let messages = Messages::new(&[
        ("invite", &invite(PHONE, "192.168.1.10", 40000)),
        ("s.toml", "[media]\nports = \"20000-20999\"\n[sip]\nservers = [\"22.33.44.0/24\"]\n"),
    ]);
    let done = messages.explain(&["out:invite"], &["--json", "--config", &messages.path("s.toml")]);
    let edits = &json_lines(&done)[0]["edits"];
    assert!(edits.as_array().expect("a list").iter().any(|edit| edit["new"] == "20000"), "{edits}");
}

#[test]
fn what_cannot_be_explained_is_refused_in_one_line() {
    let messages = Messages::new(&[("message", &register("192.168.1.10"))]);
    let file = messages.path("message");

    let not_a_capture = sipalg(&["explain", &file]);
    assert_eq!(code(&not_a_capture), 2);
    let said = stderr(&not_a_capture);
    assert!(said.starts_with(&format!("sipalg: {file}: not a readable capture")), "{said}");
    assert!(said.contains("--inside ADDR:PORT --outside ADDR:PORT"), "{said}");

    let missing = sipalg(&["explain", "/nonexistent.pcap"]);
    assert_eq!((code(&missing), stderr(&missing).lines().count()), (2, 1));

    let mixed = sipalg(&["explain", "--inside", PHONE, "--outside", "[2001:db8::1]:5060", &file]);
    assert_eq!(code(&mixed), 2);
    assert_eq!(stderr(&mixed), "sipalg: --inside, --outside and --peer must all be IPv4 or all IPv6\n");

    let dir = messages.0.path().display().to_string();
    let onto_itself = messages.explain(&["out:message"], &["--output", &dir]);
    assert_eq!(code(&onto_itself), 2);
    assert_eq!(fs::read_to_string(&file).expect("the original"), register("192.168.1.10"));

    let oversized = Messages::new(&[("message", &"x".repeat(65_508))]);
    assert_eq!(code(&oversized.explain(&["out:message"], &[])), 2);
}

/// A capture of UDP packets between endpoints, one second apart, on Ethernet.
fn capture(dir: &Path, packets: &[(&str, &str, &str)]) -> PathBuf {
    let path = dir.join("capture.pcap");
    let header = PcapHeader { datalink: DataLink::ETHERNET, ..PcapHeader::default() };
    let file = fs::File::create(&path).expect("a file");
    let mut writer = PcapWriter::with_header(file, header).expect("a header");
    for (second, (source, destination, payload)) in (1..).zip(packets) {
        let (source, destination): (SocketAddr, SocketAddr) =
            (source.parse().expect("an endpoint"), destination.parse().expect("an endpoint"));
        let (SocketAddr::V4(source), SocketAddr::V4(destination)) = (source, destination) else {
            panic!("IPv4")
        };
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4(source.ip().octets(), destination.ip().octets(), 64)
            .udp(source.port(), destination.port());
        let mut bytes = Vec::new();
        builder.write(&mut bytes, payload.as_bytes()).expect("a packet");
        let length = bytes.len() as u32;
        writer.write_packet(&PcapPacket::new(Duration::from_secs(second), length, &bytes)).expect("a record");
    }
    path
}

#[test]
fn a_capture_goes_through_a_simulated_masquerade() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = capture(
        dir.path(),
        &[
            (PHONE, SERVER, &register("192.168.1.10")),
            (SERVER, PHONE, &registered("203.0.113.1", "5060", "203.0.113.1")),
            (OTHER_PHONE, SERVER, &register("192.168.1.11:5060")),
            ("192.168.1.10:40000", "22.33.44.22:30000", "rtp"),
            (PHONE, OTHER_PHONE, &register("192.168.1.10")),
        ],
    );
    let output = dir.path().join("result");
    let file = file.display().to_string();
    let done = sipalg(&["explain", "--json", "--output", &output.display().to_string(), &file]);
    assert_eq!((code(&done), stderr(&done).as_str()), (0, ""));
    let lines = json_lines(&done);
    let told: Vec<_> = lines
        .iter()
        .map(|it| (it["message"].as_str(), it["direction"].as_str(), it["reason"].as_str()))
        .map(|(message, direction, reason)| {
            (message.unwrap_or(""), direction.unwrap_or(""), reason.unwrap_or(""))
        })
        .collect();
    assert_eq!(
        told,
        [
            ("#1", "out", "rewritten"),
            ("#2", "in", "rewritten"),
            ("#3", "out", "rewritten"),
            ("#5", "through", "unchanged"),
        ]
    );

    let written = fs::File::open(output.join("capture.pcap")).expect("the result");
    let mut reader = PcapReader::new(written).expect("a capture");
    let mut payloads = Vec::new();
    while let Some(packet) = reader.next_packet() {
        let packet = packet.expect("a record");
        payloads.push(String::from_utf8(packet.data.get(28..).expect("headers").to_vec()).expect("text"));
    }
    assert_eq!(
        payloads,
        [
            // The port is kept, so it stays away where the phone left it away.
            register("203.0.113.1"),
            registered("192.168.1.10", "5060", "192.168.1.10"),
            // The port is taken by the first phone.
            register("203.0.113.1:5061"),
            "rtp".to_owned(),
            register("192.168.1.10"),
        ]
    );
}

#[test]
fn a_capture_from_the_wrong_side_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = capture(dir.path(), &[(PUBLIC, SERVER, &register(PUBLIC))]).display().to_string();
    let hint = "no message passed the NAT: was this captured inside?";
    let text = stdout(&sipalg(&["explain", &file]));
    assert!(text.contains(hint), "{text}");
    let named = stdout(&sipalg(&["explain", "--private", "22.33.44.55", &file]));
    assert!(!named.contains(hint), "{named}");
}

#[test]
fn time_passes_between_the_packets_of_a_capture() {
    let dir = tempfile::tempdir().expect("a directory");
    let late = "late";
    let mut packets = vec![(PHONE, SERVER, invite(PHONE, "192.168.1.10", 40000))];
    packets.extend((0..120).map(|_| (PHONE, SERVER, late.to_owned())));
    let packets: Vec<_> = packets.iter().map(|(from, to, text)| (*from, *to, text.as_str())).collect();
    let file = capture(dir.path(), &packets).display().to_string();
    let text = stdout(&sipalg(&["explain", &file]));
    assert!(text.contains("\nmeanwhile\n  closes   203.0.113.1:16384 -> 192.168.1.10:40000\n"), "{text}");
    assert!(text.ends_with("no pinhole is open at the end\n"), "{text}");

    let lines = json_lines(&sipalg(&["explain", "--json", &file]));
    assert_eq!(lines.len(), packets.len(), "one object for each message");
    let closing: Vec<_> = lines.iter().filter(|it| it["before"]["commands"][0]["op"] == "close").collect();
    assert_eq!(closing.len(), 1);
    assert_eq!(closing[0]["reason"], "not_sip", "what happened stands with the message that came next");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let messages = Messages::new(&[("register", &register("192.168.1.10"))]);
    let script = format!(
        "{} explain --inside {PHONE} --outside {PUBLIC} {} | head -c 1 >/dev/null; echo ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_sipalg"),
        messages.path("register")
    );
    let done = Command::new("bash").args(["-c", &script]).output().expect("bash");
    assert_eq!((stdout(&done).as_str(), stderr(&done).as_str()), ("0\n", ""));
}

#[test]
fn the_readme_lists_every_key_with_its_default() {
    let rows: Vec<(String, String)> = README
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.strip_prefix("| `")?.split(" | ").collect();
            let key = cells.first()?.strip_suffix('`')?;
            let default = cells.get(1)?;
            (cells.len() == 3 && (default.starts_with('`') || default.starts_with("see")))
                .then_some((key.to_owned(), (*default).to_owned()))
        })
        .collect();
    let expected: Vec<(String, String)> = {
        // The README follows the order of the sample, which a person would choose.
        let mut known = keys::all();
        let place = |key: &keys::Key| {
            let section = match key.section.as_str() {
                "" => 0,
                section => SAMPLE.find(&format!("[{section}]\n")).expect("the section is in the sample"),
            };
            let at = SAMPLE.get(section..).and_then(|rest| rest.find(&format!("# {} = ", key.name)));
            section + at.unwrap_or_else(|| panic!("{} is in the sample", key.path()))
        };
        known.sort_by_key(place);
        let shown = |key: &keys::Key| {
            if key.default.len() > 40 { "see the sample".to_owned() } else { format!("`{}`", key.default) }
        };
        known.iter().map(|key| (key.path(), shown(key))).collect()
    };
    assert_eq!(rows, expected);
}

#[test]
fn the_readme_lists_every_exit_code() {
    let table = README.split("### Exit codes").nth(1).expect("the part about exit codes");
    let codes: Vec<u8> = table
        .lines()
        .take_while(|line| !line.starts_with("## "))
        .filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse().ok())
        .collect();
    assert_eq!(codes, Exit::ALL.map(Exit::code));
    let help = stdout(&sipalg(&["--help"]));
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for code in codes {
        assert!(help.contains(&format!("{code} ")), "{code} is not in the help");
    }
}

#[test]
fn without_a_running_sipalg_every_question_says_so_with_a_code_of_its_own() {
    let dir = tempfile::tempdir().expect("a directory");
    let dead = dir.path().join("control.sock");
    // What a killed sipalg leaves behind.
    drop(std::os::unix::net::UnixListener::bind(&dead).expect("a socket"));
    for socket in [dead, dir.path().join("nothing")] {
        let socket = socket.display().to_string();
        for command in ["status", "calls", "registrations", "bindings", "reload"] {
            let asked = sipalg(&[command, "--socket", &socket]);
            let said = stderr(&asked);
            assert_eq!((code(&asked), stdout(&asked).as_str()), (8, ""), "{command}: {said}");
            assert!(
                said.contains(&format!("sipalg does not run here: nobody answers at {socket}")),
                "{said}"
            );
            assert!(said.contains("systemctl start sipalg"), "{said}");
        }
    }
}
