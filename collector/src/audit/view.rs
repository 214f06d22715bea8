//! Makes answers for people from rows and from the records that they point to.

use prost::Message as _;
use verbatim_api::v1::{self, Operation};

use crate::{
    index::{CommandRow, SessionSummary},
    log::{Location, LogView},
    store::StoreError,
};

/// A record, decoded. `None` where it is not kept any more.
pub(super) fn record(
    view: &LogView,
    at: Option<&Location>,
) -> Result<Option<(v1::Envelope, Option<v1::Content>)>, StoreError> {
    let Some(at) = at else { return Ok(None) };
    let (envelope, content) = match view.entry(at) {
        Ok(entry) => entry,
        Err(StoreError::Gone { .. }) => return Ok(None),
        Err(e) => return Err(e),
    };
    let content = if content.is_empty() { None } else { v1::Content::decode(content).ok() };
    Ok(v1::Envelope::decode(envelope).ok().map(|envelope| (envelope, content)))
}

/// A command from its row.
pub(super) fn command(view: &LogView, row: &CommandRow) -> Result<v1::Command, StoreError> {
    let started = record(view, row.started.as_ref())?;
    let finished = record(view, row.finished.as_ref())?;
    let ended = record(view, row.ended.as_ref())?;
    let gone = |r: &Option<(v1::Envelope, Option<v1::Content>)>| {
        r.as_ref().is_some_and(|(e, c)| !e.content_sha256.is_empty() && c.is_none())
    };
    let content_deleted = row.content_gone || gone(&started) || gone(&finished) || gone(&ended);
    let (mut started, started_content) = started.map_or((None, None), |(e, c)| (Some(e), c));
    let (mut finished, finished_content) = finished.map_or((None, None), |(e, c)| (Some(e), c));
    let (ended, ended_content) = ended.map_or((None, None), |(e, c)| (Some(e), c));
    if row.is_connection() {
        // A connection's records say nothing of an operation; as a command it has one.
        for envelope in [&mut started, &mut finished].into_iter().flatten() {
            envelope.operation = Operation::Connect.into();
        }
    }
    Ok(v1::Command {
        id: row.id.to_vec(),
        started,
        started_content,
        finished,
        finished_content,
        decision: row.decision,
        status: row.status,
        duration_nanos: row.duration,
        position: row.position,
        principal: row.names.principal.clone(),
        content_deleted,
        ended,
        ended_content,
    })
}

/// A connection from its row.
pub(super) fn session(view: &LogView, summary: &SessionSummary) -> Result<v1::Session, StoreError> {
    let row = &summary.row;
    let opened = record(view, row.opened.as_ref())?;
    let closed = record(view, row.closed.as_ref())?;
    let parts = || closed.iter().chain(&opened);
    let content = || parts().filter_map(|(_, c)| c.as_ref());
    Ok(v1::Session {
        flow_id: row.flow.to_vec(),
        principal: row.names.principal.clone(),
        workload: opened.iter().chain(&closed).find_map(|(e, _)| e.workload.clone()),
        target: content().find_map(|c| c.target.clone()),
        client: content().find_map(|c| c.client.clone()),
        protocol: row.protocol,
        capture: row.capture,
        opaque_reason: parts().map(|(e, _)| e.opaque_reason).find(|r| *r != 0).unwrap_or_default(),
        opened_wall_nanos: row.opened_wall,
        closed_wall_nanos: row.closed_wall,
        commands: summary.commands,
        errors: summary.errors,
        denied: summary.denied,
        bytes_sent: row.bytes_sent,
        bytes_received: row.bytes_received,
        tls: content().find_map(|c| c.tls.clone()),
    })
}
