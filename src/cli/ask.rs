//! What the commands that ask a running gateway have in common: where it is, how the answer is shown, and again.

use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Exit, Problem};
use crate::control::protocol::{Ask, LIMIT, Request, VERSION};
use crate::control::{client, path};

/// How often `--watch` asks.
const AGAIN: Duration = Duration::from_secs(2);

/// Which gateway is asked.
#[derive(Debug, clap::Args)]
pub(super) struct Where {
    /// The control socket [default: control.sock in $RUNTIME_DIRECTORY, or /run/sipalg/control.sock]
    #[arg(long, value_name = "FILE")]
    socket: Option<PathBuf>,
}

/// How the answer is shown.
#[derive(Debug, clap::Args)]
pub(super) struct Look {
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    /// Ask again every two seconds, until interrupted.
    #[arg(long)]
    watch: bool,
}

/// How much of a table is wanted.
#[derive(Debug, clap::Args)]
pub(super) struct HowMany {
    /// So many entries at most.
    #[arg(long, value_name = "N", default_value_t = LIMIT)]
    limit: usize,
}

impl Where {
    /// Asks once.
    pub(super) fn ask<T: DeserializeOwned>(&self, ask: Ask, limit: usize) -> Result<T, Problem> {
        let socket = self.socket.clone().unwrap_or_else(path::default);
        Ok(client::ask(&socket, &Request { v: VERSION, ask, limit })?)
    }
}

/// Asks, and shows the answer, as often as is wanted. `show` makes text for people out of it.
pub(super) fn show<T: DeserializeOwned + Serialize>(
    place: &Where,
    look: &Look,
    (ask, many): (Ask, Option<&HowMany>),
    out: &mut dyn Write,
    show: impl Fn(&T) -> String,
) -> Result<Exit, Problem> {
    loop {
        let answer: T = place.ask(ask, many.map_or(LIMIT, |many| many.limit))?;
        if look.json {
            let line = serde_json::to_string(&answer).expect("an answer has string keys only");
            writeln!(out, "{line}")?;
        } else {
            // To the top of a cleared screen; programs that watch want --json.
            let clear = if look.watch { "\x1b[H\x1b[2J" } else { "" };
            writeln!(out, "{clear}{}", show(&answer).trim_end())?;
        }
        if !look.watch {
            return Ok(Exit::Good);
        }
        out.flush()?;
        thread::sleep(AGAIN);
    }
}

/// Rows under their headings, without lines around them.
pub(super) fn table(headings: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING).set_header(headings);
    for row in rows {
        table.add_row(row.iter().map(|cell| printable(cell)));
    }
    table.lines().fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "{}", line.strip_prefix(' ').unwrap_or(&line).trim_end());
        text
    })
}

/// A line about what was left out, if anything was.
pub(super) fn left_out(total: usize, shown: usize) -> String {
    match total.saturating_sub(shown) {
        0 => String::new(),
        more => format!("… and {more} more: --limit {total}\n"),
    }
}

/// Text that came from a message, without what would move a terminal's cursor.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A time as `1d 2h`, `2h 5m`, `5m 3s` or `3s`.
pub(super) fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (1.., _, _) => format!("{days}d {hours}h"),
        (0, 1.., _) => format!("{hours}h {minutes}m"),
        (0, 0, 1..) => format!("{minutes}m {}s", seconds % 60),
        (0, 0, 0) => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        let shown = [0, 59, 61, 7505, 180_000].map(span);
        assert_eq!(shown, ["0s", "59s", "1m 1s", "2h 5m", "2d 2h"]);
    }

    #[test]
    fn a_message_cannot_move_the_cursor() {
        assert_eq!(printable("a\x1b[2Jb\nc"), "a\u{fffd}[2Jb\u{fffd}c");
    }

    #[test]
    fn tables_have_no_lines_around_them() {
        let rows = [vec!["alice".to_owned(), "1".to_owned()], vec!["bob".to_owned(), "22".to_owned()]];
        assert_eq!(table(&["who", "n"], rows.into_iter()), "who    n\nalice  1\nbob    22\n");
    }
}
