//! Which segments are too old or too many. Decides and writes it into the log; whoever reads the log carries
//! it out.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{
    config::{Limit, Retention},
    log::{Follower, Log, LogView, Step, header::EventKind, header::Expiry, wall_nanos},
    store::{SegmentInfo, StoreError},
};

/// Looks at the log every now and then until `draining` is set.
pub async fn run(log: Log, retention: Retention, mut draining: watch::Receiver<bool>) {
    let mut look = tokio::time::interval(retention.interval.0);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = draining.wait_for(|d| *d) => return,
            _ = look.tick() => {}
        }
        if let Err(e) = once(&log, &retention, wall_nanos()).await {
            tracing::error!(error = e, "retention failed");
        }
    }
}

/// One look, at the given time.
pub async fn once(log: &Log, retention: &Retention, now_wall_nanos: u64) -> Result<(), String> {
    for (limit, contents_only) in [(&retention.envelopes, false), (&retention.contents, true)] {
        let view = Arc::clone(log.view());
        let limit = limit.clone();
        let chosen =
            tokio::task::spawn_blocking(move || choose(&view, &limit, contents_only, now_wall_nanos));
        let expiry = chosen.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        if !expiry.segments.is_empty() {
            tracing::info!(
                segments = expiry.segments.len(),
                bytes = expiry.bytes,
                rule = expiry.rule,
                "expiring"
            );
            log.event(EventKind::Expiry(expiry)).await.map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}

/// Oldest segments first, whole and sealed ones only; never the last one, whose end is not known.
fn choose(
    view: &Arc<LogView>,
    limit: &Limit,
    contents_only: bool,
    now_wall_nanos: u64,
) -> Result<Expiry, StoreError> {
    let bytes = |s: &SegmentInfo| {
        if contents_only { s.content_bytes } else { s.envelope_bytes + s.content_bytes }
    };
    let segments = view.segments();
    let mut total: u64 = segments.iter().map(bytes).sum();
    let mut expiry = Expiry { contents_only, ..Expiry::default() };
    let what = if contents_only { "contents" } else { "envelopes" };
    for pair in segments.windows(2) {
        let segment = &pair[0];
        if !segment.sealed {
            break;
        }
        if bytes(segment) == 0 {
            continue;
        }
        let too_many = limit.max_size.is_some_and(|max| total > max.0);
        let too_old = match limit.max_age {
            // What comes first in the next segment came after everything in this one.
            Some(max) if !too_many => {
                let ended = first_wall(view, pair[1].first_position)?;
                ended.is_some_and(|e| Duration::from_nanos(now_wall_nanos.saturating_sub(e)) > max.0)
            }
            _ => false,
        };
        if !too_many && !too_old {
            break;
        }
        let rule = if too_many { "maxSize" } else { "maxAge" };
        if !expiry.rule.contains(rule) {
            let join = if expiry.rule.is_empty() { "" } else { ", " };
            expiry.rule.push_str(&format!("{join}{what}.{rule}"));
        }
        total -= bytes(segment);
        expiry.bytes += bytes(segment);
        expiry.segments.push(segment.first_position);
    }
    Ok(expiry)
}

/// The collector's clock at a segment's first batch or event.
fn first_wall(view: &Arc<LogView>, segment: u64) -> Result<Option<u64>, StoreError> {
    let mut follower = Follower::new(Arc::clone(view), segment);
    Ok(match follower.step()? {
        Some(Step::Batch { header, .. }) => Some(header.received_wall_nanos),
        Some(Step::Event(_, event)) => Some(event.wall_nanos),
        _ => None,
    })
}
