//! Commands as they come in.
//!
//! A tail reads the log behind the index, at its reader's pace: nothing is kept for a reader but the few
//! commands on their way to it. One that takes nothing for too long is told where to go on, and cut off.

use std::{pin::Pin, sync::Arc};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use verbatim_api::v1;

use super::{AuditParts, internal};
use crate::{
    index::{Change, Query, Role, project},
    log::{Follower, Step},
};

/// Commands on their way to one reader.
const ON_THE_WAY: usize = 64;
/// Commands read at once.
const AT_ONCE: usize = 256;

pub(super) type TailStream =
    Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::Command, Status>> + Send + 'static>>;

pub(super) fn start(parts: AuditParts, query: Query, include_started: bool, after: u64) -> TailStream {
    let (sender, receiver) = mpsc::channel(ON_THE_WAY);
    let tail = Tail {
        follower: Follower::new(Arc::clone(&parts.view), after),
        parts,
        query,
        include_started,
        after,
    };
    tokio::spawn(async move {
        if let Err(status) = Box::pin(tail.run(&sender)).await {
            // The reader may be gone, or as slow as before: it gets the reason as soon as there is room.
            sender.send(Err(status)).await.ok();
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}

struct Tail {
    parts: AuditParts,
    follower: Follower,
    query: Query,
    include_started: bool,
    /// Records before this position were seen.
    after: u64,
}

type Sender = mpsc::Sender<Result<v1::Command, Status>>;

impl Tail {
    async fn run(mut self, sender: &Sender) -> Result<(), Status> {
        let mut indexed = self.parts.indexed.clone();
        let mut draining = self.parts.draining.clone();
        loop {
            let up_to = *indexed.borrow_and_update();
            let (tail, commands) = tokio::task::spawn_blocking(move || {
                let commands = self.read(up_to);
                (self, commands)
            })
            .await
            .map_err(internal)?;
            self = tail;
            let commands = commands?;
            if commands.is_empty() && self.follower.position() >= up_to {
                tokio::select! {
                    changed = indexed.changed() => {
                        if changed.is_err() {
                            return Err(Status::unavailable("the collector is shutting down"));
                        }
                    }
                    _ = draining.wait_for(|d| *d) => {
                        return Err(Status::unavailable("the collector is shutting down"));
                    }
                    () = sender.closed() => return Ok(()),
                }
            }
            for command in commands {
                let position = command.position;
                match sender.send_timeout(Ok(command), self.parts.tail_patience).await {
                    Ok(()) => {}
                    Err(mpsc::error::SendTimeoutError::Closed(_)) => return Ok(()),
                    Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                        return Err(Status::resource_exhausted(format!(
                            "reader too slow: go on with after_position {}",
                            position.saturating_sub(1)
                        )));
                    }
                }
            }
        }
    }

    /// Commands that started or ended up to a position that the index has reached.
    fn read(&mut self, up_to: u64) -> Result<Vec<v1::Command>, Status> {
        let mut commands = Vec::new();
        while commands.len() < AT_ONCE && self.follower.position() < up_to {
            let Some(step) = self.follower.step().map_err(internal)? else { break };
            let Step::Batch { records, .. } = step else { continue };
            for raw in records.iter().filter(|r| r.location.position >= self.after) {
                for change in project(raw) {
                    if let Change::Command(part) = change
                        && (matches!(part.role, Role::Finished | Role::Ended)
                            || (part.role == Role::Started && self.include_started))
                    {
                        commands.extend(self.command(&part)?);
                    }
                }
            }
        }
        Ok(commands)
    }

    /// The command as it was when the record came.
    fn command(&self, part: &crate::index::Part) -> Result<Option<v1::Command>, Status> {
        let (row, _) = self.parts.index.command(&part.id, &self.query).map_err(internal)?;
        let Some(mut row) = row else {
            return Ok(None);
        };
        row.position = part.location.position;
        if part.role == Role::Started {
            row.finished = None;
            row.ended = None;
            row.status = v1::Status::Pending.into();
            row.duration = 0;
            row.decision = part.decision;
        }
        super::command(&self.parts, row).map(Some)
    }
}
