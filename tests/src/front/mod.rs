//! A TLS front as Google has one: terminates TLS, speaks HTTP/1.1 and HTTP/2, and writes down every request
//! before it is answered. Behind it is the emulator, or a mirror of its own.
//!
//! Owns the listeners and their TLS. Knows nothing of the product: it is the second witness.

mod forward;
mod log;
mod metadata;
mod mirror;
mod serve;
mod tokens;

use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use serde::{Deserialize, Serialize};

pub use log::Request;
pub(crate) use log::read;
pub use metadata::{Account, serve as metadata};

/// What a front is to do; a JSON file.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where it listens.
    pub listeners: Vec<Listener>,
    /// File for its log, one JSON object a line.
    pub log: PathBuf,
    /// The emulator, plain HTTP/1.1; listened for before anything else is done.
    #[serde(default)]
    pub emulator: Option<SocketAddr>,
}

/// One address that is listened on.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Address and port.
    pub address: SocketAddr,
    /// PEM; the leaf first.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
    /// What is asked of clients.
    #[serde(default)]
    pub clients: ClientCertificates,
}

/// Whether clients are asked for a certificate.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientCertificates {
    /// They are not.
    #[default]
    None,
    /// They may have one of this authority (PEM).
    Requested(PathBuf),
    /// Without one of this authority (PEM) there is no connection.
    Required(PathBuf),
}

/// Runs a front until it is killed; says `listening` when all its addresses are.
pub fn run(config: &Config) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let log = Arc::new(log::Log::create(&config.log)?);
    runtime.block_on(async {
        if let Some(emulator) = config.emulator {
            // The harness gives up when this takes too long.
            while tokio::net::TcpStream::connect(emulator).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let mut accepting = Vec::new();
        for one in &config.listeners {
            let tls = tokio_rustls::TlsAcceptor::from(Arc::new(one.tls()?));
            let listener = tokio::net::TcpListener::bind(one.address)
                .await
                .with_context(|| format!("cannot listen on {}", one.address))?;
            accepting.push(serve::accept(listener, tls, config.emulator, Arc::clone(&log)));
        }
        announce()?;
        let running: Vec<_> = accepting.into_iter().map(tokio::spawn).collect();
        for one in running {
            one.await?;
        }
        Ok(())
    })
}

/// Tells the harness that connections are taken.
fn announce() -> Result<()> {
    use std::io::Write as _;
    let mut output = std::io::stdout().lock();
    output.write_all(b"listening\n").and_then(|()| output.flush()).context("standard output is gone")
}

impl Listener {
    fn tls(&self) -> Result<ServerConfig> {
        let chain = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .with_context(|| format!("cannot read {}", self.certificate.display()))?;
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .with_context(|| format!("cannot read {}", self.key.display()))?;
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?;
        let mut config = match &self.clients {
            ClientCertificates::None => builder.with_no_client_auth(),
            ClientCertificates::Requested(authority) => {
                builder.with_client_cert_verifier(verifier(authority, true)?)
            }
            ClientCertificates::Required(authority) => {
                builder.with_client_cert_verifier(verifier(authority, false)?)
            }
        }
        .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn verifier(authority: &PathBuf, optional: bool) -> Result<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    let pem = fs::read(authority).with_context(|| format!("cannot read {}", authority.display()))?;
    for one in CertificateDer::pem_slice_iter(&pem) {
        roots.add(one?)?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    Ok(if optional { builder.allow_unauthenticated() } else { builder }.build()?)
}
