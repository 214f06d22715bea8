//! What is shipped: a shard's outbox, or a test's.

use std::{error::Error, future::Future};

use verbatim_api::v1;
use verbatim_spool::{Outbox, OutboxError};

/// Batches of one shard, as [`Outbox`] describes each method.
pub trait Source: Send + 'static {
    /// Why a batch cannot be read.
    type Error: Error + 'static;

    /// The next batch, if there is one.
    ///
    /// # Errors
    /// It cannot be read now.
    fn next_batch(
        &mut self,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Option<v1::AppendRequest>, Self::Error>;

    /// Returns when there may be one.
    fn changed(&mut self) -> impl Future<Output = ()>;

    /// All up to there is with the collector.
    fn acknowledge(&mut self, chain_id: &[u8], durable_sequence: u64);

    /// Begin again with what was not acknowledged.
    fn rewind(&mut self);

    /// Nothing is left, and nothing more comes.
    fn drained(&self) -> bool;
}

impl Source for Outbox {
    type Error = OutboxError;

    fn next_batch(
        &mut self,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Option<v1::AppendRequest>, OutboxError> {
        Self::next_batch(self, max_entries, max_bytes)
    }

    fn changed(&mut self) -> impl Future<Output = ()> {
        Self::changed(self)
    }

    fn acknowledge(&mut self, chain_id: &[u8], durable_sequence: u64) {
        Self::acknowledge(self, chain_id, durable_sequence);
    }

    fn rewind(&mut self) {
        Self::rewind(self);
    }

    fn drained(&self) -> bool {
        Self::drained(self)
    }
}
