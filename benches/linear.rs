//! Work is linear in the input: the engine's whole work on messages that are made to be slow, in sizes up to what a
//! datagram holds.
//!
//! Criterion shows bytes in a second; for linear work the figure does not fall as the size grows. (`fuzz/linear.rs`
//! asserts the same by counting, without a clock.)

#[path = "shared/pathological.rs"]
mod pathological;
#[path = "shared/reading.rs"]
mod reading;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sipalg::sip::Message;

use pathological::KINDS;
use reading::{Reading, Way};

/// 59,000 and a head stay below the engine's limit of 60,000 bytes.
const SIZES: [usize; 4] = [1_000, 4_000, 16_000, 59_000];

criterion_group! {
    name = linear;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(50))
        .measurement_time(Duration::from_millis(200));
    targets = engine, parse
}
criterion_main!(linear);

fn engine(criterion: &mut Criterion) {
    for (kind, make) in KINDS {
        for way in Way::BOTH {
            let mut group = criterion.benchmark_group(format!("{kind} {way:?}"));
            for size in SIZES {
                let message = make(size);
                let mut reading = Reading::new(&message, way);
                group.throughput(Throughput::Bytes(message.len() as u64));
                group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
                    bencher.iter(|| reading.read());
                });
            }
            group.finish();
        }
    }
}

/// The parser alone takes 64 KiB.
fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    let mut message = Message::default();
    for (kind, make) in KINDS {
        let bytes = make(65_000);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(*kind, |bencher| bencher.iter(|| message.parse(black_box(&bytes)).is_ok()));
    }
    group.finish();
}
