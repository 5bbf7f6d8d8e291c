//! First packets of flows on their way through the NAT.
//!
//! The first packet of a flow passes FORWARD before the NAT has decided. It gets a token in its IPv4 identification or
//! IPv6 flow label, and is recognised by it after the NAT, where its source is the public endpoint. A token alone
//! proves nothing (any sender may choose an identification), so destination and payload must agree too.
//!
//! Marks would be easier, but administrators' rules read and copy them.
//!
//! Some kernels hand out the conntrack entry with a queued packet. There the packet is queued behind the NAT only, and the
//! entry has both of its sources: no token is needed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use foldhash::fast::FixedState;

use super::io::{PacketId, Tuples};
use crate::expiring::ExpiringMap;

/// A packet needs microseconds from FORWARD to POSTROUTING; this is for a machine that stands still.
const PATIENCE: Duration = Duration::from_secs(2);
/// IPv4 identifications are 16 bits; more packets than this are never on the way.
const ON_THE_WAY: usize = 16_384;

/// A packet on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learner {
    /// Source before the NAT.
    pub source: SocketAddr,
    /// Destination.
    pub destination: SocketAddr,
    /// Digest of the payload.
    pub payload: u64,
    /// The identity that the sender had given.
    pub identity: u32,
    /// Index of the interface that it came in by.
    pub indev: u32,
    /// Index of the interface that it leaves by.
    pub outdev: u32,
}

/// All packets on their way, by token.
#[derive(Debug)]
pub struct Learning {
    packets: ExpiringMap<u32, Learner, FixedState>,
    last: u16,
    told: ExpiringMap<PacketId, Tuples, FixedState>,
}

impl Learning {
    /// Nothing on its way.
    pub fn new(hasher: FixedState) -> Self {
        let told = ExpiringMap::new(ON_THE_WAY, hasher.clone());
        Self { packets: ExpiringMap::new(ON_THE_WAY, hasher), last: 0, told }
    }

    /// conntrack has told the entry of a packet behind the NAT. What finds no room is as if it had not been told.
    pub fn tell(&mut self, now: Instant, packet: PacketId, tuples: Tuples) {
        while self.told.pop_expired(now).is_some() {}
        let _ = self.told.insert(packet, tuples, now + PATIENCE);
    }

    /// What conntrack has told of a packet.
    pub fn told(&self, packet: PacketId) -> Option<Tuples> {
        self.told.get(&packet).copied()
    }

    /// The packet has its verdict: what conntrack has told of it gives its room to others.
    pub fn forget(&mut self, packet: PacketId) {
        self.told.remove(&packet);
    }

    /// A token for a packet. `None`: too many are on their way.
    pub fn send(&mut self, now: Instant, learner: Learner) -> Option<u32> {
        while self.packets.pop_expired(now).is_some() {}
        if self.packets.is_full() {
            return None;
        }
        // At least three quarters of the tokens are free, so this ends soon. 0 is no token: senders use it.
        loop {
            self.last = self.last.wrapping_add(1);
            let token = u32::from(self.last);
            if token != 0 && self.packets.get(&token).is_none() {
                let kept = self.packets.insert(token, learner, now + PATIENCE);
                return kept.is_ok().then_some(token);
            }
        }
    }

    /// The packet that had this token, if destination and payload are those of the packet that arrived.
    pub fn recognise(&self, token: u32, destination: SocketAddr, payload: u64) -> Option<Learner> {
        let learner = self.packets.get(&token)?;
        (learner.destination == destination && learner.payload == payload).then_some(*learner)
    }

    /// The packet has its verdict.
    pub fn arrived(&mut self, token: u32) {
        self.packets.remove(&token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_alone_proves_nothing() {
        let now = Instant::now();
        let mut learning = Learning::new(FixedState::default());
        let [source, destination] = ["192.168.1.10:5060", "22.33.44.20:5060"].map(|it| it.parse().unwrap());
        let learner = Learner { source, destination, payload: 7, identity: 9, indev: 1, outdev: 2 };
        let token = learning.send(now, learner).unwrap();
        assert_ne!(token, 0);
        assert_eq!(learning.recognise(token, destination, 7), Some(learner));
        assert_eq!(learning.recognise(token, destination, 8), None);
        assert_eq!(learning.recognise(token, source, 7), None);
        assert_eq!(learning.recognise(token + 1, destination, 7), None);
        learning.arrived(token);
        assert_eq!(learning.recognise(token, destination, 7), None);
    }

    #[test]
    fn what_conntrack_told_is_kept_for_its_packet_and_a_while() {
        let now = Instant::now();
        let mut learning = Learning::new(FixedState::default());
        let [phone, public, far] =
            ["192.168.1.10:5060", "22.33.44.55:17375", "22.33.44.20:5060"].map(|it| it.parse().unwrap());
        let tuples = Tuples {
            transport: crate::alg::Transport::Udp,
            orig_source: phone,
            orig_destination: far,
            reply_source: far,
            reply_destination: public,
        };
        for id in 0..=ON_THE_WAY as u64 {
            learning.tell(now, PacketId(id), tuples);
        }
        assert_eq!(learning.told(PacketId(7)), Some(tuples));
        assert_eq!(learning.told(PacketId(ON_THE_WAY as u64)), None, "there is no room");
        learning.forget(PacketId(8));
        learning.tell(now, PacketId(ON_THE_WAY as u64), tuples);
        assert_eq!(learning.told(PacketId(8)), None);
        assert_eq!(learning.told(PacketId(ON_THE_WAY as u64)), Some(tuples), "there is room again");
        learning.tell(now + PATIENCE, PacketId(ON_THE_WAY as u64), tuples);
        assert_eq!(learning.told(PacketId(7)), None);
        assert_eq!(learning.told(PacketId(ON_THE_WAY as u64)), Some(tuples));
    }

    #[test]
    fn tokens_of_lost_packets_come_back() {
        let now = Instant::now();
        let mut learning = Learning::new(FixedState::default());
        let source = "[2001:db8::1]:5060".parse().unwrap();
        let learner = Learner { source, destination: source, payload: 7, identity: 9, indev: 1, outdev: 2 };
        for _ in 0..ON_THE_WAY {
            assert!(learning.send(now, learner).is_some());
        }
        assert_eq!(learning.send(now, learner), None);
        assert!(learning.send(now + PATIENCE, learner).is_some());
    }
}
