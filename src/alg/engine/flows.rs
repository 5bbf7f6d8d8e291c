//! Which flow a packet belongs to, and what the NAT made of that flow.
//!
//! A flow becomes known in two ways: its first packet is seen before and after the NAT ([`Engine::new_flow`],
//! [`Engine::learn`]), or conntrack is asked when a packet of an older flow passes ([`Engine::signalling`]).
//! The mapping dies with its conntrack entry.

use std::mem;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::super::binding::{BindingKey, Latch};
use super::super::command::{CommandId, FlowKey, Op, PinnedFlow, Transport};
use super::super::endpoint::{Inside, Outside};
use super::super::event::Event;
use super::super::flow::{Direction, Flow, Mapping, PublicSide, flow_key};
use super::super::guard;
use super::super::io::{PacketId, PacketIn, QueuePoint, Tuples};
use super::super::learning::Learner;
use super::super::policy::Admission;
use super::super::verdict::Reason;
use super::Engine;
use super::commands::Inflight;
use super::message::Arrival;
use crate::packet::{Datagram, Refusal, Segment};
use crate::sip::Malformed;

/// A flow is forgotten after this long without a packet; conntrack will have said so before.
pub(super) const IDLE: Duration = Duration::from_secs(2 * 3600);
/// A flow on which no answer has come is forgotten as soon as the ruleset's timeout policy forgets it; if it is heard of
/// again, conntrack is asked.
pub(super) const UNANSWERED_FLOW: Duration = Duration::from_secs(180);
/// How long "conntrack does not know it" is believed.
const MISSING: Duration = Duration::from_secs(1);
/// Within this time of learning, a second mapping of the same flow is a clash and not a new flow: the loser's
/// conntrack entry dies after one second.
const CLASH: Duration = Duration::from_secs(2);
/// conntrack's own lifetime rule for a new flow holds for two seconds; then ours is set.
const SETTLED: Duration = Duration::from_millis(2500);
/// Longer messages pass as they are: there must be room for what they grow by, and nobody writes any.
const LONGEST: usize = 60_000;
const PAYLOAD_DOMAIN: u8 = b'p';
/// Flows that may be latched to one binding: a far end that moves more often has to wait for conntrack.
const LATCHED: usize = 8;

impl Engine {
    pub(super) fn handle_packet(&mut self, now: Instant, packet: &PacketIn<'_>) {
        let datagram = match Datagram::parse(packet.bytes) {
            Ok(datagram) => datagram,
            Err(Refusal::NotUdp) => return self.handle_other(now, packet),
            Err(_) => return self.accept(packet.id, None, Reason::BrokenPacket),
        };
        match packet.point {
            // Only TCP comes there.
            QueuePoint::BeforeConntrack => self.accept(packet.id, None, Reason::NotUdp),
            QueuePoint::Latch => {
                self.latch(packet, Transport::Udp, datagram.source(), Outside(datagram.destination()));
            }
            QueuePoint::Learn => self.learn(now, packet, &datagram),
            QueuePoint::NewFlow | QueuePoint::Signalling => match self.classify(datagram.payload()) {
                Err(reason) => self.accept(packet.id, None, reason),
                Ok(()) if packet.point == QueuePoint::NewFlow => self.new_flow(now, packet, &datagram),
                Ok(()) => self.signalling(now, packet, &datagram),
            },
        }
    }

    /// A packet that is not UDP.
    fn handle_other(&mut self, now: Instant, packet: &PacketIn<'_>) {
        match Segment::parse(packet.bytes) {
            Ok(segment) if packet.point == QueuePoint::Latch => self.latch_connection(packet, &segment),
            Ok(segment) => self.handle_segment(now, packet, &segment),
            Err(Refusal::NotTcp) => self.accept(packet.id, None, Reason::NotUdp),
            Err(_) => self.accept(packet.id, None, Reason::BrokenPacket),
        }
    }

    /// Parses the payload into the scratch, or says why it is no SIP message.
    fn classify(&mut self, payload: &[u8]) -> Result<(), Reason> {
        match guard::is_sip(payload) {
            guard::Datagram::KeepAlive => return Err(Reason::KeepAlive),
            guard::Datagram::Stun => return Err(Reason::Stun),
            guard::Datagram::Sip => {}
        }
        self.scratch.get_or_insert_default().message.parse(payload).map_err(|malformed| match malformed {
            Malformed::NotSip => Reason::NotSip,
            Malformed::Endless | Malformed::TooManyHeaders => Reason::Unparsable,
        })?;
        if payload.len() > LONGEST { Err(Reason::Unparsable) } else { Ok(()) }
    }

    /// First packet, before the NAT: it gets a token and goes on.
    fn new_flow(&mut self, now: Instant, packet: &PacketIn<'_>, datagram: &Datagram<'_>) {
        let learner = Learner {
            source: datagram.source(),
            destination: datagram.destination(),
            payload: self.keyer.digest(PAYLOAD_DOMAIN, datagram.payload()),
            identity: datagram.identity(),
            indev: packet.indev,
            outdev: packet.outdev,
        };
        match self.learning.send(now, learner) {
            Some(token) => self.accept(packet.id, Some(token), Reason::Learning),
            None => self.accept(packet.id, None, Reason::TableFull),
        }
    }

    /// The same packet after the NAT: its source is the mapping.
    fn learn(&mut self, now: Instant, packet: &PacketIn<'_>, datagram: &Datagram<'_>) {
        let told = self.learning.told(packet.id).filter(|tuples| is_of(tuples, datagram));
        let token = datagram.identity();
        let digest = self.keyer.digest(PAYLOAD_DOMAIN, datagram.payload());
        // Who has a token was queued before the NAT, whatever conntrack tells: it has an identity to get back.
        let marked = self.learning.recognise(token, datagram.destination(), digest);
        let (learner, token) = match (marked, told) {
            (Some(learner), _) => (learner, Some(token)),
            // The router's own packets pass here too, and come in by nothing.
            (None, Some(tuples)) if packet.indev != 0 => {
                let learner = Learner {
                    source: tuples.orig_source,
                    destination: datagram.destination(),
                    payload: digest,
                    identity: datagram.identity(),
                    indev: packet.indev,
                    outdev: packet.outdev,
                };
                (learner, None)
            }
            (None, _) => return self.accept(packet.id, None, Reason::NotOurs),
        };
        let identity = token.map(|_| learner.identity);
        let refuse = |engine: &mut Self, reason| {
            engine.arrived(token);
            engine.accept(packet.id, identity, reason);
        };
        if let Err(reason) = self.classify(datagram.payload()) {
            return refuse(self, reason);
        }
        let arrival = Arrival { packet: packet.id, identity, token, routed: false };
        if datagram.source() == learner.source {
            let key = flow_key(learner.source, learner.destination, Direction::Inbound);
            // No source NAT: the flow is routed, or it begins outside and is forwarded in. Which of the two, conntrack
            // may have told; if not, it will know when the answer passes, and what the far end says until then is noted.
            let forwarded = told.and_then(|tuples| orient(&tuples).1);
            if forwarded.is_some() {
                if !self.map_flow(now, key, forwarded) {
                    return refuse(self, Reason::TableFull);
                }
                self.note_interfaces(&key, learner.outdev, learner.indev);
            } else {
                let flow = Flow::new(Mapping::Unknown, learner.outdev, learner.indev, now);
                if self.flows.get(&key).is_none() && !self.add_flow(key, flow, now + UNANSWERED_FLOW) {
                    return refuse(self, Reason::TableFull);
                }
            }
            return self.process(now, arrival, datagram.payload(), key, Direction::Inbound);
        }
        let key = flow_key(learner.source, learner.destination, Direction::Outbound);
        let public = Outside(datagram.source());
        if self.clashes(now, &key, public) {
            self.arrived(token);
            return self.drop_packet(packet.id, Reason::NatClash);
        }
        if !self.map_flow(now, key, Some(public)) {
            return refuse(self, Reason::TableFull);
        }
        self.note_interfaces(&key, learner.indev, learner.outdev);
        if let Some(flow) = self.flows.get_mut(&key) {
            flow.governed = true;
        }
        self.process(now, arrival, datagram.payload(), key, Direction::Outbound);
    }

    /// A packet that was recognised by its token has its verdict.
    pub(super) fn arrived(&mut self, token: Option<u32>) {
        if let Some(token) = token {
            self.learning.arrived(token);
        }
    }

    /// A packet of a confirmed flow.
    fn signalling(&mut self, now: Instant, packet: &PacketIn<'_>, datagram: &Datagram<'_>) {
        let (source, destination) = (datagram.source(), datagram.destination());
        let mut missing = false;
        for direction in [Direction::Outbound, Direction::Inbound] {
            let key = flow_key(source, destination, direction);
            let Some(flow) = self.flows.get_mut(&key) else { continue };
            match &flow.mapping {
                Mapping::Public(side) => {
                    let public = side.endpoint;
                    match direction {
                        Direction::Outbound if flow.leaves_elsewhere(packet.outdev) => {
                            return self.ask_for_another_way(packet, key, public);
                        }
                        Direction::Outbound => flow.note_interfaces(packet.indev, packet.outdev),
                        Direction::Inbound => flow.note_way_in(packet.outdev, packet.indev),
                    }
                    let arrival = Arrival { packet: packet.id, identity: None, token: None, routed: false };
                    return self.process(now, arrival, datagram.payload(), key, direction);
                }
                Mapping::NotNated => {
                    let arrival = Arrival { packet: packet.id, identity: None, token: None, routed: true };
                    return self.process(now, arrival, datagram.payload(), key, direction);
                }
                // Which end is inside was not known when conntrack was asked: the other reading may be the true one.
                Mapping::Missing => {
                    missing |= self.flows.deadline(&key).is_some_and(|until| now < until);
                }
                Mapping::Asked(id) => {
                    let id = *id;
                    return self.park(packet.id, None, &[id]);
                }
                Mapping::Moved(then) if direction == Direction::Outbound && now < *then + MISSING => {
                    return self.drop_packet(packet.id, Reason::Rerouted);
                }
                Mapping::Moved(_) | Mapping::Unknown => {}
            }
        }
        if missing {
            return self.accept(packet.id, None, Reason::UnknownFlow);
        }
        let key = flow_key(source, destination, Direction::Outbound);
        self.ask(now, packet, key, source, destination);
    }

    /// Asks conntrack for a packet's flow, which is noted under `key` until there is an answer; the packet waits.
    pub(super) fn ask(
        &mut self,
        now: Instant,
        packet: &PacketIn<'_>,
        key: FlowKey,
        source: SocketAddr,
        destination: SocketAddr,
    ) {
        if self.flows.get(&key).is_none() {
            let flow = Flow::new(Mapping::Unknown, packet.indev, packet.outdev, now);
            // An answer that finds no room would be asked for again and again.
            if !self.add_flow(key, flow, now + UNANSWERED_FLOW) {
                return self.accept(packet.id, None, Reason::TableFull);
            }
        }
        let id = self.command(
            Op::Lookup { transport: key.transport, source, destination },
            Inflight::Lookup { asked: key },
        );
        if let Some(flow) = self.flows.get_mut(&key) {
            flow.mapping = Mapping::Asked(id);
        }
        self.park(packet.id, None, &[id]);
    }

    /// What conntrack said about a flow.
    pub(super) fn looked_up(&mut self, now: Instant, asked: FlowKey, found: Option<Tuples>) {
        let Some(tuples) = found else {
            if let Some(flow) = self.flows.get_mut(&asked) {
                flow.mapping = Mapping::Missing;
                self.flows.set_deadline(&asked, now + MISSING);
            }
            return;
        };
        let (key, public) = orient(&tuples);
        let turned = key != asked;
        let interfaces = self.flows.get(&asked).map(|flow| (flow.lan, flow.uplink));
        if turned && let Some(flow) = self.flows.remove(&asked) {
            self.forget_flow(asked, flow);
        }
        self.map_flow(now, key, public);
        if let Some((lan, uplink)) = interfaces {
            let (lan, uplink) = if turned { (uplink, lan) } else { (lan, uplink) };
            self.note_interfaces(&key, lan, uplink);
        }
    }

    /// Whether another mapping of the same flow has just been learned: under random NAT two packets of it were under way
    /// before conntrack knew the first.
    pub(super) fn clashes(&self, now: Instant, key: &FlowKey, public: Outside) -> bool {
        self.flows.get(key).is_some_and(|known| {
            known.public().is_some_and(|side| side.endpoint != public)
                && now.saturating_duration_since(known.since) < CLASH
        })
    }

    /// Notes a flow's mapping; `None`: the NAT leaves it alone. `false`: there is no room.
    pub(super) fn map_flow(&mut self, now: Instant, key: FlowKey, public: Option<Outside>) -> bool {
        let known = self.flows.get(&key);
        if known.is_some_and(|flow| public.is_some() && flow.public().map(|side| side.endpoint) == public) {
            self.outlast(key, now + UNANSWERED_FLOW);
            return true;
        }
        let mapping = match public {
            Some(public) => Mapping::Public(Box::new(PublicSide::advertised(public, &self.policy.advertise))),
            None => Mapping::NotNated,
        };
        match self.flows.get_mut(&key) {
            Some(flow) => {
                flow.mapping = mapping;
                flow.since = now;
            }
            None => {
                if !self.add_flow(key, Flow::new(mapping, 0, 0, now), now + UNANSWERED_FLOW) {
                    return false;
                }
            }
        }
        self.outlast(key, now + UNANSWERED_FLOW);
        if key.transport == Transport::Udp && self.settling.len() < self.policy.limits.flows {
            self.settling.push_back((now + SETTLED, key));
        }
        self.event(Event::FlowLearned { inside: key.inside, far: key.far, public });
        true
    }

    pub(super) fn note_interfaces(&mut self, key: &FlowKey, lan: u32, uplink: u32) {
        if let Some(flow) = self.flows.get_mut(key) {
            flow.note_interfaces(lan, uplink);
        }
    }

    /// A conntrack entry is gone. A clash's hidden entry has the same original tuple but another mapping: that one
    /// means nothing.
    pub(super) fn handle_destroyed(&mut self, now: Instant, tuples: &Tuples) {
        let (key, public) = orient(tuples);
        for endpoint in [tuples.reply_destination, tuples.orig_destination] {
            self.media_died(now, Outside(endpoint), tuples);
        }
        let Some(flow) = self.flows.get_mut(&key) else { return };
        match &flow.mapping {
            Mapping::Public(side) if Some(side.endpoint) == public => {}
            Mapping::NotNated if public.is_none() => {}
            _ => return,
        }
        self.lose_flow(now, &key);
    }

    /// A flow's mapping is not true any more: who registered by it has to do so again.
    pub(super) fn lose_flow(&mut self, now: Instant, key: &FlowKey) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        flow.mapping = Mapping::Unknown;
        flow.answered = false;
        flow.since = now;
        flow.registered = None;
        flow.subscribed = None;
        for registration in mem::take(&mut flow.registrations) {
            if let Some(gone) = self.registrations.remove(&registration) {
                self.count_registration_off(*gone, "flow lost");
            }
        }
    }

    /// A flow of one of our public endpoints died: of silence, most often.
    fn media_died(&mut self, now: Instant, public: Outside, tuples: &Tuples) {
        let known = self.bindings.by_public(public).filter(|(key, _)| key.transport() == tuples.transport);
        let Some(key) = known.map(|(key, _)| *key) else { return };
        let Some(binding) = self.bindings.get_mut(&key) else { return };
        binding.died = Some(now);
        binding.lapsed = true;
        let is_it = |flow: &PinnedFlow| flow.far == tuples.orig_destination || flow.far == tuples.orig_source;
        binding.latched.retain(|(flow, latch)| matches!(latch, Latch::Pinning(_)) || !is_it(flow));
    }

    /// First media packet from a negotiated address: its actual source is pinned, the packet itself is dropped.
    fn latch(&mut self, packet: &PacketIn<'_>, transport: Transport, far: SocketAddr, public: Outside) {
        let known = self.bindings.by_public(public).filter(|(key, _)| key.transport() == transport);
        let Some((key, binding)) = known else {
            return self.accept(packet.id, None, Reason::NotNegotiated);
        };
        let key = *key;
        let admitted = binding.peers.iter().any(|peer| peer.far.is_none_or(|ip| ip == far.ip()));
        if !admitted {
            return self.drop_packet(packet.id, Reason::NotNegotiated);
        }
        if self.policy.admission == Admission::Rule {
            return self.accept(packet.id, None, Reason::Unchanged);
        }
        let flow = PinnedFlow { transport, inside: key.inside(), far, public, hairpin: None };
        let known = binding.latched.iter().position(|(latched, _)| *latched == flow);
        match known.and_then(|at| binding.latched.get(at)) {
            Some((_, Latch::Pinning(id))) => {
                let id = *id;
                return self.park(packet.id, None, &[id]);
            }
            Some((_, Latch::Pinned)) => {
                self.set_latch(&key, &flow, Latch::Settled);
                self.event(Event::Latched { far, public });
                return self.drop_packet(packet.id, Reason::Latched);
            }
            Some((_, Latch::Settled)) => {}
            None if binding.latched.len() >= LATCHED => {
                return self.drop_packet(packet.id, Reason::Quota);
            }
            None => {}
        }
        let signalling = binding.signalling.get();
        let id = self.command(Op::Pin { flow, signalling }, Inflight::Latch { binding: key, flow });
        match known {
            Some(_) => self.set_latch(&key, &flow, Latch::Pinning(id)),
            None => {
                if let Some(binding) = self.bindings.get_mut(&key) {
                    binding.latched.push((flow, Latch::Pinning(id)));
                }
            }
        }
        self.park(packet.id, None, &[id]);
    }

    /// A far end that was let in opens its connection. The segment is dropped when there is an entry for the connection,
    /// and the far end sends it again within a second. What belongs to a connection that conntrack has lost is not pinned:
    /// no entry of ours would know its numbers.
    fn latch_connection(&mut self, packet: &PacketIn<'_>, segment: &Segment<'_>) {
        if segment.syn() && segment.acknowledgment().is_none() {
            self.latch(packet, Transport::Tcp, segment.source(), Outside(segment.destination()));
        } else {
            self.accept(packet.id, None, Reason::Segment);
        }
    }

    pub(super) fn set_latch(&mut self, key: &BindingKey, flow: &PinnedFlow, state: Latch) {
        let Some(binding) = self.bindings.get_mut(key) else { return };
        if let Some(entry) = binding.latched.iter_mut().find(|(latched, _)| latched == flow) {
            entry.1 = state;
        }
    }

    /// Lets a packet wait for commands.
    pub(super) fn park(&mut self, packet: PacketId, identity: Option<u32>, needs: &[CommandId]) {
        if self.parking.is_full() {
            self.accept(packet, identity, Reason::TableFull);
        } else {
            self.parking.park(packet, identity, needs);
        }
    }
}

/// Whether a packet behind the NAT is of this entry's original direction.
fn is_of(tuples: &Tuples, datagram: &Datagram<'_>) -> bool {
    tuples.reply_destination == datagram.source() && tuples.reply_source == datagram.destination()
}

/// Which end of a conntrack entry the NAT hides, and what stands for it; `None`: the NAT leaves the entry alone.
///
/// FORWARD sees the original direction as original source to reply source, and the reply direction the other way
/// round. Source NAT hides the original source behind the reply destination; destination NAT hides the reply source
/// behind the original destination.
pub(super) fn orient(tuples: &Tuples) -> (FlowKey, Option<Outside>) {
    let transport = tuples.transport;
    let from_inside = FlowKey { transport, inside: Inside(tuples.orig_source), far: tuples.reply_source };
    if tuples.reply_destination != tuples.orig_source {
        (from_inside, Some(Outside(tuples.reply_destination)))
    } else if tuples.orig_destination != tuples.reply_source {
        let from_outside =
            FlowKey { transport, inside: Inside(tuples.reply_source), far: tuples.orig_source };
        (from_outside, Some(Outside(tuples.orig_destination)))
    } else {
        (from_inside, None)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::command::Transport;
    use super::*;

    fn tuples(all: [&str; 4]) -> Tuples {
        let [orig_source, orig_destination, reply_source, reply_destination] =
            all.map(|it| it.parse().unwrap());
        Tuples { transport: Transport::Udp, orig_source, orig_destination, reply_source, reply_destination }
    }

    #[test]
    fn source_nat_hides_the_originator_and_destination_nat_the_answerer() {
        let phone = FlowKey {
            transport: Transport::Udp,
            inside: Inside("192.168.1.10:5060".parse().unwrap()),
            far: "22.33.44.20:5060".parse().unwrap(),
        };
        let snat = ["192.168.1.10:5060", "22.33.44.20:5060", "22.33.44.20:5060", "22.33.44.55:17375"];
        assert_eq!(orient(&tuples(snat)), (phone, Some(Outside("22.33.44.55:17375".parse().unwrap()))));
        let forward = ["22.33.44.20:5060", "22.33.44.55:5060", "192.168.1.10:5060", "22.33.44.20:5060"];
        assert_eq!(orient(&tuples(forward)), (phone, Some(Outside("22.33.44.55:5060".parse().unwrap()))));
        let routed = ["192.168.1.10:5060", "22.33.44.20:5060", "22.33.44.20:5060", "192.168.1.10:5060"];
        assert_eq!(orient(&tuples(routed)), (phone, None));
    }
}
