//! How other threads get something done by the packet thread.
//!
//! An order is a closure over the engine and its surroundings, sent through a channel with a pipe beside it that wakes
//! the packet thread. So there is no lock around the engine, and the packet thread knows nothing of who asks or why: the
//! control socket, the state file, a new configuration.

use std::fmt;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::time::Instant;

/// Orders that may wait at one time. There are few clients, and each waits for its answer.
const WAITING: usize = 32;

/// Something to be done between two batches: with the engine, the executor and the surroundings, at this time.
pub type Order<C, X, S> = Box<dyn FnOnce(&mut C, &mut X, &mut S, Instant) + Send>;

/// Where orders are handed in.
pub struct Desk<T> {
    orders: SyncSender<T>,
    wake: PipeWriter,
}

/// Where orders come out.
pub struct Inbox<T> {
    orders: Receiver<T>,
    woken: PipeReader,
}

/// Why an order was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// Too many others wait.
    #[error("the packet thread is too busy to answer")]
    Busy,
    /// Nobody serves the desk any more.
    #[error("the packet thread has ended")]
    Closed,
}

/// A desk and its inbox.
///
/// # Errors
/// Those of pipe(2).
pub fn open<T>() -> io::Result<(Desk<T>, Inbox<T>)> {
    let (woken, wake) = io::pipe()?;
    let (sender, orders) = sync_channel(WAITING);
    Ok((Desk { orders: sender, wake }, Inbox { orders, woken }))
}

// Orders are closures, which have no Debug.
impl<T> fmt::Debug for Desk<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Inbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

impl<T> Desk<T> {
    /// Hands in an order; never waits.
    ///
    /// # Errors
    /// See [`NotTaken`].
    pub fn hand_in(&self, order: T) -> Result<(), NotTaken> {
        self.orders.try_send(order).map_err(|refused| match refused {
            TrySendError::Full(_) => NotTaken::Busy,
            TrySendError::Disconnected(_) => NotTaken::Closed,
        })?;
        // The pipe holds far more bytes than orders can wait: each byte is read before its order is.
        (&self.wake).write_all(&[0]).map_err(|_| NotTaken::Closed)
    }
}

impl<T> Inbox<T> {
    /// What becomes readable when there is an order, or when the desk is closed.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.woken.as_fd()
    }

    /// Hands over the orders that are there; `false`: there will be no more. To be called when the descriptor is
    /// readable, for it would wait otherwise.
    pub fn drain(&mut self, sink: &mut dyn FnMut(T)) -> bool {
        let mut bytes = [0; 2 * WAITING];
        if !matches!(self.woken.read(&mut bytes), Ok(1..)) {
            return false;
        }
        loop {
            match self.orders.try_recv() {
                Ok(order) => sink(order),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_come_out_in_their_order_until_the_desk_is_closed() {
        let (desk, mut inbox) = open().unwrap();
        for n in 0..5 {
            desk.hand_in(n).unwrap();
        }
        let mut got = Vec::new();
        assert!(inbox.drain(&mut |n| got.push(n)));
        assert_eq!(got, [0, 1, 2, 3, 4]);
        drop(desk);
        assert!(!inbox.drain(&mut |_| panic!("there is none")));
    }

    #[test]
    fn orders_that_wait_are_bounded_and_nobody_is_blocked() {
        let (desk, mut inbox) = open().unwrap();
        let taken = (0..1000).take_while(|n| desk.hand_in(*n).is_ok()).count();
        assert_eq!(taken, WAITING);
        assert_eq!(desk.hand_in(0), Err(NotTaken::Busy));
        let mut count = 0;
        assert!(inbox.drain(&mut |_| count += 1));
        assert_eq!(count, WAITING);
        drop(inbox);
        assert_eq!(desk.hand_in(0), Err(NotTaken::Closed));
    }
}
