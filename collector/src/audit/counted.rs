//! What the kernel counted beside what is recorded, as answers.

use tonic::Status;
use verbatim_api::v1;

use super::{AuditParts, ended, internal};
use crate::{coverage::add_up, log::wall_nanos};

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

/// Where the sums disagree now, and chains whose end nobody knows.
pub(super) fn findings(parts: &AuditParts) -> Result<Vec<v1::Finding>, Status> {
    let answer = add_up(&parts.index, &parts.view, &v1::CoverageRequest::default()).map_err(internal)?;
    let chains = parts.index.chains().map_err(internal)?;
    let ended = ended::unknown(&chains, parts.view.oldest_position(), wall_nanos());
    Ok(answer.findings.into_iter().chain(ended).take(MOST_FINDINGS).collect())
}
