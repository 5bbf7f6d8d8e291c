//! What a phone calls itself, and how to give that back to the letter.
//!
//! Outbound, the host and port of an inside URI are replaced; inbound, the phone must get back exactly the text that
//! it wrote: `192.168.1.10` without a port is not `192.168.1.10:5060`. A flow has very few such texts (*forms*), so
//! they are kept once each, and the user parts of URIs point to them (`rewrite::recall` says how). Via sent-by forms are
//! remembered by their transaction. Nothing here knows the public side.

use arrayvec::{ArrayString, ArrayVec};
use serde::{Deserialize, Deserializer, Serialize};
use smallvec::SmallVec;

/// Texts longer than this are not kept; they are restored in the canonical form.
const FORM_BYTES: usize = 47;
const FORMS: usize = 8;
/// More users than this on one flow push out those that were said longest ago.
const USERS: usize = 512;

/// Index of a form of one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FormId(u8);

/// A phone has one or two, and there are many phones.
type Forms = SmallVec<[Box<str>; 2]>;

/// The forms of one flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    #[serde(deserialize_with = "few_and_short")]
    forms: Forms,
    /// Digest of what of a URI comes back, and its form; what was said last is last.
    users: Vec<(u64, FormId)>,
    /// The first form that names the flow's own inside address.
    own: Option<FormId>,
    /// That of its latest Contact.
    #[serde(default)]
    contact: Option<FormId>,
}

impl Names {
    /// Remembers the text `host[:port]` of a URI or sent-by that names the flow's own inside address.
    pub fn remember_own(&mut self, text: &[u8]) -> Option<FormId> {
        let form = self.remember(text);
        self.own = self.own.or(form);
        form
    }

    /// Remembers any other text `host[:port]` by which the phone calls itself, or what stands behind it.
    pub fn remember(&mut self, text: &[u8]) -> Option<FormId> {
        let known = self.forms.iter().position(|form| form.as_bytes() == text);
        let index = match known {
            Some(index) => index,
            None => {
                let text = std::str::from_utf8(text).ok()?;
                if text.len() > FORM_BYTES || self.forms.len() >= FORMS {
                    return None;
                }
                self.forms.push(text.into());
                self.forms.len() - 1
            }
        };
        Some(FormId(u8::try_from(index).ok()?))
    }

    /// Remembers that the URI with this digest was written in this form. What nobody has said for longest goes.
    pub fn remember_user(&mut self, user: u64, form: FormId) {
        match self.users.iter().rposition(|(digest, _)| *digest == user) {
            Some(at) => {
                self.users.remove(at);
            }
            None if self.users.len() >= USERS => {
                self.users.remove(0);
            }
            None => {}
        }
        self.users.push((user, form));
    }

    /// The form in which the URI with this digest was written.
    pub fn of_user(&self, user: u64) -> Option<FormId> {
        self.users.iter().rev().find(|(digest, _)| *digest == user).map(|(_, form)| *form)
    }

    /// Remembers the form of the phone's own Contact; one that is for a particular transport counts if there is no other.
    pub fn remember_contact(&mut self, form: FormId, particular: bool) {
        if !particular || self.contact.is_none() {
            self.contact = Some(form);
        }
    }

    /// How the phone calls itself where it wants to be called, whatever the user.
    pub fn contact(&self) -> Option<FormId> {
        self.contact.or(self.own)
    }

    /// The ports in the forms; 5060 where there is none.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.forms.iter().map(|form| {
            let port =
                form.rsplit_once(':').filter(|(host, _)| !host.starts_with('[') || host.ends_with(']'));
            port.and_then(|(_, port)| port.trim().parse().ok()).unwrap_or(5060)
        })
    }

    /// The text of a form.
    pub fn text(&self, form: FormId) -> Option<&str> {
        self.forms.get(usize::from(form.0)).map(AsRef::as_ref)
    }

    /// The first form of its own inside address that the flow ever used.
    pub fn own(&self) -> Option<FormId> {
        self.own
    }

    /// Whether no form is known at all.
    pub fn is_empty(&self) -> bool {
        self.forms.is_empty()
    }
}

/// No more, and no longer ones, than a flow can have.
fn few_and_short<'de, D: Deserializer<'de>>(from: D) -> Result<Forms, D::Error> {
    let forms = ArrayVec::<ArrayString<FORM_BYTES>, FORMS>::deserialize(from)?;
    Ok(forms.iter().map(|form| form.as_str().into()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_kept_once_and_given_back_to_the_letter() {
        let mut names = Names::default();
        names.remember(b"22.33.44.55:17375").unwrap();
        assert_eq!((names.own(), names.is_empty()), (None, false));
        let plain = names.remember_own(b"192.168.1.10").unwrap();
        let port = names.remember(b"192.168.1.10 : 5060").unwrap();
        assert_eq!(names.remember(b"192.168.1.10"), Some(plain));
        names.remember_user(7, port);
        assert_eq!(names.of_user(7).and_then(|f| names.text(f)), Some("192.168.1.10 : 5060"));
        assert_eq!(names.of_user(8), None);
        assert_eq!(names.own(), Some(plain));
    }

    #[test]
    fn forms_and_users_are_bounded() {
        let mut names = Names::default();
        let kept = (0..100).filter(|n| names.remember(format!("10.0.0.{n}").as_bytes()).is_some()).count();
        assert_eq!(kept, FORMS);
        assert_eq!(names.remember(&[b'1'; 48]), None);
        for user in 1..=2000 {
            names.remember_user(user, FormId(0));
            names.remember_user(7, FormId(1));
        }
        assert_eq!(names.users.len(), USERS);
        let last = 2001 - (USERS as u64 - 1);
        assert_eq!((names.of_user(last), names.of_user(last - 1)), (Some(FormId(0)), None));
        assert_eq!(names.of_user(7), Some(FormId(1)), "what is said again stays");
    }
}
