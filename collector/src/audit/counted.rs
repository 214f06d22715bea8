//! What the kernel counted beside what is recorded, as answers.

use tonic::Status;
use verbatim_api::v1;

use super::{AuditParts, internal};
use crate::coverage::add_up;

/// Disagreements that are listed as findings.
const MOST_FINDINGS: usize = 1_000;

/// One question.
pub(super) fn coverage(
    parts: &AuditParts,
    question: &v1::CoverageRequest,
) -> Result<v1::CoverageResponse, Status> {
    let indexed_position = parts.index.position().map_err(internal)?;
    let answer = add_up(&parts.index, &parts.view, question).map_err(internal)?;
    let log_position = parts.view.next_position();
    Ok(v1::CoverageResponse { rows: answer.rows, indexed_position, log_position })
}

/// Where the sums disagree now.
pub(super) fn findings(parts: &AuditParts) -> Result<Vec<v1::Finding>, Status> {
    let answer = add_up(&parts.index, &parts.view, &v1::CoverageRequest::default()).map_err(internal)?;
    Ok(answer.findings.into_iter().take(MOST_FINDINGS).collect())
}
