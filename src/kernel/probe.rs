//! stub
use super::ruleset::RulesetSettings;

/// One line of `sipalg check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at; a stable name.
    pub name: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub text: String,
    /// What to do about it; empty if nothing.
    pub remedy: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// `sipalg run` refuses to start.
    Problem,
}

/// Looks at everything; changes nothing.
pub fn run(settings: &RulesetSettings) -> Vec<Finding> {
    let _ = settings;
    Vec::new()
}
