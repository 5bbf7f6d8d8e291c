//! `sipalg unload`: takes away what `run` leaves in the kernel.

use std::io::Write;

use super::{Exit, Problem};
use crate::kernel::ruleset::{self, Parted, Removed};

/// So many ends that have not answered are named.
const NAMED: usize = 20;

/// Removes the nftables table `inet sipalg` and what belongs to it. Calls that are up lose their sound, and TCP connections
/// that were translated are reset.
///
/// A running sipalg would mend its ruleset at once: stop it first. A table that your own ruleset includes comes back when
/// that is loaded again.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Does it, and says on `out` what there was.
///
/// # Errors
/// Rights are missing, or the kernel refuses.
pub fn run(_: &Args, out: &mut dyn Write) -> Result<Exit, Problem> {
    let Removed { table, parted: Parted { told, silent } } = ruleset::remove()?;
    if told > 0 {
        writeln!(out, "{told} ends of translated TCP connections were told to begin anew")?;
    }
    for (end, other) in silent.iter().take(NAMED) {
        writeln!(out, "{end} has not answered: it may take its connection with {other} for open still")?;
    }
    if let Some(more) = silent.len().checked_sub(NAMED).filter(|more| *more > 0) {
        writeln!(out, "and {more} more have not answered")?;
    }
    let said = if table { "table inet sipalg is removed" } else { "there was nothing to remove" };
    writeln!(out, "{said}")?;
    Ok(Exit::Good)
}
