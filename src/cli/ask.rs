//! What the commands that ask a running gateway have in common: where it is, how the answer is shown, and again.

use std::fmt::Write as _;
use std::io::{self, Write};
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

/// Asks, and shows the answer, as often as is wanted. `show` makes text for people out of it. A gateway that is watched may
/// be away for a while: its restart may be what somebody wants to see.
pub(super) fn show<T: DeserializeOwned + Serialize>(
    place: &Where,
    look: &Look,
    (ask, many): (Ask, Option<&HowMany>),
    out: &mut dyn Write,
    mut show: impl FnMut(&T) -> String,
) -> Result<Exit, Problem> {
    let mut was_there = false;
    loop {
        let text = match place.ask::<T>(ask, many.map_or(LIMIT, |many| many.limit)) {
            Ok(answer) if look.json => {
                Some(serde_json::to_string(&answer).expect("an answer has string keys only"))
            }
            Ok(answer) => Some(show(&answer)),
            Err(problem) if was_there => (!look.json).then(|| problem.to_string()),
            Err(problem) => return Err(problem),
        };
        was_there = true;
        if let Some(text) = text {
            let screen = Screen::of_stdout().filter(|_| look.watch && !look.json);
            match screen {
                Some(screen) => writeln!(out, "\x1b[H\x1b[2J{}", screen.fit(text.trim_end()))?,
                None => writeln!(out, "{}", text.trim_end())?,
            }
        }
        if !look.watch {
            return Ok(Exit::Good);
        }
        out.flush()?;
        thread::sleep(AGAIN);
    }
}

/// The terminal that shows what is watched.
#[derive(Clone, Copy, Debug)]
struct Screen {
    columns: usize,
    rows: usize,
}

impl Screen {
    /// `None`: it is a file or a pipe.
    fn of_stdout() -> Option<Self> {
        let (columns, rows) = terminal_size::terminal_size_of(io::stdout())?;
        // The last line is the cursor's.
        Some(Self { columns: usize::from(columns.0).max(1), rows: usize::from(rows.0).saturating_sub(1) })
    }

    /// The beginning of a text, as much as has room, and how much has not.
    fn fit(self, text: &str) -> String {
        let lines: Vec<&str> = text.lines().collect();
        let height = |line: &&str| line.chars().count().div_ceil(self.columns).max(1);
        if lines.iter().map(height).sum::<usize>() <= self.rows {
            return text.to_owned();
        }
        let mut room = self.rows.saturating_sub(1);
        let fits = |line: &&&str| {
            let left = room.checked_sub(height(line));
            room = left.unwrap_or(room);
            left.is_some()
        };
        let shown = lines.iter().take_while(fits).count();
        let (first, rest) = lines.split_at(shown);
        let mut text = first.join("\n");
        let _ = write!(text, "\n… and {} more lines", rest.len());
        text
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
    fn a_screen_shows_the_beginning_and_says_how_much_is_missing() {
        let screen = Screen { columns: 4, rows: 4 };
        assert_eq!(screen.fit("a\nb\nc\nd"), "a\nb\nc\nd");
        assert_eq!(screen.fit("a\nb\nc\nd\ne"), "a\nb\nc\n… and 2 more lines");
        // A line that is longer than the screen is wide takes two.
        assert_eq!(screen.fit("a\nbcdef\nc\nd"), "a\nbcdef\n… and 2 more lines");
        assert_eq!(Screen { columns: 1, rows: 0 }.fit("a"), "\n… and 1 more lines");
    }

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
