//! What ends with the last handle of a node's spool: its threads, then the lock on its folder.

use std::{fs::File, sync::Arc, thread::JoinHandle};

use crate::shard::{Common, Shard};

/// Held by every spool and outbox.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) common: Arc<Common>,
    /// The threads look at the shards weakly: without these they end.
    shards: Vec<Arc<Shard>>,
    threads: Vec<JoinHandle<()>>,
    /// Locked.
    lock: File,
}

impl Node {
    pub(crate) fn new(
        common: Arc<Common>,
        shards: Vec<Arc<Shard>>,
        threads: Vec<JoinHandle<()>>,
        lock: File,
    ) -> Self {
        Self { common, shards, threads, lock }
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
        // By name: closing the file is not enough while a process that was just forked still has it.
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(%error, "cannot unlock the spool");
        }
    }
}
