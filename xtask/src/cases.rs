//! Holds the tables of cases in the documentation against what ran: a case whose test did not run is a
//! case that nobody proved, however long its name stands in the table.

use std::collections::BTreeMap;

use crate::tally::{Ending, Tally};

/// Documents that have such a table, below the workspace.
pub(crate) const DOCUMENTS: [&str; 2] = ["docs/architecture.md", "docs/threat-model.md"];

/// Heading under which the table stands, with the columns `Case` and `Test`.
const HEADING: &str = "## Cases and their tests";

/// How every test ended that ran, by the last part of its name.
#[derive(Default)]
pub(crate) struct Ran(BTreeMap<String, Ending>);

impl Ran {
    pub(crate) fn add(&mut self, name: &str, ending: Ending) {
        let name = name.rsplit("::").next().unwrap_or(name);
        self.0.insert(name.to_owned(), ending);
    }

    /// One test for each row: passed when all its tests passed, skipped when one of them was, else failed.
    /// The second value says what is wrong.
    pub(crate) fn check(&self, name: &str, document: &str) -> (Tally, Vec<String>) {
        let mut tally = Tally::default();
        let mut wrong = Vec::new();
        let rows = rows(document);
        if rows.is_empty() {
            tally.failed = 1;
            wrong.push(format!("{name} has no table under `{HEADING}`"));
        }
        for (case, tests) in rows {
            let absent: Vec<&str> =
                tests.iter().copied().filter(|test| !self.0.contains_key(*test)).collect();
            let ended = |ending| tests.iter().any(|test| self.0.get(*test) == Some(&ending));
            if tests.is_empty() {
                tally.failed += 1;
                wrong.push(format!("the case `{case}` names no test"));
            } else if !absent.is_empty() {
                tally.failed += 1;
                wrong.push(format!("the case `{case}` names a test that did not run: {}", absent.join(", ")));
            } else if ended(Ending::Failed) {
                // The test itself is counted as failed already.
                wrong.push(format!("the case `{case}` does not hold"));
            } else if ended(Ending::Skipped) {
                tally.skipped += 1;
            } else {
                tally.passed += 1;
            }
        }
        (tally, wrong)
    }
}

/// The rows: the case, and the names between back-quotes in the column beside it.
fn rows(document: &str) -> Vec<(&str, Vec<&str>)> {
    let section = document.lines().skip_while(|line| line.trim() != HEADING).skip(1);
    section
        .take_while(|line| !line.starts_with("## "))
        .filter_map(|line| {
            let mut cells = line.trim().strip_prefix('|')?.split('|').map(str::trim);
            let (case, tests) = (cells.next()?, cells.next()?);
            let ruler = case.chars().all(|c| matches!(c, '-' | ':' | ' '));
            (!ruler && case != "Case").then(|| (case, tests.split('`').skip(1).step_by(2).collect()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "# A\n\n## Cases and their tests\n\n| Case | Test |\n|---|---|\n| garbage | `a`, `b` |\n\
                         | reset | `c` |\n\n## Other\n| x | `y` |\n";

    fn ran(endings: &[(&str, Ending)]) -> Ran {
        let mut ran = Ran::default();
        endings.iter().for_each(|(name, ending)| ran.add(name, *ending));
        ran
    }

    #[test]
    fn a_case_counts_when_all_its_tests_passed() {
        let ran = ran(&[("m::a", Ending::Passed), ("b", Ending::Passed), ("c", Ending::Skipped)]);
        let (tally, wrong) = ran.check("cases.md", TABLE);
        assert_eq!(tally, Tally { passed: 1, failed: 0, skipped: 1 });
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    #[test]
    fn a_case_whose_test_did_not_run_is_a_failure_by_name() {
        let (tally, wrong) = ran(&[("a", Ending::Passed), ("c", Ending::Passed)]).check("cases.md", TABLE);
        assert_eq!(tally, Tally { passed: 1, failed: 1, skipped: 0 });
        assert!(wrong[0].contains("garbage") && wrong[0].ends_with(": b"), "{wrong:?}");
    }

    #[test]
    fn a_document_without_the_table_is_a_failure() {
        assert_eq!(Ran::default().check("cases.md", "# A\n").0.failed, 1);
    }
}
