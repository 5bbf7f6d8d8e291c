//! SIP messages as the lab's phones and servers make and read them, with rsip.
//!
//! The lab is a second opinion on the ALG, so nothing here uses sipalg's own parser. Values that are compared byte
//! for byte (Via, Contact, the Request-URI) are taken as text: rsip's typed forms refuse some that phones send
//! every day, and re-spell others.

use std::net::{Ipv4Addr, SocketAddr};

use rsip::headers::UntypedHeader;
use rsip::message::HasHeaders;
use rsip::prelude::HeadersExt;
use rsip::{Header, Headers, Method, Request, Response, SipMessage, StatusCode, Uri, Version};

use super::network::SIP;

/// The provider's domain, which stands in every From and To.
pub(super) const DOMAIN: &str = "phone.example";

/// A message that was received.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    pub(super) message: SipMessage,
    pub(super) source: SocketAddr,
    /// As it stands in the datagram; empty for responses.
    pub(super) request_uri: String,
}

impl Heard {
    /// `None` for what is no SIP (or what rsip refuses).
    pub(super) fn read(datagram: &[u8], source: SocketAddr) -> Option<Self> {
        let message = SipMessage::try_from(datagram).ok()?;
        let start = std::str::from_utf8(datagram).ok()?.lines().next()?;
        let request_uri = match &message {
            SipMessage::Request(_) => start.split(' ').nth(1)?.to_owned(),
            SipMessage::Response(_) => String::new(),
        };
        Some(Self { message, source, request_uri })
    }

    /// The method of a request, or the one that a response answers.
    pub(super) fn method(&self) -> Method {
        match &self.message {
            SipMessage::Request(request) => request.method,
            SipMessage::Response(_) => self.cseq().1,
        }
    }

    /// Whether it is a request of this method.
    pub(super) fn asks(&self, method: Method) -> bool {
        matches!(&self.message, SipMessage::Request(request) if request.method == method)
    }

    /// The status of a response; 0 for requests.
    pub(super) fn status(&self) -> u16 {
        match &self.message {
            SipMessage::Request(_) => 0,
            SipMessage::Response(response) => response.status_code.code(),
        }
    }

    pub(super) fn call_id(&self) -> &str {
        self.message.call_id_header().map_or("", |header| header.value())
    }

    /// Number and method.
    pub(super) fn cseq(&self) -> (u32, Method) {
        let value = self.message.cseq_header().map_or("", |header| header.value());
        let (number, method) = value.split_once(' ').unwrap_or((value, ""));
        (number.trim().parse().unwrap_or(0), method.trim().parse().unwrap_or(Method::Options))
    }

    pub(super) fn from(&self) -> &str {
        self.message.from_header().map_or("", |header| header.value())
    }

    pub(super) fn to(&self) -> &str {
        self.message.to_header().map_or("", |header| header.value())
    }

    /// The first Contact's whole value.
    pub(super) fn contact(&self) -> Option<&str> {
        self.message.contact_header().ok().map(|header| header.value())
    }

    pub(super) fn vias(&self) -> Vec<&str> {
        self.values(|header| match header {
            Header::Via(via) => Some(via.value()),
            _ => None,
        })
    }

    pub(super) fn record_routes(&self) -> Vec<&str> {
        self.values(|header| match header {
            Header::RecordRoute(route) => Some(route.value()),
            _ => None,
        })
    }

    pub(super) fn routes(&self) -> Vec<&str> {
        self.values(|header| match header {
            Header::Route(route) => Some(route.value()),
            _ => None,
        })
    }

    /// The branch of the topmost Via: the transaction's name.
    pub(super) fn branch(&self) -> &str {
        self.vias().first().and_then(|via| parameter(via, "branch")).unwrap_or("")
    }

    pub(super) fn body(&self) -> &str {
        std::str::from_utf8(self.message.body()).unwrap_or("")
    }

    fn values<'h>(&'h self, pick: impl Fn(&'h Header) -> Option<&'h str>) -> Vec<&'h str> {
        self.message.headers().iter().filter_map(pick).collect()
    }
}

/// A request ready to be sent.
pub(super) fn request(method: Method, uri: &str, mut headers: Vec<Header>, sdp: Option<&str>) -> Vec<u8> {
    let uri = Uri::try_from(uri).unwrap_or_default();
    push_body(&mut headers, sdp);
    let body = sdp.unwrap_or("").as_bytes().to_vec();
    Request { method, uri, version: Version::V2, headers: Headers::from(headers), body }.into()
}

/// A response to `to`: what RFC 3261 8.2.6 has copied, RFC 3581's additions to the topmost Via, then `more`. `tag` is
/// put into the To if it has none.
pub(super) fn response(to: &Heard, status: u16, tag: &str, more: Vec<Header>, sdp: Option<&str>) -> Vec<u8> {
    let mut headers = Vec::new();
    for (index, via) in to.vias().into_iter().enumerate() {
        let seen = if index == 0 { seen_from(via, to.source) } else { via.to_owned() };
        headers.push(Header::Via(seen.into()));
    }
    headers.extend(to.record_routes().into_iter().map(|route| Header::RecordRoute(route.into())));
    headers.push(Header::From(to.from().into()));
    let tagged = match parameter(to.to(), "tag") {
        None if status > 100 => format!("{};tag={tag}", to.to()),
        _ => to.to().to_owned(),
    };
    headers.push(Header::To(tagged.into()));
    headers.push(Header::CallId(to.call_id().into()));
    let (number, method) = to.cseq();
    headers.push(Header::CSeq(format!("{number} {method}").into()));
    headers.extend(more);
    push_body(&mut headers, sdp);
    let body = sdp.unwrap_or("").as_bytes().to_vec();
    let status_code = StatusCode::from(status);
    Response { status_code, version: Version::V2, headers: Headers::from(headers), body }.into()
}

/// Where a response goes that has this Via on top, filled in by whoever took the request (RFC 3261 18.2.2, RFC 3581 4).
pub(super) fn reply_address(via: &str) -> Option<SocketAddr> {
    let sent_by = sent_by(via)?;
    let address = parameter(via, "received").and_then(|address| address.parse().ok()).unwrap_or(sent_by.ip());
    let port = parameter(via, "rport").and_then(|port| port.parse().ok()).unwrap_or(sent_by.port());
    Some(SocketAddr::new(address, port))
}

/// The sent-by of a Via, when it is an address; the port as it counts.
pub(super) fn sent_by(via: &str) -> Option<SocketAddr> {
    let host = via.split(';').next()?.split_ascii_whitespace().nth(1)?;
    endpoint(host)
}

/// The URI in a name-addr.
pub(super) fn uri(name_addr: &str) -> &str {
    let inner = name_addr.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    inner.map_or(name_addr, |(uri, _)| uri)
}

/// User part of a URI.
pub(super) fn user(uri: &str) -> Option<&str> {
    uri.split_once(':')?.1.split_once('@').map(|(user, _)| user)
}

/// Host and port of a URI, when the host is an address.
pub(super) fn uri_endpoint(uri: &str) -> Option<SocketAddr> {
    let rest = uri.split_once(':')?.1;
    let rest = rest.split_once('@').map_or(rest, |(_, host)| host);
    endpoint(rest.split([';', '?']).next()?)
}

/// A parameter behind the value; the empty text if it has no value.
pub(super) fn parameter<'t>(value: &'t str, name: &str) -> Option<&'t str> {
    let behind = value.rsplit_once('>').map_or(value, |(_, parameters)| parameters);
    behind.split(';').skip(1).find_map(|parameter| match parameter.split_once('=') {
        Some((key, value)) => key.trim().eq_ignore_ascii_case(name).then_some(value.trim()),
        None => parameter.trim().eq_ignore_ascii_case(name).then_some(""),
    })
}

/// Number of the phone whose AOR this is.
pub(super) fn phone_of(name_addr: &str) -> Option<u8> {
    user(uri(name_addr))?.parse().ok().filter(|phone| super::network::PHONES.contains(phone))
}

fn endpoint(text: &str) -> Option<SocketAddr> {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (text, SIP),
    };
    Some(SocketAddr::from((host.trim().parse::<Ipv4Addr>().ok()?, port)))
}

/// RFC 3581: `rport` gets its value and `received` comes with it; without `rport`, `received` only if it differs.
pub(super) fn seen_from(via: &str, source: SocketAddr) -> String {
    let differs = sent_by(via).is_none_or(|sent_by| sent_by.ip() != source.ip());
    if parameter(via, "rport").is_some_and(str::is_empty) {
        let filled: Vec<_> = via
            .split(';')
            .map(|part| if part == "rport" { format!("rport={}", source.port()) } else { part.to_owned() })
            .collect();
        format!("{};received={}", filled.join(";"), source.ip())
    } else if differs {
        format!("{via};received={}", source.ip())
    } else {
        via.to_owned()
    }
}

fn push_body(headers: &mut Vec<Header>, sdp: Option<&str>) {
    if sdp.is_some() {
        headers.push(Header::ContentType("application/sdp".into()));
    }
    headers.push(Header::ContentLength(sdp.map_or(0, str::len).to_string().into()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_goes_where_rfc_3581_says() {
        let source = "22.33.44.55:17375".parse().unwrap();
        let rport = "SIP/2.0/UDP 192.168.1.10:5062;branch=z9hG4bKa;rport";
        let plain = "SIP/2.0/UDP 192.168.1.10;branch=z9hG4bKa";
        let filled = seen_from(rport, source);
        assert_eq!(filled, "SIP/2.0/UDP 192.168.1.10:5062;branch=z9hG4bKa;rport=17375;received=22.33.44.55");
        assert_eq!(reply_address(&filled), Some(source));
        let filled = seen_from(plain, source);
        assert_eq!(filled, "SIP/2.0/UDP 192.168.1.10;branch=z9hG4bKa;received=22.33.44.55");
        assert_eq!(reply_address(&filled), Some("22.33.44.55:5060".parse().unwrap()));
        assert_eq!(reply_address(plain), Some("192.168.1.10:5060".parse().unwrap()));
        assert_eq!(seen_from(plain, "192.168.1.10:9".parse().unwrap()), plain);
    }

    #[test]
    fn values_are_read_out_of_daily_forms() {
        let contact = "\"Phone 12\" <sip:12@192.168.1.12:5062;ob>;+sip.instance=\"<urn:uuid:0>\";expires=60";
        assert_eq!(uri(contact), "sip:12@192.168.1.12:5062;ob");
        assert_eq!(uri_endpoint(uri(contact)), Some("192.168.1.12:5062".parse().unwrap()));
        assert_eq!(uri_endpoint("sip:192.168.1.12;lr"), Some("192.168.1.12:5060".parse().unwrap()));
        assert_eq!(user("sip:12@phone.example"), Some("12"));
        assert_eq!(parameter(contact, "expires"), Some("60"));
        assert_eq!(parameter(contact, "ob"), None);
        assert_eq!(phone_of("<sip:12@phone.example>;tag=1"), Some(12));
        assert_eq!(phone_of("<sip:99@phone.example>"), None);
    }

    #[test]
    fn what_is_made_is_read_back() {
        let headers = vec![
            Header::Via("SIP/2.0/UDP 192.168.1.10:5060;branch=z9hG4bK1;rport".into()),
            Header::From("<sip:10@phone.example>;tag=a".into()),
            Header::To("<sip:11@phone.example>".into()),
            Header::CallId("x@192.168.1.10".into()),
            Header::CSeq("7 INVITE".into()),
            Header::Contact("<sip:10@192.168.1.10;ob>".into()),
        ];
        let bytes = request(Method::Invite, "sip:11@192.168.1.11;ob", headers, Some("v=0\r\n"));
        let source = "192.168.1.10:5060".parse().unwrap();
        let heard = Heard::read(&bytes, source).unwrap();
        assert!(heard.asks(Method::Invite));
        assert_eq!(heard.request_uri, "sip:11@192.168.1.11;ob");
        assert_eq!(heard.cseq(), (7, Method::Invite));
        assert_eq!((heard.branch(), heard.body()), ("z9hG4bK1", "v=0\r\n"));
        let answer = Heard::read(&response(&heard, 200, "b", vec![], None), source).unwrap();
        assert_eq!((answer.status(), answer.to()), (200, "<sip:11@phone.example>;tag=b"));
        assert_eq!(
            answer.vias(),
            ["SIP/2.0/UDP 192.168.1.10:5060;branch=z9hG4bK1;rport=5060;received=192.168.1.10"]
        );
    }
}
