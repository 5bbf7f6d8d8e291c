//! Phones that listen at another port than the one they send from (Cisco 7940, 7941 and their like).
//!
//! Without `rport` a response goes to the port of the Via (RFC 3261 section 18.2.2), and such a phone hears nothing
//! elsewhere. Outside, both ports are the one public port of its flow, and the NAT leads that to the port which the phone
//! sends from. So the port of its Via is remembered with the flow, and messages that come in by it go there. The text of a
//! message does not depend on it.

use std::net::SocketAddr;

use super::super::command::{FlowKey, Transport};
use super::super::flow::Direction;
use super::super::guard;
use super::super::verdict::Reason;
use super::Engine;
use super::message::Context;
use crate::sip::{host, params};

/// What a Via without a port means, and what such phones listen at: S9 forbids these for media only.
const SIP_PORTS: [u16; 2] = [5060, 5061];

impl Engine {
    /// Notes where the sender of a request listens. Its latest request counts; one with the Via of another host tells
    /// nothing of it.
    pub(super) fn note_sent_by(&mut self, context: &Context<'_>) {
        let is_request = context.envelope.status.is_none() && context.direction == Direction::Outbound;
        let FlowKey { transport, inside, .. } = context.flow;
        let (bytes, via) = (context.bytes, &context.envelope.via);
        if !is_request
            || transport != Transport::Udp
            || host::address(via.host.of(bytes)) != Some(inside.0.ip())
        {
            return;
        }
        let Some(port) = via.port.map_or(Some(SIP_PORTS[0]), |_| via.port_number(bytes)) else { return };
        let symmetric = params::find(bytes, via.params, "rport").is_some() || port == inside.0.port();
        let endpoint = SocketAddr::new(inside.0.ip(), port);
        let may = SIP_PORTS.contains(&port) || guard::may_open(&self.policy, endpoint);
        if let Some(flow) = self.flows.get_mut(&context.flow).filter(|flow| flow.public().is_some()) {
            flow.listens_at = (!symmetric && may).then_some(port);
        }
    }

    /// The port that a message which came by this flow goes to, if not the one that the NAT gave it. What is not
    /// believed, or is none of ours, goes where it went.
    pub(super) fn listens_at(&self, flow: &FlowKey, direction: Direction, reason: Reason) -> Option<u16> {
        let is_ours = !matches!(reason, Reason::HandsOff | Reason::PeerNotAllowed | Reason::Suspicious);
        let flow = self.flows.get(flow).filter(|_| direction == Direction::Inbound && is_ours)?;
        flow.public().and(flow.listens_at)
    }
}
