//! stub
/// The headers that anybody here looks at; all others are `Other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
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
    MaxForwards,
    Identity,
    UserAgent,
    Server,
    Other,
}
