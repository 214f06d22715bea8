//! Hands a request to the emulator: plain HTTP/1.1, a connection for each.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, Version, body::Bytes, header, http::request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::serve::Body;

/// Of one hop only (RFC 9110, 7.6.1), and what is said anew.
const LEFT_OUT: [header::HeaderName; 4] =
    [header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH, header::EXPECT];

pub(super) async fn forward(head: request::Parts, body: Bytes, to: SocketAddr) -> Result<Response<Body>> {
    let stream = TcpStream::connect(to).await.with_context(|| format!("cannot reach {to}"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    drop(tokio::spawn(connection));
    let mut request = Request::builder().method(head.method);
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    request = request.uri(path);
    if let Some(authority) = head.uri.authority() {
        request = request.header(header::HOST, authority.as_str());
    }
    // Behind the front it is plaintext: what it gives out as its own address must say that it is not.
    request = request.header("x-forwarded-proto", "https");
    for (name, value) in &head.headers {
        if !LEFT_OUT.contains(name) {
            request = request.header(name, value);
        }
    }
    let answer = sender.send_request(request.body(Full::new(body))?).await?;
    let (mut head, body) = answer.into_parts();
    head.version = Version::default();
    for name in [header::CONNECTION, header::TRANSFER_ENCODING] {
        head.headers.remove(name);
    }
    Ok(Response::from_parts(head, body.boxed_unsync()))
}
