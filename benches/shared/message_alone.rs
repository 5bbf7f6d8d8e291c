//! One message from bytes to bytes, without the engine's tables: parsed, its places found and replaced.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use sipalg::alg::envelope::Envelope;
use sipalg::alg::flow::PublicSide;
use sipalg::alg::key::{Key, Keyer};
use sipalg::alg::names::Names;
use sipalg::alg::rewrite::headers::{self, Sides};
use sipalg::alg::rewrite::recall::Recall;
use sipalg::alg::rewrite::{self, sdp};
use sipalg::alg::{Edits, Inside, Outside};
use sipalg::sdp::Description;
use sipalg::sip::{Message, body};

const INSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 10));
const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(22, 33, 44, 55));

/// What is used again for each message.
pub(crate) struct MessageAlone {
    message: Message,
    parts: Vec<sipalg::span::Span>,
    description: Description,
    names: Names,
    edits: Edits,
    public: PublicSide,
    written: Vec<u8>,
}

impl MessageAlone {
    pub(crate) fn new() -> Self {
        Self {
            message: Message::default(),
            parts: Vec::new(),
            description: Description::default(),
            names: Names::default(),
            edits: Edits::new(),
            public: PublicSide::new(Outside(SocketAddr::new(PUBLIC, 17375))),
            written: Vec::new(),
        }
    }

    /// The message as it leaves when its media port is mapped to the one above 16384 by as much as it is above 40000.
    ///
    /// # Panics
    /// If it is no sound message with a description.
    pub(crate) fn translate(&mut self, bytes: &[u8]) -> &[u8] {
        let Self { message, parts, description, names, edits, public, written } = self;
        edits.clear();
        message.parse(bytes).expect("it is a message");
        let envelope = Envelope::read(bytes, message).expect("it has what every message has");
        body::descriptions(bytes, message, parts);
        description.parse(bytes, *parts.first().expect("it has a body")).expect("it is a description");
        let inside = Inside(SocketAddr::new(INSIDE, 5060));
        let (keyer, call) = (Keyer::new([1, 2]), Key::default());
        let recall = Recall { keyer, call, tag: 1, registers: false, lasts: true };
        let sides = Sides { inside, public, hosts: &[], recall, datagrams: &[] };
        headers::outbound(bytes, message, &envelope.via, sides, names, edits).expect("no two meet");
        let public_of = |_, at: SocketAddr| Some(SocketAddr::new(PUBLIC, at.port().checked_sub(23_616)?));
        sdp::outbound(bytes, description, public, false, |ip| ip == INSIDE, public_of, edits)
            .expect("no two meet");
        rewrite::content_length(body::content_lengths(bytes, message), message.body(), edits)
            .expect("no two meet");
        written.clear();
        edits.apply(bytes, written);
        written
    }
}
