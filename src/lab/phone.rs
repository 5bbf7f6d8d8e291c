//! A phone: knows its own address, the two servers' and its password. Nothing about NAT.
//!
//! One idea: whatever reaches a phone must speak of the phone exactly as the phone spoke of itself, byte for byte:
//! its Contact in the registrar's answer, the Request-URI of what it is asked, its own Via in every response.

use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use super::line::{Line, receive};
use super::media::{Part, Ports, Talk, talk};
use super::message::{self, DOMAIN, Heard};
use super::network::{self, PROXY, REGISTRAR, SIP, sip_port};
use super::notebook::{Notebook, check_length};
use super::plan::{Kind, Plan, Ticket};
use super::provider::name;
use super::sdp::{self, Style};
use super::station::{Outward, Station};
use super::stop::Stop;
use super::{Trouble, registrar};

/// RTP port of every phone.
pub(super) const RTP: u16 = 40000;

/// A phone at work.
#[derive(Debug)]
pub(super) struct Phone<'l> {
    pub(super) number: u8,
    station: Station<'l>,
    ports: &'l Ports,
    style: Style,
    notebook: &'l Notebook,
    stop: &'l Stop,
}

/// How a side of a call fared.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    pub(super) rang: bool,
    pub(super) answered: bool,
    pub(super) talk: Talk,
    /// Whether BYE was asked and answered.
    pub(super) ended: bool,
    /// Where this side was told to send its media.
    pub(super) far_media: Option<SocketAddr>,
}

impl<'l> Phone<'l> {
    /// Phones are of four makes; each has its own way of writing what means the same.
    pub(super) fn new(
        number: u8,
        line: &'l Line,
        ports: &'l Ports,
        notebook: &'l Notebook,
        stop: &'l Stop,
    ) -> Self {
        let address = network::phone_address(number);
        let make = number % 4;
        let contact = match make {
            0 => format!("<sip:{number}@{address}:{SIP}>"),
            1 => format!("<sip:{number}@{address}>"),
            2 => format!(
                "\"Phone {number}\" <sip:{number}@{address}:{SIP};ob>;\
                 +sip.instance=\"<urn:uuid:00000000-0000-1000-8000-0000000000{number}>\""
            ),
            _ => format!("<sip:{number}@{address}:{SIP};line=a1b2>;q=0.5"),
        };
        let sent_by = if make == 1 { address.to_string() } else { format!("{address}:{SIP}") };
        let station = Station {
            line,
            aor: format!("<sip:{number}@{DOMAIN}>"),
            contact,
            sent_by,
            rport: matches!(make, 0 | 2),
            name: format!("phone{number}"),
            count: 0.into(),
            phone: Some(number),
        };
        let style = Style { media_level: make == 2, rtcp_line: make == 1 };
        Self { number, station, ports, style, notebook, stop }
    }

    /// Reads the socket until the end.
    pub(super) fn pump(&self) {
        self.station.line.pump(self.stop, |heard| {
            self.inspect(heard);
            false
        });
    }

    /// Hears when it is called.
    pub(super) fn listen(&self) -> Receiver<Heard> {
        self.station.line.listen(&self.number.to_string())
    }

    /// Registers.
    pub(super) fn register(&self) -> Result<(), Trouble> {
        let call_id = self.call_id();
        let mut conversation = self.station.line.conversation(&call_id, self.stop);
        let registrar = sip_port(REGISTRAR);
        let heard = self.station.register(&mut conversation, &call_id, registrar, registrar::GRANTED)?;
        let expected = format!("{};expires={}", self.station.contact, registrar::GRANTED);
        let contact = heard.contact().unwrap_or("nothing");
        if contact != expected {
            self.fault(format!("the registrar's 200 says Contact: {contact}, which is not {expected}"));
        }
        Ok(())
    }

    /// Calls as planned.
    pub(super) fn call(
        &self,
        plan: &Plan,
        mut ticket: Ticket<'_>,
        outcome: &mut Outcome,
    ) -> Result<(), Trouble> {
        let callee = match plan.kind {
            Kind::Local { callee, .. } => callee.to_string(),
            Kind::Out { .. } | Kind::In { .. } => plan.outsider(),
        };
        let (call_id, uri) = (self.call_id(), format!("sip:{callee}@{DOMAIN}"));
        let offer = self.sdp()?;
        let to = format!("<{uri}>");
        let call = Outward { call_id: &call_id, uri: &uri, to: &to, hop: sip_port(PROXY), offer: &offer };
        let mut conversation = self.station.line.conversation(&call_id, self.stop);
        thread::scope(|scope| {
            let mut talking = None;
            let Outcome { rang, far_media, .. } = &mut *outcome;
            let mut take_answer = |heard: &Heard| {
                *rang |= matches!(heard.status(), 180..=189);
                if let (None, Some(answer)) = (&talking, sdp::read(heard.body())) {
                    *far_media = Some(answer.rtp);
                    let (own, other) = (plan.callers_voice(), plan.callees_voice());
                    let part = Part { peer: answer, own, other, first: false };
                    talking = Some(scope.spawn(move || talk(self.ports, part, self.stop)));
                    plan.answered.raise();
                }
            };
            let (mut dialog, accepted) = self.station.place(&mut conversation, &call, &mut take_answer)?;
            take_answer(&accepted);
            outcome.answered = true;
            ticket.show();
            outcome.talk = match talking {
                Some(talking) => talking.join().unwrap_or_default(),
                None => return Err(Trouble::NoSdp),
            };
            ticket.pass(self.stop);
            match plan.caller_hangs_up {
                true => self.station.hang_up(&mut conversation, &mut dialog)?,
                false => self.station.be_hung_up_on(&mut conversation)?,
            }
            outcome.ended = true;
            Ok(())
        })
    }

    /// Is called as planned. `calls` is what [`listen`](Self::listen) gave.
    pub(super) fn be_called(
        &self,
        plan: &Plan,
        calls: &Receiver<Heard>,
        mut ticket: Ticket<'_>,
        outcome: &mut Outcome,
    ) -> Result<(), Trouble> {
        let invite = receive(calls, Instant::now() + Duration::from_secs(12), self.stop)?;
        let invite = invite.ok_or(Trouble::NotCalled)?;
        let mut conversation = self.station.line.conversation(invite.call_id(), self.stop);
        let tag = self.station.token();
        let answer = self.sdp()?;
        let line = self.station.line;
        line.answer(&invite, self.station.respond_to(&invite, 100, &tag, None));
        line.answer(&invite, self.station.respond_to(&invite, 180, &tag, None));
        outcome.rang = true;
        thread::sleep(Duration::from_millis(300));
        let peer = sdp::read(invite.body()).ok_or(Trouble::NoSdp)?;
        outcome.far_media = Some(peer.rtp);
        let mut dialog = Station::dialog(&invite, format!("{};tag={tag}", invite.to()))?;
        let accept = self.station.respond_to(&invite, 200, &tag, Some(&answer));
        conversation.answer_until_acknowledged(&invite, accept, Duration::from_secs(12))?;
        outcome.answered = true;
        ticket.show();
        let first = matches!(plan.kind, Kind::Local { .. });
        let (own, other) = (plan.callees_voice(), plan.callers_voice());
        outcome.talk = talk(self.ports, Part { peer, own, other, first }, self.stop);
        ticket.pass(self.stop);
        match plan.caller_hangs_up {
            true => self.station.be_hung_up_on(&mut conversation)?,
            false => self.station.hang_up(&mut conversation, &mut dialog)?,
        }
        outcome.ended = true;
        Ok(())
    }

    /// Many phones put their own address behind the `@`; it is nobody's business to change it.
    fn call_id(&self) -> String {
        format!("{}@{}", self.station.token(), network::phone_address(self.number))
    }

    fn sdp(&self) -> Result<String, Trouble> {
        let endpoint = self.ports.endpoint().map_err(|error| Trouble::Socket(error.to_string()))?;
        Ok(sdp::compose(endpoint, 4700 + u32::from(self.number), self.style))
    }

    fn inspect(&self, heard: &Heard) {
        let mut faults: Vec<String> = Vec::new();
        faults.extend(check_length(heard, "inside"));
        let server = |address| heard.source == sip_port(address);
        if !server(REGISTRAR) && !server(PROXY) {
            faults.push(format!("came from {}, which is no server", heard.source));
        }
        if heard.status() == 0 {
            let own = message::uri(&self.station.contact);
            if heard.request_uri != own {
                faults.push(format!("asks for {}, which is not {own}", heard.request_uri));
            }
        } else {
            faults.extend(self.inspect_via(&heard.vias()));
        }
        for fault in faults {
            self.fault(format!("{} to the phone: {fault}", name(heard)));
        }
    }

    /// The only Via of a response is the phone's own, with nothing but RFC 3581's additions, which name the phone.
    fn inspect_via(&self, vias: &[&str]) -> Option<String> {
        let &[via] = vias else { return Some(format!("{} Vias came back", vias.len())) };
        let branch = message::parameter(via, "branch").unwrap_or("");
        let own = self.station.line.address();
        let mut parts = via.split(';').filter(|part| *part != format!("received={}", own.ip()));
        let sent = self.station.via(branch);
        let same = sent.split(';').all(|wanted| match parts.next() {
            Some(part) => part == wanted || (wanted == "rport" && part == format!("rport={}", own.port())),
            None => false,
        });
        let untouched = same && parts.next().is_none();
        (!untouched).then(|| format!("Via came back as {via}, it was {sent}"))
    }

    fn fault(&self, fault: String) {
        self.notebook.fault(self.number, fault);
    }
}

/// Where a phone's RTP is bound.
pub(super) fn rtp_endpoint(phone: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(network::phone_address(phone)), RTP)
}
