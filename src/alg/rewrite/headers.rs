//! Addresses in SIP headers.
//!
//! Outbound, a host that is the phone's own inside address becomes the flow's public endpoint. Inbound, what is that
//! public endpoint becomes the text that the phone had written. Host names, other schemes and foreign addresses stay.
//! Which header is touched in which direction stands in one table, [`rule_of`].
//!
//! A phone that knows its public endpoint (by STUN, by `rport`, by its administrator) writes that itself. Nothing is
//! mapped twice: such text is remembered like any other that the phone writes, so that it is also what comes back.
//!
//! Of a URI's parameters only `maddr` is an address, and it overrides the host (RFC 3261 section 19.1.1): it is mapped with
//! the host. Everything else in parameters and in URI headers (`?Replaces=…`) stays.

use std::net::{IpAddr, SocketAddr};

use super::recall::{Recall, Twins};
use super::{Conflict, Decimal, Edits, Rule};
use crate::alg::endpoint::{Inside, Outside};
use crate::alg::flow::PublicSide;
use crate::alg::names::{FormId, Names};
use crate::alg::policy::Prefix;
use crate::sip::name_addr::{self, NameAddr};
use crate::sip::uri::{self, Uri};
use crate::sip::via::Via;
use crate::sip::{Header, HeaderName, Message, StartLine, host, list, params};
use crate::span::Span;

const SIP_PORT: u16 = 5060;
const SIPS_PORT: u16 = 5061;

/// The two sides of one flow.
#[derive(Clone, Copy, Debug)]
pub struct Sides<'a> {
    /// The phone.
    pub inside: Inside,
    /// What stands for it outside.
    pub public: &'a PublicSide,
    /// Other hosts that the phone's messages may speak for (S8): those behind a proxy inside.
    pub hosts: &'a [Prefix],
    /// By what the texts of URIs are known again.
    pub recall: Recall,
    /// For a flow over TCP: what stands for the same phone's UDP ports outside.
    pub datagrams: &'a [(u16, PublicSide)],
}

/// What is known of the request that a message is, or answers.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// What stands for the host of its Via (one that left) or its Request-URI (an INVITE that came in), if that was replaced;
    /// `None`: nothing of its transaction has been seen.
    pub passed_as: Option<Option<FormId>>,
    /// Whether it is the phone that a Request-URI at its public endpoint asks for, whatever the user: it has registered there,
    /// or the request is in a dialog of its own.
    pub is_phone: bool,
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
    if matches!(message.start(), StartLine::Request { .. }) {
        let ip = host::address(via.host.of(bytes));
        let text = via.host_port().of(bytes);
        if ip == Some(sides.inside.0.ip()) {
            via_form = names.remember_own(text);
            sides.map(bytes, via.host, via.port, SIP_PORT, Rule::Via, edits)?;
        } else if sides.is_public(bytes, via.host, via.port, SIP_PORT) {
            via_form = names.remember(text);
        }
    }
    let mut twins = None;
    for (header, rule) in address_headers(message) {
        for uri in uris(bytes, header) {
            let Some(ip) = host::address(uri.host.of(bytes)) else { continue };
            let sides = sides.said_by(bytes, &uri);
            let text = uri.host_port().of(bytes);
            let is_own = ip == sides.inside.0.ip();
            let is_inside = sides.is_inside(ip);
            if is_inside && sides.yields(bytes, message, (&uri, rule), &mut twins) {
                continue;
            }
            let form = if is_own {
                names.remember_own(text)
            } else if is_inside || sides.is_public(bytes, uri.host, uri.port, default_port(&uri)) {
                names.remember(text)
            } else {
                continue;
            };
            match form {
                Some(form) => sides.recall.note(bytes, &uri, rule, (form, is_own || !is_inside), names),
                // Without it the way back would lead to somebody else; as it stands it may still work by a route.
                None if !is_own => continue,
                None => {}
            }
            if is_inside {
                sides.map(bytes, uri.host, uri.port, default_port(&uri), rule, edits)?;
                sides.swap_maddr(bytes, &uri, sides.inside.0.ip(), sides.public, rule, edits)?;
            }
        }
    }
    Ok(via_form)
}

/// Restores a message that comes in; `via` is its topmost Via. Answers with the form that the host of the Request-URI got.
///
/// # Errors
/// [`Conflict`] if two places overlap, which a sound parser rules out.
pub fn inbound(
    bytes: &[u8],
    message: &Message,
    via: &Via,
    sides: Sides<'_>,
    names: &Names,
    known: Known,
    edits: &mut Edits,
) -> Result<Option<FormId>, Conflict> {
    let mut form = None;
    match message.start() {
        StartLine::Request { uri: text, .. } => {
            if let Some(uri) = Uri::parse(bytes, text)
                && let sides = sides.heard_in(bytes, &uri)
                && sides.is_public(bytes, uri.host, uri.port, default_port(&uri))
            {
                let own = || names.contact().filter(|_| known.is_phone);
                let found = || sides.recall.form(bytes, &uri, Rule::Contact, names).or_else(own);
                // An INVITE, its CANCEL and its ACK have the same one (RFC 3261 sections 9.1 and 17.1.1.3), whatever the phone
                // has said of itself since.
                form =
                    known.passed_as.unwrap_or_else(|| found().filter(|_| !is_signed(bytes, message, text)));
                if form.is_some() {
                    sides.restore_uri(bytes, &uri, names, form, Rule::RequestUri, edits)?;
                }
            }
        }
        StartLine::Status { .. } => {
            restore_via(bytes, via, sides, names, known.passed_as.flatten(), edits)?;
        }
    }
    for (header, rule) in address_headers(message) {
        for uri in uris(bytes, header) {
            let sides = sides.heard_in(bytes, &uri);
            if sides.is_public(bytes, uri.host, uri.port, default_port(&uri)) {
                let form = sides.recall.form(bytes, &uri, rule, names);
                sides.restore_uri(bytes, &uri, names, form, rule, edits)?;
            }
        }
    }
    Ok(form)
}

/// Whether somebody who has proved himself has put just this Request-URI into the proof (RFC 7616 section 3.4.6: its `uri`): who
/// changed one of them alone would make the password wrong.
fn is_signed(bytes: &[u8], message: &Message, uri: Span) -> bool {
    let credentials = [HeaderName::Authorization, HeaderName::ProxyAuthorization];
    let mut values = credentials.into_iter().flat_map(|name| message.all(name));
    values.any(|header| header.value.of(bytes).split(|byte| *byte == b'"').any(|text| text == uri.of(bytes)))
}

/// The ports at which a message that leaves calls its sender, in headers whose addresses are mapped.
pub fn own_ports(bytes: &[u8], message: &Message, own: IpAddr) -> impl Iterator<Item = u16> {
    let all = address_headers(message).flat_map(move |(header, _)| uris(bytes, header));
    let is_own = move |uri: &Uri| host::address(uri.host.of(bytes)) == Some(own);
    all.filter(is_own).filter_map(move |uri| port_number(bytes, uri.port, default_port(&uri)))
}

fn restore_via(
    bytes: &[u8],
    via: &Via,
    sides: Sides<'_>,
    names: &Names,
    form: Option<FormId>,
    edits: &mut Edits,
) -> Result<(), Conflict> {
    let public = sides.public.shown;
    let restored = sides.is_public(bytes, via.host, via.port, SIP_PORT)
        && sides.restore(bytes, via.host_port(), names, form, Rule::Via, edits)?;
    if !restored && host::address(via.host.of(bytes)) == Some(public.ip()) {
        // The phone wrote its public address itself: `received` and `rport` tell it what it asked for.
        return Ok(());
    }
    let is_ours = |span: Span| host::address(span.of(bytes)) == Some(public.ip());
    let inside = PublicSide::new(Outside(sides.inside.0));
    for value in [via.received, via.maddr].into_iter().flatten() {
        if is_ours(value) {
            let bracketed = value.of(bytes).first() == Some(&b'[');
            let text = if bracketed { inside.host().as_bytes() } else { inside.address().as_bytes() };
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

fn default_port(uri: &Uri) -> u16 {
    if uri.secure { SIPS_PORT } else { SIP_PORT }
}

/// The number of a port text; an absent one stands for `default`, an impossible one for nothing.
fn port_number(bytes: &[u8], port: Option<Span>, default: u16) -> Option<u16> {
    port.map_or(Some(default), |port| uri::port_number(bytes, port))
}

/// The endpoint that a URI names, if its host is an address.
fn endpoint_of(bytes: &[u8], uri: &Uri) -> Option<SocketAddr> {
    let ip = host::address(uri.host.of(bytes));
    ip.zip(port_number(bytes, uri.port, default_port(uri))).map(SocketAddr::from)
}

impl Sides<'_> {
    /// The flow that the phone means by a URI. One that sends a message over TCP only for its size (RFC 3261 section
    /// 18.1.1) wants its requests where it always gets them: at the UDP endpoint that it writes.
    fn said_by(self, bytes: &[u8], uri: &Uri) -> Self {
        if self.datagrams.is_empty() {
            return self;
        }
        let transport = params::find(bytes, uri.params, "transport").and_then(|param| param.value);
        let is_datagram = transport.is_none_or(|it| it.of(bytes).eq_ignore_ascii_case(b"udp"));
        let port = port_number(bytes, uri.port, default_port(uri)).filter(|_| is_datagram && !uri.secure);
        let meant = self.datagrams.iter().find(|(own, _)| Some(*own) == port);
        meant.map_or(self, |(_, public)| Sides { public, ..self })
    }

    /// The flow that the other side means by a URI.
    fn heard_in(self, bytes: &[u8], uri: &Uri) -> Self {
        let mut all = self.datagrams.iter().map(|(_, public)| Sides { public, ..self });
        let meant = all.find(|sides| sides.is_public(bytes, uri.host, uri.port, default_port(uri)));
        meant.unwrap_or(self)
    }

    fn is_public(&self, bytes: &[u8], host: Span, port: Option<Span>, default: u16) -> bool {
        let ip: Option<IpAddr> = host::address(host.of(bytes));
        ip.zip(port_number(bytes, port, default)).map(SocketAddr::from) == Some(self.public.shown)
    }

    fn is_inside(&self, ip: IpAddr) -> bool {
        ip == self.inside.0.ip() || self.hosts.iter().any(|block| block.contains(ip))
    }

    /// Whether another inside URI of the message is mapped in place of this one, because outside they would look the same.
    /// `twins` are found when they are asked for first.
    fn yields(
        self,
        bytes: &[u8],
        message: &Message,
        (uri, rule): (&Uri, Rule),
        twins: &mut Option<Twins>,
    ) -> bool {
        let inside = self.inside.0;
        let Some(endpoint) = endpoint_of(bytes, uri).filter(|it| *it != inside) else { return false };
        let twins = twins.get_or_insert_with(|| {
            let mut twins = Twins::default();
            for (header, rule) in address_headers(message) {
                for uri in uris(bytes, header) {
                    if let Some(endpoint) = endpoint_of(bytes, &uri).filter(|it| self.is_inside(it.ip())) {
                        twins.add(&self.recall, bytes, (&uri, rule, endpoint), inside);
                    }
                }
            }
            twins
        });
        twins.prefer_another(&self.recall, bytes, (uri, rule, endpoint))
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
            edits.replace(host, self.public.host().as_bytes(), rule)?;
        } else {
            edits.replace(
                port.map_or(host, |port| host.to(port)),
                self.public.host_port().as_bytes(),
                rule,
            )?;
        }
        Ok(())
    }

    fn restore_uri(
        &self,
        bytes: &[u8],
        uri: &Uri,
        names: &Names,
        form: Option<FormId>,
        rule: Rule,
        edits: &mut Edits,
    ) -> Result<(), Conflict> {
        if self.restore(bytes, uri.host_port(), names, form, rule, edits)? {
            let inside = PublicSide::new(Outside(self.inside.0));
            self.swap_maddr(bytes, uri, self.public.shown.ip(), &inside, rule, edits)?;
        }
        Ok(())
    }

    /// Gives `maddr` the address of `to` if it has the address `from`.
    fn swap_maddr(
        &self,
        bytes: &[u8],
        uri: &Uri,
        from: IpAddr,
        to: &PublicSide,
        rule: Rule,
        edits: &mut Edits,
    ) -> Result<(), Conflict> {
        let maddr = params::find(bytes, uri.params, "maddr").and_then(|param| param.value);
        let Some(maddr) = maddr.filter(|maddr| host::address(maddr.of(bytes)) == Some(from)) else {
            return Ok(());
        };
        Ok(edits.replace(maddr, to.host().as_bytes(), rule)?)
    }

    /// Puts the phone's own text back: that of `form`, or else its usual one. `false`: it is there already.
    fn restore(
        &self,
        bytes: &[u8],
        span: Span,
        names: &Names,
        form: Option<FormId>,
        rule: Rule,
        edits: &mut Edits,
    ) -> Result<bool, Conflict> {
        if let Some(text) = form.or(names.own()).and_then(|form| names.text(form)) {
            if text.as_bytes() == span.of(bytes) {
                return Ok(false);
            }
            edits.replace(span, text.as_bytes(), rule)?;
        } else if names.is_empty() {
            let canonical = PublicSide::new(Outside(self.inside.0));
            edits.replace(span, canonical.host_port().as_bytes(), rule)?;
        } else {
            // It has only ever called itself by its public address.
            return Ok(false);
        }
        Ok(true)
    }
}
