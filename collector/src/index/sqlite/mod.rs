//! The index in one SQLite file.
//!
//! One connection writes, a few read; the file can be deleted at any time.

mod counts;
mod events;
mod query;
mod schema;
mod write;

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, Instant},
};

use rusqlite::Connection;

use self::write::Writer;
use super::{
    Batch, CommandRow, Counts, Events, FindingRow, Id, Index, IndexError, Query, SessionSummary,
    counts::{ChainRow, Reading, Recorded, SeriesKey},
    events::{EventQuery, EventRow},
};
use crate::log::Location;

/// Connections kept for questions; more are opened while they are needed.
const READERS: usize = 4;
/// How long a question waits for a file that somebody deleted to be made again.
const GONE_PATIENCE: Duration = Duration::from_secs(10);
/// How long a scrub waits for questions under way to end.
const SCRUB_PATIENCE: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub struct SqliteIndex {
    path: PathBuf,
    immutable: bool,
    /// `None` where it is only read.
    writer: Mutex<Option<Writer>>,
    readers: Mutex<Readers>,
    /// Questions hold it shared; whoever makes the file again holds it alone.
    gate: RwLock<()>,
}

#[derive(Debug, Default)]
struct Readers {
    idle: Vec<Connection>,
    /// Inode of the file that the connections have open.
    inode: u64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SqliteIndex {
    /// Opens or makes the file. One of another version, or one that is damaged, is deleted and made again.
    pub fn open(path: &Path) -> Result<Self, IndexError> {
        let index = Self {
            path: path.to_owned(),
            immutable: false,
            writer: Mutex::new(None),
            readers: Mutex::default(),
            gate: RwLock::default(),
        };
        let opened = match schema::open_writer(path) {
            Ok(Some(connection)) if query::position(&connection).is_ok() => Some(connection),
            Ok(other) => {
                tracing::warn!(path = %path.display(), "index is of another version: made again");
                drop(other);
                None
            }
            Err(e) => {
                tracing::warn!(path = %path.display(), error = %e, "index cannot be opened: made again");
                None
            }
        };
        match opened {
            Some(connection) => {
                *locked(&index.writer) = Some(Writer::new(connection));
                locked(&index.readers).inode = inode(path);
            }
            None => index.reset()?,
        }
        Ok(index)
    }

    /// Opens a file that nobody writes, without changing anything beside it.
    pub fn open_read_only(path: &Path) -> Result<Self, IndexError> {
        let index = Self {
            path: path.to_owned(),
            immutable: true,
            writer: Mutex::new(None),
            readers: Mutex::default(),
            gate: RwLock::default(),
        };
        let connection = schema::open_reader(path, true).map_err(|e| index.error(&e))?;
        let version: i64 =
            connection.pragma_query_value(None, "user_version", |r| r.get(0)).map_err(|e| index.error(&e))?;
        if version != schema::VERSION {
            return Err(IndexError::Unusable {
                place: path.display().to_string(),
                detail: format!("it has version {version}, expected {}", schema::VERSION),
            });
        }
        let mut readers = locked(&index.readers);
        readers.inode = inode(path);
        readers.idle.push(connection);
        drop(readers);
        Ok(index)
    }

    fn error(&self, error: &rusqlite::Error) -> IndexError {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        let (place, detail) = (self.path.display().to_string(), error.to_string());
        match error.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => IndexError::Unusable { place, detail },
            _ => IndexError::Failed { place, detail },
        }
    }

    fn read<T>(&self, ask: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, IndexError> {
        let until = Instant::now() + GONE_PATIENCE;
        let connection = loop {
            let shared = self.gate.read().unwrap_or_else(PoisonError::into_inner);
            let idle = locked(&self.readers).idle.pop();
            match idle.map_or_else(|| schema::open_reader(&self.path, self.immutable), Ok) {
                Ok(connection) => break (connection, shared),
                // Somebody deleted it; the indexer will notice and make it again.
                Err(_gone) if !self.immutable && !self.path.exists() && Instant::now() < until => {
                    drop(shared);
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(e) => return Err(self.error(&e)),
            }
        };
        let (connection, _shared) = connection;
        let answer = ask(&connection).map_err(|e| self.error(&e));
        let mut readers = locked(&self.readers);
        if readers.idle.len() < READERS {
            readers.idle.push(connection);
        }
        answer
    }

    /// An answer, and the position of the state that it was read from.
    fn snapshot<T>(
        &self,
        ask: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<(T, u64), IndexError> {
        self.read(|c| {
            let snapshot = c.unchecked_transaction()?;
            Ok((ask(&snapshot)?, query::position(&snapshot)?))
        })
    }

    fn write<T>(&self, change: impl FnOnce(&mut Writer) -> rusqlite::Result<T>) -> Result<T, IndexError> {
        match &mut *locked(&self.writer) {
            Some(writer) => change(writer).map_err(|e| self.error(&e)),
            None => Err(IndexError::Failed {
                place: self.path.display().to_string(),
                detail: "it is open for reading only".to_owned(),
            }),
        }
    }
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |m| m.ino())
}

impl Index for SqliteIndex {
    fn position(&self) -> Result<u64, IndexError> {
        self.read(query::position)
    }

    fn apply(&self, batch: &Batch) -> Result<(), IndexError> {
        self.write(|w| w.apply(batch))
    }

    fn scrub(&self) -> Result<(), IndexError> {
        // Old pages stand in the write-ahead log until it is cut off, which questions under way hold up.
        let until = Instant::now() + SCRUB_PATIENCE;
        while !self.write(|w| w.truncate_wal())? {
            if Instant::now() > until {
                return Err(IndexError::Failed {
                    place: self.path.display().to_string(),
                    detail: "questions that take too long keep deleted rows in its write-ahead log"
                        .to_owned(),
                });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn reset(&self) -> Result<(), IndexError> {
        let mut writer = locked(&self.writer);
        *writer = None;
        let _alone = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        locked(&self.readers).idle.clear();
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let mut name = self.path.clone().into_os_string();
            name.push(suffix);
            match fs::remove_file(&name) {
                Ok(()) => {}
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => {
                    return Err(IndexError::Failed {
                        place: self.path.display().to_string(),
                        detail: format!("cannot be deleted: {e}"),
                    });
                }
            }
        }
        let connection = schema::open_writer(&self.path).map_err(|e| self.error(&e))?;
        *writer = connection.map(Writer::new);
        drop(writer);
        locked(&self.readers).inode = inode(&self.path);
        Ok(())
    }

    fn is_intact(&self) -> bool {
        let inode = inode(&self.path);
        inode != 0 && inode == locked(&self.readers).inode
    }

    fn locations(&self, id: &Id) -> Result<Vec<Location>, IndexError> {
        self.read(|c| query::locations(c, id))
    }

    fn search(&self, q: &Query) -> Result<(Vec<CommandRow>, u64), IndexError> {
        self.snapshot(|c| query::search(c, q))
    }

    fn command(&self, id: &Id, q: &Query) -> Result<(Option<CommandRow>, u64), IndexError> {
        self.snapshot(|c| query::command(c, id, q))
    }

    fn sessions(&self, q: &Query) -> Result<(Vec<SessionSummary>, u64), IndexError> {
        self.snapshot(|c| query::sessions(c, q))
    }

    fn findings(&self, after: (u64, u32), limit: usize) -> Result<(Vec<FindingRow>, u64), IndexError> {
        self.snapshot(|c| query::findings(c, after, limit))
    }
}

impl Events for SqliteIndex {
    fn events(&self, query: &EventQuery) -> Result<Vec<(EventRow, String)>, IndexError> {
        self.read(|c| events::find(c, query))
    }
}

impl Counts for SqliteIndex {
    fn chains(&self) -> Result<Vec<ChainRow>, IndexError> {
        self.read(counts::chains)
    }

    fn readings(&self) -> Result<Vec<Reading>, IndexError> {
        self.read(counts::readings)
    }

    fn recorded(&self) -> Result<Vec<(SeriesKey, u64, u64)>, IndexError> {
        self.read(counts::recorded)
    }

    fn between(&self, key: &SeriesKey, above: u64, up_to: u64) -> Result<Recorded, IndexError> {
        self.read(|c| counts::between(c, key, above, up_to))
    }

    fn absent(&self, key: &SeriesKey, above: u64, up_to: u64, most: usize) -> Result<Vec<u64>, IndexError> {
        self.read(|c| counts::absent(c, key, above, up_to, most))
    }

    fn older(&self, key: &SeriesKey, above: u64, boottime: u64) -> Result<u64, IndexError> {
        self.read(|c| counts::older(c, key, above, boottime))
    }

    fn sample(&self, key: &SeriesKey) -> Result<Option<Location>, IndexError> {
        self.read(|c| counts::sample(c, key))
    }
}
