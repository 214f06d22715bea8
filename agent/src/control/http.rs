//! `/metrics`, `/livez` and `/readyz`. Answers nothing else, and goes nowhere: no proxy, whatever is asked of it.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use super::{
    exposition,
    health::{self, Health},
    metrics,
    orders::Orders,
};

/// Connections at once.
const MOST: usize = 32;
/// For a request's head.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries for an address that somebody else has: a predecessor, most likely.
const TRY_AGAIN: Duration = Duration::from_millis(500);
/// How often it is looked whether a successor wants the address.
const LOOK: Duration = Duration::from_millis(500);

/// What is asked about.
pub(crate) struct Subject {
    pub(crate) health: Arc<Health>,
    pub(crate) orders: Arc<Orders>,
}

/// Answers until another agent takes over, which wants the address.
pub(crate) async fn serve(address: SocketAddr, subject: Arc<Subject>) {
    let listener = listen(address).await;
    tracing::info!(%address, "metrics and health");
    let room = Arc::new(Semaphore::new(MOST));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = superseded(&subject.health) => return,
        };
        match accepted {
            Ok((stream, _)) => {
                // Who comes on top is let go: this is no service.
                let Ok(place) = Arc::clone(&room).try_acquire_owned() else { continue };
                let subject = Arc::clone(&subject);
                tokio::spawn(async move {
                    talk(stream, subject).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "asking for metrics failed");
                tokio::time::sleep(TRY_AGAIN).await;
            }
        }
    }
}

async fn superseded(health: &Health) {
    while !health.found().superseded {
        tokio::time::sleep(LOOK).await;
    }
}

async fn listen(address: SocketAddr) -> TcpListener {
    let mut said = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => {
                if !said {
                    tracing::error!(%error, %address, "`metrics.listen` cannot be used: it is tried again");
                    said = true;
                }
                tokio::time::sleep(TRY_AGAIN).await;
            }
        }
    }
}

async fn talk(stream: TcpStream, subject: Arc<Subject>) {
    let answer = service_fn(move |request| {
        let answer = answer(&request, &subject);
        async move { Ok::<_, Infallible>(answer) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), answer)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection for metrics broke");
    }
}

fn answer(request: &Request<Incoming>, subject: &Subject) -> Response<Full<Bytes>> {
    let (method, uri) = (request.method(), request.uri());
    // Asked for another host's page: who does so takes us for a proxy.
    if method == Method::CONNECT || uri.authority().is_some() {
        return plain(StatusCode::BAD_REQUEST, "this is no proxy\n".to_owned());
    }
    if method != Method::GET && method != Method::HEAD {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, String::new());
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match uri.path() {
        "/metrics" => {
            let mut page = plain(StatusCode::OK, metrics::render(&subject.health, &subject.orders));
            page.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(exposition::CONTENT_TYPE));
            page
        }
        "/livez" => conditions(&subject.health.live()),
        "/readyz" => conditions(&subject.health.ready()),
        _ => plain(StatusCode::NOT_FOUND, "/metrics, /livez, /readyz\n".to_owned()),
    }
}

fn conditions(conditions: &health::Conditions) -> Response<Full<Bytes>> {
    let (good, text) = health::report(conditions);
    plain(if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text)
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
