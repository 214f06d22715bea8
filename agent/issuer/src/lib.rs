//! The cluster's issuer: it holds the constrained roots, gives nodes their intermediates, keeps the bundle in the
//! selected namespaces, and has pods that are admitted trust it.
//!
//! Owns everything that only one place of a cluster may have. Knows no workload's connection: what is done with the
//! certificates is the node agent's.

mod bundle;
mod cli;
pub mod config;
mod kept;
mod limits;
mod metrics;
mod namespaces;
mod nodes;
mod own;
mod review;
mod run;
mod server;
mod store;
mod webhook;

pub use cli::main;
pub use kept::{Class, Generation, Kept, KeptError, Phase, Rules};
pub use own::OwnError;
pub use run::{Running, StartError, start};
pub use store::{Store, StoreError};
