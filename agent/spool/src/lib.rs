//! Builds records, chains them and keeps them crash-safe until the collector has them.
//!
//! Owns what happens to a record between its making and its acknowledgement: ids, clocks, salt,
//! commitment, chain, signed heads, segments, recovery. Knows no socket and no protocol; what it does
//! about the network is hand batches to a shipper and delete what was acknowledged.

mod ages;
mod ambient;
mod batch;
mod bell;
mod budget;
mod close;
mod config;
mod draft;
mod encode;
mod frame;
mod gauge;
mod glance;
mod history;
mod keeper;
mod key;
mod lane;
mod ledger;
mod leftovers;
mod node;
mod open;
mod outbox;
mod pager;
mod pending;
mod quarantine;
mod queue;
mod recover;
mod reserve;
mod scan;
mod segment;
mod shard;
mod shed;
mod slot;
mod spool;
mod surroundings;
mod syncer;
mod tail;
mod writer;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use ambient::Ambient;
pub use config::{SpoolConfig, SyncMode, WhenFull};
pub use draft::{AppendError, Appended, Common, Draft};
pub use gauge::Gauge;
pub use ledger::Ledger;
pub use leftovers::Leftovers;
pub use open::{OpenError, Opened, Recovered, open, open_in};
pub use outbox::{Outbox, OutboxError};
pub use spool::Spool;
pub use surroundings::{MakeAmbient, Surroundings, SyncFile};

/// A thread that panicked while it held the lock has left no half-written record behind: frames count
/// only when their length was published, last.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
