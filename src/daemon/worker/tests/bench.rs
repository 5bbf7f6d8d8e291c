//! The worker's surroundings in its tests: a queue, an engine, an executor and a router that do what a script says, and write
//! down every step.

use super::*;

/// What the scripted engine puts out; numbers are those of packets and commands.
pub(super) enum Out {
    Command(u64),
    Accept(u64),
    Restamp(u64, u32),
    Rewrite(u64, &'static str),
    /// To a payload of so many bytes.
    RewriteTo(u64, usize),
    Drop(u64),
    Again(u64),
    Event,
}

pub(super) type Script = Box<dyn FnMut(&Input<'_>, &mut VecDeque<Out>)>;

pub(super) struct FakeCore {
    pub(super) journal: Journal,
    pub(super) script: Script,
    pub(super) outputs: VecDeque<Out>,
    pub(super) edits: Edits,
    pub(super) due: Option<Instant>,
    pub(super) stats: Stats,
}

impl Core for FakeCore {
    fn handle(&mut self, now: Instant, input: Input<'_>) {
        assert!(self.outputs.is_empty(), "an input before all outputs were taken");
        if self.due.is_some_and(|due| due <= now) {
            self.due = None;
        }
        self.journal.borrow_mut().push(match &input {
            Input::Packet(packet) => format!("packet {}", packet.id.0),
            Input::Translated { packet, .. } => format!("translated {}", packet.0),
            Input::CommandDone { id, outcome } => format!("done {} {outcome:?}", id.number()),
            Input::AddressGone(address) => format!("gone {address}"),
            Input::FlowDestroyed(_) => "destroyed".into(),
            Input::Mtu { interface, mtu } => format!("told {interface} {mtu}"),
            Input::RulesetReloaded => "reloaded".into(),
            Input::Timeout => "timeout".into(),
        });
        (self.script)(&input, &mut self.outputs);
    }

    fn poll_output(&mut self) -> Option<Output<'_>> {
        let rewrite = |text: &[u8], edits: &mut Edits| {
            edits.clear();
            edits.replace(Span::new(0, 3), text, Rule::Via).unwrap();
        };
        let (packet, action) = match self.outputs.pop_front()? {
            Out::Again(id) => return Some(Output::Again(PacketId(id))),
            Out::Event => {
                let inside = ([1, 1, 1, 1], 1).into();
                return Some(Output::Event(Event::Refused { rule: "S4", inside, why: "test" }));
            }
            Out::Command(id) => {
                let flow = FlowKey {
                    transport: crate::alg::Transport::Udp,
                    inside: Inside(([1, 1, 1, 1], 1).into()),
                    far: ([2, 2, 2, 2], 2).into(),
                };
                let op = Op::Sustain { flow, lifetime: Duration::ZERO };
                return Some(Output::Command(Command { id: CommandId::nth(id), op }));
            }
            Out::Accept(id) => (id, Action::Accept { identity: None }),
            Out::Restamp(id, identity) => (id, Action::Accept { identity: Some(identity) }),
            Out::Drop(id) => (id, Action::Drop),
            Out::Rewrite(id, text) => {
                rewrite(text.as_bytes(), &mut self.edits);
                (id, Action::Rewrite { edits: &self.edits, identity: None, spare_identity: 0xbeef })
            }
            Out::RewriteTo(id, length) => {
                rewrite(&vec![b'x'; length], &mut self.edits);
                (id, Action::Rewrite { edits: &self.edits, identity: None, spare_identity: 0xbeef })
            }
        };
        Some(Output::Verdict(Verdict {
            packet: PacketId(packet),
            action,
            port: None,
            reason: Reason::Unchanged,
        }))
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }

    fn sizes(&self) -> Sizes {
        Sizes::default()
    }
}

pub(super) struct FakeQueue {
    pub(super) journal: Journal,
    pub(super) batches: VecDeque<Result<Vec<u64>, i32>>,
    pub(super) batch: Vec<u64>,
    /// So many flushes fail.
    pub(super) deaf_for: usize,
    pub(super) longest: usize,
    pub(super) received: u64,
    pub(super) without_descriptor: bool,
    /// Readable for ever.
    pub(super) pipe: (PipeReader, PipeWriter),
}

impl PacketQueue for FakeQueue {
    fn receive(&mut self) -> io::Result<usize> {
        self.batch =
            self.batches.pop_front().unwrap_or(Ok(Vec::new())).map_err(io::Error::from_raw_os_error)?;
        self.received += self.batch.len() as u64;
        Ok(self.batch.len())
    }

    fn packet(&self, index: usize) -> Option<PacketIn<'_>> {
        let id = PacketId(*self.batch.get(index)?);
        let bytes: &[u8] = if id.0 < SEGMENTS { &PACKET } else { &SEGMENT };
        Some(PacketIn { id, point: QueuePoint::NewFlow, indev: 3, outdev: 4, bytes })
    }

    fn accept(&mut self, id: PacketId) {
        self.journal.borrow_mut().push(format!("accept {}", id.0));
    }

    fn discard(&mut self, id: PacketId) {
        self.journal.borrow_mut().push(format!("discard {}", id.0));
    }

    fn replace(&mut self, id: PacketId, bytes: &[u8]) -> Result<(), TooLong> {
        if bytes.len() > self.longest {
            return Err(TooLong);
        }
        self.journal.borrow_mut().push(format!("replace {} {}", id.0, hex(bytes)));
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.deaf_for > 0 {
            self.deaf_for -= 1;
            return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
        }
        self.journal.borrow_mut().push("flush".into());
        Ok(())
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        (!self.without_descriptor).then(|| self.pipe.0.as_fd())
    }

    fn counters(&self) -> Counters {
        Counters { received: self.received, ..Counters::default() }
    }
}

pub(super) struct FakeExecutor {
    pub(super) journal: Journal,
    pub(super) failing: HashSet<u64>,
    /// How often it wants to be asked.
    pub(super) beat: Option<Duration>,
}

impl Executor for FakeExecutor {
    fn execute(&mut self, commands: &[Command], outcomes: &mut Vec<Outcome>) {
        let ids: Vec<u64> = commands.iter().map(|command| command.id.number()).collect();
        self.journal.borrow_mut().push(format!("execute {ids:?}"));
        outcomes.extend(
            ids.iter().map(|id| if self.failing.contains(id) { Err(Failure::Full) } else { Ok(Reply::Done) }),
        );
    }

    fn keep_alive(&mut self, now: Instant) -> Option<Instant> {
        Some(now + self.beat?)
    }
}

pub(super) struct FakeEvents {
    pub(super) waiting: Vec<KernelEvent>,
    pub(super) pipe: (PipeReader, PipeWriter),
}

impl FakeEvents {
    pub(super) fn announce(&mut self, event: KernelEvent) {
        self.waiting.push(event);
        self.pipe.1.write_all(b"x").unwrap();
    }
}

impl EventSource for FakeEvents {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.pipe.0.as_fd()
    }

    fn drain(&mut self, sink: &mut dyn FnMut(KernelEvent)) {
        self.waiting.drain(..).for_each(sink);
    }
}

pub(super) struct FakeSurroundings {
    pub(super) journal: Journal,
    pub(super) mtu: usize,
}

impl Surroundings<FakeExecutor> for FakeSurroundings {
    fn mtu(&mut self, interface: u32, _: Instant) -> usize {
        self.journal.borrow_mut().push(format!("mtu {interface}"));
        self.mtu
    }

    fn event(&mut self, _: Instant, event: &Event) {
        let Event::Refused { rule, .. } = event else { panic!("{event:?}") };
        self.journal.borrow_mut().push(format!("event {rule}"));
    }

    fn warning(&mut self, _: Instant, what: &'static str, _: &dyn Display) {
        self.journal.borrow_mut().push(format!("warning: {what}"));
    }

    fn ruleset_changed(&mut self, _: &mut FakeExecutor) -> bool {
        self.journal.borrow_mut().push("ruleset changed".into());
        true
    }

    fn events_lost(&mut self, _: &mut FakeExecutor) -> bool {
        self.journal.borrow_mut().push("events lost".into());
        false
    }
}

pub(super) struct Bench {
    pub(super) worker: Worker<FakeCore, FakeQueue, FakeExecutor, FakeEvents, FakeSurroundings>,
    pub(super) journal: Journal,
    pub(super) now: Instant,
}

impl Bench {
    pub(super) fn new(script: impl FnMut(&Input<'_>, &mut VecDeque<Out>) + 'static) -> Self {
        let journal = Journal::default();
        let mut pipe = io::pipe().unwrap();
        pipe.1.write_all(b"x").unwrap();
        let parts = Parts {
            core: FakeCore {
                journal: Rc::clone(&journal),
                script: Box::new(script),
                outputs: VecDeque::new(),
                edits: Edits::new(),
                due: None,
                stats: Stats::default(),
            },
            queue: FakeQueue {
                journal: Rc::clone(&journal),
                batches: VecDeque::new(),
                batch: Vec::new(),
                deaf_for: 0,
                longest: queue::MAX_PACKET,
                received: 0,
                without_descriptor: false,
                pipe,
            },
            executor: FakeExecutor { journal: Rc::clone(&journal), failing: HashSet::new(), beat: None },
            events: FakeEvents { waiting: Vec::new(), pipe: io::pipe().unwrap() },
            surroundings: FakeSurroundings { journal: Rc::clone(&journal), mtu: 1500 },
        };
        let now = Instant::now();
        Self { worker: Worker::new(parts, now), journal, now }
    }

    pub(super) fn arrive(&mut self, ids: &[u64]) {
        self.worker.gate.queue_mut().batches.push_back(Ok(ids.to_vec()));
    }

    pub(super) fn turn(&mut self) -> usize {
        self.worker.turn(self.now)
    }

    pub(super) fn take(&self) -> Vec<String> {
        self.journal.take()
    }

    pub(super) fn expect(&self, steps: &[&str]) {
        assert_eq!(self.take(), steps);
    }
}
