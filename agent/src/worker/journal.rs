//! The worker's own records: heartbeats with counters, and what steering did and did not cover.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use verbatim_api::v1::{self, CoverageEvent, RecordKind, envelope::Detail};
use verbatim_proxy::{Shards, ShardsError, Stats};
use verbatim_spool::{Appended, Draft};
use verbatim_steer::Steering;

/// Between two heartbeat records of a chain.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// A full spool may keep a record of ours waiting for this long, or whoever has left it to its shard.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at what is still open.
const LOOK: Duration = Duration::from_millis(20);

/// A heartbeat record in each chain, as long as it runs.
pub(crate) async fn heartbeats(steering: Arc<Steering>, shards: Arc<Shards>) {
    let mut beats = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        heartbeat(&steering, &shards).await;
    }
}

/// One in each chain.
pub(crate) async fn heartbeat(steering: &Steering, shards: &Shards) {
    let kernel = steering.counters().unwrap_or_else(|error| {
        tracing::error!(%error, "the kernel's counters cannot be read");
        Vec::new()
    });
    let counters: Vec<v1::Counter> = kernel
        .into_iter()
        .chain(relayed(&shards.stats()))
        .map(|(name, value)| v1::Counter { name: name.to_owned(), value })
        .collect();
    for shard in 0..shards.count() {
        let heartbeat = v1::Heartbeat { counters: counters.clone() };
        append(shards, shard, draft(RecordKind::Heartbeat, Detail::Heartbeat(heartbeat), String::new()))
            .await;
    }
}

fn relayed(stats: &Stats) -> [(&'static str, u64); 9] {
    [
        ("proxy_accepted", stats.accepted),
        ("proxy_open", stats.open),
        ("proxy_dialled", stats.dialled),
        ("proxy_dial_failed", stats.dial_failed),
        ("proxy_no_flow", stats.no_flow),
        ("proxy_commands", stats.commands),
        ("proxy_denied", stats.denied),
        ("proxy_held", stats.held),
        ("proxy_panics", stats.panics),
    ]
}

/// Writes one coverage record into the first chain; where there is no room in time, as soon as there is.
pub(crate) async fn coverage(shards: &Shards, event: CoverageEvent, count: u64, note: String) {
    let coverage = v1::Coverage { event: event.into(), count, ..v1::Coverage::default() };
    entrust(shards, draft(RecordKind::Coverage, Detail::Coverage(coverage), note)).await;
}

/// The same with more to say. `false`: it is not in the spool yet.
pub(crate) async fn covered(shards: &Shards, coverage: v1::Coverage, content: Option<v1::Content>) -> bool {
    let draft = draft(RecordKind::Coverage, Detail::Coverage(coverage), String::new());
    entrust(shards, Draft { content, ..draft }).await
}

fn draft(kind: RecordKind, detail: Detail, note: String) -> Draft {
    let envelope = v1::Envelope { kind: kind.into(), detail: Some(detail), ..v1::Envelope::default() };
    let content = (!note.is_empty()).then(|| v1::Content { note, ..v1::Content::default() });
    Draft { envelope, content }
}

/// Writes a record that the next one makes up for, if there is room in time. `false`: it is not written.
pub(super) async fn append(shards: &Shards, shard: usize, draft: Draft) -> bool {
    let kind = draft.envelope.kind();
    match timeout(PATIENCE, shards.append(shard, draft)).await {
        Ok(appended) => written(appended, kind),
        Err(_elapsed) => {
            tracing::warn!(?kind, shard, "no room in the spool for a record of the agent's own: given up");
            false
        }
    }
}

/// Writes a record into the first chain, however long it has to wait for room. `false`: it is not written, and never
/// will be.
pub(super) async fn insist(shards: &Shards, draft: Draft) -> bool {
    let kind = draft.envelope.kind();
    let mut appending = pin!(shards.append(0, draft));
    let appended = match timeout(PATIENCE, appending.as_mut()).await {
        Ok(appended) => appended,
        Err(_elapsed) => {
            tracing::warn!(?kind, "record of the agent's own waits for room in the spool");
            appending.await
        }
    };
    written(appended, kind)
}

/// Leaves a record to the first chain's shard. `false`: it is not written yet.
async fn entrust(shards: &Shards, draft: Draft) -> bool {
    let kind = draft.envelope.kind();
    let appending = match shards.entrust(0, draft).await {
        Ok(appending) => appending,
        Err(error) => return written(Err(error), kind),
    };
    match timeout(PATIENCE, appending).await {
        Ok(appended) => written(appended, kind),
        Err(_elapsed) => {
            tracing::warn!(?kind, "record of the agent's own waits for room in the spool");
            false
        }
    }
}

fn written(appended: Result<Appended, ShardsError>, kind: RecordKind) -> bool {
    appended
        .inspect_err(|error| tracing::error!(%error, ?kind, "record of the agent's own was not written"))
        .is_ok()
}

/// Waits until no connection is open, or the time is over.
pub(crate) async fn settle(shards: &Shards, limit: Duration) {
    let end = Instant::now() + limit;
    while shards.stats().open > 0 && Instant::now() < end {
        sleep(LOOK).await;
    }
}
