//! The bundle in each namespace.

use std::{collections::HashSet, sync::atomic::Ordering};

use serde_json::{Value, json};
use verbatim_issuer::{Class, Kept};
use verbatim_tls::rustls::pki_types::{CertificateDer, pem::PemObject};

use super::{Lab, SECRET, bundle_of, eventually, text};

fn certificates(bundle: &Value) -> HashSet<Vec<u8>> {
    let pem = text(&bundle["data"]["bundle.pem"]).to_owned();
    CertificateDer::pem_slice_iter(pem.as_bytes()).flatten().map(|one| one.to_vec()).collect()
}

fn kept(lab: &Lab) -> Kept {
    let secret = lab.fake.get(SECRET).expect("kept");
    let data: k8s_openapi::ByteString =
        serde_json::from_value(secret["data"]["state.json"].clone()).expect("data");
    Kept::read(&data.0).expect("read")
}

#[tokio::test]
async fn every_selected_namespace_gets_the_bundle_and_what_is_changed_is_mended() {
    let lab = Lab::start("").await;
    let first = eventually("the first namespace's bundle", || lab.fake.get(&bundle_of("shop"))).await;
    assert_eq!(certificates(&first).len(), 3, "a company's root and two of ours");
    assert!(!text(&first["binaryData"]["truststore.p12"]).is_empty());
    // A namespace that comes later.
    lab.fake.put("/api/v1/namespaces/late", json!({}));
    eventually("the late namespace's bundle", || lab.fake.get(&bundle_of("late"))).await;
    // Somebody edits it, empties it, removes it.
    for spoiled in [json!({"bundle.pem": "x"}), json!({})] {
        lab.fake.put(&bundle_of("shop"), json!({"data": spoiled}));
        eventually("mended", || lab.fake.get(&bundle_of("shop")).filter(|now| now["data"] == first["data"]))
            .await;
    }
    lab.fake.remove(&bundle_of("shop"));
    eventually("made again", || lab.fake.get(&bundle_of("shop")).filter(|now| now["data"] == first["data"]))
        .await;
    // And then there is rest: our own writing is no reason to write. What was under way may still come.
    let mut tries = 0;
    loop {
        let applied = lab.fake.applied.load(Ordering::Relaxed);
        tokio::time::sleep(std::time::Duration::from_millis(600)).await;
        if lab.fake.applied.load(Ordering::Relaxed) == applied {
            break;
        }
        tries += 1;
        assert!(tries < 5, "it goes on writing");
    }
    lab.issuer.stop().await;
}

#[tokio::test]
async fn a_namespace_whose_bundle_cannot_be_written_is_tried_again() {
    let fake = super::Fake::start().await;
    fake.put(super::WEBHOOK, json!({"webhooks": []}));
    fake.put("/api/v1/namespaces/shop", json!({}));
    fake.put("/api/v1/namespaces/other", json!({}));
    fake.fail(&bundle_of("shop"), 403);
    let lab = Lab::over(fake, "").await;
    eventually("the other's", || lab.fake.get(&bundle_of("other"))).await;
    for _ in 0..100 {
        if lab.metric("verbatim_issuer_bundles{state=\"failing\"} 1").await {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(lab.metric("verbatim_issuer_bundles{state=\"failing\"} 1").await);
    lab.fake.fail(&bundle_of("shop"), 200);
    eventually("tried again", || lab.fake.get(&bundle_of("shop"))).await;
    lab.issuer.stop().await;
}

#[tokio::test]
async fn roots_outlive_their_issuer_and_two_of_them_share_what_is_kept() {
    let lab = Lab::start("").await;
    let before = kept(&lab);
    let first = eventually("the bundle", || lab.fake.get(&bundle_of("shop"))).await;
    let replica = Lab::over(std::sync::Arc::clone(&lab.fake), "").await;
    lab.issuer.stop().await;
    assert_eq!(kept(&replica), before);
    let ours = |bundle: &Value| {
        let root = before.certificates(Class::Api);
        text(&bundle["data"]["bundle.pem"]).contains(root.trim())
    };
    assert!(ours(&first));
    replica.issuer.stop().await;
    let next = Lab::over(lab.fake, "").await;
    assert_eq!(kept(&next), before);
    next.issuer.stop().await;
}

#[tokio::test]
async fn what_another_replica_changes_is_known_by_the_watch_and_not_by_the_next_look() {
    let lab = Lab::start("").await;
    eventually("the bundle", || lab.fake.get(&bundle_of("shop"))).await;
    let day = std::time::Duration::from_secs(86400);
    let rules = verbatim_issuer::Rules {
        names: vec![],
        lifetime: 730 * day,
        lead: 30 * day,
        own_lead: 7 * day,
        signed: day,
    };
    let changes = async {
        for _ in 0..3 {
            let mut changed = kept(&lab);
            changed.begin(Class::Databases, &rules, verbatim_tls::now()).expect("begun");
            let newest = changed.certificates(Class::Databases);
            let data = k8s_openapi::ByteString(changed.write().to_vec());
            lab.fake.put(SECRET, json!({"data": {"state.json": data}}));
            let ends = "-----END CERTIFICATE-----";
            eventually("the bundle with the new root", || {
                let bundle = lab.fake.get(&bundle_of("shop"))?;
                let pem = text(&bundle["data"]["bundle.pem"]);
                let all = newest.split_inclusive(ends).all(|one| pem.contains(one.trim()));
                all.then_some(())
            })
            .await;
        }
    };
    // Three looks from time to time take half a minute.
    tokio::time::timeout(std::time::Duration::from_secs(15), changes).await.expect("told by the watch");
    lab.issuer.stop().await;
}

/// Each has roots of its own to add: an update of the configuration, while both are there.
#[tokio::test]
async fn replicas_that_do_not_agree_on_the_bundle_do_not_write_it_without_end() {
    let lab = Lab::start("").await;
    eventually("the bundle", || lab.fake.get(&bundle_of("shop"))).await;
    let other = Lab::over(std::sync::Arc::clone(&lab.fake), "").await;
    let before = lab.fake.applied.load(Ordering::Relaxed);
    let written = || lab.fake.applied.load(Ordering::Relaxed) - before;
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    // Each undoes the other's: after 0.1 s, 0.2 s, 0.4 s and so on.
    assert!(written() <= 16, "{}", written());
    eventually("each has written", || (written() >= 2).then_some(())).await;
    let [gone, stays] = [&lab, &other].map(|one| std::fs::read_to_string(one.roots.path()).expect("read"));
    lab.issuer.stop().await;
    // Whoever stays has the last word.
    eventually("the other's bundle", || {
        let bundle = lab.fake.get(&bundle_of("shop"))?;
        let pem = text(&bundle["data"]["bundle.pem"]);
        (pem.contains(stays.trim()) && !pem.contains(gone.trim())).then_some(())
    })
    .await;
    other.issuer.stop().await;
}

#[tokio::test]
async fn a_secret_that_was_emptied_is_not_taken_for_a_first_start() {
    let fake = super::Fake::start().await;
    fake.put(SECRET, json!({"data": {}}));
    let config = "apiVersion: verbatim.v1\nkind: Issuer\nlisten: 127.0.0.1:0\nnames: [x]\n\
                  bundle: {namespaceSelector: 'a=b'}\n";
    let config = verbatim_issuer::config::parse(config, std::path::Path::new("i.yaml")).expect("good");
    let error = verbatim_issuer::start(fake.client(), &config).await.expect_err("refused").to_string();
    assert!(error.contains("state.json"), "{error}");
    assert!(fake.get(SECRET).is_some_and(|secret| secret["data"] == json!({})));
}
