//! Lets others run before a shard goes to sleep, so that it finds more to do at once when it looks again.
//!
//! A shard, its clients and its servers often share a CPU. Sleeping at once means to be woken for each single
//! message, which costs the waker as much as the sleeper; giving the CPU away and looking again costs neither
//! of them. Where whoever gets it keeps it for long (a workload that computes), that would hold up the next
//! message, so it is then left out for a while.

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// Others that exchange messages with us are through within this; the kernel's slices for those that compute are
/// some milliseconds.
const SHORT: Duration = Duration::from_micros(400);

/// Sleeps without giving way, at most, after others have kept the CPU again and again.
const LONGEST_PAUSE: u32 = 4096;

/// When to give way. One per shard; called on its thread alone.
#[derive(Debug, Default)]
pub(crate) struct GiveWay {
    /// Sleeps for which it is still left out.
    pause: AtomicU32,
    /// Length of the last pause.
    last: AtomicU32,
}

impl GiveWay {
    /// Before each sleep.
    pub(crate) fn before_sleep(&self) {
        if self.is_due() {
            let begun = Instant::now();
            std::thread::yield_now();
            self.took(begun.elapsed());
        }
    }

    fn is_due(&self) -> bool {
        let pause = self.pause.load(Relaxed);
        self.pause.store(pause.saturating_sub(1), Relaxed);
        pause == 0
    }

    fn took(&self, away: Duration) {
        let last = self.last.load(Relaxed);
        if away > SHORT {
            let pause = last.saturating_mul(2).clamp(16, LONGEST_PAUSE);
            self.last.store(pause, Relaxed);
            self.pause.store(pause, Relaxed);
        } else if last > 0 {
            // Slowly, so that one quick return among long ones does not count for much.
            self.last.store(last - last.div_ceil(16), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_millis(3);

    /// How often it gives way in so many sleeps, if others keep the CPU for so long each time.
    fn given(way: &GiveWay, sleeps: u32, away: Duration) -> u32 {
        (0..sleeps).filter(|_| way.is_due().then(|| way.took(away)).is_some()).count().try_into().unwrap()
    }

    #[test]
    fn way_is_given_before_each_sleep_while_others_are_quick() {
        assert_eq!(given(&GiveWay::default(), 1000, Duration::from_micros(50)), 1000);
    }

    #[test]
    fn whoever_keeps_the_cpu_is_given_it_less_and_less() {
        let way = GiveWay::default();
        // Pauses of 16, 32, 64, ..., 4096, then always 4096.
        assert_eq!(given(&way, 17, LONG), 1);
        assert_eq!(given(&way, 33, LONG), 1);
        assert_eq!(given(&way, 100_000, LONG), 29);
    }

    #[test]
    fn way_is_given_again_once_others_are_quick() {
        let way = GiveWay::default();
        given(&way, 100_000, LONG);
        given(&way, LONGEST_PAUSE, Duration::ZERO);
        assert_eq!(given(&way, 1000, Duration::ZERO), 1000);
        // And soon it has forgotten.
        assert_eq!(given(&way, 1, LONG), 1);
        assert_eq!(given(&way, 17, LONG), 1);
    }
}
