//! The conntrack table: look up, make, change, delete.
//!
//! One socket, one request at a time, each answered at once. Zones: an entry is found only in its own zone, and a packet
//! does not tell us which that is. So the zones in use are kept ([`Conntrack::learn_zones`]) and tried in turn; on
//! nearly every router there is only the default one. Only UDP and TCP; only zones that hold for both directions.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::ctmessage::{self as message, Entry, NewEntry, Tuple};
use super::socket::NetlinkSocket;
use crate::alg::Transport;
use crate::netlink::Writer;

/// More zones than this are not tried.
const ZONES: usize = 16;
/// Reading the whole table takes milliseconds, with many entries much longer: not for every packet of an unknown flow.
const BETWEEN_SEARCHES: Duration = Duration::from_secs(10);

/// Conntrack through ctnetlink.
#[derive(Debug)]
pub(super) struct Conntrack {
    socket: NetlinkSocket,
    writer: Writer,
    /// Zones seen; the default one first.
    zones: Vec<u16>,
    /// When zones may be searched for again; `None`: the ruleset uses none.
    next_search: Option<Instant>,
}

impl Conntrack {
    /// Opens the socket. `zones`: whether the router's rules put flows into zones.
    pub(super) fn open(zones: bool) -> io::Result<Self> {
        let next_search = zones.then(Instant::now);
        let mut conntrack =
            Self { socket: NetlinkSocket::netfilter()?, writer: Writer::new(), zones: vec![0], next_search };
        conntrack.learn_zones();
        Ok(conntrack)
    }

    /// The entry that has this tuple in either direction, in this zone.
    pub(super) fn get(&mut self, tuple: Tuple, zone: u16) -> io::Result<Option<Entry>> {
        message::get(&mut self.writer, tuple, zone);
        let mut found = None;
        match self.socket.call(self.writer.bytes(), |answer| found = found.take().or(message::parse(answer)))
        {
            Ok(()) => Ok(found),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The entry of a packet as it looks at FORWARD: inside source when it leaves, inside destination when it comes. Its
    /// own tuple is one of the entry's if it travels in the direction whose source is not translated before; the reversed
    /// one is if it travels the other way.
    pub(super) fn find(&mut self, tuple: Tuple) -> io::Result<Option<Entry>> {
        let found = self.find_in_zones(tuple)?;
        if found.is_none() && self.learn_zones() { self.find_in_zones(tuple) } else { Ok(found) }
    }

    fn find_in_zones(&mut self, tuple: Tuple) -> io::Result<Option<Entry>> {
        for at in 0..self.zones.len() {
            let zone = self.zones.get(at).copied().unwrap_or_default();
            for tuple in [tuple, tuple.reversed()] {
                if let Some(entry) = self.get(tuple, zone)? {
                    return Ok(Some(entry));
                }
            }
        }
        Ok(None)
    }

    /// The entry that `host` began and whose source is translated to `public`, in whichever zone; nothing if several
    /// endpoints of the host have such entries, to different far ends.
    pub(super) fn find_behind(&mut self, public: SocketAddr, host: IpAddr) -> io::Result<Option<Entry>> {
        message::dump_behind(&mut self.writer, public);
        let (mut found, mut is_clear) = (None::<Entry>, true);
        self.socket.call(self.writer.bytes(), |answer| {
            // A kernel that knows no filter (before 5.8) tells everything.
            let Some(entry) = message::parse(answer) else { return };
            let is_it = (entry.reply.transport, entry.reply.destination) == (Transport::Udp, public);
            if !is_it || entry.original.source.ip() != host {
                return;
            }
            is_clear &= found.as_ref().is_none_or(|it| it.original.source == entry.original.source);
            found = Some(entry);
        })?;
        Ok(found.filter(|_| is_clear))
    }

    /// Makes an entry.
    ///
    /// # Errors
    /// EEXIST if one of its tuples is taken.
    pub(super) fn create(&mut self, entry: &NewEntry) -> io::Result<()> {
        message::create(&mut self.writer, entry);
        self.socket.call(self.writer.bytes(), |_| ())
    }

    /// Sets what is left to the entry that has this tuple in either direction; ENOENT if there is none.
    pub(super) fn set_timeout(&mut self, tuple: Tuple, seconds: u32) -> io::Result<()> {
        let mut result = Err(io::Error::from_raw_os_error(libc::ENOENT));
        for &zone in &self.zones {
            message::set_timeout(&mut self.writer, tuple, zone, seconds);
            result = self.socket.call(self.writer.bytes(), |_| ());
            if !matches!(&result, Err(error) if error.raw_os_error() == Some(libc::ENOENT)) {
                break;
            }
        }
        result
    }

    /// Deletes an entry; one that is gone already is no error.
    pub(super) fn delete(&mut self, entry: &Entry) -> io::Result<()> {
        message::delete(&mut self.writer, entry);
        match self.socket.call(self.writer.bytes(), |_| ()) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => self.expire(entry),
            result => result,
        }
    }

    /// Kernels before 6.4 don't delete an entry whose packets a flowtable carries. But they let its time be over, and who
    /// looks for it then finds it dead; the flowtable lets go of dead entries at their next packet.
    fn expire(&mut self, entry: &Entry) -> io::Result<()> {
        message::set_timeout(&mut self.writer, entry.original, entry.zone, 0);
        match self.socket.call(self.writer.bytes(), |_| ()) {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => return Err(error),
            _ => (),
        }
        self.get(entry.original, entry.zone).map(drop)
    }

    /// Sends a request that another file writes.
    pub(super) fn call(&mut self, write: impl FnOnce(&mut Writer)) -> io::Result<()> {
        self.writer.clear();
        write(&mut self.writer);
        self.socket.call(self.writer.bytes(), |_| ())
    }

    /// Hands every entry of UDP and TCP to `sink`.
    pub(super) fn dump(&mut self, mut sink: impl FnMut(Entry)) -> io::Result<()> {
        for family in [libc::AF_INET, libc::AF_INET6] {
            message::dump(&mut self.writer, family as u8);
            self.socket.call(self.writer.bytes(), |answer| {
                if let Some(entry) = message::parse(answer) {
                    sink(entry);
                }
            })?;
        }
        Ok(())
    }

    /// The zones to try, the default one first.
    pub(super) fn zones(&self) -> &[u16] {
        &self.zones
    }

    /// Reads the zones from the entries that there are, if the ruleset uses any and the last time is long ago. Answers
    /// whether there is a new one.
    fn learn_zones(&mut self) -> bool {
        let now = Instant::now();
        if self.next_search.is_none_or(|next| now < next) {
            return false;
        }
        self.next_search = now.checked_add(BETWEEN_SEARCHES);
        let mut zones = self.zones.clone();
        let dumped = self.dump(|entry| {
            if !zones.contains(&entry.zone) && zones.len() < ZONES {
                zones.push(entry.zone);
            }
        });
        if let Err(error) = dumped {
            tracing::warn!(%error, "the zones of conntrack could not be read");
        }
        let grown = zones.len() > self.zones.len();
        self.zones = zones;
        grown
    }
}
