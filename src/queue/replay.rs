//! A capture file as a queue: no rights, no kernel, no clock.
//!
//! Packets come one at a time, in the order of the file, each with the time at which it was captured; those that pass
//! are written, as they left, to another capture (raw IP, pcap) under their old times. pcap and pcapng are read, with
//! the link layers of [`link`]. Frames without an IP packet are passed over and counted.
//!
//! A capture does not say where on its way through a router a packet was seen: the point is always
//! [`QueuePoint::Signalling`], and who knows better sets another before handing the packet on. Checksums that a network
//! card was to fill in are in the file as they were captured.

use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pcap_file::pcapng::Block;
use pcap_file::pcapng::PcapNgReader;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::{DataLink, Endianness, PcapError, TsResolution};

use super::{Counters, PacketQueue, TooLong};
use crate::alg::{PacketId, PacketIn, QueuePoint};

mod link;

/// pcapng's section header block begins with these bytes.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// A capture, read as a queue; its verdicts go to `W`.
pub struct Replay<R: Read, W: Write> {
    capture: Capture<R>,
    output: Option<PcapWriter<W>>,
    current: Option<Frame>,
    /// Packets handed out that have no verdict yet, in their order.
    waiting: Vec<Frame>,
    number: u64,
    skipped: u64,
    counters: Counters,
    failed: Option<PcapError>,
}

/// The bytes that were read to tell the formats apart, and the rest.
type Whole<R> = io::Chain<io::Cursor<Vec<u8>>, R>;

enum Capture<R: Read> {
    Pcap(Box<PcapReader<Whole<R>>>),
    PcapNg(Box<PcapNgReader<Whole<R>>>),
}

#[derive(Clone)]
struct Frame {
    id: PacketId,
    time: Duration,
    indev: u32,
    bytes: Vec<u8>,
}

/// A capture that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Not a capture, or a damaged one.
    #[error("not a readable capture: {0}")]
    Capture(#[from] PcapError),
    /// The file itself.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl<R: Read, W: Write> Replay<R, W> {
    /// Reads the head of a capture, and begins another in `output`.
    ///
    /// # Errors
    /// [`ReplayError`] if it is neither pcap nor pcapng, or the output cannot be written.
    pub fn new(mut capture: R, output: Option<W>) -> Result<Self, ReplayError> {
        let mut magic = Vec::new();
        capture.by_ref().take(PCAPNG.len() as u64).read_to_end(&mut magic)?;
        let is_pcapng = magic == PCAPNG;
        let whole = io::Cursor::new(magic).chain(capture);
        let capture = if is_pcapng {
            Capture::PcapNg(Box::new(PcapNgReader::new(whole)?))
        } else {
            Capture::Pcap(Box::new(PcapReader::new(whole)?))
        };
        let header = PcapHeader {
            datalink: DataLink::RAW,
            ts_resolution: TsResolution::NanoSecond,
            endianness: Endianness::native(),
            ..PcapHeader::default()
        };
        let output = output.map(|output| PcapWriter::with_header(output, header)).transpose()?;
        Ok(Self {
            capture,
            output,
            current: None,
            waiting: Vec::new(),
            number: 0,
            skipped: 0,
            counters: Counters::default(),
            failed: None,
        })
    }

    /// When the packet of the last [`PacketQueue::receive`] was captured, since 1970.
    pub fn time(&self) -> Option<Duration> {
        self.current.as_ref().map(|frame| frame.time)
    }

    /// Number of its frame in the file, from 1 on, as other programs show it.
    pub fn frame_number(&self) -> u64 {
        self.number
    }

    /// Frames that hold no IP packet.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Ends the replay and gives back the output, for who has to flush it. Packets without a verdict are not in it.
    pub fn into_output(self) -> Option<W> {
        self.output.map(PcapWriter::into_writer)
    }

    /// Reads on to the next frame with an IP packet; `None` at the end.
    fn next(&mut self) -> Result<Option<Frame>, PcapError> {
        loop {
            let Some((link, time, bytes)) = self.capture.next()? else { return Ok(None) };
            self.number += 1;
            if let Some((indev, packet)) = link::ip_packet(link, &bytes) {
                let id = PacketId(self.number);
                return Ok(Some(Frame { id, time, indev, bytes: packet.to_vec() }));
            }
            self.skipped += 1;
        }
    }

    /// Takes the packet out of those that wait and writes `bytes`, or its own.
    fn write(&mut self, id: PacketId, bytes: Option<&[u8]>) {
        let Some(at) = self.waiting.iter().position(|frame| frame.id == id) else { return };
        let frame = self.waiting.remove(at);
        self.counters.verdicts += 1;
        let Some(output) = &mut self.output else { return };
        let bytes = bytes.unwrap_or(&frame.bytes);
        let packet = PcapPacket::new(frame.time, bytes.len() as u32, bytes);
        if let Err(error) = output.write_packet(&packet) {
            self.failed = Some(error);
        }
    }
}

impl<R: Read> Capture<R> {
    /// Link layer, time and bytes of the next frame.
    fn next(&mut self) -> Result<Option<(DataLink, Duration, Vec<u8>)>, PcapError> {
        match self {
            Self::Pcap(reader) => {
                let PcapHeader { datalink, ts_resolution, .. } = reader.header();
                // The raw form: the other one refuses packets that were captured short.
                let Some(packet) = reader.next_raw_packet().transpose()? else { return Ok(None) };
                let unit = match ts_resolution {
                    TsResolution::MicroSecond => 1000,
                    TsResolution::NanoSecond => 1,
                };
                let time = Duration::from_secs(packet.ts_sec.into())
                    + Duration::from_nanos(u64::from(packet.ts_frac) * unit);
                Ok(Some((datalink, time, packet.data.into_owned())))
            }
            Self::PcapNg(reader) => loop {
                let (interface, ticks, bytes) = match reader.next_block() {
                    None => return Ok(None),
                    Some(Err(error)) => return Err(error),
                    // The crate takes the count of ticks for nanoseconds, whatever the interface says.
                    Some(Ok(Block::EnhancedPacket(packet))) => {
                        (packet.interface_id, packet.timestamp.as_nanos(), packet.data.into_owned())
                    }
                    Some(Ok(Block::SimplePacket(packet))) => (0, 0, packet.data.into_owned()),
                    Some(Ok(_)) => continue,
                };
                let description = reader.interfaces().get(interface as usize);
                let link = description.map_or(DataLink::NULL, |interface| interface.linktype);
                return Ok(Some((link, time_of(description, ticks), bytes)));
            },
        }
    }
}

/// A count of ticks since 1970 in the resolution of its interface: microseconds if it names none (pcapng, if_tsresol).
fn time_of(interface: Option<&InterfaceDescriptionBlock<'_>>, ticks: u128) -> Duration {
    let resolution = interface.into_iter().flat_map(|interface| &interface.options).find_map(|option| {
        if let InterfaceDescriptionOption::IfTsResol(resolution) = option { Some(*resolution) } else { None }
    });
    let per_second: u128 = match resolution.unwrap_or(6) {
        power_of_two @ 0x80.. => 1 << (power_of_two & 0x7f).min(64),
        power_of_ten => 10u128.pow(u32::from(power_of_ten).min(19)),
    };
    let nanoseconds = ticks.saturating_mul(1_000_000_000) / per_second;
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

impl<R: Read, W: Write> PacketQueue for Replay<R, W> {
    /// One packet; none at the end of the capture.
    fn receive(&mut self) -> io::Result<usize> {
        self.current = self.next().map_err(io::Error::other)?;
        self.waiting.extend(self.current.clone());
        self.counters.received += u64::from(self.current.is_some());
        Ok(usize::from(self.current.is_some()))
    }

    fn packet(&self, index: usize) -> Option<PacketIn<'_>> {
        let frame = self.current.as_ref().filter(|_| index == 0)?;
        Some(PacketIn {
            id: frame.id,
            point: QueuePoint::Signalling,
            indev: frame.indev,
            outdev: 0,
            bytes: &frame.bytes,
        })
    }

    fn accept(&mut self, id: PacketId) {
        self.write(id, None);
    }

    fn discard(&mut self, id: PacketId) {
        let before = self.waiting.len();
        self.waiting.retain(|frame| frame.id != id);
        self.counters.verdicts += u64::from(self.waiting.len() < before);
    }

    fn replace(&mut self, id: PacketId, bytes: &[u8]) -> Result<(), TooLong> {
        if bytes.len() > super::MAX_PACKET {
            return Err(TooLong);
        }
        self.write(id, Some(bytes));
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.failed.take().map_or(Ok(()), |error| Err(io::Error::other(error)))
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

impl<R: Read, W: Write> std::fmt::Debug for Replay<R, W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay").field("number", &self.number).field("counters", &self.counters).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcap_file::pcap::RawPcapPacket;
    use std::borrow::Cow;

    const IP: &[u8] = &[0x45, 0, 0, 24, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 1, 2, 3, 4];

    fn ethernet(kind: [u8; 2], rest: &[u8]) -> Vec<u8> {
        [&[9; 12], &kind[..], rest].concat()
    }

    /// A little-endian capture with microseconds; `snaplen` 64.
    fn pcap(link: u32, frames: &[(u32, u32, &[u8])]) -> Vec<u8> {
        let header = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 64, link];
        let mut file: Vec<u8> = header.iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
        for (seconds, micros, bytes) in frames {
            let length = bytes.len() as u32;
            let head = [*seconds, *micros, length, length + 100];
            file.extend(head.iter().flat_map(|word| word.to_le_bytes()));
            file.extend_from_slice(bytes);
        }
        file
    }

    fn written(output: &[u8]) -> Vec<(u32, u32, Vec<u8>)> {
        let mut reader = PcapReader::new(output).unwrap();
        assert_eq!(reader.header().datalink, DataLink::RAW);
        let mut packets = Vec::new();
        while let Some(packet) = reader.next_raw_packet() {
            let RawPcapPacket { ts_sec, ts_frac, data, .. } = packet.unwrap();
            packets.push((ts_sec, ts_frac, Cow::into_owned(data)));
        }
        packets
    }

    #[test]
    fn verdicts_are_written_under_the_times_of_their_packets() {
        let (ip, arp) = (ethernet([8, 0], IP), ethernet([8, 6], &[0; 28]));
        let frames = [(1, 5, ip.as_slice()), (2, 6, &arp), (3, 7, &ip), (4, 8, &ip), (5, 9, &ip)];
        let capture = pcap(1, &frames);
        let mut replay = Replay::new(capture.as_slice(), Some(Vec::new())).unwrap();
        let mut ids = Vec::new();
        while replay.receive().unwrap() == 1 {
            let packet = replay.packet(0).unwrap();
            assert_eq!(packet.bytes, IP);
            ids.push((packet.id, replay.time().unwrap(), replay.frame_number()));
        }
        assert_eq!(ids.iter().map(|(_, _, number)| *number).collect::<Vec<_>>(), [1, 3, 4, 5]);
        assert_eq!(ids[1].1, Duration::new(3, 7000));
        assert_eq!(replay.skipped(), 1);
        replay.replace(ids[1].0, b"other").unwrap();
        replay.accept(ids[0].0);
        replay.discard(ids[2].0);
        replay.accept(ids[2].0);
        replay.flush().unwrap();
        assert_eq!(replay.counters(), Counters { received: 4, verdicts: 3, refused: 0 });
        let output = replay.into_output().unwrap();
        assert_eq!(written(&output), [(3, 7000, b"other".to_vec()), (1, 5000, IP.to_vec())]);
    }

    #[test]
    fn pcapng_times_are_those_of_the_interface() {
        let block = |kind: u32, body: &[u8]| {
            let length = (body.len() as u32 + 12).to_le_bytes();
            [&kind.to_le_bytes()[..], &length, body, &length].concat()
        };
        let section = [&0x1a2b_3c4du32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat();
        let plain = [101, 0, 0, 0, 0, 0, 0, 0];
        let nano = [101, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0];
        let packet = |interface: u32, ticks: u64| {
            let words = [interface, (ticks >> 32) as u32, ticks as u32, 24, 24];
            let head: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            block(6, &[&head, IP].concat())
        };
        let file = [
            block(0x0a0d_0d0a, &section),
            block(1, &plain),
            block(1, &nano),
            packet(0, 1_700_000_000_000_001),
            packet(1, 1_700_000_000_000_000_002),
        ]
        .concat();
        let mut replay = Replay::new(file.as_slice(), None::<Vec<u8>>).unwrap();
        let mut times = Vec::new();
        while replay.receive().unwrap() == 1 {
            assert_eq!(replay.packet(0).unwrap().bytes, IP);
            times.push(replay.time().unwrap());
        }
        assert_eq!(times, [Duration::new(1_700_000_000, 1000), Duration::new(1_700_000_000, 2)]);
    }

    #[test]
    fn what_is_no_capture_is_an_error_and_a_cut_one_ends_with_one() {
        assert!(Replay::new(&b"INVITE sip:"[..], None::<Vec<u8>>).is_err());
        assert!(Replay::new(&b""[..], None::<Vec<u8>>).is_err());
        let whole = pcap(101, &[(1, 1, IP), (2, 2, IP)]);
        let mut replay = Replay::new(&whole[..whole.len() - 1], None::<Vec<u8>>).unwrap();
        assert_eq!(replay.receive().unwrap(), 1);
        assert!(replay.receive().is_err());
    }
}
