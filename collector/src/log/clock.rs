//! Whether a node's wall clock was set between two of its records.
//!
//! Each record has the time of day and the time since the boot, taken together. What is between the two moves
//! slowly, but for when somebody sets the clock.

use verbatim_api::v1::{self, FindingKind};

use super::prepare::Prepared;

/// Steps below this are the clock's own care for being right.
const STEP_NANOS: i128 = 1_000_000_000;
/// Steps of one batch that are told: a clock that is set more often is told by these.
const MOST: usize = 8;

/// How far the wall clock was ahead of the boot time at a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) sequence: u64,
    pub(super) ahead: i128,
}

/// Readings of a batch: its first, its last, and both sides of every step.
#[derive(Debug, Default)]
pub(super) struct Clock {
    pub(super) readings: Vec<Reading>,
}

impl Clock {
    pub(super) fn see(&mut self, sequence: u64, envelope: &v1::Envelope) {
        if envelope.wall_nanos == 0 || envelope.boottime_nanos == 0 {
            return;
        }
        let ahead = i128::from(envelope.wall_nanos) - i128::from(envelope.boottime_nanos);
        let reading = Reading { sequence, ahead };
        match self.readings.as_mut_slice() {
            [.., before, last] if !is_step(before.ahead, last.ahead) && !is_step(last.ahead, ahead) => {
                *last = reading;
            }
            _ => self.readings.push(reading),
        }
    }
}

impl Prepared {
    /// Tells of every step, also of one between the chain's last record and this batch.
    pub(super) fn look_at_clock(&mut self, before: Option<i128>) {
        let mut before = before;
        let mut steps = Vec::new();
        for reading in &self.clock {
            if let Some(was) = before.filter(|was| is_step(*was, reading.ahead)) {
                steps.push((reading.sequence, reading.ahead - was));
            }
            before = Some(reading.ahead);
        }
        for (sequence, step) in steps.into_iter().take(MOST) {
            let millis = step / 1_000_000;
            let (seconds, rest) = (millis.abs() / 1000, millis.abs() % 1000);
            let way = if step < 0 { "back" } else { "forward" };
            let detail = format!("the node's wall clock was set {way} by {seconds}.{rest:03} s");
            self.find(FindingKind::ClockSet, sequence, sequence, detail);
        }
    }
}

fn is_step(one: i128, other: i128) -> bool {
    (one - other).abs() >= STEP_NANOS
}

#[cfg(test)]
mod tests {
    use verbatim_api::v1::Envelope;

    use super::{Clock, Reading};

    #[test]
    fn readings_are_the_first_the_last_and_both_sides_of_a_step() {
        const SECOND: u64 = 1_000_000_000;
        let mut clock = Clock::default();
        for (sequence, wall) in [(0, 1000), (1, 1001), (2, 1002), (3, 403), (4, 404), (5, 405)] {
            let boottime_nanos = (sequence + 1) * SECOND;
            clock.see(
                sequence,
                &Envelope { wall_nanos: wall * SECOND, boottime_nanos, ..Envelope::default() },
            );
        }
        let reading = |sequence, ahead| Reading { sequence, ahead: ahead * i128::from(SECOND) };
        assert_eq!(clock.readings, [reading(0, 999), reading(2, 999), reading(3, 399), reading(5, 399)]);
    }
}
