//! Kamailio outside: registrar and proxy, with a digest, and with no idea of NAT.

use std::fs;
use std::path::Path;

use super::proc::Proc;
use super::wait;
use super::world::World;

/// Starts it at the proxy's address and waits until it listens.
pub(crate) fn start(world: &World) -> Proc {
    start_by(world, "udp")
}

/// As [`start`], over this transport only.
pub(crate) fn start_by(world: &World, transport: &str) -> Proc {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/kamailio/kamailio.cfg");
    let text = fs::read_to_string(shipped).expect("it is there");
    let disabled = if transport == "tcp" { "no" } else { "yes" };
    let text = text.replace("%TRANSPORT%", transport).replace("%NO_TCP%", disabled);
    let files = world.outside.files();
    let config = files.join("kamailio.cfg");
    fs::write(&config, text).expect("the directory of a test is writable");
    let mut command = world.outside.command("kamailio");
    // In the foreground (-DD), with its sockets and its pid in the directory of the test, and with little memory.
    command.arg("-f").arg(config).args(["-DD", "-E", "-m", "32", "-M", "4", "-Y"]).arg(files);
    command.arg("-P").arg(files.join("kamailio.pid"));
    let mut kamailio = world.outside.spawn("kamailio", command);
    wait::until("Kamailio to listen", || {
        assert_eq!(kamailio.ended(), None, "Kamailio ended early");
        (world.outside.udp_is_bound(5060) || world.outside.tcp_listens(5060)).then_some(())
    });
    kamailio
}
