//! Builds records, chains them and keeps them crash-safe until the collector has them.
//!
//! Owns what happens to a record between its making and its acknowledgement: ids, clocks, salt,
//! commitment, chain, signed heads, segments, recovery. Knows no socket and no protocol; what it does
//! about the network is hand batches to a shipper and delete what was acknowledged.

use std::{path::PathBuf, time::Duration};

use verbatim_api::v1;

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
    /// All segments of all shards together, bytes.
    pub limit_bytes: u64,
    /// At the limit.
    pub when_full: WhenFull,
    /// How often a head is signed while there are new records.
    pub head_interval: Duration,
    /// Node name for the chain's opening.
    pub node: String,
}

/// A record as the proxy builds it: everything but what the spool adds (schema version, record id, chain
/// id, sequence, clocks, commitment, salt).
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// The lasting part.
    pub envelope: v1::Envelope,
    /// The part that can be deleted.
    pub content: Option<v1::Content>,
}

/// Where an appended record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// UUIDv7 of the record.
    pub record_id: [u8; 16],
    /// Its place in the chain.
    pub sequence: u64,
    /// CLOCK_BOOTTIME that it carries, nanoseconds.
    pub boottime_nanos: u64,
    /// For [`Spool::durable`].
    pub position: u64,
}

/// Why a record could not be appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The spool is full and the configuration says stop: wait with [`Spool::room`] and append again.
    #[error("spool is full: waiting for the collector to acknowledge")]
    Full,
    /// The spool is full and the configuration says shed: the record was counted for a gap record.
    #[error("spool is full: record shed")]
    Shed,
    /// Larger than a segment.
    #[error("record of {0} bytes is larger than a segment")]
    TooLarge(usize),
}
