//! Carries out the engine's commands in the kernel.
//!
//! Everything that sipalg has in the kernel is of two kinds: the table `inet sipalg` ([`ruleset`], its maps and sets:
//! [`maps`]) and conntrack entries ([`conntrack`]). [`Kernel`] turns each [`Command`] into elements and entries; whatever
//! it makes has a timeout, so that nothing stays open when the daemon dies. [`events`] tells what others did to either,
//! [`probe`] what this kernel can do, [`fake`] stands in where there is no kernel to change.
//!
//! Nothing here decides anything about calls, reads packets or knows SIP. All netlink sockets belong to the network
//! namespace of the thread that opened them.

pub mod addresses;
pub mod admission;
mod conntrack;
mod cthelper;
mod ctmessage;
mod element;
pub mod events;
mod expectation;
pub mod fake;
mod ledger;
mod libnftables;
pub mod links;
mod listeners;
pub mod maps;
mod nft;
mod parting;
mod pin;
pub mod probe;
mod rules;
pub mod ruleset;
pub mod seccomp;
mod shortcut;
mod socket;
pub mod traffic;

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use conntrack::Conntrack;
use ctmessage::Tuple;
use ledger::Ledger;
use socket::NetlinkSocket;

use crate::alg::{
    Command, Executor, Failure, FlowKey, Held, Op, Outcome, Outside, Pinhole, Reply, Transport,
};

/// Settings of [`Kernel`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelSettings {
    /// First lifetime of a pinned flow; from its first packet on conntrack's own UDP timeouts hold. Long enough for the
    /// slowest phone to begin; parts of a second are rounded up.
    pub pin_lifetime: Duration,
    /// Whether the router's firewall lets media in by a rule of its own: then no entries are made, and a pin only makes
    /// sure that none is in the way.
    pub by_rule: bool,
}

impl Default for KernelSettings {
    fn default() -> Self {
        Self { pin_lifetime: Duration::from_secs(180), by_rule: false }
    }
}

/// What went wrong, for a person who can do something about it.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The kernel refuses: no CAP_NET_ADMIN in this network namespace.
    #[error("{0}: the kernel does not permit it")]
    NotPermitted(&'static str),
    /// The kernel lacks something.
    #[error("this kernel lacks {0}")]
    Unsupported(String),
    /// The ruleset was refused.
    #[error("nft refused the ruleset:\n{0}")]
    Refused(String),
    /// Anything else that the system said.
    #[error("{doing}: {source}")]
    System {
        /// What we were about to do.
        doing: &'static str,
        /// What the system answered.
        source: io::Error,
    },
}

impl KernelError {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NotPermitted(_) => "run as root, or with CAP_NET_ADMIN in the router's network namespace",
            Self::Unsupported(_) => {
                "use a kernel with this option, or load its module; `sipalg check` lists all that is needed"
            }
            Self::Refused(_) => {
                "run `sipalg check`; if a table `inet sipalg` of another version is loaded, `sipalg unload` first"
            }
            Self::System { .. } => "`sipalg check` tells what this kernel can do",
        }
    }

    /// The error of a system call or a netlink request.
    fn system(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::NotPermitted(doing),
            _ => Self::System { doing, source },
        }
    }
}

/// The kernel's side of the gateway.
#[derive(Debug)]
pub struct Kernel {
    nft: NetlinkSocket,
    conntrack: Conntrack,
    ledger: Ledger,
    /// Seconds.
    pin_lifetime: u32,
    by_rule: bool,
    /// When the kernel is told next that we are at work, if connections are followed.
    next_beat: Option<Instant>,
}

impl Kernel {
    /// Opens the sockets. The ruleset need not be there yet.
    ///
    /// # Errors
    /// No CAP_NET_ADMIN, or a kernel without nf_tables or ctnetlink.
    pub fn open(settings: &KernelSettings) -> Result<Self, KernelError> {
        let mut nft = NetlinkSocket::netfilter().map_err(KernelError::system("opening a netlink socket"))?;
        let zones = rules::uses_zones(&mut nft).map_err(KernelError::system("reading the rules"))?;
        let conntrack = Conntrack::open(zones).map_err(KernelError::system("opening a conntrack socket"))?;
        Ok(Self {
            nft,
            conntrack,
            ledger: Ledger::default(),
            pin_lifetime: seconds(settings.pin_lifetime),
            by_rule: settings.by_rule,
            next_beat: None,
        })
    }

    /// Puts back every element that should be there by what has been carried out so far: after
    /// [`ruleset::install`] has mended the table. Answers how many commands that took.
    ///
    /// # Errors
    /// The first command that failed; the others were carried out.
    pub fn restore(&mut self) -> Result<usize, KernelError> {
        let commands = self.ledger.commands(Instant::now());
        let outcomes = maps::execute(&mut self.nft, commands.iter());
        match outcomes.into_iter().flatten().find_map(Result::err) {
            None => Ok(commands.len()),
            Some(failure) => {
                let source = io::Error::other(failure);
                Err(KernelError::System { doing: "putting elements back", source })
            }
        }
    }

    /// What the maps and sets hold now. From now on the connections that are followed are this program's: it is alive for
    /// them.
    ///
    /// # Errors
    /// The table is not there, or the kernel refuses.
    pub fn held(&mut self) -> Result<Held, KernelError> {
        let held = maps::held(&mut self.nft).map_err(KernelError::system("listing the maps and sets"))?;
        let now = Instant::now();
        for line in &held.followed {
            self.ledger.follow(now, *line, FOLLOWED);
        }
        self.keep_alive(now);
        Ok(held)
    }

    /// The netlink address under which this makes its changes to nftables.
    fn port(&self) -> u32 {
        self.nft.port()
    }

    /// A command about conntrack; nothing for the others.
    fn track(&mut self, op: &Op) -> Outcome {
        let conntrack = &mut self.conntrack;
        match op {
            Op::Pin { flow, signalling } if self.by_rule => {
                let is_ours = || self.ledger.owns(flow.public);
                pin::make_way(conntrack, flow, signalling, is_ours).map(|()| None)
            }
            Op::Pin { flow, signalling } => {
                let is_ours = || self.ledger.owns(flow.public);
                pin::pin(conntrack, flow, signalling, self.pin_lifetime, is_ours).map(|()| None)
            }
            Op::Unpin { flow } => pin::unpin(conntrack, flow).map(|()| None),
            Op::Lookup { transport, source, destination } => {
                conntrack.find(Tuple::new(*transport, *source, *destination)).map(Some)
            }
            Op::Recognise { public, host } => conntrack.find_behind(public.0, *host).map(Some),
            Op::Sustain { flow, lifetime } => {
                let tuple = Tuple::new(flow.transport, flow.inside.0, flow.far);
                conntrack.set_timeout(tuple, seconds(*lifetime)).map(|()| None)
            }
            Op::Expect { public, source, class, signalling, lifetime } => {
                let expected = expectation::Expected { source: *source, class: *class, signalling };
                let public = public.iter().map(|Outside(it)| *it);
                expectation::create(conntrack, &expected, public, seconds(*lifetime)).map(|()| None)
            }
            Op::Purge { address } => purge(conntrack, *address).map(|()| None),
            Op::Reroute { flow, public, from, to } => {
                reroute(conntrack, flow, *public, [*from, *to]).map(|()| None)
            }
            // Carried out by now.
            Op::Unexpect { .. }
            | Op::Open { .. }
            | Op::Renew { .. }
            | Op::Close { .. }
            | Op::Admit { .. }
            | Op::Dismiss { .. }
            | Op::Follow { .. }
            | Op::Unfollow { .. }
            | Op::Reset { .. } => Ok(None),
        }
        .map(|found| found.map_or(Reply::Done, |entry| Reply::Found(entry.map(|entry| entry.tuples()))))
        .map_err(|error| failure_of(&error))
    }

    /// Takes back what the commands do not expect any more. Answers, for each of these commands, what it was used for.
    fn unexpect(&mut self, commands: &[Command]) -> Vec<io::Result<Vec<SocketAddr>>> {
        let ops = commands.iter().map(|command| &command.op);
        ops.filter_map(|op| match op {
            Op::Unexpect { public, signalling } => {
                Some(expectation::remove(&mut self.conntrack, signalling, public))
            }
            _ => None,
        })
        .collect()
    }
}

impl Executor for Kernel {
    /// All elements first, in their order and as one transaction where possible: a pin may rely on the pinholes of its
    /// round. Then conntrack, in order. But what is not expected any more is so before the elements: an expected packet
    /// passes the guard, and behind it nothing may be missing that translates it.
    fn execute(&mut self, commands: &[Command], outcomes: &mut Vec<Outcome>) {
        let taken: Vec<_> = commands.iter().map(|command| has_taken_port(&command.op)).collect();
        let free = commands.iter().zip(&taken).filter(|(_, taken)| !**taken).map(|(command, _)| &command.op);
        let mut used = self.unexpect(commands).into_iter();
        let mut changed = maps::execute(&mut self.nft, free).into_iter();
        let now = Instant::now();
        outcomes.extend(commands.iter().zip(taken).map(|(command, taken)| {
            if taken {
                return Err(Failure::PortInUse);
            }
            match changed.next().flatten() {
                Some(Ok(())) => {
                    self.ledger.enter(now, &command.op);
                    Ok(Reply::Done)
                }
                Some(Err(failure)) => Err(failure),
                None if matches!(command.op, Op::Unexpect { .. }) => {
                    let used = used.next().unwrap_or_else(|| Ok(Vec::new()));
                    let cleared = used.and_then(|used| expectation::clear(&mut self.conntrack, &used));
                    cleared.map(|()| Reply::Done).map_err(|error| failure_of(&error))
                }
                None => self.track(&command.op),
            }
        }));
    }

    /// If it can't be told, that says the kernel's silence: connections are reset.
    fn keep_alive(&mut self, now: Instant) -> Option<Instant> {
        if !self.ledger.follows() {
            self.next_beat = None;
        } else if self.next_beat.is_none_or(|due| due <= now) {
            if let Err(error) = maps::beat(&mut self.nft) {
                tracing::warn!(%error, "the kernel can't be told that TCP connections are still translated");
            }
            self.next_beat = now.checked_add(BEAT);
        }
        self.next_beat
    }
}

/// How often the kernel is told that somebody is at work.
const BEAT: Duration = Duration::from_millis(300);
/// How long a connection that an earlier run followed is believed to be followed, unless the engine says more.
const FOLLOWED: Duration = Duration::from_secs(8 * 86_400);

fn failure_of(error: &io::Error) -> Failure {
    match error.raw_os_error() {
        Some(libc::ENOENT) => Failure::NotFound,
        Some(libc::ENOMEM | libc::ENFILE | libc::ENOSPC) => Failure::Full,
        code => Failure::Kernel(code.unwrap_or(libc::EIO)),
    }
}

/// Deletes the entries whose translation needs an address that this machine does not have any more: masquerade's go by
/// themselves, those that stem from a pin or from a map do not.
fn purge(conntrack: &mut Conntrack, address: IpAddr) -> io::Result<()> {
    let mut stale = Vec::new();
    conntrack.dump(|entry| {
        let (original, reply) = (entry.original, entry.reply);
        let source = reply.destination != original.source && reply.destination.ip() == address;
        let destination = original.destination != reply.source && original.destination.ip() == address;
        if original.transport == Transport::Udp && (source || destination) {
            stale.push(entry);
        }
    })?;
    stale.iter().try_for_each(|entry| conntrack.delete(entry))
}

/// Deletes the entry of a flow that leaves by another interface, if its address was the old interface's own. The kernel
/// does the same with what masquerade made; an address that stands in a rule would stay for as long as the flow lives.
///
/// # Errors
/// ENOENT if it may stay.
fn reroute(
    conntrack: &mut Conntrack,
    flow: &FlowKey,
    public: Outside,
    [from, to]: [u32; 2],
) -> io::Result<()> {
    let stays = || Err(io::Error::from_raw_os_error(libc::ENOENT));
    let holders = addresses::holders(public.0.ip())?;
    if !holders.contains(&from) || holders.contains(&to) {
        return stays();
    }
    match conntrack.find(Tuple::new(flow.transport, flow.inside.0, flow.far))? {
        // It has just gone by itself.
        None => Ok(()),
        Some(entry) if (entry.original.source, entry.reply.destination) == (flow.inside.0, public.0) => {
            conntrack.delete(&entry)
        }
        Some(_) => stays(),
    }
}

/// Whether a socket of this machine has one of the public endpoints that the command would take from it. An address that is
/// not this machine's (a NAT to an address that is only routed here) has no sockets.
fn has_taken_port(op: &Op) -> bool {
    let Op::Open { pinholes, .. } = op else { return false };
    pinholes.iter().any(|&Pinhole { transport, public: Outside(public), .. }| match transport {
        Transport::Udp => {
            UdpSocket::bind(public).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
        }
        // Nobody may bind one here (`daemon::privileges`).
        Transport::Tcp => listeners::has(public),
    })
}

/// Whole seconds, rounded up; at least one.
fn seconds(duration: Duration) -> u32 {
    let whole = duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0));
    // Conntrack refuses what does not fit its signed clock.
    u32::try_from(whole).unwrap_or(u32::MAX).clamp(1, i32::MAX as u32 / 1000)
}
