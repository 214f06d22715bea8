//! A finished run's data, asked without a collector.

use verbatim_api::v1::{self, audit_client::AuditClient};
use verbatim_collector::{OpenError, open_offline};

use crate::support::{Place, append, files, node::Node, search};

fn listing(folder: &std::path::Path) -> Vec<(std::path::PathBuf, u64)> {
    files(folder).into_iter().map(|p| (p.clone(), p.metadata().expect("file").len())).collect()
}

async fn record(place: &Place) -> Vec<v1::Command> {
    let mut process = place.spawn();
    let mut node = Node::new();
    (0..20).for_each(|n| drop(node.command(b"", &format!("SELECT {n}"))));
    append(&mut place.ingest_client().await, vec![node.batch()]).await.expect("acknowledged");
    let found = search(&mut place.audit_client().await, v1::Filter::default()).await;
    // As `run` may leave it: killed, nothing sealed.
    process.kill();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn data_of_a_killed_collector_is_answered_and_not_changed() {
    let place = Place::new();
    let recorded = record(&place).await;
    for index in ["as it is", "gone"] {
        if index == "gone" {
            for suffix in ["", "-wal", "-shm"] {
                std::fs::remove_file(place.data().join(format!("index.sqlite{suffix}"))).ok();
            }
        }
        let before = listing(&place.data());
        let mut audit = AuditClient::new(open_offline(&place.data()).await.expect("opens"));
        assert_eq!(search(&mut audit, v1::Filter::default()).await, recorded, "index {index}");
        let request = v1::DeleteContentRequest { ids: vec![recorded[0].id.clone()], reason: "no".to_owned() };
        assert_eq!(
            audit.delete_content(request).await.expect_err("refused").code(),
            tonic::Code::FailedPrecondition
        );
        drop(audit);
        assert_eq!(listing(&place.data()), before, "index {index}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fresh_index_is_used_where_it_lies() {
    let place = Place::new();
    let recorded = record(&place).await;
    let collector = place.start().await;
    search(&mut place.audit_client().await, v1::Filter::default()).await;
    collector.shut_down().await.expect("ends");
    let before = listing(&place.data());
    let mut audit = AuditClient::new(open_offline(&place.data()).await.expect("opens"));
    assert_eq!(search(&mut audit, v1::Filter::default()).await, recorded);
    assert_eq!(listing(&place.data()), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_may_ask_at_once_but_not_beside_a_collector() {
    let place = Place::new();
    let recorded = record(&place).await;
    let mut one = AuditClient::new(open_offline(&place.data()).await.expect("opens"));
    let mut other = AuditClient::new(open_offline(&place.data()).await.expect("opens"));
    assert_eq!(search(&mut one, v1::Filter::default()).await, recorded);
    assert_eq!(search(&mut other, v1::Filter::default()).await, recorded);
    drop((one, other));
    crate::support::wait_until("the directory is free again", || {
        std::fs::File::open(place.data().join("lock")).expect("lock").try_lock().is_ok()
    });
    let collector = place.start().await;
    let refused = open_offline(&place.data()).await.expect_err("in use");
    assert!(matches!(refused, OpenError::Lock(_)), "{refused}");
    collector.shut_down().await.expect("ends");
}

#[tokio::test]
async fn folder_without_records_is_named() {
    let folder = tempfile::tempdir().expect("folder");
    let refused = open_offline(folder.path()).await.expect_err("nothing there");
    assert!(matches!(refused, OpenError::NoData(_)));
    assert!(refused.to_string().contains("name the directory"), "{refused}");
}
