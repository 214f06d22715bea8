//! One chain: how far it came, what of it never came, who may sign.

use std::collections::VecDeque;

use verbatim_api::chain::Hash;

use super::{header::KeyBasis, places::Run, stage::Effects};

/// Missing ranges remembered of a chain, one by one. Of more the two oldest count as one, with what came
/// between them.
const MISSING: usize = 64;

/// What is known of one chain.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    /// Sequence expected next.
    pub(super) next: u64,
    /// h(next − 1), where known.
    pub(super) hash: Option<Hash>,
    /// Keys that may sign.
    pub(super) keys: Vec<[u8; 32]>,
    /// Key of a recovery head.
    pub(super) successor_key: Option<[u8; 32]>,
    /// How far the node's wall clock was ahead of its boot time at the last record, where known.
    pub(super) ahead: Option<i128>,
    /// First and last of ranges that never came, ascending.
    pub(super) missing: VecDeque<(u64, u64)>,
    /// Position of its first batch; 0 where it is not known.
    pub(super) begun: u64,
    /// The node that it is of, as its opening says; where that never came, as the first certificate that names one.
    pub(super) node: Option<String>,
    /// Sequence of its CHAIN_CLOSED.
    pub(super) closed: Option<u64>,
    /// Key of the first chain that names it as its predecessor.
    pub(super) succeeded_by: Option<[u8; 32]>,
}

impl Chain {
    /// A batch is part of the chain from now on.
    pub(super) fn take(
        &mut self,
        run: &Run,
        hash: Option<Hash>,
        effects: &Effects,
        basis: KeyBasis,
        key: Option<[u8; 32]>,
    ) {
        let end = run.end;
        if self.next == 0 {
            self.begun = run.position;
        }
        if run.low > self.next {
            self.missing.push_back((self.next, run.low - 1));
            if self.missing.len() > MISSING
                && let Some((first, _)) = self.missing.pop_front()
                && let Some(second) = self.missing.front_mut()
            {
                second.0 = first;
            }
        } else {
            self.fill(run.low, end - 1);
        }
        if end >= self.next {
            self.next = end;
            self.hash = hash;
        }
        if self.node.is_none() {
            self.node.clone_from(&effects.node);
        }
        self.closed = self.closed.or(effects.closed);
        match (basis, key) {
            (KeyBasis::FirstUse | KeyBasis::FirstUseOfHead, Some(key)) => self.keys.push(key),
            (KeyBasis::Successor, Some(key)) => self.successor_key = Some(key),
            _ => {}
        }
        if matches!(basis, KeyBasis::FirstUse | KeyBasis::Known) {
            self.keys
                .extend(effects.keys.iter().filter(|k| !self.keys.contains(k)).copied().collect::<Vec<_>>());
        }
    }

    /// The last sequence up to which nothing is missing behind `last`, which is here: what a node may be
    /// told to forget when it has sent up to `last`. A hole before that it has passed over itself.
    pub(super) fn whole_from(&self, last: u64) -> u64 {
        let hole = self.missing.iter().map(|(first, _)| *first).find(|first| *first > last);
        hole.unwrap_or(self.next).saturating_sub(1).max(last)
    }

    /// Takes a range out of what is missing.
    fn fill(&mut self, first: u64, last: u64) {
        let cut = |(from, to): (u64, u64)| {
            let before = (from < first).then(|| (from, to.min(first.saturating_sub(1))));
            let after = (to > last).then(|| (from.max(last.saturating_add(1)), to));
            if to < first || from > last { [Some((from, to)), None] } else { [before, after] }
        };
        self.missing = self.missing.drain(..).flat_map(cut).flatten().collect();
    }
}
