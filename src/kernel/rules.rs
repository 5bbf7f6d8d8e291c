//! Reads rules back from nf_tables.
//!
//! `nft -j list ruleset` would tell the same, but it starts a program, reads every element of every set and hides what is
//! inside xtables' targets. Here a rule is its place, its comment and its expressions; only those expressions are
//! understood that somebody asks about. Reads only.

use std::io;

use super::socket::NetlinkSocket;
use crate::netlink::{Attributes, Message, MessageType, NLM_F_DUMP, Writer};

const NFTABLES: u8 = 10;
const GETRULE: u8 = 7;
const NEWRULE: u8 = 6;

const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USERDATA: u16 = 7;
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;

const TARGET_NAME: u16 = 1;
const TARGET_INFO: u16 = 3;

const CT_KEY: u16 = 2;
const CT_SREG: u16 = 4;
const CT_KEY_ZONE: u32 = 17;

/// A rule of any table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// `NFPROTO_*`
    pub(super) family: u8,
    pub(super) table: String,
    pub(super) chain: String,
    pub(super) handle: u64,
    pub(super) comment: Option<String>,
    pub(super) expressions: Vec<Expression>,
}

/// One expression: its name and its attributes as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expression {
    pub(super) name: String,
    pub(super) data: Vec<u8>,
}

impl Expression {
    /// Its attributes.
    pub(super) fn attributes(&self) -> Attributes<'_> {
        Attributes(&self.data)
    }

    /// If it is this target of xtables: the target's own bytes.
    pub(super) fn target(&self, name: &str) -> Option<&[u8]> {
        let attributes = self.attributes();
        let is_it = self.name == "target" && text(attributes.bytes(TARGET_NAME)?) == name;
        is_it.then(|| attributes.bytes(TARGET_INFO)).flatten()
    }
}

impl Rule {
    /// The words with which `nft` deletes it.
    pub(super) fn deletion(&self) -> String {
        let family = family_name(self.family);
        format!("nft delete rule {family} {} {} handle {}", self.table, self.chain, self.handle)
    }
}

/// The name by which nft calls a family.
pub(super) fn family_name(family: u8) -> &'static str {
    match i32::from(family) {
        libc::NFPROTO_INET => "inet",
        libc::NFPROTO_IPV4 => "ip",
        libc::NFPROTO_IPV6 => "ip6",
        libc::NFPROTO_ARP => "arp",
        libc::NFPROTO_NETDEV => "netdev",
        libc::NFPROTO_BRIDGE => "bridge",
        _ => "?",
    }
}

/// The rules of a table; of all tables if none is named.
pub(super) fn list(socket: &mut NetlinkSocket, table: Option<&str>) -> io::Result<Vec<Rule>> {
    let family = table.map_or(libc::NFPROTO_UNSPEC, |_| libc::NFPROTO_INET);
    let mut writer = Writer::new();
    let kind = MessageType { subsystem: NFTABLES, message: GETRULE };
    writer.message(kind, NLM_F_DUMP, 1, family as u8, 0, |w| {
        if let Some(table) = table {
            w.put_with(RULE_TABLE, |bytes| {
                bytes.extend_from_slice(table.as_bytes());
                bytes.push(0);
            });
        }
    });
    let mut rules = Vec::new();
    match socket.call(writer.bytes(), |message| rules.extend(parse(message))) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Vec::new()),
        result => result.map(|()| rules),
    }
}

/// Whether any rule puts flows into conntrack zones.
pub(super) fn uses_zones(socket: &mut NetlinkSocket) -> io::Result<bool> {
    let sets_zone = |expression: &Expression| {
        let attributes = expression.attributes();
        let native = expression.name == "ct"
            && attributes.u32(CT_KEY) == Some(CT_KEY_ZONE)
            && attributes.bytes(CT_SREG).is_some();
        // struct xt_ct_target_info: flags, zone; both u16 in host order.
        let compat =
            expression.target("CT").and_then(|info| info.get(2..4)).is_some_and(|zone| zone != [0, 0]);
        native || compat
    };
    Ok(list(socket, None)?.iter().flat_map(|rule| &rule.expressions).any(sets_zone))
}

fn parse(message: &Message<'_>) -> Option<Rule> {
    if message.kind() != (MessageType { subsystem: NFTABLES, message: NEWRULE }) {
        return None;
    }
    let attributes = message.attributes();
    let expressions = attributes.nested(RULE_EXPRESSIONS).map(|(_, element)| {
        let element = Attributes(element);
        let name = text(element.bytes(EXPR_NAME).unwrap_or_default());
        Expression { name, data: element.bytes(EXPR_DATA).unwrap_or_default().to_vec() }
    });
    Some(Rule {
        family: message.family(),
        table: text(attributes.bytes(RULE_TABLE)?),
        chain: text(attributes.bytes(RULE_CHAIN)?),
        handle: u64::from_be_bytes(attributes.bytes(RULE_HANDLE)?.try_into().ok()?),
        comment: attributes.bytes(RULE_USERDATA).and_then(comment),
        expressions: expressions.collect(),
    })
}

/// nft keeps comments among its own notes on a rule: type, length, value; type 0 is the comment.
fn comment(mut userdata: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = userdata {
        let (value, next) = rest.split_at_checked(usize::from(*length))?;
        if *kind == 0 {
            return Some(text(value));
        }
        userdata = next;
    }
    None
}

/// A C string, or what there is of one.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_found_among_other_notes() {
        assert_eq!(comment(b"\x01\x02ab\x00\x03hi\x00"), Some("hi".to_owned()));
        assert_eq!(comment(b"\x00\x09hi\x00"), None);
        assert_eq!(comment(b"\x00"), None);
        assert_eq!(comment(b""), None);
    }
}
