//! Which text a URI had, by what of it comes back.
//!
//! Outside, host and port of all of them are the public endpoint. What the far end gives back to tell them by is the user and
//! the transport, and the dialog. So a form is remembered by user and transport, for what comes anew; and by the dialog too
//! where that says too little: each host behind a proxy may have a user of the same name ([`Recall::note`]). What can't even be
//! told apart within one message is not mapped ([`Twins`]).
//!
//! What a REGISTER says is kept apart from what dialogs say: a new request comes to what was registered last, one in a dialog
//! to what was said in it.

use std::net::SocketAddr;

use arrayvec::ArrayVec;

use super::Rule;
use crate::alg::key::{Key, Keyer};
use crate::alg::names::{FormId, Names};
use crate::sip::params;
use crate::sip::uri::Uri;

/// Domains of digests for what dialogs and other requests say, and for what a REGISTER says.
const CONTACT: [u8; 2] = [b'u', b'g'];
const ROUTE: [u8; 2] = [b'o', b'p'];
const REFER: [u8; 2] = [b'f', b'f'];
const DIALOG: u8 = b'd';
/// Stands for any transport; none is written so.
const ANY: &[u8] = b" ";
/// URIs of one message that are compared; more are not told apart.
const COMPARED: usize = 16;

/// What tells the URIs of a message from those of others.
#[derive(Clone, Copy, Debug)]
pub struct Recall {
    /// Makes the digests.
    pub keyer: Keyer,
    /// The call.
    pub call: Key,
    /// The phone's tag in it as a digest; 0: none yet.
    pub tag: u64,
    /// Whether it is of a registration, and its Contacts what new requests come to.
    pub registers: bool,
    /// Whether more may come in that dialog. Pings by OPTIONS, each with a Call-ID of its own, would push out what calls say.
    pub lasts: bool,
}

impl Recall {
    /// Remembers how a URI was written. `own`: it names the phone itself, not a host behind it.
    pub(super) fn note(
        &self,
        bytes: &[u8],
        uri: &Uri,
        rule: Rule,
        (form, own): (FormId, bool),
        names: &mut Names,
    ) {
        let transport = transport_of(bytes, uri);
        let domain = self.domain(rule);
        let general = self.digest(domain, bytes, uri, &transport);
        let before = names.of_user(general);
        if own && rule == Rule::Contact {
            names.remember_contact(form, !transport.is_empty());
        }
        // What dialogs have heard first stays, for they tell apart what comes later.
        let is_general = self.registers || before.is_none_or(|before| before == form);
        if is_general {
            names.remember_user(general, form);
            if !transport.is_empty() {
                names.remember_user(self.digest(domain, bytes, uri, ANY), form);
            }
        }
        let particular = self.in_dialog(domain, bytes, uri, &transport);
        let is_particular = || !is_general || !own || names.of_user(particular).is_some();
        if self.lasts && is_particular() {
            names.remember_user(particular, form);
        }
    }

    /// How a URI was written that comes back.
    pub(super) fn form(&self, bytes: &[u8], uri: &Uri, rule: Rule, names: &Names) -> Option<FormId> {
        let transport = transport_of(bytes, uri);
        let domain = self.domain(rule);
        let of_dialog = || names.of_user(self.in_dialog(domain, bytes, uri, &transport));
        let general = |domain| {
            let of = |transport: &[u8]| names.of_user(self.digest(domain, bytes, uri, transport));
            // Some far ends leave the transport out, or add it.
            of(&transport).or_else(|| of(&[])).or_else(|| of(ANY))
        };
        let [usual, registered] = domains(rule);
        let is_new = self.registers || self.tag == 0;
        let [first, second] = if is_new { [registered, usual] } else { [usual, registered] };
        of_dialog().or_else(|| general(first)).or_else(|| general(second))
    }

    fn domain(&self, rule: Rule) -> u8 {
        let [usual, registered] = domains(rule);
        if self.registers { registered } else { usual }
    }

    fn digest(&self, domain: u8, bytes: &[u8], uri: &Uri, transport: &[u8]) -> u64 {
        let user = user_of(bytes, uri);
        if transport.is_empty() {
            self.keyer.digest(domain, user)
        } else {
            self.keyer.digest_of(domain, &[user, transport])
        }
    }

    fn in_dialog(&self, domain: u8, bytes: &[u8], uri: &Uri, transport: &[u8]) -> u64 {
        // Each refresh of a registration may have another tag.
        let tag = if self.registers { 0 } else { self.tag };
        let (call, tag) = (self.call.bytes(), tag.to_ne_bytes());
        self.keyer.digest_of(DIALOG, &[&[domain], user_of(bytes, uri), transport, &call, &tag])
    }
}

/// Of the URIs in one message that differ in nothing but the inside endpoint, the one that is mapped: that of the flow
/// itself, or else the first. Of two neighbours in a route set the far end only resolves that one.
#[derive(Debug, Default)]
pub(super) struct Twins(ArrayVec<(u64, SocketAddr), COMPARED>);

impl Twins {
    /// Takes one into account. `inside` is the flow's endpoint.
    pub(super) fn add(
        &mut self,
        recall: &Recall,
        bytes: &[u8],
        (uri, rule, endpoint): (&Uri, Rule, SocketAddr),
        inside: SocketAddr,
    ) {
        let digest = Self::digest(recall, bytes, uri, rule);
        match self.0.iter_mut().find(|(known, _)| *known == digest) {
            Some((_, chosen)) if endpoint == inside => *chosen = inside,
            Some(_) => {}
            None => {
                let _ = self.0.try_push((digest, endpoint));
            }
        }
    }

    /// Whether another one than that at `endpoint` is mapped.
    pub(super) fn prefer_another(
        &self,
        recall: &Recall,
        bytes: &[u8],
        (uri, rule, endpoint): (&Uri, Rule, SocketAddr),
    ) -> bool {
        let digest = Self::digest(recall, bytes, uri, rule);
        self.0.iter().any(|(known, chosen)| *known == digest && *chosen != endpoint)
    }

    fn digest(recall: &Recall, bytes: &[u8], uri: &Uri, rule: Rule) -> u64 {
        recall.digest(recall.domain(rule), bytes, uri, &transport_of(bytes, uri))
    }
}

/// A Contact is what requests come to, and may be written differently from the others.
fn domains(rule: Rule) -> [u8; 2] {
    match rule {
        Rule::RouteSet => ROUTE,
        Rule::Refer => REFER,
        _ => CONTACT,
    }
}

fn user_of<'a>(bytes: &'a [u8], uri: &Uri) -> &'a [u8] {
    uri.user.map_or(&[][..], |user| user.of(bytes))
}

/// The transport that a URI names, in small letters, if it is another than UDP; `sips` for that scheme.
fn transport_of(bytes: &[u8], uri: &Uri) -> ArrayVec<u8, 8> {
    let said = if uri.secure {
        &b"sips"[..]
    } else {
        let param = params::find(bytes, uri.params, "transport").and_then(|param| param.value);
        param.map_or(&[][..], |value| value.of(bytes))
    };
    let mut transport = ArrayVec::try_from(said).unwrap_or_default();
    transport.make_ascii_lowercase();
    if transport.as_slice() == b"udp" { ArrayVec::new() } else { transport }
}
