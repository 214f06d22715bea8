//! One collector for one data directory.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    path::Path,
};

/// Why the directory is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error(
        "{0} is in use by a running collector: ask that one (its audit address), or stop it, or name another directory"
    )]
    InUse(String),
    /// The lock's file cannot be opened.
    #[error("cannot lock {place}: {source}")]
    Failed {
        /// Which file.
        place: String,
        /// The system's own words.
        source: io::Error,
    },
}

/// Held as long as this lives; the system lets go of it when the process dies.
#[derive(Debug)]
pub(crate) struct DataLock(File);

impl Drop for DataLock {
    /// Lets go by name: closing the file is not enough while a process that was just forked still has it.
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "cannot unlock the data directory");
        }
    }
}

const FILE: &str = "lock";

impl DataLock {
    /// For a collector.
    pub(crate) fn exclusive(data: &Path) -> Result<Self, LockError> {
        let path = data.join(FILE);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|source| LockError::Failed { place: path.display().to_string(), source })?;
        let locked = file.try_lock();
        Self::held(data, file, locked)
    }

    /// For those who only read; more than one may.
    pub(crate) fn shared(data: &Path) -> Result<Self, LockError> {
        let path = data.join(FILE);
        let file = File::open(&path);
        let file = file.map_err(|source| LockError::Failed { place: path.display().to_string(), source })?;
        let locked = file.try_lock_shared();
        Self::held(data, file, locked)
    }

    fn held(data: &Path, file: File, locked: Result<(), TryLockError>) -> Result<Self, LockError> {
        match locked {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(LockError::InUse(data.display().to_string())),
            Err(TryLockError::Error(source)) => {
                Err(LockError::Failed { place: data.join(FILE).display().to_string(), source })
            }
        }
    }
}
