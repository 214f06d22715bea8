//! From `--data` or `--collector` to a client of the Audit service.

use std::path::{Path, PathBuf};

use anyhow::Context;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use verbatim_api::v1::audit_client::AuditClient;

use crate::{args::Source, failure::Failure};

/// Largest answer taken, bytes: a page of commands that were all cut at the capture limit.
const ANSWER_LIMIT_BYTES: usize = 1 << 30;

/// The client that all verbs use.
pub(crate) type Client = AuditClient<Channel>;

pub(crate) async fn connect(source: &Source) -> Result<Client, Failure> {
    let channel = match (&source.data, source.collector.as_deref()) {
        (Some(folder), _) => offline(folder).await?,
        (None, Some(address)) => match address.strip_prefix("unix:") {
            Some(path) => unix(PathBuf::from(path)).await?,
            None => network(address, source).await?,
        },
        (None, None) => {
            return Err(Failure::Usage(
                "say where the records are: --data DIR (left by `verbatim-agent run --data DIR`) or --collector \
                 ADDRESS (unix:PATH or https://HOST:PORT; VERBATIM_COLLECTOR)"
                    .to_owned(),
            ));
        }
    };
    Ok(AuditClient::new(channel).max_decoding_message_size(ANSWER_LIMIT_BYTES))
}

/// `run --data DIR` keeps the collector's folder below its own; both may be named.
async fn offline(folder: &Path) -> Result<Channel, Failure> {
    let nested = folder.join("collector");
    let folder = if nested.is_dir() { nested } else { folder.to_owned() };
    verbatim_collector::open_offline(&folder)
        .await
        .map_err(|error| Failure::Unreachable(format!("{}: {error:#}", folder.display())))
}

async fn unix(path: PathBuf) -> Result<Channel, Failure> {
    let shown = path.display().to_string();
    // The address is a formality: the connector below decides where to connect.
    Endpoint::from_static("http://collector.invalid")
        .connect_with_connector(tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        }))
        .await
        .map_err(|error| Failure::Unreachable(format!("{shown}: {}", chain(&error))))
}

async fn network(address: &str, source: &Source) -> Result<Channel, Failure> {
    if !address.starts_with("https://") {
        return Err(Failure::Usage(format!(
            "`{address}`: a collector is unix:PATH or https://HOST:PORT; there is no plaintext over the network"
        )));
    }
    let mut tls = ClientTlsConfig::new();
    match &source.tls_ca {
        Some(path) => tls = tls.ca_certificate(Certificate::from_pem(read(path)?)),
        None => {
            return Err(Failure::Usage("https needs --tls-ca, --tls-certificate and --tls-key".to_owned()));
        }
    }
    if let (Some(certificate), Some(key)) = (&source.tls_certificate, &source.tls_key) {
        tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    let endpoint = Endpoint::from_shared(address.to_owned())
        .and_then(|endpoint| endpoint.tls_config(tls))
        .map_err(|error| Failure::Usage(format!("{address}: {}", chain(&error))))?;
    endpoint.connect().await.map_err(|error| Failure::Unreachable(format!("{address}: {}", chain(&error))))
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).with_context(|| path.display().to_string()).map_err(Failure::Local)
}

/// An error with its causes: tonic's own text is just "transport error".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
