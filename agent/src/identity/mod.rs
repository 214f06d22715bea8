//! Who a workload is, from the kernel's view of it.
//!
//! Owns the forms of principals, the one identity of `run`, and the table of `serve`. What a client
//! presents is no identity and never comes here.

mod cgroup;
mod federation;
mod fixed;
mod names;
mod naming;
#[cfg(test)]
mod oracle;
mod registry;
mod selecting;
mod table;

pub use cgroup::{Container, Place, PodCgroup, PodsRoot, Qos, Runtime};
pub use federation::{Federated, Federation};
pub use fixed::{Fixed, federated, local};
pub use names::{NameError, Pool, ServiceAccount, principal};
pub use naming::{By, Named, Pods};
pub use registry::{Cgroups, Change, Folder, Gone, Known, Registry};
pub use table::Table;
