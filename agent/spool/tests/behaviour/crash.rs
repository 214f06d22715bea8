//! Processes that die, and what their successors make of it. A spool that is dropped without being closed
//! looks like one whose process died; the last test kills a real one.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use verbatim_api::v1::{Decision, RecordKind as Kind, Status};

use crate::support::*;

#[test]
fn a_successor_signs_what_was_left_unsigned_and_says_that_it_recovered() {
    let dir = tempfile::tempdir().unwrap();
    let mut slow = config(dir.path());
    slow.head_interval = std::time::Duration::from_secs(3600);
    let opened = verbatim_spool::open(&slow, 1).unwrap();
    let command = opened.spools[0].append(started("signed")).unwrap();
    opened.spools[0].append(finished(command.record_id)).unwrap();
    opened.spools[0].sign();
    for _ in 0..1200 {
        run(opened.spools[0].append_when_room(finished([1; 16]))).unwrap();
    }
    drop(opened);
    let collector = recovered(dir.path());
    assert!(collector.recovery_heads >= 1);
    assert!(collector.largest_batch <= 1000);
    let successor = collector.chains[&collector.order[1]][0].opened();
    assert!(successor.recovered);
    assert_eq!(successor.predecessor_chain_id, collector.order[0]);
    let predecessor = &collector.chains[&collector.order[0]];
    assert_eq!(predecessor.len(), 1204);
    assert_eq!(successor.predecessor_sequence, 1203);
}

#[test]
fn every_start_without_an_end_gets_one_that_says_what_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let spool = &opened.spools[0];
    let connection = spool.append(connected()).unwrap().record_id;
    let over = spool.append(connected()).unwrap().record_id;
    let mut closing = connected();
    closing.envelope.flow_id = over.to_vec();
    closing.envelope.set_status(Status::Ok);
    spool.append(closing).unwrap();
    let done = spool.append(started("done")).unwrap().record_id;
    spool.append(finished(done)).unwrap();
    let running = spool.append(started("running")).unwrap().record_id;
    let waiting = spool.append(held("waiting")).unwrap().record_id;
    let released = spool.append(held("released")).unwrap().record_id;
    spool.append(decided(released, Decision::Allowed)).unwrap();
    let expired = spool.append(held("expired")).unwrap().record_id;
    spool.append(decided(expired, Decision::Expired)).unwrap();
    let mut denied = started("denied");
    denied.envelope.set_decision(Decision::Denied);
    let denied = spool.append(denied).unwrap().record_id;
    drop(opened);

    let collector = recovered(dir.path());
    let successor = &collector.chains[&collector.order[1]];
    let ends: Vec<_> = successor
        .iter()
        .filter(|seen| matches!(seen.kind(), Kind::Finished | Kind::Connection))
        .map(|seen| {
            let ended = match seen.kind() {
                Kind::Connection => &seen.envelope.flow_id,
                _ => &seen.envelope.command_id,
            };
            (ended.clone(), seen.envelope.decision(), seen.envelope.status())
        })
        .collect();
    assert_eq!(
        ends,
        [
            (connection.to_vec(), Decision::Allowed, Status::OutcomeUnknown),
            (running.to_vec(), Decision::Allowed, Status::OutcomeUnknown),
            (waiting.to_vec(), Decision::Abandoned, Status::NotForwarded),
            (released.to_vec(), Decision::Allowed, Status::OutcomeUnknown),
            (expired.to_vec(), Decision::Expired, Status::NotForwarded),
            (denied.to_vec(), Decision::Denied, Status::NotForwarded),
        ]
    );
    let end = successor.iter().find(|seen| seen.envelope.command_id == running).unwrap();
    assert_eq!(end.envelope.workload.as_ref().unwrap().namespace, "shop");
    assert_eq!(end.envelope.flow_id, [5; 16]);
    assert!(end.content.note.contains("the node agent died"), "{}", end.content.note);
}

#[test]
fn an_end_is_written_once_although_the_successor_dies_too() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    opened.spools[0].append(started("running")).unwrap();
    drop(opened);
    for _ in 0..3 {
        drop(open(dir.path()));
    }
    let collector = recovered(dir.path());
    assert_eq!(collector.chains.len(), 5);
    assert_eq!(collector.ends().len(), 1);
    for (before, after) in collector.order.iter().zip(&collector.order[1..]) {
        assert_eq!(collector.chains[after][0].opened().predecessor_chain_id, *before);
    }
}

#[test]
fn a_command_gets_its_end_although_its_start_was_shipped_and_deleted_long_ago() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path());
    let long = opened.spools[0].append(started("runs for hours")).unwrap().record_id;
    let waits = opened.spools[0].append(held("waits for hours")).unwrap().record_id;
    let over = opened.spools[0].append(started("is over")).unwrap().record_id;
    let mut collector = Collector::default();
    run(async {
        for n in 0..1000 {
            let command = opened.spools[0].append_when_room(started(&n.to_string())).await.unwrap();
            opened.spools[0].append_when_room(finished(command.record_id)).await.unwrap();
        }
        opened.spools[0].append_when_room(finished(over)).await.unwrap();
        opened.spools[0].sign();
        collector.drain(&mut opened.outboxes[0]);
        for n in 0..1000 {
            let command = opened.spools[0].append_when_room(started(&n.to_string())).await.unwrap();
            opened.spools[0].append_when_room(finished(command.record_id)).await.unwrap();
        }
        opened.spools[0].sign();
        collector.drain(&mut opened.outboxes[0]);
    });
    assert!(segments(dir.path(), 0).len() <= 2);
    drop(opened);
    recover_into(&mut collector, dir.path());
    let ends: Vec<_> = collector.all().into_iter().filter(|s| s.content.note.contains("died")).collect();
    let ended: Vec<_> = ends.iter().map(|s| (s.envelope.command_id.clone(), s.envelope.status())).collect();
    assert_eq!(ended, [(long.to_vec(), Status::OutcomeUnknown), (waits.to_vec(), Status::NotForwarded)]);
}

const CHILD: &str = "VERBATIM_SPOOL_TEST_CHILD";

/// Not a test by itself: what `what_a_killed_process_reported_as_appended_is_found` runs and kills.
#[test]
fn child_that_appends_until_it_is_killed() {
    let Ok(directory) = std::env::var(CHILD) else { return };
    let opened = open(directory.as_ref());
    run(async {
        for n in 0.. {
            let text = format!("statement {n} {}", "x".repeat(n % 97));
            let appended = opened.spools[0].append_when_room(started(&text)).await.unwrap();
            println!("appended {} {n}", appended.sequence);
        }
    });
}

#[test]
fn what_a_killed_process_reported_as_appended_is_found() {
    for round in 1..=4 {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child_that_appends_until_it_is_killed", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut reported: Vec<(u64, usize)> = Vec::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut read = |line: Option<std::io::Result<String>>| {
            let line = line.transpose().unwrap_or_default()?;
            if let Some((sequence, n)) = line.strip_prefix("appended ").and_then(|rest| rest.split_once(' '))
            {
                // The last line of a killed process may be cut.
                reported.extend(sequence.parse().ok().zip(n.parse().ok()));
            }
            Some(reported.len())
        };
        while read(lines.next()).unwrap() < 1500 * round {}
        // SIGKILL.
        child.kill().unwrap();
        child.wait().unwrap();
        while read(lines.next()).is_some() {}
        let last_whole = reported.len() - 1;
        let collector = recovered(dir.path());
        let chain = &collector.chains[&collector.order[0]];
        for (sequence, n) in &reported[..last_whole] {
            let seen = &chain[usize::try_from(*sequence).unwrap()];
            assert_eq!(seen.text(), format!("statement {n} {}", "x".repeat(n % 97)));
        }
        let starts = collector.texts().len();
        assert!(starts >= last_whole);
        assert_eq!(collector.ends().len(), starts, "each has an end");
        let opening = collector.chains[&collector.order[1]][0].opened();
        assert!(opening.recovered);
        assert_eq!(opening.predecessor_sequence as usize, chain.len() - 1);
    }
}
