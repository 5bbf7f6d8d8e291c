//! The time that one message takes does not depend on how full the tables are.
//!
//! A hundred to a hundred thousand phones are registered, and a fifth of them (at most 20,000) are in a call. Then single
//! messages pass: a phone's REGISTER, and an OPTIONS that comes in within a call, each of another phone than the one before.
//! Gateways of all sizes take turns in each round, so that what else the machine does falls on all of them, and a ratio
//! compares within a round.
//!
//! It is measured twice. First the same number of phones take turns in all sizes, which leaves nothing but the size of the
//! tables. Then as many as [`MANY`] do, spread over the tables as on a busy gateway: what that adds are the misses of the
//! processor's caches.
//!
//! One run on two processors, median of the rounds, time of the smallest gateway as 1. The same number of phones: 1.00 with
//! 1,000 registrations, 1.01 with 10,000, 1.02 with 100,000 and 20,000 calls (1.1 µs a message). More phones: 1.01, 1.14 and
//! 1.34.
#![allow(clippy::print_stdout)] // the report

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;
use std::time::{Duration, Instant};

use comfy_table::{Table, presets};
use common::messages::{Dialog, PROXY, answer, request, response, sdp};
use common::{Bench, LAN, WAN, at, packet};
use sipalg::alg::{Input, Limits, PacketId, PacketIn, Policy, QueuePoint};

const SIZES: [usize; 4] = [100, 1_000, 10_000, 100_000];
/// So many phones take turns where it is the same number in all sizes.
const FEW: usize = 100;
/// And so many where there are enough.
const MANY: usize = 512;
const ROUNDS: usize = 21;
/// Messages in one measurement.
const MESSAGES: usize = 20_000;

fn main() {
    let mut gateways = SIZES.map(Gateway::new);
    for (phones, title) in [(FEW, "the same number of phones"), (MANY, "more phones where there are more")] {
        let rounds: Vec<_> =
            (0..ROUNDS).map(|_| gateways.each_mut().map(|gateway| gateway.measure(phones))).collect();
        println!("\n{title}, {ROUNDS} rounds\n{}", table(&rounds));
    }
}

/// Minimum, median and maximum of the rounds.
fn table(rounds: &[[f64; SIZES.len()]]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header(["registered", "ns a message", "of the smallest"]);
    for (at, size) in SIZES.iter().enumerate() {
        let times = spread(rounds.iter().map(|round| round[at]));
        let ratios = spread(rounds.iter().map(|round| round[at] / round[0]));
        let [times, ratios] = [(times, 0), (ratios, 2)]
            .map(|([a, b, c], digits)| format!("{a:.digits$} {b:.digits$} {c:.digits$}"));
        table.add_row([size.to_string(), times, ratios]);
    }
    table
}

fn spread(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    [values[0], values[values.len() / 2], values[values.len() - 1]]
}

/// An engine with so many registrations, and what some of its phones send and get.
struct Gateway {
    bench: Bench,
    /// For each phone its REGISTER and the OPTIONS to it.
    packets: Vec<[Vec<u8>; 2]>,
}

impl Gateway {
    fn new(size: usize) -> Self {
        let (bench, packets) = filled(size);
        Self { bench, packets }
    }

    /// Nanoseconds for each message, of so many phones that lie evenly in the tables.
    fn measure(&mut self, phones: usize) -> f64 {
        let now = self.bench.now;
        let step = (self.packets.len() / phones).max(1);
        let turn = self.packets.iter().step_by(step).take(phones);
        let messages = turn.flat_map(|[out, inn]| [(LAN, WAN, out), (WAN, LAN, inn)]);
        let engine = &mut self.bench.engine;
        let mut pass = |(indev, outdev, bytes): (u32, u32, &Vec<u8>)| {
            let (id, point) = (PacketId(1), QueuePoint::Signalling);
            engine.handle(now, Input::Packet(PacketIn { id, point, indev, outdev, bytes }));
            while let Some(output) = engine.poll_output() {
                black_box(output);
            }
        };
        messages.clone().for_each(&mut pass); // into the caches, as far as they go
        let start = Instant::now();
        messages.cycle().take(MESSAGES).for_each(pass);
        start.elapsed().as_nanos() as f64 / MESSAGES as f64
    }
}

fn phone(n: usize) -> String {
    format!("10.{}.{}.{}:5060", n / 40_000, n / 200 % 200, 10 + n % 200)
}

/// A bench with `size` registered phones, and the packets of some of them.
fn filled(size: usize) -> (Bench, Vec<[Vec<u8>; 2]>) {
    let limits = Limits { openings_per_minute: 1 << 24, ..Limits::default() };
    let mut bench = Bench::new(Policy { limits, ports: 10000..=59999, ..Policy::default() });
    bench.keeps_records = false;
    let calls = (size / 5).min(20_000);
    // So many phones, evenly.
    let turns = MANY.min(size);
    let mut packets = Vec::new();
    for n in 0..size {
        let (phone, branch, call_id) = (phone(n), format!("z9hG4bK-{n}"), format!("call-{n}"));
        let dialog = Dialog { branch: &branch, call_id: &call_id, ..Dialog::default() };
        let text = request("REGISTER", &phone, 1, dialog, false, "");
        let sent = bench.out(&phone, PROXY, &text).text();
        let seen = bench.public(&phone, PROXY);
        let contact = format!("Contact: <sip:alice@{seen}>;expires=7200\n");
        bench.inn(PROXY, &phone, answer(&sent, "200 OK", seen, &contact, ""));
        let host = phone.trim_end_matches(":5060").to_owned();
        if n < calls {
            bench.out(&phone, PROXY, request("INVITE", &phone, 1, dialog, false, &sdp(&host, 40000)));
            let far = sdp("22.33.44.22", 30000);
            bench.inn(PROXY, &phone, response("200 OK", "INVITE", &seen.to_string(), 1, dialog, &far));
        }
        if n * turns / size != (n + 1) * turns / size {
            let options = format!(
                "OPTIONS sip:alice@{seen} SIP/2.0\r\nVia: SIP/2.0/UDP 22.33.44.20;branch=z9hG4bK-o{n}\r\n\
                 From: <sip:bob@provider.example>;tag=bob-1\r\nTo: <sip:alice@provider.example>;tag=alice-1\r\n\
                 Call-ID: {call_id}\r\nCSeq: 2 OPTIONS\r\nContact: <sip:bob@22.33.44.21>\r\nContent-Length: 0\r\n\r\n"
            );
            packets.push([
                packet(at(&phone), at(PROXY), text.as_bytes()),
                packet(at(PROXY), at(&phone), options.as_bytes()),
            ]);
        }
        if n % 1000 == 0 {
            bench.advance(Duration::from_secs(1));
        }
    }
    assert_eq!(bench.engine.sizes().registrations, size);
    (bench, packets)
}
