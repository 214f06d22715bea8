//! The tables in the documentation that map each case to the test that proves it.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context as _, Result};

/// Documents that have such a table, below the workspace.
pub const DOCUMENTS: [&str; 2] = ["docs/architecture.md", "docs/threat-model.md"];

/// Heading under which the table stands.
pub const HEADING: &str = "## Cases and their tests";

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// What may happen.
    pub case: String,
    /// Names of the tests that prove what happens then.
    pub tests: Vec<String>,
}

/// Reads the table: columns `Case` and `Test` come first, test names in back-quotes, several where there are several.
#[must_use]
pub fn parse(document: &str) -> Vec<Case> {
    document
        .lines()
        .skip_while(|line| line.trim() != HEADING)
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .filter_map(|line| {
            let mut cells = line.trim().strip_prefix('|')?.split('|').map(str::trim);
            let (case, tests) = (cells.next()?, cells.next()?);
            // Every second piece between back-quotes is a name.
            let tests: Vec<String> = tests.split('`').skip(1).step_by(2).map(str::to_owned).collect();
            let ruler = case.chars().all(|c| matches!(c, '-' | ':' | ' '));
            (!ruler && case != "Case").then(|| Case { case: case.to_owned(), tests })
        })
        .collect()
}

/// Names of all test functions in the workspace's sources: `fn NAME` behind an attribute that says so, and
/// every `fn NAME` in a `tests` folder, whose harness may have no attributes; and `const TEST_NAME`, of what is
/// run as a whole and counts as one test.
pub fn functions(root: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for folder in ["agent", "agent-ebpf", "collector", "tests", "xtask"] {
        walk(&root.join(folder), &mut names)?;
    }
    Ok(names)
}

fn walk(folder: &Path, names: &mut BTreeSet<String>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target") {
                walk(&path, names)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let harness = path.components().any(|part| part.as_os_str() == "tests");
            collect(&source, harness, names);
        }
    }
    Ok(())
}

fn collect(source: &str, harness: bool, names: &mut BTreeSet<String>) {
    let mut test = harness;
    for line in source.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("const TEST_NAME: &str = \"") {
            names.insert(name.trim_end_matches("\";").to_owned());
        } else if line.starts_with("#[") && line.contains("test") && !line.contains("cfg(") {
            test = true;
        } else if let Some(rest) = line
            .trim_start_matches("pub(crate) ")
            .trim_start_matches("pub ")
            .trim_start_matches("async ")
            .strip_prefix("fn ")
        {
            if test && let Some((name, _)) = rest.split_once('(') {
                names.insert(name.to_owned());
            }
            test = harness;
        } else if !(line.starts_with("#[") || line.starts_with("//") || line.is_empty()) {
            test = harness;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{collect, parse};

    #[test]
    fn a_table_is_read_row_by_row() {
        let document = "# x\n| not | this |\n## Cases and their tests\n\ntext\n\n| Case | Test |\n|---|:--|\n\
            | a full disk | `one`, `two` |\n| no privileges | |\n\n## Next\n| Case | `other` |\n";
        let cases = parse(document);
        assert_eq!(cases.len(), 2);
        assert_eq!(cases[0].tests, ["one", "two"]);
        assert!(cases[1].tests.is_empty());
    }

    #[test]
    fn only_test_functions_count_as_tests() {
        let mut names = BTreeSet::new();
        collect(
            "#[test]\nfn a_test() {}\nfn helper() {}\n#[tokio::test(flavor = \"current_thread\")]\n#[ignore]\n\
             async fn another() {}\n#[cfg(test)]\nfn neither() {}\n\
             const TEST_NAME: &str = \"as_a_whole\";\nconst NAME: &str = \"no_test\";\n",
            false,
            &mut names,
        );
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["a_test", "another", "as_a_whole"]);
    }
}
