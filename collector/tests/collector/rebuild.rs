//! The index is disposable: deleted, damaged or foreign, it comes back and answers as before.

use verbatim_api::v1::{self, audit_client::AuditClient};

use crate::support::{Place, append, findings, node::Node, search, sessions};

/// A log with a bit of everything, findings included.
async fn fill(place: &Place) {
    let mut client = place.ingest_client().await;
    for _ in 0..3 {
        let mut node = Node::new();
        let flow = node.connection(None, v1::Capture::Decoded);
        for n in 0..40 {
            node.command(&flow, &format!("SELECT {n}"));
        }
        let first = node.batch();
        let _lost = {
            node.start(&flow, "SELECT 'lost'");
            node.batch()
        };
        let orphan = crate::support::node::new_id();
        node.finish(&flow, &orphan, v1::Status::Ok);
        let opaque = node.connection(None, v1::Capture::SeenNotDecoded);
        node.connection(Some(&opaque), v1::Capture::SeenNotDecoded);
        node.connection(Some(&flow), v1::Capture::Decoded);
        append(&mut client, vec![first, node.batch()]).await.expect("acknowledged");
    }
}

type Shown = (Option<v1::Command>, Vec<v1::Entry>);
type Answers = (Vec<v1::Command>, Vec<v1::Finding>, Vec<v1::Session>, Vec<Shown>);

async fn answers(audit: &mut AuditClient<tonic::transport::Channel>) -> Answers {
    let commands = search(audit, v1::Filter::default()).await;
    let told = findings(audit).await;
    let connections = sessions(audit).await;
    let mut shown = Vec::new();
    for command in &commands {
        let id = command.id.clone();
        let answer = audit.get(v1::GetRequest { id }).await.expect("get").into_inner();
        // Without the positions: an index that comes back while it is asked has read less of the log.
        shown.push((answer.command, answer.entries));
    }
    (commands, told, connections, shown)
}

#[tokio::test(flavor = "multi_thread")]
async fn index_made_again_from_the_log_answers_every_question_as_before() {
    let place = Place::new();
    let collector = place.start().await;
    fill(&place).await;
    let before = answers(&mut place.audit_client().await).await;
    assert_eq!((before.0.len(), before.1.len(), before.2.len()), (3 * 42, 3, 6));
    collector.shut_down().await.expect("ends");
    let index = place.data().join("index.sqlite");
    for harm in [None, Some(&b""[..]), Some(b"this is no database, and long enough to look like one.........................................................")] {
        std::fs::remove_file(&index).expect("index deleted");
        if let Some(bytes) = harm {
            std::fs::write(&index, bytes).expect("index spoilt");
        }
        let collector = place.start().await;
        assert_eq!(answers(&mut place.audit_client().await).await, before);
        collector.shut_down().await.expect("ends");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn index_that_is_deleted_while_the_collector_runs_comes_back() {
    let place = Place::new();
    let collector = place.start().await;
    fill(&place).await;
    let mut audit = place.audit_client().await;
    let before = answers(&mut audit).await;
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(place.data().join(format!("index.sqlite{suffix}"))).expect("index deleted");
    }
    crate::support::wait_until("the index is there again", || place.data().join("index.sqlite").exists());
    // What was read from the deleted file and what is in the new one is the same.
    assert_eq!(answers(&mut audit).await, before);
    fill(&place).await;
    assert_eq!(search(&mut audit, v1::Filter::default()).await.len(), 2 * before.0.len());
    collector.shut_down().await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn index_of_another_log_is_not_believed() {
    let (one, other) = (Place::new(), Place::new());
    let collector = one.start().await;
    fill(&one).await;
    collector.shut_down().await.expect("ends");
    let collector = other.start().await;
    let mut node = Node::new();
    node.command(b"", "SELECT 'other'");
    append(&mut other.ingest_client().await, vec![node.batch()]).await.expect("acknowledged");
    collector.shut_down().await.expect("ends");
    std::fs::copy(one.data().join("index.sqlite"), other.data().join("index.sqlite")).expect("copied");
    let collector = other.start().await;
    assert_eq!(search(&mut other.audit_client().await, v1::Filter::default()).await.len(), 1);
    collector.shut_down().await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_segment_is_a_finding_and_what_is_intact_is_still_found() {
    let place = Place::new();
    let collector = place.start().await;
    let mut client = place.ingest_client().await;
    let mut node = Node::new();
    for n in 0..3 {
        node.command(b"", &format!("SELECT {n}"));
        append(&mut client, vec![node.batch()]).await.expect("acknowledged");
    }
    search(&mut place.audit_client().await, v1::Filter::default()).await;
    collector.shut_down().await.expect("ends");
    let segment = place.data().join("log/envelopes/00000000000000000000.seg");
    let mut bytes = std::fs::read(&segment).expect("reads");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segment, bytes).expect("writes");
    std::fs::remove_file(place.data().join("index.sqlite")).expect("index deleted");
    let collector = place.start().await;
    let mut audit = place.audit_client().await;
    assert_eq!(search(&mut audit, v1::Filter::default()).await.len(), 2);
    let kinds: Vec<_> = findings(&mut audit).await.iter().map(v1::Finding::kind).collect();
    assert_eq!(kinds, [v1::FindingKind::LogDamaged]);
    collector.shut_down().await.expect("ends");
}
