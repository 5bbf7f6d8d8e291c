//! What the kernel tells about queues in `/proc/net/netfilter/nfnetlink_queue`.
//!
//! The only place where it says who reads a queue and how many packets it dropped because nobody read fast enough. The
//! file is root's. Columns: queue number, netlink port of the reader, packets waiting, copy mode, copy range, dropped
//! because the queue was full, dropped because the socket's buffer was full, number of the last packet, 1.

use std::fs;

/// One line of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelQueue {
    /// Queue number.
    pub number: u16,
    /// Netlink port of the reader; for a program's first socket that is its process id.
    pub reader: u32,
    /// Packets that wait for a verdict.
    pub waiting: u32,
    /// Packets dropped because the queue was full.
    pub queue_full: u32,
    /// Packets dropped because the socket's receive buffer was full.
    pub buffer_full: u32,
}

/// All queues of the calling thread's network namespace that have a reader. None if the file cannot be read.
pub fn queues() -> Vec<KernelQueue> {
    let text = fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_queue").unwrap_or_default();
    text.lines().filter_map(parse).collect()
}

/// The queue of this number, if it has a reader.
pub fn queue(number: u16) -> Option<KernelQueue> {
    queues().into_iter().find(|queue| queue.number == number)
}

fn parse(line: &str) -> Option<KernelQueue> {
    let columns: Vec<u32> = line.split_whitespace().map_while(|column| column.parse().ok()).collect();
    match *columns.as_slice() {
        [number, reader, waiting, _, _, queue_full, buffer_full, ..] => {
            Some(KernelQueue { number: number.try_into().ok()?, reader, waiting, queue_full, buffer_full })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_and_another_is_not() {
        let line = " 5060   1234    12 2 65531     3     45   678901  1";
        let queue = KernelQueue { number: 5060, reader: 1234, waiting: 12, queue_full: 3, buffer_full: 45 };
        assert_eq!(parse(line), Some(queue));
        assert_eq!(parse("5060 1234 12"), None);
        assert_eq!(parse(""), None);
        assert_eq!(parse("99999 1 2 3 4 5 6 7 1"), None);
    }
}
