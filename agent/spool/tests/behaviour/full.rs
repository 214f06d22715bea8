//! Spools and disks that fill up.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use verbatim_api::v1;
use verbatim_spool::{AppendError, Opened, SpoolConfig, Surroundings, WhenFull};

use crate::support::*;

/// A spool of four segments.
fn small(directory: &std::path::Path, when_full: WhenFull) -> SpoolConfig {
    SpoolConfig { limit_bytes: 4 * SEGMENT, when_full, ..config(directory) }
}

/// Appends until the spool refuses and the keeper has no further segment to give: it has made as many
/// as the limit allows once there are four.
fn fill(opened: &Opened, directory: &std::path::Path) -> Vec<[u8; 16]> {
    let mut commands = Vec::new();
    loop {
        match opened.spools[0].append(started(&format!("statement {}", commands.len()))) {
            Ok(appended) => commands.push(appended.record_id),
            Err(AppendError::Full | AppendError::Shed) if segments(directory, 0).len() >= 4 => {
                return commands;
            }
            Err(AppendError::Full | AppendError::Shed) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_full_spool_stops_and_goes_on_when_the_collector_has_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = verbatim_spool::open(&small(dir.path(), WhenFull::Stop), 1).unwrap();
    let commands = fill(&opened, dir.path());
    for _ in 0..3 {
        assert!(matches!(opened.spools[0].append(started("refused")), Err(AppendError::Full)));
    }
    run(async {
        let room = opened.spools[0].room();
        tokio::pin!(room);
        tokio::select! {
            biased;
            () = &mut room => panic!("there is no room yet"),
            () = tokio::task::yield_now() => {}
        }
        opened.spools[0].sign();
        let mut collector = Collector::default();
        collector.drain(&mut opened.outboxes[0]);
        room.await;
        opened.spools[0].append(started("after the stop")).unwrap();
        opened.spools[0].sign();
        collector.drain(&mut opened.outboxes[0]);
        assert_eq!(collector.texts().len(), commands.len() + 1);
        assert_eq!(collector.texts().last().unwrap(), "after the stop");
    });
}

#[test]
fn ends_of_forwarded_commands_still_fit_into_a_full_spool() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = verbatim_spool::open(&small(dir.path(), WhenFull::Stop), 1).unwrap();
    let commands = fill(&opened, dir.path());
    // As many as were in flight when it filled up.
    for command in commands.iter().rev().take(20) {
        opened.spools[0].append(decided(*command, v1::Decision::Allowed)).unwrap();
        opened.spools[0].append(finished(*command)).unwrap();
    }
    assert!(matches!(opened.spools[0].append(started("still refused")), Err(AppendError::Full)));
    opened.spools.pop().unwrap().close();
    let mut collector = Collector::default();
    collector.drain(&mut opened.outboxes[0]);
    assert_eq!(collector.ends().len(), 20);
    assert_eq!(collector.all().last().unwrap().kind(), v1::RecordKind::ChainClosed);
    assert!(opened.outboxes[0].drained());
}

#[test]
fn a_shedding_spool_says_how_many_and_when_as_soon_as_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = verbatim_spool::open(&small(dir.path(), WhenFull::Shed), 1).unwrap();
    // What is refused while the spool fills up counts as well.
    let mut shed = 0;
    let mut kept = 0;
    while segments(dir.path(), 0).len() < 4 || shed == 0 {
        match opened.spools[0].append(started("x")) {
            Ok(_) => kept += 1,
            Err(AppendError::Shed) => shed += 1,
            Err(error) => panic!("{error}"),
        }
    }
    for _ in 0..9 {
        match opened.spools[0].append(started("y")) {
            Ok(_) => kept += 1,
            Err(_) => shed += 1,
        }
    }
    let heartbeat = v1::Envelope { kind: v1::RecordKind::Heartbeat.into(), ..Default::default() };
    opened.spools[0].append(verbatim_spool::Draft { envelope: heartbeat, content: None }).unwrap_err();
    let mut collector = Collector::default();
    let gaps = run(async {
        loop {
            opened.spools[0].sign();
            collector.drain(&mut opened.outboxes[0]);
            let gaps: Vec<_> =
                collector.all().into_iter().filter(|s| s.kind() == v1::RecordKind::Gap).cloned().collect();
            // Nobody appends: the record about what was shed comes by itself.
            if gaps.iter().map(|gap| gap.gap().count).sum::<u64>() >= shed {
                return gaps;
            }
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(gaps.iter().map(|gap| gap.gap().count).sum::<u64>(), shed);
    assert_eq!(collector.texts().len(), kept);
    for gap in gaps {
        let detail = gap.gap();
        assert_eq!(detail.reason(), v1::GapReason::SpoolFullShed);
        assert!(detail.from_wall_nanos > 0 && detail.from_wall_nanos <= detail.to_wall_nanos);
        assert!(detail.to_wall_nanos <= gap.envelope.wall_nanos);
    }
}

#[test]
fn a_full_disk_is_a_full_spool_and_not_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let full = Arc::new(AtomicBool::new(false));
    let asked = full.clone();
    let surroundings = Surroundings {
        before_allocating: Arc::new(move || match asked.load(Ordering::Acquire) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }),
        ..Surroundings::default()
    };
    let mut opened = verbatim_spool::open_in(&config(dir.path()), 1, surroundings).unwrap();
    full.store(true, Ordering::Release);
    let mut kept = 0;
    while let Ok(command) = opened.spools[0].append(started("x")) {
        kept += 1;
        if kept % 2 == 0 {
            opened.spools[0].append(finished(command.record_id)).unwrap();
        }
    }
    assert!(matches!(opened.spools[0].append(started("x")), Err(AppendError::Full)));
    opened.spools[0].sign();
    let mut collector = Collector::default();
    collector.drain(&mut opened.outboxes[0]);
    assert_eq!(collector.texts().len(), kept, "what it had still ships");
    full.store(false, Ordering::Release);
    run(opened.spools[0].append_when_room(started("x"))).unwrap();
}

#[test]
fn an_agent_that_died_with_a_full_spool_starts_and_ships() {
    let dir = tempfile::tempdir().unwrap();
    let opened = verbatim_spool::open(&small(dir.path(), WhenFull::Stop), 1).unwrap();
    let commands = fill(&opened, dir.path());
    drop(opened);
    let mut opened = verbatim_spool::open(&small(dir.path(), WhenFull::Stop), 1).unwrap();
    assert_eq!(opened.recovered.ended, commands.len() as u64);
    opened.spools[0].sign();
    let mut collector = Collector::default();
    collector.drain(&mut opened.outboxes[0]);
    assert_eq!(collector.texts().len(), commands.len());
    assert_eq!(collector.ends().len(), commands.len());
    run(opened.spools[0].append_when_room(started("goes on"))).unwrap();
}

#[test]
fn a_gauge_says_how_full_the_spool_is_and_how_long_records_have_waited() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = verbatim_spool::open(&small(dir.path(), WhenFull::Stop), 1).unwrap();
    let gauge = opened.gauge.clone();
    assert_eq!(gauge.limit_bytes(), 4 * SEGMENT);
    fill(&opened, dir.path());
    assert!(gauge.is_full());
    assert_eq!(gauge.used_bytes(), gauge.limit_bytes());
    opened.spools[0].sign();
    assert!(gauge.oldest_unacknowledged().is_some());
    let mut collector = Collector::default();
    collector.drain(&mut opened.outboxes[0]);
    run(opened.spools[0].room());
    assert!(!gauge.is_full());
    opened.spools[0].append(started("after the stop")).unwrap();
    opened.spools[0].sign();
    assert!(gauge.oldest_unacknowledged().is_some());
    collector.drain(&mut opened.outboxes[0]);
    assert_eq!(gauge.oldest_unacknowledged(), None);
    // What an earlier agent has left waits, too.
    opened.spools[0].append(started("left")).unwrap();
    drop(opened);
    let mut opened = verbatim_spool::open(&small(dir.path(), WhenFull::Stop), 1).unwrap();
    opened.spools[0].sign();
    assert!(opened.gauge.oldest_unacknowledged().is_some());
    collector.drain(&mut opened.outboxes[0]);
    assert_eq!(opened.gauge.oldest_unacknowledged(), None);
}
