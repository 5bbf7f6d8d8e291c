//! What happened, for people: one value for each line of the log.
//!
//! Events say what the engine decided; they are made when state changes, never for each packet.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::command::{Failure, Pinhole};
use super::endpoint::{Inside, Outside};

/// Something worth a log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The NAT mapping of a signalling flow became known, or changed.
    FlowLearned {
        /// The phone's endpoint.
        inside: Inside,
        /// The server's endpoint.
        far: SocketAddr,
        /// What the NAT made of it; `None`: the NAT leaves it alone.
        public: Option<Outside>,
    },
    /// A registrar accepted a registration.
    Registered {
        /// Address of record, from the To header.
        who: String,
        /// The phone.
        inside: Inside,
        /// The registrar.
        registrar: SocketAddr,
        /// The public endpoint under which the phone is reachable.
        public: Outside,
        /// What the registrar granted.
        lifetime: Duration,
    },
    /// A registration ended.
    Unregistered {
        /// Address of record.
        who: String,
        /// The phone.
        inside: Inside,
        /// `unregistered`, `expired` or `flow lost`.
        why: &'static str,
    },
    /// A call was answered.
    CallAnswered {
        /// From.
        from: String,
        /// To.
        to: String,
        /// Call-ID.
        call_id: String,
        /// The phone.
        inside: Inside,
        /// The public endpoint of its first stream, if it has one.
        media: Option<Outside>,
    },
    /// A call ended, or never came about.
    CallEnded {
        /// From.
        from: String,
        /// To.
        to: String,
        /// Call-ID.
        call_id: String,
        /// The phone.
        inside: Inside,
        /// From the answer to the end; `None`: never answered.
        duration: Option<Duration>,
        /// `bye`, `refused`, `cancelled`, `no answer`, `inactive`, `lost`.
        why: &'static str,
    },
    /// A public address is gone, and everything that was reachable by it.
    AddressGone {
        /// The address.
        address: IpAddr,
        /// Signalling flows that it had.
        flows: usize,
        /// Calls that it ended.
        calls: usize,
    },
    /// Somebody between here and the server changes addresses too. Told once for each flow.
    Upstream {
        /// The phone.
        inside: Inside,
        /// The server.
        far: SocketAddr,
        /// The endpoint that left here.
        sent: SocketAddr,
        /// What came back in its place.
        seen: String,
        /// `gateway`: the message itself was changed; `nat`: only the address that it came from.
        what: &'static str,
    },
    /// A pinhole is open.
    Opened {
        /// The pinhole.
        pinhole: Pinhole,
        /// The Call-ID of the message that asked for it.
        call_id: String,
    },
    /// A pinhole is closed.
    Closed {
        /// The pinhole.
        pinhole: Pinhole,
    },
    /// The far end's media came from elsewhere than announced and was let in.
    Latched {
        /// Where it came from.
        far: SocketAddr,
        /// Our endpoint.
        public: Outside,
    },
    /// A kernel command failed.
    CommandFailed {
        /// Which kind: `open`, `pin`, …
        what: &'static str,
        /// Why.
        failure: Failure,
    },
    /// A security rule kept something closed.
    Refused {
        /// The rule: `S4`, `S8`, `S9`, …
        rule: &'static str,
        /// Who asked.
        inside: SocketAddr,
        /// In words.
        why: &'static str,
    },
}
