//! How much media has passed, by conntrack's own counters.
//!
//! conntrack counts packets only where it is told to, and only for entries that were made since: [`Switch`].
//! Counters are asked for flow by flow (CT_GET), by a socket of its own, never by the packet thread's.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

use super::KernelError;
use super::conntrack::Conntrack;
use super::ctmessage::Counted;
use super::pin;
use super::rules;
use super::socket::NetlinkSocket;
use crate::alg::PinnedFlow;

/// Per network namespace, and off by default.
const SWITCH: &str = "/proc/sys/net/netfilter/nf_conntrack_acct";

/// What a flow has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets from the phone.
    pub packets_out: u64,
    /// Their bytes, with IP headers.
    pub bytes_out: u64,
    /// Packets to the phone.
    pub packets_in: u64,
    /// Their bytes, with IP headers.
    pub bytes_in: u64,
}

/// Reads counters.
#[derive(Debug)]
pub struct Meter(Conntrack);

impl Meter {
    /// Opens a socket in the namespace of this thread.
    ///
    /// # Errors
    /// See [`KernelError`].
    pub fn open() -> Result<Self, KernelError> {
        let mut nft = NetlinkSocket::netfilter().map_err(KernelError::system("opening a netlink socket"))?;
        let zones = rules::uses_zones(&mut nft).map_err(KernelError::system("reading the rules"))?;
        let conntrack = Conntrack::open(zones).map_err(KernelError::system("opening a conntrack socket"))?;
        Ok(Self(conntrack))
    }

    /// What the flow has carried; `None`: conntrack has no such entry, or did not count for it.
    ///
    /// # Errors
    /// Those of netlink.
    pub fn read(&mut self, flow: &PinnedFlow) -> io::Result<Option<Traffic>> {
        let (out, _) = pin::directions(flow);
        let Some(entry) = self.0.find(out)? else { return Ok(None) };
        let Some([original, reply]) = entry.counted else { return Ok(None) };
        // The far end may have been first: then its packets are the original direction.
        let (out, back) = if entry.original == out { (original, reply) } else { (reply, original) };
        let Counted { packets: packets_out, bytes: bytes_out } = out;
        let Counted { packets: packets_in, bytes: bytes_in } = back;
        Ok(Some(Traffic { packets_out, bytes_out, packets_in, bytes_in }))
    }
}

/// What lets conntrack count. It is opened before the gateway confines itself, and can be used after that.
#[derive(Debug)]
pub struct Switch(Option<File>);

impl Switch {
    /// Opens it for the network namespace of this thread. It is there when conntrack is.
    pub fn open() -> Self {
        Self(OpenOptions::new().write(true).open(SWITCH).ok())
    }

    /// Lets conntrack count, for all entries of this namespace that are made from now on. It is never switched off again:
    /// somebody else may rely on it by then.
    ///
    /// # Errors
    /// The kernel does not permit it, or has no such switch.
    pub fn count_from_now_on(&self) -> io::Result<()> {
        if fs::read_to_string(SWITCH)?.trim() == "1" {
            return Ok(());
        }
        self.0.as_ref().ok_or(io::ErrorKind::PermissionDenied)?.write_all_at(b"1", 0)
    }
}
