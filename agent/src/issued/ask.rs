//! One question to the issuer, over TLS that only its own authority vouches for.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use verbatim_agent_config::ClusterIssuer;
use verbatim_issuer_api::{LONGEST_ANSWER, NodeAnswer, NodeRequest, PATH};
use zeroize::Zeroizing;

/// For all of it.
const PATIENCE: Duration = Duration::from_secs(40);
/// Of what the issuer says where it gives nothing, bytes.
const LONGEST_REASON: usize = 512;

/// There is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// A file.
    #[error("cannot read {path}: {source}")]
    File { path: PathBuf, source: io::Error },
    /// Not a name.
    #[error("`{0}` is no name of a server")]
    Name(String),
    /// It is not to be reached, or not believed.
    #[error("the issuer at {address} cannot be reached: {source}")]
    Reach { address: String, source: io::Error },
    /// HTTP.
    #[error("the issuer at {address} does not answer: {why}")]
    Answer { address: String, why: String },
    /// It gives nothing.
    #[error("the issuer gives nothing ({status}): {why}")]
    Refused { status: StatusCode, why: String },
}

/// Where it is asked.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    address: String,
    server_name: String,
    ca: PathBuf,
    token_file: PathBuf,
}

fn read(path: &Path) -> Result<Vec<u8>, AskError> {
    std::fs::read(path).map_err(|source| AskError::File { path: path.to_owned(), source })
}

impl Door {
    pub(crate) fn new(config: &ClusterIssuer) -> Self {
        let host = config.address.rsplit_once(':').map_or(config.address.as_str(), |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Self {
            server_name: config.server_name.clone().unwrap_or_else(|| host.to_owned()),
            address: config.address.clone(),
            ca: config.ca.clone(),
            token_file: config.token_file.clone(),
        }
    }

    /// Asks once. Both files are read now: tokens are renewed by kubelet, authorities by the issuer.
    pub(crate) async fn ask(&self, request: &NodeRequest) -> Result<NodeAnswer, AskError> {
        let answered = timeout(PATIENCE, self.talk(request)).await;
        answered.map_err(|_elapsed| self.silent(format!("no answer within {} s", PATIENCE.as_secs())))?
    }

    fn silent(&self, why: String) -> AskError {
        AskError::Answer { address: self.address.clone(), why }
    }

    async fn talk(&self, request: &NodeRequest) -> Result<NodeAnswer, AskError> {
        let reach = |source| AskError::Reach { address: self.address.clone(), source };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&read(&self.ca)?).flatten());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| reach(io::Error::other(error)))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(self.server_name.clone())
            .map_err(|_invalid| AskError::Name(self.server_name.clone()))?;
        let token = Zeroizing::new(read(&self.token_file)?);
        let mut bearer = Zeroizing::new(b"Bearer ".to_vec());
        bearer.extend_from_slice(token.trim_ascii());
        let mut bearer = HeaderValue::from_bytes(&bearer).map_err(|_invalid| AskError::File {
            path: self.token_file.clone(),
            source: io::Error::new(io::ErrorKind::InvalidData, "it holds no token"),
        })?;
        bearer.set_sensitive(true);

        let stream = TcpStream::connect(&self.address).await.map_err(reach)?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(reach)?;
        let silent = |error: hyper::Error| self.silent(error.to_string());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(silent)?;
        let connection = tokio::spawn(connection);
        let body = serde_json::to_vec(request).map_err(|error| self.silent(error.to_string()))?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(PATH)
            .header(HOST, &self.server_name)
            .header(AUTHORIZATION, bearer)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.silent(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(silent)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
        connection.abort();
        let body = body.map_err(|error| self.silent(error.to_string()))?.to_bytes();
        if status != StatusCode::OK {
            let why = String::from_utf8_lossy(body.get(..LONGEST_REASON).unwrap_or(&body));
            let why = why.chars().filter(|c| !c.is_control()).collect();
            return Err(AskError::Refused { status, why });
        }
        // Its own words would repeat what is secret.
        serde_json::from_slice(&body).map_err(|_unreadable| self.silent("no JSON as expected".to_owned()))
    }
}
