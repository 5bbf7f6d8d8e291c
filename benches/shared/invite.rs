//! The message of all benchmarks: an INVITE with SDP as phones send it, exactly 900 bytes.
//!
//! All fields that differ between calls have a fixed width, so that every call's message has the same length and
//! a sender can patch it in place. No private address stands where an ALG has no business (Call-ID, From, To):
//! after translation none may be left.

/// Length of every message.
pub(crate) const LENGTH: usize = 900;

const TEMPLATE: &str = "\
INVITE sip:bob@provider.example.net SIP/2.0\r
Via: SIP/2.0/UDP 192.168.1.??:5060;branch=z9hG4bK-524287-1---########;rport\r
Max-Forwards: 70\r
Contact: <sip:alice@192.168.1.??:5060;transport=udp>\r
To: \"Bob\" <sip:bob@provider.example.net>\r
From: \"Alice\" <sip:alice@provider.example.net>;tag=a7f3########\r
Call-ID: 8b1f2c6d9e4a40b7a5c3########\r
CSeq: 1 INVITE\r
Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, NOTIFY, INFO, UPDATE, PRACK\r
Supported: replaces, norefersub, timer, outbound\r
User-Agent: Deskphone 480/5.2.1 (build 20931*)\r
Content-Type: application/sdp\r
Content-Length: 282\r
\r
v=0\r
o=alice 3724394400 3724394401 IN IP4 192.168.1.??\r
s=-\r
c=IN IP4 192.168.1.??\r
t=0 0\r
m=audio $$$$$ RTP/AVP 0 8 9 101\r
a=rtpmap:0 PCMU/8000\r
a=rtpmap:8 PCMA/8000\r
a=rtpmap:9 G722/8000\r
a=rtpmap:101 telephone-event/8000\r
a=fmtp:101 0-16\r
a=ptime:20\r
a=maxptime:150\r
a=sendrecv\r
";

/// One phone's INVITE, whose call and media port can be changed in place.
pub(crate) struct Invite {
    /// The message.
    pub(crate) bytes: Vec<u8>,
    calls: Vec<usize>,
    port: usize,
}

impl Invite {
    /// The INVITE of the phone 192.168.1.`host` for call number `call`, media at `port`.
    ///
    /// # Panics
    /// Unless `host` and `port` have two and five digits.
    pub(crate) fn new(host: u8, call: u32, port: u16) -> Self {
        assert!((10..100).contains(&host) && port >= 10_000, "fields have a fixed width");
        let text = TEMPLATE.replace("??", &host.to_string());
        let text = text.replace('*', &"0".repeat((LENGTH + 1).saturating_sub(text.len())));
        let body = text.split_once("\r\n\r\n").map_or(0, |(_, body)| body.len());
        assert!(text.len() == LENGTH && text.contains(&format!("Content-Length: {body}\r\n")), "{body}");
        let mut invite = Self {
            calls: text.match_indices("########").map(|(at, _)| at).collect(),
            port: text.find("$$$$$").expect("the template has a media port"),
            bytes: text.into_bytes(),
        };
        invite.change(call, port);
        invite
    }

    /// Makes it the INVITE of another call: new Call-ID, branch and tag.
    pub(crate) fn change(&mut self, call: u32, port: u16) {
        for &at in &self.calls {
            digits(&mut self.bytes[at..at + 8], call);
        }
        digits(&mut self.bytes[self.port..self.port + 5], u32::from(port));
    }
}

fn digits(field: &mut [u8], mut number: u32) {
    for digit in field.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}
