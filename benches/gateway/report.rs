//! What was measured, as a table and as JSON.

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::gateways::Gateway;

/// Minimum, median and maximum of the rounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Spread {
    minimum: f64,
    median: f64,
    maximum: f64,
}

impl Spread {
    fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let upper = *values.get(middle)?;
        let lower = if values.len().is_multiple_of(2) { *values.get(middle.checked_sub(1)?)? } else { upper };
        Some(Self { minimum: *values.first()?, median: (lower + upper) / 2.0, maximum: *values.last()? })
    }
}

/// One gateway in one round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measurement {
    /// Good messages in a second.
    pub(crate) rate: f64,
    /// Messages sent in a second.
    pub(crate) offered: f64,
    /// Processor time of its process for each message, in microseconds.
    pub(crate) cpu: Option<f64>,
    /// Messages that arrived as they should not.
    pub(crate) spoilt: u64,
    /// Different public media endpoints for each message that arrived; 1: every call has its own.
    pub(crate) endpoints: Option<f64>,
}

/// All that was measured.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) kernel: String,
    pub(crate) processors: usize,
    pub(crate) message_bytes: usize,
    pub(crate) scenarios: Vec<Scenario>,
    pub(crate) missing: Vec<Missing>,
}

/// A gateway that could not be measured.
#[derive(Serialize)]
pub(crate) struct Missing {
    pub(crate) gateway: &'static str,
    pub(crate) why: String,
}

/// One kind of traffic.
#[derive(Serialize)]
pub(crate) struct Scenario {
    name: &'static str,
    rounds: usize,
    gateways: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    gateway: &'static str,
    messages_per_second: Spread,
    offered_per_second: Spread,
    ratios: Vec<Ratio>,
    cpu_microseconds: Option<Spread>,
    spoilt: Option<u64>,
    pinholes_per_message: Option<Spread>,
}

/// Ratio to a rival in the same round.
#[derive(Serialize)]
struct Ratio {
    to: &'static str,
    #[serde(flatten)]
    spread: Spread,
}

/// Those that others are compared with.
const RIVALS: [Gateway; 3] = [Gateway::Plain, Gateway::AcceptAll, Gateway::Helper];

impl Scenario {
    /// Sums up `rounds`: for each round its measurements, by gateway.
    pub(crate) fn new(name: &'static str, rounds: &[Vec<(Gateway, Measurement)>]) -> Self {
        let of = |round: &[(Gateway, Measurement)], gateway| {
            round.iter().find(|(it, _)| *it == gateway).map(|(_, measurement)| *measurement)
        };
        let line = |gateway: Gateway| {
            let all = || rounds.iter().filter_map(|round| of(round, gateway));
            let ratios = RIVALS.iter().filter(|rival| **rival != gateway).filter_map(|&rival| {
                let pairs = rounds.iter().filter_map(|round| Some((of(round, gateway)?, of(round, rival)?)));
                Spread::of(pairs.map(|(it, other)| it.rate / other.rate))
                    .map(|spread| Ratio { to: rival.name(), spread })
            });
            let translates = gateway.expected() == super::judge::Expected::Translated;
            Some(Line {
                gateway: gateway.name(),
                messages_per_second: Spread::of(all().map(|it| it.rate))?,
                offered_per_second: Spread::of(all().map(|it| it.offered))?,
                ratios: ratios.collect(),
                cpu_microseconds: Spread::of(all().filter_map(|it| it.cpu)),
                spoilt: translates.then(|| all().map(|it| it.spoilt).sum()),
                pinholes_per_message: Spread::of(all().filter_map(|it| it.endpoints)),
            })
        };
        Self { name, rounds: rounds.len(), gateways: Gateway::ALL.into_iter().filter_map(line).collect() }
    }
}

impl Report {
    /// The tables.
    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "INVITE with SDP, {} bytes; Linux {}, {} processors\n\
             minimum / median / maximum of the rounds; ratios compare within a round\n\
             spoilt: arrived, but not translated; pinholes: different media endpoints for each message\n",
            self.message_bytes, self.kernel, self.processors
        );
        for scenario in &self.scenarios {
            text += &format!("\n{}, {} rounds\n{}\n", scenario.name, scenario.rounds, scenario.table());
        }
        for missing in &self.missing {
            text += &format!("\nnot measured: {}: {}\n", missing.gateway, missing.why);
        }
        text
    }
}

impl Scenario {
    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED);
        let fixed = ["", "thousand/s", "offered"].map(String::from);
        let rivals = ["of plain", "of accept-all", "of helper"].map(String::from);
        let rest = ["CPU µs", "spoilt", "pinholes"].map(String::from);
        table.set_header(fixed.into_iter().chain(rivals).chain(rest));
        for line in &self.gateways {
            let ratio = |rival: Gateway| line.ratios.iter().find(|ratio| ratio.to == rival.name());
            let mut row = vec![line.gateway.to_string(), spread(Some(line.messages_per_second), 1000.0, 1)];
            row.push(format!("{:.0}", line.offered_per_second.median / 1000.0));
            row.extend(RIVALS.map(|rival| spread(ratio(rival).map(|ratio| ratio.spread), 1.0, 2)));
            row.push(spread(line.cpu_microseconds, 1.0, 1));
            row.push(line.spoilt.map_or_else(String::new, |count| count.to_string()));
            row.push(line.pinholes_per_message.map_or_else(String::new, |it| format!("{:.3}", it.median)));
            table.add_row(row);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

fn spread(spread: Option<Spread>, unit: f64, digits: usize) -> String {
    spread.map_or_else(String::new, |it| {
        let [a, b, c] = [it.minimum, it.median, it.maximum].map(|value| value / unit);
        format!("{a:.digits$} {b:.digits$} {c:.digits$}")
    })
}
