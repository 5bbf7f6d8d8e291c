//! The provider: who is registered where, and what it thinks of the messages that reach it.
//!
//! One idea: the provider believes nothing that the network did not confirm. Whatever address a phone names must be
//! the one that its packets come from; an address of the phones' own network is never seen out here.
//! The registrar and the proxy are two sockets at two addresses over this common knowledge (`registrar`, `proxy`).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use super::line::Line;
use super::message::{self, Heard};
use super::network::{self, MEDIA, PROXY, PUBLIC, REGISTRAR};
use super::notebook::{Notebook, check_length};
use super::{Translation, ruleset, sdp};

/// The servers with what they know.
#[derive(Debug)]
pub(super) struct Provider<'n> {
    pub(super) registrar: Line,
    pub(super) proxy: Line,
    pub(super) translation: Translation,
    pub(super) notebook: &'n Notebook,
    locations: Mutex<HashMap<u8, Location>>,
}

/// Where a registered phone is reached.
#[derive(Clone, Debug)]
pub(super) struct Location {
    /// The URI of its Contact, as it came.
    pub(super) uri: String,
}

impl<'n> Provider<'n> {
    pub(super) fn new(
        registrar: Line,
        proxy: Line,
        translation: Translation,
        notebook: &'n Notebook,
    ) -> Self {
        Self { registrar, proxy, translation, notebook, locations: Mutex::default() }
    }

    pub(super) fn locate(&self, phone: u8) -> Option<Location> {
        self.locations.lock().unwrap_or_else(PoisonError::into_inner).get(&phone).cloned()
    }

    pub(super) fn relocate(&self, phone: u8, location: Location) {
        self.locations.lock().unwrap_or_else(PoisonError::into_inner).insert(phone, location);
    }

    /// Looks at a message that came to one of the servers.
    pub(super) fn inspect(&self, heard: &Heard) {
        let IpAddr::V4(source) = heard.source.ip() else { return };
        if [REGISTRAR, PROXY, MEDIA].contains(&source) {
            return;
        }
        let party = if heard.status() == 0 { heard.from() } else { heard.to() };
        let phone = message::phone_of(party).unwrap_or(0);
        let mut faults: Vec<String> = Vec::new();
        faults.extend(check_length(heard, "outside"));
        self.inspect_source(phone, heard, &mut faults);
        self.inspect_headers(heard, &mut faults);
        self.inspect_media(phone, heard, &mut faults);
        for fault in faults {
            self.notebook.fault(phone, format!("{}: {fault}", name(heard)));
        }
    }

    fn inspect_source(&self, phone: u8, heard: &Heard, faults: &mut Vec<String>) {
        if heard.source.ip() != self.face(phone) {
            faults.push(format!("came from {} and not from {}", heard.source.ip(), self.face(phone)));
        }
        let marked = phone == ruleset::MARKED_PHONE && self.translation == Translation::Masquerade;
        if marked && !ruleset::MARKED_PORTS.contains(&heard.source.port()) {
            faults.push(format!("left by port {}, so its packet mark was lost", heard.source.port()));
        }
    }

    fn inspect_headers(&self, heard: &Heard, faults: &mut Vec<String>) {
        let named = |place: &str, text: &str, endpoint: Option<SocketAddr>| match endpoint {
            Some(endpoint) if endpoint == heard.source => None,
            Some(endpoint) => Some(format!("{place} says {endpoint}, the packet came from {}", heard.source)),
            None => Some(format!("{place} names no address: {text}")),
        };
        if heard.status() == 0
            && let Some(via) = heard.vias().first()
        {
            faults.extend(named("Via", via, message::sent_by(via)));
        }
        if let Some(contact) = heard.contact() {
            faults.extend(named("Contact", contact, message::uri_endpoint(message::uri(contact))));
        }
        let hops = heard.routes().into_iter().chain(heard.record_routes()).map(message::uri);
        for uri in hops.chain([heard.request_uri.as_str()]) {
            let host = message::uri_endpoint(uri).map(|endpoint| endpoint.ip());
            if let Some(IpAddr::V4(address)) = host
                && network::is_private(address)
                && self.translation == Translation::Masquerade
            {
                faults.push(format!("private address in {uri}"));
            }
        }
        if heard.call_id().contains(&PUBLIC.to_string()) {
            faults.push("the Call-ID was changed".to_owned());
        }
    }

    fn inspect_media(&self, phone: u8, heard: &Heard, faults: &mut Vec<String>) {
        if heard.body().is_empty() {
            return;
        }
        let Some(offer) = sdp::read(heard.body()) else {
            return faults.push("SDP that makes no sense".to_owned());
        };
        let face = self.face(phone);
        for (place, address) in
            [("o=", offer.origin.into()), ("c=", offer.rtp.ip()), ("a=rtcp", offer.rtcp.ip())]
        {
            if address != face {
                faults.push(format!("{place} in the SDP says {address} and not {face}"));
            }
        }
        if offer.rtp.port() % 2 != 0 || Some(offer.rtcp.port()) != offer.rtp.port().checked_add(1) {
            faults.push(format!("RTP {} and RTCP {} are no pair", offer.rtp.port(), offer.rtcp.port()));
        }
        self.notebook.media(phone, offer.rtp);
    }

    /// The address that stands for a phone out here.
    fn face(&self, phone: u8) -> IpAddr {
        match self.translation {
            Translation::Masquerade => PUBLIC.into(),
            Translation::None => network::phone_address(phone).into(),
        }
    }
}

/// A message's short name.
pub(super) fn name(heard: &Heard) -> String {
    match heard.status() {
        0 => heard.method().to_string(),
        status => format!("{status} to {}", heard.method()),
    }
}
