//! What phones and provider saw, phone by phone, while the calls run.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::message::Heard;
use super::network::PHONES;

/// One phone's page.
#[derive(Clone, Debug, Default)]
pub(super) struct Page {
    /// The endpoint that the registrar stored.
    pub(super) registered: Option<SocketAddr>,
    /// The RTP endpoint that its SDP named outside.
    pub(super) media: Option<SocketAddr>,
    /// The steps that failed.
    pub(super) troubles: Vec<String>,
    /// What was wrong in messages, each once.
    pub(super) faults: Vec<String>,
}

/// All pages; written from every thread.
#[derive(Debug, Default)]
pub(super) struct Notebook(Mutex<BTreeMap<u8, Page>>);

/// Faults on one page. A run that goes wrong altogether need not say so a hundred times.
const MOST_FAULTS: usize = 12;

impl Notebook {
    /// Notes that something was wrong. `phone` 0: nobody knows whose message it was.
    pub(super) fn fault(&self, phone: u8, fault: String) {
        let mut pages = self.pages();
        let faults = &mut pages.entry(phone).or_default().faults;
        if faults.len() < MOST_FAULTS && !faults.contains(&fault) {
            faults.push(fault);
        }
    }

    /// Notes that a party could not go on.
    pub(super) fn trouble(&self, phone: u8, trouble: String) {
        self.pages().entry(phone).or_default().troubles.push(trouble);
    }

    pub(super) fn registered(&self, phone: u8, as_: SocketAddr) {
        self.pages().entry(phone).or_default().registered = Some(as_);
    }

    pub(super) fn media(&self, phone: u8, endpoint: SocketAddr) {
        self.pages().entry(phone).or_default().media = Some(endpoint);
    }

    pub(super) fn page(&self, phone: u8) -> Page {
        self.pages().get(&phone).cloned().unwrap_or_default()
    }

    /// Two phones with one public endpoint: what each of them alone cannot see.
    pub(super) fn note_shared_endpoints(&self) {
        let pages = self.pages().clone();
        let shared = |a: Option<SocketAddr>, b: Option<SocketAddr>| a.is_some() && a == b;
        for (phone, page) in &pages {
            for (other, its) in pages.range(phone.saturating_add(1)..) {
                if shared(page.registered, its.registered) || shared(page.media, its.media) {
                    self.fault(*phone, format!("has a public endpoint that 192.168.1.{other} has too"));
                }
            }
        }
    }

    fn pages(&self) -> MutexGuard<'_, BTreeMap<u8, Page>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What must hold on both sides of a router: the body is as long as its Content-Length.
pub(super) fn check_length(heard: &Heard, side: &str) -> Option<String> {
    use rsip::headers::UntypedHeader;
    use rsip::message::HasHeaders;
    let stated = heard.message.headers().iter().find_map(|header| match header {
        rsip::Header::ContentLength(length) => length.value().trim().parse::<usize>().ok(),
        _ => None,
    });
    let actual = heard.message.body().len();
    (stated != Some(actual)).then(|| {
        let stated = stated.map_or_else(|| "nothing".to_owned(), |length| length.to_string());
        format!("Content-Length {side} says {stated}, the body has {actual} bytes")
    })
}

/// Whether a number is a phone of the lab.
pub(super) fn is_phone(number: u8) -> bool {
    PHONES.contains(&number)
}
