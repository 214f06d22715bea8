//! TLS of a listener, from files that may be replaced while it serves.

use std::{io, path::Path, sync::Arc, time::Duration};

use aws_lc_rs::digest::{Context, SHA256};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tokio::sync::watch;

use super::ListenError;
use crate::config::{Listener, Tls};

/// Between two looks at the files. Their content is looked at: how a file is put in its place (a rename, a link that
/// Kubernetes turns, a write) says nothing about it.
const PAUSE: Duration = Duration::from_secs(1);

/// What new connections are met with. Connections that there are keep what they began with.
pub(super) type Current = watch::Receiver<Arc<ServerConfig>>;

/// Reads the files, and goes on to do so until nobody asks for the result any more. A change that cannot be used,
/// half of one not least, leaves in force what was there before, and is logged once.
pub(super) async fn follow(listener: &Listener) -> Result<Current, ListenError> {
    let address = listener.listen.to_string();
    let Some(tls) = listener.tls.clone() else { return Err(ListenError::NoTls(address)) };
    let files = Files::read(&tls).await?;
    let config = files.config().map_err(|detail| ListenError::Tls { address: address.clone(), detail })?;
    let (sender, receiver) = watch::channel(Arc::new(config));
    let mut used = files.digest();
    tokio::spawn(async move {
        // Of the last look, and that which was logged last.
        let (mut before, mut said) = (None, None);
        loop {
            tokio::select! {
                () = sender.closed() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
            match renew(&tls, &used).await {
                Ok(None) => (before, said) = (None, None),
                Ok(Some((config, digest))) => {
                    sender.send_replace(Arc::new(config));
                    used = digest;
                    (before, said) = (None, None);
                    tracing::info!(address, "certificates have changed: new connections get the new ones");
                }
                Err(problem) => {
                    // Seen once it may be half of a change.
                    if before.as_ref() == Some(&problem) && said.as_ref() != Some(&problem) {
                        tracing::error!(
                            address,
                            problem,
                            "certificates have changed and cannot be used; the old ones stay"
                        );
                        said = Some(problem.clone());
                    }
                    before = Some(problem);
                }
            }
        }
    });
    Ok(receiver)
}

type Digest = [u8; 32];

/// What is to be used from now on, if it is not `used` already.
async fn renew(tls: &Tls, used: &Digest) -> Result<Option<(ServerConfig, Digest)>, String> {
    let files = Files::read(tls).await.map_err(|e| e.to_string())?;
    let digest = files.digest();
    if digest == *used {
        return Ok(None);
    }
    files.config().map(|config| Some((config, digest)))
}

/// As they were read.
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Vec<u8>,
}

impl Files {
    async fn read(tls: &Tls) -> Result<Self, ListenError> {
        Ok(Self {
            certificate: read("certificate", &tls.certificate).await?,
            key: read("key", &tls.key).await?,
            client_ca: read("clientCa", &tls.client_ca).await?,
        })
    }

    fn digest(&self) -> Digest {
        let mut context = Context::new(&SHA256);
        for part in [&self.certificate, &self.key, &self.client_ca] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut digest = Digest::default();
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }

    /// A configuration with sessions of its own: nobody resumes one that another authority vouched for.
    fn config(&self) -> Result<ServerConfig, String> {
        let provider = Arc::new(default_provider());
        let mut roots = RootCertStore::empty();
        let (_, ignored) = roots.add_parsable_certificates(certificates("clientCa", &self.client_ca)?);
        if ignored > 0 {
            tracing::warn!(ignored, "certificates of clientCa that nobody can be verified by");
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|e| format!("clientCa: {e}"))?;
        let chain = certificates("certificate", &self.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|e| format!("key: {e}"))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|e| format!("certificate and key: {e}"))?;
        config.alpn_protocols.push(b"h2".to_vec());
        Ok(config)
    }
}

async fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, ListenError> {
    let failed = |source: io::Error| ListenError::File { what, path: path.display().to_string(), source };
    tokio::fs::read(path).await.map_err(failed)
}

fn certificates(what: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if all.is_empty() => Err(format!("{what} holds no certificate")),
        Ok(all) => Ok(all),
        Err(e) => Err(format!("{what}: {e}")),
    }
}
