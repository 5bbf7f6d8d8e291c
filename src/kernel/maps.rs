//! Pinholes and admissions as elements of the maps and sets.
//!
//! All element commands of a round become one transaction. What the kernel holds need not be what we believe it
//! to hold (elements expire, administrators delete them, an earlier run left some behind), and kernels differ: before 6.12
//! adding an element again does not touch its timeout, before 6.3 deleting one that is not there undoes everything. So
//! each element has a *goal*, and the transaction is tried with the steps that would be right if all were as expected;
//! the kernel names every message that does not fit, and for those elements the steps are chosen again ([`Goal::react`]).
//! No version is asked for. A command that can't be carried out is left out of the next try, so that it leaves nothing.
//!
//! Nothing here remembers anything: see [`super::ledger`].

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::Duration;

use super::element::{Element, Reader, Set, Table};
use super::nft::{self, Change, Fault, Verb};
use super::socket::NetlinkSocket;
use crate::alg::{Failure, Held, Inside, Line, Op, Outside, Peer, Pinhole};

/// Each try settles one doubt about an element, and no element has more than three.
const TRIES: usize = 6;
/// How long both ends of a broken connection are told so.
const BROKEN: Duration = Duration::from_secs(3600);
/// For so long after the last sign of life the daemon may come back. A thread that is not scheduled is not dead (with two
/// seconds, busy connections were reset on an emulated router that had a third of a processor), and a restart takes a
/// second. Segments are only dropped meanwhile, and come again: the price is that who talks to a daemon that is dead has
/// to wait for so long.
const ALIVE: Duration = Duration::from_secs(5);
/// Commands of one transaction: keeps a request below 1 MiB even if each has both pinholes and several peers.
const AT_ONCE: usize = 256;

/// Carries out the element commands among `commands`, as one transaction if it can; the others get `None`.
pub(super) fn execute<'a>(
    socket: &mut NetlinkSocket,
    commands: impl Iterator<Item = &'a Op>,
) -> Vec<Option<Result<(), Failure>>> {
    let all: Vec<_> = commands.map(goals).collect();
    let mut outcomes = Vec::with_capacity(all.len());
    for some in all.chunks(AT_ONCE) {
        let mut jobs: Vec<_> =
            some.iter().map(|goals| Job::new(goals.as_deref().unwrap_or_default())).collect();
        settle(socket, &mut jobs);
        let outcome = |(job, goals): (Job<'_>, &Option<Vec<Goal>>)| goals.as_ref().map(|_| job.outcome);
        outcomes.extend(jobs.into_iter().zip(some).map(outcome));
    }
    outcomes
}

/// The sign that the daemon is at work.
pub(super) fn beat(socket: &mut NetlinkSocket) -> Result<(), Failure> {
    let goals = [Goal { element: Element::alive(), aim: Aim::Renew, timeout: ALIVE }];
    let mut jobs = [Job::new(&goals)];
    settle(socket, &mut jobs);
    let [Job { outcome, .. }] = jobs;
    outcome
}

/// Everything that the maps and sets hold.
pub(super) fn held(socket: &mut NetlinkSocket) -> io::Result<Held> {
    let mut held = Held::default();
    for v6 in [false, true] {
        let mut list = |table, sink: &mut dyn FnMut(Reader<'_>, Reader<'_>, Duration)| {
            let elements = nft::list(socket, Set { table, v6 }.name())?;
            for (key, (data, left)) in &elements {
                sink(Reader::new(key, v6), Reader::new(data, v6), *left);
            }
            Ok::<_, io::Error>(())
        };
        let mut inbound = HashMap::new();
        list(Table::Inbound, &mut |mut key, mut data, _| {
            let key = key.transport().and_then(|transport| Some((transport, Outside(key.endpoint()?))));
            if let (Some(key), Some(inside)) = (key, data.endpoint()) {
                inbound.insert(key, Inside(inside));
            }
        })?;
        list(Table::Outbound, &mut |mut key, mut data, left| {
            let (uplink, transport) = (key.index(), key.transport());
            let (inside, public) = (key.endpoint().map(Inside), data.endpoint().map(Outside));
            let (Some(uplink), Some(transport), Some(inside), Some(public)) =
                (uplink, transport, inside, public)
            else {
                return;
            };
            let pinhole = Pinhole { transport, inside, public, uplink };
            if inbound.get(&(transport, public)) == Some(&inside) {
                held.pinholes.push((pinhole, left));
            }
        })?;
        list(Table::Owned, &mut |mut key, _, left| {
            held.owned.extend(key.transport().and_then(|_| Some((Outside(key.endpoint()?), left))));
        })?;
        list(Table::Peers, &mut |mut key, _, left| {
            let (transport, public, far) = (key.transport(), key.endpoint().map(Outside), key.address());
            let (Some(transport), Some(public), Some(_)) = (transport, public, far) else { return };
            held.peers.push((Peer { transport, public, far }, left));
        })?;
        list(Table::Open, &mut |mut key, _, left| {
            let (Some(transport), Some(public)) = (key.transport(), key.endpoint().map(Outside)) else {
                return;
            };
            held.peers.push((Peer { transport, public, far: None }, left));
        })?;
        let mut segments = HashSet::new();
        list(Table::Followed, &mut |mut key, _, _| {
            segments.extend(key.endpoint().and_then(|source| Some((source, key.endpoint()?))));
        })?;
        // A connection that is followed in one direction only has been forgotten by the rules: its tuple has another.
        list(Table::Lines, &mut |mut key, mut data, _| {
            let (inside, far, public) = (key.endpoint(), key.endpoint(), data.endpoint());
            let (Some(inside), Some(far), Some(public)) = (inside, far, public) else { return };
            if segments.contains(&(inside, far)) && segments.contains(&(far, public)) {
                held.followed.push(Line { inside: Inside(inside), far, public: Outside(public) });
            }
        })?;
    }
    Ok(held)
}

/// What shall be true of an element after the transaction.
#[derive(Clone, Debug)]
struct Goal {
    element: Element,
    aim: Aim,
    timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    /// It is there. If its key is there with other data, somebody else has the port.
    Claim,
    /// It is there, whatever was there. Expected not to be there.
    Put,
    /// It is there, whatever was there. Expected to be there.
    Renew,
    /// It is not there.
    Gone,
    /// It is there for a while more, if its set is. Expected to be there.
    Stay,
}

/// The steps that are right in one state of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    /// The key is not there: create it.
    Create,
    /// The key is there with our data, or the transaction fails: check, delete, create.
    Recreate,
    /// The key is there: delete, create.
    Replace,
    /// The key is there: delete.
    Delete,
    /// Nothing is to be done.
    Nothing,
}

impl Plan {
    fn verbs(self) -> &'static [Verb] {
        match self {
            Self::Create => &[Verb::Create],
            Self::Recreate => &[Verb::Ensure, Verb::Delete, Verb::Create],
            Self::Replace => &[Verb::Delete, Verb::Create],
            Self::Delete => &[Verb::Delete],
            Self::Nothing => &[],
        }
    }
}

impl Goal {
    fn first_plan(&self) -> Plan {
        match self.aim {
            Aim::Claim | Aim::Put => Plan::Create,
            Aim::Renew | Aim::Stay => Plan::Replace,
            Aim::Gone => Plan::Delete,
        }
    }

    /// The plan after `plan` failed at `verb`.
    fn react(&self, plan: Plan, verb: Verb, code: i32) -> Result<Plan, Failure> {
        // Kernels before 6.12 say EBUSY for a key that is there with other data.
        let code = if code == libc::EBUSY { libc::EEXIST } else { code };
        match (self.aim, plan, verb, code) {
            (Aim::Claim, Plan::Create, Verb::Create, libc::EEXIST) => Ok(Plan::Recreate),
            (Aim::Claim, Plan::Recreate, Verb::Ensure, libc::EEXIST) => Err(Failure::PortInUse),
            (Aim::Gone, Plan::Delete, Verb::Delete, libc::ENOENT) => Ok(Plan::Nothing),
            (Aim::Stay, Plan::Create, Verb::Create, libc::ENOENT) => Ok(Plan::Nothing),
            (_, Plan::Create, Verb::Create, libc::EEXIST) => Ok(Plan::Replace),
            (_, Plan::Replace, Verb::Delete, libc::ENOENT) => Ok(Plan::Create),
            (_, _, _, libc::ENFILE | libc::ENOSPC | libc::ENOMEM) => Err(Failure::Full),
            (_, _, _, code) => Err(Failure::Kernel(code)),
        }
    }
}

/// The elements of one command; `None` if it is about conntrack.
fn goals(op: &Op) -> Option<Vec<Goal>> {
    let goal = |aim, timeout: Duration| move |element| Goal { element, aim, timeout };
    let inbound = |pinholes: &[Pinhole]| pinholes.iter().map(Element::inbound).collect::<Vec<_>>();
    let outbound = |pinholes: &[Pinhole]| pinholes.iter().map(Element::outbound).collect::<Vec<_>>();
    let owned = |pinholes: &[Pinhole]| pinholes.iter().map(Element::owned).collect::<Vec<_>>();
    let admissions = |peers: &[Peer]| peers.iter().map(Element::admission).collect::<Vec<_>>();
    let all = |parts: &[(Aim, Duration, Vec<Element>)]| {
        let each = |(aim, timeout, elements): &(Aim, Duration, Vec<Element>)| {
            elements.iter().cloned().map(goal(*aim, *timeout)).collect::<Vec<_>>()
        };
        Some(parts.iter().flat_map(each).collect())
    };
    match op {
        // Closed to strangers before it is open to anybody.
        Op::Open { pinholes, lifetime } => all(&[
            (Aim::Put, *lifetime, owned(pinholes)),
            (Aim::Claim, *lifetime, inbound(pinholes)),
            (Aim::Put, *lifetime, outbound(pinholes)),
        ]),
        Op::Renew { pinholes, peers, lifetime } => all(&[
            (Aim::Renew, *lifetime, owned(pinholes)),
            (Aim::Renew, *lifetime, inbound(pinholes)),
            (Aim::Renew, *lifetime, outbound(pinholes)),
            (Aim::Renew, *lifetime, admissions(peers)),
        ]),
        Op::Close { pinholes, peers, quarantine } => {
            let stay = if quarantine.is_zero() { Aim::Gone } else { Aim::Stay };
            all(&[
                (Aim::Gone, Duration::ZERO, admissions(peers)),
                (Aim::Gone, Duration::ZERO, inbound(pinholes)),
                (Aim::Gone, Duration::ZERO, outbound(pinholes)),
                (stay, *quarantine, owned(pinholes)),
            ])
        }
        Op::Admit { peers, lifetime } => all(&[(Aim::Put, *lifetime, admissions(peers))]),
        Op::Dismiss { peers } => all(&[(Aim::Gone, Duration::ZERO, admissions(peers))]),
        Op::Follow { line, lifetime } => {
            let mut all = vec![Goal { element: Element::alive(), aim: Aim::Renew, timeout: ALIVE }];
            all.extend(Element::segments(Table::Broken, line).map(goal(Aim::Gone, Duration::ZERO)));
            all.extend(Element::segments(Table::Followed, line).map(goal(Aim::Put, *lifetime)));
            all.push(goal(Aim::Put, *lifetime)(Element::line(line)));
            Some(all)
        }
        Op::Unfollow { line } => {
            let mut all = vec![goal(Aim::Gone, Duration::ZERO)(Element::line(line))];
            for table in [Table::Broken, Table::Followed] {
                all.extend(Element::segments(table, line).map(goal(Aim::Gone, Duration::ZERO)));
            }
            Some(all)
        }
        Op::Reset { line } => {
            let mut all: Vec<_> = Element::segments(Table::Broken, line).map(goal(Aim::Put, BROKEN)).into();
            all.extend(Element::segments(Table::Followed, line).map(goal(Aim::Gone, Duration::ZERO)));
            all.push(goal(Aim::Gone, Duration::ZERO)(Element::line(line)));
            Some(all)
        }
        Op::Pin { .. }
        | Op::Unpin { .. }
        | Op::Lookup { .. }
        | Op::Recognise { .. }
        | Op::Sustain { .. }
        | Op::Purge { .. }
        | Op::Reroute { .. }
        | Op::Expect { .. }
        | Op::Unexpect { .. } => None,
    }
}

/// One command on its way.
struct Job<'a> {
    goals: Vec<(&'a Goal, Plan)>,
    outcome: Result<(), Failure>,
}

impl<'a> Job<'a> {
    fn new(goals: &'a [Goal]) -> Self {
        Self { goals: goals.iter().map(|goal| (goal, goal.first_plan())).collect(), outcome: Ok(()) }
    }

    fn fail(&mut self, failure: Failure) {
        self.outcome = Err(failure);
        self.goals.clear();
    }
}

/// Tries until the kernel takes what is left.
fn settle(socket: &mut NetlinkSocket, jobs: &mut [Job<'_>]) {
    for _ in 0..TRIES {
        let mut changes = Vec::new();
        let mut origins = Vec::new();
        for (job, Job { goals, .. }) in jobs.iter().enumerate() {
            for (goal, (Goal { element, timeout, .. }, plan)) in goals.iter().enumerate() {
                for &verb in plan.verbs() {
                    changes.push(Change { element, verb, timeout: *timeout });
                    origins.push((job, goal, verb));
                }
            }
        }
        if changes.is_empty() {
            return;
        }
        let faults = match nft::change(socket, &changes) {
            Ok(faults) if faults.is_empty() => return,
            Ok(faults) => faults,
            Err(error) => return fail_all(jobs, error.raw_os_error().unwrap_or(libc::EIO)),
        };
        // Only an element's first fault counts: the following ones may stem from it.
        let mut seen = HashSet::new();
        for Fault { at, code } in faults {
            let Some(&(job, goal, verb)) = origins.get(at) else { continue };
            if !seen.insert((job, goal)) {
                continue;
            }
            let Some(job) = jobs.get_mut(job) else { continue };
            let Some((goal, plan)) = job.goals.get_mut(goal) else { continue };
            match goal.react(*plan, verb, code) {
                Ok(next) => *plan = next,
                Err(failure) => job.fail(failure),
            }
        }
    }
    fail_all(jobs, libc::EAGAIN);
}

fn fail_all(jobs: &mut [Job<'_>], code: i32) {
    let failure = match code {
        libc::ENFILE | libc::ENOSPC | libc::ENOMEM => Failure::Full,
        code => Failure::Kernel(code),
    };
    jobs.iter_mut().filter(|job| !job.goals.is_empty()).for_each(|job| job.fail(failure));
}
