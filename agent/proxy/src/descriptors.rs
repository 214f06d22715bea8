//! Whether there are descriptors left to carry on what is accepted.
//!
//! A client that waits in the backlog is served a moment later; one that was accepted without a descriptor
//! left for its server's leg would be reset. So accepting stops while nearly all are used.

use std::{
    cell::Cell,
    io,
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use rustix::{
    io::{Errno, fcntl_dupfd_cloexec},
    process::{Resource, getrlimit},
};
use tokio::time::sleep;

/// Kept free of clients, for servers' legs, segments, the way to the collector, namespaces.
const RESERVE: u64 = 64;

/// Until it is looked again.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// What a shard knows of the process's descriptors.
#[derive(Debug, Default)]
pub(crate) struct Descriptors {
    short: Cell<bool>,
}

impl Descriptors {
    /// The kernel gives the lowest number that is free: one that is not below [`usable`] means that nearly all are
    /// used.
    pub(crate) fn note(&self, newest: &impl AsRawFd, usable: u64) {
        if u64::try_from(newest.as_raw_fd()).is_ok_and(|number| number >= usable) {
            self.run_out();
        }
    }

    /// There are none, or nearly none.
    pub(crate) fn run_out(&self) {
        if !self.short.replace(true) {
            tracing::warn!(
                limit = limit(),
                "nearly all descriptors are used: connections wait until some are free; raise the limit of open files"
            );
        }
    }

    /// Returns when there are enough.
    pub(crate) async fn enough(&self, any: impl AsFd) {
        while self.short.get() {
            let free = fcntl_dupfd_cloexec(&any, 0)
                .is_ok_and(|copy| u64::try_from(copy.as_raw_fd()).is_ok_and(|number| number < usable()));
            if free {
                self.short.set(false);
                tracing::info!("there are descriptors again: connections are taken");
            } else {
                sleep(PAUSE).await;
            }
        }
    }
}

/// Whether the process, or the machine, has no descriptor left.
pub(crate) fn exhausted(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Numbers below this may be clients'.
pub(crate) fn usable() -> u64 {
    let limit = limit();
    limit - RESERVE.min(limit / 4)
}
