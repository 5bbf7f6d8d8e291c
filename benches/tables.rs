//! The time that one message takes does not depend on how full the tables are.
//!
//! A hundred to a hundred thousand phones are registered, and a fifth of them (at most 20,000) are in a call. Then single
//! messages pass: a phone's REGISTER, and an OPTIONS that comes in within a call. Each is of another phone than the one
//! before, as on a busy gateway, so the processor's caches count: a little more time with very large tables is theirs.

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;
use std::time::Duration;

use common::messages::{Dialog, PROXY, answer, request, response, sdp};
use common::{Bench, LAN, WAN, at, packet};
use criterion::{Criterion, criterion_group, criterion_main};
use sipalg::alg::{Input, Limits, PacketId, PacketIn, Policy, QueuePoint};

/// So many different phones take turns.
const TURNS: usize = 512;

fn phone(n: usize) -> String {
    format!("10.{}.{}.{}:5060", n / 40_000, n / 200 % 200, 10 + n % 200)
}

/// A bench with `size` registered phones, and the packets of some of them.
fn filled(size: usize) -> (Bench, Vec<Vec<u8>>) {
    let limits = Limits { openings_per_minute: 1 << 24, ..Limits::default() };
    let mut bench = Bench::new(Policy { limits, ports: 10000..=59999, ..Policy::default() });
    bench.keeps_records = false;
    let calls = (size / 5).min(20_000);
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
        if n % (size / TURNS.min(size)) == 0 && packets.len() < 2 * TURNS {
            packets.push(packet(at(&phone), at(PROXY), text.as_bytes()));
            let options = format!(
                "OPTIONS sip:alice@{seen} SIP/2.0\r\nVia: SIP/2.0/UDP 22.33.44.20;branch=z9hG4bK-o{n}\r\n\
                 From: <sip:bob@provider.example>;tag=bob-1\r\nTo: <sip:alice@provider.example>;tag=alice-1\r\n\
                 Call-ID: {call_id}\r\nCSeq: 2 OPTIONS\r\nContact: <sip:bob@22.33.44.21>\r\nContent-Length: 0\r\n\r\n"
            );
            packets.push(packet(at(PROXY), at(&phone), options.as_bytes()));
        }
        if n % 1000 == 0 {
            bench.advance(Duration::from_secs(1));
        }
    }
    assert_eq!(bench.engine.sizes().registrations, size);
    (bench, packets)
}

fn tables(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("message");
    for size in [100, 1_000, 10_000, 100_000] {
        let (mut bench, packets) = filled(size);
        let mut turn = 0;
        let now = bench.now;
        group.bench_function(format!("among {size} registrations"), |bencher| {
            bencher.iter(|| {
                turn = (turn + 1) % packets.len();
                let inbound = turn % 2 == 1;
                let (indev, outdev) = if inbound { (WAN, LAN) } else { (LAN, WAN) };
                let (id, point, bytes) = (PacketId(1), QueuePoint::Signalling, packets[turn].as_slice());
                bench.engine.handle(now, Input::Packet(PacketIn { id, point, indev, outdev, bytes }));
                while let Some(output) = bench.engine.poll_output() {
                    black_box(output);
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, tables);
criterion_main!(benches);
