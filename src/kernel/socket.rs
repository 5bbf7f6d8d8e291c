#![allow(unsafe_code)] // socket options that mnl has no function for
//! A netlink socket that asks and gets its answers at once.
//!
//! The kernel works on a netlink request inside the `send` itself: when it returns, every answer is in the receive queue.
//! So nothing here ever waits: the socket is non-blocking, and an empty queue means that there was no more to say. Of a
//! dump the kernel makes the next part whenever one is read.
//!
//! Datagrams are read raw and split by [`crate::netlink`]: mnl's own iterator panics on messages whose length is not
//! a multiple of four.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use mnl::{Bus, Socket};

use crate::netlink::{self, Message};

/// One skb of a dump is at most 32 KiB; an error answer is as long as the header of its request.
const DATAGRAM: usize = 128 * 1024;
/// Room for the answers to one large transaction, and for its request.
const QUEUE: libc::c_int = 8 << 20;

/// A bound netlink socket.
pub(super) struct NetlinkSocket {
    socket: Socket,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for NetlinkSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetlinkSocket").field("port", &self.port()).finish()
    }
}

// SAFETY: libmnl's socket is a descriptor and an address; nothing in it belongs to a thread.
unsafe impl Send for NetlinkSocket {}
// SAFETY: a shared reference only reads the descriptor and the address, which stay as they are after opening.
unsafe impl Sync for NetlinkSocket {}

impl NetlinkSocket {
    /// A socket of NETLINK_NETFILTER.
    pub(super) fn netfilter() -> io::Result<Self> {
        Self::open(Bus::Netfilter)
    }

    /// A socket of NETLINK_ROUTE.
    pub(super) fn route() -> io::Result<Self> {
        Self::open(Bus::Route)
    }

    fn open(bus: Bus) -> io::Result<Self> {
        let socket = Socket::new(bus)?;
        // Alignment of the netlink header is asked for; four spare bytes let us choose where to begin.
        let opened = Self { socket, buffer: vec![0; DATAGRAM + 4] };
        opened.fcntl(libc::F_SETFD, libc::FD_CLOEXEC)?;
        opened.fcntl(libc::F_SETFL, libc::O_NONBLOCK)?;
        opened.force_buffer(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, QUEUE)?;
        opened.force_buffer(libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, QUEUE)?;
        if let Err(error) = set_option(&opened, libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, &1) {
            tracing::debug!(%error, "errors will carry the whole request");
        }
        Ok(opened)
    }

    /// The address of this socket: what the kernel puts into the notifications of changes made through it.
    pub(super) fn port(&self) -> u32 {
        self.socket.portid()
    }

    /// Sends `request` and hands every answer to `sink`: acknowledgements and errors too.
    pub(super) fn exchange(&mut self, request: &[u8], mut sink: impl FnMut(&Message<'_>)) -> io::Result<()> {
        self.exchange_raw(request, |datagram| netlink::messages(datagram).for_each(|message| sink(&message)))
    }

    /// As [`exchange`](Self::exchange), with whole datagrams.
    pub(super) fn exchange_raw(&mut self, request: &[u8], mut sink: impl FnMut(&[u8])) -> io::Result<()> {
        if self.socket.send(request)? != request.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while let Some(datagram) = self.receive()? {
            sink(datagram);
        }
        Ok(())
    }

    /// Sends one request; the first error among the answers is the error of the call, and every other answer goes to
    /// `sink`.
    pub(super) fn call(&mut self, request: &[u8], mut sink: impl FnMut(&Message<'_>)) -> io::Result<()> {
        let mut failed = None;
        self.exchange(request, |message| match error_of(message) {
            Some(0) => (),
            Some(code) => failed = failed.or(Some(code)),
            None if message.is_done() => (),
            None => sink(message),
        })?;
        failed.map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)))
    }

    /// The next datagram; `None` if there is none.
    pub(super) fn receive(&mut self) -> io::Result<Option<&[u8]>> {
        let skip = self.buffer.as_ptr().align_offset(align_of::<libc::nlmsghdr>()).min(4);
        let space = self.buffer.get_mut(skip..).unwrap_or_default();
        let length = loop {
            match self.socket.recv_raw(space) {
                Ok(length) => break length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(error),
            }
        };
        Ok(space.get(..length))
    }

    /// Joins a multicast group by its number.
    pub(super) fn join(&self, group: u32) -> io::Result<()> {
        set_option(self, libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, &(group as libc::c_int))
    }

    /// Drops, before they take room in the queue, what the classic BPF `program` answers with 0.
    pub(super) fn attach_filter(&self, program: &mut [libc::sock_filter]) -> io::Result<()> {
        let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
        set_option(self, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
    }

    /// Beyond the limit of the system if we may, else as much as it gives.
    fn force_buffer(&self, force: libc::c_int, ask: libc::c_int, bytes: libc::c_int) -> io::Result<()> {
        set_option(self, libc::SOL_SOCKET, force, &bytes)
            .or_else(|_| set_option(self, libc::SOL_SOCKET, ask, &bytes))
    }

    fn fcntl(&self, command: libc::c_int, argument: libc::c_int) -> io::Result<()> {
        // SAFETY: both commands that are used here take an integer and touch no memory of ours.
        let code = unsafe { libc::fcntl(self.as_raw_fd(), command, argument) };
        if code >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// Sets an option that nothing else has a function for; `T` is what its documentation says, most often a `c_int`.
pub(super) fn set_option<T>(
    socket: &impl AsRawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is valid for `length` bytes for the whole call, and the kernel only reads it.
    let code = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), length)
    };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl AsRawFd for NetlinkSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl AsFd for NetlinkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor stays open for as long as `self`, and the borrow lives no longer than that.
        unsafe { BorrowedFd::borrow_raw(self.as_raw_fd()) }
    }
}

/// The code of an answer that is one: 0 for an acknowledgement. A dump that fails says so in its last message.
fn error_of(message: &Message<'_>) -> Option<i32> {
    let done = || {
        let code = message.body.get(..4).filter(|_| message.is_done())?;
        Some(i32::from_ne_bytes(code.try_into().ok()?).wrapping_neg()).filter(|code| *code > 0)
    };
    message.error().or_else(done)
}
