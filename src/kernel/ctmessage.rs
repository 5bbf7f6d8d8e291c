//! Conntrack entries in the language of ctnetlink.
//!
//! Writes the requests and reads the answers; sends nothing ([`super::conntrack`]) and decides nothing ([`super::pin`]).
//! All integers in attributes are big-endian. UDP and TCP, as in [`Tuples`].

use std::net::SocketAddr;

use crate::alg::{Transport, Tuples};
use crate::netlink::tuple::{
    self, CTA_IP_V4_DST, CTA_IP_V6_DST, CTA_PROTO_DST_PORT, CTA_PROTO_NUM, CTA_TUPLE_IP, CTA_TUPLE_ORIG,
    CTA_TUPLE_PROTO, CTA_TUPLE_REPLY, ends, protocol, put_address,
};
use crate::netlink::{
    Attributes, Message, MessageType, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, Writer,
};

const CTNETLINK: u8 = 1;
const CT_NEW: u8 = 0;
const CT_GET: u8 = 1;
const CT_DELETE: u8 = 2;

const CTA_STATUS: u16 = 3;
const CTA_PROTOINFO: u16 = 4;
const CTA_HELP: u16 = 5;
const CTA_NAT_SRC: u16 = 6;
const CTA_TIMEOUT: u16 = 7;
const CTA_MARK: u16 = 8;
const CTA_COUNTERS_ORIG: u16 = 9;
const CTA_COUNTERS_REPLY: u16 = 10;
const CTA_ID: u16 = 12;
const CTA_NAT_DST: u16 = 13;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;

const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_TCP_STATE: u16 = 1;
const TCP_CONNTRACK_SYN_SENT: u8 = 1;

const CTA_HELP_NAME: u16 = 1;
const CTA_COUNTERS_PACKETS: u16 = 1;
const CTA_COUNTERS_BYTES: u16 = 2;

const CTA_NAT_V4_MINIP: u16 = 1;
const CTA_NAT_V4_MAXIP: u16 = 2;
const CTA_NAT_PROTO: u16 = 3;
const CTA_NAT_V6_MINIP: u16 = 4;
const CTA_NAT_V6_MAXIP: u16 = 5;
const CTA_PROTONAT_PORT_MIN: u16 = 1;
const CTA_PROTONAT_PORT_MAX: u16 = 2;

const CTA_FILTER_REPLY_FLAGS: u16 = 2;
/// Destination address (bit 1), protocol (3), destination port (5).
const FILTER_BY_DESTINATION: u32 = 1 << 1 | 1 << 3 | 1 << 5;

/// `IPS_SEEN_REPLY | IPS_ASSURED | IPS_CONFIRMED`: looks answered, so that a firewall takes both directions as
/// established and conntrack does not drop the entry early.
pub(super) const SEEN_ASSURED_CONFIRMED: u32 = 0xe;

/// One direction of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tuple {
    pub(super) transport: Transport,
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
}

impl Tuple {
    pub(super) fn new(transport: Transport, source: SocketAddr, destination: SocketAddr) -> Self {
        Self { transport, source, destination }
    }

    pub(super) fn udp(source: SocketAddr, destination: SocketAddr) -> Self {
        Self::new(Transport::Udp, source, destination)
    }

    pub(super) fn reversed(self) -> Self {
        Self { source: self.destination, destination: self.source, ..self }
    }

    fn family(&self) -> u8 {
        if self.source.is_ipv4() { libc::AF_INET as u8 } else { libc::AF_INET6 as u8 }
    }
}

/// An entry as the kernel tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) original: Tuple,
    pub(super) reply: Tuple,
    pub(super) id: Option<u32>,
    pub(super) mark: u32,
    /// 0: the default zone.
    pub(super) zone: u16,
    /// Name of the kernel's helper that works on it.
    pub(super) helper: Option<String>,
    /// What has passed in the original direction and in the reply direction; `None`: nobody counted when it was made.
    pub(super) counted: Option<[Counted; 2]>,
}

/// What has passed in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) packets: u64,
    /// With IP headers.
    pub(super) bytes: u64,
}

impl Entry {
    /// Both directions, for the engine.
    pub(super) fn tuples(&self) -> Tuples {
        Tuples {
            transport: self.original.transport,
            orig_source: self.original.source,
            orig_destination: self.original.destination,
            reply_source: self.reply.source,
            reply_destination: self.reply.destination,
        }
    }
}

/// An entry to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NewEntry {
    /// Its original direction, before any translation.
    pub(super) original: Tuple,
    /// What its source is translated to.
    pub(super) nat_source: Option<SocketAddr>,
    /// What its destination is translated to.
    pub(super) nat_destination: Option<SocketAddr>,
    /// Seconds.
    pub(super) timeout: u32,
    pub(super) mark: u32,
    pub(super) zone: u16,
}

/// Asks for the entry that has this tuple in either direction.
pub(super) fn get(writer: &mut Writer, tuple: Tuple, zone: u16) {
    request(writer, CT_GET, NLM_F_ACK, tuple.family(), |w| {
        put_tuple(w, CTA_TUPLE_ORIG, tuple);
        put_zone(w, zone);
    });
}

/// Asks for all entries of a family (`AF_INET`, `AF_INET6`).
pub(super) fn dump(writer: &mut Writer, family: u8) {
    request(writer, CT_GET, NLM_F_DUMP, family, |_| ());
}

/// Asks for all entries whose answers go to `public`.
pub(super) fn dump_behind(writer: &mut Writer, public: SocketAddr) {
    let family = if public.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    request(writer, CT_GET, NLM_F_DUMP, family as u8, |w| {
        w.nest(CTA_TUPLE_REPLY, |w| {
            w.nest(CTA_TUPLE_IP, |w| put_address(w, public.ip(), CTA_IP_V4_DST, CTA_IP_V6_DST));
            w.nest(CTA_TUPLE_PROTO, |w| {
                w.put(CTA_PROTO_NUM, &[libc::IPPROTO_UDP as u8]);
                w.put_u16(CTA_PROTO_DST_PORT, public.port());
            });
        });
        // The only number here that is in host byte order.
        w.nest(CTA_FILTER, |w| w.put(CTA_FILTER_REPLY_FLAGS, &FILTER_BY_DESTINATION.to_ne_bytes()));
    });
}

/// Makes an entry; EEXIST if one of its tuples is taken. The reply is given as the mirror of the original: the kernel
/// applies the translations to it. Of TCP, it waits for the first segment of its original direction.
pub(super) fn create(writer: &mut Writer, entry: &NewEntry) {
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    request(writer, CT_NEW, flags, entry.original.family(), |w| {
        put_tuple(w, CTA_TUPLE_ORIG, entry.original);
        put_tuple(w, CTA_TUPLE_REPLY, entry.original.reversed());
        if let Some(source) = entry.nat_source {
            put_nat(w, CTA_NAT_SRC, source);
        }
        if let Some(destination) = entry.nat_destination {
            put_nat(w, CTA_NAT_DST, destination);
        }
        if entry.original.transport == Transport::Tcp {
            w.nest(CTA_PROTOINFO, |w| {
                w.nest(CTA_PROTOINFO_TCP, |w| w.put(CTA_PROTOINFO_TCP_STATE, &[TCP_CONNTRACK_SYN_SENT]));
            });
        }
        w.put_u32(CTA_STATUS, SEEN_ASSURED_CONFIRMED);
        w.put_u32(CTA_TIMEOUT, entry.timeout);
        if entry.mark != 0 {
            w.put_u32(CTA_MARK, entry.mark);
        }
        put_zone(w, entry.zone);
    });
}

/// Sets the seconds that are left to the entry that has this tuple in either direction.
pub(super) fn set_timeout(writer: &mut Writer, tuple: Tuple, zone: u16, seconds: u32) {
    request(writer, CT_NEW, NLM_F_ACK, tuple.family(), |w| {
        put_tuple(w, CTA_TUPLE_ORIG, tuple);
        w.put_u32(CTA_TIMEOUT, seconds);
        put_zone(w, zone);
    });
}

/// Deletes this entry and no other that took its place in the meantime.
pub(super) fn delete(writer: &mut Writer, entry: &Entry) {
    request(writer, CT_DELETE, NLM_F_ACK, entry.original.family(), |w| {
        put_tuple(w, CTA_TUPLE_ORIG, entry.original);
        put_zone(w, entry.zone);
        if let Some(id) = entry.id {
            w.put_u32(CTA_ID, id);
        }
    });
}

/// The entry in a message of ctnetlink, if it is one of UDP or TCP.
pub(super) fn parse(message: &Message<'_>) -> Option<Entry> {
    if message.kind().subsystem != CTNETLINK {
        return None;
    }
    let attributes = message.attributes();
    let helper = attributes.nested(CTA_HELP).bytes(CTA_HELP_NAME).map(|name| {
        String::from_utf8_lossy(name.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
    });
    Some(Entry {
        original: tuple(attributes.nested(CTA_TUPLE_ORIG))?,
        reply: tuple(attributes.nested(CTA_TUPLE_REPLY))?,
        id: attributes.u32(CTA_ID),
        mark: attributes.u32(CTA_MARK).unwrap_or(0),
        zone: attributes.u16(CTA_ZONE).unwrap_or(0),
        helper,
        counted: counted(attributes, CTA_COUNTERS_ORIG)
            .and_then(|original| Some([original, counted(attributes, CTA_COUNTERS_REPLY)?])),
    })
}

fn counted(attributes: Attributes<'_>, kind: u16) -> Option<Counted> {
    let counters = attributes.nested(kind);
    let number = |kind| Some(u64::from_be_bytes(counters.bytes(kind)?.try_into().ok()?));
    Some(Counted { packets: number(CTA_COUNTERS_PACKETS)?, bytes: number(CTA_COUNTERS_BYTES)? })
}

/// Whether this is the news that an entry is gone.
pub(super) fn is_destroyed(message: &Message<'_>) -> bool {
    message.kind() == MessageType { subsystem: CTNETLINK, message: CT_DELETE }
}

fn request(writer: &mut Writer, message: u8, flags: u16, family: u8, attributes: impl FnOnce(&mut Writer)) {
    writer.clear();
    writer.message(MessageType { subsystem: CTNETLINK, message }, flags, 1, family, 0, attributes);
}

pub(super) fn put_tuple(w: &mut Writer, kind: u16, tuple: Tuple) {
    tuple::put(w, kind, number(tuple.transport), tuple.source, tuple.destination);
}

/// Its number in IP.
pub(super) fn number(transport: Transport) -> u8 {
    match transport {
        Transport::Udp => libc::IPPROTO_UDP as u8,
        Transport::Tcp => libc::IPPROTO_TCP as u8,
    }
}

fn put_nat(w: &mut Writer, kind: u16, to: SocketAddr) {
    w.nest(kind, |w| {
        put_address(w, to.ip(), CTA_NAT_V4_MINIP, CTA_NAT_V6_MINIP);
        put_address(w, to.ip(), CTA_NAT_V4_MAXIP, CTA_NAT_V6_MAXIP);
        w.nest(CTA_NAT_PROTO, |w| {
            w.put_u16(CTA_PROTONAT_PORT_MIN, to.port());
            w.put_u16(CTA_PROTONAT_PORT_MAX, to.port());
        });
    });
}

fn put_zone(w: &mut Writer, zone: u16) {
    if zone != 0 {
        w.put_u16(CTA_ZONE, zone);
    }
}

fn tuple(attributes: Attributes<'_>) -> Option<Tuple> {
    let protocol = protocol(attributes)?;
    let transport = [Transport::Udp, Transport::Tcp].into_iter().find(|it| number(*it) == protocol)?;
    let (source, destination) = ends(attributes)?;
    Some(Tuple { transport, source, destination })
}

#[cfg(test)]
mod tests {
    //! The same messages by another implementation, netlink-packet-netfilter, as far as that goes: it has no NAT, zone and
    //! identity, whose bytes are spelt out.
    use super::*;
    use netlink_packet_core::{DefaultNla, NetlinkHeader, NetlinkMessage, NetlinkPayload, Nla};
    use netlink_packet_netfilter::conntrack::{
        ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol, Status, Tuple as TheirTuple,
    };
    use netlink_packet_netfilter::{
        NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    };

    fn tuple(source: &str, destination: &str) -> Tuple {
        Tuple::udp(source.parse().unwrap(), destination.parse().unwrap())
    }

    fn theirs(tuple: Tuple) -> Vec<TheirTuple> {
        vec![
            TheirTuple::Ip(vec![
                IPTuple::SourceAddress(tuple.source.ip()),
                IPTuple::DestinationAddress(tuple.destination.ip()),
            ]),
            TheirTuple::Proto(vec![
                ProtoTuple::Protocol(Protocol::Udp),
                ProtoTuple::SourcePort(tuple.source.port()),
                ProtoTuple::DestinationPort(tuple.destination.port()),
            ]),
        ]
    }

    fn their_bytes(family: NetfilterProtoFamily, flags: u16, message: ConntrackMessage) -> Vec<u8> {
        let mut header = NetlinkHeader::default();
        (header.flags, header.sequence_number) = (flags, 1);
        let message = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message);
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    #[test]
    fn requests_are_what_another_implementation_writes() {
        const REQUEST: u16 = 1;
        let cases = [
            (NetfilterProtoFamily::IPv4, tuple("192.168.1.10:40000", "22.33.44.22:30000")),
            (NetfilterProtoFamily::IPv6, tuple("[fd00::10]:40000", "[2001:db8::9]:30000")),
        ];
        for (family, tuple) in cases {
            let mut writer = Writer::new();
            get(&mut writer, tuple, 0);
            let their = ConntrackMessage::Get(vec![ConntrackAttribute::CtaTupleOrig(theirs(tuple))]);
            assert_eq!(writer.bytes(), their_bytes(family, REQUEST | NLM_F_ACK, their));
            set_timeout(&mut writer, tuple, 0, 3700);
            let their = ConntrackMessage::New(vec![
                ConntrackAttribute::CtaTupleOrig(theirs(tuple)),
                ConntrackAttribute::CtaTimeout(3700),
            ]);
            assert_eq!(writer.bytes(), their_bytes(family, REQUEST | NLM_F_ACK, their));
            dump(&mut writer, if tuple.source.is_ipv4() { 2 } else { 10 });
            let their = ConntrackMessage::Get(vec![]);
            assert_eq!(writer.bytes(), their_bytes(family, REQUEST | NLM_F_DUMP, their));
        }
    }

    #[test]
    fn entries_behind_an_endpoint_are_asked_for_by_address_protocol_and_port() {
        let mut writer = Writer::new();
        dump_behind(&mut writer, "22.33.44.55:50000".parse().unwrap());
        let mut expected = vec![72, 0, 0, 0, 1, 1, 1, 3, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0];
        // The reply tuple: its destination address; protocol 17 and destination port.
        expected.extend([36, 0, 2, 0x80, 12, 0, 1, 0x80, 8, 0, 2, 0, 22, 33, 44, 55]);
        expected.extend([20, 0, 2, 0x80, 5, 0, 1, 0, 17, 0, 0, 0, 6, 0, 3, 0, 0xc3, 0x50, 0, 0]);
        // Of the reply tuple these three.
        expected.extend([12, 0, 25, 0x80, 8, 0, 2, 0, 0b10_1010, 0, 0, 0]);
        if cfg!(target_endian = "little") {
            assert_eq!(writer.bytes()[4..], expected[4..]);
        }
    }

    #[test]
    fn a_pinned_entry_is_read_by_another_implementation() {
        let original = tuple("192.168.1.10:40000", "22.33.44.22:30000");
        let entry = NewEntry {
            original,
            nat_source: "22.33.44.55:16384".parse().ok(),
            nat_destination: Some("192.168.1.11:40002".parse().unwrap()),
            timeout: 180,
            mark: 0x2a,
            zone: 7,
        };
        let mut writer = Writer::new();
        create(&mut writer, &entry);
        let read = NetlinkMessage::<NetfilterMessage>::deserialize(writer.bytes()).unwrap();
        assert_eq!(read.header.flags, 1 | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
        let NetlinkPayload::InnerMessage(NetfilterMessage { inner, .. }) = read.payload else { panic!() };
        let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = inner else { panic!() };
        let [orig, reply, nat_src, nat_dst, status, timeout, mark, zone] = &attributes[..] else { panic!() };
        assert_eq!(*orig, ConntrackAttribute::CtaTupleOrig(theirs(original)));
        assert_eq!(*reply, ConntrackAttribute::CtaTupleReply(theirs(original.reversed())));
        assert_eq!(
            *status,
            ConntrackAttribute::CtaStatus(Status::SeenReply | Status::Assured | Status::Confirmed)
        );
        assert_eq!(*timeout, ConntrackAttribute::CtaTimeout(180));
        assert_eq!(*mark, ConntrackAttribute::CtaMark(0x2a));
        let raw = |attribute: &ConntrackAttribute| match attribute {
            ConntrackAttribute::Other(other) => (other.kind(), nla_value(other)),
            other => panic!("{other:?}"),
        };
        assert_eq!(raw(zone), (18, vec![0, 7]));
        // Lowest and highest address, then lowest and highest port.
        let nat = |address: [u8; 4], port: [u8; 2]| {
            let [a, b, c, d] = address;
            let [p, q] = port;
            let mut bytes = vec![8, 0, 1, 0, a, b, c, d, 8, 0, 2, 0, a, b, c, d, 20, 0, 3, 0x80];
            bytes.extend([6, 0, 1, 0, p, q, 0, 0, 6, 0, 2, 0, p, q, 0, 0]);
            bytes
        };
        if cfg!(target_endian = "little") {
            assert_eq!(raw(nat_src), (0x8000 | 6, nat([22, 33, 44, 55], 16384u16.to_be_bytes())));
            assert_eq!(raw(nat_dst), (0x8000 | 13, nat([192, 168, 1, 11], 40002u16.to_be_bytes())));
        }
    }

    fn nla_value(nla: &DefaultNla) -> Vec<u8> {
        let mut value = vec![0; nla.value_len()];
        nla.emit_value(&mut value);
        value
    }

    /// Two attributes of eight bytes each, as the kernel of a little-endian machine writes them.
    fn counters(packets: u64, bytes: u64) -> Vec<u8> {
        let attribute = |kind: u8, value: u64| [&[12, 0, kind, 0][..], &value.to_be_bytes()].concat();
        [attribute(1, packets), attribute(2, bytes)].concat()
    }

    #[test]
    fn an_entry_of_another_implementation_is_read() {
        let (original, reply) =
            (tuple("192.168.1.10:5060", "22.33.44.20:5060"), tuple("22.33.44.20:5060", "22.33.44.55:17375"));
        let message = |original, reply| {
            ConntrackMessage::New(vec![
                ConntrackAttribute::CtaTupleOrig(original),
                ConntrackAttribute::CtaTupleReply(reply),
                ConntrackAttribute::CtaMark(9),
                ConntrackAttribute::Other(DefaultNla::new(CTA_ZONE, vec![0, 7])),
                ConntrackAttribute::Other(DefaultNla::new(CTA_ID, vec![1, 2, 3, 4])),
                ConntrackAttribute::Other(DefaultNla::new(CTA_HELP, b"\x08\0\x01\0sip\0".to_vec())),
                ConntrackAttribute::Other(DefaultNla::new(0x8000 | CTA_COUNTERS_ORIG, counters(300, 51_600))),
                ConntrackAttribute::Other(DefaultNla::new(0x8000 | CTA_COUNTERS_REPLY, counters(0, 0))),
            ])
        };
        let bytes = their_bytes(NetfilterProtoFamily::IPv4, 0, message(theirs(original), theirs(reply)));
        let read: Vec<_> = crate::netlink::messages(&bytes).map(|message| parse(&message)).collect();
        let little = cfg!(target_endian = "little");
        let helper = little.then(|| "sip".to_owned());
        let counted = little.then_some([Counted { packets: 300, bytes: 51_600 }, Counted::default()]);
        let expected = Entry { original, reply, id: Some(0x0102_0304), mark: 9, zone: 7, helper, counted };
        assert_eq!(read, [Some(expected)]);
        // Another protocol is not ours.
        let mut tcp = theirs(original);
        tcp[1] = TheirTuple::Proto(vec![ProtoTuple::Protocol(Protocol::Tcp)]);
        let bytes = their_bytes(NetfilterProtoFamily::IPv4, 0, message(tcp, theirs(reply)));
        assert!(crate::netlink::messages(&bytes).all(|message| parse(&message).is_none()));
    }
}
