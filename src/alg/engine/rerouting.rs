//! A flow that leaves by another uplink.
//!
//! The default route has moved, or an uplink is down. conntrack translates a flow as was decided with its first packet, so the
//! phone's messages would leave by the new way with the old one's address, and the answers would go astray, for as long as
//! the phone keeps the flow alive. The kernel prevents that for masquerade only. So the shell is asked whose the address is
//! ([`Op::Reroute`]): if it was the old uplink's own, conntrack's entry goes, the message is dropped, and when the phone
//! repeats it the NAT decides anew. An address that belongs to no uplink alone goes with the flow. A TCP connection can't be
//! taken along: both of its ends are reset, and the phone connects anew. Media under way is not touched: the far end goes on
//! to send to where it was told, until the phone tells it something else.

use std::time::Instant;

use super::super::command::{CommandId, Failure, FlowKey, Op, Transport};
use super::super::endpoint::Outside;
use super::super::flow::{Mapping, PublicSide};
use super::super::io::PacketIn;
use super::Engine;
use super::commands::Inflight;

impl Engine {
    /// A packet of a known flow leaves by another uplink than those before; it waits for the answer.
    pub(super) fn ask_for_another_way(&mut self, packet: &PacketIn<'_>, flow: FlowKey, public: Outside) {
        let from = self.flows.get(&flow).map_or(0, |flow| flow.uplink);
        let command = self.ask_whose(flow, public, [from, packet.outdev]);
        self.park(packet.id, None, &[command]);
    }

    /// A segment of a connection leaves by `to`. It does not wait: it is lost, or comes again.
    pub(super) fn ask_for_another_connection(&mut self, flow: FlowKey, to: u32) {
        let Some(known) = self.flows.get(&flow).filter(|it| it.leaves_elsewhere(to)) else { return };
        let Some(public) = known.public().map(|side| side.endpoint) else { return };
        let from = known.uplink;
        self.ask_whose(flow, public, [from, to]);
    }

    fn ask_whose(&mut self, flow: FlowKey, public: Outside, [from, to]: [u32; 2]) -> CommandId {
        let purpose = Inflight::Reroute { flow, public, uplink: to };
        self.command(Op::Reroute { flow, public, from, to }, purpose)
    }

    /// No failure: the entry is gone.
    pub(super) fn rerouted(
        &mut self,
        now: Instant,
        key: FlowKey,
        public: Outside,
        uplink: u32,
        failure: Option<Failure>,
    ) {
        let is_it = |side: &PublicSide| side.endpoint == public;
        let Some(flow) = self.flows.get_mut(&key).filter(|flow| flow.public().is_some_and(is_it)) else {
            return;
        };
        if failure.is_some() {
            flow.note_interfaces(0, uplink);
            return self.failed("reroute", failure.filter(|it| *it != Failure::NotFound));
        }
        if key.transport == Transport::Tcp {
            self.cut_connection(&key);
        }
        self.lose_flow(now, &key);
        if let Some(flow) = self.flows.get_mut(&key) {
            flow.mapping = Mapping::Moved(now);
            flow.uplink = uplink;
        }
    }
}
