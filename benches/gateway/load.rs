//! One round: as many INVITEs as go in, and what comes out of them.
//!
//! The sender never waits for an answer (open loop), so a gateway is measured under overload; what counts is what
//! arrives at the provider as it should. A round ends after a time, or once enough calls have arrived: a gateway has
//! only so many ports to give away.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use std::{io, thread};

use anyhow::{Context, Result, ensure};

use super::invite::Invite;
use super::judge::{Expected, Judge};
use super::network::{FIRST_PHONE, Network, PHONES, PROVIDER};
use super::socket::{self, Receiver};

/// What the phones say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Calls {
    /// One phone repeats one INVITE.
    Known,
    /// Every message is another call with another media port, from one phone after the other.
    New,
}

/// The bounds of a round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// How long the sender sends.
    pub(crate) time: Duration,
    /// After how many calls that arrived it stops.
    pub(crate) calls: u64,
}

/// What came of a round.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// Messages sent in a second.
    pub(crate) offered: f64,
    /// Messages that arrived as they should, until the round's end.
    pub(crate) good: u64,
    /// The same, with those that were still on their way then.
    pub(crate) handled: u64,
    /// Messages that arrived, but not as they should.
    pub(crate) spoilt: u64,
    /// Different public media endpoints in the good ones.
    pub(crate) endpoints: u64,
    /// From the first message sent to the last good one.
    pub(crate) time: Duration,
}

impl Tally {
    /// Good messages in a second.
    pub(crate) fn rate(&self) -> f64 {
        self.good as f64 / self.time.as_secs_f64()
    }
}

/// How long the first message of a phone may take: the daemon may have to start its work first.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs one round. `at_start` is called when every phone's flow is established and the flood begins.
pub(crate) fn round(
    network: &Network,
    calls: Calls,
    expected: Expected,
    bounds: Bounds,
    at_start: impl FnOnce() + Send,
) -> Result<Tally> {
    let shared = Shared::default();
    thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            network.provider.enter()?;
            let socket = socket::open(SocketAddr::from((PROVIDER, 5060)), Duration::from_millis(50))?;
            shared.listening.store(true, Relaxed);
            receive(&socket, &shared, expected, bounds)
        });
        let sender = scope.spawn(|| {
            let sent = network.phones.enter().map_err(Into::into).and_then(|()| {
                let mut phones = phones(calls)?;
                establish(&mut phones, &shared)?;
                at_start();
                flood(&mut phones, calls, &shared, bounds)
            });
            shared.over.store(true, Relaxed);
            sent
        });
        let sent = sender.join().expect("the sender returns its errors");
        let tally = receiver.join().expect("the receiver returns its errors").context("receiver");
        let (offered, tally) = (sent?, tally?);
        ensure!(
            tally.good > 0,
            "of the flood no message arrived as it should ({} arrived otherwise)",
            tally.spoilt
        );
        Ok(Tally { offered, ..tally })
    })
}

#[derive(Default)]
struct Shared {
    listening: AtomicBool,
    good: AtomicU64,
    spoilt: AtomicU64,
    flood: OnceLock<Instant>,
    over: AtomicBool,
}

struct Phone {
    index: u32,
    socket: UdpSocket,
    /// As many messages as one system call sends.
    invites: Vec<Invite>,
}

fn phones(calls: Calls) -> io::Result<Vec<Phone>> {
    let count = match calls {
        Calls::Known => 1,
        Calls::New => PHONES,
    };
    (FIRST_PHONE..FIRST_PHONE + count)
        .map(|host| {
            let local = SocketAddr::from((Ipv4Addr::new(192, 168, 1, host), 5060));
            let socket = socket::open(local, PATIENCE)?;
            socket.connect((PROVIDER, 5060))?;
            let index = u32::from(host - FIRST_PHONE);
            let invite = || Invite::new(host, u32::from(host), port(index, 0));
            Ok(Phone { index, socket, invites: (0..BATCH).map(|_| invite()).collect() })
        })
        .collect()
}

/// Media port of a phone's `n`th call: even, and away from the services that never get a pinhole. No two phones use
/// one port at the same time, because the kernel's helper drops the second one's INVITE.
fn port(phone: u32, n: u32) -> u16 {
    (30_000 + 2 * ((n + phone * 400) % 15_000)) as u16
}

/// Messages that one system call sends.
const BATCH: u32 = 32;

/// Sends each phone's first message until one arrives as it should.
fn establish(phones: &mut [Phone], shared: &Shared) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    let wait = |seen: u64, patience: Duration| {
        let end = Instant::now() + patience;
        while shared.good.load(Relaxed) == seen && Instant::now() < end {
            thread::sleep(Duration::from_micros(500));
        }
        shared.good.load(Relaxed) != seen
    };
    while !shared.listening.load(Relaxed) {
        ensure!(Instant::now() < end, "the provider does not listen");
        thread::sleep(Duration::from_millis(1));
    }
    for phone in phones {
        loop {
            let seen = shared.good.load(Relaxed);
            let invite = phone.invites.iter().map(|invite| invite.bytes.as_slice()).take(1);
            socket::send(&phone.socket, invite)?;
            if wait(seen, Duration::from_millis(100)) {
                break;
            }
            let spoilt = shared.spoilt.load(Relaxed);
            ensure!(
                Instant::now() < end,
                "the first message of a phone did not arrive as it should ({spoilt} arrived otherwise)"
            );
        }
    }
    Ok(())
}

fn flood(phones: &mut [Phone], calls: Calls, shared: &Shared, bounds: Bounds) -> Result<f64> {
    let start = *shared.flood.get_or_init(Instant::now);
    let (mut sent, mut call, mut n) = (0, 1000, 1);
    'all: loop {
        for phone in &mut *phones {
            if shared.over.load(Relaxed) || start.elapsed() > bounds.time {
                break 'all;
            }
            if calls == Calls::New {
                for (invite, n) in phone.invites.iter_mut().zip(n..) {
                    invite.change(call, port(phone.index, n));
                    call += 1;
                }
            }
            let messages = phone.invites.iter().map(|invite| invite.bytes.as_slice());
            sent += socket::send(&phone.socket, messages).context("sender")? as u64;
        }
        n += BATCH;
    }
    Ok(sent as f64 / start.elapsed().as_secs_f64())
}

fn receive(socket: &UdpSocket, shared: &Shared, expected: Expected, bounds: Bounds) -> io::Result<Tally> {
    let mut judge = Judge::new(expected);
    let mut receiver = Receiver::new();
    let mut tally = Tally::default();
    let mut start = None;
    loop {
        if start.is_none() {
            start = shared.flood.get().copied();
            tally = Tally::default();
            judge.forget();
        }
        let messages = match receiver.receive(socket) {
            Ok(messages) => messages,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if shared.over.load(Relaxed) {
                    tally.endpoints = judge.endpoints();
                    return Ok(tally);
                }
                continue;
            }
            Err(error) => return Err(error),
        };
        let (mut good, mut spoilt) = (0, 0);
        for message in messages {
            if judge.accepts(message) {
                good += 1;
            } else {
                spoilt += 1;
            }
        }
        shared.good.fetch_add(good, Relaxed);
        shared.spoilt.fetch_add(spoilt, Relaxed);
        tally.handled += good;
        tally.spoilt += spoilt;
        if let Some(start) = start
            && good > 0
            && tally.good < bounds.calls
        {
            tally.good += good;
            tally.time = start.elapsed();
            if tally.good >= bounds.calls {
                shared.over.store(true, Relaxed);
            }
        }
    }
}
