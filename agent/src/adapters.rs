//! What the proxy needs of steering, in the proxy's own terms.

use std::{
    io,
    net::SocketAddr,
    os::fd::{BorrowedFd, OwnedFd},
};

use verbatim_proxy::seam::{Dialer, Flow, Flows};
use verbatim_steer::{FlowReader, Namespaces};

/// Reads flows.
#[derive(Debug)]
pub(crate) struct SteeredFlows(pub(crate) FlowReader);

impl Flows for SteeredFlows {
    fn flow(&self, accepted: BorrowedFd<'_>) -> Option<Flow> {
        let steered = self.0.flow(accepted)?;
        let kernel = &steered.0;
        Some(Flow {
            destination: steered.destination(),
            cgroup_id: kernel.cgroup_id,
            ancestor_cgroup_ids: steered.ancestor_cgroup_ids(),
            pid: kernel.pid,
            uid: kernel.uid,
            gid: kernel.gid,
            client_netns: kernel.client_netns,
            listener_netns: kernel.listener_netns,
            socket_cookie: kernel.socket_cookie,
            ktime_nanos: kernel.ktime_nanos,
            comm: steered.comm(),
            connect_series: kernel.series,
            connect_number: kernel.number,
        })
    }
}

/// Dials from where the workload is.
#[derive(Debug)]
pub(crate) struct NamespaceDialer(pub(crate) Namespaces);

impl Dialer for NamespaceDialer {
    fn socket(&self, netns: u64, destination: SocketAddr) -> io::Result<OwnedFd> {
        self.0.dial_socket(netns, destination)
    }
}
