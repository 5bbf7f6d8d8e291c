//! Packets whose verdict did not come within their batch.
//!
//! A queue keeps a packet's bytes until its next batch only; here they are kept until the verdict comes, within limits:
//! by number, by bytes and by time. It gives no verdicts itself.

use std::collections::hash_map::RandomState;
use std::time::{Duration, Instant};

use crate::alg::{PacketId, PacketIn, QueuePoint};
use crate::expiring::ExpiringMap;
use crate::packet;

/// Most packets held of each kind: of UDP, as many as the engine parks by default; of TCP, as many again. So neither keeps
/// the other out.
pub const PACKETS: usize = 1024;
/// Most bytes held of each kind: room for that many packets of usual size, not for that many of 64 KiB.
const BYTES: usize = 8 << 20;
/// A verdict waits for commands, which take milliseconds, or for what has to go before, for which nothing waits longer than
/// twice as long as `sip.tcp-patience` may be (25 s). What is held longer was forgotten.
pub const LIFETIME: Duration = Duration::from_secs(60);

/// The held packets.
#[derive(Debug)]
pub struct Held {
    packets: ExpiringMap<PacketId, Copied, RandomState>,
    /// What is held of [`Kind::Datagram`] and of [`Kind::Segment`].
    sizes: [Size; 2],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Size {
    packets: usize,
    bytes: usize,
}

/// What may become of a packet for which there is no verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It passes as it came: UDP, and everything else that is no segment.
    Datagram,
    /// It is dropped, and sent again: TCP. In a connection that is translated, as it came would be wrong.
    Segment,
}

impl Kind {
    /// That of a packet.
    pub fn of(packet: &PacketIn<'_>) -> Self {
        // At this point there is nothing else, whole or not.
        if packet.point == QueuePoint::BeforeConntrack || packet::carries_tcp(packet.bytes) {
            Self::Segment
        } else {
            Self::Datagram
        }
    }
}

#[derive(Debug)]
struct Copied {
    kind: Kind,
    point: QueuePoint,
    indev: u32,
    outdev: u32,
    bytes: Box<[u8]>,
}

/// A limit is reached; the packet is not held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many packets wait for a verdict")]
pub struct Full;

impl Default for Held {
    fn default() -> Self {
        Self { packets: ExpiringMap::new(2 * PACKETS, RandomState::new()), sizes: <_>::default() }
    }
}

impl Held {
    /// Keeps a copy of `packet`.
    ///
    /// # Errors
    /// [`Full`].
    pub fn insert(&mut self, packet: &PacketIn<'_>, now: Instant) -> Result<(), Full> {
        let PacketIn { id, point, indev, outdev, bytes } = *packet;
        self.remove(id);
        let kind = Kind::of(packet);
        let size = self.sizes.get_mut(kind as usize).ok_or(Full)?;
        if size.packets >= PACKETS || size.bytes + bytes.len() > BYTES {
            return Err(Full);
        }
        let copied = Copied { kind, point, indev, outdev, bytes: bytes.into() };
        self.packets.insert(id, copied, now + LIFETIME).map_err(|_| Full)?;
        *size = Size { packets: size.packets + 1, bytes: size.bytes + bytes.len() };
        Ok(())
    }

    /// A held packet.
    pub fn get(&self, id: PacketId) -> Option<PacketIn<'_>> {
        let Copied { point, indev, outdev, bytes, .. } = self.packets.get(&id)?;
        Some(PacketIn { id, point: *point, indev: *indev, outdev: *outdev, bytes })
    }

    /// Forgets a packet; whether it was held.
    pub fn remove(&mut self, id: PacketId) -> bool {
        let removed = self.packets.remove(&id);
        if let Some(copied) = &removed {
            self.took_out(copied.kind, copied.bytes.len());
        }
        removed.is_some()
    }

    fn took_out(&mut self, kind: Kind, bytes: usize) {
        if let Some(size) = self.sizes.get_mut(kind as usize) {
            *size = Size { packets: size.packets - 1, bytes: size.bytes - bytes };
        }
    }

    /// Takes out one packet that has been held for too long.
    pub fn pop_overdue(&mut self, now: Instant) -> Option<(PacketId, Kind)> {
        let (id, copied) = self.packets.pop_expired(now)?;
        self.took_out(copied.kind, copied.bytes.len());
        Some((id, copied.kind))
    }

    /// When [`Held::pop_overdue`] is worth a call.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.packets.poll_timeout()
    }

    /// All held packets, in the order of their names, which is that of arrival in each queue.
    pub fn ids(&self) -> Vec<(PacketId, Kind)> {
        let mut ids: Vec<_> = self.packets.iter().map(|(id, copied)| (*id, copied.kind)).collect();
        ids.sort_unstable_by_key(|(id, _)| *id);
        ids
    }

    /// Number of packets held.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether no packet is held.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(id: u64, bytes: &[u8]) -> PacketIn<'_> {
        PacketIn { id: PacketId(id), point: QueuePoint::Learn, indev: 3, outdev: 4, bytes }
    }

    #[test]
    fn a_held_packet_is_what_was_put_in() {
        let (mut held, now) = (Held::default(), Instant::now());
        held.insert(&packet(7, b"abc"), now).unwrap();
        let back = held.get(PacketId(7)).unwrap();
        assert_eq!((back.id, back.point, back.indev, back.outdev), (PacketId(7), QueuePoint::Learn, 3, 4));
        assert_eq!(back.bytes, b"abc");
        assert!(held.remove(PacketId(7)));
        assert!(!held.remove(PacketId(7)));
        assert!(held.get(PacketId(7)).is_none() && held.is_empty());
    }

    #[test]
    fn number_and_bytes_are_bounded() {
        let (mut held, now) = (Held::default(), Instant::now());
        let large = vec![0; 65_535];
        let fit = (0..).take_while(|id| held.insert(&packet(*id, &large), now).is_ok()).count();
        assert_eq!(fit, BYTES / 65_535);
        assert!(held.remove(PacketId(0)));
        assert_eq!(held.insert(&packet(0, &large), now), Ok(()));

        let mut held = Held::default();
        let fit = (0..).take_while(|id| held.insert(&packet(*id, b"x"), now).is_ok()).count();
        assert_eq!(fit, PACKETS);
        assert_eq!(held.insert(&packet(5, b"xyz"), now), Ok(()), "a held packet may be replaced");
        assert_eq!(held.sizes, [Size { packets: PACKETS, bytes: PACKETS + 2 }, Size::default()]);
    }

    #[test]
    fn segments_and_datagrams_keep_each_other_out_of_nothing() {
        let (mut held, now) = (Held::default(), Instant::now());
        let segment = |id| PacketIn { point: QueuePoint::BeforeConntrack, ..packet(id, b"x") };
        let fit = (0..).take_while(|id| held.insert(&segment(*id), now).is_ok()).count();
        assert_eq!(fit, PACKETS);
        assert_eq!(held.insert(&packet(1 << 40, b"x"), now), Ok(()));
        assert!(held.remove(PacketId(7)));
        assert_eq!(held.insert(&segment(1 << 41), now), Ok(()));
        assert_eq!(held.ids().last(), Some(&(PacketId(1 << 41), Kind::Segment)));
        let mut whole = [0; 40];
        (whole[0], whole[3], whole[9]) = (0x45, 40, 6);
        assert_eq!(Kind::of(&packet(1, &whole)), Kind::Segment);
        whole[9] = 17;
        assert_eq!(Kind::of(&packet(1, &whole)), Kind::Datagram);
    }

    #[test]
    fn a_forgotten_packet_is_given_back() {
        let (mut held, now) = (Held::default(), Instant::now());
        held.insert(&packet(1, b"x"), now).unwrap();
        assert_eq!(held.pop_overdue(now + LIFETIME - Duration::from_millis(1)), None);
        assert!(held.poll_timeout().is_some_and(|due| due <= now + LIFETIME));
        assert_eq!(held.pop_overdue(now + LIFETIME), Some((PacketId(1), Kind::Datagram)));
        assert_eq!((held.len(), held.sizes), (0, <_>::default()));
    }
}
