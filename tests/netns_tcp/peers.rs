//! Who writes and who reads. A reader compares every byte.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use super::messages::Message;
use super::world::Talk;

/// How a writer cuts what it says.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    /// A write for each message.
    Messages,
    /// Much at once.
    Bulk,
    /// Pieces of any length, each a segment of its own.
    Pieces,
    /// A write for each message, and a pause after it.
    Paced(Duration),
}

/// Writes all of `messages`.
pub(crate) fn write(
    mut stream: &TcpStream,
    messages: impl Iterator<Item = Message>,
    cut: Cut,
) -> io::Result<()> {
    stream.set_nodelay(matches!(cut, Cut::Pieces))?;
    let mut bulk = Vec::new();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for Message { written, .. } in messages {
        match cut {
            Cut::Messages => stream.write_all(&written)?,
            Cut::Paced(pause) => {
                stream.write_all(&written)?;
                thread::sleep(pause);
            }
            Cut::Bulk => {
                bulk.extend_from_slice(&written);
                if bulk.len() > 1 << 16 {
                    stream.write_all(&bulk)?;
                    bulk.clear();
                }
            }
            Cut::Pieces => {
                let mut rest = &written[..];
                while !rest.is_empty() {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    let length = (1 + random as usize % 700).min(rest.len());
                    stream.write_all(&rest[..length])?;
                    rest = &rest[length..];
                    if random >> 60 == 0 {
                        thread::sleep(Duration::from_millis(3));
                    }
                }
            }
        }
    }
    stream.write_all(&bulk)
}

/// Reads until all of `messages` have arrived, to the letter.
#[track_caller]
pub(crate) fn expect(stream: &TcpStream, messages: impl Iterator<Item = Message>) {
    let (at, end) = compare(stream, messages);
    if let Some(error) = end {
        panic!("after {at} bytes that were right: {error}");
    }
}

/// Reads what arrives of `messages`: how many bytes were right, and what came instead of the rest. Panics at the first
/// wrong byte.
#[track_caller]
pub(crate) fn compare(
    mut stream: &TcpStream,
    messages: impl Iterator<Item = Message>,
) -> (u64, Option<io::Error>) {
    let mut total = 0;
    let mut buffer = vec![0; 1 << 16];
    for (number, Message { arrives, .. }) in messages.enumerate() {
        let mut rest = &arrives[..];
        while !rest.is_empty() {
            let room = rest.len().min(buffer.len());
            let length = match stream.read(&mut buffer[..room]) {
                Ok(0) => return (total, Some(io::ErrorKind::UnexpectedEof.into())),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return (total, Some(error)),
            };
            let (now, later) = rest.split_at(length);
            if let Some(wrong) = now.iter().zip(&buffer).position(|(right, found)| right != found) {
                let around = |bytes: &[u8]| {
                    let bytes = &bytes[wrong.saturating_sub(60)..(wrong + 60).min(length)];
                    String::from_utf8_lossy(bytes).into_owned()
                };
                panic!(
                    "message {number}, byte {} of the stream: {:?} instead of {:?}",
                    total + wrong as u64,
                    around(&buffer),
                    around(now)
                );
            }
            total += length as u64;
            rest = later;
        }
    }
    (total, None)
}

impl Talk {
    /// The phone says who is there, one message for each user.
    pub(crate) fn introduce(&self) {
        let messages = || (0..super::messages::USERS).map(|number| self.ends.outbound(number, 40));
        write(&self.phone, messages(), Cut::Messages).unwrap();
        expect(&self.server, messages());
    }

    /// Both ends write so many messages at the same time, then close; each reads what the other wrote, and no more.
    pub(crate) fn converse(&self, count: usize, longest: usize, cut: Cut) {
        self.exchange(count, longest, cut);
        self.close();
    }

    /// As [`Talk::converse`], without the end.
    pub(crate) fn exchange(&self, count: usize, longest: usize, cut: Cut) {
        self.introduce();
        let ends = self.ends;
        let out = || (0..count).map(move |number| ends.outbound(number, longest));
        let back = || (0..count).map(move |number| ends.inbound(number, longest));
        thread::scope(|scope| {
            scope.spawn(move || write(&self.phone, out(), cut).unwrap());
            scope.spawn(move || write(&self.server, back(), cut).unwrap());
            scope.spawn(move || expect(&self.phone, back()));
            scope.spawn(move || expect(&self.server, out()));
        });
    }

    /// Both ends close, the phone first; nothing is left to read.
    pub(crate) fn close(&self) {
        for (one, mut other) in [(&self.phone, &self.server), (&self.server, &self.phone)] {
            one.shutdown(Shutdown::Write).unwrap();
            assert_eq!(other.read(&mut [0]).unwrap(), 0);
        }
    }
}
