//! What this kernel and this router can do, in one line each.
//!
//! Everything is tried, nothing is told from a version: rules are sent in transactions that are never finished, sockets
//! are opened and closed. Each [`Finding`] says what was found and what to do about it. `sipalg check` prints all of them;
//! `sipalg run` refuses to start if one is a [`Level::Problem`]. Nothing is changed, but a kernel may load modules of
//! netfilter when it is asked for them.

mod helper;

use std::fs;
use std::io;
use std::path::Path;

use super::conntrack::Conntrack;
use super::ctmessage::Tuple;
use super::ruleset::{self, QueueForm, RulesetSettings};
use super::socket::NetlinkSocket;
use super::{nft, rules, shortcut};
use crate::netlink::{Message, MessageType, NLM_F_ACK, NLM_F_DUMP, Writer};

const CAP_NET_ADMIN: u32 = 12;
const NFNL_SUBSYS_QUEUE: u8 = 3;
const NFNL_SUBSYS_CTHELPER: u8 = 9;
const NFNL_SUBSYS_NFTABLES: u8 = 10;
const NFQNL_MSG_CONFIG: u8 = 2;
const NFNL_MSG_CTHELPER_GET: u8 = 1;
const NFT_MSG_GETFLOWTABLE: u8 = 23;

/// One line of `sipalg check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at; a stable name.
    pub name: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub text: String,
    /// What to do about it; empty if nothing.
    pub remedy: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// `sipalg run` refuses to start.
    Problem,
}

impl Finding {
    pub(super) fn ok(name: &'static str, text: impl Into<String>) -> Self {
        Self { name, level: Level::Ok, text: text.into(), remedy: String::new() }
    }

    pub(super) fn note(name: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, level: Level::Note, text: text.into(), remedy: remedy.into() }
    }

    pub(super) fn problem(name: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, level: Level::Problem, text: text.into(), remedy: remedy.into() }
    }
}

/// Looks at everything that `settings` needs. Without the right to ask the kernel, that is the only finding.
pub fn run(settings: &RulesetSettings) -> Vec<Finding> {
    let rights = rights();
    if rights.level == Level::Problem {
        return vec![rights];
    }
    let mut findings = vec![rights];
    match NetlinkSocket::netfilter() {
        Ok(mut socket) => {
            findings.extend(takes_ruleset(settings));
            findings.push(queue(&mut socket));
            findings.push(conntrack());
            findings.extend(helper::find(&mut socket, settings));
            findings.push(flowtables(&mut socket));
            findings.push(glue());
            findings.push(cthelper(&mut socket));
        }
        Err(error) => findings.push(Finding::problem(
            "netfilter",
            format!("netfilter can't be spoken to: {error}"),
            "use a kernel with CONFIG_NETFILTER_NETLINK",
        )),
    }
    if let Some(hint) = modules_hint(Path::new("/lib/modules")) {
        for problem in
            findings.iter_mut().filter(|it| it.level == Level::Problem && LOADED.contains(&it.name))
        {
            problem.remedy = format!("{hint}; otherwise {}", problem.remedy);
        }
    }
    findings.push(forwarding());
    findings.extend(conntrack_settings());
    findings
}

/// Findings about what comes with a module of the kernel.
const LOADED: [&str; 7] =
    ["netfilter", "nf-tables", "nft-nat", "ct-timeout", "ruleset", "queue", "conntrack"];

/// Where the running kernel has no modules on disk, nothing that it does not have by now can be loaded: it was upgraded and
/// not restarted, or this is a container.
fn modules_hint(modules: &Path) -> Option<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let release = release.trim();
    (!modules.join(release).exists()).then(|| {
        format!(
            "{} has no modules of the running kernel, {release}: after an upgrade of the kernel, reboot; in a \
             container, load them on the host",
            modules.display()
        )
    })
}

fn rights() -> Finding {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    match effective {
        Some(bits) if bits & (1 << CAP_NET_ADMIN) != 0 => Finding::ok("rights", "CAP_NET_ADMIN is there"),
        _ => Finding::problem(
            "rights",
            "no CAP_NET_ADMIN: the kernel can't be changed, nor asked for more",
            "run as root, or with CAP_NET_ADMIN (systemd: AmbientCapabilities=CAP_NET_ADMIN)",
        ),
    }
}

fn takes_ruleset(settings: &RulesetSettings) -> Vec<Finding> {
    let error = match ruleset::dry_run(&ruleset::for_daemon(&settings.ports, &settings.tcp_ports)) {
        Ok(()) => return vec![Finding::ok("ruleset", "the kernel takes the ruleset")],
        Err(error) => error,
    };
    let lacking = PARTS.iter().filter(|part| ruleset::dry_run(part.rules).is_err());
    let lacking: Vec<_> =
        lacking.map(|part| Finding::problem(part.name, part.lacking, part.remedy)).collect();
    if lacking.is_empty() {
        return vec![Finding::problem("ruleset", error.to_string(), error.remedy())];
    }
    lacking
}

/// A part of the ruleset that a kernel may lack.
struct Part {
    name: &'static str,
    rules: &'static str,
    lacking: &'static str,
    remedy: &'static str,
}

const PARTS: [Part; 3] = [
    Part {
        name: "nf-tables",
        rules: "table inet sipalg_probe { set s { type inet_proto . ipv4_addr . inet_service; flags timeout; }\n}\n",
        lacking: "this kernel has no nf_tables, or no sets of concatenated fields with timeouts",
        remedy: "use a kernel from 4.1 on with CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET",
    },
    Part {
        name: "nft-nat",
        rules: "table inet sipalg_probe { chain c { type nat hook prerouting priority dstnat; dnat ip to 192.0.2.1; }\n}\n",
        lacking: "this kernel has no NAT in nf_tables tables of family inet",
        remedy: "use a kernel from 5.2 on with CONFIG_NFT_NAT",
    },
    Part {
        name: "ct-timeout",
        rules: "table inet sipalg_probe { ct timeout t { protocol udp; l3proto ip; policy = { unreplied : 180 }; }\n}\n",
        lacking: "this kernel has no conntrack timeout objects",
        remedy: "use a kernel with CONFIG_NFT_CT and CONFIG_NF_CONNTRACK_TIMEOUT",
    },
];

fn queue(socket: &mut NetlinkSocket) -> Finding {
    const NAME: &str = "queue";
    if !Path::new("/proc/thread-self/net/netfilter/nfnetlink_queue").exists() {
        // The module comes with the first reader; without the configuration option there is none to come.
        if let Err(error) = bind_queue(None) {
            let text = format!("packets can't be queued to a program: {error}");
            return Finding::problem(NAME, text, "use a kernel with CONFIG_NETFILTER_NETLINK_QUEUE");
        }
    }
    let mut knows = |form| nft::knows_queue_form(socket, form).unwrap_or(false);
    if knows(QueueForm::Native) {
        Finding::ok(NAME, "nft's queue statement")
    } else if knows(QueueForm::Compat) {
        Finding::ok(NAME, "xtables' NFQUEUE (the kernel has no queue statement of nft)")
    } else {
        Finding::problem(
            NAME,
            "no rule can queue packets: neither nft's queue statement nor xtables' NFQUEUE is there",
            "use a kernel with CONFIG_NFT_QUEUE, or with CONFIG_NFT_COMPAT and CONFIG_NETFILTER_XT_TARGET_NFQUEUE",
        )
    }
}

fn conntrack() -> Finding {
    const NAME: &str = "conntrack";
    let nobody = ([192, 0, 2, 1], 9).into();
    match Conntrack::open(false).and_then(|mut conntrack| conntrack.find(Tuple::udp(nobody, nobody))) {
        Ok(_) => Finding::ok(NAME, "entries can be looked up and made"),
        Err(error) => Finding::problem(
            NAME,
            format!("ctnetlink does not answer: {error}"),
            "use a kernel with CONFIG_NF_CT_NETLINK",
        ),
    }
}

/// Packets of an offloaded flow pass no hook: no ALG sees them.
fn flowtables(socket: &mut NetlinkSocket) -> Finding {
    const NAME: &str = "flowtable";
    let mut writer = Writer::new();
    let kind = MessageType { subsystem: NFNL_SUBSYS_NFTABLES, message: NFT_MSG_GETFLOWTABLE };
    writer.message(kind, NLM_F_DUMP, 1, libc::NFPROTO_UNSPEC as u8, 0, |_| ());
    let mut names = Vec::new();
    let asked = socket.call(writer.bytes(), |message| names.extend(flowtable_name(message)));
    match asked {
        Err(_) => Finding::ok(NAME, "this kernel offloads no flows"),
        Ok(()) if names.is_empty() => Finding::ok(NAME, "none: every packet passes our rules"),
        Ok(()) => Finding::note(NAME, format!("{FLOWTABLE_TEXT}{}", names.join(", ")), FLOWTABLE_REMEDY),
    }
}

/// What a flowtable does; its name follows.
pub(super) const FLOWTABLE_TEXT: &str = "flows may be offloaded past our rules by the flowtable ";
/// What to do about it.
pub(super) const FLOWTABLE_REMEDY: &str = "keep SIP out of it: th dport != 5060 and th sport != 5060 (or what sip.ports says) in front of its `flow add` rule";

/// Family, table and name of the flowtable that a message announces; `None` if it is about something else.
pub(super) fn flowtable_name(message: &Message<'_>) -> Option<String> {
    const NFT_MSG_NEWFLOWTABLE: u8 = 22;
    let kind = MessageType { subsystem: NFNL_SUBSYS_NFTABLES, message: NFT_MSG_NEWFLOWTABLE };
    let attributes = message.attributes();
    let name = |kind| attributes.bytes(kind).map(rules::text).unwrap_or_default();
    // Our own takes no SIP.
    (message.kind() == kind && name(1) != "sipalg")
        .then(|| format!("{} {} {}", rules::family_name(message.family()), name(1), name(2)))
}

/// Whether media can take the short way that `media.offload` asks for.
pub fn offload() -> Finding {
    const NAME: &str = "offload";
    match ruleset::dry_run(shortcut::PROBE) {
        Ok(()) => Finding::ok(NAME, "established media takes the short way (media.offload)"),
        Err(error) => Finding::note(
            NAME,
            format!("media.offload is not possible, media takes the usual way: {error}"),
            "use a kernel with CONFIG_NF_FLOW_TABLE_INET and CONFIG_NFT_FLOW_OFFLOAD",
        ),
    }
}

/// Whether packets could come with their conntrack entry.
fn glue() -> Finding {
    const NAME: &str = "queue-conntrack";
    const NFQA_CFG_F_CONNTRACK: u32 = 2;
    match bind_queue(Some(NFQA_CFG_F_CONNTRACK)) {
        Ok(()) => Finding::ok(
            NAME,
            "queued packets can come with their conntrack entry: a new flow is learned in one trip",
        ),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Finding::ok(
            NAME,
            "queued packets come without their conntrack entry: a new flow is learned in two trips",
        ),
        Err(error) => Finding::ok(NAME, format!("not tried: {error}")),
    }
}

/// Binds a queue that no rule feeds, for as long as this call lasts.
fn bind_queue(flags: Option<u32>) -> io::Result<()> {
    const NFQA_CFG_CMD: u16 = 1;
    const NFQA_CFG_MASK: u16 = 4;
    const NFQA_CFG_FLAGS: u16 = 5;
    const BIND: u8 = 1;
    const UNUSED_QUEUE: u16 = u16::MAX;
    let mut writer = Writer::new();
    let kind = MessageType { subsystem: NFNL_SUBSYS_QUEUE, message: NFQNL_MSG_CONFIG };
    writer.message(kind, NLM_F_ACK, 1, libc::AF_UNSPEC as u8, UNUSED_QUEUE, |w| {
        w.put(NFQA_CFG_CMD, &[BIND, 0, 0, 0]);
        if let Some(flags) = flags {
            w.put_u32(NFQA_CFG_FLAGS, flags);
            w.put_u32(NFQA_CFG_MASK, flags);
        }
    });
    NetlinkSocket::netfilter()?.call(writer.bytes(), |_| ())
}

/// Whether expectations of a helper of our own would be possible.
fn cthelper(socket: &mut NetlinkSocket) -> Finding {
    let mut writer = Writer::new();
    let kind = MessageType { subsystem: NFNL_SUBSYS_CTHELPER, message: NFNL_MSG_CTHELPER_GET };
    writer.message(kind, NLM_F_DUMP, 1, libc::AF_UNSPEC as u8, 0, |_| ());
    let text = match socket.call(writer.bytes(), |_| ()) {
        Ok(()) => "helpers in user space are possible",
        Err(_) => "no helpers in user space",
    };
    Finding::ok("cthelper", text)
}

fn forwarding() -> Finding {
    const NAME: &str = "forwarding";
    let forwards = |path| sysctl(path).is_some_and(|value| value != 0);
    if forwards("net/ipv4/ip_forward") || forwards("net/ipv6/conf/all/forwarding") {
        Finding::ok(NAME, "this machine forwards packets")
    } else {
        Finding::note(
            NAME,
            "this machine forwards no packets, so there is nothing to translate",
            set("net.ipv4.ip_forward", 1),
        )
    }
}

fn conntrack_settings() -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.push(match sysctl("net/netfilter/nf_conntrack_acct") {
        Some(1..) => Finding::ok("accounting", "conntrack counts packets"),
        _ => Finding::note(
            "accounting",
            "conntrack does not count packets, so `sipalg calls` could show none",
            "sipalg switches it on when it starts (media.accounting)",
        ),
    });
    if sysctl("net/netfilter/nf_conntrack_events") == Some(0) {
        findings.push(Finding::note(
            "events",
            "conntrack tells nobody of entries that die: a mapping that is gone is noticed at the next packet only",
            set("net.netfilter.nf_conntrack_events", 2),
        ));
    }
    let (count, max) = (sysctl("net/netfilter/nf_conntrack_count"), sysctl("net/netfilter/nf_conntrack_max"));
    if let (Some(count), Some(max @ 1..)) = (count, max)
        && count.saturating_mul(10) > max.saturating_mul(9)
    {
        findings.push(Finding::note(
            "conntrack-size",
            format!("the conntrack table is nearly full: {count} of {max} entries"),
            set("net.netfilter.nf_conntrack_max", max.saturating_mul(2)),
        ));
    }
    findings
}

/// What changes a sysctl now, and what keeps it so after the next boot.
fn set(key: &str, value: u64) -> String {
    format!("sysctl -w {key}={value}, and the line {key}={value} in /etc/sysctl.d/ for the next boot")
}

/// A number of /proc/sys, of the network namespace of this thread.
fn sysctl(path: &str) -> Option<u64> {
    fs::read_to_string(format!("/proc/sys/{path}")).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgraded_kernel_that_was_not_rebooted_is_told_by_its_missing_modules() {
        let directory = tempfile::tempdir().unwrap();
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().trim().to_owned();
        let hint = modules_hint(directory.path()).unwrap();
        let begins =
            format!("{} has no modules of the running kernel, {release}: ", directory.path().display());
        assert!(hint.starts_with(&begins) && hint.contains("reboot"), "{hint}");
        fs::create_dir(directory.path().join(release)).unwrap();
        assert_eq!(modules_hint(directory.path()), None);
    }
}
