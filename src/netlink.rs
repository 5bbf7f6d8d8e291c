//! The framing of nfnetlink: messages, attributes, acknowledgements.
//!
//! One codec for NFQUEUE, ctnetlink and whatever else speaks nfnetlink, because no crate encodes all of them. It
//! knows no subsystem: numbers of messages and attributes stand where they are used (`queue`, `kernel`); but for the
//! endpoints in a conntrack entry ([`mod@tuple`]), which both use. Reading never
//! panics: a walk stops at the first length that does not fit. It opens no socket.
//!
//! Integers in attributes are big-endian, netlink's own headers are in host byte order. A datagram need not be padded
//! to four bytes (NFQUEUE's are not).

pub mod tuple;

/// Asks for an answer: set in every request.
const NLM_F_REQUEST: u16 = 1;
/// Asks for an acknowledgement.
pub const NLM_F_ACK: u16 = 4;
/// Asks for everything that there is.
pub const NLM_F_DUMP: u16 = 0x300;
/// Fails if it exists.
pub const NLM_F_EXCL: u16 = 0x200;
/// Creates if it does not exist.
pub const NLM_F_CREATE: u16 = 0x400;

/// What a dump lists has changed meanwhile: it may lack what is there.
const NLM_F_DUMP_INTR: u16 = 0x10;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;
const HEADER: usize = 16;

/// `subsystem << 8 | message`, as in `nlmsg_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageType {
    /// `NFNL_SUBSYS_*`
    pub subsystem: u8,
    /// The subsystem's message number.
    pub message: u8,
}

/// Builds messages one behind the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// An empty buffer.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Forgets the content, keeps the memory.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// What has been written.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// One message: headers (`nlmsghdr`, `nfgenmsg`), then what `attributes` writes. `resource` is the queue number for
    /// NFQUEUE, 0 elsewhere; `family` is `AF_INET`, `AF_INET6` or `AF_UNSPEC`.
    pub fn message(
        &mut self,
        kind: MessageType,
        flags: u16,
        sequence: u32,
        family: u8,
        resource: u16,
        attributes: impl FnOnce(&mut Self),
    ) {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        let number = u16::from(kind.subsystem) << 8 | u16::from(kind.message);
        self.0.extend_from_slice(&number.to_ne_bytes());
        self.0.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        self.0.extend_from_slice(&sequence.to_ne_bytes());
        self.0.extend_from_slice(&[0; 4]);
        self.0.extend_from_slice(&[family, 0]);
        self.0.extend_from_slice(&resource.to_be_bytes());
        attributes(self);
        let length = u32::try_from(self.0.len() - start).unwrap_or(u32::MAX);
        if let Some(field) = self.0.get_mut(start..start + 4) {
            field.copy_from_slice(&length.to_ne_bytes());
        }
    }

    /// An attribute with these bytes.
    pub fn put(&mut self, kind: u16, value: &[u8]) {
        self.put_with(kind, |buffer| buffer.extend_from_slice(value));
    }

    /// An attribute whose bytes `write` appends.
    pub fn put_with(&mut self, kind: u16, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.open(kind);
        write(&mut self.0);
        self.close(start);
    }

    /// A u16 in network byte order.
    pub fn put_u16(&mut self, kind: u16, value: u16) {
        self.put(kind, &value.to_be_bytes());
    }

    /// A u32 in network byte order.
    pub fn put_u32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    /// A nested attribute.
    pub fn nest(&mut self, kind: u16, attributes: impl FnOnce(&mut Self)) {
        let start = self.open(kind | NLA_F_NESTED);
        attributes(self);
        self.close(start);
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.0.len();
        self.0.extend_from_slice(&[0, 0]);
        self.0.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    fn close(&mut self, start: usize) {
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        if let Some(field) = self.0.get_mut(start..start + 2) {
            field.copy_from_slice(&length.to_ne_bytes());
        }
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// The attributes in some bytes; stops at the first length that does not fit.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16::from_ne_bytes(self.0.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(self.0.get(2..4)?.try_into().ok()?) & NLA_TYPE_MASK;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

impl<'a> Attributes<'a> {
    /// The value of the first attribute of this kind.
    pub fn bytes(self, kind: u16) -> Option<&'a [u8]> {
        let mut all = self;
        all.find(|(k, _)| *k == kind).map(|(_, value)| value)
    }

    /// The attributes nested in the first one of this kind; none if it is not there.
    pub fn nested(self, kind: u16) -> Self {
        Self(self.bytes(kind).unwrap_or_default())
    }

    /// An attribute that is a u16 in network byte order.
    pub fn u16(self, kind: u16) -> Option<u16> {
        Some(u16::from_be_bytes(self.bytes(kind)?.try_into().ok()?))
    }

    /// An attribute that is a u32 in network byte order.
    pub fn u32(self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.bytes(kind)?.try_into().ok()?))
    }
}

/// One message of a datagram.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// `nlmsg_type`: subsystem and message, or one of netlink's own control messages.
    pub number: u16,
    /// `nlmsg_flags`
    pub flags: u16,
    /// `nlmsg_seq`
    pub sequence: u32,
    /// Everything behind the `nlmsghdr`.
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    /// The type, unless it is a control message of netlink.
    pub fn kind(&self) -> MessageType {
        let [message, subsystem] = self.number.to_le_bytes();
        MessageType { subsystem, message }
    }

    /// The attributes behind the `nfgenmsg`.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes(self.body.get(4..).unwrap_or_default())
    }

    /// The family of the `nfgenmsg`.
    pub fn family(&self) -> u8 {
        self.body.first().copied().unwrap_or_default()
    }

    /// For an acknowledgement: 0, or the positive error number.
    pub fn error(&self) -> Option<i32> {
        let code = self.body.get(..4).filter(|_| self.number == NLMSG_ERROR)?;
        Some(i32::from_ne_bytes(code.try_into().ok()?).wrapping_neg())
    }

    /// Whether the dump that this is part of has to be asked for again, for what it lists has changed meanwhile.
    pub fn is_torn(&self) -> bool {
        self.flags & NLM_F_DUMP_INTR != 0
    }

    /// Whether this ends a dump.
    pub fn is_done(&self) -> bool {
        self.number == NLMSG_DONE
    }
}

/// The messages of a datagram; stops at the first length that does not fit.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        let number = u16::from_ne_bytes(rest.get(4..6)?.try_into().ok()?);
        let flags = u16::from_ne_bytes(rest.get(6..8)?.try_into().ok()?);
        let sequence = u32::from_ne_bytes(rest.get(8..12)?.try_into().ok()?);
        let body = rest.get(HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { number, flags, sequence, body })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: MessageType = MessageType { subsystem: 3, message: 0 };

    #[test]
    fn what_is_written_is_read_back() {
        let mut writer = Writer::new();
        writer.message(PACKET, NLM_F_ACK, 7, 2, 5061, |w| {
            w.put_u32(1, 0xdead_beef);
            w.nest(2, |w| {
                w.put(3, b"abcde");
                w.put_u16(4, 513);
            });
        });
        writer.message(PACKET, 0, 8, 10, 0, |_| ());
        let read: Vec<_> = messages(writer.bytes()).collect();
        assert_eq!(read.len(), 2);
        assert_eq!((read[0].kind(), read[0].sequence, read[0].family()), (PACKET, 7, 2));
        assert_eq!(&read[0].body[2..4], &5061u16.to_be_bytes());
        let attributes = read[0].attributes();
        assert_eq!(attributes.u32(1), Some(0xdead_beef));
        assert_eq!(attributes.nested(2).bytes(3), Some(&b"abcde"[..]));
        assert_eq!(attributes.nested(2).u16(4), Some(513));
        assert_eq!(attributes.nested(9).count(), 0);
    }

    #[test]
    fn an_unpadded_datagram_and_lying_lengths_are_no_panic() {
        let mut writer = Writer::new();
        writer.message(PACKET, 0, 1, 2, 0, |w| w.put(10, b"abcde"));
        let unpadded = writer.bytes().len() - 3;
        let mut bytes = writer.bytes()[..unpadded].to_vec();
        bytes[0] -= 3;
        let read: Vec<_> = messages(&bytes).collect();
        assert_eq!(read[0].attributes().bytes(10), Some(&b"abcde"[..]));
        for length in 0..=255 {
            bytes[20] = length;
            bytes[0] = length;
            for cut in 0..bytes.len() {
                assert!(messages(&bytes[..cut]).all(|m| m.attributes().count() < 9));
            }
        }
    }
}
