//! What others do to conntrack and to our table.
//!
//! One socket hears of every conntrack entry that dies, and of every change to nf_tables. Our own changes of elements come
//! back too, thousands in a second; a filter in the kernel drops them before they can fill the queue. Of the others' changes
//! only those to our table count, and most of them only if the table is no longer whole: an administrator may load
//! the file over itself as often as he likes. A flowtable that somebody makes is worth a warning. If the queue overruns
//! all the same, that is an event of its own: whoever relies on the events has to look for himself.
//!
//! conntrack tells of entries that were made while somebody listened, or while the sysctl
//! `net.netfilter.nf_conntrack_events` was 1; and it tells late, up to a minute after an entry's timeout.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use super::addresses::Addresses;
use super::ctmessage;
use super::probe;
use super::rules;
use super::ruleset;
use super::shortcut;
use super::socket::NetlinkSocket;
use super::{Kernel, KernelError};
use crate::alg::Tuples;
use crate::netlink::{self, Message};

const NFNLGRP_CONNTRACK_DESTROY: u32 = 3;
const NFNLGRP_NFTABLES: u32 = 7;
const NFTABLES: u8 = 10;
/// Attribute 1 names the table in each kind of message of nf_tables.
const TABLE_NAME: u16 = 1;

/// What others did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelEvent {
    /// A conntrack entry of UDP or TCP is gone.
    Destroyed(Tuples),
    /// The table is gone, was gone, or is no longer whole: [`install`](super::ruleset::install), then
    /// [`restore`](Kernel::restore).
    RulesetChanged,
    /// The socket overran: some events are lost.
    Overrun,
    /// This machine does not have this address any more.
    AddressGone(IpAddr),
    /// There are other interfaces than before, at least one of them with an address.
    InterfacesChanged,
}

/// The event socket.
#[derive(Debug)]
pub struct Events {
    heard: NetlinkSocket,
    asking: NetlinkSocket,
    addresses: Addresses,
    interfaces: Vec<shortcut::Interface>,
}

impl Events {
    /// Subscribes. Changes of elements that `kernel` makes are not reported.
    ///
    /// # Errors
    /// See [`KernelError`].
    pub fn open(kernel: &Kernel) -> Result<Self, KernelError> {
        let open = || {
            let heard = NetlinkSocket::netfilter()?;
            heard.attach_filter(&mut all_but(kernel.port()))?;
            heard.join(NFNLGRP_CONNTRACK_DESTROY)?;
            heard.join(NFNLGRP_NFTABLES)?;
            let (asking, addresses) = (NetlinkSocket::netfilter()?, Addresses::open()?);
            Ok(Self { heard, asking, addresses, interfaces: shortcut::interfaces()? })
        };
        open().map_err(KernelError::system("subscribing to netfilter's events"))
    }

    /// Hands over everything that has happened; never blocks.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn drain(&mut self, sink: &mut dyn FnMut(KernelEvent)) -> io::Result<()> {
        let mut table = News::None;
        loop {
            match self.heard.receive() {
                Ok(None) => break,
                Ok(Some(datagram)) => {
                    for message in netlink::messages(datagram) {
                        if message.kind().subsystem == NFTABLES {
                            warn_of_flowtable(&message);
                            table = table.max(news_of_table(&message));
                        } else if ctmessage::is_destroyed(&message)
                            && let Some(entry) = ctmessage::parse(&message)
                        {
                            sink(KernelEvent::Destroyed(entry.tuples()));
                        }
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    sink(KernelEvent::Overrun);
                    table = table.max(News::Changed);
                }
                Err(error) => return Err(error),
            }
        }
        let lost = match table {
            News::None => false,
            News::Changed => !self.is_intact(),
            News::Deleted => true,
        };
        if lost {
            sink(KernelEvent::RulesetChanged);
        }
        match self.addresses.drain(&mut |gone| sink(KernelEvent::AddressGone(gone))) {
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                sink(KernelEvent::Overrun);
                Ok(())
            }
            // IPv6 addresses come again and again.
            Ok(true) => {
                let interfaces = shortcut::interfaces()?;
                if interfaces != self.interfaces {
                    self.interfaces = interfaces;
                    sink(KernelEvent::InterfacesChanged);
                }
                Ok(())
            }
            result => result.map(drop),
        }
    }

    /// What becomes readable when an address goes or comes; the events themselves are those of [`Events::drain`].
    pub fn addresses(&self) -> BorrowedFd<'_> {
        self.addresses.as_fd()
    }

    fn is_intact(&mut self) -> bool {
        ruleset::check(&mut self.asking).unwrap_or_else(|error| {
            tracing::warn!(%error, "the ruleset could not be looked at after a change");
            true
        })
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.heard.as_fd()
    }
}

/// What is known of our table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum News {
    None,
    Changed,
    /// Its elements are lost, even if it is there again.
    Deleted,
}

fn news_of_table(message: &Message<'_>) -> News {
    let name = message.attributes().bytes(TABLE_NAME).map(rules::text);
    if name.as_deref().map(str::as_bytes) != Some(super::nft::TABLE.to_bytes()) {
        return News::None;
    }
    match i32::from(message.kind().message) {
        libc::NFT_MSG_DELTABLE => News::Deleted,
        libc::NFT_MSG_NEWSETELEM | libc::NFT_MSG_DELSETELEM => News::None,
        _ => News::Changed,
    }
}

/// Whoever makes a flowtable while calls run learns what that does to them, as [`probe`] tells at start.
fn warn_of_flowtable(message: &Message<'_>) {
    if let Some(name) = probe::flowtable_name(message) {
        tracing::warn!(remedy = probe::FLOWTABLE_REMEDY, "{}{name}", probe::FLOWTABLE_TEXT);
    }
}

/// Everything but messages that stem from the socket with this address: classic BPF over the netlink header.
fn all_but(port: u32) -> [libc::sock_filter; 4] {
    const NLMSG_PID: u32 = 12;
    let instruction = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, NLMSG_PID),
        // A load takes the bytes as a big-endian number; the header has them in host order.
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, port.to_be()),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
    ]
}
