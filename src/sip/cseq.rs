//! CSeq values: `number LWS method` (RFC 3261 section 20.16).

use super::text::{TOKEN, is_lws, number, trim};
use crate::span::Span;

/// One CSeq value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CSeq {
    /// The sequence number. The standard stops at 2^31 - 1; all of u32 is taken.
    pub number: u32,
    /// Its digits as written (leading zeros are legal).
    pub digits: Span,
    /// The method.
    pub method: Span,
}

/// Reads a CSeq value. `None`: no number, or one past u32, or no method.
pub fn parse(bytes: &[u8], value: Span) -> Option<CSeq> {
    let value = trim(bytes, value);
    let text = value.of(bytes);
    let base = value.start as usize;
    let blank = text.iter().position(|&b| is_lws(b))?;
    let digits = Span::new(base, base + blank);
    let method = trim(bytes, Span::new(base + blank, base + text.len()));
    let number = u32::try_from(number(digits.of(bytes))?).ok()?;
    TOKEN.holds(method.of(bytes)).then_some(CSeq { number, digits, method })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_and_method_are_read_over_folds() {
        for (text, number, digits, method) in [
            ("1 INVITE", 1, "1", "INVITE"),
            (" 0009\r\n  INVITE ", 9, "0009", "INVITE"),
            ("4294967295\tOPTIONS", u32::MAX, "4294967295", "OPTIONS"),
            (
                "139122385 !interesting-Method0123456789_*+`.%indeed'~",
                139_122_385,
                "139122385",
                "!interesting-Method0123456789_*+`.%indeed'~",
            ),
        ] {
            let bytes = text.as_bytes();
            let cseq = parse(bytes, Span::new(0, bytes.len())).unwrap();
            assert_eq!(
                (cseq.number, cseq.digits.of(bytes), cseq.method.of(bytes)),
                (number, digits.as_bytes(), method.as_bytes())
            );
        }
        for text in [
            "",
            "1",
            "INVITE",
            "x INVITE",
            "36893488147419103232 REGISTER",
            "4294967296 A",
            "1 IN VITE",
            "-1 ACK",
            "1 (x)",
        ] {
            assert_eq!(parse(text.as_bytes(), Span::new(0, text.len())), None, "{text}");
        }
    }
}
