//! Honest nodes: what they send is kept once, acknowledged when it is durable, and there after a restart.

use verbatim_api::v1;

use crate::support::{Place, append, findings, node::Node, search};

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_acknowledged_in_order_and_found_as_commands() {
    let place = Place::new();
    let collector = place.start().await;
    let mut node = Node::new();
    let flow = node.connection(None, v1::Capture::Decoded);
    let mut batches = vec![node.batch()];
    for n in 0..10 {
        node.command(&flow, &format!("SELECT {n} FROM orders"));
        batches.push(node.batch());
    }
    let answers = append(&mut place.ingest_client().await, batches).await.expect("acknowledged");
    let durable: Vec<_> = answers.iter().map(|a| a.durable_sequence).collect();
    assert_eq!(durable, (0..=10).map(|n| 1 + 2 * n).collect::<Vec<_>>());
    assert!(answers.iter().all(|a| a.findings.is_empty()));

    let mut audit = place.audit_client().await;
    let commands = search(&mut audit, v1::Filter::default()).await;
    assert_eq!(commands.len(), 10);
    // Newest first.
    let newest = &commands[0];
    let statement = newest.started_content.as_ref().and_then(|c| c.statement.as_ref()).expect("statement");
    assert_eq!(statement.text, b"SELECT 9 FROM orders");
    assert_eq!((newest.status(), newest.decision()), (v1::Status::Ok, v1::Decision::Allowed));
    assert_eq!(newest.principal, "principal://pool/subject/ns/shop/sa/cart");
    assert_eq!(findings(&mut audit).await, []);
    collector.shut_down().await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn repeats_collapse_and_are_acknowledged_again_also_when_cut_otherwise() {
    let place = Place::new();
    let collector = place.start().await;
    let mut client = place.ingest_client().await;
    let mut node = Node::new();
    node.command(b"", "SELECT 1");
    let first = node.batch();
    node.command(b"", "SELECT 2");
    let second = node.batch();
    append(&mut client, vec![first.clone(), second.clone()]).await.expect("acknowledged");
    let again = append(&mut client, vec![second.clone(), first.clone()]).await.expect("acknowledged");
    assert!(again.iter().all(|a| a.durable_sequence == 4 && a.findings.is_empty()), "{again:?}");
    // Everything from the start with something new at its end, in one batch.
    node.command(b"", "SELECT 3");
    let mut all = node.batch();
    let known = first.entries.iter().chain(&second.entries).cloned();
    all.entries = known.chain(all.entries.iter().cloned()).collect();
    all.first_sequence = 0;
    let answer = append(&mut client, vec![all]).await.expect("acknowledged");
    assert_eq!((answer[0].durable_sequence, &answer[0].findings[..]), (6, &[][..]));
    let mut audit = place.audit_client().await;
    assert_eq!(search(&mut audit, v1::Filter::default()).await.len(), 3);
    let last = search(&mut audit, v1::Filter { text: "3".to_owned(), ..v1::Filter::default() }).await;
    let entries =
        audit.get(v1::GetRequest { id: last[0].id.clone() }).await.expect("get").into_inner().entries;
    assert_eq!(entries.len(), 2, "nothing of it was kept twice");
    collector.shut_down().await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn chains_go_on_after_a_restart_with_the_same_key_and_head() {
    let place = Place::new();
    let mut node = Node::new();
    let mut last = None;
    for round in 0..4 {
        let collector = place.start().await;
        let mut client = place.ingest_client().await;
        // The acknowledgement of the last batch was lost: it comes again.
        let mut batches: Vec<v1::AppendRequest> = last.into_iter().collect();
        node.command(b"", &format!("SELECT {round}"));
        batches.push(node.batch());
        last = batches.last().cloned();
        let answers = append(&mut client, batches).await.expect("acknowledged");
        assert!(answers.iter().all(|a| a.findings.is_empty()), "round {round}: {answers:?}");
        let mut audit = place.audit_client().await;
        assert_eq!(search(&mut audit, v1::Filter::default()).await.len(), round + 1);
        assert_eq!(findings(&mut audit).await, []);
        collector.shut_down().await.expect("ends");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn successor_that_knows_its_predecessor_is_no_finding() {
    let place = Place::new();
    let collector = place.start().await;
    let mut client = place.ingest_client().await;
    let mut node = Node::new();
    let command = node.start(b"", "SELECT pg_sleep(1)");
    let signed = node.batch();
    node.start(b"", "SELECT 2");
    // The node agent died: its successor signs what came after the last head.
    let mut successor = Node::after(&node, crate::support::node::key());
    let head = node.head_by(&successor.key, true);
    let rest = node.batch_with(head);
    successor.finish(b"", &command, v1::Status::OutcomeUnknown);
    let answers = append(&mut client, vec![signed, rest, successor.batch()]).await.expect("acknowledged");
    assert!(answers.iter().all(|a| a.findings.is_empty()), "{answers:?}");
    let mut audit = place.audit_client().await;
    let unknown = v1::Filter { statuses: vec![v1::Status::OutcomeUnknown.into()], ..v1::Filter::default() };
    assert_eq!(search(&mut audit, unknown).await.iter().map(|c| &c.id).collect::<Vec<_>>(), [&command]);
    collector.shut_down().await.expect("ends");
}
