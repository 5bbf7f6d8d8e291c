//! Calls and their legs.
//!
//! A call is one Call-ID of one inside host. Its legs are dialogs, early or confirmed, told apart by both tags: a
//! forked INVITE has one for each answering phone (RFC 3261 section 12, RFC 6337). A leg owns bindings and pinned flows
//! for the media that its two sides agreed on. The state that stands here is changed by `engine::legs`,
//! `engine::media` and `engine::dialog`; this file only says what it is.

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use smallvec::SmallVec;
use thin_vec::ThinVec;

use crate::expiring::ExpiringMap;

use super::binding::BindingKey;
use super::call_names::CallNames;
use super::command::{CommandId, PinnedFlow, Transport};
use super::endpoint::{Inside, Outside, Packed};
use super::flow::PackedFlow;
use super::key::{Key, KeyHasher};
use super::rewrite::sdp::LocalStream;
use super::transaction::Tags;

/// Most legs of one call; a fork to more parties than this gets no media for the rest.
pub const MAX_LEGS: usize = 16;

/// The phone's streams. A call of thousands has one, with RTP and RTCP: so much of everything has its place here without
/// another piece of memory.
pub type Streams = SmallVec<[Stream; 1]>;

/// The far end's.
pub type Remotes = SmallVec<[Remote; 1]>;

/// One Call-ID of one inside host.
#[derive(Clone, Debug)]
pub struct Call {
    /// The signalling flow that began it.
    pub flow: PackedFlow,
    /// Its dialogs.
    pub legs: SmallVec<[Leg; 1]>,
    /// Whether an INVITE began it; other methods may carry descriptions too, and are not worth a log line.
    pub invited: bool,
    /// From, To and Call-ID, for the log.
    pub names: CallNames,
    /// When it was answered.
    pub answered: Option<Instant>,
    /// The first stream of it had this public endpoint.
    pub media: Option<BindingKey>,
}

/// How far a dialog is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Nobody has answered. Entered when it is made.
    Offered,
    /// A provisional answer came. Entered from `Offered`.
    Ringing,
    /// A 2xx to the INVITE came. Entered from the other two.
    Confirmed,
    /// The phone hung up, and the far end refused that, or asked for credentials: for the phone it is over (RFC 3261
    /// section 15.1.1), unless it says otherwise. Entered from `Confirmed`, and left to there by the phone's next
    /// request.
    Leaving,
}

/// One dialog, or the beginning of one (a tag of 0 is not known yet).
#[derive(Clone, Debug)]
pub struct Leg {
    /// Both tags.
    pub tags: Tags,
    /// How far it is.
    pub phase: Phase,
    /// The INVITE (or other request) that made it; only its failure ends an early leg.
    pub made_by: Key,
    /// The latest request of it that may carry a description; what belongs to an earlier one is a repetition.
    pub latest: Key,
    /// When it is over if nothing happens.
    pub deadline: Instant,
    /// Whether the phone, or the far end, said last that all its streams are on hold.
    pub held: Held,
    /// When a message of it, or its media, was last noticed.
    pub heard: Instant,
    /// Answers that are still to come to the question whether there is media.
    pub asked: u8,
    /// The last question was answered with no; asked once more, for conntrack tells late.
    pub silent: bool,
    /// The session interval in seconds: before it ends one side says that the session goes on (RFC 4028 section 4). `None`:
    /// nobody promised.
    pub interval: Option<u32>,
    /// The server to which the phone sends the requests of this dialog.
    pub server: IpAddr,
    /// The phone's streams.
    pub local: Streams,
    /// The phone's streams where there is no NAT, and so no binding.
    pub routed: ThinVec<LocalStream>,
    /// Bindings of earlier streams: media under way may still use them, and what is off now may come back.
    pub retired: ThinVec<BindingKey>,
    /// So many of `retired`, from the front, were so before the last exchange of descriptions; the next one closes them.
    pub stale: usize,
    /// The far end's streams, by index of their `m=` line.
    pub remote: Remotes,
    /// Pinned flows.
    pub pins: SmallVec<[Pin; 2]>,
    /// Who was admitted where.
    pub admitted: SmallVec<[(BindingKey, Option<IpAddr>); 2]>,
    /// What was agreed upon before a description that nobody has accepted yet; at most one for each side.
    pub pending: ThinVec<Pending>,
}

/// One side of a dialog as it was before a description that may still be refused (RFC 3261 section 14.1: a re-INVITE
/// that fails changes nothing; RFC 3311 section 5.2 says the same of UPDATE).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pending {
    /// The transaction whose final answer decides.
    pub by: Key,
    /// The side.
    pub before: Before,
    /// Whether that side was on hold.
    pub held: bool,
}

/// Who put a dialog on hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The phone.
    pub local: bool,
    /// The far end.
    pub remote: bool,
}

/// One side of a dialog.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Before {
    /// The phone's streams.
    Local(Streams),
    /// The phone's that need no binding: where there is no NAT, or the phone knows its public endpoints.
    Routed(ThinVec<LocalStream>),
    /// The far end's.
    Remote(Remotes),
}

impl Before {
    /// Whether both are of the same side.
    pub fn is_side_of(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// One stream of the phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Index of the `m=` line.
    pub media: u16,
    /// Which pair of ports of that line, from 0 on (`m=video 40000/3` has three).
    pub pair: u16,
    /// RTP, or the only port.
    pub rtp: BindingKey,
    /// RTCP.
    pub rtcp: Option<BindingKey>,
    /// Whether RTCP may come to the RTP port (RFC 5761).
    #[serde(default)]
    pub mux: bool,
}

/// One stream of the far end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    /// RTP, or the only port.
    pub rtp: Option<Target>,
    /// RTCP.
    pub rtcp: Option<Target>,
    /// Number of pairs; the others follow the first one.
    pub count: u16,
    /// Whether RTCP may go to the RTP port (RFC 5761).
    #[serde(default)]
    pub mux: bool,
}

impl Remote {
    /// Where RTP and RTCP of the phone's stream go; `mux`: it takes RTCP at its RTP port. It goes there only if both sides
    /// say so, for who does not know the attribute passes over it (RFC 5761 section 5.1.1).
    pub fn targets(&self, mux: bool) -> [Option<Target>; 2] {
        [self.rtp, self.rtcp.filter(|_| !(mux && self.mux))]
    }
}

/// Where the phone's media goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// To the outside.
    Far(Packed),
    /// To a phone behind the same NAT, directly: no help needed.
    Direct,
    /// To a phone behind the same NAT, by its public endpoint and the router.
    Hairpin {
        /// The public endpoint that the phone sends to.
        public: Packed,
        /// Who is behind it: an inside endpoint.
        inside: Packed,
    },
}

impl Target {
    /// The same port of another pair, if the far end has so many (`count`). Of phones behind the same NAT only the
    /// first pair is known.
    pub fn of_pair(self, pair: u16, count: u16) -> Option<Self> {
        match self {
            _ if pair == 0 => Some(self),
            Self::Far(first) if pair < count => {
                let first = first.endpoint();
                let port = first.port().checked_add(pair.checked_mul(2)?)?;
                Some(Self::Far(SocketAddr::new(first.ip(), port).into()))
            }
            Self::Far(_) | Self::Direct | Self::Hairpin { .. } => None,
        }
    }
}

/// A pinned flow of a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    inside: Packed,
    far: Packed,
    public: Packed,
    hairpin: Option<Packed>,
    transport: Transport,
    /// The command that is under way.
    pub pinning: Option<CommandId>,
}

impl Pin {
    /// A pinned flow, or one that is being pinned.
    pub fn new(flow: PinnedFlow, pinning: Option<CommandId>) -> Self {
        let PinnedFlow { transport, inside: Inside(inside), far, public: Outside(public), hairpin } = flow;
        let hairpin = hairpin.map(|Inside(it)| it.into());
        Self { inside: inside.into(), far: far.into(), public: public.into(), hairpin, transport, pinning }
    }

    /// The flow.
    pub fn flow(&self) -> PinnedFlow {
        PinnedFlow {
            transport: self.transport,
            inside: Inside(self.inside.endpoint()),
            far: self.far.endpoint(),
            public: Outside(self.public.endpoint()),
            hairpin: self.hairpin.map(|it| Inside(it.endpoint())),
        }
    }
}

/// All calls; the deadline of an entry is the earliest of its legs'. In boxes: a table is half empty most of the time.
pub type Calls = ExpiringMap<Key, Box<Call>, KeyHasher>;

impl Leg {
    /// A leg of which nothing is known but who made it.
    pub fn new(tags: Tags, made_by: Key, server: IpAddr, now: Instant, deadline: Instant) -> Self {
        Self {
            tags,
            phase: Phase::Offered,
            made_by,
            latest: made_by,
            deadline,
            held: Held::default(),
            heard: now,
            asked: 0,
            silent: false,
            interval: None,
            server,
            local: Streams::new(),
            routed: ThinVec::new(),
            retired: ThinVec::new(),
            stale: 0,
            remote: Remotes::new(),
            pins: SmallVec::new(),
            admitted: SmallVec::new(),
            pending: ThinVec::new(),
        }
    }

    /// Whether nobody has accepted the call yet.
    pub fn is_early(&self) -> bool {
        matches!(self.phase, Phase::Offered | Phase::Ringing)
    }

    /// Remembers one side as it was `before` what transaction `by` brings. Of several descriptions that nobody has
    /// answered (a challenge came in between) the state before the first one counts.
    pub fn remember(&mut self, by: Key, before: Before) {
        let held = match before {
            Before::Local(_) | Before::Routed(_) => self.held.local,
            Before::Remote(_) => self.held.remote,
        };
        match self.pending.iter_mut().find(|it| it.before.is_side_of(&before)) {
            Some(pending) => pending.by = by,
            None => self.pending.push(Pending { by, before, held }),
        }
    }

    /// Every binding that this leg owns, once for each time that it owns it.
    pub fn bindings(&self) -> impl Iterator<Item = BindingKey> + '_ {
        let streams = self.local.iter().flat_map(|stream| [Some(stream.rtp), stream.rtcp]).flatten();
        streams.chain(self.retired.iter().copied())
    }

    /// Strikes off what leans on a binding that goes: who was admitted there, and the flows that were pinned, which are the
    /// answer.
    pub fn strike(&mut self, key: &BindingKey, public: Outside) -> Vec<PinnedFlow> {
        self.admitted.retain(|(it, _)| it != key);
        let gone = self.pins.iter().map(Pin::flow).filter(|flow| flow.public == public).collect();
        self.pins.retain(|pin| pin.flow().public != public);
        gone
    }
}

impl Call {
    /// The index of the leg with these tags.
    pub fn position(&self, tags: Tags) -> Option<usize> {
        self.legs.iter().position(|leg| leg.tags == tags)
    }

    /// The earliest deadline of all legs.
    pub fn deadline(&self) -> Option<Instant> {
        self.legs.iter().map(|leg| leg.deadline).min()
    }
}
