//! Keys for tables whose natural keys are text that a stranger chose.
//!
//! A [`Key`] is a 128-bit keyed hash (SipHash-1-3) of that text. The seed is secret and new at every start, so
//! nobody can aim at another call's key; equal keys are taken for equal texts, which is wrong once in 2^64 pairs.
//! So tables hold 16 bytes instead of a Call-ID, and a look-up allocates nothing.

use serde::{Deserialize, Serialize};
use std::hash::{BuildHasherDefault, Hash, Hasher};

use arrayvec::ArrayVec;
use siphasher::sip128::{Hash128, Hasher128, SipHasher13};

/// A hashed key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key([u64; 2]);

/// Makes keys.
#[derive(Clone, Copy, Debug)]
pub struct Keyer {
    seed: [u64; 2],
}

impl Keyer {
    /// A maker of keys that only fit each other.
    pub const fn new(seed: [u64; 2]) -> Self {
        Self { seed }
    }

    /// The key of some texts in this order; `domain` keeps tables apart.
    pub fn key(self, domain: u8, parts: &[&[u8]]) -> Key {
        let hasher = SipHasher13::new_with_keys(self.seed[0], self.seed[1]);
        // In one piece it takes half as long. The bytes are the same, and so is the key.
        let hash = match joined(domain, parts) {
            Some(text) => hasher.hash(&text),
            None => stream(hasher, domain, parts),
        };
        Key([hash.h1, hash.h2])
    }

    /// A 64-bit digest of one text; never 0, so that 0 can stand for "none".
    pub fn digest(self, domain: u8, text: &[u8]) -> u64 {
        self.digest_of(domain, &[text])
    }

    /// The same of several texts.
    pub fn digest_of(self, domain: u8, texts: &[&[u8]]) -> u64 {
        let Key([low, _]) = self.key(domain, texts);
        low.max(1)
    }
}

/// What is hashed: the domain, then each part behind its length. `None`: it is longer than usual texts are.
fn joined(domain: u8, parts: &[&[u8]]) -> Option<ArrayVec<u8, 256>> {
    let mut text = ArrayVec::new();
    text.push(domain);
    for part in parts {
        text.try_extend_from_slice(&length(part)).ok()?;
        text.try_extend_from_slice(part).ok()?;
    }
    Some(text)
}

/// No text here is longer than a packet.
fn length(part: &[u8]) -> [u8; 4] {
    (part.len() as u32).to_ne_bytes()
}

fn stream(mut hasher: SipHasher13, domain: u8, parts: &[&[u8]]) -> Hash128 {
    hasher.write_u8(domain);
    for part in parts {
        hasher.write(&length(part));
        hasher.write(part);
    }
    hasher.finish128()
}

impl Key {
    /// Its bytes, to be a part of another key.
    pub fn bytes(self) -> [u8; 16] {
        let Self([low, high]) = self;
        (u128::from(high) << 64 | u128::from(low)).to_ne_bytes()
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self([low, _]) = self;
        state.write_u64(*low);
    }
}

/// Hashes a [`Key`] by taking it as it is: it is a hash already.
pub type KeyHasher = BuildHasherDefault<Identity>;

/// See [`KeyHasher`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity(u64);

impl Hasher for Identity {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other_and_seeds_matter() {
        let keyer = Keyer::new([1, 2]);
        assert_eq!(keyer.key(0, &[b"ab", b"c"]), keyer.key(0, &[b"ab", b"c"]));
        assert_ne!(keyer.key(0, &[b"ab", b"c"]), keyer.key(0, &[b"a", b"bc"]));
        assert_ne!(keyer.key(0, &[b"ab"]), keyer.key(1, &[b"ab"]));
        assert_ne!(keyer.key(0, &[b"ab"]), Keyer::new([1, 3]).key(0, &[b"ab"]));
    }

    #[test]
    fn the_key_of_a_text_does_not_depend_on_how_it_is_hashed() {
        let keyer = Keyer::new([1, 2]);
        for length in [0, 1, 7, 8, 229, 230, 231, 232, 233, 1000] {
            let parts: [&[u8]; 2] = [b"ab", &vec![b'x'; length]];
            let streamed = stream(SipHasher13::new_with_keys(1, 2), 7, &parts);
            assert_eq!(keyer.key(7, &parts), Key([streamed.h1, streamed.h2]), "{length}");
        }
    }
}
