//! A directory for the run's own files, removed with it.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::{LabError, naming};

/// The directory.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Makes it, readable by nobody else.
    pub(super) fn make() -> Result<Self, LabError> {
        let parent = std::env::temp_dir();
        sweep(&parent);
        let path = parent.join(naming::unique());
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Ok(Self(path)),
            Err(error) => Err(LabError::io(format!("cannot make {}", path.display()), error)),
        }
    }

    /// A file in it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(super) fn directory(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes the directories that killed runs left behind. Others may write here too: what is not root's is not ours.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let orphan = entry.file_name().to_str().is_some_and(naming::is_orphan);
        if orphan && entry.metadata().is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == 0) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
