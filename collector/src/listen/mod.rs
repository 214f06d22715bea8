//! Addresses to listen on, who may come, and who came.
//!
//! TCP only with mutual TLS, plaintext only on a Unix socket. Knows the services only as routes.

mod certificate;
mod counted;
mod tcp;
mod tls;
mod unix;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, UnixListener},
    sync::{Semaphore, watch},
    task::JoinHandle,
};
use tonic::{
    Request, Status,
    service::Routes,
    transport::{
        Server,
        server::{TcpConnectInfo, TlsConnectInfo, UdsConnectInfo},
    },
};

use self::certificate::names;
use crate::config::{Address, Listener};

/// Connections of one listener; more are closed at once.
const CONNECTIONS: usize = 1024;
/// Streams of one connection.
const STREAMS: u32 = 128;

/// Why a listener did not come up.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// Which.
        address: String,
        /// The system's own words.
        source: io::Error,
    },
    /// A file of certificates or keys.
    #[error("cannot read {what} {path}: {source}")]
    File {
        /// What it is for.
        what: &'static str,
        /// Which.
        path: String,
        /// The system's own words.
        source: io::Error,
    },
    /// What is in the files.
    #[error("cannot set up TLS for {address}: {detail}; certificate, key and client CA must be PEM files")]
    Tls {
        /// For which listener.
        address: String,
        /// What is wrong.
        detail: String,
    },
    /// TCP without TLS.
    #[error(
        "{0} is a TCP address without `tls`: name certificate, key and clientCa, or listen on a Unix socket"
    )]
    NoTls(String),
}

/// A listener that serves.
#[derive(Debug)]
pub struct Listening {
    /// Where, with the port that was given for port 0.
    pub address: Address,
    /// Ends when the listener has been drained.
    pub task: JoinHandle<Result<(), tonic::transport::Error>>,
}

/// Begins to serve routes; when `draining` is set, takes no more and ends with the last request.
pub async fn listen(
    listener: &Listener,
    routes: Routes,
    mut draining: watch::Receiver<bool>,
) -> Result<Listening, ListenError> {
    let shutdown = async move {
        // An error means that the sender is gone: the same.
        draining.wait_for(|d| *d).await.ok();
    };
    let server = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20);
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    match &listener.listen {
        Address::Unix(path) => {
            let bound = unix::bind(path)
                .map_err(|source| ListenError::Bind { address: listener.listen.to_string(), source })?;
            let incoming = unix::accept(bound, listener.refuse_cgroups.clone(), room);
            let router = Server::add_routes(&mut { server }, routes);
            let path = path.clone();
            let task = tokio::spawn(async move {
                let served = router.serve_with_incoming_shutdown(incoming, shutdown).await;
                unix::remove(&path);
                served
            });
            Ok(Listening { address: listener.listen.clone(), task })
        }
        Address::Tcp(wanted) => {
            let current = tls::follow(listener).await?;
            let failed = |source| ListenError::Bind { address: listener.listen.to_string(), source };
            let bound = TcpListener::bind(wanted).await.map_err(failed)?;
            let address = Address::Tcp(bound.local_addr().map_err(failed)?);
            let admit = tonic::service::InterceptorLayer::new(admit(listener.allowed_names.clone()));
            let mut server = server.layer(admit);
            let incoming = tcp::accept(bound, current, room);
            let router = server.add_routes(routes);
            let task = tokio::spawn(router.serve_with_incoming_shutdown(incoming, shutdown));
            Ok(Listening { address, task })
        }
    }
}

/// Lets those in whose certificate has one of the names; everybody whom the CA vouches for where none are
/// named.
fn admit(
    allowed: Vec<String>,
) -> impl FnMut(Request<()>) -> Result<Request<()>, Status> + Clone + Send + Sync + 'static {
    move |request: Request<()>| {
        if allowed.is_empty() {
            return Ok(request);
        }
        let known = certificate_names(request.extensions());
        if known.iter().any(|name| allowed.contains(name)) {
            return Ok(request);
        }
        tracing::warn!(names = ?known, "certificate is not among the allowed names");
        Err(Status::permission_denied(format!(
            "the certificate's names {known:?} are not among this listener's allowedNames"
        )))
    }
}

type TlsInfo = TlsConnectInfo<TcpConnectInfo>;

fn certificate_names(extensions: &tonic::Extensions) -> Vec<String> {
    let certificates = extensions.get::<TlsInfo>().and_then(TlsConnectInfo::peer_certs);
    certificates.and_then(|c| c.first().map(|c| names(c))).unwrap_or_default()
}

/// The node that the client's certificate names, `NODE` of `verbatim://node/NODE`, as the issuer gives it. `None`
/// where it names none, and on a Unix socket.
#[must_use]
pub fn peer_node<T>(request: &Request<T>) -> Option<String> {
    let names = certificate_names(request.extensions());
    names.iter().find_map(|name| name.strip_prefix("verbatim://node/")).map(str::to_owned)
}

/// Who sent a request, for the log: names of the client's certificate, or user and process of a Unix socket.
#[must_use]
pub fn peer_name<T>(request: &Request<T>) -> String {
    let extensions = request.extensions();
    if let Some(info) = extensions.get::<TlsInfo>() {
        let from = info.get_ref().remote_addr().map(|a: SocketAddr| a.to_string()).unwrap_or_default();
        return format!("certificate {} from {from}", certificate_names(extensions).join(", "));
    }
    match extensions.get::<UdsConnectInfo>().and_then(|i| i.peer_cred) {
        Some(peer) => format!("uid {} pid {}", peer.uid(), peer.pid().unwrap_or_default()),
        None => "in-process".to_owned(),
    }
}

/// For [`unix::accept`]'s callers, which need no other name of it.
type Bound = UnixListener;
