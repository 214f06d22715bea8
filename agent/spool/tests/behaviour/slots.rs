//! Several processes on one spool: each in a slot of its own, and nothing that one leaves is lost.

use verbatim_api::v1::{RecordKind as Kind, Status};

use crate::support::*;

#[test]
fn two_processes_write_at_once_into_chains_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    // The first slot is the folder itself, as it was before there were others.
    let mut old = open(dir.path());
    let mut new = open(dir.path());
    assert_eq!((segments(dir.path(), 0).len(), segments(&dir.path().join("slot-1"), 0).len()), (2, 2));
    for number in 0..3 {
        old.spools[0].append(started(&format!("old {number}"))).unwrap();
        new.spools[0].append(started(&format!("new {number}"))).unwrap();
    }
    assert_eq!(new.leftovers.adopt().unwrap().len(), 0, "the old one lives");
    let mut collector = Collector::default();
    for opened in [&mut old, &mut new] {
        opened.spools[0].sign();
        collector.drain(&mut opened.outboxes[0]);
    }
    assert_eq!(collector.texts(), ["old 0", "old 1", "old 2", "new 0", "new 1", "new 2"]);
    assert_eq!(collector.chains.len(), 2);
}

#[test]
fn what_a_process_leaves_in_its_slot_is_ended_and_shipped_by_who_lives() {
    let dir = tempfile::tempdir().unwrap();
    let living = open(dir.path());
    let dead = open(dir.path());
    let command = dead.spools[0].append(started("never ended")).unwrap();
    assert!(living.leftovers.adopt().unwrap().is_empty());
    drop(dead);

    let mut adopted = living.leftovers.adopt().unwrap();
    let [(outbox, recovered)] = &mut adopted[..] else { panic!("{adopted:?}") };
    assert_eq!((recovered.chains, recovered.ended), (1, 1));
    assert!(outbox.is_adopted());
    assert_eq!(living.ledger.unacknowledged(), 2 + 3 + 4, "of the living, of the dead, of its successor");
    let mut collector = Collector::default();
    collector.drain(outbox);
    assert!(outbox.drained());
    assert_eq!(collector.kinds(0), [Kind::ChainOpened, Kind::Key, Kind::Started]);
    assert_eq!(collector.kinds(1), [Kind::ChainOpened, Kind::Key, Kind::Finished, Kind::ChainClosed]);
    let end = collector.ends()[0];
    assert_eq!(
        (&end.envelope.command_id[..], end.envelope.status()),
        (&command.record_id[..], Status::OutcomeUnknown)
    );
    assert_eq!(living.ledger.unacknowledged(), 2);
    drop(adopted);
    assert!(!dir.path().join("slot-1").exists(), "nothing is left of it");
}

#[test]
fn a_slot_is_kept_until_everything_in_it_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let living = open(dir.path());
    let gone = open(dir.path());
    gone.spools[0].append(started("once")).unwrap();
    for spool in gone.spools {
        spool.close();
    }
    drop(gone.outboxes);
    let mut collector = Collector::default();
    let mut adopted = living.leftovers.adopt().unwrap();
    collector.read(&mut adopted[0].0);
    drop(adopted);
    // Whoever comes first takes it: here a new process, which finds it in the slot that it takes.
    let third = open(dir.path());
    let mut again = third.outboxes;
    collector.drain(&mut again[0]);
    assert_eq!(collector.texts(), ["once"]);
    assert!(living.leftovers.adopt().unwrap().is_empty());
}

#[test]
fn the_first_slot_is_looked_after_from_a_further_one() {
    let dir = tempfile::tempdir().unwrap();
    let old = open(dir.path());
    let new = open(dir.path());
    old.spools[0].append(started("before")).unwrap();
    drop(old);
    let mut collector = Collector::default();
    for (mut outbox, _) in new.leftovers.adopt().unwrap() {
        collector.drain(&mut outbox);
    }
    assert_eq!(collector.texts(), ["before"]);
    assert!(segments(dir.path(), 0).is_empty());
    // It stays, with what its next chain must name.
    drop(new);
    let next = open(dir.path());
    next.spools[0].sign();
    let mut outboxes = next.outboxes;
    collector.drain(&mut outboxes[0]);
    let successor = collector.chains[&collector.order[2]][0].opened();
    assert_eq!(successor.predecessor_chain_id, collector.order[1]);
}

#[test]
fn what_is_not_acknowledged_is_counted_record_by_record() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path());
    assert_eq!(opened.ledger.unacknowledged(), 2, "opening and key");
    opened.spools[0].append(started("one")).unwrap();
    opened.spools[0].sign();
    assert_eq!(opened.ledger.unacknowledged(), 3);
    let mut collector = Collector::default();
    let [(chain, _)] = &collector.read(&mut opened.outboxes[0])[..] else { panic!() };
    opened.outboxes[0].acknowledge(chain, 0);
    assert_eq!(opened.ledger.unacknowledged(), 2);
    opened.outboxes[0].acknowledge(chain, 2);
    assert_eq!(opened.ledger.unacknowledged(), 0);
}
