//! Events in SQL.

use rusqlite::{Connection, Row, ToSql, Transaction, params};

use super::query::{id, location, unsigned};
use crate::index::events::{EventQuery, EventRow};

/// Ids of the names that a row is found by, in the table's order.
pub(super) type NameIds = [i64; 5];

/// Writes a row, whose key is given; one of the same record is replaced.
pub(super) fn store(t: &Transaction<'_>, names: NameIds, row: &EventRow) -> rusqlite::Result<()> {
    t.prepare_cached("REPLACE INTO events VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12)")?
        .execute(params![
            row.key,
            &row.id[..],
            &row.chain[..],
            row.event,
            names[0],
            names[1],
            names[2],
            names[3],
            names[4],
            row.cgroup as i64,
            row.wall as i64,
            row.location.to_bytes(),
        ])
        .map(drop)
}

fn read(row: &Row<'_>) -> rusqlite::Result<(EventRow, String)> {
    let name = |column| row.get::<_, Option<String>>(column).map(Option::unwrap_or_default);
    let found = EventRow {
        key: row.get(0)?,
        id: id(row, 1)?,
        chain: id(row, 2)?,
        event: row.get(3)?,
        principal: name(4)?,
        namespace: name(5)?,
        service_account: name(6)?,
        pod_name: name(7)?,
        pod_uid: name(8)?,
        cgroup: unsigned(row, 9)?,
        wall: unsigned(row, 10)?,
        location: location(row, 11)?.unwrap_or_default(),
    };
    Ok((found, name(12)?))
}

const EVENT: &str = "key, id, chain, event, (SELECT name FROM names WHERE id = principal),
  (SELECT name FROM names WHERE id = namespace), (SELECT name FROM names WHERE id = service_account),
  (SELECT name FROM names WHERE id = pod_name), (SELECT name FROM names WHERE id = pod_uid), cgroup, wall, location,
  (SELECT node FROM chains WHERE chains.chain = events.chain) FROM events";

/// What a person typed goes in as a parameter.
fn sql(query: &EventQuery) -> (String, Vec<Box<dyn ToSql>>) {
    let mut parameters: Vec<Box<dyn ToSql>> = Vec::new();
    let mut bind = |value: Box<dyn ToSql>| {
        parameters.push(value);
        format!("?{}", parameters.len())
    };
    let mut conditions = vec!["TRUE".to_owned()];
    if !query.node.is_empty() {
        let node = bind(Box::new(query.node.clone()));
        conditions.push(format!("chain IN (SELECT chain FROM chains WHERE node = {node})"));
    }
    if !query.workload.is_empty() {
        let mut name =
            |of: &str| format!("(SELECT id FROM names WHERE name = {})", bind(Box::new(of.to_owned())));
        let whole = name(&query.workload);
        // A local principal has a slash, too: so all of it is tried.
        let mut either = vec![format!("{whole} IN (principal, pod_name, pod_uid)")];
        if let Some((namespace, account)) = query.workload.split_once('/') {
            let (namespace, account) = (name(namespace), name(account));
            either.push(format!("(namespace = {namespace} AND service_account = {account})"));
        }
        if let Some(cgroup) = query.workload.parse::<u64>().ok().filter(|id| *id != 0) {
            either.push(format!("cgroup = {}", bind(Box::new(cgroup as i64))));
        }
        conditions.push(format!("({})", either.join(" OR ")));
    }
    let time = |nanos: u64| Box::new(i64::try_from(nanos).unwrap_or(i64::MAX));
    if query.from_wall > 0 {
        conditions.push(format!("wall >= {}", bind(time(query.from_wall))));
    }
    if query.to_wall > 0 {
        conditions.push(format!("wall < {}", bind(time(query.to_wall))));
    }
    if let Some(after) = query.after {
        let than = if query.oldest_first { ">" } else { "<" };
        conditions.push(format!("key {than} {}", bind(Box::new(after))));
    }
    if !query.events.is_empty() {
        let list: Vec<_> = query.events.iter().map(i32::to_string).collect();
        conditions.push(format!("event IN ({})", list.join(", ")));
    }
    let direction = if query.oldest_first { "ASC" } else { "DESC" };
    let conditions = conditions.join(" AND ");
    let sql = format!("SELECT {EVENT} WHERE {conditions} ORDER BY key {direction} LIMIT {}", query.limit);
    (sql, parameters)
}

pub(super) fn find(c: &Connection, query: &EventQuery) -> rusqlite::Result<Vec<(EventRow, String)>> {
    let (sql, parameters) = sql(query);
    let parameters: Vec<&dyn ToSql> = parameters.iter().map(|p| &**p).collect();
    c.prepare_cached(&sql)?.query_map(&parameters[..], read)?.collect()
}
