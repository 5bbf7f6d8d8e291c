//! Runs `ip`, `nft` and their like, and says clearly what was missing or went wrong.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use super::LabError;
use super::netns::Namespace;

/// Refuses when a program is not there.
pub(super) fn require(tool: &'static str, package: &'static str) -> Result<(), LabError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    match std::env::split_paths(&path).map(|dir| dir.join(tool)).any(|file: PathBuf| file.is_file()) {
        true => Ok(()),
        false => Err(LabError::MissingTool { tool, package }),
    }
}

/// Runs a program with this input, in a namespace or here, and gives what it printed.
pub(super) fn run(
    inside: Option<&Namespace>,
    program: &str,
    arguments: &[&str],
    input: &str,
) -> Result<String, LabError> {
    let result = match inside {
        Some(namespace) => namespace.run(|| execute(program, arguments, input)),
        None => execute(program, arguments, input),
    };
    let described = || format!("{program} {}", arguments.join(" "));
    match result {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(LabError::Tool { command: described(), said })
        }
        Err(error) => Err(LabError::Tool { command: described(), said: error.to_string() }),
    }
}

fn execute(program: &str, arguments: &[&str], input: &str) -> io::Result<Output> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // What is written here fits a pipe's buffer, so that the child cannot block on its output meanwhile.
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => (),
        }
    }
    child.wait_with_output()
}
