//! The proxy at 22.33.44.21: a stateless record-routing proxy between phones (RFC 3261 16.11), and the door to the
//! gateway for everybody else. Calls of phones are challenged (407), as every provider does.

use std::net::SocketAddr;

use rsip::headers::UntypedHeader;
use rsip::message::HasHeaders;
use rsip::{Header, Headers, Method, SipMessage, Uri};

use super::digest;
use super::line::Line;
use super::message::{self, Heard};
use super::network::{REGISTRAR, sip_port};
use super::provider::Provider;

/// Takes a message at the proxy's port. Whether it is dealt with; the rest is the gateway's.
pub(super) fn handle(provider: &Provider<'_>, heard: &Heard) -> bool {
    provider.inspect(heard);
    if forward(&provider.proxy, heard) {
        return true;
    }
    if !heard.asks(Method::Invite) || message::parameter(heard.to(), "tag").is_some() {
        return false;
    }
    let line = &provider.proxy;
    let Some(caller) = message::phone_of(heard.from()).filter(|phone| authorized(heard, *phone)) else {
        let challenge = Header::ProxyAuthenticate(digest::challenge(heard.call_id()).into());
        line.answer(heard, message::response(heard, 407, "proxy", vec![challenge], None));
        return true;
    };
    let Some(callee) = message::phone_of(&heard.request_uri) else { return false };
    match provider.locate(callee).filter(|_| caller != callee) {
        Some(location) => {
            let route = format!("<sip:{REGISTRAR};lr>");
            relay(line, heard, Some(&location.uri), vec![route], sip_port(REGISTRAR));
        }
        None => line.answer(heard, message::response(heard, 404, "proxy", vec![], None)),
    }
    true
}

/// Passes on what is routed through this server: responses to requests that it forwarded, and requests with a Route to
/// it. Whether it was one.
pub(super) fn forward(line: &Line, heard: &Heard) -> bool {
    if heard.status() != 0 {
        let vias = heard.vias();
        let [_, next, ..] = vias.as_slice() else { return false };
        let Some(to) = message::reply_address(next) else { return false };
        let mut response = heard.message.clone();
        let mut vias = 0;
        response.headers_mut().retain(|header| {
            vias += u8::from(matches!(header, Header::Via(_)));
            !matches!(header, Header::Via(_)) || vias > 1
        });
        line.send(&Vec::from(response), to);
        return true;
    }
    let routes = heard.routes();
    let Some((first, rest)) = routes.split_first() else { return false };
    if message::uri_endpoint(message::uri(first)) != Some(line.address()) {
        return false;
    }
    let next = rest.first().map_or(heard.request_uri.as_str(), |route| message::uri(route));
    let Some(to) = message::uri_endpoint(next) else { return true };
    relay(line, heard, None, rest.iter().map(|route| (*route).to_owned()).collect(), to);
    true
}

/// Sends a request on: a Via of ours on top, these routes, and a Record-Route if it opens a dialog.
fn relay(line: &Line, heard: &Heard, uri: Option<&str>, routes: Vec<String>, to: SocketAddr) {
    let SipMessage::Request(mut request) = heard.message.clone() else { return };
    if let Some(uri) = uri.and_then(|uri| Uri::try_from(uri).ok()) {
        request.uri = uri;
    }
    let own = line.address();
    // The same branch for each repetition of a request, another one for each other request.
    let mut headers =
        vec![Header::Via(format!("SIP/2.0/UDP {own};branch={}-{}", heard.branch(), own.ip()).into())];
    if heard.asks(Method::Invite) && message::parameter(heard.to(), "tag").is_none() {
        headers.push(Header::RecordRoute(format!("<sip:{};lr>", own.ip()).into()));
    }
    headers.extend(routes.into_iter().map(|route| Header::Route(route.into())));
    let mut topmost = true;
    for header in request.headers {
        match header {
            Header::Route(_) | Header::ProxyAuthorization(_) => (),
            Header::Via(via) if topmost => {
                topmost = false;
                headers.push(Header::Via(message::seen_from(via.value(), heard.source).into()));
            }
            other => headers.push(other),
        }
    }
    request.headers = Headers::from(headers);
    line.send(&Vec::from(request), to);
}

fn authorized(heard: &Heard, phone: u8) -> bool {
    heard.message.headers().iter().any(|header| match header {
        Header::ProxyAuthorization(value) => {
            digest::holds(value.value(), phone, heard.call_id(), Method::Invite)
        }
        _ => false,
    })
}
