//! Verbatim's own certificates.

use serde_json::json;
use verbatim_tls::rustls::pki_types::{CertificateDer, pem::PemObject};

use super::{AUTHORITIES, Lab, WEBHOOK, eventually, text};

const COLLECTOR: &str = "/api/v1/namespaces/verbatim/secrets/verbatim-collector-tls";

#[tokio::test]
async fn the_api_server_is_told_whom_to_believe_and_told_again_when_that_is_changed() {
    let lab = Lab::start("").await;
    let bundle =
        |webhook: &serde_json::Value| text(&webhook["webhooks"][0]["clientConfig"]["caBundle"]).to_owned();
    let told =
        eventually("told", || lab.fake.get(WEBHOOK).map(|now| bundle(&now)).filter(|now| !now.is_empty()))
            .await;
    let authorities = eventually("authorities", || lab.fake.get(AUTHORITIES)).await;
    let clients = text(&authorities["data"]["clients.pem"]).to_owned();
    assert!(CertificateDer::from_pem_slice(clients.as_bytes()).is_ok());
    assert_ne!(authorities["data"]["clients.pem"], authorities["data"]["servers.pem"]);
    lab.fake.put(
        WEBHOOK,
        json!({"webhooks": [{"name": "pods.verbatim", "failurePolicy": "Fail", "clientConfig": {}}]}),
    );
    let again = eventually("told again", || lab.fake.get(WEBHOOK).filter(|now| bundle(now) == told)).await;
    assert_eq!(again["webhooks"][0]["failurePolicy"], "Fail", "nothing else of it is ours to say");
    let (code, _) = lab.ask("GET", "/livez", None, vec![]).await;
    assert_eq!(code, 200);
    lab.issuer.stop().await;
}

#[tokio::test]
async fn the_collector_has_a_certificate_that_nodes_believe_and_keeps_it() {
    let lab = Lab::start("collector: {names: [collector.verbatim.svc]}").await;
    let made = eventually("made", || lab.fake.get(COLLECTOR)).await;
    assert_eq!(made["type"], "kubernetes.io/tls");
    let next =
        Lab::over(std::sync::Arc::clone(&lab.fake), "collector: {names: [collector.verbatim.svc]}").await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(lab.fake.get(COLLECTOR).map(|now| now["data"].clone()), Some(made["data"].clone()));
    next.issuer.stop().await;
    // Another name needs another certificate.
    let next = Lab::over(std::sync::Arc::clone(&lab.fake), "collector: {names: [elsewhere.svc]}").await;
    eventually("anew", || lab.fake.get(COLLECTOR).filter(|now| now["data"] != made["data"])).await;
    next.issuer.stop().await;
    lab.issuer.stop().await;
}
