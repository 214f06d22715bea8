//! Deleting contents for privacy: nothing of them is left in any file, everything else stays provable.

use prost::Message as _;
use verbatim_api::{chain, v1};

use crate::support::{Place, append, files_with, findings, node::Node, search};

fn text(text: &str) -> v1::Filter {
    v1::Filter { text: text.to_owned(), ..v1::Filter::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_content_is_in_no_file_any_more_and_the_chain_stays_whole() {
    let place = Place::new();
    let collector = place.start().await;
    let mut client = place.ingest_client().await;
    let mut node = Node::new();
    let flow = node.connection(None, v1::Capture::Decoded);
    let mut secrets = Vec::new();
    for n in 0..300 {
        let shared = node.workload.clone();
        if n % 30 == 0 {
            node.workload =
                v1::Workload { principal_kind: v1::PrincipalKind::Local.into(), ..Default::default() };
            let (envelope, mut content) =
                node.started(&flow, &format!("SELECT zzsecret{n:04}zz FROM hidden{n:04}place"));
            let user = format!("local:host/ghost{n:04}user");
            content.client = Some(v1::Client { local_user: user, ..v1::Client::default() });
            let owner =
                v1::Owner { kind: "Job".to_owned(), name: format!("wraith{n:04}job"), ..Default::default() };
            content.pod = Some(v1::Pod { owners: vec![owner], ..v1::Pod::default() });
            let id = node.push(envelope, Some(content));
            node.finish(&flow, &id, v1::Status::Ok);
            secrets.push(id);
            node.workload = shared;
        } else {
            node.command(&flow, &format!("SELECT kept{n:04}word FROM orders"));
        }
        if n % 50 == 49 {
            append(&mut client, vec![node.batch()]).await.expect("acknowledged");
        }
    }
    let mut audit = place.audit_client().await;
    assert_eq!(search(&mut audit, text("zzsecret0030zz")).await.len(), 1);
    assert!(!files_with(&place.data(), "zzsecret0030zz").is_empty(), "the test finds it where it is");

    let request = v1::DeleteContentRequest { ids: secrets.clone(), reason: "ticket 4711".to_owned() };
    let deleted = audit.delete_content(request).await.expect("deleted").into_inner().deleted;
    assert_eq!(deleted, 20, "of ten commands both contents");
    for n in (0..300).step_by(30) {
        for left in ["zzsecret{n}zz", "hidden{n}place", "ghost{n}user", "wraith{n}job"] {
            let left = left.replace("{n}", &format!("{n:04}"));
            assert_eq!(files_with(&place.data(), &left), Vec::<std::path::PathBuf>::new(), "{left}");
        }
        assert_eq!(search(&mut audit, text(&format!("zzsecret{n:04}zz"))).await, []);
    }
    assert!(!files_with(&place.data(), "ticket 4711").is_empty(), "the deletion itself is recorded");
    assert_eq!(search(&mut audit, text("kept0031word")).await.len(), 1);
    let all = search(&mut audit, v1::Filter::default()).await;
    assert_eq!((all.len(), all.iter().filter(|c| c.content_deleted).count()), (300, 10));
    let gone = all.iter().find(|c| c.id == secrets[0]).expect("still there");
    assert!(gone.started_content.is_none() && gone.finished_content.is_none() && gone.started.is_some());
    assert_eq!(gone.principal, "");
    assert_eq!(findings(&mut audit).await, []);

    // Envelopes still lead to the head that the node signed.
    let mut entries = Vec::new();
    for command in all.iter().rev() {
        let got = audit.get(v1::GetRequest { id: command.id.clone() }).await.expect("get").into_inner();
        entries.extend(got.entries);
    }
    let envelope = |e: &v1::Entry| v1::Envelope::decode(e.envelope.clone()).expect("decodes");
    entries.sort_by_key(|e| envelope(e).sequence);
    for entry in &entries {
        let commitment = envelope(entry).content_sha256;
        assert!(entry.content.is_empty() || chain::content_commitment(&entry.content)[..] == commitment[..]);
    }
    // The deletion is the same again after a restart, and in an index made anew.
    collector.shut_down().await.expect("ends");
    std::fs::remove_file(place.data().join("index.sqlite")).expect("index deleted");
    let collector = place.start().await;
    let mut audit = place.audit_client().await;
    assert_eq!(search(&mut audit, v1::Filter::default()).await, all);
    collector.shut_down().await.expect("ends");
    assert_eq!(files_with(&place.data(), "zzsecret0030zz"), Vec::<std::path::PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn single_record_can_be_deleted_by_its_own_id() {
    let place = Place::new();
    let collector = place.start().await;
    let mut node = Node::new();
    let id = node.start(b"", "SELECT stays");
    let end = node.finish(b"", &id, v1::Status::Ok);
    append(&mut place.ingest_client().await, vec![node.batch()]).await.expect("acknowledged");
    let mut audit = place.audit_client().await;
    let request = v1::DeleteContentRequest { ids: vec![end, vec![7; 16]], reason: "asked for".to_owned() };
    assert_eq!(audit.delete_content(request).await.expect("deleted").into_inner().deleted, 1);
    let found = search(&mut audit, text("stays")).await;
    assert!(
        found[0].started_content.is_some() && found[0].finished_content.is_none() && found[0].content_deleted
    );
    collector.shut_down().await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_without_a_reason_or_of_nothing_is_refused() {
    let place = Place::new();
    let collector = place.start().await;
    let mut audit = place.audit_client().await;
    for (ids, reason) in [(vec![vec![1; 16]], " "), (vec![], "why"), (vec![vec![1; 3]], "why")] {
        let request = v1::DeleteContentRequest { ids, reason: reason.to_owned() };
        let refused = audit.delete_content(request).await.expect_err("refused");
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    }
    collector.shut_down().await.expect("ends");
}
