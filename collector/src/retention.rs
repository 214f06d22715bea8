//! Which segments are too old or too many. Decides and writes it into the log; whoever reads the log carries
//! it out.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

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
    let mut calendar = Calendar::new(Instant::now(), log.ended_wall_nanos());
    loop {
        tokio::select! {
            _ = draining.wait_for(|d| *d) => return,
            _ = look.tick() => {}
        }
        let now = calendar.now(Instant::now(), wall_nanos());
        if let Err(e) = once(&log, &retention, now).await {
            tracing::error!(error = e, "retention failed");
        }
    }
}

/// How far the wall clock may be ahead of a clock that only counts: more is a clock that somebody has set.
const JUMP: Duration = Duration::from_secs(3600);
/// How long a clock that was set forward is not believed: whoever has set it wrongly has a day to notice.
const DOUBT: Duration = Duration::from_secs(24 * 3600);

/// What time it is for what is deleted by its age. A wall clock that is set forward by mistake must not have everything
/// deleted at once.
#[derive(Debug, Default)]
struct Calendar {
    /// A moment, and the wall clock that was believed then, nanoseconds.
    believed: Option<(Instant, u64)>,
    /// Since when the wall clock has been too far ahead.
    doubted: Option<Instant>,
}

impl Calendar {
    /// Begins with what the clock was when the log was last written to: a clock that was set while nobody looked, or
    /// is wrong since the machine's start, is no better than one that is set later.
    fn new(at: Instant, ended_wall_nanos: Option<u64>) -> Self {
        Self { believed: ended_wall_nanos.map(|wall| (at, wall)), doubted: None }
    }

    /// The wall clock, or what it would show if it had not been set forward.
    fn now(&mut self, at: Instant, wall_nanos: u64) -> u64 {
        let Some((since, believed)) = self.believed else {
            self.believed = Some((at, wall_nanos));
            return wall_nanos;
        };
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let counted = believed.saturating_add(nanos(at.saturating_duration_since(since)));
        let ahead = wall_nanos.saturating_sub(counted);
        if ahead > nanos(JUMP) {
            let doubted = *self.doubted.get_or_insert_with(|| {
                let seconds = Duration::from_nanos(ahead).as_secs();
                tracing::error!(
                    seconds,
                    "the clock was set forward, or the collector was away as long: nothing is deleted for its age by it \
                     for a day"
                );
                at
            });
            if at.saturating_duration_since(doubted) < DOUBT {
                return counted;
            }
        }
        self.doubted = None;
        self.believed = Some((at, wall_nanos));
        wall_nanos
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

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000_000_000;

    #[test]
    fn a_clock_that_is_set_forward_is_not_believed_for_a_day() {
        let mut calendar = Calendar::default();
        let begin = Instant::now();
        let after = |hours: u64| begin + Duration::from_nanos(hours * HOUR);
        let year = 365 * 24 * HOUR;
        assert_eq!(calendar.now(after(0), 1000 * HOUR), 1000 * HOUR);
        // It goes a little faster, which clocks do.
        assert_eq!(calendar.now(after(1), 1001 * HOUR + 1), 1001 * HOUR + 1);
        assert_eq!(calendar.now(after(2), 1002 * HOUR + year), 1002 * HOUR + 1);
        assert_eq!(calendar.now(after(20), 1020 * HOUR + year), 1020 * HOUR + 1);
        assert_eq!(calendar.now(after(26), 1026 * HOUR + year), 1026 * HOUR + year);
        assert_eq!(calendar.now(after(27), 1027 * HOUR + year), 1027 * HOUR + year);
    }

    #[test]
    fn a_clock_that_was_set_forward_and_back_has_done_nothing() {
        let mut calendar = Calendar::default();
        let begin = Instant::now();
        let after = |hours: u64| begin + Duration::from_nanos(hours * HOUR);
        calendar.now(after(0), 1000 * HOUR);
        assert_eq!(calendar.now(after(1), 9000 * HOUR), 1001 * HOUR);
        assert_eq!(calendar.now(after(2), 1002 * HOUR), 1002 * HOUR);
        // A day later there is nothing left of the doubt.
        assert_eq!(calendar.now(after(30), 9000 * HOUR), 1030 * HOUR);
    }

    #[test]
    fn a_clock_that_is_ahead_of_the_log_at_the_start_is_not_believed_for_a_day() {
        let begin = Instant::now();
        let after = |hours: u64| begin + Duration::from_nanos(hours * HOUR);
        let mut calendar = Calendar::new(begin, Some(1000 * HOUR));
        assert_eq!(calendar.now(after(0), 9000 * HOUR), 1000 * HOUR);
        assert_eq!(calendar.now(after(20), 9020 * HOUR), 1020 * HOUR);
        assert_eq!(calendar.now(after(25), 9025 * HOUR), 9025 * HOUR);
        let mut right = Calendar::new(begin, Some(1000 * HOUR));
        assert_eq!(right.now(after(0), 1001 * HOUR), 1001 * HOUR);
        let mut new = Calendar::new(begin, None);
        assert_eq!(new.now(after(0), 9000 * HOUR), 9000 * HOUR);
    }

    #[test]
    fn a_clock_that_goes_back_is_believed_and_deletes_less() {
        let mut calendar = Calendar::default();
        let begin = Instant::now();
        calendar.now(begin, 1000 * HOUR);
        assert_eq!(calendar.now(begin + Duration::from_secs(60), 10 * HOUR), 10 * HOUR);
    }
}
