//! What crosses a cable, recorded by tcpdump and judged by tshark.

use std::path::PathBuf;

use super::net::Namespace;
use super::proc::Proc;

/// A running recording.
pub(crate) struct Capture {
    namespace: Namespace,
    file: PathBuf,
    tcpdump: Proc,
}

/// A finished recording.
pub(crate) struct Recording {
    namespace: Namespace,
    file: PathBuf,
}

impl Capture {
    /// Records all of `interface` from now on.
    pub(crate) fn start(namespace: &Namespace, interface: &str) -> Self {
        let file = namespace.files().join(format!("{interface}.pcap"));
        let mut command = namespace.command("tcpdump");
        // Large buffer: nothing may be missing. -Z root: the directory belongs to root.
        command
            .args(["-i", interface, "-U", "-B", "32768", "-s", "0", "--immediate-mode", "-Z", "root", "-w"])
            .arg(&file);
        let mut tcpdump = namespace.spawn(&format!("tcpdump-{interface}"), command);
        tcpdump.wait_for("listening on");
        Self { namespace: namespace.clone(), file, tcpdump }
    }

    /// Ends the recording. Nothing of it may have been lost.
    pub(crate) fn stop(mut self) -> Recording {
        self.tcpdump.end("INT");
        self.tcpdump.wait_for("0 packets dropped by kernel");
        Recording { namespace: self.namespace, file: self.file }
    }
}

impl Recording {
    /// One line for each packet that tshark's `filter` selects.
    pub(crate) fn select(&self, filter: &str) -> Vec<String> {
        let file = self.file.to_str().expect("a path that we made");
        // By default tshark believes checksums.
        let checks = [
            "-o",
            "ip.check_checksum:TRUE",
            "-o",
            "udp.check_checksum:TRUE",
            "-o",
            "tcp.check_checksum:TRUE",
        ];
        let arguments = ["-n", "-r", file, "-Y", filter].into_iter().chain(checks);
        let listing = self.namespace.run("tshark", arguments);
        listing.lines().map(str::to_owned).collect()
    }

    /// The INVITEs in it. By their bytes: tshark dissects by the lower port first, and a NAT may have chosen one that it
    /// takes for another protocol's (3000, for instance).
    pub(crate) fn invites(&self) -> Vec<String> {
        self.select("(udp.port == 5060 || tcp.port == 5060) && frame contains \"INVITE sip:\"")
    }

    /// Asserts that no packet has a wrong checksum.
    pub(crate) fn assert_sound(&self) {
        let bad = self.select("ip.checksum.status == \"Bad\" || udp.checksum.status == \"Bad\" || tcp.checksum.status == \"Bad\"");
        assert!(bad.is_empty(), "wrong checksums: {bad:#?}");
        let zero = self.select("udp.checksum == 0");
        assert!(zero.is_empty(), "checksums that were not computed: {zero:#?}");
    }

    /// Asserts that this side of the NAT never sees a private address, in no header and in no message.
    pub(crate) fn assert_no_private_address(&self) {
        let packets = self.select("ip.addr == 192.168.0.0/16");
        assert!(packets.is_empty(), "packets of private addresses: {packets:#?}");
        let messages = self.select("(udp.port == 5060 || tcp.port == 5060) && frame contains \"192.168.\"");
        assert!(messages.is_empty(), "messages with private addresses: {messages:#?}");
    }
}
