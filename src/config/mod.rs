//! The administrator's settings: `/etc/sipalg/sipalg.toml`, all of it optional.
//!
//! One idea: a file is first read as it stands ([`raw`]), then turned into [`Config`], which holds only values that
//! make sense and that the parts use as they are. A key that does not exist is refused, with the one that was
//! probably meant: a misspelt setting must not be silently the default.
//!
//! It reads no environment, looks up no name and does not ask the kernel; what the kernel can do is the business of
//! [`kernel::probe`](crate::kernel). [`Config::check`] lists what is legal but strange.

pub mod keys;
pub mod raw;
pub mod value;
mod warnings;

use std::fs;
use std::io;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use crate::alg;
use raw::Raw;
pub use raw::{Admission as Wish, Backend, LogTarget, Overload};
pub use value::{Place, User};

/// Where the settings are, unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/sipalg/sipalg.toml";

/// The longest `sip.tcp-patience`, in seconds: twice that is below what the shell keeps a packet without a verdict for (60 s),
/// and it is below what a transaction lives (32 s).
const LONGEST_PATIENCE: u64 = 25;
/// The most of `limits.connections`: the ruleset's maps have room for so many (`lines4` in `sipalg.nft`).
const MOST_CONNECTIONS: u32 = 131_072;
/// The most of `limits.tcp-held`: the shell keeps 1024 segments without a verdict, and some of them wait for the kernel.
const MOST_HELD: u32 = 896;

/// A commented file that sets every key to its default.
pub const SAMPLE: &str = include_str!("sample.toml");

/// Settings that make sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The engine's.
    pub policy: alg::Policy,
    /// UDP ports of the provider's side whose packets are queued.
    pub sip_ports: Vec<RangeInclusive<u16>>,
    /// TCP ports of the provider's side; none: no TCP connection is looked at.
    pub tcp_ports: Vec<RangeInclusive<u16>>,
    /// The queue's.
    pub queue: Queue,
    /// The log's.
    pub log: Log,
    /// Whether conntrack shall count the packets of each stream.
    pub accounting: bool,
    /// How media gets through the firewall; what `auto` means says the kernel.
    pub admission: raw::Admission,
    /// Whether established media takes the kernel's short way.
    pub offload: bool,
    /// Where to keep what a restart must know.
    pub state_file: Place,
    /// Whom to run as.
    pub user: User,
    /// The control socket.
    pub control_socket: Place,
    /// The file as it was written, to tell later which keys have changed.
    pub raw: Raw,
}

/// How packets come from the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Which reader.
    pub backend: Backend,
    /// The first of six consecutive queue numbers, in the order of [`alg::QueuePoint::ALL`].
    pub base: u16,
    /// Packets that one queue holds in the kernel.
    pub max_length: u32,
    /// Receive buffer of the socket, in bytes.
    pub receive_buffer: usize,
    /// What happens to packets that find the queue full.
    pub overload: Overload,
    /// Whether first packets come with their conntrack entry, if the kernel can do that.
    pub conntrack: bool,
}

/// Where to log, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Where to.
    pub target: LogTarget,
    /// Levels, as tracing-subscriber's filter takes them.
    pub level: String,
}

/// A configuration that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be read.
    #[error("can't read {}: {source}", file.display())]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something in the file is wrong.
    #[error("{}: {what}", location(file.as_deref(), *line))]
    Wrong {
        /// Which file; `None`: the text was not from a file.
        file: Option<PathBuf>,
        /// Which line, counted from 1, if it is about one.
        line: Option<usize>,
        /// What is wrong, and what would be right.
        what: String,
    },
}

impl Config {
    /// Reads the file at `path`; without a path [`DEFAULT_PATH`], where a file that is not there means the defaults.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn load(path: Option<&Path>) -> Result<Self, Error> {
        let file = path.unwrap_or(Path::new(DEFAULT_PATH));
        match fs::read_to_string(file) {
            Ok(text) => Self::parse(&text).map_err(|error| error.in_file(file)),
            Err(error) if path.is_none() && error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(Error::Unreadable { file: file.to_owned(), source }),
        }
    }

    /// Reads settings from TOML text.
    ///
    /// # Errors
    /// [`Error::Wrong`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let at = |span: Option<Range<usize>>, what: String| Error::Wrong {
            file: None,
            line: span.map(|span| line_of(text, span.start)),
            what,
        };
        let table = DeTable::parse(text).map_err(|error| at(error.span(), error.message().to_owned()))?;
        if let Some((span, what)) = keys::first_unknown(table.get_ref()) {
            return Err(at(Some(span), what));
        }
        let raw: Raw = toml::from_str(text).map_err(|error| at(error.span(), plain(error.message())))?;
        Self::new(raw)
            .map_err(|Unfit { key, what }| at(position(table.get_ref(), key), format!("{key}: {what}")))
    }

    /// Checks that values fit, alone and with each other.
    ///
    /// # Errors
    /// [`Unfit`] names the key and what it must be.
    pub fn new(raw: Raw) -> Result<Self, Unfit> {
        let written = raw.clone();
        let Raw { on_failure, state_file, user, sip, nat, media, queue, limits, control, log } = raw;
        let unfit = |key, what: String| Err(Unfit { key, what });

        if sip.ports.is_empty() {
            return unfit("sip.ports", "must name at least one port".to_owned());
        }
        let ports = media.ports.0;
        if *ports.start() < 1024 {
            return unfit(
                "media.ports",
                "must begin at 1024 or above; the ports below are for services".to_owned(),
            );
        }
        if ports.start() % 2 != 0 || ports.end() % 2 != 1 {
            let (first, last) = (ports.start() & !1, ports.end() | 1);
            return unfit(
                "media.ports",
                format!(
                    "must begin with an even port and end with an odd one, as RTP and RTCP go in pairs: \"{first}-{last}\""
                ),
            );
        }
        if let Some(sip) =
            sip.ports.iter().find(|sip| sip.0.start() <= ports.end() && ports.start() <= sip.0.end())
        {
            return unfit("media.ports", format!("must not contain the signalling port {sip} of sip.ports"));
        }
        let advertise: Vec<alg::Prefix> = nat.advertise.into_iter().map(|block| block.0).collect();
        for (at, block) in advertise.iter().enumerate() {
            let whole = if block.address.is_ipv4() { 32 } else { 128 };
            let twice = advertise.iter().take(at).any(|it| it.address.is_ipv4() == block.address.is_ipv4());
            if block.bits != whole || twice || !alg::guard::is_unicast(block.address) {
                let what = "must be single addresses, at most one of IPv4 and one of IPv6";
                return unfit("nat.advertise", what.to_owned());
            }
        }
        for (key, span, least) in [
            ("media.quarantine", media.quarantine, 1),
            ("media.half-open", media.half_open, 1),
            ("media.inactivity", media.inactivity, 10),
            ("media.pinhole-lifetime", media.pinhole_lifetime, 60),
        ] {
            if span.0.as_secs() < least {
                return unfit(key, format!("must be at least {least}s"));
            }
        }
        if !(1..=LONGEST_PATIENCE).contains(&sip.tcp_patience.0.as_secs()) {
            let what = format!(
                "must be between 1s and {LONGEST_PATIENCE}s; then the message's transaction is given up anyway"
            );
            return unfit("sip.tcp-patience", what);
        }
        if queue.base > u16::MAX - 5 {
            return unfit("queue.base", "must be at most 65530: there are six queues".to_owned());
        }
        if !(16..=65_536).contains(&queue.max_length) {
            return unfit(
                "queue.max-length",
                "must be between 16 and 65536; the kernel holds no more".to_owned(),
            );
        }
        if !(64 << 10..=1 << 30).contains(&queue.receive_buffer.0) {
            return unfit("queue.receive-buffer", "must be between 64KiB and 1024MiB".to_owned());
        }
        for (key, entries) in [
            ("limits.flows", limits.flows),
            ("limits.transactions", limits.transactions),
            ("limits.calls", limits.calls),
            ("limits.registrations", limits.registrations),
            ("limits.bindings", limits.bindings),
            ("limits.bindings-per-host", limits.bindings_per_host),
            ("limits.per-host", limits.per_host),
            ("limits.transactions-per-host", limits.transactions_per_host),
            ("limits.openings-per-minute", limits.openings_per_minute),
            ("limits.parked", limits.parked),
        ] {
            if !(1..=1 << 24).contains(&entries) {
                return unfit(key, "must be between 1 and 16777216".to_owned());
            }
        }
        if !(1..=MOST_CONNECTIONS).contains(&limits.connections) {
            let what = format!("must be between 1 and {MOST_CONNECTIONS}; the ruleset has room for no more");
            return unfit("limits.connections", what);
        }
        for (key, bytes) in
            [("limits.tcp-bytes", limits.tcp_bytes), ("limits.tcp-bytes-per-host", limits.tcp_bytes_per_host)]
        {
            if !(64 << 10..=1 << 30).contains(&bytes.0) {
                return unfit(key, "must be between 64KiB, the longest message, and 1024MiB".to_owned());
            }
        }
        for (key, segments) in
            [("limits.tcp-held", limits.tcp_held), ("limits.tcp-held-per-host", limits.tcp_held_per_host)]
        {
            if !(1..=MOST_HELD).contains(&segments) {
                let what = format!("must be between 1 and {MOST_HELD}; there is room for no more packets");
                return unfit(key, what);
            }
        }

        Ok(Self {
            policy: alg::Policy {
                ports,
                quarantine: media.quarantine.0,
                half_open: media.half_open.0,
                pinhole_lifetime: media.pinhole_lifetime.0,
                media_inactivity: media.inactivity.0,
                media_source: match media.source {
                    raw::Source::Negotiated => alg::MediaSource::Negotiated,
                    raw::Source::Any => alg::MediaSource::Any,
                },
                // What `auto` means is known when the kernel has been asked.
                admission: match media.admission {
                    raw::Admission::Auto | raw::Admission::Pinned => alg::Admission::Pinned,
                    raw::Admission::Expectation => alg::Admission::Expectation,
                    raw::Admission::Rule => alg::Admission::Rule,
                },
                media_tcp: media.tcp,
                media_local: match media.local {
                    raw::Local::Direct => alg::MediaLocal::Direct,
                    raw::Local::Hairpin => alg::MediaLocal::Hairpin,
                },
                media_ice: match media.ice {
                    raw::Ice::Translate => alg::MediaIce::Translate,
                    raw::Ice::Leave => alg::MediaIce::Leave,
                },
                denied_ports: media.denied_ports.into_iter().map(|ports| ports.0).collect(),
                inside_hosts: media.inside_hosts.into_iter().map(|block| block.0).collect(),
                servers: sip.servers.into_iter().map(|block| block.0).collect(),
                registrars: sip.registrars.into_iter().map(|block| block.0).collect(),
                hands_off: sip.hands_off.into_iter().map(|block| block.0).collect(),
                advertise: advertise.into_iter().map(|block| block.address).collect(),
                on_failure: match on_failure {
                    raw::OnFailure::Pass => alg::OnFailure::Pass,
                    raw::OnFailure::Drop => alg::OnFailure::Drop,
                },
                limits: alg::Limits {
                    flows: limits.flows as usize,
                    transactions: limits.transactions as usize,
                    calls: limits.calls as usize,
                    registrations: limits.registrations as usize,
                    bindings: limits.bindings as usize,
                    bindings_per_host: limits.bindings_per_host as usize,
                    per_host: limits.per_host as usize,
                    transactions_per_host: limits.transactions_per_host as usize,
                    openings_per_minute: limits.openings_per_minute,
                    parked: limits.parked as usize,
                    connections: limits.connections as usize,
                    tcp_bytes: limits.tcp_bytes.0,
                    tcp_bytes_per_host: limits.tcp_bytes_per_host.0,
                    tcp_held: limits.tcp_held as usize,
                    tcp_held_per_host: limits.tcp_held_per_host as usize,
                },
                seed: alg::Policy::default().seed,
                tcp_patience: sip.tcp_patience.0,
            },
            sip_ports: sip.ports.into_iter().map(|ports| ports.0).collect(),
            tcp_ports: sip.tcp_ports.into_iter().map(|ports| ports.0).collect(),
            queue: Queue {
                backend: queue.backend,
                base: queue.base,
                max_length: queue.max_length,
                receive_buffer: queue.receive_buffer.0,
                overload: queue.overload,
                conntrack: queue.conntrack,
            },
            log: Log { target: log.target, level: log.level.0 },
            accounting: media.accounting,
            admission: media.admission,
            offload: media.offload,
            state_file,
            user,
            control_socket: control.socket,
            raw: written,
        })
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new(Raw::default())
            .expect("the defaults fit each other: a test parses the sample, which has them all")
    }
}

/// A value that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {what}")]
pub struct Unfit {
    /// `section.key`.
    pub key: &'static str,
    /// What it must be.
    pub what: String,
}

impl Error {
    fn in_file(self, path: &Path) -> Self {
        match self {
            Self::Wrong { line, what, .. } => Self::Wrong { file: Some(path.to_owned()), line, what },
            unreadable @ Self::Unreadable { .. } => unreadable,
        }
    }
}

/// Where `section.key` stands in the file, if it does.
fn position(file: &DeTable<'_>, path: &str) -> Option<Range<usize>> {
    let (section, key) = path.split_once('.')?;
    let section = file.get(section)?.get_ref().as_table()?;
    section.get(key).map(toml::Spanned::span)
}

/// The line that holds byte `at`, counted from 1.
fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

fn location(file: Option<&Path>, line: Option<usize>) -> String {
    match (file, line) {
        (Some(file), Some(line)) => format!("{}, line {line}", file.display()),
        (Some(file), None) => file.display().to_string(),
        (None, Some(line)) => format!("line {line}"),
        (None, None) => "configuration".to_owned(),
    }
}

/// The parser's words for types are those of the language that this is written in.
fn plain(message: &str) -> String {
    let (what, expected) = message.rsplit_once(", expected ").unwrap_or((message, ""));
    match expected {
        "u16" | "u32" | "u64" | "usize" => format!("{what}, expected a whole number"),
        "a boolean" => format!("{what}, expected true or false"),
        "a sequence" => format!("{what}, expected a list: [\u{2026}]"),
        _ => message.to_owned(),
    }
}
