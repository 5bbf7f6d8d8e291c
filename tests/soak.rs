//! Twenty thousand calls and five thousand registrations over a line that loses, doubles and delays messages.
//!
//! Time is simulated, and so is the kernel, so hours take seconds. Afterwards nothing may be left: no pinhole, no
//! conntrack entry, no table entry, no memory. What one registration and one call need is measured and printed
//! (`cargo test --test soak -- --nocapture`). The line's faults come from a seed, so every run is the same.
#![allow(unsafe_code)] // GlobalAlloc is an unsafe trait

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use common::messages::{Dialog, PROXY, answer, request, response, sdp};
use common::{Bench, at};
use sipalg::alg::{Engine, Limits, Policy};

const CALLS: u32 = 20_000;
const REGISTRATIONS: u32 = 5_000;
const PHONES: u32 = 250;

/// A generator for the line's faults: xorshift, always the same.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// A message on its way.
#[derive(Clone)]
struct Sent {
    out: bool,
    phone: String,
    text: String,
}

/// A line with a mind of its own: of a hundred messages five get lost, are doubled or come late.
struct Line {
    bench: Bench,
    dice: Dice,
    late: Vec<Sent>,
    faults: u32,
}

impl Line {
    fn deliver(&mut self, sent: Sent) {
        match self.dice.throw(60) {
            0 => self.faults += 1,
            1 => {
                self.faults += 1;
                self.pass(&sent);
                self.pass(&sent);
            }
            2 => {
                self.faults += 1;
                self.late.push(sent);
            }
            _ => self.pass(&sent),
        }
        if self.late.len() > 40 {
            let index = self.dice.throw(self.late.len() as u64) as usize;
            let sent = self.late.swap_remove(index);
            self.pass(&sent);
        }
    }

    fn pass(&mut self, sent: &Sent) {
        if sent.out {
            self.bench.out(&sent.phone, PROXY, &sent.text);
        } else {
            self.bench.inn(PROXY, &sent.phone, &sent.text);
        }
    }

    fn out(&mut self, phone: &str, text: String) {
        self.deliver(Sent { out: true, phone: phone.to_owned(), text });
    }

    fn inn(&mut self, phone: &str, text: String) {
        self.deliver(Sent { out: false, phone: phone.to_owned(), text });
    }
}

fn phone(n: u32) -> String {
    format!("192.168.{}.{}:5060", 1 + n % PHONES / 100, 10 + n % 100)
}

/// Everything that a registration has, each message on the line's mercy.
fn register(line: &mut Line, n: u32, public: &str) {
    let (phone, branch, call_id) = (phone(n), format!("z9hG4bK-r{n}"), format!("reg-{n}"));
    let dialog = Dialog { branch: &branch, call_id: &call_id, ..Dialog::default() };
    let text =
        request("REGISTER", &phone, 1, dialog, false, "").replace("sip:bob@", &format!("sip:user{n}@"));
    line.out(&phone, text.clone());
    let contact = format!("Contact: <sip:alice@{public}>;expires=300\n");
    let seen =
        text.replace(&phone, public).replace(&format!("Call-ID: reg-{n}"), &format!("Call-ID: {call_id}"));
    line.inn(&phone, answer(&seen, "200 OK", at(public), &contact, ""));
}

/// One call: how it goes depends on its number.
fn call(line: &mut Line, n: u32, public: &str) {
    let phone = phone(n);
    let host = phone.trim_end_matches(":5060").to_owned();
    let (call_id, from_tag, to_tag) = (format!("call-{n}"), format!("f{n}"), format!("t{n}"));
    let branches: Vec<String> = (0..6).map(|it| format!("z9hG4bK-{n}-{it}")).collect();
    let dialog =
        |at: usize| Dialog { call_id: &call_id, from_tag: &from_tag, to_tag: &to_tag, branch: &branches[at] };
    let port = 40000 + 4 * (n % 5000) as u16;
    let offer = sdp(&host, port);
    let far = sdp("22.33.44.22", 20000 + 2 * (n % 20000) as u16);
    line.out(&phone, request("INVITE", &phone, 1, dialog(0), false, &offer));
    line.inn(&phone, response("100 Trying", "INVITE", public, 1, dialog(0), ""));
    match n % 10 {
        0 => return line.inn(&phone, response("486 Busy Here", "INVITE", public, 1, dialog(0), "")),
        1 => {
            line.inn(&phone, response("180 Ringing", "INVITE", public, 1, dialog(0), ""));
            line.out(&phone, request("CANCEL", &phone, 1, dialog(0), false, ""));
            line.inn(&phone, response("200 OK", "CANCEL", public, 1, dialog(0), ""));
            return line.inn(&phone, response("487 Request Terminated", "INVITE", public, 1, dialog(0), ""));
        }
        2 => {
            let other = format!("t{n}-other");
            let fork = Dialog { to_tag: &other, ..dialog(0) };
            line.inn(&phone, response("183 Session Progress", "INVITE", public, 1, fork, &far));
        }
        _ => line.inn(&phone, response("180 Ringing", "INVITE", public, 1, dialog(0), "")),
    }
    line.inn(&phone, response("200 OK", "INVITE", public, 1, dialog(0), &far));
    line.out(&phone, request("ACK", &phone, 1, dialog(1), true, ""));
    if n % 10 == 3 {
        line.out(&phone, request("INVITE", &phone, 2, dialog(2), true, &sdp(&host, port + 2)));
        let status = if n % 20 == 3 { "200 OK" } else { "488 Not Acceptable Here" };
        line.inn(&phone, response(status, "INVITE", public, 2, dialog(2), &far));
    }
    line.out(&phone, request("BYE", &phone, 3, dialog(3), true, ""));
    line.inn(&phone, response("200 OK", "BYE", public, 3, dialog(3), ""));
}

fn line() -> Line {
    let limits = Limits { openings_per_minute: 1 << 24, ..Limits::default() };
    let mut bench = Bench::new(Policy { limits, ports: 10000..=59999, ..Policy::default() });
    bench.keeps_records = false;
    Line { bench, dice: Dice(0x9e37_79b9_7f4a_7c15), late: Vec::new(), faults: 0 }
}

#[test]
fn after_thousands_of_calls_on_a_bad_line_nothing_is_left() {
    let mut line = line();
    let publics: Vec<String> = (0..PHONES)
        .map(|n| {
            line.bench.out(&phone(n), PROXY, request("OPTIONS", &phone(n), 1, Dialog::default(), false, ""));
            line.bench.public(&phone(n), PROXY).to_string()
        })
        .collect();
    let public = |n: u32| publics[(n % PHONES) as usize].as_str();
    let mut memory = Vec::new();
    for round in 0..4 {
        let calls = CALLS / 4;
        for n in round * calls..(round + 1) * calls {
            call(&mut line, n, public(n));
            if n % 4 == 0 {
                register(&mut line, n / 4, public(n / 4));
            }
            if n % 20 == 0 {
                line.bench.advance(Duration::from_millis(900));
            }
        }
        for sent in std::mem::take(&mut line.late) {
            line.pass(&sent);
        }
        let sizes = line.bench.engine.sizes();
        assert!(sizes.registrations > 0 && sizes.calls > 0, "{sizes:?}");
        // Lost BYEs: nobody says that these calls are over, and no media flows any more. Every entry that is left in the
        // kernel must be taken back one by one.
        assert!(!line.bench.kernel.pins.is_empty());
        line.bench.mute = true;
        line.bench.advance(Duration::from_secs(2 * 3600));
        line.bench.assert_all_closed();
        line.bench.mute = false;
        let sizes = line.bench.engine.sizes();
        assert_eq!((sizes.registrations, sizes.transactions, sizes.ports), (0, 0, 0), "{sizes:?}");
        memory.push(LIVE.get());
    }
    let share = f64::from(line.faults) / f64::from(CALLS * 8 + REGISTRATIONS * 2);
    assert!((0.03..0.08).contains(&share), "{share} of the messages had a fault");
    println!(
        "{CALLS} calls, {REGISTRATIONS} registrations, {} faults; bytes after each quarter: {memory:?}",
        line.faults
    );
    // A table that had a rush grows by a step; it does not go on to grow.
    assert!(memory[3] <= memory[2] + memory[2] / 50, "memory grows: {memory:?}");
    assert!(memory[3] < 1 << 20, "{memory:?}");
    line.bench.advance(Duration::from_secs(24 * 3600));
    assert_eq!(line.bench.engine.sizes(), sipalg::alg::Sizes::default());
}

#[test]
fn the_size_of_a_registration_and_of_a_call() {
    // Each with all that belongs to it: its texts, its bindings, pins and peers, its part of the indices. The flow that both
    // go by is counted apart.
    let mut line = line();
    line.dice = Dice(1);
    let each = |what: &str, n: u32, before: i64| {
        let bytes = (LIVE.get() - before) / i64::from(n);
        println!("{bytes} bytes for each {what}");
        bytes
    };
    line.bench.keeps_records = false;
    let n = 4096;
    let bench = &mut line.bench;
    let phones: Vec<String> = (0..n).map(|n| format!("10.1.{}.{}:5060", n / 200, 10 + n % 200)).collect();
    for phone in &phones {
        bench.out(phone, PROXY, request("OPTIONS", phone, 1, Dialog::default(), false, ""));
    }
    bench.advance(Duration::from_secs(60));
    let before = LIVE.get();
    for (number, phone) in phones.iter().enumerate() {
        let branch = format!("z9hG4bK-{number}");
        let dialog = Dialog { branch: &branch, call_id: "reg", ..Dialog::default() };
        let sent = bench.out(phone, PROXY, request("REGISTER", phone, 1, dialog, false, "")).text();
        let seen = bench.public(phone, PROXY);
        let contact = format!("Contact: <sip:alice@{seen}>;expires=7200\n");
        bench.inn(PROXY, phone, answer(&sent, "200 OK", seen, &contact, ""));
    }
    bench.advance(Duration::from_secs(60));
    assert_eq!(bench.engine.sizes().registrations, n as usize);
    let registration = each("registration", n, before);
    let before = LIVE.get();
    for (number, phone) in phones.iter().enumerate() {
        let host = phone.trim_end_matches(":5060");
        let (branch, call_id) = (format!("z9hG4bK-c{number}"), format!("call-{number}@{host}"));
        let dialog = Dialog { branch: &branch, call_id: &call_id, ..Dialog::default() };
        bench.out(phone, PROXY, request("INVITE", phone, 1, dialog, false, &sdp(host, 40000)));
        let seen = bench.public(phone, PROXY).to_string();
        bench.inn(PROXY, phone, response("200 OK", "INVITE", &seen, 1, dialog, &sdp("22.33.44.22", 30000)));
    }
    bench.advance(Duration::from_secs(60));
    assert_eq!(bench.engine.sizes().calls, n as usize);
    // The simulated kernel remembers too; what it has is not the engine's.
    drop(std::mem::take(&mut bench.kernel));
    let call = each("call", n, before);
    let before = LIVE.get();
    bench.engine = Engine::new(Policy::default());
    let flow = (before - LIVE.get()) / i64::from(n) - call - registration;
    println!("{flow} bytes for each flow");
    assert!(registration <= 256, "{registration}");
    assert!(call <= 1792, "{call}");
    assert!(flow <= 704, "{flow}");
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    // Without destructor and lazy initialisation, which would allocate themselves.
    static LIVE: Cell<i64> = const { Cell::new(0) };
}

/// The system's allocator, counting the bytes that this thread has and has not given back.
struct Counting;

fn count(bytes: i64) {
    LIVE.set(LIVE.get() + bytes);
}

// SAFETY: every call goes to the system's allocator as it came, which keeps the trait's contract; counting touches no
// memory but a cell of this thread.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as i64 - layout.size() as i64);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(block, layout) }
    }
}
