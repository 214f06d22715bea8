//! Sums up what test runs said of themselves. Reads the two kinds of line that libtest and libtest-mimic
//! print: one for each test, and the closing one. A run that prints no closing line did not end well.

use std::fmt;

/// How one test ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    Passed,
    Failed,
    Skipped,
}

/// Counts over any number of runs.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// The same, where this many of those that passed did nothing.
    pub(crate) fn without_skipped(self, skipped: u64) -> Self {
        let skipped = skipped.min(self.passed);
        Self { passed: self.passed - skipped, skipped: self.skipped + skipped, ..self }
    }

    /// What a run's output adds up to, its closing lines only. A run that failed without saying which test
    /// did counts as one failure: a crash must not look like nothing.
    pub(crate) fn of_run(output: &str, ended_well: bool) -> Self {
        let mut sum = Self::default();
        let mut closed = false;
        for line in output.lines() {
            if let Some(one) = Self::of_closing_line(line) {
                sum.add(one);
                closed = true;
            }
        }
        if (!closed || !ended_well) && sum.failed == 0 {
            sum.failed = 1;
        }
        sum
    }

    /// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`
    fn of_closing_line(line: &str) -> Option<Self> {
        let counts = line.trim().strip_prefix("test result: ")?.split_once(". ")?.1;
        let count = |what: &str| {
            counts.split(';').find_map(|part| part.trim().strip_suffix(what)?.trim().parse::<u64>().ok())
        };
        Some(Self { passed: count("passed")?, failed: count("failed")?, skipped: count("ignored")? })
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// What `verbatim_missing::skip` writes among the errors, before the test's name and the reason.
const SKIPPED: &str = "SKIPPED ";

/// The test that a line says did nothing: its harness takes it for one that passed.
pub(crate) fn of_skip_line(line: &str) -> Option<&str> {
    let (name, reason) = line.strip_prefix(SKIPPED)?.split_once(": ")?;
    (!name.contains(char::is_whitespace) && !reason.is_empty()).then_some(name)
}

/// The test that a line is about, and how it ended: `test records::are_kept ... ok`, with or without the kind
/// that libtest-mimic puts before the name (`test [lab] psql ... ignored`).
pub(crate) fn of_test_line(line: &str) -> Option<(&str, Ending)> {
    let (name, ending) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let ending = match ending.split([',', ' ', '(']).next()? {
        "ok" => Ending::Passed,
        "ignored" => Ending::Skipped,
        "FAILED" => Ending::Failed,
        _ => return None,
    };
    let name = name.strip_prefix('[').and_then(|rest| rest.rsplit_once("] ")).map_or(name, |(_, name)| name);
    let name = name.split_once(" - ").map_or(name, |(name, _)| name);
    Some((name.trim(), ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOSING: &str =
        "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0s";

    #[test]
    fn closing_lines_of_a_run_are_summed_up() {
        let output = format!("running 4 tests\n{CLOSING}\nDoc-tests\n{CLOSING}\n");
        assert_eq!(Tally::of_run(&output, true), Tally { passed: 6, failed: 0, skipped: 2 });
        assert_eq!(Tally::of_run(&output, true).to_string(), "6 passed, 0 failed, 2 skipped");
    }

    #[test]
    fn a_run_without_a_closing_line_is_a_failure() {
        assert_eq!(Tally::of_run("running 4 tests\n", true).failed, 1);
        assert_eq!(Tally::of_run("", false).failed, 1);
    }

    #[test]
    fn a_run_that_ends_badly_after_a_good_closing_line_is_a_failure() {
        assert_eq!(Tally::of_run(CLOSING, false), Tally { passed: 3, failed: 1, skipped: 1 });
    }

    #[test]
    fn a_unit_test_that_did_nothing_counts_as_skipped() {
        let line = "SKIPPED authority::tests::clients::java: java is not on this machine";
        assert_eq!(of_skip_line(line), Some("authority::tests::clients::java"));
        for other in
            ["SKIPPED advisories", "SKIPPED Linux 6.1 in qemu: no kernel", "test a ... ok", "SKIPPED a: "]
        {
            assert_eq!(of_skip_line(other), None, "{other}");
        }
        let tally = Tally::of_run(CLOSING, true);
        assert_eq!(tally.without_skipped(2), Tally { passed: 1, failed: 0, skipped: 3 });
        assert_eq!(tally.without_skipped(9), Tally { passed: 0, failed: 0, skipped: 4 });
    }

    #[test]
    fn a_failed_run_is_counted_once() {
        let output = "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(Tally::of_run(output, false), Tally { passed: 1, failed: 2, skipped: 0 });
    }

    #[test]
    fn test_lines_of_both_harnesses_name_the_test_and_its_ending() {
        assert_eq!(of_test_line("test frame::splits ... ok"), Some(("frame::splits", Ending::Passed)));
        assert_eq!(of_test_line("test [lab] psql ... ignored"), Some(("psql", Ending::Skipped)));
        assert_eq!(of_test_line("test a ... ignored, no BPF"), Some(("a", Ending::Skipped)));
        assert_eq!(of_test_line("test b - should panic ... FAILED"), Some(("b", Ending::Failed)));
        assert_eq!(of_test_line("test result: ok. 3 passed"), None);
        assert_eq!(of_test_line("running 3 tests"), None);
    }
}
