//! A person's order not to steer for a while: the value of `BYP`.

/// The one element of `BYP`. The kernel reads `until_nanos` alone; the rest is for whoever records it, which may
/// be a later process than the one that was asked.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bypass {
    /// CLOCK_MONOTONIC at which it ends by itself, nanoseconds; 0 where there is none.
    pub until_nanos: u64,
    /// CLOCK_MONOTONIC at which it was asked for, nanoseconds; 0 where there was none, or its end is recorded.
    pub since_nanos: u64,
    /// What [`crate::Counter::Bypassed`] said then.
    pub counted_before: u64,
    /// User id of the process that asked.
    pub uid: u32,
    /// Login user id of that process; [`Self::NO_LOGIN`] where it has none.
    pub login: u32,
    /// Length of the reason.
    pub reason_bytes: u32,
    /// 1 where its begin is recorded.
    pub recorded: u32,
    /// The reason, UTF-8, zeros behind it.
    pub reason: [u8; Self::REASON_BYTES],
}

impl Bypass {
    /// The longest reason.
    pub const REASON_BYTES: usize = 256;
    /// The kernel's word for a process that nobody has logged in for.
    pub const NO_LOGIN: u32 = u32::MAX;
    /// None.
    pub const NONE: Self = Self {
        until_nanos: 0,
        since_nanos: 0,
        counted_before: 0,
        uid: 0,
        login: Self::NO_LOGIN,
        reason_bytes: 0,
        recorded: 0,
        reason: [0; Self::REASON_BYTES],
    };

    /// Whether it holds at this time of CLOCK_MONOTONIC.
    #[inline(always)]
    #[must_use]
    pub const fn holds_at(&self, now_nanos: u64) -> bool {
        now_nanos < self.until_nanos
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bypass_ends_at_its_time_and_none_never_holds() {
        let bypass = Bypass { until_nanos: 10, since_nanos: 5, ..Bypass::NONE };
        assert!(bypass.holds_at(9));
        assert!(!bypass.holds_at(10));
        assert!(!Bypass::NONE.holds_at(0));
    }
}
