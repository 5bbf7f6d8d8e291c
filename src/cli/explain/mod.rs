//! `sipalg explain`: what sipalg would do with a capture, or with single messages, and why.
//!
//! It runs the very engine that `sipalg run` runs; only the router around it does not exist ([`nat`]). So it needs no
//! root and touches nothing. It can't show what the kernel would refuse, nor what a NAT rule other than masquerade
//! would choose.

mod fragments;
mod json;
mod nat;
mod session;
mod text;
mod wire;
mod words;

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, IsTerminal, Read, Write};
use std::mem;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;

use super::{Exit, Problem};
use crate::alg::{Command, Event, Outcome, Prefix};
use crate::config::Config;
use crate::config::value::Block;
use crate::queue::PacketQueue;
use crate::queue::replay::Replay;
use fragments::{Fragments, Part};
use nat::Nat;
use session::{Fate, Passage, Session};

/// Shows what sipalg does with messages, and why; without root, and without changing anything.
///
/// `sipalg explain capture.pcap` runs a capture through the engine behind a simulated masquerade: private source
/// addresses are inside. Capture on the inside, as in `tcpdump -ni LAN -s0 -w capture.pcap udp`.
///
/// With --inside and --outside the files are raw messages instead, one datagram each, and go through one engine in the
/// order given: `sipalg explain --inside 192.168.1.10:5060 --outside 22.33.44.55:17375 out:register in:200-ok`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Captures (pcap, pcapng), or raw messages; a raw message may be given as out:FILE or in:FILE.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Raw messages: the phone's endpoint.
    #[arg(long, value_name = "ADDR:PORT", requires = "outside")]
    inside: Option<SocketAddr>,
    /// Raw messages: what the NAT makes of it.
    #[arg(long, value_name = "ADDR:PORT", requires = "inside")]
    outside: Option<SocketAddr>,
    /// Raw messages: which way they go.
    #[arg(long, value_enum, default_value = "out", requires = "inside")]
    direction: Way,
    /// Raw messages: the server's endpoint, from the documentation ranges if not given
    #[arg(long, value_name = "ADDR:PORT", requires = "inside")]
    peer: Option<SocketAddr>,
    /// Captures: the public address of the simulated NAT.
    #[arg(long, value_name = "ADDR", default_value_t = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)))]
    public: IpAddr,
    /// Captures: addresses that the NAT hides; may be repeated [default: the private ranges of RFC 1918 and RFC 4193]
    #[arg(long, value_name = "BLOCK", value_parser = |text: &str| text.parse::<Block>())]
    private: Vec<Block>,
    /// Settings to use [default: the built-in ones]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write what leaves the engine to this directory, under the same names; captures as raw IP.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// One JSON object for each message.
    #[arg(long)]
    json: bool,
}

/// Which way a raw message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Way {
    /// From the phone to the server.
    Out,
    /// From the server to the phone.
    In,
}

/// Does what the arguments ask, and writes to `out`.
///
/// # Errors
/// Files that can't be read or written, or that are not what they should be.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<Exit, Problem> {
    let config = match &args.config {
        Some(file) => Config::load(Some(file))?,
        None => Config::default(),
    };
    if let Some(dir) = &args.output {
        fs::create_dir_all(dir).map_err(|error| unusable(dir, &error))?;
    }
    let mut show = Show::new(args.json, out);
    match (args.inside, args.outside) {
        (Some(inside), Some(outside)) => raw(args, &config, inside, outside, &mut show)?,
        _ => captures(args, &config, &mut show)?,
    }
    show.end()?;
    Ok(Exit::Good)
}

/// One file, one datagram.
fn raw(
    args: &Args,
    config: &Config,
    inside: SocketAddr,
    outside: SocketAddr,
    show: &mut Show<'_>,
) -> Result<(), Problem> {
    let peer = args.peer.unwrap_or_else(|| {
        let documentation = if inside.is_ipv4() { "198.51.100.1:5060" } else { "[2001:db8::1]:5060" };
        documentation.parse().expect("a literal endpoint")
    });
    if inside.is_ipv4() != outside.is_ipv4() || inside.is_ipv4() != peer.is_ipv4() {
        return Err(Problem::new(Exit::Usage, "--inside, --outside and --peer must all be IPv4 or all IPv6"));
    }
    let mut nat = Nat::new(outside.ip(), Vec::new());
    nat.fix(inside, outside);
    let mut session = Session::new(config.policy.clone(), nat);
    session.know(inside, peer);
    for (number, argument) in args.files.iter().enumerate() {
        let (way, file) = way(argument, args.direction);
        let message = fs::read(file).map_err(|error| unusable(file, &error))?;
        let (source, destination) = match way {
            Way::Out => (inside, peer),
            Way::In => (peer, inside),
        };
        let packet = wire::packet(source, destination, &message).ok_or_else(|| {
            let length = message.len();
            Problem::new(
                Exit::Usage,
                format_args!("{} has {length} bytes, more than a datagram", file.display()),
            )
        })?;
        // As far apart as messages of a call that nobody thinks about.
        let (commands, events) = session.advance(Duration::from_millis(20 * (number as u64 + 1)));
        show.meanwhile(&commands, &events)?;
        let carried = wire::Carried { source, destination, payload: &message };
        let passage = session.pass(&packet, carried);
        show.message(&file.display().to_string(), &passage)?;
        if let Some(path) = output_path(args, file)? {
            fs::write(&path, &passage.after).map_err(|error| unusable(&path, &error))?;
        }
    }
    Ok(())
}

/// Whole captures.
fn captures(args: &Args, config: &Config, show: &mut Show<'_>) -> Result<(), Problem> {
    let private =
        if args.private.is_empty() { private_ranges() } else { args.private.iter().map(|b| b.0).collect() };
    if private.iter().any(|block| block.contains(args.public)) {
        return Err(Problem::new(
            Exit::Usage,
            format_args!("the public address {} is among the private ones", args.public),
        )
        .remedy("Name the public address with --public, and the inside ones with --private."));
    }
    for file in &args.files {
        let output = match output_path(args, file)? {
            Some(path) => Some(BufWriter::new(File::create(&path).map_err(|error| unusable(&path, &error))?)),
            None => None,
        };
        let input = BufReader::new(File::open(file).map_err(|error| unusable(file, &error))?);
        let mut replay =
            Replay::new(input, output).map_err(|error| unusable(file, &error).remedy(RAW_HINT))?;
        let mut session = Session::new(config.policy.clone(), Nat::new(args.public, private.clone()));
        let prefix = if args.files.len() > 1 { file.display().to_string() } else { String::new() };
        capture(config, &mut replay, &mut session, &prefix, show).map_err(|trouble| match trouble {
            Trouble::Capture(error) => unusable(file, &error),
            Trouble::Show(problem) => problem,
        })?;
    }
    Ok(())
}

/// What ended the work on a capture.
enum Trouble {
    Capture(io::Error),
    Show(Problem),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Capture(error)
    }
}

impl From<Problem> for Trouble {
    fn from(problem: Problem) -> Self {
        Self::Show(problem)
    }
}

/// One capture, from its first packet to its last.
fn capture<R: Read, W: Write>(
    config: &Config,
    replay: &mut Replay<R, W>,
    session: &mut Session,
    prefix: &str,
    show: &mut Show<'_>,
) -> Result<(), Trouble> {
    let signalling = |port: u16| config.sip_ports.iter().any(|ports| ports.contains(&port));
    let mut fragments = Fragments::default();
    let mut begin = None;
    while replay.receive()? > 0 {
        let (Some(packet), Some(time)) = (replay.packet(0), replay.time()) else { break };
        let id = packet.id;
        let whole;
        let (bytes, merged) = match fragments.take(packet.bytes, time) {
            Part::Whole => (packet.bytes, false),
            Part::Missing => {
                replay.discard(id);
                continue;
            }
            Part::Complete(packet) => {
                whole = packet;
                (&whole[..], true)
            }
        };
        let ours = |it: &wire::Carried<'_>| signalling(it.source.port()) || signalling(it.destination.port());
        let Some(carried) = wire::carried(bytes).filter(ours) else {
            show.others += 1;
            replay.accept(id);
            continue;
        };
        let elapsed = time.saturating_sub(*begin.get_or_insert(time));
        let (commands, events) = session.advance(elapsed);
        show.meanwhile(&commands, &events)?;
        let passage = session.pass(bytes, carried);
        show.message(&format!("{prefix}#{}", replay.frame_number()), &passage)?;
        let changed = match passage.fate {
            Fate::Drop => {
                replay.discard(id);
                continue;
            }
            Fate::Accept => merged.then(|| bytes.to_vec()),
            Fate::Rewrite => wire::with_payload(bytes, &passage.after),
        };
        match changed {
            Some(changed) => replay.replace(id, &changed).map_err(io::Error::other)?,
            None => replay.accept(id),
        }
    }
    Ok(replay.flush()?)
}

const RAW_HINT: &str = "For raw messages say whose they are: --inside ADDR:PORT --outside ADDR:PORT.";

/// Shows explanations in one of the two forms.
struct Show<'w> {
    form: Form<'w>,
    /// Packets that were not looked at.
    others: usize,
}

enum Form<'w> {
    Text(text::Text<'w>),
    Json(&'w mut dyn Write, json::Before),
}

impl<'w> Show<'w> {
    fn new(json: bool, out: &'w mut dyn Write) -> Self {
        let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let form = if json {
            Form::Json(out, json::Before::default())
        } else {
            Form::Text(text::Text::new(out, colour))
        };
        Self { form, others: 0 }
    }

    fn message(&mut self, name: &str, passage: &Passage) -> Result<(), Problem> {
        match &mut self.form {
            Form::Text(text) => text.message(name, passage)?,
            Form::Json(out, before) => json_line(out, &json::Message::new(name, passage, mem::take(before)))?,
        }
        Ok(())
    }

    fn meanwhile(&mut self, commands: &[(Command, Outcome)], events: &[Event]) -> Result<(), Problem> {
        match &mut self.form {
            Form::Text(text) => text.meanwhile(commands, events)?,
            Form::Json(_, before) => before.add(commands, events),
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Problem> {
        match &mut self.form {
            Form::Text(text) => text.summary(self.others)?,
            Form::Json(..) => {}
        }
        Ok(())
    }
}

fn json_line(out: &mut dyn Write, value: &impl serde::Serialize) -> Result<(), Problem> {
    let line = serde_json::to_string(value).expect("structs of strings and numbers are JSON");
    writeln!(out, "{line}")?;
    Ok(())
}

/// Splits `out:FILE` and `in:FILE`; a file that really has such a name can be given as `./out:FILE`.
fn way(argument: &Path, default: Way) -> (Way, &Path) {
    let bytes = argument.as_os_str().as_bytes();
    for (prefix, way) in [("out:", Way::Out), ("in:", Way::In)] {
        if let Some(rest) = bytes.strip_prefix(prefix.as_bytes()) {
            return (way, Path::new(OsStr::from_bytes(rest)));
        }
    }
    (default, argument)
}

/// Where the result of `file` goes, if results are wanted; never onto `file` itself.
fn output_path(args: &Args, file: &Path) -> Result<Option<PathBuf>, Problem> {
    let (Some(dir), Some(name)) = (&args.output, file.file_name()) else { return Ok(None) };
    let path = dir.join(name);
    let same = matches!((fs::canonicalize(&path), fs::canonicalize(file)), (Ok(a), Ok(b)) if a == b);
    if same {
        return Err(Problem::new(Exit::Usage, format_args!("--output would overwrite {}", file.display())));
    }
    Ok(Some(path))
}

fn unusable(file: &Path, error: &impl fmt::Display) -> Problem {
    Problem::new(Exit::Usage, format_args!("{}: {error}", file.display()))
}

/// RFC 1918, RFC 4193, and what carriers use between themselves and their customers (RFC 6598).
fn private_ranges() -> Vec<Prefix> {
    ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"]
        .iter()
        .map(|text| text.parse::<Block>().expect("a literal block").0)
        .collect()
}
