//! Translated TCP connections end before the table goes.
//!
//! In such a connection both ends count bytes differently, so it can't go on without the rules that reset it (`broken` in
//! `sipalg.nft`). Those act when an end sends something, and an idle one does not. So each end is asked: with a SYN in the
//! name of the other end, which it must answer with a bare acknowledgment, whatever its number (RFC 9293, 3.10.7.4). The
//! answer meets the rules and is reset, by the numbers that it brings; nobody has to know them. Who has forgotten its
//! connection already answers in another way, and that is as good.
//!
//! It takes CAP_NET_ADMIN and no raw socket: a socket may have any address (IP_TRANSPARENT) and a port that others use
//! (TCP_REPAIR), and `connect` sends the SYN and repeats it. conntrack does not see our SYNs, so that it has nothing to
//! say about them and their source stays.
//!
//! One end that was told is enough to keep wrong bytes from the other: if it sends something, nobody takes it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::element::Reader;
use super::libnftables::{self, Mode};
use super::nft;
use super::socket::{NetlinkSocket, set_option};

/// A segment of a connection as it shows itself to the rules: who has sent it, and to whom.
pub(super) type Segment = (SocketAddr, SocketAddr);

/// How long an end has to answer. The kernel sends a SYN at once, after one second and after three.
const PATIENCE: Duration = Duration::from_millis(4500);
/// How long all of it may take.
const LIMIT: Duration = Duration::from_secs(60);
/// A program has a thousand descriptors.
const AT_ONCE: usize = 512;
const PAUSE: Duration = Duration::from_millis(20);
/// Longer than the daemon is believed to be at work without a sign of it.
const GONE: Duration = Duration::from_secs(7);

/// What became of the ends of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parted {
    /// How many have been reset, or have had no connection any more.
    pub told: usize,
    /// Who has not answered, and the other end of each.
    pub silent: Vec<(SocketAddr, SocketAddr)>,
}

/// The segments that the rules know: of connections that are followed, and of those that nobody can translate any more.
pub(super) fn segments(socket: &mut NetlinkSocket) -> io::Result<BTreeSet<Segment>> {
    listed(socket, [c"followed4", c"broken4"], [c"followed6", c"broken6"])
}

fn listed<const N: usize>(
    socket: &mut NetlinkSocket,
    v4: [&CStr; N],
    v6: [&CStr; N],
) -> io::Result<BTreeSet<Segment>> {
    let mut all = BTreeSet::new();
    for (set, v6) in v4.into_iter().map(|set| (set, false)).chain(v6.into_iter().map(|set| (set, true))) {
        let elements = match nft::list(socket, set) {
            Ok(elements) => elements,
            // A table of another version, or none.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => continue,
            Err(error) => return Err(error),
        };
        all.extend(elements.keys().filter_map(|key| {
            let mut reader = Reader::new(key, v6);
            Some((reader.endpoint()?, reader.endpoint()?))
        }));
    }
    Ok(all)
}

/// Resets all connections that the rules know, and waits until their ends have been told. Nothing is done while a daemon
/// is at work, whose connections go on: it would put the table back.
///
/// # Errors
/// The kernel can't be asked. What can't be done for single ends is no error: they are silent.
pub(super) fn part(socket: &mut NetlinkSocket, segments: &BTreeSet<Segment>) -> io::Result<Parted> {
    if segments.is_empty() || is_at_work(socket)? {
        return Ok(Parted::default());
    }
    if let Err(said) = libnftables::run(RULES, Mode::Commit) {
        tracing::warn!(said, "TCP connections can't be reset");
        return Ok(Parted { told: 0, silent: segments.iter().copied().collect() });
    }
    let mut waiting: Vec<Segment> = segments.iter().copied().rev().collect();
    let mut asked: BTreeMap<Segment, (Instant, Option<Socket>)> = BTreeMap::new();
    let mut parted = Parted::default();
    let end = Instant::now() + LIMIT;
    while !(waiting.is_empty() && asked.is_empty()) {
        while asked.len() < AT_ONCE
            && let Some(segment) = waiting.pop()
        {
            let (end, other) = segment;
            let question = ask(end, other)
                .inspect_err(|error| tracing::debug!(%end, %other, %error, "an end can't be asked"))
                .ok();
            asked.insert(segment, (Instant::now() + PATIENCE, question));
        }
        thread::sleep(PAUSE);
        let told = listed(socket, [c"told4"], [c"told6"])?;
        let now = Instant::now();
        asked.retain(|segment, (due, _)| {
            let is_told = told.contains(segment);
            let is_over = is_told || *due <= now || end <= now;
            match is_told {
                true => parted.told += 1,
                false if is_over => parted.silent.push(*segment),
                false => (),
            }
            !is_over
        });
        if end <= now {
            parted.silent.append(&mut waiting);
        }
    }
    Ok(parted)
}

/// Whether there is a daemon that translates. One that has ended is believed to be at work for a few seconds more.
fn is_at_work(socket: &mut NetlinkSocket) -> io::Result<bool> {
    let end = Instant::now() + GONE;
    while !nft::list(socket, c"alive")?.is_empty() {
        if Instant::now() >= end {
            return Ok(true);
        }
        thread::sleep(PAUSE);
    }
    Ok(false)
}

/// Whatever still comes is reset and noted, whether its translator has gone just now or long since.
const RULES: &str = "
add set inet sipalg told4 { type ipv4_addr . inet_service . ipv4_addr . inet_service; flags dynamic,timeout; size 262144; }
add set inet sipalg told6 { type ipv6_addr . inet_service . ipv6_addr . inet_service; flags dynamic,timeout; size 262144; }
add chain inet sipalg asking { type filter hook output priority raw; policy accept; }
flush chain inet sipalg asking
add rule inet sipalg asking ip daddr . tcp dport . ip saddr . tcp sport @followed4 notrack
add rule inet sipalg asking ip6 daddr . tcp dport . ip6 saddr . tcp sport @followed6 notrack
add rule inet sipalg asking ip daddr . tcp dport . ip saddr . tcp sport @broken4 notrack
add rule inet sipalg asking ip6 daddr . tcp dport . ip6 saddr . tcp sport @broken6 notrack
flush chain inet sipalg broken
add rule inet sipalg broken add @told4 { ip saddr . tcp sport . ip daddr . tcp dport timeout 1h }
add rule inet sipalg broken add @told6 { ip6 saddr . tcp sport . ip6 daddr . tcp dport timeout 1h }
add rule inet sipalg broken counter reject with tcp reset
flush chain inet sipalg followed
add rule inet sipalg followed goto broken
flush chain inet sipalg followed_in
add rule inet sipalg followed_in goto broken_in
";

/// Sends a SYN to `end` in the name of `other`, again and again while the answer lives.
fn ask(end: SocketAddr, other: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(end), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    if end.is_ipv6() {
        set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT, &1)?;
    } else {
        set_option(&socket, libc::IPPROTO_IP, libc::IP_TRANSPARENT, &1)?;
    }
    // A socket under repair takes a port that somebody listens at: perhaps the router has a SIP server of its own.
    let repair = |on: libc::c_int| set_option(&socket, libc::IPPROTO_TCP, libc::TCP_REPAIR, &on);
    let is_repaired = repair(1).is_ok();
    socket.bind(&other.into())?;
    if is_repaired {
        repair(0)?;
    }
    match socket.connect(&end.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}
