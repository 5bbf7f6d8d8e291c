//! An executor without a kernel: for tests and for `sipalg explain`.
//!
//! [`Recorder`] writes down every command and answers as a router with port-preserving masquerade would, unless told
//! otherwise. It keeps no maps and checks nothing: what the kernel would make of a command is not its business.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::net::{IpAddr, SocketAddr};

use crate::alg::{Command, Executor, Failure, FlowKey, Inside, Op, Outcome, Outside, Reply, Tuples};

/// Records commands and simulates their outcomes.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    commands: Vec<Command>,
    mappings: HashMap<FlowKey, Option<Outside>>,
    masquerade: Option<IpAddr>,
    failures: Vec<Planned>,
}

/// A failure to come.
#[derive(Clone, Copy, Debug)]
enum Planned {
    /// Of the command with this number, counted from 0.
    At(usize, Failure),
    /// Of every command of a kind.
    Kind(Discriminant<Op>, Failure),
}

impl Recorder {
    /// A recorder to which every flow is unknown: lookups find nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// A router that masquerades every private source behind `public`, keeping the port. Private: RFC 1918, RFC 6598,
    /// RFC 4193.
    pub fn masquerading(public: IpAddr) -> Self {
        Self { masquerade: Some(public), ..Self::default() }
    }

    /// From now on lookups of this flow find this mapping. Goes before the simulated masquerade. `None`: the flow is
    /// there, and the NAT leaves it alone.
    pub fn set_mapping(&mut self, inside: Inside, far: SocketAddr, public: Option<Outside>) {
        self.mappings.insert(FlowKey { transport: crate::alg::Transport::Udp, inside, far }, public);
    }

    /// The command with this number fails, counted from 0 since the beginning.
    pub fn fail_at(&mut self, number: usize, failure: Failure) {
        self.failures.push(Planned::At(number, failure));
    }

    /// Every command of the kind of `example` fails (its content does not matter), until [`Recorder::heal`].
    pub fn fail_kind(&mut self, example: &Op, failure: Failure) {
        self.failures.push(Planned::Kind(discriminant(example), failure));
    }

    /// Nothing fails any more.
    pub fn heal(&mut self) {
        self.failures.clear();
    }

    /// Every command so far, in order.
    pub fn commands(&self) -> &[Command] {
        &self.commands
    }

    /// The commands since the last call; numbers for [`Recorder::fail_at`] begin at 0 again.
    pub fn take_commands(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.commands)
    }

    fn outcome(&self, command: &Command) -> Outcome {
        let number = self.commands.len();
        let planned = self.failures.iter().find_map(|planned| match *planned {
            Planned::At(at, failure) => (at == number).then_some(failure),
            Planned::Kind(kind, failure) => (kind == discriminant(&command.op)).then_some(failure),
        });
        match (planned, &command.op) {
            (Some(failure), _) => Err(failure),
            (None, &Op::Lookup { source, destination, .. }) => {
                Ok(Reply::Found(self.lookup(source, destination)))
            }
            (None, Op::Recognise { .. }) => Ok(Reply::Found(None)),
            (None, Op::Reroute { .. }) => Err(Failure::NotFound),
            (None, _) => Ok(Reply::Done),
        }
    }

    /// Either end of the packet may be the inside one, as with conntrack.
    fn lookup(&self, source: SocketAddr, destination: SocketAddr) -> Option<Tuples> {
        let outbound =
            FlowKey { transport: crate::alg::Transport::Udp, inside: Inside(source), far: destination };
        let inbound =
            FlowKey { transport: crate::alg::Transport::Udp, inside: Inside(destination), far: source };
        let known = |key: FlowKey| Some((key, *self.mappings.get(&key)?));
        let simulated = |key: FlowKey| {
            let public = self.masquerade?;
            let hidden = is_private(key.inside.0.ip()) && !is_private(key.far.ip());
            let same_family = public.is_ipv4() == key.inside.0.is_ipv4();
            (hidden && same_family)
                .then(|| (key, Some(Outside(SocketAddr::new(public, key.inside.0.port())))))
        };
        let (key, public) = known(outbound)
            .or_else(|| known(inbound))
            .or_else(|| simulated(outbound))
            .or_else(|| simulated(inbound))?;
        Some(Tuples {
            transport: crate::alg::Transport::Udp,
            orig_source: key.inside.0,
            orig_destination: key.far,
            reply_source: key.far,
            reply_destination: public.map_or(key.inside.0, |public| public.0),
        })
    }
}

impl Executor for Recorder {
    fn execute(&mut self, commands: &[Command], outcomes: &mut Vec<Outcome>) {
        for command in commands {
            outcomes.push(self.outcome(command));
            self.commands.push(command.clone());
        }
    }
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_private() || (a == 100 && b & 0xc0 == 64)
        }
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alg::CommandId;

    fn lookup(source: &str, destination: &str) -> Command {
        let op = Op::Lookup {
            transport: crate::alg::Transport::Udp,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        };
        Command { id: CommandId::nth(1), op }
    }

    fn run(recorder: &mut Recorder, command: Command) -> Outcome {
        let mut outcomes = Vec::new();
        recorder.execute(&[command], &mut outcomes);
        assert_eq!(outcomes.len(), 1);
        outcomes[0]
    }

    fn tuples(a: &str, b: &str, c: &str, d: &str) -> Tuples {
        let p = |s: &str| s.parse().unwrap();
        Tuples {
            transport: crate::alg::Transport::Udp,
            orig_source: p(a),
            orig_destination: p(b),
            reply_source: p(c),
            reply_destination: p(d),
        }
    }

    #[test]
    fn masquerade_is_simulated_for_either_direction() {
        let mut recorder = Recorder::masquerading("22.33.44.55".parse().unwrap());
        let (phone, server) = ("192.168.1.10:5060", "22.33.44.20:5060");
        let entry = tuples(phone, server, server, "22.33.44.55:5060");
        assert_eq!(run(&mut recorder, lookup(phone, server)), Ok(Reply::Found(Some(entry))));
        assert_eq!(run(&mut recorder, lookup(server, phone)), Ok(Reply::Found(Some(entry))));
        assert_eq!(run(&mut recorder, lookup(phone, "192.168.1.11:5060")), Ok(Reply::Found(None)));
        assert_eq!(recorder.commands().len(), 3);
    }

    #[test]
    fn a_given_mapping_goes_before_the_simulated_one() {
        let mut recorder = Recorder::masquerading("22.33.44.55".parse().unwrap());
        let (phone, server) = ("192.168.1.10:5060", "22.33.44.20:5060");
        let public = Outside("22.33.44.55:17375".parse().unwrap());
        recorder.set_mapping(Inside(phone.parse().unwrap()), server.parse().unwrap(), Some(public));
        let entry = tuples(phone, server, server, "22.33.44.55:17375");
        assert_eq!(run(&mut recorder, lookup(server, phone)), Ok(Reply::Found(Some(entry))));
    }

    #[test]
    fn planned_failures_hit_their_command_only() {
        let mut recorder = Recorder::new();
        recorder.fail_at(1, Failure::Full);
        let command = || lookup("10.0.0.1:1", "10.0.0.2:2");
        let close = Op::Close { pinholes: <_>::default(), peers: vec![], quarantine: <_>::default() };
        recorder.fail_kind(&close, Failure::PortInUse);
        assert_eq!(run(&mut recorder, command()), Ok(Reply::Found(None)));
        assert_eq!(run(&mut recorder, command()), Err(Failure::Full));
        assert_eq!(run(&mut recorder, command()), Ok(Reply::Found(None)));
        let close = Command { id: CommandId::nth(4), op: close };
        assert_eq!(run(&mut recorder, close.clone()), Err(Failure::PortInUse));
        recorder.heal();
        assert_eq!(run(&mut recorder, close), Ok(Reply::Done));
        assert_eq!(recorder.take_commands().len(), 5);
    }
}
