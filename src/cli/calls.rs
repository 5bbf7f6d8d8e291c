//! `sipalg calls`: who talks with whom, by which ports, and whether both are heard.

use std::fmt::Write as _;
use std::io::Write;
use std::time::Instant;

use super::ask::{self, HowMany, Look, Where, printable};
use super::silence::Silence;
use super::{Exit, Problem};
use crate::control::protocol::{Ask, Call, Dialog, Stream, Table, Traffic};

/// Shows the calls of a running sipalg: who, since when, both ends of each stream, what has passed each way, and who is
/// not heard.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    look: Look,
    #[command(flatten)]
    many: HowMany,
}

/// Asks, and writes to `out`.
///
/// # Errors
/// It does not run, or does not answer.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<Exit, Problem> {
    let mut silence = Silence::default();
    ask::show(&args.place, &args.look, (Ask::Calls, Some(&args.many)), out, |calls: &Table<Call>| {
        let mut calls = calls.clone();
        silence.note(Instant::now(), &mut calls);
        text(&calls)
    })
}

/// A line with the numbers, then the calls, those in trouble first.
fn text(calls: &Table<Call>) -> String {
    if calls.total == 0 {
        return "no calls".to_owned();
    }
    let in_trouble =
        |call: &Call| call.dialogs.iter().flat_map(|it| &it.streams).any(|it| it.trouble.is_some());
    let (troubled, fine): (Vec<_>, Vec<_>) = calls.entries.iter().partition(|call| in_trouble(call));
    let mut text = match calls.total {
        1 => "1 call".to_owned(),
        many => format!("{many} calls"),
    };
    if !troubled.is_empty() {
        let _ = write!(text, ", {} in trouble", troubled.len());
    }
    text.push('\n');
    for call in troubled.into_iter().chain(fine) {
        let since = call.seconds.map_or_else(|| "not answered".to_owned(), ask::span);
        let _ = writeln!(text, "{} -> {}  {since}", printable(&call.from), printable(&call.to));
        let id = printable(&call.call_id);
        let _ = writeln!(text, "  phone {}, server {}, Call-ID {id}", call.inside, call.server);
        for dialog in &call.dialogs {
            add_dialog(&mut text, dialog, call.dialogs.len() > 1);
        }
    }
    text + &ask::left_out(calls.total, calls.entries.len())
}

fn add_dialog(text: &mut String, dialog: &Dialog, is_one_of_many: bool) {
    if dialog.held || is_one_of_many {
        let held = if dialog.held { ", on hold" } else { "" };
        let _ = writeln!(text, "  {}{held}", dialog.state);
    }
    for stream in &dialog.streams {
        let _ = writeln!(text, "    {} {}", stream.kind, line(stream));
        if let Some(trouble) = &stream.trouble {
            let _ = writeln!(text, "      ! {trouble}");
        }
    }
}

fn line(stream: &Stream) -> String {
    let Stream { inside, public, far, way, traffic, .. } = stream;
    let far = match (way.as_deref(), far) {
        (Some("direct"), _) => "the other phone, directly".to_owned(),
        (Some("hairpin"), Some(far)) => format!("{far}, a phone behind the same NAT"),
        (_, Some(far)) => far.clone(),
        (_, None) => "(not known yet)".to_owned(),
    };
    let counted =
        traffic.map_or_else(String::new, |Traffic { packets_out, bytes_out, packets_in, bytes_in }| {
            format!(
                "  out {packets_out} packets, {bytes_out} bytes; in {packets_in} packets, {bytes_in} bytes"
            )
        });
    format!("{inside} as {public} <-> {far}{counted}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_shows_its_streams_and_who_is_not_heard() {
        let stream = |kind: &str, trouble: Option<&str>| Stream {
            media: 0,
            kind: kind.into(),
            inside: "192.168.1.10:40000".into(),
            public: "22.33.44.55:16384".into(),
            far: Some("22.33.44.22:30000".into()),
            way: Some("far".into()),
            traffic: Some(Traffic { packets_out: 300, bytes_out: 60_000, packets_in: 0, bytes_in: 0 }),
            trouble: trouble.map(str::to_owned),
        };
        let call = Call {
            call_id: "c1".into(),
            from: "sip:alice@example.com".into(),
            to: "sip:bob@example.com\n".into(),
            inside: "192.168.1.10:5060".into(),
            server: "22.33.44.20:5060".into(),
            seconds: Some(63),
            dialogs: vec![Dialog {
                state: "up".into(),
                held: false,
                streams: vec![stream("rtp", Some("one-way audio"))],
            }],
        };
        let shown = text(&Table { total: 3, entries: vec![call] });
        assert_eq!(
            shown,
            "3 calls, 1 in trouble\n\
             sip:alice@example.com -> sip:bob@example.com\u{fffd}  1m 3s\n  \
               phone 192.168.1.10:5060, server 22.33.44.20:5060, Call-ID c1\n    \
                 rtp 192.168.1.10:40000 as 22.33.44.55:16384 <-> 22.33.44.22:30000  \
                 out 300 packets, 60000 bytes; in 0 packets, 0 bytes\n      \
                   ! one-way audio\n\
             … and 2 more: --limit 3\n"
        );
        assert_eq!(text(&Table { total: 0, entries: vec![] }), "no calls");
    }
}
