//! How much of the machine the collector beside a run gets while the command runs.

use std::{convert::Infallible, time::Duration};

use super::collector::Collector;
use crate::worker::Vitals;

/// Between two looks at the spool.
const LOOK: Duration = Duration::from_millis(500);
/// The part of the spool that may wait before the collector has to keep up: one in so many.
const PART: u64 = 4;

/// Holds the collector back for as long as the spool has room for what waits. Past that it gets its share, so that a
/// machine that is never idle slows the command down no more than it would have without this. Never ends.
pub(super) async fn hold_back(collector: &Collector, vitals: &Vitals) -> Infallible {
    let mut keeps_up = None;
    loop {
        let full = vitals.spool.used_bytes() >= vitals.spool.limit_bytes() / PART;
        if keeps_up.replace(full) != Some(full) {
            if full {
                collector.catch_up();
            } else {
                collector.step_back();
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}
