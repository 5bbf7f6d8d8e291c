//! What may be asked, and what comes back.
//!
//! A request is one line: `{"v":1,"ask":"calls","limit":100}`. So is the answer: `{"v":1,"ok":…}` or
//! `{"v":1,"error":"…","remedy":"…"}`. Fields are only ever added; what is taken away or changes its meaning changes the
//! version. Times are whole seconds.

use serde::{Deserialize, Serialize};

/// The version that is spoken here.
pub const VERSION: u32 = 1;
/// Longest request, in bytes with its newline.
pub const LONGEST_REQUEST: usize = 4096;
/// Longest answer, in bytes: far more than full tables take.
pub const LONGEST_ANSWER: usize = 512 << 20;
/// Entries of a table in one answer, unless the request says otherwise.
pub const LIMIT: usize = 1000;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The version of the protocol.
    pub v: u32,
    /// What is wanted.
    pub ask: Ask,
    /// How many entries of a table at most.
    #[serde(default = "limit")]
    pub limit: usize,
}

fn limit() -> usize {
    LIMIT
}

/// What may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// [`Status`].
    Status,
    /// [`Table`] of [`Call`]s.
    Calls,
    /// [`Table`] of [`Registration`]s.
    Registrations,
    /// [`Table`] of [`Binding`]s.
    Bindings,
    /// Take over the configuration file; [`Reloaded`].
    Reload,
}

/// Why there is no answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What is wrong.
    pub error: String,
    /// What to do about it; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

/// How the gateway is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Since when it runs.
    pub uptime: u64,
    /// The tables: name, entries, limit (0: it has none of its own).
    pub tables: Vec<Fill>,
    /// Packets by the reason of their verdict, and other counters, since the start; those that are 0 are left out.
    pub counters: Vec<Count>,
    /// The state file, if one is written.
    pub state: Option<StateFile>,
}

/// How full a table is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fill {
    /// Its name.
    pub name: String,
    /// Entries.
    pub entries: usize,
    /// How many it may have.
    pub limit: usize,
}

/// A counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Its stable name.
    pub name: String,
    /// How often.
    pub count: u64,
}

/// What is known of the state file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateFile {
    /// Where it is.
    pub path: String,
    /// How long ago it was written; absent: not yet.
    pub age: Option<u64>,
    /// Why it could not be written the last time.
    pub error: Option<String>,
}

/// Some entries of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table<T> {
    /// How many there are in all.
    pub total: usize,
    /// As many of them as were asked for.
    pub entries: Vec<T>,
}

/// A call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Call-ID.
    pub call_id: String,
    /// From.
    pub from: String,
    /// To.
    pub to: String,
    /// The phone's endpoint of the signalling.
    pub inside: String,
    /// The server's.
    pub server: String,
    /// Seconds since it was answered; absent: it was not.
    pub seconds: Option<u64>,
    /// Its dialogs; more than one while a fork rings.
    pub dialogs: Vec<Dialog>,
}

/// A dialog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dialog {
    /// `offered`, `ringing`, `up`.
    pub state: String,
    /// Whether it is on hold.
    pub held: bool,
    /// Its media.
    pub streams: Vec<Stream>,
}

/// RTP or RTCP of one `m=` line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Which `m=` line, counted from 0.
    pub media: u16,
    /// `rtp` (or whatever has one port), `rtcp`, or `tcp`: a connection that the far end opens.
    pub kind: String,
    /// The phone's endpoint.
    pub inside: String,
    /// The public endpoint that stands for it.
    pub public: String,
    /// Where the phone's media goes, of `tcp` the address alone that may connect; absent: the far end has not said, or the
    /// other phone is reached directly.
    pub far: Option<String>,
    /// `far`: to the outside; `hairpin`: to a phone behind the same NAT by the router; `direct`: to one directly.
    pub way: Option<String>,
    /// What has passed; absent if nobody counts (`media.accounting`), or if the router does not carry it.
    pub traffic: Option<Traffic>,
    /// What is wrong with it, in words.
    pub trouble: Option<String>,
}

/// What a stream has carried, with IP headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets from the phone.
    pub packets_out: u64,
    /// Bytes from the phone.
    pub bytes_out: u64,
    /// Packets to the phone.
    pub packets_in: u64,
    /// Bytes to the phone.
    pub bytes_in: u64,
}

/// A registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Address of record.
    pub who: String,
    /// The phone.
    pub inside: String,
    /// The registrar.
    pub registrar: String,
    /// Where the registrar reaches the phone.
    pub public: String,
    /// Seconds that it still holds.
    pub seconds: u64,
}

/// A binding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// What it lets through: `udp` or `tcp`.
    #[serde(default = "udp")]
    pub transport: String,
    /// The phone's endpoint.
    pub inside: String,
    /// The public one.
    pub public: String,
    /// The interface towards the outside.
    pub uplink: String,
    /// How many streams use it.
    pub owners: u16,
    /// Who may send to it; `any`: everybody.
    pub admitted: Vec<String>,
    /// From where media came that was not announced, and was let in.
    pub latched: Vec<String>,
}

/// What a program that does not say meant.
fn udp() -> String {
    "udp".to_owned()
}

/// What a reload changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The keys whose values are other ones now.
    pub changed: Vec<String>,
    /// What is legal but strange in the new configuration.
    pub warnings: Vec<String>,
}

/// An answer as a line, newline included.
///
/// # Errors
/// Never for the types of this file: they have string keys only.
pub fn answer<T: Serialize>(outcome: &Result<T, Refusal>) -> serde_json::Result<Vec<u8>> {
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Line<'a, T> {
        Good {
            v: u32,
            ok: &'a T,
        },
        Bad {
            v: u32,
            #[serde(flatten)]
            refusal: &'a Refusal,
        },
    }
    let line = match outcome {
        Ok(ok) => Line::Good { v: VERSION, ok },
        Err(refusal) => Line::Bad { v: VERSION, refusal },
    };
    let mut bytes = serde_json::to_vec(&line)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Reads a request, and checks its version.
///
/// # Errors
/// What to tell the client.
pub fn request(line: &[u8]) -> Result<Request, Refusal> {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    let wrong = |error: serde_json::Error| Refusal {
        error: format!("this is no request: {error}"),
        remedy: r#"a request looks like {"v":1,"ask":"status"}"#.to_owned(),
    };
    let Version { v } = serde_json::from_slice(line).map_err(wrong)?;
    if v != VERSION {
        return Err(Refusal {
            error: format!("version {v} of the control protocol is not known here, only {VERSION}"),
            remedy: "the running sipalg and this program are of different versions: restart the service"
                .to_owned(),
        });
    }
    serde_json::from_slice(line).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_are_lines_of_json_with_a_version() {
        let asked = request(br#"{"v":1,"ask":"calls"}"#).unwrap();
        assert_eq!(asked, Request { v: 1, ask: Ask::Calls, limit: LIMIT });
        let good = answer(&Ok(Reloaded { changed: vec!["log.level".into()], warnings: vec![] })).unwrap();
        assert_eq!(good, b"{\"v\":1,\"ok\":{\"changed\":[\"log.level\"],\"warnings\":[]}}\n");
        let refusal = Refusal { error: "no".into(), remedy: String::new() };
        assert_eq!(answer::<()>(&Err(refusal)).unwrap(), b"{\"v\":1,\"error\":\"no\"}\n");
    }

    #[test]
    fn another_version_and_nonsense_are_told_apart() {
        let error = |line: &str| request(line.as_bytes()).unwrap_err().error;
        assert_eq!(
            error(r#"{"v":2,"ask":"moon"}"#),
            "version 2 of the control protocol is not known here, only 1"
        );
        assert!(error(r#"{"v":1,"ask":"moon"}"#).starts_with("this is no request: unknown variant `moon`"));
        assert!(error("GET / HTTP/1.1").starts_with("this is no request"));
    }
}
