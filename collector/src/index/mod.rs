//! What can be searched: one row a command, one a connection, what the kernel counted, what agents tell of themselves,
//! and the findings.
//!
//! Disposable: whatever an index holds was read from the log, and it says up to where. Knows no transport and
//! never writes to the log. All calls block.

pub mod counts;
pub mod events;
mod memory;
mod project;
mod row;
mod sqlite;
mod text;

use verbatim_api::v1;

pub use self::{
    counts::Counts,
    events::Events,
    memory::MemoryIndex,
    project::project,
    row::{CommandRow, Names, Part, Role, SessionPart, SessionRow},
    sqlite::SqliteIndex,
    text::{Words, WordsError},
};
use crate::log::Location;

/// A record's id.
pub type Id = [u8; 16];

/// What a stretch of the log changes.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Commands, connections and events to forget, before anything else.
    pub remove: Vec<Id>,
    /// What came, in the log's order.
    pub changes: Vec<Change>,
    /// Findings and readings of positions below go with the envelopes that they stand beside; 0: none do.
    pub forget_findings_below: u64,
    /// Position after the stretch.
    pub next_position: u64,
}

/// One thing that the log says.
#[derive(Clone, Debug)]
pub enum Change {
    /// About a command.
    Command(Box<Part>),
    /// About a connection.
    Session(Box<SessionPart>),
    /// A record that belongs to a command or connection and changes nothing about its row.
    Extra(Id, Location),
    /// What a record says of its chain.
    Chain(Box<counts::ChainPart>),
    /// What the kernel has counted.
    Reading(Box<counts::Reading>),
    /// What an agent tells of itself.
    Event(Box<events::EventRow>),
    /// Something is wrong.
    Finding {
        /// Position of the batch or event that says so.
        position: u64,
        /// What.
        finding: v1::Finding,
    },
}

/// What is looked for.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// All of it must match; `text` is in `words`.
    pub filter: v1::Filter,
    /// Parsed from the filter's text.
    pub words: Words,
    /// Only rows behind this one, in the asked order.
    pub after: Option<i64>,
    /// Ascending by time.
    pub oldest_first: bool,
    /// Rows at most.
    pub limit: usize,
}

/// A connection with what was done on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionSummary {
    /// The connection.
    pub row: SessionRow,
    /// Commands on it.
    pub commands: u64,
    /// Of these, answered with an error.
    pub errors: u64,
    /// Of these, never forwarded and not allowed.
    pub denied: u64,
}

/// Why an index failed.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The file is not what this version wrote, or is damaged: it has to be made again.
    #[error("index {place} cannot be used: {detail}; it is made again from the log")]
    Unusable {
        /// Which file.
        place: String,
        /// What is wrong.
        detail: String,
    },
    /// Anything else.
    #[error("index {place}: {detail}")]
    Failed {
        /// Which file.
        place: String,
        /// What happened.
        detail: String,
    },
}

/// Keeps rows and finds them.
///
/// One thread applies; any number ask.
pub trait Index: Counts + Events + Send + Sync + std::fmt::Debug + 'static {
    /// Position up to which the log was read.
    fn position(&self) -> Result<u64, IndexError>;

    /// Takes in a stretch of the log, all of it or nothing.
    fn apply(&self, batch: &Batch) -> Result<(), IndexError>;

    /// Leaves nothing of what was removed in any file.
    fn scrub(&self) -> Result<(), IndexError>;

    /// Forgets everything: [`Index::position`] is 0 afterwards.
    fn reset(&self) -> Result<(), IndexError>;

    /// Whether what is kept is still there, e.g. its file was not deleted.
    fn is_intact(&self) -> bool;

    /// All records known under an id, as a command, as a connection and as an event, in the log's order.
    fn locations(&self, id: &Id) -> Result<Vec<Location>, IndexError>;

    /// Commands by time, and the position of that very state of the index.
    fn search(&self, query: &Query) -> Result<(Vec<CommandRow>, u64), IndexError>;

    /// The row of a command, if it matches, and the position of that very state of the index.
    fn command(&self, id: &Id, query: &Query) -> Result<(Option<CommandRow>, u64), IndexError>;

    /// Connections, newest first, and the position of that very state of the index. Operations, decisions,
    /// statuses and text hold for at least one command.
    fn sessions(&self, query: &Query) -> Result<(Vec<SessionSummary>, u64), IndexError>;

    /// Findings behind (position, ordinal), in the log's order, each with its own (position, ordinal), and the
    /// position of that very state of the index.
    fn findings(&self, after: (u64, u32), limit: usize) -> Result<(Vec<FindingRow>, u64), IndexError>;
}

/// A finding and its place: position, and number among those of that position, from 1.
pub type FindingRow = ((u64, u32), v1::Finding);
