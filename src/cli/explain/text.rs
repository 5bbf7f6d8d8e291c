//! An explanation for people: what came, what was changed in it and why, and what was opened.
//!
//! Every changed line is shown as it was and as it is, and every inside address that was left, with the reason. Bytes that a terminal would obey are shown as numbers: a
//! capture may come from anybody.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

use super::session::{Change, Direction, Fate, Passage};
use super::words;
use crate::alg::{Command, Event, Op, Outcome, Pinhole, Reason};
use crate::config::value::Seconds;

/// Writes explanations and counts what they were about.
pub(super) struct Text<'w> {
    out: &'w mut dyn Write,
    colour: bool,
    reasons: BTreeMap<Reason, usize>,
    /// Messages that passed the NAT.
    crossed: usize,
    open: BTreeMap<(crate::alg::Outside, crate::alg::Inside), Pinhole>,
}

const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const BOLD: &str = "\x1b[1m";
const FAINT: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

impl<'w> Text<'w> {
    /// Writes to `out`, with colours if `colour`.
    pub(super) fn new(out: &'w mut dyn Write, colour: bool) -> Self {
        Self { out, colour, reasons: BTreeMap::new(), crossed: 0, open: BTreeMap::new() }
    }

    /// One message.
    pub(super) fn message(&mut self, name: &str, passage: &Passage) -> io::Result<()> {
        let Passage { source, destination, direction, fate, reason, .. } = passage;
        let heading = format!("{name}  {}", start_line(&passage.before));
        self.line(BOLD, &heading)?;
        writeln!(self.out, "  {:<8} {source} -> {destination}", direction.name())?;
        writeln!(self.out, "  {:<8} {}", past(*fate), words::reason(*reason))?;
        if let Some(port) = passage.port {
            writeln!(self.out, "  {:<8} port {port}, where the phone's Via says that it listens", "goes to")?;
        }
        for group in lines(passage) {
            let rules: Vec<String> = group
                .changes
                .iter()
                .map(|change| format!("{} at byte {}", change.rule.name(), change.offset))
                .collect();
            self.line(FAINT, &format!("    {}", rules.join(", ")))?;
            self.line(RED, &format!("    - {}", group.old))?;
            self.line(GREEN, &format!("    + {}", group.new))?;
        }
        for left in &passage.left {
            let place = shown(left.place.as_bytes());
            let (text, offset, why) = (&left.text, left.offset, left.why.sentence());
            writeln!(self.out, "  {:<8} {text} in {place} at byte {offset}: {why}", "leaves")?;
        }
        self.commands(&passage.commands)?;
        for event in &passage.events {
            if let Some(sentence) = words::event(event) {
                writeln!(self.out, "  {:<8} {sentence}", "so")?;
            }
        }
        writeln!(self.out)?;
        *self.reasons.entry(*reason).or_default() += 1;
        self.crossed += usize::from(*direction != Direction::Through);
        Ok(())
    }

    /// What happened between two messages, because its time had come.
    pub(super) fn meanwhile(&mut self, commands: &[(Command, Outcome)], events: &[Event]) -> io::Result<()> {
        let sentences: Vec<String> = events.iter().filter_map(words::event).collect();
        let told = commands.iter().any(|(command, _)| words::command(&command.op).is_some());
        if !told && sentences.is_empty() {
            self.note_open(commands);
            return Ok(());
        }
        self.line(BOLD, "meanwhile")?;
        self.commands(commands)?;
        for sentence in sentences {
            writeln!(self.out, "  {:<8} {sentence}", "so")?;
        }
        writeln!(self.out)
    }

    /// The last lines: what there was in all, and what is open now. `others` packets were not looked at.
    pub(super) fn summary(&mut self, others: usize) -> io::Result<()> {
        let messages: usize = self.reasons.values().sum();
        let mut line = counted(messages, "message");
        if others > 0 {
            let _ = write!(line, "; {}", counted(others, "other packet"));
        }
        self.line(BOLD, &line)?;
        for (reason, count) in &self.reasons {
            writeln!(self.out, "  {count:>6}  {}", reason.name())?;
        }
        if messages > 0 && self.crossed == 0 {
            writeln!(
                self.out,
                "no message passed the NAT: was this captured inside? (--private says who is inside)"
            )?;
        }
        match self.open.len() {
            0 => writeln!(self.out, "no pinhole is open at the end"),
            count => {
                writeln!(self.out, "open at the end: {}", counted(count, "pinhole"))?;
                for pinhole in self.open.values() {
                    writeln!(self.out, "  {}", words::pinhole(pinhole))?;
                }
                Ok(())
            }
        }
    }

    fn commands(&mut self, commands: &[(Command, Outcome)]) -> io::Result<()> {
        self.note_open(commands);
        for (command, outcome) in commands {
            for (verb, rest) in words::command(&command.op).unwrap_or_default() {
                let failed = outcome.err().map(|failure| format!(": {failure}")).unwrap_or_default();
                writeln!(self.out, "  {verb:<8} {rest}{failed}")?;
            }
        }
        Ok(())
    }

    fn note_open(&mut self, commands: &[(Command, Outcome)]) {
        for (command, outcome) in commands {
            match &command.op {
                Op::Open { pinholes, .. } if outcome.is_ok() => {
                    self.open.extend(pinholes.iter().map(|it| ((it.public, it.inside), *it)));
                }
                Op::Close { pinholes, .. } => {
                    for it in pinholes {
                        self.open.remove(&(it.public, it.inside));
                    }
                }
                _ => {}
            }
        }
    }

    fn line(&mut self, style: &str, text: &str) -> io::Result<()> {
        if self.colour { writeln!(self.out, "{style}{text}{PLAIN}") } else { writeln!(self.out, "{text}") }
    }
}

/// A line of the message that changed.
struct Line<'p> {
    changes: Vec<&'p Change>,
    old: String,
    new: String,
}

/// The changed lines, in order. Changes of one line belong together.
fn lines(passage: &Passage) -> Vec<Line<'_>> {
    let text = &passage.before;
    let mut groups: Vec<(usize, usize, Vec<&Change>)> = Vec::new();
    for change in &passage.changes {
        let start = text.iter().take(change.offset).rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let from = change.offset + change.old.len();
        let end = text.iter().skip(from).position(|byte| *byte == b'\n').map_or(text.len(), |at| from + at);
        match groups.last_mut() {
            Some((_, last, changes)) if start < *last => {
                *last = end.max(*last);
                changes.push(change);
            }
            _ => groups.push((start, end, vec![change])),
        }
    }
    groups
        .into_iter()
        .map(|(start, end, changes)| {
            let mut new = Vec::new();
            let mut at = start;
            for change in &changes {
                new.extend_from_slice(text.get(at..change.offset).unwrap_or_default());
                new.extend_from_slice(&change.new);
                at = change.offset + change.old.len();
            }
            new.extend_from_slice(text.get(at..end).unwrap_or_default());
            Line { changes, old: shown(text.get(start..end).unwrap_or_default()), new: shown(&new) }
        })
        .collect()
}

/// The first line, if it is text.
pub(super) fn start_line(payload: &[u8]) -> String {
    let line = payload.split(|byte| *byte == b'\n').find(|line| !line.trim_ascii().is_empty());
    match line {
        None => format!("({} bytes of white space)", payload.len()),
        Some(line) => shown(line.get(..120).unwrap_or(line)),
    }
}

/// Text as it may stand on a terminal: one line, nothing that moves the cursor or changes colours.
fn shown(bytes: &[u8]) -> String {
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

fn past(fate: Fate) -> &'static str {
    match fate {
        Fate::Accept => "passed",
        Fate::Rewrite => "changed",
        Fate::Drop => "dropped",
    }
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// A duration as people write it.
pub(super) fn lasting(duration: Duration) -> String {
    Seconds(duration).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alg::Rule;

    fn passage(before: &str, changes: &[(usize, &str, &str, Rule)]) -> Passage {
        let at = "192.0.2.1:5060".parse().unwrap();
        Passage {
            source: at,
            destination: at,
            direction: Direction::Out,
            fate: Fate::Rewrite,
            reason: Reason::Rewritten,
            port: None,
            before: before.into(),
            after: Vec::new(),
            changes: changes
                .iter()
                .map(|(offset, old, new, rule)| Change {
                    offset: *offset,
                    old: old.as_bytes().into(),
                    new: new.as_bytes().into(),
                    rule: *rule,
                })
                .collect(),
            left: Vec::new(),
            commands: Vec::new(),
            events: Vec::new(),
        }
    }

    #[test]
    fn changes_of_one_line_are_shown_together() {
        let passage = passage(
            "a\r\nm=audio 40000 RTP\r\nc=10.0.0.1",
            &[
                (3, "m=", "M=", Rule::SdpMediaPort),
                (11, "40000", "16384", Rule::SdpMediaPort),
                (24, "10.0.0.1", "203.0.113.1", Rule::SdpConnection),
            ],
        );
        let lines = lines(&passage);
        assert_eq!(lines.len(), 2);
        assert_eq!(
            (lines[0].old.as_str(), lines[0].new.as_str()),
            ("m=audio 40000 RTP", "M=audio 16384 RTP")
        );
        assert_eq!((lines[1].old.as_str(), lines[1].new.as_str()), ("c=10.0.0.1", "c=203.0.113.1"));
        assert_eq!(lines[0].changes.len(), 2);
    }

    #[test]
    fn a_hostile_line_cannot_move_the_cursor() {
        assert_eq!(shown(b"From: \x1b[2J\xff\xc3\xa9\t\r"), "From: \\u{1b}[2J\\xff\u{e9}\\t");
        assert_eq!(start_line(b"\r\n\r\n"), "(4 bytes of white space)");
        assert_eq!(start_line(b"\r\nBYE sip:a SIP/2.0\r\n"), "BYE sip:a SIP/2.0");
    }
}
