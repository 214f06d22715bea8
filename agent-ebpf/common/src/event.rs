//! What the programs report as it happens, through the `EVENTS` ring buffer.

use crate::Address;

/// What happened. Kept in the ring buffer as its number.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A workload is to be steered, but no listener stands in its namespace: refused (ECONNREFUSED).
    Miss = 1,
    /// Refused with EPERM by a rule.
    Denied = 2,
    /// Refused with EPERM because the proxy is dead and the workload fails closed.
    StaleDenied = 3,
    /// Passed uncaptured because the proxy is dead and the workload fails open.
    StalePassed = 4,
    /// A client bound to a device cannot reach its listener and there is no host listener:
    /// its fail mode decided.
    BoundToDevice = 5,
    /// Passed uncaptured and got through, in a namespace thought to have no IPv6 route.
    UnroutedConnected = 6,
    /// Somebody tried to bind our listener's port.
    BindDenied = 7,
    /// The kernel had no memory for the flow: refused with EPERM.
    NoMemory = 8,
    /// A connection reached the listener without a flow.
    NoFlow = 9,
    /// UDP to port 443 of a steered destination: refused with EPERM, so that the client falls back to TCP.
    QuicDenied = 10,
    /// The same, passed because the proxy is dead and the workload fails open, or because a person had
    /// asked not to steer.
    QuicPassed = 11,
    /// A raw, SCTP or SMC socket was refused with EPERM; `port` is its IP protocol number.
    SocketDenied = 12,
    /// A connected socket that was not steered when it connected: reported once, its packets pass.
    Stray = 13,
    /// The same, its packets are dropped.
    StrayDropped = 14,
    /// It was steered, but something that ran after us sent it elsewhere.
    Diverted = 15,
}

impl EventKind {
    /// One more than the largest number.
    pub const END: u32 = Self::Diverted as u32 + 1;

    /// The kind with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Miss,
            2 => Self::Denied,
            3 => Self::StaleDenied,
            4 => Self::StalePassed,
            5 => Self::BoundToDevice,
            6 => Self::UnroutedConnected,
            7 => Self::BindDenied,
            8 => Self::NoMemory,
            9 => Self::NoFlow,
            10 => Self::QuicDenied,
            11 => Self::QuicPassed,
            12 => Self::SocketDenied,
            13 => Self::Stray,
            14 => Self::StrayDropped,
            15 => Self::Diverted,
            _ => return None,
        })
    }
}

/// An element of `EVENTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub ktime_nanos: u64,
    /// Cookie of the network namespace; 0 where it is not known (strays).
    pub netns: u64,
    /// cgroup v2 id of the caller; 0 where there is none.
    pub cgroup_id: u64,
    /// Address that was dialled or bound.
    pub address: Address,
    /// Thread group id of the caller; 0 where there is none.
    pub pid: u32,
    /// Events of this kind that this CPU kept back in the second before, by the rate limit.
    pub suppressed: u32,
    /// Port that was dialled or bound; of a socket that was denied its IP protocol number.
    pub port: u16,
    /// An [`EventKind`] as its number.
    pub kind: u8,
    /// IP protocol number of what was dialled; 0 where that follows from the kind.
    pub protocol: u8,
    /// Zero.
    pub reserved: [u8; 4],
}

/// A CPU's share of the rate limit of one kind: the value of `RATE`, whose key is the kind's number. So a flood of one
/// kind hides nothing of another.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateWindow {
    /// CLOCK_MONOTONIC of the window's begin, nanoseconds.
    pub since_nanos: u64,
    /// Events sent in it.
    pub sent: u32,
    /// Events kept back in it.
    pub suppressed: u32,
}

impl RateWindow {
    /// Length of a window, nanoseconds.
    pub const NANOS: u64 = 1_000_000_000;
    /// Events of one kind that one CPU may send in a window.
    pub const EVENTS: u32 = 10;
}
