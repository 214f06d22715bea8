//! The sums of one series.

use std::sync::Arc;

use verbatim_api::v1::{Capture, ConnectOutcome, OpaqueReason};

use super::{CoverageError, progress::Progress};
use crate::index::{
    Index,
    counts::{Class, Reading},
};

/// How long after the kernel has counted a connection its record may be written, nanoseconds.
const GRACE_NANOS: u64 = 10_000_000_000;
/// What was counted before a reading is in it: nanoseconds for the clocks of two threads.
const MARGIN_NANOS: u64 = 1_000_000_000;
/// A series that is older than this when it is first seen began before what is kept, nanoseconds.
const YOUNG_NANOS: u64 = 120_000_000_000;
/// Then it is taken up from so long after its first reading: records of connections before that may be gone.
const EDGE_NANOS: u64 = 60_000_000_000;
/// Numbers that are named.
const NAMED: usize = 10;

/// What is looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    /// Wall clock; 0: everything.
    pub(super) since: u64,
    /// Older parts of the log are not kept any more.
    pub(super) expired: bool,
}

/// See `CoverageRow`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) connects: u64,
    pub(super) decoded: u64,
    pub(super) undecoded: Vec<(OpaqueReason, u64)>,
    pub(super) open: u64,
    pub(super) cut_off: u64,
    pub(super) denied: u64,
    pub(super) missed: Vec<(ConnectOutcome, u64)>,
    pub(super) passed: Vec<(ConnectOutcome, u64)>,
    pub(super) failed: u64,
    pub(super) pending: u64,
    pub(super) missing: u64,
    pub(super) missing_numbers: Vec<u64>,
    pub(super) invented: u64,
    pub(super) ahead: u64,
    pub(super) uncounted: u64,
}

impl Sums {
    pub(super) fn disagree(&self) -> bool {
        self.missing > 0 || self.invented > 0
    }

    fn class(&mut self, class: &Class) {
        if class.open {
            self.open += class.count;
            return;
        }
        match Capture::try_from(class.capture).unwrap_or_default() {
            Capture::Decoded | Capture::Partly => self.decoded += class.count,
            Capture::SeenNotDecoded => {
                let reason = OpaqueReason::try_from(class.reason).unwrap_or_default();
                self.undecoded.push((reason, class.count));
            }
            Capture::Unspecified => self.cut_off += class.count,
        }
    }
}

/// From where on is counted: connects and connections that are left out.
fn base(of: &[Reading], window: Window) -> (u64, u64) {
    let counts = |reading: &Reading| (reading.connects, reading.connected);
    let before = of.iter().rev().find(|reading| reading.wall < window.since).map(counts);
    let edge = of.first().filter(|first| window.expired && first.age > YOUNG_NANOS).and_then(|first| {
        let until = first.boottime.saturating_add(EDGE_NANOS);
        of.iter().rev().find(|reading| reading.boottime <= until).map(counts)
    });
    before.max(edge).unwrap_or_default()
}

/// Of connects that went to the proxy: each has its record.
pub(super) fn steered(
    index: &Arc<dyn Index>,
    progress: &Progress,
    of: &[Reading],
    window: Window,
) -> Result<Sums, CoverageError> {
    let Some(last) = of.last() else { return Ok(Sums::default()) };
    let (base_connects, base) = base(of, window);
    // Of what was counted by then, everything should be here.
    let told = progress.told(&last.chain);
    let settled = of.iter().rev().find(|reading| reading.boottime.saturating_add(GRACE_NANOS) <= told);
    let (settled_connects, settled) =
        settled.map_or((base_connects, base), |s| (s.connects.max(base_connects), s.connected.max(base)));

    let mut sums = Sums { connects: last.connects.saturating_sub(base_connects), ..Sums::default() };
    let all = index.between(&last.key, base, last.connected)?;
    all.classes.iter().for_each(|class| sums.class(class));
    let records: u64 = all.classes.iter().map(|class| class.count).sum();
    let in_time = if settled == last.connected {
        all.numbers
    } else {
        index.between(&last.key, base, settled)?.numbers
    };
    sums.missing = (settled - base).saturating_sub(in_time);
    if sums.missing > 0 {
        sums.missing_numbers = index.absent(&last.key, base, settled, NAMED)?;
    }
    let connected = last.connected.saturating_sub(base);
    sums.failed = (settled_connects - base_connects).saturating_sub(settled - base);
    let underway = sums.connects.saturating_sub(connected).saturating_sub(sums.failed);
    sums.pending = underway + connected.saturating_sub(all.numbers).saturating_sub(sums.missing);

    // One number, two records; and numbers that were never counted.
    let twice = records.saturating_sub(all.numbers);
    let counted = last.boottime.saturating_sub(MARGIN_NANOS).max(progress.would_have_counted(&last.chain));
    let above = index.older(&last.key, last.connected, u64::MAX)?;
    let never = if above == 0 { 0 } else { index.older(&last.key, last.connected, counted)? };
    sums.invented = twice + never;
    sums.ahead = above.saturating_sub(never);
    Ok(sums)
}

/// Of connects that the kernel decided about by itself: the reading is their record.
pub(super) fn others(outcome: ConnectOutcome, of: &[Reading], window: Window) -> Sums {
    use ConnectOutcome as Outcome;
    let Some(last) = of.last() else { return Sums::default() };
    // Nothing stands beside these that could be gone.
    let (base_connects, base) = base(of, Window { expired: false, ..window });
    let connects = last.connects.saturating_sub(base_connects);
    let connected = last.connected.saturating_sub(base);
    let mut sums = Sums { connects, ..Sums::default() };
    let of_outcome = |count: u64| if count == 0 { Vec::new() } else { vec![(outcome, count)] };
    match outcome {
        Outcome::Denied => sums.denied = connects,
        Outcome::StalePassed
        | Outcome::DevicePassed
        | Outcome::Bypassed
        | Outcome::QuicPassed
        | Outcome::Stray => sums.passed = of_outcome(connects),
        Outcome::Unrouted => {
            sums.passed = of_outcome(connected);
            sums.failed = connects.saturating_sub(connected);
        }
        Outcome::Uncounted => {
            sums.uncounted = connects;
            sums.connects = 0;
        }
        Outcome::Missed
        | Outcome::StaleDenied
        | Outcome::DeviceDenied
        | Outcome::NoMemory
        | Outcome::QuicDenied
        | Outcome::StrayDropped
        | Outcome::Steered
        | Outcome::Unspecified => sums.missed = of_outcome(connects),
    }
    sums
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use verbatim_api::v1;

    use super::*;
    use crate::index::{
        Batch, Change, MemoryIndex, Names, SessionPart,
        counts::{ChainPart, ChainStep, SeriesKey},
    };

    const SECOND: u64 = 1_000_000_000;

    fn key() -> SeriesKey {
        SeriesKey { node: "n".to_owned(), cgroup: 7, series: 77 }
    }

    fn reading(second: u64, connects: u64, connected: u64) -> Reading {
        Reading {
            key: key(),
            outcome: ConnectOutcome::Steered.into(),
            chain: [1; 16],
            wall: second * SECOND,
            boottime: second * SECOND,
            connects,
            connected,
            ..Reading::default()
        }
    }

    fn record(number: u64, second: u64, end: bool, capture: Capture) -> Change {
        let mut flow = [0; 16];
        flow[8..].copy_from_slice(&number.to_be_bytes());
        Change::Session(Box::new(SessionPart {
            flow,
            end,
            location: crate::log::Location { position: number * 2 + u64::from(end), ..Default::default() },
            names: Names::default(),
            wall: second * SECOND,
            protocol: v1::Protocol::Postgresql.into(),
            capture: capture.into(),
            reason: 0,
            node: "n".to_owned(),
            cgroup: 7,
            series: 77,
            number,
            boottime: second * SECOND,
            bytes_sent: 0,
            bytes_received: 0,
        }))
    }

    fn index(changes: Vec<Change>) -> Arc<dyn Index> {
        let index = MemoryIndex::default();
        index.apply(&Batch { changes, ..Batch::default() }).expect("applies");
        Arc::new(index)
    }

    fn progress(second: u64) -> Progress {
        let opened = ChainStep::Opened { node: "n".to_owned(), boot: vec![1], shard: 0, predecessor: None };
        let alive = index(vec![
            Change::Chain(Box::new(ChainPart {
                chain: [1; 16],
                boottime: 0,
                sequence: 0,
                position: 0,
                step: opened,
            })),
            Change::Chain(Box::new(ChainPart {
                chain: [1; 16],
                boottime: second * SECOND,
                sequence: 1,
                position: 1,
                step: ChainStep::Alive,
            })),
        ]);
        Progress::new(alive.chains().expect("chains"))
    }

    #[derive(Clone, Debug)]
    struct Connection {
        connected: bool,
        recorded: bool,
        ended: bool,
    }

    fn connection() -> impl Strategy<Value = Connection> {
        (prop::bool::weighted(0.9), prop::bool::weighted(0.8), any::<bool>())
            .prop_map(|(connected, recorded, ended)| Connection { connected, recorded, ended })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// One connect a second, a reading every ten, and a node that has told up to some second.
        #[test]
        fn every_connection_is_in_one_sum_and_what_is_missing_is_what_was_left_out(
            connections in prop::collection::vec(connection(), 1..60), told in 0_u64..90, since in 0_u64..40
        ) {
            let (mut changes, mut readings, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
            let mut connected = 0;
            for (at, one) in (1_u64..).zip(&connections) {
                if one.connected {
                    connected += 1;
                    numbers.push((connected, at, one.clone()));
                    if one.recorded {
                        changes.push(record(connected, at, false, Capture::Unspecified));
                        if one.ended {
                            changes.push(record(connected, at, true, Capture::Decoded));
                        }
                    }
                }
                if at % 10 == 0 {
                    readings.push(reading(at, at, connected));
                }
            }
            let window = Window { since: since * SECOND, expired: false };
            let sums = steered(&index(changes), &progress(told), &readings, window).expect("sums");

            let base = readings.iter().rev().find(|r| r.wall < window.since).map_or(0, |r| r.boottime / SECOND);
            let last = readings.last().map_or(base, |r| r.boottime / SECOND);
            let settled = readings.iter().rev().map(|r| r.boottime / SECOND).find(|at| at + 10 <= told);
            let settled = settled.unwrap_or(base).max(base);
            let within = |from: u64, to: u64| {
                numbers.iter().filter(move |(_, at, _)| *at > from && *at <= to)
            };
            let missing: Vec<u64> =
                within(base, settled).filter(|(.., one)| !one.recorded).map(|(number, ..)| *number).collect();
            prop_assert_eq!(sums.missing, missing.len() as u64);
            prop_assert_eq!(&sums.missing_numbers[..], &missing[..missing.len().min(NAMED)]);
            let recorded = within(base, last).filter(|(.., one)| one.recorded);
            prop_assert_eq!(sums.open + sums.decoded, recorded.count() as u64);
            prop_assert_eq!(sums.failed, (settled - base) - within(base, settled).count() as u64);
            prop_assert_eq!(sums.connects, last - base);
            let sum = sums.open + sums.decoded + sums.failed + sums.pending + sums.missing;
            prop_assert_eq!(sum, sums.connects, "{:?}", sums);
            // What the node should have counted since, had it been.
            let never = |at: u64| !readings.is_empty() && at > last && at + 60 <= told;
            let invented = numbers.iter().filter(|(_, at, one)| one.recorded && never(*at)).count();
            prop_assert_eq!(sums.invented, invented as u64);
        }
    }

    #[test]
    fn one_number_in_two_records_is_one_too_many() {
        let Change::Session(mut twin) = record(1, 2, false, Capture::Unspecified) else { return };
        twin.flow = [9; 16];
        let index = index(vec![record(1, 1, false, Capture::Unspecified), Change::Session(twin)]);
        let sums = steered(&index, &progress(100), &[reading(10, 1, 1)], Window::default()).expect("sums");
        assert_eq!((sums.invented, sums.missing, sums.open), (1, 0, 2));
    }

    #[test]
    fn a_number_beyond_the_count_is_ahead_until_it_should_have_been_counted() {
        let index = index(vec![
            record(1, 1, false, Capture::Unspecified),
            record(2, 12, false, Capture::Unspecified),
        ]);
        let sums = |told| {
            let sums = steered(&index, &progress(told), &[reading(10, 1, 1)], Window::default());
            sums.map(|sums| (sums.ahead, sums.invented)).expect("sums")
        };
        assert_eq!(sums(30), (1, 0));
        assert_eq!(sums(72), (0, 1));
    }

    #[test]
    fn what_began_before_the_oldest_record_is_taken_up_a_minute_later() {
        let old = |second, connects| Reading { age: 1000 * SECOND, ..reading(second, connects, connects) };
        let readings = [old(10, 100), old(40, 130), old(80, 170)];
        let window = Window { since: 0, expired: true };
        assert_eq!(base(&readings, window), (130, 130));
        assert_eq!(base(&readings, Window { expired: false, ..window }), (0, 0));
    }
}
