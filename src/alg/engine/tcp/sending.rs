//! How a segment goes on: in its wire form, or as a probe.

use std::mem;

use super::super::super::command::FlowKey;
use super::super::super::flow::Direction;
use super::super::super::io::PacketIn;
use super::super::super::tcp::Extent;
use super::super::super::verdict::Reason;
use super::super::{Engine, Queued};
use crate::packet::{Segment, TooLarge};

impl Engine {
    /// Lets a segment go on in its wire form.
    pub(super) fn pass(
        &mut self,
        packet: &PacketIn<'_>,
        segment: &Segment<'_>,
        key: FlowKey,
        extent: Extent,
        direction: Direction,
    ) {
        let room = self.room(packet, segment, &key, direction);
        let mut bytes = self.spare_bytes();
        let Some(connection) = self.connections.table.get_mut(&key) else {
            return self.accept(packet.id, None, Reason::NotInspected);
        };
        let outcome = connection.forward(segment, extent, direction, room, &mut bytes);
        self.send(packet, outcome, bytes);
    }

    /// Lets something go on in a segment's place that its receiver must answer.
    pub(super) fn probe(
        &mut self,
        packet: &PacketIn<'_>,
        segment: &Segment<'_>,
        key: FlowKey,
        direction: Direction,
    ) {
        let mut bytes = self.spare_bytes();
        let Some(connection) = self.connections.table.get_mut(&key) else {
            return self.accept(packet.id, None, Reason::NotInspected);
        };
        let outcome = connection.probe(segment, direction, &mut bytes);
        self.send(packet, outcome, bytes);
    }

    pub(super) fn room(
        &self,
        packet: &PacketIn<'_>,
        segment: &Segment<'_>,
        key: &FlowKey,
        direction: Direction,
    ) -> usize {
        let interface = match direction {
            Direction::Outbound => packet.outdev,
            Direction::Inbound => self.flows.get(key).map_or(0, |flow| flow.lan),
        };
        let mtu = self.connections.mtus.get(&interface);
        mtu.map_or(usize::MAX, |mtu| (*mtu as usize).saturating_sub(segment.headers()))
    }

    pub(super) fn send(&mut self, packet: &PacketIn<'_>, outcome: Result<(), TooLarge>, bytes: Vec<u8>) {
        match outcome {
            Ok(()) if bytes == packet.bytes => self.accept(packet.id, None, Reason::Segment),
            Ok(()) => {
                self.stats.count(Reason::Segment);
                self.outputs.push_back(Queued::Replace { packet: packet.id, bytes, reason: Reason::Segment });
            }
            Err(TooLarge) => self.drop_packet(packet.id, Reason::EditFailed),
        }
    }

    pub(super) fn spare_bytes(&mut self) -> Vec<u8> {
        mem::take(&mut self.replaced)
    }
}
