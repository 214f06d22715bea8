//! The Audit service: answers people's questions from the index and the log.
//!
//! A thin adapter: gRPC in and out, blocking work on threads made for it, a bounded number at a time. Owns
//! pages, cursors and waiting; knows no SQL.

mod counted;
mod cursor;
mod ended;
mod happened;
mod tail;
mod view;

use std::{sync::Arc, time::Duration};

use prost::Message as _;
use tokio::sync::{Semaphore, watch};
use tonic::{Request, Response, Status};
use verbatim_api::v1::{self, audit_server::Audit};

use crate::{
    index::{CommandRow, Id, Index, Query, Words},
    indexer::Outcomes,
    listen::peer_name,
    log::{Log, LogView, header::Deletion, header::EventKind},
};

/// Questions that work at the same time; more wait.
const AT_ONCE: usize = 8;
/// How long a question waits for the index, unless the caller's own deadline is shorter.
const PATIENCE: Duration = Duration::from_secs(30);
/// A page ends before it is larger than this, bytes, whatever its number of rows.
const PAGE_BYTES: usize = 3 << 20;
/// Rows of a page.
const PAGE_ROWS: u32 = 100;
const MAX_PAGE_ROWS: u32 = 1000;
/// Ids of one deletion.
const MAX_DELETIONS: usize = 10_000;

/// What the service needs.
#[derive(Clone, Debug)]
pub struct AuditParts {
    /// The log, for reading.
    pub view: Arc<LogView>,
    /// The log, for writing down deletions; `None` where nothing may be changed.
    pub log: Option<Log>,
    /// The index.
    pub index: Arc<dyn Index>,
    /// Up to where it has read.
    pub indexed: watch::Receiver<u64>,
    /// Outcomes of deletions.
    pub outcomes: Arc<Outcomes>,
    /// Set when the collector ends.
    pub draining: watch::Receiver<bool>,
    /// How long a tail's reader may take nothing before it is cut off.
    pub tail_patience: Duration,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct AuditService {
    parts: AuditParts,
    room: Arc<Semaphore>,
}

impl AuditService {
    /// The service.
    #[must_use]
    pub fn new(parts: AuditParts) -> Self {
        Self { parts, room: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Blocking work away from the threads that serve connections.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&AuditParts) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let permit = Arc::clone(&self.room).acquire_owned().await.map_err(internal)?;
        let parts = self.parts.clone();
        let worked = tokio::task::spawn_blocking(move || {
            let answer = work(&parts);
            drop(permit);
            answer
        });
        worked.await.map_err(internal)?
    }

    async fn wait_for(&self, position: u64) -> Result<(), Status> {
        let mut indexed = self.parts.indexed.clone();
        let reached = tokio::time::timeout(PATIENCE, indexed.wait_for(|p| *p >= position)).await;
        match reached {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Status::unavailable("the collector is shutting down")),
            Err(_) => Err(Status::deadline_exceeded(format!(
                "the index has read up to position {}, not yet up to {position}: ask again",
                *self.parts.indexed.borrow()
            ))),
        }
    }
}

fn internal(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}

/// A command with its records. That a connection was not decoded is known at its end: what opened it is
/// the session's, and without it the command would have no beginning.
fn command(parts: &AuditParts, mut row: CommandRow) -> Result<v1::Command, Status> {
    if row.is_connection() && row.started.is_none() {
        let locations = parts.index.locations(&row.id).map_err(internal)?;
        row.started = locations.into_iter().next().filter(|first| row.finished.as_ref() != Some(first));
    }
    view::command(&parts.view, &row).map_err(internal)
}

fn invalid(error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(error.to_string())
}

fn page_rows(asked: u32) -> Result<usize, Status> {
    match asked {
        0 => Ok(PAGE_ROWS as usize),
        1..=MAX_PAGE_ROWS => Ok(asked as usize),
        more => Err(invalid(format!("page size is {more}, at most {MAX_PAGE_ROWS} is possible"))),
    }
}

/// A question from a filter, with its checksum material for cursors.
fn question(filter: Option<v1::Filter>, oldest_first: bool) -> Result<(Query, Vec<u8>), Status> {
    let filter = filter.unwrap_or_default();
    let words = Words::parse(&filter.text).map_err(invalid)?;
    let mut bound = filter.encode_to_vec();
    bound.push(u8::from(oldest_first));
    Ok((Query { filter, words, oldest_first, ..Query::default() }, bound))
}

#[tonic::async_trait]
impl Audit for AuditService {
    async fn search(
        &self,
        request: Request<v1::SearchRequest>,
    ) -> Result<Response<v1::SearchResponse>, Status> {
        let request = request.into_inner();
        let rows = page_rows(request.page_size)?;
        let (mut query, bound) = question(request.filter, request.oldest_first)?;
        query.after = cursor::decode(&request.cursor, &bound).map_err(invalid)?.map(i64::from_be_bytes);
        query.limit = rows + 1;
        let wanted = match request.at_least_position {
            u64::MAX => self.parts.view.next_position(),
            wanted => wanted,
        };
        let query = Arc::new(query);
        let (found, indexed_position) = loop {
            self.wait_for(wanted).await?;
            let query = Arc::clone(&query);
            let answer = self.blocking(move |parts| parts.index.search(&query).map_err(internal)).await?;
            // Between waiting and reading the index may have been lost and begun anew.
            if answer.1 >= wanted {
                break answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let answer = self.blocking(move |parts| {
            let log_position = parts.view.next_position();
            let mut page =
                v1::SearchResponse { indexed_position, log_position, ..v1::SearchResponse::default() };
            let mut bytes = 0;
            let mut last: Option<i64> = None;
            for row in found {
                let key = row.key;
                let command = command(parts, row)?;
                bytes += command.encoded_len();
                // At least one, however large it is.
                if let Some(last) = last
                    && (page.commands.len() == rows || bytes > PAGE_BYTES)
                {
                    page.next_cursor = cursor::encode(&last.to_be_bytes(), &bound);
                    break;
                }
                last = Some(key);
                page.commands.push(command);
            }
            Ok(page)
        });
        answer.await.map(Response::new)
    }

    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        let id: Id = request
            .into_inner()
            .id
            .try_into()
            .map_err(|id: Vec<u8>| invalid(format!("id has {} bytes, expected 16", id.len())))?;
        let wanted = self.parts.view.next_position();
        let (row, indexed_position) = loop {
            let find =
                move |parts: &AuditParts| parts.index.command(&id, &Query::default()).map_err(internal);
            match self.blocking(find).await? {
                (Some(row), indexed) => break (row, indexed),
                // An index that is still being made does not know what the log does not hold.
                (None, indexed) if indexed < wanted => {
                    self.wait_for(wanted).await?;
                    // As in a search it may have been lost meanwhile.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                (None, _) => {
                    return Err(Status::not_found(format!("no command {}", crate::log::hex(&id))));
                }
            }
        };
        let answer = self.blocking(move |parts| {
            let log_position = parts.view.next_position();
            let mut entries = Vec::new();
            // By position, which is chain order: a chain's entries are stored as they come.
            for location in parts.index.locations(&id).map_err(internal)? {
                match parts.view.entry(&location) {
                    Ok((envelope, content)) => entries.push(v1::Entry { envelope, content }),
                    Err(crate::store::StoreError::Gone { .. }) => {}
                    Err(e) => return Err(internal(e)),
                }
            }
            let command = command(parts, row)?;
            Ok(v1::GetResponse { command: Some(command), entries, indexed_position, log_position })
        });
        answer.await.map(Response::new)
    }

    type TailStream = tail::TailStream;

    async fn tail(&self, request: Request<v1::TailRequest>) -> Result<Response<Self::TailStream>, Status> {
        let request = request.into_inner();
        let (query, _) = question(request.filter, true)?;
        let after = match request.after_position {
            0 => *self.parts.indexed.borrow(),
            after => after + 1,
        };
        let oldest = self.parts.view.oldest_position();
        if after < oldest {
            return Err(Status::out_of_range(format!(
                "position {} is not kept any more: the oldest one is {oldest}",
                after.saturating_sub(1)
            )));
        }
        Ok(Response::new(tail::start(self.parts.clone(), query, request.include_started, after)))
    }

    async fn sessions(
        &self,
        request: Request<v1::SessionsRequest>,
    ) -> Result<Response<v1::SessionsResponse>, Status> {
        let request = request.into_inner();
        let rows = page_rows(request.page_size)?;
        let (mut query, bound) = question(request.filter, false)?;
        query.after = cursor::decode(&request.cursor, &bound).map_err(invalid)?.map(i64::from_be_bytes);
        query.limit = rows + 1;
        let answer = self.blocking(move |parts| {
            let (found, indexed_position) = parts.index.sessions(&query).map_err(internal)?;
            let log_position = parts.view.next_position();
            let sessions = found.iter().take(rows).map(|s| view::session(&parts.view, s));
            let sessions = sessions.collect::<Result<Vec<_>, _>>().map_err(internal)?;
            let more = found.len() > rows;
            let last = found.get(rows.saturating_sub(1)).filter(|_| more).map(|s| s.row.key);
            let next_cursor = last.map(|k| cursor::encode(&k.to_be_bytes(), &bound)).unwrap_or_default();
            Ok(v1::SessionsResponse { sessions, next_cursor, indexed_position, log_position })
        });
        answer.await.map(Response::new)
    }

    async fn findings(
        &self,
        request: Request<v1::FindingsRequest>,
    ) -> Result<Response<v1::FindingsResponse>, Status> {
        let request = request.into_inner();
        let rows = page_rows(request.page_size)?;
        let after = match cursor::decode::<12>(&request.cursor, b"findings").map_err(invalid)? {
            None => (0, 0),
            Some(place) => {
                let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |n, b| n << 8 | u64::from(*b));
                (number(&place[..8]), number(&place[8..]) as u32)
            }
        };
        let answer = self.blocking(move |parts| {
            let (found, mut indexed_position) = parts.index.findings(after, rows + 1).map_err(internal)?;
            let log_position = parts.view.next_position();
            let last = found.get(rows.saturating_sub(1)).filter(|_| found.len() > rows).map(|(at, _)| *at);
            let next_cursor = last.map(|(position, ordinal)| {
                let place = [&position.to_be_bytes()[..], &ordinal.to_be_bytes()].concat();
                cursor::encode(&place, b"findings")
            });
            let mut findings: Vec<_> = found.into_iter().take(rows).map(|(_, finding)| finding).collect();
            if next_cursor.is_none() {
                // Last, because they are worked out now and have no place in the log.
                findings.extend(counted::findings(parts)?);
                // They are of a later state, which knows less where the index was lost in between.
                indexed_position = indexed_position.min(parts.index.position().map_err(internal)?);
            }
            let next_cursor = next_cursor.unwrap_or_default();
            Ok(v1::FindingsResponse { findings, next_cursor, indexed_position, log_position })
        });
        answer.await.map(Response::new)
    }

    async fn coverage(
        &self,
        request: Request<v1::CoverageRequest>,
    ) -> Result<Response<v1::CoverageResponse>, Status> {
        let question = request.into_inner();
        let wanted = match question.at_least_position {
            u64::MAX => self.parts.view.next_position(),
            wanted => wanted,
        };
        self.wait_for(wanted).await?;
        self.blocking(move |parts| counted::coverage(parts, &question)).await.map(Response::new)
    }

    async fn events(
        &self,
        request: Request<v1::EventsRequest>,
    ) -> Result<Response<v1::EventsResponse>, Status> {
        let question = request.into_inner();
        let rows = page_rows(question.page_size)?;
        let wanted = match question.at_least_position {
            u64::MAX => self.parts.view.next_position(),
            wanted => wanted,
        };
        self.wait_for(wanted).await?;
        self.blocking(move |parts| happened::events(parts, &question, rows)).await.map(Response::new)
    }

    async fn delete_content(
        &self,
        request: Request<v1::DeleteContentRequest>,
    ) -> Result<Response<v1::DeleteContentResponse>, Status> {
        let peer = peer_name(&request);
        let v1::DeleteContentRequest { ids, reason } = request.into_inner();
        let Some(log) = &self.parts.log else {
            return Err(Status::failed_precondition(
                "this data is open for reading only: start a collector on it to delete contents",
            ));
        };
        if reason.trim().is_empty() {
            return Err(invalid("a deletion needs a reason: it is written into the log"));
        }
        if ids.is_empty() || ids.len() > MAX_DELETIONS {
            return Err(invalid(format!("{} ids: name 1 to {MAX_DELETIONS}", ids.len())));
        }
        if let Some(id) = ids.iter().find(|id| id.len() != 16) {
            return Err(invalid(format!("id has {} bytes, expected 16", id.len())));
        }
        let deletion = Deletion { ids, peer, reason };
        let position = log.event(EventKind::Deletion(deletion)).await.map_err(|e| commit_status(&e))?;
        self.wait_for(position + 1).await?;
        let deleted = self.parts.outcomes.take(position).ok_or_else(|| {
            internal("the deletion was carried out, but its number of contents is lost: ask for the commands")
        })?;
        Ok(Response::new(v1::DeleteContentResponse { deleted }))
    }
}

/// A failed write as gRPC says it.
pub(crate) fn commit_status(error: &crate::log::CommitError) -> Status {
    use crate::log::CommitError::{Broken, Closed, Foreign, Full};
    match error {
        Foreign { .. } => Status::permission_denied(error.to_string()),
        Full(_) => Status::resource_exhausted(error.to_string()),
        Broken(_) | Closed => Status::unavailable(error.to_string()),
    }
}
