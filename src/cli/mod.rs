//! The command line: one file for each subcommand, text for people and `--json` for programs.
//!
//! Every command is a function from its arguments to an [`Exit`] or a [`Problem`]; [`main`] alone turns those into
//! words on standard error and a code for the shell. Nothing here decides anything about packets: `run` and `explain`
//! drive the same engine.

mod ask;
pub mod bindings;
pub mod calls;
pub mod check;
mod exit;
pub mod explain;
pub mod generate;
pub mod lab;
mod metrics;
pub mod registrations;
pub mod reload;
pub mod run;
mod silence;
pub mod status;
pub mod unload;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use exit::{Exit, Problem};

/// A transparent SIP ALG: phones behind this router's NAT register, call, hear and are heard, with nothing configured.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 good, 1 something did not hold, 2 usage or configuration, 3 rights are missing, \
                        4 the kernel lacks something, 5 a queue is taken, 6 another ALG is attached, 7 the ruleset \
                        can't be loaded, 8 sipalg does not run."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Status(status::Args),
    Calls(calls::Args),
    Registrations(registrations::Args),
    Bindings(bindings::Args),
    Reload(reload::Args),
    Unload(unload::Args),
    Check(check::Args),
    Explain(explain::Args),
    Lab(lab::LabArgs),
    #[command(hide = true)]
    Generate(generate::Args),
}

/// Reads the arguments, does what they ask, and says how it went.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = io::stdout().lock();
    let result = match &cli.command {
        Command::Run(args) => run::run(args).map(ExitCode::from),
        Command::Status(args) => status::run(args, &mut out).map(ExitCode::from),
        Command::Calls(args) => calls::run(args, &mut out).map(ExitCode::from),
        Command::Registrations(args) => registrations::run(args, &mut out).map(ExitCode::from),
        Command::Bindings(args) => bindings::run(args, &mut out).map(ExitCode::from),
        Command::Reload(args) => reload::run(args, &mut out).map(ExitCode::from),
        Command::Unload(args) => unload::run(args, &mut out).map(ExitCode::from),
        Command::Check(args) => check::run(args, &mut out).map(ExitCode::from),
        Command::Explain(args) => explain::run(args, &mut out).map(ExitCode::from),
        Command::Lab(args) => lab::run(args).map_err(Problem::from),
        Command::Generate(args) => generate::run(args).map(ExitCode::from),
    };
    let result = result.and_then(|code| Ok(out.flush().map(|()| code)?));
    result.unwrap_or_else(|problem| {
        if problem.exit != Exit::Good {
            // If not even this can be written, the exit code is all that is left.
            let _ = writeln!(io::stderr(), "{problem}");
        }
        problem.exit.into()
    })
}
