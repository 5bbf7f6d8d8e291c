//! `sipalg registrations`: which phones can be called, and for how long.

use std::io::Write;

use super::ask::{self, HowMany, Look, Where};
use super::{Exit, Problem};
use crate::control::protocol::{Ask, Registration, Table};

/// Shows the registrations that a running sipalg keeps reachable.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    look: Look,
    #[command(flatten)]
    many: HowMany,
}

/// Asks, and writes to `out`.
///
/// # Errors
/// It does not run, or does not answer.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<Exit, Problem> {
    ask::show(&args.place, &args.look, (Ask::Registrations, Some(&args.many)), out, text)
}

fn text(registrations: &Table<Registration>) -> String {
    if registrations.total == 0 {
        return "no registrations".to_owned();
    }
    let rows = registrations.entries.iter().map(|it| {
        let left = ask::span(it.seconds);
        vec![it.who.clone(), it.inside.clone(), it.public.clone(), it.registrar.clone(), left]
    });
    let table = ask::table(&["who", "phone", "public", "registrar", "for"], rows);
    table + &ask::left_out(registrations.total, registrations.entries.len())
}
