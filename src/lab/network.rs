//! The network of the lab: thirteen machines as namespaces, wired and addressed.
//!
//! ```text
//!  192.168.1.10 … .19          192.168.1.1   22.33.44.55          22.33.44.20 registrar
//!  ten phones ──── a switch ──── lan0  router  wan0 ────────────── 22.33.44.21 proxy
//!                                                                  22.33.44.22 media
//! ```
//! All links are made inside the namespaces: the machine's own network is neither used nor changed. Dropping
//! [`Network`] removes everything. The switch is a machine of its own, so that what phones say to each other does not
//! pass the router.

use std::fmt::Write;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use super::netns::Namespace;
use super::{LabError, Translation, naming, ruleset, tool};

/// Last octets of the phones' addresses; also their numbers in SIP.
pub(super) const PHONES: std::ops::RangeInclusive<u8> = 10..=19;
/// The router's address outside: the only one that the provider ever sees.
pub(super) const PUBLIC: Ipv4Addr = Ipv4Addr::new(22, 33, 44, 55);
/// The provider's registrar, which also hands calls to the phones that are registered with it.
pub(super) const REGISTRAR: Ipv4Addr = Ipv4Addr::new(22, 33, 44, 20);
/// The provider's proxy: takes calls from phones.
pub(super) const PROXY: Ipv4Addr = Ipv4Addr::new(22, 33, 44, 21);
/// The provider's media server.
pub(super) const MEDIA: Ipv4Addr = Ipv4Addr::new(22, 33, 44, 22);
/// The port of all phones and servers.
pub(super) const SIP: u16 = 5060;

/// A phone's own address.
pub(super) fn phone_address(phone: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 1, phone)
}

/// Whether an address is one of the phones' network.
pub(super) fn is_private(address: Ipv4Addr) -> bool {
    matches!(address.octets(), [192, 168, 1, _])
}

/// `address:5060`.
pub(super) fn sip_port(address: Ipv4Addr) -> SocketAddr {
    SocketAddr::from((address, SIP))
}

/// The machines.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) router: Namespace,
    pub(super) provider: Namespace,
    phones: Vec<Namespace>,
    _names: Names,
}

impl Network {
    /// Makes all of it.
    pub(super) fn build(translation: Translation) -> Result<Self, LabError> {
        sweep();
        let names = Names::make()?;
        let router = names.open("router")?;
        let switch = names.open("switch")?;
        let provider = names.open("provider")?;
        let phones = PHONES.map(|phone| names.open(&format!("phone{phone}"))).collect::<Result<_, _>>()?;
        let network = Self { router, provider, phones, _names: names };
        network.wire(&switch)?;
        network.address(&switch, translation)?;
        if translation == Translation::Masquerade {
            tool::run(Some(&network.router), "nft", &["-f", "-"], &ruleset::administrators())?;
        }
        Ok(network)
    }

    /// A phone's machine.
    pub(super) fn phone(&self, phone: u8) -> &Namespace {
        let index = usize::from(phone.saturating_sub(*PHONES.start()));
        self.phones.get(index).expect("only numbers out of PHONES are asked for, and each has its namespace")
    }

    /// Every link is made from inside: older kernels refuse a name that the machine itself has, as `eth0`, even for an
    /// interface that is to be elsewhere.
    fn wire(&self, switch: &Namespace) -> Result<(), LabError> {
        let (router, provider) = (self.router.name(), self.provider.name());
        set(&self.router, &format!("link add wan0 type veth peer name eth0 netns {provider}\n"))?;
        let mut links = format!("link add router type veth peer name lan0 netns {router}\n");
        for phone in PHONES {
            let name = self.phone(phone).name();
            let _ = writeln!(links, "link add phone{phone} type veth peer name eth0 netns {name}");
        }
        set(switch, &links)
    }

    fn address(&self, switch: &Namespace, translation: Translation) -> Result<(), LabError> {
        let mut bridge = String::from("link set lo up\nlink add br0 type bridge\nlink set br0 up\n");
        for port in PHONES.map(|phone| format!("phone{phone}")).chain(["router".to_owned()]) {
            let _ = writeln!(bridge, "link set {port} master br0\nlink set {port} up");
        }
        set(switch, &bridge)?;
        for phone in PHONES {
            set(
                self.phone(phone),
                &format!(
                    "link set lo up\nlink set eth0 up\naddress add {}/24 dev eth0\n\
                     route add default via 192.168.1.1\n",
                    phone_address(phone)
                ),
            )?;
        }
        let mut provider = String::from("link set lo up\nlink set eth0 up\n");
        for address in [REGISTRAR, PROXY, MEDIA] {
            let _ = writeln!(provider, "address add {address}/24 dev eth0");
        }
        let mut router = format!(
            "link set lo up\nlink set lan0 up\nlink set wan0 up\n\
             address add 192.168.1.1/24 dev lan0\naddress add {PUBLIC}/24 dev wan0\n"
        );
        match translation {
            Translation::Masquerade => {
                let table = ruleset::MARKED_TABLE;
                let _ = writeln!(router, "rule add fwmark 0x2 lookup {table}");
                let _ = writeln!(router, "route add 22.33.44.0/24 dev wan0 table {table}");
            }
            Translation::None => {
                let _ = writeln!(provider, "route add 192.168.1.0/24 via {PUBLIC}");
            }
        }
        set(&self.provider, &provider)?;
        set(&self.router, &router)?;
        self.router
            .run(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1"))
            .map_err(|error| LabError::io("cannot switch on forwarding in the router's namespace", error))
    }
}

fn set(machine: &Namespace, batch: &str) -> Result<(), LabError> {
    tool::run(Some(machine), "ip", &["-batch", "-"], batch).map(drop)
}

/// The namespaces' names, which are removed with this value, also when a part of them was never made.
#[derive(Debug)]
struct Names {
    stem: String,
    all: Vec<String>,
}

impl Names {
    fn make() -> Result<Self, LabError> {
        let stem = format!("{}-", naming::unique());
        let machines = ["router", "switch", "provider"].map(str::to_owned).into_iter();
        let all: Vec<_> = machines
            .chain(PHONES.map(|phone| format!("phone{phone}")))
            .map(|role| stem.clone() + &role)
            .collect();
        let names = Self { stem, all };
        let batch: String = names.all.iter().map(|name| format!("netns add {name}\n")).collect();
        tool::run(None, "ip", &["-batch", "-"], &batch)?;
        Ok(names)
    }

    fn open(&self, role: &str) -> Result<Namespace, LabError> {
        let name = format!("{}{role}", self.stem);
        Namespace::open(&name)
            .map_err(|error| LabError::io(format!("cannot open the namespace {name}"), error))
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        remove(&self.all);
    }
}

fn remove(names: &[String]) {
    let batch: String = names.iter().map(|name| format!("netns delete {name}\n")).collect();
    // Nobody is left to be told; the next lab sweeps up what could not be removed.
    let _ = tool::run(None, "ip", &["-force", "-batch", "-"], &batch);
}

/// Removes the namespaces that a killed run left behind.
fn sweep() {
    let Ok(entries) = fs::read_dir("/var/run/netns") else { return };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let orphans: Vec<String> = names.filter(|name| naming::is_orphan(name)).collect();
    if !orphans.is_empty() {
        remove(&orphans);
    }
}
