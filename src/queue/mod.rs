//! Where packets wait for their verdicts.
//!
//! A [`PacketQueue`] hands out batches of packets and takes one verdict for each. There are three: [`netlink`], the
//! default, which speaks NFQUEUE itself and moves a batch in two system calls; [`nfq`], on the crate of that name,
//! simpler and slower, for comparison and as a way out; [`replay`], which reads a capture file and needs no rights.
//!
//! The queue points of the ruleset are six consecutive queue numbers of one socket, from [`Options::first`]
//! on. A queue knows nothing of SIP, and neither makes nor undoes rules: it opens before the rule that queues, and
//! packets that nobody reads pass (`queue flags bypass`).

use std::io;
use std::os::fd::BorrowedFd;

use crate::alg::{PacketId, PacketIn, QueuePoint, Tuples};

mod entry;
pub mod mtu;
pub mod netlink;
pub mod nfq;
mod poll;
pub mod proc;
pub mod replay;
mod socket;

pub use poll::wait;

/// The queues, in the order of their numbers: what each is for, and whether it may overflow untouched.
const QUEUES: [(QueuePoint, Overflow); 6] = [
    (QueuePoint::Signalling, Overflow::AsTold),
    (QueuePoint::NewFlow, Overflow::AsTold),
    (QueuePoint::Learn, Overflow::AsTold),
    (QueuePoint::Latch, Overflow::AsTold),
    // TCP at the same point as the first: there a segment that nobody translates may be a wrong one.
    (QueuePoint::Signalling, Overflow::Drop),
    (QueuePoint::BeforeConntrack, Overflow::Drop),
];

/// What happens when one of [`QUEUES`] is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Overflow {
    /// What [`Options::overload`] says.
    AsTold,
    /// Packets are dropped.
    Drop,
}

/// A queue's number and what it is for.
type Numbered = (u16, QueuePoint, Overflow);

/// Most packets in one batch.
pub const BATCH: usize = 32;

/// The largest packet that a verdict can carry, in bytes: a netlink attribute's length, its header included, has 16
/// bits.
pub const MAX_PACKET: usize = 0xffff - 4;

/// Packets that wait for a verdict.
///
/// Verdicts may come in any order and at any time after the packet; they are sent by [`PacketQueue::flush`] at the
/// latest. A verdict for a packet that the kernel has dropped meanwhile does nothing but count.
pub trait PacketQueue {
    /// Takes in the next batch without waiting and says how many packets it has. The last batch is gone.
    ///
    /// # Errors
    /// The socket's; never fatal, the next call may do better. One bad packet is no error.
    fn receive(&mut self) -> io::Result<usize>;

    /// A packet of the last batch, while `index` is less than its length.
    fn packet(&self, index: usize) -> Option<PacketIn<'_>>;

    /// The conntrack entry of a packet of the last batch, if the kernel told it: only at [`QueuePoint::Learn`], and only
    /// if [`PacketQueue::tells_entries`].
    fn entry(&self, _index: usize) -> Option<Tuples> {
        None
    }

    /// Whether packets behind the NAT come with their conntrack entries, so that they need not be queued before it.
    fn tells_entries(&self) -> bool {
        false
    }

    /// Lets the packet go as it came.
    fn accept(&mut self, id: PacketId);

    /// Drops the packet.
    fn discard(&mut self, id: PacketId);

    /// Lets the packet go with these bytes instead of its own, IP header included.
    ///
    /// # Errors
    /// [`TooLong`] for more than [`MAX_PACKET`]: the packet still waits for a verdict.
    fn replace(&mut self, id: PacketId, bytes: &[u8]) -> Result<(), TooLong>;

    /// Sends all verdicts that were given.
    ///
    /// # Errors
    /// The socket's. What was not sent is kept for the next call.
    fn flush(&mut self) -> io::Result<()>;

    /// What becomes readable when there is a packet; `None`: nothing does, so ask again after a short while.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;

    /// What has been counted since the queue was opened.
    fn counters(&self) -> Counters;
}

impl<Q: PacketQueue + ?Sized> PacketQueue for Box<Q> {
    fn receive(&mut self) -> io::Result<usize> {
        (**self).receive()
    }

    fn packet(&self, index: usize) -> Option<PacketIn<'_>> {
        (**self).packet(index)
    }

    fn entry(&self, index: usize) -> Option<Tuples> {
        (**self).entry(index)
    }

    fn tells_entries(&self) -> bool {
        (**self).tells_entries()
    }

    fn accept(&mut self, id: PacketId) {
        (**self).accept(id);
    }

    fn discard(&mut self, id: PacketId) {
        (**self).discard(id);
    }

    fn replace(&mut self, id: PacketId, bytes: &[u8]) -> Result<(), TooLong> {
        (**self).replace(id, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        (**self).flush()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        (**self).descriptor()
    }

    fn counters(&self) -> Counters {
        (**self).counters()
    }
}

/// Which of the kernel's queues to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// [`netlink`]
    #[default]
    Netlink,
    /// [`nfq`]
    Nfq,
}

/// Opens a queue of the kernel's.
///
/// # Errors
/// [`OpenError`], with a remedy for each.
pub fn open(backend: Backend, options: &Options) -> Result<Box<dyn PacketQueue + Send>, OpenError> {
    Ok(match backend {
        Backend::Netlink => Box::new(netlink::NetlinkQueue::open(options)?),
        Backend::Nfq => Box::new(nfq::NfqQueue::open(options)?),
    })
}

/// A packet is longer than [`MAX_PACKET`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a verdict cannot carry more than 65,531 bytes")]
pub struct TooLong;

/// What a queue counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets handed out.
    pub received: u64,
    /// Verdicts sent.
    pub verdicts: u64,
    /// Verdicts that the kernel refused: the packet was gone (its interface went down, a ruleset was replaced).
    pub refused: u64,
}

/// How to open a queue of the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Number of the first of the six queues.
    pub first: u16,
    /// Packets that may wait in each of them.
    pub max_length: u32,
    /// Receive buffer of the socket in bytes; the kernel takes it as an upper limit, not at once. Each packet counts
    /// for its length and about 800 bytes more. (Only [`netlink`] can set it.)
    pub receive_buffer: u32,
    /// What happens to packets when the queue or the buffer is full.
    pub overload: Overload,
    /// Whether to ask for the conntrack entries of first packets. A kernel that can't tell them is no error. (Only
    /// [`netlink`] asks.)
    pub entries: bool,
}

/// What happens to packets when a queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overload {
    /// They are dropped. SIP over UDP repeats them.
    Drop,
    /// They pass as they are, with inside addresses in them, just when the router is busiest.
    Pass,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            first: 5060,
            // Some 100 ms of work at full speed; what waits longer is repeated by its sender anyway.
            max_length: 8192,
            // Four such queues of SIP packets of usual size.
            receive_buffer: 32 << 20,
            overload: Overload::Drop,
            entries: true,
        }
    }
}

impl Options {
    /// The number of each queue.
    ///
    /// # Errors
    /// [`OpenError::Numbers`] if they run past the last one there is.
    fn numbers(&self) -> Result<[Numbered; QUEUES.len()], OpenError> {
        let mut numbers = QUEUES.map(|(point, overflow)| (self.first, point, overflow));
        for (offset, (number, ..)) in (0..).zip(&mut numbers) {
            *number = number.checked_add(offset).ok_or(OpenError::Numbers { first: self.first })?;
        }
        Ok(numbers)
    }

    /// Whether packets pass a queue that is full.
    fn passes(&self, overflow: Overflow) -> bool {
        match overflow {
            Overflow::AsTold => self.overload == Overload::Pass,
            Overflow::Drop => false,
        }
    }
}

/// Why a queue cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not enough rights.
    #[error(
        "not allowed to read packet queues: run as root, or with CAP_NET_ADMIN in this network namespace"
    )]
    NotPermitted,
    /// Another program, or another instance, reads the queue.
    #[error(
        "packet queue {queue} already has a reader{}: stop that program, or choose six other queue numbers",
        .reader.map(|id| format!(" (netlink port {id}, usually its process id)")).unwrap_or_default()
    )]
    Taken {
        /// The queue's number.
        queue: u16,
        /// Netlink port of the reader, if it could be found out.
        reader: Option<u32>,
    },
    /// The kernel has no NFQUEUE.
    #[error("this kernel has no packet queues: try `modprobe nfnetlink_queue`")]
    NotSupported,
    /// Six queues from there on do not exist.
    #[error("there are no six queue numbers from {first} on: the largest is 65535")]
    Numbers {
        /// The first one.
        first: u16,
    },
    /// Anything else.
    #[error("cannot {step}: {error}")]
    Failed {
        /// What was tried.
        step: &'static str,
        /// The system's answer.
        #[source]
        error: io::Error,
    },
}

/// A packet's name over all six queues: the kernel counts in each of them separately.
fn packet_id(index: usize, kernel_id: u32) -> PacketId {
    PacketId((index as u64) << 32 | u64::from(kernel_id))
}

/// Index of the queue among the six, and the kernel's own number of the packet.
fn split_id(id: PacketId) -> (usize, u32) {
    ((id.0 >> 32) as usize, id.0 as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_point_has_a_number() {
        let numbers = Options { first: 7, ..Options::default() }.numbers().unwrap();
        assert_eq!(numbers.map(|(number, ..)| number), [7, 8, 9, 10, 11, 12]);
        assert_eq!(numbers.map(|(_, point, _)| point)[..4], QueuePoint::ALL);
        assert!(Options { first: 65_530, ..Options::default() }.numbers().is_ok());
        assert!(Options { first: 65_531, ..Options::default() }.numbers().is_err());
    }

    #[test]
    fn segments_never_pass_a_full_queue() {
        let options = Options { overload: Overload::Pass, ..Options::default() };
        let passing = options.numbers().unwrap().map(|(_, _, overflow)| options.passes(overflow));
        assert_eq!(passing, [true, true, true, true, false, false]);
    }

    #[test]
    fn packets_of_two_queues_never_have_the_same_name() {
        assert_ne!(packet_id(0, 1), packet_id(1, 1));
        assert_eq!(split_id(packet_id(3, u32::MAX)), (3, u32::MAX));
    }

    #[test]
    fn errors_name_the_remedy() {
        let taken = OpenError::Taken { queue: 5060, reader: Some(77) }.to_string();
        assert_eq!(
            taken,
            "packet queue 5060 already has a reader (netlink port 77, usually its process id): stop that program, or \
             choose six other queue numbers"
        );
    }
}
