//! The system calls that Verbatim needs, each behind a safe function.
//!
//! The only crate beside the eBPF ones that holds `unsafe`. Knows nothing of what the calls are for.

pub mod bpf;
pub mod cgroup;
pub mod clock;
pub mod mapped;
pub mod mounts;
pub mod netns;
pub mod packets;
pub mod privilege;
pub mod process;
pub mod signal;
pub mod sock_diag;
pub mod socket;
pub mod splice;
