//! Offers and answers of a call, in any order and with any outcome (RFC 3264, 3261 section 14, 3311, 3605, 5761).
//!
//! A phone and a far end agree on media, and change their minds. What must be open after each exchange is worked out by a
//! model that knows nothing of the engine: it reads the descriptions as they were written and as they came out on the other
//! side (`offers/model.rs`), and looks whether the simulated kernel leads what the far end was told to where the phone is.

#![allow(clippy::unwrap_used)] // also in the helpers of the tests: a panic is how they fail

mod common;

#[path = "offers/call.rs"]
mod call;
#[path = "offers/description.rs"]
mod description;
#[path = "offers/model.rs"]
mod model;

use call::{Call, step};
use common::cases::cases;
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn what_both_sides_agreed_on_is_open_and_nothing_else(
        phone_calls in any::<bool>(),
        first in step(),
        steps in vec(step(), 0..8),
        phone_hangs_up in any::<bool>(),
    ) {
        let mut call = Call::begin(phone_calls, &first);
        for step in &steps {
            call.exchange(step);
        }
        call.hang_up(phone_hangs_up);
    }
}
