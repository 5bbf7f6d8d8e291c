//! The order of events: everybody on the line, all phones registered, all calls up, all calls over.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use super::gateway::Outsider;
use super::line::Line;
use super::media::Ports;
use super::netns::Namespace;
use super::network::{self, MEDIA, Network, PHONES, PROXY, REGISTRAR, sip_port};
use super::notebook::{Notebook, Page};
use super::observe::{self, Sample};
use super::phone::{Outcome, Phone, rtp_endpoint};
use super::plan::{Flag, Gate, Plan, calls};
use super::provider::Provider;
use super::stop::Stop;
use super::{LabError, LabOptions, Progress, proxy, registrar};

/// After so long whatever still waits is told to end, so that a run that goes wrong ends in time too.
const LIMIT: Duration = Duration::from_secs(60);

/// What came of it.
#[derive(Debug)]
pub(super) struct Played {
    pub(super) plans: Vec<Plan>,
    /// By phone.
    pub(super) phones: BTreeMap<u8, Outcome>,
    /// The parties outside, by the phone that they spoke with.
    pub(super) outsiders: BTreeMap<u8, Outcome>,
    /// By phone; under 0 what nobody could be blamed for.
    pub(super) pages: BTreeMap<u8, Page>,
    /// The router with all calls up.
    pub(super) during: Sample,
}

/// Plays all calls.
pub(super) fn play(
    network: &Network,
    options: &LabOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<Played, LabError> {
    let plans = calls();
    let notebook = Notebook::default();
    let stop = Stop::default();
    let provider = {
        let registrar = open_line(&network.provider, REGISTRAR)?;
        let proxy = open_line(&network.provider, PROXY)?;
        Provider::new(registrar, proxy, options.translation, &notebook)
    };
    let devices = PHONES
        .map(|phone| {
            let place = network.phone(phone);
            let line = open_line(place, network::phone_address(phone))?;
            Ok((phone, line, open_ports(place, rtp_endpoint(phone))?))
        })
        .collect::<Result<Vec<_>, LabError>>()?;
    let trunks = plans
        .iter()
        .map(|plan| open_ports(&network.provider, SocketAddr::from((MEDIA, plan.media_port()))))
        .collect::<Result<Vec<_>, LabError>>()?;
    let phones: Vec<_> = devices
        .iter()
        .map(|(number, line, ports)| Phone::new(*number, line, ports, &notebook, &stop))
        .collect();
    let outsiders: Vec<_> = plans
        .iter()
        .zip(&trunks)
        .filter(|(plan, _)| plan.outsiders_phone().is_some())
        .map(|(plan, ports)| (plan, Outsider::new(plan, &provider, ports, &stop)))
        .collect();

    let stage = Stage {
        plans: &plans,
        provider: &provider,
        notebook: &notebook,
        stop: &stop,
        steps: Steps::default(),
    };
    let watch = || observe::look(&network.router);
    let (phones, outsiders, during) = thread::scope(|scope| {
        let _end = EndWithMe(&stop);
        scope.spawn(|| provider.registrar.pump(&stop, |heard| registrar::handle(&provider, heard)));
        scope.spawn(|| provider.proxy.pump(&stop, |heard| proxy::handle(&provider, heard)));
        for phone in &phones {
            scope.spawn(|| phone.pump());
        }
        let stage = &stage;
        let inside: Vec<_> =
            phones.iter().map(|phone| (phone.number, scope.spawn(|| stage.phone(phone)))).collect();
        let outside: Vec<_> = outsiders
            .iter()
            .filter_map(|(plan, outsider)| Some((plan.outsiders_phone()?, plan, outsider)))
            .map(|(phone, plan, outsider)| {
                (phone, scope.spawn(move || stage.outsider(phone, plan, outsider)))
            })
            .collect();
        let during = stage.conduct(&inside, &outside, &options.stop, progress, watch);
        (collect(inside), collect(outside), during)
    });
    if options.stop.is_raised() {
        return Err(LabError::Interrupted);
    }
    notebook.note_shared_endpoints();
    let pages = PHONES.chain([0]).map(|phone| (phone, notebook.page(phone))).collect();
    Ok(Played { plans, phones, outsiders, pages, during })
}

/// What the parties' threads share.
struct Stage<'a> {
    plans: &'a [Plan],
    provider: &'a Provider<'a>,
    notebook: &'a Notebook,
    stop: &'a Stop,
    steps: Steps,
}

/// How far the parties are.
#[derive(Debug, Default)]
struct Steps {
    registered: AtomicUsize,
    may_call: Flag,
    up: Gate,
}

/// Parties at work, by phone.
type Threads<'s> = [(u8, ScopedJoinHandle<'s, Outcome>)];

impl Stage<'_> {
    /// A phone's whole life.
    fn phone(&self, phone: &Phone<'_>) -> Outcome {
        let ticket = self.steps.up.ticket();
        let calls = phone.listen();
        let mut outcome = Outcome::default();
        let registered = phone.register();
        self.steps.registered.fetch_add(1, Ordering::SeqCst);
        self.steps.may_call.wait(LIMIT, self.stop);
        let plan = self.plans.iter().find(|plan| plan.has(phone.number));
        let told = registered.and_then(|()| match plan {
            Some(plan) if plan.caller() == Some(phone.number) => phone.call(plan, ticket, &mut outcome),
            Some(plan) => phone.be_called(plan, &calls, ticket, &mut outcome),
            None => Ok(()),
        });
        if let Err(trouble) = told {
            self.notebook.trouble(phone.number, trouble.to_string());
        }
        outcome
    }

    /// The part of somebody outside, who speaks with `phone`.
    fn outsider(&self, phone: u8, plan: &Plan, outsider: &Outsider<'_>) -> Outcome {
        let ticket = self.steps.up.ticket();
        let calls = outsider.listen(plan);
        let mut outcome = Outcome::default();
        self.steps.may_call.wait(LIMIT, self.stop);
        let told = match plan.caller() {
            Some(_) => outsider.be_called(plan, &calls, ticket, &mut outcome),
            None => outsider.call(plan, phone, self.provider, ticket, &mut outcome),
        };
        if let Err(trouble) = told {
            self.notebook.trouble(phone, format!("the far end: {trouble}"));
        }
        outcome
    }

    /// Leads everybody through the run; looks at the router when all calls are up.
    fn conduct(
        &self,
        inside: &Threads<'_>,
        outside: &Threads<'_>,
        interrupted: &Stop,
        progress: &mut dyn FnMut(Progress),
        look: impl FnOnce() -> Sample,
    ) -> Sample {
        let (phones, parties) = (inside.len(), inside.len() + outside.len());
        let deadline = Instant::now() + LIMIT;
        let mut wait_for = |wanted: usize, count: &dyn Fn() -> usize, say: &dyn Fn(usize) -> Progress| {
            let mut told = None;
            while !self.stop.is_raised() {
                let count = count();
                if told != Some(count) {
                    progress(say(count));
                    told = Some(count);
                }
                if count >= wanted {
                    break;
                }
                if interrupted.is_raised() || Instant::now() > deadline {
                    self.stop.raise();
                }
                thread::sleep(Duration::from_millis(20));
            }
        };
        wait_for(phones, &|| self.steps.registered.load(Ordering::SeqCst), &|n| {
            Progress::Registering(n, phones)
        });
        self.steps.may_call.raise();
        wait_for(parties, &|| self.steps.up.come(), &|n| Progress::Calling(n, parties));
        let during = look();
        self.steps.up.open();
        let finished = || inside.iter().chain(outside).filter(|(_, thread)| thread.is_finished()).count();
        wait_for(parties, &finished, &|n| Progress::Talking(n, parties));
        during
    }
}

/// Ends all threads of the scope when it is left, also by a panic.
struct EndWithMe<'s>(&'s Stop);

impl Drop for EndWithMe<'_> {
    fn drop(&mut self) {
        self.0.raise();
    }
}

fn collect(threads: Vec<(u8, ScopedJoinHandle<'_, Outcome>)>) -> BTreeMap<u8, Outcome> {
    let join = |thread: ScopedJoinHandle<'_, Outcome>| {
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    };
    threads.into_iter().map(|(phone, thread)| (phone, join(thread))).collect()
}

fn open_line(place: &Namespace, address: Ipv4Addr) -> Result<Line, LabError> {
    let socket = place.run(|| UdpSocket::bind(sip_port(address))).and_then(Line::new);
    socket.map_err(|error| LabError::io(format!("cannot open {address}:5060 in {}", place.name()), error))
}

fn open_ports(place: &Namespace, rtp: SocketAddr) -> Result<Ports, LabError> {
    let ports = place.run(|| Ports::bind(rtp));
    ports.map_err(|error| LabError::io(format!("cannot open {rtp} in {}", place.name()), error))
}
