//! Chains whose end nobody knows: neither closed nor gone on with, while their node goes on without them.

use std::collections::HashMap;

use verbatim_api::v1::{Finding, FindingKind};

use crate::{index::counts::ChainRow, log::hex};

/// How long a node must have gone on without a chain: what is late by less is on its way, or of an agent that waits
/// beside its successor. Nanoseconds.
const SILENT_NANOS: u64 = 3_600_000_000_000;

/// A finding for each such chain, oldest first. Those that were opened before the log's oldest position are left out:
/// whether they had a successor is no longer told.
pub(super) fn unknown(chains: &[ChainRow], oldest_position: u64, now_wall_nanos: u64) -> Vec<Finding> {
    let known = |row: &&ChainRow| row.opened > 0 && !row.node.is_empty();
    let mut by_node: HashMap<&str, Vec<&ChainRow>> = HashMap::new();
    for row in chains.iter().filter(known) {
        by_node.entry(&row.node).or_default().push(row);
    }
    let mut found: Vec<&ChainRow> = by_node
        .values()
        .flat_map(|of_node| {
            let open =
                of_node.iter().filter(|row| !row.drained && !row.succeeded && row.opened > oldest_position);
            open.filter(|row| of_node.iter().any(|other| went_on_without(row, other)))
        })
        .copied()
        .collect();
    found.sort_by_key(|row| row.opened);
    found.into_iter().map(|row| finding(row, now_wall_nanos)).collect()
}

/// Whether a later chain shows that nobody goes on with one: of the same boot, one of the same shard that goes on with
/// none; of another boot, any, for the first thing that an agent does is to go on with what it finds.
fn went_on_without(row: &ChainRow, later: &ChainRow) -> bool {
    if later.opened <= row.opened {
        return false;
    }
    if later.boot == row.boot {
        let apart = later.shard == row.shard && !later.succeeds;
        return apart && later.boottime.saturating_sub(row.boottime.max(later.begun)) >= SILENT_NANOS;
    }
    later.boottime.saturating_sub(later.begun) >= SILENT_NANOS
}

fn finding(row: &ChainRow, now_wall_nanos: u64) -> Finding {
    Finding {
        kind: FindingKind::EndUnknown.into(),
        chain_id: row.chain.to_vec(),
        first_sequence: row.sequence,
        last_sequence: row.sequence,
        found_wall_nanos: now_wall_nanos,
        detail: format!(
            "chain {} of shard {} on {} was neither closed nor has a successor: its end is unknown after sequence {}",
            hex(&row.chain),
            row.shard,
            row.node,
            row.sequence
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = SILENT_NANOS;

    fn chain(opened: u64, boot: u8, begun: u64, boottime: u64) -> ChainRow {
        ChainRow {
            chain: [opened as u8; 16],
            node: "n".to_owned(),
            boot: vec![boot],
            boottime,
            opened,
            begun,
            sequence: 7,
            ..ChainRow::default()
        }
    }

    #[test]
    fn a_chain_is_found_only_where_its_node_has_gone_on_without_it() {
        let dead = chain(1, 1, 0, HOUR);
        let cases: [(&str, Vec<ChainRow>, usize); 13] = [
            ("alone: it may be alive", vec![dead.clone()], 0),
            ("one more of its shard, an hour further", vec![dead.clone(), chain(2, 1, HOUR, 2 * HOUR)], 1),
            ("not an hour further", vec![dead.clone(), chain(2, 1, HOUR, 2 * HOUR - 1)], 0),
            (
                "both alive, as with two agents of a take-over",
                vec![chain(1, 1, 0, 9 * HOUR), chain(2, 1, HOUR, 9 * HOUR)],
                0,
            ),
            ("one that began before, and goes on", vec![chain(2, 1, 0, HOUR), chain(1, 1, 0, 5 * HOUR)], 0),
            ("of another shard", vec![dead.clone(), ChainRow { shard: 3, ..chain(2, 1, HOUR, 5 * HOUR) }], 0),
            (
                "one that goes on with another",
                vec![dead.clone(), ChainRow { succeeds: true, ..chain(2, 1, HOUR, 5 * HOUR) }],
                0,
            ),
            (
                "of another node",
                vec![dead.clone(), ChainRow { node: "m".to_owned(), ..chain(2, 1, HOUR, 5 * HOUR) }],
                0,
            ),
            ("drained", vec![ChainRow { drained: true, ..dead.clone() }, chain(2, 1, HOUR, 5 * HOUR)], 0),
            ("succeeded", vec![ChainRow { succeeded: true, ..dead.clone() }, chain(2, 1, HOUR, 5 * HOUR)], 0),
            (
                "another boot that has lasted, whatever it goes on with",
                vec![dead.clone(), ChainRow { succeeds: true, shard: 1, ..chain(2, 2, 5, HOUR + 5) }],
                1,
            ),
            ("another boot that has just begun", vec![dead.clone(), chain(2, 2, 5, HOUR)], 0),
            (
                "its opening is not known",
                vec![ChainRow { opened: 0, ..dead.clone() }, chain(2, 1, HOUR, 5 * HOUR)],
                0,
            ),
        ];
        for (case, rows, expected) in cases {
            let found = unknown(&rows, 0, 1);
            assert_eq!(found.len(), expected, "{case}: {found:?}");
            assert!(found.iter().all(|f| f.chain_id == [1; 16] && f.last_sequence == 7), "{case}: {found:?}");
        }
        assert!(unknown(&[dead, chain(2, 1, HOUR, 5 * HOUR)], 1, 1).is_empty(), "opened before what is kept");
    }
}
