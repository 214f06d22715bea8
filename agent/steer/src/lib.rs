//! Steering: loads and attaches the eBPF programs, keeps the listeners in the workloads' network
//! namespaces, and reads from an accepted socket what its connect() was.
//!
//! Knows cgroup ids, addresses and namespaces. It must not know what a pod is, which protocol a
//! connection speaks, or what is done with it.

mod addresses;
mod bypass;
mod config;
mod connects;
mod counters;
mod effective;
mod error;
mod events;
mod features;
mod flow;
mod heartbeat;
mod hooks;
mod kernel_log;
mod listener;
mod locking;
mod namespaces;
mod object;
mod pump;
mod rules;
mod steering;
mod strays;
mod vault;
mod watch;

pub use addresses::Addresses;
pub use bypass::{BYPASSED, Bypass, Bypasses, Pinned};
pub use config::{HostListener, SteerConfig};
pub use connects::{ConnectReader, Connects, Outcome};
pub use effective::{HookReport, Loss, LostHook};
pub use error::SteerError;
pub use events::{Event, EventKind};
pub use features::{Feature, Lacking};
pub use flow::{Flow, FlowReader};
pub use heartbeat::{Heartbeat, HeartbeatThread};
pub use hooks::unpin;
pub use listener::ShardListeners;
pub use namespaces::{NamespaceCount, NamespaceListeners, Namespaces};
pub use rules::{Action, CgroupVerdict, DestinationRule, FailMode, Prefix, Protocol};
pub use steering::Steering;
pub use strays::Stray;
pub use vault::{Handed, Vault};
pub use verbatim_ebpf_common::SCHEMA_VERSION;
pub use watch::{NamespaceChange, NamespaceTroubles, NamespaceWatcher};
