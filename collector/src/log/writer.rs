//! The one thread that writes: gathers what waits into groups, stages, commits, acknowledges.
//!
//! Nothing is acknowledged before the store says that its group is durable. A group that cannot be kept is
//! taken back as a whole and its senders are told; after a failed sync nothing more is taken.

use std::{collections::HashSet, sync::Arc, time::Instant};

use prost::Message as _;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use verbatim_api::{chain::ChainId, v1};

use super::{
    book::Book,
    frame::{self, FrameKind},
    handle::{CommitError, Job, LogLimits, Reply},
    header::{Event, EventKind},
    places::Run,
    prepare::Prepared,
    stage::Refused,
    view::LogView,
    wall_nanos,
};
use crate::store::{Damage, Group, StoreError};

/// Refused chains that are remembered; of more there is no finding.
const REFUSED: usize = 1024;
/// A frame without items.
const NONE: std::iter::Empty<&[u8]> = std::iter::empty();

/// See the module.
pub(super) struct Writer {
    view: Arc<LogView>,
    book: Book,
    next: u64,
    limits: LogLimits,
    /// When the open segment began.
    segment: Option<Instant>,
    /// Bytes committed since the last snapshot.
    since_snapshot: u64,
    /// Chains of others that a node wanted to write, and which node.
    refused: HashSet<(ChainId, Option<String>)>,
    broken: watch::Sender<Option<String>>,
}

/// A group in the making.
#[derive(Default)]
struct Making {
    group: Group,
    next: u64,
    batches: Vec<(Reply<v1::AppendResponse>, v1::AppendResponse)>,
    events: Vec<(Reply<u64>, u64)>,
    permits: Vec<OwnedSemaphorePermit>,
}

impl Making {
    fn bytes(&self) -> usize {
        self.group.envelopes.len() + self.group.contents.len()
    }
}

impl Writer {
    /// A writer that goes on where the log ends.
    pub(super) fn new(
        view: Arc<LogView>,
        (book, next): (Book, u64),
        limits: LogLimits,
        broken: watch::Sender<Option<String>>,
    ) -> Self {
        Self {
            view,
            book,
            next,
            limits,
            segment: None,
            since_snapshot: u64::MAX,
            refused: HashSet::new(),
            broken,
        }
    }

    /// Works until it is told to close.
    pub(super) fn run(&mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut closing = false;
        while !closing {
            let Some(first) = jobs.blocking_recv() else { break };
            let mut making = self.begin();
            let mut job = Some(first);
            while let Some(next) = job.take() {
                match next {
                    Job::Batch(batch, reply, permit) => self.batch(batch, reply, permit, &mut making),
                    Job::Event(event, reply) => self.event(&event, reply, &mut making),
                    Job::Seal(reply) => {
                        self.finish(&mut making);
                        // Nobody may wait for it any more.
                        reply.send(self.seal()).ok();
                    }
                    // Only to look at the clock.
                    Job::Tick => {}
                    Job::Close => {
                        // What was sent before is before it in the queue; what comes later is refused.
                        jobs.close();
                        closing = true;
                    }
                }
                if making.bytes() < self.limits.group_bytes {
                    job = jobs.try_recv().ok();
                }
            }
            self.finish(&mut making);
            self.seal_when_due();
        }
        if let Err(e) = self.seal() {
            tracing::error!(error = %e, "log could not be sealed at the end");
        }
    }

    fn begin(&self) -> Making {
        Making {
            group: Group { first_position: self.next, ..Group::default() },
            next: self.next,
            ..Making::default()
        }
    }

    fn batch(
        &mut self,
        mut batch: Box<Prepared>,
        reply: Reply<v1::AppendResponse>,
        permit: OwnedSemaphorePermit,
        making: &mut Making,
    ) {
        if self.needs_durable(&batch) {
            self.finish(making);
        }
        let staged = match self.book.stage(&mut batch, making.next, &self.view) {
            Ok(staged) => staged,
            Err(Refused::Store(e)) => {
                // Nobody may wait for it any more.
                reply.send(Err(error(&e))).ok();
                return;
            }
            Err(Refused::Foreign(foreign)) => {
                self.refuse(&batch, &foreign, making);
                reply.send(Err(foreign)).ok();
                return;
            }
        };
        if let Some(header) = staged.header {
            let entries = &batch.request.entries[staged.skip..];
            let (count, meta) = (entries.len() as u32, header.encode_to_vec());
            let (envelopes, contents) = (&mut making.group.envelopes, &mut making.group.contents);
            let first = making.next;
            if let Some(run) = staged.run {
                self.book.place(batch.chain, Run { offset: envelopes.len() as u64, ..run });
            }
            frame::write(
                envelopes,
                FrameKind::Batch,
                first,
                count,
                &meta,
                entries.iter().map(|e| &e.envelope[..]),
            );
            if entries.iter().any(|e| !e.content.is_empty()) {
                let items = entries.iter().map(|e| &e.content[..]);
                frame::write(contents, FrameKind::Contents, first, count, &[], items);
            }
            making.next += u64::from(count);
        }
        making.batches.push((reply, staged.answer));
        making.permits.push(permit);
    }

    /// Whether staging has to read what this group holds.
    fn needs_durable(&self, batch: &Prepared) -> bool {
        let id = &batch.chain;
        let overlaps = self.book.changed(id)
            && self.book.chain(id).is_some_and(|c| c.next != batch.request.first_sequence);
        let predecessor = batch.opened.as_ref().is_some_and(|o| {
            o.predecessor_chain_id.as_slice().try_into().is_ok_and(|p| self.book.changed(&p))
        });
        overlaps || predecessor
    }

    /// Writes down that a node sent what is another's; once, for it will try again.
    fn refuse(&mut self, batch: &Prepared, foreign: &CommitError, making: &mut Making) {
        let of = (batch.chain, batch.node.clone());
        if self.refused.len() >= REFUSED || !self.refused.insert(of) {
            return;
        }
        let finding = v1::Finding {
            kind: v1::FindingKind::ForeignNode.into(),
            chain_id: batch.chain.to_vec(),
            first_sequence: batch.request.first_sequence,
            last_sequence: batch.last(),
            found_wall_nanos: batch.received_wall_nanos,
            detail: format!("batch from {} refused: {foreign}", batch.peer),
        };
        tracing::warn!(peer = batch.peer, %foreign, "batch of another node's refused");
        let event = Event { wall_nanos: wall_nanos(), kind: Some(EventKind::Finding(finding)) };
        frame::write(
            &mut making.group.envelopes,
            FrameKind::Event,
            making.next,
            1,
            &event.encode_to_vec(),
            NONE,
        );
        making.next += 1;
    }

    fn event(&mut self, event: &Event, reply: Reply<u64>, making: &mut Making) {
        let position = making.next;
        let meta = event.encode_to_vec();
        frame::write(&mut making.group.envelopes, FrameKind::Event, position, 1, &meta, NONE);
        making.next += 1;
        making.events.push((reply, position));
    }

    /// Commits what was made so far and answers; `making` is empty afterwards.
    fn finish(&mut self, making: &mut Making) {
        let mut made = std::mem::replace(making, self.begin());
        let kept = if made.group.envelopes.is_empty() { Ok(()) } else { self.commit(&mut made) };
        match &kept {
            Ok(()) => self.book.keep(),
            Err(e) => {
                tracing::error!(error = %e, "group not kept");
                self.book.take_back();
            }
        }
        *making = self.begin();
        for (reply, answer) in made.batches {
            // A stream that broke in the meantime will ask again and get the same answer.
            reply.send(kept.clone().map(|()| answer)).ok();
        }
        for (reply, position) in made.events {
            reply.send(kept.clone().map(|()| position)).ok();
        }
    }

    fn commit(&mut self, made: &mut Making) -> Result<(), CommitError> {
        let mut snapshot = 0;
        if self.since_snapshot >= self.limits.segment_bytes {
            // First in its segment, so that a start need not read what came before it. The state is that
            // before the group.
            let mut with = Vec::new();
            let segment = self.view.segments().last().map(|s| s.first_position);
            let meta = self.book.snapshot_before(self.next, segment).encode_to_vec();
            frame::write(&mut with, FrameKind::Snapshot, self.next, 0, &meta, NONE);
            snapshot = with.len() as u64;
            with.append(&mut made.group.envelopes);
            made.group.envelopes = with;
        }
        let committed = self.view.store().commit(&made.group).map_err(|e| {
            if let StoreError::Broken { .. } = e {
                self.broken.send_replace(Some(e.to_string()));
            }
            error(&e)
        })?;
        if snapshot > 0 {
            self.since_snapshot = 0;
        }
        self.since_snapshot += (made.group.envelopes.len() + made.group.contents.len()) as u64;
        self.segment.get_or_insert_with(Instant::now);
        self.next = made.next;
        self.view.committed(committed);
        let written = made.group.envelopes.len() as u64;
        let base = committed.envelope_bytes.saturating_sub(written) + snapshot;
        self.book.settle(committed.segment, base, &self.view);
        self.view.advance(self.next);
        if committed.envelope_bytes + committed.content_bytes >= self.limits.segment_bytes
            && let Err(e) = self.seal()
        {
            // The group is durable all the same; `broken` ends the collector.
            tracing::error!(error = %e, "segment could not be sealed");
        }
        Ok(())
    }

    fn seal(&mut self) -> Result<(), CommitError> {
        self.view.store().seal().map_err(|e| {
            self.broken.send_replace(Some(e.to_string()));
            error(&e)
        })?;
        self.view.sealed();
        self.segment = None;
        self.since_snapshot = self.since_snapshot.max(self.limits.segment_bytes);
        Ok(())
    }

    fn seal_when_due(&mut self) {
        if self.segment.is_some_and(|s| s.elapsed() >= self.limits.seal_after)
            && let Err(e) = self.seal()
        {
            tracing::error!(error = %e, "segment could not be sealed");
        }
    }

    /// Writes down what recovery could not read.
    pub(super) fn report(&mut self, damage: &Damage) -> Result<(), StoreError> {
        let finding = v1::Finding {
            kind: v1::FindingKind::LogDamaged.into(),
            found_wall_nanos: wall_nanos(),
            detail: format!(
                "{} bytes of {} segment {} from offset {} could not be read; what was intact behind them is kept \
                 aside",
                damage.bytes,
                damage.part.folder(),
                damage.segment,
                damage.offset
            ),
            ..v1::Finding::default()
        };
        let mut making = self.begin();
        let event = Event { wall_nanos: wall_nanos(), kind: Some(EventKind::Finding(finding)) };
        let meta = event.encode_to_vec();
        frame::write(&mut making.group.envelopes, FrameKind::Event, self.next, 1, &meta, NONE);
        making.next += 1;
        self.commit(&mut making)
            .map_err(|e| StoreError::Broken { place: "the log".to_owned(), detail: e.to_string() })
    }
}

fn error(error: &StoreError) -> CommitError {
    match error {
        StoreError::Full { .. } => CommitError::Full(error.to_string()),
        _ => CommitError::Broken(error.to_string()),
    }
}
