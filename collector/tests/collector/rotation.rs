//! Certificates that are replaced while the collector serves.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use crate::{
    network::{Authority, Network, connect, write},
    support::{Place, wait_until},
};

/// Beside, then renamed, as whoever renews certificates does it.
fn put(folder: &Path, name: &str, text: &str) {
    let (beside, path) = (folder.join("new"), folder.join(name));
    fs::write(&beside, text).and_then(|()| fs::rename(&beside, path)).expect("written");
}

async fn eventually<F: Future<Output = bool>>(what: &str, mut reached: impl FnMut() -> F) {
    for _ in 0..600 {
        if reached().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("waited a minute in vain until {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rotated_client_authority_lets_new_nodes_in_and_keeps_those_of_the_removed_one_out() {
    let network = Network::new(&[]).await;
    let (old, new) = (&network.nodes, Authority::new());
    let connection = network.connect(&network.collector.ingest, Some(old.issue("node-1.test"))).await;
    let connection = connection.expect("connects");
    write(connection.clone()).await.expect("an old node writes");
    network.ingest(Some(new.issue("node-2.test"))).await.expect_err("not yet");

    let both = old.0.pem() + &new.0.pem();
    put(network.place.path(), "nodes.pem", &both);
    let arrives = async || network.ingest(Some(new.issue("node-2.test"))).await.is_ok();
    eventually("a node of the new authority is let in", arrives).await;
    network.ingest(Some(old.issue("node-1.test"))).await.expect("the old one is believed beside it");

    put(network.place.path(), "nodes.pem", &new.0.pem());
    let refused = async || network.ingest(Some(old.issue("node-1.test"))).await.is_err();
    eventually("a node of the removed authority is kept out", refused).await;
    network.ingest(Some(new.issue("node-2.test"))).await.expect("the new one stays");
    write(connection).await.expect("what is under way goes on");
    network.collector.shut_down().await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn renewed_certificate_is_what_new_connections_are_shown() {
    let mut network = Network::new(&[]).await;
    let node = || Some(network.nodes.issue("node-1.test"));
    let connection = network.connect(&network.collector.ingest, node()).await.expect("connects");
    let renewed = Authority::new();
    let (certificate, key) = renewed.issue("collector.test");
    put(network.place.path(), "key.pem", &key);
    put(network.place.path(), "certificate.pem", &certificate);
    let to = network.collector.ingest.clone();
    let former = std::mem::replace(&mut network.server, renewed);
    let shown = async || network.connect(&to, Some(network.nodes.issue("node-1.test"))).await.is_ok();
    eventually("the new certificate is shown", shown).await;
    network.ingest(Some(network.nodes.issue("node-1.test"))).await.expect("and good for writing");
    write(connection).await.expect("what is under way goes on");
    network.server = former;
    let gone = network.connect(&to, Some(network.nodes.issue("node-1.test"))).await;
    gone.expect_err("the former one is shown to nobody");
    network.collector.shut_down().await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_certificates_that_cannot_be_used_leave_the_former_in_force_and_are_logged() {
    let place = Place::new();
    let (server, nodes) = (Authority::new(), Authority::new());
    let (certificate, key) = server.issue("collector.test");
    let files = [("certificate.pem", &certificate), ("key.pem", &key), ("nodes.pem", &nodes.0.pem())];
    files.iter().for_each(|(name, text)| put(place.path(), name, text));
    let folder = place.path().display();
    let config = format!(
        "apiVersion: verbatim.v1\nkind: Collector\ndata: {folder}/data\n\
         ingest:\n  listen: tcp:127.0.0.1:0\n  tls: {{certificate: {folder}/certificate.pem, \
         key: {folder}/key.pem, clientCa: {folder}/nodes.pem}}\naudit: {{listen: 'unix:{folder}/audit.sock'}}\n"
    );
    fs::write(place.path().join("collector.yaml"), config).expect("written");
    let _process = place.spawn_configured(&place.path().join("collector.yaml"));
    let ready = fs::read_to_string(place.path().join("ready")).expect("ready");
    let to = ready.split(['=', ' ']).find_map(|word| word.strip_prefix("tcp:")).expect("an address");
    let to: SocketAddr = to.parse().expect("an address");
    let said = || fs::read_to_string(place.path().join("stderr")).expect("standard error");
    let complaints = || said().matches("the old ones stay").count();
    let arrives = async |server: &Authority, nodes: &Authority| {
        write(connect(to, server, Some(nodes.issue("node-1.test"))).await?).await
    };
    arrives(&server, &nodes).await.expect("a node writes");

    let (_, foreign_key) = Authority::new().issue("collector.test");
    let cut = certificate[..certificate.len() / 2].to_owned();
    let cases = [
        ("nodes.pem", Some("not PEM"), "clientCa holds no certificate"),
        ("certificate.pem", Some(cut.as_str()), "certificate"),
        ("certificate.pem", Some(""), "certificate holds no certificate"),
        (
            "key.pem",
            Some("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
            "certificate and key",
        ),
        ("key.pem", Some(foreign_key.as_str()), "certificate and key"),
        ("nodes.pem", None, "cannot read clientCa"),
    ];
    for (n, (name, text, expected)) in cases.iter().enumerate() {
        match text {
            Some(text) => put(place.path(), name, text),
            None => fs::remove_file(place.path().join(name)).expect("removed"),
        }
        wait_until(&format!("{name} {text:?} is complained of"), || complaints() > n);
        let said = said();
        let last = said.lines().rfind(|line| line.contains("the old ones stay")).expect("said");
        assert!(last.contains(expected), "{expected}: {last}");
        arrives(&server, &nodes).await.expect("the former files are in force");
        files.iter().for_each(|(name, text)| put(place.path(), name, text));
    }
    // Two more looks, and some.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(complaints(), cases.len(), "once each: {}", said());
    let secret: Vec<&str> = key.lines().chain(foreign_key.lines()).filter(|line| line.len() > 40).collect();
    assert!(secret.iter().all(|line| !said().contains(line)), "a key is in the log");

    let renewed = Authority::new();
    let (certificate, key) = renewed.issue("collector.test");
    put(place.path(), "certificate.pem", &certificate);
    put(place.path(), "key.pem", &key);
    eventually("good ones are used after bad ones", async || arrives(&renewed, &nodes).await.is_ok()).await;
}
