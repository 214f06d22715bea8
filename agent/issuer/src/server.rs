//! The listener: TLS, HTTP, and which path is whose.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;
use verbatim_issuer_api::{LONGEST_REQUEST, PATH};

use crate::{metrics::Metrics, namespaces::Standings, nodes::Desk, own::Own, webhook::Webhook};

/// A pod of etcd's largest size, twice (old and new), and what is around them.
const LONGEST_REVIEW: usize = 4 * 1024 * 1024;
const HANDSHAKE: Duration = Duration::from_secs(10);
const HEADERS: Duration = Duration::from_secs(10);
/// For one answer.
const ANSWER: Duration = Duration::from_secs(30);
/// Connections at the same time; beyond, they wait to be accepted.
const CONNECTIONS: usize = 1024;

/// What answers.
pub(crate) struct Subject {
    /// Nodes.
    pub(crate) desk: Desk,
    /// The API server.
    pub(crate) webhook: Webhook,
    /// Whether Verbatim's own certificates are in their place.
    pub(crate) own_kept: watch::Receiver<bool>,
    /// Bundles.
    pub(crate) standings: Arc<Standings>,
    /// Counters.
    pub(crate) metrics: Arc<Metrics>,
}

/// Who is at the other end.
#[derive(Clone, Copy)]
struct Peer(SocketAddr);

fn router(subject: Arc<Subject>) -> Router {
    Router::new()
        .route(PATH, post(node).layer(DefaultBodyLimit::max(LONGEST_REQUEST)))
        .route("/mutate", post(mutate).layer(DefaultBodyLimit::max(LONGEST_REVIEW)))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(subject)
}

async fn node(
    State(subject): State<Arc<Subject>>,
    axum::Extension(Peer(peer)): axum::Extension<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match timeout(ANSWER, subject.desk.ask(peer.ip(), &headers, &body)).await {
        Ok(Ok(answer)) => Json(answer).into_response(),
        Ok(Err((status, why))) => (status, why).into_response(),
        Err(_elapsed) => (StatusCode::GATEWAY_TIMEOUT, "the API server does not answer").into_response(),
    }
}

async fn mutate(State(subject): State<Arc<Subject>>, body: Bytes) -> Response {
    match subject.webhook.review(&body) {
        Some(review) => Json(review).into_response(),
        None => {
            (StatusCode::BAD_REQUEST, "expected an AdmissionReview of admission.k8s.io/v1").into_response()
        }
    }
}

async fn ready(State(subject): State<Arc<Subject>>) -> Response {
    let conditions =
        [("certificates", *subject.own_kept.borrow()), ("bundles", subject.standings.is_listed())];
    let line = |(name, good): &(&str, bool)| format!("{name}: {}\n", if *good { "ok" } else { "not yet" });
    let text: String = conditions.iter().map(line).collect();
    let all = conditions.iter().all(|(_, good)| *good);
    (if all { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text).into_response()
}

async fn metrics(State(subject): State<Arc<Subject>>) -> String {
    subject.metrics.text(subject.standings.counts())
}

/// Serves until `ending`; what is under way then is left a moment.
///
/// # Errors
/// When TLS cannot be configured.
pub(crate) async fn serve(
    listener: TcpListener,
    own: Arc<Own>,
    subject: Arc<Subject>,
    ending: impl Future<Output = ()>,
) -> Result<(), rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(own);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let router = router(subject);
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    let accept = async {
        loop {
            while connections.try_join_next().is_some() {}
            let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let (acceptor, router) = (acceptor.clone(), router.clone());
                    connections.spawn(async move {
                        if let Err(error) = connection(stream, peer, acceptor, router).await {
                            tracing::debug!(%peer, error, "a connection ended early");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::error!(%error, "connections cannot be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    };
    tokio::select! {
        () = accept => {}
        () = ending => {}
    }
    // Until the last answer is out. Whoever keeps a connection for later loses it.
    let rest = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
    timeout(Duration::from_secs(2), room.acquire_many(rest)).await.ok();
    connections.shutdown().await;
    Ok(())
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    router: Router,
) -> Result<(), String> {
    let elapsed = |_elapsed| "no handshake".to_owned();
    let stream = timeout(HANDSHAKE, acceptor.accept(stream)).await.map_err(elapsed)?;
    let stream = stream.map_err(|error: io::Error| error.to_string())?;
    let service = router.map_request(move |mut request: Request<_>| {
        request.extensions_mut().insert(Peer(peer));
        request
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(HEADERS).max_concurrent_streams(250);
    let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).await;
    served.map_err(|error| error.to_string())
}
