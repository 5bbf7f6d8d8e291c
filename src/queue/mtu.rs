//! The MTU of the interface by which a packet leaves.
//!
//! Asked for by interface index, in the network namespace of the thread that opened the [`Mtus`]; kept for a while,
//! because it is asked for with every packet and hardly ever changes.
#![allow(unsafe_code)] // socket(2), ioctl(2)

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long an answer is believed.
const LIFETIME: Duration = Duration::from_secs(5);
/// Interfaces remembered at a time; routers with more ask more often.
const REMEMBERED: usize = 64;

/// Interfaces and their MTUs.
#[derive(Debug)]
pub struct Mtus {
    socket: OwnedFd,
    known: Vec<Known>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    interface: u32,
    mtu: usize,
    until: Instant,
}

impl Mtus {
    /// Opens a socket to ask by.
    ///
    /// # Errors
    /// Those of socket(2).
    pub fn open() -> io::Result<Self> {
        // SAFETY: no pointers.
        let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened and nobody else has it.
        Ok(Self { socket: unsafe { OwnedFd::from_raw_fd(fd) }, known: Vec::new() })
    }

    /// The MTU of `interface` in bytes; `usize::MAX` if there is no such interface.
    pub fn of(&mut self, interface: u32, now: Instant) -> usize {
        let known = self.known.iter().position(|known| known.interface == interface);
        if let Some(known) = known.and_then(|at| self.known.get(at)).filter(|known| known.until > now) {
            return known.mtu;
        }
        let mtu = self.ask(interface).unwrap_or(usize::MAX);
        match known {
            Some(at) => drop(self.known.swap_remove(at)),
            None if self.known.len() >= REMEMBERED => self.known.clear(),
            None => {}
        }
        self.known.push(Known { interface, mtu, until: now + LIFETIME });
        mtu
    }

    fn ask(&self, interface: u32) -> Option<usize> {
        // SAFETY: ifreq is plain data for which all zeros are valid.
        let mut request: libc::ifreq = unsafe { mem::zeroed() };
        request.ifr_ifru.ifru_ifindex = libc::c_int::try_from(interface).ok().filter(|index| *index > 0)?;
        let fd = self.socket.as_raw_fd();
        // SAFETY: `request` lives through the call, which reads its index and writes its name.
        let named = unsafe { libc::ioctl(fd, libc::SIOCGIFNAME, &raw mut request) };
        if named < 0 {
            return None;
        }
        // SAFETY: `request` lives through the call, which reads its name and writes its MTU.
        let answered = unsafe { libc::ioctl(fd, libc::SIOCGIFMTU, &raw mut request) };
        if answered < 0 {
            return None;
        }
        // SAFETY: the call has set this member of the union; any bits are a valid integer.
        usize::try_from(unsafe { request.ifr_ifru.ifru_mtu }).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_has_its_mtu_and_no_interface_has_none() {
        let mut mtus = Mtus::open().unwrap();
        let now = Instant::now();
        let loopback: usize =
            std::fs::read_to_string("/sys/class/net/lo/mtu").unwrap().trim().parse().unwrap();
        assert_eq!(mtus.of(1, now), loopback);
        assert_eq!(mtus.of(0, now), usize::MAX);
        assert_eq!(mtus.of(u32::MAX, now), usize::MAX);
        assert_eq!(mtus.known.len(), 3);
    }

    #[test]
    fn an_answer_is_believed_for_a_while_and_memory_is_bounded() {
        let mut mtus = Mtus::open().unwrap();
        let now = Instant::now();
        mtus.known.push(Known { interface: 1, mtu: 7, until: now + LIFETIME });
        assert_eq!(mtus.of(1, now), 7);
        assert_ne!(mtus.of(1, now + LIFETIME), 7);
        for interface in 1_000_000..1_001_000 {
            mtus.of(interface, now);
        }
        assert!(mtus.known.len() <= REMEMBERED);
    }
}
