//! What ends with the last handle of a node's spool: its threads, then the lock on its folder.

use std::{path::Path, sync::Arc, thread::JoinHandle};

use crate::{
    shard::{Common, Shard},
    slot::Slot,
};

/// Held by every spool and outbox.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) common: Arc<Common>,
    /// The threads look at the shards weakly: without these they end.
    shards: Vec<Arc<Shard>>,
    threads: Vec<JoinHandle<()>>,
    slot: Slot,
}

impl Node {
    pub(crate) fn new(
        common: Arc<Common>,
        shards: Vec<Arc<Shard>>,
        threads: Vec<JoinHandle<()>>,
        slot: Slot,
    ) -> Self {
        Self { common, shards, threads, slot }
    }

    /// The folder that is ours.
    pub(crate) fn slot(&self) -> &Path {
        &self.slot.path
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shards.clear();
        self.common.keeper.ring();
        self.common.syncer.ring();
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so.
            thread.join().ok();
        }
    }
}
