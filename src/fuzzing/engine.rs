//! The engine: scripts of datagrams, times, outcomes and disasters.
//!
//! The bytes are a script ([`Step`]), read with `arbitrary`: the settings first, then one step after the other until
//! they run out. Messages are given in full, or built from a few bytes, or made from the last one by a small change, so
//! that a fuzzer reaches deep states early. Two phones of a script may be behind the same NAT, and call each other.
//!
//! What must hold, for every script:
//!
//! 1. Every packet gets exactly one verdict, and one that waits is not asked for without end.
//! 2. A rewritten message is the old one but for its edits; it is a message again, with the same headers; the lengths
//!    and sums of its packet are right by a second, naive routine; From, To, Call-ID and CSeq are the same.
//! 3. A message that has been rewritten is not rewritten again, and one that is repeated becomes the same bytes.
//! 4. What an answer repeats of a request comes back as the phone wrote it.
//! 5. No table grows beyond its limit. After enough time all are empty, and if no command failed the kernel holds
//!    nothing of ours.
//! 6. Nothing is opened twice, closed twice, or relied on before it is open.
//! 7. The same script gives the same outputs.

use std::net::SocketAddr;
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};

use super::world::{Passed, World};
use crate::alg::{Failure, Limits, MediaLocal, MediaSource, OnFailure, Policy, Prefix, QueuePoint, Reason};
use crate::sip::{HeaderName, Message};

const PHONES: [&str; 4] = ["192.168.1.10:5060", "192.168.1.11:5060", "192.168.1.10:5062", "[fd00::10]:5060"];
const SERVERS: [&str; 2] = ["22.33.44.20:5060", "198.51.100.7:5080"];
const SERVER6: &str = "[2001:db8::20]:5060";
/// Longer scripts show nothing that shorter ones do not.
const MOST_STEPS: usize = 64;

/// Runs the script in `data`.
///
/// # Panics
/// If one of the things at the top of this module does not hold.
pub fn engine(data: &[u8]) {
    let first = Script::new(data).run(false);
    assert_eq!(Script::new(data).run(false), first, "the same script, other outputs");
    Script::new(data).run(true);
}

/// One step of a script: a byte that names it, then its own bytes. Numbers are little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// 0: from a phone to a server: who, length (u16), text.
    Out(Who, &'a [u8]),
    /// 1: from a server to a phone.
    In(Who, &'a [u8]),
    /// 2: a request that is built: who, method, dialog, media.
    Request(Who, u8, u8, u8),
    /// 3: an answer to the last request that the other side got: who, status, media.
    Answer(Who, u8, u8),
    /// 4: time passes, in units of 100 ms (u16).
    Time(u16),
    /// 5: conntrack forgets a flow.
    Destroy(Who),
    /// 6: the ruleset is flushed.
    Reload,
    /// 7: media to an endpoint: from where, to which.
    Media(u8, u8),
    /// 8: commands wait from now on (odd), or are answered at once (even).
    Answers(u8),
    /// 9: what becomes of the next commands: eight of them, two bits each.
    Fates(u16),
    /// 10: the oldest command that waits is answered.
    Done,
    /// 11: a packet at any point: point, length (u16), bytes.
    Packet(u8, &'a [u8]),
    /// 12: the last message once more, with a change: offset (u16), bytes to remove, length (u8), text to insert.
    Change(u16, u8, &'a [u8]),
}

/// Two bits of phone, one of server; the highest bit: the server speaks, and not the phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who(pub u8);

impl Who {
    fn ends(self) -> (SocketAddr, SocketAddr) {
        let at = |text: &str| text.parse().expect("a literal endpoint");
        let phone: SocketAddr = at(PHONES.get(usize::from(self.0 & 3)).copied().unwrap_or(PHONES[0]));
        let server = if phone.is_ipv6() { SERVER6 } else { SERVERS[usize::from(self.0 >> 2 & 1)] };
        (phone, at(server))
    }

    fn is_server(self) -> bool {
        self.0 & 0x80 != 0
    }
}

impl<'a> Step<'a> {
    fn read(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let kind = u8::arbitrary(u)?;
        let who = |u: &mut Unstructured<'a>| u8::arbitrary(u).map(Who);
        let text = |u: &mut Unstructured<'a>| {
            let length = usize::from(u16::arbitrary(u)?).min(u.len());
            u.bytes(length)
        };
        Ok(match kind % 13 {
            0 => Self::Out(who(u)?, text(u)?),
            1 => Self::In(who(u)?, text(u)?),
            2 => Self::Request(who(u)?, u8::arbitrary(u)?, u8::arbitrary(u)?, u8::arbitrary(u)?),
            3 => Self::Answer(who(u)?, u8::arbitrary(u)?, u8::arbitrary(u)?),
            4 => Self::Time(u16::arbitrary(u)?),
            5 => Self::Destroy(who(u)?),
            6 => Self::Reload,
            7 => Self::Media(u8::arbitrary(u)?, u8::arbitrary(u)?),
            8 => Self::Answers(u8::arbitrary(u)?),
            9 => Self::Fates(u16::arbitrary(u)?),
            10 => Self::Done,
            11 => Self::Packet(u8::arbitrary(u)?, text(u)?),
            _ => {
                let (at, remove) = (u16::arbitrary(u)?, u8::arbitrary(u)?);
                let length = usize::from(u8::arbitrary(u)?).min(u.len());
                Self::Change(at, remove, u.bytes(length)?)
            }
        })
    }

    /// Appends the bytes that are read as this step.
    pub fn write(&self, out: &mut Vec<u8>) {
        let text = |out: &mut Vec<u8>, text: &[u8]| {
            let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
            out.extend(length.to_le_bytes());
            out.extend(text.iter().take(length.into()));
        };
        match self {
            Self::Out(who, bytes) => {
                out.extend([0, who.0]);
                text(out, bytes);
            }
            Self::In(who, bytes) => {
                out.extend([1, who.0]);
                text(out, bytes);
            }
            Self::Request(who, method, dialog, media) => out.extend([2, who.0, *method, *dialog, *media]),
            Self::Answer(who, status, media) => out.extend([3, who.0, *status, *media]),
            Self::Time(units) => {
                out.push(4);
                out.extend(units.to_le_bytes());
            }
            Self::Destroy(who) => out.extend([5, who.0]),
            Self::Reload => out.push(6),
            Self::Media(far, index) => out.extend([7, *far, *index]),
            Self::Answers(wait) => out.extend([8, *wait]),
            Self::Fates(fates) => {
                out.push(9);
                out.extend(fates.to_le_bytes());
            }
            Self::Done => out.push(10),
            Self::Packet(point, bytes) => {
                out.extend([11, *point]);
                text(out, bytes);
            }
            Self::Change(at, remove, bytes) => {
                out.push(12);
                out.extend(at.to_le_bytes());
                let length = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
                out.extend([*remove, length]);
                out.extend(bytes.iter().take(length.into()));
            }
        }
    }
}

/// A script on its way.
struct Script<'a> {
    steps: Unstructured<'a>,
    world: World,
    /// The last message that was sent, and by whom.
    last: Option<(Who, Vec<u8>)>,
    /// The last request that reached a side: who sent it, as it was sent, as it came.
    request: [Option<Request>; 2],
    /// How many datagrams each phone has sent by each flow.
    sent: std::collections::BTreeMap<(SocketAddr, SocketAddr), usize>,
}

#[derive(Clone)]
struct Request {
    who: Who,
    sent: Vec<u8>,
    came: Vec<u8>,
    /// Whether it was the first datagram of its flow, and nothing has happened since.
    fresh: bool,
}

impl<'a> Script<'a> {
    fn new(data: &'a [u8]) -> Self {
        let mut steps = Unstructured::new(data);
        let settings = u8::arbitrary(&mut steps).unwrap_or_default();
        Self {
            steps,
            world: World::new(policy(settings), settings & 0x10 == 0),
            last: None,
            request: [None, None],
            sent: std::collections::BTreeMap::new(),
        }
    }

    /// Runs it to its end. If it `probes`, every message that was rewritten is sent again, as it was and as it became.
    fn run(mut self, probes: bool) -> u64 {
        for _ in 0..MOST_STEPS {
            if self.steps.is_empty() {
                break;
            }
            let Ok(step) = Step::read(&mut self.steps) else { break };
            self.step(step, probes);
        }
        self.world.end()
    }

    fn step(&mut self, step: Step<'_>, probes: bool) {
        if matches!(step, Step::Time(_) | Step::Destroy(_) | Step::Reload) {
            self.request.iter_mut().flatten().for_each(|request| request.fresh = false);
        }
        let world = &mut self.world;
        match step {
            Step::Out(Who(who), text) => drop(self.say(Who(who & 0x7f), text, probes)),
            Step::In(Who(who), text) => drop(self.say(Who(who | 0x80), text, probes)),
            Step::Request(who, method, dialog, media) => {
                let text = self.build(who, method, dialog, media);
                let _ = self.say(who, &text, probes);
            }
            Step::Answer(who, status, media) => self.respond(who, status, media, probes),
            Step::Time(units) => world.advance(Duration::from_millis(100) * u32::from(units)),
            Step::Destroy(who) => {
                let (phone, server) = who.ends();
                self.sent.remove(&(phone, server));
                world.destroy(phone, server);
            }
            Step::Reload => world.reload(),
            Step::Media(far, index) => {
                let far = SocketAddr::new([22, 33, 44, 22 + (far & 1)].into(), 30_000 + u16::from(far >> 1));
                world.media(far, index.into());
            }
            Step::Answers(wait) => world.answers = wait & 1 == 0,
            Step::Fates(fates) => {
                let fate = |bits: u16| match bits & 3 {
                    0 => None,
                    1 => Some(Failure::PortInUse),
                    2 => Some(Failure::Full),
                    _ => Some(Failure::Kernel(5)),
                };
                world.fates.extend((0..16).step_by(2).map(|shift| fate(fates >> shift)));
            }
            Step::Done => world.answer(),
            Step::Packet(point, bytes) => {
                let all = QueuePoint::ALL;
                let devices = (u32::from(point >> 2 & 3), u32::from(point >> 4 & 3));
                if let Some(point) = all.get(usize::from(point & 3)) {
                    world.packet(*point, devices, bytes);
                }
            }
            Step::Change(at, remove, insert) => {
                let Some((who, mut text)) = self.last.clone() else { return };
                let at = usize::from(at) % (text.len() + 1);
                let end = (at + usize::from(remove)).min(text.len());
                text.splice(at..end, insert.iter().copied());
                let _ = self.say(who, &text, probes);
            }
        }
    }

    /// Sends `text`, whoever speaks. The answer is what became of it, unless it has to wait.
    fn say(&mut self, who: Who, text: &[u8], probes: bool) -> Option<Passed> {
        let (phone, server) = who.ends();
        self.last = Some((who, text.to_vec()));
        for request in self.request.iter_mut().flatten() {
            request.fresh = false;
        }
        let count = self.sent.entry((phone, server)).or_default();
        *count += usize::from(!who.is_server());
        let first = *count == 1 && !who.is_server();
        let passed = self.pass(who, text)?;
        let Passed { reason, payload: Some(came) } = &passed else { return Some(passed) };
        if text.first().is_some_and(u8::is_ascii_uppercase) && !text.starts_with(b"SIP/2.0") {
            let fresh = first && *reason == Reason::Rewritten;
            let request = Request { who, sent: text.to_vec(), came: came.clone(), fresh };
            self.request[usize::from(who.is_server())] = Some(request);
        }
        if probes && *reason == Reason::Rewritten && self.world.is_calm() && !ends_something(text) {
            let again = self.pass(who, text).and_then(|passed| passed.payload);
            assert_eq!(again.as_deref(), Some(&came[..]), "a retransmission becomes other bytes");
            if !who.is_server() {
                let second = self.pass(who, came).and_then(|passed| passed.payload);
                assert_eq!(second.as_deref(), Some(&came[..]), "it is rewritten once more");
            }
        }
        Some(passed)
    }

    fn pass(&mut self, who: Who, text: &[u8]) -> Option<Passed> {
        let (phone, server) = who.ends();
        if who.is_server() {
            self.world.receive(phone, server, text)
        } else {
            self.world.send(phone, server, text)
        }
    }

    /// Answers the last request that this side got, repeating what RFC 3261 section 8.2.6.2 says.
    fn respond(&mut self, who: Who, status: u8, media: u8, probes: bool) {
        let Some(request) = self.request[usize::from(!who.is_server())].clone() else { return };
        let who = Who(request.who.0 ^ 0x80);
        const STATUS: [&str; 8] = [
            "100 Trying",
            "180 Ringing",
            "183 Progress",
            "200 OK",
            "401 No",
            "487 Gone",
            "486 Busy",
            "302 Moved",
        ];
        let mut head = format!("SIP/2.0 {}\r\n", STATUS[usize::from(status & 7)]).into_bytes();
        let mut copies = false;
        for line in request.came.split(|byte| *byte == b'\n').skip(1) {
            if matches!(line, b"" | b"\r") {
                break;
            }
            let is_fold = line.first().is_some_and(|byte| b" \t".contains(byte));
            if !is_fold {
                let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
                let name = HeaderName::of(name.trim_ascii());
                use HeaderName::{CSeq, CallId, From, RecordRoute, To, Via};
                copies = matches!(name, Via | From | To | CallId | CSeq | RecordRoute);
                if name == To && status & 7 != 0 && !line.windows(5).any(|part| part == b";tag=") {
                    let line = line.strip_suffix(b"\r").unwrap_or(line);
                    head.extend_from_slice(line);
                    head.extend_from_slice(format!(";tag=t{}\r\n", status >> 6).as_bytes());
                    copies = false;
                }
            }
            if copies {
                head.extend_from_slice(line);
                head.push(b'\n');
            }
        }
        let contact = self.own_text(who);
        head.extend_from_slice(format!("Contact: <sip:x@{contact}>;expires=60\r\n").as_bytes());
        let text = with_body(head, &self.description(who, media));
        let (phone, server) = who.ends();
        let same_flow = self.world.public(phone, server);
        let said = self.say(who, &text, probes);
        let Some(Passed { reason: Reason::Rewritten | Reason::Unchanged, payload: Some(came) }) = said else {
            return;
        };
        // The Via came back as the phone wrote it. (What it wrote of our public side is ours to change.)
        let via = top_via(&request.sent);
        let ours = same_flow.map(|it| it.ip().to_string()).unwrap_or_default();
        let is_plain = via.as_ref().is_some_and(|via| via.len() < 100 && !contains(via, ours.as_bytes()));
        if who.is_server() && request.fresh && is_plain && !probes {
            assert_eq!(top_via(&came), via, "the Via comes back otherwise than it was");
        }
    }

    /// A request as a phone or a server writes it.
    fn build(&self, who: Who, method: u8, dialog: u8, media: u8) -> Vec<u8> {
        const METHODS: [&str; 8] =
            ["INVITE", "ACK", "BYE", "CANCEL", "REGISTER", "UPDATE", "OPTIONS", "REFER"];
        let name = METHODS[usize::from(method & 7)];
        let own = self.own_text(who);
        let (call, tags) = (dialog & 7, dialog >> 3 & 3);
        let branch = dialog >> 5;
        let to = if method & 8 != 0 { format!(";tag=t{tags}") } else { String::new() };
        let (from, to) = if who.is_server() && method & 8 != 0 {
            (format!(";tag=t{tags}"), ";tag=f".to_owned())
        } else {
            (";tag=f".to_owned(), to)
        };
        let target = if who.is_server() {
            let (phone, server) = who.ends();
            self.world.public(phone, server).map_or("nobody".to_owned(), |public| public.to_string())
        } else {
            "provider.example".to_owned()
        };
        let refer =
            if name == "REFER" { format!("Refer-To: <sip:y@{own}?Replaces=1>\r\n") } else { String::new() };
        let route = if method & 16 != 0 {
            format!("Record-Route: <sip:{own};lr>, <sip:p;lr>\r\n")
        } else {
            String::new()
        };
        let head = format!(
            "{name} sip:x@{target} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK{call}{name}{branch};rport\r\n{route}\
             Max-Forwards: 70\r\nFrom: <sip:a@provider.example>{from}\r\nTo: <sip:b@provider.example>{to}\r\n\
             Call-ID: call{call}\r\nCSeq: {branch} {name}\r\nContact: <sip:x@{own}>\r\n{refer}"
        );
        with_body(head.into_bytes(), &self.description(who, media))
    }

    fn own_text(&self, who: Who) -> String {
        let (phone, server) = who.ends();
        (if who.is_server() { server } else { phone }).to_string()
    }

    /// A description, or nothing. The server's may name an endpoint of ours: the other phone's; the phone's own may do so
    /// because it has asked a STUN server.
    fn description(&self, who: Who, media: u8) -> String {
        let (phone, server) = who.ends();
        let public = self.world.public(phone, server).filter(|_| media & 0x10 != 0);
        let ip = match public {
            Some(public) => public.ip(),
            None if who.is_server() => server.ip(),
            None => phone.ip(),
        };
        let family = if ip.is_ipv4() { "IP4" } else { "IP6" };
        let port = if who.is_server() { 16_384 } else { 40_000 } + u16::from(media >> 5) * 2;
        let head = format!("v=0\r\no=- 1 1 IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n");
        let rest = match media & 15 {
            0 => return String::new(),
            1 => format!("m=audio {port} RTP/AVP 0\r\n"),
            2 => format!(
                "m=audio {port} RTP/AVP 0\r\na=rtcp:{}\r\nm=video {} RTP/AVP 96\r\na=rtcp-mux\r\n",
                port + 9,
                port + 20
            ),
            3 => format!("m=audio {port} RTP/AVP 0\r\nc=IN IP4 0.0.0.0\r\n"),
            4 => format!(
                "m=audio {port} UDP/TLS/RTP/SAVPF 0\r\na=candidate:1 1 UDP 1 {ip} {port} typ host\r\na=candidate:1 2 UDP 1 {ip} {} typ host\r\n",
                port + 1
            ),
            5 => format!("m=audio {port}/3 RTP/AVP 0\r\n"),
            6 => {
                format!("m=audio {port} RTP/AVP 0\r\na=rtcp:{} IN {family} {ip}\r\na=sendonly\r\n", port + 1)
            }
            7 => format!("m=audio {port} RTP/AVP 0\r\nc=IN {family} phone.example\r\n"),
            8 => "m=audio 0 RTP/AVP 0\r\n".to_owned(),
            9 => "m=audio 3306 RTP/AVP 0\r\n".to_owned(),
            10 => format!("m=image {port} udptl t38\r\n"),
            11 => {
                let role = ["active", "passive", "actpass", "holdconn"].get(usize::from(media >> 5 & 3));
                let role = role.unwrap_or(&"");
                format!(
                    "m=message {port} TCP/MSRP *\r\na=setup:{role}\r\na=path:msrp://{ip}:{port}/s;tcp\r\n"
                )
            }
            12 => format!("m=audio {port} RTP/AVP 0\r\na=remote-candidates:1 22.33.44.55 16384\r\n"),
            13 => format!("m=audio {port} RTP/AVP 0\r\nm=audio {port} RTP/AVP 8\r\n"),
            14 => format!("m=audio {port} RTP/AVP 0\r\nc=IN {family} {ip}\r\nm=video 65535 RTP/AVP 96\r\n"),
            _ => format!("m=audio {} RTP/AVP 0\r\na=inactive\r\n", port + 1),
        };
        head + &rest
    }
}

/// Settings by bits.
fn policy(bits: u8) -> Policy {
    let mut policy = Policy { media_tcp: true, ..Policy::default() };
    let is = |bit: u8| bits & bit != 0;
    if is(1) {
        policy.on_failure = OnFailure::Drop;
    }
    if is(2) {
        policy.media_source = MediaSource::Any;
    }
    if is(4) {
        policy.media_local = MediaLocal::Hairpin;
    }
    if is(8) {
        policy.limits = Limits {
            flows: 3,
            transactions: 4,
            calls: 2,
            registrations: 1,
            bindings: 6,
            bindings_per_host: 4,
            per_host: 3,
            transactions_per_host: 3,
            openings_per_minute: 8,
            parked: 2,
            ..Limits::default()
        };
    }
    if is(0x20) {
        policy.ports = 16_384..=16_391;
    }
    if is(0x40) {
        policy.servers = vec![Prefix { address: [22, 33, 44, 0].into(), bits: 24 }];
    }
    if is(0x80) {
        policy.inside_hosts = vec![Prefix { address: [192, 168, 1, 0].into(), bits: 24 }];
    }
    policy
}

fn with_body(mut head: Vec<u8>, body: &str) -> Vec<u8> {
    if !body.is_empty() {
        head.extend_from_slice(b"Content-Type: application/sdp\r\n");
    }
    head.extend_from_slice(format!("Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
    head
}

/// Answers end what their request opened, also if they describe it themselves; so a copy of them meets other tables.
fn ends_something(text: &[u8]) -> bool {
    let mut message = Message::default();
    message.parse(text).is_ok() && matches!(message.start(), crate::sip::StartLine::Status { code: 200.. })
}

fn top_via(text: &[u8]) -> Option<Vec<u8>> {
    let mut message = Message::default();
    message.parse(text).ok()?;
    Some(message.first(HeaderName::Via)?.value.of(text).to_vec())
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    part.is_empty() || text.windows(part.len()).any(|window| window == part)
}
