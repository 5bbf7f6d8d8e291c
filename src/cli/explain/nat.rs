//! A NAT router that exists only for the explanation.
//!
//! It gives inside endpoints public ones as Linux's masquerade does, the same port if that is free, and answers for
//! conntrack. It opens nothing: what the engine asks for is written down.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use crate::alg::{Command, Executor, Op, Outcome, Prefix, Reply, Tuples};

/// The router.
#[derive(Debug)]
pub(super) struct Nat {
    public: IpAddr,
    inside: Vec<Prefix>,
    mappings: BTreeMap<SocketAddr, SocketAddr>,
    taken: BTreeSet<SocketAddr>,
    log: Vec<(Command, Outcome)>,
}

impl Nat {
    /// A router that hides the addresses of `inside` behind `public`.
    pub(super) fn new(public: IpAddr, inside: Vec<Prefix>) -> Self {
        Self { public, inside, mappings: BTreeMap::new(), taken: BTreeSet::new(), log: Vec::new() }
    }

    /// Maps `inside` to `outside`, and nothing else than that by choice.
    pub(super) fn fix(&mut self, inside: SocketAddr, outside: SocketAddr) {
        self.mappings.insert(inside, outside);
        self.taken.insert(outside);
    }

    /// Whether an address is one of those that the router hides.
    pub(super) fn hides(&self, address: IpAddr) -> bool {
        self.inside.iter().any(|block| block.contains(address))
    }

    /// The public endpoint of `inside`; an endpoint that is not hidden, or of the other family, stays what it is.
    pub(super) fn outside(&mut self, inside: SocketAddr) -> SocketAddr {
        if let Some(outside) = self.mappings.get(&inside) {
            return *outside;
        }
        if !self.hides(inside.ip()) || inside.is_ipv4() != self.public.is_ipv4() {
            return inside;
        }
        let high = (inside.port().max(1024)..=u16::MAX).chain(1024..=u16::MAX);
        let port = std::iter::once(inside.port())
            .chain(high)
            .find(|port| !self.taken.contains(&SocketAddr::new(self.public, *port)))
            .unwrap_or(inside.port());
        let outside = SocketAddr::new(self.public, port);
        self.fix(inside, outside);
        outside
    }

    /// What was asked for since the last call.
    pub(super) fn take_log(&mut self) -> Vec<(Command, Outcome)> {
        std::mem::take(&mut self.log)
    }

    /// conntrack's entry for a packet as seen at FORWARD. A flow whose beginning nobody saw was begun inside.
    fn entry(&mut self, source: SocketAddr, destination: SocketAddr) -> Tuples {
        let (inner, far) = if self.outside(source) == source && self.outside(destination) != destination {
            (destination, source)
        } else {
            (source, destination)
        };
        Tuples {
            orig_source: inner,
            orig_destination: far,
            reply_source: far,
            reply_destination: self.outside(inner),
        }
    }
}

impl Executor for Nat {
    fn execute(&mut self, commands: &[Command], outcomes: &mut Vec<Outcome>) {
        for command in commands {
            let outcome = match command.op {
                Op::Lookup { source, destination } => Ok(Reply::Found(Some(self.entry(source, destination)))),
                _ => Ok(Reply::Done),
            };
            outcomes.push(outcome);
            self.log.push((command.clone(), outcome));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn nat() -> Nat {
        Nat::new(
            "203.0.113.1".parse().unwrap(),
            vec![Prefix { address: "192.168.0.0".parse().unwrap(), bits: 16 }],
        )
    }

    #[test]
    fn ports_are_kept_while_they_are_free() {
        let mut nat = nat();
        assert_eq!(nat.outside(at("192.168.1.10:5060")), at("203.0.113.1:5060"));
        assert_eq!(nat.outside(at("192.168.1.11:5060")), at("203.0.113.1:5061"));
        assert_eq!(nat.outside(at("192.168.1.10:5060")), at("203.0.113.1:5060"));
        assert_eq!(nat.outside(at("198.51.100.1:5060")), at("198.51.100.1:5060"));
        assert_eq!(nat.outside(at("[fd00::1]:5060")), at("[fd00::1]:5060"));
    }

    #[test]
    fn both_directions_of_a_flow_have_one_entry() {
        let mut nat = nat();
        let entry = nat.entry(at("192.168.1.10:5060"), at("198.51.100.1:5060"));
        assert_eq!(entry.orig_source, at("192.168.1.10:5060"));
        assert_eq!(entry.reply_destination, at("203.0.113.1:5060"));
        assert_eq!(nat.entry(at("198.51.100.1:5060"), at("192.168.1.10:5060")), entry);
    }
}
