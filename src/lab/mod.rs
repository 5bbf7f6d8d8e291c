//! `sipalg lab`: a whole network in namespaces, with phones and a provider, and what became of their calls.
//!
//! One idea: nothing is simulated. Ten phones behind one public address register, call and are called through a
//! router with an administrator's own rules, by the kernel's NAT and by the program that is to be tried; phones and
//! provider check every byte that the ALG could get wrong. The lab knows nothing of the engine: it sees sipalg only
//! from outside, as its users do.
//!
//! Where to read on: [`network`] (the machines), [`plan`] (the calls), [`phone`] and [`provider`] (what each side
//! insists on), [`scenario`] (the order of events), [`report`] (what is told in the end).

mod capture;
mod digest;
mod gateway;
mod instance;
mod line;
mod media;
mod message;
mod naming;
mod netns;
mod network;
mod notebook;
mod observe;
mod phone;
mod plan;
mod provider;
mod proxy;
mod registrar;
mod report;
mod ruleset;
mod scenario;
mod scratch;
mod sdp;
mod station;
mod stop;
mod tool;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Instant;

pub use instance::Program;
pub use report::{CallReport, Direction, PhoneReport, Pinholes, Report};
pub use stop::Stop;

use capture::Capture;
use instance::Instance;
use network::Network;
use scratch::Scratch;

/// What to run.
#[derive(Clone, Debug, Default)]
pub struct LabOptions {
    /// What the router does with addresses.
    pub translation: Translation,
    /// What runs in the router; `None`: nothing, and one sees the calls fail.
    pub sipalg: Option<Program>,
    /// Where to write what crossed the router, one file for each side, and sipalg's log.
    pub pcap: Option<PathBuf>,
    /// Ends the run early when raised.
    pub stop: Stop,
}

/// What the router does with addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Translation {
    /// The administrator's ruleset with its `masquerade random`.
    #[default]
    Masquerade,
    /// Nothing: the provider has a route to the phones. Everything holds without sipalg; this is how the lab itself is
    /// tried.
    None,
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Namespaces, links, addresses, rules.
    Building,
    /// sipalg was started and is not ready yet.
    Starting,
    /// So many of so many phones are through with registering.
    Registering(usize, usize),
    /// So many of so many parties have their call up, or failed.
    Calling(usize, usize),
    /// All calls are up; so many of so many parties are through with their call.
    Talking(usize, usize),
    /// All calls are over; the router is looked at.
    Closing,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Building => write!(f, "building the network: ten phones, a router, a provider"),
            Self::Starting => write!(f, "starting sipalg in the router"),
            Self::Registering(done, all) => write!(f, "registering phones: {done} of {all}"),
            Self::Calling(done, all) => write!(f, "calling: {done} of {all} parties connected"),
            Self::Talking(done, all) => write!(f, "talking: {done} of {all} parties have said good-bye"),
            Self::Closing => write!(f, "counting what is left in the router"),
        }
    }
}

/// Why a run could not be made. A run that was made and showed faults is a [`Report`].
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Namespaces, NAT and raw sockets are root's.
    #[error("the lab needs root: try `sudo sipalg lab`")]
    NotRoot,
    /// A program that the lab runs is not installed.
    #[error("`{tool}` is missing: install it with `apt-get install {package}`")]
    MissingTool {
        /// The program.
        tool: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// A program that the lab runs has failed.
    #[error("`{command}` failed: {said}")]
    Tool {
        /// Its command line.
        command: String,
        /// What it printed.
        said: String,
    },
    /// The system refused something.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// The reason.
        error: io::Error,
    },
    /// sipalg did not come up in the router.
    #[error("sipalg did not start in the lab's router ({why}); it said:\n{log}")]
    NotReady {
        /// What happened.
        why: String,
        /// The end of its log.
        log: String,
    },
    /// [`LabOptions::stop`] was raised.
    #[error("interrupted")]
    Interrupted,
}

impl LabError {
    fn io(what: impl Into<String>, error: io::Error) -> Self {
        Self::Io { what: what.into(), error }
    }
}

/// Why a step of a call did not go as it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Trouble {
    #[error("interrupted")]
    Interrupted,
    #[error("no answer to {0}")]
    NoAnswer(rsip::Method),
    #[error("{0} was refused with {1}")]
    Refused(rsip::Method, u16),
    #[error("the ACK never came")]
    NoAck,
    #[error("{0} never came")]
    NotAsked(rsip::Method),
    #[error("the call never came")]
    NotCalled,
    #[error("not registered")]
    NotRegistered,
    #[error("a message without Contact")]
    NoContact,
    #[error("no SDP that makes sense")]
    NoSdp,
    #[error("nobody can be reached at {0}")]
    NowhereToGo(String),
    #[error("socket: {0}")]
    Socket(String),
}

/// Builds the network, runs everything in it, and removes it, however it ends.
///
/// # Errors
/// When the run could not be made, or was interrupted. Calls that failed are in the report.
pub fn run(options: &LabOptions, mut progress: impl FnMut(Progress)) -> Result<Report, LabError> {
    let began = Instant::now();
    check_requirements(options)?;
    progress(Progress::Building);
    let scratch = Scratch::make()?;
    let network = Network::build(options.translation)?;
    let capture = match &options.pcap {
        Some(directory) => Some(Capture::start(&network.router, directory, &scratch, &options.stop)?),
        None => None,
    };
    let mut instance = match &options.sipalg {
        Some(program) => {
            progress(Progress::Starting);
            Some(Instance::start(program, &network.router, &scratch, &options.stop)?)
        }
        None => None,
    };
    let played = scenario::play(&network, options, &mut progress)?;
    progress(Progress::Closing);
    let after = observe::wait_for_close(&network.router, &options.stop);
    let died = instance.as_mut().and_then(Instance::death);
    if let (Some(directory), Some(instance)) = (&options.pcap, &instance) {
        instance.keep_log(directory)?;
    }
    let files = capture.map(Capture::finish).unwrap_or_default();
    if options.stop.is_raised() {
        return Err(LabError::Interrupted);
    }
    Ok(Report::new(options, played, after, died, files, began.elapsed()))
}

fn check_requirements(options: &LabOptions) -> Result<(), LabError> {
    if !netns::is_root() {
        return Err(LabError::NotRoot);
    }
    tool::require("ip", "iproute2")?;
    if options.translation == Translation::Masquerade || options.sipalg.is_some() {
        tool::require("nft", "nftables")?;
    }
    if options.pcap.is_some() {
        tool::require("tcpdump", "tcpdump")?;
    }
    Ok(())
}
