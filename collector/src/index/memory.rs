//! An index without a file: every question looks at every row. Obviously right, and the measure for others.

mod counts;
mod events;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use verbatim_api::v1::{self, Status};

use super::{
    Batch, Change, CommandRow, FindingRow, Id, Index, IndexError, Names, Query, SessionRow, SessionSummary,
    events::EventRow,
    row::{finding_bits, wanted_key},
};
use crate::log::Location;

/// See the module.
#[derive(Debug, Default)]
pub struct MemoryIndex(Mutex<Tables>);

#[derive(Debug, Default)]
struct Tables {
    position: u64,
    commands: BTreeMap<i64, CommandRow>,
    keys: HashMap<Id, i64>,
    texts: HashMap<Id, String>,
    sessions: BTreeMap<i64, SessionRow>,
    session_keys: HashMap<Id, i64>,
    extras: HashMap<Id, Vec<Location>>,
    events: BTreeMap<i64, EventRow>,
    event_keys: HashMap<Id, i64>,
    findings: BTreeMap<(u64, u32), v1::Finding>,
    counted: counts::Counted,
}

impl MemoryIndex {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn free_key<T>(taken: &BTreeMap<i64, T>, wall: u64) -> i64 {
    let mut key = wanted_key(wall);
    while taken.contains_key(&key) {
        key += 1;
    }
    key
}

impl Tables {
    fn remove(&mut self, id: &Id) {
        if let Some(key) = self.keys.remove(id) {
            self.commands.remove(&key);
        }
        if let Some(key) = self.session_keys.remove(id) {
            self.sessions.remove(&key);
        }
        if let Some(key) = self.event_keys.remove(id) {
            self.events.remove(&key);
        }
        self.texts.remove(id);
        self.extras.remove(id);
    }

    fn change(&mut self, change: &Change) {
        match change {
            Change::Command(part) => {
                let known = self.keys.get(&part.id).and_then(|k| self.commands.get(k)).cloned();
                let mut row = known.unwrap_or_else(|| CommandRow::new(part.id));
                let own = row.merge(part);
                if row.key == 0 {
                    row.key = free_key(&self.commands, row.wall);
                    self.keys.insert(row.id, row.key);
                }
                if let Some(text) = part.text.as_ref().filter(|_| own) {
                    self.texts.insert(part.id, text.clone());
                }
                if !own && part.role != super::Role::Decided {
                    self.extras.entry(part.id).or_default().push(part.location);
                }
                self.commands.insert(row.key, row);
            }
            Change::Session(part) => {
                let known = self.session_keys.get(&part.flow).and_then(|k| self.sessions.get(k)).cloned();
                let mut row =
                    known.unwrap_or_else(|| SessionRow { flow: part.flow, ..SessionRow::default() });
                let own = row.merge(part);
                if row.key == 0 {
                    row.key = free_key(&self.sessions, row.opened_wall);
                    self.session_keys.insert(row.flow, row.key);
                }
                if !own {
                    self.extras.entry(part.flow).or_default().push(part.location);
                }
                self.sessions.insert(row.key, row);
            }
            Change::Chain(part) => self.counted.chain(part),
            Change::Reading(reading) => self.counted.reading(reading),
            Change::Event(row) => {
                let known = self.event_keys.get(&row.id).copied();
                let key = known.unwrap_or_else(|| free_key(&self.events, row.wall));
                self.event_keys.insert(row.id, key);
                let before = self.events.insert(key, EventRow { key, ..EventRow::clone(row) });
                if let Some(before) = before.filter(|before| before.location != row.location) {
                    self.extras.entry(row.id).or_default().push(before.location);
                }
            }
            Change::Extra(owner, location) => self.extras.entry(*owner).or_default().push(*location),
            Change::Finding { position, finding } => {
                let ordinal = self.findings.range((*position, 0)..=(*position, u32::MAX)).count() as u32 + 1;
                self.findings.insert((*position, ordinal), finding.clone());
            }
        }
    }

    fn matches(&self, row: &CommandRow, query: &Query) -> bool {
        let f = &query.filter;
        of_names(&row.names, f)
            && (f.from_wall_nanos == 0 || row.wall >= f.from_wall_nanos)
            && (f.to_wall_nanos == 0 || row.wall < f.to_wall_nanos)
            && (f.flow_id.is_empty() || row.flow == f.flow_id)
            && (f.parent_command_id.is_empty() || row.parent == f.parent_command_id)
            && among(&f.captures, row.capture)
            && self.matches_deed(row, query)
    }

    fn matches_deed(&self, row: &CommandRow, query: &Query) -> bool {
        let f = &query.filter;
        among(&f.operations, row.operation)
            && among(&f.decisions, row.decision)
            && among(&f.statuses, row.status)
            && (f.method.is_empty() || row.method == f.method)
            && (f.resource.is_empty() || row.resource == f.resource)
            && (f.http_statuses.is_empty() || f.http_statuses.contains(&row.http_status))
            && (f.findings.is_empty() || row.findings & finding_bits(&f.findings) != 0)
            && among(&f.credential_matches, row.credential_match)
            && among(&f.resolutions, row.resolution)
            && among(&f.behalf_kinds, row.behalf)
            && (f.on_behalf_of.is_empty() || row.on_behalf_of == f.on_behalf_of)
            && (query.words.is_empty() || self.texts.get(&row.id).is_some_and(|t| query.words.matches(t)))
    }
}

fn among(wanted: &[i32], value: i32) -> bool {
    wanted.is_empty() || wanted.contains(&value)
}

/// An allowed command whose server was gone is not forwarded either.
fn was_denied(command: &CommandRow) -> bool {
    command.status == i32::from(Status::NotForwarded) && command.decision != i32::from(v1::Decision::Allowed)
}

fn of_names(names: &Names, filter: &v1::Filter) -> bool {
    let is = |wanted: &str, value: &str| wanted.is_empty() || wanted == value;
    is(&filter.principal, &names.principal)
        && is(&filter.namespace, &names.namespace)
        && is(&filter.service_account, &names.service_account)
        && (is(&filter.pod, &names.pod_name) || filter.pod == names.pod_uid)
        && is(&filter.service, &names.service)
        && is(&filter.database, &names.database)
        && is(&filter.cluster, &names.cluster)
        && is(&filter.owner, &names.owner)
}

fn page<'a, T>(rows: &'a BTreeMap<i64, T>, query: &Query) -> Box<dyn Iterator<Item = &'a T> + 'a> {
    ordered(rows, query.after, query.oldest_first)
}

/// Rows behind `after` in the asked order.
fn ordered<T>(
    rows: &BTreeMap<i64, T>,
    after: Option<i64>,
    oldest_first: bool,
) -> Box<dyn Iterator<Item = &T> + '_> {
    if oldest_first {
        Box::new(rows.iter().filter(move |(k, _)| after.is_none_or(|a| **k > a)).map(|(_, r)| r))
    } else {
        Box::new(rows.iter().rev().filter(move |(k, _)| after.is_none_or(|a| **k < a)).map(|(_, r)| r))
    }
}

impl Index for MemoryIndex {
    fn position(&self) -> Result<u64, IndexError> {
        Ok(self.tables().position)
    }

    fn apply(&self, batch: &Batch) -> Result<(), IndexError> {
        let mut tables = self.tables();
        batch.remove.iter().for_each(|id| tables.remove(id));
        batch.changes.iter().for_each(|change| tables.change(change));
        tables.findings.retain(|(position, _), _| *position >= batch.forget_findings_below);
        tables.counted.forget_below(batch.forget_findings_below);
        tables.position = batch.next_position;
        Ok(())
    }

    fn scrub(&self) -> Result<(), IndexError> {
        Ok(())
    }

    fn reset(&self) -> Result<(), IndexError> {
        *self.tables() = Tables::default();
        Ok(())
    }

    fn is_intact(&self) -> bool {
        true
    }

    fn locations(&self, id: &Id) -> Result<Vec<Location>, IndexError> {
        let tables = self.tables();
        let command = tables.keys.get(id).and_then(|k| tables.commands.get(k));
        let session = tables.session_keys.get(id).and_then(|k| tables.sessions.get(k));
        let mut found: Vec<_> =
            command.into_iter().flat_map(|c| [c.started, c.finished, c.ended]).flatten().collect();
        found.extend(session.into_iter().flat_map(|s| [s.opened, s.closed]).flatten());
        found.extend(tables.extras.get(id).into_iter().flatten());
        let event = tables.event_keys.get(id).and_then(|k| tables.events.get(k));
        found.extend(event.map(|row| row.location));
        found.sort();
        found.dedup();
        Ok(found)
    }

    fn search(&self, query: &Query) -> Result<(Vec<CommandRow>, u64), IndexError> {
        let tables = self.tables();
        let rows = page(&tables.commands, query).filter(|r| tables.matches(r, query));
        Ok((rows.take(query.limit).cloned().collect(), tables.position))
    }

    fn command(&self, id: &Id, query: &Query) -> Result<(Option<CommandRow>, u64), IndexError> {
        let tables = self.tables();
        let row = tables.keys.get(id).and_then(|k| tables.commands.get(k));
        Ok((row.filter(|r| tables.matches(r, query)).cloned(), tables.position))
    }

    fn sessions(&self, query: &Query) -> Result<(Vec<SessionSummary>, u64), IndexError> {
        let tables = self.tables();
        let f = &query.filter;
        let deeds = !(f.operations.is_empty()
            && f.decisions.is_empty()
            && f.statuses.is_empty()
            && f.method.is_empty()
            && f.resource.is_empty()
            && f.http_statuses.is_empty()
            && f.findings.is_empty()
            && f.credential_matches.is_empty()
            && f.resolutions.is_empty()
            && f.behalf_kinds.is_empty()
            && f.on_behalf_of.is_empty()
            && query.words.is_empty());
        let on = |flow: Id| tables.commands.values().filter(move |c| c.flow == flow);
        let fits = |s: &&SessionRow| {
            of_names(&s.names, f)
                && (f.from_wall_nanos == 0 || s.opened_wall >= f.from_wall_nanos)
                && (f.to_wall_nanos == 0 || s.opened_wall < f.to_wall_nanos)
                && (f.flow_id.is_empty() || s.flow[..] == f.flow_id)
                && among(&f.captures, s.capture)
                && (!deeds || on(s.flow).any(|c| tables.matches_deed(c, query)))
        };
        let summary = |row: &SessionRow| SessionSummary {
            row: row.clone(),
            commands: on(row.flow).count() as u64,
            errors: on(row.flow).filter(|c| c.status == i32::from(Status::Error)).count() as u64,
            denied: on(row.flow).filter(|c| was_denied(c)).count() as u64,
        };
        let found = page(&tables.sessions, query).filter(fits).take(query.limit).map(summary);
        Ok((found.collect(), tables.position))
    }

    fn findings(&self, after: (u64, u32), limit: usize) -> Result<(Vec<FindingRow>, u64), IndexError> {
        let tables = self.tables();
        let behind = tables.findings.iter().filter(|(at, _)| **at > after);
        let found = behind.take(limit).map(|(at, finding)| (*at, finding.clone()));
        Ok((found.collect(), tables.position))
    }
}
