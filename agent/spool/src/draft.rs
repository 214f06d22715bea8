//! A record before and after the spool has taken it.

use verbatim_api::v1;

/// A record as the proxy builds it: everything but what the spool adds (schema version, record id, chain
/// id, sequence, clocks, commitment, salt). Whatever stands in those fields is overwritten.
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
    /// For [`Spool::durable`](crate::Spool::durable).
    pub position: u64,
}

/// Why a record could not be appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The spool is full and the configuration says stop: wait with [`Spool::room`](crate::Spool::room)
    /// and append again.
    #[error("spool is full: waiting for the collector to acknowledge")]
    Full,
    /// The spool is full and the configuration says shed: the record was counted for a gap record.
    #[error("spool is full: record shed")]
    Shed,
    /// Larger than a segment.
    #[error("record of {0} bytes is larger than a segment")]
    TooLarge(usize),
}
