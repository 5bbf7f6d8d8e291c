//! Everything beside the packet thread: signals, the control socket, new configurations; and tells systemd how things are.
//!
//! One thread with an event loop. What it wants of the engine it hands in at the packet thread's desk and waits for.

use std::cell::RefCell;
use std::future;
use std::io;
use std::path::PathBuf;
use std::process;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot::{self, Receiver};
use tokio::task::{LocalSet, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use super::keeper::Keeper;
use super::logging::Levels;
use super::orders::{Desk, Order};
use super::router::Router;
use super::worker::Snapshot;
use super::{Error, answers, count_traffic, reload, ruleset_settings, state_file};
use crate::alg::{Engine, State};
use crate::config::Config;
use crate::control::path;
use crate::control::protocol::{self, Ask, Refusal, Reloaded, Request, Status};
use crate::control::server::Server;
use crate::kernel::Kernel;
use crate::kernel::traffic::Switch;

/// How often systemd's status line is brought up to date.
const STATUS: Duration = Duration::from_secs(5);

/// How often the state file's keeper looks whether something has changed.
const LOOK: Duration = Duration::from_secs(1);

/// Where the packet thread takes orders.
pub(super) type PacketDesk = Desk<Order<Engine, Kernel, Router>>;

/// Everything that the waiting thread knows.
#[derive(Debug)]
pub(super) struct Supervisor {
    config: RefCell<Config>,
    file: Option<PathBuf>,
    levels: Levels,
    snapshot: Arc<Mutex<Snapshot>>,
    desk: PacketDesk,
    keeper: Option<Keeper>,
    switch: Switch,
    started: Instant,
}

impl Supervisor {
    pub(super) fn new(
        config: Config,
        file: Option<PathBuf>,
        levels: Levels,
        snapshot: Arc<Mutex<Snapshot>>,
        desk: PacketDesk,
        keeper: Option<Keeper>,
        switch: Switch,
    ) -> Self {
        let (config, started) = (RefCell::new(config), Instant::now());
        Self { config, file, levels, snapshot, desk, keeper, switch, started }
    }

    /// Returns when the gateway is to stop. `end` comes when the packet thread ends by itself.
    ///
    /// # Errors
    /// [`Error::Died`] in that case.
    pub(super) fn run(self: Rc<Self>, end: Receiver<()>) -> Result<(), Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::doing("start waiting for signals"))?;
        LocalSet::new().block_on(&runtime, self.wait(end))
    }

    async fn wait(self: Rc<Self>, mut end: Receiver<()>) -> Result<(), Error> {
        let listen = |kind| signal(kind).map_err(Error::doing("listen for signals"));
        let mut terminate = listen(SignalKind::terminate())?;
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut hangup = listen(SignalKind::hangup())?;
        let mut count = listen(SignalKind::user_defined1())?;
        let mut status = interval(STATUS);
        status.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watchdog = Watchdog::new();
        let server = self.listen();
        let mut serving = std::pin::pin!(Rc::clone(&self).serve(server.as_ref()));

        tell(&[NotifyState::Ready]);
        loop {
            tokio::select! {
                _ = received(&mut terminate) => break,
                _ = received(&mut interrupt) => break,
                _ = received(&mut hangup) => {
                    let this = Rc::clone(&self);
                    tokio::task::spawn_local(async move {
                        // Both outcomes are in the log.
                        let _ = this.reload().await;
                    });
                }
                _ = received(&mut count) => info!("{}", self.counters()),
                _ = &mut end => {
                    tell(&[NotifyState::Stopping]);
                    return Err(Error::Died);
                }
                _ = status.tick() => tell(&[NotifyState::Status(&self.status_line())]),
                _ = look.tick(), if self.keeper.is_some() => {
                    tokio::task::spawn_local(Rc::clone(&self).keep());
                }
                () = watchdog.due() => {
                    tokio::task::spawn_local(Rc::clone(&self).beat());
                }
                () = &mut serving => {}
            }
        }
        tell(&[NotifyState::Stopping]);
        info!("stopping; the ruleset stays, and calls go on (`sipalg unload` takes it away)");
        Ok(())
    }

    /// A sign of life for systemd's watchdog, which is the packet thread's: it has come to the end of a batch and carried
    /// out an order, and its queue works. From a thread that hangs nothing comes, and systemd starts us anew.
    async fn beat(self: Rc<Self>) {
        if self.ask(|_, _, _| ()).await.is_ok() && self.snapshot().trouble.is_none() {
            tell(&[NotifyState::Watchdog]);
        }
    }

    /// When everything has ended: what the engine knew is written down, and what was counted.
    pub(super) fn last_words(&self, state: Option<&State>) {
        if let (Some(keeper), Some(state)) = (&self.keeper, state) {
            keeper.finish(state);
        }
        info!("{}", self.counters());
    }

    /// Writes the state down, if there is something new.
    async fn keep(self: Rc<Self>) {
        let Some(keeper) = &self.keeper else { return };
        if !keeper.is_due(Instant::now(), &self.snapshot()) {
            return;
        }
        let path = keeper.path().to_owned();
        let copied = self
            .ask(|engine, _, now| {
                let state = engine.export(now);
                (state, now.elapsed())
            })
            .await;
        let outcome = match copied {
            Err(refusal) => Err(io::Error::other(refusal.error)),
            Ok((state, took)) => {
                match spawn_blocking(move || state_file::write(&path, &state, state_file::Moment::Meanwhile))
                    .await
                {
                    Ok(written) => written.map(|()| took),
                    Err(error) => Err(io::Error::other(error)),
                }
            }
        };
        keeper.done(outcome);
    }

    /// The control socket. Calls go on without it, so that it can't be had is no reason to end.
    fn listen(&self) -> Option<Server> {
        let path = path::of(&self.config.borrow().control_socket)?;
        Server::bind(&path)
            .map_err(|error| {
                let remedy = "control.socket = \"auto\" is where the service may make one";
                warn!(path = %path.display(), %error, remedy, "there is no control socket");
            })
            .ok()
    }

    async fn serve(self: Rc<Self>, server: Option<&Server>) {
        if let Some(server) = server {
            let answer = move |request| Rc::clone(&self).answer(request);
            server.serve(answer).await;
        }
        future::pending().await
    }

    async fn answer(self: Rc<Self>, request: Request) -> Vec<u8> {
        let limit = request.limit;
        match request.ask {
            Ask::Status => line(&Ok(self.status())),
            Ask::Calls => {
                let copied = self
                    .ask(move |engine, _, now| {
                        (engine.count_calls(), engine.calls(now).take(limit).collect())
                    })
                    .await;
                line(&off_the_loop(copied, |(total, views)| answers::calls(total, views)).await)
            }
            Ask::Registrations => {
                let copied = self
                    .ask(move |engine, _, now| {
                        (engine.sizes().registrations, engine.registrations(now).take(limit).collect())
                    })
                    .await;
                line(&off_the_loop(copied, |(total, views)| answers::registrations(total, views)).await)
            }
            Ask::Bindings => {
                let copied = self
                    .ask(move |engine, _, _| {
                        (engine.sizes().bindings, engine.bindings().take(limit).collect())
                    })
                    .await;
                line(&off_the_loop(copied, |(total, views)| answers::bindings(total, views)).await)
            }
            Ask::Reload => line(&self.reload().await),
        }
    }

    /// Has the packet thread do something between two batches.
    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Engine, &mut Router, Instant) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let (tell, told) = oneshot::channel();
        let order: Order<Engine, Kernel, Router> = Box::new(move |engine, _, router, now| {
            // Who asked may have gone away.
            let _ = tell.send(work(engine, router, now));
        });
        self.desk.hand_in(order).map_err(refusal)?;
        told.await.map_err(|_| refusal("the packet thread has ended"))
    }

    /// Takes the configuration file over, or says why not. Either is logged.
    async fn reload(&self) -> Result<Reloaded, Refusal> {
        let outcome = self.try_to_reload().await;
        match &outcome {
            Ok(Reloaded { changed, warnings }) => {
                for warning in warnings {
                    warn!("{warning}");
                }
                info!(changed = changed.join(", "), "the configuration was read again");
            }
            Err(Refusal { error, remedy }) => {
                let remedy = Some(remedy).filter(|remedy| !remedy.is_empty());
                error!(%error, remedy, "the configuration was not taken over, the old one stays");
            }
        }
        outcome
    }

    async fn try_to_reload(&self) -> Result<Reloaded, Refusal> {
        let new = reload::read(self.file.as_deref())?;
        let changed = reload::changes(&self.config.borrow(), &new)?;
        let (ruleset, policy) = (ruleset_settings(&new), new.policy.clone());
        let taken_over =
            self.ask(move |engine, router, _| reload::take_over(engine, router, ruleset, policy)).await?;
        let notes =
            taken_over.map_err(|error| Refusal { remedy: error.remedy().to_owned(), ..refusal(&error) })?;
        self.levels.set(&new.log.level);
        if new.accounting {
            count_traffic(&self.switch);
        }
        let mut warnings = notes;
        warnings.extend(new.check(self.file.as_deref()));
        *self.config.borrow_mut() = new;
        Ok(Reloaded { changed, warnings })
    }

    fn status(&self) -> Status {
        let snapshot = self.snapshot();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: process::id(),
            uptime: self.started.elapsed().as_secs(),
            tables: answers::fills(&snapshot, &self.config.borrow().policy.limits),
            counters: answers::counts(&snapshot),
            state: self.keeper.as_ref().map(Keeper::report),
        }
    }

    /// One line for `systemctl status`.
    fn status_line(&self) -> String {
        let snapshot = self.snapshot();
        let sizes = snapshot.sizes;
        format!(
            "{} calls, {} registrations, {} pinholes, {} flows; {} packets",
            sizes.calls, sizes.registrations, sizes.bindings, sizes.flows, snapshot.queue.received
        )
    }

    /// Every counter that is not 0, under its stable name.
    fn counters(&self) -> String {
        let counted: Vec<String> = answers::counts(&self.snapshot())
            .into_iter()
            .map(|counter| format!("{} {}", counter.name, counter.count))
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

/// Makes an answer out of what was copied on a thread of its own, because it asks the kernel.
async fn off_the_loop<T: Send + 'static, U: Send + 'static>(
    copied: Result<T, Refusal>,
    work: impl FnOnce(T) -> U + Send + 'static,
) -> Result<U, Refusal> {
    let copied = copied?;
    spawn_blocking(move || work(copied)).await.map_err(refusal)
}

fn refusal(error: impl std::fmt::Display) -> Refusal {
    Refusal { error: error.to_string(), remedy: String::new() }
}

fn line<T: Serialize>(outcome: &Result<T, Refusal>) -> Vec<u8> {
    protocol::answer(outcome).expect("answers have string keys only, and then JSON can't fail")
}

/// systemd's watchdog, if it asked for one. Four signs of life in its patience: one or two may fail.
struct Watchdog(Option<tokio::time::Interval>);

impl Watchdog {
    fn new() -> Self {
        Self(sd_notify::watchdog_enabled().map(|patience| interval(patience / 4)))
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
