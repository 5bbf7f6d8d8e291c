//! Waiting for one of several descriptors.
#![allow(unsafe_code)] // poll(2)

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// Waits until one of `descriptors` can be read (or is closed by its other end) or `timeout` has passed, and says
/// which can. `None` is never ready. A signal ends the wait early.
///
/// # Errors
/// Those of poll(2) but EINTR.
pub fn wait<const N: usize>(
    descriptors: [Option<BorrowedFd<'_>>; N],
    timeout: Option<Duration>,
) -> io::Result<[bool; N]> {
    let mut polled = descriptors.map(|descriptor| libc::pollfd {
        fd: descriptor.map_or(-1, |descriptor| descriptor.as_raw_fd()), // negative: left out
        events: libc::POLLIN,
        revents: 0,
    });
    // Rounded up, so that a deadline has passed when the wait is over.
    let milliseconds = timeout
        .map_or(-1, |timeout| i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX));
    // SAFETY: `polled` is a live array of N pollfd; the descriptors are borrowed for the length of the call.
    let ready = unsafe { libc::poll(polled.as_mut_ptr(), N as libc::nfds_t, milliseconds) };
    if ready < 0 {
        let error = io::Error::last_os_error();
        return match error.kind() {
            io::ErrorKind::Interrupted => Ok([false; N]),
            _ => Err(error),
        };
    }
    Ok(polled.map(|one| one.revents != 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;

    #[test]
    fn ready_is_what_can_be_read_or_is_closed() {
        let (quiet, _keep) = io::pipe().unwrap();
        let (full, mut writer) = io::pipe().unwrap();
        let (closed, closing) = io::pipe().unwrap();
        writer.write_all(b"x").unwrap();
        drop(closing);
        let all = [Some(quiet.as_fd()), None, Some(full.as_fd()), Some(closed.as_fd())];
        assert_eq!(wait(all, None).unwrap(), [false, false, true, true]);
        assert_eq!(wait([Some(quiet.as_fd())], Some(Duration::from_micros(1))).unwrap(), [false]);
    }
}
