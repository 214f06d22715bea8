//! The lab: what scenarios stand on.
//!
//! Owns namespaces, cgroups, servers and clients of a scenario, and the comparison of what was done with
//! what was recorded. Knows the product only from outside: its binaries, its configuration, its gRPC.

pub mod agent;
pub mod asking;
pub mod audit;
pub mod authority;
pub mod binaries;
pub mod cases;
pub mod certificates;
pub mod cgroup;
pub mod cli;
pub mod clients;
pub mod clock;
pub mod cluster;
pub mod collector;
pub mod did;
pub mod disk;
pub mod find;
pub mod folder;
pub mod front;
pub mod google;
pub mod lab;
pub mod link;
pub mod memory;
pub mod name;
pub mod netns;
pub mod network;
pub mod parts;
pub mod peers;
pub mod pglog;
pub mod policy;
pub mod postgres;
pub mod process;
pub mod questions;
pub mod reaper;
pub mod sets;
pub mod shell;
pub mod soak;
pub mod tail;
pub mod traffic;
pub mod trust;
pub mod undo;
pub mod wait;
