//! The texts of a call: who calls whom, by which Call-ID.
//!
//! They are for the log and for who asks what is up; nothing is looked up by them. There are three of them for each call
//! of thousands, so they lie in one piece.

use serde::{Deserialize, Serialize};

/// From, To and Call-ID, as they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Spelt", into = "Spelt")]
pub struct CallNames {
    /// One after the other.
    text: Box<str>,
    /// Where From ends, and To.
    ends: [u32; 2],
}

impl CallNames {
    /// Of these. What is no UTF-8 in them is replaced.
    pub fn new(from: &[u8], to: &[u8], call_id: &[u8]) -> Self {
        let [from, to, call_id] = [from, to, call_id].map(String::from_utf8_lossy);
        Spelt { from: from.into(), to: to.into(), call_id: call_id.into() }.into()
    }

    /// The URI of From.
    pub fn from(&self) -> &str {
        self.part(0, self.ends[0])
    }

    /// The URI of To.
    pub fn to(&self) -> &str {
        self.part(self.ends[0], self.ends[1])
    }

    /// The Call-ID.
    pub fn call_id(&self) -> &str {
        self.text.get(self.ends[1] as usize..).unwrap_or_default()
    }

    fn part(&self, start: u32, end: u32) -> &str {
        self.text.get(start as usize..end as usize).unwrap_or_default()
    }
}

/// How they are written down.
#[derive(Serialize, Deserialize)]
struct Spelt {
    from: String,
    to: String,
    call_id: String,
}

impl From<Spelt> for CallNames {
    fn from(Spelt { from, to, call_id }: Spelt) -> Self {
        // No text of a message is longer than a packet.
        let end = |long: usize| u32::try_from(long).unwrap_or(u32::MAX);
        let ends = [end(from.len()), end(from.len() + to.len())];
        Self { text: [from, to, call_id].concat().into(), ends }
    }
}

impl From<CallNames> for Spelt {
    fn from(names: CallNames) -> Self {
        Self { from: names.from().into(), to: names.to().into(), call_id: names.call_id().into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_comes_back_as_it_was() {
        for [from, to, call_id] in [["sip:a@x", "sip:b@y", "1@z"], ["", "", ""], ["", "sip:ü@y", ""]] {
            let names = CallNames::new(from.as_bytes(), to.as_bytes(), call_id.as_bytes());
            assert_eq!([names.from(), names.to(), names.call_id()], [from, to, call_id]);
            let spelt = serde_json::to_string(&names).unwrap();
            assert_eq!(serde_json::from_str::<CallNames>(&spelt).unwrap(), names);
        }
        assert_eq!(CallNames::new(b"\xff", b"b", b"c").from(), "\u{fffd}");
    }
}
