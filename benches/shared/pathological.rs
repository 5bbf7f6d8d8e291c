//! Messages that are made to be slow: one thing that a reader may have to look at again, over and over.
//!
//! Each has the envelope of a SIP message, so that it is not refused before it is read, and is about as long as asked.

/// What a message is made of, and what makes it.
pub(crate) type Kind = (&'static str, fn(usize) -> Vec<u8>);

/// All kinds.
pub(crate) const KINDS: &[Kind] = &[
    ("plain body", |size| message("", "text/plain", &"x".repeat(size))),
    ("commas", |size| header("Contact", ",", size)),
    ("values", |size| header("Contact", "<sip:a@192.168.1.10:5060>, ", size)),
    ("names", |size| header("Route", "\"a b\" <sip:host.example;lr>,", size)),
    ("nested quotes", |size| header("Contact", "\"\\\"", size)),
    ("quotes", |size| header("Contact", "\"", size)),
    ("quoted commas", |size| header("Contact", "\",\" ", size)),
    ("brackets", |size| header("Contact", "<", size)),
    ("closed brackets", |size| header("Contact", "<>", size)),
    ("at signs", |size| header("Contact: sip:a", "@", size)),
    ("colons", |size| header("Contact: sip:", ":", size)),
    ("parameters", |size| header("Contact: <sip:a@192.168.1.10>", ";a", size)),
    ("quoted parameters", |size| header("Contact: <sip:a@192.168.1.10>", ";a=\";\"", size)),
    ("URI parameters", |size| header("Contact: <sip:a@192.168.1.10", ";a?b", size)),
    ("vias", |size| header("Via", "SIP/2.0/UDP 192.168.1.10;branch=z9hG4bK,", size)),
    ("via parameters", |size| header("Via: SIP/2.0/UDP 192.168.1.10", ";received=x", size)),
    ("blanks", |size| header("Contact", " ", size)),
    ("folds", |size| header("Contact", "\r\n ", size)),
    ("headers", |size| message(&"a:b\r\n".repeat(size / 5), "text/plain", "")),
    ("header lines without a colon", |size| message(&"ab\r\n".repeat(size / 4), "text/plain", "")),
    ("lengths", |size| message(&"l: 0\r\n".repeat(size / 6), "text/plain", "")),
    ("lines", |size| description("a=x\r\n", size)),
    ("empty lines", |size| description("\r\n", size)),
    ("media", |size| description("m=audio 40000 RTP/AVP 0\r\n", size)),
    ("connections", |size| description("c=IN IP4 192.168.1.10\r\n", size)),
    ("connections and media", both),
    ("candidates", |size| description("a=candidate:1 1 UDP 1 192.168.1.10 40000 typ host\r\n", size)),
    ("candidate blanks", |size| description("a=candidate:  ", size)),
    ("paths", |size| description("a=path:msrp://192.168.1.10:7/s;tcp\r\n", size)),
    ("path URIs", |size| description("msrp://192.168.1.10:7/s;tcp ", size)),
    ("parts", |size| multipart("--b\r\n\r\n", size)),
    ("part headers", |size| multipart("--b\r\nc: application/sdp\r\n\r\nv=0\r\n", size)),
    ("nested parts", |size| multipart("--b\r\nc: multipart/mixed;boundary=b\r\n\r\n", size)),
    ("almost boundaries", |size| multipart("--bb\r\n", size)),
];

/// A header that begins with `name` (and a colon, if it has none) and goes on with `unit`.
fn header(name: &str, unit: &str, size: usize) -> Vec<u8> {
    let colon = if name.contains(": ") { "" } else { ": " };
    message(&format!("{name}{colon}{}\r\n", unit.repeat(size / unit.len())), "text/plain", "")
}

fn description(unit: &str, size: usize) -> Vec<u8> {
    let head = "v=0\r\no=- 1 1 IN IP4 192.168.1.10\r\nm=audio 40000 RTP/AVP 0\r\n";
    message("", "application/sdp", &format!("{head}{}", unit.repeat(size / unit.len())))
}

/// As many `c=` lines above the media as below a limit, and the rest media.
fn both(size: usize) -> Vec<u8> {
    let connection = "c=IN IP4 22.33.44.20\r\n";
    let connections = connection.repeat((size / 2 / connection.len()).min(250));
    let media = "m=audio 16384 RTP/AVP 0\r\n";
    let media = media.repeat((size / 2 / media.len()).min(60));
    message("", "application/sdp", &format!("v=0\r\n{connections}{media}"))
}

fn multipart(unit: &str, size: usize) -> Vec<u8> {
    message("", "multipart/mixed;boundary=b", &unit.repeat(size / unit.len()))
}

fn message(headers: &str, kind: &str, body: &str) -> Vec<u8> {
    format!(
        "INFO sip:bob@provider.example SIP/2.0\r\n\
         Via: SIP/2.0/UDP 192.168.1.10:5060;branch=z9hG4bK-7\r\n\
         From: <sip:alice@provider.example>;tag=a\r\n\
         To: <sip:bob@provider.example>\r\n\
         Call-ID: 7\r\n\
         CSeq: 7 INFO\r\n\
         {headers}Content-Type: {kind}\r\n\r\n{body}"
    )
    .into_bytes()
}
