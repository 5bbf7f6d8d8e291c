//! Who on this machine listens for connections.
//!
//! A door for TCP takes its public port from the router itself, so no program of the router may have it. To try with a
//! socket, as for UDP, would need a right that the gateway gives up; the kernel's own list tells as much. Only listeners
//! count: what the router has connected by itself is in conntrack, and no door touches it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The lists of this thread's network namespace. One of IPv6 without an address listens for IPv4 too.
const LISTS: [&str; 2] = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];
/// TCP_LISTEN
const LISTEN: &str = "0A";
/// More of a list is not read.
const LONGEST: u64 = 1 << 20;

/// Whether anybody listens at this endpoint.
pub(super) fn has(endpoint: SocketAddr) -> bool {
    LISTS.iter().any(|list| match File::open(list) {
        Ok(file) => lists(BufReader::new(file.take(LONGEST)), endpoint),
        // A kernel without IPv6 has no list of it.
        Err(_) => false,
    })
}

/// Listeners stand first: the rest is not read.
fn lists(list: impl BufRead, endpoint: SocketAddr) -> bool {
    let mut listeners = list.lines().skip(1).map_while(|line| listener(&line.ok()?));
    listeners.any(|it| it.port() == endpoint.port() && (it.ip().is_unspecified() || it.ip() == endpoint.ip()))
}

/// Where this line's socket listens: `sl local_address rem_address st …`
fn listener(line: &str) -> Option<SocketAddr> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, _remote, state) = (fields.next()?, fields.next()?, fields.next()?);
    let (address, port) = local.split_once(':')?;
    (state == LISTEN).then_some(SocketAddr::new(self::address(address)?, u16::from_str_radix(port, 16).ok()?))
}

/// Words of 32 bits, each in network byte order as this machine reads a number.
fn address(digits: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = digits.get(at..at + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    if digits.len() == 8 {
        return Some(Ipv4Addr::from(word(0)?).into());
    }
    let mut octets = [0; 16];
    for (at, octets) in (0..).step_by(8).zip(octets.chunks_exact_mut(4)) {
        octets.copy_from_slice(&word(at)?);
    }
    Some(Ipv6Addr::from(octets).to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_listener_is_found_at_its_port_and_nowhere_else() {
        for own in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
            let socket = TcpListener::bind(own).unwrap();
            let at = socket.local_addr().unwrap();
            let host: IpAddr = if at.is_ipv4() { [127, 0, 0, 1].into() } else { Ipv6Addr::LOCALHOST.into() };
            assert!(has(SocketAddr::new(host, at.port())), "{own}");
            // The other end of a connection to it is no listener.
            let connected = TcpStream::connect(SocketAddr::new(host, at.port())).unwrap();
            assert!(!has(connected.local_addr().unwrap()), "{own}");
            if own == "[::]:0" {
                assert!(has(SocketAddr::new([127, 0, 0, 1].into(), at.port())), "IPv6 serves both");
            }
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn lines_are_read_as_the_kernel_writes_them() {
        let list = "  sl  local_address rem_address   st tx_queue\n   \
                    0: 0201A8C0:13C4 00000000:0000 0A 00000000:00000000\n   \
                    1: B80D0120000000000000000001000000:4001 00000000000000000000000000000000:0000 0A 0:0\n   \
                    2: 0201A8C0:4002 0A01A8C0:0050 01 00000000:00000000\n   \
                    3: 00000000:4003 00000000:0000 0A 00000000:00000000\n";
        let lists = |it: &str| lists(list.as_bytes(), it.parse().unwrap());
        assert!(lists("192.168.1.2:5060") && !lists("192.168.1.3:5060") && !lists("192.168.1.2:5061"));
        assert!(lists("[2001:db8::1]:16385") && !lists("192.168.1.2:16386"));
        assert!(!lists("192.168.1.2:16387"), "nothing behind the first that does not listen is read");
    }
}
