//! What the cluster says about this node's pods.
//!
//! Owns the watches and what is kept of them, and what GKE's metadata server says of project and cluster. Knows no
//! cgroup, no connection and no record.

mod client;
pub mod gke;
mod lookups;
pub mod names;
mod pod;
mod store;
mod watch;

pub use client::{ClientError, client, patient_client};
pub use kube::Client;
pub use lookups::{Account, Owners};
pub use pod::{Container, Controller, Keep, Kind, Pod, Refused, Run};
pub use store::{Book, Known, REMEMBERED, REMEMBERED_PODS, Reach, Snapshot, Store};
pub use verbatim_inject::{ContainerTrust, NotInjected, RootId};
pub use watch::{Pace, follow};
