//! What the kernel counted beside what is recorded: a trail in which everything is there adds up, and one in
//! which something is not says what.

use verbatim_api::v1::{
    self, Capture, ConnectOutcome, CoverageEvent, FindingKind, OpaqueReason, RecordKind, Status,
    envelope::Detail,
};

use crate::support::{
    NOW, Place, append, findings,
    node::{EPOCH, Id, Node, key},
};

const SECOND: u64 = 1_000_000_000;

/// A node whose kernel counts.
struct Counting {
    node: Node,
    second: u64,
}

impl Counting {
    fn new() -> Self {
        Self::with(Node::open(key(), v1::ChainOpened { boot_id: vec![7; 16], ..v1::ChainOpened::default() }))
    }

    fn with(mut node: Node) -> Self {
        node.workload.node = "node-1".to_owned();
        node.workload.cgroup_id = 40;
        Self { node, second: 100 }
    }

    /// Takes a record in, at the second that it is.
    fn push(&mut self, envelope: v1::Envelope, content: Option<v1::Content>) -> Id {
        let at = self.second * SECOND;
        self.node.push(v1::Envelope { boottime_nanos: at, wall_nanos: EPOCH + at, ..envelope }, content)
    }

    fn target(address: &str) -> Option<v1::Content> {
        let target = v1::Target { address: address.to_owned(), port: 5432, ..v1::Target::default() };
        Some(v1::Content { target: Some(target), ..v1::Content::default() })
    }

    fn opened(&mut self, series: u64, number: u64) -> Id {
        let envelope = v1::Envelope {
            kind: RecordKind::Connection.into(),
            workload: Some(self.node.workload.clone()),
            status: Status::Pending.into(),
            connect_series: series,
            connect_number: number,
            ..v1::Envelope::default()
        };
        self.push(envelope, Self::target("10.0.0.5"))
    }

    fn connection(&mut self, series: u64, number: u64, capture: Capture, reason: OpaqueReason) {
        let flow = self.opened(series, number);
        let envelope = v1::Envelope {
            kind: RecordKind::Connection.into(),
            flow_id: flow,
            workload: Some(self.node.workload.clone()),
            capture: capture.into(),
            opaque_reason: reason.into(),
            status: Status::Ok.into(),
            connect_series: series,
            connect_number: number,
            ..v1::Envelope::default()
        };
        self.push(envelope, Self::target("10.0.0.5"));
    }

    fn decoded(&mut self, series: u64, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            self.connection(series, number, Capture::Decoded, OpaqueReason::Unspecified);
        }
    }

    fn counted(&mut self, series: u64, outcome: ConnectOutcome, count: u64, connected: u64) {
        let coverage = v1::Coverage {
            event: CoverageEvent::Connects.into(),
            count,
            outcome: outcome.into(),
            connected,
            ..v1::Coverage::default()
        };
        let envelope = v1::Envelope {
            kind: RecordKind::Coverage.into(),
            workload: Some(self.node.workload.clone()),
            connect_series: series,
            detail: Some(Detail::Coverage(coverage)),
            ..v1::Envelope::default()
        };
        self.push(envelope, Self::target("10.0.0.5"));
    }

    fn close(&mut self) {
        let detail = Detail::ChainClosed(v1::ChainClosed { reason: v1::CloseReason::Drained.into() });
        let kind = RecordKind::ChainClosed.into();
        self.push(v1::Envelope { kind, detail: Some(detail), ..v1::Envelope::default() }, None);
    }

    fn heartbeat(&mut self) {
        let (kind, detail) =
            (RecordKind::Heartbeat.into(), Some(Detail::Heartbeat(v1::Heartbeat::default())));
        self.push(v1::Envelope { kind, detail, ..v1::Envelope::default() }, None);
    }
}

async fn ask(place: &Place, question: v1::CoverageRequest) -> Vec<v1::CoverageRow> {
    let question = v1::CoverageRequest { at_least_position: NOW, ..question };
    place.audit_client().await.coverage(question).await.expect("coverage").into_inner().rows
}

async fn the_row(place: &Place) -> v1::CoverageRow {
    let mut rows = ask(place, v1::CoverageRequest::default()).await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows.remove(0)
}

/// A collector that has these batches.
async fn with(batches: Vec<v1::AppendRequest>) -> (Place, verbatim_collector::Collector) {
    let place = Place::new();
    let collector = place.start().await;
    append(&mut place.ingest_client().await, batches).await.expect("kept");
    (place, collector)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_kernel_counted_adds_up_by_kind() {
    let mut node = Counting::new();
    node.decoded(1, 1..=3);
    node.connection(1, 4, Capture::SeenNotDecoded, OpaqueReason::Tls);
    node.opened(1, 5);
    // Six connects, of which one never became a connection.
    node.counted(1, ConnectOutcome::Steered, 6, 5);
    node.counted(2, ConnectOutcome::Denied, 7, 0);
    node.counted(3, ConnectOutcome::Missed, 8, 0);
    node.counted(4, ConnectOutcome::StalePassed, 9, 0);
    node.counted(5, ConnectOutcome::Unrouted, 4, 1);
    node.close();
    let (place, collector) = with(vec![node.node.batch()]).await;
    let row = the_row(&place).await;
    assert_eq!((row.node.as_str(), row.address.as_str(), row.port), ("node-1", "10.0.0.5", 5432));
    assert_eq!(row.principal, node.node.workload.principal);
    assert_eq!((row.connects, row.decoded, row.open, row.denied), (34, 3, 1, 7));
    let undecoded: Vec<_> = row.undecoded.iter().map(|one| (one.reason(), one.count)).collect();
    assert_eq!(undecoded, [(OpaqueReason::Tls, 1)]);
    let outcomes =
        |of: &[v1::OutcomeCount]| of.iter().map(|one| (one.outcome(), one.count)).collect::<Vec<_>>();
    assert_eq!(outcomes(&row.missed), [(ConnectOutcome::Missed, 8)]);
    let passed = [(ConnectOutcome::StalePassed, 9), (ConnectOutcome::Unrouted, 1)];
    assert_eq!(outcomes(&row.passed), passed);
    assert_eq!((row.failed, row.pending, row.missing, row.invented), (4, 0, 0, 0));
    assert_eq!(findings(&mut place.audit_client().await).await, []);
    collector.shut_down().await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_record_is_named_by_its_number_and_is_a_finding() {
    let mut node = Counting::new();
    node.decoded(1, [1, 2, 4, 5]);
    node.counted(1, ConnectOutcome::Steered, 5, 5);
    node.close();
    let (place, collector) = with(vec![node.node.batch()]).await;
    let row = the_row(&place).await;
    assert_eq!((row.connects, row.decoded, row.missing), (5, 4, 1));
    assert_eq!(row.missing_numbers, [3]);
    let told = findings(&mut place.audit_client().await).await;
    assert_eq!(told.iter().map(v1::Finding::kind).collect::<Vec<_>>(), [FindingKind::CoverageDisagrees]);
    assert!(told[0].detail.contains("1 connections that the kernel counted have no record (numbers 3)"));
    assert_eq!(told[0].chain_id, node.node.chain);
    collector.shut_down().await.expect("ends");

    std::fs::remove_file(place.data().join("index.sqlite")).expect("index deleted");
    let collector = place.start().await;
    assert_eq!(findings(&mut place.audit_client().await).await, told, "from the log alone");
    collector.shut_down().await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_younger_than_the_node_has_told_is_pending_until_its_record_comes() {
    let mut node = Counting::new();
    node.decoded(1, [1]);
    node.counted(1, ConnectOutcome::Steered, 3, 2);
    let (place, collector) = with(vec![node.node.batch()]).await;
    let row = the_row(&place).await;
    assert_eq!((row.decoded, row.pending, row.missing), (1, 2, 0));

    node.second += 11;
    node.heartbeat();
    append(&mut place.ingest_client().await, vec![node.node.batch()]).await.expect("kept");
    let row = the_row(&place).await;
    assert_eq!((row.decoded, row.pending, row.failed, row.missing), (1, 0, 1, 1));

    node.decoded(1, [2]);
    append(&mut place.ingest_client().await, vec![node.node.batch()]).await.expect("kept");
    let row = the_row(&place).await;
    assert_eq!((row.decoded, row.pending, row.failed, row.missing), (2, 0, 1, 0), "it came late");
    assert_eq!(findings(&mut place.audit_client().await).await, []);
    collector.shut_down().await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_chain_of_the_node_that_has_not_told_as_much_is_waited_for() {
    let mut first = Counting::new();
    let mut second = Counting::new();
    first.counted(1, ConnectOutcome::Steered, 1, 1);
    first.second += 100;
    first.heartbeat();
    let (place, collector) = with(vec![first.node.batch(), second.node.batch()]).await;
    assert_eq!((the_row(&place).await.pending, the_row(&place).await.missing), (1, 0));
    second.decoded(1, [1]);
    append(&mut place.ingest_client().await, vec![second.node.batch()]).await.expect("kept");
    let row = the_row(&place).await;
    assert_eq!((row.decoded, row.pending, row.missing), (1, 0, 0));
    collector.shut_down().await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_between_two_readings_neither_loses_nor_doubles() {
    let mut first = Counting::new();
    first.decoded(1, 1..=4);
    first.opened(1, 5);
    first.counted(1, ConnectOutcome::Steered, 5, 5);
    first.counted(2, ConnectOutcome::Denied, 3, 0);
    // It dies: what it had counted is counted on, and said again from the beginning.
    let opened = v1::ChainOpened {
        predecessor_chain_id: first.node.chain.to_vec(),
        predecessor_sequence: first.node.next - 1,
        predecessor_head: first.node.hash.to_vec(),
        boot_id: vec![7; 16],
        recovered: true,
        ..v1::ChainOpened::default()
    };
    let mut second = Counting::with(Node::open(key(), opened));
    second.second = 105;
    second.counted(2, ConnectOutcome::Denied, 4, 0);
    second.counted(1, ConnectOutcome::Steered, 6, 6);
    second.counted(1, ConnectOutcome::Steered, 6, 6);
    second.decoded(1, [6]);
    second.close();
    let (place, collector) = with(vec![first.node.batch(), second.node.batch()]).await;
    let row = the_row(&place).await;
    assert_eq!((row.connects, row.decoded, row.open, row.denied), (10, 5, 1, 4));
    assert_eq!((row.pending, row.missing, row.invented), (0, 0, 0));
    collector.shut_down().await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_a_connection_that_was_never_counted_is_a_disagreement() {
    let mut node = Counting::new();
    node.decoded(1, 1..=3);
    node.decoded(9, 1..=2);
    node.second += 10;
    node.counted(1, ConnectOutcome::Steered, 2, 2);
    node.second += 100;
    node.heartbeat();
    let (place, collector) = with(vec![node.node.batch()]).await;
    let row = the_row(&place).await;
    assert_eq!((row.connects, row.decoded, row.invented, row.missing), (2, 2, 3, 0));
    assert_eq!(findings(&mut place.audit_client().await).await.len(), 2);
    collector.shut_down().await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_about_a_time_begins_at_the_reading_before_it() {
    let mut node = Counting::new();
    node.decoded(1, 1..=2);
    node.counted(1, ConnectOutcome::Steered, 2, 2);
    node.second = 2000;
    node.decoded(1, 3..=5);
    node.counted(1, ConnectOutcome::Steered, 6, 5);
    node.close();
    let (place, collector) = with(vec![node.node.batch()]).await;
    let since = v1::CoverageRequest { from_wall_nanos: EPOCH + 1000 * SECOND, ..Default::default() };
    let rows = ask(&place, since).await;
    assert_eq!((rows[0].connects, rows[0].decoded, rows[0].failed), (4, 3, 1));
    assert_eq!(the_row(&place).await.connects, 6);
    for (workload, found) in [("shop/cart", 1), ("cart-0", 1), ("40", 1), ("shop/other", 0)] {
        let question = v1::CoverageRequest { workload: workload.to_owned(), ..Default::default() };
        assert_eq!(ask(&place, question).await.len(), found, "{workload}");
    }
    let elsewhere = v1::CoverageRequest { node: "node-2".to_owned(), ..Default::default() };
    assert_eq!(ask(&place, elsewhere).await, []);
    collector.shut_down().await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_hold_where_contents_were_deleted_and_the_destination_with_them() {
    let mut node = Counting::new();
    node.decoded(1, [1]);
    let envelope = v1::Envelope {
        kind: RecordKind::Connection.into(),
        workload: Some(node.node.workload.clone()),
        status: Status::Pending.into(),
        connect_series: 1,
        connect_number: 2,
        ..v1::Envelope::default()
    };
    let flow = node.push(envelope, Counting::target("10.0.0.5"));
    node.counted(1, ConnectOutcome::Steered, 2, 2);
    node.close();
    let (place, collector) = with(vec![node.node.batch()]).await;
    let request = v1::DeleteContentRequest { ids: vec![flow], reason: "asked for".to_owned() };
    place.audit_client().await.delete_content(request).await.expect("deleted");
    let row = the_row(&place).await;
    assert_eq!((row.connects, row.decoded, row.open, row.missing), (2, 1, 1, 0));
    collector.shut_down().await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_nobody_goes_on_with_is_found_until_its_successor_comes() {
    let place = Place::new();
    let collector = place.start().await;
    let mut client = place.ingest_client().await;
    let mut dead = Counting::new();
    dead.heartbeat();
    append(&mut client, vec![dead.node.batch()]).await.expect("kept");
    let mut audit = place.audit_client().await;
    assert_eq!(findings(&mut audit).await, [], "it may be alive");

    // Its folder was lost: the node's agent begins anew, and goes on for longer than anything is on its way.
    let mut after = Counting::new();
    after.second += 10;
    after.heartbeat();
    append(&mut client, vec![after.node.batch()]).await.expect("kept");
    assert_eq!(findings(&mut audit).await, [], "they may be of two agents, one taking over");
    after.second += 2 * 3600;
    after.heartbeat();
    append(&mut client, vec![after.node.batch()]).await.expect("kept");
    let told = findings(&mut audit).await;
    assert_eq!(told.iter().map(v1::Finding::kind).collect::<Vec<_>>(), [FindingKind::EndUnknown]);
    assert_eq!((&told[0].chain_id[..], told[0].last_sequence), (&dead.node.chain[..], 1));
    assert!(told[0].detail.contains("its end is unknown after sequence 1"), "{}", told[0].detail);

    let mut successor = Node::after(&dead.node, key());
    append(&mut client, vec![successor.batch()]).await.expect("kept");
    assert_eq!(findings(&mut audit).await, []);
    collector.shut_down().await.expect("ends");
}
