//! SIPp: phones and servers that we did not write, with scenarios of ours in `sipp/`.
//!
//! A calling SIPp does not hang up after some time but when the test says so: the test is the other party of SIPp's
//! third-party call control (a TCP connection inside the namespace). No test has to guess how long a call must last.
//! Servers log what they were asked, one line each, in the words that [`Sipp::invites`] and its like read.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use super::net::Namespace;
use super::proc::Proc;
use super::wait;

/// How a SIPp sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// UDP, all calls by one socket.
    Udp,
    /// TCP, all calls by one connection.
    Tcp,
    /// TCP, a connection for each call.
    TcpEach,
}

impl Wire {
    /// SIPp's name for it.
    fn name(self) -> &'static str {
        match self {
            Self::Udp => "u1",
            Self::Tcp => "t1",
            Self::TcpEach => "tn",
        }
    }
}

/// What a SIPp is to do.
pub(crate) struct Role<'a> {
    /// How it sends.
    pub(crate) wire: Wire,
    /// File in `sipp/`.
    pub(crate) scenario: &'a str,
    /// Name in URIs and of the log; unique in the namespace.
    pub(crate) name: &'a str,
    /// Its address. The port is 5060, as with nearly all phones.
    pub(crate) address: Ipv4Addr,
    /// Where it wants media: address, and port (of the first call if it is the caller).
    pub(crate) media: (Ipv4Addr, u16),
    /// Whether SIPp itself answers media there, with an echo. Otherwise media is the test's business.
    pub(crate) echo: bool,
    /// How many calls.
    pub(crate) calls: u32,
    /// How many new ones in a second.
    pub(crate) rate: u32,
}

/// A running SIPp.
pub(crate) struct Sipp {
    proc: Proc,
    log: PathBuf,
}

/// A calling SIPp.
pub(crate) struct Caller {
    sipp: Sipp,
    control: BufReader<TcpStream>,
}

/// An answered call, as the caller sees it.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    /// Its Call-ID.
    pub(crate) call: String,
    /// Where the answer wants media.
    pub(crate) media: SocketAddr,
}

/// What an INVITE said when it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Invite {
    /// Request-URI.
    pub(crate) uri: String,
    /// URI of the Contact.
    pub(crate) contact: String,
    /// Where the offer wants media.
    pub(crate) media: SocketAddr,
}

/// A registered phone, as the registrar knows it.
#[derive(Clone, Debug)]
pub(crate) struct Registered {
    /// URI of the Contact.
    pub(crate) uri: String,
    /// Host and port in it.
    pub(crate) endpoint: SocketAddr,
}

impl Role<'_> {
    fn command(&self, namespace: &Namespace) -> std::process::Command {
        let mut command = namespace.command("sipp");
        // The default is more sockets than many systems have files.
        command.args(["-t", self.wire.name(), "-max_socket", "2000"]);
        command.arg("-sf").arg(self.written(namespace)).args([
            "-i",
            &self.address.to_string(),
            "-p",
            "5060",
            "-bind_local",
        ]);
        command.args([
            "-m",
            &self.calls.to_string(),
            "-r",
            &self.rate.to_string(),
            "-l",
            &self.calls.to_string(),
        ]);
        // SIPp takes its media port even when it does nothing with it.
        let own = if self.echo { self.media.1 } else { 59_000 };
        command.args(["-mi", &self.media.0.to_string(), "-mp", &own.to_string()]);
        command.args(["-key", "me", self.name, "-key", "media_host", &self.media.0.to_string()]);
        command.args(["-key", "media_to", &self.media.1.to_string()]);
        // The default Call-ID has the caller's address in it.
        command.args(["-cid_str", &format!("%u-%p-{}", self.name), "-nostdin", "-trace_logs", "-log_file"]);
        command.arg(self.log(namespace)).args(["-trace_err", "-error_file", "/dev/stderr"]);
        if self.echo {
            command.arg("-rtp_echo");
        }
        command
    }

    /// The scenario as a file. Those of TCP differ in the Via, and go where the connection goes.
    fn written(&self, namespace: &Namespace) -> PathBuf {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/sipp").join(self.scenario);
        if self.wire == Wire::Udp {
            return shipped;
        }
        let text = fs::read_to_string(shipped).expect("it is there");
        let text = text.replace("SIP/2.0/UDP", "SIP/2.0/TCP");
        let is_kept = |line: &&str| !line.contains("<setdest ");
        let text: String = text.lines().filter(is_kept).map(|line| format!("{line}\n")).collect();
        let text =
            text.replace("</scenario>", "<Reference variables=\"target_host,target_port\"/>\n</scenario>");
        let text = if text.contains("assign_to=\"target_host\"") {
            text
        } else {
            text.replace("<Reference variables=\"target_host,target_port\"/>\n", "")
        };
        let path = namespace.files().join(format!("{}-{}", self.name, self.scenario));
        fs::write(&path, text).expect("the directory of a test is writable");
        path
    }

    fn log(&self, namespace: &Namespace) -> PathBuf {
        namespace.files().join(format!("{}.log", self.name))
    }

    /// Starts a server and waits until it listens.
    pub(crate) fn serve(&self, namespace: &Namespace) -> Sipp {
        let mut command = self.command(namespace);
        // A connection that its phone closes takes no call along that has had its BYE.
        command.args(["-reconnect_close", "false", "-max_reconnect", "100"]);
        let proc = namespace.spawn(self.name, command);
        let mut sipp = Sipp { proc, log: self.log(namespace) };
        wait::until("SIPp to listen", || {
            assert_eq!(sipp.proc.ended(), None, "{} ended early", self.name);
            let listens = match self.wire {
                Wire::Udp => namespace.udp_is_bound(5060),
                Wire::Tcp | Wire::TcpEach => namespace.tcp_listens(5060),
            };
            listens.then_some(())
        });
        sipp
    }

    /// Starts a client of `server`.
    pub(crate) fn client(&self, namespace: &Namespace, server: SocketAddr) -> Sipp {
        let mut command = self.command(namespace);
        command.arg(server.to_string());
        Sipp { proc: namespace.spawn(self.name, command), log: self.log(namespace) }
    }

    /// Starts a caller. Its calls go to `targets`, round and round: URI, and where to send the INVITE. Each call has
    /// a media port of its own, the next but three of the one before.
    pub(crate) fn call(&self, namespace: &Namespace, targets: &[(String, SocketAddr)]) -> Caller {
        let table = namespace.files().join(format!("{}.csv", self.name));
        // A semicolon parts the fields of the table and can't be escaped: URI parameters go another way.
        let first = targets.first().expect("there is somebody to call");
        let (_, parameters) = split_parameters(&first.0);
        let ports = (self.media.1..).step_by(4).zip(0..self.calls);
        let lines = ports.zip(targets.iter().cycle()).map(|((port, _), (uri, to))| {
            let (uri, own) = split_parameters(uri);
            assert_eq!(own, parameters, "all targets have the same parameters");
            format!("{uri};{};{};{port}\n", to.ip(), to.port())
        });
        fs::write(&table, format!("SEQUENTIAL\n{}", lines.collect::<String>())).expect("writable");
        let listener =
            namespace.within(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("a port is free");
        let control = listener.local_addr().expect("it is bound");
        let mut command = self.command(namespace);
        command.args(["-key", "uri_parameters", parameters]).arg("-inf").arg(table).args([
            "-3pcc",
            &control.to_string(),
            &first.1.to_string(),
        ]);
        let mut sipp = Sipp { proc: namespace.spawn(self.name, command), log: self.log(namespace) };
        listener.set_nonblocking(true).expect("a socket can be non-blocking");
        let stream = wait::until("SIPp's control connection", || {
            assert_eq!(sipp.proc.ended(), None, "{} ended early", self.name);
            listener.accept().ok()
        });
        stream.0.set_nonblocking(false).expect("a socket can be blocking");
        stream.0.set_read_timeout(Some(wait::LONG)).expect("a timeout above zero");
        Caller { sipp, control: BufReader::new(stream.0) }
    }
}

impl Caller {
    /// The next call that is answered.
    pub(crate) fn answered(&mut self) -> Answered {
        let mut message = Vec::new();
        let length = self.control.read_until(0x1b, &mut message).unwrap_or_else(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => panic!("no further call is answered"),
            _ => panic!("the control connection: {error}"),
        });
        assert!(length > 0, "SIPp has closed the control connection");
        let text = String::from_utf8_lossy(&message);
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("{name} in {text:?}")).trim()
        };
        Answered { call: value("Call-ID:").to_owned(), media: value("Media:").parse().expect("an endpoint") }
    }

    /// Ends a call.
    pub(crate) fn hang_up(&mut self, call: &Answered) {
        let command = format!("Call-ID: {}\r\nDo: hang up\r\n\r\n\x1b", call.call);
        self.control.get_mut().write_all(command.as_bytes()).expect("SIPp listens");
    }

    /// Waits until all calls have ended well.
    pub(crate) fn succeeds(&mut self) {
        self.sipp.succeeds();
    }
}

impl Sipp {
    /// Waits until all calls have ended well: SIPp's exit code 0.
    pub(crate) fn succeeds(&mut self) {
        self.proc.succeeds_within(Duration::from_secs(60));
    }

    /// The INVITE of `call`, once it has arrived.
    pub(crate) fn invite(&self, call: &str) -> Invite {
        let line = self.line("invite", "call", call);
        Invite {
            uri: line["uri"].clone(),
            contact: line["contact"].clone(),
            media: line["media"].parse().expect("an endpoint"),
        }
    }

    /// Whether the INVITE of `call` came here: to be asked of several servers, once somebody has answered.
    pub(crate) fn has_invite(&self, call: &str) -> bool {
        fs::read_to_string(&self.log).unwrap_or_default().contains(&format!("invite call={call} "))
    }

    /// The Request-URI of the `ack` or `bye` of `call`, once it has arrived.
    pub(crate) fn uri_of(&self, request: &str, call: &str) -> String {
        self.line(request, "call", call)["uri"].clone()
    }

    /// What the registrar knows of `user`, once he is registered.
    pub(crate) fn registered(&self, user: &str) -> Registered {
        let line = self.line("register", "user", user);
        // A Contact without a port means 5060 (RFC 3261 section 19.1.2).
        let endpoint = line["endpoint"].trim_end_matches(':');
        let endpoint =
            endpoint.parse().unwrap_or_else(|_| format!("{endpoint}:5060").parse().expect("an address"));
        Registered { uri: line["uri"].clone(), endpoint }
    }

    /// The Contact of each answer that granted a registration, as the phone received it.
    pub(crate) fn granted(&self) -> Vec<String> {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines()
            .filter_map(|line| line.strip_prefix("granted "))
            .map(|contact| contact.trim().to_owned())
            .collect()
    }

    fn line(&self, kind: &str, key: &str, value: &str) -> HashMap<String, String> {
        wait::until(&format!("{kind} with {key}={value} in {}", self.log.display()), || {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            // The last line may be half written.
            let complete = log.rfind('\n').map_or("", |end| &log[..end]);
            complete
                .lines()
                .filter_map(|line| line.strip_prefix(kind))
                .map(fields)
                .find(|line| line.get(key).is_some_and(|found| found == value))
        })
    }
}

/// A URI, and its parameters with their first semicolon.
fn split_parameters(uri: &str) -> (&str, &str) {
    uri.split_at(uri.find(';').unwrap_or(uri.len()))
}

/// The `name=value` words of a line.
fn fields(line: &str) -> HashMap<String, String> {
    let words = line.split(' ').filter_map(|word| word.split_once('='));
    words.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
