//! The end of a chain that is drained.

use std::sync::atomic::Ordering;

use crate::{SyncMode, lock, shard::Shard};

impl Shard {
    /// Closes the chain on the calling thread: last record, last head, and the files cut to their length.
    pub(crate) fn close(&self) {
        let appended = lock(&self.writer).append_closed();
        if let Err(error) = appended {
            tracing::warn!(%error, folder = %self.folder.display(), "chain left open: the next start recovers it");
            return;
        }
        if self.common.sync == SyncMode::Group {
            self.sync();
        }
        self.sign(true);
        let (active, next) = {
            let mut writer = lock(&self.writer);
            (writer.active.take(), writer.next.take())
        };
        if let Some(active) = active {
            match active.finish() {
                Ok(freed) => self.common.budget.give_back(freed),
                Err(error) => tracing::warn!(%error, "cannot cut a closed segment"),
            }
        }
        if let Some(next) = next {
            self.discard(next);
        }
        self.closed.store(true, Ordering::Release);
        self.shippable.notify_waiters();
        self.room.notify_waiters();
    }
}
