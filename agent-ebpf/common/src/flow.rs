//! One steered connection as its connect() was seen.

use crate::Address;

/// Levels of the cgroup tree that are looked at: 1 (below the root) to 16.
pub const LEVELS: usize = 16;

/// Where a connect() was sent. Kept in maps as its number.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// To the listener in the client's own network namespace.
    InPod = 1,
    /// To the host listener.
    Host = 2,
    /// Nowhere: it went on by itself, because its namespace was known to have no IPv6 route.
    /// Remembered only to notice when it gets through after all.
    Unrouted = 3,
}

/// A steered connection: value of `SKC`, `SKA` and `FLOWT`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Where the workload dialled.
    pub destination: Address,
    /// What getsockname() shows instead of loopback; `::` where it is left alone.
    pub shown_source: Address,
    /// cgroup v2 id of the caller of connect(); where the caller is not steered, but the workload that
    /// made the socket is, of that one.
    pub cgroup_id: u64,
    /// Ids of the caller's cgroups by absolute level: element n is level n + 1. Levels below the
    /// caller's own are 0; the caller's own level holds its own id. All 0 where `cgroup_id` is not the
    /// caller's.
    pub cgroups_by_level: [u64; LEVELS],
    /// Cookie of the client's network namespace.
    pub client_netns: u64,
    /// Cookie of the network namespace that the listener is in.
    pub listener_netns: u64,
    /// Cookie of the client's socket.
    pub socket_cookie: u64,
    /// CLOCK_MONOTONIC of the connect(), nanoseconds.
    pub ktime_nanos: u64,
    /// Name of the calling thread, padded with zeros.
    pub comm: [u8; 16],
    /// Thread group id (what user space calls a process id) in the first pid namespace.
    pub pid: u32,
    /// Thread id in the first pid namespace.
    pub tid: u32,
    /// Real user id in the first user namespace.
    pub uid: u32,
    /// Real group id in the first user namespace.
    pub gid: u32,
    /// Port that the workload dialled.
    pub port: u16,
    /// Family of the socket: [`crate::AF_INET`] or [`crate::AF_INET6`]. The latter may dial v4-mapped.
    pub family: u8,
    /// IP protocol number.
    pub protocol: u8,
    /// A [`Route`] as its number.
    pub route: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// Of an accepted socket, where this connection was counted: [`crate::ConnectCount::series`]; 0 where
    /// there was no room to count it.
    pub series: u64,
    /// Its number there, from 1.
    pub number: u64,
}

impl Flow {
    /// Ids of the caller's ancestors, nearest first, without its own.
    pub fn ancestors(&self) -> impl Iterator<Item = u64> + '_ {
        self.cgroups_by_level.iter().rev().copied().filter(|&id| id != 0 && id != self.cgroup_id)
    }
}

/// Key of `FLOWT`, which bridges the handshake: the client's end as the listener sees it.
///
/// The listener's port and namespace are part of it, because the same client address and port may
/// at the same time speak to another server, or exist in another namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowKey {
    /// Address of the client.
    pub client: Address,
    /// Cookie of the listener's network namespace.
    pub listener_netns: u64,
    /// Port of the client.
    pub client_port: u16,
    /// Port of the listener.
    pub listener_port: u16,
    /// Zero.
    pub reserved: [u8; 4],
}
