//! An engine that knows a call, and the way of one of its packets.
//!
//! The kernel is played here: conntrack knows the phone's flow as masqueraded, and every command succeeds. What a
//! user of this measures or counts is [`KnownDialog::translate`], which asks nothing of the kernel any more.

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

/// The packet that carries the phone's INVITE.
pub(crate) fn packet() -> Vec<u8> {
    let [(phone, phone_port), (provider, provider_port), _] = ENDPOINTS;
    let invite = Invite::new(10, 1, 40_000).bytes;
    let mut packet = Vec::new();
    PacketBuilder::ipv4(phone, provider, 64)
        .udp(phone_port, provider_port)
        .write(&mut packet, &invite)
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
        // A lookup and an opening, with room for an engine that asks for more.
        for _ in 0..16 {
            let mut wishes = Vec::new();
            it.engine.handle(it.now, Input::Packet(packet_in(&it.packet)));
            wishes.extend(it.wishes());
            while let Some(wish) = wishes.pop() {
                match wish {
                    Wish::Answer(id, outcome) => {
                        it.engine.handle(it.now, Input::CommandDone { id, outcome });
                        wishes.extend(it.wishes());
                    }
                    Wish::Again => {}
                    Wish::Rewritten => {
                        it.translate();
                        return it;
                    }
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
        let Self { engine, packet, rebuilt, now } = self;
        engine.handle(*now, Input::Packet(packet_in(packet)));
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
        self.engine.handle(self.now, Input::Packet(packet_in(&self.packet)));
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Verdict(verdict) => match verdict.action {
                    Action::Rewrite { edits, .. } => places += edits.len(),
                    Action::Accept { .. } | Action::Drop => panic!("not rewritten: {:?}", verdict.reason),
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

fn packet_in(bytes: &[u8]) -> PacketIn<'_> {
    PacketIn { id: PacketId(1), point: QueuePoint::Signalling, indev: 2, outdev: 3, bytes }
}

/// conntrack's view of the phone's flow; everything else is done as asked.
fn answer(op: &Op) -> Reply {
    let [phone, provider, public] = ENDPOINTS.map(SocketAddr::from);
    match op {
        Op::Lookup { .. } => Reply::Found(Some(Tuples {
            orig_source: phone,
            orig_destination: provider,
            reply_source: provider,
            reply_destination: public,
        })),
        Op::Open { .. }
        | Op::Renew { .. }
        | Op::Close { .. }
        | Op::Admit { .. }
        | Op::Dismiss { .. }
        | Op::Pin { .. }
        | Op::Unpin { .. }
        | Op::Purge { .. }
        | Op::Sustain { .. } => Reply::Done,
    }
}
