//! Work is linear in the input, shown without a clock.
//!
//! This program is built like the fuzz targets, so every comparison of numbers calls a hook, in our code and in that of
//! all crates. libFuzzer is not linked; here the hooks count. For each pathological message the engine's comparisons are
//! counted at one size and at twice that size: linear work doubles, quadratic work grows fourfold. The counts are the
//! same on every run, but for where buffers happen to lie in memory.
//!
//! Copies of memory (in libc) are not counted.

#[path = "../benches/shared/pathological.rs"]
mod pathological;
#[path = "../benches/shared/reading.rs"]
mod reading;

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use pathological::KINDS;
use reading::{Reading, Way};

/// Twice this, and a head, is still below the engine's limit.
const SIZE: usize = 29_000;
/// What an input of twice the size may cost, in percent of the smaller one: twice, and a tenth for steps of capacity.
const MOST_GROWTH: u64 = 210;
/// Comparisons that do not count: what any message costs.
const SLACK: u64 = 5_000;
/// And in all: no byte may cost more comparisons than this.
const MOST_PER_BYTE: u64 = 60;

static COUNT: AtomicU64 = AtomicU64::new(0);

fn main() -> ExitCode {
    let quadratic = |n: u64| (0..n).flat_map(|a| (0..n).map(move |b| (a, b))).filter(|(a, b)| a * b % 7 == 3).count();
    let (once, twice) = (counted(|| quadratic(100)), counted(|| quadratic(200)));
    assert!(once > 10_000 && twice > 3 * once, "the counter does not count: {once}, {twice}");

    let mut faults = 0;
    for (kind, make) in KINDS {
        for way in Way::BOTH {
            let work = |size| {
                let mut reading = Reading::new(&make(size), way);
                counted(|| reading.read())
            };
            let (small, large) = (work(SIZE), work(2 * SIZE));
            // Where a buffer happens to lie decides how many bytes a vector search has over at its ends.
            assert!(small.abs_diff(work(SIZE)) <= 64 + small / 1000, "the count is not the same twice");
            let growth = large * 100 / small.max(1);
            let is_linear = large <= small * MOST_GROWTH / 100 + SLACK;
            let is_cheap = large <= MOST_PER_BYTE * 2 * SIZE as u64;
            let verdict = if is_linear && is_cheap { "" } else { "  TOO MUCH" };
            println!("{kind:<30} {way:?}  {small:>9} {large:>9} {growth:>5} %{verdict}");
            faults += usize::from(!verdict.is_empty());
        }
    }
    println!("{} kinds of messages, {faults} whose work is not linear", KINDS.len());
    if faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn counted<T>(job: impl FnOnce() -> T) -> u64 {
    let before = COUNT.load(Relaxed);
    std::hint::black_box(job());
    COUNT.load(Relaxed) - before
}

/// The hooks that LLVM's coverage pass calls. It leaves functions of these names themselves alone.
macro_rules! hooks {
    ($( $name:ident($( $type:ty ),*) )*) => { $(
        #[unsafe(no_mangle)]
        extern "C" fn $name($( _: $type ),*) {
            COUNT.fetch_add(1, Relaxed);
        }
    )* };
}

hooks! {
    __sanitizer_cov_trace_cmp1(u8, u8)
    __sanitizer_cov_trace_cmp2(u16, u16)
    __sanitizer_cov_trace_cmp4(u32, u32)
    __sanitizer_cov_trace_cmp8(u64, u64)
    __sanitizer_cov_trace_const_cmp1(u8, u8)
    __sanitizer_cov_trace_const_cmp2(u16, u16)
    __sanitizer_cov_trace_const_cmp4(u32, u32)
    __sanitizer_cov_trace_const_cmp8(u64, u64)
    __sanitizer_cov_trace_switch(u64, *const u64)
    __sanitizer_cov_trace_pc_indir(usize)
    __sanitizer_cov_8bit_counters_init(*const u8, *const u8)
    __sanitizer_cov_pcs_init(*const usize, *const usize)
}
