//! Ends connections that came past connect(), where their workload's selector says so.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::mpsc::{Sender, error::TrySendError},
    time::{MissedTickBehavior, interval},
};
use verbatim_api::v1::CoverageEvent;
use verbatim_proxy::seam::Identities;
use verbatim_steer::{SteerError, Steering, Stray};
use verbatim_sys::clock;

use super::{
    coverage::of_cgroup,
    report::{KeptBack, Report},
};

/// Between two looks at what the kernel has found.
const LOOK: Duration = Duration::from_millis(500);
/// TCP's IP protocol number.
const TCP: u32 = 6;

/// Whether connections of a cgroup that were there before are ended.
pub(crate) type Resets = Arc<dyn Fn(u64) -> bool + Send + Sync>;

/// Looks and ends as long as it runs. What was found is reported and counted by the kernel; what was ended is reported
/// here, and counted.
pub(crate) async fn end(
    steering: Arc<Steering>,
    resets: Resets,
    identities: Arc<dyn Identities>,
    reports: Sender<Report>,
    kept_back: Arc<KeptBack>,
) {
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
        // Said once, at the start.
        if !steering.can_end_strays() {
            continue;
        }
        for stray in strays.iter().filter(|stray| resets(stray.cgroup_id)) {
            if end_one(&steering, stray) {
                // Ending them does not wait for room in the spool.
                if let Err(TrySendError::Full(report)) = reports.try_send(ended(stray, &*identities)) {
                    kept_back.add(report.count);
                }
            }
        }
    }
}

fn end_one(steering: &Steering, stray: &Stray) -> bool {
    let Stray { cgroup_id, remote, .. } = *stray;
    match steering.end_stray(stray) {
        Ok(true) => {
            tracing::warn!(cgroup_id, %remote, "ended a connection that was not steered");
            return true;
        }
        Ok(false) => tracing::debug!(cgroup_id, %remote, "a connection that was not steered is gone"),
        Err(error) => tracing::error!(%error, cgroup_id, %remote, "a connection that was not steered stays"),
    }
    false
}

fn ended(stray: &Stray, identities: &dyn Identities) -> Report {
    let Stray { cgroup_id, remote, .. } = *stray;
    Report {
        event: CoverageEvent::StrayEnded,
        count: 1,
        cgroup_id,
        identity: identities.identify(&of_cgroup(cgroup_id, remote, clock::monotonic_nanos())),
        pid: None,
        target: Some(remote),
        protocol: TCP,
        note: "ended at both ends: it was connected before it could be steered".to_owned(),
    }
}
