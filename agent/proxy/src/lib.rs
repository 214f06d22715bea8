//! Accepts steered flows, relays them and has every command recorded and decided before it goes on.
//!
//! Owns connections. Knows protocols, policy, identity and records; none of them knows it. How a flow was
//! steered, and who a cgroup is, come through [`seam`].

mod buffer;
mod cancel;
mod chains;
mod client;
mod config;
mod connection;
mod control;
mod descriptors;
mod dial;
mod guard;
mod http;
mod journal;
mod judge;
mod known;
mod legs;
mod protocols;
mod record;
mod records;
mod relay;
mod replay;
pub mod seam;
mod shard;
mod shards;
mod shares;
mod sniff;
mod speak;
mod splicing;
mod stats;
mod strangers;
mod terminate;

pub use config::ProxyConfig;
pub use protocols::{Builtin, Detected, Protocols};
pub use records::Records;
pub use shards::{Deps, Shards, ShardsError};
pub use stats::{EndedAlike, EndedBy, ProvenBy, SplicedBy, Stats};
