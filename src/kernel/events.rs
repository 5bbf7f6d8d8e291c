//! stub
use super::{Kernel, KernelError};
use crate::alg::Tuples;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// What others did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelEvent {
    /// A UDP conntrack entry is gone.
    Destroyed(Tuples),
    /// The table is gone or no longer whole: [`install`](super::ruleset::install), then
    /// [`restore`](Kernel::restore).
    RulesetChanged,
    /// The socket overran: some events are lost.
    Overrun,
}

/// The event socket.
#[derive(Debug)]
pub struct Events {}

impl Events {
    /// Subscribes. Changes that `kernel` makes by itself are not reported.
    ///
    /// # Errors
    /// See [`KernelError`].
    pub fn open(kernel: &Kernel) -> Result<Self, KernelError> {
        let _ = kernel;
        todo!()
    }

    /// Hands over everything that has happened; never blocks.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn drain(&mut self, sink: &mut dyn FnMut(KernelEvent)) -> io::Result<()> {
        let _ = sink;
        todo!()
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        todo!()
    }
}
