//! Finds the kernel's own `sip` helper at work on our ports.
//!
//! Two ALGs on one flow translate each other's work; so whoever attached the other one has to decide. It can be attached
//! by nft (`ct helper set`), by iptables over nft (target CT), by iptables of old, or by itself (kernels before 6.0 with
//! a sysctl). Flows keep it until they die. Each finding names the command that detaches it. A loaded module alone does
//! nothing.

use std::path::Path;
use std::process::Command;
use std::{fs, io};

use super::{Finding, sysctl};
use crate::alg::Transport;
use crate::kernel::conntrack::Conntrack;
use crate::kernel::rules::{self, Expression, Rule, text};
use crate::kernel::ruleset::RulesetSettings;
use crate::kernel::socket::NetlinkSocket;
use crate::netlink::{MessageType, NLM_F_DUMP, Writer};

const NAME: &str = "sip-helper";
const HELPER: &str = "sip";

const NFTABLES: u8 = 10;
const NFT_MSG_GETOBJ: u8 = 19;
const NFT_OBJECT_CT_HELPER: u32 = 3;
const OBJ_TABLE: u16 = 1;
const OBJ_NAME: u16 = 2;
const OBJ_TYPE: u16 = 3;
const OBJ_DATA: u16 = 4;
const CT_HELPER_NAME: u16 = 1;
const OBJREF_IMM_TYPE: u16 = 1;
const OBJREF_IMM_NAME: u16 = 2;
const OBJREF_SET_NAME: u16 = 4;

/// Flows that are ours: to these ports of this protocol.
#[derive(Clone, Copy, Debug)]
struct Ours<'a> {
    transport: Transport,
    ports: &'a [u16],
}

impl Ours<'_> {
    /// As rules and programs call the protocol.
    fn protocol(self) -> &'static str {
        match self.transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        }
    }

    fn number(self) -> u8 {
        match self.transport {
            Transport::Udp => libc::IPPROTO_UDP as u8,
            Transport::Tcp => libc::IPPROTO_TCP as u8,
        }
    }

    fn have(self, port: u16) -> bool {
        self.ports.contains(&port)
    }
}

/// Everything that attaches, or has attached, the helper to the ports. One finding if there is nothing.
pub(super) fn find(socket: &mut NetlinkSocket, settings: &RulesetSettings) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for (transport, ports) in [(Transport::Udp, &settings.ports), (Transport::Tcp, &settings.tcp_ports)] {
        let ours = Ours { transport, ports };
        let mut found = in_nftables(socket, ours).unwrap_or_else(|error| vec![unknown("nftables", &error)]);
        found.extend(in_old_iptables(ours));
        found.extend(by_itself(ours));
        found.extend(in_conntrack(ours).unwrap_or_else(|error| vec![unknown("conntrack", &error)]));
        // A rule may be for both.
        found.retain(|finding| !findings.contains(finding));
        findings.extend(found);
    }
    if findings.is_empty() {
        let loaded = ["nf_nat_sip", "nf_conntrack_sip"].map(|name| format!("/sys/module/{name}"));
        findings.push(if loaded.iter().any(|path| Path::new(path).exists()) {
            Finding::note(NAME, "the kernel's sip helper is there, and attached to nothing: no harm", "")
        } else {
            Finding::ok(NAME, "the kernel's sip helper is not at work")
        });
    }
    findings
}

fn unknown(place: &str, error: &io::Error) -> Finding {
    let text =
        format!("whether the kernel's sip helper is at work in {place} could not be found out: {error}");
    Finding::note(NAME, text, "")
}

fn conflict(text: String, remedy: String) -> Finding {
    Finding::problem(NAME, text, remedy)
}

fn in_nftables(socket: &mut NetlinkSocket, ours: Ours<'_>) -> io::Result<Vec<Finding>> {
    let objects = helper_objects(socket)?;
    let rules = rules::list(socket, None)?;
    let attaching = rules.iter().filter(|rule| attaches(rule, &objects) && meets(rule, ours));
    Ok(attaching
        .map(|rule| {
            let Rule { table, chain, .. } = rule;
            let text = format!("a rule in table {table}, chain {chain} attaches the kernel's sip helper: two ALGs fight");
            let mut remedy = rule.deletion();
            if table == "firewalld" {
                remedy = "firewall-cmd --permanent --remove-service=sip --add-port=5060/udp --add-port=5060/tcp && firewall-cmd --reload".into();
            }
            conflict(text, remedy)
        })
        .collect())
}

/// A `ct helper` object of nft for the sip helper.
struct HelperObject {
    family: u8,
    table: String,
    name: String,
}

fn helper_objects(socket: &mut NetlinkSocket) -> io::Result<Vec<HelperObject>> {
    let mut writer = Writer::new();
    let kind = MessageType { subsystem: NFTABLES, message: NFT_MSG_GETOBJ };
    writer.message(kind, NLM_F_DUMP, 1, libc::NFPROTO_UNSPEC as u8, 0, |_| ());
    let mut objects = Vec::new();
    socket.call(writer.bytes(), |message| {
        let object = message.attributes();
        let helper = object.nested(OBJ_DATA).bytes(CT_HELPER_NAME).map(text);
        if object.u32(OBJ_TYPE) == Some(NFT_OBJECT_CT_HELPER) && helper.as_deref() == Some(HELPER) {
            let name = |kind| object.bytes(kind).map(text).unwrap_or_default();
            objects.push(HelperObject {
                family: message.family(),
                table: name(OBJ_TABLE),
                name: name(OBJ_NAME),
            });
        }
    })?;
    Ok(objects)
}

fn attaches(rule: &Rule, objects: &[HelperObject]) -> bool {
    let is_here = |object: &&HelperObject| object.family == rule.family && object.table == rule.table;
    let by_nft = |expression: &Expression| {
        let attributes = expression.attributes();
        let by_name = || {
            let name = attributes.bytes(OBJREF_IMM_NAME).map(text);
            let is_helper = attributes.u32(OBJREF_IMM_TYPE) == Some(NFT_OBJECT_CT_HELPER);
            is_helper && objects.iter().filter(is_here).any(|object| Some(&object.name) == name.as_ref())
        };
        // A map of helpers: which one it gives is not looked up.
        let by_map =
            || attributes.bytes(OBJREF_SET_NAME).is_some() && objects.iter().any(|object| is_here(&object));
        expression.name == "objref" && (by_name() || by_map())
    };
    // struct xt_ct_target_info*: flags, zone (u16 each), two masks of events (u32 each), char helper[16].
    let by_xtables = |expression: &Expression| {
        expression.target("CT").and_then(|info| info.get(12..28)).is_some_and(|name| text(name) == HELPER)
    };
    rule.expressions.iter().any(|expression| by_nft(expression) || by_xtables(expression))
}

/// Whether the rule may hold for a packet of ours. Only plain comparisons of protocol and destination port
/// say no.
fn meets(rule: &Rule, ours: Ours<'_>) -> bool {
    let mut pairs = rule.expressions.iter().zip(rule.expressions.iter().skip(1));
    let may_be_equal =
        |(load, compare): (&Expression, &Expression)| match (loaded_field(load), equals(compare)) {
            (Some(Field::Protocol), Some([protocol])) => *protocol == ours.number(),
            (Some(Field::Port), Some(&[high, low])) => ours.have(u16::from_be_bytes([high, low])),
            _ => true,
        };
    pairs.all(may_be_equal) && rule.expressions.iter().all(|expression| may_match(expression, ours))
}

enum Field {
    Protocol,
    Port,
}

/// What an expression loads into its register.
fn loaded_field(load: &Expression) -> Option<Field> {
    const META_KEY: u16 = 2;
    const META_L4PROTO: u32 = 16;
    const PAYLOAD: [u16; 3] = [2, 3, 4]; // base, offset, length
    let attributes = load.attributes();
    match load.name.as_str() {
        "meta" => (attributes.u32(META_KEY)? == META_L4PROTO).then_some(Field::Protocol),
        "payload" => match PAYLOAD.map(|attribute| attributes.u32(attribute)) {
            [Some(1), Some(9), Some(1)] => Some(Field::Protocol), // of the IPv4 header
            [Some(2), Some(2), Some(2)] => Some(Field::Port),     // of the transport header
            _ => None,
        },
        _ => None,
    }
}

/// If the expression is `==`: the bytes.
fn equals(compare: &Expression) -> Option<&[u8]> {
    const CMP_OP: u16 = 2;
    const CMP_DATA: u16 = 3;
    const DATA_VALUE: u16 = 1;
    const EQUAL: u32 = 0;
    let attributes = compare.attributes();
    let is_equal = compare.name == "cmp" && attributes.u32(CMP_OP) == Some(EQUAL);
    attributes.nested(CMP_DATA).bytes(DATA_VALUE).filter(|_| is_equal)
}

/// xtables' matches `udp` and `tcp`; four u16 in host order: source from and to, destination from and to.
fn may_match(expression: &Expression, ours: Ours<'_>) -> bool {
    const MATCH_NAME: u16 = 1;
    const MATCH_INFO: u16 = 3;
    let attributes = expression.attributes();
    match attributes.bytes(MATCH_NAME).filter(|_| expression.name == "match").map(text).as_deref() {
        Some(protocol @ ("udp" | "tcp")) if protocol != ours.protocol() => false,
        Some("udp" | "tcp") => {
            let info = attributes.bytes(MATCH_INFO).unwrap_or_default();
            let port = |at| Some(u16::from_ne_bytes(info.get(at..at + 2)?.try_into().ok()?));
            let (first, last) = (port(4).unwrap_or(0), port(6).unwrap_or(u16::MAX));
            ours.ports.iter().any(|port| (first..=last).contains(port))
        }
        _ => true,
    }
}

/// Tables of iptables that are not nftables underneath; asked for only if there are any.
fn in_old_iptables(ours: Ours<'_>) -> Vec<Finding> {
    let versions = [("ip_tables_names", "iptables-legacy"), ("ip6_tables_names", "ip6tables-legacy")];
    let mut findings = Vec::new();
    for (names, program) in versions {
        let tables = fs::read_to_string(format!("/proc/thread-self/net/{names}")).unwrap_or_default();
        if !tables.lines().any(|table| table == "raw") {
            continue;
        }
        let Ok(output) = Command::new(format!("{program}-save")).args(["-t", "raw"]).output() else {
            continue;
        };
        let saved = String::from_utf8_lossy(&output.stdout);
        findings.extend(saved.lines().filter(|line| line_attaches(line, ours)).map(|line| {
            let remedy = format!("{program} -t raw {}", line.replacen("-A", "-D", 1));
            conflict(format!("a rule of {program} attaches the kernel's sip helper: two ALGs fight"), remedy)
        }));
    }
    findings
}

fn line_attaches(line: &str, ours: Ours<'_>) -> bool {
    let words: Vec<_> = line.split_whitespace().collect();
    let after = |option: &str| words.iter().position(|word| *word == option).and_then(|at| words.get(at + 1));
    let meets = after("--dport").is_none_or(|given| {
        let (first, last) = given.split_once(':').unwrap_or((given, given));
        let range = first.parse().unwrap_or(0)..=last.parse().unwrap_or(u16::MAX);
        ours.ports.iter().any(|port| range.contains(port))
    });
    let is_ours = after("-p").is_none_or(|protocol| *protocol == ours.protocol());
    line.starts_with("-A") && after("--helper") == Some(&HELPER) && is_ours && meets
}

/// Kernels before 6.0 could give every flow to port 5060 to the helper.
fn by_itself(ours: Ours<'_>) -> Option<Finding> {
    let automatic = sysctl("net/netfilter/nf_conntrack_helper") == Some(1);
    let there = Path::new("/sys/module/nf_conntrack_sip").exists();
    (automatic && there && ours.have(5060)).then(|| {
        conflict(
            "the kernel gives every flow to port 5060 to its sip helper: two ALGs fight".into(),
            "sysctl -w net.netfilter.nf_conntrack_helper=0".into(),
        )
    })
}

fn in_conntrack(Ours { transport, ports }: Ours<'_>) -> io::Result<Vec<Finding>> {
    let mut helped = vec![0usize; ports.len()];
    Conntrack::open(false)?.dump(|entry| {
        let port = entry.original.destination.port();
        let at = ports
            .iter()
            .position(|p| *p == port)
            .filter(|_| entry.original.transport == transport && entry.helper.as_deref() == Some(HELPER));
        if let Some(count) = at.and_then(|at| helped.get_mut(at)) {
            *count += 1;
        }
    })?;
    let helped = ports.iter().zip(helped).filter(|(_, count)| *count > 0);
    Ok(helped
        .map(|(port, count)| {
            let text =
                format!("{count} flows to port {port} still have the kernel's sip helper: two ALGs fight");
            let protocol = Ours { transport, ports }.protocol();
            conflict(text, format!("conntrack -D -p {protocol} --dport {port}"))
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_iptables_are_judged_by_helper_and_port() {
        let line = "-A PREROUTING -p udp -m udp --dport 5060 -j CT --helper sip";
        let [udp, tcp] = [Transport::Udp, Transport::Tcp].map(|transport| Ours { transport, ports: &[5060] });
        assert!(line_attaches(line, udp));
        assert!(!line_attaches(line, Ours { ports: &[5070], ..udp }));
        assert!(!line_attaches(&line.replace("sip", "ftp"), udp));
        assert!(line_attaches("-A PREROUTING -p udp --dport 5000:5100 -j CT --helper sip", udp));
        assert!(line_attaches("-A PREROUTING -p udp -j CT --helper sip", udp));
        assert!(!line_attaches("-A PREROUTING -p tcp --dport 5060 -j CT --helper sip", udp));
        assert!(line_attaches("-A PREROUTING -p tcp --dport 5060 -j CT --helper sip", tcp));
        assert!(!line_attaches("*raw", udp));
    }
}
