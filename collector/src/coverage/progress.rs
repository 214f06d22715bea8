//! How far a node has told: up to which moment everything that it recorded is here.

use std::collections::HashMap;

use crate::index::{Id, counts::ChainRow};

/// A chain of which nothing has come for so long, while others of its node went on, holds nobody up:
/// nanoseconds.
const FORGOTTEN_NANOS: u64 = 3_600_000_000_000;
/// The kernel's count is read every 10 s, and what has grown is recorded at once, or a few readings later
/// where there is much: nanoseconds.
const READ_NANOS: u64 = 60_000_000_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Progress {
    chains: HashMap<Id, ChainRow>,
    /// By node and boot.
    told: HashMap<(String, Vec<u8>), u64>,
}

impl Progress {
    pub(super) fn new(rows: Vec<ChainRow>) -> Self {
        let mut by_boot: HashMap<(String, Vec<u8>), Vec<&ChainRow>> = HashMap::new();
        for row in rows.iter().filter(|row| !row.node.is_empty()) {
            by_boot.entry((row.node.clone(), row.boot.clone())).or_default().push(row);
        }
        let told = by_boot.into_iter().map(|(boot, chains)| (boot, told(&chains))).collect();
        Self { told, chains: rows.into_iter().map(|row| (row.chain, row)).collect() }
    }

    /// Boot time up to which all that the node of this chain has recorded is here; the largest number where
    /// nothing more is to come.
    pub(super) fn told(&self, chain: &Id) -> u64 {
        let Some(row) = self.chains.get(chain) else { return 0 };
        let of_boot = self.told.get(&(row.node.clone(), row.boot.clone()));
        of_boot.copied().unwrap_or_else(|| if ended(row) { u64::MAX } else { row.boottime })
    }

    /// Boot time up to which whoever wrote this chain would have recorded what the kernel had counted.
    pub(super) fn would_have_counted(&self, chain: &Id) -> u64 {
        self.chains.get(chain).map_or(0, |row| row.boottime.saturating_sub(READ_NANOS))
    }
}

fn ended(row: &ChainRow) -> bool {
    row.drained || row.succeeded
}

fn told(chains: &[&ChainRow]) -> u64 {
    let newest = chains.iter().map(|row| row.boottime).max().unwrap_or(0);
    let open = chains
        .iter()
        .filter(|row| !ended(row) && row.boottime.saturating_add(FORGOTTEN_NANOS) >= newest)
        .map(|row| row.boottime);
    open.min().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(n: u8, boot: u8, boottime: u64) -> ChainRow {
        ChainRow { chain: [n; 16], node: "n".to_owned(), boot: vec![boot], boottime, ..ChainRow::default() }
    }

    #[test]
    fn a_node_has_told_what_all_of_its_open_chains_have() {
        let progress = Progress::new(vec![chain(1, 1, 500), chain(2, 1, 300), chain(3, 2, 7)]);
        assert_eq!((progress.told(&[1; 16]), progress.told(&[2; 16])), (300, 300));
        assert_eq!(progress.told(&[3; 16]), 7);
        assert_eq!(progress.told(&[9; 16]), 0);
    }

    #[test]
    fn chains_that_have_ended_hold_nobody_up_and_where_all_have_nothing_more_is_to_come() {
        let drained = ChainRow { drained: true, ..chain(2, 1, 300) };
        let succeeded = ChainRow { succeeded: true, ..chain(3, 1, 100) };
        let progress = Progress::new(vec![chain(1, 1, 500), drained.clone(), succeeded.clone()]);
        assert_eq!(progress.told(&[3; 16]), 500);
        assert_eq!(Progress::new(vec![drained, succeeded]).told(&[2; 16]), u64::MAX);
    }

    #[test]
    fn a_chain_that_was_lost_holds_up_its_node_for_an_hour() {
        let told = |newest| Progress::new(vec![chain(1, 1, 5), chain(2, 1, newest)]).told(&[2; 16]);
        assert_eq!(told(FORGOTTEN_NANOS), 5);
        assert_eq!(told(FORGOTTEN_NANOS + 6), FORGOTTEN_NANOS + 6);
    }
}
