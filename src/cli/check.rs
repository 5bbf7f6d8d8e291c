//! `sipalg check`: would `sipalg run` start here, and is anything strange?
//!
//! It reads the configuration, asks the kernel, and changes nothing. Its exit code is the one that `run` would end with.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Exit, Problem};
use crate::config::{self, Config};
use crate::daemon;
use crate::kernel::probe::{self, Level};

/// Says whether `sipalg run` would start: the configuration, and what this kernel can do; one line for each finding.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Settings to check [default: /etc/sipalg/sipalg.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One JSON object for each finding.
    #[arg(long)]
    json: bool,
}

/// One line of the answer.
#[derive(Debug, Serialize)]
struct Line {
    level: &'static str,
    name: &'static str,
    text: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    remedy: String,
}

/// Does what the arguments ask, and writes to `out`.
///
/// # Errors
/// A configuration that makes no sense.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<Exit, Problem> {
    let config = Config::load(args.config.as_deref())?;
    let file = args.config.as_deref().unwrap_or(Path::new(config::DEFAULT_PATH));
    let named = if file.exists() { file.display().to_string() } else { "no file, all defaults".to_owned() };
    let mut lines = vec![Line { level: "ok", name: "config", text: named, remedy: String::new() }];
    lines.extend(config.check(Some(file)).into_iter().map(|text| Line {
        level: "note",
        name: "config",
        text,
        remedy: String::new(),
    }));

    let mut findings = probe::run(&daemon::ruleset_settings(&config));
    findings.extend(daemon::privileges::findings(&config));
    findings.extend(daemon::media_findings(&config));
    let exit =
        findings.iter().find(|finding| finding.level == Level::Problem).map_or(Exit::Good, Exit::of_finding);
    lines.extend(findings.into_iter().map(|finding| Line {
        level: match finding.level {
            Level::Ok => "ok",
            Level::Note => "note",
            Level::Problem => "problem",
        },
        name: finding.name,
        text: finding.text,
        remedy: finding.remedy,
    }));

    for line in &lines {
        if args.json {
            let line = serde_json::to_string(line).expect("a struct of strings is JSON");
            writeln!(out, "{line}")?;
        } else {
            let remedy = if line.remedy.is_empty() { String::new() } else { format!("; {}", line.remedy) };
            writeln!(out, "{:<8} {:<15} {}{remedy}", line.level, line.name, line.text)?;
        }
    }
    Ok(exit)
}
