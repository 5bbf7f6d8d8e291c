//! The maps and sets of the ruleset, and how their elements look in bytes.
//!
//! nft pads every field of a concatenation to four bytes. All fields are in network byte order but one: `meta oif` is
//! an index of the host, in the host's byte order. Pure: bytes in, bytes out.

use std::ffi::CStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use arrayvec::ArrayVec;

use super::ctmessage::number;
use crate::alg::{Inside, Line, Outside, Peer, Pinhole, Transport};

/// The longest key: protocol, IPv6 address, port, IPv6 address; or twice an IPv6 address and a port.
const LONGEST: usize = 40;

/// Bytes of a key, or of what a map holds.
pub(super) type Bytes = ArrayVec<u8, LONGEST>;

/// The maps and sets that the daemon fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Table {
    Inbound,
    Outbound,
    Owned,
    Peers,
    Open,
    Followed,
    Broken,
    Lines,
    Alive,
}

/// A map or set of one IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Set {
    pub(super) table: Table,
    pub(super) v6: bool,
}

impl Set {
    /// Its name in the ruleset.
    pub(super) fn name(self) -> &'static CStr {
        match (self.table, self.v6) {
            (Table::Inbound, false) => c"inbound4",
            (Table::Inbound, true) => c"inbound6",
            (Table::Outbound, false) => c"outbound4",
            (Table::Outbound, true) => c"outbound6",
            (Table::Owned, false) => c"owned4",
            (Table::Owned, true) => c"owned6",
            (Table::Peers, false) => c"peers4",
            (Table::Peers, true) => c"peers6",
            (Table::Open, false) => c"open4",
            (Table::Open, true) => c"open6",
            (Table::Followed, false) => c"followed4",
            (Table::Followed, true) => c"followed6",
            (Table::Broken, false) => c"broken4",
            (Table::Broken, true) => c"broken6",
            (Table::Lines, false) => c"lines4",
            (Table::Lines, true) => c"lines6",
            (Table::Alive, _) => c"alive",
        }
    }
}

/// An element: where it stands, its key, and what the key maps to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) set: Set,
    pub(super) key: Bytes,
    /// Empty for sets.
    pub(super) data: Bytes,
}

impl Element {
    /// public → inside
    pub(super) fn inbound(pinhole: &Pinhole) -> Self {
        let Outside(public) = pinhole.public;
        Self::new(
            Table::Inbound,
            public,
            |key| key.protocol(pinhole.transport).endpoint(public),
            |data| data.endpoint(pinhole.inside.0),
        )
    }

    /// uplink and inside → public
    pub(super) fn outbound(pinhole: &Pinhole) -> Self {
        let (Inside(inside), Outside(public)) = (pinhole.inside, pinhole.public);
        let key =
            |key: Fields| key.raw(&pinhole.uplink.to_ne_bytes()).protocol(pinhole.transport).endpoint(inside);
        Self::new(Table::Outbound, public, key, |data| data.endpoint(public))
    }

    /// The public endpoint is closed to everybody who is not admitted.
    pub(super) fn owned(pinhole: &Pinhole) -> Self {
        let Outside(public) = pinhole.public;
        let key = |key: Fields| key.protocol(pinhole.transport).endpoint(public);
        Self::new(Table::Owned, public, key, |data| data)
    }

    /// The admission of one address, or of everybody.
    pub(super) fn admission(peer: &Peer) -> Self {
        let Outside(public) = peer.public;
        let key = |key: Fields| key.protocol(peer.transport).endpoint(public);
        match peer.far {
            Some(far) => Self::new(Table::Peers, public, |it| key(it).address(far), |data| data),
            None => Self::new(Table::Open, public, key, |data| data),
        }
    }

    /// A connection's segments as they show themselves where they are queued: from inside, and from outside.
    pub(super) fn segments(table: Table, line: &Line) -> [Self; 2] {
        let Line { inside: Inside(inside), far, public: Outside(public) } = *line;
        [(inside, far), (far, public)].map(|(source, destination)| {
            Self::new(table, far, |key| key.endpoint(source).endpoint(destination), |data| data)
        })
    }

    /// A connection, to be read back.
    pub(super) fn line(line: &Line) -> Self {
        let Line { inside: Inside(inside), far, public: Outside(public) } = *line;
        let key = |key: Fields| key.endpoint(inside).endpoint(far);
        Self::new(Table::Lines, far, key, |data| data.endpoint(public))
    }

    /// The sign that the daemon is at work.
    pub(super) fn alive() -> Self {
        let set = Set { table: Table::Alive, v6: false };
        // A key that is no concatenation is not padded.
        Self { set, key: [libc::IPPROTO_TCP as u8].into_iter().collect(), data: Bytes::new() }
    }

    fn new(
        table: Table,
        family: SocketAddr,
        key: impl FnOnce(Fields) -> Fields,
        data: impl FnOnce(Fields) -> Fields,
    ) -> Self {
        let set = Set { table, v6: family.is_ipv6() };
        Self { set, key: key(Fields::default()).0, data: data(Fields::default()).0 }
    }
}

/// Writes fields, each padded to four bytes.
#[derive(Default)]
struct Fields(Bytes);

impl Fields {
    fn raw(mut self, field: &[u8]) -> Self {
        for &byte in field {
            // All sets have keys of at most `LONGEST` bytes; a longer one would be refused by the kernel for its length.
            let _ = self.0.try_push(byte);
        }
        while self.0.len() % 4 != 0 && self.0.try_push(0).is_ok() {}
        self
    }

    fn protocol(self, transport: Transport) -> Self {
        self.raw(&[number(transport)])
    }

    fn address(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => self.raw(&v4.octets()),
            IpAddr::V6(v6) => self.raw(&v6.octets()),
        }
    }

    fn endpoint(self, endpoint: SocketAddr) -> Self {
        self.address(endpoint.ip()).raw(&endpoint.port().to_be_bytes())
    }
}

/// Reads fields back; `None` at the first that is not there.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    v6: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], v6: bool) -> Self {
        Self { rest: bytes, v6 }
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let field = self.rest.get(..N)?.try_into().ok()?;
        self.rest = self.rest.get(N.next_multiple_of(4)..).unwrap_or_default();
        Some(field)
    }

    /// An interface index.
    pub(super) fn index(&mut self) -> Option<u32> {
        self.take::<4>().map(u32::from_ne_bytes)
    }

    /// A protocol; only UDP and TCP are ours.
    pub(super) fn transport(&mut self) -> Option<Transport> {
        let [protocol] = self.take::<1>()?;
        [Transport::Udp, Transport::Tcp].into_iter().find(|it| number(*it) == protocol)
    }

    pub(super) fn address(&mut self) -> Option<IpAddr> {
        if self.v6 {
            self.take::<16>().map(|octets| Ipv6Addr::from(octets).into())
        } else {
            self.take::<4>().map(|octets| Ipv4Addr::from(octets).into())
        }
    }

    pub(super) fn endpoint(&mut self) -> Option<SocketAddr> {
        let address = self.address()?;
        Some(SocketAddr::new(address, self.port()?))
    }

    /// A port by itself.
    pub(super) fn port(&mut self) -> Option<u16> {
        self.take::<2>().map(u16::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pinhole(inside: &str, public: &str) -> Pinhole {
        Pinhole {
            transport: Transport::Udp,
            inside: Inside(inside.parse().unwrap()),
            public: Outside(public.parse().unwrap()),
            uplink: 7,
        }
    }

    #[test]
    fn fields_are_padded_and_the_interface_is_in_host_order() {
        let pinhole = pinhole("192.168.1.10:40000", "22.33.44.55:16384");
        let inbound = Element::inbound(&pinhole);
        assert_eq!(inbound.set.name(), c"inbound4");
        assert_eq!(inbound.key[..], [17, 0, 0, 0, 22, 33, 44, 55, 0x40, 0, 0, 0]);
        assert_eq!(inbound.data[..], [192, 168, 1, 10, 0x9c, 0x40, 0, 0]);
        let outbound = Element::outbound(&pinhole);
        assert_eq!(outbound.key[..4], 7u32.to_ne_bytes());
        assert_eq!(outbound.key[4..], [17, 0, 0, 0, 192, 168, 1, 10, 0x9c, 0x40, 0, 0]);
        assert_eq!(outbound.data[..], [22, 33, 44, 55, 0x40, 0, 0, 0]);
        let tcp = Element::inbound(&Pinhole { transport: Transport::Tcp, ..pinhole });
        assert_eq!(tcp.key[..], [6, 0, 0, 0, 22, 33, 44, 55, 0x40, 0, 0, 0]);
    }

    #[test]
    fn the_longest_key_fits() {
        let public = Outside("[2001:db8::1]:16384".parse().unwrap());
        let far = Some("2001:db8::9".parse().unwrap());
        let element = Element::admission(&Peer { transport: Transport::Tcp, public, far });
        assert_eq!((element.set.name(), element.key.len()), (c"peers6", LONGEST));
        let mut reader = Reader::new(&element.key, true);
        assert_eq!(reader.transport(), Some(Transport::Tcp));
        assert_eq!(reader.endpoint(), Some(public.0));
        assert_eq!(reader.address(), Some("2001:db8::9".parse().unwrap()));
        assert_eq!(reader.address(), None);
    }

    #[test]
    fn a_connection_is_found_by_both_directions_of_its_segments() {
        let [inside, far, public] =
            ["[fd00::10]:5061", "[2001:db8::9]:5060", "[2001:db8::1]:49152"].map(|it| it.parse().unwrap());
        let line = Line { inside: Inside(inside), far, public: Outside(public) };
        let element = Element::line(&line);
        assert_eq!((element.set.name(), element.key.len()), (c"lines6", LONGEST));
        let mut reader = Reader::new(&element.key, true);
        assert_eq!([(); 2].map(|()| reader.endpoint()), [Some(inside), Some(far)]);
        assert_eq!(Reader::new(&element.data, true).endpoint(), Some(public));
        for (element, ends) in
            Element::segments(Table::Followed, &line).iter().zip([[inside, far], [far, public]])
        {
            let mut reader = Reader::new(&element.key, true);
            assert_eq!([(); 2].map(|()| reader.endpoint()), ends.map(Some));
            assert_eq!((element.set.name(), element.data.len()), (c"followed6", 0));
        }
    }

    #[test]
    fn everybody_is_admitted_by_a_set_of_its_own() {
        let public = Outside("22.33.44.55:16384".parse().unwrap());
        let element = Element::admission(&Peer { transport: Transport::Udp, public, far: None });
        assert_eq!((element.set.name(), element.key.len(), element.data.len()), (c"open4", 12, 0));
    }
}
