//! Messages as a phone and a provider write them. Plain functions that make text; a test changes it with `replace`.

use std::net::SocketAddr;

/// The phone.
pub const PHONE: &str = "192.168.1.10:5060";
/// The provider's proxy.
pub const PROXY: &str = "22.33.44.20:5060";
/// The provider's media server.
pub const MEDIA: &str = "22.33.44.22:30000";

/// Puts Content-Length and CRLFs right: headers and body are given with plain newlines.
pub fn message(headers: &str, body: &str) -> String {
    let body = body.replace('\n', "\r\n");
    let headers = headers.trim_end().replace('\n', "\r\n");
    format!("{headers}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A description with one audio stream.
pub fn sdp(ip: &str, port: u16) -> String {
    format!(
        "v=0\no=- 1 1 IN IP4 {ip}\ns=-\nc=IN IP4 {ip}\nt=0 0\nm=audio {port} RTP/AVP 0 8\na=rtpmap:0 PCMU/8000\n"
    )
}

/// What names one dialog.
#[derive(Clone, Copy, Debug)]
pub struct Dialog<'a> {
    pub call_id: &'a str,
    pub from_tag: &'a str,
    pub to_tag: &'a str,
    pub branch: &'a str,
}

impl Default for Dialog<'_> {
    fn default() -> Self {
        Self { call_id: "call-1@192.168.1.10", from_tag: "alice-1", to_tag: "bob-1", branch: "z9hG4bK-1" }
    }
}

/// A request from the phone at `inside`.
pub fn request(
    method: &str,
    inside: &str,
    cseq: u32,
    dialog: Dialog<'_>,
    in_dialog: bool,
    body: &str,
) -> String {
    let Dialog { call_id, from_tag, to_tag, branch } = dialog;
    let to_tag = if in_dialog { format!(";tag={to_tag}") } else { String::new() };
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\n" };
    let headers = format!(
        "{method} sip:bob@provider.example SIP/2.0\n\
         Via: SIP/2.0/UDP {inside};branch={branch};rport\n\
         Max-Forwards: 70\n\
         From: \"Alice\" <sip:alice@provider.example>;tag={from_tag}\n\
         To: <sip:bob@provider.example>{to_tag}\n\
         Call-ID: {call_id}\n\
         CSeq: {cseq} {method}\n\
         Contact: <sip:alice@{inside}>\n\
         User-Agent: phone/1\n{kind}"
    );
    message(&headers, body)
}

/// A response from the provider to a request that the phone at `public` (as the provider sees it) sent.
pub fn response(
    status: &str,
    method: &str,
    public: &str,
    cseq: u32,
    dialog: Dialog<'_>,
    body: &str,
) -> String {
    let Dialog { call_id, from_tag, to_tag, branch } = dialog;
    let (host, port) = public.rsplit_once(':').expect("an endpoint");
    let to_tag = if status.starts_with("100") { String::new() } else { format!(";tag={to_tag}") };
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\n" };
    let headers = format!(
        "SIP/2.0 {status}\n\
         Via: SIP/2.0/UDP {public};branch={branch};rport={port};received={host}\n\
         From: \"Alice\" <sip:alice@provider.example>;tag={from_tag}\n\
         To: <sip:bob@provider.example>{to_tag}\n\
         Call-ID: {call_id}\n\
         CSeq: {cseq} {method}\n\
         Contact: <sip:bob@22.33.44.21:5060>\n{kind}"
    );
    message(&headers, body)
}

/// A request of the far end, in a dialog that the phone at `public` (as the far end sees it) began.
pub fn far_request(method: &str, public: &str, cseq: u32, dialog: Dialog<'_>, body: &str) -> String {
    let Dialog { call_id, from_tag, to_tag, branch } = dialog;
    let kind = if body.is_empty() { "" } else { "\nContent-Type: application/sdp" };
    message(
        &format!(
            "{method} sip:alice@{public} SIP/2.0\nVia: SIP/2.0/UDP 22.33.44.20;branch={branch}\n\
             From: <sip:bob@provider.example>;tag={to_tag}\n\
             To: \"Alice\" <sip:alice@provider.example>;tag={from_tag}\n\
             Call-ID: {call_id}\nCSeq: {cseq} {method}\nContact: <sip:bob@22.33.44.21:5060>{kind}"
        ),
        body,
    )
}

/// The response to `request` as whoever got it writes it: what RFC 3261 section 8.2.6.2 says is repeated to the
/// letter, folds included; `;rport` is filled in if there is one. `more` are header lines, with their `\n`.
pub fn answer(request: &str, status: &str, seen: SocketAddr, more: &str, body: &str) -> String {
    let (head, _) = request.split_once("\r\n\r\n").expect("the headers end");
    let mut headers = format!("SIP/2.0 {status}\n");
    let mut copies = false;
    for line in head.split("\r\n").skip(1) {
        let folded = line.starts_with([' ', '\t']);
        let name = line.split(':').next().unwrap_or_default().trim().to_ascii_lowercase();
        copies = match name.as_str() {
            _ if folded => copies,
            "via" | "v" | "from" | "f" | "to" | "t" | "call-id" | "i" | "cseq" | "record-route" => true,
            _ => false,
        };
        if !copies {
            continue;
        }
        headers += line;
        if matches!(name.as_str(), "to" | "t") && !line.contains(";tag=") && !status.starts_with("100") {
            headers += ";tag=bob-1";
        }
        headers += "\n";
    }
    let filled = format!(";rport={};received={}", seen.port(), seen.ip());
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\n" };
    message(&format!("{}{more}{kind}", headers.replacen(";rport\n", &format!("{filled}\n"), 1)), body)
}
