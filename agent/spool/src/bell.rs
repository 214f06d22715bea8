//! Wakes a thread that does the spool's slow work. Ringing costs a system call only for the first of
//! several before the thread looks.

use std::{
    sync::{
        Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::lock;

/// One thread waits, many ring.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: AtomicBool,
    gate: Mutex<()>,
    heard: Condvar,
}

impl Bell {
    pub(crate) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            drop(lock(&self.gate));
            self.heard.notify_one();
        }
    }

    /// Returns when rung, or after `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) {
        let gate = lock(&self.gate);
        let waiting = |_: &mut ()| !self.rung.load(Ordering::Acquire);
        // Woken or timed out, and whether a ringer had panicked, is all the same: the caller looks.
        drop(self.heard.wait_timeout_while(gate, timeout, waiting));
        self.rung.store(false, Ordering::Release);
    }
}
