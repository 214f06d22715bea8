//! Builds records, chains them and keeps them crash-safe until the collector has them.
//!
//! Owns what happens to a record between its making and its acknowledgement: ids, clocks, salt,
//! commitment, chain, signed heads, segments, recovery. Knows no socket and no protocol; what it does
//! about the network is hand batches to a shipper and delete what was acknowledged.

mod config;
mod draft;
mod open;
mod outbox;
mod spool;

pub use config::{SpoolConfig, SyncMode, WhenFull};
pub use draft::{AppendError, Appended, Draft};
pub use open::{OpenError, Opened, Recovered, open};
pub use outbox::{Outbox, OutboxError};
pub use spool::Spool;
