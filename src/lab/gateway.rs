//! The parties outside: the provider's gateway to everybody who is no phone of the lab.
//!
//! It signals from the proxy's address when it is called and from the registrar's when it calls, and its media comes
//! from a third address, as is usual. It talks before it has heard anything.

use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use super::Trouble;
use super::line::{Line, receive};
use super::media::{Part, Ports, talk};
use super::message::{self, DOMAIN, Heard};
use super::network;
use super::phone::Outcome;
use super::plan::{Kind, Plan, Ticket};
use super::provider::Provider;
use super::sdp::{self, Style};
use super::station::{Outward, Station};
use super::stop::Stop;

/// A party outside.
#[derive(Debug)]
pub(super) struct Outsider<'l> {
    station: Station<'l>,
    ports: &'l Ports,
    stop: &'l Stop,
}

impl<'l> Outsider<'l> {
    pub(super) fn new(plan: &Plan, provider: &'l Provider<'_>, ports: &'l Ports, stop: &'l Stop) -> Self {
        let line: &Line = match plan.kind {
            Kind::In { .. } => &provider.registrar,
            Kind::Out { .. } | Kind::Local { .. } => &provider.proxy,
        };
        let address = line.address();
        let name = plan.outsider();
        let station = Station {
            line,
            aor: format!("<sip:{name}@{DOMAIN}>"),
            contact: format!("<sip:{name}@{address}>"),
            sent_by: address.to_string(),
            rport: true,
            name: format!("gateway{}", plan.media_port()),
            count: 0.into(),
            phone: None,
        };
        Self { station, ports, stop }
    }

    /// Hears when it is called.
    pub(super) fn listen(&self, plan: &Plan) -> Receiver<Heard> {
        self.station.line.listen(&plan.outsider())
    }

    /// Is called by a phone.
    pub(super) fn be_called(
        &self,
        plan: &Plan,
        calls: &Receiver<Heard>,
        mut ticket: Ticket<'_>,
        outcome: &mut Outcome,
    ) -> Result<(), Trouble> {
        let early = matches!(plan.kind, Kind::Out { early: true, .. });
        let invite = receive(calls, Instant::now() + Duration::from_secs(12), self.stop)?;
        let invite = invite.ok_or(Trouble::NotCalled)?;
        let line = self.station.line;
        let mut conversation = line.conversation(invite.call_id(), self.stop);
        let peer = sdp::read(invite.body()).ok_or(Trouble::NoSdp)?;
        outcome.far_media = Some(peer.rtp);
        let answer = self.sdp(plan)?;
        let tag = self.station.token();
        let respond = |status, sdp| line.answer(&invite, self.station.respond_to(&invite, status, &tag, sdp));
        respond(100, None);
        let part = Part { peer, own: plan.callees_voice(), other: plan.callers_voice(), first: true };
        thread::scope(|scope| {
            let say = || scope.spawn(|| talk(self.ports, part, self.stop));
            let mut talking = None;
            if early {
                respond(183, Some(answer.as_str()));
                plan.answered.wait(Duration::from_secs(5), self.stop);
                talking = Some(say());
            } else {
                respond(180, None);
            }
            outcome.rang = true;
            thread::sleep(Duration::from_millis(300));
            let mut dialog = Station::dialog(&invite, format!("{};tag={tag}", invite.to()))?;
            let accept = self.station.respond_to(&invite, 200, &tag, Some(&answer));
            conversation.answer_until_acknowledged(&invite, accept, Duration::from_secs(12))?;
            outcome.answered = true;
            ticket.show();
            outcome.talk = talking.unwrap_or_else(say).join().unwrap_or_default();
            ticket.pass(self.stop);
            match plan.caller_hangs_up {
                true => self.station.be_hung_up_on(&mut conversation)?,
                false => self.station.hang_up(&mut conversation, &mut dialog)?,
            }
            outcome.ended = true;
            Ok(())
        })
    }

    /// Calls a phone, by the way that it registered.
    pub(super) fn call(
        &self,
        plan: &Plan,
        phone: u8,
        provider: &Provider<'_>,
        mut ticket: Ticket<'_>,
        outcome: &mut Outcome,
    ) -> Result<(), Trouble> {
        let location = provider.locate(phone).ok_or(Trouble::NotRegistered)?;
        let hop =
            message::uri_endpoint(&location.uri).ok_or_else(|| Trouble::NowhereToGo(location.uri.clone()))?;
        let call_id = format!("{}@{}", self.station.token(), network::REGISTRAR);
        let (to, offer) = (format!("<sip:{phone}@{DOMAIN}>"), self.sdp(plan)?);
        let call = Outward { call_id: &call_id, uri: &location.uri, to: &to, hop, offer: &offer };
        let mut conversation = self.station.line.conversation(&call_id, self.stop);
        let (mut dialog, accepted) =
            self.station.place(&mut conversation, &call, |heard| outcome.rang |= heard.status() == 180)?;
        outcome.answered = true;
        ticket.show();
        let peer = sdp::read(accepted.body()).ok_or(Trouble::NoSdp)?;
        outcome.far_media = Some(peer.rtp);
        let part = Part { peer, own: plan.callers_voice(), other: plan.callees_voice(), first: true };
        outcome.talk = talk(self.ports, part, self.stop);
        ticket.pass(self.stop);
        match plan.caller_hangs_up {
            true => self.station.hang_up(&mut conversation, &mut dialog)?,
            false => self.station.be_hung_up_on(&mut conversation)?,
        }
        outcome.ended = true;
        Ok(())
    }

    fn sdp(&self, plan: &Plan) -> Result<String, Trouble> {
        let endpoint = self.ports.endpoint().map_err(|error| Trouble::Socket(error.to_string()))?;
        Ok(sdp::compose(endpoint, u32::from(plan.media_port()), Style::default()))
    }
}
