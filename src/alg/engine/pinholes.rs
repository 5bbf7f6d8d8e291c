//! Bindings: opened for the streams of a description, and closed.
//!
//! All ports of a stream open together, next to each other where they can, or none does. Who else uses what is open
//! already does not matter here: owners are counted with the legs ([`legs`](super::legs)). Ports that a stream has already
//! are never moved, so the rest of a run may have to lie elsewhere; RTCP, whose place is beside an even port, never has.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use arrayvec::ArrayVec;
use smallvec::SmallVec;
use thin_vec::ThinVec;

use super::super::binding::{Binding, BindingKey, BindingKeys, Expecting, NoBinding, State};
use super::super::call::Stream;
use super::super::command::{CommandId, Op, Pinhole, Pinholes, Publics, Transport};
use super::super::endpoint::{Inside, Outside};
use super::super::event::Event;
use super::super::key::Key;
use super::super::rewrite::sdp::{LocalStream, MAX_PORTS};
use super::super::verdict::Reason;
use super::Engine;
use super::commands::Inflight;
use super::message::Context;

/// Ports that one stream may have: RTP and RTCP for each of its RTP ports.
type Endpoints = ArrayVec<Inside, { 2 * MAX_PORTS as usize }>;

impl Engine {
    /// Bindings for all ports of a stream, one entry of `streams` for each pair; the commands that open them go into
    /// `needs`.
    pub(super) fn open_stream(
        &mut self,
        context: &Context<'_>,
        stream: &LocalStream,
        streams: &mut Vec<Stream>,
        needs: &mut Vec<CommandId>,
    ) -> Result<(), Reason> {
        let public = context.public.ok_or(Reason::NotNated)?;
        let mut wanted = endpoints(stream).ok_or(Reason::Refused)?;
        let (transport, uplink) = (stream.transport, context.uplink);
        let key = |inside: Inside| BindingKey::new(transport, inside, uplink);
        let is_open = |inside| {
            let binding = self.bindings.get(&key(inside));
            binding.is_some_and(|it| it.state == State::Open && it.public().0.ip() == public)
        };
        if !wanted.clone().all(is_open) {
            let all: Endpoints = wanted.clone().collect();
            // RTCP that is elsewhere has no place beside RTP: that is for the next description, which may have it there.
            let (beside, apart) = if is_run(&all) { (all.as_slice(), &[][..]) } else { all.split_at(1) };
            self.open(context, transport, public, beside, needs)?;
            if let Err(reason) = self.open(context, transport, public, apart, needs) {
                for key in beside.iter().copied().map(key) {
                    if self.bindings.get(&key).is_some_and(|binding| binding.owners == 0) {
                        self.close(context.now, &[key]);
                    }
                }
                return Err(reason);
            }
        }
        for pair in 0.. {
            let Some(rtp) = wanted.next().map(key) else { break };
            let rtcp = wanted.next().map(key);
            streams.push(Stream { media: stream.media, pair, rtp, rtcp, mux: stream.mux });
        }
        Ok(())
    }

    /// Opens what is not open of `wanted`, on the public address `public`.
    fn open(
        &mut self,
        context: &Context<'_>,
        transport: Transport,
        public: IpAddr,
        wanted: &[Inside],
        needs: &mut Vec<CommandId>,
    ) -> Result<(), Reason> {
        let Context { lan, uplink, .. } = *context;
        let key = |inside: Inside| BindingKey::new(transport, inside, uplink);
        let moved: ArrayVec<(BindingKey, u16), { 2 * MAX_PORTS as usize }> = wanted
            .iter()
            .filter_map(|inside| Some((key(*inside), self.bindings.get(&key(*inside))?)))
            .filter(|(_, binding)| binding.public().0.ip() != public)
            .map(|(key, binding)| (key, binding.owners))
            .collect();
        for (key, _) in &moved {
            self.leave(context.now, key);
        }
        let missing: Endpoints =
            wanted.iter().copied().filter(|inside| self.bindings.get(&key(*inside)).is_none()).collect();
        if let Some(first) = missing.first() {
            if self.parking.is_full() {
                return Err(Reason::TableFull);
            }
            let host = context.flow.inside.0.ip();
            let count = u16::try_from(missing.len()).map_err(|_| Reason::Refused)?;
            self.bindings.admit_host(host, missing.len(), context.now, &self.policy).map_err(reason_of)?;
            let port_of = |inside: Inside| Some(self.bindings.get(&key(inside))?.public().0.port());
            let beside = place_beside(wanted, &missing, port_of)
                .filter(|base| self.bindings.take_ports_at(public, *base, count));
            let taken = || self.bindings.take_ports(public, first.0.port(), count, context.now, &self.policy);
            let base = match beside.map_or_else(taken, Ok) {
                Ok(base) => base,
                Err(no) => {
                    self.bindings.return_quota(host, missing.len());
                    return Err(reason_of(no));
                }
            };
            for (pair, offset) in missing.chunks(2).zip((0..).step_by(2)) {
                let keys: BindingKeys = pair.iter().map(|inside| key(*inside)).collect();
                let pinholes: Pinholes = keys
                    .iter()
                    .zip(base + offset..=u16::MAX)
                    .map(|(key, port)| Pinhole {
                        transport,
                        inside: key.inside(),
                        public: Outside(SocketAddr::new(public, port)),
                        uplink,
                    })
                    .collect();
                let lifetime = 2 * self.policy.half_open;
                let open = Op::Open { pinholes: pinholes.clone(), lifetime };
                let id =
                    self.command(open, Inflight::Open { keys: keys.clone(), call: context.call, tries: 0 });
                for (key, pinhole) in keys.into_iter().zip(pinholes) {
                    let binding = Binding {
                        public: pinhole.public.0.into(),
                        lan,
                        signalling: context.flow.into(),
                        owners: moved.iter().find(|(it, _)| *it == key).map_or(0, |(_, owners)| *owners),
                        state: State::Opening(id),
                        peers: SmallVec::new(),
                        pins: SmallVec::new(),
                        died: None,
                        lapsed: false,
                        expecting: Expecting::No,
                        latched: ThinVec::new(),
                    };
                    self.bindings.insert(key, binding, context.now + self.policy.half_open);
                }
            }
        }
        for inside in wanted {
            if let Some(State::Opening(id)) = self.bindings.get(&key(*inside)).map(|binding| binding.state) {
                needs.push(id);
            }
        }
        Ok(())
    }

    /// The message passes untouched: what was made for it so far goes at once.
    pub(super) fn give_up(&mut self, context: &Context<'_>, streams: &[Stream]) {
        for key in streams.iter().flat_map(Stream::keys) {
            if self.bindings.get(&key).is_some_and(|binding| binding.owners == 0) {
                self.close(context.now, &[key]);
            }
        }
        let Some(call) = self.calls.get(&context.call) else { return };
        if let Some(index) = call.position(context.tags)
            && call.legs.get(index).is_some_and(|leg| leg.local.is_empty() && leg.remote.is_empty())
        {
            self.end_leg(context.now, context.call, index, "refused");
        }
    }

    /// The router has another public address, and the binding lies on the old one: it goes, with all that calls which
    /// were never hung up have made of it.
    fn leave(&mut self, now: Instant, key: &BindingKey) {
        let Some(public) = self.bindings.get(key).map(|binding| binding.public()) else { return };
        let mut calls: Vec<Key> = self.calls.iter().map(|(key, _)| *key).collect();
        calls.sort_unstable();
        let mut pinned = Vec::new();
        for call in calls {
            let Some(call) = self.calls.get_mut(&call) else { continue };
            pinned.extend(call.legs.iter_mut().flat_map(|leg| leg.strike(key, public)));
        }
        self.close(now, &[*key]);
        for flow in pinned {
            self.background(Op::Unpin { flow }, "unpin");
        }
    }

    /// Closes bindings, at most two.
    pub(super) fn close(&mut self, now: Instant, keys: &[BindingKey]) {
        let quarantine = self.policy.quarantine;
        let (mut pinholes, mut peers, mut latched) = (Pinholes::new(), Vec::new(), Vec::new());
        for key in keys {
            let Some(binding) = self.bindings.remove(key, now, quarantine) else { continue };
            if binding.expecting == Expecting::Yes {
                let public = Publics::from_iter([binding.public()]);
                self.background(Op::Unexpect { public, signalling: binding.signalling.get() }, "unexpect");
            }
            peers.extend(binding.peers(key.transport()));
            latched.extend(binding.latched.iter().map(|(flow, _)| *flow));
            let pinhole = key.pinhole(binding.public());
            if pinholes.try_push(pinhole).is_ok() && binding.state == State::Open {
                self.event(Event::Closed { pinhole });
            }
        }
        if !pinholes.is_empty() {
            self.background(Op::Close { pinholes, peers, quarantine }, "close");
        }
        for flow in latched {
            self.background(Op::Unpin { flow }, "unpin");
        }
    }
}

impl Stream {
    /// The bindings of both ports.
    pub(super) fn keys(&self) -> impl Iterator<Item = BindingKey> + use<> {
        [Some(self.rtp), self.rtcp].into_iter().flatten()
    }
}

/// The inside endpoints of a stream, RTP and RTCP in turn. `None`: the port numbers run out, or there are too many.
pub(super) fn endpoints(stream: &LocalStream) -> Option<impl Iterator<Item = Inside> + Clone> {
    let LocalStream { ip, port, count, rtcp, .. } = *stream;
    let (own_rtcp, ports) = match (count, rtcp) {
        // With RTCP multiplexed, `a=rtcp` may name the RTP port (RFC 5761 section 5.1.3).
        (1, Some(rtcp)) if rtcp != SocketAddr::new(ip, port) => (Some(Inside(rtcp)), 1),
        (1, _) => (None, 1),
        (2..=MAX_PORTS, _) => (None, count.checked_mul(2)?),
        _ => return None,
    };
    let last = port.checked_add(ports - 1)?;
    Some((port..=last).map(move |port| Inside(SocketAddr::new(ip, port))).chain(own_rtcp))
}

/// Whether each endpoint is beside the one before it.
fn is_run(endpoints: &[Inside]) -> bool {
    let next = |it: SocketAddr| Some(SocketAddr::new(it.ip(), it.port().checked_add(1)?));
    endpoints.iter().zip(endpoints.iter().skip(1)).all(|(one, other)| next(one.0) == Some(other.0))
}

/// Where the `missing` ports of a stream belong, if one of those beside them is open: it comes back to a stream that kept
/// its RTP port while it had no RTCP (a fax), say, and the far end looks for RTCP at the next port (RFC 3550 section 11).
fn place_beside(
    wanted: &[Inside],
    missing: &[Inside],
    port_of: impl Fn(Inside) -> Option<u16>,
) -> Option<u16> {
    let at = wanted.windows(missing.len()).position(|part| part == missing)?;
    let open = |at: Option<usize>| port_of(*wanted.get(at?)?);
    let after = || open(at.checked_sub(1))?.checked_add(1);
    let before = || open(at.checked_add(missing.len()))?.checked_sub(u16::try_from(missing.len()).ok()?);
    after().or_else(before)
}

pub(super) fn reason_of(no: NoBinding) -> Reason {
    match no {
        NoBinding::Quota => Reason::Quota,
        NoBinding::PoolEmpty => Reason::PoolEmpty,
    }
}
