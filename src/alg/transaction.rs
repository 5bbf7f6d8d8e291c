//! Transactions: which request a response answers (RFC 3261 section 17).
//!
//! The key holds everything that a true answer must repeat: branch, method, Call-ID, From tag, and the flow. So an
//! answer that matches is the two-way proof of rule S5. A transaction is remembered for what its answer will need;
//! nothing is retransmitted or timed here as an endpoint would.

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use thin_vec::ThinVec;

use crate::expiring::ExpiringMap;

use super::command::FlowKey;
use super::envelope::{Envelope, Method};
use super::flow::Direction;
use super::key::{Key, KeyHasher, Keyer};
use super::names::FormId;

/// Timer B and F: a request that nobody answered is over (RFC 3261 section 17.1).
pub const UNANSWERED: Duration = Duration::from_secs(32);
/// How long a callee may ring after a provisional answer. RFC 3261 section 13.3.1.1 wants one each minute, and timer C
/// gives up after three; but many back-to-back user agents send one only, however long an announcement takes.
pub const RINGING: Duration = Duration::from_secs(3600);

const DOMAIN: u8 = b't';

/// What is remembered of a request.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// Which way the request went.
    pub direction: Direction,
    /// The inside host.
    pub host: IpAddr,
    /// Its method.
    pub method: Method,
    /// The number of its CSeq, which the ACK to an INVITE repeats (RFC 3261 section 13.2.2.4).
    pub cseq: u32,
    /// The call it belongs to, if its method can belong to one.
    pub call: Key,
    /// The tags of the dialog: the phone's and the far end's; 0: none yet.
    pub tags: Tags,
    /// How the phone wrote its Via sent-by, in a request of its own; what the host of the Request-URI became, in one that
    /// came in. `None`: it passed as it was.
    pub form: Option<FormId>,
    /// Any response was seen.
    pub answered: bool,
    /// A final response was seen.
    pub finished: bool,
    /// An INVITE's dialogs that came and ended while its answers may still be repeated: several phones may have answered.
    pub ended: ThinVec<Tags>,
    /// REGISTER only: what was asked for.
    pub lifetime: Option<Duration>,
}

impl Transaction {
    /// Whether it is a BYE of the phone that nobody has answered.
    pub fn is_lost_bye(&self) -> bool {
        self.method == Method::Bye && self.direction == Direction::Outbound && !self.finished
    }
}

/// The tags of a dialog as digests; 0 stands for a tag that is not there yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tags {
    /// The phone's tag.
    pub local: u64,
    /// The far end's tag.
    pub remote: u64,
}

/// All transactions in progress.
pub type Transactions = ExpiringMap<Key, Transaction, KeyHasher>;

/// The key of the transaction that the message belongs to. `call` is the key of its Call-ID, `sender` the digest of the
/// From tag, and `direction` is that of the *request*.
pub fn key(
    keyer: Keyer,
    bytes: &[u8],
    envelope: &Envelope,
    names: (Key, u64),
    flow: &FlowKey,
    direction: Direction,
) -> Key {
    key_of_method(keyer, bytes, envelope, (envelope.method_span.of(bytes), names), flow, direction)
}

/// The key of the INVITE that a CANCEL, or the ACK to a failure, is for: they differ in the method only (RFC 3261 sections 9.1
/// and 17.1.1.3).
pub fn invite(
    keyer: Keyer,
    bytes: &[u8],
    envelope: &Envelope,
    names: (Key, u64),
    flow: &FlowKey,
    direction: Direction,
) -> Key {
    key_of_method(keyer, bytes, envelope, (b"INVITE", names), flow, direction)
}

fn key_of_method(
    keyer: Keyer,
    bytes: &[u8],
    envelope: &Envelope,
    (method, (call, sender)): (&[u8], (Key, u64)),
    flow: &FlowKey,
    direction: Direction,
) -> Key {
    // An ACK to a final failure has the INVITE's branch; nobody asks for a transaction of an ACK.
    keyer.key(
        DOMAIN,
        &[
            &[direction as u8],
            envelope.branch.of(bytes),
            method,
            &call.bytes(),
            &sender.to_ne_bytes(),
            // The other end of the flow, the phone's address, is in the key of the call.
            &flow.inside.0.port().to_ne_bytes(),
            &endpoint_bytes(flow.far),
        ],
    )
}

/// When a transaction may be forgotten, from what has been seen of it.
pub fn deadline(transaction: &Transaction, now: Instant) -> Instant {
    let rings = transaction.method == Method::Invite && transaction.answered && !transaction.finished;
    now + if rings { RINGING } else { UNANSWERED }
}

/// An endpoint as bytes, for keys.
pub fn endpoint_bytes(endpoint: SocketAddr) -> [u8; 18] {
    let mut bytes = [0; 18];
    let (address, port) = bytes.split_at_mut(16);
    let ip = match endpoint.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    address.copy_from_slice(&ip.octets());
    port.copy_from_slice(&endpoint.port().to_be_bytes());
    bytes
}
