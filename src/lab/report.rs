//! What a run showed: plain values for programs (`--json`), made from what the parties noted.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::media::{PACKETS, REPORTS};
use super::network::{PHONES, PUBLIC, phone_address};
use super::observe::Sample;
use super::phone::{Outcome, rtp_endpoint};
use super::plan::{Kind, Plan};
use super::scenario::Played;
use super::{LabOptions, Translation};

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether everything held.
    pub ok: bool,
    /// Whether sipalg ran in the router.
    pub sipalg: bool,
    /// The router's address outside; `None` if it does not translate.
    pub public_address: Option<String>,
    /// One for each phone, in the order of their addresses.
    pub phones: Vec<PhoneReport>,
    /// Elements of sipalg's map of public endpoints.
    pub pinholes: Pinholes,
    /// Entries of the router's conntrack table.
    pub conntrack: Pinholes,
    /// RTP packets that each side of a call sends.
    pub packets_expected: u16,
    /// What was wrong with the run as a whole.
    pub faults: Vec<String>,
    /// Captures that were written.
    pub captures: Vec<PathBuf>,
    /// From the first namespace to the last look, in seconds.
    pub seconds: f64,
}

/// A count with all calls up, and one after the last call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Pinholes {
    /// With all calls up; `None`: there is nothing to count.
    pub during: Option<usize>,
    /// After the last call.
    pub after: Option<usize>,
}

/// One phone.
#[derive(Clone, Debug, Serialize)]
pub struct PhoneReport {
    /// Its own address.
    pub address: String,
    /// The endpoint that the registrar stored for it.
    pub registered_as: Option<SocketAddr>,
    /// Its call.
    pub call: CallReport,
    /// Whether everything held.
    pub ok: bool,
    /// What did not.
    pub faults: Vec<String>,
}

/// One call, as one phone saw it.
#[derive(Clone, Debug, Serialize)]
pub struct CallReport {
    /// Who called.
    pub direction: Direction,
    /// A number outside, or another phone's address.
    pub with: String,
    /// Whether the callee rang.
    pub rang: bool,
    /// Whether it was answered.
    pub answered: bool,
    /// RTP packets that the phone heard.
    pub packets_in: u16,
    /// RTP packets of the phone that the other side heard.
    pub packets_out: u16,
    /// RTCP reports that the phone heard.
    pub reports_in: u16,
    /// RTCP reports of the phone that the other side heard.
    pub reports_out: u16,
    /// The RTP endpoint that the phone's SDP named outside.
    pub public_media: Option<SocketAddr>,
    /// Whether media went from phone to phone without the router.
    pub direct: bool,
    /// Whether BYE was answered.
    pub ended: bool,
}

/// Who called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// The phone called somebody outside.
    Out,
    /// Somebody outside called the phone.
    In,
    /// The phone called another phone.
    LocalOut,
    /// Another phone called the phone.
    LocalIn,
}

impl Report {
    pub(super) fn new(
        options: &LabOptions,
        played: Played,
        after: Sample,
        died: Option<String>,
        captures: Vec<PathBuf>,
        elapsed: Duration,
    ) -> Self {
        let masquerade = options.translation == Translation::Masquerade;
        // What a configuration of the user's own wants of local media is its own business.
        let defaults = options.sipalg.as_ref().is_none_or(|program| program.config.is_none());
        let phones: Vec<_> = PHONES.filter_map(|phone| PhoneReport::new(phone, &played, defaults)).collect();
        let pinholes = Pinholes { during: played.during.pinholes, after: after.pinholes };
        let conntrack = Pinholes { during: played.during.conntrack, after: after.conntrack };
        let mut faults: Vec<String> = died.into_iter().collect();
        faults.extend(played.pages.get(&0).into_iter().flat_map(|page| page.faults.iter().cloned()));
        if masquerade && options.sipalg.is_some() {
            faults.extend(pinholes.faults(&played.plans));
        }
        Self {
            ok: faults.is_empty() && phones.iter().all(|phone| phone.ok),
            sipalg: options.sipalg.is_some(),
            public_address: masquerade.then(|| PUBLIC.to_string()),
            phones,
            pinholes,
            conntrack,
            packets_expected: PACKETS,
            faults,
            captures,
            seconds: elapsed.as_secs_f64(),
        }
    }
}

impl Pinholes {
    /// Every call with somebody outside needs RTP and RTCP while it is up, and nothing afterwards.
    fn faults(self, plans: &[Plan]) -> Vec<String> {
        let least = 2 * plans.iter().filter(|plan| plan.outsiders_phone().is_some()).count();
        let mut faults = Vec::new();
        match self.during {
            None => faults.push("sipalg's map inbound4 was not there during the calls".to_owned()),
            Some(count) if count < least => {
                faults.push(format!(
                    "{count} pinholes were open during the calls, at least {least} are needed"
                ));
            }
            Some(_) => (),
        }
        match self.after {
            Some(0) => (),
            Some(count) => faults.push(format!("{count} pinholes were still open after the last call")),
            None => faults.push("sipalg's map inbound4 was not there after the calls".to_owned()),
        }
        faults
    }
}

impl PhoneReport {
    fn new(phone: u8, played: &Played, defaults: bool) -> Option<Self> {
        let plan = played.plans.iter().find(|plan| plan.has(phone))?;
        let (direction, with, other) = match plan.kind {
            Kind::Out { .. } => (Direction::Out, plan.outsider(), played.outsiders.get(&phone)),
            Kind::In { .. } => (Direction::In, plan.outsider(), played.outsiders.get(&phone)),
            Kind::Local { caller, callee } if caller == phone => {
                (Direction::LocalOut, phone_address(callee).to_string(), played.phones.get(&callee))
            }
            Kind::Local { caller, .. } => {
                (Direction::LocalIn, phone_address(caller).to_string(), played.phones.get(&caller))
            }
        };
        let (own, other) = (played.phones.get(&phone)?, other?);
        let page = played.pages.get(&phone).cloned().unwrap_or_default();
        let peer = match plan.kind {
            Kind::Local { caller, callee } => {
                Some(rtp_endpoint(if caller == phone { callee } else { caller }))
            }
            Kind::Out { .. } | Kind::In { .. } => None,
        };
        let direct = peer.is_some() && own.far_media == peer;
        // What a person would notice comes first, what explains it last.
        let mut faults = page.troubles;
        faults.extend(missing(own, other));
        if peer.is_some() && own.answered && !direct && defaults {
            faults.push(format!("media was not sent to {with} directly"));
        }
        faults.extend(page.faults);
        Some(Self {
            address: phone_address(phone).to_string(),
            registered_as: page.registered,
            ok: faults.is_empty(),
            faults,
            call: CallReport {
                direction,
                with,
                rang: own.rang,
                answered: own.answered && other.answered,
                packets_in: own.talk.heard,
                packets_out: other.talk.heard,
                reports_in: own.talk.reports,
                reports_out: other.talk.reports,
                public_media: page.media,
                direct,
                ended: own.ended && other.ended,
            },
        })
    }
}

/// What a call lacked, in words; what the parties said themselves stands on the phone's page already.
fn missing(own: &Outcome, other: &Outcome) -> Vec<String> {
    let mut faults = Vec::new();
    if !(own.rang && own.answered && own.ended && other.answered && other.ended) {
        faults.push("the call was not completed".to_owned());
    }
    if own.answered {
        for (side, outcome) in [("the phone", own), ("the other side", other)] {
            if !outcome.talk.is_complete() {
                let (heard, reports) = (outcome.talk.heard, outcome.talk.reports);
                faults.push(format!(
                    "{side} heard {heard} of {PACKETS} RTP, {reports} of {REPORTS} RTCP packets"
                ));
            }
            faults.extend(outcome.talk.faults.iter().map(|fault| format!("{side}: {fault}")));
        }
    }
    faults
}
