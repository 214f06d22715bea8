//! What a shard's thread, the keeper and the shipper share of one chain, and how its heads are signed.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use prost::Message;
use tokio::sync::Notify;
use verbatim_api::{chain::ChainId, v1};
use verbatim_sys::clock;

use crate::{
    SyncMode,
    ages::Ages,
    bell::Bell,
    budget::Budget,
    key::{Mark, NodeKey},
    ledger::Account,
    lock,
    segment::{self, Blank, OpenSegment},
    surroundings::Surroundings,
    writer::Writer,
};

/// What all shards of a node share.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) sync: SyncMode,
    pub(crate) segment_bytes: u64,
    pub(crate) budget: Budget,
    pub(crate) ages: Ages,
    pub(crate) key: NodeKey,
    pub(crate) surroundings: Surroundings,
    /// Wakes the keeper.
    pub(crate) keeper: Bell,
    /// Wakes the thread that syncs, in group mode.
    pub(crate) syncer: Bell,
    /// Of every chain that is shipped.
    pub(crate) accounts: Mutex<Vec<Arc<Account>>>,
}

/// One shard's chain.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) common: Arc<Common>,
    pub(crate) folder: PathBuf,
    pub(crate) chain: ChainId,
    pub(crate) writer: Mutex<Writer>,
    /// One signs at a time, so that heads lie in order.
    signing: Mutex<()>,
    /// One makes segments at a time.
    supplying: Mutex<()>,
    /// Entries that a signed head in the spool covers.
    pub(crate) signed: AtomicU64,
    /// Entries that are synced; in group mode.
    pub(crate) synced: AtomicU64,
    /// Syncing failed: what the disk holds is unknown from then on.
    pub(crate) sync_failed: AtomicBool,
    pub(crate) closed: AtomicBool,
    /// The disk had no room for the next segment.
    short: AtomicBool,
    pub(crate) shippable: Notify,
    pub(crate) room: Notify,
    pub(crate) durable: Notify,
}

impl Shard {
    pub(crate) fn new(common: Arc<Common>, folder: PathBuf, writer: Writer) -> Self {
        Self {
            common,
            folder,
            chain: writer.chain,
            writer: Mutex::new(writer),
            signing: Mutex::default(),
            supplying: Mutex::default(),
            signed: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            sync_failed: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            short: AtomicBool::new(false),
            shippable: Notify::new(),
            room: Notify::new(),
            durable: Notify::new(),
        }
    }

    /// Signs what is due: marks inside segments, the ends of full segments, and with `newest` the newest
    /// entry that may be signed. The writer is free while the signatures are made.
    pub(crate) fn sign(&self, newest: bool) {
        let _order = lock(&self.signing);
        let due = lock(&self.writer).due_heads(self.common.sync, newest);
        if due.is_empty() {
            return;
        }
        let heads: Vec<_> = due
            .into_iter()
            .map(|due| {
                let wall = (self.common.surroundings.head_wall_nanos)();
                let head = self.common.key.sign(&self.chain, due.mark, wall, false);
                (due, head)
            })
            .collect();
        let (reached, complete) = lock(&self.writer).place_heads(&heads);
        if let Some(reached) = reached {
            self.common.ages.reached(self.chain, reached + 1, clock::boottime_nanos());
            self.signed.fetch_max(reached + 1, Ordering::AcqRel);
            self.shippable.notify_waiters();
        }
        // Unmapped here, not under the lock.
        drop(complete);
    }

    /// Makes the next segment ready, if there is none and there is room.
    pub(crate) fn supply(&self) {
        let _one_at_a_time = lock(&self.supplying);
        let Some(ordinal) = lock(&self.writer).wants_segment() else { return };
        let bytes = self.common.segment_bytes;
        if !self.common.budget.take(bytes) {
            return;
        }
        match self.create(ordinal, bytes) {
            Ok(blank) => {
                if self.short.swap(false, Ordering::AcqRel) {
                    tracing::info!(folder = %self.folder.display(), "spool segments can be made again");
                }
                let refused = lock(&self.writer).supply_or_return(blank);
                if let Some(blank) = refused {
                    self.discard(blank);
                }
                self.room.notify_waiters();
            }
            Err(error) => {
                self.common.budget.give_back(bytes);
                // Once per episode: it is tried again every head interval.
                if !self.short.swap(true, Ordering::AcqRel) {
                    let folder = self.folder.display();
                    tracing::warn!(%error, %folder, "cannot make a spool segment: what is there fills up");
                }
            }
        }
    }

    /// Makes a segment whatever the limit, where the active one is half full; while a chain is opened.
    pub(crate) fn supply_beyond_limit(&self) -> io::Result<()> {
        let wanted = {
            let writer = lock(&self.writer);
            writer.wants_segment().filter(|_| writer.active.as_ref().is_some_and(OpenSegment::half_full))
        };
        let Some(ordinal) = wanted else { return Ok(()) };
        let bytes = self.common.segment_bytes;
        let blank = self.create(ordinal, bytes)?;
        self.common.budget.force(bytes);
        lock(&self.writer).supply(blank);
        Ok(())
    }

    /// Makes a blank segment; in group mode its name is on disk afterwards.
    fn create(&self, ordinal: u32, bytes: u64) -> io::Result<Blank> {
        create(&self.common, &self.folder, &self.chain, ordinal, bytes)
    }

    /// Removes a blank that nobody needs.
    pub(crate) fn discard(&self, blank: Blank) {
        let bytes = blank.mapped.writer.len() as u64;
        match fs::remove_file(&blank.path) {
            Ok(()) => self.common.budget.give_back(bytes),
            Err(error) => {
                tracing::warn!(%error, path = %blank.path.display(), "cannot remove a blank segment")
            }
        }
    }
}

/// Makes a blank segment; in group mode its name is on disk afterwards. Where that fails there is none:
/// an ordinal that is asked for is nobody's yet.
pub(crate) fn create(
    common: &Common,
    folder: &Path,
    chain: &ChainId,
    ordinal: u32,
    bytes: u64,
) -> io::Result<Blank> {
    let mut blank = try_create(common, folder, chain, ordinal, bytes);
    if blank.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        tracing::error!(folder = %folder.display(), "the spool's folder is gone: it is made again");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        blank = try_create(common, folder, chain, ordinal, bytes);
    }
    if blank.is_err() {
        // What matters is the first error; mostly there is nothing to remove.
        fs::remove_file(folder.join(segment::file_name(chain, ordinal))).ok();
    }
    blank
}

fn try_create(
    common: &Common,
    folder: &Path,
    chain: &ChainId,
    ordinal: u32,
    bytes: u64,
) -> io::Result<Blank> {
    (common.surroundings.before_allocating)()?;
    let blank = Blank::create(folder, chain, ordinal, bytes)?;
    // Nothing is lost where the kernel cannot do it.
    blank.mapped.pages.populate(0..crate::keeper::POPULATE_BYTES / 4).ok();
    if common.sync == SyncMode::Group {
        (common.surroundings.sync)(&blank.mapped.file)?;
        (common.surroundings.sync)(&fs::File::open(folder)?)?;
    }
    Ok(blank)
}

/// A place in a segment that a head is due for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due {
    ordinal: u32,
    mark: Mark,
}

impl Writer {
    /// The ordinal of the segment that should be made ahead, if there is none.
    fn wants_segment(&self) -> Option<u32> {
        let active = self.active.as_ref()?;
        self.next.is_none().then(|| active.info.header.ordinal + 1)
    }

    /// Gives the blank back when it came too late.
    fn supply_or_return(&mut self, blank: Blank) -> Option<Blank> {
        if self.wants_segment() != Some(blank.ordinal) {
            return Some(blank);
        }
        self.supply(blank);
        None
    }

    /// In the order of the chain.
    fn due_heads(&mut self, sync: SyncMode, newest: bool) -> Vec<Due> {
        self.marked = false;
        let Some(signable) = self.signable(sync) else { return Vec::new() };
        let mut due = Vec::new();
        for (segment, full) in
            self.sealed.iter().map(|s| (s, true)).chain(self.active.iter().map(|s| (s, newest)))
        {
            let ordinal = segment.info.header.ordinal;
            let marks = segment.marks.iter().copied().filter(|mark| mark.sequence <= signable.sequence);
            due.extend(marks.map(|mark| Due { ordinal, mark }));
            // In group mode the newest synced entry can lie inside a segment.
            let end = segment
                .unsigned()
                .map(|last| if last.sequence <= signable.sequence { last } else { signable });
            let inside = |mark: &Mark| {
                mark.sequence >= segment.info.header.first_sequence
                    && segment.signed.is_none_or(|signed| signed < mark.sequence)
            };
            if full
                && let Some(mark) =
                    end.filter(inside).filter(|mark| due.last().is_none_or(|d| d.mark != *mark))
            {
                due.push(Due { ordinal, mark });
            }
        }
        due
    }

    /// Writes the heads; says how far they reach and gives back the segments that now have all of theirs.
    fn place_heads(&mut self, heads: &[(Due, v1::SignedHead)]) -> (Option<u64>, Vec<OpenSegment>) {
        let mut reached = None;
        let mut body = Vec::new();
        for (due, head) in heads {
            let segment = self
                .sealed
                .iter_mut()
                .chain(self.active.iter_mut())
                .find(|segment| segment.info.header.ordinal == due.ordinal);
            body.clear();
            let encoded = head.encode(&mut body).is_ok();
            if encoded && segment.is_some_and(|segment| segment.place_head(head.sequence, &body)) {
                reached = Some(head.sequence);
            }
        }
        let mut complete = Vec::new();
        while let Some(segment) = self.sealed.pop_front_if(|segment| segment.unsigned().is_none()) {
            complete.push(segment);
        }
        (reached, complete)
    }
}
