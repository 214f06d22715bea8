//! Retention: whole segments go by age or size, contents apart from envelopes, and it is written down.

use std::time::Duration;

use prost::Message as _;
use verbatim_api::v1;
use verbatim_collector::{
    Collector,
    config::{ByteSize, Limit, Retention, Span},
    log::{
        frame::{self, FrameKind},
        header::{Event, EventKind},
        wall_nanos,
    },
    store::{Group, LocalStore, Store},
};

use crate::support::{Place, append, files_with, findings, node::Node, search, sessions as sessions_of};

/// Twenty commands in segments of about five.
async fn filled(place: &Place, retention: Retention) -> Collector {
    let mut config = place.config();
    config.log.segment_size = ByteSize(16 << 10);
    let collector = verbatim_collector::start(&config).await.expect("starts");
    let mut client = place.ingest_client().await;
    let mut node = Node::new();
    for n in 0..20 {
        node.command(b"", &format!("SELECT zzold{n:02}zz, '{}'", "x".repeat(2000)));
        append(&mut client, vec![node.batch()]).await.expect("acknowledged");
    }
    assert_eq!(search(&mut place.audit_client().await, v1::Filter::default()).await.len(), 20);
    collector.shut_down().await.expect("ends");
    config.retention = retention;
    verbatim_collector::start(&config).await.expect("starts")
}

fn all(limit: Limit) -> (Retention, Retention) {
    let interval = Span(Duration::from_secs(3600));
    let contents = Retention { contents: limit.clone(), envelopes: Limit::default(), interval };
    let envelopes = Retention { contents: Limit::default(), envelopes: limit, interval };
    (contents, envelopes)
}

/// Waits until this many commands have both their contents.
async fn whole(place: &Place, reached: impl Fn(usize, usize) -> bool) -> Vec<v1::Command> {
    let mut audit = place.audit_client().await;
    for _ in 0..600 {
        let found = search(&mut audit, v1::Filter::default()).await;
        let gone = found.iter().filter(|c| c.content_deleted).count();
        if reached(found.len(), gone) {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("retention did not come");
}

#[tokio::test(flavor = "multi_thread")]
async fn contents_may_go_before_their_envelopes() {
    let place = Place::new();
    let (contents, _) = all(Limit { max_age: None, max_size: Some(ByteSize(20 << 10)) });
    let collector = filled(&place, contents).await;
    let found = whole(&place, |_, gone| gone > 5).await;
    assert_eq!(found.len(), 20, "every command is still known");
    assert!(found[19].content_deleted && !found[0].content_deleted, "the oldest went, the newest stayed");
    assert!(files_with(&place.data(), "zzold00zz").is_empty());
    assert!(!files_with(&place.data(), "contents.maxSize").is_empty(), "it is written down");
    let mut audit = place.audit_client().await;
    assert_eq!(findings(&mut audit).await, []);
    let gone = v1::Filter { text: "zzold00zz".to_owned(), ..v1::Filter::default() };
    assert_eq!(search(&mut audit, gone).await, []);
    collector.shut_down().await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn envelopes_go_with_their_contents_and_the_index_is_the_same_when_made_again() {
    let place = Place::new();
    let (_, envelopes) = all(Limit { max_age: None, max_size: Some(ByteSize(30 << 10)) });
    let collector = filled(&place, envelopes).await;
    let found = whole(&place, |known, _| known < 15).await;
    assert!(!found.is_empty());
    let mut audit = place.audit_client().await;
    let told = findings(&mut audit).await;
    let sessions = sessions_of(&mut audit).await;
    collector.shut_down().await.expect("ends");
    std::fs::remove_file(place.data().join("index.sqlite")).expect("index deleted");
    let collector = place.start().await;
    let mut audit = place.audit_client().await;
    assert_eq!(search(&mut audit, v1::Filter::default()).await, found);
    assert_eq!(findings(&mut audit).await, told);
    assert_eq!(sessions_of(&mut audit).await, sessions);
    collector.shut_down().await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn age_is_that_of_a_segments_last_record_and_the_newest_segment_stays() {
    let place = Place::new();
    let (_, envelopes) = all(Limit { max_age: Some(Span(Duration::from_millis(1))), max_size: None });
    let collector = filled(&place, envelopes).await;
    let left = whole(&place, |known, _| known < 15).await;
    assert!(!left.is_empty(), "of the newest segment nobody knows the end");
    collector.shut_down().await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn chain_goes_on_after_its_first_segments_are_gone() {
    let place = Place::new();
    let mut config = place.config();
    config.log.segment_size = ByteSize(16 << 10);
    config.retention.envelopes.max_size = Some(ByteSize(20 << 10));
    config.retention.interval = Span(Duration::from_millis(20));
    let mut node = Node::new();
    for round in 0..3 {
        let collector = verbatim_collector::start(&config).await.expect("starts");
        let mut client = place.ingest_client().await;
        for n in 0..20 {
            node.command(b"", &format!("SELECT {round}, {n}, '{}'", "x".repeat(2000)));
            let answers = append(&mut client, vec![node.batch()]).await.expect("acknowledged");
            assert_eq!(answers[0].findings, [0_i32; 0], "round {round}, {n}");
        }
        whole(&place, |known, _| known < 20).await;
        collector.shut_down().await.expect("ends");
    }
}

/// A log of five sealed segments with an event in each, written so long ago.
fn written(place: &Place, ages: [Duration; 5]) {
    let (store, _) = LocalStore::open(&place.data().join("log")).expect("opens");
    for (position, age) in (0..).zip(ages) {
        let age = u64::try_from(age.as_nanos()).expect("an age");
        let kind = Some(EventKind::Finding(v1::Finding::default()));
        let event = Event { wall_nanos: wall_nanos() - age, kind };
        let mut group = Group { first_position: position, ..Group::default() };
        let nothing: [&[u8]; 0] = [];
        frame::write(
            &mut group.envelopes,
            FrameKind::Event,
            position,
            1,
            &event.encode_to_vec(),
            nothing.iter(),
        );
        store.commit(&group).expect("commits");
        store.seal().expect("seals");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_a_month_ahead_of_the_log_at_the_start_deletes_nothing() {
    let days = |days: u64| Duration::from_secs(days * 24 * 3600);
    for (ages, left) in [
        ([days(30), days(29), days(28), days(1), days(0)], 3..=4),
        ([days(34), days(33), days(32), days(31), days(30)], 5..=5),
    ] {
        let place = Place::new();
        tokio::task::block_in_place(|| written(&place, ages));
        let mut config = place.config();
        let limit = Limit { max_age: Some(Span(days(7))), max_size: None };
        config.retention = Retention {
            contents: Limit::default(),
            envelopes: limit,
            interval: Span(Duration::from_millis(20)),
        };
        let collector = verbatim_collector::start(&config).await.expect("starts");
        let segments = || std::fs::read_dir(place.data().join("log/envelopes")).expect("folder").count();
        let mut kept = segments();
        // What is not to come is not waited for as long as what is.
        let tries = if left.contains(&5) { 100 } else { 1500 };
        for _ in 0..tries {
            tokio::time::sleep(Duration::from_millis(20)).await;
            kept = segments();
            if kept < 5 && left.contains(&kept) {
                break;
            }
        }
        assert!(left.contains(&kept), "{kept} segments are left of a log of {ages:?}");
        collector.shut_down().await.expect("ends");
    }
}
