//! Key sets and tokeninfo from a real endpoint behind TLS: answered, refused, away, not verified.

use std::{
    net::SocketAddr,
    sync::atomic::AtomicU16,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use verbatim_agent_config::UpstreamRoots;

use super::*;

/// An endpoint that answers every request in the same way.
struct Endpoint {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    requests: Arc<std::sync::Mutex<Vec<String>>>,
    root: tempfile::NamedTempFile,
    serving: JoinHandle<()>,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Endpoint {
    async fn start(body: &'static str) -> Self {
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let root = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(root.path(), certified.cert.pem()).expect("written");
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key.into())
            .expect("a certificate and its key");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (status, requests) = (Arc::new(AtomicU16::new(200)), Arc::new(std::sync::Mutex::new(Vec::new())));
        let (says, heard) = (Arc::clone(&status), Arc::clone(&requests));
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = vec![0; 4096];
                let mut length = 0;
                while let Ok(more @ 1..) = stream.read(&mut request[length..]).await {
                    length += more;
                    let text = String::from_utf8_lossy(&request[..length]);
                    let Some((head, rest)) = text.split_once("\r\n\r\n") else { continue };
                    let promised = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    if rest.len() >= promised.and_then(|length| length.parse().ok()).unwrap_or(0) {
                        break;
                    }
                }
                heard
                    .lock()
                    .expect("no panic")
                    .push(String::from_utf8_lossy(&request[..length]).into_owned());
                let status = says.load(Ordering::Relaxed);
                let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.ok();
                stream.shutdown().await.ok();
            }
        });
        Self { address, status, requests, root, serving }
    }

    fn url(&self) -> String {
        format!("https://localhost:{}/answer", self.address.port())
    }

    fn fetcher(&self) -> Arc<fetch::Fetcher> {
        let believed = UpstreamRoots { system: false, files: vec![self.root.path().to_owned()] };
        Arc::new(fetch::Fetcher::new(&believed).expect("roots"))
    }
}

/// Asks until something is so.
async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

#[test]
fn a_token_that_was_not_seen_is_asked_about_once_and_later_commands_know() {
    runtime().block_on(async {
        let endpoint = Endpoint::start(r#"{"email":"other@p.iam.gserviceaccount.com","sub":"1"}"#).await;
        let generation = Arc::new(AtomicU64::new(0));
        let (tokeninfo, _task) =
            Tokeninfo::start(endpoint.url(), endpoint.fetcher(), Arc::clone(&generation));
        assert_eq!(tokeninfo.ask(b"ya29.a+b"), None);
        assert_eq!(tokeninfo.ask(b"ya29.a+b"), None, "nobody waits");
        until("an answer", || generation.load(Ordering::Acquire) == 1).await;
        let told = tokeninfo.ask(b"ya29.a+b").expect("known now");
        assert_eq!(told.email, "other@p.iam.gserviceaccount.com");
        let requests = endpoint.requests.lock().expect("no panic").clone();
        assert_eq!(requests.len(), 1, "{requests:?}");
        assert!(requests[0].starts_with("POST /answer ") && requests[0].ends_with("access_token=ya29.a%2Bb"));
    });
}

#[test]
fn a_token_that_nobody_knows_stays_unknown_and_a_full_queue_drops() {
    runtime().block_on(async {
        let endpoint = Endpoint::start(r#"{"error":"invalid_token"}"#).await;
        endpoint.status.store(400, Ordering::Relaxed);
        let generation = Arc::new(AtomicU64::new(0));
        let (tokeninfo, _task) =
            Tokeninfo::start(endpoint.url(), endpoint.fetcher(), Arc::clone(&generation));
        for n in 0..1000_u32 {
            assert_eq!(tokeninfo.ask(&n.to_be_bytes()), None);
        }
        let asked = || endpoint.requests.lock().expect("no panic").len();
        until("those that had room", || asked() >= 60).await;
        assert_eq!((tokeninfo.ask(&0_u32.to_be_bytes()), generation.load(Ordering::Acquire)), (None, 0));
        assert!(asked() < 200, "{}", asked());
    });
}

#[test]
fn an_endpoint_that_is_not_verified_or_away_gets_nothing_and_says_nothing_of_what_was_sent() {
    runtime().block_on(async {
        let (endpoint, other) = (Endpoint::start("{}").await, Endpoint::start("{}").await);
        let stranger = other.fetcher();
        let form = || hyper::body::Bytes::from_static(b"access_token=s3cret");
        let error = stranger.post_form(&endpoint.url(), form()).await.expect_err("not verified").to_string();
        assert!(error.contains("certificate") && !error.contains("s3cret"), "{error}");
        assert!(endpoint.requests.lock().expect("no panic").is_empty());
        for url in ["http://localhost/", "https:///x", "nonsense"] {
            let error = stranger.post_form(url, form()).await.expect_err(url).to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
        let (url, fetcher) = (endpoint.url(), endpoint.fetcher());
        drop(endpoint);
        assert!(fetcher.get(&url).await.is_err());
    });
}

#[test]
fn keys_are_fetched_and_the_last_good_ones_stay_while_they_are_away() {
    const KEYS: &str = r#"{"keys":[{"kid":"a","kty":"RSA","n":"AQAB","e":"AQAB"}]}"#;
    runtime().block_on(async {
        let endpoint = Endpoint::start(KEYS).await;
        let file = tempfile::NamedTempFile::new().expect("a file");
        let issuer = |name: &str, jwks| config::Issuer {
            issuer: name.to_owned(),
            audiences: vec!["a".to_owned()],
            jwks,
            workload_claim: "workload".to_owned(),
        };
        let fetched = config::Jwks { file: None, url: Some(endpoint.url()) };
        let read = config::Jwks { file: Some(file.path().to_owned()), url: None };
        let mut tasks = Tasks::default();
        let fetcher = endpoint.fetcher();
        let issuers =
            issuers::start(&[issuer("url", fetched), issuer("file", read)], Some(&fetcher), &mut tasks.0);
        assert!(issuers.iter().all(|issuer| issuer.keys.load().is_none()), "nothing is known yet");
        until("the published keys", || issuers[0].keys.load().is_some()).await;
        std::fs::write(file.path(), KEYS).expect("written");
        until("the file", || issuers[1].keys.load().is_some()).await;
        std::fs::write(file.path(), "no keys any more").expect("written");
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(issuers[1].keys.load().is_some(), "the last good set stays");
    });
}
