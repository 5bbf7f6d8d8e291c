//! What stands in the router: the rivals, and sipalg.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use super::judge::Expected;
use super::network::{Network, feed};

/// One of those that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Gateway {
    /// Plain forwarding with NAT.
    Plain,
    /// A C program on libnetfilter_queue that accepts every packet.
    AcceptAll,
    /// The same, with packets as the kernel has them: several segments in one, without their checksums.
    AcceptAllGso,
    /// The kernel's own `sip` helper.
    Helper,
    /// sipalg with the queue back end of the nfq crate.
    Nfq,
    /// sipalg with its own, batched queue back end.
    Netlink,
}

impl Gateway {
    /// All, in the order of the table.
    pub(crate) const ALL: [Self; 6] =
        [Self::Plain, Self::AcceptAll, Self::AcceptAllGso, Self::Helper, Self::Nfq, Self::Netlink];

    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain forwarding",
            Self::AcceptAll => "accept-everything (C)",
            Self::AcceptAllGso => "the same with GSO",
            Self::Helper => "kernel's sip helper",
            Self::Nfq => "sipalg, nfq",
            Self::Netlink => "sipalg, batched",
        }
    }

    /// Whether it translates.
    pub(crate) fn expected(self) -> Expected {
        match self {
            Self::Plain | Self::AcceptAll | Self::AcceptAllGso => Expected::Anything,
            Self::Helper | Self::Nfq | Self::Netlink => Expected::Translated,
        }
    }
}

/// What the gateways need from outside the network.
pub(crate) struct Workshop {
    place: TempDir,
    accept_all: PathBuf,
}

/// A gateway at work; dropping it ends its process.
pub(crate) struct Running {
    child: Option<Child>,
}

/// How long a program may take to become ready.
const PATIENCE: Duration = Duration::from_secs(10);

impl Workshop {
    /// Compiles the C program.
    pub(crate) fn new() -> Result<Self> {
        let place = TempDir::with_prefix("sipalg-bench-")?;
        let accept_all = place.path().join("accept_all");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/gateway/accept_all.c");
        let output = Command::new("cc")
            .args(["-O2", "-Wall", "-o"])
            .args([&accept_all, &source])
            .args(["-lnetfilter_queue", "-lnfnetlink"])
            .output()
            .context("can't run cc")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "accept_all.c (it needs libnetfilter-queue-dev): {}", said.trim());
        Ok(Self { place, accept_all })
    }

    /// Puts `gateway` into the router.
    pub(crate) fn start(&self, gateway: Gateway, network: &Network) -> Result<Running> {
        let child = match gateway {
            Gateway::Plain => None,
            Gateway::AcceptAll => Some(self.accept_all(&[], network)?),
            Gateway::AcceptAllGso => Some(self.accept_all(&["0", "gso"], network)?),
            Gateway::Helper => {
                network.load(HELPER_RULES).context("this kernel has no sip helper")?;
                None
            }
            Gateway::Nfq => Some(self.sipalg("nfq", network)?),
            Gateway::Netlink => Some(self.sipalg("netlink", network)?),
        };
        Ok(Running { child })
    }

    fn accept_all(&self, arguments: &[&str], network: &Network) -> Result<Child> {
        // Some kernels have the NFQUEUE target but no queue expression.
        if network.load(QUEUE_RULES).is_err() {
            for what in ["udp --dport", "tcp --dport", "tcp --sport"] {
                let rule = format!("-A FORWARD -p {what} 5060 -j NFQUEUE --queue-num 0");
                feed(network.router.command("iptables").args(rule.split(' ')), "")?;
            }
        }
        let mut command = network.router.command(&self.accept_all.to_string_lossy());
        let mut child = command.args(arguments).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout is piped")).read_line(&mut line)?;
        ensure!(line == "ready\n", "accept_all did not become ready");
        Ok(child)
    }

    fn sipalg(&self, backend: &str, network: &Network) -> Result<Child> {
        let [config, notify, log] = ["config.toml", "notify", "log"].map(|name| self.place.path().join(name));
        let settings = [format!("queue.backend = \"{backend}\"\n"), "limits.per-host = 32768\n".to_owned()];
        fs::write(&config, settings.concat())?;
        if let Err(error) = fs::remove_file(&notify)
            && error.kind() != ErrorKind::NotFound
        {
            return Err(error.into());
        }
        let ready = UnixDatagram::bind(&notify)?;
        ready.set_read_timeout(Some(Duration::from_millis(50)))?;
        let output = File::create(&log)?;
        let mut child = network
            .router
            .command(env!("CARGO_BIN_EXE_sipalg"))
            .args(["run", "--config"])
            .arg(&config)
            .env("NOTIFY_SOCKET", &notify)
            // What it keeps between runs must not be that of a sipalg on this machine.
            .env("RUNTIME_DIRECTORY", self.place.path())
            .env("STATE_DIRECTORY", self.place.path())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        let end = Instant::now() + PATIENCE;
        let mut message = [0; 4096];
        loop {
            if let Ok(length) = ready.recv(&mut message)
                && message[..length].split(|&byte| byte == b'\n').any(|line| line == b"READY=1")
            {
                return Ok(child);
            }
            let said = || fs::read_to_string(&log).unwrap_or_default();
            if let Some(status) = child.try_wait()? {
                bail!("sipalg ended before it was ready ({status}) {}", said().trim());
            }
            if Instant::now() > end {
                let _running = Running { child: Some(child) };
                bail!("sipalg did not become ready in {PATIENCE:?} {}", said().trim());
            }
        }
    }
}

impl Running {
    /// Processor time that its process has used; `None` if it has none.
    pub(crate) fn cpu(&self) -> Option<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.as_ref()?.id())).ok()?;
        // Behind the name in parentheses, utime and stime are the 12th and 13th field, in ticks of 10 ms.
        let (_, fields) = stat.rsplit_once(") ")?;
        let ticks: u64 =
            fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Some(Duration::from_millis(10 * ticks))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Nothing is lost by it: its namespace goes with the round.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

const HELPER_RULES: &str = "
table ip helper {
    ct helper sip {
        type \"sip\" protocol udp
        l3proto ip
    }
    ct helper sip_tcp {
        type \"sip\" protocol tcp
        l3proto ip
    }
    chain attach {
        type filter hook prerouting priority mangle; policy accept;
        udp dport 5060 ct helper set \"sip\"
        tcp dport 5060 ct helper set \"sip_tcp\"
    }
}
";

const QUEUE_RULES: &str = "
table ip accept_all {
    chain forward {
        type filter hook forward priority filter + 20; policy accept;
        udp dport 5060 queue num 0
        tcp dport 5060 queue num 0
        tcp sport 5060 queue num 0
    }
}
";
