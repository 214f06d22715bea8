//! What a caller decides before anything is loaded.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    time::Duration,
};

use verbatim_ebpf_common::{self as common, Address};

use crate::{
    SteerError,
    rules::{Action, CgroupVerdict, FailMode},
};

/// How to steer.
#[derive(Clone, Debug)]
pub struct SteerConfig {
    /// cgroup v2 directory that the programs are attached to. Both the workloads and the proxy must
    /// live below it: flows are handed over to sockets of the proxy.
    pub attach_root: PathBuf,
    /// Directory of a BPF file system, in which links and maps outlive this process; `None`: its
    /// death detaches everything.
    pub pin_directory: Option<PathBuf>,
    /// Version of the maps' layout, which names a folder of its own among the pins.
    pub schema: u32,
    /// Listeners of a predecessor were handed over, so that connections may wait: the heartbeat goes on from the
    /// beginning, while the programs are loaded.
    pub waited_for: bool,
    /// cgroup ids that are never steered: the proxy's own.
    pub own_cgroups: Vec<u64>,
    /// A heartbeat older than this means that the proxy is dead.
    pub heartbeat_timeout: Duration,
    /// What holds for cgroups without a verdict of their own or of an ancestor.
    pub default_verdict: CgroupVerdict,
    /// Where clients go that cannot reach the listener in their namespace.
    pub host_listener: Option<HostListener>,
    /// Listeners per address and namespace: one for each shard of the proxy.
    pub shards: usize,
    /// Ports that a listener tries first, in this order.
    pub ports: Vec<u16>,
    /// Names of features that count as lacking whatever the kernel says: to see what happens then.
    pub treat_as_absent: Vec<String>,
}

/// A listener outside the workloads' network namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostListener {
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address, where it has one.
    pub v6: Option<Ipv6Addr>,
    /// Its port.
    pub port: u16,
    /// Cookie of its network namespace.
    pub netns: u64,
}

impl SteerConfig {
    /// Ports that listeners try first. Both lie outside the range that Linux hands out by itself.
    pub const PORTS: [u16; 2] = [61_973, 62_973];

    /// Steers nothing yet: workloads without a verdict pass, nothing is pinned, one shard.
    #[must_use]
    pub fn new(attach_root: impl Into<PathBuf>) -> Self {
        Self {
            attach_root: attach_root.into(),
            pin_directory: None,
            schema: common::SCHEMA_VERSION,
            waited_for: false,
            own_cgroups: Vec::new(),
            heartbeat_timeout: Duration::from_secs(2),
            default_verdict: CgroupVerdict { action: Action::Pass, fail_mode: FailMode::Open },
            host_listener: None,
            shards: 1,
            ports: Self::PORTS.to_vec(),
            treat_as_absent: Vec::new(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), SteerError> {
        let invalid = |what, cause: &str| Err(SteerError::Invalid { what, cause: cause.to_owned() });
        if self.heartbeat_timeout < Duration::from_millis(200) {
            return invalid("heartbeat time-out".into(), "less than 200 ms, which two late beats exceed");
        }
        if !(1..=64).contains(&self.shards) {
            return invalid("shards".into(), "expected 1 to 64");
        }
        if self.ports.contains(&0) {
            return invalid("ports".into(), "0 is no port to prefer");
        }
        Ok(())
    }

    /// What the kernel is told.
    pub(crate) fn kernel_config(&self) -> common::Config {
        let host = self.host_listener;
        common::Config {
            heartbeat_timeout_nanos: u64::try_from(self.heartbeat_timeout.as_nanos()).unwrap_or(u64::MAX),
            host_netns: host.map_or(0, |host| host.netns),
            host_v4: host.map_or(Address::UNSPECIFIED, |host| host.v4.into()),
            host_v6: host.and_then(|host| host.v6).map_or(Address::UNSPECIFIED, Into::into),
            host_port: host.map_or(0, |host| host.port),
            default_verdict: self.default_verdict.into(),
            reserved: [0; 4],
        }
    }
}
