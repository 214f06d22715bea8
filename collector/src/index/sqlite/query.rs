//! Questions in SQL. What a person typed goes in as a parameter, never into the statement's text.

use prost::Message as _;
use rusqlite::{
    Connection, OptionalExtension as _, Row, ToSql,
    types::{FromSqlError, Type},
};
use verbatim_api::v1;

use crate::{
    index::{CommandRow, FindingRow, Id, Names, Query, SessionRow, SessionSummary, row::finding_bits},
    log::Location,
};

/// Columns and tables of a [`CommandRow`]; names come from sub-queries, each one look-up by primary key.
pub(super) const COMMAND: &str = "commands.key, commands.id, commands.flow,
  (SELECT name FROM names WHERE id = commands.principal), (SELECT name FROM names WHERE id = commands.namespace),
  (SELECT name FROM names WHERE id = commands.service_account),
  (SELECT name FROM names WHERE id = commands.pod_name), (SELECT name FROM names WHERE id = commands.pod_uid),
  (SELECT name FROM names WHERE id = commands.service), (SELECT name FROM names WHERE id = commands.database),
  operation, capture, decision, status, wall, duration, position, gone, started, finished,
  (SELECT name FROM names WHERE id = commands.method), resource, parent, http_status, grpc_status, findings, ended,
  credential_match, behalf, (SELECT name FROM names WHERE id = commands.on_behalf_of), resolution,
  (SELECT name FROM names WHERE id = commands.cluster), (SELECT name FROM names WHERE id = commands.owner)
  FROM commands";

/// The last `Resolution` of a workload that is named; those after it are rare.
const NAMED: i32 = v1::Resolution::Pod as i32;

/// As [`COMMAND`] for a [`SessionRow`].
pub(super) const SESSION: &str = "sessions.key, sessions.flow, '',
  (SELECT name FROM names WHERE id = sessions.principal), (SELECT name FROM names WHERE id = sessions.namespace),
  (SELECT name FROM names WHERE id = sessions.service_account),
  (SELECT name FROM names WHERE id = sessions.pod_name), (SELECT name FROM names WHERE id = sessions.pod_uid),
  (SELECT name FROM names WHERE id = sessions.service), (SELECT name FROM names WHERE id = sessions.database),
  opened_wall, closed_wall, protocol, capture, bytes_sent, bytes_received, opened, closed, reason,
  (SELECT name FROM names WHERE id = sessions.node), cgroup, series, number, opened_boottime,
  (SELECT name FROM names WHERE id = sessions.cluster), (SELECT name FROM names WHERE id = sessions.owner)
  FROM sessions";

pub(super) fn id(row: &Row<'_>, column: usize) -> rusqlite::Result<Id> {
    let bytes = row.get_ref(column)?.as_blob()?;
    bytes.try_into().map_err(|_size| {
        let wrong = FromSqlError::InvalidBlobSize { expected_size: 16, blob_size: bytes.len() };
        rusqlite::Error::FromSqlConversionFailure(column, Type::Blob, Box::new(wrong))
    })
}

pub(super) fn location(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Location>> {
    Ok(row.get_ref(column)?.as_blob_or_null()?.and_then(Location::from_bytes))
}

pub(super) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(|n| n as u64)
}

/// `last`: the first of the two columns that stand at the end.
fn names(row: &Row<'_>, last: usize) -> rusqlite::Result<Names> {
    let name = |column| row.get::<_, Option<String>>(column).map(Option::unwrap_or_default);
    Ok(Names {
        principal: name(3)?,
        namespace: name(4)?,
        service_account: name(5)?,
        pod_name: name(6)?,
        pod_uid: name(7)?,
        service: name(8)?,
        database: name(9)?,
        cluster: name(last)?,
        owner: name(last + 1)?,
    })
}

pub(super) fn command_row(row: &Row<'_>) -> rusqlite::Result<CommandRow> {
    Ok(CommandRow {
        key: row.get(0)?,
        id: id(row, 1)?,
        flow: row.get(2)?,
        names: names(row, 31)?,
        operation: row.get(10)?,
        capture: row.get(11)?,
        decision: row.get(12)?,
        status: row.get(13)?,
        wall: unsigned(row, 14)?,
        duration: unsigned(row, 15)?,
        position: unsigned(row, 16)?,
        content_gone: row.get(17)?,
        started: location(row, 18)?,
        finished: location(row, 19)?,
        method: row.get::<_, Option<String>>(20)?.unwrap_or_default(),
        resource: row.get(21)?,
        parent: row.get(22)?,
        http_status: row.get(23)?,
        grpc_status: row.get(24)?,
        findings: row.get(25)?,
        ended: location(row, 26)?,
        credential_match: row.get(27)?,
        behalf: row.get(28)?,
        on_behalf_of: row.get::<_, Option<String>>(29)?.unwrap_or_default(),
        resolution: row.get(30)?,
    })
}

pub(super) fn session_row(row: &Row<'_>) -> rusqlite::Result<SessionRow> {
    Ok(SessionRow {
        key: row.get(0)?,
        flow: id(row, 1)?,
        names: names(row, 24)?,
        opened_wall: unsigned(row, 10)?,
        closed_wall: unsigned(row, 11)?,
        protocol: row.get(12)?,
        capture: row.get(13)?,
        bytes_sent: unsigned(row, 14)?,
        bytes_received: unsigned(row, 15)?,
        opened: location(row, 16)?,
        closed: location(row, 17)?,
        reason: row.get(18)?,
        node: row.get::<_, Option<String>>(19)?.unwrap_or_default(),
        cgroup: unsigned(row, 20)?,
        series: unsigned(row, 21)?,
        number: unsigned(row, 22)?,
        opened_boottime: unsigned(row, 23)?,
    })
}

pub(super) fn position(c: &Connection) -> rusqlite::Result<u64> {
    c.query_row("SELECT position FROM position", [], |r| unsigned(r, 0))
}

/// Conditions with their parameters.
#[derive(Default)]
struct Conditions {
    sql: Vec<String>,
    parameters: Vec<Box<dyn ToSql>>,
}

impl Conditions {
    /// `?` in the condition stands for the parameter.
    fn push(&mut self, condition: &str, parameter: impl ToSql + 'static) {
        self.parameters.push(Box::new(parameter));
        self.sql.push(condition.replace('?', &format!("?{}", self.parameters.len())));
    }

    fn among(&mut self, column: &str, values: &[i32]) {
        if !values.is_empty() {
            let list: Vec<_> = values.iter().map(i32::to_string).collect();
            self.sql.push(format!("{column} IN ({})", list.join(", ")));
        }
    }

    /// As [`Conditions::among`]. Where only unusual values are wanted it says so in the words of the partial
    /// index that holds them, or that would not be used.
    fn odd(&mut self, column: &str, values: &[i32], usual: [i32; 2]) {
        self.among(&format!("commands.{column}"), values);
        if !values.is_empty() && !values.iter().any(|v| usual.contains(v)) {
            self.sql.push(format!("commands.{column} NOT IN ({}, {})", usual[0], usual[1]));
        }
    }

    fn names(&mut self, table: &str, f: &v1::Filter) {
        // A name that nobody has gives NULL, which equals nothing.
        let is = "= (SELECT id FROM names WHERE name = ?)";
        for (column, wanted) in [
            ("principal", &f.principal),
            ("namespace", &f.namespace),
            ("service_account", &f.service_account),
            ("service", &f.service),
            ("database", &f.database),
            ("cluster", &f.cluster),
            ("owner", &f.owner),
        ] {
            if !wanted.is_empty() {
                self.push(&format!("{table}.{column} {is}"), wanted.clone());
            }
        }
        if !f.pod.is_empty() {
            let either = format!("({table}.pod_name {is} OR {table}.pod_uid {is})");
            self.push(&either, f.pod.clone());
        }
    }

    /// The clock's interval, and the same one on the key, which the table is ordered by.
    fn time(&mut self, column: &str, key: &str, f: &v1::Filter) {
        const KEY_SLACK: i64 = 1 << 32;
        if f.from_wall_nanos > 0 {
            let from = i64::try_from(f.from_wall_nanos).unwrap_or(i64::MAX);
            self.push(&format!("{column} >= ?"), from);
            self.push(&format!("{key} >= ?"), from.saturating_sub(KEY_SLACK));
        }
        if f.to_wall_nanos > 0 {
            let to = i64::try_from(f.to_wall_nanos).unwrap_or(i64::MAX);
            self.push(&format!("{column} < ?"), to);
            self.push(&format!("{key} < ?"), to.saturating_add(KEY_SLACK));
        }
    }

    fn deed(&mut self, query: &Query) {
        self.among("commands.operation", &query.filter.operations);
        self.odd("decision", &query.filter.decisions, [0, 1]);
        self.odd("status", &query.filter.statuses, [1, 2]);
        self.answer(&query.filter);
        if !query.words.is_empty() {
            self.push("texts MATCH ?", query.words.fts5());
        }
    }

    /// Where an index is partial, the condition repeats what the index says of itself, or it would not be used.
    fn answer(&mut self, f: &v1::Filter) {
        if !f.method.is_empty() {
            self.push("commands.method = (SELECT id FROM names WHERE name = ?)", f.method.clone());
        }
        if !f.resource.is_empty() {
            self.push("commands.resource <> '' AND commands.resource = ?", f.resource.clone());
        }
        if !f.http_statuses.is_empty() {
            let list: Vec<_> = f.http_statuses.iter().map(u32::to_string).collect();
            self.sql.push(format!("commands.http_status IN ({})", list.join(", ")));
        }
        if !f.findings.is_empty() {
            let bits = finding_bits(&f.findings);
            self.push("commands.findings <> 0 AND commands.findings & ? <> 0", bits);
        }
        self.odd("credential_match", &f.credential_matches, [0, 1]);
        self.among("commands.behalf", &f.behalf_kinds);
        self.among("commands.resolution", &f.resolutions);
        if !f.resolutions.is_empty() && f.resolutions.iter().all(|resolution| *resolution > NAMED) {
            self.sql.push(format!("commands.resolution > {NAMED}"));
        }
        if !f.on_behalf_of.is_empty() {
            let is = "commands.on_behalf_of <> 0 AND commands.on_behalf_of = (SELECT id FROM names WHERE name = ?)";
            self.push(is, f.on_behalf_of.clone());
        }
    }

    fn command(&mut self, query: &Query) {
        let f = &query.filter;
        self.names("commands", f);
        self.time("commands.wall", "commands.key", f);
        if !f.flow_id.is_empty() {
            self.push("commands.flow = ?", f.flow_id.clone());
        }
        if !f.parent_command_id.is_empty() {
            self.push("commands.parent <> x'' AND commands.parent = ?", f.parent_command_id.clone());
        }
        self.among("commands.capture", &f.captures);
        self.deed(query);
    }

    fn after(&mut self, key: &str, query: &Query) {
        if let Some(after) = query.after {
            self.push(&format!("{key} {} ?", if query.oldest_first { ">" } else { "<" }), after);
        }
    }

    fn sql(&self) -> String {
        if self.sql.is_empty() { String::new() } else { format!(" WHERE {}", self.sql.join(" AND ")) }
    }

    fn parameters(&self) -> Vec<&dyn ToSql> {
        self.parameters.iter().map(|p| &**p as &dyn ToSql).collect()
    }
}

fn direction(query: &Query) -> &'static str {
    if query.oldest_first { "ASC" } else { "DESC" }
}

fn search_sql(query: &Query) -> (String, Conditions) {
    let mut conditions = Conditions::default();
    conditions.command(query);
    // With words the full-text index leads: it is ordered by the same key.
    let (join, key) = if query.words.is_empty() {
        ("", "commands.key")
    } else {
        (" JOIN texts ON texts.rowid = commands.key", "texts.rowid")
    };
    conditions.after(key, query);
    let sql = format!(
        "SELECT {COMMAND}{join}{} ORDER BY {key} {} LIMIT {}",
        conditions.sql(),
        direction(query),
        query.limit
    );
    (sql, conditions)
}

pub(super) fn search(c: &Connection, query: &Query) -> rusqlite::Result<Vec<CommandRow>> {
    let (sql, conditions) = search_sql(query);
    let mut statement = c.prepare_cached(&sql)?;
    statement.query_map(&conditions.parameters()[..], command_row)?.collect()
}

pub(super) fn command(c: &Connection, id: &Id, query: &Query) -> rusqlite::Result<Option<CommandRow>> {
    let mut conditions = Conditions::default();
    conditions.command(query);
    conditions.push("commands.id = ?", id.to_vec());
    let join = if query.words.is_empty() { "" } else { " JOIN texts ON texts.rowid = commands.key" };
    let sql = format!("SELECT {COMMAND}{join}{}", conditions.sql());
    c.prepare_cached(&sql)?.query_row(&conditions.parameters()[..], command_row).optional()
}

pub(super) fn locations(c: &Connection, id: &Id) -> rusqlite::Result<Vec<Location>> {
    let sql = "SELECT started FROM commands WHERE id = ?1 UNION ALL SELECT finished FROM commands WHERE id = ?1
        UNION ALL SELECT ended FROM commands WHERE id = ?1
        UNION ALL SELECT opened FROM sessions WHERE flow = ?1 UNION ALL SELECT closed FROM sessions WHERE flow = ?1
        UNION ALL SELECT location FROM extras WHERE owner = ?1 UNION ALL SELECT location FROM events WHERE id = ?1";
    let mut statement = c.prepare_cached(sql)?;
    let found = statement.query_map([&id[..]], |r| location(r, 0))?;
    let mut found: Vec<Location> = found.filter_map(Result::transpose).collect::<rusqlite::Result<_>>()?;
    found.sort();
    found.dedup();
    Ok(found)
}

pub(super) fn sessions(c: &Connection, query: &Query) -> rusqlite::Result<Vec<SessionSummary>> {
    let f = &query.filter;
    let mut conditions = Conditions::default();
    conditions.names("sessions", f);
    conditions.time("sessions.opened_wall", "sessions.key", f);
    if !f.flow_id.is_empty() {
        conditions.push("sessions.flow = ?", f.flow_id.clone());
    }
    conditions.among("sessions.capture", &f.captures);
    conditions.after("sessions.key", query);
    let before = conditions.sql.len();
    conditions.deed(query);
    let deeds = conditions.sql.split_off(before);
    if !deeds.is_empty() {
        let join = if query.words.is_empty() { "" } else { " JOIN texts ON texts.rowid = commands.key" };
        conditions.sql.push(format!(
            "EXISTS (SELECT 1 FROM commands{join} WHERE commands.flow = sessions.flow AND {})",
            deeds.join(" AND ")
        ));
    }
    let sql = format!(
        "SELECT {SESSION}{} ORDER BY sessions.key {} LIMIT {}",
        conditions.sql(),
        direction(query),
        query.limit
    );
    let mut statement = c.prepare_cached(&sql)?;
    let rows: Vec<SessionRow> =
        statement.query_map(&conditions.parameters()[..], session_row)?.collect::<rusqlite::Result<_>>()?;
    let mut count = c.prepare_cached(
        // The first two come from the index alone.
        "SELECT count(*), count(*) FILTER (WHERE status = ?2),
           (SELECT count(*) FROM commands WHERE flow = ?1 AND status = ?3 AND decision <> ?4)
         FROM commands WHERE flow = ?1",
    )?;
    let [error, unsent] = [v1::Status::Error, v1::Status::NotForwarded].map(i32::from);
    // An allowed one whose server was gone was not denied.
    let allowed = i32::from(v1::Decision::Allowed);
    rows.into_iter()
        .map(|row| {
            let (commands, errors, denied) = count
                .query_row((&row.flow[..], error, unsent, allowed), |r| {
                    Ok((unsigned(r, 0)?, unsigned(r, 1)?, unsigned(r, 2)?))
                })?;
            Ok(SessionSummary { row, commands, errors, denied })
        })
        .collect()
}

pub(super) fn findings(c: &Connection, after: (u64, u32), limit: usize) -> rusqlite::Result<Vec<FindingRow>> {
    let mut statement = c.prepare_cached(
        "SELECT position, ordinal, finding FROM findings WHERE (position, ordinal) > (?1, ?2)
         ORDER BY position, ordinal LIMIT ?3",
    )?;
    let found = statement.query_map((after.0 as i64, after.1, limit as i64), |r| {
        let finding = v1::Finding::decode(r.get_ref(2)?.as_blob()?)
            .map_err(|e| rusqlite::Error::FromSqlConversionFailure(2, Type::Blob, Box::new(e)))?;
        Ok(((unsigned(r, 0)?, r.get(1)?), finding))
    })?;
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Words;

    /// How SQLite means to find the answer.
    fn plan(query: &Query) -> String {
        let folder = tempfile::tempdir().expect("folder");
        let connection = super::super::schema::open_writer(&folder.path().join("index")).expect("opens");
        let connection = connection.expect("new");
        let (sql, conditions) = search_sql(query);
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("prepares");
        let steps =
            statement.query_map(&conditions.parameters()[..], |r| r.get::<_, String>(3)).expect("plans");
        steps.map(|s| s.expect("step")).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn questions_are_answered_from_an_index_in_the_asked_order_without_sorting() {
        let f = v1::Filter::default;
        let words = Words::parse("accounts").expect("words");
        for (query, wanted) in [
            (Query::default(), "SCAN commands"),
            (Query { words, ..Query::default() }, "SCAN texts VIRTUAL TABLE"),
            (
                Query { filter: v1::Filter { principal: "p".to_owned(), ..f() }, ..Query::default() },
                "commands_principal",
            ),
            (
                Query { filter: v1::Filter { statuses: vec![3], ..f() }, ..Query::default() },
                "commands_odd_status",
            ),
            (
                Query { filter: v1::Filter { decisions: vec![2], ..f() }, ..Query::default() },
                "commands_odd_decision",
            ),
            (
                Query { filter: v1::Filter { flow_id: vec![1; 16], ..f() }, ..Query::default() },
                "commands_flow",
            ),
            (
                Query { filter: v1::Filter { resource: "r".to_owned(), ..f() }, ..Query::default() },
                "commands_resource",
            ),
            (
                Query { filter: v1::Filter { credential_matches: vec![2], ..f() }, ..Query::default() },
                "commands_not_own",
            ),
            (
                Query { filter: v1::Filter { resolutions: vec![5], ..f() }, ..Query::default() },
                "commands_unresolved",
            ),
            (
                Query { filter: v1::Filter { on_behalf_of: "ada".to_owned(), ..f() }, ..Query::default() },
                "commands_behalf",
            ),
            (
                Query { filter: v1::Filter { parent_command_id: vec![1; 16], ..f() }, ..Query::default() },
                "commands_parent",
            ),
        ] {
            let plan = plan(&query);
            assert!(plan.contains(wanted), "{wanted}: {plan}");
            if wanted != "commands_flow" {
                assert!(!plan.contains("TEMP B-TREE"), "{plan}");
            }
        }
    }
}
