//! A shard's handle: appending.

use std::{
    cell::Cell,
    marker::PhantomData,
    sync::{Arc, atomic::Ordering},
};

use crate::{
    AppendError, Appended, Common, Draft, SyncMode, WhenFull, lock, node::Node, shard::Shard, writer::Refusal,
};

/// Takes the records of one shard. Lives on the shard's thread; may be shared there by `Rc`.
#[derive(Debug)]
pub struct Spool {
    shard: Arc<Shard>,
    /// Kept so that the spool's threads end with the last handle.
    _node: Arc<Node>,
    not_sync: PhantomData<Cell<()>>,
}

impl Spool {
    pub(crate) fn new(shard: Arc<Shard>, node: Arc<Node>) -> Self {
        Self { shard, _node: node, not_sync: PhantomData }
    }

    /// Appends a record. Waits for no disk, except where the next segment should have been ready and is not:
    /// then it is made here, before the record would be refused.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append(&self, mut draft: Draft) -> Result<Appended, AppendError> {
        self.try_append(&mut draft, &Common::default())
    }

    /// As [`Spool::append`], of a record that has something in common with others: that is part of it, and
    /// stands before what `draft` says.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append_with(&self, mut draft: Draft, common: &Common) -> Result<Appended, AppendError> {
        self.try_append(&mut draft, common)
    }

    /// Appends a record; where the configuration says stop, waits until there is room.
    ///
    /// # Errors
    /// See [`AppendError`]; never [`AppendError::Full`].
    pub async fn append_when_room(&self, mut draft: Draft) -> Result<Appended, AppendError> {
        loop {
            match self.try_append(&mut draft, &Common::default()) {
                Err(AppendError::Full) => self.room().await,
                result => return result,
            }
        }
    }

    fn try_append(&self, draft: &mut Draft, common: &Common) -> Result<Appended, AppendError> {
        let mut writer = lock(&self.shard.writer);
        let mut result = writer.try_append(draft, common);
        if result == Err(Refusal::Full) && !writer.full {
            // The keeper may only be late: making the segment here beats stopping, and shedding.
            drop(writer);
            self.shard.supply();
            writer = lock(&self.shard.writer);
            result = writer.try_append(draft, common);
        }
        let result = result.map_err(|refusal| writer.refuse(refusal, draft));
        let ring = std::mem::take(&mut writer.marked);
        drop(writer);
        if ring {
            self.shard.common.keeper.ring();
        }
        result
    }

    /// Returns when an append that failed with [`AppendError::Full`] may succeed.
    pub async fn room(&self) {
        loop {
            let mut notified = std::pin::pin!(self.shard.room.notified());
            notified.as_mut().enable();
            if !lock(&self.shard.writer).full {
                return;
            }
            notified.await;
        }
    }

    /// Returns when the record at `position` is as safe as the configuration asks: at once in
    /// [`SyncMode::Process`], when it was synced in [`SyncMode::Group`]. Where syncing fails it never
    /// returns: nothing may be forwarded then.
    pub async fn durable(&self, position: u64) {
        if self.shard.common.sync == SyncMode::Process {
            return;
        }
        loop {
            let mut notified = std::pin::pin!(self.shard.durable.notified());
            notified.as_mut().enable();
            if self.shard.synced.load(Ordering::Acquire) > position {
                return;
            }
            self.shard.common.syncer.ring();
            notified.await;
        }
    }

    /// This shard's chain.
    #[must_use]
    pub fn chain_id(&self) -> [u8; 16] {
        self.shard.chain
    }

    /// What this spool does when it is full.
    #[must_use]
    pub fn when_full(&self) -> WhenFull {
        lock(&self.shard.writer).when_full()
    }

    /// Signs a head over everything appended so far, now rather than at the next interval. Takes 40 µs.
    pub fn sign(&self) {
        self.shard.sign(true);
    }

    /// Closes the chain: a chain-closed record and a last head. Waits for the disk in group mode.
    ///
    /// Where the spool is so full that not even this record fits, the chain stays open, and the next start
    /// treats it like that of an agent that died.
    pub fn close(self) {
        self.shard.close();
    }
}
