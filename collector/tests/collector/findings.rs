//! Chains that are not what they should be: each kind is told to the sender, kept, and still there when the
//! index is made again. What came is kept all the same.

use prost::Message as _;
use verbatim_api::v1::{self, FindingKind};

use crate::support::{
    Place, append, findings,
    node::{Node, key},
    search,
};

/// Sends batches, expects exactly these kinds for the last one, and again from a new index.
async fn found(
    batches: Vec<v1::AppendRequest>,
    expected: &[FindingKind],
    commands: usize,
) -> Vec<v1::Finding> {
    let place = Place::new();
    let collector = place.start().await;
    let answers = append(&mut place.ingest_client().await, batches).await.expect("kept all the same");
    let kinds = |answer: &v1::AppendResponse| answer.findings().collect::<Vec<_>>();
    assert_eq!(answers.last().map(kinds), Some(expected.to_vec()));
    let mut audit = place.audit_client().await;
    assert_eq!(search(&mut audit, v1::Filter::default()).await.len(), commands);
    let told = findings(&mut audit).await;
    let mut told_kinds: Vec<_> = told.iter().map(v1::Finding::kind).collect();
    told_kinds.dedup();
    for kind in expected {
        assert!(told_kinds.contains(kind), "{kind:?} is missing in {told:?}");
    }
    collector.shut_down().await.expect("ends");

    std::fs::remove_file(place.data().join("index.sqlite")).expect("index deleted");
    let collector = place.start().await;
    assert_eq!(findings(&mut place.audit_client().await).await, told, "from the log alone");
    collector.shut_down().await.expect("ends");
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_batch_is_a_gap_that_names_the_sequences() {
    let mut node = Node::new();
    let first = node.batch();
    node.command(b"", "SELECT 'lost'");
    let _lost = node.batch();
    node.command(b"", "SELECT 'after'");
    let told = found(vec![first, node.batch()], &[FindingKind::Gap], 1).await;
    assert_eq!((told[0].first_sequence, told[0].last_sequence), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fills_a_gap_later_is_kept_and_the_gap_stays_found() {
    let mut node = Node::new();
    let first = node.batch();
    node.command(b"", "SELECT 'late'");
    let late = node.batch();
    node.command(b"", "SELECT 'after'");
    let after = node.batch();
    let told = found(vec![first, after, late], &[], 2).await;
    assert_eq!(told.iter().map(v1::Finding::kind).collect::<Vec<_>>(), [FindingKind::Gap]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_hole_is_acknowledged_only_once_the_hole_is_filled() {
    let mut node = Node::new();
    let mut batches = vec![node.batch()];
    for n in 0..5 {
        node.command(b"", &format!("SELECT {n}"));
        batches.push(node.batch());
    }
    // Batch n ends at sequence 2n. What was not there when the stream broke comes again in order.
    let cases = [
        ("a batch behind a hole", vec![0, 3], vec![0, 6]),
        ("what fills part of it", vec![0, 3, 1], vec![0, 6, 2]),
        ("the same again", vec![0, 3, 1, 1], vec![0, 6, 2, 2]),
        ("a repeat before it", vec![0, 3, 0], vec![0, 6, 0]),
        ("its end before its beginning", vec![0, 3, 2, 0, 1], vec![0, 6, 6, 0, 6]),
        ("two of them", vec![0, 2, 5, 0, 1, 3, 4, 0], vec![0, 4, 10, 0, 4, 6, 10, 10]),
        ("one that stays", vec![1, 2], vec![2, 4]),
    ];
    for (case, order, expected) in cases {
        let place = Place::new();
        let collector = place.start().await;
        let sent = order.iter().map(|n: &usize| batches[*n].clone()).collect();
        let answers = append(&mut place.ingest_client().await, sent).await.expect("kept");
        let durable: Vec<u64> = answers.iter().map(|a| a.durable_sequence).collect();
        assert_eq!(durable, expected, "{case}");
        collector.shut_down().await.expect("ends");
        // The same from the log alone.
        let collector = place.start().await;
        let last = *order.last().expect("sent");
        let again =
            append(&mut place.ingest_client().await, vec![batches[last].clone()]).await.expect("kept");
        assert_eq!(again[0].durable_sequence, expected[expected.len() - 1], "{case}, after a restart");
        collector.shut_down().await.expect("ends");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chain_that_begins_in_its_middle_is_a_gap() {
    let mut node = Node::new();
    let _never_sent = node.batch();
    node.command(b"", "SELECT 1");
    found(vec![node.batch()], &[FindingKind::Gap], 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn envelope_that_was_changed_breaks_the_chain() {
    let mut node = Node::new();
    let first = node.batch();
    node.command(b"", "SELECT 1");
    let mut batch = node.batch();
    let mut envelope = v1::Envelope::decode(batch.entries[0].envelope.clone()).expect("decodes");
    envelope.wall_nanos += 1;
    batch.entries[0].envelope = envelope.encode_to_vec().into();
    found(vec![first, batch], &[FindingKind::ChainBreak], 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_after_a_broken_one_hangs_on_what_the_node_signed() {
    let mut node = Node::new();
    let first = node.batch();
    node.command(b"", "SELECT 1");
    let mut broken = node.batch();
    let mut envelope = v1::Envelope::decode(broken.entries[0].envelope.clone()).expect("decodes");
    envelope.wall_nanos += 1;
    broken.entries[0].envelope = envelope.encode_to_vec().into();
    node.command(b"", "SELECT 2");
    found(vec![first, broken, node.batch()], &[], 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_signature_is_a_finding() {
    let mut node = Node::new();
    let first = node.batch();
    node.command(b"", "SELECT 1");
    let mut batch = node.batch();
    batch.head.as_mut().expect("head").signature[3] ^= 1;
    found(vec![first, batch], &[FindingKind::BadSignature], 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_without_a_head_is_a_finding() {
    let mut node = Node::new();
    let first = node.batch();
    node.command(b"", "SELECT 1");
    let mut batch = node.batch();
    batch.head = None;
    found(vec![first, batch], &[FindingKind::BadSignature], 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn same_sequence_with_another_envelope_is_a_fork_and_both_are_kept() {
    let mut node = Node::new();
    let first = node.batch();
    let mut twin = node.fork();
    node.command(b"", "SELECT 'one'");
    twin.command(b"", "SELECT 'other'");
    let (one, other) = (node.batch(), twin.batch());
    let told = found(vec![first, one, other], &[FindingKind::Fork], 2).await;
    assert_eq!((told[0].first_sequence, told[0].last_sequence), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn repeat_of_either_side_of_a_fork_is_a_repeat() {
    let mut node = Node::new();
    let first = node.batch();
    let mut twin = node.fork();
    node.command(b"", "SELECT 'one'");
    twin.command(b"", "SELECT 'other'");
    let (one, other) = (node.batch(), twin.batch());
    let batches = vec![first, one.clone(), other.clone(), one, other];
    let told = found(batches, &[], 2).await;
    assert_eq!(told.len(), 1, "the fork is found once: {told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_in_place_of_an_envelope_is_a_finding() {
    let mut node = Node::new();
    let first = node.batch();
    node.push_raw(vec![0xff; 40], Vec::new());
    node.command(b"", "SELECT 1");
    found(vec![first, node.batch()], &[FindingKind::BadEnvelope], 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn envelope_at_a_place_that_is_not_its_own_is_a_finding() {
    let mut node = Node::new();
    let first = node.batch();
    let (mut envelope, _) = node.started(b"", "");
    (envelope.schema_version, envelope.chain_id, envelope.sequence) = (1, node.chain.to_vec(), 99);
    envelope.record_id = crate::support::node::new_id();
    node.push_raw(envelope.encode_to_vec(), Vec::new());
    found(vec![first, node.batch()], &[FindingKind::BadEnvelope], 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_was_not_committed_to_is_a_finding() {
    for change in [b"other".as_slice(), b"", b"\0zero"] {
        let mut node = Node::new();
        let first = node.batch();
        node.command(b"", "SELECT 1");
        let mut batch = node.batch();
        batch.entries[0].content = change.to_vec().into();
        found(vec![first, batch], &[FindingKind::BadContent], 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_than_the_one_trusted_on_first_use_is_a_finding() {
    let mut node = Node::new();
    let first = node.batch();
    node.command(b"", "SELECT 1");
    node.key = key();
    found(vec![first, node.batch()], &[FindingKind::KeyChanged], 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn key_that_a_record_announced_may_sign() {
    use aws_lc_rs::signature::KeyPair as _;
    let mut node = Node::new();
    let first = node.batch();
    let new = key();
    let detail = v1::SigningKey {
        public_key: new.public_key().as_ref().to_vec(),
        trust: v1::KeyTrust::FirstUse.into(),
    };
    let announced = v1::Envelope {
        kind: v1::RecordKind::Key.into(),
        detail: Some(v1::envelope::Detail::Key(detail)),
        ..v1::Envelope::default()
    };
    node.push(announced, None);
    let second = node.batch();
    node.key = new;
    node.command(b"", "SELECT 1");
    assert_eq!(found(vec![first, second, node.batch()], &[], 1).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_predecessor_is_a_finding() {
    let mut unknown = Node::new();
    let _never_sent = unknown.batch();
    let mut node = Node::after(&unknown, key());
    found(vec![node.batch()], &[FindingKind::UnknownPredecessor], 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_that_lost_power_is_recovered_behind_and_not_a_fork() {
    let mut node = Node::new();
    node.command(b"", "SELECT 1");
    let first = node.batch();
    let kept = node.fork();
    node.command(b"", "SELECT 2");
    let shipped = node.batch();
    let mut successor = Node::after(&kept, key());
    found(vec![first, shipped, successor.batch()], &[FindingKind::RecoveredBehind], 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn predecessor_under_another_hash_is_a_fork_and_one_that_is_longer_there_a_gap() {
    let mut node = Node::new();
    node.command(b"", "SELECT 1");
    let first = node.batch();
    let mut longer = node.fork();
    let mut other = node.fork();
    other.hash[0] ^= 1;
    let mut successor = Node::after(&other, key());
    found(vec![first.clone(), successor.batch()], &[FindingKind::Fork], 1).await;
    longer.command(b"", "SELECT 2");
    let mut successor = Node::after(&longer, key());
    found(vec![first, successor.batch()], &[FindingKind::Gap], 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn successor_with_another_key_than_the_recovery_head_is_a_finding() {
    let mut node = Node::new();
    let first = node.batch();
    node.command(b"", "SELECT 1");
    let head = node.head_by(&key(), true);
    let rest = node.batch_with(head);
    let mut successor = Node::after(&node, key());
    found(vec![first, rest, successor.batch()], &[FindingKind::KeyChanged], 1).await;
}

fn close(node: &mut Node) {
    let closed = v1::ChainClosed::default();
    let envelope = v1::Envelope {
        kind: v1::RecordKind::ChainClosed.into(),
        detail: Some(v1::envelope::Detail::ChainClosed(closed)),
        ..v1::Envelope::default()
    };
    node.push(envelope, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_behind_a_chains_end_is_a_finding() {
    let mut node = Node::new();
    close(&mut node);
    let first = node.batch();
    node.command(b"", "SELECT 1");
    let told = found(vec![first, node.batch()], &[FindingKind::AfterClose], 1).await;
    assert_eq!((told[0].first_sequence, told[0].last_sequence), (2, 3));

    let mut node = Node::new();
    close(&mut node);
    node.command(b"", "SELECT 'in the same batch'");
    let told = found(vec![node.batch()], &[FindingKind::AfterClose], 1).await;
    assert_eq!((told[0].first_sequence, told[0].last_sequence), (2, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn recovery_head_of_a_chain_that_was_closed_or_has_its_successor_is_a_finding() {
    let mut closed = Node::new();
    close(&mut closed);
    let first = closed.batch();
    closed.command(b"", "SELECT 1");
    let head = closed.head_by(&key(), true);
    let rest = closed.batch_with(head);
    found(vec![first, rest], &[FindingKind::KeyChanged, FindingKind::AfterClose], 1).await;

    let mut succeeded = Node::new();
    let first = succeeded.batch();
    let mut successor = Node::after(&succeeded, key());
    succeeded.command(b"", "SELECT 1");
    let twin = succeeded.fork();
    let head = succeeded.head_by(&key(), true);
    let rest = succeeded.batch_with(head);
    let opening = successor.batch();
    found(vec![first.clone(), opening.clone(), rest.clone()], &[FindingKind::KeyChanged], 1).await;
    // The successor itself may.
    let head = twin.head_by(&successor.key, true);
    let rest = v1::AppendRequest { head: Some(head), ..rest };
    found(vec![first, opening, rest], &[], 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chain_whose_end_its_successor_signs_is_no_finding() {
    let mut node = Node::new();
    let first = node.batch();
    close(&mut node);
    let mut successor = Node::after(&node, key());
    let head = node.head_by(&successor.key, true);
    let rest = node.batch_with(head);
    assert_eq!(found(vec![first, rest.clone(), successor.batch(), rest], &[], 0).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_says_it_did_not_record_is_a_finding() {
    let mut node = Node::new();
    let gap = v1::Gap { reason: v1::GapReason::SpoolFullShed.into(), count: 17, ..v1::Gap::default() };
    let envelope = v1::Envelope {
        kind: v1::RecordKind::Gap.into(),
        detail: Some(v1::envelope::Detail::Gap(gap)),
        ..v1::Envelope::default()
    };
    node.push(envelope, None);
    let told = found(vec![node.batch()], &[], 0).await;
    assert_eq!(told[0].kind(), FindingKind::NotRecorded);
    assert!(told[0].detail.contains("17 records"), "{}", told[0].detail);
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_that_cannot_be_attributed_is_refused_and_found() {
    let place = Place::new();
    let collector = place.start().await;
    let mut client = place.ingest_client().await;
    let good = Node::new().batch();
    for (bad, complaint) in [
        (v1::AppendRequest { chain_id: vec![1; 15], ..good.clone() }, "chain id has 15 bytes, expected 16"),
        (v1::AppendRequest { entries: Vec::new(), ..good.clone() }, "no entries"),
        (v1::AppendRequest { first_sequence: u64::MAX, ..good.clone() }, "runs over"),
    ] {
        let refused = append(&mut client, vec![bad]).await.expect_err("refused");
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        assert!(refused.message().contains(complaint), "{}", refused.message());
    }
    let told = findings(&mut place.audit_client().await).await;
    assert_eq!(told.iter().map(v1::Finding::kind).collect::<Vec<_>>(), [FindingKind::BadEnvelope; 3]);
    append(&mut client, vec![good]).await.expect("the collector goes on");
    collector.shut_down().await.expect("ends");
}
