//! Exit codes, and the one message that goes with each failure.
//!
//! README has the same table for administrators; a test holds both equal. The codes are part of the interface: a
//! monitoring script may rely on them.

use std::fmt;
use std::process::ExitCode;

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything held.
    Good = 0,
    /// It ran, and something that should have held did not: a finding of `check`, a call in the lab, a lost queue.
    Failed = 1,
    /// Wrong arguments, or a configuration that makes no sense.
    Usage = 2,
    /// Rights are missing.
    Rights = 3,
    /// The kernel, or a tool that belongs to it, lacks something that can't be done without.
    Kernel = 4,
    /// Another program reads one of our queues; perhaps another sipalg.
    QueueTaken = 5,
    /// Another ALG is attached to the same ports: the kernel's `sip` helper.
    OtherAlg = 6,
    /// The ruleset can't be loaded.
    Ruleset = 7,
}

impl Exit {
    /// All codes, in order.
    pub const ALL: [Self; 8] = [
        Self::Good,
        Self::Failed,
        Self::Usage,
        Self::Rights,
        Self::Kernel,
        Self::QueueTaken,
        Self::OtherAlg,
        Self::Ruleset,
    ];

    /// The number that the shell sees.
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command gave up: what happened, and what to do about it.
#[derive(Debug)]
pub struct Problem {
    /// The code to end with.
    pub exit: Exit,
    /// What happened, in one sentence without a full stop.
    pub what: String,
    /// What to do about it, as a sentence.
    pub remedy: Option<String>,
}

impl Problem {
    /// A problem without a known remedy.
    pub fn new(exit: Exit, what: impl fmt::Display) -> Self {
        Self { exit, what: what.to_string(), remedy: None }
    }

    /// The same with a remedy.
    #[must_use]
    pub fn remedy(self, remedy: impl fmt::Display) -> Self {
        Self { remedy: Some(remedy.to_string()), ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sipalg: {}", self.what)?;
        match &self.remedy {
            Some(remedy) => write!(f, "\n        {remedy}"),
            None => Ok(()),
        }
    }
}

impl From<crate::config::Error> for Problem {
    fn from(error: crate::config::Error) -> Self {
        Self::new(Exit::Usage, error)
    }
}

/// Output that can't be written. A closed pipe (`sipalg explain … | head`) is handled in [`main`](super::main).
impl From<std::io::Error> for Problem {
    fn from(error: std::io::Error) -> Self {
        let exit = if error.kind() == std::io::ErrorKind::BrokenPipe { Exit::Good } else { Exit::Failed };
        Self::new(exit, format_args!("can't write the output: {error}"))
    }
}
