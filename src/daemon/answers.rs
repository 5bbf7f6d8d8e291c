//! What the gateway answers at the control socket.
//!
//! The packet thread only copies its tables, between two batches. Names of interfaces and conntrack's counters are asked
//! for here, by sockets of our own and off the packet path.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tracing::warn;

use super::worker::Snapshot;
use crate::alg::call::{Phase, Target};
use crate::alg::views::{BindingView, CallView, LegView, RegistrationView, StreamView};
use crate::alg::{Limits, PinnedFlow, Reason, Transport};
use crate::control::protocol::{Binding, Call, Count, Dialog, Fill, Registration, Stream, Table, Traffic};
use crate::kernel::links::Links;
use crate::kernel::traffic::Meter;

/// Media is missed only so long after the last message of its dialog, which may have begun it, moved it or resumed it: phones
/// begin to send within a second, and voice activity detection sends comfort noise more often than this.
const SETTLED: Duration = Duration::from_secs(5);
/// So many packets in one direction are worth a word about the other: a second of sound.
const TALK: u64 = 50;

/// The entries of the engine's tables, and what each may have.
pub(super) fn fills(snapshot: &Snapshot, limits: &Limits) -> Vec<Fill> {
    let sizes = snapshot.sizes;
    [
        ("flows", sizes.flows, limits.flows),
        ("transactions", sizes.transactions, limits.transactions),
        ("calls", sizes.calls, limits.calls),
        ("registrations", sizes.registrations, limits.registrations),
        ("bindings", sizes.bindings, limits.bindings),
        ("parked", sizes.parked, limits.parked),
        ("connections", sizes.connections, limits.connections),
        ("tcp-bytes", sizes.stream_bytes, limits.tcp_bytes),
        ("tcp-held", sizes.held_segments, limits.tcp_held),
    ]
    .map(|(name, entries, limit)| Fill { name: name.to_owned(), entries, limit })
    .into()
}

/// Every counter that is not 0, under its stable name.
pub(super) fn counts(snapshot: &Snapshot) -> Vec<Count> {
    let Snapshot { stats, queue, mishaps, .. } = snapshot;
    let reasons = Reason::ALL.iter().map(|reason| (reason.name(), stats.verdicts(*reason)));
    let others = [
        ("received", queue.received),
        ("verdicts", queue.verdicts),
        ("refused_by_kernel", queue.refused),
        ("too_large", mishaps.too_large),
        ("outgrown", mishaps.outgrown),
        ("held_full", mishaps.held_full),
        ("forgotten", mishaps.forgotten),
        ("stray", mishaps.stray),
    ];
    let counted = reasons.chain(others).filter(|(_, count)| *count > 0);
    counted.map(|(name, count)| Count { name: name.to_owned(), count }).collect()
}

/// Registrations, by address of record.
pub(super) fn registrations(total: usize, views: Vec<RegistrationView>) -> Table<Registration> {
    let mut entries: Vec<Registration> = views
        .into_iter()
        .map(|it| Registration {
            who: it.who,
            inside: it.inside.to_string(),
            registrar: it.registrar.to_string(),
            public: it.public.to_string(),
            seconds: it.left.as_secs(),
        })
        .collect();
    entries.sort_by(|a, b| (&a.who, &a.inside).cmp(&(&b.who, &b.inside)));
    Table { total, entries }
}

/// Bindings, by public endpoint. Asks the kernel for the names of interfaces.
pub(super) fn bindings(total: usize, mut views: Vec<BindingView>) -> Table<Binding> {
    let mut links = Links::new();
    views.sort_by_key(|it| it.public);
    let entries = views
        .into_iter()
        .map(|it| Binding {
            transport: it.transport.name().to_owned(),
            inside: it.inside.to_string(),
            public: it.public.to_string(),
            uplink: links.name(it.uplink),
            owners: it.owners,
            admitted: it.admitted.iter().map(|far| admitted(*far)).collect(),
            latched: it.latched.iter().map(SocketAddr::to_string).collect(),
        })
        .collect();
    Table { total, entries }
}

fn admitted(far: Option<IpAddr>) -> String {
    far.map_or_else(|| "any".to_owned(), |far| far.to_string())
}

/// Calls, the longest first. Asks conntrack for the counters of their streams.
pub(super) fn calls(total: usize, mut views: Vec<CallView>) -> Table<Call> {
    views.sort_by(|a, b| b.answered.cmp(&a.answered).then_with(|| a.call_id.cmp(&b.call_id)));
    let mut meter = Meter::open().map_err(|error| warn!(%error, "conntrack's counters can't be read")).ok();
    let entries = views.into_iter().map(|call| self::call(call, &mut meter)).collect();
    Table { total, entries }
}

fn call(call: CallView, meter: &mut Option<Meter>) -> Call {
    let dialogs = call.legs.into_iter().map(|leg| dialog(leg, meter)).collect();
    Call {
        call_id: call.call_id,
        from: call.from,
        to: call.to,
        inside: call.inside.to_string(),
        server: call.far.to_string(),
        seconds: call.answered.map(|ago| ago.as_secs()),
        dialogs,
    }
}

fn dialog(leg: LegView, meter: &mut Option<Meter>) -> Dialog {
    let is_up = is_settled(&leg);
    let state = match leg.phase {
        Phase::Offered => "offered",
        Phase::Ringing => "ringing",
        Phase::Confirmed => "up",
        Phase::Leaving => "leaving",
    };
    let streams = leg
        .streams
        .into_iter()
        .map(|view| {
            let counted = meter.as_mut().and_then(|meter| traffic(meter, &view.flows));
            stream(view, counted, is_up)
        })
        .collect();
    Dialog { state: state.to_owned(), held: leg.held, streams }
}

/// Whether media of it that is not there is missing.
fn is_settled(leg: &LegView) -> bool {
    leg.phase == Phase::Confirmed && !leg.held && leg.quiet >= SETTLED
}

fn stream(view: StreamView, traffic: Option<Traffic>, is_up: bool) -> Stream {
    let is_tcp = view.transport == Transport::Tcp;
    let (far, way) = match view.target {
        None => (None, None),
        Some(Target::Far(far)) if is_tcp => (Some(far.endpoint().ip().to_string()), Some("far")),
        Some(Target::Far(far)) => (Some(far.endpoint().to_string()), Some("far")),
        Some(Target::Hairpin { public, .. }) => (Some(public.endpoint().to_string()), Some("hairpin")),
        Some(Target::Direct) => (None, Some("direct")),
    };
    let trouble = traffic.filter(|_| is_up && !view.rtcp && !is_tcp).and_then(trouble);
    let kind = match view.transport {
        Transport::Tcp => "tcp",
        Transport::Udp if view.rtcp => "rtcp",
        Transport::Udp => "rtp",
    };
    Stream {
        media: view.media,
        kind: kind.to_owned(),
        inside: view.inside.to_string(),
        public: view.public.to_string(),
        far,
        way: way.map(str::to_owned),
        traffic,
        trouble: trouble.map(str::to_owned),
    }
}

/// Whether somebody is not heard, in words.
fn trouble(traffic: Traffic) -> Option<&'static str> {
    match (traffic.packets_out, traffic.packets_in) {
        (TALK.., 0) => Some("one-way audio: the phone hears nothing, no packet has come from the far end"),
        (0, TALK..) => Some("one-way audio: the far end hears nothing, no packet has come from the phone"),
        (0, 0) => Some("no media in either direction"),
        _ => None,
    }
}

/// What all flows of a stream have carried together; `None` if nobody counted for any.
fn traffic(meter: &mut Meter, flows: &[PinnedFlow]) -> Option<Traffic> {
    let mut sum: Option<Traffic> = None;
    for flow in flows {
        // What can't be read is not worth more than a missing number.
        let Ok(Some(read)) = meter.read(flow) else { continue };
        let sum = sum.get_or_insert_default();
        sum.packets_out += read.packets_out;
        sum.bytes_out += read.bytes_out;
        sum.packets_in += read.packets_in;
        sum.bytes_in += read.bytes_in;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alg::{Inside, Outside};

    fn seen(packets_out: u64, packets_in: u64, is_up: bool, rtcp: bool) -> Option<String> {
        let view = StreamView {
            media: 0,
            rtcp,
            transport: Transport::Udp,
            inside: Inside("192.168.1.10:40000".parse().unwrap()),
            public: Outside("22.33.44.55:16384".parse().unwrap()),
            target: None,
            flows: Vec::new(),
        };
        stream(view, Some(Traffic { packets_out, packets_in, ..Traffic::default() }), is_up).trouble
    }

    #[test]
    fn one_way_audio_is_named_with_who_is_not_heard() {
        let deaf = seen(300, 0, true, false).unwrap();
        assert_eq!(deaf, "one-way audio: the phone hears nothing, no packet has come from the far end");
        let mute = seen(0, 300, true, false).unwrap();
        assert_eq!(mute, "one-way audio: the far end hears nothing, no packet has come from the phone");
        assert_eq!(seen(0, 0, true, false).unwrap(), "no media in either direction");
    }

    #[test]
    fn media_is_missed_where_it_is_agreed_upon_and_nobody_has_said_anything_for_a_while() {
        let leg = |phase, held, quiet| LegView { phase, held, quiet, streams: Vec::new() };
        assert!(is_settled(&leg(Phase::Confirmed, false, SETTLED)));
        // Just answered, just resumed, just moved.
        assert!(!is_settled(&leg(Phase::Confirmed, false, SETTLED / 2)));
        assert!(!is_settled(&leg(Phase::Confirmed, true, SETTLED)));
        assert!(!is_settled(&leg(Phase::Ringing, false, SETTLED)));
    }

    #[test]
    fn a_call_that_has_just_begun_or_is_on_hold_is_no_trouble_and_rtcp_never_is() {
        assert_eq!(seen(300, 0, false, false), None);
        assert_eq!(seen(300, 0, true, true), None);
        assert_eq!(seen(49, 0, true, false), None);
        assert_eq!(seen(300, 1, true, false), None);
    }
}
