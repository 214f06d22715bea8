//! Opening a node's spool: recovers what earlier instances left, then opens one chain per shard.

use std::{io, path::PathBuf};

use crate::{Outbox, Spool, SpoolConfig};

/// A node's spool, open: the n-th of each belongs to shard n.
#[derive(Debug)]
pub struct Opened {
    /// For the shards' threads.
    pub spools: Vec<Spool>,
    /// For the thread that ships.
    pub outboxes: Vec<Outbox>,
    /// What earlier instances had left behind.
    pub recovered: Recovered,
}

/// What was found of earlier instances, for the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Chains without a closing record: their agents died.
    pub chains: u64,
    /// Commands and connections without an end that were given one.
    pub ended: u64,
    /// Records that stood behind a damaged place and were put aside.
    pub quarantined: u64,
}

/// Why a spool could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file operation failed.
    #[error("spool: cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process has the spool open.
    #[error("spool: {0} is in use by another process: stop that agent, or give this one a folder of its own")]
    InUse(PathBuf),
    /// The configuration cannot work.
    #[error("spool: {0}")]
    Config(String),
}

/// Opens the spool for `shards` shards; recovers predecessors first.
///
/// # Errors
/// When the folder cannot be used, is in use, or the configuration cannot work.
pub fn open(config: &SpoolConfig, shards: usize) -> Result<Opened, OpenError> {
    let _ = (config, shards);
    unimplemented!()
}
