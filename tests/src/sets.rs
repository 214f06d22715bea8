//! Compares the three sets: what clients did, what the collector has, what the server's log saw.
//!
//! Exact both ways: nothing may be missing, nothing too many, nothing different. Every difference is
//! told, not only the first.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use verbatim_api::v1::{Operation, Protocol, Status};

use crate::{
    audit::Seen,
    did::{Did, ServerSaw, ids},
    pglog::{How, Logged},
};

/// Everything that does not fit.
#[derive(Debug, PartialEq, Eq)]
pub struct Differences(pub Vec<String>);

impl fmt::Display for Differences {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{} difference(s):", self.0.len())?;
        self.0.iter().try_for_each(|difference| writeln!(formatter, "  - {difference}"))
    }
}

impl std::error::Error for Differences {}

/// What the agent puts in the place of a refused statement, so that the server fails it itself.
const SUBSTITUTE: &str = "verbatim refused this statement";

/// Compares the three. Order within each does not matter, but for commands with the same id.
pub fn compare(did: &[Did], seen: &[Seen], logged: &[Logged]) -> Result<(), Differences> {
    let mut differences = Vec::new();
    by_id(did, seen, logged, &mut differences);
    let (substitutes, logged): (Vec<Logged>, Vec<Logged>) =
        logged.iter().cloned().partition(|one| one.text == SUBSTITUTE);
    let refused = seen.iter().filter(|one| one.status == Status::NotForwarded).count();
    if substitutes.len() > refused {
        differences.push(format!("{} substitutes for {refused} refused commands", substitutes.len()));
    }
    without_id(seen, &logged, &mut differences);
    if differences.is_empty() { Ok(()) } else { Err(Differences(differences)) }
}

fn by_id(did: &[Did], seen: &[Seen], logged: &[Logged], differences: &mut Vec<String>) {
    let mut did_by: BTreeMap<&str, Vec<&Did>> = BTreeMap::new();
    for one in did {
        did_by.entry(&one.id).or_default().push(one);
    }
    let mut seen_by: BTreeMap<&str, Vec<&Seen>> = BTreeMap::new();
    for one in seen {
        for id in &one.ids {
            seen_by.entry(id).or_default().push(one);
        }
    }
    let mut logged_by: BTreeMap<String, usize> = BTreeMap::new();
    for one in logged {
        for id in ids(one.text.as_bytes()) {
            *logged_by.entry(id).or_default() += 1;
        }
    }
    let all: BTreeSet<&str> = did_by
        .keys()
        .copied()
        .chain(seen_by.keys().copied())
        .chain(logged_by.keys().map(String::as_str))
        .collect();
    for id in all {
        let did = did_by.remove(id).unwrap_or_default();
        let mut seen = seen_by.remove(id).unwrap_or_default();
        seen.sort_by_key(|one| one.wall_nanos);
        if did.len() != seen.len() {
            differences.push(format!("{id}: done {} time(s), recorded {} time(s)", did.len(), seen.len()));
        }
        for (did, seen) in did.iter().zip(&seen) {
            one(id, did, seen, differences);
        }
        server_saw(id, &did, logged_by.get(id).copied().unwrap_or(0), differences);
    }
}

fn server_saw(id: &str, did: &[&Did], logged: usize, differences: &mut Vec<String>) {
    let least = did.iter().filter(|one| one.server == ServerSaw::It).count();
    let most = did.iter().filter(|one| one.server != ServerSaw::Nothing).count();
    if !(least..=most).contains(&logged) {
        differences
            .push(format!("{id}: the server's log has it {logged} time(s), expected {least} to {most}"));
    }
}

fn one(id: &str, did: &Did, seen: &Seen, differences: &mut Vec<String>) {
    let mut differ = |what: &str, expected: &dyn fmt::Debug, found: &dyn fmt::Debug| {
        differences.push(format!("{id}: {what} is {found:?}, expected {expected:?}"));
    };
    if did.principal != seen.principal {
        differ("principal", &did.principal, &seen.principal);
    }
    if did.operation != seen.operation {
        differ("operation", &did.operation, &seen.operation);
    }
    if let Some(statement) = did.statement.as_ref().filter(|statement| **statement != seen.statement) {
        differ("statement", &String::from_utf8_lossy(statement), &String::from_utf8_lossy(&seen.statement));
    }
    if did.status != seen.status {
        differ("status", &did.status, &seen.status);
    }
    if did.rows.is_some() && did.rows != seen.rows {
        differ("number of rows", &did.rows, &seen.rows);
    }
    if did.sqlstate.as_ref().is_some_and(|sqlstate| *sqlstate != seen.sqlstate) {
        differ("SQLSTATE", &did.sqlstate, &seen.sqlstate);
    }
    if did.status == Status::Ok && !matches!(seen.sqlstate.as_str(), "" | "00000") {
        differ("SQLSTATE of a success", &"", &seen.sqlstate);
    }
    if did.parameters.as_ref().is_some_and(|parameters| *parameters != seen.parameters) {
        differ("list of parameters", &did.parameters, &seen.parameters);
    }
    if did.method.as_ref().is_some_and(|method| *method != seen.method) {
        differ("method", &did.method, &seen.method);
    }
    if did.decision != seen.decision {
        differ("decision", &did.decision, &seen.decision);
    }
    if did.capture != seen.capture {
        differ("capture", &did.capture, &seen.capture);
    }
}

/// What clients send on their own account carries no id: their texts, each as often as the server has it.
fn without_id(seen: &[Seen], logged: &[Logged], differences: &mut Vec<String>) {
    let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for one in seen.iter().filter(|one| one.ids.is_empty() && one.protocol == Protocol::Postgresql) {
        if matches!(one.status, Status::NotForwarded | Status::NotExecuted) {
            continue;
        }
        let text = match one.operation {
            Operation::Query | Operation::Execute | Operation::Fetch => {
                String::from_utf8_lossy(&one.statement)
            }
            Operation::FunctionCall => {
                format!("function {}", one.attribute("function_oid").unwrap_or_default()).into()
            }
            // Not in the server's log of statements.
            _ => continue,
        };
        counts.entry(plain(&text)).or_default().0 += 1;
    }
    for one in logged.iter().filter(|one| one.how != How::Request) {
        let text = match one.how {
            How::FunctionCall => format!("function {}", one.text),
            _ => one.text.clone(),
        };
        if ids(text.as_bytes()).is_empty() {
            counts.entry(plain(&text)).or_default().1 += 1;
        }
    }
    // An empty query is a command, but the server logs none.
    counts.remove("");
    for (text, (recorded, logged)) in counts {
        if recorded != logged {
            differences
                .push(format!("without an id: recorded {recorded}, in the server's log {logged}: {text:?}"));
        }
    }
}

/// Texts are split off their message by the decoder, the log has messages: blanks and the closing
/// semicolon belong to neither.
fn plain(text: &str) -> String {
    text.trim().trim_end_matches(';').trim_end().to_owned()
}

#[cfg(test)]
#[path = "sets_tests.rs"]
mod tests;
