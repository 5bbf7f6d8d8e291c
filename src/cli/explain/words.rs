//! The engine's answers in words.

use super::text::lasting;
use crate::alg::{Event, Op, Peer, Pinhole, PinnedFlow, Reason, Transport};

/// Why a verdict is as it is, in a sentence for people. It begins with the stable name.
pub(super) fn reason(reason: Reason) -> String {
    let why = match reason {
        Reason::Rewritten => "its addresses were translated",
        Reason::Unchanged => "it is SIP, and nothing in it had to change",
        Reason::Learning => "first packet of a flow; its NAT mapping is not known yet",
        Reason::NotNated => "the NAT leaves this flow alone, and so does sipalg",
        Reason::BrokenPacket => "its IP or UDP headers make no sense",
        Reason::NotUdp => "it is neither UDP nor TCP",
        Reason::Segment => "a segment of a TCP connection",
        Reason::NotInspected => "its TCP connection is not inspected",
        Reason::NotSip => "it does not begin like a SIP message",
        Reason::KeepAlive => "a keep-alive",
        Reason::Stun => "STUN",
        Reason::Suspicious => "it fails the strict checks of a SIP message (S4), so it opens nothing",
        Reason::Unparsable => "its headers do not end, or there are too many",
        Reason::UnknownFlow => "conntrack has no entry for its flow",
        Reason::NotOurs => "it was not marked by sipalg before the NAT",
        Reason::Rerouted => {
            "its flow leaves by another uplink, and its public address was the old one's; SIP repeats it"
        }
        Reason::NatClash => "the NAT gave a second packet of this new flow another port; SIP repeats it",
        Reason::PeerNotAllowed => "its server is not in sip.servers",
        Reason::HandsOff => "its server is in sip.hands-off: it does the NAT itself",
        Reason::Quota => "its sender has as many pinholes as it may have",
        Reason::TableFull => "a table is full",
        Reason::PoolEmpty => "no port of media.ports is free",
        Reason::CommandFailed => "the kernel refused what it needs",
        Reason::CommandFailedDropped => "the kernel refused what it needs, and on-failure is \"drop\"",
        Reason::Protected => "it is signed or encrypted",
        Reason::Latched => {
            "media from a port of its own choice: its flow is pinned, this packet repeats itself"
        }
        Reason::NotNegotiated => "media that nobody negotiated",
        Reason::Refused => "it asks for a pinhole that the rules forbid (S8, S9), so it opens nothing",
        Reason::EditFailed => "two changes claim the same bytes: a mistake of sipalg, please report it",
    };
    format!("{}: {why}", reason.name())
}

/// What a command does, as verb and object, line by line; `None` for those that only ask.
pub(super) fn command(op: &Op) -> Option<Vec<(&'static str, String)>> {
    let hole = pinhole;
    let peer = |it: &Peer| {
        let far = it.far.map_or_else(|| "everybody".to_owned(), |far| far.to_string());
        format!("{far} to {}{}", tcp(it.transport), it.public)
    };
    let flow =
        |it: &PinnedFlow| format!("{}{} <-> {} as {}", tcp(it.transport), it.inside, it.far, it.public);
    Some(match op {
        Op::Open { pinholes, lifetime } => {
            pinholes.iter().map(|it| ("opens", format!("{} for {}", hole(it), lasting(*lifetime)))).collect()
        }
        Op::Renew { pinholes, lifetime, .. } => {
            pinholes.iter().map(|it| ("keeps", format!("{} for {}", hole(it), lasting(*lifetime)))).collect()
        }
        Op::Close { pinholes, .. } => pinholes.iter().map(|it| ("closes", hole(it))).collect(),
        Op::Admit { peers, .. } => peers.iter().map(|it| ("admits", peer(it))).collect(),
        Op::Dismiss { peers } => peers.iter().map(|it| ("bars", peer(it))).collect(),
        Op::Pin { flow: it, .. } => vec![("pins", flow(it))],
        Op::Unpin { flow: it } => vec![("unpins", flow(it))],
        Op::Expect { public, .. } => public.iter().map(|it| ("expects", format!("media at {it}"))).collect(),
        Op::Unexpect { .. } => return None,
        Op::Purge { address } => vec![("forgets", format!("everything that {address} stood for"))],
        Op::Sustain { flow, lifetime } => {
            vec![("sustains", format!("{} <-> {} for {}", flow.inside, flow.far, lasting(*lifetime)))]
        }
        Op::Lookup { .. }
        | Op::Recognise { .. }
        | Op::Reroute { .. }
        | Op::Follow { .. }
        | Op::Unfollow { .. }
        | Op::Reset { .. } => return None,
    })
}

/// Both ends of a pinhole.
pub(super) fn pinhole(it: &Pinhole) -> String {
    format!("{}{} -> {}", tcp(it.transport), it.public, it.inside)
}

/// What is not said is UDP.
fn tcp(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "",
        Transport::Tcp => "tcp ",
    }
}

/// An event as a sentence; `None` for those that repeat a command.
pub(super) fn event(event: &Event) -> Option<String> {
    Some(match event {
        Event::FlowLearned { inside, public: Some(public), .. } => {
            format!("the NAT makes {public} of {inside}")
        }
        Event::FlowLearned { inside, public: None, .. } => format!("the NAT leaves {inside} alone"),
        Event::Registered { who, public, lifetime, .. } => {
            format!("{who} is registered as {public} for {}", lasting(*lifetime))
        }
        Event::Upstream { sent, seen, .. } => format!("somebody on the way makes {seen} of {sent}"),
        Event::AddressGone { address, .. } => format!("the address {address} is gone"),
        Event::Unregistered { who, why, .. } => format!("{who} is no longer registered: {why}"),
        Event::CallAnswered { from, to, .. } => format!("the call from {from} to {to} is answered"),
        Event::CallEnded { from, to, duration: Some(duration), why, .. } => {
            format!("the call from {from} to {to} ends after {} s: {why}", duration.as_secs())
        }
        Event::CallEnded { from, to, duration: None, why, .. } => {
            format!("the call from {from} to {to} ends: {why}")
        }
        Event::Latched { far, public } => format!("media from {far} reaches {public}"),
        Event::Refused { rule, why, .. } => format!("nothing is opened ({rule}): {why}"),
        Event::CommandFailed { what, failure } => format!("{what} failed: {failure}"),
        Event::Opened { .. } | Event::Closed { .. } => return None,
    })
}
