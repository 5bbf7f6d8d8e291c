//! A NAT router that exists only for the explanation.
//!
//! It gives inside endpoints public ones as Linux's masquerade does, the same port if that is free, and tells the
//! [`Recorder`] about each flow, which answers for conntrack. Nothing is opened: what the engine asks for is recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::session::Direction;
use crate::alg::{Command, Executor, Inside, Outcome, Outside, Prefix};
use crate::kernel::fake::Recorder;

/// The router.
#[derive(Debug)]
pub(super) struct Nat {
    public: IpAddr,
    inside: Vec<Prefix>,
    mappings: BTreeMap<SocketAddr, SocketAddr>,
    taken: BTreeSet<SocketAddr>,
    recorder: Recorder,
    outcomes: Vec<Outcome>,
}

impl Nat {
    /// A router that hides the addresses of `inside` behind `public`.
    pub(super) fn new(public: IpAddr, inside: Vec<Prefix>) -> Self {
        Self {
            public,
            inside,
            mappings: BTreeMap::new(),
            taken: BTreeSet::new(),
            recorder: Recorder::new(),
            outcomes: Vec::new(),
        }
    }

    /// Maps `inside` to `outside`, and nothing else than that by choice.
    pub(super) fn fix(&mut self, inside: SocketAddr, outside: SocketAddr) {
        self.mappings.insert(inside, outside);
        self.taken.insert(outside);
    }

    /// Which way a packet goes. Between two hidden endpoints, or two others, it does not pass the NAT.
    pub(super) fn direction(&self, source: SocketAddr, destination: SocketAddr) -> Direction {
        match (self.hides(source), self.hides(destination)) {
            (true, false) => Direction::Out,
            (false, true) => Direction::In,
            (true, true) | (false, false) => Direction::Through,
        }
    }

    /// What the packet's source is behind the NAT.
    pub(super) fn translate(&mut self, source: SocketAddr, destination: SocketAddr) -> SocketAddr {
        match self.direction(source, destination) {
            Direction::Out => self.outside(source),
            Direction::In | Direction::Through => source,
        }
    }

    /// A flow has its conntrack entry from now on. A flow whose beginning nobody saw was begun inside.
    pub(super) fn track(&mut self, source: SocketAddr, destination: SocketAddr) {
        let (inner, far) = match self.direction(source, destination) {
            Direction::Out | Direction::Through => (source, destination),
            Direction::In => (destination, source),
        };
        let outer = self.translate(inner, far);
        self.recorder.set_mapping(Inside(inner), far, (outer != inner).then_some(Outside(outer)));
    }

    /// Whether `address` is one that the NAT hides.
    pub(super) fn is_inside(&self, address: IpAddr) -> bool {
        self.inside.iter().any(|block| block.contains(address))
            || self.mappings.keys().any(|inside| inside.ip() == address)
    }

    fn hides(&self, endpoint: SocketAddr) -> bool {
        let same_family = endpoint.is_ipv4() == self.public.is_ipv4();
        let address = endpoint.ip();
        self.mappings.contains_key(&endpoint)
            || same_family && self.inside.iter().any(|block| block.contains(address))
    }

    /// The public endpoint of a hidden one.
    fn outside(&mut self, inside: SocketAddr) -> SocketAddr {
        if let Some(outside) = self.mappings.get(&inside) {
            return *outside;
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

    /// What was asked for since the last call, and what came of it.
    pub(super) fn take_log(&mut self) -> Vec<(Command, Outcome)> {
        self.recorder.take_commands().into_iter().zip(self.outcomes.drain(..)).collect()
    }
}

impl Executor for Nat {
    fn execute(&mut self, commands: &[Command], outcomes: &mut Vec<Outcome>) {
        let before = outcomes.len();
        self.recorder.execute(commands, outcomes);
        self.outcomes.extend(outcomes.iter().skip(before).copied());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alg::{CommandId, Op, Reply, Tuples};

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
        let (mut nat, server) = (nat(), at("198.51.100.1:5060"));
        assert_eq!(nat.translate(at("192.168.1.10:5060"), server), at("203.0.113.1:5060"));
        assert_eq!(nat.translate(at("192.168.1.11:5060"), server), at("203.0.113.1:5061"));
        assert_eq!(nat.translate(at("192.168.1.10:5060"), server), at("203.0.113.1:5060"));
    }

    #[test]
    fn what_does_not_cross_the_border_is_not_translated() {
        let mut nat = nat();
        let (phone, other, server) =
            (at("192.168.1.10:5060"), at("192.168.1.11:5060"), at("198.51.100.1:5060"));
        for (from, to, direction) in [
            (phone, server, Direction::Out),
            (server, phone, Direction::In),
            (phone, other, Direction::Through),
            (server, server, Direction::Through),
            (at("[fd00::1]:5060"), at("[2001:db8::1]:5060"), Direction::Through),
        ] {
            assert_eq!(nat.direction(from, to), direction);
            assert_eq!(nat.translate(from, to) != from, direction == Direction::Out);
        }
    }

    #[test]
    fn both_directions_of_a_flow_have_one_entry() {
        let mut nat = nat();
        let (phone, server) = (at("192.168.1.10:5060"), at("198.51.100.1:5060"));
        nat.track(server, phone);
        let ask = |source, destination| Command {
            id: CommandId::nth(1),
            op: Op::Lookup { transport: crate::alg::Transport::Udp, source, destination },
        };
        let mut outcomes = Vec::new();
        nat.execute(
            &[ask(phone, server), ask(server, phone), ask(phone, at("198.51.100.2:5060"))],
            &mut outcomes,
        );
        let entry = Tuples {
            transport: crate::alg::Transport::Udp,
            orig_source: phone,
            orig_destination: server,
            reply_source: server,
            reply_destination: at("203.0.113.1:5060"),
        };
        assert_eq!(
            outcomes,
            [Ok(Reply::Found(Some(entry))), Ok(Reply::Found(Some(entry))), Ok(Reply::Found(None))]
        );
        assert_eq!(nat.take_log().len(), 3);
        assert_eq!(nat.take_log().len(), 0);
    }
}
