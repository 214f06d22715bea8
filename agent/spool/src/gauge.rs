//! What there is to say about a node's spool from outside: how full it is, and how long records have waited.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use verbatim_sys::clock;

use crate::{
    lock,
    shard::{Common, Shard},
};

/// Reads a node's spool. A handle: does not keep it open.
#[derive(Clone, Debug)]
pub struct Gauge {
    common: Arc<Common>,
    shards: Vec<Weak<Shard>>,
}

impl Gauge {
    pub(crate) fn new(common: Arc<Common>, shards: Vec<Weak<Shard>>) -> Self {
        Self { common, shards }
    }

    /// Bytes that all segments of all shards take.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.common.budget.used()
    }

    /// Bytes that they may take.
    #[must_use]
    pub fn limit_bytes(&self) -> u64 {
        self.common.budget.limit()
    }

    /// Whether a record was refused for want of room, and there has been none since.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.shards.iter().filter_map(Weak::upgrade).any(|shard| lock(&shard.writer).full)
    }

    /// How long the oldest record has waited that the collector has not acknowledged; to a second. `None`: none
    /// waits. Of records of an earlier agent that time counts from the start of this one.
    #[must_use]
    pub fn oldest_unacknowledged(&self) -> Option<Duration> {
        let since = self.common.ages.oldest_nanos()?;
        Some(Duration::from_nanos(clock::boottime_nanos().saturating_sub(since)))
    }
}
