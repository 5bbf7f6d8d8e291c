//! `sipalg status`: is it running, and how full are its tables?

use std::fmt::Write as _;
use std::io::Write;

use super::ask::{self, Look, Where};
use super::{Exit, Problem, metrics};
use crate::control::protocol::{Ask, LIMIT, StateFile, Status};

/// Shows how a running sipalg is: tables, counters, state file.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    look: Look,
    /// The numbers in the text format of Prometheus.
    #[arg(long, conflicts_with_all = ["json", "watch"])]
    metrics: bool,
}

/// Asks, and writes to `out`.
///
/// # Errors
/// It does not run, or does not answer.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<Exit, Problem> {
    if args.metrics {
        let status = args.place.ask(Ask::Status, LIMIT)?;
        let text = metrics::text(&status).expect("a string takes it all");
        write!(out, "{text}")?;
        return Ok(Exit::Good);
    }
    ask::show(&args.place, &args.look, (Ask::Status, None), out, text)
}

fn text(status: &Status) -> String {
    let Status { version, pid, uptime, tables, counters, state } = status;
    let mut text = format!("sipalg {version} runs since {} (process {pid})\n", ask::span(*uptime));
    let _ = writeln!(text, "{}\n", state_line(state.as_ref()));
    let fill = |it: &crate::control::protocol::Fill| {
        vec![it.name.clone(), it.entries.to_string(), it.limit.to_string()]
    };
    text += &ask::table(&["table", "entries", "limit"], tables.iter().map(fill));
    text.push('\n');
    let counters = counters.iter().map(|it| vec![it.name.clone(), it.count.to_string()]);
    text += &ask::table(&["packets", "count"], counters);
    text
}

fn state_line(state: Option<&StateFile>) -> String {
    match state {
        None => "no state file: a restart forgets calls and registrations".to_owned(),
        Some(StateFile { path, error: Some(error), .. }) => {
            format!("the state file {path} can't be written: {error}")
        }
        Some(StateFile { path, age: Some(age), .. }) => {
            format!("state file {path}, written {} ago", ask::span(*age))
        }
        Some(StateFile { path, .. }) => format!("state file {path}, nothing to write yet"),
    }
}
