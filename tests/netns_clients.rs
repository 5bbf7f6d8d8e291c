//! Calls with telephones, servers and tools that we did not write, through the real `sipalg run`.
//!
//! SIPp, baresip and Kamailio run in network namespaces on both sides of a router that has an administrator's ruleset
//! and sipalg with its default configuration. None of them is told of the NAT. What they did is judged by their own
//! exit codes and logs, by media with a checked payload, by tones that are recognised on the other side, and by `nft`,
//! `conntrack`, `tcpdump` and `tshark`. Nothing of sipalg is linked in here.
//!
//! Needs root and, from Debian: sip-tester, baresip-core, kamailio, nftables, conntrack, tcpdump, tshark, iproute2,
//! ethtool. Without one of them a test fails; none is skipped.
//!
//! `SIPALG_CLIENTS_MODE` chooses what stands between the two sides:
//! - `sipalg` (the default): NAT, firewall and sipalg;
//! - `routed`: neither NAT nor firewall nor sipalg; all tests must pass, or a scenario is wrong in itself;
//! - `bare`: NAT and firewall without sipalg; every test with a call must fail, or it does not test sipalg.
//!
//! Where to start reading: `clients/world.rs` (the network), `clients/calls.rs`, `clients/voices.rs`,
//! `clients/upkeep.rs` (the tests).

mod clients;
