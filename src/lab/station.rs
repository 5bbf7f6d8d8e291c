//! A user agent: what a phone and the provider's gateway have in common.
//!
//! Requests, dialogs and their routes (RFC 3261 12), written for scripts: each step sends, waits and gives what came.
//! What a phone or a provider thinks of the messages is not decided here, but by whoever listens at the
//! [`Line`].

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rsip::headers::UntypedHeader;
use rsip::message::HasHeaders;
use rsip::{Header, Method};

use super::line::{Conversation, Line, Outgoing};
use super::message::{self, Heard};
use super::{Trouble, digest};

/// How long a request may stay without a final answer. Shorter than timer B, so that a failed run ends soon.
const PATIENCE: Duration = Duration::from_secs(6);
/// The same for an INVITE, which rings in between.
const RINGING: Duration = Duration::from_secs(12);

/// A user agent on a line.
#[derive(Debug)]
pub(super) struct Station<'l> {
    pub(super) line: &'l Line,
    /// `<sip:10@phone.example>`
    pub(super) aor: String,
    /// The whole value of its Contact.
    pub(super) contact: String,
    /// As written in its Via.
    pub(super) sent_by: String,
    /// Whether it asks for RFC 3581.
    pub(super) rport: bool,
    /// Keeps branches and tags of all stations apart.
    pub(super) name: String,
    pub(super) count: AtomicU32,
    /// Who it is when challenged.
    pub(super) phone: Option<u8>,
}

/// A call that is up (RFC 3261 12).
#[derive(Clone, Debug)]
pub(super) struct Dialog {
    call_id: String,
    local: String,
    remote: String,
    target: String,
    routes: Vec<String>,
    sequence: u32,
}

impl Station<'_> {
    /// A text that nobody else uses.
    pub(super) fn token(&self) -> String {
        format!("{}{:x}", self.name, self.count.fetch_add(1, Ordering::Relaxed) + 0x100)
    }

    /// REGISTER with one challenge; gives the final answer.
    pub(super) fn register(
        &self,
        conversation: &mut Conversation<'_>,
        call_id: &str,
        registrar: SocketAddr,
        expires: u32,
    ) -> Result<Heard, Trouble> {
        let uri = format!("sip:{}", message::DOMAIN);
        let from = format!("{};tag={}", self.aor, self.token());
        let mut more =
            vec![Header::Contact(self.contact.as_str().into()), Header::Expires(expires.to_string().into())];
        let mut sequence = 1;
        loop {
            let head = Head {
                method: Method::Register,
                uri: &uri,
                from: &from,
                to: &self.aor,
                call_id,
                sequence,
                routes: &[],
            };
            let request = self.compose(&head, None, more.clone(), None, registrar);
            let heard = conversation.ask(&request, PATIENCE, |_| ())?;
            match heard.status() {
                200..=299 => return Ok(heard),
                401 if sequence == 1 => more.push(self.respond(&heard, Method::Register, &uri)?),
                status => return Err(Trouble::Refused(Method::Register, status)),
            }
            sequence += 1;
        }
    }

    /// INVITE, with one challenge if the other side wants it; the call is up when this returns. `progress` sees every
    /// provisional response.
    pub(super) fn place(
        &self,
        conversation: &mut Conversation<'_>,
        call: &Outward<'_>,
        mut progress: impl FnMut(&Heard),
    ) -> Result<(Dialog, Heard), Trouble> {
        let from = format!("{};tag={}", self.aor, self.token());
        let mut credentials = None;
        let mut sequence = 1;
        loop {
            let head = Head {
                method: Method::Invite,
                uri: call.uri,
                from: &from,
                to: call.to,
                call_id: call.call_id,
                sequence,
                routes: &[],
            };
            let mut more = vec![Header::Contact(self.contact.as_str().into())];
            more.extend(credentials.take());
            let invite = self.compose(&head, None, more, Some(call.offer), call.hop);
            let heard = conversation.ask(&invite, RINGING, &mut progress)?;
            if heard.status() < 300 {
                let dialog = Dialog {
                    call_id: call.call_id.to_owned(),
                    local: from,
                    remote: heard.to().to_owned(),
                    target: target(&heard)?,
                    routes: heard.record_routes().into_iter().rev().map(str::to_owned).collect(),
                    sequence,
                };
                let ack = self.within(&dialog, Method::Ack, sequence)?;
                conversation.acknowledge(&heard, &ack);
                return Ok((dialog, heard));
            }
            let ack = Head { method: Method::Ack, to: heard.to(), ..head };
            let ack = self.compose(&ack, Some(&invite.branch), vec![], None, call.hop);
            self.line.send(&ack.bytes, ack.to);
            match heard.status() {
                407 if sequence == 1 => credentials = Some(self.respond(&heard, Method::Invite, call.uri)?),
                status => return Err(Trouble::Refused(Method::Invite, status)),
            }
            sequence += 1;
        }
    }

    /// The called side's dialog, once it has chosen its tag.
    pub(super) fn dialog(invite: &Heard, aor_with_tag: String) -> Result<Dialog, Trouble> {
        Ok(Dialog {
            call_id: invite.call_id().to_owned(),
            local: aor_with_tag,
            remote: invite.from().to_owned(),
            target: target(invite)?,
            routes: invite.record_routes().into_iter().map(str::to_owned).collect(),
            sequence: 0,
        })
    }

    /// A response with this station's Contact.
    pub(super) fn respond_to(&self, request: &Heard, status: u16, tag: &str, sdp: Option<&str>) -> Vec<u8> {
        let more = match status {
            101..=299 => vec![Header::Contact(self.contact.as_str().into())],
            _ => vec![],
        };
        message::response(request, status, tag, more, sdp)
    }

    /// BYE, and its answer.
    pub(super) fn hang_up(
        &self,
        conversation: &mut Conversation<'_>,
        dialog: &mut Dialog,
    ) -> Result<(), Trouble> {
        dialog.sequence += 1;
        let bye = self.within(dialog, Method::Bye, dialog.sequence)?;
        match conversation.ask(&bye, PATIENCE, |_| ())?.status() {
            200..=299 => Ok(()),
            status => Err(Trouble::Refused(Method::Bye, status)),
        }
    }

    /// Waits for the other side's BYE, and answers it.
    pub(super) fn be_hung_up_on(&self, conversation: &mut Conversation<'_>) -> Result<(), Trouble> {
        let bye = conversation.await_request(Method::Bye, PATIENCE)?;
        conversation.line().answer(&bye, self.respond_to(&bye, 200, "", None));
        Ok(())
    }

    fn within(&self, dialog: &Dialog, method: Method, sequence: u32) -> Result<Outgoing, Trouble> {
        let next = dialog.routes.first().map_or(dialog.target.as_str(), |route| message::uri(route));
        let hop = message::uri_endpoint(next).ok_or_else(|| Trouble::NowhereToGo(next.to_owned()))?;
        let head = Head {
            method,
            uri: &dialog.target,
            from: &dialog.local,
            to: &dialog.remote,
            call_id: &dialog.call_id,
            sequence,
            routes: &dialog.routes,
        };
        Ok(self.compose(&head, None, vec![], None, hop))
    }

    fn compose(
        &self,
        head: &Head<'_>,
        branch: Option<&str>,
        more: Vec<Header>,
        sdp: Option<&str>,
        to: SocketAddr,
    ) -> Outgoing {
        let branch = branch.map_or_else(|| format!("z9hG4bK{}", self.token()), str::to_owned);
        let mut headers = vec![
            Header::Via(self.via(&branch).into()),
            Header::MaxForwards("70".into()),
            Header::From(head.from.into()),
            Header::To(head.to.into()),
            Header::CallId(head.call_id.into()),
            Header::CSeq(format!("{} {}", head.sequence, head.method).into()),
        ];
        headers.extend(head.routes.iter().map(|route| Header::Route(route.as_str().into())));
        headers.extend(more);
        headers.push(Header::UserAgent(format!("sipalg lab {}", self.name).into()));
        let bytes = message::request(head.method, head.uri, headers, sdp);
        Outgoing { bytes, to, branch, method: head.method }
    }

    /// What this station writes as its Via.
    pub(super) fn via(&self, branch: &str) -> String {
        let rport = if self.rport { ";rport" } else { "" };
        format!("SIP/2.0/UDP {};branch={branch}{rport}", self.sent_by)
    }

    /// The header that answers a 401 or a 407.
    fn respond(&self, challenged: &Heard, method: Method, uri: &str) -> Result<Header, Trouble> {
        let wanted = challenged.message.headers().iter().find_map(|header| match header {
            Header::WwwAuthenticate(value) => Some((false, value.value())),
            Header::ProxyAuthenticate(value) => Some((true, value.value())),
            _ => None,
        });
        let answered = wanted.zip(self.phone).and_then(|((proxy, challenge), phone)| {
            let value = digest::answer(challenge, phone, method, uri)?;
            Some(match proxy {
                true => Header::ProxyAuthorization(value.into()),
                false => Header::Authorization(value.into()),
            })
        });
        answered.ok_or(Trouble::Refused(method, challenged.status()))
    }
}

/// A call to be placed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outward<'a> {
    pub(super) call_id: &'a str,
    pub(super) uri: &'a str,
    pub(super) to: &'a str,
    pub(super) hop: SocketAddr,
    pub(super) offer: &'a str,
}

#[derive(Clone, Copy)]
struct Head<'a> {
    method: Method,
    uri: &'a str,
    from: &'a str,
    to: &'a str,
    call_id: &'a str,
    sequence: u32,
    routes: &'a [String],
}

fn target(heard: &Heard) -> Result<String, Trouble> {
    heard.contact().map(|contact| message::uri(contact).to_owned()).ok_or(Trouble::NoContact)
}
