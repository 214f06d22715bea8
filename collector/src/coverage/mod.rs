//! Whether every connection that the kernel counted is in a record: adds up by node, workload and
//! destination, and says where the sums disagree.
//!
//! The kernel numbers the connections of a series from 1, and each record carries its number. So what is
//! missing is known by its number, whatever came before and after. Knows no transport.

mod progress;
mod rows;
mod series;

use std::{collections::HashSet, sync::Arc};

use verbatim_api::v1::{self, ConnectOutcome};

use self::{
    progress::Progress,
    rows::{Rows, Who},
    series::{Sums, Window},
};
use crate::{
    index::{
        Index, IndexError,
        counts::{Reading, SeriesKey},
    },
    log::LogView,
    store::StoreError,
};

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// By node, workload and destination.
    pub(crate) rows: Vec<v1::CoverageRow>,
    /// Where the sums disagree.
    pub(crate) findings: Vec<v1::Finding>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CoverageError {
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The log.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Adds up.
///
/// # Errors
/// When the index or the log cannot be read.
pub(crate) fn add_up(
    index: &Arc<dyn Index>,
    view: &LogView,
    question: &v1::CoverageRequest,
) -> Result<Answer, CoverageError> {
    // In this order: what the chains have told is in the records that are asked for afterwards.
    let progress = Progress::new(index.chains()?);
    let readings = index.readings()?;
    let recorded = index.recorded()?;
    let with_records: HashSet<&SeriesKey> = recorded.iter().map(|(key, ..)| key).collect();
    let window = Window { since: question.from_wall_nanos, expired: view.oldest_position() > 0 };
    let mut rows = Rows::new(question);

    for of in readings.chunk_by(|a, b| a.key == b.key && a.outcome == b.outcome) {
        let Some(last) = of.last() else { continue };
        let outcome = ConnectOutcome::try_from(last.outcome).unwrap_or_default();
        let sums = match outcome {
            ConnectOutcome::Steered => series::steered(index, &progress, of, window)?,
            _ => series::others(outcome, of, window),
        };
        let of_records = outcome == ConnectOutcome::Steered && with_records.contains(&last.key);
        let who = || who(index, view, last, of_records);
        rows.add(&last.key, sums, Some(last), who)?;
    }
    let steered = readings.iter().filter(|one| one.outcome == i32::from(ConnectOutcome::Steered));
    let read: HashSet<&SeriesKey> = steered.map(|one| &one.key).collect();
    for (key, count, _) in &recorded {
        if read.contains(key) {
            continue;
        }
        if key.series == 0 {
            // Nobody has counted them: there is nothing to compare.
            let sums = Sums { uncounted: *count, ..Sums::default() };
            let node = || Ok(Who::node(&key.node));
            if window.since == 0 {
                rows.add(key, sums, None, node)?;
            }
            continue;
        }
        let Some(sample) = index.sample(key)? else { continue };
        let Some(who) = Who::read(view, &sample)? else { continue };
        if who.wall < window.since {
            continue;
        }
        let invented = index.older(key, 0, progress.would_have_counted(&who.chain))?;
        let sums = Sums { invented, ahead: count.saturating_sub(invented), ..Sums::default() };
        rows.add(key, sums, None, || Ok(who))?;
    }
    Ok(rows.finish())
}

/// Whose a series is: as the reading says, or where that could not name it, as its records do.
fn who(
    index: &Arc<dyn Index>,
    view: &LogView,
    last: &Reading,
    of_records: bool,
) -> Result<Who, CoverageError> {
    let counted = Who::read(view, &last.location)?;
    if let Some(who) = counted.as_ref().filter(|who| who.is_named() || !of_records) {
        return Ok(who.clone());
    }
    let sample = index.sample(&last.key)?;
    let recorded = sample.map(|at| Who::read(view, &at)).transpose()?.flatten();
    let named = recorded.filter(|who| who.is_named() || counted.is_none());
    Ok(named.or(counted).unwrap_or_else(|| Who::node(&last.key.node)))
}
