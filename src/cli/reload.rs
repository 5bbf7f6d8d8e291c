//! `sipalg reload`: has a running gateway take its configuration file over.

use std::io::Write;

use super::ask::Where;
use super::{Exit, Problem};
use crate::control::protocol::{Ask, LIMIT, Reloaded};

/// Has a running sipalg read its configuration again; no call notices. If anything in it can't be used, or can't change at
/// run time, nothing changes, and the message says why.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Where,
}

/// Asks, and says on `out` what has changed.
///
/// # Errors
/// It does not run, or refuses; the message says why.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<Exit, Problem> {
    let Reloaded { changed, warnings } = args.place.ask(Ask::Reload, LIMIT)?;
    for warning in warnings {
        writeln!(out, "note: {warning}")?;
    }
    match changed.is_empty() {
        true => writeln!(out, "nothing has changed")?,
        false => writeln!(out, "changed: {}", changed.join(", "))?,
    }
    Ok(Exit::Good)
}
