//! Takes in records from node agents, keeps them, and answers questions about them.
//!
//! The way in: `listen` → `ingest` → `log` (prepare, stage, write) → `store`. The way out: `listen` → `audit`
//! → `index` and `log`. Between them `indexer` reads the log into the index. The log is the truth, the index
//! is disposable. Nothing here knows how records are made.

pub mod audit;
pub mod config;
mod coverage;
pub mod descriptors;
pub mod index;
pub mod indexer;
pub mod ingest;
pub mod listen;
mod lock;
pub mod log;
mod offline;
pub mod priority;
pub mod retention;
mod serve;
pub mod store;

pub use self::{
    lock::LockError,
    offline::{OpenError, open_offline},
    serve::{Collector, ServeError, start},
};
