//! Copies of the tables, for who asks what is up.

use std::time::Instant;

use super::super::binding::BindingKey;
use super::super::call::{Call, Leg, Target};
use super::super::command::{FlowKey, Pinhole, PinnedFlow, Transport};
use super::super::endpoint::Outside;
use super::super::registration::GRACE;
use super::super::views::{BindingView, CallView, LegView, RegistrationView, StreamView};
use super::Engine;

impl Engine {
    /// All calls, in no order that means anything. What was not begun by an INVITE is none.
    pub fn calls(&self, now: Instant) -> impl Iterator<Item = CallView> + '_ {
        let calls = self.calls.iter().map(|(_, call)| call).filter(|call| call.invited);
        calls.map(move |call| self.call_view(now, call))
    }

    /// How many calls there are.
    pub fn count_calls(&self) -> usize {
        self.calls.iter().filter(|(_, call)| call.invited).count()
    }

    /// How many calls go by these UDP ports of servers.
    pub fn count_calls_by(&self, ports: &[u16]) -> usize {
        let by = |flow: FlowKey| flow.transport == Transport::Udp && ports.contains(&flow.far.port());
        self.calls.iter().filter(|(_, call)| call.invited && by(call.flow.get())).count()
    }

    /// All registrations, in no order that means anything.
    pub fn registrations(&self, now: Instant) -> impl Iterator<Item = RegistrationView> + '_ {
        self.registrations.with_deadlines().map(move |(_, it, due)| RegistrationView {
            who: it.who.to_string(),
            inside: it.flow.get().inside,
            registrar: it.flow.get().far,
            public: Outside(it.public.endpoint()),
            left: due.saturating_duration_since(now + GRACE),
        })
    }

    /// All bindings, in no order that means anything.
    pub fn bindings(&self) -> impl Iterator<Item = BindingView> + '_ {
        self.bindings.iter().map(|(key, it)| {
            let Pinhole { transport, inside, public, uplink } = key.pinhole(it.public());
            BindingView {
                transport,
                inside,
                public,
                uplink,
                owners: it.owners,
                admitted: it.peers.iter().map(|peer| peer.far).collect(),
                latched: it.latched.iter().map(|(flow, _)| flow.far).collect(),
            }
        })
    }

    /// A dialog that has only one tag yet is shown while there is no other: it waits for more branches of a fork.
    fn call_view(&self, now: Instant, call: &Call) -> CallView {
        let is_whole = |leg: &Leg| leg.tags.local != 0 && leg.tags.remote != 0;
        let forked = call.legs.iter().any(is_whole);
        CallView {
            call_id: call.names.call_id().to_owned(),
            from: call.names.from().to_owned(),
            to: call.names.to().to_owned(),
            inside: call.flow.get().inside,
            far: call.flow.get().far,
            answered: call.answered.map(|then| now.saturating_duration_since(then)),
            legs: call
                .legs
                .iter()
                .filter(|leg| !forked || is_whole(leg))
                .map(|leg| LegView {
                    phase: leg.phase,
                    held: leg.held.local || leg.held.remote,
                    quiet: now.saturating_duration_since(leg.heard),
                    streams: self.stream_views(leg),
                })
                .collect(),
        }
    }

    fn stream_views(&self, leg: &Leg) -> Vec<StreamView> {
        let mut views = Vec::with_capacity(2 * leg.local.len());
        for stream in &leg.local {
            let remote = leg.remote.get(usize::from(stream.media)).copied().unwrap_or_default();
            let [rtp, rtcp] = remote.targets(stream.mux);
            let rtp = self.stream_view(leg, stream.rtp, rtp);
            views.extend(rtp.map(|view| StreamView { media: stream.media, ..view }));
            let rtcp = stream.rtcp.and_then(|key| self.stream_view(leg, key, rtcp));
            views.extend(rtcp.map(|view| StreamView { media: stream.media, rtcp: true, ..view }));
        }
        views
    }

    fn stream_view(&self, leg: &Leg, key: BindingKey, target: Option<Target>) -> Option<StreamView> {
        let binding = self.bindings.get(&key)?;
        let pinned = leg.pins.iter().map(|pin| pin.flow());
        let latched = binding.latched.iter().map(|(flow, _)| *flow);
        let mut flows: Vec<PinnedFlow> = pinned.filter(|flow| flow.public == binding.public()).collect();
        flows.extend(latched);
        let (inside, public) = (key.inside(), binding.public());
        Some(StreamView { media: 0, rtcp: false, transport: key.transport(), inside, public, target, flows })
    }
}
