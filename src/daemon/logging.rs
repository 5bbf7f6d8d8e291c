//! Where log lines go, and which.
//!
//! Lines are tracing events; this module only sets up who receives them. Everything that comes from a message is a
//! field, so that journald can be asked for it, and so that the receiver escapes it.

use std::fs;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use super::Error;
use crate::config::{self, LogTarget};

/// Changes the levels while the program runs.
#[derive(Clone, Debug)]
pub struct Levels(Handle<EnvFilter, Registry>);

/// Sends all log lines of this process to where `settings` say, from now on.
///
/// # Errors
/// [`Error::Journald`] if journald was asked for by name and does not answer.
pub fn start(settings: &config::Log) -> Result<Levels, Error> {
    let (filter, handle) = reload::Layer::new(EnvFilter::new(&settings.level));
    let wanted = match settings.target {
        LogTarget::Auto => stderr_is_the_journal(),
        LogTarget::Journald => true,
        LogTarget::Stderr => false,
    };
    let journald = if wanted { Some(tracing_journald::layer()) } else { None };
    let sink = match (journald, settings.target) {
        (Some(Ok(layer)), _) => layer.with_syslog_identifier("sipalg".to_owned()).boxed(),
        (Some(Err(error)), LogTarget::Journald) => return Err(Error::Journald(error)),
        (Some(Err(_)) | None, _) => stderr(),
    };
    // A second subscriber in one process happens only where several tests share it; the first one stays.
    let _ = tracing_subscriber::registry().with(filter).with(sink).try_init();
    Ok(Levels(handle))
}

impl Levels {
    /// Other levels from now on.
    pub fn set(&self, level: &str) {
        // Fails only when the subscriber is gone, and then nobody reads.
        let _ = self.0.reload(EnvFilter::new(level));
    }
}

fn stderr<S>() -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).with_target(false).boxed()
}

/// systemd names the stream that it connected to the journal (systemd.exec(5), `JOURNAL_STREAM`); it is inherited by
/// programs whose standard error goes elsewhere, so the stream itself is compared.
fn stderr_is_the_journal() -> bool {
    let Some(stream) = std::env::var("JOURNAL_STREAM").ok() else { return false };
    let Ok(stderr) = io::stderr().as_fd().try_clone_to_owned() else { return false };
    let Ok(meta) = fs::File::from(stderr).metadata() else { return false };
    stream == format!("{}:{}", meta.dev(), meta.ino())
}
