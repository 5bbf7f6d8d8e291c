//! Signalling flows and what the NAT made of them.
//!
//! A flow is one pair of endpoints that speak SIP, seen from the inside of the NAT, with its mapping: learned on its
//! first packet, or looked up in conntrack. Everything that is known of a phone by its flow is here too: the texts by
//! which it calls itself and how long its registration lives. A flow decides nothing; see `engine`.

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use arrayvec::ArrayString;
use std::fmt::Write as _;

use super::command::{CommandId, FlowKey, Transport};
use super::endpoint::{Inside, Outside, Packed};
use super::key::Key;
use super::names::Names;

/// What is known of a flow's NAT mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// Nothing yet. Entered by: the first packet of a flow whose source the NAT left as it was (so the flow may begin
    /// outside), or the end of its conntrack entry.
    Unknown,
    /// conntrack has been asked. Entered from `Unknown`, or by a packet of a flow that nobody knows.
    Asked(CommandId),
    /// conntrack has no such entry. Entered from `Asked`; kept for a moment so that a flood is not a flood of questions.
    Missing,
    /// Its conntrack entry was deleted then, because it stood for another way out. Entered from `Public`; what was under way
    /// by that entry is dropped. After a moment as good as `Unknown`.
    Moved(Instant),
    /// The NAT leaves it alone. Entered from `Asked`.
    NotNated,
    /// This is the public endpoint. Entered from `Asked`, and by learning.
    Public(Box<PublicSide>),
}

/// A public endpoint, with its text ready to be written into messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicSide {
    /// The endpoint.
    pub endpoint: Outside,
    /// The endpoint as messages have it: behind another NAT the administrator may know better.
    pub shown: SocketAddr,
    /// `host:port`. No text of an address is longer: 39 digits and colons of IPv6, brackets, a colon and five digits.
    text: ArrayString<47>,
    /// Where the host ends.
    host: usize,
}

impl PublicSide {
    /// The texts of `endpoint`.
    pub fn new(endpoint: Outside) -> Self {
        Self::advertised(endpoint, &[])
    }

    /// The texts of `endpoint` with the address of the same family in `advertise`, if there is one, in place of its own.
    pub fn advertised(endpoint: Outside, advertise: &[IpAddr]) -> Self {
        let (own, port) = (endpoint.0.ip(), endpoint.0.port());
        let ip = advertise.iter().copied().find(|ip| ip.is_ipv4() == own.is_ipv4()).unwrap_or(own);
        let mut text = ArrayString::new();
        let shown = SocketAddr::new(ip, port);
        let written = write!(text, "{shown}");
        debug_assert!(written.is_ok(), "it has room for the longest");
        let host = text.rfind(':').unwrap_or_default();
        Self { endpoint, shown, text, host }
    }

    /// `host:port`, as a URI has it: IPv6 in brackets.
    pub fn host_port(&self) -> &str {
        &self.text
    }

    /// The same without the port.
    pub fn host(&self) -> &str {
        self.text.get(..self.host).unwrap_or_default()
    }

    /// The address as SDP has it: no brackets.
    pub fn address(&self) -> &str {
        let bracket = usize::from(self.shown.is_ipv6());
        self.text.get(bracket..self.host.saturating_sub(bracket)).unwrap_or_default()
    }

    /// What an endpoint in a message is here: on the address that messages have it stands on ours.
    pub fn actual(&self, written: SocketAddr) -> SocketAddr {
        if written.ip() == self.shown.ip() {
            SocketAddr::new(self.endpoint.0.ip(), written.port())
        } else {
            written
        }
    }
}

/// One flow.
#[derive(Clone, Debug)]
pub struct Flow {
    /// The mapping.
    pub mapping: Mapping,
    /// When the mapping was learned, or the flow first seen.
    pub since: Instant,
    /// Index of the interface towards the phone; 0 when not known.
    pub lan: u32,
    /// Index of the interface towards the outside; 0 when not known.
    pub uplink: u32,
    /// How the phone calls itself.
    pub names: Names,
    /// Whether its conntrack entry has the ruleset's lifetime rule. Only flows that began under the ruleset have it.
    pub governed: bool,
    /// Whether it was told that somebody else changes addresses on the way.
    pub upstream_told: bool,
    /// Where the phone listens, if that is another port than it sends from.
    pub listens_at: Option<u16>,
    /// Whether the far end ever answered.
    pub answered: bool,
    /// Until when the longest registration on this flow lives.
    pub registered: Option<Instant>,
    /// Until when the longest subscription on this flow lives.
    pub subscribed: Option<Instant>,
    /// The registrations on this flow.
    pub registrations: Vec<Key>,
    /// When the conntrack entry's lifetime was last set by us.
    pub sustained: Instant,
}

impl Flow {
    /// A flow of which only its interfaces are known.
    pub fn new(mapping: Mapping, lan: u32, uplink: u32, now: Instant) -> Self {
        let names = Names::default();
        Self {
            mapping,
            since: now,
            lan,
            uplink,
            names,
            governed: false,
            upstream_told: false,
            listens_at: None,
            answered: false,
            registered: None,
            subscribed: None,
            registrations: Vec::new(),
            sustained: now,
        }
    }

    /// Until when the phone must be reachable by this flow.
    pub fn lease(&self) -> Option<Instant> {
        self.registered.max(self.subscribed)
    }

    /// How the far end sees `inside`: by its public endpoint, or as it is where there is no NAT. `None`: not known.
    pub fn seen_as(&self, inside: Inside) -> Option<Outside> {
        match &self.mapping {
            Mapping::Public(side) => Some(Outside(side.shown)),
            Mapping::NotNated => Some(Outside(inside.0)),
            Mapping::Unknown | Mapping::Asked(_) | Mapping::Missing | Mapping::Moved(_) => None,
        }
    }

    /// Notes the interfaces by which a packet of it came; 0 is not known, and changes nothing.
    pub fn note_interfaces(&mut self, lan: u32, uplink: u32) {
        self.lan = if lan == 0 { self.lan } else { lan };
        self.uplink = if uplink == 0 { self.uplink } else { uplink };
    }

    /// As [`Flow::note_interfaces`], of a packet from outside. By which uplink answers come says little about which one the
    /// phone's messages leave by.
    pub fn note_way_in(&mut self, lan: u32, uplink: u32) {
        self.note_interfaces(lan, if self.uplink == 0 { uplink } else { 0 });
    }

    /// Whether a packet that leaves by this interface takes another way than those before; 0 is not known.
    pub fn leaves_elsewhere(&self, outdev: u32) -> bool {
        self.uplink != 0 && outdev != 0 && self.uplink != outdev
    }

    /// The public side, if there is a NAT and it is known.
    pub fn public(&self) -> Option<&PublicSide> {
        match &self.mapping {
            Mapping::Public(side) => Some(side),
            Mapping::Unknown
            | Mapping::Asked(_)
            | Mapping::Missing
            | Mapping::Moved(_)
            | Mapping::NotNated => None,
        }
    }
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// From inside to outside.
    Outbound,
    /// From outside to inside.
    Inbound,
}

/// The key of a UDP flow whose packet goes from `source` to `destination` in `direction`, as FORWARD sees it.
pub fn flow_key(source: SocketAddr, destination: SocketAddr, direction: Direction) -> FlowKey {
    match direction {
        Direction::Outbound => {
            FlowKey { transport: Transport::Udp, inside: Inside(source), far: destination }
        }
        Direction::Inbound => FlowKey { transport: Transport::Udp, inside: Inside(destination), far: source },
    }
}

/// A [`FlowKey`] in two thirds of the room, for tables: see [`Packed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedFlow {
    transport: Transport,
    inside: Packed,
    far: Packed,
}

impl PackedFlow {
    /// The flow.
    pub fn get(self) -> FlowKey {
        let Self { transport, inside, far } = self;
        FlowKey { transport, inside: Inside(inside.endpoint()), far: far.endpoint() }
    }
}

impl From<FlowKey> for PackedFlow {
    fn from(FlowKey { transport, inside: Inside(inside), far }: FlowKey) -> Self {
        Self { transport, inside: inside.into(), far: far.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_addresses_fit_their_texts() {
        let longest = "[aaaa:bbbb:cccc:dddd:eeee:ffff:1111:2222]:65535";
        let side = PublicSide::new(Outside(longest.parse().unwrap()));
        assert_eq!((side.host_port(), side.host()), (longest, &longest[..41]));
        assert_eq!(side.address(), &longest[1..40]);
        let side = PublicSide::new(Outside("22.33.44.55:5060".parse().unwrap()));
        let texts = [side.host_port(), side.host(), side.address()];
        assert_eq!(texts, ["22.33.44.55:5060", "22.33.44.55", "22.33.44.55"]);
    }
}
