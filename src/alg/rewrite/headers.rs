//! Addresses in SIP headers.
//!
//! Outbound, a host that is the phone's own inside address becomes the flow's public endpoint. Inbound, what is that
//! public endpoint becomes the text that the phone had written. Host names, other schemes and foreign addresses stay.
//! Which header is touched in which direction stands in one table, [`rule_of`].

use std::net::{IpAddr, SocketAddr};

use super::{Conflict, Decimal, Edits, Rule};
use crate::alg::endpoint::Inside;
use crate::alg::flow::PublicSide;
use crate::alg::key::Keyer;
use crate::alg::names::{FormId, Names};
use crate::sip::name_addr::{self, NameAddr};
use crate::sip::uri::Uri;
use crate::sip::via::Via;
use crate::sip::{Header, HeaderName, Message, StartLine, host, list};
use crate::span::Span;

const SIP_PORT: u16 = 5060;
const SIPS_PORT: u16 = 5061;
const CONTACT_DOMAIN: u8 = b'u';
const ROUTE_DOMAIN: u8 = b'o';
const REFER_DOMAIN: u8 = b'f';

/// The two sides of one flow.
#[derive(Clone, Copy, Debug)]
pub struct Sides<'a> {
    /// The phone.
    pub inside: Inside,
    /// What stands for it outside.
    pub public: &'a PublicSide,
    /// Digests of user parts.
    pub keyer: Keyer,
}

/// Which rule holds for a header whose values are addresses.
fn rule_of(name: HeaderName) -> Option<Rule> {
    match name {
        HeaderName::Contact => Some(Rule::Contact),
        HeaderName::Route | HeaderName::RecordRoute | HeaderName::Path | HeaderName::ServiceRoute => {
            Some(Rule::RouteSet)
        }
        HeaderName::ReferTo | HeaderName::ReferredBy => Some(Rule::Refer),
        _ => None,
    }
}

/// Whether the values of headers of this name are addresses that are mapped.
pub fn is_mapped(name: HeaderName) -> bool {
    rule_of(name).is_some()
}

/// Maps a message that leaves; `via` is its topmost Via. Answers with the form of the Via sent-by that was replaced, for the way back.
///
/// # Errors
/// [`Conflict`] if two places overlap, which a sound parser rules out.
pub fn outbound(
    bytes: &[u8],
    message: &Message,
    via: &Via,
    sides: Sides<'_>,
    names: &mut Names,
    edits: &mut Edits,
) -> Result<Option<FormId>, Conflict> {
    let mut via_form = None;
    if matches!(message.start(), StartLine::Request { .. }) && sides.is_inside(bytes, via.host) {
        via_form = names.remember(host_port(via.host, via.port).of(bytes));
        sides.map(bytes, via.host, via.port, SIP_PORT, Rule::Via, edits)?;
    }
    for (header, rule) in address_headers(message) {
        for uri in uris(bytes, header) {
            if sides.is_inside(bytes, uri.host) {
                if let Some(form) = names.remember(uri.host_port().of(bytes)) {
                    names.remember_user(sides.user(bytes, &uri, rule), form);
                }
                sides.map(bytes, uri.host, uri.port, default_port(&uri), rule, edits)?;
            }
        }
    }
    Ok(via_form)
}

/// Restores a message that comes in; `via` is its topmost Via. `via_form` is what [`outbound`] answered for its request.
///
/// # Errors
/// [`Conflict`] if two places overlap, which a sound parser rules out.
pub fn inbound(
    bytes: &[u8],
    message: &Message,
    via: &Via,
    sides: Sides<'_>,
    names: &Names,
    via_form: Option<FormId>,
    edits: &mut Edits,
) -> Result<(), Conflict> {
    match message.start() {
        StartLine::Request { uri, .. } => {
            // Only what the phone gave as its Contact: a trunk's number at our public address keeps the text over
            // which the digest was made.
            if let Some(uri) = Uri::parse(bytes, uri)
                && sides.is_public(bytes, uri.host, uri.port, default_port(&uri))
                && let Some(form) = names.of_user(sides.user(bytes, &uri, Rule::Contact))
            {
                sides.restore(uri.host_port(), names, Some(form), Rule::RequestUri, edits)?;
            }
        }
        StartLine::Status { .. } => restore_via(bytes, via, sides, names, via_form, edits)?,
    }
    for (header, rule) in address_headers(message) {
        for uri in uris(bytes, header) {
            if sides.is_public(bytes, uri.host, uri.port, default_port(&uri)) {
                let form = names.of_user(sides.user(bytes, &uri, rule));
                sides.restore(uri.host_port(), names, form, rule, edits)?;
            }
        }
    }
    Ok(())
}

fn restore_via(
    bytes: &[u8],
    via: &Via,
    sides: Sides<'_>,
    names: &Names,
    form: Option<FormId>,
    edits: &mut Edits,
) -> Result<(), Conflict> {
    if sides.is_public(bytes, via.host, via.port, SIP_PORT) {
        sides.restore(host_port(via.host, via.port), names, form, Rule::Via, edits)?;
    }
    let public = sides.public.endpoint.0;
    let is_ours = |span: Span| host::address(span.of(bytes)) == Some(public.ip());
    let inside = PublicSide::new(crate::alg::endpoint::Outside(sides.inside.0));
    for value in [via.received, via.maddr].into_iter().flatten() {
        if is_ours(value) {
            let bracketed = value.of(bytes).first() == Some(&b'[');
            let text = if bracketed { inside.host.as_bytes() } else { inside.address.as_bytes() };
            edits.replace(value, text, Rule::ViaParameter)?;
        }
    }
    if let Some(rport) = via.rport
        && via.received.is_none_or(is_ours)
        && rport.of(bytes) == Decimal::new(public.port().into()).bytes()
        && public.port() != sides.inside.0.port()
    {
        edits.replace(rport, Decimal::new(sides.inside.0.port().into()).bytes(), Rule::ViaParameter)?;
    }
    Ok(())
}

fn address_headers(message: &Message) -> impl Iterator<Item = (&Header, Rule)> {
    message.headers().iter().filter_map(|header| Some((header, rule_of(header.name)?)))
}

fn uris<'a>(bytes: &'a [u8], header: &Header) -> impl Iterator<Item = Uri> + 'a {
    list::values(bytes, header.value).filter_map(|value| match name_addr::parse(bytes, value)? {
        NameAddr::Address { uri, .. } => Uri::parse(bytes, uri),
        NameAddr::Star => None,
    })
}

fn host_port(host: Span, port: Option<Span>) -> Span {
    port.map_or(host, |port| host.to(port))
}

fn default_port(uri: &Uri) -> u16 {
    if uri.secure { SIPS_PORT } else { SIP_PORT }
}

/// The number of a port text; an absent one stands for `default`, an impossible one for nothing.
fn port_number(bytes: &[u8], port: Option<Span>, default: u16) -> Option<u16> {
    let Some(port) = port else { return Some(default) };
    std::str::from_utf8(port.of(bytes)).ok()?.parse().ok()
}

impl Sides<'_> {
    fn is_inside(&self, bytes: &[u8], host: Span) -> bool {
        host::address(host.of(bytes)) == Some(self.inside.0.ip())
    }

    fn is_public(&self, bytes: &[u8], host: Span, port: Option<Span>, default: u16) -> bool {
        let ip: Option<IpAddr> = host::address(host.of(bytes));
        ip.zip(port_number(bytes, port, default)).map(SocketAddr::from) == Some(self.public.endpoint.0)
    }

    /// A digest of the user part, apart for Contacts, route sets and transfers: a Contact is what requests come to, and
    /// may be written differently from the others.
    fn user(&self, bytes: &[u8], uri: &Uri, rule: Rule) -> u64 {
        let domain = match rule {
            Rule::RouteSet => ROUTE_DOMAIN,
            Rule::Refer => REFER_DOMAIN,
            _ => CONTACT_DOMAIN,
        };
        self.keyer.digest(domain, uri.user.map_or(&[], |user| user.of(bytes)))
    }

    fn map(
        &self,
        bytes: &[u8],
        host: Span,
        port: Option<Span>,
        default: u16,
        rule: Rule,
        edits: &mut Edits,
    ) -> Result<(), Conflict> {
        let same_port = port_number(bytes, port, default) == Some(self.public.endpoint.0.port());
        if same_port {
            edits.replace(host, self.public.host.as_bytes(), rule)?;
        } else {
            edits.replace(host_port(host, port), self.public.host_port.as_bytes(), rule)?;
        }
        Ok(())
    }

    fn restore(
        &self,
        span: Span,
        names: &Names,
        form: Option<FormId>,
        rule: Rule,
        edits: &mut Edits,
    ) -> Result<(), Conflict> {
        if let Some(text) = form.or(names.first()).and_then(|form| names.text(form)) {
            edits.replace(span, text.as_bytes(), rule)?;
        } else {
            let canonical = PublicSide::new(crate::alg::endpoint::Outside(self.inside.0));
            edits.replace(span, canonical.host_port.as_bytes(), rule)?;
        }
        Ok(())
    }
}
