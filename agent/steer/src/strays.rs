//! Connections that came past connect(): which they are, and ending them.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use aya::maps::{HashMap, MapData, MapError};
use verbatim_ebpf_common::{self as common, AF_INET6};
use verbatim_sys::sock_diag::{self, TcpSocket};

use crate::{Namespaces, SteerError};

/// A connected socket of a steered workload to a steered destination that was not steered: it was connected before
/// the programs were attached or its rule was made, or something after us sent it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stray {
    /// cgroup v2 id of the socket: its creator's.
    pub cgroup_id: u64,
    /// Where it is connected to.
    pub remote: SocketAddr,
    /// Whether its packets are dropped.
    pub dropped: bool,
    socket: TcpSocket,
}

impl Stray {
    fn new(cookie: u64, stray: &common::Stray) -> Self {
        let remote = SocketAddr::new(IpAddr::from(stray.remote), stray.remote_port);
        let local = SocketAddr::new(IpAddr::from(stray.local), stray.local_port);
        let socket = TcpSocket { v6: stray.family == AF_INET6, local, remote, cookie };
        Self { cgroup_id: stray.cgroup_id, remote, dropped: stray.dropped != 0, socket }
    }
}

/// What the backstop has found since the last time: each once, as long as it is not dropped or ended.
pub(crate) fn take(strays: &mut HashMap<MapData, u64, common::Stray>) -> Result<Vec<Stray>, SteerError> {
    let failed = |error| SteerError::kernel("reading what came past connect()", error);
    let cookies: Vec<u64> = strays.keys().collect::<Result<_, _>>().map_err(failed)?;
    let mut found = Vec::with_capacity(cookies.len());
    for cookie in cookies {
        match strays.get(&cookie, 0) {
            Ok(stray) => found.push(Stray::new(cookie, &stray)),
            Err(MapError::KeyNotFound) => continue,
            Err(error) => return Err(failed(error)),
        }
        match strays.remove(&cookie) {
            Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(failed)?,
        }
    }
    Ok(found)
}

/// Ends a stray, wherever among the known namespaces it is. `false`: it is in none, or gone.
pub(crate) fn end(stray: &Stray, namespaces: &Namespaces) -> io::Result<bool> {
    namespaces.find(|| sock_diag::destroy_tcp(&stray.socket))
}
