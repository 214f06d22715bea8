//! What is known of every chain: how far it came, its head's hash, who may sign.
//!
//! Made from the log at start (the newest snapshot, then what follows it). Holds no record; where it needs
//! an older one it asks the log.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use verbatim_api::chain::{ChainId, Hash, link};

use super::{
    follow::{Follower, Step},
    frame::SEGMENT_HEADER,
    header::{BatchHeader, ChainState, Snapshot},
    view::LogView,
};
use crate::store::StoreError;

/// Stretches of a chain remembered by position; older ones are looked up in the log.
const STRETCHES: usize = 64;
/// Missing ranges remembered of a chain, one by one. Of more the two oldest count as one, with what came
/// between them.
const MISSING: usize = 64;

/// Consecutive entries of a chain that stand at consecutive positions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub(super) first: u64,
    pub(super) count: u64,
    pub(super) position: u64,
    /// h before the first entry, where it was known.
    pub(super) previous: Option<Hash>,
}

impl Stretch {
    pub(super) fn end(&self) -> u64 {
        self.first + self.count
    }
}

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
    stretches: VecDeque<Stretch>,
    /// `stretches` begins with the chain's first entry here, so that nothing need be looked up.
    complete: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Book {
    chains: HashMap<ChainId, Chain>,
    /// States before the group that is being made, to go back to when it cannot be kept.
    before: HashMap<ChainId, Option<Chain>>,
    /// Where reading a chain's older entries left off: a node that repeats itself does so in order.
    readers: RefCell<HashMap<ChainId, Follower>>,
}

/// Chains whose older entries are read at the same time, about 2 MiB each.
const READERS: usize = 16;

impl Book {
    pub(super) fn chain(&self, id: &ChainId) -> Option<&Chain> {
        self.chains.get(id)
    }

    /// The chain's state for a change that can be taken back.
    pub(super) fn change(&mut self, id: &ChainId) -> &mut Chain {
        self.before.entry(*id).or_insert_with(|| self.chains.get(id).cloned());
        self.chains.entry(*id).or_insert_with(|| Chain { complete: true, ..Chain::default() })
    }

    /// Whether the group that is being made has changed the chain.
    pub(super) fn changed(&self, id: &ChainId) -> bool {
        self.before.contains_key(id)
    }

    /// The group is durable.
    pub(super) fn keep(&mut self) {
        self.before.clear();
    }

    /// The group is not.
    pub(super) fn take_back(&mut self) {
        for (id, chain) in self.before.drain() {
            match chain {
                Some(chain) => self.chains.insert(id, chain),
                None => self.chains.remove(&id),
            };
        }
    }

    /// For the log: what was known before the group that is being made.
    #[must_use]
    pub(super) fn snapshot_before(&self, next_position: u64) -> Snapshot {
        let before = |id: &ChainId| self.before.get(id);
        let untouched = self.chains.iter().filter(|(id, _)| before(id).is_none());
        let touched = self.before.iter().filter_map(|(id, chain)| chain.as_ref().map(|c| (id, c)));
        let state = |(id, chain): (&ChainId, &Chain)| ChainState {
            id: id.to_vec(),
            next: chain.next,
            hash: chain.hash.map(Vec::from).unwrap_or_default(),
            keys: chain.keys.iter().map(|k| k.to_vec()).collect(),
            successor_key: chain.successor_key.map(Vec::from).unwrap_or_default(),
            missing: chain.missing.iter().flat_map(|(first, last)| [*first, *last]).collect(),
        };
        let mut chains: Vec<_> = untouched.chain(touched).map(state).collect();
        chains.sort_by(|a, b| a.id.cmp(&b.id));
        Snapshot { next_position, chains, wall_nanos: super::wall_nanos() }
    }

    fn restore(snapshot: &Snapshot) -> Self {
        let chain = |state: &ChainState| {
            let id: ChainId = state.id.as_slice().try_into().ok()?;
            let chain = Chain {
                next: state.next,
                hash: state.hash.as_slice().try_into().ok(),
                keys: state.keys.iter().filter_map(|k| k.as_slice().try_into().ok()).collect(),
                successor_key: state.successor_key.as_slice().try_into().ok(),
                ahead: None,
                missing: state.missing.chunks_exact(2).map(|r| (r[0], r[1])).collect(),
                stretches: VecDeque::new(),
                complete: false,
            };
            Some((id, chain))
        };
        Self { chains: snapshot.chains.iter().filter_map(chain).collect(), ..Self::default() }
    }

    /// The log's end and the book, read back from the log.
    pub fn read(view: &Arc<LogView>) -> Result<(Self, u64), StoreError> {
        let segments = view.segments();
        let newest = segments.iter().rev().find_map(|info| {
            let found = snapshot_of(view, info.first_position);
            found.map(|f| f.map(|snapshot| (info.first_position, snapshot))).transpose()
        });
        let (mut book, from) = match newest.transpose()? {
            Some((_, snapshot)) => (Self::restore(&snapshot), snapshot.next_position),
            None => (Self::default(), segments.first().map_or(0, |s| s.first_position)),
        };
        // Everything in the store was made durable, or survived: the last frame tells where it ends.
        view.advance(u64::MAX);
        let mut follower = Follower::new(Arc::clone(view), from);
        let mut end = from;
        while let Some(step) = follower.step()? {
            if let Step::Batch { header, records } = &step
                && let Some(first) = records.first()
            {
                book.replay(
                    header,
                    first.location.position,
                    &records.iter().map(|r| &r.envelope).collect::<Vec<_>>(),
                );
            }
            if !matches!(step, Step::Damage { .. }) {
                end = follower.position();
            }
        }
        book.keep();
        view.advance(end);
        Ok((book, end))
    }

    /// Repeats what staging the batch did. Works with what the header says, for checks were made before.
    fn replay(&mut self, header: &BatchHeader, position: u64, envelopes: &[&Bytes]) {
        let Ok(id) = ChainId::try_from(header.chain_id.as_slice()) else { return };
        let previous: Option<Hash> = header.previous_hash.as_slice().try_into().ok();
        let count = envelopes.len() as u64;
        let mut hash = previous;
        let mut effects = super::stage::Effects::default();
        for (index, envelope) in envelopes.iter().enumerate() {
            hash = hash.map(|h| link(&h, envelope));
            effects.see(header.first_sequence + index as u64, envelope);
        }
        let head = header.head.as_ref();
        let signed: Option<Hash> =
            head.filter(|_| header.signature_verified).and_then(|h| h.hash.as_slice().try_into().ok());
        let hash = if header.chain_verified { hash } else { signed.or(hash) };
        let stretch = Stretch { first: header.first_sequence, count, position, previous };
        let key = head.and_then(|h| h.public_key.as_slice().try_into().ok());
        self.change(&id).take(stretch, hash, &effects, header.basis(), key);
    }

    /// The stretches of a chain that overlap [first, last], by position.
    pub(super) fn stretches(
        &self,
        id: &ChainId,
        first: u64,
        last: u64,
        view: &Arc<LogView>,
    ) -> Result<Vec<Stretch>, StoreError> {
        let Some(chain) = self.chains.get(id) else { return Ok(Vec::new()) };
        let overlaps = |s: &Stretch| s.first <= last && s.end() > first;
        let remembered = chain.stretches.iter().map(|s| s.first).min();
        if chain.complete || remembered.is_some_and(|oldest| oldest <= first) {
            return Ok(chain.stretches.iter().filter(|s| overlaps(s)).copied().collect());
        }
        // Seldom: a node went far back. The whole log is looked through.
        let mut follower = Follower::new(Arc::clone(view), view.oldest_position());
        let mut found = Vec::new();
        while let Some(step) = follower.step()? {
            if let Step::Batch { header, records } = step
                && header.chain_id == id
                && let Some(record) = records.first()
            {
                found.push(Stretch {
                    first: header.first_sequence,
                    count: records.len() as u64,
                    position: record.location.position,
                    previous: header.previous_hash.as_slice().try_into().ok(),
                });
            }
        }
        Ok(found.into_iter().filter(overlaps).collect())
    }

    /// h(sequence) of a chain, where its entries are here and hang together.
    pub(super) fn hash_at(
        &self,
        id: &ChainId,
        sequence: u64,
        view: &Arc<LogView>,
    ) -> Result<Option<Hash>, StoreError> {
        if let Some(chain) = self.chains.get(id)
            && chain.next == sequence.wrapping_add(1)
        {
            return Ok(chain.hash);
        }
        for stretch in self.stretches(id, sequence, sequence, view)? {
            let Some(mut hash) = stretch.previous else { continue };
            let envelopes = self.envelopes(id, view, &stretch, stretch.first, sequence)?;
            if envelopes.len() as u64 != sequence - stretch.first + 1 {
                continue;
            }
            for (_, envelope) in envelopes {
                hash = link(&hash, &envelope);
            }
            return Ok(Some(hash));
        }
        Ok(None)
    }

    /// Envelopes [first, last] of a stretch of a chain, with their sequences.
    pub(super) fn envelopes(
        &self,
        id: &ChainId,
        view: &Arc<LogView>,
        stretch: &Stretch,
        first: u64,
        last: u64,
    ) -> Result<Vec<(u64, Bytes)>, StoreError> {
        let mut readers = self.readers.borrow_mut();
        if readers.len() >= READERS && !readers.contains_key(id) {
            readers.clear();
        }
        let mut reader = match readers.remove(id) {
            Some(reader) if reader.position() <= stretch.position => reader,
            _ => Follower::new(Arc::clone(view), stretch.position),
        };
        let mut found = Vec::new();
        while reader.position() <= stretch.position
            && let Some(step) = reader.step()?
        {
            if let Step::Batch { records, .. } = step
                && records.first().is_some_and(|r| r.location.position == stretch.position)
            {
                let sequences = stretch.first..stretch.end();
                let wanted = sequences.zip(records).filter(|(s, _)| (first..=last).contains(s));
                found = wanted.map(|(s, r)| (s, r.envelope)).collect();
            }
        }
        readers.insert(*id, reader);
        Ok(found)
    }
}

impl Chain {
    /// A batch is part of the chain from now on.
    pub(super) fn take(
        &mut self,
        stretch: Stretch,
        hash: Option<Hash>,
        effects: &super::stage::Effects,
        basis: super::header::KeyBasis,
        key: Option<[u8; 32]>,
    ) {
        use super::header::KeyBasis;
        let end = stretch.end();
        if stretch.first > self.next {
            self.missing.push_back((self.next, stretch.first - 1));
            if self.missing.len() > MISSING
                && let Some((first, _)) = self.missing.pop_front()
                && let Some(second) = self.missing.front_mut()
            {
                second.0 = first;
            }
        } else {
            self.fill(stretch.first, end - 1);
        }
        if end >= self.next {
            self.next = end;
            self.hash = hash;
        }
        match (basis, key) {
            (KeyBasis::FirstUse | KeyBasis::FirstUseOfHead, Some(key)) => self.keys.push(key),
            (KeyBasis::Successor, Some(key)) => self.successor_key = Some(key),
            _ => {}
        }
        if matches!(basis, KeyBasis::FirstUse | KeyBasis::Known) {
            self.keys
                .extend(effects.keys.iter().filter(|k| !self.keys.contains(k)).copied().collect::<Vec<_>>());
        }
        self.stretches.push_back(stretch);
        if self.stretches.len() > STRETCHES {
            self.stretches.pop_front();
            self.complete = false;
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

/// The snapshot that a segment begins with, where it does.
fn snapshot_of(view: &LogView, segment: u64) -> Result<Option<Snapshot>, StoreError> {
    use prost::Message as _;

    use super::{frame::FrameKind, frame::Part, view::Frames};
    match Frames::new(Part::Envelopes).at(&**view.store(), segment, SEGMENT_HEADER)? {
        Some(Ok(frame)) if frame.head.kind == FrameKind::Snapshot => Ok(Snapshot::decode(frame.meta).ok()),
        _ => Ok(None),
    }
}
