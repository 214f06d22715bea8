//! Counters of the shards: plain atomics, one set a shard, added up when somebody asks.

mod ended;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use verbatim_api::v1::OpaqueReason;
use verbatim_sys::clock;

pub(crate) use ended::Ended;
pub use ended::{EndedAlike, EndedBy};

/// Number of values of [`OpaqueReason`], from 0 without a hole.
const REASONS: usize = 32;

/// Connections that passed undecoded, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SplicedBy([u64; REASONS]);

impl SplicedBy {
    /// How many for this reason.
    #[must_use]
    pub fn get(&self, reason: OpaqueReason) -> u64 {
        usize::try_from(i32::from(reason)).ok().and_then(|at| self.0.get(at)).copied().unwrap_or(0)
    }

    /// All reasons with a count.
    pub fn iter(&self) -> impl Iterator<Item = (OpaqueReason, u64)> {
        self.0.iter().enumerate().filter_map(|(at, count)| {
            let reason = OpaqueReason::try_from(i32::try_from(at).ok()?).ok()?;
            (*count > 0).then_some((reason, *count))
        })
    }
}

/// A snapshot of all shards' counters since they were started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections that are open now.
    pub open: u64,
    /// Upstream connections made.
    pub dialled: u64,
    /// Upstream connections refused or timed out.
    pub dial_failed: u64,
    /// Accepted sockets without a flow, closed unread.
    pub no_flow: u64,
    /// Commands recorded as started.
    pub commands: u64,
    /// Commands refused by policy.
    pub denied: u64,
    /// Commands held for a person.
    pub held: u64,
    /// Connections that passed undecoded, wholly or from some point on.
    pub spliced: SplicedBy,
    /// Connection tasks that panicked.
    pub panics: u64,
    /// Records that could not be written for want of room before the drain's deadline; the successor
    /// writes them.
    pub unwritten: u64,
    /// Bytes forwarded to servers on connections that have ended.
    pub bytes_sent: u64,
    /// Bytes forwarded to workloads, the same.
    pub bytes_received: u64,
    /// Connections that have ended, by what their last record says.
    pub ended: EndedBy,
}

/// One shard's counters. Written by its thread only.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) accepted: AtomicU64,
    pub(crate) ended: AtomicU64,
    pub(crate) dialled: AtomicU64,
    pub(crate) dial_failed: AtomicU64,
    pub(crate) no_flow: AtomicU64,
    pub(crate) commands: AtomicU64,
    pub(crate) denied: AtomicU64,
    pub(crate) held: AtomicU64,
    pub(crate) spliced: [AtomicU64; REASONS],
    pub(crate) panics: AtomicU64,
    pub(crate) unwritten: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) ended_by: Ended,
    /// CLOCK_MONOTONIC of the last sign of life, nanoseconds.
    pulse: AtomicU64,
}

/// Adds to a counter that has one writer: a load and a store, no locked instruction.
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn alive(&self) {
        self.pulse.store(clock::monotonic_nanos(), Ordering::Relaxed);
    }

    /// Since the last sign of life.
    pub(crate) fn silence(&self) -> Duration {
        let last = self.pulse.load(Ordering::Relaxed);
        Duration::from_nanos(clock::monotonic_nanos().saturating_sub(last))
    }

    pub(crate) fn spliced(&self, reason: OpaqueReason) {
        if let Some(counter) = usize::try_from(i32::from(reason)).ok().and_then(|at| self.spliced.get(at)) {
            add(counter, 1);
        }
    }

    pub(crate) fn add_to(&self, stats: &mut Stats) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // Ended first: otherwise a connection that comes and goes in between makes `open` wrap.
        let ended = read(&self.ended);
        let accepted = read(&self.accepted);
        stats.accepted += accepted;
        stats.open += accepted.saturating_sub(ended);
        stats.dialled += read(&self.dialled);
        stats.dial_failed += read(&self.dial_failed);
        stats.no_flow += read(&self.no_flow);
        stats.commands += read(&self.commands);
        stats.denied += read(&self.denied);
        stats.held += read(&self.held);
        stats.panics += read(&self.panics);
        stats.unwritten += read(&self.unwritten);
        stats.bytes_sent += read(&self.bytes_sent);
        stats.bytes_received += read(&self.bytes_received);
        self.ended_by.add_to(&mut stats.ended);
        for (sum, counter) in stats.spliced.0.iter_mut().zip(&self.spliced) {
            *sum += read(counter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_opaque_reason_has_a_counter() {
        let last = (0..1000).take_while(|&at| OpaqueReason::try_from(at).is_ok()).count();
        assert!(last <= REASONS, "{last} reasons, {REASONS} counters");
        let counters = Counters::default();
        counters.spliced(OpaqueReason::ServerFirst);
        let mut stats = Stats::default();
        counters.add_to(&mut stats);
        assert_eq!(stats.spliced.get(OpaqueReason::ServerFirst), 1);
        assert_eq!(stats.spliced.iter().collect::<Vec<_>>(), [(OpaqueReason::ServerFirst, 1)]);
    }
}
