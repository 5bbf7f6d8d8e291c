//! The running gateway: what is started in which order, and how it ends.
//!
//! 1. The log, so that everything after it can be told.
//! 2. The probe: what this kernel lacks is said now, in one sentence, and not with the first call.
//! 3. The kernel's sockets, then the packet queues, then the ruleset: a queue must be there before the rule that fills
//!    it, and a second sipalg finds the queue taken before it has touched anything.
//! 4. Everything that is not needed from here on is given up ([`privileges`]).
//! 5. The engine, with what an earlier run knew (the state file) compared with what the kernel has; and the thread that
//!    owns all of these ([`worker`]).
//! 6. `READY=1` to systemd. From then on this thread waits: for signals, for questions at the control socket, and for the
//!    packet thread's end.
//!
//! SIGTERM and SIGINT stop it: packets that wait get their verdicts, the state is written down, and the ruleset stays, so
//! that calls go on and a restart finds everything. Nothing here looks at packets.

mod answers;
mod error;
pub mod gate;
pub mod held;
mod keeper;
pub mod log;
pub mod logging;
pub mod orders;
pub mod privileges;
mod reload;
mod router;
mod state_file;
mod supervise;
pub mod worker;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::thread;
use std::time::Instant;

use tracing::{info, warn};

pub use error::Error;

use crate::alg::{Admission, Engine, Held, Input, Policy};
use crate::config::{self, Backend, Config, Overload};
use crate::kernel::admission::{self, Wanted};
use crate::kernel::events::Events;
use crate::kernel::probe::{self, Finding, Level};
use crate::kernel::ruleset::{self, RulesetSettings};
use crate::kernel::{Kernel, KernelError, KernelSettings, traffic};
use crate::queue;
use crate::queue::mtu::Mtus;
use keeper::Keeper;
use privileges::Needs;
use router::Router;
use supervise::Supervisor;
use worker::{Parts, Worker};

/// Runs the gateway until it is told to stop. `file` is where the settings came from, if they were named.
///
/// # Errors
/// [`Error`] says why it did not start, or did not go on.
pub fn run(config: Config, file: Option<PathBuf>) -> Result<(), Error> {
    let levels = logging::start(&config.log)?;
    let named = file.as_deref().unwrap_or(Path::new(config::DEFAULT_PATH));
    for warning in config.check(Some(named)) {
        warn!("{warning}");
    }

    if config.accounting {
        // If it does not work yet, because conntrack is not loaded, it is tried again below.
        let _ = traffic::Switch::open().count_from_now_on();
    }
    let mut ruleset = ruleset_settings(&config);
    let (problems, notes): (Vec<Finding>, Vec<Finding>) = probe::run(&ruleset)
        .into_iter()
        .chain(privileges::findings(&config))
        .chain(media_findings(&config))
        .filter(|finding| finding.level != Level::Ok)
        .partition(|finding| finding.level == Level::Problem);
    for Finding { name, text, remedy, .. } in &notes {
        if remedy.is_empty() {
            info!("{name}: {text}");
        } else {
            info!(remedy, "{name}: {text}");
        }
    }
    if !problems.is_empty() {
        return Err(Error::NotReady { findings: problems });
    }

    let (admission, _) = admission::choose(wanted(&config));
    ruleset.expect = admission == Admission::Expectation;
    let by_rule = admission == Admission::Rule;
    let mut kernel = Kernel::open(&KernelSettings { by_rule, ..KernelSettings::default() })?;
    let queue = queue::open(queue_backend(&config.queue), &queue_options(&config.queue))?;
    refuse_beside_another(config.queue.base)?;
    let one_trip = queue.tells_entries();
    ruleset.one_trip = one_trip;
    let installed = ruleset::install(&ruleset).map_err(|error| match error {
        refused @ KernelError::Refused(_) => Error::Ruleset(refused),
        other => Error::Kernel(other),
    })?;
    for note in reload::other_ports(&installed, &ruleset) {
        warn!("{note}");
    }
    let switch = traffic::Switch::open();
    if config.accounting {
        count_traffic(&switch);
    }
    let events = router::Events(Events::open(&kernel)?);
    let mtus = Mtus::open().map_err(Error::doing("open a socket"))?;
    let seed = seed().map_err(Error::doing("read /dev/urandom"))?;
    let admission = match admission {
        Admission::Expectation if !installed.expects => Admission::Pinned,
        way => way,
    };
    let policy = Policy { seed, admission, ..config.policy.clone() };
    privileges::shed(&Needs::of(&config, file.as_deref()))?.log();

    let mut core = Engine::new(policy);
    let keeper = state_file::path(&config.state_file).map(Keeper::new);
    let lost = keeper.as_ref().map_or_else(Vec::new, |keeper| keeper.take_up(&mut core));
    reconcile(&mut core, &mut kernel);
    for address in lost {
        core.handle(Instant::now(), Input::AddressGone(address));
    }

    let parts = Parts { core, queue, executor: kernel, events, surroundings: Router::new(mtus, ruleset) };
    let mut worker = Worker::new(parts, Instant::now());
    let snapshot = worker.snapshot();
    let desk = worker.desk().map_err(Error::doing("make a pipe"))?;
    let (stopped, stop) = io::pipe().map_err(Error::doing("make a pipe"))?;
    let (ended, end) = tokio::sync::oneshot::channel();
    let thread = thread::Builder::new()
        .name("packets".to_owned())
        .spawn(move || {
            worker.run(stopped);
            let _ = ended.send(());
            worker.core().export(Instant::now())
        })
        .map_err(Error::doing("start the packet thread"))?;

    info!(
        version = env!("CARGO_PKG_VERSION"),
        ports = ?installed.ports,
        tcp_ports = ?installed.tcp_ports,
        queues = ?(config.queue.base..=config.queue.base + 5),
        backend = ?config.queue.backend,
        form = ?installed.queue,
        trips = if one_trip { 1 } else { 2 },
        "ready"
    );
    let supervisor = Rc::new(Supervisor::new(config, file, levels, snapshot, desk, keeper, switch));
    let outcome = Rc::clone(&supervisor).run(end);
    // Closing our end of the pipe is the order to stop.
    drop(stop);
    let joined = thread.join();
    supervisor.last_words(joined.as_ref().ok());
    outcome?;
    joined.map(drop).map_err(|_| Error::Died)
}

/// The table is for one program: a second one would take the first one's packets, and close its pinholes.
fn refuse_beside_another(own: u16) -> Result<(), Error> {
    let other = ruleset::queue_base()?.filter(|base| *base != own);
    match other.and_then(queue::proc::queue) {
        None => Ok(()),
        Some(queue::proc::KernelQueue { number, reader, .. }) => {
            Err(Error::Another { queue: number, reader })
        }
    }
}

/// Has the engine look what the kernel has of an earlier run. Its commands are carried out before the first packet.
fn reconcile(engine: &mut Engine, kernel: &mut Kernel) {
    match kernel.held() {
        Ok(held) => engine.reconcile(Instant::now(), &held),
        // What is there closes by its own timeouts, and what is missing is made again.
        Err(error) => {
            warn!(%error, "what an earlier run has left in the kernel can't be listed");
            engine.reconcile(Instant::now(), &Held::default());
        }
    }
}

/// Without it `sipalg calls` knows less; that is no reason not to start.
fn count_traffic(switch: &traffic::Switch) {
    if let Err(error) = switch.count_from_now_on() {
        warn!(%error, "conntrack's packet counters can't be switched on (media.accounting)");
    }
}

/// What the ruleset depends on.
pub fn ruleset_settings(config: &Config) -> RulesetSettings {
    let [ports, tcp_ports] = [&config.sip_ports, &config.tcp_ports].map(|ranges| {
        let mut ports: Vec<u16> = ranges.iter().cloned().flatten().collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    });
    let (queue_base, offload) = (config.queue.base, config.offload);
    RulesetSettings { ports, tcp_ports, queue_base, offload, ..RulesetSettings::default() }
}

/// How media gets through the firewall, and whether it can take the short way if it shall.
pub fn media_findings(config: &Config) -> Vec<Finding> {
    let (_, admission) = admission::choose(wanted(config));
    [Some(admission), config.offload.then(probe::offload)].into_iter().flatten().collect()
}

fn wanted(config: &Config) -> Wanted {
    match config.admission {
        config::Wish::Auto => Wanted::Auto,
        _ => Wanted::Exactly(config.policy.admission),
    }
}

fn queue_backend(settings: &config::Queue) -> queue::Backend {
    match settings.backend {
        Backend::Netlink => queue::Backend::Netlink,
        Backend::Nfq => queue::Backend::Nfq,
    }
}

/// What a queue depends on.
fn queue_options(settings: &config::Queue) -> queue::Options {
    queue::Options {
        first: settings.base,
        max_length: settings.max_length,
        receive_buffer: u32::try_from(settings.receive_buffer).unwrap_or(u32::MAX),
        overload: match settings.overload {
            Overload::Drop => queue::Overload::Drop,
            Overload::Pass => queue::Overload::Pass,
        },
        entries: settings.conntrack,
    }
}

/// Random bits for the hashes of the engine's tables.
fn seed() -> io::Result<[u64; 2]> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let (low, high) = bytes.split_at(8);
    let word = |half: &[u8]| half.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    Ok([word(low), word(high)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_is_what_the_settings_say() {
        assert_eq!(queue_options(&Config::default().queue), queue::Options::default());
        let other = "[queue]\nbase = 7\nmax-length = 100\nreceive-buffer = \"1MiB\"\noverload = \"pass\"";
        let options = queue_options(&Config::parse(other).unwrap().queue);
        assert_eq!((options.first, options.max_length, options.receive_buffer), (7, 100, 1 << 20));
        assert_eq!(options.overload, queue::Overload::Pass);
    }

    #[test]
    fn the_ruleset_gets_every_port_once() {
        let config = Config::parse("[sip]\nports = [\"5070-5072\", 5060, 5071]\ntcp-ports = []").unwrap();
        assert_eq!(ruleset_settings(&config).ports, [5060, 5070, 5071, 5072]);
        assert_eq!(ruleset_settings(&config).tcp_ports, [0; 0]);
        assert_eq!(ruleset_settings(&config).queue_base, 5060);
    }

    #[test]
    fn two_starts_have_two_seeds() {
        assert_ne!(seed().unwrap(), seed().unwrap());
    }
}
