//! What the shipper sees of a shard: batches, acknowledgements.

use std::{io, path::PathBuf, sync::Arc};

use verbatim_api::v1;

use crate::{lane::Lane, lock, node::Node, queue::Queue, shard::Shard, slot::Slot};

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
    /// A segment changed on disk since it was written or recovered. It is put aside at the next start.
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
pub struct Outbox {
    /// Folders without a shard of their own first; the shard's own is the last.
    lanes: Vec<Lane>,
    /// `None`: all that there is was there from the beginning.
    shard: Option<Arc<Shard>>,
    node: Arc<Node>,
    /// Another process had left it behind.
    adopted: Option<Slot>,
}

impl Outbox {
    pub(crate) fn new(lanes: Vec<Lane>, shard: Arc<Shard>, node: Arc<Node>) -> Self {
        Self { lanes, shard: Some(shard), node, adopted: None }.accounted()
    }

    pub(crate) fn adopted(lanes: Vec<Lane>, slot: Slot, node: Arc<Node>) -> Self {
        let mut outbox = Self { lanes, shard: None, node, adopted: Some(slot) }.accounted();
        for lane in &mut outbox.lanes {
            lane.delete_acknowledged(&outbox.node.common);
        }
        outbox
    }

    fn accounted(self) -> Self {
        let accounts: Vec<_> = self.queues().map(|queue| Arc::clone(&queue.account)).collect();
        lock(&self.node.common.accounts).extend(accounts);
        self
    }

    /// The next batch, or `None` when there is nothing new that is signed: consecutive entries of one
    /// chain ending at a signed head, predecessors' chains first. In group mode only synced entries.
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
        for queue in self.lanes.iter_mut().flat_map(|lane| &mut lane.queues) {
            if let Some(batch) = queue.next_batch(max_entries, max_bytes)? {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    /// Returns when [`next_batch`](Self::next_batch) has something.
    pub async fn changed(&mut self) {
        let Some(shard) = &self.shard else {
            if !self.queues().any(Queue::has_more) {
                std::future::pending::<()>().await;
            }
            return;
        };
        loop {
            let mut notified = std::pin::pin!(shard.shippable.notified());
            notified.as_mut().enable();
            if self.queues().any(Queue::has_more) {
                return;
            }
            notified.await;
        }
    }

    /// The collector has everything of the chain up to and including this sequence: deletes the segments
    /// that are wholly acknowledged. An acknowledgement of what was never handed out is not believed.
    pub fn acknowledge(&mut self, chain_id: &[u8], durable_sequence: u64) {
        for lane in &mut self.lanes {
            for queue in lane.queues.iter_mut().filter(|queue| queue.chain[..] == *chain_id) {
                let believed = queue.acknowledge(durable_sequence.saturating_add(1));
                self.node.common.ages.acknowledged(&queue.chain, believed);
            }
            lane.delete_acknowledged(&self.node.common);
        }
    }

    /// Hands out again from the first entry that was not acknowledged: the connection was lost.
    pub fn rewind(&mut self) {
        for queue in self.lanes.iter_mut().flat_map(|lane| &mut lane.queues) {
            queue.rewind();
        }
    }

    /// Whether everything was acknowledged and the shard's chain is closed: nothing is left to ship.
    #[must_use]
    pub fn drained(&self) -> bool {
        self.queues().next().is_none()
    }

    /// What is in it was left behind by another process: it ends once everything was acknowledged.
    #[must_use]
    pub fn is_adopted(&self) -> bool {
        self.adopted.is_some()
    }

    fn queues(&self) -> impl Iterator<Item = &Queue> {
        self.lanes.iter().flat_map(|lane| &lane.queues)
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        if let Some(slot) = &self.adopted
            && self.drained()
        {
            slot.remove();
        }
    }
}
