//! Takes connections, reads requests, writes them down, and has them answered.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Result, bail};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::{Response, StatusCode, body::Bytes, header, http::request};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{
    forward,
    log::{Log, Request},
    mirror, tokens,
};
use crate::did;

/// What answers have for a body.
pub(super) type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// Of a request's body; more is refused.
const BODY_LIMIT: u64 = 256 * 1024 * 1024;

/// Numbers connections.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// Hosts that the emulator answers for.
const EMULATED: [&str; 2] = ["bigquery.googleapis.com", "www.googleapis.com"];

pub(super) async fn accept(
    listener: TcpListener,
    tls: TlsAcceptor,
    emulator: Option<SocketAddr>,
    log: Arc<Log>,
) {
    // A listener that fails is gone with its process: the harness sees that.
    while let Ok((stream, peer)) = listener.accept().await {
        let (tls, log) = (tls.clone(), Arc::clone(&log));
        // What clients do to their connections is their business.
        drop(tokio::spawn(async move { connection(stream, peer, tls, emulator, log).await }));
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    tls: TlsAcceptor,
    emulator: Option<SocketAddr>,
    log: Arc<Log>,
) -> Result<()> {
    stream.set_nodelay(true)?;
    let address = stream.local_addr()?;
    let stream = tls.accept(stream).await?;
    let session = stream.get_ref().1;
    let about = Request {
        connection: CONNECTIONS.fetch_add(1, Ordering::Relaxed) + 1,
        peer: peer.ip().to_string(),
        address: address.ip().to_string(),
        server_name: session.server_name().unwrap_or_default().to_owned(),
        alpn: String::from_utf8_lossy(session.alpn_protocol().unwrap_or_default()).into_owned(),
        tls: session.protocol_version().map(|version| format!("{version:?}")).unwrap_or_default(),
        resumed: session.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
        ..Request::default()
    };
    let h2 = about.alpn == "h2";
    let service = hyper::service::service_fn(move |request| {
        let (about, log) = (about.clone(), Arc::clone(&log));
        async move { exchange(request, about, emulator, &log).await }
    });
    let io = TokioIo::new(stream);
    if h2 {
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).max_concurrent_streams(1000).serve_connection(io, service).await?;
    } else {
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.timer(TokioTimer::new()).preserve_header_case(true).serve_connection(io, service).await?;
    }
    Ok(())
}

async fn exchange(
    request: hyper::Request<hyper::body::Incoming>,
    about: Request,
    emulator: Option<SocketAddr>,
    log: &Arc<Log>,
) -> Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let mut line = log.line(describe(&head, about));
    let name = line.request.host.split(':').next().unwrap_or_default();
    if let Some(reply) = tokens::reply(name, head.uri.path()) {
        return tokens::answer(head, body, line, &reply).await;
    }
    let Some(emulator) = emulator.filter(|_| EMULATED.contains(&name)) else {
        return mirror::answer(head, body, line).await;
    };
    let body = read(body, &mut line.request).await?;
    let answer = forward::forward(head, body, emulator).await;
    line.request.status = answer.as_ref().map_or(StatusCode::BAD_GATEWAY, Response::status).as_u16();
    answer.or_else(|error| {
        let text = format!("the emulator did not answer: {error:#}");
        let body = Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync();
        Ok(Response::builder().status(StatusCode::BAD_GATEWAY).body(body)?)
    })
}

/// Fills in what the head says.
pub(super) fn describe(head: &request::Parts, mut about: Request) -> Request {
    about.method = head.method.to_string();
    about.path = head.uri.path().to_owned();
    about.query = head.uri.query().unwrap_or_default().to_owned();
    about.host = head
        .uri
        .authority()
        .map(ToString::to_string)
        .or_else(|| Some(head.headers.get(header::HOST)?.to_str().ok()?.to_owned()))
        .unwrap_or_default();
    about.authorized = head.headers.contains_key(header::AUTHORIZATION);
    about.headers = head
        .headers
        .iter()
        .filter(|(name, _)| **name != header::AUTHORIZATION && **name != header::COOKIE)
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    about.ids = did::ids(about.path.as_bytes());
    about
}

/// The whole body.
pub(super) async fn read(mut body: hyper::body::Incoming, about: &mut Request) -> Result<Bytes> {
    let mut all = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            about.bytes += data.len() as u64;
            if about.bytes > BODY_LIMIT {
                bail!("a body of more than {BODY_LIMIT} bytes");
            }
            all.extend_from_slice(&data);
        }
    }
    about.whole = true;
    about.ids.extend(did::ids(&all));
    Ok(all.into())
}
