//! SIP over TCP through the real kernel: a phone, a router with NAT, firewall and `sipalg run`, a server; their TCP is the
//! kernel's, and what they say is ours, so that every byte that arrives is compared with what it must be.
//!
//! Needs root, `ip`, `nft`, `conntrack`, `sysctl` and `ethtool`, and fails without them.
//!
//! `SIPALG_TCP_MODE=plain` puts a router without NAT, firewall and sipalg in between, and every message must arrive as it was
//! written: what fails then is wrong with a test, not with sipalg. Tests about the daemon's end have nothing to do there.

#![allow(clippy::unwrap_used)] // clippy knows tests by their attribute only, not their helpers

#[path = "netns_tcp/attack.rs"]
mod attack;
#[path = "netns_tcp/ends.rs"]
mod ends;
#[path = "common/gateway.rs"]
mod gateway;
#[path = "netns_tcp/messages.rs"]
mod messages;
#[path = "common/netns.rs"]
mod netns;
#[path = "common/notices.rs"]
mod notices;
#[path = "netns_tcp/peers.rs"]
mod peers;
#[path = "netns_tcp/streams.rs"]
mod streams;
#[path = "netns_tcp/world.rs"]
mod world;
