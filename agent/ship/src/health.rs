//! Whether the collector takes records: logged when that changes, not at every try.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Shared by all streams to one collector, on one thread.
#[derive(Debug)]
pub(crate) struct Health {
    target: String,
    up: Cell<Option<bool>>,
    /// For other threads.
    shown: Arc<AtomicBool>,
}

impl Health {
    pub(crate) fn new(target: String, shown: Arc<AtomicBool>) -> Self {
        Self { target, up: Cell::new(None), shown }
    }

    /// The collector acknowledged something.
    pub(crate) fn good(&self) {
        self.shown.store(true, Ordering::Relaxed);
        match self.up.replace(Some(true)) {
            Some(true) => {}
            Some(false) => tracing::info!(collector = %self.target, "collector takes records again"),
            None => tracing::debug!(collector = %self.target, "collector takes records"),
        }
    }

    /// A try failed, or a stream broke.
    pub(crate) fn bad(&self, reason: &str) {
        self.shown.store(false, Ordering::Relaxed);
        if self.up.replace(Some(false)) != Some(false) {
            let collector = &self.target;
            tracing::warn!(%collector, %reason, "collector takes no records: they wait in the spool");
        } else {
            tracing::debug!(collector = %self.target, %reason, "still no collector");
        }
    }
}
