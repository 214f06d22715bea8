//! The segment log: the truth. Whatever else the collector keeps can be made again from it.
//!
//! Owns positions (every envelope and every event takes one, in the order of commits), what is durable, and
//! the one thread that writes. Knows chains only through the book that it keeps for them, and no index.

pub mod book;
mod chain;
mod clock;
pub mod follow;
pub mod frame;
pub mod handle;
pub mod header;
mod places;
pub mod prepare;
mod stage;

pub mod view;
mod writer;

use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) use self::stage::hex;
pub use self::{
    follow::{Follower, Raw, Step},
    handle::{CommitError, Log, LogLimits},
    view::{Location, LogView},
};

/// The collector's wall clock, nanoseconds since 1970.
#[must_use]
pub fn wall_nanos() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}
