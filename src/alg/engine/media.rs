//! Media: what a description needs in the kernel before it may go on.
//!
//! The phone's streams need bindings ([`pinholes`](super::pinholes)); when the far end's are known too, each pair of
//! endpoints needs a pinned flow and the far address needs to be admitted ([`pinning`](super::pinning)). Both sides of a
//! dialog are kept with its leg ([`legs`](super::legs)); whatever changes is compared with what is there, so that a repeated
//! description asks for nothing.

use std::net::SocketAddr;

use super::super::binding::State;
use super::super::call::{Before, Remote, Stream, Target};
use super::super::command::{CommandId, Transport};
use super::super::endpoint::Outside;
use super::super::envelope::Method;
use super::super::guard::{self, may_lead_to};
use super::super::key::Key;
use super::super::rewrite::sdp::{LocalStream, RemoteStream};
use super::super::verdict::Reason;
use super::message::Context;
use super::pinholes::endpoints;
use super::{Engine, Scratch};

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

    /// Strikes doors that no rule would open, where the message is as good without. Those for TCP: their lines stay as the
    /// phone wrote them, and so does what they lead to. And those for RTCP that nobody has asked for: a phone takes RTP ports
    /// as they come, and knows nothing of the service that has its number from the next one (27017, 11211).
    pub(super) fn keep_to_s9(&mut self, context: &Context<'_>, streams: &mut Vec<LocalStream>) {
        let before = streams.len();
        streams.retain_mut(|it| {
            let is_next = |rtcp: &SocketAddr| it.count == 1 && rtcp.port().checked_sub(1) == Some(it.port);
            it.rtcp = it.rtcp.filter(|rtcp| !is_next(rtcp) || guard::may_open(&self.policy, *rtcp));
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
        let (lan, server) = (context.lan, context.flow.far.ip());
        let mut strange = false;
        let side = self.flows.get(&context.flow).and_then(|flow| flow.public());
        let public = side.map_or(context.flow.inside.0, |side| side.endpoint.0).ip();
        let held = scratch.remote.iter().all(|stream| stream.rtp.is_none());
        let held = held || is_on_hold(&scratch.description);
        let Some(leg) = self.calls.get_mut(&context.call).and_then(|call| call.legs.get_mut(index)) else {
            return;
        };
        if may_fail(context) && !(leg.remote.is_empty() && leg.is_early()) {
            leg.remember(context.transaction, Before::Remote(leg.remote.clone()));
        }
        leg.held.remote = held;
        leg.remote.reserve_exact(scratch.remote.len().saturating_sub(leg.remote.len()));
        leg.remote.resize(scratch.remote.len(), Remote::default());
        for (remote, RemoteStream { transport, rtp, rtcp, mux, count, waits }) in
            leg.remote.iter_mut().zip(&scratch.remote)
        {
            let mut target = |written: SocketAddr| {
                let endpoint = side.map_or(written, |side| side.actual(written));
                match self.bindings.target(*transport, Outside(endpoint), lan, &self.policy) {
                    Some((target, _)) => Some(target),
                    // Never to the router itself (S8).
                    None if side.is_some_and(|side| side.endpoint.0.ip() == endpoint.ip()) => None,
                    None if !may_lead_to(public, server, endpoint.ip()) => {
                        strange = true;
                        None
                    }
                    None => Some(Target::Far(endpoint.into())),
                }
            };
            // A stream that is on hold keeps its last target: its media resumes without a new description.
            if *waits {
                *remote = Remote::default();
            } else if let Some(rtp) = rtp {
                let (rtp, rtcp) = (target(*rtp), rtcp.and_then(&mut target));
                *remote = Remote { rtp, rtcp, count: *count, mux: *mux };
            }
        }
        if strange {
            self.refuse("S8", context.flow, "media with a private address, by a server that has none");
        }
        if is_response || late_answer {
            self.pin_leg(context.now, context.call, index, answers(context), scratch);
        }
    }

    /// Notes the phone's streams, and whether they are on hold.
    fn set_local(&mut self, context: &Context<'_>, index: usize, streams: &[Stream], held: bool) {
        let Some(call) = self.calls.get_mut(&context.call) else { return };
        call.media = call.media.or(streams.first().map(|stream| stream.rtp));
        let Some(leg) = call.legs.get_mut(index) else { return };
        let changes = leg.held.local != held || (*leg.local != *streams && !streams.is_empty());
        // The same offer again, with credentials, changes nothing, but is what the first one depends on now.
        let again = leg.pending.iter().any(|it| matches!(it.before, Before::Local(_)));
        // A leg that begins with this is over if it is refused.
        if may_fail(context) && (changes || again) && !(leg.local.is_empty() && leg.is_early()) {
            leg.remember(context.transaction, Before::Local(leg.local.clone()));
        }
        leg.held.local = held;
        // A late offer, or its answer (RFC 3264 section 4), is final: nobody accepts it after this.
        let is_final = !may_fail(context) && leg.pending.iter().all(|it| it.by != context.transaction);
        // Port 0 or hold: what was open stays, to be there when the call resumes.
        if !streams.is_empty() {
            self.replace_local(context.call, index, streams);
        }
        if changes && is_final {
            self.close_stale(context.now, context.call, index);
        }
    }

    /// Puts other streams of the phone in the place of those that a leg has. The latter keep their bindings for now.
    pub(super) fn replace_local(&mut self, call: Key, index: usize, streams: &[Stream]) {
        let leg = self.calls.get_mut(&call).and_then(|call| call.legs.get_mut(index));
        let Some(leg) = leg else { return };
        if *leg.local == *streams {
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
        leg.local = streams.into();
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

pub(super) fn is_on_hold(description: &crate::sdp::Description) -> bool {
    use crate::sdp::Direction::{Inactive, SendOnly};
    let mut live = description.media.iter().filter(|media| media.number != 0).peekable();
    live.peek().is_some() && live.all(|media| matches!(media.direction, Inactive | SendOnly))
}
