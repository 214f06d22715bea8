//! What is known of every chain: how far it came, its head's hash, who may sign.
//!
//! Made from the log at start (the newest snapshot, then what follows it). Holds no record; where it needs
//! an older one it asks the log.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use bytes::Bytes;
use verbatim_api::chain::{ChainId, Hash, link};

use super::{
    chain::Chain,
    follow::{Follower, Step},
    frame::SEGMENT_HEADER,
    header::{BatchHeader, ChainState, Snapshot},
    places::{Places, Run},
    view::LogView,
};
use crate::store::StoreError;

/// A batch of a chain that is here already.
#[derive(Debug)]
pub(super) struct Old {
    /// Sequence of its first entry.
    pub(super) first: u64,
    /// h before the first entry, where it was known.
    pub(super) previous: Option<Hash>,
    pub(super) envelopes: Vec<Bytes>,
}

/// What a look at an [`Old`] batch was good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// It has something that was looked for and not seen yet.
    New,
    /// It has nothing of the kind.
    Nothing,
    /// All that was looked for is found.
    Enough,
}

/// Runs that are read in vain before looking back is given up. An honest chain's runs follow one another: a few
/// at most have nothing of what they seem to have.
const IN_VAIN: usize = 32;

/// See the module.
#[derive(Debug, Default)]
pub struct Book {
    chains: HashMap<ChainId, Chain>,
    /// States before the group that is being made, to go back to when it cannot be kept.
    before: HashMap<ChainId, Option<Chain>>,
    /// Where the group's batches stand, their frames' offsets from its beginning.
    staged: Vec<(ChainId, Run)>,
    /// The collector's clock as the log last tells it, nanoseconds since 1970.
    wall_nanos: Option<u64>,
    places: RefCell<Places>,
}

impl Book {
    pub(super) fn chain(&self, id: &ChainId) -> Option<&Chain> {
        self.chains.get(id)
    }

    /// The chain's state for a change that can be taken back.
    pub(super) fn change(&mut self, id: &ChainId) -> &mut Chain {
        self.before.entry(*id).or_insert_with(|| self.chains.get(id).cloned());
        self.chains.entry(*id).or_default()
    }

    /// Whether the group that is being made has changed the chain.
    pub(super) fn changed(&self, id: &ChainId) -> bool {
        self.before.contains_key(id)
    }

    /// Where a batch that was staged stands in its group.
    pub(super) fn place(&mut self, id: ChainId, run: Run) {
        self.staged.push((id, run));
    }

    /// Where the group stands: its segment, and how far behind that one's beginning, bytes.
    pub(super) fn settle(&mut self, segment: u64, base: u64, view: &LogView) {
        let places = self.places.get_mut();
        for (id, run) in self.staged.drain(..) {
            places.note(segment, id, Run { offset: base + run.offset, ..run });
        }
        places.forget_before(view.oldest_position());
    }

    /// The group is durable.
    pub(super) fn keep(&mut self) {
        self.before.clear();
    }

    /// The group is not.
    pub(super) fn take_back(&mut self) {
        self.staged.clear();
        for (id, chain) in self.before.drain() {
            match chain {
                Some(chain) => self.chains.insert(id, chain),
                None => self.chains.remove(&id),
            };
        }
    }

    /// For the log: what was known before the group that is being made, and of the segment before.
    #[must_use]
    pub(super) fn snapshot_before(&self, next_position: u64, segment: Option<u64>) -> Snapshot {
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
            begun: chain.begun,
            node: chain.node.clone().unwrap_or_default(),
            closed: chain.closed,
            succeeded_by: chain.succeeded_by.map(Vec::from).unwrap_or_default(),
        };
        let mut chains: Vec<_> = untouched.chain(touched).map(state).collect();
        chains.sort_by(|a, b| a.id.cmp(&b.id));
        let held = segment.map(|segment| self.places.borrow().held(segment)).unwrap_or_default();
        Snapshot { next_position, chains, wall_nanos: super::wall_nanos(), held, held_segment: segment }
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
                begun: state.begun,
                node: Some(state.node.clone()).filter(|node| !node.is_empty()),
                closed: state.closed,
                succeeded_by: state.succeeded_by.as_slice().try_into().ok(),
            };
            Some((id, chain))
        };
        Self {
            chains: snapshot.chains.iter().filter_map(chain).collect(),
            wall_nanos: Some(snapshot.wall_nanos),
            ..Self::default()
        }
    }

    /// The collector's clock at the end of the log that the book was read from, nanoseconds since 1970.
    pub(super) fn wall_nanos(&self) -> Option<u64> {
        self.wall_nanos
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
            match &step {
                Step::Batch { header, .. } => book.wall_nanos = Some(header.received_wall_nanos),
                Step::Event(_, event) => book.wall_nanos = Some(event.wall_nanos),
                Step::Damage { .. } => {}
            }
            if let Step::Batch { header, records } = &step
                && let Some(first) = records.first()
            {
                let at = (first.location.position, follower.frame());
                book.replay(header, at, &records.iter().map(|r| &r.envelope).collect::<Vec<_>>());
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
    fn replay(
        &mut self,
        header: &BatchHeader,
        (position, (segment, offset)): (u64, (u64, u64)),
        envelopes: &[&Bytes],
    ) {
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
        let low = header.first_sequence;
        let run = Run { low, end: low.saturating_add(count), position, last: position, offset };
        let key = head.and_then(|h| h.public_key.as_slice().try_into().ok());
        if !header.node.is_empty() && effects.node.is_none() {
            effects.node = Some(header.node.clone());
        }
        self.succeed(&effects);
        self.change(&id).take(&run, hash, &effects, header.basis(), key);
        self.places.get_mut().note(segment, id, run);
    }

    /// A chain names its predecessor, of the same node: no other key may sign for that one from now on.
    pub(super) fn succeed(&mut self, effects: &super::stage::Effects) {
        if let Some((predecessor, key)) = effects.succeeds
            && self.chains.get(&predecessor).is_some_and(|chain| chain.node == effects.node)
        {
            self.change(&predecessor).succeeded_by.get_or_insert(key);
        }
    }

    /// Shows a chain's batches that overlap [first, last], those of newer segments first, until it is told that
    /// it is enough. `false`: the chain is so scattered that it was given up.
    pub(super) fn look_back(
        &self,
        id: &ChainId,
        (first, last): (u64, u64),
        view: &Arc<LogView>,
        mut see: impl FnMut(Old) -> Look,
    ) -> Result<bool, StoreError> {
        let Some(chain) = self.chains.get(id) else { return Ok(true) };
        let (mut in_vain, mut behind) = (0, u64::MAX);
        for segment in view.segments().iter().rev().map(|s| s.first_position) {
            if std::mem::replace(&mut behind, segment) <= chain.begun {
                break;
            }
            let overlapping = self.places.borrow_mut().runs(segment, id, (first, last), view)?;
            in_vain += usize::from(overlapping.in_vain);
            for run in overlapping.runs {
                if in_vain >= IN_VAIN {
                    return Ok(false);
                }
                in_vain += 1;
                let mut new = false;
                let from = Some((run.position, run.offset));
                let mut follower = Follower::envelopes(Arc::clone(view), segment, from);
                while follower.position() <= run.last
                    && let Some(step) = follower.step()?
                {
                    let Step::Batch { header, records } = step else { continue };
                    let end = header.first_sequence.saturating_add(records.len() as u64);
                    if header.chain_id != id || header.first_sequence > last || end <= first {
                        continue;
                    }
                    let old = Old {
                        first: header.first_sequence,
                        previous: header.previous_hash.as_slice().try_into().ok(),
                        envelopes: records.into_iter().map(|r| r.envelope).collect(),
                    };
                    match see(old) {
                        Look::New => new = true,
                        Look::Nothing => {}
                        Look::Enough => return Ok(true),
                    }
                }
                in_vain -= usize::from(new);
            }
        }
        Ok(true)
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
        let mut found = None;
        self.look_back(id, (sequence, sequence), view, |old| {
            let Some(previous) = old.previous else { return Look::Nothing };
            let upto = usize::try_from(sequence - old.first).unwrap_or(usize::MAX);
            found =
                Some(old.envelopes.iter().take(upto.saturating_add(1)).fold(previous, |h, e| link(&h, e)));
            Look::Enough
        })?;
        Ok(found)
    }
}

/// The snapshot that a segment begins with, where it does.
pub(super) fn snapshot_of(view: &LogView, segment: u64) -> Result<Option<Snapshot>, StoreError> {
    use prost::Message as _;

    use super::{frame::FrameKind, frame::Part, view::Frames};
    match Frames::new(Part::Envelopes).at(&**view.store(), segment, SEGMENT_HEADER)? {
        Some(Ok(frame)) if frame.head.kind == FrameKind::Snapshot => Ok(Snapshot::decode(frame.meta).ok()),
        _ => Ok(None),
    }
}
