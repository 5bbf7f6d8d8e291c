//! What an engine hands to the next one: its tables without what belongs to the moment.
//!
//! Every instant is kept as its distance from the moment of the export, so that a state means the same in another
//! process. Left out is what nobody can take up again: packets that wait, commands under way (both end with the process,
//! and SIP repeats), tokens of packets between two queue points (they travel for microseconds), counters, and the
//! quotas' minute. How a state is written down is not said here; everything in it can be, by serde.
//!
//! Who adds a field to one of the tables has to name it here too: the compiler insists.

use std::fmt::Debug;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use thin_vec::ThinVec;

use super::binding::{self, Admitted, Binding, BindingKey, Latch};
use super::call::{self, Call, Leg, Pending, Phase, Pin, Remote, Remotes, Stream, Streams};
use super::call_names::CallNames;
use super::command::{FlowKey, Line, Peer, Pinhole, PinnedFlow};
use super::endpoint::{Outside, Packed};
use super::envelope::Method;
use super::flow::{Direction, Flow, Mapping, PackedFlow, PublicSide};
use super::key::Key;
use super::names::{FormId, Names};
use super::registration::Registration;
use super::rewrite::sdp::LocalStream;
use super::tcp::Connection;
use super::transaction::{Tags, Transaction};

/// All that an engine knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Seeds the keys of the tables; a secret.
    pub seed: [u64; 2],
    /// The last IPv4 identification that was given to a packet.
    pub last_identity: u16,
    /// Signalling flows.
    pub flows: Vec<Entry<FlowKey, FlowState>>,
    /// Transactions in progress.
    pub transactions: Vec<Entry<Key, TransactionState>>,
    /// Calls.
    pub calls: Vec<Entry<Key, CallState>>,
    /// Registrations.
    pub registrations: Vec<Entry<Key, RegistrationState>>,
    /// Bindings, by the date of their renewal.
    pub bindings: Vec<Entry<BindingKey, BindingState>>,
    /// The ports of each public address.
    pub pools: Vec<PoolState>,
    /// TCP connections, exactly as they were translated last. They are only true if no segment has passed since: who does
    /// not know that has to leave them out, and they will be reset.
    pub connections: Vec<Entry<FlowKey, Connection>>,
    /// Flows whose lifetime is still to be set, and when.
    pub settling: Vec<(FlowKey, Moment)>,
}

/// An entry of a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry<K, V> {
    /// Its key.
    pub key: K,
    /// What it says.
    pub value: V,
    /// When its time is over.
    pub deadline: Moment,
}

/// The ports of one public address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolState {
    /// The address.
    pub address: IpAddr,
    /// The first port, an even one.
    pub base: u16,
    /// How many pairs of ports there are.
    pub slots: u16,
    /// Free pairs, the longest free first, as runs: the first of each and how many.
    pub free: Vec<(u16, u16)>,
    /// Pairs that rest, and until when.
    pub resting: Vec<(u16, Moment)>,
}

/// What the kernel holds of ours, each with the time that is left to it: to be compared with a state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Pinholes that are there in both directions.
    pub pinholes: Vec<(Pinhole, Duration)>,
    /// Public endpoints that only admitted peers may reach, quarantined ones included.
    pub owned: Vec<(Outside, Duration)>,
    /// Who may send.
    pub peers: Vec<(Peer, Duration)>,
    /// TCP connections that are followed. What the engine does not know of them it lets be [reset](super::Op::Reset).
    pub followed: Vec<Line>,
}

/// A moment, in nanoseconds after the export; negative: before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moment(i64);

/// Something that is kept in a state, in a form that means the same at another time.
pub trait Kept: Sized {
    /// The form.
    type Form: Clone + Debug + PartialEq + Serialize + DeserializeOwned;

    /// The form of `self` at `now`.
    fn keep(&self, now: Instant) -> Self::Form;

    /// What had this form when it was `then`.
    fn revive(form: Self::Form, then: Instant) -> Self;
}

impl Kept for Instant {
    type Form = Moment;

    fn keep(&self, now: Instant) -> Moment {
        let distance = |long: Duration| i64::try_from(long.as_nanos()).unwrap_or(i64::MAX);
        Moment(match self.checked_duration_since(now) {
            Some(ahead) => distance(ahead),
            None => -distance(now.saturating_duration_since(*self)),
        })
    }

    fn revive(Moment(distance): Moment, then: Self) -> Self {
        let long = Duration::from_nanos(distance.clamp(-FARTHEST, FARTHEST).unsigned_abs());
        let moved = if distance < 0 { then.checked_sub(long) } else { then.checked_add(long) };
        // A clock that has not run for so long yet: nothing of the past matters to it.
        moved.unwrap_or(then)
    }
}

impl<T: Kept> Kept for Option<T> {
    type Form = Option<T::Form>;

    fn keep(&self, now: Instant) -> Self::Form {
        self.as_ref().map(|it| it.keep(now))
    }

    fn revive(form: Self::Form, then: Instant) -> Self {
        form.map(|it| T::revive(it, then))
    }
}

impl<T: Kept> Kept for Box<T> {
    type Form = T::Form;

    fn keep(&self, now: Instant) -> Self::Form {
        self.as_ref().keep(now)
    }

    fn revive(form: Self::Form, then: Instant) -> Self {
        Self::new(T::revive(form, then))
    }
}

/// Lists of any kind are written down alike.
macro_rules! lists {
    ($([$($bound:tt)*] $list:ty: $item:ty),* $(,)?) => {$(
        impl<$($bound)*> Kept for $list {
            type Form = Vec<<$item as Kept>::Form>;

            fn keep(&self, now: Instant) -> Self::Form {
                self.iter().map(|it| it.keep(now)).collect()
            }

            fn revive(form: Self::Form, then: Instant) -> Self {
                form.into_iter().map(|it| Kept::revive(it, then)).collect()
            }
        }
    )*};
}

lists!([T: Kept] Vec<T>: T, [T: Kept] ThinVec<T>: T, [T: Kept, const N: usize] SmallVec<[T; N]>: T);

/// No moment is farther away than 36 years. The tables count nanoseconds in 64 bits from their first moment on: beside one
/// that a damaged file puts into another age, now and tomorrow would be the same, and nothing that is due ever over.
const FARTHEST: i64 = 1 << 60;

/// What knows no time is kept as it is.
macro_rules! timeless {
    ($($type:ty),* $(,)?) => {$(
        impl Kept for $type {
            type Form = Self;

            fn keep(&self, _: Instant) -> Self {
                self.clone()
            }

            fn revive(form: Self, _: Instant) -> Self {
                form
            }
        }
    )*};
}

timeless!(bool, u16, u32, u64, usize, u8, Box<str>, CallNames, Duration, IpAddr);
timeless!(Key, Tags, Method, Direction, FormId, Names, Phase, Stream, Remote, LocalStream);
timeless!(
    call::Held,
    Pending,
    binding::Expecting,
    Packed,
    (Packed, u16),
    BindingKey,
    (BindingKey, Option<IpAddr>)
);

/// The form of a struct is a struct of the forms of its fields.
macro_rules! kept {
    ($(#[$doc:meta])* $name:ident of $of:ty { $($field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[allow(missing_docs)] // the fields are those of what is kept
        pub struct $name { $(pub $field: <$type as Kept>::Form),* }

        impl Kept for $of {
            type Form = $name;

            fn keep(&self, now: Instant) -> $name {
                let Self { $($field),* } = self;
                $name { $($field: <$type as Kept>::keep($field, now)),* }
            }

            fn revive(form: $name, then: Instant) -> Self {
                let $name { $($field),* } = form;
                Self { $($field: <$type as Kept>::revive($field, then)),* }
            }
        }
    };
}

kept! {
    /// A [`Flow`].
    FlowState of Flow {
        mapping: Mapping,
        since: Instant,
        lan: u32,
        uplink: u32,
        names: Names,
        answered: bool,
        registered: Option<Instant>,
        subscribed: Option<Instant>,
        registrations: Vec<Key>,
        upstream_told: bool,
        listens_at: Option<u16>,
        sustained: Instant,
        governed: bool,
    }
}

kept! {
    /// A [`Transaction`].
    TransactionState of Transaction {
        direction: Direction,
        host: IpAddr,
        method: Method,
        cseq: u32,
        call: Key,
        tags: Tags,
        form: Option<FormId>,
        answered: bool,
        finished: bool,
        ended: ThinVec<Tags>,
        lifetime: Option<Duration>,
    }
}

kept! {
    /// A [`Call`].
    CallState of Call {
        flow: PackedFlow,
        legs: SmallVec<[Leg; 1]>,
        invited: bool,
        names: CallNames,
        answered: Option<Instant>,
        media: Option<BindingKey>,
    }
}

kept! {
    /// A [`Leg`].
    LegState of Leg {
        tags: Tags,
        phase: Phase,
        made_by: Key,
        latest: Key,
        deadline: Instant,
        held: call::Held,
        heard: Instant,
        asked: u8,
        silent: bool,
        interval: Option<u32>,
        server: IpAddr,
        local: Streams,
        routed: ThinVec<LocalStream>,
        retired: ThinVec<BindingKey>,
        stale: usize,
        remote: Remotes,
        pins: SmallVec<[Pin; 2]>,
        admitted: SmallVec<[(BindingKey, Option<IpAddr>); 2]>,
        pending: ThinVec<Pending>,
    }
}

kept! {
    /// A [`Registration`].
    RegistrationState of Registration {
        who: Box<str>,
        flow: PackedFlow,
        public: Packed,
    }
}

kept! {
    /// A [`Binding`]. How many own it, and want its peers and pins, is counted anew.
    BindingState of Binding {
        public: Packed,
        lan: u32,
        signalling: PackedFlow,
        owners: u16,
        state: binding::State,
        peers: SmallVec<[Admitted; 1]>,
        pins: binding::Pins,
        died: Option<Instant>,
        lapsed: bool,
        expecting: binding::Expecting,
        latched: ThinVec<(PinnedFlow, Latch)>,
    }
}

/// A [`Mapping`]. A question that was under way will be asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MappingState {
    /// Nothing is known.
    Unknown,
    /// The NAT leaves the flow alone.
    NotNated,
    /// This is the public endpoint.
    Public(Outside),
}

impl Kept for Mapping {
    type Form = MappingState;

    fn keep(&self, _: Instant) -> MappingState {
        match self {
            Self::Unknown | Self::Asked(_) | Self::Missing | Self::Moved(_) => MappingState::Unknown,
            Self::NotNated => MappingState::NotNated,
            Self::Public(side) => MappingState::Public(side.endpoint),
        }
    }

    fn revive(form: MappingState, _: Instant) -> Self {
        match form {
            MappingState::Unknown => Self::Unknown,
            MappingState::NotNated => Self::NotNated,
            MappingState::Public(endpoint) => Self::Public(Box::new(PublicSide::new(endpoint))),
        }
    }
}

/// What is held of it is dropped with the process that holds it, and sent again.
impl Kept for Connection {
    type Form = Self;

    fn keep(&self, _: Instant) -> Self {
        self.at_rest()
    }

    fn revive(form: Self, _: Instant) -> Self {
        form
    }
}

/// It is written down as what it stands for.
impl Kept for PackedFlow {
    type Form = FlowKey;

    fn keep(&self, _: Instant) -> FlowKey {
        self.get()
    }

    fn revive(flow: FlowKey, _: Instant) -> Self {
        flow.into()
    }
}

/// What was being made is there or will be made: the next engine looks after each of them.
impl Kept for Pin {
    type Form = PinnedFlow;

    fn keep(&self, _: Instant) -> PinnedFlow {
        self.flow()
    }

    fn revive(flow: PinnedFlow, _: Instant) -> Self {
        Self::new(flow, None)
    }
}

/// As with [`Pin`].
impl Kept for binding::State {
    type Form = ();

    fn keep(&self, _: Instant) {}

    fn revive((): (), _: Instant) -> Self {
        Self::Open
    }
}

impl Kept for Admitted {
    type Form = (Option<IpAddr>, u16);

    fn keep(&self, _: Instant) -> Self::Form {
        (self.far, self.wanted)
    }

    fn revive((far, wanted): Self::Form, _: Instant) -> Self {
        Self { far, wanted, admitting: None }
    }
}

/// The packet that asked for it has its verdict by now.
impl Kept for (PinnedFlow, Latch) {
    type Form = PinnedFlow;

    fn keep(&self, _: Instant) -> PinnedFlow {
        self.0
    }

    fn revive(flow: PinnedFlow, _: Instant) -> Self {
        (flow, Latch::Settled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_keeps_its_distance() {
        let (now, later) = (Instant::now() + Duration::from_secs(60), Duration::from_nanos(5_000_000_007));
        for moment in [now, now + later, now - later] {
            assert_eq!(Instant::revive(moment.keep(now), now), moment);
            assert_eq!(Instant::revive(moment.keep(now), now + later), moment + later);
        }
        assert_eq!((now - later).keep(now), Moment(-5_000_000_007));
        // A far future is kept as far as the form goes.
        let far = now + Duration::from_secs(1 << 40);
        assert_eq!(far.keep(now), Moment(i64::MAX));
        let before_all_clocks = Instant::revive(Moment(i64::MIN), now);
        assert!(before_all_clocks <= now);
    }
}
