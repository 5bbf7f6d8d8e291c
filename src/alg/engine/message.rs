//! One SIP message, from its structure to its verdict.
//!
//! The order matters: first what may stop everything (allow-list, S4), then what the message needs in the kernel, and
//! only when all of that is there the edits, and the traces that the message leaves in the tables. A message that has
//! to wait has left none but the things that it waits for.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use arrayvec::ArrayVec;

use super::super::call::Target;
use super::super::command::{FlowKey, Transport};
use super::super::endpoint::{Inside, Outside};
use super::super::envelope::{Envelope, Method};
use super::super::event::Event;
use super::super::flow::{Direction, Flow, Mapping, PublicSide};
use super::super::guard;
use super::super::io::PacketId;
use super::super::key::Key;
use super::super::names::FormId;
use super::super::policy::{MediaIce, Policy};
use super::super::rewrite::headers::{self, Known, Sides};
use super::super::rewrite::recall::Recall;
use super::super::rewrite::{self, Conflict, sdp};
use super::super::transaction::{self, Tags};
use super::super::verdict::Reason;
use super::{Engine, Scratch};
use crate::packet::MAX_PACKET;
use crate::sdp::{Description, Setup};
use crate::sip::Message;
use crate::sip::body::{self, Body};
use crate::span::Span;

/// What fits into a packet behind the longest IPv4 header and that of UDP.
const LONGEST_RESULT: i64 = (MAX_PACKET - 60 - 8) as i64;
const TAG_DOMAIN: u8 = b'g';
const CALL_DOMAIN: u8 = b'c';

/// How a message came to be handled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) packet: PacketId,
    /// The identity to give back to the packet.
    pub(super) identity: Option<u32>,
    /// The token by which it was recognised, to be freed with the verdict.
    pub(super) token: Option<u32>,
    /// The NAT leaves its flow alone: the message is only read.
    pub(super) routed: bool,
}

/// A message with everything by which the tables know it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a> {
    pub(super) now: Instant,
    pub(super) bytes: &'a [u8],
    pub(super) flow: FlowKey,
    /// Interfaces of the flow towards the phone and the outside; 0 when not known.
    pub(super) lan: u32,
    pub(super) uplink: u32,
    /// The flow's public address, if there is a NAT and it is known.
    pub(super) public: Option<IpAddr>,
    pub(super) direction: Direction,
    pub(super) envelope: Envelope,
    pub(super) transaction: Key,
    pub(super) call: Key,
    pub(super) tags: Tags,
    /// See [`Arrival::routed`].
    pub(super) routed: bool,
}

/// What of a message's body is the engine's business. The spans are in the scratch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carries {
    Nothing,
    Descriptions,
    /// Descriptions to be read, not to be changed.
    Protected,
    /// Pieces of descriptions: candidates that trickle in (RFC 8840). They open nothing; those that are bound since the
    /// description was sent are mapped.
    Fragments,
}

pub(super) enum Outcome {
    Accept(Reason),
    Rewrite,
    /// Wait for what is in `scratch.needs`.
    Park,
}

impl Engine {
    /// Handles the message in the scratch, which is the payload of a packet of a known flow.
    pub(super) fn process(
        &mut self,
        now: Instant,
        arrival: Arrival,
        payload: &[u8],
        flow: FlowKey,
        direction: Direction,
    ) {
        let mut scratch = self.scratch.take().unwrap_or_default();
        scratch.edits.clear();
        scratch.needs.clear();
        let outcome = self.translate(now, &mut scratch, payload, flow, direction, arrival.routed);
        if matches!(outcome, Outcome::Park) {
            self.park(arrival.packet, arrival.identity, &scratch.needs);
        }
        self.scratch = Some(scratch);
        match outcome {
            Outcome::Park => return,
            Outcome::Accept(reason) => {
                let port = self.listens_at(&flow, direction, reason);
                self.accept_to(arrival.packet, arrival.identity, port, reason);
            }
            Outcome::Rewrite => {
                let port = self.listens_at(&flow, direction, Reason::Rewritten);
                self.rewrite(arrival.packet, arrival.identity, port);
            }
        }
        self.arrived(arrival.token);
    }

    /// Translates the message in the scratch. Of one that is [`Begun`](super::super::tcp::frame::Frame::Begun) `bytes`
    /// may end before its body does.
    pub(super) fn translate(
        &mut self,
        now: Instant,
        scratch: &mut Scratch,
        bytes: &[u8],
        flow: FlowKey,
        direction: Direction,
        routed: bool,
    ) -> Outcome {
        if !guard::is_allowed_server(&self.policy, flow.far.ip()) {
            return Outcome::Accept(Reason::PeerNotAllowed);
        }
        if guard::is_hands_off(&self.policy, flow.far.ip()) {
            return Outcome::Accept(Reason::HandsOff);
        }
        let Ok(envelope) = Envelope::read(bytes, &scratch.message) else {
            if routed {
                return Outcome::Accept(Reason::NotNated);
            }
            self.refuse("S4", flow, "a SIP message without what every SIP message must have");
            return Outcome::Accept(Reason::Suspicious);
        };
        // In a stream it is what makes a message, all of which need not be here.
        if flow.transport == Transport::Udp && !guard::is_true_length(bytes, &scratch.message) {
            self.refuse("S4", flow, "a Content-Length that is not true");
            return Outcome::Accept(Reason::Suspicious);
        }
        let context = Context { routed, ..self.context(now, bytes, flow, direction, envelope) };
        let body = body::descriptions(bytes, &scratch.message, &mut scratch.parts);
        let carries = match body {
            Body::Sdp => Carries::Descriptions,
            // What nobody may change can be read all the same: where the far end wants its media.
            Body::Protected if direction == Direction::Inbound && !scratch.parts.is_empty() => {
                Carries::Protected
            }
            Body::Opaque if !scratch.message.body().is_empty() => fragments(bytes, scratch),
            Body::Protected | Body::Opaque => Carries::Nothing,
        };
        let counts = self.counts(&context);
        let is_read = matches!(carries, Carries::Descriptions | Carries::Protected)
            && counts
            && !self.is_overtaken(&context)
            && negotiates(&envelope, direction);
        if is_read {
            self.wait_for_turn(&context, &mut scratch.needs);
            if !scratch.needs.is_empty() {
                return Outcome::Park;
            }
            if let Err(reason) = self.prepare_media(&context, scratch) {
                return Outcome::Accept(reason);
            }
            if !scratch.needs.is_empty() {
                return Outcome::Park;
            }
        }
        let form = match self.edit(&context, scratch, carries, is_read) {
            Ok(form) => form,
            Err(Conflict(_)) => {
                scratch.edits.clear();
                return Outcome::Accept(Reason::EditFailed);
            }
        };
        let length = bytes.len() as i64 + scratch.edits.growth(Span::new(0, bytes.len()));
        if flow.transport == Transport::Udp && length > LONGEST_RESULT {
            scratch.edits.clear();
            return Outcome::Accept(Reason::Unparsable);
        }
        self.note_sent_by(&context);
        if counts {
            self.track(&context, scratch, form);
        }
        if routed {
            return Outcome::Accept(Reason::NotNated);
        }
        match (scratch.edits.is_empty(), body) {
            (false, _) => Outcome::Rewrite,
            (true, Body::Protected) => Outcome::Accept(Reason::Protected),
            (true, Body::Sdp | Body::Opaque) => Outcome::Accept(Reason::Unchanged),
        }
    }

    fn context<'a>(
        &self,
        now: Instant,
        bytes: &'a [u8],
        flow: FlowKey,
        direction: Direction,
        envelope: Envelope,
    ) -> Context<'a> {
        // Who sent the request, and so whose tag is the one in From.
        let request = match (envelope.status, direction) {
            (None, direction) => direction,
            (Some(_), Direction::Outbound) => Direction::Inbound,
            (Some(_), Direction::Inbound) => Direction::Outbound,
        };
        let digest = |tag: Span| self.keyer.digest(TAG_DOMAIN, tag.of(bytes));
        let (from, to) = (digest(envelope.from_tag), envelope.to_tag.map_or(0, digest));
        let tags = match request {
            Direction::Outbound => Tags { local: from, remote: to },
            Direction::Inbound => Tags { local: to, remote: from },
        };
        let host = transaction::endpoint_bytes(SocketAddr::new(flow.inside.0.ip(), 0));
        let call = self.keyer.key(CALL_DOMAIN, &[&host, envelope.call_id.of(bytes)]);
        let known = self.flows.get(&flow);
        Context {
            now,
            bytes,
            flow,
            lan: known.map_or(0, |flow| flow.lan),
            uplink: known.map_or(0, |flow| flow.uplink),
            public: known.and_then(|flow| Some(flow.public()?.endpoint.0.ip())),
            direction,
            envelope,
            transaction: transaction::key(self.keyer, bytes, &envelope, (call, from), &flow, request),
            call,
            tags,
            routed: false,
        }
    }

    /// Makes sure that everything which the message's descriptions announce is, or will be, in the kernel.
    fn prepare_media(&mut self, context: &Context<'_>, scratch: &mut Scratch) -> Result<(), Reason> {
        let bytes = context.bytes;
        for index in 0..scratch.parts.len() {
            let Some(part) = scratch.parts.get(index) else { break };
            if scratch.description.parse(bytes, *part).is_err() {
                return Err(Reason::Unparsable);
            }
            if is_left(&self.policy, &scratch.description) {
                continue;
            }
            // More than one description in a message belong to one session (RFC 3261 section 7.4); later ones only
            // get their ports.
            let first = index == 0;
            match context.direction {
                Direction::Outbound if context.routed => self.offer_routed(context, scratch, first)?,
                Direction::Outbound if context.public.is_some() => {
                    let (policy, sender) = (&self.policy, context.flow.inside.0.ip());
                    let may = |ip: IpAddr| guard::may_speak_for(policy, sender, ip);
                    let side = self.flows.get(&context.flow).and_then(|flow| flow.public());
                    let actual = |written| side.map_or(written, |side| side.actual(written));
                    let own = |written| self.bindings.own_of(Outside(actual(written)), sender);
                    scratch.local.clear();
                    let tcp = policy.media_tcp;
                    scratch.local.extend(sdp::local_streams(bytes, &scratch.description, tcp, may, own));
                    self.keep_to_s9(context, &mut scratch.local);
                    self.recognise(context, scratch, first);
                    self.offer_local(context, scratch, first)?;
                }
                Direction::Inbound if first => {
                    let unsaid = if is_answer(context) { Setup::Passive } else { Setup::Active };
                    let tcp = self.policy.media_tcp.then_some(unsaid);
                    sdp::remote_streams(bytes, &scratch.description, tcp, &mut scratch.remote);
                    self.note_remote(context, scratch);
                }
                Direction::Outbound | Direction::Inbound => {}
            }
        }
        Ok(())
    }

    /// Makes the edits. The answer is how the phone wrote its Via, or what became of the Request-URI, if that was replaced.
    fn edit(
        &mut self,
        context: &Context<'_>,
        scratch: &mut Scratch,
        carries: Carries,
        prepared: bool,
    ) -> Result<Option<FormId>, Conflict> {
        let (bytes, message, via) = (context.bytes, &scratch.message, &context.envelope.via);
        let datagrams = self.datagrams(context, message);
        let known = self.known(context);
        let Some(Flow { mapping: Mapping::Public(public), names, .. }) = self.flows.get_mut(&context.flow)
        else {
            return Ok(None);
        };
        let hosts = &self.policy.inside_hosts;
        let method = context.envelope.method;
        let recall = Recall {
            keyer: self.keyer,
            call: context.call,
            tag: context.tags.local,
            registers: method == Method::Register,
            lasts: !matches!(method, Method::Options | Method::Publish),
        };
        let sides = Sides { inside: context.flow.inside, public, hosts, recall, datagrams: &datagrams };
        let edits = &mut scratch.edits;
        let form = match context.direction {
            Direction::Outbound => headers::outbound(bytes, message, via, sides, names, edits)?,
            Direction::Inbound => headers::inbound(bytes, message, via, sides, names, known, edits)?,
        };
        if matches!(carries, Carries::Nothing | Carries::Protected) {
            return Ok(form);
        }
        for part in &scratch.parts {
            let read = match carries {
                Carries::Fragments => scratch.description.parse_fragment(bytes, *part),
                _ if scratch.parts.len() > 1 || !prepared => scratch.description.parse(bytes, *part),
                _ => Ok(()), // it was read when the media was prepared
            };
            let description = &scratch.description;
            if read.is_err() || is_left(&self.policy, description) {
                continue;
            }
            match context.direction {
                Direction::Outbound => {
                    let may = |ip| guard::may_speak_for(&self.policy, context.flow.inside.0.ip(), ip);
                    let public_of =
                        |transport, inside| self.bindings.public_of(transport, inside, context.uplink);
                    let tcp = self.policy.media_tcp;
                    sdp::outbound(bytes, description, public, tcp, may, public_of, &mut scratch.edits)?;
                }
                Direction::Inbound => {
                    let direct = |transport, written| match self.bindings.target(
                        transport,
                        Outside(public.actual(written)),
                        context.lan,
                        &self.policy,
                    ) {
                        Some((Target::Direct, inside)) => Some(inside.0),
                        Some(_) | None => None,
                    };
                    let host = context.flow.inside.0.ip();
                    let own = |written| self.bindings.own_of(Outside(public.actual(written)), host);
                    sdp::inbound(bytes, description, direct, own, &mut scratch.edits)?;
                }
            }
        }
        scratch.lengths.clear();
        for part in &scratch.parts {
            body::part_lengths(bytes, message, *part, &mut scratch.lengths);
        }
        rewrite::part_lengths(&mut scratch.lengths, &mut scratch.edits)?;
        let fields = body::content_lengths(bytes, message);
        rewrite::content_length(fields, message.body(), &mut scratch.edits)?;
        Ok(form)
    }

    /// What is known of the request that a message from outside is, or answers.
    fn known(&self, context: &Context<'_>) -> Known {
        let Envelope { status, method, to_tag, .. } = context.envelope;
        let request = match (status, method) {
            (Some(_), _) => Some(context.transaction),
            (None, Method::Invite | Method::Cancel | Method::Ack) => {
                Some(self.invite_of(context, context.direction))
            }
            (None, _) => None,
        };
        let lease = self.flows.get(&context.flow).and_then(|flow| flow.registered);
        let is_in_dialog = || {
            let call = self.calls.get(&context.call).filter(|_| to_tag.is_some());
            call.is_some_and(|call| call.position(context.tags).is_some())
        };
        Known {
            passed_as: request.and_then(|key| self.transactions.get(&key)).map(|it| it.form),
            is_phone: lease.is_some_and(|until| context.now < until) || is_in_dialog(),
        }
    }

    /// For a message over TCP: the flows that the same phone has with the same server over UDP, as far as the message, or
    /// one before it, speaks of them.
    fn datagrams(&self, context: &Context<'_>, message: &Message) -> ArrayVec<(u16, PublicSide), 2> {
        let mut found = ArrayVec::new();
        let FlowKey { transport: Transport::Tcp, inside, far } = context.flow else { return found };
        let own = inside.0.ip();
        let said = headers::own_ports(context.bytes, message, own);
        let known = self.flows.get(&context.flow).into_iter().flat_map(|flow| flow.names.ports());
        for port in said.chain(known) {
            let inside = Inside(SocketAddr::new(own, port));
            let key = FlowKey { transport: Transport::Udp, inside, far };
            if found.iter().all(|(known, _)| *known != port)
                && let Some(public) = self.flows.get(&key).and_then(Flow::public)
                && found.try_push((port, public.clone())).is_err()
            {
                break;
            }
        }
        found
    }

    pub(super) fn refuse(&mut self, rule: &'static str, flow: FlowKey, why: &'static str) {
        self.event(Event::Refused { rule, inside: flow.inside.0, why });
    }
}

/// Whether what the message says about media is meant: a refusal, and a phone that is asked, only tell what is possible
/// (RFC 3261 sections 11.2 and 21.4.26).
fn negotiates(envelope: &Envelope, direction: Direction) -> bool {
    let is_refusal = envelope.status.is_some_and(|status| status >= 300);
    let answers_options = envelope.method == Method::Options && envelope.status.is_some();
    !(is_refusal || answers_options && direction == Direction::Outbound)
}

/// Whether what the far end says about media answers what the phone said: in a response, an ACK and a PRACK. A late offer
/// is in a response too, and says who connects.
fn is_answer(context: &Context<'_>) -> bool {
    context.envelope.status.is_some() || matches!(context.envelope.method, Method::Ack | Method::Prack)
}

/// Finds pieces of descriptions in a body that has no whole one.
fn fragments(bytes: &[u8], scratch: &mut Scratch) -> Carries {
    match body::fragments(bytes, &scratch.message, &mut scratch.parts) {
        Body::Sdp => Carries::Fragments,
        Body::Protected | Body::Opaque => Carries::Nothing,
    }
}

/// Whether the administrator leaves this description to ICE.
fn is_left(policy: &Policy, description: &Description) -> bool {
    let is_ice =
        || description.ice || !description.candidates.is_empty() || !description.remote_candidates.is_empty();
    policy.media_ice == MediaIce::Leave && is_ice()
}
