//! Chains follow one another, whatever became of the one before.

use verbatim_api::v1::RecordKind as Kind;
use verbatim_spool::AppendError;

use crate::support::*;

#[test]
fn what_is_appended_comes_out_chained_and_signed() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let [spool] = &opened.spools[..] else { panic!() };
    let first = spool.append(started("select 1")).unwrap();
    let second = spool.append(finished(first.record_id)).unwrap();
    assert_eq!((first.sequence, second.sequence), (2, 3));
    assert!(first.record_id < second.record_id);
    assert!(first.boottime_nanos <= second.boottime_nanos);
    drop(opened);
    let collector = recovered(dir.path());
    assert_eq!(collector.kinds(0), [Kind::ChainOpened, Kind::Key, Kind::Started, Kind::Finished]);
    let opening = collector.all()[0].opened();
    assert_eq!((opening.node.as_str(), opening.shard, opening.recovered), ("node-1", 0, false));
    assert!(opening.predecessor_chain_id.is_empty());
    let command = collector.all()[2];
    assert_eq!(command.text(), "select 1");
    assert_eq!(command.envelope.record_id, first.record_id);
    assert_eq!(command.envelope.boottime_nanos, first.boottime_nanos);
}

#[test]
fn spools_and_outboxes_can_be_sent_to_their_threads() {
    fn sent<T: Send + 'static>() {}
    sent::<verbatim_spool::Spool>();
    sent::<verbatim_spool::Outbox>();
}

#[test]
fn records_of_an_idle_shard_get_a_head_without_another_append() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path());
    let last = opened.spools[0].append(started("the last for a while")).unwrap();
    let mut collector = Collector::default();
    run(async {
        while collector.texts().is_empty() {
            opened.outboxes[0].changed().await;
            collector.drain(&mut opened.outboxes[0]);
        }
    });
    assert_eq!(collector.all()[2].envelope.record_id, last.record_id);
}

#[test]
fn a_drained_chain_is_closed_and_its_successor_names_its_head() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    for spool in opened.spools {
        spool.close();
    }
    drop(opened.outboxes);
    let collector = recovered(dir.path());
    assert_eq!(collector.kinds(0), [Kind::ChainOpened, Kind::Key, Kind::ChainClosed]);
    let successor = collector.chains[&collector.order[1]][0].opened().clone();
    assert_eq!(successor.predecessor_chain_id, collector.order[0]);
    assert_eq!(successor.predecessor_sequence, 2);
    assert!(!successor.recovered);
    assert_eq!(collector.recovery_heads, 0);
}

#[test]
fn a_successor_names_a_chain_that_was_shipped_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let first = recovered(dir.path());
    assert!(segments(dir.path(), 0).is_empty());
    let second = recovered(dir.path());
    let opening = second.all()[0].opened();
    assert_eq!(opening.predecessor_chain_id, first.order[0]);
    assert_eq!(opening.predecessor_sequence, 2);
    assert!(!opening.recovered);
}

#[test]
fn folders_of_shards_that_are_no_more_are_shipped_and_ended() {
    let dir = tempfile::tempdir().unwrap();
    let four = verbatim_spool::open(&config(dir.path()), 4).unwrap();
    for (n, spool) in four.spools.iter().enumerate() {
        spool.append(started(&format!("shard {n}"))).unwrap();
    }
    drop(four);
    let mut two = verbatim_spool::open(&config(dir.path()), 2).unwrap();
    assert_eq!((two.recovered.chains, two.recovered.ended), (4, 4));
    for spool in two.spools {
        spool.close();
    }
    let mut collector = Collector::default();
    for outbox in &mut two.outboxes {
        collector.drain(outbox);
        assert!(outbox.drained());
    }
    let mut texts = collector.texts();
    texts.sort();
    assert_eq!(texts, ["shard 0", "shard 1", "shard 2", "shard 3"]);
    assert_eq!(collector.ends().len(), 4);
    assert_eq!(collector.chains.len(), 8, "each dead chain has one successor");
    drop(two.outboxes);
    let three = verbatim_spool::open(&config(dir.path()), 3).unwrap();
    assert_eq!((three.recovered.chains, three.recovered.ended), (0, 0));
}

#[test]
fn a_configuration_that_cannot_work_is_refused_with_what_was_expected() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.limit_bytes = 3 * SEGMENT;
    let error = verbatim_spool::open(&config, 2).unwrap_err().to_string();
    assert!(error.contains("limitBytes is 196608: expected at least two segments"), "{error}");
}

#[test]
fn a_statement_and_its_parameters_at_the_capture_limit_fit_and_what_cannot_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut large = config(dir.path());
    large.segment_bytes = 8 << 20;
    let opened = verbatim_spool::open(&large, 1).unwrap();
    let spool = &opened.spools[0];
    let text = "x".repeat(600 * 1024);
    for _ in 0..20 {
        run(spool.append_when_room(started(&text))).unwrap();
    }
    let error = spool.append(started(&"x".repeat(9 << 20))).unwrap_err();
    assert!(matches!(error, AppendError::TooLarge(_)), "{error}");
    spool.append(started("the spool goes on")).unwrap();
    drop(opened);
    let collector = recovered(dir.path());
    assert_eq!(collector.texts().len(), 21);
    assert_eq!(collector.texts()[0], text);
}
