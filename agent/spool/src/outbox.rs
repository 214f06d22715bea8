//! What the shipper sees of a shard: batches, acknowledgements.

use std::{io, path::PathBuf};

use verbatim_api::v1;

/// Why a batch could not be read.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
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
    /// A segment changed on disk since it was written or recovered. It is set aside at the next start.
    #[error("spool: {path} is damaged at byte {offset}: restart the agent, which quarantines what follows")]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where its frames end to hold.
        offset: u64,
    },
}

/// Hands out the batches of one shard. Lives on the thread that ships.
#[derive(Debug)]
pub struct Outbox {}

impl Outbox {
    /// The next batch, or `None` when there is nothing new that is signed: consecutive entries of one
    /// chain ending at a signed head, predecessors' chains first.
    ///
    /// A batch holds more than `max_entries` or `max_bytes` (of envelopes and contents) only where no head
    /// lies within them: heads are at most 500 entries or 512 KiB apart, or one larger entry.
    ///
    /// # Errors
    /// See [`OutboxError`]; the same batch is tried again at the next call.
    pub fn next_batch(
        &mut self,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Option<v1::AppendRequest>, OutboxError> {
        let _ = (max_entries, max_bytes);
        unimplemented!()
    }

    /// Returns when [`next_batch`](Self::next_batch) has something.
    pub async fn changed(&mut self) {
        unimplemented!()
    }

    /// The collector has everything of the chain up to and including this sequence: deletes the segments
    /// that are wholly acknowledged.
    pub fn acknowledge(&mut self, chain_id: &[u8], durable_sequence: u64) {
        let _ = (chain_id, durable_sequence);
        unimplemented!()
    }

    /// Hands out again from the first entry that was not acknowledged: the connection was lost.
    pub fn rewind(&mut self) {
        unimplemented!()
    }

    /// Whether everything was acknowledged and the shard's chain is closed: nothing is left to ship.
    #[must_use]
    pub fn drained(&self) -> bool {
        unimplemented!()
    }
}
