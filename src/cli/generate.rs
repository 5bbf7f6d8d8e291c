//! `sipalg generate`: manual pages and shell completions, made from the command line as it is defined.
//!
//! For who packs sipalg, hence not in the help. One definition, so nothing can be forgotten.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Cli, Exit, Problem};

/// Programs for the administrator (man-pages(7)).
const SECTION: &str = "8";

/// Writes manual pages and shell completions into a directory: for packages.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to; made if it is not there.
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
}

/// Writes them.
///
/// # Errors
/// The directory can't be written.
pub fn run(args: &Args) -> Result<Exit, Problem> {
    write(&args.directory).map_err(|error| {
        Problem::new(Exit::Failed, format_args!("can't write into {}: {error}", args.directory.display()))
    })?;
    Ok(Exit::Good)
}

fn write(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut command = Cli::command();
    // Gives each subcommand its full name.
    command.build();
    page(&command, directory)?;
    for subcommand in command.get_subcommands().filter(|it| !it.is_hide_set() && it.get_name() != "help") {
        page(subcommand, directory)?;
    }
    // Packages want each shell's own name for the file: sipalg.bash, _sipalg, sipalg.fish.
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut Cli::command(), "sipalg", directory)?;
    }
    Ok(())
}

/// `sipalg.8`, `sipalg-run.8`.
fn page(command: &clap::Command, directory: &Path) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let mut text = Vec::new();
    Man::new(command.clone()).section(SECTION).manual("sipalg").render(&mut text)?;
    fs::write(directory.join(format!("{name}.{SECTION}")), text)
}
