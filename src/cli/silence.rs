//! Media that stops in the middle of a call.
//!
//! conntrack counts from the beginning of a flow, so one look tells of who was never heard, and only two looks of who is
//! heard no more. That is for `sipalg calls --watch`, which looks again and again. It can't tell a broken way from a
//! microphone that is off, for phones that say nothing then.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::ask;
use crate::control::protocol::{Call, Table, Traffic};

/// So long nothing comes from somebody before it is worth a word.
const MISSED: Duration = Duration::from_secs(10);
/// Somebody whose packets were last seen so long ago is still sending: several looks.
const FRESH: Duration = Duration::from_secs(6);

/// What was counted for each stream when it last changed.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// By Call-ID and public endpoint.
    streams: HashMap<(String, String), [Side; 2]>,
}

/// One direction.
#[derive(Clone, Copy, Debug)]
struct Side {
    packets: u64,
    since: Instant,
}

impl Silence {
    /// Looks at `calls`, and writes into them who has fallen silent since.
    pub(super) fn note(&mut self, now: Instant, calls: &mut Table<Call>) {
        let mut before = std::mem::take(&mut self.streams);
        for call in &mut calls.entries {
            for dialog in call.dialogs.iter_mut().filter(|it| it.state == "up" && !it.held) {
                for stream in dialog.streams.iter_mut().filter(|it| it.kind == "rtp") {
                    let Some(Traffic { packets_out, packets_in, .. }) = stream.traffic else { continue };
                    let key = (call.call_id.clone(), stream.public.clone());
                    let old = before.remove(&key);
                    let side = |index: usize, packets| match old.and_then(|old| old.get(index).copied()) {
                        Some(old) if old.packets == packets => old,
                        _ => Side { packets, since: now },
                    };
                    let sides @ [out, back] = [side(0, packets_out), side(1, packets_in)];
                    self.streams.insert(key, sides);
                    if stream.trouble.is_none() {
                        stream.trouble = in_words(now, out, back);
                    }
                }
            }
        }
    }
}

fn in_words(now: Instant, out: Side, back: Side) -> Option<String> {
    let [out, back] = [out, back].map(|side| now.saturating_duration_since(side.since));
    let (who, whom, silence) = if out < FRESH && back >= MISSED {
        ("far end", "phone", back)
    } else if back < FRESH && out >= MISSED {
        ("phone", "far end", out)
    } else {
        return None;
    };
    let long = ask::span(silence.as_secs());
    Some(format!("one-way audio: the {whom} has heard nothing for {long}, or the {who} is muted"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{Dialog, Stream};

    /// The troubles of a stream that is looked at every two seconds with these counts.
    fn watch(counts: &[(u64, u64, bool)]) -> Vec<Option<String>> {
        let (mut silence, start) = (Silence::default(), Instant::now());
        let look = |(at, (packets_out, packets_in, held)): (u64, &(u64, u64, bool))| {
            let stream = Stream {
                media: 0,
                kind: "rtp".into(),
                inside: "192.168.1.10:40000".into(),
                public: "22.33.44.55:16384".into(),
                far: None,
                way: None,
                traffic: Some(Traffic {
                    packets_out: *packets_out,
                    packets_in: *packets_in,
                    ..Traffic::default()
                }),
                trouble: None,
            };
            let call = Call {
                call_id: "c".into(),
                from: String::new(),
                to: String::new(),
                inside: String::new(),
                server: String::new(),
                seconds: Some(at),
                dialogs: vec![Dialog { state: "up".into(), held: *held, streams: vec![stream] }],
            };
            let mut calls = Table { total: 1, entries: vec![call] };
            silence.note(start + Duration::from_secs(2 * at), &mut calls);
            calls.entries[0].dialogs[0].streams[0].trouble.clone()
        };
        (0..).zip(counts).map(look).collect()
    }

    #[test]
    fn who_falls_silent_in_mid_call_is_named_after_ten_seconds() {
        let seen = watch(&(0..7).map(|n| (100 * n, 500, false)).collect::<Vec<_>>());
        assert_eq!(seen[..5], [const { None }; 5]);
        let words = "one-way audio: the phone has heard nothing for 10s, or the far end is muted";
        assert_eq!(seen[5].as_deref(), Some(words));
        let mute = watch(&(0..6).map(|n| (500, 100 * n, false)).collect::<Vec<_>>());
        let words = "one-way audio: the far end has heard nothing for 10s, or the phone is muted";
        assert_eq!(mute[5].as_deref(), Some(words));
    }

    #[test]
    fn hold_and_silence_on_both_sides_are_no_trouble() {
        assert_eq!(watch(&[(1, 1, false); 20]), [const { None }; 20]);
        let mut counts: Vec<_> = (0..10).map(|n| (100 * n, 500, true)).collect();
        counts.extend((10..14).map(|n| (100 * n, 500, false)));
        assert_eq!(watch(&counts), [const { None }; 14], "it counts from the resumption");
    }
}
