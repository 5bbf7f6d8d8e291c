//! A registration and a call of the phone, with media both ways.

use std::net::{SocketAddr, UdpSocket};

use super::messages::{self, Dialog, request};
use super::netns::eventually;
use super::network::{FAR, MEDIA, Network, STRANGER, hear, host_port, say};

const DIALOG: Dialog<'_> =
    Dialog { call_id: "call-1", from_tag: "alice-1", to_tag: "bob-1", branch: "z9hG4bK-1" };

/// The sockets of a phone at `inside`, which the outside knows as `public`, and of its registrar, after a registration.
pub(crate) fn registered(network: &Network, inside: &str, public: &str, far: &str) -> (UdpSocket, UdpSocket) {
    let (local, to) = (host_port(inside, 5060), host_port(far, 5060));
    let (phone, far) = (network.phone.udp(&local), network.far.udp(&to));
    let dialog = Dialog { call_id: "register-1", branch: "z9hG4bK-r", ..DIALOG };
    let text = request("REGISTER", &local, 1, dialog, false, "");
    say(&phone, &text, &to);
    let (heard, from) = hear(&far);
    assert_eq!(from.ip().to_string(), public);
    let known_as = from.to_string();
    assert_eq!(heard, text.replace(&local, &known_as));
    let granted = |contact: &str| format!("Contact: <sip:alice@{contact}>;expires=3600\n");
    let answer =
        |seen, contact: &str, request: &str| messages::answer(request, "200 OK", seen, &granted(contact), "");
    say(&far, &answer(from, &known_as, &heard), &known_as);
    assert_eq!(hear(&phone).0, answer(local.parse().unwrap(), &local, &text));
    (phone, far)
}

/// A call of one phone.
pub(crate) struct Call<'n> {
    network: &'n Network,
    inside: String,
    phone: UdpSocket,
    far: UdpSocket,
    rtp: UdpSocket,
    far_rtp: UdpSocket,
    /// Where the far end sees the phone, for SIP and for media.
    known_as: SocketAddr,
    media: SocketAddr,
    is_translated: bool,
}

impl<'n> Call<'n> {
    /// The phone at `inside`, which the outside knows as `public`, is registered and calls.
    pub(crate) fn new(network: &'n Network, inside: &str, public: &str) -> Self {
        let (phone, far) = registered(network, inside, public, FAR);
        let rtp = network.phone.udp(&host_port(inside, 40_000));
        let far_rtp = network.far.udp(&host_port(MEDIA, 30_000));
        let local = host_port(inside, 5060);
        let body = sdp6(inside, 40_000);
        let text = request("INVITE", &local, 1, DIALOG, false, &body);
        say(&phone, &text, &host_port(FAR, 5060));
        let (heard, known_as) = hear(&far);
        let is_translated = inside != public;
        let port = heard.split("m=audio ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        let media = SocketAddr::new(public.parse().unwrap(), port);
        if is_translated {
            assert!((16_384..=32_767).contains(&port), "{heard}");
            let head = text.split("\r\n\r\n").next().unwrap().replace(&local, &known_as.to_string());
            let body = sdp6(public, port).replace('\n', "\r\n");
            let length = format!("Content-Length: {}", body.len());
            let (before, _) = head.rsplit_once("Content-Length").unwrap();
            assert_eq!(heard, format!("{before}{length}\r\n\r\n{body}"));
        } else {
            assert_eq!(heard, text);
        }
        let inside = inside.to_owned();
        Self { network, inside, phone, far, rtp, far_rtp, known_as, media, is_translated }
    }

    /// 183 and 200, ACK.
    pub(crate) fn ring(&mut self) {
        for status in ["183 Session Progress", "200 OK"] {
            self.answered("INVITE", 1, status, &sdp6(MEDIA, 30_000));
            if status.starts_with("183") {
                // The far end speaks first.
                self.assert_heard("ringing");
            }
        }
        let local = host_port(&self.inside, 5060);
        let ack = request("ACK", &local, 1, Dialog { branch: "z9hG4bK-a", ..DIALOG }, true, "");
        say(&self.phone, &ack, &host_port(FAR, 5060));
        assert_eq!(hear(&self.far).0, ack.replace(&local, &self.known_as.to_string()));
    }

    /// The far end answers the phone's request, and the phone hears its own texts.
    fn answered(&self, method: &str, cseq: u32, status: &str, body: &str) {
        let local = host_port(&self.inside, 5060);
        let text = |who: &str, seen| {
            let in_dialog = method != "INVITE";
            let branch = if in_dialog { "z9hG4bK-b" } else { DIALOG.branch };
            let asked = request(method, who, cseq, Dialog { branch, ..DIALOG }, in_dialog, "");
            messages::answer(&asked, status, seen, "Contact: <sip:bob@[2001:db8:9::20]:5060>\n", body)
        };
        let known_as = self.known_as.to_string();
        say(&self.far, &text(&known_as, self.known_as), &known_as);
        assert_eq!(hear(&self.phone).0, text(&local, local.parse().unwrap()));
    }

    /// The far end speaks and is answered.
    fn assert_heard(&self, word: &str) {
        say(&self.far_rtp, word, &self.media.to_string());
        let (heard, from) = hear(&self.rtp);
        assert_eq!((heard.as_str(), from.to_string()), (word, host_port(MEDIA, 30_000)));
        say(&self.rtp, "answer", &from.to_string());
        assert_eq!(hear(&self.far_rtp), ("answer".to_owned(), self.media));
    }

    /// Both hear each other, and nobody else is heard.
    pub(crate) fn talk(&mut self) {
        let stranger = self.network.far.udp(&host_port(STRANGER, 30_000));
        say(&stranger, "stranger", &self.media.to_string());
        self.assert_heard("talking");
    }

    /// The phone ends it; then everything is closed.
    pub(crate) fn hang_up(self) {
        let local = host_port(&self.inside, 5060);
        let bye = request("BYE", &local, 2, Dialog { branch: "z9hG4bK-b", ..DIALOG }, true, "");
        assert_eq!(self.network.pinholes(), if self.is_translated { 2 } else { 0 });
        say(&self.phone, &bye, &host_port(FAR, 5060));
        assert_eq!(hear(&self.far).0, bye.replace(&local, &self.known_as.to_string()));
        self.answered("BYE", 2, "200 OK", "");
        eventually("the pinholes to be closed", || {
            let entries = self.network.router.run("conntrack -f ipv6 -L -p udp --orig-port-src 40000");
            self.network.pinholes() == 0 && entries.is_empty()
        });
    }
}

/// A description with one audio stream.
fn sdp6(host: &str, port: u16) -> String {
    messages::sdp(host, port).replace("IP4", "IP6")
}
