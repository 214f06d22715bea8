//! Checks the tables of cases in the documentation against the tests that there are.

use std::{collections::HashMap, fs, path::Path};

use anyhow::{Context as _, Result, bail};
use verbatim_tests::{
    cases::{DOCUMENTS, functions, parse},
    parts::Part,
};

/// What becomes of a scenario in this run.
pub(crate) struct State {
    /// Its name.
    pub(crate) name: &'static str,
    /// Why it cannot run here.
    pub(crate) missing: Option<(Part, String)>,
}

/// Every case names at least one test; each exists, and the lab's own are part of this run unless the
/// person who started it chose some of them.
pub(crate) fn check(states: &[State], filtered: bool) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace has no folder")?;
    let mut cases = Vec::new();
    for name in DOCUMENTS {
        let document = root.join(name);
        let text =
            fs::read_to_string(&document).with_context(|| format!("cannot read {}", document.display()))?;
        let found = parse(&text);
        if found.is_empty() {
            bail!("{} has no table of cases", document.display());
        }
        cases.extend(found.into_iter().map(|case| (name, case)));
    }
    let own: HashMap<&str, &State> = states.iter().map(|state| (state.name, state)).collect();
    let others = functions(root)?;
    let mut wrong = Vec::new();
    for (document, case) in &cases {
        if case.tests.is_empty() {
            wrong.push(format!("{document}: {:?} names no test", case.case));
        }
        for test in &case.tests {
            match own.get(test.as_str()) {
                // Required parts that are missing fail by themselves.
                Some(State { missing: Some((_, reason)), .. }) if !filtered => {
                    println!("{:?}: {test} does not run here: {reason}", case.case);
                }
                Some(_) => {}
                None if others.contains(test.rsplit("::").next().unwrap_or(test)) => {}
                None => {
                    wrong.push(format!(
                        "{document}: {:?} names {test}, which does not exist or is ignored",
                        case.case
                    ));
                }
            }
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("; "));
    }
    Ok(())
}
