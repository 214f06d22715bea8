//! The log, for those who write to it: hands batches and events to the writer's thread and waits.
//!
//! Bounds what waits: a sender that finds no room is held up.

use std::{sync::Arc, thread::JoinHandle, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use verbatim_api::v1;

use super::{
    book::Book,
    header::{Event, EventKind},
    prepare::Prepared,
    view::LogView,
    wall_nanos,
    writer::Writer,
};
use crate::store::{Damage, Store, StoreError};

/// Limits of the log.
#[derive(Clone, Copy, Debug)]
pub struct LogLimits {
    /// A segment is sealed when its parts together reach this, bytes.
    pub segment_bytes: u64,
    /// A segment is sealed when it is this old.
    pub seal_after: Duration,
    /// A group is committed when it holds this much, bytes.
    pub group_bytes: usize,
    /// Batches that wait for their commit, all streams together, bytes.
    pub waiting_bytes: usize,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            seal_after: Duration::from_secs(3600),
            group_bytes: 16 << 20,
            waiting_bytes: 128 << 20,
        }
    }
}

/// Why something was not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// No room: try again later.
    #[error("{0}")]
    Full(String),
    /// The log takes nothing any more.
    #[error("{0}")]
    Broken(String),
    /// A node may write its own chains only.
    #[error(
        "chain {chain} is of node {owner:?}, the certificate of node {peer:?}: a node writes its own chains; set the \
         node agent's `node` to the certificate's"
    )]
    Foreign {
        /// Which chain, in hexadecimal.
        chain: String,
        /// The node that it is of.
        owner: String,
        /// The node that the certificate names.
        peer: String,
    },
    /// The collector is ending.
    #[error("the collector is shutting down: connect again")]
    Closed,
}

pub(super) type Reply<T> = oneshot::Sender<Result<T, CommitError>>;

#[derive(Debug)]
pub(super) enum Job {
    Batch(Box<Prepared>, Reply<v1::AppendResponse>, OwnedSemaphorePermit),
    Event(Box<Event>, Reply<u64>),
    Seal(Reply<()>),
    Tick,
    Close,
}

/// The log, for those who write to it.
#[derive(Clone, Debug)]
pub struct Log {
    view: Arc<LogView>,
    jobs: mpsc::Sender<Job>,
    room: Arc<Semaphore>,
    units: usize,
    broken: watch::Receiver<Option<String>>,
    ended_wall_nanos: Option<u64>,
}

/// Semaphores count in units of this many bytes.
const UNIT: usize = 1024;
/// Jobs that wait, whatever their size.
const JOBS: usize = 1024;

impl Log {
    /// Reads the book back from the store and starts the writer.
    pub fn open(
        store: Arc<dyn Store>,
        damage: &[Damage],
        limits: LogLimits,
    ) -> Result<(Self, JoinHandle<()>), StoreError> {
        let view = Arc::new(LogView::new(store)?);
        let (book, next) = Book::read(&view)?;
        let ended_wall_nanos = book.wall_nanos();
        let (jobs, received) = mpsc::channel(JOBS);
        let (broken_sender, broken) = watch::channel(None);
        let mut writer = Writer::new(Arc::clone(&view), (book, next), limits, broken_sender);
        for found in damage.iter().filter(|d| d.intact_behind) {
            writer.report(found)?;
        }
        let thread = std::thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || writer.run(received))
            .map_err(|e| StoreError::Failed {
                action: "start",
                place: "the log's writer".to_owned(),
                detail: e.to_string(),
            })?;
        let units = (limits.waiting_bytes / UNIT).max(1);
        let room = Arc::new(Semaphore::new(units));
        Ok((Self { view, jobs, room, units, broken, ended_wall_nanos }, thread))
    }

    /// For readers.
    #[must_use]
    pub fn view(&self) -> &Arc<LogView> {
        &self.view
    }

    /// The collector's clock when the log that was found was last written to, nanoseconds since 1970; `None`: there
    /// was none.
    #[must_use]
    pub fn ended_wall_nanos(&self) -> Option<u64> {
        self.ended_wall_nanos
    }

    /// Set, with the reason, when the log takes nothing any more.
    #[must_use]
    pub fn broken(&self) -> watch::Receiver<Option<String>> {
        self.broken.clone()
    }

    /// Hands a batch to the writer, waiting while too much waits already. The answer comes when the batch is
    /// durable.
    pub async fn append(
        &self,
        batch: Prepared,
    ) -> Result<oneshot::Receiver<Result<v1::AppendResponse, CommitError>>, CommitError> {
        // A batch larger than all the room gets through alone: message sizes bound it.
        let units = batch.bytes().div_ceil(UNIT).clamp(1, self.units);
        let permit = Arc::clone(&self.room)
            .acquire_many_owned(u32::try_from(units).unwrap_or(u32::MAX))
            .await
            .map_err(|_closed| CommitError::Closed)?;
        let (reply, answer) = oneshot::channel();
        self.send(Job::Batch(Box::new(batch), reply, permit)).await?;
        Ok(answer)
    }

    /// Writes an event; returns its position when it is durable.
    pub async fn event(&self, kind: EventKind) -> Result<u64, CommitError> {
        let (reply, answer) = oneshot::channel();
        let event = Event { wall_nanos: wall_nanos(), kind: Some(kind) };
        self.send(Job::Event(Box::new(event), reply)).await?;
        answer.await.map_err(|_dropped| CommitError::Closed)?
    }

    /// Ends the open segment.
    pub async fn seal(&self) -> Result<(), CommitError> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Seal(reply)).await?;
        answer.await.map_err(|_dropped| CommitError::Closed)?
    }

    /// Seals the open segment if it is old enough.
    pub async fn tick(&self) -> Result<(), CommitError> {
        self.send(Job::Tick).await
    }

    /// As [`Log::seal`], from a plain thread.
    pub fn seal_blocking(&self) -> Result<(), CommitError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.blocking_send(Job::Seal(reply)).map_err(|_closed| CommitError::Closed)?;
        answer.blocking_recv().map_err(|_dropped| CommitError::Closed)?
    }

    /// Lets the writer finish what waits, seal and end.
    pub async fn close(&self) {
        // Closed already is closed.
        self.jobs.send(Job::Close).await.ok();
    }

    async fn send(&self, job: Job) -> Result<(), CommitError> {
        self.jobs.send(job).await.map_err(|_closed| CommitError::Closed)
    }
}
