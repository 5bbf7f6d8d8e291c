//! What the engine lets others see: its tables as plain values.
//!
//! A view is a copy, made between two inputs, with times relative to that moment. It is for people and programs that
//! ask what is up (`sipalg calls`); the engine itself never reads one. What the kernel has counted is not in it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::call::{Phase, Target};
use super::command::{PinnedFlow, Transport};
use super::endpoint::{Inside, Outside};

/// A call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallView {
    /// Call-ID.
    pub call_id: String,
    /// The URI of From.
    pub from: String,
    /// The URI of To.
    pub to: String,
    /// The phone's endpoint of the signalling.
    pub inside: Inside,
    /// The server's.
    pub far: SocketAddr,
    /// How long ago it was answered; `None`: it was not.
    pub answered: Option<Duration>,
    /// Its dialogs.
    pub legs: Vec<LegView>,
}

/// A dialog of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegView {
    /// How far it is.
    pub phase: Phase,
    /// Whether it is on hold.
    pub held: bool,
    /// How long ago a message of it, or its media, was last noticed.
    pub quiet: Duration,
    /// Its media, RTP and RTCP apart.
    pub streams: Vec<StreamView>,
}

/// RTP or RTCP of one stream, or a stream with one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamView {
    /// Index of the `m=` line.
    pub media: u16,
    /// Whether this is the RTCP of an RTP stream.
    pub rtcp: bool,
    /// What carries it.
    pub transport: Transport,
    /// The phone's endpoint.
    pub inside: Inside,
    /// The public one.
    pub public: Outside,
    /// Where the phone's media goes, or from where it is connected to (the port means nothing then); `None`: the far end
    /// has not said.
    pub target: Option<Target>,
    /// The flows that carry it: the one agreed upon, and those from where it really came.
    pub flows: Vec<PinnedFlow>,
}

/// A registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistrationView {
    /// Address of record.
    pub who: String,
    /// The phone.
    pub inside: Inside,
    /// The registrar.
    pub registrar: SocketAddr,
    /// Under which the registrar knows the phone.
    pub public: Outside,
    /// How long it still holds.
    pub left: Duration,
}

/// A binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingView {
    /// What it lets through.
    pub transport: Transport,
    /// The phone's endpoint.
    pub inside: Inside,
    /// The public one.
    pub public: Outside,
    /// Index of the interface towards the outside.
    pub uplink: u32,
    /// How many streams use it.
    pub owners: u16,
    /// Who may send to it; `None`: everybody.
    pub admitted: Vec<Option<IpAddr>>,
    /// From where media came that was not announced, and was let in.
    pub latched: Vec<SocketAddr>,
}
