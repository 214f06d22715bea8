//! What shows whether a worker lives: handles on its parts, none of which they keep.

use std::{
    sync::{Arc, OnceLock, Weak, atomic::AtomicBool},
    time::Duration,
};

use verbatim_proxy::Shards;
use verbatim_spool::Gauge;
use verbatim_steer::{Heartbeat, Steering};

/// With a shard that has been silent for longer, the kernel is not told that the proxy lives.
const SILENCE: Duration = Duration::from_secs(1);

/// What there is to look at.
#[derive(Clone)]
pub(crate) struct Vitals {
    pub(crate) steering: Weak<Steering>,
    pub(crate) shards: Weak<Shards>,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) spool: Gauge,
    pub(crate) collector_connected: Arc<AtomicBool>,
}

/// Whether the shards turn; before there are any, whoever starts them does.
#[derive(Clone, Default)]
pub(crate) struct Pulse(Arc<OnceLock<Weak<Shards>>>);

impl Pulse {
    /// From now on it is the shards that must turn.
    pub(crate) fn watch(&self, shards: &Arc<Shards>) {
        // There is one set of shards in a worker's life.
        self.0.set(Arc::downgrade(shards)).ok();
    }

    /// For the heartbeat to ask; says so in the log when that changes.
    pub(crate) fn alive(&self) -> impl FnMut() -> bool + Send + 'static {
        let shards = Arc::clone(&self.0);
        let mut before = true;
        move || {
            let silence = match shards.get() {
                None => Duration::ZERO,
                Some(shards) => shards.upgrade().map_or(Duration::MAX, |shards| shards.silence()),
            };
            let alive = silence <= SILENCE;
            if alive != before && silence != Duration::MAX {
                let seconds = silence.as_secs();
                match alive {
                    true => tracing::warn!("all shards turn again"),
                    false => {
                        tracing::error!(seconds, "a shard does not turn: no sign of life for the kernel")
                    }
                }
            }
            before = alive;
            alive
        }
    }
}
