//! Registrations: until when a phone must be reachable.
//!
//! Nothing is opened for a registration: incoming requests use the flow on which the phone registered (S7), so all
//! that a registration asks for is that this flow lives as long as the registrar granted. The lifetime is read from the
//! 2xx: of our own Contacts the longest `expires`, else the Expires header (RFC 3261 section 10.3). A Contact is ours by its
//! address; one that is a name counts where no address is ours, for it is sent as the phone wrote it.

use std::net::SocketAddr;
use std::time::Duration;

use crate::expiring::ExpiringMap;
use crate::sip::name_addr::{self, NameAddr};
use crate::sip::uri::Uri;
use crate::sip::{HeaderName, Message, host, list, params};
use crate::span::Span;

use super::endpoint::Packed;
use super::flow::PackedFlow;
use super::key::{Key, KeyHasher};

/// What a registrar grants when it names no time (RFC 3261 section 10.2.1.1 has one hour as the usual value).
const UNNAMED: Duration = Duration::from_secs(3600);
/// No registration is believed to live longer than a week.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);
/// Registrars give a little grace before they forget a Contact; so do we.
pub const GRACE: Duration = Duration::from_secs(32);

/// One address of record of one phone.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Address of record, for the log.
    pub who: Box<str>,
    /// The flow on which it was made.
    pub flow: PackedFlow,
    /// The public endpoint that the registrar knows.
    pub public: Packed,
}

/// All registrations, each until it was granted, and [`GRACE`] longer. In boxes: a table is half empty most of the time.
pub type Registrations = ExpiringMap<Key, Box<Registration>, KeyHasher>;

/// What a message says of the lifetime of the Contacts at `endpoint`: zero when they are removed, or not there at all.
/// `requested` is what the REGISTER asked for, for answers that do not repeat it.
pub fn granted(
    bytes: &[u8],
    message: &Message,
    endpoint: SocketAddr,
    requested: Option<Duration>,
) -> Duration {
    let header = expires_header(bytes, message);
    let values = message.all(HeaderName::Contact).flat_map(|contact| list::values(bytes, contact.value));
    let (mut any, mut listed, mut named) = (false, None, None);
    for value in values {
        any = true;
        let Some(NameAddr::Address { uri, params }) = name_addr::parse(bytes, value) else { continue };
        let found = match whose(bytes, uri, endpoint) {
            Whose::Ours => &mut listed,
            Whose::Named => &mut named,
            Whose::Others => continue,
        };
        let own = params::find(bytes, params, "expires").and_then(|param| seconds(bytes, param.value?));
        *found = (*found).max(Some(own.or(header).or(requested).unwrap_or(UNNAMED)));
    }
    // Who removes its Contacts may still be shown those of another phone that are names.
    let named = named.filter(|_| requested != Some(Duration::ZERO));
    // A registrar must list the Contacts that it knows (RFC 3261 section 10.3 step 8). Some do not at all.
    let unlisted = requested.filter(|_| !any).map(|requested| header.unwrap_or(requested));
    listed.or(named).or(unlisted).unwrap_or_default().min(LONGEST)
}

/// How long the subscription or publication of a 2xx lives; `None`: it does not say, or has ended.
pub fn subscribed(bytes: &[u8], message: &Message, requested: Option<Duration>) -> Option<Duration> {
    let granted = expires_header(bytes, message).or(requested)?;
    (!granted.is_zero()).then_some(granted.min(LONGEST))
}

/// What a REGISTER asks for as a whole: the longest of its Contacts, or its Expires header, or what is usual. `None`: it
/// only asks what is there.
pub fn requested(bytes: &[u8], message: &Message) -> Option<Duration> {
    let values = message.all(HeaderName::Contact).flat_map(|contact| list::values(bytes, contact.value));
    let mut any = false;
    let own = values.filter_map(|value| {
        any = true;
        match name_addr::parse(bytes, value)? {
            NameAddr::Address { params, .. } => {
                seconds(bytes, params::find(bytes, params, "expires")?.value?)
            }
            NameAddr::Star => Some(Duration::ZERO),
        }
    });
    let own = own.max();
    own.or_else(|| expires_header(bytes, message)).or(any.then_some(UNNAMED))
}

/// The session interval of a 2xx to an INVITE or UPDATE (RFC 4028 section 4), in seconds; `None`: nobody will refresh it.
pub fn session_interval(bytes: &[u8], message: &Message) -> Option<u32> {
    let Span { start, end } = message.first(HeaderName::SessionExpires)?.value;
    let digits = bytes.get(start as usize..end as usize)?.iter().take_while(|byte| byte.is_ascii_digit());
    let interval = seconds(bytes, Span { start, end: start + digits.count() as u32 })?;
    u32::try_from(interval.as_secs()).ok().filter(|seconds| *seconds > 0)
}

fn expires_header(bytes: &[u8], message: &Message) -> Option<Duration> {
    seconds(bytes, message.first(HeaderName::Expires)?.value)
}

/// Who is reached by a Contact.
enum Whose {
    Ours,
    /// Nobody can tell: its host is a name.
    Named,
    Others,
}

fn whose(bytes: &[u8], uri: Span, endpoint: SocketAddr) -> Whose {
    let Some(uri) = Uri::parse(bytes, uri) else { return Whose::Others };
    let default = if uri.secure { 5061 } else { 5060 };
    let port = if uri.port.is_some() { uri.port_number(bytes) } else { Some(default) };
    match host::address(uri.host.of(bytes)) {
        None => Whose::Named,
        Some(ip) if ip == endpoint.ip() && port == Some(endpoint.port()) => Whose::Ours,
        Some(_) => Whose::Others,
    }
}

/// delta-seconds; more digits than fit are a long time (RFC 3261 section 20.19). Some write them in quotes.
fn seconds(bytes: &[u8], span: Span) -> Option<Duration> {
    let text = span.of(bytes);
    let digits = text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let text = std::str::from_utf8(digits).ok()?;
    Some(Duration::from_secs(text.parse::<u32>().unwrap_or(u32::MAX).into()))
}
