//! `sipalg run`: the gateway itself, in the foreground, as systemd wants it.

use std::path::PathBuf;

use super::{Exit, Problem};
use crate::config::Config;
use crate::daemon;

/// Runs the gateway in the foreground until SIGTERM or SIGINT.
///
/// SIGTERM stops it and leaves the ruleset in place, so that calls go on and a restart finds everything. SIGUSR1 writes
/// the counters into the log. SIGHUP reads the configuration again, as `sipalg reload` does.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Settings [default: /etc/sipalg/sipalg.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs until it is told to stop.
///
/// # Errors
/// Whatever keeps it from starting, each with its own exit code.
pub fn run(args: &Args) -> Result<Exit, Problem> {
    let config = Config::load(args.config.as_deref())?;
    daemon::run(config, args.config.clone())?;
    Ok(Exit::Good)
}
