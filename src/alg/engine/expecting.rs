//! Media that comes before the answer: conntrack expects it.
//!
//! An offer names where the phone listens, and nobody knows yet who will speak: an announcement, the tone of a gateway.
//! Where the kernel can, each new pinhole is therefore expected ([`Op::Expect`]) from the moment that its offer leaves
//! until its far end is known: then the pinned flow takes its place. `media.source` says from whom: the server that the
//! offer went to, or anybody.
//!
//! Connections over TCP are not expected: nobody opens one before the answer.
//!
//! It is a good thing to have and no more: what can't be expected is pinned at the answer all the same. The kernel ties
//! expectations to the conntrack entry of the signalling flow, which is not there before the flow's first packet has
//! left; then it is tried again with the first answer.

use std::time::Duration;

use super::super::binding::{BindingKey, BindingKeys, Expecting, State};
use super::super::call::Stream;
use super::super::command::{CommandId, Failure, MediaClass, Op, Publics, Transport};
use super::super::key::Key;
use super::super::policy::{Admission, MediaSource};
use super::commands::Inflight;
use super::message::Context;
use super::{Engine, Scratch};

/// Media that comes before the answer begins soon; then its expectation has become an entry.
const LIFETIME: Duration = Duration::from_secs(300);

impl Engine {
    /// Expects media at the streams of an offer whose far ends are not known. What is asked for goes into `needs`.
    pub(super) fn expect(&mut self, context: &Context<'_>, scratch: &mut Scratch) {
        if self.policy.admission != Admission::Expectation {
            return;
        }
        let call = self.calls.get(&context.call);
        let leg = call.and_then(|call| call.legs.get(call.position(context.tags)?));
        if leg.is_some_and(|leg| !leg.remote.is_empty()) {
            return;
        }
        let is_udp = |stream: &&Stream| stream.rtp.transport() == Transport::Udp;
        for stream in scratch.streams.iter().filter(is_udp) {
            let media = scratch.description.media.get(usize::from(stream.media));
            let class = media.map_or(MediaClass::Other, |media| MediaClass::of(media.kind.of(context.bytes)));
            scratch.needs.extend(self.expect_stream(stream, class, Expecting::No));
        }
    }

    /// The call's signalling flow is known to conntrack now.
    pub(super) fn expect_again(&mut self, call: Key) {
        if self.policy.admission != Admission::Expectation {
            return;
        }
        let Some(call) = self.calls.get(&call) else { return };
        let streams: Vec<Stream> = call.legs.iter().flat_map(|leg| leg.local.iter().copied()).collect();
        for stream in streams.iter().filter(|stream| stream.rtp.transport() == Transport::Udp) {
            // Its kind was in the offer only. The classes differ in nothing but their names.
            self.expect_stream(stream, MediaClass::Other, Expecting::Refused);
        }
    }

    fn expect_stream(&mut self, stream: &Stream, class: MediaClass, from: Expecting) -> Option<CommandId> {
        let mut keys = BindingKeys::new();
        let mut public = Publics::new();
        let mut signalling = None;
        for key in stream.keys() {
            let Some(binding) = self.bindings.get_mut(&key) else { continue };
            if binding.state == State::Open && binding.peers.is_empty() && binding.expecting == from {
                binding.expecting = Expecting::Yes;
                signalling = Some(binding.signalling.get());
                keys.push(key);
                public.push(binding.public());
            }
        }
        let signalling = signalling?;
        let source = (self.policy.media_source == MediaSource::Negotiated).then(|| signalling.far.ip());
        let op = Op::Expect { public, source, class, signalling, lifetime: LIFETIME };
        Some(self.command(op, Inflight::Expect { keys }))
    }

    pub(super) fn expected(&mut self, keys: &BindingKeys, failure: Option<Failure>) {
        let next = match failure {
            None => return,
            Some(Failure::NotFound) => Expecting::Refused,
            Some(_) => Expecting::Never,
        };
        for key in keys {
            if let Some(binding) = self.bindings.get_mut(key).filter(|it| it.expecting == Expecting::Yes) {
                binding.expecting = next;
            }
        }
    }

    /// The far end has answered, whatever it said of each stream.
    pub(super) fn unexpect_leg(&mut self, call: Key, index: usize) {
        if self.policy.admission != Admission::Expectation {
            return;
        }
        let leg = self.calls.get(&call).and_then(|call| call.legs.get(index));
        let Some(leg) = leg.filter(|leg| !leg.remote.is_empty()) else { return };
        let keys: Vec<BindingKey> = leg.local.iter().flat_map(Stream::keys).collect();
        for key in &keys {
            self.unexpect(key);
        }
    }

    /// The far end is known now, or nobody wants it any more.
    pub(super) fn unexpect(&mut self, key: &BindingKey) {
        let Some(binding) = self.bindings.get_mut(key) else { return };
        if std::mem::take(&mut binding.expecting) == Expecting::Yes {
            let public = Publics::from_iter([binding.public()]);
            let signalling = binding.signalling.get();
            self.background(Op::Unexpect { public, signalling }, "unexpect");
        }
    }
}
