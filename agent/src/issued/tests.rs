//! A node that asks an issuer of the tests' own.

use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use hyper::{Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use verbatim_issuer_api::{Certificate, Intermediate};
use verbatim_tls::{IssuingRoot, LeafName, PlainAuthority};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

/// An issuer that can be made to refuse, and to give what is good for a short time.
struct Issuer {
    address: std::net::SocketAddr,
    roots: [IssuingRoot; 2],
    clients: PlainAuthority,
    servers: PlainAuthority,
    status: AtomicU16,
    asked: AtomicUsize,
    seconds: AtomicUsize,
}

impl Issuer {
    async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let root = |class| IssuingRoot::make(class, &[], HOUR).expect("root");
        let this = Arc::new(Self {
            address: listener.local_addr().expect("address"),
            roots: NameClass::ALL.map(root),
            clients: PlainAuthority::make("clients", HOUR).expect("clients"),
            servers: PlainAuthority::make("servers", HOUR).expect("servers"),
            status: AtomicU16::new(200),
            asked: AtomicUsize::new(0),
            seconds: AtomicUsize::new(3600),
        });
        let identity = this.servers.server(&["issuer.test".to_owned()], HOUR).expect("identity");
        let certificate =
            CertificateDer::from_pem_slice(identity.certificate.as_bytes()).expect("certificate");
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("certificate");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let serving = Arc::clone(&this);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, issuer) = (acceptor.clone(), Arc::clone(&serving));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| answer(Arc::clone(&issuer), request));
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
                });
            }
        });
        this
    }
}

async fn answer(
    issuer: Arc<Issuer>,
    request: hyper::Request<Incoming>,
) -> Result<Response<http_body_util::Full<hyper::body::Bytes>>, hyper::Error> {
    use http_body_util::BodyExt as _;
    issuer.asked.fetch_add(1, Ordering::Relaxed);
    assert_eq!(request.headers()["authorization"], "Bearer t0ken");
    let body = request.into_body().collect().await?.to_bytes();
    let request: NodeRequest = serde_json::from_slice(&body).expect("a request");
    let lifetime =
        Duration::from_secs(u64::try_from(issuer.seconds.load(Ordering::Relaxed)).expect("seconds"));
    let status = issuer.status.load(Ordering::Relaxed);
    let certificate = |issued: verbatim_tls::Issued| Certificate {
        certificate: issued.certificate,
        not_after: issued.not_after,
    };
    let intermediates = issuer.roots.iter().zip(NameClass::ALL).zip([&request.api, &request.databases]);
    let answer = NodeAnswer {
        node: "node-1".to_owned(),
        roots: issuer.roots.iter().map(IssuingRoot::certificate_pem).collect(),
        intermediates: intermediates
            .map(|((root, class), request)| Intermediate {
                class,
                root: root.id(),
                certificate: certificate(root.intermediate(request, "node-1", lifetime).expect("issued")),
            })
            .collect(),
        client: certificate(
            issuer.clients.client(&request.client, "verbatim://node/node-1", lifetime).expect("issued"),
        ),
        fingerprint_key: verbatim_issuer_api::FingerprintKey::new("k1", &[7; 32]),
    };
    let body = match status {
        200 => serde_json::to_vec(&answer).expect("JSON"),
        201 => b"{}".to_vec(),
        _ => b"asked too often".to_vec(),
    };
    let status = if status == 201 { 200 } else { status };
    Ok(Response::builder().status(status).body(body.into()).expect("response"))
}

/// A node, with its files.
struct Node {
    authority: Arc<Authority>,
    collector: Issued,
    fingerprints: Arc<Fingerprints>,
    known: Known,
    task: JoinHandle<()>,
    _files: tempfile::TempDir,
}

impl Node {
    fn start(issuer: &Issuer, token: &str, servers: &PlainAuthority) -> Self {
        let files = tempfile::tempdir().expect("folder");
        let (ca, token_file) = (files.path().join("ca.pem"), files.path().join("token"));
        std::fs::write(&ca, servers.certificate_pem()).expect("written");
        std::fs::write(&token_file, token).expect("written");
        let config = ClusterIssuer {
            address: issuer.address.to_string(),
            server_name: Some("issuer.test".to_owned()),
            ca,
            token_file,
        };
        let authority = Arc::new(Authority::waiting().expect("authority"));
        let collector = Issued::default();
        let fingerprints = Arc::new(Fingerprints::new(FingerprintKey::of_process()));
        let receivers = Receivers {
            authority: Arc::clone(&authority),
            collector: collector.clone(),
            fingerprints: Some(Arc::clone(&fingerprints)),
        };
        let (task, known) = start(&config, receivers);
        Self { authority, collector, fingerprints, known, task, _files: files }
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..500 {
            if holds(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{what}: not within 10 s; {:?}", self.known.now());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn a_node_is_given_everything_and_asks_again_before_it_expires() {
    let issuer = Issuer::start().await;
    issuer.seconds.store(4, Ordering::Relaxed);
    let node = Node::start(&issuer, "t0ken\n", &issuer.servers);
    node.until("ready", |node| node.authority.is_ready() && node.collector.is_set()).await;
    let name = LeafName::parse("bigquery.googleapis.com").expect("name");
    let first = node.authority.leaf(&name).expect("leaf");
    assert_eq!(node.authority.root_for(&name), Some(issuer.roots[0].id()));
    assert_eq!(node.known.now().roots, [issuer.roots[0].id(), issuer.roots[1].id()]);
    node.until("asked again", |_| issuer.asked.load(Ordering::Relaxed) >= 2).await;
    node.until("replaced", |node| node.authority.leaf(&name).is_ok_and(|leaf| leaf.cert != first.cert)).await;
    let expected = FingerprintKey::new("k1", &[7; 32]).of(b"a credential");
    assert_eq!(node.fingerprints.of(b"a credential").code, expected.code);
    assert_eq!(&*node.fingerprints.key_id(), "k1");
}

#[tokio::test]
async fn while_the_issuer_is_away_what_was_given_goes_on_and_then_ends() {
    let issuer = Issuer::start().await;
    issuer.seconds.store(4, Ordering::Relaxed);
    let node = Node::start(&issuer, "t0ken", &issuer.servers);
    node.until("ready", |node| node.authority.is_ready()).await;
    issuer.status.store(503, Ordering::Relaxed);
    node.until("failing", |node| node.known.now().failing.is_some()).await;
    let standing = node.known.now();
    assert!(node.known.given().await);
    assert!(standing.until.is_some() && standing.failing.is_some_and(|why| why.contains("503")));
    node.until("expired", |node| !node.authority.is_ready()).await;
    node.until("not usable", |node| node.known.usable().is_err_and(|why| why.contains("503"))).await;
    issuer.status.store(200, Ordering::Relaxed);
    issuer.seconds.store(3600, Ordering::Relaxed);
    node.until("ready again", |node| node.authority.is_ready()).await;
    node.until("well again", |node| node.known.now().failing.is_none()).await;
    assert_eq!(node.known.usable(), Ok(()));
}

#[tokio::test]
async fn an_issuer_that_refuses_lies_or_is_another_gives_nothing() {
    let issuer = Issuer::start().await;
    for (status, why) in [(429, "429"), (201, "no JSON")] {
        issuer.status.store(status, Ordering::Relaxed);
        let node = Node::start(&issuer, "t0ken", &issuer.servers);
        node.until("failing", |node| node.known.now().failing.is_some()).await;
        let failing = node.known.now().failing.unwrap_or_default();
        assert!(failing.contains(why) && !failing.contains("t0ken"), "{failing}");
        assert!(!node.authority.is_ready() && !node.collector.is_set());
    }
    // Somebody else at its address never sees the token.
    issuer.status.store(200, Ordering::Relaxed);
    let asked = issuer.asked.load(Ordering::Relaxed);
    let others = PlainAuthority::make("others", HOUR).expect("made");
    let node = Node::start(&issuer, "t0ken", &others);
    node.until("failing", |node| node.known.now().failing.is_some()).await;
    assert_eq!(issuer.asked.load(Ordering::Relaxed), asked);
    // No token at all.
    let node = Node::start(&issuer, "\0", &issuer.servers);
    node.until("failing", |node| node.known.now().failing.is_some()).await;
    assert!(node.known.now().failing.is_some_and(|why| why.contains("no token")));
}

#[tokio::test]
async fn whoever_starts_waits_for_the_first_answer_and_not_for_ever() {
    let issuer = Issuer::start().await;
    issuer.status.store(503, Ordering::Relaxed);
    let node = Node::start(&issuer, "t0ken", &issuer.servers);
    assert_eq!(node.known.usable(), Err("the issuer has given none yet".to_owned()));
    assert!(!node.known.given().await, "nothing was given");
    issuer.status.store(200, Ordering::Relaxed);
    node.until("given", |node| node.known.usable().is_ok()).await;
    let other = Node::start(&issuer, "t0ken", &issuer.servers);
    assert!(other.known.given().await);
    assert!(other.authority.is_ready(), "what it waited for is in its place");
}
