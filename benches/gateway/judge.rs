//! Whether a message arrived as it should.
//!
//! It reads every message that arrives, so that no gateway is fast by letting messages through as they came.

use memchr::memmem::Finder;

/// What must arrive for a message to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Any of our messages.
    Anything,
    /// A message without private address, and with a public one where they were.
    Translated,
}

/// Reads messages, and notes the media endpoints that they announce.
pub(crate) struct Judge {
    expected: Expected,
    private: Finder<'static>,
    public: Finder<'static>,
    connection: Finder<'static>,
    media: Finder<'static>,
    /// By last byte of the address, then port.
    seen: Vec<bool>,
    endpoints: u64,
}

impl Judge {
    pub(crate) fn new(expected: Expected) -> Self {
        Self {
            expected,
            private: Finder::new("192.168.1."),
            public: Finder::new("22.33.44."),
            connection: Finder::new("\nc=IN IP4 22.33.44."),
            media: Finder::new("\nm=audio "),
            seen: vec![false; 1 << 24],
            endpoints: 0,
        }
    }

    /// Whether `message` is as it should be.
    pub(crate) fn accepts(&mut self, message: &[u8]) -> bool {
        if !message.starts_with(b"INVITE sip:bob@") {
            return false;
        }
        match self.expected {
            Expected::Anything => true,
            Expected::Translated => {
                // Via, Contact, o= and c=
                let translated =
                    self.private.find(message).is_none() && self.public.find_iter(message).count() == 4;
                translated && self.note(message).is_some()
            }
        }
    }

    /// How many different media endpoints were announced.
    pub(crate) fn endpoints(&self) -> u64 {
        self.endpoints
    }

    /// Forgets the endpoints.
    pub(crate) fn forget(&mut self) {
        self.seen.fill(false);
        self.endpoints = 0;
    }

    fn note(&mut self, message: &[u8]) -> Option<()> {
        let address = number(message, &self.connection)?;
        let port = number(message, &self.media)?;
        let seen = self.seen.get_mut(address << 16 | port)?;
        self.endpoints += u64::from(!*seen);
        *seen = true;
        Some(())
    }
}

/// The number behind what `finder` finds, if it has at most five digits.
fn number(message: &[u8], finder: &Finder<'_>) -> Option<usize> {
    let at = finder.find(message)? + finder.needle().len();
    let digits = message.get(at..at + 6)?;
    let count = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    Some(digits.iter().take(count).fold(0, |number, digit| number * 10 + usize::from(digit - b'0')))
}
