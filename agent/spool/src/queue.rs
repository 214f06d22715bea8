//! One chain as the shipper sees it: its segments in order, what was handed out and what acknowledged.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use prost::Message;
use verbatim_api::{
    chain::{ChainId, Hash},
    v1,
};

use crate::{
    OutboxError,
    batch::Batch,
    frame,
    history::{Chain, heads_path},
    ledger::Account,
    lock,
    pager::{PageError, Pager},
    segment::{self, SegmentFile},
    shard::Shard,
};

/// A chain to ship.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) chain: ChainId,
    pub(crate) segments: VecDeque<Arc<SegmentFile>>,
    source: Source,
    /// Sequence of the next entry to hand out.
    next: u64,
    /// Sequence behind the last that was ever handed out.
    handed: u64,
    /// Sequence behind the last that was acknowledged; `None`: nothing was.
    acknowledged: Option<u64>,
    pub(crate) account: Arc<Account>,
    place: Option<Place>,
}

/// Where a chain comes from.
#[derive(Debug)]
enum Source {
    /// An earlier instance.
    Past { next_sequence: u64, hash: Hash, closed: bool, heads: BTreeMap<u64, v1::SignedHead>, path: PathBuf },
    /// This instance; perhaps closed already.
    Live(Arc<Shard>),
}

/// Where reading goes on.
#[derive(Debug)]
struct Place {
    pager: Pager,
    ordinal: u32,
    offset: u64,
    sequence: u64,
}

impl Queue {
    pub(crate) fn past(chain: Chain, folder: &Path) -> Self {
        let segments: VecDeque<_> = chain.segments.into_iter().map(Arc::new).collect();
        let first = segments.front().map_or(chain.next_sequence, |segment| segment.header.first_sequence);
        let account = Account { appended: chain.next_sequence.into(), acknowledged: first.into() };
        Self {
            chain: chain.id,
            segments,
            source: Source::Past {
                next_sequence: chain.next_sequence,
                hash: chain.hash,
                closed: chain.closed,
                heads: chain.recovery_heads,
                path: heads_path(folder, &chain.id),
            },
            next: first,
            handed: first,
            acknowledged: None,
            account: Arc::new(account),
            place: None,
        }
    }

    pub(crate) fn live(shard: Arc<Shard>) -> Self {
        let account = Arc::clone(&lock(&shard.writer).account);
        Self {
            chain: shard.chain,
            segments: VecDeque::new(),
            source: Source::Live(shard),
            next: 0,
            handed: 0,
            acknowledged: None,
            account,
            place: None,
        }
    }

    /// Whether a signed head lies beyond what was handed out.
    pub(crate) fn has_more(&self) -> bool {
        match &self.source {
            Source::Past { next_sequence, .. } => self.next < *next_sequence,
            Source::Live(shard) => self.next < shard.signed.load(Ordering::Acquire),
        }
    }

    /// Whether no entry will be added any more.
    pub(crate) fn ended(&self) -> bool {
        match &self.source {
            Source::Past { .. } => true,
            Source::Live(shard) => shard.closed.load(Ordering::Acquire),
        }
    }

    /// h(n) of the chain's last entry and whether it was closed, once it has ended.
    pub(crate) fn end(&self) -> (Hash, bool) {
        match &self.source {
            Source::Past { hash, closed, .. } => (*hash, *closed),
            Source::Live(shard) => {
                let hash = lock(&shard.writer).newest().map_or([0; 32], |mark| mark.hash);
                (hash, shard.closed.load(Ordering::Acquire))
            }
        }
    }

    /// Takes in the segments that were begun since.
    pub(crate) fn refresh(&mut self) {
        if let Source::Live(shard) = &self.source {
            self.segments.extend(lock(&shard.writer).begun.drain(..));
        }
    }

    /// Hands out again from the first entry that was not acknowledged.
    pub(crate) fn rewind(&mut self) {
        let first = self.segments.front().map_or(self.next, |segment| segment.header.first_sequence);
        self.next = self.acknowledged.unwrap_or(0).max(first);
        self.place = None;
    }

    /// Everything before `next_sequence` was acknowledged. More than was handed out is not believed: the answer
    /// says how far it is.
    pub(crate) fn acknowledge(&mut self, next_sequence: u64) -> u64 {
        let believed = self.acknowledged.unwrap_or(0).max(next_sequence.min(self.handed));
        self.acknowledged = Some(believed);
        self.account.acknowledged.fetch_max(believed, Ordering::Relaxed);
        believed
    }

    /// The oldest segment, if all of it was acknowledged and nobody writes to it; with its successor's
    /// header, if there is one.
    pub(crate) fn deletable(&self) -> Option<(&Arc<SegmentFile>, Option<&segment::Header>)> {
        let front = self.segments.front()?;
        let following = self.segments.get(1).map(|segment| &segment.header);
        let complete = following.is_some() || self.ended();
        let acknowledged = self.acknowledged.unwrap_or(0) >= front.next_sequence();
        // One without entries holds nothing that could be acknowledged.
        let empty = front.next_sequence() == front.header.first_sequence;
        (complete && (acknowledged || empty || front.is_gone())).then_some((front, following))
    }

    /// The chain is deleted: what else there is of it goes, too.
    pub(crate) fn remove_rest(&self) {
        if let Source::Past { path, heads, .. } = &self.source
            && !heads.is_empty()
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::warn!(%error, path = %path.display(), "cannot remove the heads of a deleted chain");
        }
    }

    /// The next batch, if there is a signed head beyond what was handed out.
    pub(crate) fn next_batch(
        &mut self,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Option<v1::AppendRequest>, OutboxError> {
        if !self.has_more() {
            return Ok(None);
        }
        self.refresh();
        let next = self.next;
        let holds = |segment: &&Arc<SegmentFile>| segment.next_sequence() > next;
        let Some(segment) = self.segments.iter().find(holds).cloned() else { return Ok(None) };
        // Taken: after an error it is looked up again.
        let place = match self.place.take() {
            Some(place) if place.ordinal == segment.header.ordinal => place,
            _ => match Pager::open(&segment) {
                Ok(pager) => Place {
                    pager,
                    ordinal: segment.header.ordinal,
                    offset: segment::HEADER as u64,
                    sequence: segment.header.first_sequence,
                },
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    self.lose(&segment);
                    return self.next_batch(max_entries, max_bytes);
                }
                Err(error) => return Err(read_error(&segment, 0)(error)),
            },
        };
        let batch = Batch::new(self.next, max_entries, max_bytes);
        let Some((request, place)) = self.read(&segment, place, batch)? else {
            // A past chain was signed to its end when it was recovered.
            return match &self.source {
                Source::Past { .. } => Err(damaged(&segment, segment.end())),
                Source::Live(_) => Ok(None),
            };
        };
        self.next += request.entries.len() as u64;
        self.handed = self.handed.max(self.next);
        self.place = Some(place);
        Ok(Some(request))
    }

    /// Goes on behind a segment that somebody took away: the collector finds the gap.
    fn lose(&mut self, segment: &SegmentFile) {
        let (path, next) = (segment.path.display(), segment.next_sequence());
        tracing::error!(
            %path, first = self.next, last = next.saturating_sub(1),
            "a segment of the spool is gone, and with it the records that were not shipped"
        );
        segment.lose();
        self.next = next;
        self.handed = self.handed.max(next);
    }

    fn read(
        &self,
        segment: &SegmentFile,
        mut place: Place,
        mut batch: Batch,
    ) -> Result<Option<(v1::AppendRequest, Place)>, OutboxError> {
        let end = segment.end();
        while place.offset < end && !batch.complete() {
            let page = place.pager.frame(place.offset, end).map_err(page_error(segment, place.offset))?;
            place.offset += page.size;
            match page.kind {
                frame::ENTRY => {
                    let Some(entry) = entry(&page.body) else { return Err(damaged(segment, place.offset)) };
                    batch.entry(place.sequence, entry, place.offset);
                    if let Source::Past { heads, .. } = &self.source
                        && let Some(head) = heads.get(&place.sequence)
                    {
                        batch.head(head.clone());
                    }
                    place.sequence += 1;
                }
                _ => match v1::SignedHead::decode(page.body) {
                    Ok(head) => batch.head(head),
                    Err(_) => return Err(damaged(segment, place.offset)),
                },
            }
        }
        Ok(batch.finish(&self.chain).map(|(request, offset)| {
            place.offset = offset;
            place.sequence = request.first_sequence + request.entries.len() as u64;
            (request, place)
        }))
    }
}

fn entry(body: &prost::bytes::Bytes) -> Option<v1::Entry> {
    let (envelope, content) = frame::split_entry(body)?;
    Some(v1::Entry { envelope: body.slice_ref(envelope), content: body.slice_ref(content) })
}

fn read_error(segment: &SegmentFile, offset: u64) -> impl FnOnce(std::io::Error) -> OutboxError + '_ {
    move |error| page_error(segment, offset)(PageError::Io(error))
}

fn page_error(segment: &SegmentFile, offset: u64) -> impl FnOnce(PageError) -> OutboxError + '_ {
    move |error| match error {
        PageError::Io(source) => OutboxError::Io { action: "read", path: segment.path.clone(), source },
        PageError::Damaged => damaged(segment, offset),
    }
}

fn damaged(segment: &SegmentFile, offset: u64) -> OutboxError {
    OutboxError::Damaged { path: segment.path.clone(), offset }
}
