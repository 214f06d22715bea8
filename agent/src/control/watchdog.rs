//! Looks whether our programs are still what runs on the hooks; says so where they are not.

use std::{
    collections::BTreeSet,
    sync::{Arc, Weak},
    time::Duration,
};

use verbatim_api::v1::{self, CoverageEvent};
use verbatim_proxy::Shards;
use verbatim_steer::{HookReport, LostHook, Steering};

use super::health::Health;
use crate::worker::journal;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(2);

/// Watches until the programs are gone.
pub(crate) async fn watch(steering: Weak<Steering>, shards: Weak<Shards>, health: Arc<Health>) {
    let mut lost = BTreeSet::new();
    loop {
        tokio::time::sleep(LOOK).await;
        let report = match steering.upgrade() {
            None => return,
            Some(steering) if !steering.is_attached() => continue,
            Some(steering) => steering.check_hooks(),
        };
        let report = match report {
            Ok(report) => report,
            Err(error) => {
                tracing::error!(%error, "the hooks cannot be looked at");
                health.hooks_unknown();
                continue;
            }
        };
        let change = compare(&mut lost, &report);
        health.hooks(&report, change.lost.len(), change.restored.len());
        let Some(shards) = shards.upgrade() else { return };
        for one in &report.lost {
            if let Err(error) = &one.restored
                && change.lost.contains(&one.program)
            {
                tracing::error!(alert = "programs", program = one.program, %error, "it cannot be attached again");
            }
        }
        if !change.lost.is_empty() {
            let note = told(&report.lost, &change.lost);
            tracing::error!(alert = "programs", %note, "our programs do not run on their hooks");
            record(&shards, CoverageEvent::ProgramsLost, change.lost.len(), note).await;
        }
        if !change.restored.is_empty() {
            let note = change.restored.join(", ");
            tracing::warn!(%note, "our programs are attached again");
            record(&shards, CoverageEvent::ProgramsRestored, change.restored.len(), note).await;
        }
    }
}

/// What is new since the last look.
#[derive(Debug, Default, PartialEq, Eq)]
struct Change {
    lost: Vec<&'static str>,
    restored: Vec<&'static str>,
}

/// `lost` are the programs that do not run, before and after.
fn compare(lost: &mut BTreeSet<&'static str>, report: &HookReport) -> Change {
    let fresh: Vec<_> =
        report.lost.iter().map(|one| one.program).filter(|program| !lost.contains(program)).collect();
    let now: BTreeSet<_> =
        report.lost.iter().filter(|one| one.restored.is_err()).map(|one| one.program).collect();
    let restored = lost.iter().chain(&fresh).copied().filter(|program| !now.contains(program)).collect();
    *lost = now;
    Change { lost: fresh, restored }
}

fn told(all: &[LostHook], fresh: &[&'static str]) -> String {
    let fresh = all.iter().filter(|one| fresh.contains(&one.program));
    fresh.map(|one| format!("{}: {}", one.program, one.how)).collect::<Vec<_>>().join(", ")
}

async fn record(shards: &Shards, event: CoverageEvent, count: usize, note: String) {
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    let coverage = v1::Coverage { event: event.into(), count, ..v1::Coverage::default() };
    journal::covered(shards, coverage, Some(v1::Content { note, ..v1::Content::default() })).await;
}

#[cfg(test)]
mod tests {
    use verbatim_steer::{Loss, SteerError};

    use super::*;

    fn report(lost: &[(&'static str, bool)]) -> HookReport {
        let failed = || SteerError::Invalid { what: "hook".into(), cause: "taken".into() };
        let one = |&(program, restored): &(&'static str, bool)| LostHook {
            program,
            how: Loss::Detached,
            restored: if restored { Ok(()) } else { Err(failed()) },
        };
        HookReport { lost: lost.iter().map(one).collect(), ..HookReport::default() }
    }

    #[test]
    fn a_loss_is_told_once_and_its_end_once() {
        let mut lost = BTreeSet::new();
        let step = |lost: &mut BTreeSet<_>, found: &[_]| compare(lost, &report(found));
        let change = |lost: &[&'static str], restored: &[&'static str]| Change {
            lost: lost.to_vec(),
            restored: restored.to_vec(),
        };
        assert_eq!(step(&mut lost, &[]), change(&[], &[]));
        assert_eq!(step(&mut lost, &[("connect4", true)]), change(&["connect4"], &["connect4"]));
        assert_eq!(step(&mut lost, &[("connect4", false)]), change(&["connect4"], &[]));
        assert_eq!(step(&mut lost, &[("connect4", false), ("bind4", false)]), change(&["bind4"], &[]));
        // Brought back by us, and by itself.
        assert_eq!(step(&mut lost, &[("connect4", true)]), change(&[], &["bind4", "connect4"]));
        assert_eq!(step(&mut lost, &[]), change(&[], &[]));
    }
}
