//! The network of one round: phones, router, provider, each in its own namespace, and the administrator's rules.
//!
//! It is made anew for every round, so that no conntrack entry, map element or quarantined port of one round is in
//! the way of the next.

use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::{fs, thread};

use anyhow::{Context, Result, ensure};

use super::namespace::Namespace;

/// Where the provider listens.
pub(crate) const PROVIDER: Ipv4Addr = Ipv4Addr::new(22, 33, 44, 20);
/// Last byte of the first phone's address, 192.168.1.10.
pub(crate) const FIRST_PHONE: u8 = 10;
/// Phones in the network. Each inside host has a quota of pinholes, so calls are spread over many.
pub(crate) const PHONES: u8 = 32;
/// The router's public addresses. Each has 8,192 pairs of media ports, fewer than a round has calls.
pub(crate) const PUBLIC: [Ipv4Addr; 8] = {
    let mut all = [Ipv4Addr::UNSPECIFIED; 8];
    let mut i = 0;
    while i < all.len() {
        all[i] = Ipv4Addr::new(22, 33, 44, 55 + i as u8);
        i += 1;
    }
    all
};

/// Three namespaces in a row.
pub(crate) struct Network {
    /// 192.168.1.10 and up on `lan`.
    pub(crate) phones: Namespace,
    /// 192.168.1.1 on `lan`, [`PUBLIC`] on `wan`.
    pub(crate) router: Namespace,
    /// [`PROVIDER`] on `wan`.
    pub(crate) provider: Namespace,
}

/// Which rule of the administrator hides the phones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nat {
    /// `masquerade`: one public address.
    Masquerade,
    /// `snat to`, an address for every four phones.
    Pool,
}

impl Network {
    /// Builds it, with a firewall that lets out everything and in what belongs to it.
    pub(crate) fn new(nat: Nat) -> Result<Self> {
        let network = || Namespace::new().context("a network namespace needs root");
        let it = Self { phones: network()?, router: network()?, provider: network()? };
        let router = it.router.path();
        let mut inside = format!("link add lan type veth peer name lan netns {router}\nlink set lo up\n");
        let mut middle = "link set lo up\naddr add 192.168.1.1/24 dev lan\n".to_string();
        for host in FIRST_PHONE..FIRST_PHONE + PHONES {
            inside += &format!("addr add 192.168.1.{host}/24 dev lan\n");
        }
        inside += "link set lan up\nroute add default via 192.168.1.1\n";
        let outside = format!(
            "link add wan type veth peer name wan netns {router}\nlink set lo up\naddr add {PROVIDER}/24 dev wan\n\
             link set wan up\n"
        );
        for public in PUBLIC {
            middle += &format!("addr add {public}/24 dev wan\n");
        }
        middle += "link set lan up\nlink set wan up\n";
        feed(it.phones.command("ip").args(["-batch", "-"]), &inside)?;
        feed(it.provider.command("ip").args(["-batch", "-"]), &outside)?;
        feed(it.router.command("ip").args(["-batch", "-"]), &middle)?;
        it.inside_router(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1"))?.context("ip_forward")?;
        it.load(&administrators_rules(nat))?;
        Ok(it)
    }

    /// Loads nft rules in the router.
    pub(crate) fn load(&self, rules: &str) -> Result<()> {
        feed(self.router.command("nft").args(["-f", "-"]), rules)
    }

    fn inside_router<T: Send>(&self, job: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let thread = scope.spawn(|| self.router.enter().map(|()| job()));
            Ok(thread.join().expect("the jobs return errors and do not panic")?)
        })
    }
}

/// Runs `command` with `input`; an error carries what it said.
pub(crate) fn feed(command: &mut Command, input: &str) -> Result<()> {
    let name = format!("{:?}", command.get_program());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't run {name}"))?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    stdin.write_all(input.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

fn administrators_rules(nat: Nat) -> String {
    let rule = match nat {
        Nat::Masquerade => "masquerade".to_string(),
        Nat::Pool => {
            let phones: Vec<_> = (0..PHONES)
                .map(|i| {
                    let public = PUBLIC[usize::from(i) / (usize::from(PHONES) / PUBLIC.len())];
                    format!("192.168.1.{} : {public}", FIRST_PHONE + i)
                })
                .collect();
            format!("snat to ip saddr map {{ {} }}", phones.join(", "))
        }
    };
    format!(
        "table ip admin {{
            chain nat {{
                type nat hook postrouting priority srcnat; policy accept;
                oifname \"wan\" {rule}
            }}
            chain forward {{
                type filter hook forward priority filter; policy drop;
                ct state established,related accept
                iifname \"lan\" oifname \"wan\" accept
            }}
        }}\n"
    )
}
