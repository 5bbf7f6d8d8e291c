//! An engine that knows one flow, and gets one message of it again and again, in either direction.

use std::net::SocketAddr;
use std::time::Instant;

use etherparse::PacketBuilder;
use sipalg::alg::{
    CommandId, Engine, Input, Op, Outcome, Output, PacketId, PacketIn, Policy, QueuePoint, Reason, Reply,
    Tuples,
};

/// The phone, the provider, and what the phone looks like from there.
const ENDPOINTS: [([u8; 4], u16); 3] =
    [([192, 168, 1, 10], 5060), ([22, 33, 44, 20], 5060), ([22, 33, 44, 55], 17375)];

/// Which way the message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the phone.
    Out,
    /// To the phone.
    In,
}

impl Way {
    pub(crate) const BOTH: [Self; 2] = [Self::Out, Self::In];
}

pub(crate) struct Reading {
    engine: Engine,
    now: Instant,
    packet: Vec<u8>,
    way: Way,
}

impl Reading {
    /// An engine that has had `message` before, so that it has all the memory, and asked all that it will.
    pub(crate) fn new(message: &[u8], way: Way) -> Self {
        let [phone, provider, _] = ENDPOINTS;
        let (source, destination) = if way == Way::Out { (phone, provider) } else { (provider, phone) };
        let mut packet = Vec::new();
        PacketBuilder::ipv4(source.0, destination.0, 64)
            .udp(source.1, destination.1)
            .write(&mut packet, message)
            .expect("the message fits a packet");
        let mut it = Self { engine: Engine::new(Policy::default()), now: Instant::now(), packet, way };
        for _ in 0..8 {
            it.read();
        }
        it
    }

    /// The message once; the reason of its verdict, if it did not have to wait.
    pub(crate) fn read(&mut self) -> Option<Reason> {
        let Self { engine, now, packet, way } = self;
        let (indev, outdev) = if *way == Way::Out { (2, 3) } else { (3, 2) };
        let point = QueuePoint::Signalling;
        engine.handle(*now, Input::Packet(PacketIn { id: PacketId(1), point, indev, outdev, bytes: packet }));
        let mut reason = None;
        loop {
            let mut answers: Vec<(CommandId, Outcome)> = Vec::new();
            while let Some(output) = engine.poll_output() {
                match output {
                    Output::Command(command) => answers.push((command.id, Ok(answer(&command.op)))),
                    Output::Verdict(verdict) => reason = Some(verdict.reason),
                    Output::Again(_) | Output::Event(_) => {}
                }
            }
            if answers.is_empty() {
                return reason;
            }
            for (id, outcome) in answers {
                engine.handle(*now, Input::CommandDone { id, outcome });
            }
        }
    }
}

/// conntrack's view of the phone's flow; everything else is done as asked.
fn answer(op: &Op) -> Reply {
    let [orig_source, far, public] = ENDPOINTS.map(SocketAddr::from);
    match op {
        Op::Recognise { .. } => Reply::Found(None),
        Op::Lookup { .. } => Reply::Found(Some(Tuples {
            transport: sipalg::alg::Transport::Udp,
            orig_source,
            orig_destination: far,
            reply_source: far,
            reply_destination: public,
        })),
        _ => Reply::Done,
    }
}
