//! Exit codes, and the one message that goes with each failure.
//!
//! README has the same table for administrators; a test holds both equal. The codes are part of the interface: a
//! monitoring script may rely on them.

use std::fmt;
use std::io;
use std::process::ExitCode;

use crate::config;
use crate::control::client::AskError;
use crate::daemon;
use crate::kernel::KernelError;
use crate::kernel::probe::Finding;
use crate::lab::LabError;
use crate::queue::OpenError;

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
    /// There is no running gateway to ask.
    NotRunning = 8,
}

impl Exit {
    /// All codes, in order.
    pub const ALL: [Self; 9] = [
        Self::Good,
        Self::Failed,
        Self::Usage,
        Self::Rights,
        Self::Kernel,
        Self::QueueTaken,
        Self::OtherAlg,
        Self::Ruleset,
        Self::NotRunning,
    ];

    /// What a finding of the probe means for the exit code, if it is a problem.
    pub fn of_finding(finding: &Finding) -> Self {
        match finding.name {
            "rights" => Self::Rights,
            "sip-helper" => Self::OtherAlg,
            "ruleset" => Self::Ruleset,
            "user" => Self::Usage,
            _ => Self::Kernel,
        }
    }

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

impl From<config::Error> for Problem {
    fn from(error: config::Error) -> Self {
        let hidden = matches!(&error, config::Error::Unreadable { source, .. }
            if source.kind() == io::ErrorKind::PermissionDenied);
        let problem = Self::new(Exit::Usage, error);
        if hidden {
            problem.remedy("The user that sipalg runs as has to read it: chgrp sipalg, and chmod 640.")
        } else {
            problem
        }
    }
}

impl From<KernelError> for Problem {
    fn from(error: KernelError) -> Self {
        let exit = match &error {
            KernelError::NotPermitted(_) => Exit::Rights,
            KernelError::Unsupported(_) => Exit::Kernel,
            KernelError::Refused(_) => Exit::Ruleset,
            KernelError::System { .. } => Exit::Failed,
        };
        let remedy = error.remedy();
        Self::new(exit, error).remedy(remedy)
    }
}

/// The message has the remedy already.
impl From<OpenError> for Problem {
    fn from(error: OpenError) -> Self {
        let exit = match &error {
            OpenError::NotPermitted => Exit::Rights,
            OpenError::Taken { .. } => Exit::QueueTaken,
            OpenError::NotSupported => Exit::Kernel,
            OpenError::Numbers { .. } => Exit::Usage,
            OpenError::Failed { .. } => Exit::Failed,
        };
        let problem = Self::new(exit, &error);
        match error {
            OpenError::Taken { .. } => problem.remedy("The key is queue.base. Is another sipalg running?"),
            _ => problem,
        }
    }
}

impl From<daemon::Error> for Problem {
    fn from(error: daemon::Error) -> Self {
        match error {
            daemon::Error::NotReady { findings } => {
                let exit = findings.first().map_or(Exit::Failed, Exit::of_finding);
                let told = |finding: &Finding| {
                    let remedy = if finding.remedy.is_empty() {
                        String::new()
                    } else {
                        format!("\n        {}", finding.remedy)
                    };
                    format!("{}{remedy}", finding.text)
                };
                Self::new(exit, findings.iter().map(told).collect::<Vec<_>>().join("\nsipalg: "))
            }
            daemon::Error::Kernel(error) | daemon::Error::Ruleset(error) => error.into(),
            daemon::Error::Queue(error) => error.into(),
            error @ daemon::Error::Another { .. } => Self::new(Exit::QueueTaken, error)
                .remedy("One serves a whole network namespace: stop it, or do without this one."),
            error @ daemon::Error::Journald(_) => Self::new(Exit::Usage, error)
                .remedy("Without journald, log.target must be \"stderr\" or \"auto\"."),
            error @ daemon::Error::User(_) => Self::new(Exit::Usage, error),
            error @ (daemon::Error::System { .. } | daemon::Error::Died) => Self::new(Exit::Failed, error),
        }
    }
}

impl From<AskError> for Problem {
    fn from(error: AskError) -> Self {
        let (exit, remedy) = match &error {
            AskError::NotRunning { .. } => (
                Exit::NotRunning,
                "systemctl start sipalg starts it, journalctl -u sipalg says why it ended; if its socket is elsewhere, \
                 name it with --socket"
                    .to_owned(),
            ),
            AskError::NotPermitted { .. } => (Exit::Rights, "run the command with sudo".to_owned()),
            AskError::Refused(refusal) => (Exit::Failed, refusal.remedy.clone()),
            AskError::Version(_) => (
                Exit::Failed,
                "systemctl restart sipalg starts the installed version, and calls go on".to_owned(),
            ),
            AskError::Nonsense(_) | AskError::System(_) => (Exit::Failed, String::new()),
        };
        Self { remedy: Some(remedy).filter(|remedy| !remedy.is_empty()), ..Self::new(exit, error) }
    }
}

impl From<LabError> for Problem {
    fn from(error: LabError) -> Self {
        let exit = match &error {
            LabError::NotRoot => Exit::Rights,
            LabError::MissingTool { .. } => Exit::Kernel,
            LabError::Tool { .. }
            | LabError::Io { .. }
            | LabError::NotReady { .. }
            | LabError::Interrupted => Exit::Failed,
        };
        Self::new(exit, error)
    }
}

/// What start-up code hands up with a context.
impl From<anyhow::Error> for Problem {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<LabError>() {
            Ok(error) => error.into(),
            Err(error) => Self::new(Exit::Failed, format_args!("{error:#}")),
        }
    }
}

/// Output that can't be written. Nobody is told when a reader has gone away, as in `sipalg explain … | head`.
impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        let exit = if error.kind() == io::ErrorKind::BrokenPipe { Exit::Good } else { Exit::Failed };
        Self::new(exit, format_args!("can't write the output: {error}"))
    }
}
