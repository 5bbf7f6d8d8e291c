//! Packets whose verdict did not come within their batch.
//!
//! A queue keeps a packet's bytes until its next batch only; here they are kept until the verdict comes, within limits:
//! by number, by bytes and by time. It gives no verdicts itself.

use std::collections::hash_map::RandomState;
use std::time::{Duration, Instant};

use crate::alg::{PacketId, PacketIn, QueuePoint};
use crate::expiring::ExpiringMap;

/// Most packets held. As many as the engine parks by default.
const PACKETS: usize = 1024;
/// Most bytes held: room for that many packets of usual size, not for that many of 64 KiB.
const BYTES: usize = 8 << 20;
/// No verdict waits for anything but commands, which take milliseconds. What is held longer was forgotten.
pub const LIFETIME: Duration = Duration::from_secs(10);

/// The held packets.
#[derive(Debug)]
pub struct Held {
    packets: ExpiringMap<PacketId, Copied, RandomState>,
    bytes: usize,
}

#[derive(Debug)]
struct Copied {
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
        Self { packets: ExpiringMap::new(PACKETS, RandomState::new()), bytes: 0 }
    }
}

impl Held {
    /// Keeps a copy of `packet`.
    ///
    /// # Errors
    /// [`Full`].
    pub fn insert(&mut self, packet: &PacketIn<'_>, now: Instant) -> Result<(), Full> {
        if self.bytes + packet.bytes.len() > BYTES {
            return Err(Full);
        }
        let PacketIn { id, point, indev, outdev, bytes } = *packet;
        self.remove(id);
        let copied = Copied { point, indev, outdev, bytes: bytes.into() };
        self.packets.insert(id, copied, now + LIFETIME).map_err(|_| Full)?;
        self.bytes += bytes.len();
        Ok(())
    }

    /// A held packet.
    pub fn get(&self, id: PacketId) -> Option<PacketIn<'_>> {
        let Copied { point, indev, outdev, bytes } = self.packets.get(&id)?;
        Some(PacketIn { id, point: *point, indev: *indev, outdev: *outdev, bytes })
    }

    /// Forgets a packet; whether it was held.
    pub fn remove(&mut self, id: PacketId) -> bool {
        let removed = self.packets.remove(&id);
        self.bytes -= removed.as_ref().map_or(0, |copied| copied.bytes.len());
        removed.is_some()
    }

    /// Takes out one packet that has been held for too long.
    pub fn pop_overdue(&mut self, now: Instant) -> Option<PacketId> {
        let (id, copied) = self.packets.pop_expired(now)?;
        self.bytes -= copied.bytes.len();
        Some(id)
    }

    /// When [`Held::pop_overdue`] is worth a call.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.packets.poll_timeout()
    }

    /// The names of all held packets, in their order, which is that of arrival in each queue.
    pub fn ids(&self) -> Vec<PacketId> {
        let mut ids: Vec<_> = self.packets.iter().map(|(id, _)| *id).collect();
        ids.sort_unstable();
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
        assert_eq!(held.bytes, PACKETS + 2);
    }

    #[test]
    fn a_forgotten_packet_is_given_back() {
        let (mut held, now) = (Held::default(), Instant::now());
        held.insert(&packet(1, b"x"), now).unwrap();
        assert_eq!(held.pop_overdue(now + LIFETIME - Duration::from_millis(1)), None);
        assert!(held.poll_timeout().is_some_and(|due| due <= now + LIFETIME));
        assert_eq!(held.pop_overdue(now + LIFETIME), Some(PacketId(1)));
        assert_eq!((held.len(), held.bytes), (0, 0));
    }
}
