//! Takes stretches of the log into the file, each in one transaction.
//!
//! Started and finished mostly come in the same stretch: rows are joined in memory first and written once.
//! Texts are added in ascending order of key, for the full-text index flushes whenever that goes back.

use std::collections::{BTreeMap, HashMap, HashSet, hash_map::Entry};

use prost::Message as _;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use verbatim_api::v1;

use super::{
    counts, events,
    query::{COMMAND, SESSION, command_row, location, session_row},
};
use crate::{
    index::{
        Batch, Change, CommandRow, Id, Names, Part, Role, SessionPart, SessionRow, events::EventRow,
        row::wanted_key,
    },
    log::Location,
};

/// Names kept in memory.
const NAMES: usize = 65_536;

/// The connection that writes.
#[derive(Debug)]
pub(super) struct Writer {
    connection: Connection,
    names: HashMap<String, i64>,
}

/// Rows that a stretch touches.
#[derive(Default)]
struct Touched {
    commands: HashMap<Id, CommandRow>,
    sessions: HashMap<Id, SessionRow>,
    texts: BTreeMap<i64, String>,
    /// Keys given to rows that are not stored yet.
    command_keys: HashSet<i64>,
    session_keys: HashSet<i64>,
    event_keys: HashSet<i64>,
}

impl Writer {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection, names: HashMap::new() }
    }

    pub(super) fn apply(&mut self, batch: &Batch) -> rusqlite::Result<()> {
        if self.names.len() > NAMES {
            self.names.clear();
        }
        let transaction = self.connection.transaction()?;
        let applied =
            Self::apply_in(&transaction, &mut self.names, batch).and_then(|()| transaction.commit());
        if applied.is_err() {
            // Ids of names that were rolled back are nobody's.
            self.names.clear();
        }
        applied
    }

    fn apply_in(
        t: &Transaction<'_>,
        names: &mut HashMap<String, i64>,
        batch: &Batch,
    ) -> rusqlite::Result<()> {
        if !batch.remove.is_empty() {
            remove(t, &batch.remove)?;
            names.clear();
        }
        let mut touched = Touched::default();
        for change in &batch.changes {
            match change {
                Change::Command(part) => touched.command(t, part)?,
                Change::Session(part) => touched.session(t, part)?,
                Change::Extra(owner, location) => extra(t, owner, location)?,
                Change::Chain(part) => counts::chain(t, part)?,
                Change::Reading(reading) => {
                    counts::reading(t, name_id(t, names, &reading.key.node)?, reading)?;
                }
                Change::Event(row) => touched.event(t, names, row)?,
                Change::Finding { position, finding } => insert_finding(t, *position, finding)?,
            }
        }
        if batch.forget_findings_below > 0 {
            t.execute("DELETE FROM findings WHERE position < ?1", [batch.forget_findings_below as i64])?;
            counts::forget_below(t, batch.forget_findings_below)?;
        }
        for row in touched.commands.values() {
            store_command(t, names, row)?;
        }
        for row in touched.sessions.values() {
            store_session(t, names, row)?;
        }
        let mut insert = t.prepare_cached("INSERT INTO texts (rowid, text) VALUES (?1, ?2)")?;
        for (key, text) in &touched.texts {
            insert.execute(params![key, text])?;
        }
        t.prepare_cached("UPDATE position SET position = ?1")?.execute([batch.next_position as i64])?;
        Ok(())
    }

    /// Writes the write-ahead log back and cuts it off. False while readers are in the way.
    pub(super) fn truncate_wal(&mut self) -> rusqlite::Result<bool> {
        let busy: i64 = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |r| r.get(0))?;
        Ok(busy == 0)
    }
}

impl Touched {
    fn command(&mut self, t: &Transaction<'_>, part: &Part) -> rusqlite::Result<()> {
        let row = match self.commands.entry(part.id) {
            Entry::Occupied(row) => row.into_mut(),
            Entry::Vacant(place) => {
                let sql = format!("SELECT {COMMAND} WHERE commands.id = ?1");
                let known = t.prepare_cached(&sql)?.query_row([&part.id[..]], command_row).optional()?;
                place.insert(known.unwrap_or_else(|| CommandRow::new(part.id)))
            }
        };
        let own = row.merge(part);
        if row.key == 0 {
            row.key = free_key(t, "commands", &mut self.command_keys, row.wall)?;
        }
        if let Some(text) = part.text.as_ref().filter(|_| own) {
            self.texts.insert(row.key, text.clone());
        }
        if !own && part.role != Role::Decided {
            extra(t, &part.id, &part.location)?;
        }
        Ok(())
    }

    fn session(&mut self, t: &Transaction<'_>, part: &SessionPart) -> rusqlite::Result<()> {
        let row = match self.sessions.entry(part.flow) {
            Entry::Occupied(row) => row.into_mut(),
            Entry::Vacant(place) => {
                let sql = format!("SELECT {SESSION} WHERE sessions.flow = ?1");
                let known = t.prepare_cached(&sql)?.query_row([&part.flow[..]], session_row).optional()?;
                place.insert(known.unwrap_or_else(|| SessionRow { flow: part.flow, ..SessionRow::default() }))
            }
        };
        let own = row.merge(part);
        if row.key == 0 {
            row.key = free_key(t, "sessions", &mut self.session_keys, row.opened_wall)?;
        }
        if !own {
            extra(t, &part.flow, &part.location)?;
        }
        Ok(())
    }

    /// Nothing is joined to it: it is stored at once. Where it stood in the log already stays an extra of it.
    fn event(
        &mut self,
        t: &Transaction<'_>,
        names: &mut HashMap<String, i64>,
        row: &EventRow,
    ) -> rusqlite::Result<()> {
        let known: Option<(i64, Option<Location>)> = t
            .prepare_cached("SELECT key, location FROM events WHERE id = ?1")?
            .query_row([&row.id[..]], |r| Ok((r.get(0)?, location(r, 1)?)))
            .optional()?;
        if let Some((_, Some(before))) = &known
            && *before != row.location
        {
            extra(t, &row.id, before)?;
        }
        let key = match known {
            Some((key, _)) => key,
            None => free_key(t, "events", &mut self.event_keys, row.wall)?,
        };
        let mut ids = events::NameIds::default();
        let of = [&row.principal, &row.namespace, &row.service_account, &row.pod_name, &row.pod_uid];
        for (id, name) in ids.iter_mut().zip(of) {
            *id = name_id(t, names, name)?;
        }
        events::store(t, ids, &EventRow { key, ..row.clone() })
    }
}

/// The first key from the wall clock on that no row has.
fn free_key(t: &Transaction<'_>, table: &str, given: &mut HashSet<i64>, wall: u64) -> rusqlite::Result<i64> {
    let sql = format!("SELECT 1 FROM {table} WHERE key = ?1");
    let mut taken = t.prepare_cached(&sql)?;
    let mut key = wanted_key(wall);
    while given.contains(&key) || taken.exists([key])? {
        key += 1;
    }
    given.insert(key);
    Ok(key)
}

fn name_id(t: &Transaction<'_>, names: &mut HashMap<String, i64>, name: &str) -> rusqlite::Result<i64> {
    if name.is_empty() {
        return Ok(0);
    }
    if let Some(id) = names.get(name) {
        return Ok(*id);
    }
    let known: Option<i64> = t
        .prepare_cached("SELECT id FROM names WHERE name = ?1")?
        .query_row([name], |r| r.get(0))
        .optional()?;
    let id = match known {
        Some(id) => id,
        None => t.prepare_cached("INSERT INTO names (name) VALUES (?1)")?.insert([name])?,
    };
    names.insert(name.to_owned(), id);
    Ok(id)
}

fn name_ids(t: &Transaction<'_>, known: &mut HashMap<String, i64>, n: &Names) -> rusqlite::Result<[i64; 9]> {
    let mut ids = [0; 9];
    let names = [
        &n.principal,
        &n.namespace,
        &n.service_account,
        &n.pod_name,
        &n.pod_uid,
        &n.service,
        &n.database,
        &n.cluster,
        &n.owner,
    ];
    for (id, name) in ids.iter_mut().zip(names) {
        *id = name_id(t, known, name)?;
    }
    Ok(ids)
}

fn store_command(
    t: &Transaction<'_>,
    known: &mut HashMap<String, i64>,
    row: &CommandRow,
) -> rusqlite::Result<()> {
    let n = name_ids(t, known, &row.names)?;
    let method = name_id(t, known, &row.method)?;
    let on_behalf_of = name_id(t, known, &row.on_behalf_of)?;
    t.prepare_cached(
        "REPLACE INTO commands VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20,
           ?21,?22,?23,?24,?25,?26,?27,?28,?29,?30,?31,?32,?33)",
    )?
    .execute(params![
        row.key, &row.id[..], row.flow, n[0], n[1], n[2], n[3], n[4], n[5], n[6], row.operation, row.capture,
        row.decision, row.status, row.wall as i64, row.duration as i64, row.position as i64, row.content_gone,
        row.started.map(|l| l.to_bytes()), row.finished.map(|l| l.to_bytes()), method, row.resource, row.parent,
        row.http_status, row.grpc_status, row.findings, row.ended.map(|l| l.to_bytes()),
        row.credential_match, row.behalf, on_behalf_of, row.resolution, n[7], n[8],
    ])?;
    Ok(())
}

fn store_session(
    t: &Transaction<'_>,
    known: &mut HashMap<String, i64>,
    row: &SessionRow,
) -> rusqlite::Result<()> {
    let n = name_ids(t, known, &row.names)?;
    let node = name_id(t, known, &row.node)?;
    t.prepare_cached(
        "REPLACE INTO sessions VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20,
           ?21,?22,?23,?24,?25)",
    )?
    .execute(params![
        row.key,
        &row.flow[..],
        n[0],
        n[1],
        n[2],
        n[3],
        n[4],
        n[5],
        n[6],
        row.opened_wall as i64,
        row.closed_wall as i64,
        row.protocol,
        row.capture,
        row.bytes_sent as i64,
        row.bytes_received as i64,
        row.opened.map(|l| l.to_bytes()),
        row.closed.map(|l| l.to_bytes()),
        row.reason,
        node,
        row.cgroup as i64,
        row.series as i64,
        row.number as i64,
        row.opened_boottime as i64,
        n[7],
        n[8],
    ])?;
    Ok(())
}

fn extra(t: &Transaction<'_>, owner: &Id, location: &Location) -> rusqlite::Result<()> {
    t.prepare_cached("INSERT INTO extras VALUES (?1, ?2)")?
        .execute(params![&owner[..], location.to_bytes()])
        .map(drop)
}

fn insert_finding(t: &Transaction<'_>, position: u64, finding: &v1::Finding) -> rusqlite::Result<()> {
    t.prepare_cached("INSERT INTO findings SELECT ?1, count(*) + 1, ?2 FROM findings WHERE position = ?1")?
        .execute(params![position as i64, finding.encode_to_vec()])
        .map(drop)
}

/// Deletes rows, texts and extras, and the names that nothing else has.
fn remove(t: &Transaction<'_>, ids: &[Id]) -> rusqlite::Result<()> {
    let mut names: Vec<i64> = Vec::new();
    for (table, column, others) in [
        ("commands", "id", "service, database, owner, method, on_behalf_of"),
        ("sessions", "flow", "service, database, owner, 0, 0"),
        ("events", "id", "0, 0, 0, 0, 0"),
    ] {
        let select = format!("SELECT key, principal, {others} FROM {table} WHERE {column} = ?1");
        let delete = format!("DELETE FROM {table} WHERE key = ?1");
        for id in ids {
            let row: Option<(i64, [i64; 6])> = t
                .prepare_cached(&select)?
                .query_row([&id[..]], |r| {
                    Ok((r.get(0)?, [r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?, r.get(5)?, r.get(6)?]))
                })
                .optional()?;
            let Some((key, used)) = row else { continue };
            names.extend(used);
            t.prepare_cached(&delete)?.execute([key])?;
            if table == "commands" {
                t.prepare_cached("DELETE FROM texts WHERE rowid = ?1")?.execute([key])?;
            }
        }
    }
    for id in ids {
        t.prepare_cached("DELETE FROM extras WHERE owner = ?1")?.execute([&id[..]])?;
    }
    names.sort_unstable();
    names.dedup();
    for id in names.into_iter().filter(|id| *id != 0) {
        // Names that the row was found by in other columns are the cluster's own and stay.
        t.prepare_cached(
            "DELETE FROM names WHERE id = ?1 AND NOT EXISTS (
               SELECT 1 FROM commands WHERE principal = ?1
               UNION ALL SELECT 1 FROM commands WHERE ?1 IN (service, database, method, on_behalf_of, namespace, service_account,
                 pod_name, pod_uid, cluster, owner)
               UNION ALL SELECT 1 FROM sessions WHERE ?1 IN (principal, service, database, namespace,
                 service_account, pod_name, pod_uid, node, cluster, owner)
               UNION ALL SELECT 1 FROM events WHERE ?1 IN (principal, namespace, service_account, pod_name, pod_uid)
               UNION ALL SELECT 1 FROM readings WHERE node = ?1)",
        )?
        .execute([id])?;
    }
    Ok(())
}
