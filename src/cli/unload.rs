//! `sipalg unload`: takes away what `run` leaves in the kernel.

use std::io::Write;

use super::{Exit, Problem};
use crate::kernel::ruleset;

/// Removes the nftables table `inet sipalg` and what belongs to it. Calls that are up lose their sound.
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
    let was_there = ruleset::remove()?;
    let said = if was_there { "table inet sipalg is removed" } else { "there was nothing to remove" };
    writeln!(out, "{said}")?;
    Ok(Exit::Good)
}
