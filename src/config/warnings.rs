//! Settings that are legal, but that somebody should look at once.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use super::{Config, Overload, User};
use crate::alg::{MediaSource, OnFailure};

impl Config {
    /// Sentences about what is legal but strange; empty for the defaults. `file` is where the settings came from:
    /// its permissions are looked at.
    pub fn check(&self, file: Option<&Path>) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut warn = |sentence: String| warnings.push(sentence);
        let policy = &self.policy;

        if let Some(file) = file
            && let Ok(meta) = fs::metadata(file)
            && meta.permissions().mode() & 0o022 != 0
        {
            let mode = meta.permissions().mode() & 0o777;
            warn(format!(
                "{} can be written by others than its owner (mode {mode:o}): chmod go-w",
                file.display()
            ));
        }
        // Root can read it, and so would `sipalg check`; the service could not.
        if let Some(file) = file
            && let Ok(meta) = fs::metadata(file)
            && self.user != User::None
            && meta.permissions().mode() & 0o004 == 0
            && (meta.uid(), meta.gid()) == (0, 0)
        {
            let mode = meta.permissions().mode() & 0o777;
            warn(format!(
                "{} can be read by root only (mode {mode:o}), and the service runs as the user sipalg: chgrp sipalg and \
                 chmod 640",
                file.display()
            ));
        }
        if self.sip_ports.iter().any(|ports| ports.contains(&5061)) {
            warn(
                "sip.ports contains 5061, which is SIP over TLS: it can't be read and passes untouched"
                    .to_owned(),
            );
        }
        if self.sip_ports.iter().any(|ports| *ports.start() < 1024) {
            warn("sip.ports contains a port below 1024: those packets are another service's".to_owned());
        }
        if self.sip_ports.iter().map(|ports| ports.len()).sum::<usize>() > 1024 {
            warn(
                "sip.ports has more than 1,024 ports: every packet to them costs a trip through the queue"
                    .to_owned(),
            );
        }
        if self.tcp_ports.iter().any(|ports| ports.contains(&5061)) {
            warn(
                "sip.tcp-ports contains 5061, which is SIP over TLS: it can't be read and passes untouched"
                    .to_owned(),
            );
        }
        if self.tcp_ports.iter().any(|ports| *ports.start() < 1024) {
            warn(
                "sip.tcp-ports contains a port below 1024: those connections are another service's"
                    .to_owned(),
            );
        }
        if policy.tcp_patience < Duration::from_secs(13) {
            warn(
                "sip.tcp-patience is below 13s: a connection on which the same segment is lost again and again is let go \
                 before its sender comes through"
                    .to_owned(),
            );
        }
        if policy.ports.len() < 100 {
            let calls = policy.ports.len() / 4;
            warn(format!(
                "media.ports has {} ports: enough for about {calls} audio and video calls",
                policy.ports.len()
            ));
        }
        if let Some((first, last)) = local_port_range()
            && *policy.ports.start() <= last
            && first <= *policy.ports.end()
        {
            warn(format!(
                "media.ports overlaps net.ipv4.ip_local_port_range ({first}-{last}): the router's own sockets and \
                 masquerade may take ports that calls want"
            ));
        }
        if policy.quarantine < Duration::from_secs(64) {
            warn(
                "media.quarantine is below 64s: late media of one call may silence the next on the same port"
                    .to_owned(),
            );
        }
        if policy.half_open < Duration::from_secs(32) {
            warn(
                "media.half-open is below 32s: a phone that rings late gets no media before its user answers"
                    .to_owned(),
            );
        }
        if policy.media_inactivity < Duration::from_secs(120) {
            warn(
                "media.inactivity is below 2m: a call in which both sides are silent for so long is cut"
                    .to_owned(),
            );
        }
        match policy.media_source {
            MediaSource::Negotiated => {}
            MediaSource::Any => {
                warn(
                    "media.source is \"any\": while a call is up, everybody can send to its public ports"
                        .to_owned(),
                );
            }
        }
        if policy.inside_hosts.iter().any(|block| block.bits == 0) {
            warn(
                "media.inside-hosts contains every address: any phone may open ports for any host".to_owned(),
            );
        }
        if policy.servers.iter().any(|block| block.bits == 0) {
            warn("sip.servers contains every address: it allows what an empty list allows".to_owned());
        }
        if !policy.denied_ports.iter().any(|ports| ports.contains(&5060)) {
            warn("media.denied-ports does not contain 5060: a crafted message may open a phone's signalling port".to_owned());
        }
        match policy.on_failure {
            OnFailure::Pass => {}
            OnFailure::Drop => {
                warn(
                    "on-failure is \"drop\": while the kernel refuses our commands, no call is set up at all"
                        .to_owned(),
                );
            }
        }
        let limits = &policy.limits;
        for (table, all, key, share) in [
            ("flows", limits.flows, "per-host", limits.per_host),
            ("connections", limits.connections, "per-host", limits.per_host),
            ("calls", limits.calls, "per-host", limits.per_host),
            ("registrations", limits.registrations, "per-host", limits.per_host),
            ("transactions", limits.transactions, "transactions-per-host", limits.transactions_per_host),
            ("bindings", limits.bindings, "bindings-per-host", limits.bindings_per_host),
            ("tcp-bytes", limits.tcp_bytes, "tcp-bytes-per-host", limits.tcp_bytes_per_host),
            ("tcp-held", limits.tcp_held, "tcp-held-per-host", limits.tcp_held_per_host),
        ] {
            if share >= all {
                warn(format!("limits.{key} lets one inside host have all that limits.{table} allows"));
            }
        }
        if limits.tcp_held >= self.queue.max_length as usize {
            warn(
                "limits.tcp-held is not below queue.max-length: segments that wait for the rest of their message can \
                 fill the queue, and then all others are dropped"
                    .to_owned(),
            );
        }
        if self.queue.base == 0 {
            warn("queue.base is 0, where most other programs with a queue start too".to_owned());
        }
        match self.queue.overload {
            Overload::Drop => {}
            Overload::Pass => warn(
                "queue.overload is \"pass\": under overload the provider gets messages with private addresses".to_owned(),
            ),
        }
        if self.log.level.contains("trace") || self.log.level.contains("debug") {
            warn("log.level shows phone numbers and addresses of single messages".to_owned());
        }
        warnings
    }
}

/// The router's own ports for outgoing connections, where the kernel tells.
fn local_port_range() -> Option<(u16, u16)> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut ports = text.split_whitespace().map(str::parse);
    Some((ports.next()?.ok()?, ports.next()?.ok()?))
}
