//! The network: phones on a LAN, a router with an administrator's ruleset, the outside.
//!
//! ```text
//! phone0 192.168.1.10 ─┐                                                          ┌─ outside 22.33.44.20, .21, .22
//! phone1 192.168.1.11 ─┼─ switch ── lan 192.168.1.1  router  wan 22.33.44.55 ─────┤
//! phone2 192.168.1.12 ─┘                                                          └─ friend 22.33.44.30
//! ```
//! Each phone has a namespace of its own, so that all of them can use the same ports. The phones and the outside
//! know nothing of NAT and of sipalg.

use std::net::{Ipv4Addr, SocketAddr};

use super::gateway::Gateway;
use super::net::{Namespace, Net, Switch};

/// The router's public address.
pub(crate) const PUBLIC: Ipv4Addr = Ipv4Addr::new(22, 33, 44, 55);
/// Registrar and proxy.
pub(crate) const PROXY: Ipv4Addr = Ipv4Addr::new(22, 33, 44, 20);
/// Another host outside: a stranger.
pub(crate) const OTHER: Ipv4Addr = Ipv4Addr::new(22, 33, 44, 21);
/// Media server: another address than the proxy's, as with most providers.
pub(crate) const MEDIA: Ipv4Addr = Ipv4Addr::new(22, 33, 44, 22);

/// A phone outside, with an address and a namespace of its own.
pub(crate) const FRIEND: Ipv4Addr = Ipv4Addr::new(22, 33, 44, 30);

/// What stands between the phones and the outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A router without NAT and firewall: what a scenario needs to pass here is its own affair.
    Routed,
    /// NAT and firewall without an ALG: where every test must fail, so that it is known to test something.
    Bare,
    /// NAT and firewall with sipalg.
    Sipalg,
}

/// The NAT rule that the administrator chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nat {
    /// `masquerade`: keeps the port of the first phone that uses it.
    Masquerade,
    /// `masquerade random`: a new port for every flow.
    MasqueradeRandom,
    /// `snat to` the public address.
    Static,
}

/// The whole network, running.
pub(crate) struct World {
    /// First, so that it ends before its namespace goes.
    pub(crate) gateway: Option<Gateway>,
    pub(crate) mode: Mode,
    pub(crate) phones: Vec<Namespace>,
    pub(crate) router: Namespace,
    pub(crate) outside: Namespace,
    pub(crate) friend: Namespace,
    /// Last: takes all namespaces with it.
    _net: Net,
}

impl Mode {
    /// `SIPALG_CLIENTS_MODE`: `routed`, `bare` or `sipalg` (the default).
    pub(crate) fn chosen() -> Self {
        match std::env::var("SIPALG_CLIENTS_MODE").as_deref() {
            Err(_) | Ok("sipalg") => Self::Sipalg,
            Ok("routed") => Self::Routed,
            Ok("bare") => Self::Bare,
            Ok(other) => panic!("SIPALG_CLIENTS_MODE is routed, bare or sipalg, not {other}"),
        }
    }
}

impl Nat {
    fn statement(self) -> String {
        match self {
            Self::Masquerade => "masquerade".to_owned(),
            Self::MasqueradeRandom => "masquerade random".to_owned(),
            Self::Static => format!("snat to {PUBLIC}"),
        }
    }

    /// The administrator's file. It begins with `flush ruleset`, as most do.
    pub(crate) fn ruleset(self) -> String {
        ruleset(r#""wan""#, "", &self.statement())
    }
}

/// A ruleset that lets in what is established and `more`, everything out of `uplinks`, and there does `nat`.
pub(crate) fn ruleset(uplinks: &str, more: &str, nat: &str) -> String {
    format!(
        r#"flush ruleset
table inet filter {{
    chain input {{
        type filter hook input priority filter; policy drop;
        iifname "lo" accept
        ct state established,related accept
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname "lan" oifname {{ {uplinks} }} accept
        {more}
    }}
}}
table ip nat {{
    chain postrouting {{
        type nat hook postrouting priority srcnat;
        oifname {{ {uplinks} }} {nat}
    }}
}}
"#
    )
}

impl World {
    /// A network with `phones` phones and sipalg with its default configuration.
    pub(crate) fn new(nat: Nat, phones: u8) -> Self {
        Self::configured(nat, phones, "")
    }

    /// As [`World::new`], with a configuration file for sipalg.
    pub(crate) fn configured(nat: Nat, phones: u8, config: &str) -> Self {
        let mut world = Self::without_gateway(nat, phones);
        if world.mode == Mode::Sipalg {
            world.gateway = Some(Gateway::start(&world.router, config));
        }
        world
    }

    /// A network in which nobody has started sipalg yet.
    pub(crate) fn without_gateway(nat: Nat, phones: u8) -> Self {
        let world = Self::without_ruleset(phones);
        if world.mode != Mode::Routed {
            world.load(&nat.ruleset());
        }
        world
    }

    /// A network whose router has no rules yet; in [`Mode::Routed`] it needs none.
    pub(crate) fn without_ruleset(phones: u8) -> Self {
        let mode = Mode::chosen();
        let mut net = Net::new();
        let mut switch = Switch::new(&mut net, &["inside", "outside"]);
        let router = net.namespace("router");
        switch.plug(&net, &router, "lan", "inside", "192.168.1.1/24");
        switch.plug(&net, &router, "wan", "outside", &format!("{PUBLIC}/24"));
        router.sysctl("net/ipv4/ip_forward", "1");
        let outside = net.namespace("outside");
        switch.plug(&net, &outside, "wan", "outside", &format!("{PROXY}/24"));
        for address in [OTHER, MEDIA] {
            outside.ip(&format!("address add {address}/24 dev wan"));
        }
        let friend = net.namespace("friend");
        switch.plug(&net, &friend, "wan", "outside", &format!("{FRIEND}/24"));
        let phones: Vec<_> = (0..phones)
            .map(|index| {
                let phone = net.namespace(&format!("phone{index}"));
                switch.plug(&net, &phone, "lan", "inside", &format!("{}/24", inside(index)));
                phone.ip("route add default via 192.168.1.1");
                phone
            })
            .collect();
        if mode == Mode::Routed {
            for host in [&outside, &friend] {
                host.ip(&format!("route add 192.168.1.0/24 via {PUBLIC}"));
            }
        }
        Self { gateway: None, mode, phones, router, outside, friend, _net: net }
    }

    /// Loads an administrator's file on the router.
    pub(crate) fn load(&self, ruleset: &str) {
        if let Err(complaint) = self.router.feed("nft", &["-f", "-"], ruleset) {
            panic!("nft: {complaint}\n{ruleset}");
        }
    }

    /// The gateway of a test that runs in [`Mode::Sipalg`] only.
    pub(crate) fn gateway(&mut self) -> &mut Gateway {
        self.gateway.as_mut().expect("the test starts it")
    }

    /// Asserts that the outside may know an endpoint of phone `index`: in the routed network it is the phone's own,
    /// otherwise a public one.
    pub(crate) fn assert_reachable(&self, index: u8, endpoint: SocketAddr) {
        match self.mode {
            Mode::Routed => assert_eq!(endpoint.ip(), inside(index)),
            Mode::Bare | Mode::Sipalg => assert_eq!(endpoint.ip(), PUBLIC, "the outside was told {endpoint}"),
        }
    }
}

/// The address of phone `index`.
pub(crate) fn inside(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 1, 10 + index)
}
