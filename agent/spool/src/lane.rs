//! One folder's chains in the order in which they ship, and the only place where segments are deleted.

use std::{
    collections::VecDeque,
    io,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

use crate::{
    SyncMode, frame,
    pager::{PageError, Pager},
    pending::Pending,
    queue::Queue,
    segment::{self, SegmentFile},
    shard::Common,
    tail::Tail,
};

/// A shard's folder.
#[derive(Debug)]
pub(crate) struct Lane {
    folder: PathBuf,
    tail: Option<Tail>,
    pub(crate) queues: VecDeque<Queue>,
    /// The last try to delete failed, and that was said.
    stuck: bool,
}

impl Lane {
    pub(crate) fn new(folder: PathBuf, tail: Option<Tail>, queues: VecDeque<Queue>) -> Self {
        Self { folder, tail, queues, stuck: false }
    }

    /// Deletes what is wholly acknowledged, oldest first; what cannot be deleted now is tried again at the
    /// next acknowledgement.
    pub(crate) fn delete_acknowledged(&mut self, common: &Common) {
        while let Some(queue) = self.queues.front_mut() {
            queue.refresh();
            if let Some((segment, _)) = queue.deletable() {
                let segment = segment.clone();
                let deleted = self.delete(&segment, common);
                let was_stuck = std::mem::replace(&mut self.stuck, deleted.is_err());
                if let Err(error) = deleted {
                    // Once: it is tried again at each acknowledgement.
                    if !was_stuck {
                        let path = segment.path.display();
                        tracing::warn!(%error, %path, "cannot delete an acknowledged segment: the spool fills");
                    }
                    return;
                }
            } else if queue.segments.is_empty() && queue.ended() {
                queue.remove_rest();
                self.queues.pop_front();
            } else {
                return;
            }
        }
    }

    /// First remembers what the segment leaves open, then deletes it.
    fn delete(&mut self, segment: &Arc<SegmentFile>, common: &Common) -> io::Result<()> {
        let Some(queue) = self.queues.front_mut() else { return Ok(()) };
        let (hash, closed) = match queue.deletable() {
            Some((_, Some(following))) => (following.previous, false),
            _ => queue.end(),
        };
        // What an earlier chain had left open its successor has ended.
        let before = self.tail.as_ref().filter(|tail| tail.chain == queue.chain);
        let mut pending = before.map_or_else(Pending::default, |tail| tail.pending.clone());
        ignore_missing(read_into(&mut pending, segment))?;
        pending.forget_unmatched();
        let tail = Tail {
            chain: queue.chain,
            ordinal: segment.header.ordinal,
            next_sequence: segment.next_sequence(),
            hash,
            closed,
            pending,
        };
        let sync = (common.sync == SyncMode::Group).then_some(&*common.surroundings.sync);
        if let Err(error) = tail.write(&self.folder, sync) {
            // A folder that is gone is made again.
            if error.kind() != io::ErrorKind::NotFound {
                return Err(error);
            }
            std::fs::create_dir_all(&self.folder)?;
            tail.write(&self.folder, sync)?;
        }
        self.tail = Some(tail);
        ignore_missing(std::fs::remove_file(&segment.path))?;
        segment.release();
        queue.segments.pop_front();
        common.budget.give_back(segment.bytes.load(Ordering::Acquire));
        common.keeper.ring();
        Ok(())
    }
}

/// Somebody else has deleted it already.
fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn read_into(pending: &mut Pending, segment: &SegmentFile) -> io::Result<()> {
    let mut pager = Pager::open(segment)?;
    let mut offset = segment::HEADER as u64;
    let end = segment.end();
    while offset < end {
        let page = pager.frame(offset, end).map_err(|error| match error {
            PageError::Io(error) => error,
            PageError::Damaged => io::Error::other("the segment is damaged"),
        })?;
        if page.kind == frame::ENTRY
            && let Some((envelope, _)) = frame::split_entry(&page.body)
        {
            pending.read(envelope);
        }
        offset += page.size;
    }
    Ok(())
}
