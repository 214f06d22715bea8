//! A node writes its own chains, and where its certificate names it, no others.

use rcgen::{CertificateParams, KeyPair, SanType};
use tonic::Code;
use verbatim_api::v1::{self, FindingKind, ingest_client::IngestClient};
use verbatim_collector::log::{CommitError, prepare::prepare};

use crate::{
    network::Network,
    repeats::Bare,
    support::{
        append, files_with,
        node::{Node, key},
    },
};

fn of_node(name: &str) -> Node {
    Node::open(key(), v1::ChainOpened { node: name.to_owned(), ..v1::ChainOpened::default() })
}

/// As the issuer makes it.
fn certificate(network: &Network, node: &str) -> Option<(String, String)> {
    let key = KeyPair::generate().expect("key");
    let mut params = CertificateParams::default();
    let uri = format!("verbatim://node/{node}").try_into().expect("uri");
    params.subject_alt_names.push(SanType::URI(uri));
    let certificate = params.signed_by(&key, &network.nodes.0).expect("signed");
    Some((certificate.pem(), key.serialize_pem()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_certificate_names_it_writes_its_own_chains_and_no_others() {
    let network = Network::new(&[]).await;
    let client = async |identity| {
        let channel = network.connect(&network.collector.ingest, identity).await.expect("connects");
        IngestClient::new(channel)
    };
    let mut a = client(certificate(&network, "a")).await;
    let mut b = client(certificate(&network, "b")).await;
    let mut by_hand = client(Some(network.nodes.issue("a.cluster.test"))).await;

    let mut chain = of_node("a");
    let opening = chain.batch();
    append(&mut a, vec![opening.clone()]).await.expect("its own");
    let stolen = {
        let mut twin = chain.fork();
        twin.command(b"", "SELECT 'never'");
        let head = twin.head_by(&key(), true);
        twin.batch_with(head)
    };
    for (case, batch) in [
        ("a chain opened in its name", of_node("a").batch()),
        ("a recovery head of its chain", stolen.clone()),
        ("a repeat of its chain", opening.clone()),
    ] {
        let refused = append(&mut b, vec![batch]).await.expect_err(case);
        assert_eq!(refused.code(), Code::PermissionDenied, "{case}: {refused}");
        assert!(refused.message().contains("is of node \"a\", the certificate of node \"b\""), "{refused}");
    }
    // It tries again.
    append(&mut b, vec![stolen]).await.expect_err("refused again");
    append(&mut b, vec![of_node("b").batch()]).await.expect("its own");

    // The node itself goes on, dies, and is succeeded: nothing of it is remarkable.
    chain.command(b"", "SELECT 1");
    let signed = chain.batch();
    chain.command(b"", "SELECT 2");
    let opened = v1::ChainOpened {
        node: "a".to_owned(),
        predecessor_chain_id: chain.chain.to_vec(),
        predecessor_sequence: chain.next - 1,
        predecessor_head: chain.hash.to_vec(),
        ..v1::ChainOpened::default()
    };
    let mut successor = Node::open(key(), opened);
    let head = chain.head_by(&successor.key, true);
    let legitimate = vec![signed, chain.batch_with(head), successor.batch()];
    let answers = append(&mut a, legitimate).await.expect("its own");
    assert!(answers.iter().all(|answer| answer.findings.is_empty()), "{answers:?}");
    // A certificate that names no node may write any: whoever made it knows.
    append(&mut by_hand, vec![of_node("a").batch()]).await.expect("as ever");

    let Network { place, collector, .. } = network;
    collector.shut_down().await.expect("ends");
    assert_eq!(files_with(&place.data().join("log"), "SELECT \'never\'").len(), 0, "nothing of it is kept");
    let collector = place.start().await;
    let told = crate::support::findings(&mut place.audit_client().await).await;
    let kinds: Vec<_> = told.iter().map(v1::Finding::kind).collect();
    assert_eq!(kinds, [FindingKind::ForeignNode; 2], "once a chain: {told:?}");
    collector.shut_down().await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_a_chain_is_is_known_after_a_restart_and_from_snapshots() {
    let folder = tempfile::tempdir().expect("folder");
    let mut chain = of_node("a");
    let mut headless = of_node("a");
    let _never_sent = headless.batch();
    for round in 0..3 {
        let bare = Bare::open(folder.path());
        let send = async |batch: v1::AppendRequest, node: Option<&str>| {
            let prepared = prepare(batch, "test").expect("can be kept").sent_by(node);
            bare.log.append(prepared).await.expect("taken").await.expect("answered")
        };
        for of in [&mut chain, &mut headless] {
            of.command(b"", &format!("SELECT {round}, '{}'", "x".repeat(20_000)));
            let batch = of.batch();
            send(batch.clone(), Some("a")).await.expect("its own");
            let refused = send(batch, Some("b")).await.expect_err("another's");
            assert!(matches!(refused, CommitError::Foreign { .. }), "round {round}: {refused}");
        }
        bare.close().await;
    }
}
