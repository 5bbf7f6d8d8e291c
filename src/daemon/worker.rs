//! The data path: one plain thread that owns the engine, the queue and the hands of the kernel.
//!
//! A [`Worker`] waits for packets, kernel events, deadlines and the order to stop. It feeds the engine one input at a
//! time and drains it before the next. Verdicts are applied at once, but sent at the end of the batch; commands of a
//! batch are carried out together, and their outcomes fed back, until no more come. So a verdict that relies on a
//! command leaves after it, because the engine gives it after the outcome, and no packet waits for another batch
//! without need.
//!
//! It decides nothing about packets. It neither opens the queue, nor loads the ruleset, nor speaks to clients: what it
//! needs from the rest of the daemon is [`Surroundings`], what others may know of it is a [`Snapshot`], and what they
//! want of the engine they send as an [`Order`], which is carried out between two batches.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::mem;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::gate::{Gate, Glance, Mishaps};
use super::held::Kind;
use super::orders::{self, Desk, Inbox, Order};
use crate::alg::{
    Command, Engine, Event, Executor, Failure, Input, Outcome, Output, PacketId, Sizes, Stats, Tuples,
};
use crate::queue::{self, Counters, PacketQueue};

#[cfg(test)]
mod tests;

/// How often a queue without a descriptor is asked for packets when it had none.
const ASK: Duration = Duration::from_millis(1);
/// After an error of the queue the next attempt waits so long.
const RETRY: Duration = Duration::from_millis(10);
/// A snapshot is never older than this while anything happens.
const PUBLISH: Duration = Duration::from_secs(1);
/// For so long at most, packets that still arrive are handled after the order to stop.
const LAST_PACKETS: Duration = Duration::from_secs(1);
/// Segments that waited before the start are found within this time, however many packets there are.
const BACKLOG: Duration = Duration::from_secs(1);
/// Packets of a batch after which the executor is asked whether it wants to say again that we are at work.
const BEAT_AFTER: usize = 16;
/// More interfaces than this are not remembered at one time.
const INTERFACES: usize = 1024;
/// Attempts to send the last verdicts.
const LAST_ATTEMPTS: usize = 100;

/// The engine's contract, as far as a worker uses it.
pub trait Core {
    /// See [`Engine::handle`].
    fn handle(&mut self, now: Instant, input: Input<'_>);
    /// See [`Engine::poll_output`].
    fn poll_output(&mut self) -> Option<Output<'_>>;
    /// See [`Engine::poll_timeout`].
    fn poll_timeout(&self) -> Option<Instant>;
    /// See [`Engine::stats`].
    fn stats(&self) -> &Stats;
    /// See [`Engine::sizes`].
    fn sizes(&self) -> Sizes;
}

impl Core for Engine {
    fn handle(&mut self, now: Instant, input: Input<'_>) {
        self.handle(now, input);
    }

    fn poll_output(&mut self) -> Option<Output<'_>> {
        self.poll_output()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.poll_timeout()
    }

    fn stats(&self) -> &Stats {
        self.stats()
    }

    fn sizes(&self) -> Sizes {
        self.sizes()
    }
}

/// What the kernel tells by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelEvent {
    /// A conntrack entry of UDP or TCP is gone.
    Destroyed(Tuples),
    /// Somebody changed the nftables ruleset; perhaps ours is gone.
    RulesetChanged,
    /// Events were lost because nobody read them fast enough.
    Overrun,
    /// This machine does not have this address any more.
    AddressGone(IpAddr),
}

/// Where kernel events come from.
pub trait EventSource {
    /// What becomes readable when there is one.
    fn descriptor(&self) -> BorrowedFd<'_>;
    /// A second one, if the events come from two places.
    fn second_descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    /// Hands over all that are there, without waiting.
    fn drain(&mut self, sink: &mut dyn FnMut(KernelEvent));
}

/// What a worker needs from the rest of the daemon. `X` is the executor.
pub trait Surroundings<X> {
    /// The MTU of an interface in bytes, by its index; `usize::MAX` if not known.
    fn mtu(&mut self, interface: u32, now: Instant) -> usize;
    /// Something worth a log line.
    fn event(&mut self, now: Instant, event: &Event);
    /// The data path itself is in trouble: `what` is constant for each cause.
    fn warning(&mut self, now: Instant, what: &'static str, detail: &dyn std::fmt::Display);
    /// The ruleset may have to be mended. Called once for any number of changes that came together. `true`: it was, and
    /// is in place again.
    fn ruleset_changed(&mut self, executor: &mut X) -> bool;
    /// Events were lost: anything may have changed. `true`: the ruleset was mended.
    fn events_lost(&mut self, executor: &mut X) -> bool;
}

/// What may be known from outside, copied about once a second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The engine's counters.
    pub stats: Stats,
    /// The sizes of its tables.
    pub sizes: Sizes,
    /// The queue's counters.
    pub queue: Counters,
    /// Packets that wait for a verdict since an earlier batch.
    pub held: usize,
    /// What should not have happened.
    pub mishaps: Mishaps,
    /// Since when packets can't be read, or verdicts can't be sent; `None`: they can.
    pub trouble: Option<Instant>,
}

/// The parts of a worker.
#[derive(Debug)]
pub struct Parts<C, Q, X, E, S> {
    /// The engine.
    pub core: C,
    /// The packets.
    pub queue: Q,
    /// Who carries out commands.
    pub executor: X,
    /// Where kernel events come from.
    pub events: E,
    /// The rest of the daemon.
    pub surroundings: S,
}

/// The loop of the data path.
#[derive(Debug)]
pub struct Worker<C, Q, X, E, S> {
    core: C,
    gate: Gate<Q>,
    executor: X,
    events: E,
    surroundings: S,
    /// Commands to carry out at the end of the batch.
    commands: Vec<Command>,
    /// Packets to hand in again.
    again: VecDeque<PacketId>,
    // Kept for their memory.
    running: Vec<Command>,
    outcomes: Vec<Outcome>,
    kernel_events: Vec<KernelEvent>,
    snapshot: Arc<Mutex<Snapshot>>,
    published: Instant,
    /// Whether anything has happened since.
    stale: bool,
    /// Not before this time the queue is asked again.
    retry: Option<Instant>,
    /// Since when the queue fails.
    trouble: Option<Instant>,
    orders: Option<Inbox<Order<C, X, S>>>,
    /// The last time that the queue was asked it had packets, so it may have more.
    flowing: bool,
    /// Until this time, or until the queue was empty once, segments are turned away: they were queued before what an
    /// earlier run had left was settled, and are sent again.
    backlog: Option<Instant>,
    /// What the engine knows of interfaces.
    mtus: HashMap<u32, usize>,
    /// When the executor wants to say again that we are at work.
    next_beat: Option<Instant>,
}

impl<C, Q, X, E, S> Worker<C, Q, X, E, S>
where
    C: Core,
    Q: PacketQueue,
    X: Executor,
    E: EventSource,
    S: Surroundings<X>,
{
    /// A worker of these parts. `now` is the time.
    pub fn new(parts: Parts<C, Q, X, E, S>, now: Instant) -> Self {
        let Parts { core, queue, executor, events, surroundings } = parts;
        Self {
            core,
            gate: Gate::new(queue),
            executor,
            events,
            surroundings,
            commands: Vec::new(),
            again: VecDeque::new(),
            running: Vec::new(),
            outcomes: Vec::new(),
            kernel_events: Vec::new(),
            snapshot: Arc::default(),
            published: now,
            stale: true,
            retry: None,
            trouble: None,
            orders: None,
            flowing: false,
            backlog: None,
            mtus: HashMap::new(),
            next_beat: None,
        }
    }

    /// Where orders for this worker are handed in, from any thread. Only the latest desk is served.
    ///
    /// # Errors
    /// Those of pipe(2).
    pub fn desk(&mut self) -> io::Result<Desk<Order<C, X, S>>> {
        let (desk, inbox) = orders::open()?;
        self.orders = Some(inbox);
        Ok(desk)
    }

    /// Where the latest [`Snapshot`] is to be found, for any thread.
    pub fn snapshot(&self) -> Arc<Mutex<Snapshot>> {
        Arc::clone(&self.snapshot)
    }

    /// The engine, for who saves its state in the end.
    pub fn core(&self) -> &C {
        &self.core
    }

    /// Handles packets until `stop` can be read or is closed by its other end. Then packets that have arrived get
    /// their verdicts, those that still wait pass as they came (segments of TCP are dropped), and all verdicts are sent.
    pub fn run(&mut self, stop: impl AsFd) {
        // What the engine wants before the first packet: after a restart it looks what the kernel still has.
        let now = Instant::now();
        self.settle(now);
        self.backlog = Some(now + BACKLOG);
        loop {
            let timeout = self.poll_timeout().map(|due| due.saturating_duration_since(Instant::now()));
            // A queue in trouble would wake us at once, again and again.
            let packets = self.gate.queue().descriptor().filter(|_| self.retry.is_none());
            let (events, more) = (Some(self.events.descriptor()), self.events.second_descriptor());
            let orders = self.orders.as_ref().map(Inbox::descriptor);
            let ready = queue::wait([Some(stop.as_fd()), events, more, packets, orders], timeout);
            let now = Instant::now();
            match ready {
                Ok([true, ..]) => break,
                Ok([_, events, more, _, orders]) => {
                    if events || more {
                        self.handle_kernel_events(now);
                    }
                    if orders {
                        self.carry_out_orders(now);
                    }
                    self.turn(now);
                }
                Err(error) => {
                    self.surroundings.warning(now, "cannot wait for packets", &error);
                    thread::sleep(RETRY);
                }
            }
        }
        self.finish();
    }

    /// One round: a batch of packets, what is due, and what both lead to. How many packets it was.
    fn turn(&mut self, now: Instant) -> usize {
        let count = self.receive(now);
        self.flowing = count > 0;
        self.backlog = self.backlog.filter(|until| count > 0 && now < *until);
        for index in 0..count {
            if index % BEAT_AFTER == BEAT_AFTER - 1 {
                // A batch may take a slow machine longer than the kernel believes in us.
                self.next_beat = self.executor.keep_alive(Instant::now());
            }
            let glance = self.gate.glance(index);
            if let Some(Glance { kind: Kind::Segment, interfaces }) = glance {
                if self.backlog.is_some() {
                    self.gate.turn_away(index);
                    continue;
                }
                self.tell_mtus(interfaces, now);
            } else if let Some((packet, tuples)) = self.gate.entry(index) {
                self.core.handle(now, Input::Translated { packet, tuples });
                self.drain(now);
            }
            if let Some(packet) = self.gate.admit(index) {
                self.core.handle(now, Input::Packet(packet));
                self.drain(now);
            }
        }
        if self.core.poll_timeout().is_some_and(|due| due <= now) {
            self.core.handle(now, Input::Timeout);
            self.stale = true;
        }
        self.settle(now);
        self.gate.put_aside(now);
        let forgotten = self.gate.release_forgotten(now);
        self.flush(now);
        self.next_beat = self.executor.keep_alive(now);
        self.note_trouble(now);
        self.stale |= count > 0;
        if self.stale && now.saturating_duration_since(self.published) >= PUBLISH {
            self.publish(now);
        }
        debug_assert_eq!(forgotten, 0, "the engine never gave a verdict");
        count
    }

    /// Tells the engine what it does not know yet of the interfaces of a segment.
    fn tell_mtus(&mut self, interfaces: [u32; 2], now: Instant) {
        for interface in interfaces.into_iter().filter(|index| *index != 0) {
            let mtu = self.surroundings.mtu(interface, now);
            let Ok(told) = u32::try_from(mtu) else { continue };
            if self.mtus.get(&interface) != Some(&mtu) {
                if self.mtus.len() >= INTERFACES {
                    self.mtus.clear();
                }
                self.mtus.insert(interface, mtu);
                self.core.handle(now, Input::Mtu { interface, mtu: told });
                self.drain(now);
            }
        }
    }

    fn receive(&mut self, now: Instant) -> usize {
        self.retry = None;
        self.gate.receive().unwrap_or_else(|error| {
            self.surroundings.warning(now, "cannot read packets", &error);
            self.retry = Some(now + RETRY);
            0
        })
    }

    fn flush(&mut self, now: Instant) {
        if let Err(error) = self.gate.flush() {
            self.surroundings.warning(now, "cannot send verdicts", &error);
            self.retry = Some(now + RETRY);
        }
    }

    fn note_trouble(&mut self, now: Instant) {
        let trouble = self.retry.and(self.trouble.or(Some(now)));
        self.stale |= trouble != self.trouble;
        self.trouble = trouble;
    }

    fn handle_kernel_events(&mut self, now: Instant) {
        let mut events = mem::take(&mut self.kernel_events);
        self.events.drain(&mut |event| events.push(event));
        let (mut changed, mut lost) = (false, false);
        for event in events.drain(..) {
            match event {
                KernelEvent::Destroyed(tuples) => {
                    self.core.handle(now, Input::FlowDestroyed(tuples));
                    self.drain(now);
                }
                KernelEvent::AddressGone(address) => {
                    self.core.handle(now, Input::AddressGone(address));
                    self.drain(now);
                }
                KernelEvent::RulesetChanged => changed = true,
                KernelEvent::Overrun => lost = true,
            }
        }
        self.kernel_events = events;
        let mut mended = changed && self.surroundings.ruleset_changed(&mut self.executor);
        mended |= lost && self.surroundings.events_lost(&mut self.executor);
        if mended {
            self.core.handle(now, Input::RulesetReloaded);
            self.drain(now);
        }
        self.stale = true;
        self.settle(now);
    }

    /// Carries out what others want of the engine. No batch is open, so nothing waits but what has come since.
    fn carry_out_orders(&mut self, now: Instant) {
        let Some(mut inbox) = self.orders.take() else { return };
        let is_open = inbox.drain(&mut |order: Order<C, X, S>| {
            order(&mut self.core, &mut self.executor, &mut self.surroundings, now);
            self.settle(now);
        });
        // A desk that was given up would be readable for ever.
        self.orders = Some(inbox).filter(|_| is_open);
        self.stale = true;
    }

    /// Takes everything out of the engine. Packets that it wants to see again are handed in one by one, each after all
    /// that came before has been taken out.
    fn drain(&mut self, now: Instant) {
        loop {
            while let Some(output) = self.core.poll_output() {
                match output {
                    Output::Command(command) => self.commands.push(command),
                    Output::Event(event) => self.surroundings.event(now, &event),
                    Output::Again(id) => self.again.push_back(id),
                    Output::Verdict(verdict) => {
                        let mtu = |interface| self.surroundings.mtu(interface, now);
                        if let Some(outgrown) = self.gate.carry_out(&verdict, mtu) {
                            self.surroundings.warning(now, "an IPv6 message has outgrown the MTU", &outgrown);
                        }
                    }
                }
            }
            let Some(id) = self.again.pop_front() else { return };
            if let Some(packet) = self.gate.packet(id) {
                self.core.handle(now, Input::Packet(packet));
            }
        }
    }

    /// Carries out commands until none are left. The engine asks a bounded number for each input, so this ends.
    fn settle(&mut self, now: Instant) {
        self.drain(now);
        while !self.commands.is_empty() {
            let mut commands = mem::replace(&mut self.commands, mem::take(&mut self.running));
            let mut outcomes = mem::take(&mut self.outcomes);
            self.executor.execute(&commands, &mut outcomes);
            debug_assert_eq!(commands.len(), outcomes.len(), "one outcome for each command");
            outcomes.resize(commands.len(), Err(Failure::Kernel(libc::EIO)));
            for (command, outcome) in commands.drain(..).zip(outcomes.drain(..)) {
                self.core.handle(now, Input::CommandDone { id: command.id, outcome });
                self.drain(now);
            }
            self.running = commands;
            self.outcomes = outcomes;
        }
    }

    /// When [`Worker::turn`] is due though nothing is readable; `None`: never.
    fn poll_timeout(&self) -> Option<Instant> {
        let pause = if self.flowing { Duration::ZERO } else { ASK };
        let ask = self.gate.queue().descriptor().is_none().then(|| Instant::now() + pause);
        let publish = self.stale.then(|| self.published + PUBLISH);
        [self.core.poll_timeout(), self.gate.poll_timeout(), self.retry, ask, publish, self.next_beat]
            .into_iter()
            .flatten()
            .min()
    }

    fn publish(&mut self, now: Instant) {
        let snapshot = Snapshot {
            stats: self.core.stats().clone(),
            sizes: self.core.sizes(),
            queue: self.gate.counters(),
            held: self.gate.held(),
            mishaps: self.gate.mishaps(),
            trouble: self.trouble,
        };
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
        self.published = now;
        self.stale = false;
    }

    fn finish(&mut self) {
        let deadline = Instant::now() + LAST_PACKETS;
        while self.turn(Instant::now()) > 0 && Instant::now() < deadline {}
        self.gate.release_all();
        for _ in 0..LAST_ATTEMPTS {
            match self.gate.flush() {
                Ok(()) => break,
                Err(error) => {
                    self.surroundings.warning(Instant::now(), "cannot send the last verdicts", &error);
                    thread::sleep(RETRY);
                }
            }
        }
        self.publish(Instant::now());
    }
}

/// An event source that stays silent, for a queue without a kernel.
#[derive(Debug)]
pub struct NoEvents(
    io::PipeReader,
    #[expect(dead_code, reason = "closing it would make the other end readable")] io::PipeWriter,
);

impl NoEvents {
    /// A silent source.
    ///
    /// # Errors
    /// Those of pipe(2).
    pub fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(Self(reader, writer))
    }
}

impl EventSource for NoEvents {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn drain(&mut self, _: &mut dyn FnMut(KernelEvent)) {}
}
