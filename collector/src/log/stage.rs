//! Puts a batch in its place: is it new, a repeat, a gap, a fork; does it hang on what came before; who
//! signed it.
//!
//! Called by the one thread that writes, in the order in which batches will stand in the log.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use verbatim_api::{
    chain::{ChainId, Hash, NO_PREDECESSOR, link, open},
    v1::{self, FindingKind, envelope::Detail},
};

use super::{
    book::{Book, Look, Old},
    handle::CommitError,
    header::{BatchHeader, KeyBasis},
    places::Run,
    prepare::Prepared,
    view::LogView,
};
use crate::store::StoreError;

/// What envelopes change about their chain beside moving its head.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) keys: Vec<[u8; 32]>,
    /// The node that the chain is of.
    pub(super) node: Option<String>,
    /// Sequence of its CHAIN_CLOSED.
    pub(super) closed: Option<u64>,
    /// Its predecessor, and its own key.
    pub(super) succeeds: Option<(ChainId, [u8; 32])>,
}

impl Effects {
    /// Looks into an envelope for what matters to the chain; cheap for those that carry nothing of it.
    pub(super) fn see(&mut self, sequence: u64, envelope: &Bytes) {
        // A KEY or CHAIN_CLOSED record has no workload and no content: anything longer than this is none.
        if envelope.len() > 256 && sequence > 0 {
            return;
        }
        match v1::Envelope::decode(envelope.clone()).ok().and_then(|e| e.detail) {
            Some(Detail::Key(key)) => self.keys.extend(<[u8; 32]>::try_from(key.public_key.as_slice())),
            Some(Detail::ChainClosed(_)) => self.closed = self.closed.or(Some(sequence)),
            Some(Detail::ChainOpened(opened)) if sequence == 0 => self.open(&opened),
            _ => {}
        }
    }

    fn open(&mut self, opened: &v1::ChainOpened) {
        self.node = Some(opened.node.clone()).filter(|node| !node.is_empty());
        let key = opened.public_key.as_slice().try_into().ok();
        self.succeeds = opened.predecessor_chain_id.as_slice().try_into().ok().zip(key);
    }

    fn of(prepared: &Prepared) -> Self {
        let mut effects = Self { closed: prepared.closed, ..Self::default() };
        effects.keys.extend(prepared.keys.iter().filter_map(|k| <[u8; 32]>::try_from(k.as_slice()).ok()));
        if let Some(opened) = &prepared.opened {
            effects.open(opened);
        }
        effects.node = effects.node.or_else(|| prepared.node.clone());
        effects
    }
}

/// Why a batch is not kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// Of another node.
    #[error(transparent)]
    Foreign(CommitError),
    /// The log cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is to become of a batch.
#[derive(Debug)]
pub(super) struct Staged {
    /// Leading entries that are here already.
    pub(super) skip: usize,
    /// Where the rest will stand.
    pub(super) run: Option<Run>,
    /// Beside the batch; `None`: it is a repeat as a whole and is not stored again.
    pub(super) header: Option<BatchHeader>,
    /// For the node, once it is durable.
    pub(super) answer: v1::AppendResponse,
}

/// What a batch's entries are to those of the same sequences that are here.
#[derive(Debug, PartialEq, Eq)]
enum Overlap {
    /// All that are here are the same, and none is missing.
    Same,
    /// Some never came before.
    Fills,
    /// Some are others: first and last.
    Fork(u64, u64),
    /// Nobody can say: what came before was sent in no order, which no node does.
    Scattered,
}

impl Book {
    /// Stages a batch whose first entry that is stored will stand at `position`.
    pub(super) fn stage(
        &mut self,
        prepared: &mut Prepared,
        position: u64,
        view: &Arc<LogView>,
    ) -> Result<Staged, Refused> {
        let id = prepared.chain;
        if let Some(foreign) = self.foreign(prepared) {
            return Err(Refused::Foreign(foreign));
        }
        let (first, last) = (prepared.request.first_sequence, prepared.last());
        let next = self.chain(&id).map(|c| c.next);
        let overlap = match next {
            Some(next) if first < next => Some(self.overlap(prepared, last.min(next - 1), view)?),
            _ => None,
        };
        let mut skip = 0;
        if let (Some(Overlap::Same), Some(next)) = (&overlap, next) {
            if last < next {
                let answer = v1::AppendResponse {
                    chain_id: id.to_vec(),
                    durable_sequence: self.chain(&id).map_or(last, |chain| chain.whole_from(last)),
                    findings: Vec::new(),
                };
                return Ok(Staged { skip: prepared.request.entries.len(), run: None, header: None, answer });
            }
            skip = (next - first) as usize;
        }
        match overlap {
            Some(Overlap::Fork(from, to)) => {
                let detail = "the same sequences came before with other envelopes".to_owned();
                prepared.find(FindingKind::Fork, from, to, detail);
            }
            Some(Overlap::Scattered) => {
                let detail = "what came before is too scattered to be compared with".to_owned();
                prepared.find(FindingKind::Fork, first, last, detail);
            }
            None if first > next.unwrap_or(0) => {
                let detail = format!("expected sequence {}, got {first}", next.unwrap_or(0));
                prepared.find(FindingKind::Gap, next.unwrap_or(0), first - 1, detail);
            }
            _ => {}
        }
        if skip == 0 {
            let ahead = self.chain(&id).and_then(|c| c.ahead);
            prepared.look_at_clock(ahead);
        }
        let previous = self.previous(prepared, first + skip as u64, view)?;
        if next.is_none() {
            self.check_predecessor(prepared, view)?;
        }
        if let Some(closed) = self.chain(&id).and_then(|c| c.closed).or(prepared.closed)
            && last > closed
        {
            let detail = format!("the chain was closed at sequence {closed}");
            prepared.find(FindingKind::AfterClose, first.max(closed + 1), last, detail);
        }
        let basis = self.judge_key(prepared);
        let (hash, chain_verified) = follow_chain(prepared, skip, previous);
        let effects = Effects::of(prepared);
        let low = first + skip as u64;
        // The group's writer says where its frame begins.
        let run = Run { low, end: last + 1, position, last: position, offset: 0 };
        let key = prepared.head.map(|h| h.key);
        self.succeed(&effects);
        let chain = self.change(&id);
        chain.take(&run, hash, &effects, basis, key);
        chain.ahead = prepared.clock.last().map(|reading| reading.ahead).or(chain.ahead);
        let durable_sequence = chain.whole_from(last);
        Ok(Staged {
            skip,
            run: Some(run),
            answer: v1::AppendResponse {
                chain_id: id.to_vec(),
                durable_sequence,
                findings: kinds(&prepared.findings),
            },
            header: Some(BatchHeader {
                received_wall_nanos: prepared.received_wall_nanos,
                peer: std::mem::take(&mut prepared.peer),
                node: prepared.node.take().unwrap_or_default(),
                chain_id: id.to_vec(),
                first_sequence: run.low,
                head: prepared.request.head.take(),
                previous_hash: previous.map(Vec::from).unwrap_or_default(),
                chain_verified,
                signature_verified: prepared.head.is_some_and(|h| h.signed),
                key_basis: basis.into(),
                findings: std::mem::take(&mut prepared.findings),
            }),
        })
    }

    /// Whether the sender's certificate names another node than the chain's.
    fn foreign(&self, prepared: &Prepared) -> Option<CommitError> {
        let peer = prepared.node.as_ref()?;
        let known = self.chain(&prepared.chain).and_then(|chain| chain.node.as_ref());
        let named = prepared.opened.as_ref().map(|opened| &opened.node).filter(|node| !node.is_empty());
        let owner = known.or(named)?;
        (owner != peer).then(|| CommitError::Foreign {
            chain: hex(&prepared.chain),
            owner: owner.clone(),
            peer: peer.clone(),
        })
    }

    /// Compares entries up to `last` with those that are here, byte by byte.
    fn overlap(&self, prepared: &Prepared, last: u64, view: &Arc<LogView>) -> Result<Overlap, StoreError> {
        let first = prepared.request.first_sequence;
        let count = usize::try_from(last - first + 1).unwrap_or(usize::MAX);
        let entries = &prepared.request.entries[..count.min(prepared.request.entries.len())];
        // Of each entry: whether one of its sequence is here, and whether that is the same. After a fork there
        // is more than one; a repeat of any of them is a repeat.
        let mut known: Vec<Option<bool>> = vec![None; entries.len()];
        let mut unseen = entries.len();
        let whole = self.look_back(
            &prepared.chain,
            (first, last),
            view,
            |Old { first: from, envelopes, .. }| {
                let before = unseen;
                for (sequence, envelope) in
                    (from..).zip(envelopes).filter(|(s, _)| (first..=last).contains(s))
                {
                    let at = (sequence - first) as usize;
                    if let (Some(entry), Some(known)) = (entries.get(at), known.get_mut(at)) {
                        unseen -= usize::from(known.is_none());
                        *known = Some(known.unwrap_or(false) || entry.envelope == envelope);
                    }
                }
                if unseen == 0 && known.iter().all(|k| *k == Some(true)) {
                    return Look::Enough;
                }
                if unseen < before { Look::New } else { Look::Nothing }
            },
        )?;
        let mut others = (first..=last).zip(&known).filter(|(_, k)| **k == Some(false)).map(|(s, _)| s);
        let fork = others.next().map(|from| (from, others.last().unwrap_or(from)));
        // Gone by retention, or never came: in the first case a repeat is kept twice, which harms nobody; in
        // neither case is it lost.
        let fills = unseen > 0;
        Ok(match fork {
            Some((from, to)) => Overlap::Fork(from, to),
            None if !whole => Overlap::Scattered,
            None if fills => Overlap::Fills,
            None => Overlap::Same,
        })
    }

    /// h before the first entry that will be stored.
    fn previous(
        &self,
        prepared: &Prepared,
        first: u64,
        view: &Arc<LogView>,
    ) -> Result<Option<Hash>, StoreError> {
        if first == 0 {
            return Ok(prepared.opened.as_ref().map(|opened| {
                let head = Hash::try_from(opened.predecessor_head.as_slice()).unwrap_or(NO_PREDECESSOR);
                open(&prepared.chain, &head)
            }));
        }
        self.hash_at(&prepared.chain, first - 1, view)
    }

    /// Holds a chain's opening against what is known of the chain that it names.
    fn check_predecessor(&self, prepared: &mut Prepared, view: &Arc<LogView>) -> Result<(), StoreError> {
        let Some(opened) = prepared.opened.clone() else { return Ok(()) };
        if opened.predecessor_chain_id.is_empty() {
            return Ok(());
        }
        let predecessor = ChainId::try_from(opened.predecessor_chain_id.as_slice()).ok();
        let Some((id, chain)) = predecessor.and_then(|id| self.chain(&id).map(|c| (id, c))) else {
            let detail = format!("predecessor {} never came here", hex(&opened.predecessor_chain_id));
            prepared.find(FindingKind::UnknownPredecessor, 0, 0, detail);
            return Ok(());
        };
        let named = opened.predecessor_sequence;
        let next = chain.next;
        if let Some(key) = chain.successor_key
            && opened.public_key != key
        {
            let detail = format!("chain {} was recovered under another key", hex(&id));
            prepared.find(FindingKind::KeyChanged, 0, 0, detail);
        }
        if named >= next {
            let detail = format!("predecessor {} ends at {named}, here at {}", hex(&id), next - 1);
            prepared.find(FindingKind::Gap, 0, 0, detail);
            return Ok(());
        }
        if named + 1 < next {
            let detail =
                format!("predecessor {} came up to {}, its node kept up to {named}", hex(&id), next - 1);
            prepared.find(FindingKind::RecoveredBehind, 0, 0, detail);
        }
        if let Some(hash) = self.hash_at(&id, named, view)?
            && opened.predecessor_head != hash
        {
            let detail = format!("predecessor {} has another hash at {named} here", hex(&id));
            prepared.find(FindingKind::Fork, 0, 0, detail);
        }
        Ok(())
    }

    /// Whether the head's key may sign for the chain.
    fn judge_key(&self, prepared: &mut Prepared) -> KeyBasis {
        let Some(head) = prepared.head else { return KeyBasis::None };
        let last = prepared.last();
        let known = self.chain(&prepared.chain);
        let named = prepared.opened.as_ref().filter(|_| known.is_none()).map(|o| o.public_key.clone());
        if !head.signed {
            return KeyBasis::None;
        }
        if head.recovery {
            return match known.and_then(|c| c.successor_key.or(c.succeeded_by)) {
                None if known.is_some_and(|c| c.closed.is_some()) => {
                    let detail = "a recovery head of a chain that was closed".to_owned();
                    prepared.find(FindingKind::KeyChanged, last, last, detail);
                    KeyBasis::None
                }
                Some(key) if key != head.key => {
                    let detail = "a recovery head under another key than its successor's".to_owned();
                    prepared.find(FindingKind::KeyChanged, last, last, detail);
                    KeyBasis::None
                }
                _ => KeyBasis::Successor,
            };
        }
        match (known, named) {
            (Some(chain), _) if chain.keys.contains(&head.key) => KeyBasis::Known,
            // Only recovery heads so far: nothing to compare with.
            (Some(chain), _) if chain.keys.is_empty() => KeyBasis::FirstUseOfHead,
            (Some(_), _) => {
                let detail = "signed by another key than the one trusted on first use".to_owned();
                prepared.find(FindingKind::KeyChanged, last, last, detail);
                KeyBasis::None
            }
            (None, Some(key)) if key == head.key => KeyBasis::FirstUse,
            // A KEY record in the same batch may have named the key that signs its end.
            (None, Some(_)) if prepared.keys.iter().any(|k| *k == head.key) => KeyBasis::FirstUse,
            (None, Some(_)) => {
                let detail = "signed by another key than the chain's first record names".to_owned();
                prepared.find(FindingKind::KeyChanged, last, last, detail);
                KeyBasis::None
            }
            (None, None) => KeyBasis::FirstUseOfHead,
        }
    }
}

/// Links the entries that will be stored and holds them against the head. Returns the hash to go on from.
fn follow_chain(prepared: &mut Prepared, skip: usize, previous: Option<Hash>) -> (Option<Hash>, bool) {
    let last = prepared.last();
    let computed = previous.map(|previous| {
        prepared.request.entries.iter().skip(skip).fold(previous, |hash, entry| link(&hash, &entry.envelope))
    });
    let Some(head) = prepared.head else { return (computed, false) };
    let signed = head.signed.then_some(head.hash);
    if head.sequence != last {
        let detail = format!("the head is at sequence {}, the batch ends at {last}", head.sequence);
        prepared.find(FindingKind::ChainBreak, last, last, detail);
        return (computed, false);
    }
    match computed {
        Some(hash) if hash == head.hash => (computed, true),
        Some(_) => {
            let detail = "the entries' hashes do not lead to the signed head".to_owned();
            prepared.find(FindingKind::ChainBreak, prepared.request.first_sequence, last, detail);
            // What the node signed is what its next batch hangs on.
            (signed.or(computed), false)
        }
        None => (signed, false),
    }
}

fn kinds(findings: &[v1::Finding]) -> Vec<i32> {
    let mut kinds: Vec<i32> = findings.iter().map(|f| f.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, b| {
        // Writing to a string cannot fail.
        write!(out, "{b:02x}").ok();
        out
    })
}
