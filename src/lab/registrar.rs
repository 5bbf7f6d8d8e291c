//! The registrar at 22.33.44.20. It also hands requests over to the phones that are registered with it: they are
//! reached by the flow that they registered by, and by no other (RFC 5626's idea).

use rsip::headers::UntypedHeader;
use rsip::message::HasHeaders;
use rsip::{Header, Method};

use super::message::{self, Heard};
use super::notebook::is_phone;
use super::provider::{Location, Provider};
use super::{digest, proxy};

/// How long a registration is granted for, in seconds.
pub(super) const GRANTED: u32 = 600;

/// Takes a message at the registrar's port. Whether it is dealt with.
pub(super) fn handle(provider: &Provider<'_>, heard: &Heard) -> bool {
    provider.inspect(heard);
    if heard.asks(Method::Register) {
        register(provider, heard);
        return true;
    }
    proxy::forward(&provider.registrar, heard)
}

fn register(provider: &Provider<'_>, heard: &Heard) {
    let answer = |status, more| {
        let response = message::response(heard, status, "registrar", more, None);
        provider.registrar.answer(heard, response);
    };
    let Some(phone) = message::phone_of(heard.to()).filter(|phone| is_phone(*phone)) else {
        return answer(404, vec![]);
    };
    let authorized = heard.message.headers().iter().any(|header| match header {
        Header::Authorization(value) => {
            digest::holds(value.value(), phone, heard.call_id(), Method::Register)
        }
        _ => false,
    });
    if !authorized {
        let challenge = digest::challenge(heard.call_id());
        return answer(401, vec![Header::WwwAuthenticate(challenge.into())]);
    }
    let Some(contact) = heard.contact() else { return answer(400, vec![]) };
    let uri = message::uri(contact);
    provider.relocate(phone, Location { uri: uri.to_owned() });
    if let Some(endpoint) = message::uri_endpoint(uri) {
        provider.notebook.registered(phone, endpoint);
    }
    answer(200, vec![Header::Contact(format!("{contact};expires={GRANTED}").into())]);
}
