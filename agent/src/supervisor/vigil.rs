//! Signs of life in the place of a worker that has died: its listeners are kept, and until the next one accepts from
//! them, workloads wait in their queues instead of failing. On a machine that is short of processors that one may
//! take longer to start than the heartbeat's time-out.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use verbatim_steer::Heartbeat;

/// How long workloads are made to wait for a worker; then it is their fail modes that decide.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two signs of life.
const INTERVAL: Duration = Duration::from_millis(100);

/// Gives a sign of life whenever it is asked for one.
pub(super) struct Vigil {
    heartbeat: Heartbeat,
    until: Instant,
}

impl Vigil {
    /// Begins now; `None` where nothing is pinned, so that nothing is steered without a worker.
    pub(super) fn begin(pins: &Path) -> Option<Self> {
        let heartbeat = Heartbeat::pinned_below(pins)?;
        Some(Self { heartbeat, until: Instant::now() + PATIENCE })
    }

    /// Gives a sign of life; `false` where that has gone on for too long.
    pub(super) fn goes_on(&self) -> bool {
        if self.until <= Instant::now() {
            return false;
        }
        if let Err(error) = self.heartbeat.beat() {
            tracing::error!(%error, "heartbeat failed");
        }
        true
    }

    /// When it is time for the next one.
    pub(super) fn next(&self) -> Instant {
        self.until.min(Instant::now() + INTERVAL)
    }
}
