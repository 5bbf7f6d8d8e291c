//! Header names, long and compact, in any case (RFC 3261 section 7.3.3 and the IANA registry of header fields).
//!
//! A name is told by its length and first byte, then compared once. Names that nobody here needs are
//! [`HeaderName::Other`]; they keep their bytes like all the rest.

/// The headers that anybody here looks at; all others are `Other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each is the header of its name
pub enum HeaderName {
    Via,
    From,
    To,
    CallId,
    CSeq,
    Contact,
    Route,
    RecordRoute,
    Path,
    ServiceRoute,
    ReferTo,
    ReferredBy,
    ContentLength,
    ContentType,
    ContentEncoding,
    Expires,
    SessionExpires,
    MaxForwards,
    Identity,
    UserAgent,
    Server,
    Subject,
    Supported,
    Event,
    AllowEvents,
    Authorization,
    ProxyAuthorization,
    Other,
}

const _: () = assert!((HeaderName::Other as u32) < u32::BITS, "each name has a bit");

impl HeaderName {
    /// The header that `name` names, by either spelling. No white space around it.
    pub fn of(name: &[u8]) -> Self {
        let Some(first) = name.first().map(|b| b | 0x20) else { return Self::Other };
        match (name.len(), first) {
            (1, _) => Self::of_compact(first),
            (2, b't') => Self::To.if_called(name, b"to"),
            (3, b'v') => Self::Via.if_called(name, b"via"),
            (4, b'f') => Self::From.if_called(name, b"from"),
            (4, b'c') => Self::CSeq.if_called(name, b"cseq"),
            (4, b'p') => Self::Path.if_called(name, b"path"),
            (5, b'r') => Self::Route.if_called(name, b"route"),
            (5, b'e') => Self::Event.if_called(name, b"event"),
            (6, b's') => Self::Server.if_called(name, b"server"),
            (7, b'c') if name.get(1).is_some_and(|b| b | 0x20 == b'a') => {
                Self::CallId.if_called(name, b"call-id")
            }
            (7, b'c') => Self::Contact.if_called(name, b"contact"),
            (7, b'e') => Self::Expires.if_called(name, b"expires"),
            (7, b's') => Self::Subject.if_called(name, b"subject"),
            (8, b'r') => Self::ReferTo.if_called(name, b"refer-to"),
            (8, b'i') => Self::Identity.if_called(name, b"identity"),
            (9, b's') => Self::Supported.if_called(name, b"supported"),
            (10, b'u') => Self::UserAgent.if_called(name, b"user-agent"),
            (11, b'r') => Self::ReferredBy.if_called(name, b"referred-by"),
            (12, b'c') => Self::ContentType.if_called(name, b"content-type"),
            (12, b'r') => Self::RecordRoute.if_called(name, b"record-route"),
            (12, b'm') => Self::MaxForwards.if_called(name, b"max-forwards"),
            (12, b'a') => Self::AllowEvents.if_called(name, b"allow-events"),
            (13, b'a') => Self::Authorization.if_called(name, b"authorization"),
            (19, b'p') => Self::ProxyAuthorization.if_called(name, b"proxy-authorization"),
            (13, b's') => Self::ServiceRoute.if_called(name, b"service-route"),
            (14, b'c') => Self::ContentLength.if_called(name, b"content-length"),
            (15, b's') => Self::SessionExpires.if_called(name, b"session-expires"),
            (16, b'c') => Self::ContentEncoding.if_called(name, b"content-encoding"),
            _ => Self::Other,
        }
    }

    /// Itself if `name` is `lower` in any case. The length is a constant at each call, so that this becomes a few
    /// word-wide operations.
    #[inline(always)]
    fn if_called<const N: usize>(self, name: &[u8], lower: &[u8; N]) -> Self {
        let Ok(name) = <&[u8; N]>::try_from(name) else { return Self::Other };
        let differs = name.iter().zip(lower).fold(0, |differs, (&byte, &lower)| {
            let case = if lower == b'-' { 0 } else { 0x20 };
            differs | ((byte | case) ^ lower)
        });
        if differs == 0 { self } else { Self::Other }
    }

    /// A bit of its own for each name.
    #[inline]
    pub(super) const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// The long name as the standards spell it; empty for [`HeaderName::Other`].
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Via => "Via",
            Self::From => "From",
            Self::To => "To",
            Self::CallId => "Call-ID",
            Self::CSeq => "CSeq",
            Self::Contact => "Contact",
            Self::Route => "Route",
            Self::RecordRoute => "Record-Route",
            Self::Path => "Path",
            Self::ServiceRoute => "Service-Route",
            Self::ReferTo => "Refer-To",
            Self::ReferredBy => "Referred-By",
            Self::ContentLength => "Content-Length",
            Self::ContentType => "Content-Type",
            Self::ContentEncoding => "Content-Encoding",
            Self::Expires => "Expires",
            Self::SessionExpires => "Session-Expires",
            Self::MaxForwards => "Max-Forwards",
            Self::Identity => "Identity",
            Self::UserAgent => "User-Agent",
            Self::Server => "Server",
            Self::Subject => "Subject",
            Self::Supported => "Supported",
            Self::Event => "Event",
            Self::AllowEvents => "Allow-Events",
            Self::Authorization => "Authorization",
            Self::ProxyAuthorization => "Proxy-Authorization",
            Self::Other => "",
        }
    }

    /// The compact names of the registry. `a`, `d`, `j` and `n` stand for headers that nobody here looks at.
    const fn of_compact(lower: u8) -> Self {
        match lower {
            b'b' => Self::ReferredBy,
            b'c' => Self::ContentType,
            b'e' => Self::ContentEncoding,
            b'f' => Self::From,
            b'i' => Self::CallId,
            b'k' => Self::Supported,
            b'l' => Self::ContentLength,
            b'm' => Self::Contact,
            b'o' => Self::Event,
            b'r' => Self::ReferTo,
            b's' => Self::Subject,
            b't' => Self::To,
            b'u' => Self::AllowEvents,
            b'v' => Self::Via,
            b'x' => Self::SessionExpires,
            b'y' => Self::Identity,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [(HeaderName, &str); 25] = [
        (HeaderName::Via, "v"),
        (HeaderName::From, "f"),
        (HeaderName::To, "t"),
        (HeaderName::CallId, "i"),
        (HeaderName::CSeq, ""),
        (HeaderName::Contact, "m"),
        (HeaderName::Route, ""),
        (HeaderName::RecordRoute, ""),
        (HeaderName::Path, ""),
        (HeaderName::ServiceRoute, ""),
        (HeaderName::ReferTo, "r"),
        (HeaderName::ReferredBy, "b"),
        (HeaderName::ContentLength, "l"),
        (HeaderName::ContentType, "c"),
        (HeaderName::ContentEncoding, "e"),
        (HeaderName::Expires, ""),
        (HeaderName::SessionExpires, "x"),
        (HeaderName::MaxForwards, ""),
        (HeaderName::Identity, "y"),
        (HeaderName::UserAgent, ""),
        (HeaderName::Server, ""),
        (HeaderName::Subject, "s"),
        (HeaderName::Supported, "k"),
        (HeaderName::Event, "o"),
        (HeaderName::AllowEvents, "u"),
    ];

    #[test]
    fn every_name_is_known_in_every_case_and_by_its_compact_form() {
        for (name, compact) in ALL {
            let long = name.as_str();
            for spelling in [long.to_string(), long.to_lowercase(), long.to_uppercase()] {
                assert_eq!(HeaderName::of(spelling.as_bytes()), name, "{spelling}");
            }
            if !compact.is_empty() {
                assert_eq!(HeaderName::of(compact.as_bytes()), name, "{compact}");
                assert_eq!(HeaderName::of(compact.to_uppercase().as_bytes()), name, "{compact}");
            }
        }
    }

    #[test]
    fn names_that_look_alike_are_others() {
        for name in [
            "",
            "Vix",
            "Tp",
            "Fron",
            "Contacts",
            "Callxid",
            "Cantact",
            "Content-Lengths",
            "a",
            "\x16",
            "Call\rID",
            "Refer\rTo",
            "Vi\u{e1}",
        ] {
            assert_eq!(HeaderName::of(name.as_bytes()), HeaderName::Other, "{name:?}");
        }
        let compact = (0..=255u8).filter(|&b| HeaderName::of(&[b]) != HeaderName::Other).count();
        assert_eq!(compact, 32, "16 letters in two cases and nothing else");
    }
}
