//! Ends connections that came past connect(), where their workload's selector says so.

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};
use verbatim_steer::{SteerError, Steering, Stray};

/// Between two looks at what the kernel has found.
const LOOK: Duration = Duration::from_millis(500);

/// Whether connections of a cgroup that were there before are ended.
pub(crate) type Resets = Arc<dyn Fn(u64) -> bool + Send + Sync>;

/// Looks and ends as long as it runs. What was found is reported and counted by the kernel; how many were ended is a
/// counter as well.
pub(crate) async fn end(steering: Arc<Steering>, resets: Resets) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let strays = match steering.take_strays() {
            Ok(strays) => strays,
            // A successor looks after them.
            Err(SteerError::HandedOver { .. }) => continue,
            Err(error) => {
                tracing::error!(%error, "connections that were there before stay");
                continue;
            }
        };
        for stray in strays.iter().filter(|stray| resets(stray.cgroup_id)) {
            end_one(&steering, stray);
        }
    }
}

fn end_one(steering: &Steering, stray: &Stray) {
    let Stray { cgroup_id, remote, .. } = *stray;
    match steering.end_stray(stray) {
        Ok(true) => tracing::warn!(cgroup_id, %remote, "ended a connection that was not steered"),
        Ok(false) => tracing::debug!(cgroup_id, %remote, "a connection that was not steered is gone"),
        Err(error) => tracing::error!(%error, cgroup_id, %remote, "a connection that was not steered stays"),
    }
}
