//! How many records the collector has not acknowledged.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::{lock, shard::Common};

/// One chain's numbers, written by who appends and by who ships.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// Sequence behind the last record.
    pub(crate) appended: AtomicU64,
    /// Sequence behind the last that was acknowledged.
    pub(crate) acknowledged: AtomicU64,
}

/// Counts over all chains of a spool, those of predecessors among them.
#[derive(Clone, Debug)]
pub struct Ledger(Arc<Common>);

impl Ledger {
    pub(crate) fn new(common: Arc<Common>) -> Self {
        Self(common)
    }

    /// Records that the collector has not acknowledged.
    #[must_use]
    pub fn unacknowledged(&self) -> u64 {
        let accounts = lock(&self.0.accounts);
        let open = |account: &Arc<Account>| {
            let acknowledged = account.acknowledged.load(Ordering::Relaxed);
            account.appended.load(Ordering::Relaxed).saturating_sub(acknowledged)
        };
        accounts.iter().map(open).sum()
    }
}
