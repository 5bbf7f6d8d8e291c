//! Phones that know their public endpoints: from a STUN server (RFC 8489), most often.
//!
//! Such a phone writes the router's public address, with a port that the NAT gave it when it asked. The text is right and
//! stays as it is. But towards the far end the NAT may choose another port, and it lets nothing in before the phone has
//! sent. So conntrack is asked who is behind that port. If a live entry ties it to this phone, the stream is pinned with
//! that very public endpoint as soon as the far end's is known: no port is taken, nothing is mapped, and nothing is opened
//! but the one flow. If not, the message goes on as it came, and the NAT does what it does.
//!
//! Conntrack has no index by public endpoint, so an answer costs a walk over its table. Answers are remembered for a while,
//! and there are few questions in a second, whoever asks.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use foldhash::fast::FixedState;

use super::super::command::{CommandId, Op, Outcome, Reply};
use super::super::endpoint::{Inside, Outside};
use super::super::guard;
use super::super::rewrite::sdp::{self, LocalStream};
use super::commands::Inflight;
use super::message::Context;
use super::{Engine, Scratch};
use crate::expiring::ExpiringMap;

/// Streams of one description that are looked at.
const STREAMS: usize = 4;
/// Questions in a second.
const QUESTIONS: u32 = 8;
/// Answers that are remembered, and for how long: a message that is repeated asks no more.
const ANSWERS: usize = 1024;
const REMEMBERED: Duration = Duration::from_secs(32);

/// Whose public endpoints are whose, as conntrack told lately.
#[derive(Debug)]
pub(super) struct Recognised {
    answers: ExpiringMap<(SocketAddr, IpAddr), Answer, FixedState>,
    /// When the last second began, and the questions in it.
    second: Option<Instant>,
    asked: u32,
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    Awaited(CommandId),
    Is(Option<Inside>),
}

impl Recognised {
    pub(super) fn new(hasher: FixedState) -> Self {
        Self { answers: ExpiringMap::new(ANSWERS, hasher), second: None, asked: 0 }
    }

    fn may_ask(&mut self, now: Instant) -> bool {
        let is_over = |since| now.saturating_duration_since(since) >= Duration::from_secs(1);
        if self.second.is_none_or(is_over) {
            (self.second, self.asked) = (Some(now), 0);
        }
        self.asked = self.asked.saturating_add(1);
        self.asked <= QUESTIONS && !self.answers.is_full()
    }
}

impl Engine {
    /// Finds the streams of the phone's description that stand at public endpoints of its own, for
    /// [`Engine::note_aware`]. What has to be asked for that goes into `scratch.needs`.
    pub(super) fn recognise(&mut self, context: &Context<'_>, scratch: &mut Scratch, first: bool) {
        scratch.aware.clear();
        let Some(side) = self.flows.get(&context.flow).and_then(|flow| flow.public()).filter(|_| first)
        else {
            return;
        };
        let (shown, ours) = (side.shown.ip(), side.endpoint.0.ip());
        // Nearly every phone writes its own address.
        if scratch.description.connections.iter().all(|it| it.ip != Some(shown)) {
            return;
        }
        let public = |ip| ip == shown;
        let written: ArrayVec<LocalStream, STREAMS> =
            sdp::local_streams(context.bytes, &scratch.description, false, public, |_| None)
                .take(STREAMS)
                .collect();
        for stream in written.into_iter().filter(|stream| stream.count == 1) {
            let rtp = SocketAddr::new(ours, stream.port);
            let rtcp = stream.rtcp.map(|rtcp| SocketAddr::new(ours, rtcp.port()));
            let Some(inside) = self.behind(context, rtp, &mut scratch.needs) else { continue };
            let inside_rtcp = rtcp.and_then(|rtcp| self.behind(context, rtcp, &mut scratch.needs));
            scratch.aware.push(LocalStream {
                ip: inside.0.ip(),
                port: inside.0.port(),
                rtcp: inside_rtcp.map(|it| it.0),
                known_as: [Some(rtp), rtcp],
                ..stream
            });
        }
    }

    /// Notes the streams that were recognised with the leg. A phone that has gone back to its own address has none.
    pub(super) fn note_aware(&mut self, context: &Context<'_>, index: usize, scratch: &Scratch) {
        if !scratch.aware.is_empty() {
            // Without room for them the message is as right as before.
            let _ = self.note_unbound(context, index, &scratch.aware);
        } else if !scratch.streams.is_empty() {
            self.replace_unbound(context, index, &[]);
        }
    }

    /// The phone's endpoint that the NAT hides behind `public`, which is none of our own; `None`: it is not this phone's,
    /// it may have no door (S9), or the answer is still to come.
    fn behind(
        &mut self,
        context: &Context<'_>,
        public: SocketAddr,
        needs: &mut Vec<CommandId>,
    ) -> Option<Inside> {
        let (now, host) = (context.now, context.flow.inside.0.ip());
        if self.bindings.by_public(Outside(public)).is_some() {
            return None;
        }
        while self.recognised.answers.pop_expired(now).is_some() {}
        match self.recognised.answers.get(&(public, host)).copied() {
            Some(Answer::Is(inside)) => return inside.filter(|it| guard::may_open(&self.policy, it.0)),
            Some(Answer::Awaited(id)) => needs.push(id),
            None if self.parking.is_full() => {}
            None if !self.recognised.may_ask(now) => {}
            None => {
                let public = Outside(public);
                let id = self.command(Op::Recognise { public, host }, Inflight::Recognise { public, host });
                self.remember(now, public, host, Answer::Awaited(id));
                needs.push(id);
            }
        }
        None
    }

    /// Conntrack's answer.
    pub(super) fn recognised(&mut self, now: Instant, public: Outside, host: IpAddr, outcome: Outcome) {
        let inside = match outcome {
            Ok(Reply::Found(Some(it))) if it.reply_destination == public.0 && it.orig_source.ip() == host => {
                Some(Inside(it.orig_source))
            }
            Ok(_) | Err(_) => None,
        };
        self.remember(now, public, host, Answer::Is(inside));
    }

    fn remember(&mut self, now: Instant, public: Outside, host: IpAddr, answer: Answer) {
        // There was room when it was asked; if there is none now, the next message asks again.
        let _ = self.recognised.answers.insert((public.0, host), answer, now + REMEMBERED);
    }
}
