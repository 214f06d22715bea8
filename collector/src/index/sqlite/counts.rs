//! Counts and chains in SQL.

use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use super::query::{id, location, unsigned};
use crate::{
    index::{
        Id,
        counts::{
            ChainPart, ChainRow, ChainStep, Class, LAST, Reading, Recorded, SeriesKey, gaps, superfluous,
        },
    },
    log::Location,
};

fn chain_row(row: &Row<'_>) -> rusqlite::Result<ChainRow> {
    Ok(ChainRow {
        chain: id(row, 0)?,
        node: row.get(1)?,
        boot: row.get(2)?,
        boottime: unsigned(row, 3)?,
        drained: row.get(4)?,
        succeeded: row.get(5)?,
        shard: row.get(6)?,
        succeeds: row.get(7)?,
        opened: unsigned(row, 8)?,
        begun: unsigned(row, 9)?,
        sequence: unsigned(row, 10)?,
    })
}

const CHAIN: &str = "SELECT chain, node, boot, boottime, drained, succeeded, shard, succeeds, opened, begun, sequence FROM chains";

pub(super) fn chains(c: &Connection) -> rusqlite::Result<Vec<ChainRow>> {
    c.prepare_cached(CHAIN)?.query_map([], chain_row)?.collect()
}

/// Takes in what a record says of its chain.
pub(super) fn chain(t: &Transaction<'_>, part: &ChainPart) -> rusqlite::Result<()> {
    store_chain(t, &part.chain, |row| row.merge(part))?;
    if let ChainStep::Opened { predecessor: Some(predecessor), .. } = &part.step {
        store_chain(t, predecessor, |row| row.succeeded = true)?;
    }
    Ok(())
}

fn store_chain(t: &Transaction<'_>, chain: &Id, change: impl FnOnce(&mut ChainRow)) -> rusqlite::Result<()> {
    let sql = format!("{CHAIN} WHERE chain = ?1");
    let known = t.prepare_cached(&sql)?.query_row([&chain[..]], chain_row).optional()?;
    let mut row = known.unwrap_or_else(|| ChainRow { chain: *chain, ..ChainRow::default() });
    change(&mut row);
    t.prepare_cached("REPLACE INTO chains VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)")?
        .execute(params![
            &row.chain[..],
            row.node,
            row.boot,
            row.boottime as i64,
            row.drained,
            row.succeeded,
            row.shard,
            row.succeeds,
            row.opened as i64,
            row.begun as i64,
            row.sequence as i64,
        ])
        .map(drop)
}

/// Takes a reading in; an older one that it makes superfluous goes. `node` is the name's id.
pub(super) fn reading(t: &Transaction<'_>, node: i64, reading: &Reading) -> rusqlite::Result<()> {
    let series = (node, reading.key.cgroup as i64, reading.key.series as i64, reading.outcome);
    let last: Vec<(i64, u64)> = t
        .prepare_cached(
            "SELECT rowid, wall FROM readings WHERE node = ?1 AND cgroup = ?2 AND series = ?3 AND outcome = ?4
             ORDER BY rowid DESC LIMIT 4",
        )?
        .query_map(series, |r| Ok((r.get(0)?, unsigned(r, 1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let walls: Vec<u64> = last.iter().map(|(_, wall)| *wall).collect();
    if superfluous(&walls)
        && let Some((row, _)) = last.get(LAST - 1)
    {
        t.prepare_cached("DELETE FROM readings WHERE rowid = ?1")?.execute([row])?;
    }
    t.prepare_cached("INSERT INTO readings VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12)")?
        .execute(params![
            node,
            reading.key.cgroup as i64,
            reading.key.series as i64,
            reading.outcome,
            &reading.chain[..],
            reading.sequence as i64,
            reading.location.to_bytes(),
            reading.wall as i64,
            reading.boottime as i64,
            reading.age as i64,
            reading.connects as i64,
            reading.connected as i64,
        ])
        .map(drop)
}

/// Readings go with their records: locations begin with the position, and sort by it.
pub(super) fn forget_below(t: &Transaction<'_>, position: u64) -> rusqlite::Result<()> {
    t.execute("DELETE FROM readings WHERE location < ?1", [&position.to_be_bytes()[..]]).map(drop)
}

pub(super) fn readings(c: &Connection) -> rusqlite::Result<Vec<Reading>> {
    let mut statement = c.prepare_cached(
        "SELECT (SELECT name FROM names WHERE id = node), cgroup, series, outcome, chain, sequence, location, wall,
           boottime, age, connects, connected FROM readings ORDER BY node, cgroup, series, outcome, boottime, rowid",
    )?;
    let found = statement.query_map([], |r| {
        Ok(Reading {
            key: key(r)?,
            outcome: r.get(3)?,
            chain: id(r, 4)?,
            sequence: unsigned(r, 5)?,
            location: location(r, 6)?.unwrap_or_default(),
            wall: unsigned(r, 7)?,
            boottime: unsigned(r, 8)?,
            age: unsigned(r, 9)?,
            connects: unsigned(r, 10)?,
            connected: unsigned(r, 11)?,
        })
    })?;
    found.collect()
}

fn key(row: &Row<'_>) -> rusqlite::Result<SeriesKey> {
    Ok(SeriesKey {
        node: row.get::<_, Option<String>>(0)?.unwrap_or_default(),
        cgroup: unsigned(row, 1)?,
        series: unsigned(row, 2)?,
    })
}

pub(super) fn recorded(c: &Connection) -> rusqlite::Result<Vec<(SeriesKey, u64, u64)>> {
    let mut statement = c.prepare_cached(
        "SELECT (SELECT name FROM names WHERE id = node), cgroup, series, count(*), max(number) FROM sessions
         GROUP BY node, cgroup, series",
    )?;
    let found = statement.query_map([], |r| Ok((key(r)?, unsigned(r, 3)?, unsigned(r, 4)?)))?;
    found.collect()
}

/// Connections of one series: parameters 1 to 3.
const OF: &str = "node = (SELECT id FROM names WHERE name = ?1) AND cgroup = ?2 AND series = ?3";

pub(super) fn between(c: &Connection, key: &SeriesKey, above: u64, up_to: u64) -> rusqlite::Result<Recorded> {
    let range = format!("FROM sessions WHERE {OF} AND number > ?4 AND number <= ?5");
    let parameters = (&key.node, key.cgroup as i64, key.series as i64, signed(above), signed(up_to));
    let classes = c
        .prepare_cached(&format!(
            "SELECT capture, reason, closed_wall = 0, count(*) {range} GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
        ))?
        .query_map(parameters, |r| {
            Ok(Class { capture: r.get(0)?, reason: r.get(1)?, open: r.get(2)?, count: unsigned(r, 3)? })
        })?
        .collect::<rusqlite::Result<_>>()?;
    let numbers = c
        .prepare_cached(&format!("SELECT count(DISTINCT number) {range}"))?
        .query_row(parameters, |r| unsigned(r, 0))?;
    Ok(Recorded { classes, numbers })
}

pub(super) fn absent(
    c: &Connection,
    key: &SeriesKey,
    above: u64,
    up_to: u64,
    most: usize,
) -> rusqlite::Result<Vec<u64>> {
    let mut statement = c.prepare_cached(&format!(
        "SELECT DISTINCT number FROM sessions WHERE {OF} AND number > ?4 AND number <= ?5 ORDER BY number"
    ))?;
    let parameters = (&key.node, key.cgroup as i64, key.series as i64, signed(above), signed(up_to));
    let numbers: Vec<u64> =
        statement.query_map(parameters, |r| unsigned(r, 0))?.collect::<rusqlite::Result<_>>()?;
    Ok(gaps(numbers.into_iter(), above, up_to, most))
}

pub(super) fn older(c: &Connection, key: &SeriesKey, above: u64, boottime: u64) -> rusqlite::Result<u64> {
    c.prepare_cached(&format!(
        "SELECT count(*) FROM sessions WHERE {OF} AND number > ?4 AND opened_boottime <= ?5"
    ))?
    .query_row((&key.node, key.cgroup as i64, key.series as i64, signed(above), signed(boottime)), |r| {
        unsigned(r, 0)
    })
}

pub(super) fn sample(c: &Connection, key: &SeriesKey) -> rusqlite::Result<Option<Location>> {
    let sql =
        format!("SELECT coalesce(opened, closed) FROM sessions WHERE {OF} ORDER BY number DESC LIMIT 1");
    let found = c
        .prepare_cached(&sql)?
        .query_row((&key.node, key.cgroup as i64, key.series as i64), |r| location(r, 0))
        .optional()?;
    Ok(found.flatten())
}

/// SQLite's numbers are signed.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
