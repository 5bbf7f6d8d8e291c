//! An INVITE that forks: branches ring, speak and answer in any order, and calls end in any order (RFC 3261 sections 13
//! and 16.7, RFC 6337 section 3.1).
//!
//! The gateway may restart between any two of them.
//!
//! The model says who has to be heard after each step: whoever has described his media and may still be talked to. The
//! engine is asked by what the simulated kernel has.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::cases::cases;
use common::messages::{Dialog, PHONE, PROXY, answer, far_request, request, response, sdp};
use common::restart::restart;
use common::{Bench, at};
use proptest::collection::vec;
use proptest::prelude::*;
use sipalg::alg::Policy;

const PUBLIC: &str = "22.33.44.55:17375";
const BRANCHES: usize = 4;
/// How long after the first 2xx another one may come (RFC 3261 section 13.2.2.4).
const FORKS: u64 = 32;

#[derive(Clone, Copy, Debug)]
enum Step {
    Ring(usize),
    Speak(usize),
    Answer(usize),
    /// The far end of an answered call moves its media.
    Move(usize),
    HangUp {
        branch: usize,
        by_phone: bool,
    },
    /// The last message of this branch comes once more.
    Again(usize),
    Cancel,
    Refuse,
    Wait(u64),
    /// The gateway restarts.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let branch = || 0..BRANCHES;
    prop_oneof![
        2 => branch().prop_map(Step::Ring),
        4 => branch().prop_map(Step::Speak),
        4 => branch().prop_map(Step::Answer),
        2 => branch().prop_map(Step::Move),
        3 => (branch(), any::<bool>()).prop_map(|(branch, by_phone)| Step::HangUp { branch, by_phone }),
        2 => branch().prop_map(Step::Again),
        1 => Just(Step::Cancel),
        1 => Just(Step::Refuse),
        2 => (1..9u64).prop_map(|n| Step::Wait(5 * n)),
        1 => Just(Step::Restart),
    ]
}

/// How far a branch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Nothing,
    Early,
    Up,
    Over,
}

struct Branch {
    stage: Stage,
    /// The port of its media, once it is known.
    media: Option<u16>,
    port: u16,
    last: Option<String>,
}

struct Fork {
    bench: Bench,
    branches: Vec<Branch>,
    tags: Vec<String>,
    cseq: u32,
    /// Seconds since the INVITE, and at the first 2xx.
    clock: u64,
    first: Option<u64>,
    is_over: bool,
}

impl Fork {
    fn begin() -> Self {
        let mut bench = Bench::default();
        bench.out(PHONE, PROXY, request("INVITE", PHONE, 1, Dialog::default(), false, &offer()));
        let branch =
            |n| Branch { stage: Stage::Nothing, media: None, port: 30_000 + 1000 * n as u16, last: None };
        let mut fork = Self {
            bench,
            branches: (0..BRANCHES).map(branch).collect(),
            tags: (0..BRANCHES).map(|n| format!("bob-{n}")).collect(),
            cseq: 1,
            clock: 0,
            first: None,
            is_over: false,
        };
        fork.step(Step::Ring(0));
        fork
    }

    fn dialog(&self, branch: usize) -> Dialog<'_> {
        Dialog { to_tag: &self.tags[branch], ..Dialog::default() }
    }

    fn reply(&mut self, branch: usize, status: &str, body: &str) {
        let text = response(status, "INVITE", PUBLIC, 1, self.dialog(branch), body);
        self.bench.inn(PROXY, PHONE, &text);
        self.branches[branch].last = Some(text);
    }

    /// Whether another final answer may come.
    fn is_open(&self) -> bool {
        !self.is_over && self.first.is_none_or(|first| self.clock < first + FORKS)
    }

    fn is_early(&self, branch: usize) -> bool {
        self.is_open() && matches!(self.branches[branch].stage, Stage::Nothing | Stage::Early)
    }

    /// A provisional answer counts until somebody has answered.
    fn rings(&mut self, branch: usize) -> bool {
        if self.first.is_none() {
            self.branches[branch].stage = Stage::Early;
        }
        self.first.is_none()
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Ring(it) if self.is_early(it) => {
                self.reply(it, "180 Ringing", "");
                self.rings(it);
            }
            Step::Speak(it) if self.is_early(it) => {
                let port = self.branches[it].port;
                self.reply(it, "183 Session Progress", &sdp("22.33.44.22", port));
                if self.rings(it) {
                    self.branches[it].media = Some(port);
                }
            }
            Step::Answer(it) if self.is_early(it) => {
                let port = self.branches[it].port;
                self.reply(it, "200 OK", &sdp("22.33.44.22", port));
                let ack = format!("z9hG4bK-ack{it}");
                let dialog = Dialog { branch: &ack, ..self.dialog(it) };
                let text = request("ACK", PHONE, 1, dialog, true, "");
                self.bench.out(PHONE, PROXY, text);
                self.branches[it].stage = Stage::Up;
                self.branches[it].media = Some(port);
                self.first = self.first.or(Some(self.clock));
            }
            Step::Move(it) if self.branches[it].stage == Stage::Up => {
                self.cseq += 1;
                self.branches[it].port += 2;
                let port = self.branches[it].port;
                let text = self.far("INVITE", it, &sdp("22.33.44.22", port));
                let got = self.bench.inn(PROXY, PHONE, &text).text();
                let ok = answer(&got, "200 OK", at(PROXY), "", &offer());
                self.bench.out(PHONE, PROXY, ok);
                self.branches[it].media = Some(port);
                self.branches[it].last = None;
            }
            Step::HangUp { branch, by_phone } if self.branches[branch].stage == Stage::Up => {
                self.cseq += 1;
                if by_phone {
                    let bye = format!("z9hG4bK-bye{}", self.cseq);
                    let dialog = Dialog { branch: &bye, ..self.dialog(branch) };
                    let asked = request("BYE", PHONE, self.cseq, dialog, true, "");
                    let agreed = response("200 OK", "BYE", PUBLIC, self.cseq, dialog, "");
                    self.bench.out(PHONE, PROXY, asked);
                    self.bench.inn(PROXY, PHONE, agreed);
                } else {
                    let text = self.far("BYE", branch, "");
                    let got = self.bench.inn(PROXY, PHONE, &text).text();
                    self.bench.out(PHONE, PROXY, answer(&got, "200 OK", at(PROXY), "", ""));
                }
                self.branches[branch].stage = Stage::Over;
                // Who only rang has said nothing that would keep a call.
                let lives = |it: &Branch| it.media.is_some() && self.is_heard(it);
                self.is_over = !self.branches.iter().any(lives);
            }
            Step::Again(it) => {
                let is_sane = !self.is_over || self.first.is_none();
                if let Some(text) = self.branches[it].last.clone().filter(|_| is_sane) {
                    self.bench.inn(PROXY, PHONE, text);
                }
            }
            Step::Cancel | Step::Refuse if self.first.is_none() && !self.is_over => {
                let status = if let Step::Cancel = step {
                    let cancel = request("CANCEL", PHONE, 1, Dialog::default(), false, "");
                    self.bench.out(PHONE, PROXY, cancel);
                    let ok = response("200 OK", "CANCEL", PUBLIC, 1, self.dialog(0), "");
                    self.bench.inn(PROXY, PHONE, ok);
                    "487 Request Terminated"
                } else {
                    "486 Busy Here"
                };
                let refused = response(status, "INVITE", PUBLIC, 1, self.dialog(0), "");
                self.bench.inn(PROXY, PHONE, refused);
                let ack = request("ACK", PHONE, 1, self.dialog(0), true, "");
                self.bench.out(PHONE, PROXY, ack);
                self.is_over = true;
            }
            Step::Wait(seconds) => {
                self.clock += seconds;
                self.bench.advance(Duration::from_secs(seconds));
                self.bench.assert_renewed();
            }
            Step::Restart => restart(&mut self.bench, Duration::ZERO, Policy::default()),
            Step::Ring(_)
            | Step::Speak(_)
            | Step::Answer(_)
            | Step::Move(_)
            | Step::HangUp { .. }
            | Step::Cancel
            | Step::Refuse => return,
        }
        self.assert_heard(step);
    }

    /// A request of the far end in one of the dialogs.
    fn far(&self, method: &str, branch: usize, body: &str) -> String {
        let via = format!("z9hG4bK-far{}", self.cseq);
        far_request(method, PUBLIC, self.cseq, Dialog { branch: &via, ..self.dialog(branch) }, body)
    }

    /// Whether anybody of this branch may still send.
    fn is_heard(&self, branch: &Branch) -> bool {
        match branch.stage {
            Stage::Nothing | Stage::Early => self.is_open(),
            Stage::Up => true,
            Stage::Over => false,
        }
    }

    fn assert_heard(&self, step: Step) {
        let heard = self.branches.iter().filter(|it| self.is_heard(it)).filter_map(|it| it.media);
        let expected: BTreeSet<_> = heard.flat_map(|port| [(40_000, port), (40_001, port + 1)]).collect();
        let pins = &self.bench.kernel.pins;
        let there: BTreeSet<_> = pins.iter().map(|pin| (pin.inside.0.port(), pin.far.port())).collect();
        assert_eq!(there, expected, "after {step:?}, at {} s", self.clock);
        assert_eq!(pins.len(), expected.len(), "{pins:?}");
        let doors: BTreeSet<_> = self.bench.kernel.pinholes.values().map(|it| it.0.port()).collect();
        let is_any =
            !self.is_over && self.branches.iter().any(|it| it.stage != Stage::Nothing && self.is_heard(it));
        let expected: BTreeSet<u16> = if is_any { [40_000, 40_001].into() } else { BTreeSet::new() };
        assert_eq!(doors, expected, "after {step:?}, at {} s", self.clock);
    }

    fn end(mut self) {
        self.step(Step::Refuse);
        self.step(Step::Wait(40));
        for branch in 0..BRANCHES {
            self.step(Step::HangUp { branch, by_phone: branch % 2 == 0 });
        }
        self.bench.assert_all_closed();
        self.bench.advance(Duration::from_secs(14 * 24 * 3600));
        assert_eq!(self.bench.engine.sizes(), sipalg::alg::Sizes::default());
    }
}

fn offer() -> String {
    sdp("192.168.1.10", 40_000)
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn whoever_may_be_talked_to_is_heard_and_nobody_else(steps in vec(step(), 0..24)) {
        let mut fork = Fork::begin();
        for step in steps {
            fork.step(step);
        }
        fork.end();
    }
}
