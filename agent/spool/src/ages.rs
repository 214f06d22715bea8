//! How long entries have waited to be acknowledged: per chain, when its entries were noticed first.

use std::{
    collections::{HashMap, VecDeque},
    sync::Mutex,
};

use verbatim_api::chain::ChainId;

use crate::lock;

/// Entries noticed within this time count as one, from the first of them on.
const TOGETHER_NANOS: u64 = 1_000_000_000;
/// Above this many a chain's are joined in pairs: a collector that is away for days costs precision, not memory.
const MOST: usize = 1024;

/// Entries that wait.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// Sequence behind the last of them.
    end: u64,
    /// CLOCK_BOOTTIME at which the first of them was noticed.
    since_nanos: u64,
}

/// All chains'.
#[derive(Debug, Default)]
pub(crate) struct Ages {
    chains: Mutex<HashMap<ChainId, VecDeque<Waiting>>>,
}

impl Ages {
    /// Entries before `end` are in the chain now.
    pub(crate) fn reached(&self, chain: ChainId, end: u64, now_nanos: u64) {
        let mut chains = lock(&self.chains);
        let waiting = chains.entry(chain).or_default();
        match waiting.back_mut() {
            Some(last) if last.end >= end => {}
            Some(last) if now_nanos.saturating_sub(last.since_nanos) < TOGETHER_NANOS => last.end = end,
            _ => waiting.push_back(Waiting { end, since_nanos: now_nanos }),
        }
        if waiting.len() > MOST {
            join_pairs(waiting);
        }
    }

    /// Entries before `end` were acknowledged.
    pub(crate) fn acknowledged(&self, chain: &ChainId, end: u64) {
        let mut chains = lock(&self.chains);
        let Some(waiting) = chains.get_mut(chain) else { return };
        while waiting.front().is_some_and(|first| first.end <= end) {
            waiting.pop_front();
        }
        if waiting.is_empty() {
            chains.remove(chain);
        }
    }

    /// Since when the oldest entry has waited, CLOCK_BOOTTIME.
    pub(crate) fn oldest_nanos(&self) -> Option<u64> {
        let chains = lock(&self.chains);
        chains.values().filter_map(|waiting| waiting.front()).map(|first| first.since_nanos).min()
    }
}

fn join_pairs(waiting: &mut VecDeque<Waiting>) {
    let mut joined = VecDeque::with_capacity(waiting.len() / 2 + 1);
    while let Some(first) = waiting.pop_front() {
        let end = waiting.pop_front().map_or(first.end, |second| second.end);
        joined.push_back(Waiting { end, ..first });
    }
    *waiting = joined;
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ChainId = [1; 16];
    const B: ChainId = [2; 16];
    const SECOND: u64 = TOGETHER_NANOS;

    #[test]
    fn the_oldest_of_all_chains_counts_until_it_is_acknowledged() {
        let ages = Ages::default();
        assert_eq!(ages.oldest_nanos(), None);
        ages.reached(A, 5, SECOND);
        ages.reached(B, 1, 3 * SECOND);
        ages.reached(A, 9, 5 * SECOND);
        assert_eq!(ages.oldest_nanos(), Some(SECOND));
        ages.acknowledged(&A, 4);
        assert_eq!(ages.oldest_nanos(), Some(SECOND));
        ages.acknowledged(&A, 5);
        assert_eq!(ages.oldest_nanos(), Some(3 * SECOND));
        ages.acknowledged(&B, 1);
        assert_eq!(ages.oldest_nanos(), Some(5 * SECOND));
        ages.acknowledged(&A, 9);
        assert_eq!(ages.oldest_nanos(), None);
        assert!(lock(&ages.chains).is_empty(), "what is acknowledged costs no memory");
    }

    #[test]
    fn what_comes_together_counts_as_one_and_days_of_waiting_cost_no_memory() {
        let ages = Ages::default();
        for (end, now) in [(1, 0), (2, SECOND / 2), (3, SECOND - 1)] {
            ages.reached(A, end, now);
        }
        assert_eq!(lock(&ages.chains)[&A].len(), 1);
        for n in 1..100_000 {
            ages.reached(A, 3 + n, n * SECOND);
        }
        assert!(lock(&ages.chains)[&A].len() <= MOST);
        assert_eq!(ages.oldest_nanos(), Some(0));
        ages.acknowledged(&A, 100_002);
        assert_eq!(ages.oldest_nanos(), None);
    }
}
