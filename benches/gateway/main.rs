//! Throughput of a gateway under INVITEs with SDP, against its rivals.
//!
//! Phones, router and provider are network namespaces. In every round each gateway stands once in a new router,
//! the phones send as fast as they can, and what arrives at the provider translated is counted. Rounds are
//! interleaved, so that a noisy machine disturbs all gateways alike, and compared within each round.
//!
//! ```text
//! cargo bench --bench gateway                          needs root, cc and libnetfilter-queue-dev; about a minute
//! cargo bench --bench gateway -- --json --rounds 9
//! cargo bench --bench gateway -- --only plain --only helper
//! ```
//!
//! It measures; it does not judge. It fails when a gateway can't be measured, except for the kernel's helper,
//! which not every kernel has.
#![allow(clippy::print_stdout, clippy::print_stderr)] // a program of its own

#[path = "../shared/invite.rs"]
mod invite;

mod gateways;
mod judge;
mod load;
mod namespace;
mod network;
mod report;
mod socket;
mod stream;

use std::process::ExitCode;
use std::time::Duration;
use std::{fs, thread};

use anyhow::Result;
use clap::Parser;

use gateways::{Gateway, Workshop};
use judge::Expected;
use load::{Bounds, Calls};
use network::{Nat, Network};
use report::{Measurement, Missing, Report, Scenario};

/// Throughput of a gateway under INVITEs with SDP, against its rivals.
#[derive(Parser)]
struct Arguments {
    /// JSON instead of tables.
    #[arg(long)]
    json: bool,
    /// Rounds of each kind of traffic.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds that the phones send in a round.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Measure only these.
    #[arg(long)]
    only: Vec<Gateway>,
    /// What cargo passes to say that this is `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What the phones send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Traffic {
    /// UDP.
    Datagrams(Calls),
    /// TCP.
    Segments,
}

/// With sipalg, a round of new calls ends after so many: with the packets that are still queued then, less than the
/// calls that it keeps by default (32,768), and less than the ports of all public addresses.
const NEW_CALLS: u64 = 24_000;

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if !arguments.bench {
        eprintln!("this is a benchmark: cargo bench --bench gateway");
        return Ok(ExitCode::SUCCESS);
    }
    let workshop = Workshop::new()?;
    let mut gateways: Vec<Gateway> = Gateway::ALL.into();
    gateways.retain(|gateway| arguments.only.is_empty() || arguments.only.contains(gateway));

    let mut missing = Vec::new();
    gateways.retain(|&gateway| {
        let start = Network::new(Nat::Masquerade).and_then(|network| workshop.start(gateway, &network));
        start.map_err(|why| missing.push((gateway, why))).is_ok()
    });
    let mut scenarios = Vec::new();
    let time = Duration::from_secs_f64(arguments.seconds);
    for (name, traffic, nat) in [
        ("one dialog, repeated", Traffic::Datagrams(Calls::Known), Nat::Masquerade),
        ("a new dialog and pinhole for every message", Traffic::Datagrams(Calls::New), Nat::Pool),
        (
            "over TCP, a dialog for each of 32 connections, every message answered",
            Traffic::Segments,
            Nat::Masquerade,
        ),
    ] {
        let mut rounds = Vec::new();
        for round in 0..arguments.rounds {
            let mut results = Vec::new();
            for i in 0..gateways.len() {
                // Every round begins with another one.
                let gateway = gateways[(i + round) % gateways.len()];
                match measure(&workshop, gateway, traffic, nat, time) {
                    Ok(measurement) => {
                        eprintln!(
                            "{name}, round {}: {}: {:.0}/s",
                            round + 1,
                            gateway.name(),
                            measurement.rate
                        );
                        results.push((gateway, measurement));
                    }
                    Err(why) => missing.push((gateway, why.context(format!("{name}, round {}", round + 1)))),
                }
            }
            rounds.push(results);
        }
        scenarios.push(Scenario::new(name, &rounds));
    }

    let failed = missing.iter().any(|(gateway, _)| *gateway != Gateway::Helper);
    let report = Report {
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_string(),
        processors: thread::available_parallelism()?.get(),
        message_bytes: invite::LENGTH,
        scenarios,
        missing: missing
            .into_iter()
            .map(|(gateway, why)| Missing { gateway: gateway.name(), why: format!("{why:#}") })
            .collect(),
    };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{}", report.text());
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn measure(
    workshop: &Workshop,
    gateway: Gateway,
    traffic: Traffic,
    nat: Nat,
    time: Duration,
) -> Result<Measurement> {
    let is_new = traffic == Traffic::Datagrams(Calls::New);
    let limited = is_new && matches!(gateway, Gateway::Nfq | Gateway::Netlink);
    let bounds = Bounds { time, calls: if limited { NEW_CALLS } else { u64::MAX } };
    let network = Network::new(nat)?;
    let running = workshop.start(gateway, &network)?;
    let mut before = None;
    let at_start = || before = running.cpu();
    let tally = match traffic {
        Traffic::Datagrams(calls) => load::round(&network, calls, gateway.expected(), bounds, at_start)?,
        Traffic::Segments => stream::round(&network, gateway.expected(), bounds, at_start)?,
    };
    let cpu = running.cpu().zip(before).map(|(after, before)| after - before);
    Ok(Measurement {
        rate: tally.rate(),
        offered: tally.offered,
        cpu: cpu.map(|time| time.as_secs_f64() * 1e6 / tally.handled as f64),
        spoilt: tally.spoilt,
        endpoints: (is_new && gateway.expected() == Expected::Translated)
            .then(|| tally.endpoints as f64 / tally.handled as f64),
    })
}
