//! The file as it is written: one field for each key, nothing checked against anything else.
//!
//! The defaults are those of [`alg::Policy`], so that they stand in one place. What the values mean, and whether they
//! fit together, is decided by [`Config::new`](super::Config::new). Keys are the field names in kebab-case;
//! `sample.toml` explains each, and the tests hold both lists equal.

use serde::{Deserialize, Serialize};

use super::value::{Block, Level, Place, Ports, Seconds, Size, User};
use crate::alg;

/// The whole file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Raw {
    /// What happens to a message when the kernel refuses what it needs.
    pub on_failure: OnFailure,
    /// Where to keep what a restart must know.
    pub state_file: Place,
    /// Whom to run as.
    pub user: User,
    /// `[sip]`
    pub sip: Sip,
    /// `[nat]`
    pub nat: Nat,
    /// `[media]`
    pub media: Media,
    /// `[queue]`
    pub queue: Queue,
    /// `[limits]`
    pub limits: Limits,
    /// `[control]`
    pub control: Control,
    /// `[log]`
    pub log: Log,
}

/// `[sip]`: which messages are looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Sip {
    /// Server side UDP ports of signalling.
    pub ports: Vec<Ports>,
    /// Server side TCP ports of signalling.
    pub tcp_ports: Vec<Ports>,
    /// How long segments wait for the rest of their message.
    pub tcp_patience: Seconds,
    /// If not empty: the only servers whose messages are touched.
    pub servers: Vec<Block>,
    /// If not empty: the only servers that are believed about registrations.
    pub registrars: Vec<Block>,
    /// Servers whose messages pass untouched.
    pub hands_off: Vec<Block>,
}

/// `[nat]`: what is known of the NAT beside what it does here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Nat {
    /// Addresses to write into messages instead of those that are learned.
    pub advertise: Vec<Block>,
}

/// `[media]`: pinholes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Media {
    /// Public ports.
    pub ports: Ports,
    /// How long a released public port stays closed.
    pub quarantine: Seconds,
    /// Who may send.
    pub source: Source,
    /// How media gets through the firewall.
    pub admission: Admission,
    /// Whether the kernel carries established media past the firewall's rules.
    pub offload: bool,
    /// Whether media over TCP gets doors too.
    pub tcp: bool,
    /// The way between two phones behind the same NAT.
    pub local: Local,
    /// Descriptions with ICE.
    pub ice: Ice,
    /// When a silent call is over.
    pub inactivity: Seconds,
    /// Kernel lifetime of a pinhole.
    pub pinhole_lifetime: Seconds,
    /// Life of what was opened for a request that nobody answers.
    pub half_open: Seconds,
    /// Inside ports that never get a pinhole.
    pub denied_ports: Vec<Ports>,
    /// Inside hosts that others may speak for.
    pub inside_hosts: Vec<Block>,
    /// Whether conntrack counts the packets of each stream.
    pub accounting: bool,
}

/// `[queue]`: how packets come from the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Queue {
    /// Which reader.
    pub backend: Backend,
    /// The first of six queue numbers.
    pub base: u16,
    /// Packets that one queue holds.
    pub max_length: u32,
    /// Socket receive buffer.
    pub receive_buffer: Size,
    /// What happens to packets that find the queue full.
    pub overload: Overload,
    /// Whether conntrack entries are asked for.
    pub conntrack: bool,
}

/// `[limits]`: how large each table may become.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Limits {
    /// Signalling flows.
    pub flows: u32,
    /// Transactions in progress.
    pub transactions: u32,
    /// Calls.
    pub calls: u32,
    /// Registrations.
    pub registrations: u32,
    /// Pinholes.
    pub bindings: u32,
    /// Pinholes of one inside host.
    pub bindings_per_host: u32,
    /// Entries of one inside host in each other table.
    pub per_host: u32,
    /// Transactions of one inside host.
    pub transactions_per_host: u32,
    /// Pinholes that one inside host may open in a minute.
    pub openings_per_minute: u32,
    /// Packets that wait for the kernel.
    pub parked: u32,
    /// TCP connections.
    pub connections: u32,
    /// Bytes of TCP streams that are kept.
    pub tcp_bytes: Size,
    /// The same for one inside host.
    pub tcp_bytes_per_host: Size,
    /// TCP segments that wait for the rest of their message.
    pub tcp_held: u32,
    /// The same for one inside host.
    pub tcp_held_per_host: u32,
}

/// `[control]`: how others ask the running gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Control {
    /// The socket.
    pub socket: Place,
}

/// `[log]`: where and what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Log {
    /// Where to.
    pub target: LogTarget,
    /// What.
    pub level: Level,
}

/// Values of `on-failure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// The message passes untouched.
    Pass,
    /// The message is dropped; SIP over UDP repeats it.
    Drop,
}

/// Values of `media.source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The addresses that the far end's SDP names.
    Negotiated,
    /// Everybody, for the life of the call.
    Any,
}

/// Values of `media.admission`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Admission {
    /// `Expectation` where the kernel can do that, else `Pinned`.
    Auto,
    /// Entries are made, and media before the answer is expected.
    Expectation,
    /// Entries are made.
    Pinned,
    /// The firewall has a rule.
    Rule,
}

/// Values of `media.local`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Local {
    /// Directly.
    Direct,
    /// By the router.
    Hairpin,
}

/// Values of `media.ice`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ice {
    /// Mapped like all others, with their host candidates.
    Translate,
    /// Left alone.
    Leave,
}

/// Values of `queue.backend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// Our own batched socket.
    Netlink,
    /// The nfq crate.
    Nfq,
}

/// Values of `queue.overload`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overload {
    /// Drop.
    Drop,
    /// Let it pass untouched.
    Pass,
}

/// Values of `log.target`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogTarget {
    /// journald when started by systemd, standard error otherwise.
    Auto,
    /// journald.
    Journald,
    /// Standard error.
    Stderr,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            on_failure: match alg::Policy::default().on_failure {
                alg::OnFailure::Pass => OnFailure::Pass,
                alg::OnFailure::Drop => OnFailure::Drop,
            },
            state_file: Place::Auto,
            user: User::Auto,
            sip: Sip::default(),
            nat: Nat::default(),
            media: Media::default(),
            queue: Queue::default(),
            limits: Limits::default(),
            control: Control::default(),
            log: Log::default(),
        }
    }
}

impl Default for Sip {
    fn default() -> Self {
        Self {
            ports: vec![Ports(5060..=5060)],
            tcp_ports: vec![Ports(5060..=5060)],
            tcp_patience: Seconds(alg::Policy::default().tcp_patience),
            servers: alg::Policy::default().servers.into_iter().map(Block).collect(),
            registrars: alg::Policy::default().registrars.into_iter().map(Block).collect(),
            hands_off: alg::Policy::default().hands_off.into_iter().map(Block).collect(),
        }
    }
}

impl Default for Nat {
    fn default() -> Self {
        let single = |address: std::net::IpAddr| {
            Block(alg::Prefix { address, bits: if address.is_ipv4() { 32 } else { 128 } })
        };
        Self { advertise: alg::Policy::default().advertise.into_iter().map(single).collect() }
    }
}

impl Default for Media {
    fn default() -> Self {
        let policy = alg::Policy::default();
        Self {
            ports: Ports(policy.ports),
            quarantine: Seconds(policy.quarantine),
            source: match policy.media_source {
                alg::MediaSource::Negotiated => Source::Negotiated,
                alg::MediaSource::Any => Source::Any,
            },
            admission: Admission::Auto,
            offload: false,
            tcp: policy.media_tcp,
            local: match policy.media_local {
                alg::MediaLocal::Direct => Local::Direct,
                alg::MediaLocal::Hairpin => Local::Hairpin,
            },
            ice: match policy.media_ice {
                alg::MediaIce::Translate => Ice::Translate,
                alg::MediaIce::Leave => Ice::Leave,
            },
            inactivity: Seconds(policy.media_inactivity),
            pinhole_lifetime: Seconds(policy.pinhole_lifetime),
            half_open: Seconds(policy.half_open),
            denied_ports: policy.denied_ports.into_iter().map(Ports).collect(),
            inside_hosts: policy.inside_hosts.into_iter().map(Block).collect(),
            accounting: true,
        }
    }
}

impl Default for Queue {
    /// 5060 is easy to remember and far from 0, where other programs start. The sizes are those of
    /// [`queue::Options`](crate::queue::Options), which has the reasons.
    fn default() -> Self {
        Self {
            backend: Backend::Netlink,
            base: 5060,
            max_length: 8192,
            receive_buffer: Size(32 << 20),
            overload: Overload::Drop,
            conntrack: true,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        let limits = alg::Limits::default();
        let entries = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            flows: entries(limits.flows),
            transactions: entries(limits.transactions),
            calls: entries(limits.calls),
            registrations: entries(limits.registrations),
            bindings: entries(limits.bindings),
            bindings_per_host: entries(limits.bindings_per_host),
            per_host: entries(limits.per_host),
            transactions_per_host: entries(limits.transactions_per_host),
            openings_per_minute: limits.openings_per_minute,
            parked: entries(limits.parked),
            connections: entries(limits.connections),
            tcp_bytes: Size(limits.tcp_bytes),
            tcp_bytes_per_host: Size(limits.tcp_bytes_per_host),
            tcp_held: entries(limits.tcp_held),
            tcp_held_per_host: entries(limits.tcp_held_per_host),
        }
    }
}

impl Default for Control {
    fn default() -> Self {
        Self { socket: Place::Auto }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { target: LogTarget::Auto, level: Level("info".to_owned()) }
    }
}
