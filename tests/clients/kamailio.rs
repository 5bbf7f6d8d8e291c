//! Kamailio outside: registrar and proxy, with a digest, and with no idea of NAT.

use std::path::Path;

use super::proc::Proc;
use super::wait;
use super::world::World;

/// Starts it at the proxy's address and waits until it listens.
pub(crate) fn start(world: &World) -> Proc {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/kamailio/kamailio.cfg");
    let files = world.outside.files();
    let mut command = world.outside.command("kamailio");
    // In the foreground (-DD), with its sockets and its pid in the directory of the test, and with little memory.
    command.arg("-f").arg(config).args(["-DD", "-E", "-m", "32", "-M", "4", "-Y"]).arg(files);
    command.arg("-P").arg(files.join("kamailio.pid"));
    let mut kamailio = world.outside.spawn("kamailio", command);
    wait::until("Kamailio to listen", || {
        assert_eq!(kamailio.ended(), None, "Kamailio ended early");
        world.outside.udp_is_bound(5060).then_some(())
    });
    kamailio
}
