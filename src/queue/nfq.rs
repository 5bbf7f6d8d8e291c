//! The queue on the `nfq` crate: simpler, and the reference that the default one is compared with.
//!
//! What the crate (0.2.5) does not offer is missing here: a descriptor to poll (so the worker asks every millisecond,
//! which is the latency that this queue may add), a larger receive buffer (the default holds some hundred packets,
//! then they are dropped), batches. A packet that arrives between two of its setters is lost until the socket closes,
//! so all of them are called at opening, before there is a rule that queues.

use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;

use nfq::{Message, Queue, Verdict};

use super::{
    BATCH, Counters, MAX_PACKET, Numbered, OpenError, Options, PacketQueue, QUEUES, TooLong, netlink,
    packet_id, proc,
};
use crate::alg::{PacketId, PacketIn, QueuePoint};

/// The six queues, read through the crate.
pub struct NfqQueue {
    queue: Queue,
    numbers: [Numbered; QUEUES.len()],
    /// Names and points of the last batch; the messages are in `waiting`.
    batch: Vec<(PacketId, QueuePoint)>,
    /// Every message without a verdict. Each keeps its receive buffer.
    waiting: HashMap<PacketId, Message>,
    counters: Counters,
    failed: Option<io::Error>,
}

impl NfqQueue {
    /// Opens the crate's socket and binds it to six queues.
    ///
    /// # Errors
    /// [`OpenError`], with a remedy for each.
    pub fn open(options: &Options) -> Result<Self, OpenError> {
        let numbers = options.numbers()?;
        netlink::check_rights()?;
        let failed = |step| move |error| OpenError::Failed { step, error };
        let mut queue = Queue::open().map_err(failed("open a netlink socket"))?;
        for (number, _, overflow) in numbers {
            queue.bind(number).map_err(|error| match error.raw_os_error() {
                Some(libc::EPERM | libc::EBUSY) => {
                    OpenError::Taken { queue: number, reader: proc::queue(number).map(|queue| queue.reader) }
                }
                _ => OpenError::Failed { step: "bind a packet queue", error },
            })?;
            let set_up = failed("configure a packet queue");
            queue.set_queue_max_len(number, options.max_length).map_err(set_up)?;
            queue.set_fail_open(number, options.passes(overflow)).map_err(set_up)?;
        }
        queue.set_nonblocking(true);
        Ok(Self {
            queue,
            numbers,
            batch: Vec::new(),
            waiting: HashMap::new(),
            counters: Counters::default(),
            failed: None,
        })
    }

    fn verdict(&mut self, id: PacketId, verdict: Verdict, bytes: Option<&[u8]>) {
        let Some(mut message) = self.waiting.remove(&id) else { return };
        if let Some(bytes) = bytes {
            message.set_payload(bytes);
        }
        message.set_verdict(verdict);
        self.counters.verdicts += 1;
        // The crate takes the message along even if it fails, so there is nothing to repeat.
        if let Err(error) = self.queue.verdict(message) {
            self.failed = Some(error);
        }
    }
}

impl PacketQueue for NfqQueue {
    fn receive(&mut self) -> io::Result<usize> {
        self.batch.clear();
        while self.batch.len() < BATCH {
            match self.queue.recv() {
                Ok(message) => {
                    let number = message.get_queue_num();
                    let Some(index) = self.numbers.iter().position(|(of, ..)| *of == number) else {
                        continue;
                    };
                    let Some((_, point, _)) = self.numbers.get(index) else { continue };
                    let id = packet_id(index, message.get_packet_id());
                    self.batch.push((id, *point));
                    self.waiting.insert(id, message);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The answer to an earlier verdict: its packet is gone.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => self.counters.refused += 1,
                Err(error) if self.batch.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        self.counters.received += self.batch.len() as u64;
        Ok(self.batch.len())
    }

    fn packet(&self, index: usize) -> Option<PacketIn<'_>> {
        let (id, point) = *self.batch.get(index)?;
        let message = self.waiting.get(&id)?;
        Some(PacketIn {
            id,
            point,
            indev: message.get_indev(),
            outdev: message.get_outdev(),
            bytes: message.get_payload(),
        })
    }

    fn accept(&mut self, id: PacketId) {
        self.verdict(id, Verdict::Accept, None);
    }

    fn discard(&mut self, id: PacketId) {
        self.verdict(id, Verdict::Drop, None);
    }

    fn replace(&mut self, id: PacketId, bytes: &[u8]) -> Result<(), TooLong> {
        if bytes.len() > MAX_PACKET {
            return Err(TooLong);
        }
        self.verdict(id, Verdict::Accept, Some(bytes));
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

impl std::fmt::Debug for NfqQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NfqQueue").field("numbers", &self.numbers).field("counters", &self.counters).finish()
    }
}
