//! `sipalg status --metrics`: the same numbers for Prometheus.
//!
//! In the text format of OpenMetrics, for the textfile collector of node_exporter or whoever else reads it. Nothing listens
//! on a port for this, and nothing is counted for it: the gateway's own counters are shown under names that stay. The type
//! `info` is not used, for older readers refuse types that they do not know.

use std::fmt;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::control::protocol::Status;

/// A name and a value.
type Label = [(&'static str, String); 1];

/// Everything that `status` tells in numbers.
///
/// # Errors
/// None: a string takes it all.
pub(super) fn text(status: &Status) -> Result<String, fmt::Error> {
    let Status { version, pid: _, uptime, tables, counters, state } = status;
    let mut registry = Registry::with_prefix("sipalg");
    let of_all = |registry: &mut Registry, name: &str, help: &str| {
        let gauges = Family::<Label, Gauge>::default();
        registry.register(name, help, gauges.clone());
        gauges
    };
    let alone = |registry: &mut Registry, name: &str, help: &str, value: u64| {
        let gauge: Gauge = Gauge::default();
        gauge.set(signed(value));
        registry.register(name, help, gauge);
    };
    let info = of_all(&mut registry, "info", "Which sipalg it is; always 1");
    info.get_or_create(&[("version", version.clone())]).set(1);
    alone(&mut registry, "uptime_seconds", "Since when it runs", *uptime);

    let entries = of_all(&mut registry, "table_entries", "Entries of each table");
    let limits = of_all(&mut registry, "table_limit", "How many entries each table may have");
    for table in tables {
        let label = [("table", table.name.clone())];
        entries.get_or_create(&label).set(signed(table.entries as u64));
        if table.limit > 0 {
            limits.get_or_create(&label).set(signed(table.limit as u64));
        }
    }
    let packets = Family::<Label, Counter>::default();
    let help = "Packets by the reason of their verdict, and what else is counted, since the start";
    registry.register("packets", help, packets.clone());
    for counter in counters {
        packets.get_or_create(&[("counter", counter.name.clone())]).inc_by(counter.count);
    }
    if let Some(state) = state {
        let failed = u64::from(state.error.is_some());
        alone(&mut registry, "state_file_failed", "Whether it could not be written the last time", failed);
        if let Some(age) = state.age {
            alone(&mut registry, "state_file_age_seconds", "How long ago the state file was written", age);
        }
    }
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{Count, Fill, StateFile};

    #[test]
    fn every_number_has_a_name_and_a_type() {
        let fill = |name: &str, entries, limit| Fill { name: name.to_owned(), entries, limit };
        let count = |name: &str, count| Count { name: name.to_owned(), count };
        let mut status = Status {
            version: "1.2.3".to_owned(),
            pid: 7,
            uptime: 90,
            tables: vec![fill("calls", 3, 20_000), fill("parked", 0, 0)],
            counters: vec![count("rewritten", 1 << 40), count("not-sip", 2)],
            state: Some(StateFile { path: "state".to_owned(), age: Some(4), error: Some("full".to_owned()) }),
        };
        let expected = [
            "# EOF",
            "# HELP sipalg_info Which sipalg it is; always 1.",
            "# HELP sipalg_packets Packets by the reason of their verdict, and what else is counted, since the start.",
            "# HELP sipalg_state_file_age_seconds How long ago the state file was written.",
            "# HELP sipalg_state_file_failed Whether it could not be written the last time.",
            "# HELP sipalg_table_entries Entries of each table.",
            "# HELP sipalg_table_limit How many entries each table may have.",
            "# HELP sipalg_uptime_seconds Since when it runs.",
            "# TYPE sipalg_info gauge",
            "# TYPE sipalg_packets counter",
            "# TYPE sipalg_state_file_age_seconds gauge",
            "# TYPE sipalg_state_file_failed gauge",
            "# TYPE sipalg_table_entries gauge",
            "# TYPE sipalg_table_limit gauge",
            "# TYPE sipalg_uptime_seconds gauge",
            "sipalg_info{version=\"1.2.3\"} 1",
            "sipalg_packets_total{counter=\"not-sip\"} 2",
            "sipalg_packets_total{counter=\"rewritten\"} 1099511627776",
            "sipalg_state_file_age_seconds 4",
            "sipalg_state_file_failed 1",
            "sipalg_table_entries{table=\"calls\"} 3",
            "sipalg_table_entries{table=\"parked\"} 0",
            "sipalg_table_limit{table=\"calls\"} 20000",
            "sipalg_uptime_seconds 90",
        ];
        let shown = text(&status).unwrap();
        let mut lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.last(), Some(&"# EOF"));
        // Within a family they come in any order.
        lines.sort_unstable();
        assert_eq!(lines, expected);
        status.state = None;
        assert!(!text(&status).unwrap().contains("state_file"));
    }
}
