//! The tables, and how a file is opened.
//!
//! WAL with `synchronous = NORMAL`: after a loss of power the file is consistent, at most older than the
//! log, which is what an index may be. `secure_delete` zeroes what is deleted; the full-text index has its
//! own switch for its shadow tables.

use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt as _, path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags};

/// Raised with every change below: a file of another version is made again.
pub(super) const VERSION: i64 = 8;

const TABLES: &str = "
CREATE TABLE position (position INTEGER NOT NULL);
INSERT INTO position VALUES (0);
CREATE TABLE names (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
INSERT INTO names VALUES (0, '');
CREATE TABLE commands (
  key INTEGER PRIMARY KEY, id BLOB NOT NULL, flow BLOB NOT NULL,
  principal INTEGER NOT NULL, namespace INTEGER NOT NULL, service_account INTEGER NOT NULL,
  pod_name INTEGER NOT NULL, pod_uid INTEGER NOT NULL, service INTEGER NOT NULL, database INTEGER NOT NULL,
  operation INTEGER NOT NULL, capture INTEGER NOT NULL, decision INTEGER NOT NULL, status INTEGER NOT NULL,
  wall INTEGER NOT NULL, duration INTEGER NOT NULL, position INTEGER NOT NULL, gone INTEGER NOT NULL,
  started BLOB, finished BLOB,
  method INTEGER NOT NULL, resource TEXT NOT NULL, parent BLOB NOT NULL, http_status INTEGER NOT NULL,
  grpc_status INTEGER, findings INTEGER NOT NULL, ended BLOB,
  credential_match INTEGER NOT NULL, behalf INTEGER NOT NULL, on_behalf_of INTEGER NOT NULL,
  resolution INTEGER NOT NULL, cluster INTEGER NOT NULL, owner INTEGER NOT NULL
);
CREATE UNIQUE INDEX commands_id ON commands (id);
CREATE INDEX commands_principal ON commands (principal);
CREATE INDEX commands_flow ON commands (flow, status);
CREATE INDEX commands_odd_status ON commands (status) WHERE status NOT IN (1, 2);
CREATE INDEX commands_odd_decision ON commands (decision) WHERE decision NOT IN (0, 1);
CREATE INDEX commands_resource ON commands (resource) WHERE resource <> '';
CREATE INDEX commands_parent ON commands (parent) WHERE parent <> x'';
CREATE INDEX commands_found ON commands (findings) WHERE findings <> 0;
CREATE INDEX commands_not_own ON commands (credential_match) WHERE credential_match NOT IN (0, 1);
CREATE INDEX commands_unresolved ON commands (resolution) WHERE resolution > 3;
CREATE INDEX commands_behalf ON commands (on_behalf_of) WHERE on_behalf_of <> 0;
CREATE VIRTUAL TABLE texts USING fts5 (text, tokenize = 'unicode61');
INSERT INTO texts (texts, rank) VALUES ('secure-delete', 1);
CREATE TABLE sessions (
  key INTEGER PRIMARY KEY, flow BLOB NOT NULL UNIQUE,
  principal INTEGER NOT NULL, namespace INTEGER NOT NULL, service_account INTEGER NOT NULL,
  pod_name INTEGER NOT NULL, pod_uid INTEGER NOT NULL, service INTEGER NOT NULL, database INTEGER NOT NULL,
  opened_wall INTEGER NOT NULL, closed_wall INTEGER NOT NULL, protocol INTEGER NOT NULL, capture INTEGER NOT NULL,
  bytes_sent INTEGER NOT NULL, bytes_received INTEGER NOT NULL, opened BLOB, closed BLOB,
  reason INTEGER NOT NULL, node INTEGER NOT NULL, cgroup INTEGER NOT NULL, series INTEGER NOT NULL,
  number INTEGER NOT NULL, opened_boottime INTEGER NOT NULL, cluster INTEGER NOT NULL, owner INTEGER NOT NULL
);
CREATE INDEX sessions_counted ON sessions (node, cgroup, series, number);
CREATE TABLE readings (
  node INTEGER NOT NULL, cgroup INTEGER NOT NULL, series INTEGER NOT NULL, outcome INTEGER NOT NULL,
  chain BLOB NOT NULL, sequence INTEGER NOT NULL, location BLOB NOT NULL, wall INTEGER NOT NULL,
  boottime INTEGER NOT NULL, age INTEGER NOT NULL, connects INTEGER NOT NULL, connected INTEGER NOT NULL
);
CREATE INDEX readings_series ON readings (node, cgroup, series, outcome, boottime);
CREATE TABLE chains (
  chain BLOB PRIMARY KEY, node TEXT NOT NULL, boot BLOB NOT NULL, boottime INTEGER NOT NULL,
  drained INTEGER NOT NULL, succeeded INTEGER NOT NULL, shard INTEGER NOT NULL, succeeds INTEGER NOT NULL,
  opened INTEGER NOT NULL, begun INTEGER NOT NULL, sequence INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE events (
  key INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, chain BLOB NOT NULL, event INTEGER NOT NULL,
  principal INTEGER NOT NULL, namespace INTEGER NOT NULL, service_account INTEGER NOT NULL,
  pod_name INTEGER NOT NULL, pod_uid INTEGER NOT NULL, cgroup INTEGER NOT NULL, wall INTEGER NOT NULL,
  location BLOB NOT NULL
);
CREATE INDEX events_principal ON events (principal);
CREATE INDEX events_event ON events (event);
CREATE TABLE extras (owner BLOB NOT NULL, location BLOB NOT NULL);
CREATE INDEX extras_owner ON extras (owner);
CREATE TABLE findings (
  position INTEGER NOT NULL, ordinal INTEGER NOT NULL, finding BLOB NOT NULL, PRIMARY KEY (position, ordinal)
) WITHOUT ROWID;
";

/// Opens the one connection that writes, making the tables where the file is new.
pub(super) fn open_writer(path: &Path) -> rusqlite::Result<Option<Connection>> {
    make_private(path);
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "secure_delete", true)?;
    connection.pragma_update(None, "cache_size", -65_536)?;
    connection.pragma_update(None, "wal_autocheckpoint", 4_000)?;
    connection.set_prepared_statement_cache_capacity(64);
    let version: i64 = connection.pragma_query_value(None, "user_version", |r| r.get(0))?;
    if version == 0 {
        connection.execute_batch(&format!("BEGIN; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;"))?;
    } else if version != VERSION {
        return Ok(None);
    }
    Ok(Some(connection))
}

/// Makes the file, for our user alone; SQLite gives the files beside it the same mode. Where this fails, so
/// does opening it, with a better message.
fn make_private(path: &Path) {
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path).ok();
}

/// Opens a connection for questions.
pub(super) fn open_reader(path: &Path, immutable: bool) -> rusqlite::Result<Connection> {
    let connection = if immutable {
        // Nobody writes, and perhaps nobody may: SQLite must not want its shared-memory file.
        let name: String = path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        Connection::open_with_flags(format!("file:{name}?immutable=1"), flags)?
    } else {
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?
    };
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cache_size", -16_384)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}
