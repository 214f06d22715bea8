//! Batches, acknowledgements, lost connections.

use crate::support::*;

#[test]
fn batches_keep_their_limits_and_cover_everything() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path());
    run(async {
        for n in 0..7000 {
            opened.spools[0].append_when_room(started(&format!("statement {n}"))).await.unwrap();
        }
    });
    opened.spools.pop().unwrap().close();
    let outbox = &mut opened.outboxes[0];
    let mut collector = Collector::default();
    while let Some(batch) = outbox.next_batch(700, 64 * 1024).unwrap() {
        let bytes: usize = batch.entries.iter().map(|entry| entry.envelope.len() + entry.content.len()).sum();
        assert!(batch.entries.len() <= 700 && bytes <= 64 * 1024, "{} {bytes}", batch.entries.len());
        collector.take(&batch);
    }
    let expected: Vec<_> = (0..7000).map(|n| format!("statement {n}")).collect();
    assert_eq!(collector.texts(), expected);
}

#[test]
fn an_entry_beyond_the_limit_of_a_batch_ships_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path());
    opened.spools[0].sign();
    opened.spools[0].append(started(&"x".repeat(20_000))).unwrap();
    opened.spools[0].sign();
    let outbox = &mut opened.outboxes[0];
    let mut sizes = Vec::new();
    while let Some(batch) = outbox.next_batch(100, 10_000).unwrap() {
        sizes.push(batch.entries.len());
    }
    assert_eq!(sizes, [2, 1]);
}

#[test]
fn whole_segments_are_deleted_once_acknowledged_and_the_active_one_never() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path());
    run(async {
        for n in 0..1000 {
            opened.spools[0].append_when_room(started(&format!("statement {n}"))).await.unwrap();
        }
    });
    opened.spools[0].sign();
    let before = segments(dir.path(), 0).len();
    assert!(before > 3);
    let mut collector = Collector::default();
    let acknowledgements = collector.read(&mut opened.outboxes[0]);
    assert!(segments(dir.path(), 0).len() >= before, "nothing was acknowledged yet");
    let outbox = &mut opened.outboxes[0];
    for (chain, sequence) in acknowledgements {
        outbox.acknowledge(&chain, sequence);
    }
    assert!(segments(dir.path(), 0).len() <= 2, "the active one, and perhaps one made ahead");
    let last = opened.spools[0].append(started("goes on")).unwrap();
    opened.spools[0].sign();
    collector.drain(&mut opened.outboxes[0]);
    assert_eq!(collector.all().last().unwrap().envelope.record_id, last.record_id);
}

#[test]
fn an_acknowledgement_of_what_was_never_handed_out_deletes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path());
    run(async {
        for n in 0..1000 {
            opened.spools[0].append_when_room(started(&format!("statement {n}"))).await.unwrap();
        }
    });
    opened.spools[0].sign();
    let chain = opened.spools[0].chain_id();
    let before = segments(dir.path(), 0);
    opened.outboxes[0].acknowledge(&chain, u64::MAX);
    assert_eq!(segments(dir.path(), 0)[0], before[0]);
    let mut collector = Collector::default();
    collector.drain(&mut opened.outboxes[0]);
    assert_eq!(collector.texts().len(), 1000);
}

#[test]
fn a_lost_connection_hands_out_again_from_the_first_unacknowledged_entry() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path());
    run(async {
        for n in 0..1000 {
            opened.spools[0].append_when_room(started(&format!("statement {n}"))).await.unwrap();
        }
    });
    opened.spools[0].sign();
    let outbox = &mut opened.outboxes[0];
    let mut collector = Collector::default();
    let first = outbox.next_batch(100, 1 << 20).unwrap().unwrap();
    let reached = first.head.as_ref().unwrap().sequence;
    collector.take(&first);
    collector.take(&outbox.next_batch(100, 1 << 20).unwrap().unwrap());
    outbox.acknowledge(&first.chain_id, reached);
    outbox.rewind();
    let again = outbox.next_batch(100, 1 << 20).unwrap().unwrap();
    assert_eq!(again.first_sequence, reached + 1);
    collector.take(&again);
    collector.drain(outbox);
    outbox.rewind();
    assert!(outbox.next_batch(100, 1 << 20).unwrap().is_none(), "all of it was acknowledged");
    assert_eq!(collector.texts().len(), 1000);
}

#[test]
fn what_was_not_acknowledged_is_shipped_again_after_a_restart_before_anything_newer() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path());
    let command = opened.spools[0].append(started("before")).unwrap();
    opened.spools[0].append(finished(command.record_id)).unwrap();
    opened.spools[0].sign();
    let mut collector = Collector::default();
    collector.read(&mut opened.outboxes[0]);
    opened.spools.pop().unwrap().close();
    drop(opened);
    let mut opened = open(dir.path());
    opened.spools[0].append(started("after")).unwrap();
    opened.spools[0].sign();
    collector.read(&mut opened.outboxes[0]);
    assert_eq!(collector.texts(), ["before", "after"]);
    assert_eq!(collector.ends().len(), 1);
}

#[test]
fn an_hour_without_a_collector_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = verbatim_spool::open(&config(dir.path()), 2).unwrap();
    run(async {
        for n in 0..5000 {
            let spool = &opened.spools[n % 2];
            let command = spool.append_when_room(started(&format!("{n:05}"))).await.unwrap();
            spool.append_when_room(finished(command.record_id)).await.unwrap();
        }
    });
    for spool in opened.spools.drain(..) {
        spool.close();
    }
    let mut collector = Collector::default();
    for outbox in &mut opened.outboxes {
        run(outbox.changed());
        collector.drain(outbox);
        assert!(outbox.drained());
    }
    let mut texts = collector.texts();
    texts.sort();
    assert_eq!(texts, (0..5000).map(|n| format!("{n:05}")).collect::<Vec<_>>());
    assert_eq!(collector.ends().len(), 5000);
    assert!(segments(dir.path(), 0).is_empty() && segments(dir.path(), 1).is_empty());
}
