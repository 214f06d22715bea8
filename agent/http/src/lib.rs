//! A pair of HTTP endpoints, a server toward the workload and a client toward its server: every exchange is
//! shown, piece by piece, to somebody who says what may go on.
//!
//! Owns HTTP/1.1 and HTTP/2 on both legs. Knows no record, no policy, no protocol above HTTP; nothing above it
//! knows which library speaks HTTP.

use std::{future::Future, rc::Rc};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

mod config;
mod guarded;
mod heard_out;
mod http1;
mod http2;
mod request;
mod response;
pub mod seam;

pub use config::HttpConfig;
use seam::Exchanges;

/// What is spoken, the same on both legs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// HTTP/1.0 and 1.1 (RFC 9112).
    Http1,
    /// HTTP/2 (RFC 9113), from its preface on.
    Http2,
}

/// Why a connection is no longer HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpgradeReason {
    /// 101 Switching Protocols (RFC 9110 section 7.8).
    Upgrade,
    /// CONNECT and a 2xx answer (RFC 9110 section 9.3.6).
    Connect,
}

/// A connection that goes on as something else: both streams, and what was read of them already.
#[derive(Debug)]
pub struct Upgraded<C, S> {
    /// Toward the client.
    pub client: C,
    /// Bytes of the client's that the server has not had yet.
    pub from_client: Bytes,
    /// Toward the server.
    pub server: S,
    /// Bytes of the server's that the client has not had yet.
    pub from_server: Bytes,
    /// Why.
    pub reason: UpgradeReason,
}

/// How a pair ended. By then each exchange has seen its end.
#[derive(Debug)]
pub enum Ended<C, S> {
    /// In order, by either side.
    Closed,
    /// The client went away, reset, or broke the protocol; one line.
    Client(String),
    /// The server did; one line.
    Server(String),
    /// Not HTTP any more.
    Upgraded(Box<Upgraded<C, S>>),
    /// We were told to stop.
    Stopped,
    /// A fault of ours; one line.
    Failed(String),
}

/// Serves one client's connection with one connection to its server until one of them ends, or until `stop`
/// does: then it ends at once, with a GOAWAY where there is one to say.
///
/// Never fails and never waits for more than the two sockets, what `exchanges` waits for, and
/// [`HttpConfig::linger`] at the end. When the future is dropped, each exchange is cut.
pub async fn serve<C, S, X>(
    client: C,
    server: S,
    version: Version,
    config: &HttpConfig,
    exchanges: Rc<X>,
    stop: impl Future<Output = ()>,
) -> Ended<C, S>
where
    C: AsyncRead + AsyncWrite + Unpin + 'static,
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    X: Exchanges,
{
    match version {
        Version::Http1 => Box::pin(http1::serve(client, server, config, exchanges, stop)).await,
        Version::Http2 => Box::pin(http2::serve(client, server, config, exchanges, stop)).await,
    }
}
