//! Where the collector is, and how one connects to it.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::issued::{Issued, IssuedTarget};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer that does not answer for this long is gone, although nobody said so.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Files of a mutual TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Roots, PEM.
    pub ca: PathBuf,
    /// Own certificate with its chain, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Name in the collector's certificate, where it is not the address's host.
    pub server_name: Option<String>,
}

/// Why an address cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Neither form.
    #[error(
        "collector `{0}`: write `unix:/PATH` or `https://HOST:PORT`; there is no plaintext over the network"
    )]
    Address(String),
    /// TLS without certificates.
    #[error("collector `{0}` needs the files of a mutual TLS: ca, certificate and key")]
    NoTls(String),
    /// A file of them.
    #[error("collector's TLS: cannot read {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What they hold, or the address's form.
    #[error("collector `{address}`: {cause}")]
    Unusable {
        /// The address.
        address: String,
        /// What is wrong.
        cause: String,
    },
}

/// A collector's Ingest.
#[derive(Clone, Debug)]
pub struct Target(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Unix(PathBuf),
    Issued(IssuedTarget),
    Network { address: String, endpoint: Box<Endpoint> },
}

impl Target {
    /// A socket of this machine.
    #[must_use]
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self(Kind::Unix(path.into()))
    }

    /// From a configured address. Reads the TLS files.
    ///
    /// # Errors
    /// See [`TargetError`].
    pub fn parse(address: &str, tls: Option<&TlsFiles>) -> Result<Self, TargetError> {
        if let Some(path) = address.strip_prefix("unix:").filter(|path| path.starts_with('/')) {
            return Ok(Self::unix(path));
        }
        if !address.starts_with("https://") {
            return Err(TargetError::Address(address.to_owned()));
        }
        let files = tls.ok_or_else(|| TargetError::NoTls(address.to_owned()))?;
        let mut config = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read(&files.ca)?))
            .identity(Identity::from_pem(read(&files.certificate)?, read(&files.key)?));
        if let Some(name) = &files.server_name {
            config = config.domain_name(name);
        }
        // tonic takes the provider that the process has installed.
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let endpoint =
            Endpoint::from_shared(address.to_owned()).and_then(|endpoint| endpoint.tls_config(config));
        let endpoint = endpoint
            .map_err(|error| TargetError::Unusable { address: address.to_owned(), cause: chain(&error) })?;
        Ok(Self(Kind::Network { address: address.to_owned(), endpoint: Box::new(endpoint) }))
    }

    /// From a configured address, with a certificate that is given, and given anew, while the agent runs.
    ///
    /// # Errors
    /// See [`TargetError`].
    pub fn issued(
        address: &str,
        ca: &Path,
        server_name: Option<&str>,
        certificate: Issued,
    ) -> Result<Self, TargetError> {
        IssuedTarget::new(address, ca, server_name, certificate).map(|target| Self(Kind::Issued(target)))
    }

    /// A channel that connects when it is used, and again when it was lost.
    pub(crate) fn channel(&self) -> Channel {
        match &self.0 {
            Kind::Network { endpoint, .. } => configured(Endpoint::clone(endpoint)).connect_lazy(),
            Kind::Issued(target) => {
                let target = target.clone();
                let connector = tower::service_fn(move |_| {
                    let target = target.clone();
                    async move { target.connect().await.map(TokioIo::new) }
                });
                configured(Endpoint::from_static("http://collector.invalid"))
                    .connect_with_connector_lazy(connector)
            }
            Kind::Unix(path) => {
                let path = path.clone();
                let connector = tower::service_fn(move |_| {
                    let path = path.clone();
                    async move { UnixStream::connect(path).await.map(TokioIo::new) }
                });
                // The address is a formality: the connector decides where to connect.
                configured(Endpoint::from_static("http://collector.invalid"))
                    .connect_with_connector_lazy(connector)
            }
        }
    }
}

fn configured(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
}

fn read(path: &Path) -> Result<Vec<u8>, TargetError> {
    fs::read(path).map_err(|source| TargetError::File { path: path.to_owned(), source })
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Unix(path) => write!(formatter, "unix:{}", path.display()),
            Kind::Network { address, .. } => formatter.write_str(address),
            Kind::Issued(target) => formatter.write_str(target.address()),
        }
    }
}

/// An error with its causes: tonic's own text is just "transport error".
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plaintext_is_for_unix_sockets_only() {
        for bad in ["http://collector:4317", "collector:4317", "unix:relative", ""] {
            assert!(matches!(Target::parse(bad, None), Err(TargetError::Address(_))), "{bad}");
        }
        assert!(matches!(Target::parse("https://collector:4317", None), Err(TargetError::NoTls(_))));
        assert_eq!(Target::parse("unix:/run/x.sock", None).expect("unix").to_string(), "unix:/run/x.sock");
    }

    #[test]
    fn a_missing_certificate_is_named() {
        let file = |name: &str| PathBuf::from(format!("/nonexistent/{name}.pem"));
        let files = TlsFiles {
            ca: file("ca"),
            certificate: file("certificate"),
            key: file("key"),
            server_name: None,
        };
        let error = Target::parse("https://collector:4317", Some(&files)).expect_err("no files");
        assert!(error.to_string().contains("/nonexistent/ca.pem"), "{error}");
    }
}
