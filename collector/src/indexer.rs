//! The thread that reads the log into the index, and carries out the deletions that the log asks for.
//!
//! A deletion or expiry is an event in the log; whoever reads past it carries it out, and moves on only when
//! it is done. So it is done once more after a crash half-way, and in an index made anew it holds as well.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use prost::Message as _;
use tokio::sync::watch;
use verbatim_api::v1::{self, FindingKind};

use crate::{
    index::{Batch, Change, Id, Index, IndexError, project},
    log::{
        CommitError, Follower, Location, Log, LogView, Raw, Step,
        header::{Deletion, EventKind, Expiry},
        wall_nanos,
    },
    priority,
    store::StoreError,
};

/// Records taken into the index at once.
const STRETCH: usize = 16_384;
/// How often the thread looks whether the index's file is still there.
const LOOK: Duration = Duration::from_secs(2);
/// Wait after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// How deletions are carried out.
#[derive(Clone, Debug)]
pub enum Carry {
    /// In the store.
    Out(Log),
    /// Only for those who ask through this view: the store may not be changed.
    Hide,
}

/// Why the indexer could not go on.
#[derive(Debug, thiserror::Error)]
pub enum IndexerError {
    /// The log.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The log's writer.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// See the module.
#[derive(Debug)]
pub struct Indexer {
    view: Arc<LogView>,
    index: Arc<dyn Index>,
    carry: Carry,
    position: watch::Sender<u64>,
    outcomes: Arc<Outcomes>,
}

/// How many contents each deletion deleted, for those who wait, by the event's position.
#[derive(Debug, Default)]
pub struct Outcomes(Mutex<HashMap<u64, u64>>);

impl Outcomes {
    /// Outcomes that nobody asked for are kept up to this many.
    const KEPT: usize = 1024;

    fn put(&self, position: u64, deleted: u64) {
        let mut outcomes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if outcomes.len() >= Self::KEPT {
            outcomes.clear();
        }
        outcomes.insert(position, deleted);
    }

    /// Takes the outcome of the deletion at a position.
    #[must_use]
    pub fn take(&self, position: u64) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&position)
    }
}

impl Indexer {
    /// An indexer that has read nothing yet.
    #[must_use]
    pub fn new(view: Arc<LogView>, index: Arc<dyn Index>, carry: Carry) -> Self {
        Self { view, index, carry, position: watch::Sender::new(0), outcomes: Arc::default() }
    }

    /// Position up to which the index has read.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.position.subscribe()
    }

    /// Outcomes of deletions.
    #[must_use]
    pub fn outcomes(&self) -> Arc<Outcomes> {
        Arc::clone(&self.outcomes)
    }

    /// Reads on until `stop` is set, and then up to the log's end.
    pub fn spawn(mut self, mut stop: watch::Receiver<bool>) -> std::io::Result<JoinHandle<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        std::thread::Builder::new().name("indexer".to_owned()).spawn(move || {
            priority::give_way(priority::INDEXER);
            let mut durable = self.view.watch();
            loop {
                let stopping = *stop.borrow();
                if let Err(e) = self.catch_up() {
                    tracing::error!(error = %e, "index does not follow the log");
                    if stopping {
                        return;
                    }
                    if let IndexerError::Index(IndexError::Unusable { .. }) = e {
                        self.start_again("it is damaged");
                    }
                    std::thread::sleep(PAUSE);
                }
                if stopping {
                    return;
                }
                runtime.block_on(async {
                    tokio::select! {
                        // An error means that the sender is gone, and so is everything else: `stop` says it.
                        _ = durable.changed() => {}
                        _ = stop.changed() => {}
                        () = tokio::time::sleep(LOOK) => {}
                    }
                });
            }
        })
    }

    fn start_again(&self, why: &str) {
        tracing::warn!(why, "index is made again from the log");
        self.position.send_replace(0);
        if let Err(e) = self.index.reset() {
            tracing::error!(error = %e, "index cannot be made again");
        }
    }

    /// Reads everything that is durable.
    pub fn catch_up(&mut self) -> Result<(), IndexerError> {
        if !self.index.is_intact() {
            self.start_again("its file is gone");
        }
        let mut from = self.index.position()?;
        if from > self.view.next_position() {
            self.start_again("it is ahead of the log: it belongs to another one");
            from = self.index.position()?;
        }
        self.position.send_replace(from);
        let mut follower = Follower::new(Arc::clone(&self.view), from);
        loop {
            let mut batch = Batch::default();
            let mut event = None;
            let mut read = 0;
            while read < STRETCH && event.is_none() {
                match follower.step()? {
                    None => break,
                    Some(Step::Batch { header, records }) => {
                        read += records.len().max(1);
                        let position = records.first().map_or(0, |r| r.location.position);
                        let findings = header.findings.into_iter();
                        batch.changes.extend(findings.map(|finding| Change::Finding { position, finding }));
                        batch.changes.extend(records.iter().flat_map(project));
                    }
                    Some(Step::Damage { position, segment, part, offset }) => {
                        read += 1;
                        let finding = v1::Finding {
                            kind: FindingKind::LogDamaged.into(),
                            found_wall_nanos: wall_nanos(),
                            detail: format!("{} segment {segment} from offset {offset}", part.folder()),
                            ..v1::Finding::default()
                        };
                        tracing::error!(detail = finding.detail, "log is damaged");
                        batch.changes.push(Change::Finding { position, finding });
                    }
                    Some(Step::Event(position, happened)) => {
                        read += 1;
                        match happened.kind {
                            Some(EventKind::Finding(finding)) => {
                                batch.changes.push(Change::Finding { position, finding });
                            }
                            Some(EventKind::Deletion(d)) => event = Some((position, Act::Delete(d))),
                            Some(EventKind::Expiry(e)) => event = Some((position, Act::Expire(e))),
                            None => {}
                        }
                    }
                }
            }
            if read == 0 {
                return Ok(());
            }
            // Up to the event, not past it: it has to be carried out first.
            batch.next_position = event.as_ref().map_or_else(|| follower.position(), |(p, _)| *p);
            self.index.apply(&batch)?;
            if let Some((position, act)) = event {
                match act {
                    Act::Delete(deletion) => self.delete(position, &deletion)?,
                    Act::Expire(expiry) => self.expire(position, &expiry)?,
                }
            }
            self.position.send_replace(follower.position());
        }
    }

    fn delete(&self, position: u64, deletion: &Deletion) -> Result<(), IndexerError> {
        let mut owners = HashSet::new();
        let mut targets = Vec::new();
        let mut unknown = HashSet::new();
        for id in deletion.ids.iter().filter_map(|id| Id::try_from(id.as_slice()).ok()) {
            let locations = self.index.locations(&id)?;
            if locations.is_empty() {
                unknown.insert(id);
            } else {
                owners.insert(id);
                targets.extend(locations);
            }
        }
        if !unknown.is_empty() {
            // Records that no row is called after, e.g. FINISHED ones: the log knows them.
            let mut follower = Follower::new(Arc::clone(&self.view), self.view.oldest_position());
            while follower.position() < position
                && let Some(step) = follower.step()?
            {
                let Step::Batch { records, .. } = step else { continue };
                for raw in &records {
                    if let Some((record, owner)) = ids(raw)
                        && unknown.contains(&record)
                    {
                        targets.push(raw.location);
                        owners.extend(owner);
                    }
                }
            }
        }
        targets.retain(|l| l.content_length > 0);
        let deleted = match &self.carry {
            Carry::Out(log) => {
                let open = |l: &Location| {
                    self.view.segments().iter().any(|s| s.first_position == l.segment && !s.sealed)
                };
                if targets.iter().any(open) {
                    log.seal_blocking()?;
                }
                self.view.wipe(&targets)?
            }
            Carry::Hide => {
                self.view.hide(&targets);
                targets.len() as u64
            }
        };
        self.refresh(&owners, &HashSet::new(), false, position + 1)?;
        self.index.scrub()?;
        self.outcomes.put(position, deleted);
        tracing::info!(deleted, by = deletion.peer, reason = deletion.reason, "contents deleted");
        Ok(())
    }

    fn expire(&self, position: u64, expiry: &Expiry) -> Result<(), IndexerError> {
        let kept: HashSet<u64> = self.view.segments().iter().map(|s| s.first_position).collect();
        let leaving: HashSet<u64> = expiry.segments.iter().copied().filter(|s| kept.contains(s)).collect();
        let mut owners = HashSet::new();
        let mut below = 0;
        for segment in &leaving {
            let mut follower = Follower::new(Arc::clone(&self.view), *segment);
            while let Some(step) = follower.step()? {
                let Step::Batch { records, .. } = step else { continue };
                if records.first().is_some_and(|r| r.location.segment != *segment) {
                    break;
                }
                below = below.max(follower.position());
                owners.extend(
                    records.iter().filter_map(ids).flat_map(|(record, owner)| owner.or(Some(record))),
                );
            }
        }
        self.refresh(&owners, &leaving, expiry.contents_only, position)?;
        self.index.scrub()?;
        if let Carry::Out(_) = self.carry {
            for segment in &leaving {
                self.view.remove(*segment, expiry.contents_only)?;
            }
        }
        let forget_findings_below = if expiry.contents_only { 0 } else { below };
        self.index.apply(&Batch {
            next_position: position + 1,
            forget_findings_below,
            ..Batch::default()
        })?;
        tracing::info!(segments = leaving.len(), rule = expiry.rule, "retention carried out");
        Ok(())
    }

    /// Makes rows again from what the log still has of them, leaving out segments that are about to go.
    fn refresh(
        &self,
        owners: &HashSet<Id>,
        leaving: &HashSet<u64>,
        contents_only: bool,
        next_position: u64,
    ) -> Result<(), IndexerError> {
        let owners: Vec<Id> = owners.iter().copied().collect();
        let here = self.index.position()?;
        for some in owners.chunks(4096) {
            let mut batch = Batch { remove: some.to_vec(), next_position: here, ..Batch::default() };
            let mut again = Vec::new();
            for owner in some {
                for location in self.index.locations(owner)? {
                    let goes = leaving.contains(&location.segment);
                    if goes && !contents_only {
                        continue;
                    }
                    let (envelope, content) = match self.view.entry(&location) {
                        Ok(entry) => entry,
                        Err(StoreError::Gone { .. }) => continue,
                        Err(e) => return Err(e.into()),
                    };
                    let content = if goes { bytes::Bytes::new() } else { content };
                    let raw = Raw { location, envelope, content };
                    again.extend(project(&raw).into_iter().filter(|c| owner_of(c) == Some(*owner)));
                }
            }
            batch.changes = again;
            self.index.apply(&batch)?;
        }
        self.index.apply(&Batch { next_position, ..Batch::default() })?;
        Ok(())
    }
}

enum Act {
    Delete(Deletion),
    Expire(Expiry),
}

/// A record's id and, where it belongs to a command or connection, that one's.
fn ids(raw: &Raw) -> Option<(Id, Option<Id>)> {
    let envelope = v1::Envelope::decode(raw.envelope.clone()).ok()?;
    let record = Id::try_from(envelope.record_id.as_slice()).ok()?;
    let owner = project(raw).iter().find_map(owner_of);
    Some((record, owner))
}

fn owner_of(change: &Change) -> Option<Id> {
    match change {
        Change::Command(part) => Some(part.id),
        Change::Session(part) => Some(part.flow),
        Change::Extra(owner, _) => Some(*owner),
        Change::Event(row) => Some(row.id),
        Change::Finding { .. } | Change::Chain(_) | Change::Reading(_) => None,
    }
}
