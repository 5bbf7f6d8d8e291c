//! A connection whose segments are made by hand: nothing arrives at the model TCPs after the handshake.

use std::time::Duration;

use etherparse::{PacketBuilder, TcpOptionElement};
use sipalg::alg::{Event, Policy};
use sipalg::packet::Segment;

use crate::endpoint::{Endpoint, Habits};
use crate::world::{PHONE, PUBLIC, SERVER, Wires, World, at};

pub const PHONE_ISN: u32 = 1000;
pub const SERVER_ISN: u32 = 77;

/// A segment of either end, in offsets of its stream.
#[derive(Clone, Debug, Default)]
pub struct Made {
    pub outbound: bool,
    pub at: i64,
    pub ack: u32,
    pub payload: Vec<u8>,
    pub fin: bool,
    pub rst: bool,
    pub urg: bool,
    pub window: Option<u16>,
    pub sack: Option<(u32, u32)>,
}

/// A segment as it went on: offset of its sender's stream on the wire, acknowledged offset, payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub outbound: bool,
    pub at: i64,
    pub ack: u32,
    pub text: String,
    pub fin: bool,
    pub sack: Vec<(u32, u32)>,
}

pub struct Hand {
    pub world: World,
}

impl Hand {
    pub fn new() -> Self {
        Self::with(Policy::default(), 1460)
    }

    pub fn with(policy: Policy, server_mss: u16) -> Self {
        let phone = Habits { isn: PHONE_ISN, ..Habits::default() };
        let server = Habits { isn: SERVER_ISN, mss: server_mss, ..Habits::default() };
        let phone = Endpoint::new("phone", at(PHONE), at(SERVER), phone, 1, false);
        let server = Endpoint::new("server", at(SERVER), at(PUBLIC), server, 2, true);
        let mut world = World::new(policy, phone, server, 3);
        world.phone.connect(world.now);
        world.run(Duration::from_secs(5), |world| {
            world.phone.is_open() && world.server.una == 0 && {
                world.server.due().is_none() && world.server.is_open()
            }
        });
        world.wait(Duration::from_millis(500));
        world.wires = Wires { before: 0, behind: 100, ..Wires::default() };
        world.tape.clear();
        world.taping = true;
        Self { world }
    }

    pub fn bytes(made: &Made) -> Vec<u8> {
        let (from, to, isn, peer) = if made.outbound {
            (at(PHONE), at(SERVER), PHONE_ISN, SERVER_ISN)
        } else {
            (at(SERVER), at(PUBLIC), SERVER_ISN, PHONE_ISN)
        };
        let (std::net::IpAddr::V4(a), std::net::IpAddr::V4(b)) = (from.ip(), to.ip()) else { unreachable!() };
        let sequence = isn.wrapping_add(1).wrapping_add(made.at as u32);
        let ack = peer.wrapping_add(1).wrapping_add(made.ack);
        let mut builder = PacketBuilder::ipv4(a.octets(), b.octets(), 64)
            .tcp(from.port(), to.port(), sequence, made.window.unwrap_or(65_535))
            .ack(ack);
        if made.fin {
            builder = builder.fin();
        }
        if made.rst {
            builder = builder.rst();
        }
        if made.urg {
            builder = builder.urg(1);
        }
        if let Some((left, right)) = made.sack {
            let number = |at: u32| peer.wrapping_add(1).wrapping_add(at);
            let block = TcpOptionElement::SelectiveAcknowledgement((number(left), number(right)), [None; 3]);
            builder = builder.options(&[TcpOptionElement::Noop, TcpOptionElement::Noop, block]).unwrap();
        }
        let mut bytes = Vec::new();
        builder.write(&mut bytes, &made.payload).unwrap();
        bytes
    }

    /// Sends a segment; the answer is all that goes on.
    pub fn push(&mut self, made: Made) -> Vec<Seen> {
        self.world.route(Self::bytes(&made));
        self.settle(Duration::from_millis(50))
    }

    /// The phone sends.
    pub fn out(&mut self, at: i64, payload: impl AsRef<[u8]>) -> Vec<Seen> {
        self.push(Made { outbound: true, at, payload: payload.as_ref().to_vec(), ..Made::default() })
    }

    /// The server sends.
    pub fn inn(&mut self, at: i64, payload: impl AsRef<[u8]>) -> Vec<Seen> {
        self.push(Made { at, payload: payload.as_ref().to_vec(), ..Made::default() })
    }

    /// The server acknowledges so much; the answer is what the phone gets to see.
    pub fn ack(&mut self, ack: u32, sack: Option<(u32, u32)>) -> Seen {
        let seen = self.push(Made { ack, sack, ..Made::default() });
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen[0].clone()
    }

    /// Time passes; the answer is all that goes on.
    pub fn settle(&mut self, time: Duration) -> Vec<Seen> {
        self.world.wait(time);
        self.world.tape.drain(..).map(|(outbound, bytes)| seen(outbound, &bytes)).collect()
    }

    /// The rule of the refusal that was noted, if there was one.
    pub fn refused(&self) -> Option<&'static str> {
        self.world.log.iter().find_map(|event| match event {
            Event::Refused { rule, .. } => Some(*rule),
            _ => None,
        })
    }
}

fn seen(outbound: bool, bytes: &[u8]) -> Seen {
    let segment = Segment::parse(bytes).unwrap();
    let (isn, peer) = if outbound { (PHONE_ISN, SERVER_ISN) } else { (SERVER_ISN, PHONE_ISN) };
    let offset = |number: u32, isn: u32| number.wrapping_sub(isn.wrapping_add(1));
    Seen {
        outbound,
        at: i64::from(offset(segment.sequence(), isn) as i32),
        ack: segment.acknowledgment().map_or(0, |number| offset(number, peer)),
        text: String::from_utf8_lossy(segment.payload()).into_owned(),
        fin: segment.fin(),
        sack: segment
            .sack()
            .iter()
            .map(|(left, right)| (offset(*left, peer), offset(*right, peer)))
            .collect(),
    }
}
