//! What the kernel counted, which of it is recorded, and how far each chain has told.
//!
//! Only keeps and finds; what it adds up to is the Audit service's.

use super::{Id, IndexError};
use crate::log::Location;

/// Readings of a series between which nothing else is kept, nanoseconds: those that a question about a time
/// can tell apart.
pub(super) const SLOT_NANOS: u64 = 600_000_000_000;
/// The last readings of a series, kept whatever their distance.
pub(super) const LAST: usize = 4;

/// One series: connects of one cgroup to one destination, as the kernel counted them without a break. Series
/// 0 is of connections that the kernel had no room to count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesKey {
    /// Name of the node.
    pub node: String,
    /// cgroup v2 id.
    pub cgroup: u64,
    /// The kernel's name of it.
    pub series: u64,
}

/// A record of what was counted up to then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Which.
    pub key: SeriesKey,
    /// `ConnectOutcome`.
    pub outcome: i32,
    /// Chain of the record.
    pub chain: Id,
    /// Its place there.
    pub sequence: u64,
    /// Where the record is.
    pub location: Location,
    /// Wall clock, nanoseconds.
    pub wall: u64,
    /// Boot clock, nanoseconds.
    pub boottime: u64,
    /// How long had been counted, nanoseconds.
    pub age: u64,
    /// Calls of connect().
    pub connects: u64,
    /// Of these, connections.
    pub connected: u64,
}

/// What a record says of its chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainPart {
    /// Which.
    pub chain: Id,
    /// Boot clock, nanoseconds.
    pub boottime: u64,
    /// Sequence of the record.
    pub sequence: u64,
    /// Its position in the log.
    pub position: u64,
    /// What.
    pub step: ChainStep,
}

/// See [`ChainPart`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainStep {
    /// It begins.
    Opened {
        /// Name of the node.
        node: String,
        /// Id of the node's boot.
        boot: Vec<u8>,
        /// Number of the shard.
        shard: u32,
        /// The chain that it goes on with: nothing more comes of that one.
        predecessor: Option<Id>,
    },
    /// It goes on.
    Alive,
    /// It was drained.
    Drained,
}

/// What is known of a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainRow {
    /// Which.
    pub chain: Id,
    /// Name of the node; empty where its opening is not known.
    pub node: String,
    /// Id of the node's boot; the same.
    pub boot: Vec<u8>,
    /// Boot clock of the last record seen of it, nanoseconds.
    pub boottime: u64,
    /// It was closed in order.
    pub drained: bool,
    /// Another one goes on with it.
    pub succeeded: bool,
    /// Number of its shard.
    pub shard: u32,
    /// It goes on with another one.
    pub succeeds: bool,
    /// Position behind its opening in the log; 0 where that is not known.
    pub opened: u64,
    /// Boot clock at its opening, nanoseconds.
    pub begun: u64,
    /// Highest sequence among its opening, heartbeats and end.
    pub sequence: u64,
}

impl ChainRow {
    /// Takes a record in.
    pub fn merge(&mut self, part: &ChainPart) {
        self.chain = part.chain;
        self.boottime = self.boottime.max(part.boottime);
        self.sequence = self.sequence.max(part.sequence);
        match &part.step {
            ChainStep::Opened { node, boot, shard, predecessor } => {
                if self.opened == 0 {
                    (self.opened, self.begun) = (part.position.saturating_add(1), part.boottime);
                }
                (self.shard, self.succeeds) = (*shard, predecessor.is_some());
                self.node.clone_from(node);
                self.boot.clone_from(boot);
            }
            ChainStep::Alive => {}
            ChainStep::Drained => self.drained = true,
        }
    }
}

/// Records of a series.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// By how they ended.
    pub classes: Vec<Class>,
    /// Different numbers among them.
    pub numbers: u64,
}

/// Connections that ended alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class {
    /// `Capture`.
    pub capture: i32,
    /// `OpaqueReason`.
    pub reason: i32,
    /// Not ended.
    pub open: bool,
    /// How many.
    pub count: u64,
}

/// Finds what was counted and what of it is recorded.
pub trait Counts {
    /// All chains. Asked for before anything else, it promises no record that is not there yet.
    fn chains(&self) -> Result<Vec<ChainRow>, IndexError>;

    /// All readings that are kept, by series and outcome, in the order of the boot clock.
    fn readings(&self) -> Result<Vec<Reading>, IndexError>;

    /// Every series that connections are recorded of, with how many and the highest number.
    fn recorded(&self) -> Result<Vec<(SeriesKey, u64, u64)>, IndexError>;

    /// Recorded connections with numbers above one and up to another.
    fn between(&self, key: &SeriesKey, above: u64, up_to: u64) -> Result<Recorded, IndexError>;

    /// The first few numbers above one and up to another that no record has.
    fn absent(&self, key: &SeriesKey, above: u64, up_to: u64, most: usize) -> Result<Vec<u64>, IndexError>;

    /// How many recorded connections with numbers above one were opened before, by the boot clock.
    fn older(&self, key: &SeriesKey, above: u64, boottime: u64) -> Result<u64, IndexError>;

    /// A record of a connection of the series: the latest one.
    fn sample(&self, key: &SeriesKey) -> Result<Option<Location>, IndexError>;
}

/// Numbers between two that are not among those given, which are sorted.
pub(super) fn gaps(numbers: impl Iterator<Item = u64>, above: u64, up_to: u64, most: usize) -> Vec<u64> {
    let mut absent = Vec::new();
    let mut next = above.saturating_add(1);
    for number in numbers.chain([up_to.saturating_add(1)]) {
        absent.extend((next..number).take(most.saturating_sub(absent.len())));
        next = next.max(number.saturating_add(1));
    }
    absent
}

/// Which reading of a series goes when one more comes: of those before the last few, only the end of each slot
/// is kept. `before` are the walls of the last readings, the latest first.
pub(super) fn superfluous(before: &[u64]) -> bool {
    match (before.get(LAST - 1), before.get(LAST - 2)) {
        (Some(older), Some(newer)) => older / SLOT_NANOS == newer / SLOT_NANOS,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn gaps_and_numbers_together_are_the_whole_interval(
            above in 0_u64..20, length in 0_u64..40, taken in prop::collection::btree_set(0_u64..64, 0..40)
        ) {
            let up_to = above + length;
            let inside: Vec<u64> = taken.into_iter().filter(|n| *n > above && *n <= up_to).collect();
            let mut all = gaps(inside.iter().copied(), above, up_to, usize::MAX);
            all.extend(&inside);
            all.sort_unstable();
            prop_assert_eq!(all, (above + 1..=up_to).collect::<Vec<_>>());
        }
    }

    #[test]
    fn only_the_first_gaps_are_named() {
        assert_eq!(gaps([2, 5].into_iter(), 0, 9, 3), [1, 3, 4]);
        assert_eq!(gaps(std::iter::empty(), 7, 7, 3), Vec::<u64>::new());
    }

    #[test]
    fn of_older_readings_the_last_in_each_slot_stays() {
        let slot = SLOT_NANOS;
        assert!(!superfluous(&[9, 8, 7]));
        assert!(superfluous(&[9, 8, 7, 6]));
        assert!(!superfluous(&[slot + 3, slot + 2, slot + 1, slot - 1]));
    }
}
