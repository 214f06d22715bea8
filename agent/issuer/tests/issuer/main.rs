//! The issuer against an API server that can be made to say anything.

mod admission;
mod bundles;
mod fake;
mod nodes;
mod own;

use std::{path::Path, sync::Arc, time::Duration};

use fake::Fake;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use verbatim_issuer::{Running, config, start};

const WEBHOOK: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/verbatim";
const SECRET: &str = "/api/v1/namespaces/verbatim/secrets/verbatim-issuer";
const AUTHORITIES: &str = "/api/v1/namespaces/verbatim/configmaps/verbatim-authorities";

fn bundle_of(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps/verbatim-trust")
}

/// A cluster and its issuer.
struct Lab {
    fake: Arc<Fake>,
    issuer: Running,
    roots: tempfile::NamedTempFile,
}

impl Lab {
    async fn start(more: &str) -> Self {
        let fake = Fake::start().await;
        fake.put(
            WEBHOOK,
            json!({"webhooks": [{"name": "pods.verbatim", "clientConfig": {"service": {"name": "x"}}}]}),
        );
        fake.put("/api/v1/namespaces/shop", json!({}));
        Self::over(fake, more).await
    }

    async fn over(fake: Arc<Fake>, more: &str) -> Self {
        let roots = tempfile::NamedTempFile::new().expect("file");
        let company = verbatim_tls::PlainAuthority::make("company", Duration::from_secs(3600)).expect("made");
        std::fs::write(roots.path(), company.certificate_pem()).expect("written");
        let text = format!(
            "apiVersion: verbatim.v1\nkind: Issuer\nlisten: 127.0.0.1:0\nnames: [issuer.test, 127.0.0.1]\n\
             bundle: {{namespaceSelector: 'capture=on', system: false, extraRoots: [{}]}}\n{more}",
            roots.path().display()
        );
        let config = config::parse(&text, Path::new("issuer.yaml")).expect("configuration");
        let issuer = start(fake.client(), &config).await.expect("started");
        Self { fake, issuer, roots }
    }

    /// Asks the issuer, as somebody who believes what its ConfigMap says.
    async fn ask(&self, method: &str, path: &str, token: Option<&str>, body: Vec<u8>) -> (u16, Vec<u8>) {
        let authorities = eventually("the authorities are told", || self.fake.get(AUTHORITIES)).await;
        let mut store = RootCertStore::empty();
        let pem = authorities["data"]["servers.pem"].as_str().expect("PEM").to_owned();
        store.add_parsable_certificates(CertificateDer::pem_slice_iter(pem.as_bytes()).flatten());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("TLS");
        let config = config.with_root_certificates(store).with_no_client_auth();
        let stream = TcpStream::connect(self.issuer.address).await.expect("connect");
        let name = ServerName::try_from("issuer.test").expect("name");
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("handshake");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        let mut request = http::Request::builder().method(method).uri(path).header("host", "issuer.test");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Full::new(axum::body::Bytes::from(body))).expect("request");
        let response = sender.send_request(request).await.expect("answer");
        let status = response.status().as_u16();
        (status, response.into_body().collect().await.expect("body").to_bytes().to_vec())
    }

    async fn metric(&self, line: &str) -> bool {
        let (_, text) = self.ask("GET", "/metrics", None, vec![]).await;
        String::from_utf8_lossy(&text).lines().any(|one| one == line)
    }
}

/// Waits for something to be there.
async fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    for _ in 0..600 {
        if let Some(found) = found() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what}: not within 12 s");
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
