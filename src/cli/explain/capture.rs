//! Reads capture files: pcap and pcapng, with the link headers that routers' captures have.
//!
//! It yields whole IP packets in the order of the file, and puts fragments together as the kernel does before it
//! queues. It does not know what the packets carry.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek};
use std::path::Path;
use std::time::Duration;

use etherparse::defrag::IpDefragPool;
use etherparse::{Ipv4Header, Ipv6Header, NetSlice, SlicedPacket};
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, PcapError, TsResolution};

use crate::packet::{Datagram, Refusal};

/// A capture file, read from front to back.
pub(super) struct Capture {
    file: Format,
    number: usize,
    fragments: IpDefragPool<Duration, ()>,
}

enum Format {
    Pcap(PcapReader<BufReader<File>>),
    PcapNg(PcapNgReader<BufReader<File>>),
}

/// One record of the file.
#[derive(Debug)]
pub(super) struct Frame {
    /// Its number, counted from 1, as other tools show it.
    pub(super) number: usize,
    /// Since 1970.
    pub(super) time: Duration,
    /// What the link header said.
    pub(super) link: DataLink,
    /// All bytes.
    pub(super) bytes: Vec<u8>,
    /// Where the IP packet begins in `bytes`; `None`: not IP, or a fragment of a packet that is not complete yet.
    pub(super) packet: Option<usize>,
}

impl Capture {
    /// Opens a file.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut magic = [0; 4];
        let long_enough = file.read_exact(&mut magic).is_ok();
        file.rewind()?;
        let file = BufReader::new(file);
        let format = if long_enough && magic == [0x0a, 0x0d, 0x0d, 0x0a] {
            Format::PcapNg(PcapNgReader::new(file).map_err(bad)?)
        } else {
            Format::Pcap(PcapReader::new(file).map_err(|_| bad("neither pcap nor pcapng"))?)
        };
        Ok(Self { file: format, number: 0, fragments: IpDefragPool::new() })
    }

    /// The next record; `None` at the end. A file that was cut off ends with its last whole record.
    pub(super) fn next(&mut self) -> Option<io::Result<Frame>> {
        let (time, link, bytes) = match self.file.next()? {
            Ok(record) => record,
            Err(error) => return Some(Err(error)),
        };
        self.number += 1;
        let packet = match ip_offset(link, &bytes) {
            Ok(packet) => packet,
            Err(error) => return Some(Err(error)),
        };
        let frame = Frame { number: self.number, time, link, bytes, packet };
        Some(Ok(self.whole(frame)))
    }

    /// Puts fragments together: the last one to come becomes the whole packet.
    fn whole(&mut self, frame: Frame) -> Frame {
        let Some(at) = frame.packet else { return frame };
        let packet = frame.bytes.get(at..).unwrap_or_default();
        if !matches!(Datagram::parse(packet), Err(Refusal::Fragment)) {
            return frame;
        }
        // What is not complete after 30 s never will be (RFC 1122 allows 60 s; the kernel gives up after 30 s).
        self.fragments.retain(|begun| frame.time.saturating_sub(*begun) < Duration::from_secs(30));
        let whole = SlicedPacket::from_ip(packet).ok().and_then(|sliced| {
            let done = self.fragments.process_sliced_packet(&sliced, frame.time, ()).ok()??;
            reassembled(&sliced, done.ip_number, &done.payload)
        });
        match whole {
            Some(whole) => {
                let mut bytes = frame.bytes;
                bytes.truncate(at);
                bytes.extend_from_slice(&whole);
                Frame { bytes, ..frame }
            }
            None => Frame { packet: None, ..frame },
        }
    }
}

impl Format {
    fn next(&mut self) -> Option<io::Result<(Duration, DataLink, Vec<u8>)>> {
        match self {
            Self::Pcap(reader) => {
                let link = reader.header().datalink;
                let packet = reader.next_packet()?;
                ended(packet.map(|packet| (packet.timestamp, link, packet.data.into_owned())))
            }
            Self::PcapNg(reader) => loop {
                let (time, interface, bytes) = match reader.next_block()? {
                    Ok(Block::EnhancedPacket(packet)) => {
                        (Some(packet.timestamp), packet.interface_id, packet.data.into_owned())
                    }
                    Ok(Block::SimplePacket(packet)) => (None, 0, packet.data.into_owned()),
                    Ok(_) => continue,
                    Err(error) => return ended(Err(error)),
                };
                let Some(interface) = reader.interfaces().get(interface as usize) else { continue };
                let resolution = interface.options.iter().find_map(|option| match option {
                    InterfaceDescriptionOption::IfTsResol(exponent) => Some(*exponent),
                    _ => None,
                });
                let time = time.map_or(Duration::ZERO, |time| in_units(time, resolution.unwrap_or(6)));
                return Some(Ok((time, interface.linktype, bytes)));
            },
        }
    }
}

/// The reader takes every time stamp for nanoseconds; the file says which unit it has: a power of ten, or of two if the
/// highest bit is set.
fn in_units(read: Duration, resolution: u8) -> Duration {
    let ticks = read.as_nanos();
    let per_second = match resolution {
        0x80.. => 1_u128.checked_shl(u32::from(resolution & 0x7f)),
        _ => 10_u128.checked_pow(u32::from(resolution)),
    };
    let nanos = per_second.filter(|n| *n > 0).and_then(|n| Some(ticks.checked_mul(1_000_000_000)? / n));
    nanos.and_then(|n| u64::try_from(n).ok()).map_or(Duration::ZERO, Duration::from_nanos)
}

fn ended<T>(record: Result<T, PcapError>) -> Option<io::Result<T>> {
    match record {
        Ok(record) => Some(Ok(record)),
        Err(PcapError::IncompleteBuffer) => None,
        Err(error) => Some(Err(bad(error))),
    }
}

fn bad(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Where the IP packet begins behind the link header.
fn ip_offset(link: DataLink, bytes: &[u8]) -> io::Result<Option<usize>> {
    let word = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    const IPV4: u16 = 0x0800;
    const IPV6: u16 = 0x86dd;
    let (mut kind, mut at) = match link {
        DataLink::ETHERNET => (word(12), 14),
        DataLink::LINUX_SLL => (word(14), 16),
        DataLink::LINUX_SLL2 => (word(0), 20),
        DataLink::RAW | DataLink::IPV4 | DataLink::IPV6 => (Some(IPV4), 0),
        DataLink::NULL | DataLink::LOOP => (Some(IPV4), 4),
        other => return Err(bad(format!("link type {other:?} is not supported"))),
    };
    // VLAN tags, then PPPoE, as on the way to a provider.
    while let Some(0x8100 | 0x88a8) = kind {
        (kind, at) = (word(at + 2), at + 4);
    }
    if kind == Some(0x8864) {
        (kind, at) = match word(at + 6) {
            Some(0x0021) => (Some(IPV4), at + 8),
            Some(0x0057) => (Some(IPV6), at + 8),
            _ => (None, at),
        };
    }
    Ok(matches!(kind, Some(IPV4 | IPV6)).then_some(at))
}

/// The packet that fragments were, under the header of the last one.
fn reassembled(last: &SlicedPacket<'_>, protocol: etherparse::IpNumber, payload: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(payload.len() + 60);
    match &last.net {
        Some(NetSlice::Ipv4(slice)) => {
            let mut header: Ipv4Header = slice.header().to_header();
            header.more_fragments = false;
            header.fragment_offset = etherparse::IpFragOffset::ZERO;
            header.set_payload_len(payload.len()).ok()?;
            header.write(&mut out).ok()?;
        }
        Some(NetSlice::Ipv6(slice)) => {
            let mut header: Ipv6Header = slice.header().to_header();
            header.next_header = protocol;
            header.set_payload_length(payload.len()).ok()?;
            header.write(&mut out).ok()?;
        }
        _ => return None,
    }
    out.extend_from_slice(payload);
    Some(out)
}

/// Writes frames to a new pcap file.
pub(super) struct Copy {
    writer: Option<PcapWriter<BufWriter<File>>>,
    file: Option<File>,
}

impl Copy {
    /// Makes the file.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { writer: None, file: Some(File::create(path)?) })
    }

    /// Appends a frame. The first one decides the link type of the file.
    pub(super) fn write(&mut self, frame: &Frame) -> io::Result<()> {
        if let Some(file) = self.file.take() {
            let header = PcapHeader {
                datalink: frame.link,
                snaplen: 1 << 18,
                ts_resolution: TsResolution::NanoSecond,
                ..PcapHeader::default()
            };
            self.writer = Some(PcapWriter::with_header(BufWriter::new(file), header).map_err(bad)?);
        }
        let length = u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX);
        match &mut self.writer {
            Some(writer) => {
                writer.write_packet(&PcapPacket::new(frame.time, length, &frame.bytes)).map_err(bad)?;
                Ok(())
            }
            None => Ok(()),
        }
    }
}
