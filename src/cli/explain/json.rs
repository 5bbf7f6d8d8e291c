//! An explanation for programs: one JSON object on one line for each message.
//!
//! Names are kebab-case, addresses are text, durations are seconds. Bytes that are no UTF-8 become U+FFFD; offsets and
//! lengths count bytes of the original payload.

use serde::Serialize;
use serde_json::{Value, json};

use super::session::Passage;
use super::text::start_line;
use super::words;
use crate::alg::{Command, Event, Failure, Line, Op, Outcome, Peer, Pinhole, PinnedFlow, Reply};

/// One message.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Message<'a> {
    message: &'a str,
    direction: &'static str,
    source: String,
    destination: String,
    start_line: String,
    verdict: &'static str,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    edits: Vec<Edit>,
    left: Vec<Left>,
    commands: Vec<Value>,
    events: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Before>,
}

#[derive(Debug, Serialize)]
struct Edit {
    offset: usize,
    length: usize,
    old: String,
    new: String,
    rule: &'static str,
}

/// An inside address that stays.
#[derive(Debug, Serialize)]
struct Left {
    offset: usize,
    text: String,
    #[serde(rename = "where")]
    place: String,
    reason: &'static str,
}

/// What happened before a message, because its time had come.
#[derive(Debug, Default, Serialize)]
pub(super) struct Before {
    commands: Vec<Value>,
    events: Vec<String>,
}

impl<'a> Message<'a> {
    /// The message called `name`, and what happened before it.
    pub(super) fn new(name: &'a str, passage: &Passage, before: Before) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            message: name,
            direction: passage.direction.name(),
            source: passage.source.to_string(),
            destination: passage.destination.to_string(),
            start_line: start_line(&passage.before),
            verdict: passage.fate.name(),
            reason: passage.reason.name(),
            port: passage.port,
            edits: passage
                .changes
                .iter()
                .map(|change| Edit {
                    offset: change.offset,
                    length: change.old.len(),
                    old: text(&change.old),
                    new: text(&change.new),
                    rule: change.rule.name(),
                })
                .collect(),
            left: passage
                .left
                .iter()
                .map(|left| Left {
                    offset: left.offset,
                    text: left.text.clone(),
                    place: left.place.clone(),
                    reason: left.why.name(),
                })
                .collect(),
            commands: passage.commands.iter().map(command).collect(),
            events: events(&passage.events),
            before: (!before.commands.is_empty() || !before.events.is_empty()).then_some(before),
        }
    }
}

impl Before {
    /// Adds what has happened since.
    pub(super) fn add(&mut self, commands: &[(Command, Outcome)], happened: &[Event]) {
        self.commands.extend(commands.iter().map(command));
        self.events.extend(events(happened));
    }
}

fn events(events: &[Event]) -> Vec<String> {
    events.iter().filter_map(words::event).collect()
}

/// One command and what came of it.
fn command((command, outcome): &(Command, Outcome)) -> Value {
    let mut value = match &command.op {
        Op::Open { pinholes, lifetime } => {
            json!({ "op": "open", "pinholes": holes(pinholes), "lifetime": lifetime.as_secs() })
        }
        Op::Renew { pinholes, peers, lifetime } => {
            json!({ "op": "renew", "pinholes": holes(pinholes), "peers": admitted(peers), "lifetime": lifetime.as_secs() })
        }
        Op::Close { pinholes, peers, quarantine } => {
            json!({ "op": "close", "pinholes": holes(pinholes), "peers": admitted(peers), "quarantine": quarantine.as_secs() })
        }
        Op::Admit { peers, lifetime } => {
            json!({ "op": "admit", "peers": admitted(peers), "lifetime": lifetime.as_secs() })
        }
        Op::Dismiss { peers } => json!({ "op": "dismiss", "peers": admitted(peers) }),
        Op::Pin { flow, .. } => json!({ "op": "pin", "flow": pinned(flow) }),
        Op::Unpin { flow } => json!({ "op": "unpin", "flow": pinned(flow) }),
        Op::Lookup { source, destination, .. } => {
            json!({ "op": "lookup", "source": source.to_string(), "destination": destination.to_string() })
        }
        Op::Recognise { public, host } => {
            json!({ "op": "recognise", "public": public.to_string(), "host": host.to_string() })
        }
        Op::Expect { public, source, lifetime, .. } => json!({
            "op": "expect",
            "public": public.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "source": source.map(|it| it.to_string()),
            "lifetime": lifetime.as_secs(),
        }),
        Op::Unexpect { public, .. } => {
            json!({ "op": "unexpect", "public": public.iter().map(ToString::to_string).collect::<Vec<_>>() })
        }
        Op::Follow { line, lifetime } => {
            json!({ "op": "follow", "line": connection(line), "lifetime": lifetime.as_secs() })
        }
        Op::Unfollow { line } => json!({ "op": "unfollow", "line": connection(line) }),
        Op::Reset { line } => json!({ "op": "reset", "line": connection(line) }),
        Op::Reroute { flow, public, from, to } => json!({
            "op": "reroute",
            "inside": flow.inside.to_string(),
            "far": flow.far.to_string(),
            "public": public.to_string(),
            "from": from,
            "to": to,
        }),
        Op::Purge { address } => json!({ "op": "purge", "address": address.to_string() }),
        Op::Sustain { flow, lifetime } => json!({
            "op": "sustain",
            "inside": flow.inside.to_string(),
            "far": flow.far.to_string(),
            "lifetime": lifetime.as_secs(),
        }),
    };
    let result = match outcome {
        Ok(Reply::Done) => "done",
        Ok(Reply::Found(Some(_))) => "found",
        Ok(Reply::Found(None)) => "not-found",
        Err(Failure::PortInUse) => "port-in-use",
        Err(Failure::NotFound) => "not-found",
        Err(Failure::Full) => "full",
        Err(Failure::Kernel(_)) => "failed",
    };
    if let Some(object) = value.as_object_mut() {
        object.insert("result".to_owned(), result.into());
    }
    value
}

fn holes(pinholes: &[Pinhole]) -> Vec<Value> {
    let hole = |it: &Pinhole| {
        json!({
            "transport": it.transport.name(),
            "public": it.public.to_string(),
            "inside": it.inside.to_string(),
        })
    };
    pinholes.iter().map(hole).collect()
}

/// A peer without an address stands for everybody.
fn admitted(peers: &[Peer]) -> Vec<Value> {
    let peer = |it: &Peer| {
        json!({
            "transport": it.transport.name(),
            "public": it.public.to_string(),
            "far": it.far.map(|far| far.to_string()),
        })
    };
    peers.iter().map(peer).collect()
}

fn connection(line: &Line) -> Value {
    json!({ "inside": line.inside.to_string(), "far": line.far.to_string(), "public": line.public.to_string() })
}

fn pinned(flow: &PinnedFlow) -> Value {
    json!({
        "transport": flow.transport.name(),
        "inside": flow.inside.to_string(),
        "far": flow.far.to_string(),
        "public": flow.public.to_string(),
        "hairpin": flow.hairpin.map(|inside| inside.to_string()),
    })
}
