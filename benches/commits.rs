//! How many map and set elements the kernel takes in a second.
//!
//! A stream (RTP and RTCP) is opened and closed as a call does it, through the daemon's own executor; with it go six
//! elements, three for each endpoint. `n at once` hands `n` commands to it together, as the daemon does with those of
//! one batch of packets. Needs root and `nft`; everything happens in a network namespace of its own.
#![allow(unsafe_code)] // unshare is a system call without a safe form

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command as Process;
use std::time::{Duration, Instant};
use std::{io, iter};

use criterion::{Criterion, Throughput};
use sipalg::alg::{Command, CommandId, Executor, Inside, Op, Outcome, Outside, Pinhole, Pinholes};
use sipalg::kernel::ruleset::{self, RulesetSettings};
use sipalg::kernel::{Kernel, KernelSettings};

fn main() {
    enter_new_namespace();
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let kernel = Kernel::open(&KernelSettings::default()).expect("root may open netlink sockets");
    ruleset::install(&RulesetSettings::default()).expect("nft loads the ruleset into an empty namespace");
    let mut bench = Bench { kernel, outcomes: Vec::new(), id: 0, stream: 0 };

    let mut group = criterion.benchmark_group("commits");
    for at_once in [1, 8, 32] {
        group.throughput(Throughput::Elements(6 * at_once as u64));
        group.bench_function(format!("open, {at_once} at once"), |bencher| {
            bencher.iter_custom(|times| bench.times(times, at_once).0);
        });
        group.bench_function(format!("close, {at_once} at once"), |bencher| {
            bencher.iter_custom(|times| bench.times(times, at_once).1);
        });
    }
    group.finish();
    criterion.final_summary();
}

/// The router's address in the namespace.
const PUBLIC: Ipv4Addr = Ipv4Addr::new(22, 33, 44, 55);
/// Streams that are open at one time, at most: half of what the ports of one public address allow, so that a port
/// rests for a while before it is used again.
const OPEN: u64 = 4096;

struct Bench {
    kernel: Kernel,
    outcomes: Vec<Outcome>,
    id: u64,
    stream: u16,
}

impl Bench {
    /// Opens `at_once` streams and closes them, `times` times: how long the opening took, and the closing.
    fn times(&mut self, times: u64, at_once: usize) -> (Duration, Duration) {
        let (mut opening, mut closing) = (Duration::ZERO, Duration::ZERO);
        let mut left = times;
        while left > 0 {
            let now = left.min(OPEN / at_once as u64);
            left -= now;
            let (open, close): (Vec<_>, Vec<_>) = (0..now).map(|_| self.commands(at_once)).unzip();
            opening += self.execute(&open);
            closing += self.execute(&close);
        }
        (opening, closing)
    }

    fn execute(&mut self, batches: &[Vec<Command>]) -> Duration {
        let start = Instant::now();
        for batch in batches {
            self.outcomes.clear();
            self.kernel.execute(batch, &mut self.outcomes);
            let failed = batch.iter().zip(&self.outcomes).find(|(_, outcome)| outcome.is_err());
            assert!(failed.is_none() && self.outcomes.len() == batch.len(), "{failed:?}");
        }
        start.elapsed()
    }

    fn commands(&mut self, count: usize) -> (Vec<Command>, Vec<Command>) {
        let streams: Vec<Pinholes> = iter::repeat_with(|| self.next_stream()).take(count).collect();
        let lifetime = Duration::from_secs(3600);
        let open = streams.iter().map(|pinholes| Op::Open { pinholes: pinholes.clone(), lifetime });
        let open = open.collect::<Vec<_>>();
        let quarantine = Duration::from_secs(1);
        let close = streams.into_iter().map(|pinholes| Op::Close { pinholes, peers: Vec::new(), quarantine });
        let close = close.collect::<Vec<_>>();
        (
            open.into_iter().map(|op| self.command(op)).collect(),
            close.into_iter().map(|op| self.command(op)).collect(),
        )
    }

    fn command(&mut self, op: Op) -> Command {
        self.id += 1;
        Command { id: CommandId::nth(self.id), op }
    }

    /// Another phone's stream on the next pair of public ports.
    fn next_stream(&mut self) -> Pinholes {
        self.stream = (self.stream + 1) % 8192;
        let [_, host] = (10 + self.stream / 64).to_be_bytes();
        let phone = Ipv4Addr::new(192, 168, 1, host);
        let inside = 40_000 + 2 * (self.stream % 64);
        let public = 16_384 + 2 * self.stream;
        [0, 1]
            .map(|rtcp| Pinhole {
                transport: sipalg::alg::Transport::Udp,
                inside: Inside(SocketAddr::from((phone, inside + rtcp))),
                public: Outside(SocketAddr::from((PUBLIC, public + rtcp))),
                uplink: 1,
            })
            .into()
    }
}

fn enter_new_namespace() {
    // SAFETY: unshare takes flags only, and no other thread runs yet.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert!(result == 0, "a network namespace needs root: {}", io::Error::last_os_error());
    for arguments in ["link set lo up", &format!("addr add {PUBLIC}/32 dev lo")] {
        let status = Process::new("ip").args(arguments.split(' ')).status().expect("iproute2 is installed");
        assert!(status.success(), "ip {arguments}");
    }
}
