//! Media: what a description needs in the kernel before it may go on.
//!
//! The phone's streams need bindings; when the far end's are known too, each pair of endpoints needs a pinned flow and
//! the far address needs to be admitted. Both sides of a dialog are kept with its leg; whatever changes is compared
//! with what is there, so that a repeated description asks for nothing.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use arrayvec::ArrayVec;

use super::super::binding::{Admitted, Binding, BindingKey, BindingKeys, Expecting, NoBinding, State};
use super::super::call::{Before, Call, CallNames, Leg, MAX_LEGS, Phase, Pin, Remote, Stream, Target};
use super::super::command::{CommandId, Op, Peer, Pinhole, Pinholes, PinnedFlow, Publics, Transport};
use super::super::endpoint::{Inside, Outside};
use super::super::envelope::Method;
use super::super::event::Event;
use super::super::guard;
use super::super::key::Key;
use super::super::policy::MediaSource;
use super::super::rewrite::sdp::{LocalStream, MAX_PORTS, RemoteStream};
use super::super::transaction::Tags;
use super::super::verdict::Reason;
use super::commands::Inflight;
use super::message::Context;
use super::{Engine, Scratch};

/// Ports that one stream may have: RTP and RTCP for each of its RTP ports.
type Endpoints = ArrayVec<Inside, { 2 * MAX_PORTS as usize }>;

impl Engine {
    /// Descriptions of one dialog take turns. A 183 and a 200 that differ may come together; if the second changed what
    /// the first one still waits for, each would undo the other's work when it is handled again, for ever.
    pub(super) fn wait_for_turn(&self, context: &Context<'_>, needs: &mut Vec<CommandId>) {
        let Some(call) = self.calls.get(&context.call) else { return };
        let Some(leg) = call.position(context.tags).and_then(|at| call.legs.get(at)) else { return };
        needs.extend(leg.pins.iter().filter_map(|pin| pin.pinning));
        needs.extend(leg.admitted.iter().filter_map(|(key, far)| self.admitting(key, *far)));
        needs.extend(leg.bindings().filter_map(|key| match self.bindings.get(&key)?.state {
            State::Opening(id) => Some(id),
            State::Open => None,
        }));
    }

    /// The phone's description: opens what is not open, notes the streams, pins what can be pinned.
    pub(super) fn offer_local(
        &mut self,
        context: &Context<'_>,
        scratch: &mut Scratch,
        first: bool,
    ) -> Result<(), Reason> {
        for stream in &scratch.local {
            let Some(mut all) = endpoints(stream) else {
                self.refuse("S9", context.flow, "more ports for one stream than anybody needs");
                return Err(Reason::Refused);
            };
            if !all.all(|endpoint| guard::may_open(&self.policy, endpoint.0)) {
                self.refuse("S9", context.flow, "media on a port that is reserved for a service");
                return Err(Reason::Refused);
            }
        }
        self.check_host(context, &scratch.local)?;
        let index = self.leg(context)?;
        self.make_room(context, &scratch.local);
        scratch.streams.clear();
        for stream in &scratch.local {
            let (streams, needs) = (&mut scratch.streams, &mut scratch.needs);
            if let Err(reason) = self.open_stream(context, stream, streams, needs) {
                self.give_up(context, &scratch.streams);
                return Err(reason);
            }
        }
        if first {
            let silent = scratch.streams.is_empty() && scratch.aware.is_empty();
            let held = !scratch.description.media.is_empty() && silent;
            let held = held || is_on_hold(&scratch.description);
            self.note_aware(context, index, scratch);
            self.set_local(context, index, &scratch.streams, held);
        } else {
            self.add_local(context, index, &scratch.streams);
        }
        self.expect(context, scratch);
        if scratch.needs.is_empty() {
            self.pin_leg(context.now, context.call, index, answers(context), scratch);
        }
        Ok(())
    }

    /// Strikes doors for TCP that no rule would open. Their lines stay as the phone wrote them, and so does what they lead
    /// to: unlike with UDP the message is as good without.
    pub(super) fn keep_to_s9(&mut self, context: &Context<'_>, streams: &mut Vec<LocalStream>) {
        let before = streams.len();
        streams.retain(|it| {
            let endpoint = SocketAddr::new(it.ip, it.port);
            it.transport == Transport::Udp || guard::may_open(&self.policy, endpoint)
        });
        if streams.len() < before {
            self.refuse("S9", context.flow, "a connection to a port that is reserved for a service");
        }
    }

    /// The far end's description: noted with the leg; in an answer to something that the phone asked or offered (S5) it
    /// is acted upon at once, otherwise when the phone answers.
    pub(super) fn note_remote(&mut self, context: &Context<'_>, scratch: &mut Scratch) {
        let is_response = context.envelope.status.is_some();
        if is_response && self.transactions.get(&context.transaction).is_none() {
            return;
        }
        // The phone's offer was in its 2xx or its reliable 1xx (RFC 3264 section 4, RFC 3262 section 5). Both repeat
        // the phone's tag, which only its peer knows.
        let late_answer = matches!(context.envelope.method, Method::Ack | Method::Prack)
            && !is_response
            && context.tags.local != 0;
        if late_answer && self.calls.get(&context.call).and_then(|call| call.position(context.tags)).is_none()
        {
            return;
        }
        // Without room for the call its media stays closed, but what the phone must get back it gets.
        let Ok(index) = self.leg(context) else { return };
        let lan = context.lan;
        let side = self.flows.get(&context.flow).and_then(|flow| flow.public());
        let held = scratch.remote.iter().all(|stream| stream.rtp.is_none());
        let held = held || is_on_hold(&scratch.description);
        let Some(leg) = self.calls.get_mut(&context.call).and_then(|call| call.legs.get_mut(index)) else {
            return;
        };
        if may_fail(context) && !leg.remote.is_empty() {
            leg.remember(context.transaction, Before::Remote(leg.remote.clone()));
        }
        leg.held.remote = held;
        leg.remote.reserve_exact(scratch.remote.len().saturating_sub(leg.remote.len()));
        leg.remote.resize(scratch.remote.len(), Remote::default());
        for (remote, RemoteStream { transport, rtp, rtcp, count, waits }) in
            leg.remote.iter_mut().zip(&scratch.remote)
        {
            let target = |written: SocketAddr| {
                let endpoint = side.map_or(written, |side| side.actual(written));
                match self.bindings.target(*transport, Outside(endpoint), lan, &self.policy) {
                    Some((target, _)) => Some(target),
                    // Never to the router itself (S8).
                    None if side.is_some_and(|side| side.endpoint.0.ip() == endpoint.ip()) => None,
                    None => Some(Target::Far(endpoint)),
                }
            };
            // A stream that is on hold keeps its last target: its media resumes without a new description.
            if *waits {
                *remote = Remote::default();
            } else if let Some(rtp) = rtp {
                *remote = Remote { rtp: target(*rtp), rtcp: rtcp.and_then(target), count: *count };
            }
        }
        if is_response || late_answer {
            self.pin_leg(context.now, context.call, index, answers(context), scratch);
        }
    }

    /// The index of the leg that the message belongs to; made if there is none.
    pub(super) fn leg(&mut self, context: &Context<'_>) -> Result<usize, Reason> {
        if let Some(call) = self.calls.get_mut(&context.call)
            && let Some(index) = call.position(context.tags)
        {
            call.invited |= context.envelope.method == Method::Invite;
            self.take_over(context, index);
            return Ok(index);
        }
        self.new_leg(context)
    }

    fn new_leg(&mut self, context: &Context<'_>) -> Result<usize, Reason> {
        let deadline = context.now + self.policy.half_open;
        if self.calls.get(&context.call).is_none() {
            let text = |span: crate::span::Span| String::from_utf8_lossy(span.of(context.bytes)).into();
            let envelope = &context.envelope;
            let names = CallNames {
                from: text(envelope.from),
                to: text(envelope.to),
                call_id: text(envelope.call_id),
            };
            let call = Call {
                flow: context.flow,
                legs: Vec::with_capacity(1),
                invited: false,
                names: Box::new(names),
                answered: None,
                media: None,
            };
            self.add_call(context.now, context.call, call, deadline)?;
        }
        let call = self.calls.get_mut(&context.call).ok_or(Reason::TableFull)?;
        call.invited |= context.envelope.method == Method::Invite;
        if call.legs.len() >= MAX_LEGS {
            return Err(Reason::TableFull);
        }
        // The dialog has just got its second tag: it begins with what the half-known one had (a fork does so too, once
        // for each branch).
        let halves =
            [Tags { local: context.tags.local, remote: 0 }, Tags { local: 0, remote: context.tags.remote }];
        let half = halves.into_iter().find_map(|tags| call.position(tags)).and_then(|at| call.legs.get(at));
        let leg = match half {
            Some(half) => Leg {
                tags: context.tags,
                retired: Vec::new(),
                stale: 0,
                pending: Vec::new(),
                pins: Vec::new(),
                admitted: Vec::new(),
                ..half.clone()
            },
            None => Leg::new(context.tags, context.transaction, context.flow.far.ip(), context.now, deadline),
        };
        for key in leg.bindings() {
            if let Some(binding) = self.bindings.get_mut(&key) {
                binding.owners += 1;
            }
        }
        call.legs.push(leg);
        let index = call.legs.len() - 1;
        if let Some(deadline) = call.deadline() {
            self.calls.set_deadline(&context.call, deadline);
        }
        Ok(index)
    }

    /// An INVITE that was challenged comes again with a new branch: the half-known leg is now this one's. While the
    /// first INVITE is still open the second is a branch of a fork that met again, and the leg stays the first one's.
    fn take_over(&mut self, context: &Context<'_>, index: usize) {
        let is_invite = context.envelope.method == Method::Invite && context.envelope.status.is_none();
        let Some(call) = self.calls.get_mut(&context.call).filter(|_| is_invite) else { return };
        let Some(leg) = call.legs.get_mut(index).filter(|leg| leg.is_early()) else { return };
        let is_open = |key| self.transactions.get(&key).is_some_and(|it| !it.finished);
        if leg.made_by != context.transaction && !is_open(leg.made_by) {
            leg.made_by = context.transaction;
            leg.phase = Phase::Offered;
            leg.deadline = context.now + self.policy.half_open;
            // Redirected (RFC 3261 section 8.1.3.4): the next server may be another.
            leg.server = context.flow.far.ip();
            call.flow = context.flow;
        }
    }

    /// Bindings for all ports of a stream, one entry of `streams` for each pair; the commands that open them go into
    /// `needs`.
    fn open_stream(
        &mut self,
        context: &Context<'_>,
        stream: &LocalStream,
        streams: &mut Vec<Stream>,
        needs: &mut Vec<CommandId>,
    ) -> Result<(), Reason> {
        let public = context.public.ok_or(Reason::NotNated)?;
        let mut wanted = endpoints(stream).ok_or(Reason::Refused)?;
        let (transport, uplink) = (stream.transport, context.uplink);
        let key = |inside: Inside| BindingKey { transport, inside, uplink };
        let is_open = |inside| {
            let binding = self.bindings.get(&key(inside));
            binding.is_some_and(|it| it.state == State::Open && it.pinhole.public.0.ip() == public)
        };
        if !wanted.clone().all(is_open) {
            self.open(context, transport, public, &wanted.clone().collect(), needs)?;
        }
        for pair in 0.. {
            let Some(rtp) = wanted.next().map(key) else { break };
            let rtcp = wanted.next().map(key);
            streams.push(Stream { media: stream.media, pair, rtp, rtcp });
        }
        Ok(())
    }

    /// Opens what is not open of `wanted`, on the public address `public`.
    fn open(
        &mut self,
        context: &Context<'_>,
        transport: Transport,
        public: IpAddr,
        wanted: &Endpoints,
        needs: &mut Vec<CommandId>,
    ) -> Result<(), Reason> {
        let Context { lan, uplink, .. } = *context;
        let key = |inside: Inside| BindingKey { transport, inside, uplink };
        let moved: ArrayVec<(BindingKey, u16), { 2 * MAX_PORTS as usize }> = wanted
            .iter()
            .filter_map(|inside| Some((key(*inside), self.bindings.get(&key(*inside))?)))
            .filter(|(_, binding)| binding.pinhole.public.0.ip() != public)
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
            // RTP and RTCP get neighbours also where the phone's own are not: `a=rtcp` says which is which.
            let count = u16::try_from(missing.len()).map_err(|_| Reason::Refused)?;
            self.bindings.admit_host(host, missing.len(), context.now, &self.policy).map_err(reason_of)?;
            let taken = self.bindings.take_ports(public, first.0.port(), count, context.now, &self.policy);
            let base = match taken {
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
                        inside: key.inside,
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
                        pinhole,
                        lan,
                        signalling: context.flow,
                        owners: moved.iter().find(|(it, _)| *it == key).map_or(0, |(_, owners)| *owners),
                        state: State::Opening(id),
                        peers: Vec::new(),
                        pins: Vec::new(),
                        died: None,
                        lapsed: false,
                        expecting: Expecting::No,
                        latched: Vec::new(),
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

    /// Notes the phone's streams, and whether they are on hold.
    fn set_local(&mut self, context: &Context<'_>, index: usize, streams: &[Stream], held: bool) {
        let Some(call) = self.calls.get_mut(&context.call) else { return };
        call.media = call.media.or(streams.first().map(|stream| stream.rtp));
        let Some(leg) = call.legs.get_mut(index) else { return };
        let changes = leg.held.local != held || (leg.local != streams && !streams.is_empty());
        // The same offer again, with credentials, changes nothing, but is what the first one depends on now.
        let again = leg.pending.iter().any(|it| matches!(it.before, Before::Local(_)));
        if may_fail(context) && (changes || again) && !leg.local.is_empty() {
            leg.remember(context.transaction, Before::Local(leg.local.clone()));
        }
        leg.held.local = held;
        self.replace_local(context.call, index, streams);
    }

    /// Puts other streams of the phone in the place of those that a leg has. The latter keep their bindings for now.
    pub(super) fn replace_local(&mut self, call: Key, index: usize, streams: &[Stream]) {
        let leg = self.calls.get_mut(&call).and_then(|call| call.legs.get_mut(index));
        let Some(leg) = leg else { return };
        if leg.local == streams || streams.is_empty() {
            // Port 0 or hold: what was open stays, to be there when the call resumes.
            return;
        }
        for key in streams.iter().flat_map(Stream::keys) {
            if let Some(binding) = self.bindings.get_mut(&key) {
                binding.owners += 1;
            }
        }
        let mut gone = Vec::new();
        for key in leg.local.iter().flat_map(Stream::keys) {
            let still_named = streams.iter().flat_map(Stream::keys).any(|it| it == key);
            if still_named || leg.retired.contains(&key) {
                gone.push(key);
            } else {
                leg.retired.push(key);
            }
        }
        leg.local = streams.to_vec();
        for key in gone {
            // It has a newer owner, so this closes nothing.
            if let Some(binding) = self.bindings.get_mut(&key) {
                binding.owners -= 1;
            }
        }
    }

    /// Notes streams of a further description of the same message.
    fn add_local(&mut self, context: &Context<'_>, index: usize, streams: &[Stream]) {
        let Some(leg) = self.calls.get_mut(&context.call).and_then(|call| call.legs.get_mut(index)) else {
            return;
        };
        for key in streams.iter().flat_map(Stream::keys) {
            let known = leg.bindings().any(|it| it == key);
            if let Some(binding) = self.bindings.get_mut(&key).filter(|_| !known) {
                binding.owners += 1;
                leg.retired.push(key);
            }
        }
    }

    /// Brings pinned flows and admitted peers of a leg in line with its two sides. New ones go into `scratch.needs`.
    /// An offer may be refused, and media goes on as before until it is answered (RFC 3264 section 8.3.1): so it only
    /// adds, and what it replaces goes with its answer.
    pub(super) fn pin_leg(
        &mut self,
        now: Instant,
        call_key: Key,
        index: usize,
        is_answer: bool,
        scratch: &mut Scratch,
    ) {
        let Scratch { flows, peers, needs, .. } = scratch;
        flows.clear();
        peers.clear();
        let Some(call) = self.calls.get(&call_key) else { return };
        let Some(leg) = call.legs.get(index) else { return };
        if !is_answer {
            flows.extend(leg.pins.iter().map(|pin| pin.flow));
            peers.extend(leg.admitted.iter().copied());
        }
        // A stream that stands at a public endpoint of the phone's own by now keeps its doors, as one on hold does, and is
        // pinned by that endpoint alone.
        let moved = |media| leg.routed.iter().any(|it| it.media == media && it.known_as != [None; 2]);
        for stream in leg.local.iter().filter(|stream| !moved(stream.media)) {
            let Some(remote) = leg.remote.get(usize::from(stream.media)) else { continue };
            for (key, target) in [(Some(stream.rtp), remote.rtp), (stream.rtcp, remote.rtcp)] {
                let target = target.and_then(|target| target.of_pair(stream.pair, remote.count));
                let (Some(key), Some(target)) = (key, target) else { continue };
                let Some(binding) = self.bindings.get(&key) else { continue };
                if key.transport == Transport::Tcp {
                    // The port that it will connect from is its own choice: it is let in, and pinned when it comes. Nobody
                    // else ever is, whatever the policy says of datagrams (S9).
                    let caller = caller(binding, target).map(|far| (key, Some(far)));
                    peers.extend(caller.filter(|it| !peers.contains(it)));
                    continue;
                }
                if let Some((flow, far)) = pinned(binding, target)
                    && !is_pinned(flows, &flow)
                {
                    let far = far.filter(|_| self.policy.media_source == MediaSource::Negotiated);
                    flows.push(flow);
                    peers.push((key, far));
                }
            }
        }
        for flow in super::routed::flows(leg, call.flow) {
            if !is_pinned(flows, &flow) {
                flows.push(flow);
            }
        }
        // What is there is taken back only when the far end named something else, never because it fell silent. So is
        // nothing done when nothing has changed, but what is under way has to be waited for.
        let lapsed = |flow: &PinnedFlow| {
            self.bindings.by_public(flow.public).is_some_and(|(_, binding)| is_answer && binding.lapsed)
        };
        let unchanged = flows.iter().eq(leg.pins.iter().map(|pin| &pin.flow))
            && *peers == leg.admitted
            && peers.iter().all(|(key, far)| self.is_admitted(key, *far))
            && !flows.iter().any(lapsed);
        // Only of a connection it may be said that it comes no more: the phone is to open it.
        let turned = is_answer
            && leg.admitted.iter().any(|it| it.0.transport == Transport::Tcp && !peers.contains(it));
        if turned && flows.is_empty() {
            flows.extend(leg.pins.iter().map(|pin| pin.flow));
            peers.extend(leg.admitted.iter().filter(|it| it.0.transport == Transport::Udp));
        }
        if flows.is_empty() && peers.is_empty() && !turned || unchanged {
            // Media that is refused, on hold, or takes another way is not expected any more either.
            if is_answer {
                self.unexpect_leg(call_key, index);
            }
            let Some(leg) = self.calls.get(&call_key).and_then(|call| call.legs.get(index)) else { return };
            needs.extend(leg.pins.iter().filter_map(|pin| pin.pinning));
            let admitting = leg.admitted.iter().filter_map(|(key, far)| self.admitting(key, *far));
            needs.extend(admitting);
            return;
        }
        let (signalling, tags) = (call.flow, leg.tags);
        let (old_peers, mut old_pins) = (leg.admitted.clone(), leg.pins.clone());
        let counted: Vec<PinnedFlow> = old_pins.iter().map(|pin| pin.flow).collect();
        // What conntrack has forgotten in a long silence is made again, before the far end's media finds it missing.
        old_pins.retain(|pin| !flows.contains(&pin.flow) || !lapsed(&pin.flow));
        if is_answer {
            for stream in leg.local.clone() {
                for key in stream.keys() {
                    if let Some(binding) = self.bindings.get_mut(&key) {
                        binding.lapsed = false;
                    }
                }
            }
        }
        for pin in old_pins.iter().filter(|pin| !flows.contains(&pin.flow)) {
            self.unpin(&pin.flow);
        }
        for (key, far) in old_peers.iter().filter(|peer| !peers.contains(peer)) {
            self.dismiss(key, *far);
        }
        for (key, far) in peers.iter() {
            let known = old_peers.contains(&(*key, *far));
            needs.extend(self.admit(now, key, *far, known));
        }
        // First: what has come by an expectation makes room for the pin.
        for (key, _) in peers.iter() {
            self.unexpect(key);
        }
        if is_answer {
            self.unexpect_leg(call_key, index);
        }
        let mut pins = Vec::with_capacity(flows.len());
        for flow in flows.iter().copied() {
            let pinning = match old_pins.iter().find(|pin| pin.flow == flow) {
                Some(pin) => pin.pinning,
                None => {
                    if !counted.contains(&flow) {
                        self.bindings.count_pin(&flow);
                    }
                    let purpose = Inflight::Pin { call: call_key, tags, flow };
                    Some(self.command(Op::Pin { flow, signalling }, purpose))
                }
            };
            needs.extend(pinning);
            pins.push(Pin { flow, pinning });
        }
        if let Some(leg) = self.calls.get_mut(&call_key).and_then(|call| call.legs.get_mut(index)) {
            leg.pins = pins;
            leg.admitted = peers.clone();
        }
    }

    fn is_admitted(&self, key: &BindingKey, far: Option<IpAddr>) -> bool {
        self.bindings.get(key).is_some_and(|binding| binding.peers.iter().any(|entry| entry.far == far))
    }

    fn admitting(&self, key: &BindingKey, far: Option<IpAddr>) -> Option<CommandId> {
        let binding = self.bindings.get(key)?;
        binding.peers.iter().find(|entry| entry.far == far)?.admitting
    }

    /// Admits `far` to a binding, or counts one more that wants it. The answer is the command to wait for.
    fn admit(
        &mut self,
        now: Instant,
        key: &BindingKey,
        far: Option<IpAddr>,
        known: bool,
    ) -> Option<CommandId> {
        let binding = self.bindings.get_mut(key)?;
        if let Some(entry) = binding.peers.iter_mut().find(|entry| entry.far == far) {
            entry.wanted += u16::from(!known);
            return entry.admitting;
        }
        let Pinhole { transport, public, .. } = binding.pinhole;
        let peer = Peer { transport, public, far };
        let lifetime = 2 * self.policy.half_open;
        let op = Op::Admit { peers: vec![peer], lifetime };
        let id = self.command(op, Inflight::Admit { binding: *key, far });
        // The binding may not be due for renewal for a long time.
        self.bindings.renew_by(key, now + self.policy.half_open);
        let binding = self.bindings.get_mut(key)?;
        binding.peers.reserve_exact(1);
        binding.peers.push(Admitted { far, wanted: 1, admitting: Some(id) });
        Some(id)
    }

    /// One less wants `far` admitted; the last one closes.
    fn dismiss(&mut self, key: &BindingKey, far: Option<IpAddr>) {
        let Some(binding) = self.bindings.get_mut(key) else { return };
        let Some(at) = binding.peers.iter().position(|entry| entry.far == far) else { return };
        let Some(entry) = binding.peers.get_mut(at) else { return };
        entry.wanted = entry.wanted.saturating_sub(1);
        if entry.wanted > 0 {
            return;
        }
        binding.peers.swap_remove(at);
        let Pinhole { transport, public, .. } = binding.pinhole;
        let peers = vec![Peer { transport, public, far }];
        self.background(Op::Dismiss { peers }, "dismiss");
    }

    /// One leg less wants a flow pinned; when none of any call is left, its entry goes.
    pub(super) fn unpin(&mut self, flow: &PinnedFlow) {
        let wanted = self.bindings.uncount_pin(flow);
        if !wanted {
            self.background(Op::Unpin { flow: *flow }, "unpin");
        }
    }

    /// The message passes untouched: what was made for it so far goes at once.
    fn give_up(&mut self, context: &Context<'_>, streams: &[Stream]) {
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

    /// Takes a leg out of its call and gives everything back that it owned. The last leg ends the call.
    pub(super) fn end_leg(&mut self, now: Instant, call_key: Key, index: usize, why: &'static str) {
        let Some(call) = self.calls.get_mut(&call_key) else { return };
        if index >= call.legs.len() {
            return;
        }
        let leg = call.legs.swap_remove(index);
        call.legs.shrink_to_fit();
        let over = call.legs.is_empty();
        let is_whole = leg.tags.local != 0 && leg.tags.remote != 0;
        if let Some(transaction) = self.transactions.get_mut(&leg.made_by).filter(|_| is_whole) {
            transaction.ended = Some(leg.tags);
        }
        if let Some(deadline) = call.deadline() {
            self.calls.set_deadline(&call_key, deadline);
        }
        self.release(now, &leg);
        if over {
            self.end_call(now, call_key, why);
        }
    }

    /// Gives back what a leg owns for the phone's side. If the far end has said nothing either, the leg ends.
    pub(super) fn release_local(&mut self, now: Instant, call_key: Key, index: usize) {
        let leg = self.calls.get_mut(&call_key).and_then(|call| call.legs.get_mut(index));
        let Some(leg) = leg else { return };
        if leg.remote.is_empty() {
            return self.end_leg(now, call_key, index, "refused");
        }
        let mut given = Leg::new(leg.tags, leg.made_by, leg.server, now, leg.deadline);
        std::mem::swap(&mut given.local, &mut leg.local);
        std::mem::swap(&mut given.retired, &mut leg.retired);
        leg.stale = 0;
        leg.pending.clear();
        std::mem::swap(&mut given.pins, &mut leg.pins);
        std::mem::swap(&mut given.admitted, &mut leg.admitted);
        self.release(now, &given);
    }

    /// Gives back what `leg`, which is no longer part of its call, owns.
    fn release(&mut self, now: Instant, leg: &Leg) {
        for (key, far) in &leg.admitted {
            if self.bindings.get(key).is_some_and(|binding| binding.owners > leg.owns(key)) {
                self.dismiss(key, *far);
            }
        }
        let mut closing = Vec::new();
        for key in leg.bindings() {
            if let Some(binding) = self.bindings.get_mut(&key) {
                binding.owners = binding.owners.saturating_sub(1);
                if binding.owners == 0 && !closing.contains(&key) {
                    closing.push(key);
                }
            }
        }
        // The maps go first: once they are gone, late media of the phone cannot make a new entry by them.
        for keys in closing.chunks(2) {
            self.close(now, keys);
        }
        for pin in &leg.pins {
            self.unpin(&pin.flow);
        }
    }

    /// The router has another public address, and the binding lies on the old one: it goes, with all that calls which
    /// were never hung up have made of it.
    fn leave(&mut self, now: Instant, key: &BindingKey) {
        let Some(public) = self.bindings.get(key).map(|binding| binding.pinhole.public) else { return };
        let mut calls: Vec<Key> = self.calls.iter().map(|(key, _)| *key).collect();
        calls.sort_unstable();
        let mut pins = Vec::new();
        for call in calls {
            let Some(call) = self.calls.get_mut(&call) else { continue };
            for leg in &mut call.legs {
                leg.admitted.retain(|(it, _)| it != key);
                let (gone, kept) = leg.pins.iter().partition(|pin| pin.flow.public == public);
                leg.pins = kept;
                pins.extend::<Vec<Pin>>(gone);
            }
        }
        self.close(now, &[*key]);
        for pin in pins {
            self.background(Op::Unpin { flow: pin.flow }, "unpin");
        }
    }

    /// Closes bindings, at most two.
    pub(super) fn close(&mut self, now: Instant, keys: &[BindingKey]) {
        let quarantine = self.policy.quarantine;
        let (mut pinholes, mut peers, mut latched) = (Pinholes::new(), Vec::new(), Vec::new());
        for key in keys {
            let Some(binding) = self.bindings.remove(key, now, quarantine) else { continue };
            if binding.expecting == Expecting::Yes {
                let public = Publics::from_iter([binding.pinhole.public]);
                self.background(Op::Unexpect { public, signalling: binding.signalling }, "unexpect");
            }
            peers.extend(binding.peers());
            latched.extend(binding.latched.iter().map(|(flow, _)| *flow));
            if pinholes.try_push(binding.pinhole).is_ok() && binding.state == State::Open {
                self.event(Event::Closed { pinhole: binding.pinhole });
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

impl Leg {
    fn owns(&self, key: &BindingKey) -> u16 {
        u16::try_from(self.bindings().filter(|it| it == key).count()).unwrap_or(u16::MAX)
    }
}

/// Whether there is an entry for this flow in the list. By which public endpoint does not matter: conntrack knows one, and
/// that of an offer has to wait until it is answered.
fn is_pinned(flows: &[PinnedFlow], flow: &PinnedFlow) -> bool {
    flows.iter().any(|it| (it.inside, it.far) == (flow.inside, flow.far))
}

/// Whether what the message says about media is an answer, or as good as one.
pub(super) fn answers(context: &Context<'_>) -> bool {
    context.envelope.status.is_some() || context.envelope.method == Method::Ack
}

/// Whether what the message says about media may still be refused, or be taken back by the end of its transaction: in
/// a request, and in a provisional answer. What an ACK says is final.
pub(super) fn may_fail(context: &Context<'_>) -> bool {
    match context.envelope.status {
        None => context.envelope.method != Method::Ack,
        Some(status) => status < 200,
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

/// The flow between a binding and a target, and the address to admit for it; nothing for direct media.
fn pinned(binding: &Binding, target: Target) -> Option<(PinnedFlow, Option<IpAddr>)> {
    let Pinhole { transport, inside, public, .. } = binding.pinhole;
    match target {
        Target::Direct => None,
        // Nobody here translates between the families.
        Target::Far(far) if far.is_ipv4() != inside.0.is_ipv4() => None,
        Target::Far(far) => {
            let flow = PinnedFlow { transport, inside, far, public, hairpin: None };
            Some((flow, Some(far.ip())))
        }
        Target::Hairpin { public: far, inside: other } => {
            let flow = PinnedFlow { transport, inside, far, public, hairpin: Some(other) };
            Some((flow, Some(other.0.ip())))
        }
    }
}

/// Who may connect to a binding for TCP, if anybody is to. Between two phones behind the same NAT nobody does: where they
/// are named to each other directly they need no door, and by the router there is no way for connections.
fn caller(binding: &Binding, target: Target) -> Option<IpAddr> {
    match target {
        Target::Far(far) if far.is_ipv4() == binding.pinhole.inside.0.is_ipv4() => Some(far.ip()),
        Target::Far(_) | Target::Direct | Target::Hairpin { .. } => None,
    }
}

pub(super) fn is_on_hold(description: &crate::sdp::Description) -> bool {
    use crate::sdp::Direction::{Inactive, SendOnly};
    let mut live = description.media.iter().filter(|media| media.number != 0).peekable();
    live.peek().is_some() && live.all(|media| matches!(media.direction, Inactive | SendOnly))
}

pub(super) fn reason_of(no: NoBinding) -> Reason {
    match no {
        NoBinding::Quota => Reason::Quota,
        NoBinding::PoolEmpty => Reason::PoolEmpty,
    }
}
