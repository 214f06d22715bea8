//! Small requests over verified TLS to endpoints that the configuration names: key sets, tokeninfo.
//!
//! Owns bounds in time and size. Follows no redirect, speaks no plaintext, and puts nothing of what it sends into
//! an error.

use std::{sync::Arc, time::Duration};

use http::{Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use verbatim_agent_config::UpstreamRoots;
use verbatim_tls::{Roots, RootsError};

/// Of the whole exchange.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer, bytes.
const MOST_BYTES: usize = 1 << 20;

/// Why nothing can be fetched at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetcherError {
    /// Nobody would be believed.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// The library's.
    #[error("TLS for key sets and tokeninfo cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// Why one request came to nothing. Holds nothing of what was sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Late,
    #[error("not an `https://` address with a host")]
    Address,
    #[error("cannot be reached: {0}")]
    Connect(std::io::Error),
    #[error("broke HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("answered with status {0}")]
    Status(u16),
    #[error("the answer is cut, or longer than {MOST_BYTES} bytes")]
    Body,
}

/// Makes requests.
pub(super) struct Fetcher(TlsConnector);

impl Fetcher {
    pub(super) fn new(believed: &UpstreamRoots) -> Result<Self, FetcherError> {
        let mut roots = Roots::default();
        if believed.system {
            roots.add_system()?;
        }
        for path in &believed.files {
            roots.add_path(path)?;
        }
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(roots.certificates().iter().cloned());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(store)
            .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// The body of a page.
    pub(super) async fn get(&self, url: &str) -> Result<Bytes, FetchError> {
        self.send(url, Request::get(path(url)?), Bytes::new()).await
    }

    /// The answer to a form. What is in the form goes nowhere else.
    pub(super) async fn post_form(&self, url: &str, form: Bytes) -> Result<Bytes, FetchError> {
        let request = Request::post(path(url)?);
        let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        self.send(url, request, form).await
    }

    async fn send(
        &self,
        url: &str,
        request: http::request::Builder,
        body: Bytes,
    ) -> Result<Bytes, FetchError> {
        timeout(PATIENCE, Box::pin(self.exchange(url, request, body)))
            .await
            .map_err(|_late| FetchError::Late)?
    }

    async fn exchange(
        &self,
        url: &str,
        request: http::request::Builder,
        body: Bytes,
    ) -> Result<Bytes, FetchError> {
        let url: Uri = url.parse().map_err(|_invalid| FetchError::Address)?;
        let authority =
            url.authority().filter(|_| url.scheme_str() == Some("https")).ok_or(FetchError::Address)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let port = authority.port_u16().unwrap_or(443);
        let name = ServerName::try_from(host.to_owned()).map_err(|_invalid| FetchError::Address)?;
        let tcp = TcpStream::connect((host, port)).await.map_err(FetchError::Connect)?;
        let tls = self.0.connect(name, tcp).await.map_err(FetchError::Connect)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await?;
        let request =
            request.header(header::HOST, authority.as_str()).header(header::ACCEPT, "application/json");
        let request = request.body(Full::new(body)).map_err(|_invalid| FetchError::Address)?;
        let answered = async {
            let answer = sender.send_request(request).await?;
            if !answer.status().is_success() {
                return Err(FetchError::Status(answer.status().as_u16()));
            }
            let body = Limited::new(answer.into_body(), MOST_BYTES).collect().await;
            Ok(body.map_err(|_cut| FetchError::Body)?.to_bytes())
        };
        tokio::pin!(answered);
        tokio::select! {
            answer = &mut answered => answer,
            _ended = connection => answered.await,
        }
    }
}

fn path(url: &str) -> Result<String, FetchError> {
    let url: Uri = url.parse().map_err(|_invalid| FetchError::Address)?;
    Ok(url.path_and_query().map_or("/", |path| path.as_str()).to_owned())
}
