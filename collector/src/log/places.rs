//! Where chains' batches stand in the log, roughly: for each segment a few runs of each chain's batches.
//!
//! A node that repeats something old, whatever it is and how often, costs a run of one segment for each
//! segment that it stands in, never the log. What is known of a segment stands at the beginning of the next
//! one; where it does not, the segment is read once.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use verbatim_api::chain::ChainId;

use super::{
    follow::{Follower, Step},
    header::{Held, Snapshot},
    view::LogView,
};
use crate::store::StoreError;

/// Runs of a chain in a segment: one is at most about an eighth of what a busy chain has there. 40 bytes
/// each; less than 1 MiB for a hundred chains and ten segments.
const RUNS: usize = 16;
/// Newest segments of which all runs are in memory. Of older ones each chain has one there, and the others are read
/// when it is wanted: 0.01 % of the log for a hundred chains and segments of 64 MiB.
const WHOLE: usize = 64;

/// Consecutive batches of a chain within a segment, others between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Lowest sequence.
    pub(super) low: u64,
    /// Behind the highest sequence.
    pub(super) end: u64,
    /// Position of the first batch.
    pub(super) position: u64,
    /// Position of the last batch.
    pub(super) last: u64,
    /// Offset of the first batch's frame in the envelopes' part, bytes.
    pub(super) offset: u64,
}

type Runs = HashMap<ChainId, Vec<Run>>;

/// What is known of a segment.
#[derive(Debug)]
enum Known {
    /// All runs.
    Whole(Runs),
    /// From the first to the last of each chain, as one.
    Short(HashMap<ChainId, Run>),
}

/// Answer of [`Places::runs`].
#[derive(Debug, Default)]
pub(super) struct Overlapping {
    /// Newest first.
    pub(super) runs: Vec<Run>,
    /// There seemed to be some, and there are none.
    pub(super) in_vain: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// By the segment's first position. Each that is here is here from its beginning.
    segments: BTreeMap<u64, Known>,
}

impl Places {
    /// A segment has one more batch at its end.
    pub(super) fn note(&mut self, segment: u64, chain: ChainId, run: Run) {
        let new = !self.segments.contains_key(&segment);
        match self.segments.entry(segment).or_insert_with(|| Known::Whole(Runs::new())) {
            Known::Whole(runs) => add(runs, chain, run),
            // Somebody looked back before its first batch.
            known @ Known::Short(_) => {
                let mut runs = Runs::new();
                if let Known::Short(short) = known {
                    runs.extend(short.iter().map(|(chain, run)| (*chain, vec![*run])));
                }
                add(&mut runs, chain, run);
                *known = Known::Whole(runs);
            }
        }
        if new {
            self.shorten();
        }
    }

    fn shorten(&mut self) {
        for known in self.segments.values_mut().rev().skip(WHOLE) {
            match known {
                Known::Whole(runs) => *known = Known::Short(short(runs)),
                // What is older was shortened before.
                Known::Short(_) => break,
            }
        }
    }

    /// Forgets segments that retention has removed.
    pub(super) fn forget_before(&mut self, oldest: u64) {
        if self.segments.first_key_value().is_some_and(|(first, _)| *first < oldest) {
            self.segments = self.segments.split_off(&oldest);
        }
    }

    /// A chain's runs in a segment that overlap [first, last], newest first.
    pub(super) fn runs(
        &mut self,
        segment: u64,
        chain: &ChainId,
        (first, last): (u64, u64),
        view: &Arc<LogView>,
    ) -> Result<Overlapping, StoreError> {
        let overlaps = |run: &&Run| run.low <= last && run.end > first;
        let found = |runs: &Runs| -> Vec<Run> {
            runs.get(chain).into_iter().flatten().rev().filter(overlaps).copied().collect()
        };
        let runs = match self.segments.get(&segment) {
            Some(Known::Whole(runs)) => found(runs),
            Some(Known::Short(short)) if !short.get(chain).is_some_and(|run| overlaps(&run)) => Vec::new(),
            Some(Known::Short(_)) => {
                let runs = found(&load(segment, view)?);
                return Ok(Overlapping { in_vain: runs.is_empty(), runs });
            }
            None => {
                let loaded = load(segment, view)?;
                self.segments.insert(segment, Known::Short(short(&loaded)));
                found(&loaded)
            }
        };
        Ok(Overlapping { runs, in_vain: false })
    }

    /// What is known of a segment, for the one behind it.
    pub(super) fn held(&self, segment: u64) -> Vec<Held> {
        let held = |(chain, runs): (&ChainId, &Vec<Run>)| Held {
            chain: chain.to_vec(),
            runs: runs.iter().flat_map(|r| [r.low, r.end, r.position, r.last, r.offset]).collect(),
        };
        match self.segments.get(&segment) {
            Some(Known::Whole(runs)) => runs.iter().map(held).collect(),
            Some(Known::Short(_)) | None => Vec::new(),
        }
    }
}

fn short(runs: &Runs) -> HashMap<ChainId, Run> {
    let joined = |runs: &Vec<Run>| runs.iter().copied().reduce(join);
    runs.iter().filter_map(|(chain, runs)| Some((*chain, joined(runs)?))).collect()
}

/// Two runs, the earlier one first, and what is between them.
fn join(one: Run, other: Run) -> Run {
    Run { low: one.low.min(other.low), end: one.end.max(other.end), last: other.last, ..one }
}

fn add(runs: &mut Runs, chain: ChainId, run: Run) {
    let runs = runs.entry(chain).or_default();
    runs.push(run);
    if runs.len() > RUNS {
        // The two neighbours that together are the shortest become one, so that none gets much longer than the
        // others.
        let span = |at: &usize| match (runs.get(*at), runs.get(*at + 2)) {
            (Some(one), Some(behind)) => behind.offset.saturating_sub(one.offset),
            _ => u64::MAX,
        };
        if let Some(at) = (0..runs.len() - 2).min_by_key(span) {
            let other = runs.remove(at + 1);
            if let Some(one) = runs.get_mut(at) {
                *one = join(*one, other);
            }
        }
    }
}

fn load(segment: u64, view: &Arc<LogView>) -> Result<Runs, StoreError> {
    if let Some(next) = view.segment_after(segment)
        && let Some(Snapshot { held_segment: Some(of), held, .. }) = super::book::snapshot_of(view, next)?
        && of == segment
    {
        let run = |r: &[u64]| match *r {
            [low, end, position, last, offset] => Some(Run { low, end, position, last, offset }),
            _ => None,
        };
        let runs = |held: &Held| held.runs.chunks(5).filter_map(run).collect();
        return Ok(held
            .iter()
            .filter_map(|h| Some((ChainId::try_from(h.chain.as_slice()).ok()?, runs(h))))
            .collect());
    }
    let mut runs = Runs::new();
    let mut follower = Follower::envelopes(Arc::clone(view), segment, None);
    while let Some(step) = follower.step()? {
        let (at, offset) = follower.frame();
        if at != segment {
            break;
        }
        if let Step::Batch { header, records } = step
            && let Some(position) = records.first().map(|r| r.location.position)
            && let Ok(chain) = ChainId::try_from(header.chain_id.as_slice())
        {
            let end = header.first_sequence.saturating_add(records.len() as u64);
            add(&mut runs, chain, Run { low: header.first_sequence, end, position, last: position, offset });
        }
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_keeps_few_runs_of_a_chain_and_loses_no_batch() {
        let mut places = Places::default();
        let chain = ChainId::default();
        for n in 0..1000 {
            let run = Run { low: n * 10, end: n * 10 + 10, position: n * 20, last: n * 20, offset: n * 100 };
            places.note(7, chain, run);
        }
        let Known::Whole(runs) = &places.segments[&7] else { panic!("it is the newest") };
        let runs = &runs[&chain];
        assert!(runs.len() <= RUNS, "{}", runs.len());
        assert_eq!((runs[0].low, runs[0].offset, runs[runs.len() - 1].last), (0, 0, 999 * 20));
        assert!(runs.windows(2).all(|pair| pair[0].end == pair[1].low && pair[0].last < pair[1].position));
        assert!(runs.iter().all(|run| run.end - run.low <= 10_000 / 4), "{runs:?}");
    }

    #[test]
    fn of_older_segments_a_chain_has_one_run_in_memory_that_says_where_it_may_be() {
        let mut places = Places::default();
        let chain = ChainId::default();
        for n in 0..10 * WHOLE as u64 {
            let run = Run { low: n * 10, end: n * 10 + 5, position: n, last: n, offset: 8 };
            places.note(n / 2 * 2, chain, run);
        }
        let whole = places.segments.values().filter(|known| matches!(known, Known::Whole(_))).count();
        assert_eq!((places.segments.len(), whole), (5 * WHOLE, WHOLE));
        let Known::Short(short) = &places.segments[&0] else { panic!("it is the oldest") };
        assert_eq!(short[&chain], Run { low: 0, end: 15, position: 0, last: 1, offset: 8 });
    }
}
