//! stub
use crate::edit::EditSet;
/// The edits of one message.
pub type Edits = EditSet<Rule>;
/// Which rule made an edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Request-URI
    RequestUri,
    /// Via sent-by
    Via,
    /// received=, rport= or maddr= of Via
    ViaParameter,
    /// Contact
    Contact,
    /// Route, Record-Route, Path, Service-Route
    RouteSet,
    /// Refer-To, Referred-By
    Refer,
    /// Content-Length
    ContentLength,
    /// o=
    SdpOrigin,
    /// c=
    SdpConnection,
    /// m= port
    SdpMediaPort,
    /// a=rtcp
    SdpRtcp,
    /// a=candidate
    SdpCandidate,
    /// a=remote-candidates
    SdpRemoteCandidate,
    /// a=path
    SdpPath,
}
impl Rule {
    /// Stable name, for `explain --json`: `request-uri`, `via`, `contact`, …
    pub fn name(self) -> &'static str {
        todo!()
    }
}
