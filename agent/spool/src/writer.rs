//! One chain while it is written: numbering, hashing, admission, segments. No file operation here but
//! stores into mapped memory; files come from and go to the keeper.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

use verbatim_api::{
    chain::{self, ChainId, Hash},
    v1,
};

use crate::{
    AppendError, Appended, Common, Draft, SyncMode, WhenFull,
    ambient::{Ambient, Ids},
    encode::{Encoder, Stamp},
    key::Mark,
    ledger::Account,
    reserve::{Class, Reserve},
    segment::{self, Blank, OpenSegment, SegmentFile},
    shed::Shed,
};

/// Full segments whose files stay open.
const RECENT: usize = 4;

/// Writes one chain. Behind a lock that the shard holds to append, and the keeper for moments.
pub(crate) struct Writer {
    pub(crate) chain: ChainId,
    ambient: Box<dyn Ambient>,
    ids: Ids,
    encoder: Encoder,
    when_full: WhenFull,
    /// `None` once the chain is closed.
    pub(crate) active: Option<OpenSegment>,
    /// Made ahead by the keeper.
    pub(crate) next: Option<Blank>,
    /// Full segments that still miss a head.
    pub(crate) sealed: VecDeque<OpenSegment>,
    /// Full segments whose files are still open, for a shipper that is only a moment behind.
    recent: VecDeque<Arc<SegmentFile>>,
    /// Segments begun since the outbox last looked.
    pub(crate) begun: Vec<Arc<SegmentFile>>,
    next_sequence: u64,
    pub(crate) account: Arc<Account>,
    hash: Hash,
    reserve: Reserve,
    /// An append was refused, and there has been no new segment since.
    pub(crate) full: bool,
    shed: Shed,
    /// What was synced; only in group mode.
    pub(crate) synced: Option<Mark>,
    /// A head was asked for before its time.
    pub(crate) marked: bool,
}

impl Writer {
    pub(crate) fn new(
        chain: ChainId,
        predecessor_head: &Hash,
        first: Blank,
        ambient: Box<dyn Ambient>,
        when_full: WhenFull,
    ) -> Self {
        let hash = chain::open(&chain, predecessor_head);
        let active = OpenSegment::begin(first, chain, 0, hash);
        Self {
            chain,
            ambient,
            ids: Ids::default(),
            encoder: Encoder::default(),
            when_full,
            recent: VecDeque::new(),
            begun: vec![active.info.clone()],
            active: Some(active),
            next: None,
            sealed: VecDeque::new(),
            next_sequence: 0,
            account: Arc::default(),
            hash,
            reserve: Reserve::default(),
            full: false,
            shed: Shed::default(),
            synced: None,
            marked: false,
        }
    }

    /// Appends a record, or refuses it for good.
    pub(crate) fn append(&mut self, draft: &mut Draft) -> Result<Appended, AppendError> {
        self.try_append(draft, &Common::default()).map_err(|refusal| self.refuse(refusal, draft))
    }

    /// Appends a record; on refusal nothing has changed.
    pub(crate) fn try_append(&mut self, draft: &mut Draft, common: &Common) -> Result<Appended, Refusal> {
        let class = Class::of(&draft.envelope);
        // Who was refused comes first: a smaller one must not take the room that it waits for.
        if self.full && !class.uses_reserve() {
            return Err(Refusal::Full);
        }
        self.admit_gap();
        let stamp = self.stamp();
        self.encoder.encode(draft, common, &stamp);
        let size = segment::entry_size(self.encoder.envelope.len(), self.encoder.content.len());
        self.make_room(size, class)?;
        let Some(active) = &mut self.active else { return Err(Refusal::Full) };
        self.hash = chain::link(&self.hash, &self.encoder.envelope);
        let mark = Mark { sequence: stamp.sequence, hash: self.hash };
        self.marked |= active.append(&self.encoder.envelope, &self.encoder.content, mark);
        self.next_sequence += 1;
        self.account.appended.store(self.next_sequence, Ordering::Relaxed);
        self.reserve.count(class);
        Ok(Appended {
            record_id: stamp.record_id,
            sequence: stamp.sequence,
            boottime_nanos: stamp.boottime_nanos,
            position: stamp.sequence,
        })
    }

    fn stamp(&mut self) -> Stamp {
        let ambient = &mut *self.ambient;
        let wall_nanos = ambient.wall_nanos();
        let boottime_nanos = ambient.boottime_nanos();
        let record_id = self.ids.next(wall_nanos, ambient);
        let mut salt = [0; 16];
        ambient.random(&mut salt);
        Stamp {
            record_id,
            chain_id: self.chain,
            sequence: self.next_sequence,
            wall_nanos,
            boottime_nanos,
            salt,
        }
    }

    /// Sees to it that the active segment has room for a frame of `size`.
    fn make_room(&mut self, size: usize, class: Class) -> Result<(), Refusal> {
        let Some(active) = &self.active else { return Err(Refusal::Full) };
        let capacity = OpenSegment::capacity(active.len());
        // While the next segment is there, nothing has to be kept back in this one.
        let kept = if self.next.is_some() { 0 } else { self.reserve.kept(class, capacity) };
        if size.saturating_add(kept) <= active.free() {
            return Ok(());
        }
        match &self.next {
            Some(next) if size > OpenSegment::capacity(next.mapped.writer.len()) => {
                Err(Refusal::TooLarge(size))
            }
            None if size > capacity => Err(Refusal::TooLarge(size)),
            Some(_) => {
                self.rotate();
                Ok(())
            }
            None => Err(Refusal::Full),
        }
    }

    fn rotate(&mut self) {
        let Some(next) = self.next.take() else { return };
        let begun = OpenSegment::begin(next, self.chain, self.next_sequence, self.hash);
        self.begun.push(begun.info.clone());
        let full = self.active.replace(begun);
        self.recent.extend(full.as_ref().map(|segment| segment.info.clone()));
        if self.recent.len() > RECENT
            && let Some(oldest) = self.recent.pop_front()
        {
            oldest.release();
        }
        self.sealed.extend(full);
        self.marked = true;
    }

    /// What a refusal means to whoever appends.
    pub(crate) fn refuse(&mut self, refusal: Refusal, draft: &Draft) -> AppendError {
        if let Refusal::TooLarge(bytes) = refusal {
            return AppendError::TooLarge(bytes);
        }
        if !self.full {
            self.full = true;
            // The keeper looks for room.
            self.marked = true;
        }
        match self.when_full {
            WhenFull::Stop => AppendError::Full,
            WhenFull::Shed => {
                self.shed.count(&draft.envelope, self.ambient.wall_nanos());
                AppendError::Shed
            }
        }
    }

    /// Takes a segment made ahead: whoever was refused may try again, after the gap record about those
    /// that were shed.
    pub(crate) fn supply(&mut self, blank: Blank) {
        self.next = Some(blank);
        self.full = false;
        self.admit_gap();
    }

    /// Says what was shed, as soon as that fits.
    fn admit_gap(&mut self) {
        if self.full {
            return;
        }
        let Some(gap) = self.shed.take() else { return };
        let mut draft = gap_draft(gap);
        if self.append(&mut draft).is_err() {
            self.shed.put_back(gap);
        }
    }

    /// Last record of the chain. Fails only where not even the reserve has room.
    pub(crate) fn append_closed(&mut self) -> Result<(), AppendError> {
        self.full = false;
        self.admit_gap();
        let reason = v1::CloseReason::Drained.into();
        let detail = v1::envelope::Detail::ChainClosed(v1::ChainClosed { reason });
        self.append(&mut detail_draft(v1::RecordKind::ChainClosed, detail)).map(|_| ())
    }

    /// The newest place that may be signed: what was appended, in group mode what was synced.
    pub(crate) fn signable(&self, sync: SyncMode) -> Option<Mark> {
        match sync {
            SyncMode::Process => self.newest(),
            SyncMode::Group => self.synced,
        }
    }

    pub(crate) fn when_full(&self) -> WhenFull {
        self.when_full
    }

    /// The newest entry of the chain.
    pub(crate) fn newest(&self) -> Option<Mark> {
        let sequence = self.next_sequence.checked_sub(1)?;
        Some(Mark { sequence, hash: self.hash })
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("chain", &self.chain).finish_non_exhaustive()
    }
}

/// Why a record does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Not now.
    Full,
    /// Never: bytes that it would take.
    TooLarge(usize),
}

/// A record of the spool's own that only says what its detail says.
pub(crate) fn detail_draft(kind: v1::RecordKind, detail: v1::envelope::Detail) -> Draft {
    Draft {
        envelope: v1::Envelope { kind: kind.into(), detail: Some(detail), ..Default::default() },
        content: None,
    }
}

/// A gap record.
pub(crate) fn gap_draft(gap: v1::Gap) -> Draft {
    detail_draft(v1::RecordKind::Gap, v1::envelope::Detail::Gap(gap))
}
