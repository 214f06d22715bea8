//! Records against what clients did and what servers logged: none lost, none invented, none under the wrong
//! name.
//!
//! A client that lost its connection does not know what became of its last command; the server's log does. So
//! of each command it is known exactly what must be recorded, whatever was killed meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use verbatim_api::v1::Status;

use super::load::{Command, Told};
use crate::{audit::Seen, network::Pod};

/// How often servers logged each id.
pub type Logged = BTreeMap<String, usize>;

/// How many of them there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Commands with an answer.
    pub answered: usize,
    /// Commands whose connection went away.
    pub lost: usize,
    /// Of these, recorded as of unknown outcome.
    pub unknown: usize,
}

/// What is to be said of a round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// How many commands there were.
    pub counts: Counts,
    /// Everything that does not fit, a line each.
    pub wrong: Vec<String>,
    /// Commands of unknown outcome that no server has seen yet: the kernel may still have them on their way.
    pub on_the_way: BTreeSet<String>,
}

/// Judges a round.
pub fn judge(told: &Told, seen: &[Seen], logged: &Logged, principal: impl Fn(Pod) -> String) -> Judgement {
    let Judgement { mut counts, mut wrong, mut on_the_way } = Judgement::default();
    let mut recorded: BTreeMap<&str, Vec<&Seen>> = BTreeMap::new();
    for one in seen {
        match one.ids.as_slice() {
            [id] => recorded.entry(id).or_default().push(one),
            ids => wrong.push(format!("recorded with the ids {ids:?}")),
        }
    }
    let ids: BTreeSet<&str> =
        told.keys().chain(logged.keys()).map(String::as_str).chain(recorded.keys().copied()).collect();
    for id in ids {
        let records = recorded.get(id).map(Vec::as_slice).unwrap_or_default();
        let times = logged.get(id).copied().unwrap_or(0);
        let Some(command) = told.get(id) else {
            wrong.push(format!(
                "{id}: nobody did it; recorded {} time(s), logged {times} time(s)",
                records.len()
            ));
            continue;
        };
        match command.answered {
            true => counts.answered += 1,
            false => counts.lost += 1,
        }
        let unknown = records.iter().filter(|one| one.status == Status::OutcomeUnknown).count();
        counts.unknown += unknown;
        if unknown > 0 && times == 0 {
            on_the_way.insert(id.to_owned());
        }
        if let Some(reason) = one(command, records, times, &principal(command.pod)) {
            wrong.push(format!("{id}: {reason}"));
        }
    }
    Judgement { counts, wrong, on_the_way }
}

fn one(command: &Command, records: &[&Seen], logged: usize, principal: &str) -> Option<String> {
    let (answered, many) = (command.answered, records.len());
    if logged > 1 || answered && logged == 0 {
        return Some(format!("answered: {answered}, but the server logged it {logged} time(s)"));
    }
    let record = match records {
        [] if logged == 0 => return None,
        [] => return Some(format!("lost: answered: {answered}, logged {logged} time(s), not recorded")),
        [record] => record,
        _ => return Some(format!("recorded {many} times")),
    };
    if record.principal != principal {
        return Some(format!("recorded under {}", record.principal));
    }
    if let Some(statement) = command.statement.as_ref().filter(|text| text.as_bytes() != record.statement) {
        let found = String::from_utf8_lossy(&record.statement);
        return Some(format!("recorded as {found:.200}, but it was {statement:.200}"));
    }
    match (answered, record.status) {
        (true, Status::Ok) => None,
        (false, Status::OutcomeUnknown) => None,
        // The answer was on its way.
        (false, Status::Ok) if logged == 1 => None,
        (_, status) => Some(format!(
            "answered: {answered}, logged {logged} time(s), recorded as {}",
            status.as_str_name()
        )),
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
