//! What a node's spool is told: where, how large, how safe.

use std::{path::PathBuf, time::Duration};

/// When a record counts as safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// When it is in the mapped segment: survives `kill -9`, not a loss of power.
    Process,
    /// When the segment was synced: survives a loss of power; a command waits for its group.
    Group,
}

/// What to do when the spool is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// Stop forwarding until there is room.
    Stop,
    /// Forward unrecorded, and say how many with a gap record as soon as there is room.
    Shed,
}

/// Configuration of a node's spool.
#[derive(Clone, Debug)]
pub struct SpoolConfig {
    /// One folder per shard is made below.
    pub directory: PathBuf,
    /// When a record counts as safe.
    pub sync: SyncMode,
    /// Size of a segment file, bytes.
    pub segment_bytes: u64,
    /// All segments of all shards together, bytes. Exceeded by at most a segment per shard, which a chain is
    /// opened in after a start with a full spool; what is quarantined does not count.
    pub limit_bytes: u64,
    /// At the limit.
    pub when_full: WhenFull,
    /// How often a head is signed while there are new records.
    pub head_interval: Duration,
    /// Node name for the chain's opening.
    pub node: String,
}
