//! The kernel's clocks as nanoseconds.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

fn nanos(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Nanoseconds since 1970 by the wall clock, which can jump; 0 before 1970.
#[must_use]
pub fn wall_nanos() -> u64 {
    // By the C library, as everything else that asks for the time of day (certificates, the log): whoever
    // stands between the process and that clock is believed by all of it alike.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds since boot, suspension included (CLOCK_BOOTTIME).
#[must_use]
pub fn boottime_nanos() -> u64 {
    nanos(ClockId::Boottime)
}

/// Nanoseconds since boot without suspension (CLOCK_MONOTONIC): the clock of `bpf_ktime_get_ns`.
#[must_use]
pub fn monotonic_nanos() -> u64 {
    nanos(ClockId::Monotonic)
}
