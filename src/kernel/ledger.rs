//! What should be in the maps and sets.
//!
//! Whoever flushes the ruleset takes every element with it, and the engine would renew them only at half of their
//! lifetime. So each command that was carried out is entered here, and [`Ledger::commands`] gives the commands that put
//! everything back. An entry dies when its element would. The kernel is never asked.

use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::alg::{Line, Op, Outside, Peer, Pinhole, Pinholes, Transport};

/// Dead entries are swept when there may be this many of them beside the living.
const SLACK: usize = 1024;

/// What has been opened and not closed.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pinholes: HashMap<Pinhole, Instant, RandomState>,
    peers: HashMap<Peer, Instant, RandomState>,
    quarantine: HashMap<(Transport, Outside), Instant, RandomState>,
    followed: HashMap<Line, Instant, RandomState>,
    after_sweep: usize,
}

impl Ledger {
    /// Enters a command that was carried out.
    pub(super) fn enter(&mut self, now: Instant, op: &Op) {
        match op {
            Op::Open { pinholes, lifetime } => self.put(now, pinholes, &[], *lifetime),
            Op::Renew { pinholes, peers, lifetime } => self.put(now, pinholes, peers, *lifetime),
            Op::Admit { peers, lifetime } => self.put(now, &[], peers, *lifetime),
            Op::Close { pinholes, peers, quarantine } => {
                self.dismiss(peers);
                for pinhole in pinholes {
                    self.pinholes.remove(pinhole);
                    if let Some(end) = now.checked_add(*quarantine).filter(|_| !quarantine.is_zero()) {
                        self.quarantine.insert((pinhole.transport, pinhole.public), end);
                    }
                }
            }
            Op::Dismiss { peers } => self.dismiss(peers),
            Op::Follow { line, lifetime } => self.follow(now, *line, *lifetime),
            // A broken one that is forgotten has still lost what was sent in the meantime, and its ends find out.
            Op::Unfollow { line } | Op::Reset { line } => {
                self.followed.remove(line);
            }
            Op::Pin { .. }
            | Op::Unpin { .. }
            | Op::Lookup { .. }
            | Op::Recognise { .. }
            | Op::Sustain { .. }
            | Op::Purge { .. }
            | Op::Reroute { .. }
            | Op::Expect { .. }
            | Op::Unexpect { .. } => {}
        }
        if self.len() > 2 * self.after_sweep + SLACK {
            self.sweep(now);
        }
    }

    /// Enters a connection that is followed already.
    pub(super) fn follow(&mut self, now: Instant, line: Line, lifetime: Duration) {
        if let Some(end) = now.checked_add(lifetime) {
            self.followed.insert(line, end);
        }
    }

    /// Whether any connection is followed.
    pub(super) fn follows(&self) -> bool {
        !self.followed.is_empty()
    }

    /// The commands that make everything again, in an order that leaves nothing open to strangers.
    pub(super) fn commands(&mut self, now: Instant) -> Vec<Op> {
        self.sweep(now);
        let left = |end: Instant| end.saturating_duration_since(now);
        let quarantined = self.quarantine.iter().map(|(&(transport, public), &end)| {
            // What it stood for does not matter: only the public endpoint stays.
            let pinhole = Pinhole { transport, inside: crate::alg::Inside(public.0), public, uplink: 0 };
            Op::Close { pinholes: one(pinhole), peers: Vec::new(), quarantine: left(end) }
        });
        let open = self.pinholes.iter().map(|(&pinhole, &end)| Op::Renew {
            pinholes: one(pinhole),
            peers: Vec::new(),
            lifetime: left(end),
        });
        let admitted =
            self.peers.iter().map(|(&peer, &end)| Op::Admit { peers: vec![peer], lifetime: left(end) });
        let followed = self.followed.iter().map(|(&line, &end)| Op::Follow { line, lifetime: left(end) });
        followed.chain(quarantined).chain(open).chain(admitted).collect()
    }

    /// Whether a public endpoint is, or lately was, one of ours.
    pub(super) fn owns(&self, public: Outside) -> bool {
        let rests = |transport| self.quarantine.contains_key(&(transport, public));
        rests(Transport::Udp)
            || rests(Transport::Tcp)
            || self.pinholes.keys().any(|pinhole| pinhole.public == public)
    }

    fn put(&mut self, now: Instant, pinholes: &[Pinhole], peers: &[Peer], lifetime: Duration) {
        // A lifetime beyond the end of time is no lifetime to put back.
        let Some(end) = now.checked_add(lifetime) else { return };
        self.pinholes.extend(pinholes.iter().map(|&pinhole| (pinhole, end)));
        self.peers.extend(peers.iter().map(|&peer| (peer, end)));
        for pinhole in pinholes {
            self.quarantine.remove(&(pinhole.transport, pinhole.public));
        }
    }

    fn dismiss(&mut self, peers: &[Peer]) {
        for peer in peers {
            self.peers.remove(peer);
        }
    }

    fn sweep(&mut self, now: Instant) {
        self.pinholes.retain(|_, end| *end > now);
        self.peers.retain(|_, end| *end > now);
        self.quarantine.retain(|_, end| *end > now);
        self.followed.retain(|_, end| *end > now);
        self.after_sweep = self.len();
    }

    fn len(&self) -> usize {
        self.pinholes.len() + self.peers.len() + self.quarantine.len() + self.followed.len()
    }
}

fn one(pinhole: Pinhole) -> Pinholes {
    std::iter::once(pinhole).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alg::Inside;

    const MINUTE: Duration = Duration::from_secs(60);

    fn pinhole(port: u16) -> Pinhole {
        let inside = Inside("192.168.1.10:40000".parse().unwrap());
        Pinhole {
            transport: Transport::Udp,
            inside,
            public: Outside(([22, 33, 44, 55], port).into()),
            uplink: 3,
        }
    }

    #[test]
    fn what_is_open_is_opened_again_for_the_time_that_was_left() {
        let (mut ledger, t) = (Ledger::default(), Instant::now());
        let transport = Transport::Udp;
        let peer = Peer { transport, public: pinhole(16384).public, far: Some([22, 33, 44, 22].into()) };
        ledger.enter(t, &Op::Open { pinholes: one(pinhole(16384)), lifetime: 3 * MINUTE });
        ledger.enter(t, &Op::Admit { peers: vec![peer], lifetime: MINUTE });
        assert_eq!(
            ledger.commands(t + MINUTE / 2),
            [
                Op::Renew { pinholes: one(pinhole(16384)), peers: vec![], lifetime: 5 * MINUTE / 2 },
                Op::Admit { peers: vec![peer], lifetime: MINUTE / 2 },
            ]
        );
        let later = Op::Renew { pinholes: one(pinhole(16384)), peers: vec![], lifetime: MINUTE };
        assert_eq!(ledger.commands(t + 2 * MINUTE), [later]);
        assert_eq!(ledger.commands(t + 4 * MINUTE), []);
    }

    #[test]
    fn what_was_closed_stays_closed_for_its_quarantine() {
        let (mut ledger, t) = (Ledger::default(), Instant::now());
        ledger.enter(t, &Op::Open { pinholes: one(pinhole(16384)), lifetime: MINUTE });
        ledger.enter(t, &Op::Close { pinholes: one(pinhole(16384)), peers: vec![], quarantine: MINUTE });
        let commands = ledger.commands(t + MINUTE / 2);
        let [Op::Close { pinholes, quarantine, .. }] = &commands[..] else { panic!("{commands:?}") };
        assert_eq!((pinholes[0].public, *quarantine), (pinhole(16384).public, MINUTE / 2));
        ledger.enter(t + MINUTE, &Op::Open { pinholes: one(pinhole(16384)), lifetime: MINUTE });
        let commands = ledger.commands(t + MINUTE);
        assert!(matches!(&commands[..], [Op::Renew { .. }]), "{commands:?}");
    }

    #[test]
    fn the_dead_are_swept() {
        let (mut ledger, t) = (Ledger::default(), Instant::now());
        for n in 0..50_000u32 {
            let pinhole = Pinhole { uplink: n, ..pinhole(16384) };
            let now = t + Duration::from_secs(u64::from(n));
            ledger.enter(now, &Op::Open { pinholes: one(pinhole), lifetime: MINUTE });
        }
        assert!(ledger.len() < 2 * SLACK, "{}", ledger.len());
    }
}
