//! What a public address that is gone takes with it.
//!
//! A router gets a new address, or loses an uplink. What the NAT made of a flow is not true any more, media that comes
//! to the old address comes no more, and media that is sent from it is lost. So mappings, registrations, bindings and
//! calls by that address end at once; those of other uplinks are not touched. The phones' next messages make new flows,
//! which are learned as any new flow is. A call whose phone has moved with a re-INVITE of its own begins anew.

use std::net::IpAddr;
use std::time::Instant;

use super::super::binding::BindingKey;
use super::super::call::Leg;
use super::super::command::{FlowKey, Op};
use super::super::event::Event;
use super::super::key::Key;
use super::Engine;

impl Engine {
    /// This machine has lost `address`.
    pub(super) fn leave_address(&mut self, now: Instant, address: IpAddr) {
        let lost = |(key, flow): (&FlowKey, &super::Flow)| {
            flow.public().filter(|side| side.endpoint.0.ip() == address).map(|_| *key)
        };
        let mut flows: Vec<FlowKey> = self.flows.iter().filter_map(lost).collect();
        flows.sort_unstable();
        let bindings = self.bindings.at_address(address);
        if flows.is_empty() && bindings.is_empty() {
            return;
        }
        let on_lost_flow = |key: &FlowKey| flows.binary_search(key).is_ok();
        let mut calls: Vec<Key> = self
            .calls
            .iter()
            .filter(|(_, call)| {
                on_lost_flow(&call.flow.get()) || call.legs.iter().any(|leg| self.uses(leg, address))
            })
            .map(|(key, _)| *key)
            .collect();
        calls.sort_unstable();
        let before = self.calls.len();
        for key in calls {
            // A leg without media is where its call's signalling is.
            while let Some(call) = self.calls.get(&key)
                && let Some(index) = call.legs.iter().position(|leg| {
                    let silent = leg.bindings().next().is_none();
                    self.uses(leg, address) || (silent && on_lost_flow(&call.flow.get()))
                })
            {
                self.end_leg(now, key, index, "lost");
            }
        }
        for key in &flows {
            self.lose_flow(now, key);
        }
        // What no leg owned.
        for key in bindings {
            self.close(now, &[key]);
        }
        self.background(Op::Purge { address }, "purge");
        let calls = before.saturating_sub(self.calls.len());
        self.event(Event::AddressGone { address, flows: flows.len(), calls });
    }

    fn is_at(&self, key: &BindingKey, address: IpAddr) -> bool {
        self.bindings.get(key).is_some_and(|binding| binding.public().0.ip() == address)
    }

    fn uses(&self, leg: &Leg, address: IpAddr) -> bool {
        leg.bindings().any(|key| self.is_at(&key, address))
    }
}
