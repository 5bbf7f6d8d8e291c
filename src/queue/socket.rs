//! A netlink socket of the netfilter family, and batches of datagrams from it.
//!
//! Thin, safe wrappers of the system calls; they know no message. `mnl`'s sockets have no recvmmsg, which is what makes
//! a batch one system call.
#![allow(unsafe_code)] // socket(2), bind(2), setsockopt(2), send(2), recvmmsg(2)

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use super::BATCH;

/// Room for the largest packet (a 16-bit length) and the attributes around it.
const DATAGRAM: usize = 65_536 + 2048;

/// A bound `NETLINK_NETFILTER` socket that talks to the kernel only.
#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

impl Socket {
    /// Opens and binds; the kernel chooses the port.
    pub(super) fn open() -> io::Result<Self> {
        // SAFETY: no pointers.
        let fd = check(unsafe {
            libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_NETFILTER)
        })?;
        // SAFETY: `fd` was just opened and nobody else has it.
        let socket = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        // SAFETY: sockaddr_nl is plain data for which all zeros are valid.
        let mut kernel: libc::sockaddr_nl = unsafe { mem::zeroed() };
        kernel.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        let length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        // SAFETY: `kernel` lives through both calls and `length` is its size.
        check(unsafe { libc::bind(fd, (&raw const kernel).cast(), length) })?;
        // Connected to port 0, the socket takes nothing from other programs.
        // SAFETY: as above.
        check(unsafe { libc::connect(fd, (&raw const kernel).cast(), length) })?;
        Ok(socket)
    }

    /// A full receive buffer is not to be reported: it is counted in /proc, and an error on the next receive would
    /// say nothing about the packet that it comes with.
    pub(super) fn suppress_enobufs(&self) -> io::Result<()> {
        self.set(libc::SOL_NETLINK, libc::NETLINK_NO_ENOBUFS, 1)
    }

    /// Upper limits of both buffers in bytes, beyond what the system allows without rights.
    pub(super) fn set_buffers(&self, receive: u32, send: u32) -> io::Result<()> {
        let clamp = |bytes: u32| libc::c_int::try_from(bytes / 2).unwrap_or(libc::c_int::MAX); // the kernel doubles it
        self.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, clamp(receive))?;
        self.set(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, clamp(send))
    }

    /// Sends one datagram, which may hold many messages. The kernel handles them before this returns.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        loop {
            // SAFETY: pointer and length are those of a live slice.
            let sent = unsafe { libc::send(self.0.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
            match sent {
                0.. => return Ok(()), // a netlink datagram goes whole or not at all
                _ => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
    }

    fn set(&self, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
        let size = size_of_val(&value) as libc::socklen_t;
        // SAFETY: `value` lives through the call and `size` is its size.
        check(unsafe { libc::setsockopt(self.0.as_raw_fd(), level, name, (&raw const value).cast(), size) })?;
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Buffers for [`BATCH`] datagrams. Pages that no datagram ever reached are not resident.
#[derive(Debug)]
pub(super) struct Datagrams {
    buffers: Vec<u8>,
    lengths: [usize; BATCH],
    count: usize,
}

impl Datagrams {
    pub(super) fn new() -> Self {
        Self { buffers: vec![0; BATCH * DATAGRAM], lengths: [0; BATCH], count: 0 }
    }

    /// Takes in what is there, without waiting. Nothing there is an empty batch.
    pub(super) fn receive(&mut self, socket: &Socket) -> io::Result<usize> {
        self.count = 0;
        let mut slots = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH];
        for (slot, buffer) in slots.iter_mut().zip(self.buffers.chunks_exact_mut(DATAGRAM)) {
            *slot = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: DATAGRAM };
        }
        // SAFETY: mmsghdr is plain data; all zeros are "no name, no control, no vector".
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
        for (header, slot) in headers.iter_mut().zip(&mut slots) {
            header.msg_hdr.msg_iov = slot;
            header.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: each header points to one slot, each slot to a DATAGRAM-sized piece of `buffers` of its own, and all
        // three outlive the call.
        let received = unsafe {
            libc::recvmmsg(
                socket.0.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        if received < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
                _ => Err(error),
            };
        }
        self.count = usize::try_from(received).unwrap_or_default().min(BATCH);
        for (length, header) in self.lengths.iter_mut().zip(&headers) {
            *length = header.msg_len as usize;
        }
        Ok(self.count)
    }

    /// One datagram of the last batch; empty if there is none.
    pub(super) fn datagram(&self, index: usize) -> &[u8] {
        if index >= self.count {
            return &[];
        }
        let start = index * DATAGRAM;
        let length = self.lengths.get(index).copied().unwrap_or_default().min(DATAGRAM);
        self.buffers.get(start..start + length).unwrap_or_default()
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
