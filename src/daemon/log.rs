//! The engine's events as lines of the log.
//!
//! One line for each registration and each call at info; pinholes and flows at debug; what failed or was refused as a
//! warning, at most once for each cause and minute, with a count of what was left out. Values from messages are fields,
//! never parts of the text, so that the log's own escaping applies to them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use crate::alg::{Event, Failure};

/// A cause that was reported is silent for so long.
const SILENCE: Duration = Duration::from_secs(60);
/// Causes remembered; far more than there are.
const CAUSES: usize = 256;

/// Writes events to the log, and holds back repeated warnings.
#[derive(Debug, Default)]
pub struct EventLog {
    reported: HashMap<Cause, Reported>,
}

/// What a warning is about; two with the same cause are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Cause {
    Command(&'static str, Failure),
    Refused(&'static str, &'static str),
    Other(&'static str),
}

#[derive(Clone, Copy, Debug)]
struct Reported {
    at: Instant,
    since: u64,
}

impl EventLog {
    /// Writes one event.
    pub fn event(&mut self, now: Instant, event: &Event) {
        match event {
            Event::FlowLearned { inside, far, public: Some(public) } => {
                debug!(%inside, %far, %public, "signalling flow learned");
            }
            Event::FlowLearned { inside, far, public: None } => {
                debug!(%inside, %far, "signalling flow is not NATed")
            }
            Event::Registered { who, inside, registrar, public, lifetime } => {
                info!(who, %inside, %registrar, %public, seconds = lifetime.as_secs(), "registered");
            }
            Event::Upstream { inside, far, sent, seen, what: "nat" } => warn!(
                %inside, server = %far, %sent, seen,
                remedy = "if calls have no sound, set nat.advertise to the outermost address",
                "there is another NAT between here and the server"
            ),
            Event::Upstream { inside, far, sent, seen, .. } => warn!(
                %inside, server = %far, %sent, seen,
                remedy = "switch the SIP ALG of the other router off",
                "another gateway changes SIP messages between here and the server"
            ),
            Event::AddressGone { address, flows, calls } => {
                warn!(%address, flows, calls, "a public address is gone");
            }
            Event::Unregistered { who, inside, why } => info!(who, %inside, why, "no longer registered"),
            Event::CallAnswered { from, to, call_id, inside, media: Some(media) } => {
                info!(from, to, call_id, %inside, %media, "call answered");
            }
            Event::CallAnswered { from, to, call_id, inside, media: None } => {
                info!(from, to, call_id, %inside, "call answered");
            }
            Event::CallEnded { from, to, call_id, inside, duration: Some(duration), why } => {
                info!(from, to, call_id, %inside, seconds = duration.as_secs(), why, "call ended");
            }
            Event::CallEnded { from, to, call_id, inside, duration: None, why } => {
                info!(from, to, call_id, %inside, why, "call was not answered");
            }
            Event::Opened { pinhole, call_id } => {
                let transport = pinhole.transport.name();
                debug!(transport, inside = %pinhole.inside, public = %pinhole.public, uplink = pinhole.uplink, call_id, "pinhole opened");
            }
            Event::Closed { pinhole } => {
                let transport = pinhole.transport.name();
                debug!(transport, inside = %pinhole.inside, public = %pinhole.public, uplink = pinhole.uplink, "pinhole closed");
            }
            Event::Latched { far, public } => debug!(%far, %public, "media let in from another port"),
            Event::CommandFailed { what, failure } => {
                if let Some(left_out) = self.may_report(now, Cause::Command(what, *failure)) {
                    warn!(what, %failure, left_out, "a kernel command failed");
                }
            }
            Event::Refused { rule, inside, why } => {
                if let Some(left_out) = self.may_report(now, Cause::Refused(rule, why)) {
                    warn!(rule, %inside, why, left_out, "refused");
                }
            }
        }
    }

    /// Writes a warning of the data path itself: `what` is always the same for the same cause.
    pub fn warning(&mut self, now: Instant, what: &'static str, detail: &dyn std::fmt::Display) {
        if let Some(left_out) = self.may_report(now, Cause::Other(what)) {
            warn!(%detail, left_out, "{what}");
        }
    }

    /// If this cause may be reported: how many times it was not, since the last time.
    fn may_report(&mut self, now: Instant, cause: Cause) -> Option<u64> {
        if let Some(reported) = self.reported.get_mut(&cause) {
            if now.saturating_duration_since(reported.at) < SILENCE {
                reported.since += 1;
                return None;
            }
            let left_out = reported.since;
            *reported = Reported { at: now, since: 0 };
            return Some(left_out);
        }
        if self.reported.len() >= CAUSES {
            self.reported.clear();
        }
        self.reported.insert(cause, Reported { at: now, since: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alg::{Inside, Outside};
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(write: impl FnOnce()) -> Vec<String> {
        let lines = Lines::default();
        let sink = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || sink.clone())
            .with_max_level(tracing::Level::DEBUG)
            .without_time()
            .with_target(false)
            .with_ansi(false)
            .finish();
        tracing::subscriber::with_default(subscriber, write);
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| line.trim().to_owned()).collect()
    }

    fn refused(why: &'static str) -> Event {
        Event::Refused { rule: "S9", inside: "192.168.1.10:5060".parse().unwrap(), why }
    }

    #[test]
    fn a_registration_is_one_line_whatever_the_phone_calls_itself() {
        let event = Event::Registered {
            who: "sip:bob@example.com\nERROR forged".into(),
            inside: Inside("192.168.1.10:5060".parse().unwrap()),
            registrar: "22.33.44.20:5060".parse().unwrap(),
            public: Outside("22.33.44.55:17375".parse().unwrap()),
            lifetime: Duration::from_secs(300),
        };
        assert_eq!(
            logged(|| EventLog::default().event(Instant::now(), &event)),
            ["INFO registered who=\"sip:bob@example.com\\nERROR forged\" inside=192.168.1.10:5060 \
              registrar=22.33.44.20:5060 public=22.33.44.55:17375 seconds=300"]
        );
    }

    #[test]
    fn a_cause_is_reported_once_a_minute_with_a_count() {
        let now = Instant::now();
        let lines = logged(|| {
            let mut log = EventLog::default();
            for second in [0, 1, 59, 60, 61] {
                log.event(now + Duration::from_secs(second), &refused("a service port"));
            }
            log.event(now, &refused("another reason"));
            let failed = Event::CommandFailed { what: "pin", failure: Failure::Full };
            log.event(now, &failed);
            log.event(now, &failed);
            log.warning(now, "cannot read packets", &"gone");
            log.warning(now, "cannot read packets", &"gone again");
        });
        assert_eq!(
            lines,
            [
                "WARN refused rule=\"S9\" inside=192.168.1.10:5060 why=\"a service port\" left_out=0",
                "WARN refused rule=\"S9\" inside=192.168.1.10:5060 why=\"a service port\" left_out=2",
                "WARN refused rule=\"S9\" inside=192.168.1.10:5060 why=\"another reason\" left_out=0",
                "WARN a kernel command failed what=\"pin\" failure=a kernel table is full left_out=0",
                "WARN cannot read packets detail=gone left_out=0",
            ]
        );
    }

    #[test]
    fn memory_of_causes_is_bounded() {
        let (mut log, now) = (EventLog::default(), Instant::now());
        for code in 0..10_000 {
            let failure = Failure::Kernel(code);
            tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::default(), || {
                log.event(now, &Event::CommandFailed { what: "open", failure });
            });
        }
        assert!(log.reported.len() <= CAUSES);
    }
}
