//! What was acknowledged is there after `kill -9`, and a full disk refuses instead of losing.

use std::{
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio_stream::wrappers::ReceiverStream;
use verbatim_api::v1;

use crate::support::{Place, append, findings, node::Node, search};

/// Sends batches of two commands each until the collector goes; notes what was acknowledged. Returns the
/// batches that were sent.
async fn load(
    place: &Place,
    writer: usize,
    acknowledged: Arc<Mutex<Vec<u64>>>,
) -> (Node, Vec<v1::AppendRequest>) {
    let mut client = place.ingest_client().await;
    let mut node = Node::new();
    let (sender, receiver) = tokio::sync::mpsc::channel(8);
    let mut sent = Vec::new();
    let mut answers = client.append(ReceiverStream::new(receiver)).await.expect("stream").into_inner();
    let reader = tokio::spawn(async move {
        while let Ok(Some(answer)) = answers.message().await {
            acknowledged.lock().expect("lock").push(answer.durable_sequence);
        }
    });
    for n in 0.. {
        node.command(b"", &format!("SELECT 'writer{writer} {n}'"));
        let batch = node.batch();
        sent.push(batch.clone());
        if sender.send(batch).await.is_err() || reader.is_finished() {
            break;
        }
    }
    reader.await.expect("reader");
    (node, sent)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_record_is_there_after_kill_9_under_load() {
    let place = Arc::new(Place::new());
    for round in 0..3 {
        let mut process = place.spawn();
        let marks: Vec<Arc<Mutex<Vec<u64>>>> = (0..3).map(|_| Arc::default()).collect();
        let writers: Vec<_> = marks
            .iter()
            .enumerate()
            .map(|(writer, marks)| {
                let (place, marks) = (Arc::clone(&place), Arc::clone(marks));
                tokio::spawn(async move { load(&place, writer, marks).await })
            })
            .collect();
        let enough = || marks.iter().all(|m| m.lock().expect("lock").len() > 50);
        while !enough() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        process.kill();
        let mut nodes = Vec::new();
        for writer in writers {
            nodes.push(writer.await.expect("writer"));
        }
        // A new one on what the killed one left; it seals and ends in order.
        let mut process = place.spawn();
        let mut audit = place.audit_client().await;
        let found = search(&mut audit, v1::Filter::default()).await;
        for (writer, ((mut node, sent), marks)) in nodes.into_iter().zip(&marks).enumerate() {
            let durable = marks.lock().expect("lock").last().copied().expect("acknowledged");
            let of_chain = |c: &&v1::Command| c.started.as_ref().is_some_and(|e| e.chain_id == node.chain);
            let highest =
                found.iter().filter(of_chain).filter_map(|c| c.finished.as_ref()).map(|e| e.sequence).max();
            assert!(
                highest >= Some(durable),
                "round {round}, writer {writer}: acknowledged {durable}, kept {highest:?}"
            );
            let whole = found.iter().filter(of_chain).count() as u64;
            assert_eq!(Some(whole * 2), highest, "without a hole");
            // The node comes back, sends everything again and goes on.
            let mut client = place.ingest_client().await;
            let expected = sent.len() as u64 + 1;
            node.command(b"", "SELECT 'after'");
            let again = sent.into_iter().chain([node.batch()]).collect();
            let answers = append(&mut client, again).await.expect("acknowledged");
            assert!(answers.iter().all(|a| a.findings.is_empty()), "round {round}, writer {writer}");
            assert_eq!(answers.last().map(|a| a.durable_sequence), Some(expected * 2));
        }
        assert_eq!(findings(&mut audit).await, [], "round {round}");
        terminate(&mut process);
    }
}

/// SIGTERM, and the exit code 0.
fn terminate(process: &mut crate::support::Process) {
    let pid = process.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
    assert_eq!(process.0.wait().expect("wait").code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_acknowledges_what_was_taken_seals_and_exits_with_0() {
    let place = Place::new();
    let mut process = place.spawn();
    let mut client = place.ingest_client().await;
    let mut node = Node::new();
    node.command(b"", "SELECT 1");
    let (sender, receiver) = tokio::sync::mpsc::channel(8);
    sender.send(node.batch()).await.expect("sent");
    // The stream stays open, as a node agent's does.
    let mut answers = client.append(ReceiverStream::new(receiver)).await.expect("stream").into_inner();
    assert_eq!(answers.message().await.expect("message").map(|a| a.durable_sequence), Some(2));
    terminate(&mut process);
    assert_eq!(answers.message().await.expect_err("ended").code(), tonic::Code::Unavailable);
    let names: Vec<_> = std::fs::read_dir(place.data().join("log/envelopes"))
        .expect("folder")
        .map(|e| e.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(names, ["00000000000000000000.seg"]);
    assert!(!place.ingest().exists() && !place.audit().exists(), "sockets are gone");
}

#[test]
fn second_collector_on_the_same_directory_is_refused_with_what_to_do() {
    let place = Place::new();
    let _first = place.spawn();
    let other = Place::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_verbatim-collector"));
    command.arg("serve").arg("--data").arg(place.data());
    command.arg("--ingest").arg(format!("unix:{}", other.ingest().display()));
    command.arg("--audit").arg(format!("unix:{}", other.audit().display()));
    let out = command.output().expect("runs");
    assert_eq!(out.status.code(), Some(1));
    let told = String::from_utf8_lossy(&out.stderr);
    assert!(told.contains("is in use by a running collector"), "{told}");
}
