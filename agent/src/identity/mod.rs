//! Who a workload is, from the kernel's view of it.
//!
//! Owns the forms of principals, the one identity of `run`, and the table of `serve`. What a client
//! presents is no identity and never comes here.

mod cgroup;
mod fixed;
mod names;
mod table;

pub use cgroup::{Container, Place, PodCgroup, PodsRoot, Qos, Runtime, uid_key};
pub use fixed::{Fixed, federated, local};
pub use names::{NameError, Pool, ServiceAccount, principal};
pub use table::{Known, Table, Workloads};
