//! Do no harm: the ways in which ALGs are known to break calls, as far as one can tell without a kernel.
//!
//! Each test has the number of its row in the table of ways (`f01_…` to `f43_…`; the rows that speak of TCP, of real
//! clients or of the kernel itself are shown where those are). A test says in its first lines what other gateways do.

#![allow(clippy::unwrap_used)] // also in the helpers of the tests: a panic is how they fail

mod common;

#[path = "harm/bodies.rs"]
mod bodies;
#[path = "harm/calls.rs"]
mod calls;
#[path = "harm/descriptions.rs"]
mod descriptions;
#[path = "harm/headers.rs"]
mod headers;
#[path = "harm/media.rs"]
mod media;
#[path = "harm/names.rs"]
mod names;
#[path = "harm/registrations.rs"]
mod registrations;
#[path = "harm/running.rs"]
mod running;
#[path = "harm/security.rs"]
mod security;

use common::messages::{Dialog, PHONE, PROXY, answer, request, response};
use common::{Bench, Passed};

/// The public endpoint of the first flow of a bench.
const PUBLIC: &str = "22.33.44.55:17375";

/// The phone invites; `offer` may be empty.
fn invite(bench: &mut Bench, dialog: Dialog<'_>, offer: &str) -> Passed {
    bench.out(PHONE, PROXY, request("INVITE", PHONE, 1, dialog, false, offer))
}

/// The provider answers the phone's INVITE.
fn answered(bench: &mut Bench, dialog: Dialog<'_>, status: &str, body: &str) -> Passed {
    bench.inn(PROXY, PHONE, response(status, "INVITE", PUBLIC, 1, dialog, body))
}

/// The phone calls and gets its answer; both confirm.
fn call(bench: &mut Bench, dialog: Dialog<'_>, offer: &str, body: &str) {
    invite(bench, dialog, offer);
    answered(bench, dialog, "200 OK", body);
    bench.out(PHONE, PROXY, request("ACK", PHONE, 1, dialog, true, ""));
}

/// The phone hangs up and is answered.
fn hang_up(bench: &mut Bench, dialog: Dialog<'_>) {
    let branch = format!("{}-bye", dialog.branch);
    let dialog = Dialog { branch: &branch, ..dialog };
    bench.out(PHONE, PROXY, request("BYE", PHONE, 7, dialog, true, ""));
    bench.inn(PROXY, PHONE, response("200 OK", "BYE", PUBLIC, 7, dialog, ""));
}

/// The provider sends a request within the call, and the phone says 200. What the phone got comes back.
fn ask_phone(bench: &mut Bench, request: &str) -> Passed {
    let got = bench.inn(PROXY, PHONE, request);
    let seen = common::at(PROXY);
    bench.out(PHONE, PROXY, answer(&got.text(), "200 OK", seen, "", ""));
    got
}
