//! An engine that knows a call, and the way of one of its packets.
//!
//! The kernel is played here: conntrack knows the phone's flow as masqueraded, and every command succeeds. What a
//! user of this measures or counts is [`KnownDialog::translate`] and [`KnownDialog::pass`], which ask nothing of the
//! kernel any more.

use std::net::SocketAddr;
use std::time::Instant;

use etherparse::PacketBuilder;
use sipalg::alg::{
    Action, CommandId, Engine, Input, Op, Outcome, Output, PacketId, PacketIn, Policy, QueuePoint, Reply,
    Tuples,
};
use sipalg::packet::{Datagram, Identity};

use super::invite::Invite;

/// The phone, the provider, and what the phone looks like from there.
const ENDPOINTS: [([u8; 4], u16); 3] =
    [([192, 168, 1, 10], 5060), ([22, 33, 44, 20], 5060), ([22, 33, 44, 55], 17375)];

/// Which way a message goes.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    Out,
    In,
}

/// The packet that carries the phone's INVITE.
pub(crate) fn packet() -> Vec<u8> {
    carry(Way::Out, &invite())
}

fn invite() -> Vec<u8> {
    Invite::new(10, 1, 40_000).bytes
}

/// What phone and provider say once the call is known, in this order.
pub(crate) struct Talk {
    /// The provider's 200 with its description.
    pub(crate) answer: Vec<u8>,
    /// The phone's INVITE within the dialog, with its description.
    pub(crate) reinvite: Vec<u8>,
    /// The provider's INFO to the phone's Contact.
    pub(crate) request: Vec<u8>,
}

impl Talk {
    /// The packets, made from the INVITE.
    pub(crate) fn new() -> Self {
        let invite = String::from_utf8(invite()).expect("the INVITE is ASCII");
        let value = |name: &str| {
            let line = invite.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.expect("the INVITE has this header").to_owned()
        };
        let (from, to, id) = (value("From"), format!("{};tag=far", value("To")), value("Call-ID"));
        let via = value("Via").replace("192.168.1.10:5060", "22.33.44.55:17375");
        let via = via.replace(";rport", ";received=22.33.44.55;rport=17375");
        let body = "v=0\r\no=- 1 1 IN IP4 22.33.44.20\r\ns=-\r\nc=IN IP4 22.33.44.20\r\nt=0 0\r\n\
                    m=audio 30000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n";
        let answer = format!(
            "SIP/2.0 200 OK\r\nVia: {via}\r\nFrom: {from}\r\nTo: {to}\r\nCall-ID: {id}\r\nCSeq: 1 INVITE\r\n\
             Contact: <sip:bob@22.33.44.20>\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let request = format!(
            "INFO sip:alice@22.33.44.55:17375;transport=udp SIP/2.0\r\n\
             Via: SIP/2.0/UDP 22.33.44.20:5060;branch=z9hG4bKinfo\r\nFrom: {to}\r\nTo: {from}\r\n\
             Call-ID: {id}\r\nCSeq: 7 INFO\r\nContent-Length: 0\r\n\r\n"
        );
        let reinvite = invite.replace("1 INVITE", "2 INVITE").replace("z9hG4bK", "z9hG4bKre");
        let reinvite = reinvite.replace(&value("To"), &to);
        Self {
            answer: carry(Way::In, answer.as_bytes()),
            reinvite: carry(Way::Out, reinvite.as_bytes()),
            request: carry(Way::In, request.as_bytes()),
        }
    }
}

/// The packet that carries `message` between phone and provider, as FORWARD sees it.
fn carry(way: Way, message: &[u8]) -> Vec<u8> {
    let [phone, provider, _] = ENDPOINTS;
    let ((source, source_port), (destination, destination_port)) = match way {
        Way::Out => (phone, provider),
        Way::In => (provider, phone),
    };
    let mut packet = Vec::new();
    PacketBuilder::ipv4(source, destination, 64)
        .udp(source_port, destination_port)
        .write(&mut packet, message)
        .expect("the message fits a packet");
    packet
}

/// An engine that has translated the phone's INVITE before.
pub(crate) struct KnownDialog {
    engine: Engine,
    packet: Vec<u8>,
    rebuilt: Vec<u8>,
    now: Instant,
}

/// What the engine wants, without the references to it.
enum Wish {
    Answer(CommandId, Outcome),
    Again,
    Rewritten,
}

impl KnownDialog {
    /// Hands the INVITE to a new engine and answers its questions, until it translates the message.
    ///
    /// # Panics
    /// If it does anything else with it.
    pub(crate) fn new() -> Self {
        let mut it = Self {
            engine: Engine::new(Policy::default()),
            packet: packet(),
            rebuilt: Vec::new(),
            now: Instant::now(),
        };
        let packet = it.packet.clone();
        it.meet(Way::Out, &packet);
        it.translate();
        it
    }

    /// Hands a packet in and answers the engine's questions, until it translates the message.
    ///
    /// # Panics
    /// If it does anything else with it.
    pub(crate) fn meet(&mut self, way: Way, packet: &[u8]) {
        // A lookup and an opening, with room for an engine that asks for more.
        for _ in 0..16 {
            self.engine.handle(self.now, Input::Packet(packet_in(way, packet)));
            let mut wishes = self.wishes();
            while let Some(wish) = wishes.pop() {
                match wish {
                    Wish::Answer(id, outcome) => {
                        self.engine.handle(self.now, Input::CommandDone { id, outcome });
                        wishes.extend(self.wishes());
                    }
                    Wish::Again => {}
                    Wish::Rewritten => return,
                }
            }
        }
        panic!("the engine does not come to a verdict");
    }

    /// One packet's whole way through the daemon, without the kernel: the message is parsed, translated and written
    /// into a packet. The result stays valid until the next call.
    ///
    /// # Panics
    /// If the engine does anything but translate it at once.
    pub(crate) fn translate(&mut self) -> &[u8] {
        let packet = std::mem::take(&mut self.packet);
        self.pass(Way::Out, &packet);
        self.packet = packet;
        &self.rebuilt
    }

    /// The same with another packet, which the engine must have met before.
    ///
    /// # Panics
    /// If the engine does anything but translate it at once.
    pub(crate) fn pass(&mut self, way: Way, packet: &[u8]) -> &[u8] {
        let Self { engine, rebuilt, now, .. } = self;
        engine.handle(*now, Input::Packet(packet_in(way, packet)));
        let mut verdicts = 0;
        while let Some(output) = engine.poll_output() {
            let Output::Verdict(verdict) = output else { panic!("not a known dialog: {output:?}") };
            let Action::Rewrite { edits, identity, spare_identity } = verdict.action else {
                panic!("not rewritten: {:?}", verdict.reason);
            };
            let identity = Identity { set: identity, spare: spare_identity };
            Datagram::parse(packet)
                .expect("the packet is a datagram")
                .rebuild(|payload, out| edits.apply(payload, out), identity, 1500, rebuilt)
                .expect("the packet stays small");
            verdicts += 1;
        }
        assert_eq!(verdicts, 1, "one packet, one verdict");
        rebuilt
    }

    /// The same without writing the packet: how many places were changed.
    ///
    /// # Panics
    /// If the engine does anything but translate it at once.
    pub(crate) fn edit(&mut self) -> usize {
        let mut places = 0;
        self.engine.handle(self.now, Input::Packet(packet_in(Way::Out, &self.packet)));
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Verdict(verdict) => match verdict.action {
                    Action::Rewrite { edits, .. } => places += edits.len(),
                    Action::Accept { .. } | Action::Replace { .. } | Action::Drop => {
                        panic!("not rewritten: {:?}", verdict.reason)
                    }
                },
                Output::Command(_) | Output::Again(_) | Output::Event(_) => {
                    panic!("not a known dialog: {output:?}")
                }
            }
        }
        places
    }

    fn wishes(&mut self) -> Vec<Wish> {
        let mut wishes = Vec::new();
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Command(command) => wishes.push(Wish::Answer(command.id, Ok(answer(&command.op)))),
                Output::Again(_) => wishes.push(Wish::Again),
                Output::Verdict(verdict) => {
                    let rewritten = matches!(verdict.action, Action::Rewrite { .. });
                    assert!(rewritten, "not rewritten: {:?}", verdict.reason);
                    wishes.push(Wish::Rewritten);
                }
                Output::Event(_) => {}
            }
        }
        wishes
    }
}

fn packet_in(way: Way, bytes: &[u8]) -> PacketIn<'_> {
    let (indev, outdev) = match way {
        Way::Out => (2, 3),
        Way::In => (3, 2),
    };
    PacketIn { id: PacketId(1), point: QueuePoint::Signalling, indev, outdev, bytes }
}

/// conntrack's view of the phone's flow; everything else is done as asked.
fn answer(op: &Op) -> Reply {
    let [phone, provider, public] = ENDPOINTS.map(SocketAddr::from);
    match op {
        Op::Recognise { .. } => Reply::Found(None),
        Op::Lookup { .. } => Reply::Found(Some(Tuples {
            transport: sipalg::alg::Transport::Udp,
            orig_source: phone,
            orig_destination: provider,
            reply_source: provider,
            reply_destination: public,
        })),
        Op::Open { .. }
        | Op::Follow { .. }
        | Op::Unfollow { .. }
        | Op::Reset { .. }
        | Op::Renew { .. }
        | Op::Close { .. }
        | Op::Admit { .. }
        | Op::Dismiss { .. }
        | Op::Pin { .. }
        | Op::Unpin { .. }
        | Op::Expect { .. }
        | Op::Unexpect { .. }
        | Op::Purge { .. }
        | Op::Reroute { .. }
        | Op::Sustain { .. } => Reply::Done,
    }
}
