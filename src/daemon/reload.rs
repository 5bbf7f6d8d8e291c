//! A new configuration while calls are up: all of it, or nothing.
//!
//! What can fail comes first and changes nothing (reading the file, what needs a restart, the ruleset); what follows
//! can't fail. The packet thread does its part between two batches.

use std::io;
use std::path::Path;

use super::Router;
use crate::alg::{Engine, Policy};
use crate::config::{self, Config, keys};
use crate::control::protocol::Refusal;
use crate::kernel::KernelError;
use crate::kernel::ruleset::{self, Installed, Origin, RulesetSettings};

/// Keys, and sections with a point behind them, whose values are in use from the start to the end.
const FIXED: [&str; 7] =
    ["media.admission", "media.offload", "queue.", "log.target", "state-file", "user", "control.socket"];

/// The file as it is now.
///
/// # Errors
/// What to tell who asked.
pub(super) fn read(file: Option<&Path>) -> Result<Config, Refusal> {
    Config::load(file).map_err(|error| refusal(&error))
}

fn refusal(error: &config::Error) -> Refusal {
    let remedy = match error {
        config::Error::Unreadable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            UNREADABLE
        }
        _ => "",
    };
    Refusal { error: error.to_string(), remedy: remedy.to_owned() }
}

/// A running gateway sees the file as its own user, and only in the directory where it was at the start
/// (`privileges::files`).
const UNREADABLE: &str = "the user that sipalg runs as must be able to read it; if its directory, or where it links to, is \
    newer than sipalg's start: systemctl restart sipalg, and no call hears it";

/// The keys that differ, if all of them can be changed now.
///
/// # Errors
/// What to tell who asked.
pub(super) fn changes(old: &Config, new: &Config) -> Result<Vec<String>, Refusal> {
    let changed = keys::changed(&old.raw, &new.raw);
    let is_fixed = |key: &&String| FIXED.iter().any(|fixed| key.starts_with(fixed));
    let fixed: Vec<&str> = changed.iter().filter(is_fixed).map(String::as_str).collect();
    if fixed.is_empty() {
        return Ok(changed);
    }
    Err(Refusal {
        error: format!("{} can't change while sipalg runs; nothing was changed", fixed.join(", ")),
        remedy: "systemctl restart sipalg takes the whole file over, and no call hears it".to_owned(),
    })
}

/// The packet thread's part: the ruleset if its ports have changed, then the engine's settings. Answers what the
/// administrator should know about it.
///
/// # Errors
/// The ruleset was refused; nothing was changed.
pub(super) fn take_over(
    engine: &mut Engine,
    router: &mut Router,
    ruleset: RulesetSettings,
    policy: Policy,
) -> Result<Vec<String>, KernelError> {
    // What the kernel and the queue can do was found at the start.
    let RulesetSettings { expect, one_trip, .. } = *router.ruleset();
    let ruleset = RulesetSettings { expect, one_trip, ..ruleset };
    let mut notes = Vec::new();
    if ruleset != *router.ruleset() {
        let installed = ruleset::install(&ruleset)?;
        notes = other_ports(&installed, &ruleset);
        let mut left = router.ruleset().ports.clone();
        left.retain(|port| !installed.ports.contains(port));
        notes.extend(unheard(&left, engine.count_calls_by(&left)));
        router.set_ruleset(ruleset);
    }
    engine.set_policy(policy);
    Ok(notes)
}

/// Whoever takes a port off the list does not mean the calls that are up, but nobody hears of their end any more.
fn unheard(left: &[u16], calls: usize) -> Option<String> {
    let (goes, whose) = if calls == 1 { ("call goes", "its") } else { ("calls go", "their") };
    (calls > 0).then(|| {
        format!(
            "{calls} {goes} by sip.ports that are not looked at any more ({}): {whose} messages pass untranslated from now \
             on, and {whose} pinholes close when media.inactivity is over",
            list(left)
        )
    })
}

/// An administrator's ruleset is used as it is, ports included: what is to be said if those differ.
pub(super) fn other_ports(installed: &Installed, wanted: &RulesetSettings) -> Vec<String> {
    if installed.origin != Origin::Administrator {
        return Vec::new();
    }
    [
        ("sip.ports", "SIPALG_UDP_PORTS", &installed.ports, &wanted.ports),
        ("sip.tcp-ports", "SIPALG_TCP_PORTS", &installed.tcp_ports, &wanted.tcp_ports),
    ]
    .into_iter()
    .filter(|(_, _, installed, wanted)| installed != wanted)
    .map(|(key, define, installed, wanted)| {
        format!(
            "the ruleset that you included queues the ports {}, {key} says {}: the ruleset's hold; change {define} in it \
             and load it again",
            list(installed),
            list(wanted)
        )
    })
    .collect()
}

fn list(ports: &[u16]) -> String {
    if ports.is_empty() {
        return "none".to_owned();
    }
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_may_not_be_read_comes_with_a_remedy() {
        let failed = |kind: io::ErrorKind| {
            refusal(&config::Error::Unreadable {
                file: "/etc/sipalg/sipalg.toml".into(),
                source: kind.into(),
            })
        };
        let denied = failed(io::ErrorKind::PermissionDenied);
        assert_eq!(denied.error, "can't read /etc/sipalg/sipalg.toml: permission denied");
        assert!(denied.remedy.contains("systemctl restart sipalg"));
        assert_eq!(failed(io::ErrorKind::NotFound).remedy, "");
    }

    #[test]
    fn who_takes_a_port_away_is_told_whose_end_nobody_hears() {
        assert_eq!(unheard(&[5060], 0), None);
        assert_eq!(
            unheard(&[5060], 1).unwrap(),
            "1 call goes by sip.ports that are not looked at any more (5060): its messages pass untranslated from now on, \
             and its pinholes close when media.inactivity is over"
        );
        assert!(unheard(&[5060, 5062], 12).unwrap().starts_with("12 calls go by sip.ports"));
    }

    #[test]
    fn an_included_ruleset_with_other_ports_is_named_with_the_line_to_change() {
        let wanted = RulesetSettings { ports: vec![5060, 5080], ..RulesetSettings::default() };
        let installed = |origin| Installed {
            origin,
            ports: vec![5060],
            tcp_ports: vec![5060],
            queue: ruleset::QueueForm::Native,
            expects: false,
        };
        assert_eq!(other_ports(&installed(Origin::Daemon), &wanted), [""; 0]);
        assert_eq!(
            other_ports(&installed(Origin::Administrator), &wanted),
            [
                "the ruleset that you included queues the ports 5060, sip.ports says 5060, 5080: the ruleset's hold; change \
              SIPALG_UDP_PORTS in it and load it again"
            ]
        );
    }

    #[test]
    fn what_is_fixed_is_named_and_the_rest_is_not() {
        let config = |text| Config::parse(text).unwrap();
        let old = Config::default();
        let fine = config("on-failure = \"drop\"\n[log]\nlevel = \"warn\"\n[media]\nports = \"20000-20009\"");
        assert_eq!(changes(&old, &fine).unwrap(), ["log.level", "media.ports", "on-failure"]);
        let not =
            config("state-file = \"none\"\n[queue]\nbase = 7\n[log]\ntarget = \"stderr\"\nlevel = \"warn\"");
        let refusal = changes(&old, &not).unwrap_err();
        assert_eq!(
            refusal.error,
            "log.target, queue.base, state-file can't change while sipalg runs; nothing was changed"
        );
        assert!(refusal.remedy.starts_with("systemctl restart sipalg"));
    }
}
