//! A server of HTTP that keeps what it got, and clients for it.

use std::{
    future::Future,
    net::TcpListener,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Full};
use hyper::{
    body::{Body, Bytes, Frame, Incoming},
    client::conn,
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{PATIENCE, World};

/// What the server got of one request, so far.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// The server.
#[derive(Clone, Default)]
pub(crate) struct Origin(Arc<Mutex<Vec<Got>>>);

impl Origin {
    /// Serves whoever comes, as long as the runtime is driven.
    pub(crate) fn serve(listener: &TcpListener) -> Self {
        let origin = Self::default();
        let listener = listener.try_clone().unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let served = origin.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let origin = served.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| origin.clone().answer(request));
                    let builder = auto::Builder::new(TokioExecutor::new());
                    drop(builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await);
                });
            }
        });
        origin
    }

    pub(crate) fn got(&self) -> Vec<Got> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn bodies(&self) -> Vec<String> {
        self.got().iter().map(|got| String::from_utf8_lossy(&got.body).into_owned()).collect()
    }

    async fn answer(self, mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
        let path = request.uri().path().to_owned();
        let place = {
            let mut all = self.0.lock().unwrap();
            all.push(Got { headers: request.headers().clone(), body: Vec::new() });
            all.len() - 1
        };
        while let Some(frame) = request.body_mut().frame().await {
            if let Ok(data) = frame?.into_data() {
                self.0.lock().unwrap()[place].body.extend_from_slice(&data);
            }
        }
        let whole = |text: String| Ok(Response::new(Full::new(Bytes::from(text))));
        match path.trim_start_matches('/').split_once('/') {
            Some(("begin", name)) => whole(format!("begun {name}\n")),
            Some(("end", name)) => whole(format!("ended {name}\n")),
            Some(("missing", _)) => {
                let mut response = Response::new(Full::default());
                *response.status_mut() = StatusCode::NOT_FOUND;
                Ok(response)
            }
            Some(("never", _)) => std::future::pending().await,
            _ => whole("done".to_owned()),
        }
    }
}

/// A body that is sent in pieces, from a channel; it ends when the sender goes.
pub(crate) struct Pieces(pub(crate) tokio::sync::mpsc::UnboundedReceiver<&'static str>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0
            .poll_recv(cx)
            .map(|piece| piece.map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes())))))
    }
}

pub(crate) type Sent = Either<Full<Bytes>, Pieces>;

/// A client's connection.
#[derive(Clone)]
pub(crate) enum Client {
    Http1(Arc<tokio::sync::Mutex<conn::http1::SendRequest<Sent>>>),
    Http2(conn::http2::SendRequest<Sent>),
}

/// What a client was answered.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Client {
    pub(crate) async fn http1(world: &World, shard: usize) -> Self {
        let stream = TokioIo::new(TcpStream::connect(world.proxies[shard]).await.unwrap());
        let (sender, connection) = conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        Self::Http1(Arc::new(tokio::sync::Mutex::new(sender)))
    }

    pub(crate) async fn http2(world: &World, shard: usize) -> Self {
        let stream = TokioIo::new(TcpStream::connect(world.proxies[shard]).await.unwrap());
        let (sender, connection) = conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        Self::Http2(sender)
    }

    pub(crate) async fn send(&self, request: Request<Sent>) -> Result<Answered, hyper::Error> {
        let response = match self {
            Self::Http1(sender) => {
                let mut sender = sender.lock().await;
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Self::Http2(sender) => sender.clone().send_request(request).await?,
        };
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(Answered { status: head.status.as_u16(), headers: head.headers, body })
    }

    /// Posts a statement.
    pub(crate) async fn post(&self, path: &str, body: &str) -> Result<Answered, hyper::Error> {
        self.send(request(path, body)).await
    }
}

pub(crate) fn request(path: &str, body: &str) -> Request<Sent> {
    Request::post(format!("http://data.example:8080{path}"))
        .header("host", "data.example:8080")
        .body(Either::Left(Full::new(Bytes::from(body.to_owned()))))
        .unwrap()
}

/// A call whose messages are sent as the test says.
pub(crate) fn call() -> (tokio::sync::mpsc::UnboundedSender<&'static str>, Request<Sent>) {
    let (sender, pieces) = tokio::sync::mpsc::unbounded_channel();
    let request = Request::post("http://data.example/call")
        .header("content-type", "application/grpc")
        .body(Either::Right(Pieces(pieces)))
        .unwrap();
    (sender, request)
}

/// Waits until there is something, while everything else goes on.
#[track_caller]
pub(crate) fn soon<T>(what: &'static str, mut look: impl FnMut() -> Option<T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(tokio::time::Instant::now() < deadline, "waited in vain for {what}, at {caller}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// One end of a connection, byte by byte.
pub(crate) struct Raw(TcpStream);

impl World {
    /// Both ends of a new connection, without a client or server of HTTP.
    pub(crate) async fn raw(&self) -> (Raw, Raw) {
        self.raw_of(0).await
    }

    /// As [`World::raw`], of another shard.
    pub(crate) async fn raw_of(&self, shard: usize) -> (Raw, Raw) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        *self.flows.0.lock().unwrap() = Some(listener.local_addr().unwrap());
        let client = TcpStream::connect(self.proxies[shard]).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        (Raw(client), Raw(server))
    }
}

impl Raw {
    pub(crate) async fn send(&mut self, bytes: &str) {
        self.0.write_all(bytes.as_bytes()).await.unwrap();
    }

    /// Everything up to these bytes.
    pub(crate) async fn until(&mut self, end: &str) -> String {
        let mut read = Vec::new();
        let reading = async {
            while !read.ends_with(end.as_bytes()) {
                read.push(self.0.read_u8().await.unwrap());
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.unwrap();
        String::from_utf8_lossy(&read).into_owned()
    }

    /// Everything up to the end, also where that is a reset.
    pub(crate) async fn rest(&mut self) -> String {
        let mut read = Vec::new();
        drop(tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut read)).await.unwrap());
        String::from_utf8_lossy(&read).into_owned()
    }
}
