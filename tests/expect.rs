//! Media before the answer: what the engine asks of conntrack, and when it takes it back.

#![allow(clippy::unwrap_used)] // clippy knows tests by their attribute only, not their helpers

mod common;

use std::time::Duration;

use common::messages::{Dialog, MEDIA, PHONE, PROXY, request, response, sdp};
use common::{Bench, at, kind};
use sipalg::alg::{Admission, Failure, MediaClass, MediaSource, Op, Policy, Reason};

const PUBLIC: &str = "22.33.44.55:17375";

fn bench(source: MediaSource) -> Bench {
    Bench::new(Policy { admission: Admission::Expectation, media_source: source, ..Policy::default() })
}

fn kinds(bench: &Bench) -> Vec<&'static str> {
    bench.commands.iter().map(kind).collect()
}

fn invite(bench: &mut Bench, dialog: Dialog<'_>) {
    let sent =
        bench.out(PHONE, PROXY, request("INVITE", PHONE, 1, dialog, false, &sdp("192.168.1.10", 40000)));
    assert_eq!(sent.reason, Reason::Rewritten);
}

#[test]
fn media_is_expected_with_the_offer_and_pinned_with_the_answer() {
    let mut bench = bench(MediaSource::Any);
    let dialog = Dialog::default();
    invite(&mut bench, dialog);
    assert_eq!(kinds(&bench), ["open", "expect"]);
    let Op::Expect { public: at_these, source, class, signalling, lifetime } = &bench.commands[1] else {
        panic!()
    };
    let public = bench.binding("192.168.1.10:40000");
    assert_eq!((at_these.len(), at_these[0].0), (2, public));
    assert_eq!((*source, *class), (None, MediaClass::Audio));
    assert_eq!((signalling.inside.0, signalling.far), (at(PHONE), at(PROXY)));
    assert_eq!(*lifetime, Duration::from_secs(300));
    // Once more: nothing new.
    invite(&mut bench, dialog);
    bench.inn(PROXY, PHONE, response("180 Ringing", "INVITE", PUBLIC, 1, dialog, ""));
    assert_eq!(bench.commands.len(), 2);
    let answer = sdp("22.33.44.22", 30000);
    bench.inn(PROXY, PHONE, response("200 OK", "INVITE", PUBLIC, 1, dialog, &answer));
    assert_eq!(
        kinds(&bench),
        ["open", "expect", "admit", "admit", "unexpect", "unexpect", "pin", "pin"],
        "what came early makes room first"
    );
    bench.assert_pinned("192.168.1.10:40000", MEDIA);
    assert!(bench.kernel.expected.is_empty());
}

#[test]
fn only_the_server_is_expected_where_only_negotiated_addresses_may_send() {
    let mut bench = bench(MediaSource::Negotiated);
    invite(&mut bench, Dialog::default());
    let Op::Expect { source, .. } = &bench.commands[1] else { panic!("{:?}", bench.commands) };
    assert_eq!(*source, Some(at(PROXY).ip()));
}

#[test]
fn a_call_that_nobody_answers_is_not_expected_any_more() {
    let mut bench = bench(MediaSource::Any);
    invite(&mut bench, Dialog::default());
    assert_eq!(bench.kernel.expected.len(), 2);
    bench.advance(Duration::from_secs(33));
    bench.assert_all_closed();
}

#[test]
fn a_stream_that_the_far_end_refuses_or_holds_is_not_expected_any_more() {
    for answer in [sdp("22.33.44.22", 0), sdp("0.0.0.0", 30000)] {
        let mut bench = bench(MediaSource::Any);
        let dialog = Dialog::default();
        invite(&mut bench, dialog);
        assert_eq!(bench.kernel.expected.len(), 2);
        bench.inn(PROXY, PHONE, response("200 OK", "INVITE", PUBLIC, 1, dialog, &answer));
        assert!(bench.kernel.expected.is_empty(), "{answer}: {:?}", kinds(&bench));
    }
}

#[test]
fn what_conntrack_does_not_know_yet_is_asked_again_with_the_first_answer() {
    let mut bench = bench(MediaSource::Any);
    let dialog = Dialog::default();
    bench.failures.push_back(("expect", Failure::NotFound));
    invite(&mut bench, dialog);
    assert!(bench.kernel.expected.is_empty());
    bench.inn(PROXY, PHONE, response("100 Trying", "INVITE", PUBLIC, 1, dialog, ""));
    assert_eq!(kinds(&bench), ["open", "expect", "expect"]);
    assert_eq!(bench.kernel.expected.len(), 2);
    bench.inn(PROXY, PHONE, response("180 Ringing", "INVITE", PUBLIC, 1, dialog, ""));
    assert_eq!(bench.commands.len(), 3);
}

#[test]
fn a_flow_without_a_helper_is_asked_once_and_its_calls_go_on() {
    let mut bench = bench(MediaSource::Any);
    let dialog = Dialog::default();
    bench.failures.push_back(("expect", Failure::Kernel(95)));
    invite(&mut bench, dialog);
    bench.inn(PROXY, PHONE, response("100 Trying", "INVITE", PUBLIC, 1, dialog, ""));
    let answer = sdp("22.33.44.22", 30000);
    bench.inn(PROXY, PHONE, response("200 OK", "INVITE", PUBLIC, 1, dialog, &answer));
    assert_eq!(kinds(&bench), ["open", "expect", "admit", "admit", "pin", "pin"]);
    bench.assert_pinned("192.168.1.10:40000", MEDIA);
    assert_eq!(bench.count(Reason::CommandFailed), 0);
}

#[test]
fn a_rule_of_the_administrators_needs_no_entry_for_a_far_end_on_another_port() {
    let mut bench = Bench::new(Policy { admission: Admission::Rule, ..Policy::default() });
    let dialog = Dialog::default();
    invite(&mut bench, dialog);
    let answer = sdp("22.33.44.22", 30000);
    bench.inn(PROXY, PHONE, response("200 OK", "INVITE", PUBLIC, 1, dialog, &answer));
    let (public, asked) = (bench.binding("192.168.1.10:40000"), bench.commands.len());
    assert_eq!(bench.latch("22.33.44.22:7777", public).reason, Reason::Unchanged);
    assert_eq!(bench.commands.len(), asked);
}
