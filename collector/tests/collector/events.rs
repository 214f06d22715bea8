//! What agents tell of themselves: found by kind, node, workload and time, in both indexes alike, and deleted as contents
//! are.

use proptest::{collection::vec, prelude::*, sample::select};
use tonic::transport::Channel;
use verbatim_api::v1::{self, CoverageEvent, RecordKind, audit_client::AuditClient, envelope::Detail};
use verbatim_collector::{
    index::{
        Batch, Change, Id, Index, MemoryIndex, SqliteIndex,
        counts::{ChainPart, ChainStep},
        events::{EventQuery, EventRow},
    },
    log::Location,
};

use crate::support::{
    NOW, Place, append, files_with, findings,
    node::{EPOCH, Node, key},
};

const SECOND: u64 = 1_000_000_000;

/// Adds an event of a workload, so many seconds after the epoch.
fn push(node: &mut Node, event: CoverageEvent, workload: Option<v1::Workload>, second: u64) -> Vec<u8> {
    let coverage = v1::Coverage { event: event.into(), count: second, ..v1::Coverage::default() };
    let envelope = v1::Envelope {
        kind: RecordKind::Coverage.into(),
        workload,
        wall_nanos: EPOCH + second * SECOND,
        detail: Some(Detail::Coverage(coverage)),
        ..v1::Envelope::default()
    };
    let target = v1::Target { address: "10.9.8.7".to_owned(), port: 443, ..v1::Target::default() };
    let client = v1::Client { local_user: "local:host/ghostuser".to_owned(), ..v1::Client::default() };
    let content = v1::Content { target: Some(target), client: Some(client), ..v1::Content::default() };
    node.push(envelope, Some(content))
}

async fn ask(audit: &mut AuditClient<Channel>, question: v1::EventsRequest) -> Vec<v1::Event> {
    let mut question = v1::EventsRequest { at_least_position: NOW, ..question };
    let mut all = Vec::new();
    loop {
        let page = audit.events(question.clone()).await.expect("events").into_inner();
        all.extend(page.events);
        if page.next_cursor.is_empty() {
            return all;
        }
        question.cursor = page.next_cursor;
    }
}

/// Their counts, which are the seconds at which they were.
fn seconds(events: &[v1::Event]) -> Vec<u64> {
    let coverage = |event: &v1::Event| match event.envelope.as_ref().and_then(|e| e.detail.clone()) {
        Some(Detail::Coverage(coverage)) => coverage.count,
        _ => u64::MAX,
    };
    events.iter().map(coverage).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_found_by_kind_node_workload_and_time() {
    let place = Place::new();
    let collector = place.start().await;
    let mut one = Node::new();
    let opened = v1::ChainOpened { node: "node-2".to_owned(), ..v1::ChainOpened::default() };
    let mut two = Node::open(key(), opened);
    let cart = one.workload.clone();
    let local = v1::Workload {
        principal_kind: v1::PrincipalKind::Local.into(),
        cgroup_id: 77,
        ..v1::Workload::default()
    };
    push(&mut one, CoverageEvent::QuicDenied, Some(cart.clone()), 1);
    push(&mut one, CoverageEvent::Stray, Some(local), 2);
    push(&mut two, CoverageEvent::QuicDenied, Some(cart), 3);
    push(&mut one, CoverageEvent::BypassBegan, None, 4);
    // Counts are no events.
    push(&mut one, CoverageEvent::Connects, None, 5);
    let batches = [one.batch(), two.batch()];
    for batch in batches {
        append(&mut place.ingest_client().await, vec![batch]).await.expect("kept");
    }
    let mut audit = place.audit_client().await;
    let any = v1::EventsRequest::default;
    let quic = vec![CoverageEvent::QuicDenied.into()];
    for (question, expected) in [
        (any(), vec![4, 3, 2, 1]),
        (v1::EventsRequest { oldest_first: true, page_size: 1, ..any() }, vec![1, 2, 3, 4]),
        (v1::EventsRequest { page_size: 3, ..any() }, vec![4, 3, 2, 1]),
        (v1::EventsRequest { events: quic.clone(), ..any() }, vec![3, 1]),
        (v1::EventsRequest { node: "node-2".to_owned(), ..any() }, vec![3]),
        (v1::EventsRequest { events: quic, node: "node-1".to_owned(), ..any() }, vec![1]),
        (v1::EventsRequest { workload: "shop/cart".to_owned(), ..any() }, vec![3, 1]),
        (v1::EventsRequest { workload: "cart-0".to_owned(), ..any() }, vec![3, 1]),
        (v1::EventsRequest { workload: "77".to_owned(), ..any() }, vec![2]),
        (v1::EventsRequest { workload: "local:host/ghostuser".to_owned(), ..any() }, vec![4, 2]),
        (v1::EventsRequest { workload: "nobody".to_owned(), ..any() }, vec![]),
        (v1::EventsRequest { from_wall_nanos: EPOCH + 2 * SECOND, ..any() }, vec![4, 3, 2]),
        (v1::EventsRequest { to_wall_nanos: EPOCH + 2 * SECOND, ..any() }, vec![1]),
    ] {
        assert_eq!(seconds(&ask(&mut audit, question.clone()).await), expected, "{question:?}");
    }
    let all = ask(&mut audit, any()).await;
    assert_eq!((all[1].node.as_str(), all[3].node.as_str()), ("node-2", "node-1"));
    assert_eq!(all[1].principal, one.workload.principal);
    let target = all[1].content.clone().and_then(|content| content.target).unwrap_or_default();
    assert_eq!((target.address.as_str(), target.port), ("10.9.8.7", 443));
    let other = v1::EventsRequest { page_size: 1, ..any() };
    let cursor = audit.events(other).await.expect("events").into_inner().next_cursor;
    let wrong = v1::EventsRequest { cursor, node: "node-2".to_owned(), ..any() };
    assert_eq!(audit.events(wrong).await.expect_err("refused").code(), tonic::Code::InvalidArgument);

    // The same from an index that is made anew.
    collector.shut_down().await.expect("ends");
    std::fs::remove_file(place.data().join("index.sqlite")).expect("index deleted");
    let collector = place.start().await;
    assert_eq!(ask(&mut place.audit_client().await, any()).await, all);
    collector.shut_down().await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_events_content_can_be_deleted() {
    let place = Place::new();
    let collector = place.start().await;
    let mut node = Node::new();
    let local = v1::Workload { principal_kind: v1::PrincipalKind::Local.into(), ..v1::Workload::default() };
    let id = push(&mut node, CoverageEvent::Stray, Some(local), 1);
    append(&mut place.ingest_client().await, vec![node.batch()]).await.expect("kept");
    let mut audit = place.audit_client().await;
    let before = ask(&mut audit, v1::EventsRequest::default()).await;
    assert_eq!((before[0].principal.as_str(), before[0].content_deleted), ("local:host/ghostuser", false));
    let request = v1::DeleteContentRequest { ids: vec![id], reason: "asked for".to_owned() };
    assert_eq!(audit.delete_content(request).await.expect("deleted").into_inner().deleted, 1);
    let after = ask(&mut audit, v1::EventsRequest::default()).await;
    assert_eq!((after.len(), after[0].principal.as_str(), after[0].content_deleted), (1, "", true));
    assert_eq!(files_with(&place.data(), "ghostuser"), Vec::<std::path::PathBuf>::new());
    assert_eq!(findings(&mut audit).await, []);
    collector.shut_down().await.expect("ends");
}

fn id(n: u64) -> Id {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&n.to_be_bytes());
    id
}

/// Names that meet each other across columns.
fn name() -> impl Strategy<Value = String> {
    select(vec!["", "a", "b", "7", "a/b"]).prop_map(str::to_owned)
}

prop_compose! {
    fn any_event()(
        n in 0_u64..30,
        chain in 0_u64..4,
        event in 1..6_i32,
        names in [name(), name(), name(), name(), name()],
        cgroup in 0_u64..9,
        wall in 1_u64..20,
    ) -> EventRow {
        let [principal, namespace, service_account, pod_name, pod_uid] = names;
        EventRow {
            key: 0,
            id: id(n),
            chain: id(chain),
            event,
            principal,
            namespace,
            service_account,
            pod_name,
            pod_uid,
            cgroup,
            wall,
            location: Location { position: n, ..Location::default() },
        }
    }
}

prop_compose! {
    fn any_question()(
        events in vec(1..6_i32, 0..3),
        node in select(vec!["", "n0", "n1", "n9"]),
        workload in name(),
        from_wall in 0_u64..10,
        to_wall in 0_u64..20,
        oldest_first: bool,
        limit in 1_usize..9,
    ) -> EventQuery {
        let node = node.to_owned();
        EventQuery { events, node, workload, from_wall, to_wall, oldest_first, limit, after: None }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn both_indexes_find_the_same_events(
        rows in vec(any_event(), 0..60),
        removed in vec(0_u64..30, 0..4),
        questions in vec(any_question(), 1..20),
    ) {
        let folder = tempfile::tempdir().expect("folder");
        let sqlite = SqliteIndex::open(&folder.path().join("index.sqlite")).expect("opens");
        let memory = MemoryIndex::default();
        let both: [&dyn Index; 2] = [&memory, &sqlite];
        let opened = (0..3).map(|n| {
            let step = ChainStep::Opened { node: format!("n{n}"), boot: Vec::new(), shard: 0, predecessor: None };
            Change::Chain(Box::new(ChainPart { chain: id(n), boottime: 1, sequence: n, position: n, step }))
        });
        let events = rows.into_iter().map(|row| Change::Event(Box::new(row)));
        let batch = Batch { changes: opened.chain(events).collect(), next_position: 1, ..Batch::default() };
        let remove = removed.into_iter().map(id).collect();
        let removal = Batch { remove, next_position: 2, ..Batch::default() };
        for index in both {
            index.apply(&batch).expect("applies");
            index.apply(&removal).expect("applies");
        }
        for mut question in questions {
            loop {
                let found = both.map(|index| index.events(&question).expect("events"));
                prop_assert_eq!(&found[0], &found[1], "{:?}", &question);
                match found[0].last() {
                    Some((row, _)) if found[0].len() == question.limit => question.after = Some(row.key),
                    _ => break,
                }
            }
        }
        for n in 0..30 {
            let found = both.map(|index| index.locations(&id(n)).expect("locations"));
            prop_assert_eq!(&found[0], &found[1]);
        }
    }
}

#[test]
fn both_indexes_know_every_place_of_an_event_that_stands_twice() {
    let folder = tempfile::tempdir().expect("folder");
    let sqlite = SqliteIndex::open(&folder.path().join("index.sqlite")).expect("opens");
    let memory = MemoryIndex::default();
    let at = |position: u64| Location {
        position,
        segment: 1,
        length: 5,
        content_length: 7,
        ..Location::default()
    };
    let event = |position: u64| {
        let row = EventRow {
            id: id(1),
            chain: id(2),
            event: 3,
            wall: 9,
            location: at(position),
            ..EventRow::default()
        };
        Change::Event(Box::new(row))
    };
    for index in [&memory as &dyn Index, &sqlite] {
        // Within a stretch of the log, and in later ones; the same place again is no other.
        for (positions, next_position) in [(vec![10, 20], 21), (vec![30], 31), (vec![30], 32)] {
            let changes = positions.into_iter().map(event).collect();
            index.apply(&Batch { changes, next_position, ..Batch::default() }).expect("applies");
        }
        assert_eq!(index.locations(&id(1)).expect("locations"), [at(10), at(20), at(30)]);
        let question = EventQuery { limit: 10, ..EventQuery::default() };
        assert_eq!(index.events(&question).expect("events").len(), 1, "it is one event");
        index.apply(&Batch { remove: vec![id(1)], next_position: 33, ..Batch::default() }).expect("applies");
        assert_eq!(index.locations(&id(1)).expect("locations"), []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_an_event_that_stands_twice_in_the_log_leaves_neither() {
    let place = Place::new();
    let collector = place.start().await;
    let mut client = place.ingest_client().await;
    let mut node = Node::new();
    let opening = node.batch();
    let event = push(&mut node, CoverageEvent::QuicDenied, None, 1);
    let first = node.batch();
    node.command(b"", "SELECT 'late'");
    let late = node.batch();
    node.command(b"", "SELECT 'after'");
    // What fills a hole is kept whole, with what was there before.
    let mut both = late.clone();
    both.entries = first.entries.iter().chain(&late.entries).cloned().collect();
    both.first_sequence = first.first_sequence;
    append(&mut client, vec![opening, first, node.batch(), both]).await.expect("acknowledged");
    let mut audit = place.audit_client().await;
    assert_eq!(ask(&mut audit, v1::EventsRequest::default()).await.len(), 1, "it is one event");
    assert_eq!(files_with(&place.data().join("log"), "ghostuser").len(), 1, "the test finds it where it is");
    let request = v1::DeleteContentRequest { ids: vec![event], reason: "test".to_owned() };
    let deleted = audit.delete_content(request).await.expect("deleted").into_inner().deleted;
    assert_eq!(deleted, 2, "both copies");
    assert_eq!(files_with(&place.data(), "ghostuser"), Vec::<std::path::PathBuf>::new());
    let left = ask(&mut audit, v1::EventsRequest::default()).await;
    assert!(left.len() == 1 && left[0].content.is_none(), "{left:?}");
    collector.shut_down().await.expect("ends");
}
