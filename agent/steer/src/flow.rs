//! Reading from an accepted socket what its client's connect() was.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, BorrowedFd},
    sync::Arc,
};

use aya::maps::{MapData, SkStorage};
use verbatim_ebpf_common as common;

/// One steered connection as the kernel saw its connect(). See [`common::Flow`] for each field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow(pub common::Flow);

impl Flow {
    /// Where the workload dialled. A v4-mapped destination comes as IPv4.
    #[must_use]
    pub fn destination(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::from(self.0.destination), self.0.port)
    }

    /// Ids of the ancestors of the caller's cgroup, nearest first.
    #[must_use]
    pub fn ancestor_cgroup_ids(&self) -> Vec<u64> {
        self.0.ancestors().collect()
    }

    /// Name of the calling thread.
    #[must_use]
    pub fn comm(&self) -> String {
        let comm = &self.0.comm;
        let length = comm.iter().position(|&byte| byte == 0).unwrap_or(comm.len());
        String::from_utf8_lossy(&comm[..length]).into_owned()
    }
}

/// Reads flows by accepted socket.
#[derive(Clone, Debug)]
pub struct FlowReader {
    flows: Arc<SkStorage<MapData, common::Flow>>,
}

impl FlowReader {
    pub(crate) fn new(flows: SkStorage<MapData, common::Flow>) -> Self {
        Self { flows: Arc::new(flows) }
    }

    /// The flow of an accepted socket; `None`: the socket was not steered by us, so that whoever is
    /// at its other end connected to the listener by itself.
    #[must_use]
    pub fn flow(&self, accepted: BorrowedFd<'_>) -> Option<Flow> {
        self.flows.get(&accepted.as_raw_fd(), 0).ok().map(Flow)
    }
}
