//! One round over TCP: every phone has a connection, and each of its INVITEs is answered.
//!
//! A phone sends its next message when the last one was answered, so each is a segment of its own, which is all that the
//! kernel's helper can translate; the phones together keep the gateway busy. What counts is what arrives at the provider as
//! it should.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use memchr::memmem;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn};

use super::invite::Invite;
use super::judge::{Expected, Judge};
use super::load::{Bounds, Tally};
use super::network::{FIRST_PHONE, Network, PHONES, PROVIDER};

/// Nothing that is on its way takes so long.
const PATIENCE: Duration = Duration::from_secs(10);
/// What an answer repeats of its request.
const REPEATED: [&[u8]; 5] = [b"Via:", b"From:", b"To:", b"Call-ID:", b"CSeq:"];

/// Runs one round. `at_start` is called when every connection has passed a message and the flood begins.
pub(crate) fn round(
    network: &Network,
    expected: Expected,
    bounds: Bounds,
    at_start: impl FnOnce() + Send,
) -> Result<Tally> {
    let over = AtomicBool::new(false);
    let (listening, begun) = (AtomicBool::new(false), OnceLock::new());
    thread::scope(|scope| {
        let provider = scope.spawn(|| {
            network.provider.enter()?;
            let listener = TcpListener::bind((PROVIDER, 5060))?;
            listening.store(true, Relaxed);
            let mut lines = Vec::new();
            for _ in 0..PHONES {
                lines.push(Line::new(listener.accept()?.0)?);
            }
            serve(&mut lines, expected, &over, &begun)
        });
        let phones = scope.spawn(|| -> Result<f64> {
            network.phones.enter()?;
            let end = Instant::now() + PATIENCE;
            while !listening.load(Relaxed) {
                ensure!(Instant::now() < end, "the provider does not listen");
                thread::sleep(Duration::from_millis(1));
            }
            let mut phones = Vec::new();
            for host in FIRST_PHONE..FIRST_PHONE + PHONES {
                phones.push(Phone::new(host)?);
            }
            turn(&mut phones)?;
            at_start();
            let start = *begun.get_or_init(Instant::now);
            let mut sent = 0;
            while start.elapsed() < bounds.time {
                sent += turn(&mut phones)?;
            }
            over.store(true, Relaxed);
            Ok(sent as f64 / start.elapsed().as_secs_f64())
        });
        let sent = phones.join().expect("the phones return their errors");
        over.store(true, Relaxed);
        let tally = provider.join().expect("the provider returns its errors").context("provider");
        let (offered, tally) = (sent?, tally?);
        ensure!(tally.good > 0, "no message arrived as it should ({} arrived otherwise)", tally.spoilt);
        Ok(Tally { offered, ..tally })
    })
}

struct Phone {
    stream: TcpStream,
    invite: Vec<u8>,
}

impl Phone {
    fn new(host: u8) -> Result<Self> {
        let address = SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, host), 5060);
        let stream = connect(address).context("connecting")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let invite = Invite::new(host, u32::from(host), 30_000 + 2 * u16::from(host));
        let text = String::from_utf8(invite.bytes)?.replace("SIP/2.0/UDP", "SIP/2.0/TCP");
        let text = text.replace("transport=udp", "transport=tcp");
        ensure!(text.contains(&address.to_string()), "the phones speak for themselves");
        Ok(Self { stream, invite: text.into_bytes() })
    }
}

/// From the very endpoint that the messages name: the kernel's helper knows no other as the phone's own.
fn connect(from: SocketAddrV4) -> io::Result<TcpStream> {
    let stream = socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    socket::bind(stream.as_raw_fd(), &SockaddrIn::from(from))?;
    socket::connect(stream.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(PROVIDER, 5060)))?;
    Ok(stream.into())
}

/// Each phone sends a message, and waits for its answer; how many that were.
fn turn(phones: &mut [Phone]) -> Result<u64> {
    for phone in &mut *phones {
        phone.stream.write_all(&phone.invite)?;
    }
    for phone in &mut *phones {
        let (mut answer, mut length) = ([0; 4096], 0);
        while !answer[..length].ends_with(b"\r\n\r\n") {
            let more = phone.stream.read(&mut answer[length..]).context("an answer")?;
            ensure!(more > 0, "the provider has hung up");
            length += more;
        }
    }
    Ok(phones.len() as u64)
}

/// A connection at the provider, and what it has read of it.
struct Line {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Line {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_millis(200)))?;
        Ok(Self { stream, read: Vec::new() })
    }

    /// Takes in what has come, and answers with the length of the first message if it is whole.
    fn message(&mut self) -> io::Result<Option<usize>> {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(length) => self.read.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let Some(head) = memmem::find(&self.read, b"\r\n\r\n") else { return Ok(None) };
        let length = memmem::find(&self.read, b"Content-Length: ").map_or(0, |at| {
            let digits = self.read[at + 16..].iter().take_while(|byte| byte.is_ascii_digit());
            digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'))
        });
        let whole = head + 4 + length;
        Ok((self.read.len() >= whole).then_some(whole))
    }
}

fn serve(
    lines: &mut [Line],
    expected: Expected,
    over: &AtomicBool,
    begun: &OnceLock<Instant>,
) -> io::Result<Tally> {
    let mut judge = Judge::new(expected);
    let mut tally = Tally::default();
    let (mut start, mut answer) = (None, Vec::new());
    while !over.load(Relaxed) {
        for line in &mut *lines {
            // In turn, as they are sent.
            let length = loop {
                match line.message()? {
                    Some(length) => break length,
                    None if over.load(Relaxed) => return Ok(tally),
                    None => {}
                }
            };
            if start.is_none() && begun.get().is_some() {
                start = begun.get();
                tally = Tally::default();
            }
            if judge.accepts(&line.read[..length]) {
                tally.good += 1;
                tally.handled += 1;
            } else {
                tally.spoilt += 1;
            }
            tally.time = start.map_or(Duration::ZERO, |start| start.elapsed());
            answer.clear();
            answer.extend_from_slice(b"SIP/2.0 100 Trying\r\n");
            for header in line.read[..length].split_inclusive(|byte| *byte == b'\n') {
                if REPEATED.iter().any(|name| header.starts_with(name)) {
                    answer.extend_from_slice(header);
                }
            }
            answer.extend_from_slice(b"Content-Length: 0\r\n\r\n");
            line.read.drain(..length);
            line.stream.write_all(&answer)?;
        }
    }
    Ok(tally)
}
