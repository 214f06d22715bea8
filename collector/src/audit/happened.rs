//! What agents tell of themselves, as answers.

use prost::Message as _;
use tonic::Status;
use verbatim_api::v1;

use super::{AuditParts, cursor, internal, invalid, view};
use crate::index::events::{EventQuery, EventRow};

/// One page.
pub(super) fn events(
    parts: &AuditParts,
    question: &v1::EventsRequest,
    rows: usize,
) -> Result<v1::EventsResponse, Status> {
    // The same question, whatever page of it is wanted.
    let same =
        v1::EventsRequest { page_size: 0, cursor: String::new(), at_least_position: 0, ..question.clone() };
    let bound = same.encode_to_vec();
    let after = cursor::decode(&question.cursor, &bound).map_err(invalid)?.map(i64::from_be_bytes);
    let query = EventQuery { after, limit: rows + 1, ..EventQuery::new(question) };
    let indexed_position = parts.index.position().map_err(internal)?;
    let found = parts.index.events(&query).map_err(internal)?;
    let more = found.len() > rows;
    let last = found.get(rows.saturating_sub(1)).filter(|_| more).map(|(row, _)| row.key);
    let mut events = Vec::with_capacity(found.len().min(rows));
    for (row, node) in found.into_iter().take(rows) {
        events.extend(event(parts, row, node)?);
    }
    Ok(v1::EventsResponse {
        events,
        next_cursor: last.map(|key| cursor::encode(&key.to_be_bytes(), &bound)).unwrap_or_default(),
        indexed_position,
        log_position: parts.view.next_position(),
    })
}

/// `None`: its record is not kept any more.
fn event(parts: &AuditParts, row: EventRow, node: String) -> Result<Option<v1::Event>, Status> {
    let found = view::record(&parts.view, Some(&row.location)).map_err(internal)?;
    Ok(found.map(|(envelope, content)| v1::Event {
        content_deleted: !envelope.content_sha256.is_empty() && content.is_none(),
        envelope: Some(envelope),
        content,
        node,
        principal: row.principal,
    }))
}
