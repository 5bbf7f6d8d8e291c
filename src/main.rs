//! The `sipalg` program: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    sipalg::cli::main()
}
