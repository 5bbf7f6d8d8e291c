//! The table `inet sipalg`: load it, know it again, mend it, remove it.
//!
//! `nft-rules/sipalg.nft` is the one source: it is embedded here, and an administrator may include it in the router's own
//! ruleset, where it is used as it is. The file leaves its queue points empty; the daemon puts in the rule that this
//! kernel has (nft's `queue`, or xtables' `NFQUEUE`). The table stays when the daemon goes: without a reader the queue
//! rules let everything pass, and every element has a timeout.
//!
//! Loading is libnftables' part, at start and after a flush; everything else is a netlink request. What is in the maps is
//! not looked at here: [`super::maps`].

use std::collections::HashSet;
use std::ffi::CStr;
use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use super::conntrack::Conntrack;
use super::ctmessage::Entry;
use super::element::Reader;
use super::libnftables::{self, Mode};
pub use super::parting::Parted;
use super::rules::{self, Rule};
use super::socket::NetlinkSocket;
use super::{KernelError, cthelper, maps, nft, parting, shortcut};
use crate::alg::Transport;

/// The file as it is shipped.
pub const SHIPPED: &str = include_str!("../../nft-rules/sipalg.nft");

/// What the rule in chain `about` says; `sipalg.nft` has the same.
const MARK: &str = "sipalg ruleset 3";
/// What stands behind the mark if the daemon loaded it.
const BY_DAEMON: &str = ", loaded by the daemon";
/// The lines of `sipalg.nft` that the daemon replaces.
const PORTS_LINE: &str = "define SIPALG_UDP_PORTS = { 5060 }";
const TCP_PORTS_LINE: &str = "define SIPALG_TCP_PORTS = { 5060 }";
const PORTS_SET: &CStr = c"sip_udp";
const TCP_PORTS_SET: &CStr = c"sip_tcp";
/// The queue points; their queues are numbered as [`crate::queue::Options::numbers`] does.
const QUEUE_POINTS: [Point; 8] = [
    Point { chain: c"q_sip", queue: 0, absent: Absent::Pass },
    Point { chain: c"q_new", queue: 1, absent: Absent::Pass },
    Point { chain: c"q_syn", queue: 1, absent: Absent::Pass },
    Point { chain: c"q_learn", queue: 2, absent: Absent::Pass },
    Point { chain: c"q_latch", queue: 3, absent: Absent::Pass },
    Point { chain: c"q_tcp", queue: 4, absent: Absent::Pass },
    Point { chain: c"q_followed", queue: 4, absent: Absent::Drop },
    Point { chain: c"q_followed_in", queue: 5, absent: Absent::Drop },
];
/// The one of them in front of the NAT that may be left out.
const NEW_FLOWS: &CStr = c"q_new";
/// Chains without which nothing works.
const CHAINS: [&str; 16] = [
    "guard",
    "admitted",
    "dnat_in",
    "snat_out",
    "forward",
    "new_flow",
    "learn",
    "new_connection",
    "learn_connection",
    "new_tuple",
    "segment",
    "followed",
    "broken",
    "segment_in",
    "followed_in",
    "broken_in",
];

/// A chain that gets one rule, which queues.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub(super) chain: &'static CStr,
    /// Which of our queues; in the kernel they are numbered from [`RulesetSettings::queue_base`] on.
    pub(super) queue: u16,
    pub(super) absent: Absent,
}

/// What becomes of packets when nobody reads the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absent {
    /// They go on untouched.
    Pass,
    /// They are dropped: untouched they would be wrong.
    Drop,
}

/// What the ruleset depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulesetSettings {
    /// UDP ports of SIP servers; not empty.
    pub ports: Vec<u16>,
    /// TCP ports of SIP servers; if empty, no TCP connection is looked at.
    pub tcp_ports: Vec<u16>,
    /// Number of the first of the six queues, in the order of [`QueuePoint::ALL`](crate::alg::QueuePoint::ALL).
    pub queue_base: u16,
    /// Whether first packets are queued behind the NAT only, because they come with their conntrack entry.
    pub one_trip: bool,
    /// Whether signalling flows get our helper, and expected media passes the guard.
    pub expect: bool,
    /// Whether established media takes the short way.
    pub offload: bool,
}

impl Default for RulesetSettings {
    fn default() -> Self {
        Self {
            ports: vec![5060],
            tcp_ports: vec![5060],
            queue_base: 5060,
            one_trip: false,
            expect: false,
            offload: false,
        }
    }
}

/// What [`install`] found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Who loaded the table.
    pub origin: Origin,
    /// The UDP ports that the loaded ruleset queues, ascending.
    pub ports: Vec<u16>,
    /// The TCP ports of servers to which the loaded ruleset queues new connections, ascending.
    pub tcp_ports: Vec<u16>,
    /// The form of the queue rules.
    pub queue: QueueForm,
    /// Whether media can be expected.
    pub expects: bool,
}

/// Who loaded the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// We did, now or in an earlier run.
    Daemon,
    /// An administrator: `sipalg.nft` is included in the router's own ruleset. It is used as it is; its ports hold.
    Administrator,
}

/// How a packet gets into an NFQUEUE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueForm {
    /// nft's own `queue` statement.
    Native,
    /// xtables' `NFQUEUE` target through `nft_compat`.
    Compat,
}

/// Loads the ruleset unless an administrator's is there, and fills the queue points. Idempotent; keeps all elements.
///
/// A table of the daemon with other ports, and a table of another version, whoever loaded it, is replaced in place.
/// Otherwise only the queue rules are, in one transaction: no packet passes unqueued while the daemon restarts.
///
/// # Errors
/// See [`KernelError`].
pub fn install(settings: &RulesetSettings) -> Result<Installed, KernelError> {
    let mut socket = NetlinkSocket::netfilter().map_err(KernelError::system("opening a netlink socket"))?;
    let wanted = [&settings.ports, &settings.tcp_ports].map(|ports| {
        let mut ports = ports.clone();
        ports.sort_unstable();
        ports.dedup();
        ports
    });
    let found = origin(&own_rules(&mut socket)?);
    let usable = match found {
        Some(Origin::Administrator) => true,
        Some(Origin::Daemon) => loaded_ports(&mut socket)? == wanted,
        None => false,
    };
    if !usable {
        let [ports, tcp_ports] = &wanted;
        load(&for_daemon(ports, tcp_ports), Mode::Commit)?;
    }
    let origin = found.filter(|_| usable).unwrap_or(Origin::Daemon);
    let queue = fill_queue_points(&mut socket, settings)?;
    let expects = fill_extras(&mut socket, settings);
    let [ports, tcp_ports] = loaded_ports(&mut socket)?;
    Ok(Installed { origin, ports, tcp_ports, queue, expects })
}

/// The first of the queues that the loaded ruleset fills; `None` if there is no table of ours, or none of its queue points
/// is filled. Who reads them has taken the table into use.
///
/// # Errors
/// See [`KernelError`].
pub fn queue_base() -> Result<Option<u16>, KernelError> {
    let mut socket = NetlinkSocket::netfilter().map_err(KernelError::system("opening a netlink socket"))?;
    let rules = own_rules(&mut socket)?;
    let number = |point: &Point| {
        let rule = rules.iter().find(|rule| rule.chain.as_bytes() == point.chain.to_bytes())?;
        rule.expressions.iter().find_map(queue_number)?.checked_sub(point.queue)
    };
    Ok(QUEUE_POINTS.iter().find_map(number))
}

/// What [`remove`] has taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Whether there was a table.
    pub table: bool,
    /// What became of the ends of TCP connections that were translated.
    pub parted: Parted,
}

/// Removes the table, and with it every map, set and timeout policy, and the conntrack entries that its bindings made:
/// running calls lose their media. TCP connections that were translated are reset first, which may take seconds. Nothing
/// there is no error.
///
/// # Errors
/// See [`KernelError`].
pub fn remove() -> Result<Removed, KernelError> {
    let mut socket = NetlinkSocket::netfilter().map_err(KernelError::system("opening a netlink socket"))?;
    let public: HashSet<(Transport, SocketAddr)> = match maps::held(&mut socket) {
        Ok(held) => held.pinholes.iter().map(|(it, _)| (it.transport, it.public.0)).collect(),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => HashSet::new(),
        Err(error) => return Err(KernelError::system("listing the bindings")(error)),
    };
    let segments = parting::segments(&mut socket).map_err(KernelError::system("listing the connections"))?;
    let parted =
        parting::part(&mut socket, &segments).map_err(KernelError::system("resetting connections"))?;
    if parted != Parted::default() {
        // While the rules still refuse what comes: who has not been told must not go on through the old NAT.
        remove_entries(|entry| {
            [&entry.original, &entry.reply]
                .iter()
                .any(|it| it.transport == Transport::Tcp && segments.contains(&(it.source, it.destination)))
        })
        .map_err(KernelError::system("deleting conntrack entries"))?;
    }
    let table = nft::delete_table(&mut socket).map_err(KernelError::system("deleting the table"))?;
    // The kernel lets go of what a table has named a moment after the table is gone.
    for _ in 0..10 {
        match cthelper::unregister(&mut socket) {
            Ok(true) => break,
            Ok(false) => thread::sleep(Duration::from_millis(20)),
            // There are no helpers here.
            Err(_) => break,
        }
    }
    if !public.is_empty() {
        remove_entries(|entry| {
            let ends = [entry.reply.destination, entry.original.destination];
            ends.iter().any(|end| public.contains(&(entry.original.transport, *end)))
        })
        .map_err(KernelError::system("deleting conntrack entries"))?;
    }
    Ok(Removed { table, parted })
}

/// Whether our table is loaded and every queue point has its rule. Cheap: one netlink request.
///
/// # Errors
/// See [`KernelError`].
pub fn is_intact() -> Result<bool, KernelError> {
    let mut socket = NetlinkSocket::netfilter().map_err(KernelError::system("opening a netlink socket"))?;
    check(&mut socket)
}

/// As [`is_intact`], by a socket that is open already.
pub(super) fn check(socket: &mut NetlinkSocket) -> Result<bool, KernelError> {
    let rules = own_rules(socket)?;
    let is_filled = |point: &Point| {
        let in_point = rules.iter().find(|rule| rule.chain.as_bytes() == point.chain.to_bytes());
        // Where first packets are not queued before the NAT, something else stands in their place.
        in_point.is_some_and(|rule| point.chain == NEW_FLOWS || rule.expressions.iter().any(is_queue))
    };
    Ok(origin(&rules).is_some() && QUEUE_POINTS.iter().all(is_filled))
}

/// Asks the kernel whether it would take a piece of ruleset; changes nothing.
///
/// # Errors
/// See [`KernelError`].
pub(super) fn dry_run(text: &str) -> Result<(), KernelError> {
    load(text, Mode::Check)
}

/// The ruleset with these ports, marked as loaded by the daemon.
pub(super) fn for_daemon(ports: &[u16], tcp_ports: &[u16]) -> String {
    let line = |name: &str, ports: &[u16]| {
        let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
        format!("define {name} = {{ {} }}", ports.join(", "))
    };
    // nft takes no empty list.
    let tcp_ports = if tcp_ports.is_empty() { &[0] } else { tcp_ports };
    SHIPPED
        .replace(PORTS_LINE, &line("SIPALG_UDP_PORTS", ports))
        .replace(TCP_PORTS_LINE, &line("SIPALG_TCP_PORTS", tcp_ports))
        .replace(MARK, &format!("{MARK}{BY_DAEMON}"))
}

fn load(text: &str, mode: Mode) -> Result<(), KernelError> {
    libnftables::run(text, mode).map_err(|said| match &said {
        said if said.contains("Operation not permitted") => KernelError::NotPermitted("loading the ruleset"),
        said if LACKS.iter().any(|phrase| said.contains(phrase)) => {
            KernelError::Unsupported(format!("something that the ruleset needs:\n{said}"))
        }
        _ => KernelError::Refused(said),
    })
}

/// What nft says when the kernel does not know an expression, an object or a chain type.
const LACKS: [&str; 3] = ["No such file or directory", "Operation not supported", "Protocol not supported"];

fn fill_queue_points(
    socket: &mut NetlinkSocket,
    settings: &RulesetSettings,
) -> Result<QueueForm, KernelError> {
    let left_out = settings.one_trip.then_some(NEW_FLOWS);
    let mut refused = 0;
    for form in [QueueForm::Native, QueueForm::Compat] {
        let faults = nft::fill_queue_points(socket, form, settings.queue_base, &QUEUE_POINTS, left_out)
            .map_err(KernelError::system("putting in the queue rules"))?;
        match faults.first() {
            None => return Ok(form),
            Some(fault) => refused = fault.code,
        }
    }
    let reason = io::Error::from_raw_os_error(refused);
    Err(KernelError::Unsupported(format!(
        "a way to queue packets: neither nft's `queue` (CONFIG_NFT_QUEUE) nor xtables' NFQUEUE \
         (CONFIG_NFT_COMPAT, CONFIG_NETFILTER_XT_TARGET_NFQUEUE) is there ({reason})"
    )))
}

/// Fills the chains that not every kernel and not everybody has use for, or empties them. What is refused is no reason to
/// do without the rest: it is said in the log. Answers whether media can be expected.
fn fill_extras(socket: &mut NetlinkSocket, settings: &RulesetSettings) -> bool {
    const EMPTY: &str = "flush chain inet sipalg attach\nflush chain inet sipalg expected\n";
    let mut refused = None;
    let mut expects = false;
    for _ in 0..TRIES {
        refused = None;
        if !settings.expect {
            refused = load(EMPTY, Mode::Commit).err();
            break;
        }
        // Between these two another router's `unload` may take the helper away again.
        if let Err(error) = cthelper::register(socket) {
            refused = Some(KernelError::system("registering the conntrack helper")(error));
            break;
        }
        match load(&format!("{EMPTY}{}", expecting(cthelper::NAME)), Mode::Commit) {
            Ok(()) => {
                expects = true;
                break;
            }
            Err(error) => refused = Some(error),
        }
    }
    if let Some(error) = refused {
        tracing::warn!(%error, "media can't be expected: it is pinned when it is answered");
        let _ = load(EMPTY, Mode::Commit);
    }
    let short = if settings.offload { shortcut::rules() } else { Ok(String::new()) };
    let loaded = short
        .map_err(KernelError::system("listing the interfaces"))
        .and_then(|rules| load(&format!("flush chain inet sipalg short_way\n{rules}"), Mode::Commit));
    if let Err(error) = loaded {
        tracing::warn!(%error, "media can't be offloaded: it takes the usual way");
    }
    expects
}

/// Takes interfaces that have come into the flowtable for media, if there is one. What is refused is said in the log.
pub fn follow_interfaces() {
    let followed = NetlinkSocket::netfilter()
        .map_err(KernelError::system("opening a netlink socket"))
        .and_then(|mut socket| own_rules(&mut socket))
        .and_then(|rules| {
            if !rules.iter().any(|rule| rule.chain == "short_way") {
                return Ok(());
            }
            let text = shortcut::flowtable().map_err(KernelError::system("listing the interfaces"))?;
            load(&text, Mode::Commit)
        });
    if let Err(error) = followed {
        tracing::warn!(%error, "media by interfaces that came later can't be offloaded");
    }
}

/// Another router may come in between a few times, not for ever.
const TRIES: usize = 5;

fn expecting(helper: &str) -> String {
    let mut text = String::new();
    for (object, family, nfproto) in [("media4", "ip", "ipv4"), ("media6", "ip6", "ipv6")] {
        text.push_str(&format!(
            "table inet sipalg {{\n\tct helper {object} {{ type \"{helper}\" protocol udp; l3proto {family}; }}\n}}\n\
             add rule inet sipalg attach meta nfproto {nfproto} meta l4proto udp ct helper set \"{object}\"\n"
        ));
    }
    text.push_str(&format!("add rule inet sipalg expected ct helper \"{helper}\" accept\n"));
    text
}

fn own_rules(socket: &mut NetlinkSocket) -> Result<Vec<Rule>, KernelError> {
    rules::list(socket, Some("sipalg")).map_err(KernelError::system("reading our rules"))
}

/// Who loaded the table; `None` if it is not there, not whole, or of another version.
fn origin(rules: &[Rule]) -> Option<Origin> {
    if !CHAINS.iter().all(|chain| rules.iter().any(|rule| rule.chain == *chain)) {
        return None;
    }
    let about = rules.iter().find(|rule| rule.chain == "about")?;
    match about.comment.as_deref()?.strip_prefix(MARK)? {
        "" => Some(Origin::Administrator),
        BY_DAEMON => Some(Origin::Daemon),
        _ => None,
    }
}

fn is_queue(expression: &rules::Expression) -> bool {
    expression.name == "queue" || expression.target("NFQUEUE").is_some()
}

/// Which queue a rule fills: the attribute of nft's `queue`, or the first field of xtables' `NFQUEUE`, in host byte order.
fn queue_number(expression: &rules::Expression) -> Option<u16> {
    const NUMBER: u16 = 1;
    if expression.name == "queue" {
        return expression.attributes().u16(NUMBER);
    }
    let number = expression.target("NFQUEUE")?.get(..2)?;
    Some(u16::from_ne_bytes(number.try_into().ok()?))
}

/// UDP ports, TCP ports.
fn loaded_ports(socket: &mut NetlinkSocket) -> Result<[Vec<u16>; 2], KernelError> {
    let mut read = |set| {
        let elements = nft::list(socket, set).map_err(KernelError::system("reading the ports"))?;
        // Their keys are in network byte order: sorted by number. Port 0 stands for none.
        let ports = elements.keys().filter_map(|key| Reader::new(key, false).port());
        Ok(ports.filter(|port| *port != 0).collect())
    };
    Ok([read(PORTS_SET)?, read(TCP_PORTS_SET)?])
}

fn remove_entries(is_ours: impl Fn(&Entry) -> bool) -> io::Result<()> {
    let mut conntrack = Conntrack::open(false)?;
    let mut ours = Vec::new();
    conntrack.dump(|entry| {
        if is_ours(&entry) {
            ours.push(entry);
        }
    })?;
    ours.iter().try_for_each(|entry| conntrack.delete(entry))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_has_what_the_daemon_replaces() {
        for text in [PORTS_LINE, TCP_PORTS_LINE, MARK] {
            assert_eq!(SHIPPED.matches(text).count(), 1, "{text}");
        }
        let text = for_daemon(&[5060, 5070], &[5080]);
        assert_eq!(text.matches("define SIPALG_UDP_PORTS = { 5060, 5070 }\n").count(), 1);
        assert_eq!(text.matches("define SIPALG_TCP_PORTS = { 5080 }\n").count(), 1);
        assert_eq!(text.matches("\"sipalg ruleset 3, loaded by the daemon\"").count(), 1);
        assert!(for_daemon(&[5060], &[]).contains("define SIPALG_TCP_PORTS = { 0 }\n"));
    }

    #[test]
    fn the_shipped_file_has_the_chains_that_are_looked_for() {
        let points = QUEUE_POINTS.iter().map(|point| point.chain.to_str().unwrap());
        for chain in points.chain(CHAINS).chain(["about"]) {
            assert_eq!(SHIPPED.matches(&format!("\tchain {chain} {{")).count(), 1, "{chain}");
        }
        assert!(SHIPPED.len() < 32 * 1024);
    }
}
