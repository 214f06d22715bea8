//! The thread that syncs in group mode: everything that was appended meanwhile is one group.

use std::{
    fs::File,
    io,
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use crate::{
    key::Mark,
    lock,
    shard::{Common, Shard},
    writer::Writer,
};

/// Runs until the last shard is gone.
pub(crate) fn run(common: &Common, shards: &[Weak<Shard>], interval: Duration) {
    loop {
        // Records that nobody waits for are synced too, or they would not ship.
        common.syncer.wait(interval);
        let mut alive = false;
        for shard in shards.iter().filter_map(Weak::upgrade) {
            alive = true;
            shard.sync();
        }
        if !alive {
            return;
        }
    }
}

impl Shard {
    /// Syncs what was appended so far and lets those know who wait for it.
    pub(crate) fn sync(&self) {
        if self.sync_failed.load(Ordering::Acquire) {
            return;
        }
        let Some((mark, files)) = lock(&self.writer).unsynced() else { return };
        match files.iter().try_for_each(|file| (self.common.surroundings.sync)(file)) {
            Ok(()) => self.synced(mark),
            Err(error) => self.fail(&error),
        }
    }

    fn synced(&self, mark: Mark) {
        let mut writer = lock(&self.writer);
        // Closing syncs as well: whoever comes second must not go back.
        if writer.synced.is_none_or(|synced| synced.sequence < mark.sequence) {
            writer.synced = Some(mark);
        }
        drop(writer);
        self.synced.fetch_max(mark.sequence + 1, Ordering::AcqRel);
        self.durable.notify_waiters();
    }

    /// After a failed fsync the kernel may have dropped what it could not write: another that succeeds
    /// would prove nothing. So nothing of this chain counts as safe from now on, and commands wait.
    fn fail(&self, error: &io::Error) {
        self.sync_failed.store(true, Ordering::Release);
        tracing::error!(%error, folder = %self.folder.display(), "cannot sync the spool: nothing is forwarded until a restart");
    }
}

impl Writer {
    /// The newest entry and the files to sync for it, if it is not synced yet.
    fn unsynced(&self) -> Option<(Mark, Vec<Arc<File>>)> {
        let newest = self.newest()?;
        let synced = self.synced.map(|synced| synced.sequence);
        if synced == Some(newest.sequence) {
            return None;
        }
        let behind = |last: Option<Mark>| last.is_some_and(|last| synced.is_none_or(|s| s < last.sequence));
        let segments = self.sealed.iter().chain(&self.active);
        let files = segments.filter(|s| behind(s.last)).map(|s| s.file.clone()).collect();
        Some((newest, files))
    }
}
