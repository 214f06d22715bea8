//! Counters of the shards: plain atomics, one set a shard, added up when somebody asks.

mod ended;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use verbatim_api::v1::{BehalfKind, CredentialMatch, OpaqueReason};
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

/// Number of values of [`CredentialMatch`] and of [`BehalfKind`], from 0 without a hole.
const PROOFS: usize = 4;

/// Commands by what speaks for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProvenBy {
    credentials: [u64; PROOFS],
    behalf: [u64; PROOFS],
}

impl ProvenBy {
    /// Whose credentials they were sent with; those without any are left out.
    pub fn credentials(&self) -> impl Iterator<Item = (CredentialMatch, u64)> {
        counted(self.credentials, |value| CredentialMatch::try_from(value).ok())
    }

    /// How well it is known on whose behalf; those of which nothing is known are left out.
    pub fn behalf(&self) -> impl Iterator<Item = (BehalfKind, u64)> {
        counted(self.behalf, |value| BehalfKind::try_from(value).ok())
    }
}

fn counted<T>(counts: [u64; PROOFS], value: fn(i32) -> Option<T>) -> impl Iterator<Item = (T, u64)> {
    let values = counts.into_iter().enumerate().skip(1);
    values.filter_map(move |(at, count)| Some((value(i32::try_from(at).ok()?)?, count)))
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
    /// Commands by what speaks for them.
    pub proven: ProvenBy,
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
    credentials: [AtomicU64; PROOFS],
    behalf: [AtomicU64; PROOFS],
    pub(crate) spliced: [AtomicU64; REASONS],
    pub(crate) panics: AtomicU64,
    pub(crate) unwritten: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) ended_by: Ended,
    /// CLOCK_MONOTONIC of the last sign of life, nanoseconds.
    pulse: AtomicU64,
    /// How often a connection was looked at.
    turns: AtomicU64,
    /// The same when somebody last asked for signs of life; written by whoever asks.
    turns_seen: AtomicU64,
}

/// Adds to a counter that has one writer: a load and a store, no locked instruction.
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn alive(&self) {
        self.pulse.store(clock::monotonic_nanos(), Ordering::Relaxed);
    }

    /// A connection is looked at: a sign of life that costs no look at the clock. A shard with so much to do that
    /// its timer waits for a second is slow, not dead.
    pub(crate) fn turn(&self) {
        add(&self.turns, 1);
    }

    /// Since the last sign of life.
    pub(crate) fn silence(&self) -> Duration {
        let turns = self.turns.load(Ordering::Relaxed);
        if self.turns_seen.swap(turns, Ordering::Relaxed) != turns {
            // Some time since the last question; to the asker it is now.
            self.alive();
        }
        let last = self.pulse.load(Ordering::Relaxed);
        Duration::from_nanos(clock::monotonic_nanos().saturating_sub(last))
    }

    pub(crate) fn spliced(&self, reason: OpaqueReason) {
        if let Some(counter) = usize::try_from(i32::from(reason)).ok().and_then(|at| self.spliced.get(at)) {
            add(counter, 1);
        }
    }

    /// A command was recorded, with this to speak for it.
    pub(crate) fn proven(&self, credential: CredentialMatch, behalf: BehalfKind) {
        let place = |value: i32| usize::try_from(value).unwrap_or_default();
        if let Some(counter) = self.credentials.get(place(credential.into())) {
            add(counter, 1);
        }
        if let Some(counter) = self.behalf.get(place(behalf.into())) {
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
        for (sums, counters) in
            [(&mut stats.proven.credentials, &self.credentials), (&mut stats.proven.behalf, &self.behalf)]
        {
            for (sum, counter) in sums.iter_mut().zip(counters) {
                *sum += read(counter);
            }
        }
        for (sum, counter) in stats.spliced.0.iter_mut().zip(&self.spliced) {
            *sum += read(counter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_proof_has_a_counter() {
        assert!(
            CredentialMatch::try_from(PROOFS as i32).is_err() && BehalfKind::try_from(PROOFS as i32).is_err()
        );
        let counters = Counters::default();
        counters.proven(CredentialMatch::No, BehalfKind::Unspecified);
        counters.proven(CredentialMatch::Unspecified, BehalfKind::Verified);
        let mut stats = Stats::default();
        counters.add_to(&mut stats);
        let credentials: Vec<_> = stats.proven.credentials().filter(|(_, count)| *count > 0).collect();
        assert_eq!(credentials, [(CredentialMatch::No, 1)]);
        let behalf: Vec<_> = stats.proven.behalf().filter(|(_, count)| *count > 0).collect();
        assert_eq!(behalf, [(BehalfKind::Verified, 1)]);
    }

    #[test]
    fn a_shard_that_is_late_with_everything_else_and_carries_connections_is_not_silent() {
        let counters = Counters::default();
        // Never heard of, since the machine was started.
        let silent = counters.silence();
        assert!(silent > Duration::from_secs(1), "{silent:?}");
        counters.turn();
        assert!(counters.silence() < silent / 2);
        let since = counters.silence();
        std::thread::sleep(Duration::from_millis(20));
        assert!(counters.silence() > since, "once heard of, it does not live for ever");
    }

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
