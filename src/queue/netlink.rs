//! The default queue: NFQUEUE spoken directly, batch by batch.
//!
//! One socket reads all six queues. A batch comes in with one recvmmsg and its verdicts leave with one send, which is
//! half as many packets again per second as one system call for each. Each queue is configured by a single message, so
//! that there is no moment in which it is half configured.
//!
//! Partial checksums and segments to be (`NFQA_CFG_F_GSO`) are not asked for: the kernel completes packets before it
//! queues them, and cuts those that are longer than the MTU. There is little to win: SIP goes message by message, most of
//! them answered before the next, so that hardly two are in one packet; and without the work on checksums a reader that
//! takes packets in batches and changes none was no faster. (`cargo bench --bench gateway` has one that takes them one by
//! one: for it, it is something.)
//!
//! Behind the NAT the conntrack entry is asked for, where the kernel has it to give (`CONFIG_NETFILTER_NETLINK_GLUE_CT`).
//! Marks and priorities are neither read nor set.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::socket::{Datagrams, Socket};
use super::{
    Counters, MAX_PACKET, Numbered, OpenError, Options, PacketQueue, QUEUES, TooLong, entry, packet_id, poll,
    proc, split_id,
};
use crate::alg::{PacketId, PacketIn, QueuePoint, Tuples};
use crate::netlink::{Message, MessageType, NLM_F_ACK, Writer, messages};

const NFNL_SUBSYS_QUEUE: u8 = 3;
const PACKET: MessageType = MessageType { subsystem: NFNL_SUBSYS_QUEUE, message: 0 };
const VERDICT: MessageType = MessageType { subsystem: NFNL_SUBSYS_QUEUE, message: 1 };
const CONFIG: MessageType = MessageType { subsystem: NFNL_SUBSYS_QUEUE, message: 2 };

const NFQA_PACKET_HDR: u16 = 1;
const NFQA_VERDICT_HDR: u16 = 2;
const NFQA_IFINDEX_INDEV: u16 = 5;
const NFQA_IFINDEX_OUTDEV: u16 = 6;
const NFQA_PAYLOAD: u16 = 10;
const NFQA_CT: u16 = 11;

const NFQA_CFG_CMD: u16 = 1;
const NFQA_CFG_PARAMS: u16 = 2;
const NFQA_CFG_QUEUE_MAXLEN: u16 = 3;
const NFQA_CFG_MASK: u16 = 4;
const NFQA_CFG_FLAGS: u16 = 5;

const NFQNL_CFG_CMD_BIND: u8 = 1;
const NFQNL_CFG_CMD_PF_BIND: u8 = 3;
const NFQNL_COPY_PACKET: u8 = 2;
const NFQA_CFG_F_FAIL_OPEN: u32 = 1;
const NFQA_CFG_F_CONNTRACK: u32 = 2;
const NFQA_CFG_F_GSO: u32 = 4;

const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;

/// Verdicts are sent when they have grown to so many bytes, or by `flush`. Sooner is not faster: it wakes the receivers of a few
/// packets, who take the processor.
const SEND_AT: usize = 128 << 10;
/// The kernel refuses a datagram larger than the socket's send buffer.
const SEND_BUFFER: u32 = 1 << 20;
/// The kernel answers a configuration message at once. Who has waited so long waits in vain.
const ANSWER: Duration = Duration::from_secs(5);

/// The six queues, read by one socket.
#[derive(Debug)]
pub struct NetlinkQueue {
    socket: Socket,
    numbers: [Numbered; QUEUES.len()],
    datagrams: Datagrams,
    batch: Vec<Waiting>,
    verdicts: Writer,
    /// Full buffers of verdicts that could not be sent yet, oldest first.
    unsent: VecDeque<Writer>,
    counters: Counters,
    tells_entries: bool,
}

/// A packet of the batch: where its parts are in `datagrams`.
#[derive(Clone, Debug)]
struct Waiting {
    id: PacketId,
    point: QueuePoint,
    indev: u32,
    outdev: u32,
    entry: Option<Tuples>,
    datagram: usize,
    payload: Range<usize>,
}

impl NetlinkQueue {
    /// Opens the socket and binds it to six queues.
    ///
    /// Packets that arrive meanwhile, because the rules that queue are there already, are accepted as they came.
    ///
    /// # Errors
    /// [`OpenError`], with a remedy for each.
    pub fn open(options: &Options) -> Result<Self, OpenError> {
        let numbers = options.numbers()?;
        check_rights()?;
        let failed = |step| move |error| OpenError::Failed { step, error };
        let mut queue = Self {
            socket: Socket::open().map_err(failed("open a netlink socket"))?,
            numbers,
            datagrams: Datagrams::new(),
            batch: Vec::new(),
            verdicts: Writer::new(),
            unsent: VecDeque::new(),
            counters: Counters::default(),
            tells_entries: false,
        };
        queue.socket.suppress_enobufs().map_err(failed("set up the netlink socket"))?;
        queue
            .socket
            .set_buffers(options.receive_buffer, SEND_BUFFER)
            .map_err(failed("enlarge the buffers of the netlink socket"))?;
        for (sequence, (number, point, overflow)) in (2..).step_by(2).zip(numbers) {
            let wants = options.entries && point == QueuePoint::Learn;
            let mut bound = queue.bind(sequence, number, options, options.passes(overflow), wants);
            // A kernel without them refuses before it has done anything.
            let can_not = |error: &io::Error| error.raw_os_error() == Some(libc::EOPNOTSUPP);
            queue.tells_entries |= wants && bound.is_ok();
            if wants && bound.as_ref().is_err_and(can_not) {
                bound = queue.bind(sequence + 1, number, options, options.passes(overflow), false);
            }
            bound.map_err(|error| match error.raw_os_error() {
                Some(libc::EPERM | libc::EBUSY) => {
                    OpenError::Taken { queue: number, reader: proc::queue(number).map(|queue| queue.reader) }
                }
                _ => OpenError::Failed { step: "bind a packet queue", error },
            })?;
        }
        Ok(queue)
    }

    fn bind(
        &mut self,
        sequence: u32,
        number: u16,
        options: &Options,
        passes: bool,
        entries: bool,
    ) -> io::Result<()> {
        let entries = if entries { NFQA_CFG_F_CONNTRACK } else { 0 };
        let fail_open = if passes { NFQA_CFG_F_FAIL_OPEN } else { 0 };
        let mut request = Writer::new();
        request.message(CONFIG, NLM_F_ACK, sequence, libc::AF_UNSPEC as u8, number, |w| {
            w.put(NFQA_CFG_CMD, &[NFQNL_CFG_CMD_BIND, 0, 0, 0]);
            let [a, b, c, d] = 0xffffu32.to_be_bytes(); // copy whole packets
            w.put(NFQA_CFG_PARAMS, &[a, b, c, d, NFQNL_COPY_PACKET]);
            w.put_u32(NFQA_CFG_QUEUE_MAXLEN, options.max_length);
            w.put_u32(NFQA_CFG_FLAGS, fail_open | entries);
            w.put_u32(NFQA_CFG_MASK, NFQA_CFG_F_FAIL_OPEN | NFQA_CFG_F_GSO | NFQA_CFG_F_CONNTRACK);
        });
        self.request(sequence, &request)
    }

    /// Sends one configuration message and waits for the answer to it. Packets that come first pass.
    fn request(&mut self, sequence: u32, request: &Writer) -> io::Result<()> {
        self.socket.send(request.bytes())?;
        let deadline = Instant::now() + ANSWER;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            poll::wait([Some(self.socket.as_fd())], Some(left))?;
            let answer = self.take_in(sequence)?;
            let early: Vec<_> = self.batch.iter().map(|packet| packet.id).collect();
            early.into_iter().for_each(|id| self.accept(id));
            self.flush()?;
            match answer {
                Some(0) => return Ok(()),
                Some(code) => return Err(io::Error::from_raw_os_error(code)),
                None => {}
            }
        }
    }

    /// Receives a batch; the answer to message `sequence`, if it came along. Sequence 0 is that of verdicts, whose
    /// only answers are errors.
    fn take_in(&mut self, sequence: u32) -> io::Result<Option<i32>> {
        self.batch.clear();
        let count = self.datagrams.receive(&self.socket)?;
        let mut answer = None;
        for index in 0..count {
            let datagram = self.datagrams.datagram(index);
            for message in messages(datagram) {
                match message.error() {
                    Some(code) if message.sequence == sequence && sequence != 0 => answer = Some(code),
                    Some(_) => self.counters.refused += 1,
                    None if message.kind() == PACKET => {
                        self.batch.extend(waiting(&self.numbers, index, datagram, &message));
                    }
                    None => {}
                }
            }
        }
        self.counters.received += self.batch.len() as u64;
        Ok(answer)
    }

    fn verdict(&mut self, id: PacketId, verdict: u32, bytes: Option<&[u8]>) {
        let (index, kernel_id) = split_id(id);
        let Some((number, ..)) = self.numbers.get(index) else { return };
        self.verdicts.message(VERDICT, 0, 0, libc::AF_UNSPEC as u8, *number, |w| {
            w.put_with(NFQA_VERDICT_HDR, |buffer| {
                buffer.extend_from_slice(&verdict.to_be_bytes());
                buffer.extend_from_slice(&kernel_id.to_be_bytes());
            });
            if let Some(bytes) = bytes {
                w.put(NFQA_PAYLOAD, bytes);
            }
        });
        self.counters.verdicts += 1;
        if self.verdicts.bytes().len() >= SEND_AT {
            self.unsent.push_back(std::mem::take(&mut self.verdicts));
            // What fails here is kept, and `flush` will say so.
            let _ = self.send_unsent();
        }
    }

    fn send_unsent(&mut self) -> io::Result<()> {
        while let Some(oldest) = self.unsent.front() {
            self.socket.send(oldest.bytes())?;
            self.unsent.pop_front();
        }
        Ok(())
    }
}

/// Sends a configuration command that has done nothing since Linux 3.8, to tell "no rights" from "queue taken": the
/// kernel answers EPERM to both.
pub(super) fn check_rights() -> Result<(), OpenError> {
    let mut request = Writer::new();
    request.message(CONFIG, NLM_F_ACK, 1, libc::AF_UNSPEC as u8, 0, |w| {
        w.put(NFQA_CFG_CMD, &[NFQNL_CFG_CMD_PF_BIND, 0, 0, libc::AF_INET as u8]);
    });
    let answer = || {
        let socket = Socket::open()?;
        socket.send(request.bytes())?;
        poll::wait([Some(socket.as_fd())], Some(ANSWER))?;
        let mut datagrams = Datagrams::new();
        datagrams.receive(&socket)?;
        let code = messages(datagrams.datagram(0)).find_map(|message| message.error());
        code.ok_or_else(|| io::Error::from(io::ErrorKind::TimedOut))
    };
    let failed = |error| OpenError::Failed { step: "configure packet queues", error };
    match answer() {
        Ok(0) => Ok(()),
        Ok(libc::EPERM) => Err(OpenError::NotPermitted),
        Ok(libc::EINVAL | libc::EOPNOTSUPP) => Err(OpenError::NotSupported),
        Ok(code) => Err(failed(io::Error::from_raw_os_error(code))),
        Err(error) => Err(failed(error)),
    }
}

/// The packet that `message` announces; `None` if it lacks a number or comes from a queue that is not ours.
fn waiting(numbers: &[Numbered], index: usize, datagram: &[u8], message: &Message<'_>) -> Option<Waiting> {
    let number = u16::from_be_bytes(message.body.get(2..4)?.try_into().ok()?);
    let queue = numbers.iter().position(|(of, ..)| *of == number)?;
    let (_, point, _) = numbers.get(queue)?;
    let (mut id, mut indev, mut outdev, mut payload) = (None, 0, 0, &[][..]);
    let mut entry = None;
    for (kind, value) in message.attributes() {
        let word = value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
        match kind {
            NFQA_PACKET_HDR => id = word,
            NFQA_IFINDEX_INDEV => indev = word.unwrap_or_default(),
            NFQA_IFINDEX_OUTDEV => outdev = word.unwrap_or_default(),
            NFQA_PAYLOAD => payload = value,
            NFQA_CT => entry = entry::tuples(value),
            _ => {}
        }
    }
    // `payload` is a part of `datagram`: its place there outlives the borrow.
    let start = payload.as_ptr().addr().saturating_sub(datagram.as_ptr().addr());
    Some(Waiting {
        id: packet_id(queue, id?),
        point: *point,
        indev,
        outdev,
        entry,
        datagram: index,
        payload: if payload.is_empty() { 0..0 } else { start..start + payload.len() },
    })
}

impl PacketQueue for NetlinkQueue {
    fn receive(&mut self) -> io::Result<usize> {
        self.take_in(0)?;
        Ok(self.batch.len())
    }

    fn packet(&self, index: usize) -> Option<PacketIn<'_>> {
        let packet = self.batch.get(index)?;
        Some(PacketIn {
            id: packet.id,
            point: packet.point,
            indev: packet.indev,
            outdev: packet.outdev,
            bytes: self.datagrams.datagram(packet.datagram).get(packet.payload.clone()).unwrap_or_default(),
        })
    }

    fn entry(&self, index: usize) -> Option<Tuples> {
        self.batch.get(index)?.entry
    }

    fn tells_entries(&self) -> bool {
        self.tells_entries
    }

    fn accept(&mut self, id: PacketId) {
        self.verdict(id, NF_ACCEPT, None);
    }

    fn discard(&mut self, id: PacketId) {
        self.verdict(id, NF_DROP, None);
    }

    fn replace(&mut self, id: PacketId, bytes: &[u8]) -> Result<(), TooLong> {
        if bytes.len() > MAX_PACKET {
            return Err(TooLong);
        }
        self.verdict(id, NF_ACCEPT, Some(bytes));
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send_unsent()?;
        if !self.verdicts.bytes().is_empty() {
            self.socket.send(self.verdicts.bytes())?;
            self.verdicts.clear();
        }
        Ok(())
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::super::Overflow;
    use super::*;

    const NUMBERS: [Numbered; 2] =
        [(7, QueuePoint::Signalling, Overflow::AsTold), (8, QueuePoint::NewFlow, Overflow::AsTold)];

    fn announced(number: u16, attributes: impl FnOnce(&mut Writer)) -> Option<(Waiting, Vec<u8>)> {
        let mut writer = Writer::new();
        writer.message(PACKET, 0, 0, 2, number, attributes);
        let datagram = writer.bytes();
        let message = messages(datagram).next().unwrap();
        let waiting = waiting(&NUMBERS, 5, datagram, &message)?;
        let bytes = datagram[waiting.payload.clone()].to_vec();
        Some((waiting, bytes))
    }

    #[test]
    fn a_packet_message_is_read() {
        let (packet, bytes) = announced(8, |w| {
            w.put(NFQA_PACKET_HDR, &[0, 0, 1, 2, 8, 0, 2]);
            w.put_u32(NFQA_IFINDEX_INDEV, 3);
            w.put_u32(NFQA_IFINDEX_OUTDEV, 4);
            w.put(NFQA_PAYLOAD, b"E....");
        })
        .unwrap();
        assert_eq!((packet.id, packet.point, packet.datagram), (packet_id(1, 0x102), QueuePoint::NewFlow, 5));
        assert_eq!((packet.indev, packet.outdev, bytes.as_slice()), (3, 4, &b"E...."[..]));
    }

    #[test]
    fn a_message_without_number_or_of_another_queue_is_left_out() {
        assert!(announced(8, |w| w.put(NFQA_PAYLOAD, b"E")).is_none());
        assert!(announced(8, |w| w.put(NFQA_PACKET_HDR, &[0, 0, 1])).is_none());
        assert!(announced(9, |w| w.put(NFQA_PACKET_HDR, &[0, 0, 1, 2, 8, 0, 2])).is_none());
        let (packet, bytes) = announced(7, |w| w.put(NFQA_PACKET_HDR, &[0, 0, 1, 2, 8, 0, 2])).unwrap();
        assert_eq!((packet.indev, bytes.len()), (0, 0), "no payload is an empty packet");
    }
}
