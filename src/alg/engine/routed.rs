//! Media of flows that the NAT leaves alone: routed networks, VPNs, IPv6.
//!
//! Nothing is rewritten, no port is taken, nothing is mapped. But a firewall that lets in only what is established stands
//! in the way of the far end's media here too. So when both ends of a stream are known its conntrack entry is made,
//! without a translation: a pinned flow whose public endpoint is the phone's own.
//!
//! Which of the two ends is inside says conntrack: the one that began the flow. So the first message of a new flow opens
//! nothing; that is a REGISTER nearly always, and a call without one opens its way with the phone's first packet.
//!
//! Of a connection over TCP that the far end opens one end is not known before its first packet, and no map leads that here:
//! it is the firewall's business.

use super::super::call::{Before, Leg, Target};
use super::super::command::{FlowKey, PinnedFlow, Transport};
use super::super::endpoint::{Inside, Outside};
use super::super::guard;
use super::super::rewrite::sdp::{self, LocalStream};
use super::super::verdict::Reason;
use super::message::Context;
use super::{Engine, Scratch};

impl Engine {
    /// The phone's description: notes the streams, pins what can be pinned. The rules and quotas are those of pinholes.
    pub(super) fn offer_routed(
        &mut self,
        context: &Context<'_>,
        scratch: &mut Scratch,
        first: bool,
    ) -> Result<(), Reason> {
        if !first {
            return Ok(());
        }
        let (policy, sender) = (&self.policy, context.flow.inside.0.ip());
        let may = |ip| guard::may_speak_for(policy, sender, ip);
        scratch.local.clear();
        // What stands on a service's port gets no entry; there is nothing to announce that would depend on it.
        let streams = sdp::local_streams(context.bytes, &scratch.description, false, may, |_| None)
            .filter(|stream| endpoints(stream).all(|endpoint| guard::may_open(policy, endpoint.0)));
        scratch.local.extend(streams);
        if self.calls.get(&context.call).is_none() {
            self.check_host(context, &scratch.local)?;
        }
        let index = self.leg(context)?;
        self.note_unbound(context, index, &scratch.local)?;
        let held = scratch.local.is_empty() || super::media::is_on_hold(&scratch.description);
        if let Some(leg) = self.calls.get_mut(&context.call).and_then(|call| call.legs.get_mut(index)) {
            leg.held.local = held;
        }
        self.pin_leg(context.now, context.call, index, super::media::answers(context), scratch);
        Ok(())
    }

    /// Notes streams that need no binding. They count for the sender's rate of openings.
    pub(super) fn note_unbound(
        &mut self,
        context: &Context<'_>,
        index: usize,
        streams: &[LocalStream],
    ) -> Result<(), Reason> {
        let known = self.calls.get(&context.call).and_then(|call| call.legs.get(index));
        if streams.is_empty() || known.is_none_or(|leg| leg.routed == streams) {
            return Ok(());
        }
        let (sender, count) = (context.flow.inside.0.ip(), streams.iter().flat_map(endpoints).count());
        let admitted = self.bindings.admit_host(sender, count, context.now, &self.policy);
        admitted.map_err(super::pinholes::reason_of)?;
        // Only the rate counts: there is no binding.
        self.bindings.return_quota(sender, count);
        self.replace_unbound(context, index, streams);
        Ok(())
    }

    /// Puts other streams that need no binding, or none, in the place of those that a leg has. A refusal brings them back.
    pub(super) fn replace_unbound(&mut self, context: &Context<'_>, index: usize, streams: &[LocalStream]) {
        let leg = self.calls.get_mut(&context.call).and_then(|call| call.legs.get_mut(index));
        let Some(leg) = leg.filter(|leg| leg.routed != streams) else { return };
        let is_change = !leg.routed.is_empty() || !leg.local.is_empty();
        let before = std::mem::replace(&mut leg.routed, streams.into());
        if super::media::may_fail(context) && is_change {
            leg.remember(context.transaction, Before::Routed(before));
        }
    }
}

/// The flows of a leg that need no pinhole: those that the NAT leaves alone, and those of which it is known what the NAT
/// makes of them.
pub(super) fn flows(leg: &Leg, signalling: FlowKey) -> impl Iterator<Item = PinnedFlow> + '_ {
    leg.routed.iter().flat_map(move |stream| {
        let remote = leg.remote.get(usize::from(stream.media)).copied().unwrap_or_default();
        let ends = endpoints(stream).zip(stream.known_as).zip(remote.targets(stream.mux));
        ends.filter_map(move |((inside, known_as), target)| {
            let Target::Far(far) = target? else { return None };
            let far = far.endpoint();
            let untranslated = || {
                // What has bindings by now has a NAT.
                let routed = guard::is_routed_too(inside.0.ip(), signalling.far.ip(), far.ip());
                (routed && leg.local.is_empty()).then_some(inside.0)
            };
            let public = Outside(known_as.or_else(untranslated)?);
            (far.is_ipv4() == inside.0.is_ipv4()).then_some(PinnedFlow {
                transport: Transport::Udp,
                inside,
                far,
                public,
                hairpin: None,
            })
        })
    })
}

/// RTP and RTCP of a stream, of several pairs the first.
pub(super) fn endpoints(stream: &LocalStream) -> impl Iterator<Item = Inside> + use<> {
    let rtp = std::net::SocketAddr::new(stream.ip, stream.port);
    [Some(rtp), stream.rtcp].into_iter().flatten().map(Inside)
}
