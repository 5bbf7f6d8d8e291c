//! What a public address that is gone takes with it.
//!
//! A router gets a new address, or loses an uplink. What the NAT made of a flow is not true any more, media that comes
//! to the old address comes no more, and media that is sent from it is lost. So mappings, registrations, bindings and
//! calls by that address end at once; those of other uplinks are not touched. The phones' next messages make new flows,
//! which are learned as any new flow is. A call whose phone has moved with a re-INVITE of its own begins anew.

use std::net::IpAddr;
use std::time::Instant;

use super::super::binding::BindingKey;
use super::super::call::Stream;
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
                let is_at = |key| self.is_at(&key, address);
                on_lost_flow(&call.flow.get()) || call.legs.iter().any(|leg| leg.bindings().any(is_at))
            })
            .map(|(key, _)| *key)
            .collect();
        calls.sort_unstable();
        let before = self.calls.len();
        for key in calls {
            // A leg without media is where its call's signalling is.
            while let Some(call) = self.calls.get(&key)
                && let Some(index) = call.legs.iter().position(|leg| {
                    let mut media = leg.local.iter().flat_map(Stream::keys);
                    let silent = leg.local.is_empty();
                    media.any(|key| self.is_at(&key, address)) || silent && on_lost_flow(&call.flow.get())
                })
            {
                self.end_leg(now, key, index, "lost");
            }
            self.forget_retired(now, key, address);
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

    /// A phone that took its call to another uplink in time has left these behind.
    fn forget_retired(&mut self, now: Instant, call_key: Key, address: IpAddr) {
        let legs = self.calls.get(&call_key).map_or(0, |call| call.legs.len());
        for index in 0..legs {
            let leg = self.calls.get(&call_key).and_then(|call| call.legs.get(index));
            let Some(leg) = leg else { return };
            let gone: Vec<_> = leg.retired.iter().copied().filter(|key| self.is_at(key, address)).collect();
            let leg = self.calls.get_mut(&call_key).and_then(|call| call.legs.get_mut(index));
            let Some(leg) = leg else { return };
            leg.stale = leg.retired.iter().take(leg.stale).filter(|key| !gone.contains(key)).count();
            leg.retired.retain(|key| !gone.contains(key));
            self.give_back(now, call_key, index, &gone);
        }
    }
}
