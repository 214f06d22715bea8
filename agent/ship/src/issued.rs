//! A collector to which the node shows a certificate that it is given while it runs, and given anew before it expires.
//!
//! Each connection takes the certificate and the roots of its moment; one that is open stays as it is.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwapOption;
use rustls::{
    ClientConfig, RootCertStore, SignatureScheme,
    client::ResolvesClientCert,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    sign::CertifiedKey,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::target::TargetError;

const HANDSHAKE: Duration = Duration::from_secs(10);

/// What is given cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum IssuedError {
    /// Not PEM, or none.
    #[error("the certificate or its key cannot be read")]
    Pem,
    /// Not a key that signs.
    #[error("the certificate's key is not accepted: {0}")]
    Key(#[from] rustls::Error),
}

/// The certificate of the moment; none at first. Shared with whoever is given it.
#[derive(Clone, Debug, Default)]
pub struct Issued(Arc<ArcSwapOption<CertifiedKey>>);

impl Issued {
    /// Shows this one from now on. PEM texts.
    ///
    /// # Errors
    /// See [`IssuedError`].
    pub fn set(&self, certificate: &str, key: &str) -> Result<(), IssuedError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|_unreadable| IssuedError::Pem)?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_unreadable| IssuedError::Pem)?;
        if chain.is_empty() {
            return Err(IssuedError::Pem);
        }
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)?;
        self.0.store(Some(Arc::new(CertifiedKey::new(chain, key))));
        Ok(())
    }

    /// Whether there is one.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load().is_some()
    }
}

impl ResolvesClientCert for Issued {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }

    fn has_certs(&self) -> bool {
        self.is_set()
    }
}

#[derive(Clone)]
pub(crate) struct IssuedTarget {
    /// As configured.
    address: String,
    /// `HOST:PORT`.
    dialled: String,
    name: ServerName<'static>,
    ca: PathBuf,
    certificate: Issued,
}

impl fmt::Debug for IssuedTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedTarget").field("address", &self.address).finish_non_exhaustive()
    }
}

impl IssuedTarget {
    pub(crate) fn new(
        address: &str,
        ca: &Path,
        server_name: Option<&str>,
        certificate: Issued,
    ) -> Result<Self, TargetError> {
        let wrong = || TargetError::Address(address.to_owned());
        let dialled = address.strip_prefix("https://").ok_or_else(wrong)?.trim_end_matches('/');
        let (host, port) = dialled.rsplit_once(':').ok_or_else(wrong)?;
        if port.parse::<u16>().is_err() {
            return Err(wrong());
        }
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = server_name.unwrap_or(host).to_owned();
        let name = ServerName::try_from(name).map_err(|error| TargetError::Unusable {
            address: address.to_owned(),
            cause: error.to_string(),
        })?;
        let (address, dialled) = (address.to_owned(), dialled.to_owned());
        Ok(Self { address, dialled, name, ca: ca.to_owned(), certificate })
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) async fn connect(&self) -> io::Result<TlsStream<TcpStream>> {
        if !self.certificate.is_set() {
            return Err(io::Error::other("the issuer has given no certificate yet"));
        }
        let read = |source: io::Error| {
            let what = format!("cannot read {}: {source}", self.ca.display());
            io::Error::new(source.kind(), what)
        };
        let text = std::fs::read(&self.ca).map_err(read)?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&text).flatten());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_client_cert_resolver(Arc::new(self.certificate.clone()));
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(&self.dialled).await?;
        stream.set_nodelay(true)?;
        let shaken = TlsConnector::from(Arc::new(config)).connect(self.name.clone(), stream);
        tokio::time::timeout(HANDSHAKE, shaken).await.map_err(io::Error::other)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port_with_tls() {
        let target = |address: &str| IssuedTarget::new(address, Path::new("/ca"), None, Issued::default());
        for good in ["https://collector.verbatim.svc:7443", "https://10.0.0.1:7443", "https://[fd00::1]:7443"]
        {
            assert_eq!(target(good).map(|target| target.address().to_owned()).ok(), Some(good.to_owned()));
        }
        for bad in ["http://c:1", "c:1", "https://c", "https://c:x", "https://a b:1"] {
            assert!(target(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn without_a_certificate_nothing_is_dialled() {
        let target = IssuedTarget::new("https://127.0.0.1:1", Path::new("/ca"), None, Issued::default());
        let error = target.expect("target").connect().await.expect_err("no certificate");
        assert!(error.to_string().contains("given no certificate"), "{error}");
        assert!(Issued::default().set("", "").is_err());
    }
}
