//! Where one message ends and the next begins in a stream (RFC 3261 sections 7.5 and 18.3, RFC 5626 section 3.5.1).
//!
//! A stream is read from its first byte on, and only as long as every message in it is framed beyond doubt: there is no
//! way back in (S1). A message may only begin with a SIP start line; CRs and LFs before it are keep-alives and pass at
//! once. It ends where Content-Length says (S2).
//!
//! A message is waited for until it is complete, but not longer than it is of use: of a body that nobody reads no byte
//! will change, and neither will Content-Length, so such a message can be told by its headers ([`Frame::Begun`]). What is
//! waited for is short then: an offer, an answer, a few parts.

use crate::sip::{Malformed, Message, body};

/// Longest message that is waited for, in bytes.
pub const LONGEST: usize = 64 * 1024;
/// Longest message that is told by its headers.
pub const LONGEST_OPAQUE: usize = 16 << 20;
/// Longest start line.
const LONGEST_LINE: usize = 8192;
/// Longest method.
const LONGEST_METHOD: usize = 64;

/// What a stream goes on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// So many bytes of CR and LF between two messages.
    KeepAlive(usize),
    /// A message of this many bytes.
    Message(usize),
    /// One of this many bytes, of which all that matters is here.
    Begun(usize),
    /// The beginning of a message; it cannot be told before there are at least this many bytes.
    Incomplete(usize),
    /// Anything else.
    Foreign(Foreign),
}

/// Why a stream is not read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    /// It does not begin like a SIP message: TLS, HTTP, anything.
    #[error("it does not begin like a SIP message")]
    NotSip,
    /// Too many headers.
    #[error("a message has too many headers")]
    TooManyHeaders,
    /// No Content-Length, or none that can be believed.
    #[error("a message does not tell its length")]
    NoLength,
    /// Longer than [`LONGEST`], and would have to be waited for; or longer than [`LONGEST_OPAQUE`].
    #[error("a message is too long")]
    TooLong,
}

/// What `bytes`, which begin where a message may begin, are. `message` is used for reading, and has what was read of a
/// [`Frame::Message`] or [`Frame::Begun`] afterwards, without the bytes behind it.
pub fn next(bytes: &[u8], message: &mut Message) -> Frame {
    let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    if blank > 0 {
        return Frame::KeepAlive(blank);
    }
    let line = bytes.get(..bytes.len().min(LONGEST_LINE)).unwrap_or_default();
    if !line.contains(&b'\n') {
        return if bytes.len() < LONGEST_LINE && may_begin(bytes) {
            Frame::Incomplete(bytes.len() + 1)
        } else {
            Frame::Foreign(Foreign::NotSip)
        };
    }
    match message.parse(bytes) {
        Ok(()) => {}
        Err(Malformed::Endless) if bytes.len() < LONGEST => return Frame::Incomplete(bytes.len() + 1),
        Err(Malformed::Endless) => return Frame::Foreign(Foreign::TooLong),
        Err(Malformed::NotSip) => return Frame::Foreign(Foreign::NotSip),
        Err(Malformed::TooManyHeaders) => return Frame::Foreign(Foreign::TooManyHeaders),
    }
    let Some((_, length)) = body::content_length(bytes, message) else {
        return Frame::Foreign(Foreign::NoLength);
    };
    let start = message.body().start as usize;
    match usize::try_from(length).ok().and_then(|length| start.checked_add(length)) {
        Some(end) if end <= LONGEST && end <= bytes.len() => {
            message.end_at(end);
            Frame::Message(end)
        }
        Some(end) if end <= LONGEST_OPAQUE && body::is_opaque(bytes, message) => Frame::Begun(end),
        Some(end) if end <= LONGEST => Frame::Incomplete(end),
        Some(_) | None => Frame::Foreign(Foreign::TooLong),
    }
}

/// Whether a start line may begin so: a method, and then a URI, or `SIP/2.0`.
fn may_begin(bytes: &[u8]) -> bool {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(byte);
    let method = bytes.iter().take_while(|byte| is_token(byte)).count();
    match bytes.get(method) {
        None => method <= LONGEST_METHOD,
        Some(b' ') => (1..=LONGEST_METHOD).contains(&method),
        Some(_) => b"SIP/2.0 ".iter().zip(bytes).all(|(a, b)| a.eq_ignore_ascii_case(b)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: impl AsRef<[u8]>) -> Frame {
        next(bytes.as_ref(), &mut Message::default())
    }

    const BYE: &str = "BYE sip:a@h SIP/2.0\r\nl: 3\r\nc: application/sdp\r\n\r\nabc";

    #[test]
    fn a_message_ends_where_content_length_says() {
        assert_eq!(frame(BYE), Frame::Message(BYE.len()));
        assert_eq!(frame(format!("{BYE}\r\n\r\nBYE")), Frame::Message(BYE.len()));
        assert_eq!(frame("SIP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"), Frame::Message(37));
    }

    #[test]
    fn what_was_read_is_the_message_alone() {
        let mut alone = Message::default();
        alone.parse(BYE.as_bytes()).unwrap();
        for behind in ["", "\r\n\r\n", "BYE sip:a@h SIP/2.0\r\nl: 0\r\n\r\n"] {
            let mut message = Message::default();
            assert_eq!(next(format!("{BYE}{behind}").as_bytes(), &mut message), Frame::Message(BYE.len()));
            assert_eq!(message, alone, "{behind:?}");
        }
    }

    #[test]
    fn every_prefix_of_a_message_is_incomplete() {
        for end in 0..BYE.len() {
            let found = frame(&BYE[..end]);
            let least = if end >= BYE.len() - 3 { BYE.len() } else { end + 1 };
            assert_eq!(found, Frame::Incomplete(least), "{end}");
        }
        let status = "SIP/2.0 200 OK\r\n";
        for end in 1..status.len() {
            assert_eq!(frame(&status[..end]), Frame::Incomplete(end + 1), "{end}");
        }
    }

    #[test]
    fn a_message_whose_body_nobody_reads_is_told_by_its_headers() {
        let text = BYE.replace("application/sdp", "text/plain");
        for end in 0..=text.len() {
            let expected = match end {
                _ if end == text.len() => Frame::Message(end),
                _ if end >= text.len() - 3 => Frame::Begun(text.len()),
                _ => Frame::Incomplete(end + 1),
            };
            assert_eq!(frame(&text[..end]), expected, "{end}");
        }
        // Of any length that makes sense, and no matter how much of it is here.
        let long = |length: usize| format!("BYE sip:a SIP/2.0\r\nl: {length}\r\n\r\n");
        let head = long(1 << 20).len();
        assert_eq!(frame(long(1 << 20)), Frame::Begun((1 << 20) + head));
        assert_eq!(frame(long(1 << 20) + &"x".repeat(1 << 20)), Frame::Begun((1 << 20) + head));
        for length in [LONGEST_OPAQUE, usize::MAX - 10, usize::MAX] {
            assert_eq!(frame(long(length)), Frame::Foreign(Foreign::TooLong));
        }
    }

    #[test]
    fn keep_alives_pass_between_messages() {
        assert_eq!(frame("\r\n\r\n"), Frame::KeepAlive(4));
        assert_eq!(frame(format!("\r\n{BYE}")), Frame::KeepAlive(2));
        assert_eq!(frame(""), Frame::Incomplete(1));
    }

    #[test]
    fn what_is_not_sip_is_told_as_early_as_can_be() {
        for text in [
            &b"\x16\x03\x01"[..],
            b"\0",
            b" ",
            b"GET / HTTP/1.1\r\n",
            b"POST /x HTTP/1.1\r\nHost: h\r\n\r\nREGISTER sip:a SIP/2.0\r\n",
            b"\x80\x01",
            b"<xml",
            b"INVITE  sip:a SIP/2.0\r\n",
            b"SIP/2.1",
            b"SIX/2.0",
            &[b'A'; 65],
        ] {
            assert_eq!(frame(text), Frame::Foreign(Foreign::NotSip), "{text:?}");
        }
        assert_eq!(frame([b"INVITE sip:", &[b'a'; 9000][..]].concat()), Frame::Foreign(Foreign::NotSip));
    }

    #[test]
    fn a_length_that_cannot_be_believed_ends_it() {
        let with =
            |header: &str| frame(format!("BYE sip:a SIP/2.0\r\n{header}\r\nc: application/sdp\r\n\r\nabc"));
        assert_eq!(with("To: x"), Frame::Foreign(Foreign::NoLength));
        assert_eq!(with("l: 3\r\nContent-Length: 4"), Frame::Foreign(Foreign::NoLength));
        assert_eq!(with("l: -3"), Frame::Foreign(Foreign::NoLength));
        assert_eq!(with("l: 65536"), Frame::Foreign(Foreign::TooLong));
        assert_eq!(with("l: 99999999999999999999999"), Frame::Foreign(Foreign::NoLength));
        assert_eq!(with("l: 65000"), Frame::Incomplete(65_000 + 51));
    }

    #[test]
    fn headers_without_end_are_bounded() {
        let long = format!("BYE sip:a SIP/2.0\r\nX: {}", "x".repeat(LONGEST));
        assert_eq!(frame(&long), Frame::Foreign(Foreign::TooLong));
        let many = format!("BYE sip:a SIP/2.0\r\n{}\r\n", "X: y\r\n".repeat(2000));
        assert_eq!(frame(&many), Frame::Foreign(Foreign::TooManyHeaders));
    }
}
