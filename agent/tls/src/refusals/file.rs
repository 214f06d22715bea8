//! Refusals that outlive the process.
//!
//! Owns the file: written beside and renamed, read leniently. A file that is lost or broken costs each client
//! that refuses us one more connection, and nothing else.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use serde::{Deserialize, Serialize};

use super::{DESTINATIONS, Insistence, REFUSALS, Refusals, Refused, lock};
use crate::roots::bounded;

const VERSION: u32 = 1;

/// The file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RefusalFileError {
    /// Reading or writing failed.
    #[error("file of refusals `{}`: {error}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is not one of ours. It will be overwritten.
    #[error("file of refusals `{}` is not understood and counts as empty: {reason}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    refused: Vec<SavedRefusal>,
    insistent: Vec<SavedInsistence>,
    #[serde(default)]
    holders: Vec<SavedHolder>,
}

#[derive(Serialize, Deserialize)]
struct SavedRefusal {
    workload: String,
    service: String,
    #[serde(flatten)]
    refused: Refused,
}

#[derive(Serialize, Deserialize)]
struct SavedInsistence {
    #[serde(flatten)]
    insistence: Insistence,
    since_unix_seconds: u64,
}

#[derive(Serialize, Deserialize)]
struct SavedHolder {
    workload: String,
    service: String,
    since_unix_seconds: u64,
}

/// Keeps [`Refusals`] in a file.
#[derive(Debug)]
pub struct RefusalFile {
    path: PathBuf,
    refusals: Arc<Refusals>,
}

impl RefusalFile {
    /// Reads the file, where there is one. What is wrong with it comes beside the (then empty) memory: it is to
    /// be logged and is no reason to stop.
    #[must_use]
    pub fn open(path: PathBuf) -> (Self, Option<RefusalFileError>) {
        let (refusals, problem) = match read(&path) {
            Ok(refusals) => (refusals, None),
            Err(problem) => (Refusals::default(), Some(problem)),
        };
        (Self { path, refusals: Arc::new(refusals) }, problem)
    }

    /// What was read and has been learned since.
    #[must_use]
    pub fn refusals(&self) -> &Arc<Refusals> {
        &self.refusals
    }

    /// Writes the file anew if something has changed, and syncs it. Blocks on the disk: call it from a thread that
    /// may, every second or so and at the end.
    ///
    /// # Errors
    ///
    /// When it cannot be written; it is tried again next time.
    pub fn save(&self) -> Result<bool, RefusalFileError> {
        if !self.refusals.changed.swap(false, Ordering::AcqRel) {
            return Ok(false);
        }
        self.write().map_err(|error| {
            self.refusals.changed.store(true, Ordering::Release);
            RefusalFileError::Io { path: self.path.clone(), error }
        })?;
        Ok(true)
    }

    fn write(&self) -> io::Result<()> {
        let bytes = serde_json::to_vec(&saved(&self.refusals))?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut beside = self.path.clone().into_os_string();
        beside.push(".new");
        let mut file = File::create(&beside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

fn saved(refusals: &Refusals) -> Saved {
    // Least used first, so that reading them in order keeps the order.
    let refused = lock(&refusals.by_client)
        .iter()
        .map(|((workload, service), refused)| SavedRefusal {
            workload: workload.clone(),
            service: service.clone(),
            refused: refused.clone(),
        })
        .collect();
    let insistent = lock(&refusals.by_server)
        .iter()
        .map(|(insistence, since)| SavedInsistence {
            insistence: insistence.clone(),
            since_unix_seconds: *since,
        })
        .collect();
    let holders = lock(&refusals.by_holder)
        .iter()
        .map(|((workload, service), since)| SavedHolder {
            workload: workload.clone(),
            service: service.clone(),
            since_unix_seconds: *since,
        })
        .collect();
    Saved { version: VERSION, refused, insistent, holders }
}

fn read(path: &Path) -> Result<Refusals, RefusalFileError> {
    let bytes = match bounded(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Refusals::default()),
        Err(error) => return Err(RefusalFileError::Io { path: path.to_owned(), error }),
        Ok(bytes) => bytes,
    };
    let unreadable = |reason| RefusalFileError::Unreadable { path: path.to_owned(), reason };
    let saved: Saved = serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))?;
    if saved.version != VERSION {
        return Err(unreadable(format!("expected version {VERSION}, found {}", saved.version)));
    }
    let refusals = Refusals::default();
    let mut by_client = lock(&refusals.by_client);
    for SavedRefusal { workload, service, refused } in saved.refused.into_iter().take(REFUSALS) {
        by_client.insert((workload, service), refused);
    }
    drop(by_client);
    let mut by_server = lock(&refusals.by_server);
    for SavedInsistence { insistence, since_unix_seconds } in saved.insistent.into_iter().take(DESTINATIONS) {
        by_server.insert(insistence, since_unix_seconds);
    }
    drop(by_server);
    let mut by_holder = lock(&refusals.by_holder);
    for SavedHolder { workload, service, since_unix_seconds } in saved.holders.into_iter().take(REFUSALS) {
        by_holder.insert((workload, service), since_unix_seconds);
    }
    drop(by_holder);
    Ok(refusals)
}
