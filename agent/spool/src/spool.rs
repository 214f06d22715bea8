//! A shard's handle: appending.

use std::{cell::Cell, marker::PhantomData};

use crate::{AppendError, Appended, Draft};

/// Takes the records of one shard. Lives on the shard's thread; may be shared there by `Rc`.
#[derive(Debug)]
pub struct Spool {
    not_sync: PhantomData<Cell<()>>,
}

impl Spool {
    /// Appends a record. Never waits for a disk.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append(&self, draft: Draft) -> Result<Appended, AppendError> {
        drop(draft);
        unimplemented!()
    }

    /// Returns when an append that failed with [`AppendError::Full`] may succeed.
    pub async fn room(&self) {
        unimplemented!()
    }

    /// Returns when the record at `position` is as safe as the configuration asks: at once in
    /// [`SyncMode::Process`](crate::SyncMode), when it was synced in [`SyncMode::Group`](crate::SyncMode).
    pub async fn durable(&self, position: u64) {
        let _ = position;
        unimplemented!()
    }

    /// This shard's chain.
    #[must_use]
    pub fn chain_id(&self) -> [u8; 16] {
        unimplemented!()
    }

    /// Closes the chain: a chain-closed record and a last head. Waits for the disk.
    pub fn close(self) {
        unimplemented!()
    }
}
