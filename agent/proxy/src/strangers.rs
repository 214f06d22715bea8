//! Sockets that come with no flow: how many of them have a record of their own.
//!
//! Whoever can reach a listener can connect as often as he likes: his records must not fill the spool. What has none is
//! counted, and the count is recorded within a second.

use std::{cell::Cell, time::Duration};

use tokio::time::Instant;

/// Records of their own in a window and shard.
const MOST: u32 = 10;
/// Length of a window.
const WINDOW: Duration = Duration::from_secs(1);

/// What becomes of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It has a record of its own.
    Alone,
    /// It is in the count, which somebody else records.
    Counted,
    /// It is in the count, and records it at that time.
    At(Instant),
}

/// A shard's.
#[derive(Debug)]
pub(crate) struct Strangers {
    began: Cell<Instant>,
    alone: Cell<u32>,
    counted: Cell<u64>,
}

impl Strangers {
    pub(crate) fn new() -> Self {
        Self { began: Cell::new(Instant::now()), alone: Cell::new(0), counted: Cell::new(0) }
    }

    /// One more, now.
    pub(crate) fn admit(&self, now: Instant) -> Told {
        if now.saturating_duration_since(self.began.get()) >= WINDOW {
            self.began.set(now);
            self.alone.set(0);
        }
        if self.alone.get() < MOST {
            self.alone.set(self.alone.get() + 1);
            return Told::Alone;
        }
        let before = self.counted.get();
        self.counted.set(before.saturating_add(1));
        if before == 0 { Told::At(self.began.get() + WINDOW) } else { Told::Counted }
    }

    /// The count; from here on it begins again.
    pub(crate) fn take(&self) -> u64 {
        self.counted.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_flood_few_have_records_of_their_own_and_one_records_the_rest() {
        let strangers = Strangers::new();
        let begin = Instant::now();
        let told: Vec<Told> = (0..100).map(|_| strangers.admit(begin)).collect();
        assert!(told.iter().take(10).all(|told| *told == Told::Alone));
        assert!(matches!(told[10], Told::At(when) if when <= begin + WINDOW));
        assert!(told.iter().skip(11).all(|told| *told == Told::Counted));
        assert_eq!(strangers.take(), 90);
        // The next window; and in this one again somebody who records.
        assert!(matches!(strangers.admit(begin), Told::At(_)));
        assert_eq!(strangers.admit(begin + WINDOW), Told::Alone);
        assert_eq!(strangers.take(), 1);
    }
}
