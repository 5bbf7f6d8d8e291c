//! A restart: the engine's tables go through a state, and its JSON, into a new engine, which compares itself with the kernel.

use std::time::Duration;

use sipalg::alg::{Engine, Held, Inside, Outside, Pinhole, Policy, State, Transport};

use super::{Bench, WAN};

/// What the simulated kernel has, as the real one would list it.
pub fn held(bench: &Bench) -> Held {
    let hour = Duration::from_secs(3600);
    let pinhole = |(public, inside): (&std::net::SocketAddr, &Inside)| {
        (
            Pinhole {
                transport: if bench.kernel.tcp.contains(public) { Transport::Tcp } else { Transport::Udp },
                inside: *inside,
                public: Outside(*public),
                uplink: WAN,
            },
            hour,
        )
    };
    Held {
        pinholes: bench.kernel.pinholes.iter().map(pinhole).collect(),
        owned: bench.kernel.pinholes.keys().map(|public| (Outside(*public), hour)).collect(),
        peers: bench.kernel.peers.iter().map(|peer| (*peer, hour)).collect(),
        followed: Vec::new(),
    }
}

/// A state after a trip through a file.
pub fn written(state: &State) -> State {
    let text = serde_json::to_string(state).expect("a state has string keys only");
    let read: State = serde_json::from_str(&text).expect("what was written is read");
    assert_eq!(read, *state);
    read
}

/// A new engine takes over what the old one knew; it was `away` for so long. Its own seed is another one.
pub fn restart(bench: &mut Bench, away: Duration, policy: Policy) {
    let state = written(&bench.engine.export(bench.now));
    bench.now += away;
    bench.engine = Engine::new(Policy { seed: [7, 8], ..policy });
    bench.engine.import(bench.now, away, state);
    let held = held(bench);
    bench.engine.reconcile(bench.now, &held);
    bench.advance(Duration::ZERO);
}
