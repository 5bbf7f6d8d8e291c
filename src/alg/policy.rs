//! The engine's settings, checked.
//!
//! Made by `config` from the file of the administrator, or by [`Policy::default`]; nothing here is read from
//! anywhere. Every number has its reason beside it.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

/// All settings of an [`Engine`](super::Engine).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Public ports for media. Below `ip_local_port_range`, above services.
    pub ports: RangeInclusive<u16>,
    /// How long a released public port stays closed: conntrack's longest UDP timeouts are 30 s and 120 s, and the far
    /// end's media stops within seconds of the BYE, so 64 s (2 × timer B) leaves no stray entry.
    pub quarantine: Duration,
    /// Life of what was opened for a request that nobody answers (RFC 3261 timer B).
    pub half_open: Duration,
    /// Kernel lifetime of what was opened for an answered call; renewed at half of it.
    pub pinhole_lifetime: Duration,
    /// A call without signalling and without media for so long is over.
    pub media_inactivity: Duration,
    /// Who may send media to an open endpoint.
    pub media_source: MediaSource,
    /// How that is let in by a firewall which lets in only what is established or related.
    pub admission: Admission,
    /// Whether media over TCP gets doors too (S9).
    pub media_tcp: bool,
    /// How media between two phones behind the same NAT goes.
    pub media_local: MediaLocal,
    /// What becomes of descriptions with ICE.
    pub media_ice: MediaIce,
    /// Inside ports that never get a pinhole, beside all below 1024 (S9).
    pub denied_ports: Vec<RangeInclusive<u16>>,
    /// Other inside hosts that a message may speak for, beside its sender (S8): a PBX with a media relay of its own.
    pub inside_hosts: Vec<Prefix>,
    /// If not empty: only messages to and from these servers are touched (S6).
    pub servers: Vec<Prefix>,
    /// If not empty: only what these servers say of registrations is believed (S6).
    pub registrars: Vec<Prefix>,
    /// Servers that do the NAT for their phones themselves: their messages pass untouched.
    pub hands_off: Vec<Prefix>,
    /// Addresses to write into messages instead of those that the NAT here gives, at most one of each family: behind
    /// another NAT the outermost address. Ports stay.
    pub advertise: Vec<IpAddr>,
    /// What happens to a message when a kernel command fails.
    pub on_failure: OnFailure,
    /// How long segments of an incomplete message are held. A sender that loses five repeats in a row needs 12.6 s to get
    /// through (0.2, 0.4, 0.8, … s between them), and longer on a slow path; to let a connection go for ever is the greater
    /// harm. Less than the shell keeps a packet for, and than a transaction lives (32 s).
    pub tcp_patience: Duration,
    /// How large each table may become.
    pub limits: Limits,
    /// Seeds the hashes of all tables, so that nobody can choose colliding keys.
    pub seed: [u64; 2],
}

/// Who may send media to an open endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaSource {
    /// The addresses that the far end's SDP names.
    Negotiated,
    /// Everybody, for as long as the call lives.
    Any,
}

/// How media from outside gets through the router's firewall (`kernel::admission` has the whole of it). It begins from
/// the least that has to be changed there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// As soon as both ends of a stream are known, its conntrack entry is made: the media is `established`.
    Pinned,
    /// The same, and with an offer goes an expectation of conntrack: media that comes before the answer is `related`.
    Expectation,
    /// No entries are made: the firewall has a rule of its own for what the maps translate.
    Rule,
}

/// How media between two phones behind the same NAT goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaLocal {
    /// Directly, when both came in by the same interface.
    Direct,
    /// Always by the router.
    Hairpin,
}

/// What becomes of descriptions with ICE (RFC 8445, RFC 8839).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaIce {
    /// They are mapped as all others, host candidates with them: one more way that works at once, and the only one if
    /// the far end turns out not to speak ICE, or the phone has no STUN server.
    Translate,
    /// They pass as they are: the phones' own STUN and TURN servers find the way. For networks where the default
    /// destination must stay what the phone measured. A far end without ICE then hears nothing.
    Leave,
}

/// What happens to a message when a kernel command fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// It passes untouched.
    Pass,
    /// It is dropped; SIP over UDP repeats it.
    Drop,
}

/// How large each table may become, in entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Signalling flows.
    pub flows: usize,
    /// Transactions in progress.
    pub transactions: usize,
    /// Calls.
    pub calls: usize,
    /// Registrations.
    pub registrations: usize,
    /// Media bindings.
    pub bindings: usize,
    /// Media bindings of one inside host.
    pub bindings_per_host: usize,
    /// Flows, calls and registrations of one inside host, each.
    pub per_host: usize,
    /// Transactions of one inside host. Each is kept for half a minute after its answer, so that a host which makes one
    /// call after the other has many more of them than calls.
    pub transactions_per_host: usize,
    /// Pinholes that one inside host may open in a minute.
    pub openings_per_minute: u32,
    /// Packets that wait for the kernel at one time.
    pub parked: usize,
    /// TCP connections.
    pub connections: usize,
    /// Bytes of TCP streams that are kept: incomplete messages, and what nobody has acknowledged.
    pub tcp_bytes: usize,
    /// The same for one inside host.
    pub tcp_bytes_per_host: usize,
    /// TCP segments that are held at one time. The shell has room for as many packets without a verdict.
    pub tcp_held: usize,
    /// The same for one inside host.
    pub tcp_held_per_host: usize,
}

/// An address block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Any address of the block.
    pub address: IpAddr,
    /// Leading bits that count: at most 32 for IPv4, 128 for IPv6.
    pub bits: u8,
}

impl Prefix {
    /// Whether `address` lies in the block. Families never match each other.
    pub fn contains(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(block), IpAddr::V4(it)) => {
                let shift = 32u32.saturating_sub(u32::from(self.bits));
                (block.to_bits() ^ it.to_bits()).checked_shr(shift).unwrap_or(0) == 0
            }
            (IpAddr::V6(block), IpAddr::V6(it)) => {
                let shift = 128u32.saturating_sub(u32::from(self.bits));
                (block.to_bits() ^ it.to_bits()).checked_shr(shift).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            ports: 16384..=32767,
            quarantine: Duration::from_secs(64),
            half_open: Duration::from_secs(32),
            pinhole_lifetime: Duration::from_secs(3600),
            media_inactivity: Duration::from_secs(900),
            media_source: MediaSource::Negotiated,
            admission: Admission::Pinned,
            media_tcp: false,
            media_local: MediaLocal::Direct,
            media_ice: MediaIce::Translate,
            denied_ports: DENIED_PORTS.to_vec(),
            inside_hosts: Vec::new(),
            servers: Vec::new(),
            registrars: Vec::new(),
            hands_off: Vec::new(),
            advertise: Vec::new(),
            on_failure: OnFailure::Pass,
            tcp_patience: Duration::from_secs(20),
            limits: Limits::default(),
            seed: [0x5349_5020_414c_4720, 0x646f_206e_6f20_6861],
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flows: 131_072,
            transactions: 131_072,
            calls: 32_768,
            registrations: 131_072,
            bindings: 65_536,
            bindings_per_host: 4096,
            per_host: 4096,
            transactions_per_host: 32_768,
            openings_per_minute: 12_000,
            parked: 1024,
            connections: 32_768,
            tcp_bytes: 64 << 20,
            tcp_bytes_per_host: 8 << 20,
            tcp_held: 768,
            tcp_held_per_host: 384,
        }
    }
}

/// Services above port 1023 that must not be reachable by a pinhole: RADIUS, SSDP, NFS, SIP, databases, RDP, WS-Discovery,
/// mDNS, IPsec NAT-T, memcached and their like.
const DENIED_PORTS: &[RangeInclusive<u16>] = &[
    1433..=1434,
    1701..=1701,
    1723..=1723,
    1812..=1813,
    1900..=1900,
    2049..=2049,
    3306..=3306,
    3389..=3389,
    3702..=3702,
    4500..=4500,
    5060..=5061,
    5353..=5353,
    5432..=5432,
    6379..=6379,
    11211..=11211,
    27017..=27017,
];
