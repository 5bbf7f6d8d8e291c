//! Many datagrams in one system call.
#![allow(unsafe_code)] // sendmmsg and recvmmsg have no safe form in the standard library

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;
use std::{mem, ptr};

/// Room for one datagram of the bench.
const ROOM: usize = 2048;

/// A UDP socket with large buffers, whose receiving gives up after `patience`.
pub(crate) fn open(local: SocketAddr, patience: Duration) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(local)?;
    socket.set_read_timeout(Some(patience))?;
    for option in [libc::SO_RCVBUFFORCE, libc::SO_SNDBUFFORCE] {
        let size: i32 = 64 << 20;
        let length = size_of_val(&size) as libc::socklen_t;
        // SAFETY: the value is an i32 on this stack, and its length is given.
        let result = unsafe {
            libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const size).cast(), length)
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(socket)
}

/// Sends `messages` (at most 64) on the connected `socket`; how many went out.
pub(crate) fn send<'a>(socket: &UdpSocket, messages: impl Iterator<Item = &'a [u8]>) -> io::Result<usize> {
    let mut vectors = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; 64];
    // SAFETY: all zeroes is a valid mmsghdr: no name, no control data, no vectors.
    let mut headers: [libc::mmsghdr; 64] = unsafe { mem::zeroed() };
    let mut count = 0;
    for ((message, vector), header) in messages.zip(&mut vectors).zip(&mut headers) {
        *vector = libc::iovec { iov_base: message.as_ptr().cast_mut().cast(), iov_len: message.len() };
        header.msg_hdr.msg_iov = vector;
        header.msg_hdr.msg_iovlen = 1;
        count += 1;
    }
    // SAFETY: the first `count` headers point to one vector each, and those to messages that outlive the call; the
    // kernel only reads them.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, 0) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
}

/// Buffers for receiving up to 64 datagrams at once.
pub(crate) struct Receiver {
    bytes: Vec<[u8; ROOM]>,
    lengths: Vec<usize>,
}

impl Receiver {
    /// With all its memory.
    pub(crate) fn new() -> Self {
        Self { bytes: vec![[0; ROOM]; 64], lengths: Vec::with_capacity(64) }
    }

    /// Waits for the first datagram, as long as the socket is patient, and takes those that are there with it.
    pub(crate) fn receive(&mut self, socket: &UdpSocket) -> io::Result<impl Iterator<Item = &[u8]>> {
        let mut vectors = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; 64];
        // SAFETY: all zeroes is a valid mmsghdr: no name, no control data, no vectors.
        let mut headers: [libc::mmsghdr; 64] = unsafe { mem::zeroed() };
        for ((bytes, vector), header) in self.bytes.iter_mut().zip(&mut vectors).zip(&mut headers) {
            *vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: ROOM };
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: each of the 64 headers points to one vector, and that to a buffer of its own of ROOM bytes.
        let count = unsafe {
            let wait = libc::MSG_WAITFORONE;
            libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), 64, wait, ptr::null_mut())
        };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        self.lengths.clear();
        self.lengths.extend(headers.iter().take(count as usize).map(|header| header.msg_len as usize));
        Ok(self.bytes.iter().zip(&self.lengths).map(|(bytes, &length)| &bytes[..length]))
    }
}
