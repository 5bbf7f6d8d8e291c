//! A call and its exchanges of offer and answer, as both sides write and get them.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::select;
use sipalg::alg::{Policy, Sizes};

use super::common::messages::{PHONE, PROXY, answer, message};
use super::common::restart::restart;
use super::common::{Bench, Kernel, at};
use super::description::{Line, PHONE_IP, Side, Where, line, read, write};
use super::model::{Model, Own, pins};

/// The longest time that anything is repeated, or waited for.
const TIMER_B: Duration = Duration::from_secs(32);

/// How an exchange ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Accepted,
    Refused(&'static str),
    /// Nobody answers: after timer B it has not happened.
    Unanswered,
    /// The other side offers at the same time, and both refuse (RFC 3261 section 14.2).
    Crossed,
}

/// One exchange.
#[derive(Clone)]
pub(crate) struct Step {
    by_phone: bool,
    update: bool,
    /// The offer is in the 2xx, the answer in the ACK.
    late: bool,
    /// `100 Trying` comes before the final answer.
    trying: bool,
    end: End,
    lines: [Line; 4],
    count: usize,
    /// Whether the description of each side has a `c=` for the session.
    session: [bool; 2],
    /// What was said in the exchange before comes again.
    repeats: bool,
    /// After so many messages of it the gateway restarts.
    restart: Option<usize>,
    /// Seconds until the next one.
    rest: u64,
}

/// In short, for a list of steps is long: who offers what to whom, as the body of each side.
impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { by_phone, update, late, trying, end, count, repeats, restart, rest, .. } = self;
        let asks = if *by_phone { Side::Phone } else { Side::Far };
        let method = if *update { "UPDATE" } else { "INVITE" };
        write!(
            f,
            "{asks:?} {method} late={late} trying={trying} {end:?} repeats={repeats} restart={restart:?} rest={rest}"
        )?;
        for side in [Side::Phone, Side::Far] {
            let lines = self.lines.get(..*count).unwrap_or_default();
            let body = write(side, lines, self.session[side as usize], 0);
            write!(f, " {side:?}: {}", body.replace('\n', "|").split_off(5))?;
        }
        Ok(())
    }
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let end = prop_oneof![
        8 => Just(End::Accepted),
        2 => select(vec!["488 Not Acceptable Here", "491 Request Pending", "500 Server Error"]).prop_map(End::Refused),
        1 => Just(End::Unanswered),
        1 => Just(End::Crossed),
    ];
    let lines = [line(), line(), line(), line()];
    let count = prop_oneof![4 => Just(1usize), 2 => Just(2), 1 => 3..=4usize];
    let how =
        (any::<bool>(), prop::bool::weighted(0.3), prop::bool::weighted(0.25), any::<bool>(), any::<bool>());
    let rest = prop_oneof![3 => Just(0u64), 1 => 1..40u64, 1 => 40..100u64];
    let restart = prop::option::weighted(0.2, 0..4usize);
    (how, end, lines, count, any::<[bool; 2]>(), restart, rest).prop_map(
        |((by_phone, update, late, trying, repeats), end, lines, count, session, restart, rest)| Step {
            by_phone,
            update,
            late,
            trying,
            end,
            lines,
            count,
            session,
            repeats,
            restart,
            rest,
        },
    )
}

/// A message as it was sent, and as it arrived.
struct Sent {
    wrote: String,
    got: String,
}

impl Sent {
    fn own(&self) -> Own {
        Own { wrote: read(&self.wrote), told: read(&self.got) }
    }
}

pub(crate) struct Call {
    bench: Bench,
    phone_calls: bool,
    /// `m=` lines so far; there are never fewer.
    lines: usize,
    /// Of messages, for branches, CSeq and versions.
    serial: u32,
    model: Model,
    /// How long other branches of a fork may answer the phone's first INVITE.
    forks_until: Instant,
    /// What was sent in this exchange, and in the one before.
    log: [Vec<(Instant, Side, String)>; 2],
    /// After so many more messages the gateway restarts.
    restart: Option<usize>,
}

impl Call {
    /// A call that both sides have agreed on.
    pub(crate) fn begin(phone_calls: bool, step: &Step) -> Self {
        let mut bench = Bench::default();
        bench.track(PHONE, PROXY);
        let (serial, model, log) = (0, Model::default(), [Vec::new(), Vec::new()]);
        let forks_until = bench.now + TIMER_B;
        let mut call = Self { bench, phone_calls, lines: 0, serial, model, forks_until, log, restart: None };
        if !phone_calls {
            // The phone has said something to its provider before.
            let hello = call.request(Side::Phone, "OPTIONS", 0, 0, false, "").replace("c@call", "hello");
            call.bench.out(PHONE, PROXY, hello);
        }
        let first = Step { by_phone: phone_calls, update: false, end: End::Accepted, ..step.clone() };
        call.run(&first, false);
        call
    }

    /// One exchange in the call.
    pub(crate) fn exchange(&mut self, step: &Step) {
        self.run(step, true);
    }

    /// One side says goodbye, and nothing is left.
    pub(crate) fn hang_up(&mut self, by_phone: bool) {
        let side = if by_phone { Side::Phone } else { Side::Far };
        self.serial += 1;
        let bye = self.request(side, "BYE", self.serial, self.serial, true, "");
        let bye = self.send(side, bye);
        self.reply(side.other(), &bye, "200 OK", "");
        self.bench.assert_all_closed();
        self.bench.advance(Duration::from_secs(100));
        self.bench.assert_all_closed();
        self.bench.advance(Duration::from_secs(14 * 24 * 3600));
        assert_eq!(self.bench.engine.sizes(), Sizes::default());
    }

    fn run(&mut self, step: &Step, in_dialog: bool) {
        self.restart = step.restart;
        let asks = if step.by_phone { Side::Phone } else { Side::Far };
        let answers = asks.other();
        let crossed = step.end == End::Crossed;
        let late = step.late && !step.update && !crossed;
        let offers = if late { answers } else { asks };
        let count = step.count.max(self.lines);
        let mut lines = step.lines[..count].to_vec();
        for line in &mut lines {
            // What is not offered is not accepted (RFC 3264 section 6).
            if line.ends[offers as usize].place == Where::Off {
                line.ends[offers.other() as usize].place = Where::Off;
            }
        }
        let method = if step.update { "UPDATE" } else { "INVITE" };
        self.serial += 1;
        let serial = self.serial;
        let body = |side: Side| write(side, &lines, step.session[side as usize], serial);
        let [asked, answered] =
            if late { [String::new(), body(answers)] } else { [body(asks), body(answers)] };

        let before = self.bench.kernel.clone();
        let request = self.request(asks, method, serial, serial, in_dialog, &asked);
        let request = self.send(asks, request);
        if !late && asks == Side::Phone {
            if !in_dialog {
                self.model.forks = request.own().named();
            }
            self.model.offered(&request.own(), &self.bench.kernel);
        }
        self.model.assert_goes_on(&self.bench.kernel);
        if step.trying && method == "INVITE" && step.end != End::Unanswered {
            self.reply(answers, &request, "100 Trying", "");
        }
        match step.end {
            End::Accepted => {
                let response = self.reply(answers, &request, "200 OK", &answered);
                let (mut asked, answered) = (request, response);
                if method == "INVITE" {
                    let said = if late { body(asks) } else { String::new() };
                    let ack = self.request(asks, "ACK", serial, serial + 1_000_000, true, &said);
                    let ack = self.send(asks, ack);
                    if late {
                        asked = ack;
                    }
                }
                let (phone, far) = if asks == Side::Phone { (asked, answered) } else { (answered, asked) };
                let (_, wrote) = far.wrote.split_once("\r\n\r\n").unwrap();
                let (_, got) = far.got.split_once("\r\n\r\n").unwrap();
                assert_eq!(got, wrote, "what the far end says of its media is its own business");
                self.model.agreed(phone.own(), read(&far.wrote), &before, &self.bench.kernel);
                self.lines = count;
            }
            End::Refused(status) => {
                self.refuse(asks, &request, status, serial);
                self.assert_as(&before, "refused");
            }
            End::Unanswered => {
                self.bench.advance(TIMER_B + Duration::from_secs(1));
                self.assert_as(&before, "nobody has answered");
            }
            End::Crossed => {
                self.serial += 1;
                let second = self.request(answers, method, self.serial, self.serial, true, &answered);
                let second = self.send(answers, second);
                self.model.assert_goes_on(&self.bench.kernel);
                self.refuse(asks, &request, "491 Request Pending", serial);
                self.refuse(answers, &second, "491 Request Pending", self.serial);
                self.assert_as(&before, "both were refused");
            }
        }
        self.rest(step);
    }

    /// Time goes by; what was said earlier comes again from a slow way. Nothing changes.
    fn rest(&mut self, step: &Step) {
        let [now, earlier] = &mut self.log;
        let late_copies = std::mem::replace(earlier, std::mem::take(now));
        let before = self.bench.kernel.clone();
        if step.repeats {
            // Nothing is repeated for longer than 64*T1 (RFC 3261 section 17).
            let late_copies = late_copies.into_iter().filter(|(sent, ..)| self.bench.now - *sent < TIMER_B);
            for (_, side, text) in late_copies.collect::<Vec<_>>() {
                match side {
                    Side::Phone => self.bench.out(PHONE, PROXY, &text),
                    Side::Far => self.bench.inn(PROXY, PHONE, &text),
                };
                self.assert_as(&before, &format!("a late copy of {text}"));
            }
        }
        self.bench.advance(Duration::from_secs(step.rest));
        self.bench.assert_renewed();
        self.assert_as(&before, "time has gone by");
        if self.forks_until <= self.bench.now {
            self.model.forks.clear();
        }
    }

    fn assert_as(&self, before: &Kernel, when: &str) {
        self.model.assert_as(before, &self.bench.kernel, self.forks_until <= self.bench.now, when);
    }

    fn refuse(&mut self, asks: Side, request: &Sent, status: &str, serial: u32) {
        self.reply(asks.other(), request, status, "");
        if request.wrote.starts_with("INVITE") {
            let ack = self.request(asks, "ACK", serial, serial, true, "");
            self.send(asks, ack);
        }
    }

    /// Sends a message, twice. Both arrive with the same bytes, and the second changes nothing.
    fn send(&mut self, side: Side, wrote: String) -> Sent {
        let send = |bench: &mut Bench| match side {
            Side::Phone => bench.out(PHONE, PROXY, &wrote).text(),
            Side::Far => bench.inn(PROXY, PHONE, &wrote).text(),
        };
        let got = send(&mut self.bench);
        let (kernel, commands) = (self.bench.kernel.clone(), self.bench.commands.len());
        assert_eq!(send(&mut self.bench), got, "a retransmission");
        assert_eq!(self.bench.kernel, kernel, "a retransmission of {wrote}");
        let asked = &self.bench.commands[commands..];
        assert!(asked.is_empty(), "a retransmission asks for {asked:?}");
        // 3: nobody outside hears of the phone's address, nor the phone of the router's.
        match side {
            Side::Phone => assert!(!got.contains(PHONE_IP), "{got}"),
            Side::Far => {
                let (_, body) = got.split_once("\r\n\r\n").unwrap();
                assert!(!body.contains("22.33.44.55"), "{got}");
            }
        }
        self.log[0].push((self.bench.now, side, wrote.clone()));
        if self.restart == Some(0) {
            restart(&mut self.bench, Duration::ZERO, Policy::default());
            let there = |it: &Kernel| (it.pinholes.clone(), it.peers.clone(), pins(it));
            assert_eq!(there(&self.bench.kernel), there(&kernel), "a restart");
        }
        self.restart = self.restart.and_then(|left| left.checked_sub(1));
        Sent { wrote, got }
    }

    /// `side` answers what it got.
    fn reply(&mut self, side: Side, request: &Sent, status: &str, body: &str) -> Sent {
        let (seen, contact) = match side {
            Side::Phone => (at(PROXY), "sip:alice@192.168.1.10:5060"),
            Side::Far => (self.public(), "sip:bob@22.33.44.21:5060"),
        };
        let reply = answer(&request.got, status, seen, &format!("Contact: <{contact}>\n"), body);
        self.send(side, reply)
    }

    fn public(&self) -> SocketAddr {
        self.bench.public(PHONE, PROXY)
    }

    fn request(
        &self,
        side: Side,
        method: &str,
        cseq: u32,
        branch: u32,
        in_dialog: bool,
        body: &str,
    ) -> String {
        let is_caller = (side == Side::Phone) == self.phone_calls;
        let [own, other] = if is_caller { ["caller-1", "bob-1"] } else { ["bob-1", "caller-1"] };
        let other = if in_dialog { format!(";tag={other}") } else { String::new() };
        let (to, via, contact) = match side {
            Side::Phone => {
                ("bob@provider.example".into(), "192.168.1.10:5060", "sip:alice@192.168.1.10:5060")
            }
            Side::Far => (format!("alice@{}", self.public()), "22.33.44.20:5060", "sip:bob@22.33.44.21:5060"),
        };
        let rport = if side == Side::Phone { ";rport" } else { "" };
        let kind = if body.is_empty() { "" } else { "\nContent-Type: application/sdp" };
        message(
            &format!(
                "{method} sip:{to} SIP/2.0\nVia: SIP/2.0/UDP {via};branch=z9hG4bK-{branch}{rport}\nMax-Forwards: 70\n\
                 From: <sip:one@provider.example>;tag={own}\nTo: <sip:two@provider.example>{other}\nCall-ID: c@call\n\
                 CSeq: {cseq} {method}\nContact: <{contact}>{kind}"
            ),
            body,
        )
    }
}
