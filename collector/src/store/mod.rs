//! Where segments are kept: one interface, a local directory and an object store behind it.
//!
//! Owns bytes and their durability. Knows frames only as far as recovering a torn tail needs it, and
//! nothing of batches, chains or questions. All calls block: they are made from threads of their own.

mod appended;
mod bucket;
mod local;

use std::{fmt, ops::Range};

use bytes::Bytes;

pub use self::{bucket::BucketStore, local::LocalStore};
use crate::log::frame::Part;

/// What one commit makes durable at once.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// Position of the first frame.
    pub first_position: u64,
    /// Frames for the envelopes' segment; never empty.
    pub envelopes: Vec<u8>,
    /// Frames for the contents' segment; may be empty.
    pub contents: Vec<u8>,
}

/// A segment as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Position of its first frame; also its name.
    pub first_position: u64,
    /// Bytes of the envelopes' part, with the segment's header.
    pub envelope_bytes: u64,
    /// Bytes of the contents' part; 0 where there is none (any more).
    pub content_bytes: u64,
    /// Nothing is appended to it any more.
    pub sealed: bool,
}

/// Where a group went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// First position of the segment.
    pub segment: u64,
    /// Bytes that the segment's parts hold now.
    pub envelope_bytes: u64,
    /// See `envelope_bytes`.
    pub content_bytes: u64,
}

/// Bytes that recovery could not read and took out of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Segment's first position.
    pub segment: u64,
    /// Which part.
    pub part: Part,
    /// Where the damage begins, bytes from the segment's start.
    pub offset: u64,
    /// How many bytes were cut.
    pub bytes: u64,
    /// Intact frames stood behind it: this was no torn tail of an unacknowledged group.
    pub intact_behind: bool,
}

/// Why a store refused.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no room. Nothing of the group was kept; the same group can be tried again later.
    #[error("no room left in {place}: {source}; make room or lower the retention")]
    Full {
        /// Where.
        place: String,
        /// The system's own words.
        source: std::io::Error,
    },
    /// What was written may or may not be durable. The store takes nothing any more: start again, recovery
    /// sorts out what is there.
    #[error("cannot make {place} durable: {detail}; the collector must be started again")]
    Broken {
        /// Where.
        place: String,
        /// What happened.
        detail: String,
    },
    /// The segment was removed by retention, or never was.
    #[error("segment {segment} of {part} is not kept (any more)", part = .part.folder())]
    Gone {
        /// Which part.
        part: Part,
        /// First position.
        segment: u64,
    },
    /// Anything else.
    #[error("cannot {action} {place}: {detail}")]
    Failed {
        /// What was tried.
        action: &'static str,
        /// On what.
        place: String,
        /// What happened.
        detail: String,
    },
}

impl StoreError {
    fn failed(action: &'static str, place: impl fmt::Display, detail: impl fmt::Display) -> Self {
        Self::Failed { action, place: place.to_string(), detail: detail.to_string() }
    }
}

/// Keeps segments.
///
/// One writer commits, seals, replaces and removes; any number of readers read what was committed.
pub trait Store: Send + Sync + fmt::Debug + 'static {
    /// Makes a group durable: when this returns, neither `kill -9` nor a loss of power loses it. Contents
    /// are durable before the envelopes that commit to them.
    fn commit(&self, group: &Group) -> Result<Committed, StoreError>;

    /// Ends the open segment, if there is one: the next group begins another.
    fn seal(&self) -> Result<(), StoreError>;

    /// All segments by first position.
    fn segments(&self) -> Result<Vec<SegmentInfo>, StoreError>;

    /// Bytes of a part; fewer than asked for only at its end.
    fn read(&self, part: Part, segment: u64, range: Range<u64>) -> Result<Bytes, StoreError>;

    /// Puts other bytes in the place of a sealed segment's contents, durably and all at once.
    fn replace_contents(&self, segment: u64, bytes: Bytes) -> Result<(), StoreError>;

    /// Removes a part of a sealed segment, durably. Removing what is gone already is no error.
    fn remove(&self, part: Part, segment: u64) -> Result<(), StoreError>;
}

/// Name of a segment's part below the log's root, without its suffix.
fn name(part: Part, segment: u64) -> String {
    format!("{}/{segment:020}", part.folder())
}

/// First position from a file's name; the suffix must be the given one.
fn parse_name(file: &str, suffix: &str) -> Option<u64> {
    let digits = file.strip_suffix(suffix)?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten()
}
