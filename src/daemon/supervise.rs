//! Waits for signals beside the packet thread, and tells systemd how things are.

use std::future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot::Receiver;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use super::Error;
use super::logging::Levels;
use super::worker::Snapshot;
use crate::alg::Reason;
use crate::config::Config;

/// How often systemd's status line is brought up to date.
const STATUS: Duration = Duration::from_secs(5);

/// Everything that the waiting thread knows.
#[derive(Debug)]
pub(super) struct Supervisor {
    pub(super) config: Config,
    pub(super) file: Option<PathBuf>,
    pub(super) levels: Levels,
    pub(super) snapshot: Arc<Mutex<Snapshot>>,
}

impl Supervisor {
    /// Returns when the gateway is to stop. `end` comes when the packet thread ends by itself.
    ///
    /// # Errors
    /// [`Error::Died`] in that case.
    pub(super) fn run(&self, end: Receiver<()>) -> Result<(), Error> {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::doing("start waiting for signals"))?
            .block_on(self.wait(end))
    }

    async fn wait(&self, mut end: Receiver<()>) -> Result<(), Error> {
        let listen = |kind| signal(kind).map_err(Error::doing("listen for signals"));
        let mut terminate = listen(SignalKind::terminate())?;
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut hangup = listen(SignalKind::hangup())?;
        let mut count = listen(SignalKind::user_defined1())?;
        let mut status = interval(STATUS);
        status.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watchdog = Watchdog::new();

        tell(&[NotifyState::Ready]);
        loop {
            tokio::select! {
                _ = received(&mut terminate) => break,
                _ = received(&mut interrupt) => break,
                _ = received(&mut hangup) => self.reload(),
                _ = received(&mut count) => info!("{}", self.counters()),
                _ = &mut end => {
                    tell(&[NotifyState::Stopping]);
                    return Err(Error::Died);
                }
                _ = status.tick() => tell(&[NotifyState::Status(&self.status())]),
                () = watchdog.due() => tell(&[NotifyState::Watchdog]),
            }
        }
        tell(&[NotifyState::Stopping]);
        info!("stopping; the ruleset stays, and calls go on (`sipalg unload` takes it away)");
        Ok(())
    }

    /// What was counted in all, when everything has ended.
    pub(super) fn last_words(&self) {
        info!("{}", self.counters());
    }

    /// Levels can change while calls are up; nothing else can.
    fn reload(&self) {
        let new = match Config::load(self.file.as_deref()) {
            Ok(new) => new,
            Err(error) => {
                error!(%error, "the configuration makes no sense, nothing was changed");
                return;
            }
        };
        self.levels.set(&new.log.level);
        info!(level = new.log.level, "log level was read again");
        let rest = Config { log: self.config.log.clone(), ..new };
        if rest != self.config {
            warn!("other settings have changed too: they need a restart, which no call hears");
        }
    }

    /// One line for `systemctl status`.
    fn status(&self) -> String {
        let snapshot = self.snapshot();
        let sizes = snapshot.sizes;
        format!(
            "{} calls, {} registrations, {} pinholes, {} flows; {} packets",
            sizes.calls, sizes.registrations, sizes.bindings, sizes.flows, snapshot.queue.received
        )
    }

    /// Every counter that is not 0, under its stable name.
    fn counters(&self) -> String {
        let Snapshot { stats, queue, mishaps, .. } = self.snapshot();
        let reasons = Reason::ALL.iter().map(|reason| (reason.name(), stats.verdicts(*reason)));
        let others = [
            ("received", queue.received),
            ("verdicts", queue.verdicts),
            ("refused_by_kernel", queue.refused),
            ("too_large", mishaps.too_large),
            ("held_full", mishaps.held_full),
            ("forgotten", mishaps.forgotten),
            ("stray", mishaps.stray),
        ];
        let counted: Vec<String> = reasons
            .chain(others)
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        if counted.is_empty() {
            "counters: no packet yet".to_owned()
        } else {
            format!("counters: {}", counted.join(", "))
        }
    }

    fn snapshot(&self) -> Snapshot {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// systemd's watchdog, if it asked for one: half of its patience between two signs of life.
struct Watchdog(Option<tokio::time::Interval>);

impl Watchdog {
    fn new() -> Self {
        Self(sd_notify::watchdog_enabled().map(|patience| interval(patience / 2)))
    }

    async fn due(&mut self) {
        match &mut self.0 {
            Some(interval) => drop(interval.tick().await),
            None => future::pending().await,
        }
    }
}

/// A signal stream never ends while the runtime lives; if it did, that would be no signal.
async fn received(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        future::pending::<()>().await;
    }
}

/// Tells systemd; without it (or without a socket to it) nobody wants to know.
fn tell(state: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(state);
}
