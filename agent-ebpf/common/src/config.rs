//! What user space tells the programs once: the value of `CFG`.

use crate::{Address, Verdict};

/// The one element of `CFG`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// A heartbeat older than this means that the proxy is dead; nanoseconds of CLOCK_MONOTONIC.
    pub heartbeat_timeout_nanos: u64,
    /// Cookie of the host listener's network namespace; 0 where there is no host listener.
    pub host_netns: u64,
    /// IPv4 address of the host listener, v4-mapped.
    pub host_v4: Address,
    /// IPv6 address of the host listener; `::` where it has none.
    pub host_v6: Address,
    /// Port of the host listener.
    pub host_port: u16,
    /// What holds for a cgroup that neither itself nor through an ancestor has a verdict.
    pub default_verdict: Verdict,
    /// Zero.
    pub reserved: [u8; 4],
}

impl Config {
    /// Whether there is a host listener.
    #[inline(always)]
    #[must_use]
    pub const fn has_host_listener(&self) -> bool {
        self.host_netns != 0
    }
}
