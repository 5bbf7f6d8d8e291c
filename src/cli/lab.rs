//! `sipalg lab`: runs the lab and shows what became of the calls.
//!
//! One idea: progress goes to stderr, the result to stdout, so that `--json` can be piped. What is shown is a
//! [`Report`]; nothing is judged here.

use std::io::{self, IsTerminal, Write};
use std::mem::discriminant;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table, TableComponent};

use crate::lab::{
    self, CallReport, Direction, LabError, LabOptions, PhoneReport, Pinholes, Program, Progress, Report,
    Stop, Translation,
};

/// Not everything held.
const FAULTS: u8 = 1;
/// Ended by a signal, as shells have it for SIGINT.
const INTERRUPTED: u8 = 130;
/// Faults that are shown for one phone; all of them are in the JSON.
const SHOWN: usize = 3;

/// Try sipalg in a whole network of namespaces: ten phones behind one address, and a provider
///
/// Builds the network, starts sipalg in its router with the default configuration, lets all phones register, call and
/// be called, checks every message and every RTP packet on both sides, shows the result and removes everything.
/// Needs root. Nothing of the machine's own network is used or changed.
#[derive(Args, Clone, Debug, Default)]
pub struct LabArgs {
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Write what crossed the router to DIR: lan.pcap, wan.pcap, and sipalg's log
    #[arg(long, value_name = "DIR")]
    pub pcap: Option<PathBuf>,
    /// Start sipalg with this configuration and not with the defaults
    #[arg(long, value_name = "FILE", conflicts_with = "no_sipalg")]
    pub config: Option<PathBuf>,
    /// Run the same network without sipalg, and see what fails
    #[arg(long)]
    pub no_sipalg: bool,
    /// Let the router route instead of translate: everything must hold without sipalg (a trial of the lab itself)
    #[arg(long, hide = true)]
    pub routed: bool,
}

/// Runs the lab. Exit code 0 if everything held, 1 if not, 130 if interrupted.
///
/// # Errors
/// When the run could not be made: no root, a missing program, sipalg that does not start.
pub fn run(args: &LabArgs) -> anyhow::Result<ExitCode> {
    let stop = Stop::default();
    stop.on_signals().context("cannot listen for signals")?;
    let sipalg = match args.no_sipalg || args.routed {
        true => None,
        false => {
            let config = args.config.as_deref().map(std::path::absolute).transpose()?;
            Some(Program::this_one(config).context("cannot find this program's own file")?)
        }
    };
    let translation = if args.routed { Translation::None } else { Translation::Masquerade };
    let pcap = args.pcap.as_deref().map(std::path::absolute).transpose()?;
    let mut teller = Teller::default();
    let outcome = lab::run(&LabOptions { translation, sipalg, pcap, stop }, |progress| teller.tell(progress));
    teller.finish();
    let report = match outcome {
        Ok(report) => report,
        Err(LabError::Interrupted) => return Ok(ExitCode::from(INTERRUPTED)),
        Err(error) => return Err(error.into()),
    };
    let text = match args.json {
        true => serde_json::to_string_pretty(&report)? + "\n",
        false => render(&report),
    };
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
        _ => (),
    }
    Ok(ExitCode::from(if report.ok { 0 } else { FAULTS }))
}

/// Says on stderr how far it is: one line that changes on a terminal, plain lines elsewhere.
#[derive(Default)]
struct Teller {
    last: Option<Progress>,
}

impl Teller {
    fn tell(&mut self, progress: Progress) {
        let mut stderr = io::stderr();
        // Whether anybody reads this is not the lab's concern.
        let _ = if stderr.is_terminal() {
            write!(stderr, "\r\x1b[2K{progress} …").and_then(|()| stderr.flush())
        } else if self.is_new_step(progress) {
            writeln!(stderr, "{progress}")
        } else {
            Ok(())
        };
        self.last = Some(progress);
    }

    fn finish(&self) {
        let mut stderr = io::stderr();
        if self.last.is_some() && stderr.is_terminal() {
            let _ = write!(stderr, "\r\x1b[2K").and_then(|()| stderr.flush());
        }
    }

    /// Whether it is another step than the last one, or the end of one.
    fn is_new_step(&self, progress: Progress) -> bool {
        let complete = match progress {
            Progress::Registering(done, all)
            | Progress::Calling(done, all)
            | Progress::Talking(done, all) => done == all,
            Progress::Building | Progress::Starting | Progress::Closing => false,
        };
        complete || self.last.is_none_or(|last| discriminant(&last) != discriminant(&progress))
    }
}

/// The result for people. Fits a terminal of 80 columns as long as nothing is wrong.
fn render(report: &Report) -> String {
    let router = match (&report.public_address, report.sipalg) {
        (Some(address), true) => format!("behind {address}, with sipalg in the router"),
        (Some(address), false) => format!("behind {address}, without sipalg"),
        (None, _) => "behind a router that does not translate".to_owned(),
    };
    let (count, packets) = (report.phones.len(), report.packets_expected);
    let mut text = format!(
        "\n{count} phones {router}.\nEach is on port 5060 with RTP on port 40000, and sends and awaits {packets} \
         packets.\n\n{}\n",
        table(report)
    );
    for phone in report.phones.iter().filter(|phone| !phone.ok) {
        text += &format!("\n{}\n{}", phone.address, list(&phone.faults));
    }
    if !report.faults.is_empty() {
        text += &format!("\nthe router\n{}", list(&report.faults));
    }
    text += &format!(
        "\npinholes           {}\nconntrack entries  {}\n",
        counts(report.pinholes),
        counts(report.conntrack)
    );
    for file in &report.captures {
        text += &format!("capture            {}\n", file.display());
    }
    let good = report.phones.iter().filter(|phone| phone.ok).count();
    let verdict = match report.ok {
        true => "Everything held".to_owned(),
        false if good < count => format!("Not everything held: {good} of {count} phones are fine"),
        false => "Not everything held".to_owned(),
    };
    text += &format!("\n{verdict}. {:.1} s\n", report.seconds);
    if !report.ok && report.captures.is_empty() {
        text += "With --pcap DIR the next run keeps what crossed the router, and sipalg's log.\n";
    }
    text
}

fn table(report: &Report) -> Table {
    let public = report.public_address.as_deref().unwrap_or_default();
    let titles = [
        "phone".to_owned(),
        format!("registered\n{public}"),
        "call".to_owned(),
        "rang".to_owned(),
        "answered".to_owned(),
        "RTP\nin".to_owned(),
        "RTP\nout".to_owned(),
        format!("media\n{public}"),
        String::new(),
    ];
    let mut table = Table::new();
    table
        .load_preset(UTF8_HORIZONTAL_ONLY)
        .remove_style(TableComponent::HorizontalLines)
        .remove_style(TableComponent::MiddleIntersections)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(titles.map(|title| Cell::new(title).add_attribute(Attribute::Bold)));
    for phone in &report.phones {
        table.add_row(row(phone, report.packets_expected, public));
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 1));
        column.set_cell_alignment(match index {
            3 | 4 => CellAlignment::Center,
            5 | 6 => CellAlignment::Right,
            _ => CellAlignment::Left,
        });
    }
    table
}

fn row(phone: &PhoneReport, expected: u16, public: &str) -> Vec<Cell> {
    let call = &phone.call;
    let packets = |count: u16| judged(count.to_string(), count == expected);
    vec![
        Cell::new(&phone.address),
        endpoint(phone.registered_as, public),
        Cell::new(describe(call)),
        mark(call.rang),
        mark(call.answered),
        packets(call.packets_in),
        packets(call.packets_out),
        media(call, public),
        match phone.ok {
            true => Cell::new("ok").fg(Color::Green),
            false => Cell::new("fault").fg(Color::Red).add_attribute(Attribute::Bold),
        },
    ]
}

fn describe(call: &CallReport) -> String {
    let last = || call.with.rsplit('.').next().unwrap_or_default();
    match call.direction {
        Direction::Out => "→ outside".to_owned(),
        Direction::In => "← outside".to_owned(),
        Direction::LocalOut => format!("→ .{}", last()),
        Direction::LocalIn => format!("← .{}", last()),
    }
}

/// Media between two phones does not use the public endpoint that was kept for it.
fn media(call: &CallReport, public: &str) -> Cell {
    match call.direct {
        true => Cell::new("in the LAN"),
        false => endpoint(call.public_media, public),
    }
}

fn mark(yes: bool) -> Cell {
    judged(if yes { "✓" } else { "–" }.to_owned(), yes)
}

fn judged(text: String, good: bool) -> Cell {
    let cell = Cell::new(text);
    if good { cell } else { cell.fg(Color::Red) }
}

/// The port alone, if the address is the one above the column. Which other address it is, is told among the faults.
fn endpoint(endpoint: Option<SocketAddr>, public: &str) -> Cell {
    match endpoint {
        Some(endpoint) if endpoint.ip().to_string() == public => Cell::new(format!(":{}", endpoint.port())),
        Some(endpoint) if public.is_empty() => Cell::new(endpoint),
        Some(_) => judged("not public".to_owned(), false),
        None => judged("–".to_owned(), false),
    }
}

fn counts(counts: Pinholes) -> String {
    let count = |count: Option<usize>| count.map_or_else(|| "none to count".to_owned(), |n| n.to_string());
    match counts {
        Pinholes { during: None, after: None } => "none to count".to_owned(),
        Pinholes { during, after } => {
            format!("{} with all calls up, {} after the last one", count(during), count(after))
        }
    }
}

fn list(faults: &[String]) -> String {
    let mut text: String = faults.iter().take(SHOWN).map(|fault| format!("  - {fault}\n")).collect();
    match faults.len().saturating_sub(SHOWN) {
        0 => (),
        more => text += &format!("  - and {more} more (--json has them all)\n"),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(ok: bool) -> Report {
        let call = CallReport {
            direction: Direction::Out,
            with: "+4930123410".into(),
            rang: true,
            answered: true,
            packets_in: if ok { 50 } else { 0 },
            packets_out: 50,
            reports_in: 2,
            reports_out: 2,
            public_media: Some("22.33.44.55:16384".parse().unwrap()),
            direct: false,
            ended: true,
        };
        let faults: Vec<String> = if ok { vec![] } else { (1..=5).map(|n| format!("fault {n}")).collect() };
        let phone = PhoneReport {
            address: "192.168.1.10".into(),
            registered_as: Some("22.33.44.55:17375".parse().unwrap()),
            call,
            ok,
            faults,
        };
        Report {
            ok,
            sipalg: true,
            public_address: Some("22.33.44.55".into()),
            phones: vec![phone],
            pinholes: Pinholes { during: Some(20), after: Some(0) },
            conntrack: Pinholes { during: Some(31), after: Some(29) },
            packets_expected: 50,
            faults: vec![],
            captures: vec![],
            seconds: 4.25,
        }
    }

    #[test]
    fn a_good_run_shows_all_that_a_person_asks_for() {
        let text = render(&report(true));
        for part in [
            "1 phones behind 22.33.44.55, with sipalg in the router.",
            "phone         registered   call       rang  answered  RTP  RTP  media",
            "              22.33.44.55                              in  out  22.33.44.55",
            "192.168.1.10  :17375       → outside    ✓       ✓      50   50  :16384       ok",
            "pinholes           20 with all calls up, 0 after the last one",
            "conntrack entries  31 with all calls up, 29 after the last one",
            "Everything held. 4.2 s",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn faults_are_told_in_words_and_not_without_end() {
        let text = render(&report(false));
        for part in [
            "→ outside    ✓       ✓       0   50  :16384       fault",
            "192.168.1.10\n  - fault 1\n  - fault 2\n  - fault 3\n  - and 2 more",
            "0 of 1",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn plain_progress_says_each_step_and_its_end() {
        let mut teller = Teller::default();
        let mut said = Vec::new();
        let steps = [(0, 2), (1, 2), (2, 2)].map(|(done, all)| Progress::Registering(done, all));
        for progress in [Progress::Building].into_iter().chain(steps).chain([Progress::Closing]) {
            if teller.is_new_step(progress) {
                said.push(progress);
            }
            teller.last = Some(progress);
        }
        assert_eq!(
            said,
            [Progress::Building, Progress::Registering(0, 2), Progress::Registering(2, 2), Progress::Closing]
        );
    }
}
