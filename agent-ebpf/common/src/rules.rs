//! Which destinations and which workloads are steered.

use crate::Address;

/// What happens to a connect(). Kept in maps as its number.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Goes its way untouched.
    Pass = 0,
    /// Goes to the proxy.
    Steer = 1,
    /// Fails with EPERM.
    Deny = 2,
    /// Of destinations only: goes to the proxy, and its way untouched while the proxy cannot take it, whatever the
    /// workload's fail mode.
    SteerOrPass = 3,
}

/// What happens to connects that would be steered while the proxy is dead. Kept in maps as its number.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailMode {
    /// They pass, uncaptured.
    Open = 0,
    /// They fail with EPERM.
    Closed = 1,
}

/// A cgroup's verdict: the value of `CGS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// An [`Action`] as its number.
    pub action: u8,
    /// A [`FailMode`] as its number.
    pub fail_mode: u8,
}

impl Verdict {
    /// From its typed parts.
    #[must_use]
    pub const fn new(action: Action, fail_mode: FailMode) -> Self {
        Self { action: action as u8, fail_mode: fail_mode as u8 }
    }

    /// Whether connects go their way untouched, whatever their destination.
    #[inline(always)]
    #[must_use]
    pub const fn passes(self) -> bool {
        self.action == Action::Pass as u8
    }

    /// Whether connects to steered destinations fail.
    #[inline(always)]
    #[must_use]
    pub const fn denies(self) -> bool {
        self.action == Action::Deny as u8
    }

    /// Whether a dead proxy means EPERM.
    #[inline(always)]
    #[must_use]
    pub const fn fails_closed(self) -> bool {
        self.fail_mode == FailMode::Closed as u8
    }
}

/// Data of a key of the `DSTS` trie; its value is an [`Action`] as a `u8`.
///
/// Port and protocol come first and always count in full, so that the prefix length runs over the
/// address. Lookups ask for the exact port first, then for port 0, which stands for every port: a
/// rule with a port beats one without, however long the latter's prefix.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Destination {
    /// Port in network byte order; 0 for any.
    pub port: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub reserved: u8,
    /// Address, v4-mapped.
    pub address: Address,
}

impl Destination {
    /// Bits before the address.
    pub const FIXED_BITS: u32 = 32;
    /// Bits of a whole key.
    pub const BITS: u32 = Self::FIXED_BITS + 128;

    /// A key's data; `port` in host byte order, 0 for any.
    #[inline(always)]
    #[must_use]
    pub const fn new(protocol: u8, port: u16, address: Address) -> Self {
        Self { port: port.to_be_bytes(), protocol, reserved: 0, address }
    }
}
