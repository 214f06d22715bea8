//! How many connects of which cgroup went where and what became of them: the map `CONNS`.

use crate::{Address, Counter};

/// What became of a connect() to a destination that a rule names. Kept in the map as its number.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Sent to a listener.
    Steered = 1,
    /// Refused by a rule.
    Denied = 2,
    /// Refused because the proxy is dead and the workload fails closed.
    StaleDenied = 3,
    /// Passed uncaptured because the proxy is dead and the workload fails open.
    StalePassed = 4,
    /// Refused for want of a listener in the namespace.
    Missed = 5,
    /// Bound to a device and refused.
    DeviceDenied = 6,
    /// Bound to a device and passed uncaptured.
    DevicePassed = 7,
    /// Left to fail by itself for want of an IPv6 route.
    Unrouted = 8,
    /// Refused because the kernel had no memory for the flow.
    NoMemory = 9,
    /// Passed uncaptured because a person had steering stopped.
    Bypassed = 10,
    /// UDP to port 443 of a steered destination, refused; each datagram of an unconnected socket counts.
    QuicDenied = 11,
    /// The same, passed uncaptured.
    QuicPassed = 12,
    /// Found connected without having been steered; it goes on uncaptured.
    Stray = 13,
    /// The same, its packets dropped.
    StrayDropped = 14,
    /// No outcome: the one element that counts what had no room for an element of its own.
    Uncounted = 255,
}

impl Outcome {
    /// What the counter means for the destination. `None`: the connect passed because no rule, no
    /// verdict or nobody but ourselves is concerned; such are not counted by destination.
    #[inline(always)]
    #[must_use]
    pub const fn of(counter: Counter) -> Option<Self> {
        Some(match counter {
            Counter::SteeredInPod | Counter::SteeredHost => Self::Steered,
            Counter::Denied => Self::Denied,
            Counter::StaleDenied => Self::StaleDenied,
            Counter::StalePassed => Self::StalePassed,
            Counter::Missed => Self::Missed,
            Counter::DeviceDenied => Self::DeviceDenied,
            Counter::DevicePassed => Self::DevicePassed,
            Counter::Unrouted => Self::Unrouted,
            Counter::NoMemory => Self::NoMemory,
            Counter::Bypassed => Self::Bypassed,
            Counter::QuicDenied => Self::QuicDenied,
            Counter::QuicPassed => Self::QuicPassed,
            Counter::Stray => Self::Stray,
            Counter::StrayDropped => Self::StrayDropped,
            _ => return None,
        })
    }

    /// The outcome with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Steered,
            2 => Self::Denied,
            3 => Self::StaleDenied,
            4 => Self::StalePassed,
            5 => Self::Missed,
            6 => Self::DeviceDenied,
            7 => Self::DevicePassed,
            8 => Self::Unrouted,
            9 => Self::NoMemory,
            10 => Self::Bypassed,
            11 => Self::QuicDenied,
            12 => Self::QuicPassed,
            13 => Self::Stray,
            14 => Self::StrayDropped,
            255 => Self::Uncounted,
            _ => return None,
        })
    }
}

/// Key of `CONNS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConnectKey {
    /// cgroup v2 id of the caller.
    pub cgroup_id: u64,
    /// Address that was dialled.
    pub address: Address,
    /// Port that was dialled.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// An [`Outcome`] as its number.
    pub outcome: u8,
    /// Zero.
    pub reserved: [u8; 4],
}

impl ConnectKey {
    /// The element that counts what had no room.
    pub const UNCOUNTED: Self = Self {
        cgroup_id: 0,
        address: Address::UNSPECIFIED,
        port: 0,
        protocol: 0,
        outcome: Outcome::Uncounted as u8,
        reserved: [0; 4],
    };
}

/// Value of `CONNS`: only grows, for as long as the element is there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectCount {
    /// Tells this element from an earlier one of the same key: CLOCK_MONOTONIC of its beginning in
    /// nanoseconds, whose lowest byte is the CPU's number.
    pub series: u64,
    /// Calls of connect(); of other outcomes what those say.
    pub connects: u64,
    /// Of these, how many became a connection: accepted sockets that got their flow, and unrouted
    /// ones that found a route after all.
    pub connected: u64,
}

impl ConnectCount {
    /// The name of a series that begins now on this CPU.
    #[inline(always)]
    #[must_use]
    pub const fn series_at(monotonic_nanos: u64, cpu: u32) -> u64 {
        monotonic_nanos & !0xff | cpu as u64 & 0xff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_is_found_by_its_number_and_has_a_counter() {
        for &counter in Counter::ALL {
            if let Some(outcome) = Outcome::of(counter) {
                assert_eq!(Outcome::from_number(outcome as u8), Some(outcome));
            }
        }
        let counted =
            |number| Counter::ALL.iter().any(|counter| Outcome::of(*counter) == Outcome::from_number(number));
        assert!((1..=14).all(counted));
        assert_eq!(Outcome::from_number(0), None);
    }

    #[test]
    fn what_passes_because_nobody_is_concerned_is_not_counted_by_destination() {
        for counter in [
            Counter::Own,
            Counter::UnmatchedDestination,
            Counter::PassedDestination,
            Counter::PassedCgroup,
            Counter::SelfAimed,
        ] {
            assert_eq!(Outcome::of(counter), None);
        }
    }

    #[test]
    fn series_that_begin_at_once_on_two_cpus_differ() {
        assert_ne!(ConnectCount::series_at(1 << 40, 0), ConnectCount::series_at(1 << 40, 1));
        assert_eq!(ConnectCount::series_at(0x1234, 7), 0x1207);
    }
}
