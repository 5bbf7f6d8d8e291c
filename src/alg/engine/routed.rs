//! Media of flows that the NAT leaves alone: routed networks, VPNs, IPv6.
//!
//! Nothing is rewritten, no port is taken, nothing is mapped. But a firewall that lets in only what is established stands
//! in the way of the far end's media here too. So when both ends of a stream are known its conntrack entry is made,
//! without a translation: a pinned flow whose public endpoint is the phone's own.
//!
//! Which of the two ends is inside says conntrack: the one that began the flow. So the first message of a new flow opens
//! nothing; that is a REGISTER nearly always, and a call without one opens its way with the phone's first packet.

use super::super::call::{Before, Leg, Target};
use super::super::command::{FlowKey, PinnedFlow};
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
        let streams = sdp::local_streams(context.bytes, &scratch.description, may, |_| None)
            .filter(|stream| endpoints(stream).all(|endpoint| guard::may_open(policy, endpoint.0)));
        scratch.local.extend(streams);
        let index = self.leg(context)?;
        let known = self.calls.get(&context.call).and_then(|call| call.legs.get(index));
        let is_news = known.is_some_and(|leg| leg.routed != scratch.local) && !scratch.local.is_empty();
        if is_news {
            let count = scratch.local.iter().flat_map(endpoints).count();
            let admitted = self.bindings.admit_host(sender, count, context.now, &self.policy);
            admitted.map_err(super::media::reason_of)?;
            // Only the rate counts: there is no binding.
            self.bindings.return_quota(sender, count);
        }
        let held = scratch.local.is_empty() || super::media::is_on_hold(&scratch.description);
        if let Some(leg) = self.calls.get_mut(&context.call).and_then(|call| call.legs.get_mut(index)) {
            if is_news && super::media::may_fail(context) && !leg.routed.is_empty() {
                leg.remember(context.transaction, Before::Routed(leg.routed.clone()));
            }
            leg.held.local = held;
            if is_news {
                leg.routed.clone_from(&scratch.local);
            }
        }
        self.pin_leg(context.now, context.call, index, super::media::answers(context), scratch);
        Ok(())
    }
}

/// The flows without translation that a leg needs.
pub(super) fn flows(leg: &Leg, signalling: FlowKey) -> impl Iterator<Item = PinnedFlow> + '_ {
    leg.routed.iter().flat_map(move |stream| {
        let remote = leg.remote.get(usize::from(stream.media)).copied().unwrap_or_default();
        endpoints(stream).zip([remote.rtp, remote.rtcp]).filter_map(move |(inside, target)| match target? {
            Target::Far(far)
                if far.is_ipv4() == inside.0.is_ipv4()
                    && guard::is_routed_too(inside.0.ip(), signalling.far.ip(), far.ip()) =>
            {
                Some(PinnedFlow { inside, far, public: Outside(inside.0), hairpin: None })
            }
            Target::Far(_) | Target::Direct | Target::Hairpin { .. } => None,
        })
    })
}

/// RTP and RTCP of a stream, of several pairs the first.
fn endpoints(stream: &LocalStream) -> impl Iterator<Item = Inside> + use<> {
    let rtp = std::net::SocketAddr::new(stream.ip, stream.port);
    [Some(rtp), stream.rtcp].into_iter().flatten().map(Inside)
}
