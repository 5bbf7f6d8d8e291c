//! Calls and registrations for as long as they live, and not a second longer.
//!
//! Everything here runs in the engine with a simulated kernel and a clock that only moves when told: an hour of hold
//! takes no time. Test names say what must happen; where a row of the table of harm (`tests/harm.rs`) is meant too, it
//! stands in the name.

#![allow(clippy::unwrap_used)] // clippy knows tests by their attribute only, not their helpers

mod common;

#[path = "life/addresses.rs"]
mod addresses;
#[path = "life/bounds.rs"]
mod bounds;
#[path = "life/connections.rs"]
mod connections;
#[path = "life/dialogs.rs"]
mod dialogs;
#[path = "life/endings.rs"]
mod endings;
#[path = "life/media.rs"]
mod media;
#[path = "life/offers.rs"]
mod offers;
#[path = "life/parties.rs"]
mod parties;
#[path = "life/registrations.rs"]
mod registrations;
#[path = "life/several.rs"]
mod several;

use std::time::Duration;

use common::messages::{self, Dialog, PHONE, PROXY, answer, request, response, sdp};
use common::{Bench, Passed, at};

/// The public endpoint of the first flow of a bench.
const PUBLIC: &str = "22.33.44.55:17375";
/// The phone's media in these tests.
const RTP: &str = "192.168.1.10:40000";
/// The far end's.
const FAR: &str = "22.33.44.22:30000";

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// The phone's usual offer.
fn offer() -> String {
    sdp("192.168.1.10", 40000)
}

/// The far end's usual answer.
fn far_sdp() -> String {
    sdp("22.33.44.22", 30000)
}

/// The phone sends a request of its dialog; each needs a branch of its own.
fn asks(bench: &mut Bench, method: &str, cseq: u32, branch: &str, body: &str) -> Passed {
    let dialog = Dialog { branch, ..Dialog::default() };
    bench.out(PHONE, PROXY, request(method, PHONE, cseq, dialog, true, body))
}

/// The provider answers it.
fn answers(bench: &mut Bench, status: &str, method: &str, cseq: u32, branch: &str, body: &str) -> Passed {
    let dialog = Dialog { branch, ..Dialog::default() };
    bench.inn(PROXY, PHONE, response(status, method, PUBLIC, cseq, dialog, body))
}

/// A request of the far end in the dialog that the phone began.
fn far_request(method: &str, cseq: u32, branch: &str, body: &str) -> String {
    messages::far_request(method, PUBLIC, cseq, Dialog { branch, ..Dialog::default() }, body)
}

/// The far end calls a phone that has said something to its provider before; what the phone gets.
fn far_invites(bench: &mut Bench, branch: &str) -> Passed {
    let first = far_request("INVITE", 1, branch, &far_sdp()).replace(";tag=alice-1", "");
    bench.inn(PROXY, PHONE, &first)
}

/// The far end asks; what the phone gets.
fn far_asks(bench: &mut Bench, request: &str) -> Passed {
    bench.inn(PROXY, PHONE, request)
}

/// The phone answers what it got.
fn phone_answers(bench: &mut Bench, got: &Passed, status: &str, body: &str) -> Passed {
    let contact = "Contact: <sip:alice@192.168.1.10:5060>\n";
    bench.out(PHONE, PROXY, answer(&got.text(), status, at(PROXY), contact, body))
}

/// The phone invites.
fn invite(bench: &mut Bench, body: &str) -> Passed {
    bench.out(PHONE, PROXY, request("INVITE", PHONE, 1, Dialog::default(), false, body))
}

/// The provider answers the first INVITE.
fn replies(bench: &mut Bench, status: &str, body: &str) -> Passed {
    answers(bench, status, "INVITE", 1, Dialog::default().branch, body)
}

/// A call that is up, the phone having called.
fn call_up(bench: &mut Bench) {
    invite(bench, &offer());
    replies(bench, "200 OK", &far_sdp());
    bench.out(
        PHONE,
        PROXY,
        request("ACK", PHONE, 1, Dialog { branch: "z9hG4bK-ack", ..Dialog::default() }, true, ""),
    );
    bench.assert_pinned(RTP, FAR);
}

/// The phone hangs up, and nothing is left of anything.
#[track_caller]
fn hang_up(bench: &mut Bench) {
    asks(bench, "BYE", 99, "z9hG4bK-bye99", "");
    answers(bench, "200 OK", "BYE", 99, "z9hG4bK-bye99", "");
    bench.assert_all_closed();
}

/// Nothing happens any more, for longer than anything lives.
#[track_caller]
fn assert_all_forgotten(bench: &mut Bench) {
    bench.advance(secs(14 * 24 * 3600));
    bench.assert_all_closed();
    let sizes = bench.engine.sizes();
    assert_eq!(
        (sizes.transactions, sizes.registrations, sizes.ports, sizes.flows),
        (0, 0, 0, 0),
        "{sizes:?}"
    );
}
