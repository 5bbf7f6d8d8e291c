//! Digest authentication (RFC 2617, MD5), made and checked with rsip.
//!
//! One idea: a nonce is made from the Call-ID, so that a server need not remember whom it challenged.

use rsip::Method;
use rsip::headers::auth::{Algorithm, Scheme};
use rsip::headers::{Authorization, WwwAuthenticate, typed};
use rsip::prelude::{ToTypedHeader, UntypedHeader};
use rsip::services::DigestGenerator;

use super::message::DOMAIN;

/// The value of a WWW-Authenticate or Proxy-Authenticate.
pub(super) fn challenge(call_id: &str) -> String {
    typed::WwwAuthenticate {
        scheme: Scheme::Digest,
        realm: DOMAIN.to_owned(),
        nonce: nonce(call_id),
        algorithm: Some(Algorithm::Md5),
        ..Default::default()
    }
    .to_string()
}

/// A phone's answer to a challenge; `None` if it is none that rsip understands.
pub(super) fn answer(challenge: &str, phone: u8, method: Method, uri: &str) -> Option<String> {
    let challenge = WwwAuthenticate::new(challenge).typed().ok()?;
    let mut authorization = typed::Authorization {
        scheme: Scheme::Digest,
        username: phone.to_string(),
        realm: challenge.realm,
        nonce: challenge.nonce,
        uri: uri.try_into().ok()?,
        response: String::new(),
        algorithm: challenge.algorithm,
        opaque: challenge.opaque,
        qop: None,
    };
    authorization.response = DigestGenerator::from(&authorization, &password(phone), &method).compute();
    Some(authorization.to_string())
}

/// Whether an Authorization or Proxy-Authorization is this phone's, made for this challenge and this request.
pub(super) fn holds(authorization: &str, phone: u8, call_id: &str, method: Method) -> bool {
    let Ok(given) = Authorization::new(authorization).typed() else { return false };
    given.username == phone.to_string()
        && given.nonce == nonce(call_id)
        && DigestGenerator::from(&given, &password(phone), &method).verify(&given.response)
}

fn password(phone: u8) -> String {
    format!("secret-{phone}")
}

/// FNV-1a. Good enough to tell challenges apart; nobody attacks the lab.
fn nonce(call_id: &str) -> String {
    let hash = call_id
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_phone_in_the_right_call_is_believed() {
        let given = answer(&challenge("a@b"), 10, Method::Register, "sip:phone.example").unwrap();
        assert!(holds(&given, 10, "a@b", Method::Register));
        assert!(!holds(&given, 11, "a@b", Method::Register));
        assert!(!holds(&given, 10, "a@c", Method::Register));
        assert!(!holds(&given, 10, "a@b", Method::Invite));
        assert!(!holds(&given.replace("sip:phone", "sip:fone"), 10, "a@b", Method::Register));
    }

    #[test]
    fn the_response_is_that_of_rfc_2617() {
        // MD5 by hand: HA1 = 10:phone.example:secret-10, HA2 = REGISTER:sip:phone.example
        let given = answer(&challenge("a@b"), 10, Method::Register, "sip:phone.example").unwrap();
        let md5 = |text: String| {
            use md5::{Digest, Md5};
            Md5::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        let ha1 = md5("10:phone.example:secret-10".into());
        let ha2 = md5("REGISTER:sip:phone.example".into());
        let expected = md5(format!("{ha1}:{}:{ha2}", nonce("a@b")));
        assert!(given.contains(&format!("response=\"{expected}\"")), "{given}");
    }
}
